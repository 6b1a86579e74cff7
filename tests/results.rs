//! Live queries that order, limit and aggregate, over the wire: raw, and through the published SDK, over a crash.

use kalam_client::{
    AuthProvider, ChangeEvent, KalamLinkClient, RowData, SeqId, SubscriptionConfig, SubscriptionOptions,
};
use serde_json::{Value, json};

use crate::support::{Api, Server, Socket, in_time};

const TOP: &str = "SELECT id, body FROM app.notes ORDER BY stars DESC LIMIT 2";
const SUMS: &str = "SELECT body, count(*) AS n, sum(stars) AS stars FROM app.notes GROUP BY body";

async fn server_with_notes() -> (Server, Api) {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, stars INT)").await;
    let alice = server.user(&root, "alice").await;
    (server, alice)
}

/// `+`, `~` or `-`, and these columns of the rows: before, then after.
fn brief(change: &Value, columns: &[&str]) -> String {
    let sign = match change["change_type"].as_str().unwrap() {
        "insert" => "+",
        "update" => "~",
        _ => "-",
    };
    let rows = [&change["old_values"], &change["rows"]].into_iter().filter_map(Value::as_array).flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |row: &Value| columns.iter().map(|name| text(&row[*name])).collect::<Vec<_>>().join(",");
    format!("{sign}{}", rows.map(row).collect::<Vec<_>>().join(" "))
}

