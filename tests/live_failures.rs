//! Live queries that fail for some rows, as frames on a WebSocket.

use serde_json::{Value, json};

use crate::support::{Server, Socket};

fn subscribe(id: &str, sql: &str, options: &Value) -> Value {
    json!({"type": "subscribe", "subscription": {"id": id, "sql": sql, "options": options}})
}

/// The type of a message, what it says happened, and its seq.
fn brief(message: &Value) -> (&str, &str, u64) {
    let what = message["change_type"].as_str().or(message["code"].as_str());
    (message["type"].as_str().unwrap(), what.unwrap_or_default(), message["seq"].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn a_row_that_fails_leaves_with_an_error_and_the_query_lives() {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)").await;
    let ann = server.user(&root, "ann").await;
    let bob = server.user(&root, "bob").await;
    ann.sql("INSERT INTO app.t VALUES (1, 2), (2, 0), (3, 3), (4, 0)").await;
    let sql = "SELECT id, 12 / n AS q FROM app.t";
    let mut socket = Socket::connect(&server, &ann.token).await;
    let mut of_bob = Socket::connect(&server, &bob.token).await;
    of_bob.send(subscribe("s", sql, &json!({}))).await;
    assert_eq!(of_bob.next().await["type"], "subscription_ack");

    // The snapshot comes in batches; after the last one what is left out of it.
    socket.send(subscribe("s", sql, &json!({"batch_size": 1}))).await;
    let ack = socket.next().await;
    assert_eq!(ack["total_rows"], 2);
    let first = socket.next().await;
    assert_eq!(first["rows"][0]["q"], "6");
    assert_eq!(first["batch_control"]["has_more"], true);
    socket.send(json!({"type": "next_batch", "subscription_id": "s"})).await;
    assert_eq!(socket.next().await["batch_control"]["status"], "ready");
    let left_out = socket.expect_error("SQL_EXECUTION_ERROR").await;
    assert_eq!(left_out["seq"], ack["snapshot_seq"]);
    assert_eq!((&left_out["rows"], &left_out["subscription_id"]), (&json!(2), &json!("s")));

    ann.sql("UPDATE app.t SET n = 0 WHERE id = 1").await;
    let deleted = socket.next().await;
    let error = socket.expect_error("SQL_EXECUTION_ERROR").await;
    assert_eq!(brief(&deleted), ("change", "delete", error["seq"].as_u64().unwrap()));
    let said = ann.try_sql(sql, &[]).await;
    assert_eq!(
        (&error["message"], &error["code"]),
        (&said.body["error"]["message"], &said.body["error"]["code"])
    );
    assert_eq!(error["rows"], 1);
    ann.sql("UPDATE app.t SET n = 4 WHERE id = 1").await;
    let repaired = socket.next().await;
    assert_eq!((brief(&repaired).1, &repaired["rows"][0]["q"]), ("insert", &json!("3")));
    assert_eq!(repaired["prev_seq"], deleted["seq"], "the error is no part of the chain");

    // Who resumes is told the same.
    let from = json!({"from": ack["snapshot_seq"]});
    socket.send(subscribe("again", sql, &from)).await;
    assert_eq!(socket.next().await["type"], "subscription_ack");
    for told in [&deleted, &error, &repaired] {
        let again = socket.next().await;
        assert_eq!(brief(&again), brief(told));
        assert_eq!(again["subscription_id"], "again");
    }

    // A snapshot of no rows says so as well.
    socket.send(subscribe("none", "SELECT 12 / n AS q FROM app.t WHERE n = 0", &json!({}))).await;
    assert_eq!(socket.next().await["total_rows"], 0);
    assert_eq!(socket.next().await["rows"], json!([]));
    assert_eq!(socket.expect_error("SQL_EXECUTION_ERROR").await["rows"], 2);

    // Nothing of it was told to somebody else.
    bob.sql("INSERT INTO app.t VALUES (7, 12)").await;
    let told = of_bob.next().await;
    assert_eq!((brief(&told).1, &told["rows"][0]["id"]), ("insert", &json!("7")));
}
