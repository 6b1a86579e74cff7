//! What comes over the wire and in what order: coalesced changes, batches of a result, rows that go by themselves, whose values, and that
//! nothing stays behind.

use serde_json::{Value, json};

use crate::support::{Api, Server, Socket};

async fn setup(config: &str) -> (Server, Api) {
    let server = Server::start_with(config).await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    (server, root)
}

const UPDATES: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn who_coalesces_is_told_less_and_ends_up_with_the_same() {
    // Who does not read answers no ping either: nobody minds here.
    let config = "durability = \"os\"\n[server]\nqueue_changes_max = 16\nheartbeat_ms = 60000\nclient_timeout_ms = 120000\n";
    let (server, root) = setup(config).await;
    root.sql("CREATE USER TABLE app.counters (id INT PRIMARY KEY, n INT, filler TEXT)").await;
    let filler = "x".repeat(1_000);
    root.sql(&format!("INSERT INTO app.counters VALUES (1, 0, '{filler}')")).await;
    let sql = "SELECT id, n, filler FROM app.counters";
    let mut coalescing = Socket::connect(&server, &root.token).await;
    let mut plain = Socket::connect(&server, &root.token).await;
    let (ack, _) = coalescing.snapshot("c", sql, json!({ "coalesce": true })).await;
    let (plain_ack, _) = plain.snapshot("p", sql, json!({})).await;
    // Neither reads meanwhile.
    for first in (1..=UPDATES).step_by(500) {
        let updates: Vec<String> =
            (first..first + 500).map(|n| format!("UPDATE app.counters SET n = {n} WHERE id = 1")).collect();
        root.sql(&updates.join("; ")).await;
    }
    let told = follow(&mut coalescing, "c", &ack["snapshot_seq"]).await;
    assert!(told < UPDATES / 2, "{told} changes are not much less than {UPDATES}");
    assert_eq!(follow(&mut plain, "p", &plain_ack["snapshot_seq"]).await, UPDATES);
}

