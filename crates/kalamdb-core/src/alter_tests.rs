//! ALTER TABLE: rows, files and live queries across schema versions; what is refused; what tells of it.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use log_format::{Role, Seq};
use serde_json::json;

use crate::testing::{Kept, root, session, until};
use crate::tests::{ok, open, refused};
use crate::{
    CATALOG_DIRECTORY, CaughtUp, ChangeFrame, Engine, Error, ErrorCode, ROWS_DIRECTORY, Session,
    SubscribeRequest, Subscription,
};

/// The cells of a table of text, row by row, without its head.
pub(crate) fn cells(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

pub(crate) async fn run(engine: &Engine, who: &Session, statements: &[&str]) {
    for statement in statements {
        ok(engine, who, statement, &[]).await;
    }
}

/// What a query gives now, after a restart, and with both projections rebuilt from the log.
async fn everywhere(engine: Engine, directory: &Path, who: &Session, sql: &str, expected: &[&[&str]]) {
    assert_eq!(cells(&ok(&engine, who, sql, &[]).await), expected, "live");
    engine.close();
    let engine = open(directory);
    assert_eq!(cells(&ok(&engine, who, sql, &[]).await), expected, "restarted");
    engine.close();
    for projection in [ROWS_DIRECTORY, CATALOG_DIRECTORY] {
        std::fs::remove_dir_all(directory.join(projection)).unwrap();
    }
    let engine = open(directory);
    assert_eq!(cells(&ok(&engine, who, sql, &[]).await), expected, "rebuilt");
    engine.close();
}

#[tokio::test]
async fn rows_of_every_version_read_as_rows_of_now() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    run(
        &engine,
        &root(),
        &[
            "CREATE NAMESPACE n; CREATE SHARED TABLE n.t (id BIGINT PRIMARY KEY, a INT NOT NULL, b TEXT)",
            "INSERT INTO n.t VALUES (1, 10, 'one')",
            "ALTER TABLE n.t ADD COLUMN c SMALLINT NOT NULL DEFAULT 7",
            "INSERT INTO n.t VALUES (2, 20, 'two', 2)",
            "ALTER TABLE n.t DROP COLUMN b",
            "INSERT INTO n.t VALUES (3, 30, 3)",
            "ALTER TABLE n.t ADD b TEXT, ADD at TIMESTAMP DEFAULT NOW()",
            "INSERT INTO n.t (id, a, c, b, at) VALUES (4, 40, 4, 'four', NULL)",
            "ALTER TABLE n.t RENAME a TO renamed, MODIFY renamed DECIMAL(12, 2)",
            "ALTER SHARED TABLE n.t ALTER COLUMN c TYPE BIGINT",
            "INSERT INTO n.t (id, renamed, c) VALUES (5, 50.25, 5000000000)",
            "UPDATE n.t SET c = c + 1 WHERE id = 1 AND c = 7 AND renamed = 10",
        ],
    )
    .await;
    let new_rows = ok(&engine, &root(), "SELECT id FROM n.t WHERE at IS NOT NULL", &[]).await;
    assert_eq!(cells(&new_rows), [["5"]], "a function fills new rows only");
    let expected: [&[&str]; 5] = [
        &["1", "10.00", "8", ""],
        &["2", "20.00", "2", ""],
        &["3", "30.00", "3", ""],
        &["4", "40.00", "4", "four"],
        &["5", "50.25", "5000000000", ""],
    ];
    let all = "SELECT id, renamed, c, b FROM n.t ORDER BY id";
    everywhere(engine, directory.path(), &root(), all, &expected).await;
}

