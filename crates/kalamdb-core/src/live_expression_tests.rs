//! Live queries over expressions that only a plan could evaluate once: they go on, with the values of a SELECT.

use std::sync::Arc;

use crate::SubscribeRequest;
use crate::testing::{Kept, arrived_frames, kinds, root};
use crate::tests::{ok, open};

/// Kinds of the first `count` changes that a live query over `t` is told of.
async fn kinds_of(sql: &str, changes: &[&str], count: usize) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let table = "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, v TEXT, n INT, m DECIMAL(10, 2), a TIMESTAMP, b TIMESTAMP)";
    ok(&engine, &root(), table, &[]).await;
    let row = "INSERT INTO t VALUES (1, NULL, 0, 1.50, '2026-01-01 00:00:00', '2026-01-03 12:00:00')";
    ok(&engine, &root(), row, &[]).await;
    let request = SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
    let sink = Kept::with_room(100);
    let mut live = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await.unwrap();
    for change in changes {
        ok(&engine, &root(), change, &[]).await;
    }
    let told = arrived_frames(&sink, &mut live, count).await;
    drop(live);
    engine.close();
    kinds(&told)
}

#[tokio::test]
async fn coalesce_in_a_live_query_goes_on_through_changes() {
    let sql = "SELECT id, coalesce(v, 'none') AS v FROM t";
    assert_eq!(kinds_of(sql, &["UPDATE t SET v = 'de' WHERE id = 1"], 1).await, ["Update"]);
}

#[tokio::test]
async fn a_guarded_division_in_a_live_query_fails_for_no_row() {
    let sql = "SELECT id FROM t WHERE n <> 0 AND 10 / n > 3";
    let changes = ["UPDATE t SET n = 2 WHERE id = 1", "UPDATE t SET n = 0 WHERE id = 1"];
    assert_eq!(kinds_of(sql, &changes, 2).await, ["Insert", "Delete"]);
}

#[tokio::test]
async fn spans_and_decimals_in_a_live_query_are_compared_by_value() {
    let sql = "SELECT id FROM t WHERE b - a < INTERVAL '1 day' AND m + 0.01 = 1.51";
    let changes =
        ["UPDATE t SET b = '2026-01-01 06:00:00' WHERE id = 1", "UPDATE t SET m = 1.51 WHERE id = 1"];
    assert_eq!(kinds_of(sql, &changes, 2).await, ["Insert", "Delete"]);
}
