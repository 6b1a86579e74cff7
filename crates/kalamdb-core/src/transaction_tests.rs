//! `BEGIN; …; COMMIT` in one request.

use std::collections::BTreeMap;

use log_format::Role;

use crate::testing::{Kept, arrived_frames, cells, materialise, root, session, take_over};
use crate::tests::{ok, open, refused};
use crate::{Engine, ErrorCode, Session, SubscribeRequest};

const TABLES: &str = "CREATE NAMESPACE app; \
    CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, n INT NOT NULL DEFAULT 0); \
    CREATE SHARED TABLE app.totals (name TEXT PRIMARY KEY, total INT) WITH (ACCESS_LEVEL = 'public'); \
    CREATE STREAM TABLE app.typing (who TEXT) RETENTION '1h' SCOPE 'all'";

/// An engine with those tables, and a user.
async fn app(directory: &tempfile::TempDir) -> (Engine, Session) {
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    (engine, session("ann", Role::User))
}

async fn rows(engine: &Engine, session: &Session, sql: &str) -> Vec<Vec<String>> {
    cells(&ok(engine, session, sql, &[]).await)
}

#[tokio::test]
async fn a_transaction_sees_what_it_changed_and_is_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'one', 0), (5, 'five', 0)", &[]).await;
    let before = engine.published();
    let sql = "BEGIN; \
        INSERT INTO app.notes VALUES (3, 'three', 0), (0, 'zero', 0), (9, 'nine', 0); \
        UPDATE app.notes SET n = n + id WHERE id >= 3; \
        DELETE FROM app.notes WHERE id IN (1, 9); \
        UPDATE app.notes SET n = n * 2 WHERE id = 5; \
        INSERT INTO app.notes SELECT id + 100, body, n FROM app.notes WHERE id = 3; \
        SELECT id, n FROM app.notes; \
        INSERT INTO app.totals SELECT 'all', CAST(sum(n) AS INT) FROM app.notes; \
        COMMIT";
    let executed = engine.execute(&mut ann.clone(), sql, &[]).await;
    assert!(executed.error.is_none(), "{:?}", executed.error);
    assert_eq!(executed.results.len(), 9, "BEGIN and COMMIT answer as well");
    let expected = [["0", "0"], ["3", "3"], ["5", "10"], ["103", "3"]];
    let batches = &executed.results[6].batches;
    let inside = datafusion::arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string();
    assert_eq!(cells(&inside), expected);
    assert_eq!(rows(&engine, &ann, "SELECT id, n FROM app.notes ORDER BY id").await, expected);
    assert_eq!(rows(&engine, &ann, "SELECT total FROM app.totals").await, [["16"]]);
    // Rows 3, 0, 103 came, 5 changed, 1 went, a total came; 9 came and went, which is nothing.
    assert_eq!(engine.published().get() - before.get(), 6);
    let times = "SELECT count(DISTINCT _updated) FROM app.notes";
    assert_eq!(rows(&engine, &ann, times).await, [["1"]], "one commit has one time");
    engine.close();
    let engine = open(directory.path());
    assert_eq!(rows(&engine, &ann, "SELECT id, n FROM app.notes ORDER BY id").await, expected);
    engine.close();
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'one', 0)", &[]).await;
    let before = engine.published();
    for (sql, code) in [
        (
            "INSERT INTO app.notes VALUES (2, 'x', 0); INSERT INTO app.notes VALUES (1, 'taken', 0)",
            ErrorCode::ConstraintViolation,
        ),
        (
            "INSERT INTO app.notes VALUES (2, 'x', 0); INSERT INTO app.notes VALUES (2, 'own', 0)",
            ErrorCode::ConstraintViolation,
        ),
        ("INSERT INTO app.notes VALUES (2, 'x', 0), (2, 'twice', 0)", ErrorCode::ConstraintViolation),
        (
            "INSERT INTO app.notes VALUES (2, 'x', 0); UPDATE app.notes SET n = NULL",
            ErrorCode::ConstraintViolation,
        ),
        ("DELETE FROM app.notes; SELECT * FROM app.nowhere", ErrorCode::TableNotFound),
        ("DELETE FROM app.notes; SELECT 1 / 0", ErrorCode::SqlExecutionError),
        ("DELETE FROM app.notes; CREATE NAMESPACE other", ErrorCode::Unsupported),
        ("UPDATE app.notes SET n = 1 RETURNING _seq", ErrorCode::Unsupported),
    ] {
        let executed = engine.execute(&mut ann.clone(), &format!("BEGIN; {sql}; COMMIT"), &[]).await;
        assert_eq!(executed.error.map(|error| error.code()), Some(code), "{sql}");
        assert!(executed.results.is_empty(), "{sql}: nothing of it was done");
    }
    ok(&engine, &ann, "BEGIN; DELETE FROM app.notes; ROLLBACK", &[]).await;
    ok(
        &engine,
        &ann,
        "BEGIN; INSERT INTO app.notes VALUES (7, '', 0); DELETE FROM app.notes WHERE id = 7; COMMIT",
        &[],
    )
    .await;
    assert_eq!(engine.published(), before, "nothing was written");
    assert_eq!(rows(&engine, &ann, "SELECT * FROM app.notes").await, [["1", "one", "0"]]);
    engine.close();
}