#[tokio::test]
async fn every_widening_keeps_its_values() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let uuid = "0198c6e2-0000-7000-8000-0000000000ab";
    let widenings = [
        ("SMALLINT", "INT", "-7", "-7"),
        ("SMALLINT", "BIGINT", "-7", "-7"),
        ("SMALLINT", "FLOAT", "-7", "-7.0"),
        ("SMALLINT", "DOUBLE", "-7", "-7.0"),
        ("SMALLINT", "DECIMAL(7, 2)", "-7", "-7.00"),
        ("INT", "BIGINT", "2147483647", "2147483647"),
        ("INT", "DOUBLE", "-5", "-5.0"),
        ("INT", "DECIMAL(10, 0)", "2147483647", "2147483647"),
        ("BIGINT", "DECIMAL(20, 1)", "-9223372036854775808", "-9223372036854775808.0"),
        ("FLOAT", "DOUBLE", "0.5", "0.5"),
        ("DECIMAL(4, 2)", "DECIMAL(38, 20)", "12.34", "12.34000000000000000000"),
        ("DATE", "TIMESTAMP", "'1969-12-31'", "1969-12-31T00:00:00"),
        ("UUID", "TEXT", &format!("'{uuid}'"), uuid),
        ("JSON", "TEXT", "'[1]'", "[1]"),
        ("VARCHAR(10)", "VARCHAR(20)", "'x'", "x"),
    ];
    for (from, to, literal, shown) in widenings {
        let create =
            format!("CREATE USER TABLE t (id INT PRIMARY KEY, v {from}, w {from} DEFAULT {literal})");
        run(
            &engine,
            &root(),
            &[
                &create,
                &format!("INSERT INTO t VALUES (1, {literal}, NULL)"),
                "INSERT INTO t (id) VALUES (2)",
                &format!("ALTER TABLE t ADD COLUMN late {from} NOT NULL DEFAULT {literal}"),
                &format!("ALTER TABLE t MODIFY v {to}, MODIFY w {to}, MODIFY late {to}"),
                "INSERT INTO t (id, v) SELECT id + 2, v FROM t",
                "UPDATE t SET v = w WHERE id = 2",
            ],
        )
        .await;
        let found = ok(&engine, &root(), "SELECT id, v, w, late FROM t ORDER BY id", &[]).await;
        let expected = [
            ["1", shown, "", shown],
            ["2", shown, shown, shown],
            ["3", shown, shown, shown],
            ["4", "", shown, shown],
        ];
        assert_eq!(cells(&found), expected, "{from} to {to}");
        let compared = format!("SELECT id FROM t WHERE v = {literal} AND late = {literal} ORDER BY id");
        assert_eq!(
            cells(&ok(&engine, &root(), &compared, &[]).await),
            [["1"], ["2"], ["3"]],
            "{from} to {to}"
        );
        let returned = ok(&engine, &root(), "DELETE FROM t WHERE id = 1 RETURNING v", &[]).await;
        assert_eq!(cells(&returned), [[shown]]);
        ok(&engine, &root(), "DROP TABLE t", &[]).await;
    }
    engine.close();
}

#[tokio::test]
async fn a_table_without_rows_takes_a_column_that_must_have_a_value() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    run(&engine, &root(), &["CREATE USER TABLE t (id BIGINT PRIMARY KEY)"]).await;
    let from = engine.published();
    ok(&engine, &ann, "INSERT INTO t VALUES (1), (2)", &[]).await;
    for column in
        ["n INT NOT NULL", "n INT NOT NULL DEFAULT NULL", "n BIGINT NOT NULL DEFAULT SNOWFLAKE_ID()"]
    {
        let (code, text) = refused(&engine, &root(), &format!("ALTER TABLE t ADD COLUMN {column}")).await;
        assert_eq!(code, ErrorCode::ConstraintViolation, "{column}: {text}");
        assert!(text.contains("the table has rows"), "{text}");
    }
    ok(&engine, &ann, "DELETE FROM t", &[]).await;
    ok(&engine, &root(), "ALTER TABLE t ADD COLUMN n BIGINT NOT NULL DEFAULT SNOWFLAKE_ID()", &[]).await;
    // Tombstones and old events have nothing in it.
    let all = "SELECT id, n, _deleted FROM t ORDER BY id";
    assert_eq!(cells(&ok(&engine, &ann, all, &[]).await), [["1", "", "true"], ["2", "", "true"]]);
    let sink = Kept::with_room(9);
    let mut subscription = subscribe(&engine, &ann, "SELECT * FROM t", Some(from), &sink).await;
    let (mut last, mut seen) = (from, Vec::new());
    wait_for(&mut subscription, &sink, &mut last, &mut seen, 4).await;
    assert_eq!(seen, [1, 2, 1, 2], "inserts and deletes from before the column");
    let none = "INSERT INTO t (id, n) VALUES (1, NULL)";
    assert_eq!(refused(&engine, &ann, none).await.0, ErrorCode::ConstraintViolation);
    ok(&engine, &ann, "INSERT INTO t (id) VALUES (1)", &[]).await;
    drop(subscription);
    engine.close();
}