/// Takes changes until the last update, checks that each goes on from the one before, and counts them.
async fn follow(socket: &mut Socket, id: &str, from: &Value) -> usize {
    let (mut prev_seq, mut n, mut count) = (from.clone(), json!(0), 0);
    while n != UPDATES {
        let change = socket.change(id).await;
        assert_eq!(change["prev_seq"], prev_seq, "{}", change["seq"]);
        assert_eq!((&change["change_type"], &change["more"]), (&json!("update"), &json!(false)));
        assert_eq!(change["old_values"][0]["n"], n, "{}", change["seq"]);
        assert!(change["rows"][0]["n"].as_u64() > n.as_u64());
        (prev_seq, n) = (change["seq"].clone(), change["rows"][0]["n"].clone());
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_of_the_same_text_is_told_their_own_name() {
    let (server, root) = setup("").await;
    root.sql("CREATE SHARED TABLE app.tasks (id INT PRIMARY KEY, owner TEXT) WITH (ACCESS_LEVEL = 'public')")
        .await;
    root.sql("INSERT INTO app.tasks VALUES (1, 'ann'), (2, 'bob')").await;
    let own = "SELECT id, owner, CURRENT_USER() AS me FROM app.tasks WHERE owner = CURRENT_USER()";
    let all = "SELECT id, owner = CURRENT_USER() AS mine, CURRENT_USER() AS me FROM app.tasks";
    let mut listeners = Vec::new();
    for (id, name) in [(1, "ann"), (2, "bob")] {
        let api = server.user(&root, name).await;
        let mut socket = Socket::connect(&server, &api.token).await;
        let (_, rows) = socket.snapshot("own", own, json!({})).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((&rows[0]["id"], &rows[0]["me"]), (&json!(id), &json!(name)));
        let (_, rows) = socket.snapshot("all", all, json!({})).await;
        assert!(rows.len() == 2 && rows.iter().all(|row| row["me"] == name), "{rows:?}");
        listeners.push((name, api, socket));
    }
    // Of both in one commit; then one's own goes over to the other.
    root.sql("INSERT INTO app.tasks VALUES (3, 'ann'), (4, 'bob')").await;
    root.sql("UPDATE app.tasks SET owner = 'bob' WHERE id = 3").await;
    for (name, _, socket) in &mut listeners {
        let (mut own, mut all) = (Vec::new(), Vec::new());
        while own.len() < 2 || all.len() < 2 {
            let change = socket.next().await;
            assert_eq!(change["type"], "change", "{change}");
            let row = if change["rows"].is_array() { &change["rows"] } else { &change["old_values"] };
            assert!(row.as_array().unwrap().iter().all(|row| row["me"] == *name), "{change}");
            let of = if change["subscription_id"] == "own" { &mut own } else { &mut all };
            let rows: Vec<Value> = row.as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
            of.push((change["change_type"].clone(), rows));
        }
        let (first, then) = if *name == "ann" { (3, "delete") } else { (4, "insert") };
        assert_eq!(own, [(json!("insert"), vec![json!(first)]), (json!(then), vec![json!(3)])], "{name}");
        assert_eq!(all, [(json!("insert"), vec![json!(3), json!(4)]), (json!("update"), vec![json!(3)])]);
    }
    // The same text, asked by both over HTTP.
    for (name, api, _) in &listeners {
        let rows = api.rows(&format!("{own} ORDER BY id LIMIT 1")).await;
        assert_eq!(rows[0][2], *name);
    }
}

const GROUPS: u64 = 2_500;

#[tokio::test(flavor = "multi_thread")]
async fn a_result_in_several_batches_can_be_resumed_from_the_last_alone() {
    let (server, root) = setup("").await;
    root.sql("CREATE USER TABLE app.visits (id BIGINT PRIMARY KEY, page BIGINT)").await;
    root.sql(&format!("INSERT INTO app.visits SELECT value, value FROM range(0, {GROUPS})")).await;
    let sql = "SELECT page, count(*) AS n FROM app.visits GROUP BY page";
    let asks = json!({ "batch_size": 1000 });
    // One batch, then the connection is gone.
    let mut socket = Socket::connect(&server, &root.token).await;
    socket.subscribe("s", sql, asks.clone()).await;
    assert_eq!(socket.next().await["total_rows"], GROUPS);
    assert_eq!(socket.next().await["rows"].as_array().unwrap().len(), 1000);
    drop(socket);
    root.sql("INSERT INTO app.visits VALUES (10000, 0), (10001, 9999)").await;

    let mut socket = Socket::connect(&server, &root.token).await;
    socket.subscribe("s", sql, asks).await;
    let ack = socket.next().await;
    assert_eq!(ack["total_rows"], GROUPS + 1);
    let mut found = std::collections::BTreeMap::new();
    for (number, count) in [(0, 1000), (1, 1000), (2, 501)] {
        let batch = socket.next().await;
        let rows = batch["rows"].as_array().unwrap();
        let control = &batch["batch_control"];
        assert_eq!((&control["batch_num"], rows.len()), (&json!(number), count), "{control}");
        let last = number == 2;
        assert_eq!(control["has_more"], !last);
        if last {
            let seq = ack["snapshot_seq"].to_string();
            assert_eq!(control["last_seq_id"], ack["snapshot_seq"]);
            assert!(rows.iter().all(|row| row["_seq"] == seq), "{}", rows[0]);
        } else {
            assert!(control.get("last_seq_id").is_none(), "{control}");
            assert!(rows.iter().all(|row| row["_seq"].is_null()), "{}", rows[0]);
            socket.send(json!({ "type": "next_batch", "subscription_id": "s" })).await;
        }
        found.extend(rows.iter().map(|row| (row["page"].as_str().unwrap().to_owned(), row["n"].clone())));
    }
    assert_eq!(found.len() as u64, GROUPS + 1);
    assert!(found.iter().all(|(page, n)| n == if page == "0" { "2" } else { "1" }));
    root.sql("DELETE FROM app.visits WHERE id = 10001").await;
    let change = socket.change("s").await;
    assert_eq!((&change["change_type"], &change["prev_seq"]), (&json!("delete"), &ack["snapshot_seq"]));
    assert_eq!(change["old_values"][0]["page"], "9999");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_of_rows_that_go_by_themselves() {
    let (server, root) = setup("").await;
    root.sql("CREATE STREAM TABLE app.typing (n INT) MAX_BUFFER 3 SCOPE 'all'").await;
    let sql = "SELECT n FROM app.typing";
    let mut told = Socket::connect(&server, &root.token).await;
    let mut silent = Socket::connect(&server, &root.token).await;
    let (ack, _) = told.snapshot("t", sql, json!({ "notify_evicted": true })).await;
    silent.snapshot("s", sql, json!({})).await;
    root.sql("INSERT INTO app.typing VALUES (1), (2), (3), (4), (5)").await;
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let mut prev_seq = ack["snapshot_seq"].clone();
    while went.len() < 2 {
        let change = told.change("t").await;
        assert_eq!(change["prev_seq"], prev_seq, "{change}");
        prev_seq = change["seq"].clone();
        match change["change_type"].as_str().unwrap() {
            "insert" => came.extend(change["rows"].as_array().unwrap().iter().map(|row| row["n"].clone())),
            "delete" => {
                went.extend(change["old_values"].as_array().unwrap().iter().map(|row| row["n"].clone()));
            }
            other => panic!("{other}: {change}"),
        }
    }
    assert_eq!(
        (came, went),
        (vec![json!(1), json!(2), json!(3), json!(4), json!(5)], vec![json!(1), json!(2)])
    );
    // The other one got the rows, and what comes next is the next row.
    root.sql("INSERT INTO app.typing VALUES (6)").await;
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let change = silent.change("s").await;
        assert_eq!(change["change_type"], "insert", "{change}");
        seen.extend(change["rows"].as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap()));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

const LISTENING: usize = 90;

#[tokio::test(flavor = "multi_thread")]
async fn changes_do_not_wait_for_what_is_behind_them_and_was_given_up() {
    // No heartbeat sends what somebody forgot to send.
    let config = "durability = \"os\"\n[server]\nheartbeat_ms = 600000\nclient_timeout_ms = 1200000\n";
    let (server, root) = Server::with_notes(config).await;
    let sql = "SELECT id, body FROM app.notes";
    let mut socket = Socket::connect(&server, &root.token).await;
    for nth in 0..LISTENING {
        socket.snapshot(&format!("s{nth}"), sql, json!({ "last_rows": 0 })).await;
    }
    for round in 0..40 {
        // What a commit is for it comes after all others.
        let last = json!(format!("last-{round}"));
        socket.subscribe(last.as_str().unwrap(), sql, json!({ "last_rows": 0 })).await;
        let is_before = |message: &Value| message["type"] == "change";
        while is_before(&socket.next().await) {}
        let insert = format!("INSERT INTO app.notes VALUES ({round}, repeat('x', 2000))");
        let listening = async {
            let mut told = 0;
            while told < LISTENING {
                let change = socket.next().await;
                assert_eq!(change["type"], "change", "{change}");
                if change["subscription_id"] == last {
                    continue;
                }
                if told == 0 {
                    socket.send(json!({ "type": "unsubscribe", "subscription_id": last })).await;
                }
                told += 1;
            }
        };
        tokio::join!(root.sql(&insert), listening);
    }
}