/// The next commit's changes of a subscription, in short, and its seq; checks the chain from `last` on.
async fn commit(socket: &mut Socket, id: &str, last: u64, columns: &[&str]) -> (Vec<String>, u64) {
    let (mut found, mut last) = (Vec::new(), last);
    loop {
        let change = socket.change(id).await;
        assert_eq!(change["prev_seq"], last, "{change}");
        found.push(brief(&change, columns));
        last = change["seq"].as_u64().unwrap();
        let rows = change["rows"].as_array().or_else(|| change["old_values"].as_array()).unwrap();
        if change["more"] == false {
            assert!(rows.iter().all(|row| row["_seq"] == json!(last.to_string())), "{change}");
            return (found, last);
        }
        assert!(rows.iter().all(|row| row["_seq"].is_null()), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_and_groups_are_followed_and_resumed_over_a_crash() {
    let (mut server, alice) = server_with_notes().await;
    alice.sql("INSERT INTO app.notes VALUES (1, 'a', 1), (2, 'b', 2), (3, 'a', 3)").await;
    let mut socket = Socket::connect(&server, &alice.token).await;
    let (ack, rows) = socket.snapshot("top", TOP, json!({})).await;
    assert_eq!(ack["total_rows"], 2);
    assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ["3", "2"]);
    let start = ack["snapshot_seq"].as_u64().unwrap();
    let (ack, rows) = socket.snapshot("sums", SUMS, json!({})).await;
    assert_eq!((rows.len(), &ack["snapshot_seq"]), (2, &json!(start)));
    assert!(
        rows.contains(&json!({"body": "a", "n": "2", "stars": "4", "_seq": start.to_string()})),
        "{rows:?}"
    );
    drop(socket);

    // Missed, but for the first; the last two rows come and go without a trace.
    let mut socket = Socket::connect(&server, &alice.token).await;
    socket.snapshot("top", TOP, json!({ "from": start })).await;
    alice.sql("INSERT INTO app.notes VALUES (4, 'b', 9)").await;
    let (changes, seen) = commit(&mut socket, "top", start, &["id"]).await;
    assert_eq!(changes, ["-2", "+4"]);
    drop(socket);
    alice.sql("UPDATE app.notes SET stars = 10, body = 'c' WHERE id = 1").await;
    alice.sql("INSERT INTO app.notes VALUES (5, 'd', 20)").await;
    server.kill().await;
    server.start_again().await;
    alice.sql("DELETE FROM app.notes WHERE id = 5").await;

    let mut socket = Socket::connect(&server, &alice.token).await;
    let (ack, rows) = socket.snapshot("top", TOP, json!({ "from": seen })).await;
    assert_eq!((&ack["total_rows"], rows.len()), (&json!(0), 0));
    let (changes, seen) = commit(&mut socket, "top", seen, &["id", "body"]).await;
    assert_eq!(changes, ["-3,a", "+1,c"]);
    let mut other = Socket::connect(&server, &alice.token).await;
    other.snapshot("sums", SUMS, json!({ "from": start })).await;
    let (mut changes, _) = commit(&mut other, "sums", start, &["body", "n", "stars"]).await;
    changes.sort_unstable();
    assert_eq!(changes, ["+c,1,10", "~a,2,4 b,1,2 a,1,3 b,2,11"]);
    alice.sql("DELETE FROM app.notes WHERE id IN (1, 4)").await;
    let (changes, _) = commit(&mut socket, "top", seen, &["id"]).await;
    assert_eq!(changes, ["-1 4", "+2 3"]);
}

async fn next(events: &mut kalam_client::SubscriptionManager) -> ChangeEvent {
    in_time("an event", events.next()).await.expect("the stream ended").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_follows_an_order_and_groups() {
    let (mut server, alice) = server_with_notes().await;
    alice.sql("INSERT INTO app.notes VALUES (1, 'a', 1), (2, 'b', 2), (3, 'a', 3)").await;
    let auth = AuthProvider::basic_auth("alice".to_owned(), "password of alice".to_owned());
    let client = KalamLinkClient::builder().base_url(server.url()).auth(auth).build().unwrap();
    let id = |row: &RowData| row["id"].as_big_int().unwrap();
    let subscribe = async |name: &str, sql: &str, from: Option<i64>| {
        let mut config = SubscriptionConfig::new(name, sql);
        let options = SubscriptionOptions::default();
        config.options = Some(from.map_or(options.clone(), |from| options.with_from(SeqId::from_i64(from))));
        let mut events = in_time("a subscription", client.live_events_with_config(config)).await.unwrap();
        assert!(matches!(next(&mut events).await, ChangeEvent::Ack { .. }));
        events
    };
    let mut sums = subscribe("sums", "SELECT count(*) AS n, max(stars) AS best FROM app.notes", None).await;
    let ChangeEvent::InitialDataBatch { rows, .. } = next(&mut sums).await else { panic!("no snapshot") };
    assert_eq!((rows[0]["n"].as_big_int(), rows[0]["best"].as_int()), (Some(3), Some(3)));
    let seen = rows[0]["_seq"].as_big_int().unwrap();
    let mut top = subscribe("top", TOP, None).await;
    let ChangeEvent::InitialDataBatch { rows, .. } = next(&mut top).await else { panic!("no snapshot") };
    assert_eq!(rows.iter().map(id).collect::<Vec<_>>(), [3, 2]);

    for over_a_crash in [false, true] {
        let (new, gone) = if over_a_crash { (5, 3) } else { (4, 2) };
        alice.sql(&format!("INSERT INTO app.notes VALUES ({new}, 'c', {new})")).await;
        if over_a_crash {
            // It reconnects by itself and resumes.
            server.kill().await;
            server.start_again().await;
        }
        let mut changes = Vec::new();
        while changes.len() < 2 {
            match next(&mut top).await {
                ChangeEvent::Delete { old_rows, .. } => changes.push(-id(&old_rows[0])),
                ChangeEvent::Insert { rows, .. } => changes.push(id(&rows[0])),
                ChangeEvent::Ack { total_rows, .. } => assert_eq!((over_a_crash, total_rows), (true, 0)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(changes, [-gone, new]);
    }
    // One that missed both is told once.
    let mut late =
        subscribe("late", "SELECT count(*) AS n, max(stars) AS best FROM app.notes", Some(seen)).await;
    let ChangeEvent::Update { rows, old_rows, .. } = next(&mut late).await else { panic!("no update") };
    assert_eq!((old_rows[0]["n"].as_big_int(), old_rows[0]["best"].as_int()), (Some(3), Some(3)));
    assert_eq!((rows[0]["n"].as_big_int(), rows[0]["best"].as_int()), (Some(5), Some(5)));
}
