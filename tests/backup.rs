//! What is brought back of a server that is lost, and those who listened to it: nobody takes what comes for what they knew.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Api, Server, Socket, copy_directory};

const NOTES: &str = "SELECT id, body FROM app.notes";

async fn fill(user: &Api, rows: u32) {
    let values: Vec<String> = (0..rows).map(|id| format!("({id}, 'note {id}')")).collect();
    for some in values.chunks(1000) {
        user.sql(&format!("INSERT INTO app.notes VALUES {}", some.join(", "))).await;
    }
}

/// The seq of the last change that a live query has been told.
fn seq_of(change: &Value) -> u64 {
    let seq = &change["seq"];
    seq.as_u64().or_else(|| seq.as_str()?.parse().ok()).unwrap()
}

#[tokio::test]
async fn a_lost_server_is_restored_on_another_one() {
    let (mut lost, root) = Server::with_notes("").await;
    let backup = tempfile::tempdir().unwrap();
    let (ann, bob) = (lost.user(&root, "ann").await, lost.user(&root, "bob").await);
    fill(&ann, 6000).await;
    fill(&bob, 10).await;
    root.sql("STORAGE FLUSH TABLE app.notes").await;
    root.last_job("flush_table").await;
    ann.sql("UPDATE app.notes SET body = 'changed' WHERE id < 100").await;
    let told = root.sql(&format!("BACKUP DATABASE app TO '{}'", backup.path().display())).await;
    assert!(told["message"].as_str().unwrap().contains("the job backup_database-"), "{told}");
    assert_eq!(root.last_job("backup_database").await.0, "completed");
    let mut socket = Socket::connect(&lost, &ann.token).await;
    socket.snapshot("n", NOTES, json!({})).await;
    ann.sql("INSERT INTO app.notes VALUES (7000, 'after the backup')").await;
    let known = seq_of(&socket.change("n").await);
    let expected = ann.rows(&format!("{NOTES} WHERE id < 7000 ORDER BY id")).await;
    lost.kill().await;

    let mut server = Server::start().await;
    let root = server.root().await;
    let restore = format!("RESTORE DATABASE app FROM '{}'", backup.path().display());
    root.sql(&restore).await;
    // Whether it is killed before, while, or after it is done.
    server.kill().await;
    server.start_again().await;
    let root = server.root().await;
    let (status, result) = root.last_job("restore_database").await;
    assert_eq!((status.as_str(), &result["tables"]), ("completed", &json!(1)), "{result}");
    let (ann, bob) = (server.user(&root, "ann").await, server.user(&root, "bob").await);
    assert_eq!(ann.rows(&format!("{NOTES} ORDER BY id")).await, expected);
    assert_eq!(bob.rows("SELECT count(*) FROM app.notes").await[0][0], "10");
    assert_eq!(
        root.rows("SELECT count(*) FROM app.notes").await[0][0],
        "0",
        "nobody has them but their owners"
    );

    // Who listened to the lost one is told that this is another history.
    ann.sql("INSERT INTO app.notes VALUES (8000, 'on the new one')").await;
    let mut socket = Socket::connect(&server, &ann.token).await;
    socket.subscribe("n", NOTES, json!({"from": known.to_string()})).await;
    socket.expect_error("RESYNC_REQUIRED").await;
    let (_, rows) =
        socket.snapshot("n", NOTES, json!({"from": known.to_string(), "on_gap": "snapshot"})).await;
    assert_eq!(rows.len(), 6001);
    ann.sql("DELETE FROM app.notes WHERE id = 8000").await;
    let change = socket.change("n").await;
    assert_eq!(change["change_type"], "delete", "{change}");
    let shown = root.rows(&format!("SHOW BACKUP FROM '{}'", backup.path().display())).await;
    assert_eq!((&shown[0][1], &shown[0][9]), (&json!("full"), &json!("there")));
}

async fn skip(data_dir: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kalamdb"));
    let output = command.args(["log", "skip", "--data-dir"]).arg(data_dir).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_older_copy_never_goes_on_with_seqs_that_were_seen() {
    let (mut server, root) = Server::with_notes("").await;
    let ann = server.user(&root, "ann").await;
    ann.sql("INSERT INTO app.notes VALUES (1, 'copied')").await;
    assert!(server.stop().await.success());
    let copy = tempfile::tempdir().unwrap();
    copy_directory(&server.data_dir(), &copy.path().join("data"));
    server.start_again().await;
    let ann = server.root().await.logged_in("ann", "password of ann").await;
    let mut socket = Socket::connect(&server, &ann.token).await;
    let (ack, _) = socket.snapshot("n", NOTES, json!({})).await;
    // From the first seq that only the lost server gave out.
    let mut known = vec![seq_of(&json!({"seq": ack["snapshot_seq"]}))];
    for id in 2..12 {
        ann.sql(&format!("INSERT INTO app.notes VALUES ({id}, 'lost')")).await;
        known.push(seq_of(&socket.change("n").await));
    }
    server.kill().await;

    fs::remove_dir_all(server.data_dir()).unwrap();
    copy_directory(&copy.path().join("data"), &server.data_dir());
    let told = skip(&server.data_dir()).await;
    assert!(told.contains("what is written next has seq"), "{told}");
    server.start_again().await;
    let ann = server.root().await.logged_in("ann", "password of ann").await;
    assert_eq!(ann.rows(NOTES).await, [json!(["1", "copied"])]);
    // More than what was lost.
    for id in 2..30 {
        ann.sql(&format!("INSERT INTO app.notes VALUES ({id}, 'another')")).await;
    }
    let mut socket = Socket::connect(&server, &ann.token).await;
    for from in known {
        socket.subscribe("n", NOTES, json!({"from": from.to_string()})).await;
        socket.expect_error("RESYNC_REQUIRED").await;
    }
    let (_, rows) = socket.snapshot("n", NOTES, json!({})).await;
    assert_eq!(rows.len(), 29);
}
