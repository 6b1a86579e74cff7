//! Two users, one SQL text. Alice's rows carry a marker; nothing that bob, or root, is ever sent may contain it.

use serde_json::{Value, json};

use crate::support::{Api, Server, Socket};

/// In every one of alice's rows.
const MARKER: &str = "only for alice";

async fn setup() -> (Server, Api, Api, Api) {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT NOT NULL)").await;
    let alice = server.user(&root, "alice").await;
    let bob = server.user(&root, "bob").await;
    for id in 1..=3 {
        alice.sql_with("INSERT INTO app.notes (id, body) VALUES ($1, $2)", &[json!(id), json!(MARKER)]).await;
    }
    bob.sql("INSERT INTO app.notes (id, body) VALUES (1, 'of bob')").await;
    (server, root, alice, bob)
}

fn check_no_trace(what: &str, value: &Value) {
    assert!(!value.to_string().contains(MARKER), "{what} shows a foreign row: {value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_query_answers_each_with_their_own_rows() {
    let (_server, root, alice, bob) = setup().await;
    let rows = |api: Api| async move { api.rows("SELECT id, body FROM app.notes ORDER BY id").await };
    assert_eq!(rows(bob.clone()).await, [json!(["1", "of bob"])]);
    assert_eq!(rows(alice).await.len(), 3);
    // Root owns rows like everyone else, and none here.
    assert_eq!(rows(root).await, [Value::Null; 0]);
    for sql in [
        "SELECT COUNT(*) FROM app.notes",
        "SELECT COUNT(DISTINCT id) FROM app.notes",
        "SELECT MAX(id) FROM app.notes",
        "SELECT COUNT(*) FROM app.notes a CROSS JOIN app.notes b",
        "WITH w AS (SELECT * FROM app.notes) SELECT COUNT(*) FROM w",
        "SELECT (SELECT COUNT(*) FROM app.notes)",
        "SELECT COUNT(*) FROM app.notes WHERE id >= 0 OR _deleted",
        "SELECT COUNT(*) FROM (SELECT * FROM app.notes UNION ALL SELECT * FROM app.notes WHERE false)",
    ] {
        assert_eq!(bob.rows(sql).await, [json!(["1"])], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_bob_runs_shows_nothing_of_alice() {
    let (server, root, alice, bob) = setup().await;
    let watch = format!("SELECT id FROM app.notes WHERE body = '{MARKER}'");
    let mut watching = Socket::connect(&server, &alice.token).await;
    watching.snapshot("w", &watch, json!({})).await;
    for sql in [
        "SELECT * FROM app.notes",
        "SELECT * FROM app.notes WHERE id = 2",
        "SELECT * FROM app.notes WHERE body LIKE 'only%'",
        "SELECT *, _seq, _updated, _deleted FROM app.notes WHERE _seq > 0",
        "SELECT 1 / (id - 1) FROM app.notes",
        "SELECT CAST(body AS BIGINT) FROM app.notes",
        "EXPLAIN SELECT * FROM app.notes",
        "EXPLAIN ANALYZE SELECT * FROM app.notes WHERE id > 0",
        "EXPLAIN VERBOSE SELECT * FROM app.notes WHERE id = 2",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM system.tables",
        "SELECT * FROM system.table_schemas",
        "SELECT * FROM system.namespaces",
        "SELECT * FROM system.users",
        "SELECT * FROM system.jobs",
        "SELECT * FROM system.live_queries",
        "SELECT * FROM system.live",
        "SELECT * FROM system.changes",
        "SELECT * FROM changes('app.notes', 0)",
        "SHOW TABLES",
        "DESCRIBE TABLE app.notes",
        "SHOW STATS FOR TABLE app.notes",
        "INSERT INTO app.notes SELECT id + 100, body FROM app.notes WHERE id = 2",
        "INSERT INTO app.notes (id, body) VALUES (1, 'again')",
        "EXECUTE AS USER 'alice' ( SELECT * FROM app.notes )",
        "SELECT * FROM alice.app.notes",
        "SELECT * FROM \"app\".\"notes\" WHERE current_user() = 'alice'",
        "COPY app.notes TO '/tmp/kalamdb-isolation.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
    ] {
        for api in [&bob, &root] {
            let answer = api.try_sql(sql, &[]).await;
            // A dba sees every live query and every change, and may act for a user where it says so.
            let of_dbas = [
                "EXECUTE AS",
                "SELECT * FROM system.live",
                "SELECT * FROM system.changes",
                "SELECT * FROM changes(",
            ];
            if api.token == root.token && of_dbas.iter().any(|allowed| sql.starts_with(allowed)) {
                continue;
            }
            check_no_trace(sql, &answer.body);
        }
    }
    assert!(!std::path::Path::new("/tmp/kalamdb-isolation.csv").exists(), "a user wrote a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_changes_nothing_of_alice() {
    let (_server, _root, alice, bob) = setup().await;
    let before = alice.rows("SELECT * FROM app.notes ORDER BY id").await;
    for (sql, own) in [
        ("UPDATE app.notes SET body = 'mine' WHERE id = 2", 0),
        ("UPDATE app.notes SET body = 'mine' WHERE id IN (2, 3)", 0),
        ("UPDATE app.notes SET body = 'mine'", 1),
        ("DELETE FROM app.notes WHERE id = 2", 0),
        ("DELETE FROM app.notes WHERE body LIKE 'only%'", 0),
        ("DELETE FROM app.notes", 1),
    ] {
        let result = bob.sql(sql).await;
        assert_eq!(result["row_count"], own, "{sql}: {result}");
    }
    // A key that is taken by alice is free for bob.
    assert_eq!(bob.sql("INSERT INTO app.notes (id, body) VALUES (2, 'of bob')").await["row_count"], 1);
    assert_eq!(alice.rows("SELECT * FROM app.notes ORDER BY id").await, before);
    // What only dbas and services may do.
    for sql in
        ["DROP TABLE app.notes", "DROP NAMESPACE app CASCADE", "CREATE USER eve WITH PASSWORD 'x' ROLE dba"]
    {
        let answer = bob.try_sql(sql, &[]).await;
        assert_eq!((answer.status, answer.code()), (403, "PERMISSION_DENIED"), "{sql}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_subscription_shows_each_their_own_changes() {
    let (server, root, alice, bob) = setup().await;
    let sql = "SELECT * FROM app.notes";
    let mut of_alice = Socket::connect(&server, &alice.token).await;
    let mut of_bob = Socket::connect(&server, &bob.token).await;
    let mut of_root = Socket::connect(&server, &root.token).await;
    assert_eq!(of_alice.snapshot("s", sql, json!({})).await.1.len(), 3);
    let (ack, rows) = of_bob.snapshot("s", sql, json!({})).await;
    assert_eq!((&ack["total_rows"], rows.len()), (&json!(1), 1));
    assert_eq!(of_root.snapshot("s", sql, json!({})).await.1.len(), 0);

    alice.sql_with("INSERT INTO app.notes (id, body) VALUES (10, $1)", &[json!(MARKER)]).await;
    alice.sql("UPDATE app.notes SET body = body || '!' WHERE id = 10").await;
    alice.sql("DELETE FROM app.notes WHERE id = 10").await;
    bob.sql("INSERT INTO app.notes (id, body) VALUES (11, 'of bob')").await;
    root.sql("INSERT INTO app.notes (id, body) VALUES (12, 'of root')").await;

    for kind in ["insert", "update", "delete"] {
        assert_eq!(of_alice.change("s").await["change_type"], kind);
    }
    // The first that comes is their own: what alice did before would have come first.
    for (socket, id) in [(&mut of_bob, "11"), (&mut of_root, "12")] {
        let change = socket.change("s").await;
        check_no_trace("a change", &change);
        assert_eq!(change["rows"][0]["id"], id);
    }
    // Reading on from before everything shows no more than that either.
    let mut again = Socket::connect(&server, &bob.token).await;
    again.subscribe("r", sql, json!({ "from": ack["snapshot_seq"] })).await;
    assert_eq!(again.next().await["type"], "subscription_ack");
    assert_eq!(again.change("r").await["rows"][0]["id"], "11");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_cannot_name_foreign_rows() {
    let (server, _root, _alice, bob) = setup().await;
    let mut socket = Socket::connect(&server, &bob.token).await;
    for (at, sql) in [
        "SELECT * FROM system.users",
        "SELECT * FROM system.live_queries",
        "SELECT * FROM alice.app.notes",
        "SELECT * FROM app.notes a JOIN app.notes b ON a.id = b.id",
        "SELECT * FROM app.notes WHERE id IN (SELECT id FROM app.notes)",
        "EXECUTE AS USER 'alice' (SELECT * FROM app.notes)",
        "DELETE FROM app.notes",
    ]
    .into_iter()
    .enumerate()
    {
        socket.subscribe(&format!("s{at}"), sql, json!({})).await;
        let message = socket.next().await;
        assert_eq!(message["type"], "error", "{sql}: {message}");
        check_no_trace(sql, &message);
    }
    assert_eq!(bob.rows("SELECT COUNT(*) FROM app.notes").await, [json!(["1"])]);
}