#[tokio::test]
async fn what_cannot_be_altered_is_refused_and_why() {
    use ErrorCode::{AlreadyExists, InvalidSql, TableNotFound, Unsupported};
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    run(&engine, &root(), &[
        "CREATE NAMESPACE n; CREATE USER TABLE n.t (a BIGINT, b TEXT, c INT, d TIMESTAMP, PRIMARY KEY (a, b))",
        "CREATE USER TABLE n.generated (x INT); CREATE STREAM TABLE n.s (x INT) MAX_BUFFER 3",
    ])
    .await;
    let before = engine.published();
    for (sql, code, said) in [
        ("ALTER TABLE n.t DROP COLUMN a", Unsupported, "part of the primary key"),
        ("ALTER TABLE n.t RENAME COLUMN b TO bb", Unsupported, "part of the primary key"),
        ("ALTER TABLE n.t MODIFY COLUMN b JSON", Unsupported, "part of the primary key"),
        ("ALTER TABLE n.generated DROP COLUMN _id", Unsupported, "part of the primary key"),
        ("ALTER TABLE n.t ADD COLUMN e INT PRIMARY KEY", Unsupported, "primary key"),
        ("ALTER TABLE n.t DROP COLUMN _seq", Unsupported, "system's own"),
        ("ALTER TABLE n.t RENAME c TO _deleted", InvalidSql, "system's own"),
        ("ALTER TABLE n.t RENAME c TO _id", InvalidSql, "system's own"),
        ("ALTER TABLE n.t ADD COLUMN _updated INT", InvalidSql, "system's own"),
        ("ALTER TABLE n.s ADD COLUMN y INT", Unsupported, "stream"),
        ("ALTER STREAM TABLE n.s SET (MAX_BUFFER = 5)", Unsupported, "stream"),
        ("ALTER TABLE n.t MODIFY c SMALLINT", InvalidSql, "BIGINT, DOUBLE and DECIMAL"),
        ("ALTER TABLE n.t ALTER COLUMN c TYPE FLOAT", InvalidSql, "may lose values"),
        ("ALTER TABLE n.t MODIFY d DATE", InvalidSql, "it stays what it is"),
        ("ALTER TABLE n.t MODIFY c BIGINT NOT NULL", Unsupported, "only the type"),
        ("ALTER TABLE n.t ALTER COLUMN c SET NOT NULL", Unsupported, "ALTER COLUMN c TYPE type"),
        ("ALTER TABLE n.t ADD COLUMN c INT", AlreadyExists, "n.t.c"),
        ("ALTER TABLE n.t RENAME c TO d", AlreadyExists, "n.t.d"),
        ("ALTER TABLE n.t DROP COLUMN nothing", InvalidSql, "it has a, b, c, d"),
        ("ALTER TABLE n.t DROP c, RENAME c TO e", InvalidSql, "no column c any more"),
        ("ALTER TABLE n.t ADD COLUMN e POINT", InvalidSql, "no type"),
        ("ALTER TABLE n.t ADD COLUMN e INT DEFAULT random()", InvalidSql, "no default"),
        ("ALTER TABLE n.t RENAME TO other", Unsupported, "renaming a table"),
        ("ALTER TABLE n.t SET (TYPE = 'SHARED')", Unsupported, "changing TYPE"),
        ("ALTER TABLE n.t SET (LOCATION = 'x')", Unsupported, "changing LOCATION"),
        ("ALTER TABLE n.t SET (ACCESS_LEVEL = 'public')", InvalidSql, "no option ACCESS_LEVEL"),
        ("ALTER TABLE n.t SET (FLUSH_POLICY = 'often')", InvalidSql, "flush policy"),
        ("ALTER TABLE n.t FROB COLUMN c", InvalidSql, "ADD COLUMN c type"),
        ("ALTER SHARED TABLE n.t DROP COLUMN c", InvalidSql, "user table"),
        ("ALTER TABLE n.nowhere DROP COLUMN c", TableNotFound, "n.nowhere"),
    ] {
        let (found, text) = refused(&engine, &root(), sql).await;
        assert_eq!(found, code, "{sql}: {text}");
        assert!(text.contains(said), "{sql}: {text}");
    }
    let user = session("ann", Role::User);
    for sql in ["ALTER TABLE n.t DROP COLUMN c", "ALTER NAMESPACE n SET OPTIONS (a = 'b')"] {
        assert_eq!(refused(&engine, &user, sql).await.0, ErrorCode::PermissionDenied);
    }
    for nothing in [
        "ALTER TABLE IF EXISTS n.nowhere DROP COLUMN c",
        "ALTER TABLE n.t DROP COLUMN IF EXISTS nothing",
        "ALTER TABLE n.t ADD COLUMN IF NOT EXISTS c INT",
        "ALTER TABLE n.t MODIFY c INTEGER",
        "ALTER TABLE n.t RENAME c TO c",
    ] {
        ok(&engine, &root(), nothing, &[]).await;
    }
    assert_eq!(engine.published(), before);
    engine.close();
}

