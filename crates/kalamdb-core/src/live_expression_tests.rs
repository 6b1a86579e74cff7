//! Live queries over expressions that only a plan could evaluate once: they go on, with the values of a SELECT.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int64Type, Schema};

use crate::SubscribeRequest;
use crate::testing::{Kept, arrived_frames, cells, kinds, root};
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

#[tokio::test]
async fn columns_of_a_live_query_have_the_types_of_its_select() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, day DATE, m DECIMAL(10, 2))", &[])
        .await;
    let order = "ORDER BY id LIMIT 1";
    for expression in ["day - INTERVAL '1 year'", "day + INTERVAL '2 hours'", "m * 1.5", "m / 3", "ceil(m)"] {
        for sql in
            [format!("SELECT {expression} AS c FROM t"), format!("SELECT {expression} AS c FROM t {order}")]
        {
            let executed = engine.execute(&mut root(), &sql, &[]).await;
            let expected = executed.results[0].schema.field(0).data_type().clone();
            let request = SubscribeRequest { sql: sql.clone(), ..SubscribeRequest::default() };
            let live = engine.subscribe(&root(), request, Kept::with_room(1) as _).await.unwrap();
            let found = live.schema().field_with_name("c").unwrap().data_type().clone();
            assert_eq!(found, expected, "{sql}");
        }
    }
    engine.close();
}

#[tokio::test]
async fn star_shows_the_generated_key_in_live_queries_alone() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (v INT); INSERT INTO t VALUES (1), (1)", &[]).await;
    let names = |schema: &Schema| -> Vec<String> {
        schema.fields().iter().map(|field| field.name().clone()).collect()
    };
    for (sql, selected, live_columns) in [
        ("SELECT * FROM t", &["v"][..], &["_id", "v", "_seq"][..]),
        ("SELECT t.* FROM t", &["v"], &["_id", "v", "_seq"]),
        ("SELECT v FROM t", &["v"], &["v", "_seq"]),
    ] {
        let executed = engine.execute(&mut root(), sql, &[]).await;
        assert_eq!(names(&executed.results[0].schema), selected, "{sql}");
        let request = SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
        let live = engine.subscribe(&root(), request, Kept::with_room(1) as _).await.unwrap();
        let mut columns = names(live.schema());
        columns.sort_unstable();
        let mut expected = live_columns.to_vec();
        expected.sort_unstable();
        assert_eq!(columns, expected, "{sql}");
    }
    // Of two equal rows one goes, and which one it is can be told.
    let sink = Kept::with_room(9);
    let request = SubscribeRequest { sql: "SELECT * FROM t".to_owned(), ..SubscribeRequest::default() };
    let mut live = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await.unwrap();
    let first = cells(&ok(&engine, &root(), "SELECT min(_id) FROM t", &[]).await).remove(0).remove(0);
    ok(&engine, &root(), &format!("DELETE FROM t WHERE _id = {first}"), &[]).await;
    let gone = arrived_frames(&sink, &mut live, 1).await;
    let rows = gone[0].payload.old_rows.as_ref().unwrap();
    let id = rows.column_by_name("_id").unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!(id.to_string(), first);
    drop(live);
    engine.close();
}
