//! Statements that change many rows, or more than one commit holds.

use std::future::Future;
use std::pin::pin;

use serde_json::json;

use crate::testing::root;
use crate::tests::{ok, open, refused};
use crate::{Engine, ErrorCode};

const MIB: usize = 1 << 20;

async fn rows(engine: &Engine, count: usize, bytes: usize) {
    ok(engine, &root(), "CREATE SHARED TABLE t (id INT PRIMARY KEY, n INT, body TEXT)", &[]).await;
    let body = json!("x".repeat(bytes));
    for id in 0..count {
        ok(engine, &root(), "INSERT INTO t VALUES ($1, 0, $2)", &[json!(id), body.clone()]).await;
    }
}

#[tokio::test]
async fn what_no_commit_holds_is_refused_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    rows(&engine, 70, MIB).await;
    for sql in [
        "UPDATE t SET n = n + 1",
        "UPDATE t SET n = 7 WHERE id >= 0",
        "DELETE FROM t",
        "INSERT INTO t SELECT id + 1000, n, body FROM t",
        "INSERT INTO t SELECT id, n, body FROM t ON CONFLICT (id) DO UPDATE SET n = 5",
        "BEGIN; UPDATE t SET n = 1 WHERE id < 30; UPDATE t SET n = 1 WHERE id >= 30; COMMIT",
    ] {
        let (code, message) = refused(&engine, &root(), sql).await;
        assert_eq!(code, ErrorCode::MemoryLimit, "{sql}: {message}");
        assert!(message.contains("in pieces") && message.contains("primary key"), "{sql}: {message}");
    }
    let changed =
        ok(&engine, &root(), "SELECT count(*) AS changed FROM t WHERE n <> 0 OR id >= 1000", &[]).await;
    assert!(changed.contains("| 0 "), "{changed}");
    for piece in 0..7 {
        let sql = "UPDATE t SET n = n + 1 WHERE id >= $1 AND id < $2";
        ok(&engine, &root(), sql, &[json!(piece * 10), json!(piece * 10 + 10)]).await;
    }
    ok(&engine, &root(), "DELETE FROM t WHERE id < 35; DELETE FROM t WHERE id >= 35", &[]).await;
}

/// Counts the times that a statement yields before it ends.
async fn pauses(engine: &Engine, sql: &str) -> usize {
    let mut session = root();
    let mut executing = pin!(engine.execute(&mut session, sql, &[]));
    let mut pauses = 0;
    let executed = std::future::poll_fn(|context| {
        let polled = executing.as_mut().poll(context);
        pauses += usize::from(polled.is_pending());
        polled
    })
    .await;
    assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    pauses
}

#[tokio::test]
async fn long_statements_give_way_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    rows(&engine, 0, 0).await;
    // A hundred pieces of 256 rows: each is a chance for the time limit, and for others on the thread.
    for (sql, least) in [
        ("INSERT INTO t SELECT value, 0, 'x' FROM range(0, 25600)", 200),
        ("UPDATE t SET n = n + 1 WHERE id >= 0", 100),
        ("INSERT INTO t SELECT id, n, body FROM t ON CONFLICT (id) DO UPDATE SET n = t.n + 1", 200),
        ("DELETE FROM t WHERE id >= 0", 100),
    ] {
        let pauses = pauses(&engine, sql).await;
        assert!(pauses >= least, "{sql}: {pauses}");
    }
}