async fn subscribe(
    engine: &Engine,
    who: &Session,
    sql: &str,
    from: Option<Seq>,
    sink: &Arc<Kept>,
) -> Subscription {
    let request = SubscribeRequest {
        connection_id: "c".into(),
        query_id: sql.into(),
        sql: sql.to_owned(),
        from,
        ..SubscribeRequest::default()
    };
    engine.subscribe(who, request, Arc::clone(sink) as _).await.unwrap()
}

fn names(subscription: &Subscription) -> Vec<String> {
    subscription.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// The ids that frames carry, after checking that the frames hang together.
fn ids(frames: &[ChangeFrame], last: &mut Seq) -> Vec<i64> {
    let mut found = Vec::new();
    for frame in frames {
        assert_eq!(frame.prev_seq, *last, "the chain is broken");
        *last = frame.payload.seq;
        let batch = frame.payload.rows.as_ref().or(frame.payload.old_rows.as_ref()).unwrap();
        found.extend(batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values());
    }
    found
}

/// What a subscriber is given: what the router gave comes before what is then read, unless they take turns meanwhile.
fn given(subscription: &mut Subscription, sink: &Kept) -> (Vec<String>, Vec<ChangeFrame>) {
    let (mut announced, mut frames) = (Vec::new(), sink.take());
    loop {
        let CaughtUp { schema, frames: found, live, .. } = subscription.catch_up(2).unwrap();
        if let Some(schema) = schema {
            let columns: Vec<&str> =
                schema.schema.fields().iter().map(|field| field.name().as_str()).collect();
            announced.push(format!("{}: {}", schema.version, columns.join(" ")));
        }
        frames.extend(found);
        if live {
            break;
        }
    }
    frames.extend(sink.take());
    frames.sort_by_key(|frame| frame.payload.seq);
    (announced, frames)
}

/// Takes what comes until `enough` ids were seen; the router gives what it has in its own time.
async fn wait_for(
    subscription: &mut Subscription,
    sink: &Kept,
    last: &mut Seq,
    seen: &mut Vec<i64>,
    enough: usize,
) {
    until("all rows come", || {
        seen.extend(ids(&given(subscription, sink).1, last));
        seen.len() >= enough
    })
    .await;
}

const WATCHED: &str =
    "CREATE USER TABLE t (id BIGINT PRIMARY KEY, body TEXT, tag TEXT, n INT NOT NULL DEFAULT 1)";

#[tokio::test]
async fn live_slow_and_resumed_subscribers_see_every_change_through_an_alter() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), WATCHED, &[]).await;
    ok(&engine, &ann, "INSERT INTO t (id, body, tag) VALUES (1, 'a', 'x')", &[]).await;
    let start = engine.published();
    // Everything, a filter that is routed by a constant behind the column that goes, and one that is not.
    let queries =
        ["SELECT id, tag, n FROM t", "SELECT id FROM t WHERE tag = 'x'", "SELECT id FROM t WHERE n > 0"];
    let mut watchers = Vec::new();
    for query in queries {
        for room in [0, 1, 100] {
            let sink = Kept::with_room(room);
            let mut subscription = subscribe(&engine, &ann, query, Some(start), &sink).await;
            assert!(subscription.catch_up(10).unwrap().live);
            watchers.push((query, subscription, sink, start, Vec::new()));
        }
    }
    for (step, statement) in [
        "INSERT INTO t (id, body, tag) VALUES (2, 'b', 'x'), (3, 'c', 'y')",
        "ALTER TABLE t ADD COLUMN extra TEXT DEFAULT 'e'",
        "INSERT INTO t (id, tag) VALUES (4, 'x')",
        "ALTER TABLE t DROP COLUMN body",
        "UPDATE t SET extra = 'f' WHERE id = 2",
        "ALTER TABLE t MODIFY extra VARCHAR(9), SET (DELETED_RETENTION = '1d')",
        "DELETE FROM t WHERE id = 1",
        "INSERT INTO t (id, tag) VALUES (5, 'x'), (6, 'z')",
    ]
    .into_iter()
    .enumerate()
    {
        let who = if statement.starts_with("ALTER") { root() } else { ann.clone() };
        ok(&engine, &who, statement, &[]).await;
        for (at, (_, subscription, sink, last, seen)) in watchers.iter_mut().enumerate() {
            // Some look after each statement, some rarely.
            if at % 3 == 2 || step % 3 == at % 3 {
                let (announced, frames) = given(subscription, sink);
                assert!(announced.is_empty(), "{announced:?}: what it selects has not changed");
                seen.extend(ids(&frames, last));
            }
        }
    }
    for (query, mut subscription, sink, mut last, mut seen) in watchers {
        let expected: &[i64] = match query {
            "SELECT id FROM t WHERE tag = 'x'" => &[2, 4, 2, 1, 5],
            _ => &[2, 3, 4, 2, 1, 5, 6],
        };
        wait_for(&mut subscription, &sink, &mut last, &mut seen, expected.len()).await;
        assert_eq!(seen, expected, "{query}");
        // One that comes from before all of it sees the same.
        let sink = Kept::with_room(0);
        let mut resumed = subscribe(&engine, &ann, query, Some(start), &sink).await;
        let (mut last, mut seen) = (start, Vec::new());
        wait_for(&mut resumed, &sink, &mut last, &mut seen, expected.len()).await;
        assert_eq!(seen, expected, "{query}, resumed");
    }
    engine.close();
}

