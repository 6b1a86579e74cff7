//! `kalamdb subscribe` as a process: rows, changes, going on from a seq, being told why it is over.

use serde_json::{Value, json};

use crate::support::{Api, Follower, Server};

fn subscribe(server: &Server, arguments: &[&str]) -> Follower {
    Follower::start(&[&["subscribe", "--url", &server.url()], arguments].concat())
}

async fn server_with_rows() -> (Server, Api) {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.notes (id INT PRIMARY KEY, body TEXT, n INT)").await;
    root.sql("INSERT INTO app.notes VALUES (1, 'one', 1), (2, 'two', 2)").await;
    (server, root)
}

const SQL: &str = "SELECT n, body, id FROM app.notes WHERE n > 0";

#[tokio::test]
async fn rows_then_changes_and_on_from_a_seq() {
    let (server, root) = server_with_rows().await;
    let mut first = subscribe(&server, &["--json", SQL]);
    assert_eq!(first.next_json().await["row"], json!({"n": 1, "body": "one", "id": 1}));
    assert_eq!(first.next_json().await["op"], "row");
    root.sql("UPDATE app.notes SET n = 5 WHERE id = 1").await;
    let update = first.next().await;
    assert!(
        update.starts_with("{\"op\":\"update\",")
            && update.contains("\"row\":{\"n\":5,\"body\":\"one\",\"id\":1}"),
        "{update}"
    );
    let update: Value = serde_json::from_str(&update).unwrap();
    assert_eq!(update["old"]["n"], 1);
    root.sql("UPDATE app.notes SET n = 0 WHERE id = 2").await;
    assert_eq!(first.next_json().await["op"], "delete", "it does not match any more");

    let from = update["seq"].to_string();
    let mut second = subscribe(&server, &["--from", &from, SQL]);
    assert!(second.next().await.starts_with("- "), "what came after that seq, and nothing before");
    root.sql("INSERT INTO app.notes VALUES (3, 'three', 3)").await;
    let line = second.next().await;
    assert!(line.starts_with("+ ") && line.ends_with("{\"n\":3,\"body\":\"three\",\"id\":3}"), "{line}");

    let id = root.rows("SELECT live_id FROM system.live ORDER BY created_at LIMIT 1").await;
    root.sql(&format!("KILL LIVE QUERY '{}'", id[0][0].as_str().unwrap())).await;
    let (_, code, said) = first.end().await;
    assert!(code == 1 && said.contains("KILL LIVE QUERY"), "{code} {said}");
}

#[tokio::test]
async fn it_leaves_when_asked_and_says_what_is_wrong() {
    let (server, root) = server_with_rows().await;
    let mut once = subscribe(&server, &["--no-follow", "--last-rows", "1", SQL]);
    assert!(once.next().await.ends_with("{\"n\":2,\"body\":\"two\",\"id\":2}"));
    assert_eq!(once.end().await, (Vec::new(), 0, String::new()));
    root.sql("DELETE FROM app.notes").await;
    let nothing = subscribe(&server, &["--no-follow", SQL]).end().await;
    assert_eq!(nothing, (Vec::new(), 0, String::new()));
    let (_, code, said) = subscribe(&server, &["SELECT * FROM app.nots"]).end().await;
    assert!(code == 1 && said.contains("did you mean app.notes?"), "{code} {said}");
    let (_, code, said) = subscribe(&server, &["--from", "999999", SQL]).end().await;
    assert!(code == 4 && said.contains("RESYNC_REQUIRED"), "{code} {said}");
}

#[tokio::test]
async fn dates_and_times_are_iso_8601() {
    let (server, root) = server_with_rows().await;
    root.sql("CREATE SHARED TABLE app.days (id INT PRIMARY KEY, d DATE, t TIME, ts TIMESTAMP)").await;
    root.sql("INSERT INTO app.days VALUES (1, '2026-12-01', '12:34:56', '2026-12-01 12:34:56')").await;
    let sql = "SELECT d, t, ts FROM app.days";
    let mut once = subscribe(&server, &["--no-follow", "--json", sql]);
    let expected = json!({"d": "2026-12-01", "t": "12:34:56", "ts": "2026-12-01T12:34:56"});
    assert_eq!(once.next_json().await["row"], expected);
}

#[tokio::test]
async fn parameters_are_given_as_json_or_as_text() {
    let (server, root) = server_with_rows().await;
    let sql = "SELECT id FROM app.notes WHERE n = $1 AND body = $2";
    let arguments = ["--json", "--param", "2", "--param", "two", sql];
    let mut following = subscribe(&server, &arguments);
    assert_eq!(following.next_json().await["row"], json!({"id": 2}));
    root.sql("INSERT INTO app.notes VALUES (3, 'two', 3), (4, 'two', 2)").await;
    assert_eq!(following.next_json().await["row"], json!({"id": 4}));
    let (_, code, said) = subscribe(&server, &["--param", "2", sql]).end().await;
    assert!(code == 1 && said.contains("INVALID_PARAMETER") && said.contains("$2"), "{code} {said}");
}

#[tokio::test]
async fn rows_that_fail_are_left_out_and_told_of() {
    let (server, root) = server_with_rows().await;
    root.sql("INSERT INTO app.notes VALUES (3, 'three', 0)").await;
    let sql = "SELECT id, 10 / n AS q FROM app.notes WHERE id > 1";
    let mut once = subscribe(&server, &["--no-follow", sql]);
    assert!(once.next().await.ends_with("{\"id\":2,\"q\":\"5\"}"));
    let (lines, code, _) = once.end().await;
    assert!(lines.len() == 1 && lines[0].starts_with("! ") && code == 0, "{lines:?}");
    assert!(lines[0].contains("a row is left out: ") && lines[0].contains("zero"), "{lines:?}");
    let mut following = subscribe(&server, &["--json", sql]);
    assert_eq!(following.next_json().await["op"], "row");
    assert_eq!(following.next_json().await["op"], "error");
    root.sql("UPDATE app.notes SET n = 0 WHERE id = 2").await;
    assert_eq!(following.next_json().await["op"], "delete");
    let error = following.next_json().await;
    assert_eq!((&error["code"], &error["rows"]), (&json!("SQL_EXECUTION_ERROR"), &json!(1)));
    root.sql("UPDATE app.notes SET n = 1 WHERE id = 3").await;
    assert_eq!(following.next_json().await["row"], json!({"id": 3, "q": "10"}));
}
