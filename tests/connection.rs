//! A WebSocket's life.

use serde_json::{Value, json};

use crate::support::{Api, Server, Socket, in_time};

const ALL: &str = "SELECT id, body FROM app.notes";

async fn insert(api: &Api, ids: std::ops::Range<u64>) {
    let values: Vec<String> = ids.map(|id| format!("({id}, 'row {id}')")).collect();
    api.sql(&format!("INSERT INTO app.notes (id, body) VALUES {}", values.join(", "))).await;
}

fn ids(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_authenticates_and_anything_else_must_wait() {
    let (server, root) = Server::with_notes("").await;
    let mut socket = Socket::open(&server, "", "").await.unwrap();
    socket.send(json!({ "type": "ping" })).await;
    socket.subscribe("s", ALL, json!({})).await;
    socket.expect_error("AUTH_REQUIRED").await;
    let protocol = json!({ "serialization": "json", "compression": "none" });
    let message =
        json!({ "type": "authenticate", "method": "jwt", "token": root.token, "protocol": protocol });
    socket.send(message.clone()).await;
    let success = socket.next().await;
    assert_eq!(
        success,
        json!({ "type": "auth_success", "user": "root", "role": "dba", "protocol": protocol })
    );
    socket.snapshot("s", ALL, json!({})).await;
    // A newer token keeps the connection.
    socket.send(message).await;
    assert_eq!(socket.next().await["type"], "auth_success");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_authenticate_is_told_and_let_go() {
    let (server, root) = Server::with_notes("[server]\nauth_deadline_ms = 300\n").await;
    let mut silent = Socket::open(&server, "", "").await.unwrap();
    assert_eq!(silent.next().await["type"], "auth_error");
    assert!(silent.next_or_end().await.is_none());
    let mut wrong = Socket::open(&server, "", "").await.unwrap();
    wrong.send(json!({ "type": "authenticate", "method": "jwt", "token": "nonsense" })).await;
    assert_eq!(wrong.next().await["type"], "auth_error");
    assert!(wrong.next_or_end().await.is_none());
    assert_eq!(root.rows("SELECT 1").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_batch_by_batch_and_changes_after_it() {
    let (server, api) = Server::with_notes("").await;
    insert(&api, 0..25).await;
    let mut socket = Socket::connect(&server, &api.token).await;
    socket.subscribe("s", ALL, json!({ "batch_size": 10 })).await;
    let ack = socket.next().await;
    assert_eq!(ack["total_rows"], 25);
    assert_eq!(ack["batch_control"], json!({ "batch_num": 0, "has_more": true, "status": "loading" }));
    let mut found = Vec::new();
    for (number, status) in [(0, "loading"), (1, "loading_batch"), (2, "ready")] {
        let batch = socket.next().await;
        let control = &batch["batch_control"];
        assert_eq!((&control["batch_num"], &control["status"]), (&json!(number), &json!(status)), "{batch}");
        found.extend(ids(batch["rows"].as_array().unwrap()));
        if number == 0 {
            // Written while the snapshot is on its way: not in it, but after it.
            insert(&api, 25..26).await;
        }
        if status == "ready" {
            assert_eq!(control["last_seq_id"], ack["snapshot_seq"]);
        } else {
            socket.send(json!({ "type": "next_batch", "subscription_id": "s", "last_seq_id": 0 })).await;
        }
    }
    found.sort_unstable();
    assert!(found.into_iter().eq(0..25));
    let change = socket.change("s").await;
    assert_eq!(change["prev_seq"], ack["snapshot_seq"]);
    assert_eq!(ids(change["rows"].as_array().unwrap()), [25]);

    let (ack, rows) = socket.snapshot("newest", ALL, json!({ "last_rows": 3 })).await;
    assert_eq!((&ack["total_rows"], ids(&rows)), (&json!(3), vec![23, 24, 25]));
    // Without options: changes only.
    let subscription = json!({ "id": "changes", "sql": ALL });
    socket.send(json!({ "type": "subscribe", "subscription": subscription })).await;
    assert_eq!(socket.next().await["batch_control"]["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_chained_and_a_commit_stays_together() {
    let (server, api) = Server::with_notes("").await;
    let mut socket = Socket::connect(&server, &api.token).await;
    let (ack, _) = socket.snapshot("s", "SELECT * FROM app.notes", json!({})).await;
    insert(&api, 0..2_500).await;
    let (mut prev_seq, mut count) = (ack["snapshot_seq"].clone(), 0);
    loop {
        let change = socket.change("s").await;
        assert_eq!(change["prev_seq"], prev_seq);
        let rows = change["rows"].as_array().unwrap();
        assert_eq!(rows.last().unwrap()["_seq"].as_str().unwrap(), change["seq"].to_string());
        prev_seq = change["seq"].clone();
        count += rows.len();
        assert_eq!(change["more"], count < 2_500);
        if count == 2_500 {
            break;
        }
    }
    api.sql("UPDATE app.notes SET body = 'new' WHERE id = 7").await;
    let change = socket.change("s").await;
    assert_eq!(change["change_type"], "update");
    assert_eq!(
        (&change["rows"][0]["body"], &change["old_values"][0]["body"]),
        (&json!("new"), &json!("row 7"))
    );
    assert_eq!(change["old_values"][0]["_seq"], change["rows"][0]["_seq"]);
    api.sql("DELETE FROM app.notes WHERE id = 7").await;
    let change = socket.change("s").await;
    assert_eq!((&change["change_type"], &change["old_values"][0]["id"]), (&json!("delete"), &json!("7")));
    assert!(change.get("rows").is_none(), "{change}");
    assert_eq!(change["old_values"][0]["_seq"].as_str().unwrap(), change["seq"].to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_misses_nothing() {
    const COMMITS: u64 = 400;
    // Room for four changes: all others have to be read from the log.
    let (server, api) = Server::with_notes("durability = \"os\"\n[server]\nqueue_changes_max = 4\n").await;
    let mut socket = Socket::connect(&server, &api.token).await;
    let (ack, _) = socket.snapshot("s", ALL, json!({})).await;
    let body = "x".repeat(20_000);
    for id in 0..COMMITS {
        api.sql_with("INSERT INTO app.notes (id, body) VALUES ($1, $2)", &[json!(id), json!(body)]).await;
    }
    // Otherwise the test shows nothing.
    let metrics = api.get("/metrics").await.body;
    assert!(metrics.as_str().unwrap().contains("kalamdb_ws_lagging_total"), "the reader was not slow enough");
    let mut prev_seq = ack["snapshot_seq"].clone();
    for id in 0..COMMITS {
        let change = socket.change("s").await;
        assert_eq!(change["prev_seq"], prev_seq);
        prev_seq = change["seq"].clone();
        assert_eq!(ids(change["rows"].as_array().unwrap()), [id]);
    }
    insert(&api, COMMITS..COMMITS + 1).await;
    assert_eq!(socket.change("s").await["prev_seq"], prev_seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_places_come_free() {
    let (server, api) = Server::with_notes("[server]\nsubscriptions_max = 2\nconnections_max = 2\n").await;
    let mut socket = Socket::connect(&server, &api.token).await;
    socket.snapshot("a", ALL, json!({})).await;
    socket.snapshot("b", ALL, json!({})).await;
    socket.subscribe("c", ALL, json!({})).await;
    socket.expect_error("SUBSCRIPTION_LIMIT_EXCEEDED").await;
    socket.send(json!({ "type": "unsubscribe", "subscription_id": "a" })).await;
    socket.snapshot("c", ALL, json!({})).await;
    insert(&api, 0..1).await;
    let mut of: Vec<String> = [socket.next().await, socket.next().await]
        .iter()
        .map(|it| it["subscription_id"].to_string())
        .collect();
    of.sort();
    assert_eq!(of, ["\"b\"", "\"c\""]);
    let _second = Socket::connect(&server, &api.token).await;
    assert_eq!(Socket::open(&server, "", &api.token).await.err(), Some(429));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_ends_its_connection_with_a_code() {
    let (server, api) = Server::with_notes(
        "[server]\naccess_token_s = 10\nheartbeat_ms = 60000\nclient_timeout_ms = 120000\n",
    )
    .await;
    let mut socket = Socket::connect(&server, &api.token).await;
    socket.snapshot("s", ALL, json!({})).await;
    socket.expect_error("TOKEN_EXPIRED").await;
    assert!(socket.next_or_end().await.is_none());
    let answer = api.try_sql("SELECT 1", &[]).await;
    assert_eq!((answer.status, answer.code()), (401, "TOKEN_EXPIRED"));
    assert_eq!(Socket::open(&server, "", &api.token).await.err(), Some(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_told_and_the_next_start_goes_on() {
    let (mut server, api) = Server::with_notes("").await;
    let mut socket = Socket::connect(&server, &api.token).await;
    let (ack, _) = socket.snapshot("s", ALL, json!({})).await;
    assert!(server.stop().await.success(), "{}", server.log());
    let told = socket.expect_error("SHUTTING_DOWN").await;
    assert_eq!(told["subscription_id"], "s");
    assert!(told["retry_after_ms"].as_u64().is_some_and(|wait| (100..=30_100).contains(&wait)), "{told}");
    assert!(socket.next_or_end().await.is_none());
    server.start_again().await;
    // The token and the seq are still good.
    insert(&api, 0..1).await;
    let mut socket = Socket::connect(&server, &api.token).await;
    socket.subscribe("s", ALL, json!({ "from": ack["snapshot_seq"].to_string() })).await;
    assert_eq!(socket.next().await["batch_control"]["status"], "ready");
    assert_eq!(socket.change("s").await["prev_seq"], ack["snapshot_seq"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_lives_through_an_alter_and_is_told_of_new_columns() {
    let (server, api) = Server::with_notes("").await;
    let mut socket = Socket::connect(&server, &api.token).await;
    let (ack, _) = socket.snapshot("all", "SELECT * FROM app.notes", json!({})).await;
    insert(&api, 1..2).await;
    assert_eq!(socket.change("all").await["prev_seq"], ack["snapshot_seq"]);
    let dropped = api.try_sql("ALTER TABLE app.notes DROP COLUMN body", &[]).await;
    assert_eq!(dropped.body["error"]["code"], "CONSTRAINT_VIOLATION", "{}", dropped.body);
    api.sql("ALTER TABLE app.notes ADD COLUMN stars INT NOT NULL DEFAULT 3").await;
    api.sql("UPDATE app.notes SET stars = 5").await;
    let schema = socket.next().await;
    assert_eq!(
        (&schema["type"], &schema["subscription_id"], &schema["schema_version"]),
        (&json!("schema"), &json!("all"), &json!(2)),
        "{schema}"
    );
    assert_eq!(schema["schema"][2], json!({ "name": "stars", "data_type": "Int", "index": 2 }));
    let change = socket.change("all").await;
    assert_eq!(change["prev_seq"], schema["prev_seq"]);
    assert_eq!((&change["old_values"][0]["stars"], &change["rows"][0]["stars"]), (&json!(3), &json!(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_of_flushes_of_their_own_rows_outside_of_the_chain() {
    let (server, root) = Server::with_notes("").await;
    let (ann, bob) = (server.user(&root, "ann").await, server.user(&root, "bob").await);
    let asks = json!({ "notify_flush": true });
    let mut told = Socket::connect(&server, &ann.token).await;
    let mut silent = Socket::connect(&server, &ann.token).await;
    let mut other = Socket::connect(&server, &bob.token).await;
    told.snapshot("t", ALL, asks.clone()).await;
    silent.snapshot("s", ALL, json!({})).await;
    other.snapshot("o", ALL, asks).await;
    // Who has got a change is live: those who catch up are not told.
    insert(&ann, 0..1).await;
    insert(&bob, 0..1).await;
    let first = told.change("t").await;
    silent.change("s").await;
    other.change("o").await;
    insert(&ann, 1..3).await;
    let second = told.change("t").await;
    silent.change("s").await;
    assert_eq!(second["prev_seq"], first["seq"]);
    root.sql("STORAGE FLUSH TABLE app.notes").await;
    let flush = told.next().await;
    assert_eq!(
        (&flush["type"], &flush["subscription_id"], &flush["rows"]),
        (&json!("flush"), &json!("t"), &json!(3))
    );
    assert!(flush["seq"].as_u64() > second["seq"].as_u64(), "{flush}");
    let file = flush["file"].as_str().unwrap();
    assert!(file.contains("/ann/") && server.data_dir().join("cold").join(file).exists(), "{file}");
    let others = other.next().await;
    assert!(others["file"].as_str().unwrap().contains("/bob/"), "{others}");
    insert(&ann, 3..4).await;
    let third = told.change("t").await;
    assert_eq!(third["prev_seq"], second["seq"], "a flush is no part of the chain");
    assert_eq!(silent.change("s").await["seq"], third["seq"], "and comes to nobody who did not ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wait_for_their_turn_and_all_of_them_are_served() {
    let (server, api) = Server::with_notes("[server]\nsnapshots_max = 1\ncatch_ups_max = 1\n").await;
    insert(&api, 0..50).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = Socket::connect(&server, &api.token).await;
        for number in 0..5 {
            socket.subscribe(&format!("s{number}"), ALL, json!({ "batch_size": 1000 })).await;
        }
        sockets.push(socket);
    }
    insert(&api, 50..51).await;
    for socket in &mut sockets {
        // Each has the row in its snapshot or as a change, once.
        let mut found = [0; 5];
        while found != [51; 5] {
            let message = socket.next().await;
            let number: usize = message["subscription_id"].as_str().unwrap()[1..].parse().unwrap();
            found[number] += message["rows"].as_array().map_or(0, Vec::len);
            assert!(found[number] <= 51, "{message}");
        }
    }
    let all_live = async {
        while api.rows("SELECT 1 FROM system.live WHERE state = 'live'").await.len() < 50 {
            tokio::task::yield_now().await;
        }
    };
    in_time("all of them to be live", all_live).await;
    for row in api.rows("SELECT bytes FROM system.live").await {
        assert!(row[0].as_str().unwrap().parse::<u64>().unwrap() > 51 * 20, "{row}");
    }
}