#[tokio::test]
async fn new_columns_of_a_star_are_announced_before_their_first_row() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), WATCHED, &[]).await;
    let sink = Kept::with_room(100);
    let mut live = subscribe(&engine, &ann, "SELECT * FROM t", None, &sink).await;
    let mut last = live.start_seq();
    assert!(live.catch_up(10).unwrap().live);
    assert_eq!(names(&live), ["id", "body", "tag", "n", "_seq"]);
    ok(&engine, &ann, "INSERT INTO t (id) VALUES (1)", &[]).await;
    ok(&engine, &root(), "ALTER TABLE t ADD COLUMN more INT DEFAULT 5", &[]).await;
    ok(&engine, &ann, "INSERT INTO t (id, more) VALUES (2, 6)", &[]).await;
    let (mut announced, mut frames) = (Vec::new(), Vec::new());
    until("both rows and the columns come", || {
        let (told, more) = given(&mut live, &sink);
        announced.extend(told);
        frames.extend(more);
        frames.len() >= 2 && !announced.is_empty()
    })
    .await;
    assert_eq!(announced, ["2: id body tag n more _seq"]);
    assert_eq!(names(&live), ["id", "body", "tag", "n", "more", "_seq"]);
    assert_eq!(ids(&frames, &mut last), [1, 2]);
    assert_eq!(more_of(frames.last().unwrap()), 6);

    let sink = Kept::with_room(0);
    let mut resumed = subscribe(&engine, &ann, "SELECT * FROM t", Some(live.start_seq()), &sink).await;
    assert_eq!(names(&resumed), names(&live), "it begins with the columns of now");
    let mut frames = Vec::new();
    until("both rows come", || {
        let (told, more) = given(&mut resumed, &sink);
        assert!(told.is_empty(), "{told:?}");
        frames.extend(more);
        frames.len() >= 2
    })
    .await;
    assert_eq!(frames.iter().map(more_of).collect::<Vec<_>>(), [5, 6]);
    drop((live, resumed));
    engine.close();
}

