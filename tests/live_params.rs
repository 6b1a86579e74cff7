//! Live queries with parameters, and what is said of fields that the server does not know.

use serde_json::{Value, json};

use crate::support::{Api, Server, Socket};

async fn setup() -> (Server, Api) {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE b").await;
    root.sql(
        "CREATE SHARED TABLE b.lv (id BIGINT PRIMARY KEY, tag TEXT, n DECIMAL(10, 2), at TIMESTAMP, day DATE, u UUID, ok BOOLEAN, x INT)",
    )
    .await;
    root.sql(
        "INSERT INTO b.lv VALUES (1, 'a', 1.50, '2026-01-01T00:00:00Z', '2026-01-01', '00000000-0000-0000-0000-000000000001', true, 0), \
         (2, 'b', 2.50, '2026-06-01T00:00:00Z', '2026-06-01', '00000000-0000-0000-0000-000000000002', false, 0)",
    )
    .await;
    (server, root)
}

fn subscribe(id: &str, sql: &str, params: &Value) -> Value {
    json!({"type": "subscribe", "subscription": {"id": id, "sql": sql, "params": params, "options": {"last_rows": 5}}})
}

#[tokio::test]
async fn a_live_query_binds_its_parameters_as_a_query_does() {
    let (server, root) = setup().await;
    for (at, (condition, params)) in [
        ("tag = $1", json!(["a"])),
        ("id = $1", json!([1])),
        ("id = $1", json!(["1"])),
        ("id < $2 AND tag = $1", json!(["a", 2])),
        ("n = $1", json!(["1.50"])),
        ("n < $1", json!([2])),
        ("at < $1", json!(["2026-02-01T00:00:00Z"])),
        ("day = $1", json!(["2026-01-01"])),
        ("ok = $1", json!([true])),
        ("tag = $1 OR tag = $1", json!(["a"])),
        ("id IN ($1, $2)", json!([1, 7])),
        ("u = '00000000-0000-0000-0000-000000000001'", json!([])),
        ("n = CAST(1.5 AS DECIMAL(10, 2))", json!([])),
        ("day = DATE '2026-01-01'", json!([])),
        ("at = TIMESTAMP '2026-01-01T00:00:00'", json!([])),
        ("at = $1", json!(["2026-01-01T00:00:00Z"])),
        ("u = $1", json!(["00000000-0000-0000-0000-000000000001"])),
    ]
    .into_iter()
    .enumerate()
    {
        let sql = format!("SELECT id, x FROM b.lv WHERE {condition}");
        let expected = root.sql_with(&sql, params.as_array().unwrap()).await["rows"].clone();
        assert_eq!((expected.as_array().unwrap().len(), &expected[0][0]), (1, &json!("1")), "{sql}");
        println!("{sql} with {params}");
        let mut socket = Socket::connect(&server, &root.token).await;
        socket.send(subscribe("s", &sql, &params)).await;
        let ack = socket.next().await;
        assert_eq!(
            (&ack["type"], &ack["total_rows"]),
            (&json!("subscription_ack"), &json!(1)),
            "{sql}: {ack}"
        );
        assert!(ack["warnings"].is_null(), "{ack}");
        let batch = socket.next().await;
        assert_eq!(batch["rows"][0]["id"], "1", "{sql}: {batch}");
        // A change of the row that matches, and one of the other, which is not told.
        root.sql("UPDATE b.lv SET x = x + 1 WHERE id = 2; UPDATE b.lv SET x = x + 1 WHERE id = 1").await;
        let change = socket.next().await;
        assert_eq!(
            (&change["type"], &change["rows"][0]["id"]),
            (&json!("change"), &json!("1")),
            "{at}: {change}"
        );
    }
}

#[tokio::test]
async fn results_bind_their_parameters_and_keep_them_through_an_alter() {
    let (server, root) = setup().await;
    let mut socket = Socket::connect(&server, &root.token).await;
    for (id, sql, params) in [
        ("count", "SELECT tag, COUNT(*) AS c FROM b.lv WHERE id > $1 GROUP BY tag", json!([1])),
        ("top", "SELECT id FROM b.lv WHERE tag <> $1 ORDER BY id DESC LIMIT $2", json!(["a", 3])),
        ("rows", "SELECT * FROM b.lv WHERE tag = $1", json!(["b"])),
    ] {
        socket.send(subscribe(id, sql, &params)).await;
        let ack = socket.next().await;
        assert_eq!(
            (&ack["type"], &ack["total_rows"]),
            (&json!("subscription_ack"), &json!(1)),
            "{sql}: {ack}"
        );
        socket.next().await;
        socket.send(json!({"type": "unsubscribe", "subscription_id": id})).await;
    }
    socket.send(subscribe("after", "SELECT id, tag FROM b.lv WHERE tag = $1", &json!(["a"]))).await;
    socket.next().await;
    socket.next().await;
    root.sql("ALTER TABLE b.lv ADD COLUMN more TEXT").await;
    root.sql("INSERT INTO b.lv (id, tag) VALUES (3, 'c'), (4, 'a')").await;
    let change = socket.next().await;
    assert_eq!(change["rows"][0]["id"], "4", "{change}");
}

