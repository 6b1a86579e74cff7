//! `system.changes` from the outside: who may read it, what it shows, live and afterwards.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use log_format::{Role, Seq};

use crate::testing::{Kept, arrived, cells, root, session};
use crate::tests::{ok, open, refused};
use crate::{ChangeFrame, Engine, ErrorCode, SubscribeRequest, Subscription};

const TABLES: &str = "CREATE NAMESPACE app; CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT); \
                      CREATE SHARED TABLE app.gone (id INT PRIMARY KEY)";

async fn database() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a\"b'), (2, 'c')", &[]).await;
    ok(
        &engine,
        &ann,
        "UPDATE app.notes SET body = 'd' WHERE id = 2; DELETE FROM app.notes WHERE id = 1",
        &[],
    )
    .await;
    (directory, engine)
}

#[tokio::test]
async fn the_log_is_a_table_for_those_who_run_the_database() {
    let (_directory, engine) = database().await;
    let shown = ok(
        &engine,
        &root(),
        "SELECT op, user_id, key, before, after FROM system.changes WHERE table_name = 'notes' AND op <> 'catalog' ORDER BY seq",
        &[],
    )
    .await;
    let lines: Vec<String> =
        shown.lines().skip(3).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        r#"| insert | ann | {"id":"1"} | | {"id":"1","body":"a\"b"} |"#,
        r#"| insert | ann | {"id":"2"} | | {"id":"2","body":"c"} |"#,
        r#"| update | ann | {"id":"2"} | {"id":"2","body":"c"} | {"id":"2","body":"d"} |"#,
        r#"| delete | ann | {"id":"1"} | {"id":"1","body":"a\"b"} | |"#,
    ];
    assert_eq!(lines[..4], expected);
    for role in [Role::User, Role::Service] {
        let who = session("ann", role);
        let seen = "SELECT DISTINCT user_id, event LIKE 'Row%' AS of_rows FROM system.changes";
        let seen = ok(&engine, &who, seen, &[]).await;
        assert_eq!(cells(&seen), [["ann", "true"]], "{role:?}");
        let request = SubscribeRequest {
            sql: "SELECT * FROM system.changes".to_owned(),
            ..SubscribeRequest::default()
        };
        let refused = engine.subscribe(&who, request, Kept::with_room(1)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::PermissionDenied, "{role:?}");
    }
    let sql = "SELECT count(*) AS n FROM system.changes WHERE details LIKE '%argon2%'";
    let secrets = ok(&engine, &root(), sql, &[]).await;
    assert!(secrets.contains("| 0 |"), "{secrets}");
    // It is not there to be written.
    let (code, _) = refused(&engine, &root(), "DELETE FROM system.changes WHERE seq = 1").await;
    assert_ne!(code, ErrorCode::InternalError);
    engine.close();
}

#[tokio::test]
async fn seqs_and_a_limit_bound_what_is_read() {
    let (_directory, engine) = database().await;
    let count = async |condition: &str| {
        let sql =
            format!("SELECT min(seq), max(seq), count(*) FROM (SELECT seq FROM system.changes {condition})");
        let shown = ok(&engine, &root(), &sql, &[]).await;
        let row = shown.lines().nth(3).unwrap().replace('|', " ");
        row.split_whitespace().map(|number| number.parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    let end = engine.published().get();
    assert_eq!(count("").await, [1, end, end]);
    assert_eq!(count("LIMIT 3").await, [1, 3, 3]);
    assert_eq!(count("WHERE seq > 2 AND _seq <= 5").await, [3, 5, 3]);
    assert_eq!(count("WHERE seq BETWEEN 3 AND 4").await, [3, 4, 2]);
    assert_eq!(count(&format!("WHERE seq >= {end}")).await, [end, end, 1]);
    engine.close();
}

async fn subscribe(engine: &Engine, sql: &str, from: Option<Seq>, sink: &Arc<Kept>) -> Subscription {
    let request = SubscribeRequest { sql: sql.to_owned(), from, ..SubscribeRequest::default() };
    engine.subscribe(&root(), request, Arc::clone(sink) as _).await.unwrap()
}

/// Seqs and tables of what frames tell; the frames must be a chain after `last`.
fn told(frames: &[ChangeFrame], last: &mut Seq) -> Vec<(i64, String)> {
    let mut told = Vec::new();
    for frame in frames {
        assert_eq!(frame.prev_seq, *last, "the chain is broken");
        *last = frame.payload.seq;
        let rows = frame.payload.rows.as_ref().unwrap();
        let seqs = rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
        let tables = rows.column_by_name("table_name").unwrap().as_string::<i32>();
        told.extend(
            seqs.values().iter().copied().zip(tables.iter().map(|it| it.unwrap_or_default().to_owned())),
        );
    }
    told
}

#[tokio::test]
async fn a_live_query_over_the_log_gets_every_event_once_in_order() {
    let (_directory, engine) = database().await;
    // Room for one commit: it gets behind and reads the log by itself, again and again.
    let sink = Kept::with_room(1);
    let all = "SELECT seq, table_name FROM system.changes";
    let mut subscription = subscribe(&engine, all, None, &sink).await;
    assert_eq!(subscription.take_snapshot().unwrap().total_rows, 0);
    let start = subscription.start_seq();
    assert_eq!(start, engine.published());
    let ann = session("ann", Role::User);
    let (mut last, mut got) = (start, Vec::new());
    for round in 0..40 {
        ok(&engine, &ann, &format!("INSERT INTO app.notes VALUES ({}, 'x')", 100 + round), &[]).await;
        if round == 20 {
            ok(&engine, &root(), "INSERT INTO app.gone VALUES (1); DROP TABLE app.gone", &[]).await;
        }
        if round % 7 == 0 {
            got.extend(told(&arrived(&sink, &mut subscription), &mut last));
        }
    }
    let end = engine.published();
    while last < end {
        got.extend(told(&arrived(&sink, &mut subscription), &mut last));
        tokio::task::yield_now().await;
    }
    let seqs: Vec<i64> = got.iter().map(|(seq, _)| *seq).collect();
    let number = |seq: Seq| i64::try_from(seq.get()).unwrap();
    assert_eq!(seqs, (number(start) + 1..=number(end)).collect::<Vec<_>>());
    assert!(got.iter().any(|(_, table)| table == "gone"), "a dropped table keeps its name");

    // A filter, from the middle of the log, is answered from the log alone, with the name of what is gone.
    let filtered = "SELECT seq, table_name FROM system.changes WHERE table_name = 'gone' AND op = 'insert'";
    let sink = Kept::with_room(100);
    let mut subscription = subscribe(&engine, filtered, Some(start), &sink).await;
    let mut last = start;
    let found = told(&subscription.catch_up(100).unwrap().frames, &mut last);
    assert_eq!(found.len(), 1, "{found:?}");
    engine.close();
}