/// The value of the column `more` in a frame of one row.
fn more_of(frame: &ChangeFrame) -> i32 {
    let rows = frame.payload.rows.as_ref().unwrap();
    rows.column_by_name("more").unwrap().as_primitive::<Int32Type>().value(0)
}

#[tokio::test]
async fn a_column_that_a_live_query_names_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), WATCHED, &[]).await;
    let sink = Kept::with_room(100);
    let sql = "SELECT id, upper(tag) AS loud FROM t WHERE n + 1 > 2";
    let listening = subscribe(&engine, &ann, sql, None, &sink).await;
    for (statement, column) in [
        ("ALTER TABLE t DROP COLUMN tag", "default.t.tag"),
        ("ALTER TABLE t RENAME tag TO label", "default.t.tag"),
        ("ALTER TABLE t ADD COLUMN more INT, MODIFY n BIGINT", "default.t.n"),
    ] {
        let (code, text) = refused(&engine, &root(), statement).await;
        assert_eq!(code, ErrorCode::ConstraintViolation, "{statement}: {text}");
        assert!(text.contains(column) && text.contains(&format!("c-{sql}")), "{statement}: {text}");
    }
    ok(&engine, &root(), "ALTER TABLE t RENAME body TO text, ADD COLUMN more INT", &[]).await;
    drop(listening);
    let mut star = subscribe(&engine, &ann, "SELECT * FROM t", None, &sink).await;
    for statement in ["DROP COLUMN more", "RENAME text TO body", "MODIFY n BIGINT"] {
        let (code, text) = refused(&engine, &root(), &format!("ALTER TABLE t {statement}")).await;
        assert_eq!(code, ErrorCode::ConstraintViolation, "{statement}: {text}");
    }
    // A column that it is only told of is its own from then on.
    ok(&engine, &root(), "ALTER TABLE t ADD COLUMN last INT", &[]).await;
    given(&mut star, &sink);
    assert_eq!(
        refused(&engine, &root(), "ALTER TABLE t DROP COLUMN last").await.0,
        ErrorCode::ConstraintViolation
    );
    drop(star);
    ok(&engine, &root(), "ALTER TABLE t DROP COLUMN last, DROP COLUMN more, MODIFY n BIGINT", &[]).await;
    engine.close();
}

