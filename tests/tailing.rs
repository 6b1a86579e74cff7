//! `kalamdb tail` as a process: of a directory while a server writes it, of a server over the network; both tell the same.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{ROOT_PASSWORD, Server, in_time};

/// A `kalamdb tail` that runs.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kalamdb"))
            .arg("tail")
            .args(arguments)
            .env("KALAMDB_PASSWORD", ROOT_PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn of_directory(server: &Server, arguments: &[&str]) -> Self {
        let dir = server.data_dir().display().to_string();
        Self::start(&[&["--data-dir", &dir], arguments].concat())
    }

    fn of_server(server: &Server, arguments: &[&str]) -> Self {
        Self::start(&[&["--url", &server.url()], arguments].concat())
    }

    async fn next(&mut self) -> String {
        in_time("an event", self.lines.next_line()).await.unwrap().expect("another event")
    }

    /// Its other lines, and what it exits with.
    async fn end(mut self) -> (Vec<String>, i32, String) {
        let mut lines = Vec::new();
        while let Some(line) = in_time("the end", self.lines.next_line()).await.unwrap() {
            lines.push(line);
        }
        let output = in_time("the end", self.child.wait_with_output()).await.unwrap();
        (lines, output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
    }

    async fn terminate(self) -> i32 {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        self.end().await.1
    }
}

async fn database() -> Server {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql(
        "CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, at TIMESTAMP, price DECIMAL(9, 2))",
    )
    .await;
    let ada = server.user(&root, "ada").await;
    ada.sql("INSERT INTO app.notes VALUES (1, 'one', '2026-09-21T14:13:20', 1.5), (2, 'two', NULL, -0.05)")
        .await;
    ada.sql("UPDATE app.notes SET body = 'zwei \"ß\"' WHERE id = 2").await;
    ada.sql("DELETE FROM app.notes WHERE id = 1").await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_and_its_directory_tell_the_same_in_every_form() {
    let server = database().await;
    for arguments in [
        "--format json",
        "--format pretty",
        "--format debezium",
        "--format json --from 4",
        "--format json --since 1h --op insert",
        "--format json --owner ada --table app.notes",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').chain(["--no-follow"]).collect();
        let (of_directory, code, errors) = Tail::of_directory(&server, &arguments).end().await;
        assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
        assert!(of_directory.len() >= 2, "{arguments:?}: {of_directory:?}");
        let (of_server, code, errors) = Tail::of_server(&server, &arguments).end().await;
        assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
        assert_eq!(of_server, of_directory, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_follow_and_end_when_they_are_told_to() {
    let server = database().await;
    let root = server.root().await;
    let arguments = ["--format", "json", "--from", "start", "--op", "insert"];
    let mut tails = [Tail::of_directory(&server, &arguments), Tail::of_server(&server, &arguments)];
    // The first ones are there already: from then on they follow.
    for tail in &mut tails {
        for _ in 0..2 {
            assert!(tail.next().await.contains("\"user\":\"ada\""));
        }
    }
    for id in 0..20 {
        root.sql(&format!("INSERT INTO app.notes (id) VALUES ({id})")).await;
        for tail in &mut tails {
            let event: Value = serde_json::from_str(&tail.next().await).unwrap();
            assert_eq!(event["after"]["id"], id.to_string());
        }
    }
    for tail in tails {
        assert_eq!(tail.terminate().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_what_was_wrong() {
    let server = database().await;
    let code = async |tail: Tail| {
        let (_, code, errors) = tail.end().await;
        assert!(!errors.is_empty());
        code
    };
    assert_eq!(code(Tail::start(&["--since", "yesterday"])).await, 2);
    assert_eq!(code(Tail::start(&["--data-dir", "/nowhere"])).await, 1);
    assert_eq!(code(Tail::of_server(&server, &["--user", "ada", "--password", "wrong"])).await, 1);
    let ada = ["--user", "ada", "--password", "password of ada"];
    assert_eq!(code(Tail::of_server(&server, &ada)).await, 1, "it takes the role dba");
    // A seq that was never given out is none that one could go on from.
    assert_eq!(code(Tail::of_server(&server, &["--from", "999999"])).await, 4);
    // Who reads the output goes away.
    let mut gone = Tail::of_directory(&server, &["--from", "start", "--format", "json"]);
    gone.next().await;
    let Tail { mut child, lines } = gone;
    drop(lines);
    server.root().await.sql("INSERT INTO app.notes (id) VALUES (1)").await;
    assert_eq!(in_time("the end", child.wait()).await.unwrap().code(), Some(0));
}