#[tokio::test]
async fn begin_and_commit_must_be_pairs() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let before = engine.published();
    for sql in [
        "INSERT INTO app.notes VALUES (1, '', 0); COMMIT",
        "INSERT INTO app.notes VALUES (1, '', 0); BEGIN; DELETE FROM app.notes",
        "INSERT INTO app.notes VALUES (1, '', 0); BEGIN; BEGIN; COMMIT; COMMIT",
        "ROLLBACK",
    ] {
        assert_eq!(refused(&engine, &ann, sql).await.0, ErrorCode::InvalidSql, "{sql}");
    }
    assert_eq!(engine.published(), before);
    ok(&engine, &ann, "START TRANSACTION; COMMIT WORK; begin work; end; BEGIN TRANSACTION; ROLLBACK", &[])
        .await;
    engine.close();
}

#[tokio::test]
async fn subscribers_get_a_transaction_as_one_change_set() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'one', 0)", &[]).await;
    let sink = Kept::with_room(100);
    let request = SubscribeRequest {
        connection_id: "c".into(),
        query_id: "q".into(),
        sql: "SELECT id, n FROM app.notes".to_owned(),
        ..SubscribeRequest::default()
    };
    let mut subscription = engine.subscribe(&ann, request, sink.clone()).await.unwrap();
    let mut live = BTreeMap::new();
    let mut last = materialise(&mut subscription, &mut live).await;
    let sql = "BEGIN; INSERT INTO app.notes VALUES (2, '', 1); UPDATE app.notes SET n = 5; \
               INSERT INTO app.typing VALUES ('ann'); DELETE FROM app.notes WHERE id = 1; COMMIT";
    ok(&engine, &ann, sql, &[]).await;
    let frames = arrived_frames(&sink, &mut subscription, 2).await;
    assert_eq!(frames.iter().map(|frame| frame.more).collect::<Vec<_>>(), [true, false]);
    assert_eq!(frames[0].payload.commit_time, frames[1].payload.commit_time);
    take_over(&frames, &mut last, &mut live);
    assert_eq!(live.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(rows(&engine, &ann, "SELECT who FROM app.typing").await, [["ann"]]);
    drop(subscription);
    engine.close();
}

#[tokio::test]
async fn transactions_that_meet_are_run_one_after_the_other() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.totals VALUES ('a', 100), ('b', 100)", &[]).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (engine, mut session) = (engine.clone(), session(&format!("u{writer}"), Role::User));
            tokio::spawn(async move {
                let mut moved = 0;
                while moved < ROUNDS {
                    let sql = "BEGIN; UPDATE app.totals SET total = total - 1 WHERE name = 'a'; \
                               UPDATE app.totals SET total = total + 1 WHERE name = 'b'; COMMIT";
                    match engine.execute(&mut session, sql, &[]).await.error {
                        None => moved += 1,
                        Some(error) => assert_eq!(error.code(), ErrorCode::Conflict),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let moved = i64::try_from(WRITERS * ROUNDS).unwrap();
    let expected = [["a".to_owned(), (100 - moved).to_string()], ["b".to_owned(), (100 + moved).to_string()]];
    assert_eq!(rows(&engine, &ann, "SELECT name, total FROM app.totals ORDER BY name").await, expected);
    engine.close();
}

#[tokio::test]
async fn many_own_rows_between_many_others_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let values = |numbers: &mut dyn Iterator<Item = usize>| {
        numbers.map(|id| format!("({id}, '', 1)")).collect::<Vec<_>>().join(", ")
    };
    // More than a batch of a scan, so that it is taken up again between own rows and others.
    let even = values(&mut (0..20_000).step_by(2));
    let odd = values(&mut (1..20_000).step_by(2));
    ok(&engine, &ann, &format!("INSERT INTO app.notes VALUES {even}"), &[]).await;
    let sql = format!(
        "BEGIN; INSERT INTO app.notes VALUES {odd}; DELETE FROM app.notes WHERE id % 5 = 0; \
         UPDATE app.notes SET n = 2 WHERE id % 5 = 1; \
         SELECT count(*) AS c, sum(n) AS s, min(id) AS least, max(id) AS most FROM app.notes; \
         SELECT id FROM app.notes WHERE id > 7 AND id < 12; \
         SELECT id FROM app.notes LIMIT 3; \
         SELECT count(*) AS gone FROM app.notes WHERE _deleted; ROLLBACK"
    );
    let executed = engine.execute(&mut ann.clone(), &sql, &[]).await;
    assert!(executed.error.is_none(), "{:?}", executed.error);
    let table = |at: usize| {
        let batches = &executed.results[at].batches;
        cells(&datafusion::arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string())
    };
    assert_eq!(table(4), [["16000", "20000", "1", "19999"]]);
    assert_eq!(table(5), [["8"], ["9"], ["11"]]);
    assert_eq!(table(6), [["1"], ["2"], ["3"]]);
    assert_eq!(table(7), [["2000"]], "own rows that came and went leave no tombstone");
    engine.close();
}
