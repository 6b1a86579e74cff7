//! Who asks, for what, and until when.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use log_format::{Role, Seq};

use crate::testing::{Kept, cells, root, session};
use crate::tests::{ok, open};
use crate::{ChangeFrame, Engine, Error, ErrorCode, Session, SubscribeRequest, Subscription};

async fn subscribe(
    engine: &Engine,
    who: &Session,
    sql: &str,
    query_id: &str,
) -> Result<(Subscription, Arc<Kept>), Error> {
    let sink = Kept::with_room(usize::MAX);
    let request = SubscribeRequest {
        connection_id: "c".into(),
        query_id: query_id.into(),
        sql: sql.to_owned(),
        last_rows: Some(0),
        ..SubscribeRequest::default()
    };
    Ok((engine.subscribe(who, request, Arc::clone(&sink) as _).await?, sink))
}

/// The changes of a live subscription, once there are so many.
async fn frames(sink: &Kept, count: usize) -> Vec<ChangeFrame> {
    let mut found = Vec::new();
    let arrive = async {
        loop {
            found.extend(sink.take());
            if found.len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), arrive).await.unwrap();
    found
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    batch.column_by_name(column).unwrap().as_string::<i32>().iter().map(|it| it.unwrap().to_owned()).collect()
}

fn ids(frames: &[ChangeFrame]) -> Vec<i64> {
    let rows = frames.iter().flat_map(|frame| &frame.payload.rows);
    rows.flat_map(|rows| rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

#[tokio::test]
async fn each_is_told_their_own_name_by_the_same_query() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let sql = "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, recipient TEXT) WITH (ACCESS_LEVEL = 'public')";
    ok(&engine, &root(), sql, &[]).await;
    let (ann, bob) = (session("ann", Role::User), session("bob", Role::Service));
    let select =
        "SELECT id, CURRENT_USER() AS me, CURRENT_ROLE() AS role, recipient || current_user() AS both FROM t";
    let own = "SELECT id FROM t WHERE recipient = CURRENT_USER()";
    let first = "SELECT id, current_user() AS me FROM t ORDER BY id LIMIT 5";
    let grouped = "SELECT current_user() AS me, count(*) AS n FROM t GROUP BY current_user()";
    let mut begun = Vec::new();
    for who in [&ann, &bob] {
        for sql in [select, own, first, grouped] {
            let (mut subscription, sink) =
                subscribe(&engine, who, sql, &format!("{}{sql}", who.user())).await.unwrap();
            assert!(subscription.catch_up(1).unwrap().live);
            begun.push((subscription, sink));
        }
    }
    ok(&engine, &root(), "INSERT INTO t VALUES (1, 'ann'), (2, 'bob'), (3, 'ann')", &[]).await;
    let told = [("ann", "user", vec![1, 3]), ("bob", "service", vec![2])];
    for (of_user, (name, role, own)) in begun.chunks(4).zip(told) {
        let rows = frames(&of_user[0].1, 1).await[0].payload.rows.clone().unwrap();
        assert_eq!(texts(&rows, "me"), [name; 3]);
        assert_eq!(texts(&rows, "role"), [role; 3]);
        assert_eq!(texts(&rows, "both"), ["ann", "bob", "ann"].map(|it| format!("{it}{name}")));
        assert_eq!(ids(&frames(&of_user[1].1, 1).await), own, "{name}");
        for (_, sink) in &of_user[2..] {
            let rows = frames(sink, 1).await.last().unwrap().payload.rows.clone().unwrap();
            assert!(texts(&rows, "me").iter().all(|me| me == name));
        }
    }
    drop(begun);
    engine.close();
}

#[tokio::test]
async fn a_condition_on_what_the_log_does_not_have_of_old_rows_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER TABLE t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    ok(&engine, &root(), "CREATE STREAM TABLE s (n INT) TTL '1h'", &[]).await;
    for (sql, reason) in [
        ("SELECT id FROM t WHERE _seq > 3", "rows before a change"),
        ("SELECT id FROM t WHERE n = 1 AND _updated < '2024-01-01T00:00:00'", "rows before a change"),
        ("SELECT id FROM t WHERE _deleted", "told as a delete"),
        ("SELECT id AS _seq FROM t", "give it another name"),
        ("SELECT max(id) AS _seq FROM t", "give it another name"),
        ("SELECT n, count(*) FROM t GROUP BY n HAVING count(*) > random() * 5", "another one each time"),
    ] {
        let error = subscribe(&engine, &root(), sql, "q").await.err().unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(error.code(), ErrorCode::Unsupported, "{sql}");
        assert!(error.to_string().contains(reason), "{sql}: {error}");
    }
    for sql in [
        "SELECT t._seq, id FROM t",
        "SELECT _updated, id, _seq FROM t",
        "SELECT n FROM s WHERE _seq > 0",
        "SELECT seq FROM system.changes WHERE seq > 3",
    ] {
        let (subscription, _) =
            subscribe(&engine, &root(), sql, "q").await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let seqs = subscription.schema().fields().iter().filter(|field| field.name() == "_seq");
        assert_eq!(seqs.count(), 1, "{sql}");
    }
    engine.close();
}