#[tokio::test]
async fn missing_and_superfluous_parameters_are_named() {
    let (server, root) = setup().await;
    let mut socket = Socket::connect(&server, &root.token).await;
    for (sql, params, named) in [
        ("SELECT id FROM b.lv WHERE tag = $1", json!([]), "$1"),
        ("SELECT id FROM b.lv WHERE tag = $1", Value::Null, "$1"),
        ("SELECT id FROM b.lv WHERE tag = $1 AND id = $3", json!(["a", 1]), "$3"),
        ("SELECT id FROM b.lv WHERE tag = $1", json!(["a", "b"]), "$2"),
        ("SELECT id FROM b.lv", json!(["a"]), "$1"),
        ("SELECT id FROM b.lv WHERE tag = $x", json!(["a"]), "$x"),
    ] {
        socket.send(subscribe("s", sql, &params)).await;
        let error = socket.expect_error("INVALID_PARAMETER").await;
        assert!(error["message"].as_str().unwrap().contains(named), "{sql}: {error}");
        assert_eq!(error["subscription_id"], "s");
    }
}

#[tokio::test]
async fn fields_that_are_not_known_are_named_in_the_answer() {
    let (server, root) = setup().await;
    let mut socket = Socket::connect(&server, &root.token).await;
    let warned = |message: &Value, named: &[&str]| {
        let warnings = message["warnings"].as_array().unwrap_or_else(|| panic!("{message}"));
        assert_eq!(warnings.len(), named.len(), "{message}");
        for (warning, named) in warnings.iter().zip(named) {
            assert!(warning.as_str().unwrap().contains(named), "{message}");
        }
    };
    socket
        .send(json!({"type": "subscribe", "later": 1, "subscription": {
            "id": "s", "sql": "SELECT id FROM b.lv", "parms": [], "options": {"batchSize": 1, "lastRows": 1, "last_rows": 2}}}))
        .await;
    let ack = socket.next().await;
    assert_eq!(ack["type"], "subscription_ack", "{ack}");
    warned(
        &ack,
        &["\"later\"", "did you mean params?", "did you mean batch_size?", "did you mean last_rows?"],
    );
    assert_eq!(socket.next().await["type"], "initial_data_batch");
    socket.send(json!({"type": "ping", "id": 7, "time": 1})).await;
    let pong = socket.next().await;
    assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &json!(7)), "{pong}");
    warned(&pong, &["\"time\""]);
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
    // Where the answer is a refusal, it says so as well.
    let sql = "SELECT id FROM b.lv WHERE tag = $1";
    socket.send(json!({"type": "subscribe", "subscription": {"id": "t", "sql": sql, "param": ["a"]}})).await;
    let error = socket.expect_error("INVALID_PARAMETER").await;
    warned(&error, &["did you mean params?"]);
    socket
        .send(
            json!({"type": "authenticate", "tokn": "", "token": root.token, "protocol": {"compress": false}}),
        )
        .await;
    let success = socket.next().await;
    assert_eq!(success["type"], "auth_success", "{success}");
    warned(&success, &["did you mean token?", "\"compress\""]);
    let answer =
        root.post("/v1/api/sql", json!({"sql": "SELECT 1", "parameters": [], "namespace": "b"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["warnings"].as_array().unwrap().len(), 2, "{answer:?}");
    let answer = root.try_sql("SELECT 1", &[]).await;
    assert!(answer.body["warnings"].is_null(), "{answer:?}");
}

#[tokio::test]
async fn a_superfluous_next_batch_ends_nothing() {
    let (server, root) = setup().await;
    let mut socket = Socket::connect(&server, &root.token).await;
    socket.send(subscribe("s", "SELECT id FROM b.lv", &json!([]))).await;
    assert_eq!(socket.next().await["type"], "subscription_ack");
    assert_eq!(socket.next().await["batch_control"]["status"], "ready");
    for _ in 0..2 {
        socket.send(json!({"type": "next_batch", "subscription_id": "s"})).await;
        let answer = socket.next().await;
        assert_eq!(
            (&answer["type"], &answer["rows"]),
            (&json!("initial_data_batch"), &json!([])),
            "{answer}"
        );
        assert_eq!(answer["batch_control"]["status"], "ready", "{answer}");
        assert!(answer["warnings"][0].as_str().unwrap().contains("next_batch"), "{answer}");
    }
    root.sql("INSERT INTO b.lv (id, tag) VALUES (9, 'z')").await;
    assert_eq!(socket.next().await["rows"][0]["id"], "9");
    // One that comes before it is known that there is no snapshot has its answer, too.
    socket
        .send(json!({"type": "subscribe", "subscription": {"id": "t", "sql": "SELECT id FROM b.lv"}}))
        .await;
    socket.send(json!({"type": "next_batch", "subscription_id": "t"})).await;
    assert_eq!(socket.next().await["type"], "subscription_ack");
    assert_eq!(socket.next().await["batch_control"]["status"], "ready");
}

#[tokio::test]
async fn a_missing_table_has_one_code_over_both_ways() {
    let (server, root) = setup().await;
    let mut socket = Socket::connect(&server, &root.token).await;
    for (table, code) in [("b.missing", "TABLE_NOT_FOUND"), ("missing.t", "NAMESPACE_NOT_FOUND")] {
        let sql = format!("SELECT * FROM {table}");
        assert_eq!(root.try_sql(&sql, &[]).await.code(), code, "{sql}");
        socket.send(subscribe("s", &sql, &json!([]))).await;
        socket.expect_error(code).await;
    }
}
