//! Codes that a client is to tell apart, each provoked: of SQL over HTTP, of a subscription, of an upgrade.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Api, Server, Socket, in_time};

/// Refused, with this status and code.
async fn check(api: &Api, sql: &str, params: &[Value], status: u16, code: &str) -> Value {
    let mut answer = api.try_sql(sql, params).await;
    assert_eq!((answer.status, answer.code()), (status, code), "{sql}: {answer:?}");
    assert_eq!(answer.body["status"], "error", "{sql}");
    assert!(answer.body["took"].is_number() && answer.body["results"].is_array(), "{sql}: {answer:?}");
    answer.body["error"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_stopped() {
    let (_server, root) = Server::with_notes("[server]\nstatement_timeout_ms = 2000\n").await;
    let heavy = "SELECT count(*) FROM range(0, 1000000000000) WHERE value % 7 = 3";
    let error = check(&root, heavy, &[], 504, "TIMEOUT").await;
    assert!(error["message"].as_str().unwrap().contains("2000 ms"), "{error}");
    assert_eq!(root.rows("SELECT 1").await, [json!(["1"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_do_not_give_way_are_answered_and_end() {
    let (_server, root) = Server::with_notes("[server]\nstatement_timeout_ms = 2000\n").await;
    let left = "range(0, 500000) AS a JOIN range(0, 10000000) AS b";
    let joins = [
        // A condition that never holds, one that seldom does among many of one key, and no condition at all.
        format!("SELECT count(*) FROM {left} ON a.value + b.value < 0"),
        format!("SELECT count(*) FROM {left} ON a.value % 2 = b.value % 2 AND a.value + b.value < 0"),
        format!("SELECT count(*) FROM {left} ON true WHERE random() < 2"),
    ];
    for join in &joins {
        let error = in_time("an answer", check(&root, join, &[], 504, "TIMEOUT")).await;
        assert!(error["message"].as_str().unwrap().contains("2000 ms"), "{error}");
    }
    in_time("the joins to end", async {
        let runs = |metrics: &Value| {
            !metrics.as_str().unwrap().lines().any(|line| line == "kalamdb_queries_running 0")
        };
        while runs(&root.get("/metrics").await.body) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_have_codes_of_their_own_and_errors_a_place() {
    let (_server, root) = Server::with_notes("").await;
    check(&root, "SELECT 1; SELECT $1", &[json!(1)], 400, "PARAMS_WITH_BATCH").await;
    let error = check(&root, "SELECT 1;\nSELECT 2 3", &[], 400, "BATCH_PARSE_ERROR").await;
    assert_eq!((&error["line"], &error["column"]), (&json!(2), &json!(10)), "{error}");
    let error = check(&root, "SELECT 1\n  FROM app.notes WHERE", &[], 400, "INVALID_SQL").await;
    assert!(error["line"].is_u64() && error["column"].is_u64(), "{error}");
    let error = check(&root, "SELECT 1,\n   nothing FROM app.notes", &[], 400, "INVALID_SQL").await;
    assert_eq!((&error["line"], &error["column"]), (&json!(2), &json!(4)), "{error}");
    assert_eq!(error["details"], "at line 2, column 4");
    // What has no place says none.
    let error = check(&root, "SELECT * FROM app.missing", &[], 404, "TABLE_NOT_FOUND").await;
    assert!(error.get("line").is_none() || error["line"].is_u64(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_takes_too_much_or_is_nobodys_business_is_refused() {
    let (server, root) = Server::with_notes("").await;
    let ann = server.user(&root, "ann").await;
    let mut socket = Socket::connect(&server, &ann.token).await;
    root.sql("CREATE SHARED TABLE app.secrets (id INT PRIMARY KEY)").await;
    socket.subscribe("denied", "SELECT id FROM app.secrets", json!({})).await;
    assert_eq!(socket.expect_error("PERMISSION_DENIED").await["subscription_id"], "denied");
    ann.sql("INSERT INTO app.notes SELECT value, 'x' FROM range(0, 10000)").await;
    let groups = "SELECT id, count(*) AS n FROM app.notes GROUP BY id";
    let (_, rows) = socket.snapshot("fits", groups, json!({})).await;
    assert_eq!(rows.len(), 10_000);
    ann.sql("INSERT INTO app.notes VALUES (10000, 'one too many')").await;
    assert_eq!(socket.expect_error("MEMORY_LIMIT").await["subscription_id"], "fits");
    socket.subscribe("fits not", groups, json!({})).await;
    assert_eq!(socket.expect_error("MEMORY_LIMIT").await["subscription_id"], "fits not");
    let (_, rows) = socket.snapshot("fits", &groups.replace("GROUP", "WHERE id < 3 GROUP"), json!({})).await;
    assert_eq!(rows.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_refused_with_a_code() {
    let (server, root) = Server::with_notes("[server]\nconnections_max = 1\n").await;
    let first = Socket::connect(&server, &root.token).await;
    let request =
        reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}/v1/ws", server.url()));
    let request = request
        .bearer_auth(&root.token)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let response = in_time("an answer", request.send()).await.unwrap();
    assert_eq!(response.status().as_u16(), 429);
    let body: Value = in_time("a body", response.json()).await.unwrap();
    assert_eq!(
        (&body["status"], &body["error"]["code"]),
        (&json!("error"), &json!("RATE_LIMIT_EXCEEDED")),
        "{body}"
    );
    drop(first);
    let place = async { while Socket::open(&server, "", &root.token).await.is_err() {} };
    Box::pin(in_time("a place", place)).await;
}