#[tokio::test]
async fn a_subscription_ends_where_its_query_makes_sense_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(
        &engine,
        &root(),
        "CREATE SHARED TABLE s (id BIGINT PRIMARY KEY, a INT) WITH (ACCESS_LEVEL = 'public')",
        &[],
    )
    .await;
    let sink = Kept::with_room(100);
    let mut listening = subscribe(&engine, &ann, "SELECT id FROM s", None, &sink).await;
    ok(&engine, &root(), "ALTER TABLE s SET (ACCESS_LEVEL = 'private')", &[]).await;
    assert_eq!(listening.catch_up(10).unwrap_err().code(), ErrorCode::PermissionDenied);
    drop(listening);
    let mut unseen = subscribe(&engine, &root(), "SELECT id FROM s WHERE a = 1", None, &sink).await;
    // As one that begins while the ALTER is on its way, which the check has not seen.
    engine.live_queries().delete_live_query("c-SELECT id FROM s WHERE a = 1", unseen.progress()).unwrap();
    ok(&engine, &root(), "ALTER TABLE s DROP COLUMN a", &[]).await;
    assert_eq!(unseen.catch_up(10).unwrap_err().code(), ErrorCode::InvalidSql);
    drop(unseen);
    let mut gone = subscribe(&engine, &root(), "SELECT id FROM s", None, &sink).await;
    engine.live_queries().delete_live_query("c-SELECT id FROM s", gone.progress()).unwrap();
    ok(&engine, &root(), "DROP TABLE s; CREATE SHARED TABLE s (id BIGINT PRIMARY KEY)", &[]).await;
    assert!(matches!(gone.catch_up(10), Err(Error::TableDropped)));
    drop(gone);
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_were_planned_before_an_alter_are_planned_anew() {
    const ROWS: i64 = 150;
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER TABLE t (id BIGINT PRIMARY KEY, n INT NOT NULL DEFAULT 0)", &[]).await;
    let together = Arc::new(tokio::sync::Barrier::new(3));
    let writers = (0..2_i64).map(|writer| {
        let (engine, together) = (engine.clone(), Arc::clone(&together));
        tokio::spawn(async move {
            let who = session("ann", Role::User);
            for at in 0..ROWS {
                together.wait().await;
                let id = [json!(at * 2 + writer)];
                ok(&engine, &who, "INSERT INTO t (id) VALUES ($1)", &id).await;
                ok(&engine, &who, "UPDATE t SET n = n + 1 WHERE id = $1", &id).await;
            }
        })
    });
    let altering = {
        let (engine, together) = (engine.clone(), Arc::clone(&together));
        tokio::spawn(async move {
            for at in 0..ROWS {
                together.wait().await;
                let last = at - 1;
                let alter = match at % 3 {
                    0 => format!("ALTER TABLE t ADD COLUMN c{at} INT DEFAULT {at}"),
                    1 => format!("ALTER TABLE t MODIFY c{last} BIGINT"),
                    _ => format!("ALTER TABLE t DROP COLUMN c{}", last - 1),
                };
                ok(&engine, &root(), &alter, &[]).await;
            }
        })
    };
    for task in writers.chain([altering]).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let counted = "SELECT count(*) AS rows, min(n) AS least, max(n) AS most FROM t";
    let counted = cells(&ok(&engine, &session("ann", Role::User), counted, &[]).await);
    assert_eq!(counted, [[(ROWS * 2).to_string(), "1".to_owned(), "1".to_owned()]]);
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_who_meet_alters_at_any_moment_miss_nothing() {
    const ROWS: i64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE USER TABLE t (id BIGINT PRIMARY KEY, gone INT, tag TEXT)", &[]).await;
    let all_watch = Arc::new(tokio::sync::Barrier::new(7));
    let watch = |sql: &'static str, room: usize| {
        let (engine, ann, all_watch) = (engine.clone(), ann.clone(), Arc::clone(&all_watch));
        async move {
            let sink = Kept::with_room(room);
            let mut subscription = subscribe(&engine, &ann, sql, None, &sink).await;
            all_watch.wait().await;
            let (mut last, mut seen) = (subscription.start_seq(), Vec::new());
            wait_for(&mut subscription, &sink, &mut last, &mut seen, usize::try_from(ROWS).unwrap()).await;
            assert_eq!(seen, (0..ROWS).collect::<Vec<_>>(), "{sql}");
        }
    };
    let queries =
        ["SELECT id FROM t WHERE tag = 'x'", "SELECT id, tag FROM t", "SELECT id FROM t WHERE id >= 0"];
    let watching: Vec<_> =
        queries.into_iter().flat_map(|sql| [1, 1000].map(|room| tokio::spawn(watch(sql, room)))).collect();
    all_watch.wait().await;
    let writing = {
        let (engine, ann) = (engine.clone(), ann.clone());
        tokio::spawn(async move {
            for id in 0..ROWS {
                ok(&engine, &ann, "INSERT INTO t (id, tag) VALUES ($1, 'x')", &[json!(id)]).await;
            }
        })
    };
    for round in 0..40 {
        let alter = format!("ALTER TABLE t DROP COLUMN gone, ADD COLUMN gone INT DEFAULT {round}");
        ok(&engine, &root(), &alter, &[]).await;
    }
    writing.await.unwrap();
    for watcher in watching {
        watcher.await.unwrap();
    }
    engine.close();
}