#[tokio::test]
async fn a_name_that_is_given_again_stays_listed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER TABLE t (id BIGINT PRIMARY KEY)", &[]).await;
    let (given_up, _) = subscribe(&engine, &root(), "SELECT id FROM t", "q").await.unwrap();
    let (_kept, _) = subscribe(&engine, &root(), "SELECT id FROM t WHERE id > 3", "q").await.unwrap();
    // Its job has come back only now.
    drop(given_up);
    let listed = cells(&ok(&engine, &root(), "SELECT query FROM system.live_queries", &[]).await);
    assert_eq!(listed, [["SELECT id FROM t WHERE id > 3"]]);
    let dropped = engine.execute(&mut root(), "DROP TABLE t", &[]).await;
    assert!(dropped.error.is_some(), "somebody watches it");
    engine.close();
}

#[tokio::test]
async fn what_was_ended_does_not_become_live() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER TABLE t (id BIGINT PRIMARY KEY)", &[]).await;
    let (mut subscription, sink) = subscribe(&engine, &root(), "SELECT id FROM t", "q").await.unwrap();
    ok(&engine, &root(), "KILL LIVE QUERY 'c-q'", &[]).await;
    assert!(sink.is_ended());
    assert!(matches!(subscription.check(), Err(Error::Ended { .. })));
    assert!(matches!(subscription.catch_up(10), Err(Error::Ended { .. })));
    ok(&engine, &root(), "INSERT INTO t VALUES (1)", &[]).await;
    assert!(matches!(subscription.make_anew().await, Err(Error::Ended { .. })));
    assert!(sink.take().is_empty());
    // Its client has not let go of it yet.
    assert!(!ok(&engine, &root(), "SELECT live_id FROM system.live_queries", &[]).await.contains("c-q"));
    ok(&engine, &root(), "DROP TABLE t", &[]).await;
    drop(subscription);
    engine.close();
}

#[tokio::test]
async fn how_far_one_is_counts_from_what_was_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE USER TABLE t (id BIGINT PRIMARY KEY)", &[]).await;
    let (mut subscription, sink) = subscribe(&engine, &root(), "SELECT id FROM t", "q").await.unwrap();
    assert!(subscription.catch_up(1).unwrap().live);
    let listed = || async {
        let sql = "SELECT state, seq, lag > 0, changes, node FROM system.live_queries";
        cells(&ok(&engine, &root(), sql, &[]).await).remove(0)
    };
    let begun = subscription.start_seq().get().to_string();
    assert_eq!(listed().await, ["live", &begun, "false", "0", "local"]);
    ok(&engine, &root(), "INSERT INTO t VALUES (1)", &[]).await;
    let change = frames(&sink, 1).await.remove(0);
    assert_eq!(listed().await, ["live", &begun, "true", "0", "local"], "on its way");
    let seq: Seq = change.payload.seq;
    subscription.progress().advance(seq, change.rows(), change.payload.commit_time);
    assert_eq!(listed().await, ["live", &seq.get().to_string(), "false", "1", "local"]);
    engine.close();
}
