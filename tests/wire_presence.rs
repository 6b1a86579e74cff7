//! Who is there, who is not any more, and who may not be: silence, accounts that go, endings amid a snapshot, shutdown.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Api, Server, Socket, frame, in_time};

const ALL: &str = "SELECT id, body FROM app.notes";

/// Whose live queries are there, by the clients' names for them.
async fn listening(root: &Api) -> Vec<Value> {
    let rows = root.rows("SELECT query_id FROM system.live_queries ORDER BY query_id").await;
    rows.into_iter().map(|mut row| row[0].take()).collect()
}

/// A client that never reads a byte, so that it answers no ping either.
struct Deaf {
    stream: TcpStream,
}

impl Deaf {
    async fn connect(server: &Server, token: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let address = server.address();
        let connecting = socket.connect(address.parse().unwrap());
        let mut stream = in_time("connecting", connecting).await.unwrap();
        let request = format!(
            "GET /v1/ws?compress=false HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        in_time("asking for an upgrade", stream.write_all(request.as_bytes())).await.unwrap();
        Self { stream }
    }

    /// As long as it is listened to.
    async fn say(&mut self, message: &Value) {
        let bytes = frame(0x81, message.to_string().as_bytes(), 7);
        let _ = in_time("sending", self.stream.write_all(&bytes)).await;
    }

    async fn subscribe(&mut self, id: &str, sql: &str) {
        let subscription = json!({ "id": id, "sql": sql, "options": {} });
        self.say(&json!({ "type": "subscribe", "subscription": subscription })).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_no_ping_or_reads_nothing_is_let_go() {
    let config = "durability = \"os\"\n[server]\nheartbeat_ms = 100\nclient_timeout_ms = 1500\n";
    let (server, root) = Server::with_notes(config).await;
    root.sql("CREATE USER TABLE app.quiet (id INT PRIMARY KEY)").await;
    let quiet = "SELECT id FROM app.quiet";
    let mut healthy = Socket::connect(&server, &root.token).await;
    healthy.snapshot("healthy", quiet, json!({})).await;
    // Waiting for the change it answers pings.
    let healthy = tokio::spawn(async move { healthy.change("healthy").await });

    let mut full = Deaf::connect(&server, &root.token).await;
    full.subscribe("full", ALL).await;
    let ping = json!({ "type": "ping" });
    let is_live = async {
        while !listening(&root).await.contains(&json!("full")) {
            full.say(&ping).await;
        }
    };
    in_time("a subscription", is_live).await;
    // More than all the buffers on the way hold; until then it gives signs of being there.
    let body = "x".repeat(100_000);
    for first in (0..400).step_by(20) {
        let values: Vec<String> = (first..first + 20).map(|id| format!("({id}, '{body}')")).collect();
        root.sql(&format!("INSERT INTO app.notes VALUES {}", values.join(", "))).await;
        if first < 200 {
            full.say(&ping).await;
        }
    }
    let mut silent = Deaf::connect(&server, &root.token).await;
    silent.subscribe("silent", quiet).await;
    let seen = async { while !listening(&root).await.contains(&json!("silent")) {} };
    in_time("a subscription", seen).await;
    let gone = async { while listening(&root).await != [json!("healthy")] {} };
    in_time("both to be gone", gone).await;
    root.sql("INSERT INTO app.quiet VALUES (1)").await;
    assert_eq!(in_time("a change", healthy).await.unwrap()["rows"][0]["id"], 1);
}

/// Nothing but what is asked for finds out: there is no heartbeat meanwhile.
const SLOW_HEART: &str = "[server]\nheartbeat_ms = 60000\nclient_timeout_ms = 120000\n";

#[tokio::test(flavor = "multi_thread")]
async fn another_account_of_the_same_name_is_somebody_else() {
    for asks_first in [true, false] {
        let (server, root) = Server::with_notes(SLOW_HEART).await;
        let ann = server.user(&root, "ann").await;
        let mut socket = Socket::connect(&server, &ann.token).await;
        if asks_first {
            socket.snapshot("before", ALL, json!({})).await;
        }
        root.sql("DROP USER ann").await;
        let again = server.user(&root, "ann").await;
        if asks_first {
            assert_eq!(socket.expect_error("UNAUTHORIZED").await["subscription_id"], "before");
        }
        again.sql("INSERT INTO app.notes VALUES (1, 'of the new one')").await;
        socket.subscribe("s", ALL, json!({})).await;
        assert_eq!(socket.expect_error("UNAUTHORIZED").await["subscription_id"], "");
        socket.expect_close(1008, "UNAUTHORIZED").await;
        assert_eq!(ann.try_sql("SELECT 1", &[]).await.code(), "UNAUTHORIZED");
        let mut socket = Socket::connect(&server, &again.token).await;
        assert_eq!(socket.snapshot("s", ALL, json!({})).await.1.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_role_holds_for_the_next_subscription_of_the_connection() {
    let (server, root) = Server::with_notes(SLOW_HEART).await;
    root.sql("CREATE SHARED TABLE app.ledger (id INT PRIMARY KEY)").await;
    let ann = server.user(&root, "ann").await;
    let mut socket = Socket::connect(&server, &ann.token).await;
    let ledger = "SELECT id, current_role() AS role FROM app.ledger";
    socket.subscribe("ledger", ledger, json!({})).await;
    assert_eq!(socket.expect_error("PERMISSION_DENIED").await["subscription_id"], "ledger");
    socket.snapshot("notes", ALL, json!({})).await;
    root.sql("ALTER USER ann SET ROLE service").await;
    assert_eq!(socket.expect_error("UNAUTHORIZED").await["subscription_id"], "notes");
    socket.snapshot("ledger", ledger, json!({})).await;
    root.sql("INSERT INTO app.ledger VALUES (1)").await;
    assert_eq!(socket.change("ledger").await["rows"][0]["role"], "service");
    root.sql("ALTER USER ann SET ROLE user").await;
    assert_eq!(socket.expect_error("UNAUTHORIZED").await["subscription_id"], "ledger");
    socket.subscribe("ledger", ledger, json!({})).await;
    socket.expect_error("PERMISSION_DENIED").await;
    socket.snapshot("notes", ALL, json!({})).await;
}

/// A user's socket with a snapshot of 25 rows of which the first ten have come.
async fn amid_a_snapshot() -> (Server, Api, Socket) {
    let (server, root) = Server::with_notes(SLOW_HEART).await;
    let ann = server.user(&root, "ann").await;
    ann.sql("INSERT INTO app.notes SELECT value, 'x' FROM range(0, 25)").await;
    let mut socket = Socket::connect(&server, &ann.token).await;
    socket.subscribe("s", ALL, json!({ "batch_size": 10 })).await;
    assert_eq!(socket.next().await["total_rows"], 25);
    assert_eq!(socket.next().await["batch_control"]["has_more"], true);
    (server, root, socket)
}

fn next_batch() -> Value {
    json!({ "type": "next_batch", "subscription_id": "s" })
}

/// Takes the rest of the snapshot.
async fn take_the_rest(socket: &mut Socket) {
    for has_more in [true, false] {
        socket.send(next_batch()).await;
        let batch = socket.next().await;
        assert_eq!(
            (&batch["type"], &batch["batch_control"]["has_more"]),
            (&json!("initial_data_batch"), &json!(has_more))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_amid_a_snapshot_is_told_and_has_no_next_batch() {
    for whole in [false, true] {
        let (_server, root, mut socket) = amid_a_snapshot().await;
        if whole {
            take_the_rest(&mut socket).await;
        }
        let id = root.rows("SELECT live_id FROM system.live_queries").await[0][0].clone();
        root.sql(&format!("KILL LIVE QUERY '{}'", id.as_str().unwrap())).await;
        assert_eq!(socket.expect_error("SUBSCRIPTION_FAILED").await["subscription_id"], "s");
        socket.send(next_batch()).await;
        assert_eq!(socket.expect_error("NOT_FOUND").await["subscription_id"], "s");
        socket.snapshot("s", ALL, json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_dropped_amid_a_snapshot_is_told_and_let_go_at_the_next_batch() {
    for whole in [false, true] {
        let (_server, root, mut socket) = amid_a_snapshot().await;
        if whole {
            take_the_rest(&mut socket).await;
        }
        root.sql("DROP USER ann").await;
        assert_eq!(socket.expect_error("UNAUTHORIZED").await["subscription_id"], "s");
        assert_eq!(listening(&root).await, [Value::Null; 0]);
        socket.send(next_batch()).await;
        assert_eq!(socket.expect_error("UNAUTHORIZED").await["subscription_id"], "");
        socket.expect_close(1008, "UNAUTHORIZED").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_stays_while_a_snapshot_of_it_is_pulled() {
    let (_server, root, mut socket) = amid_a_snapshot().await;
    for sql in ["TRUNCATE app.notes", "DROP TABLE app.notes"] {
        let answer = root.try_sql(sql, &[]).await;
        assert_eq!((answer.status, answer.code()), (409, "CONSTRAINT_VIOLATION"), "{sql}: {answer:?}");
        assert!(answer.body["error"]["message"].as_str().unwrap().contains("ann"), "{answer:?}");
    }
    take_the_rest(&mut socket).await;
    assert_eq!(root.try_sql("TRUNCATE app.notes", &[]).await.status, 409);
    socket.send(json!({ "type": "unsubscribe", "subscription_id": "s" })).await;
    // What is asked for next comes after it.
    socket.send(next_batch()).await;
    socket.expect_error("NOT_FOUND").await;
    root.sql("TRUNCATE app.notes").await;
    assert_eq!(socket.snapshot("s", ALL, json!({})).await.1.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_said_who_they_are_is_told_of_a_shutdown_too() {
    let (mut server, _root) = Server::with_notes("[server]\nauth_deadline_ms = 120000\n").await;
    let mut socket = Socket::open(&server, "", "").await.unwrap();
    // It is being listened to.
    socket.subscribe("s", ALL, json!({})).await;
    socket.expect_error("AUTH_REQUIRED").await;
    assert!(server.stop().await.success(), "{}", server.log());
    assert_eq!(socket.expect_error("SHUTTING_DOWN").await["subscription_id"], "");
    socket.expect_close(1001, "SHUTTING_DOWN").await;
}
