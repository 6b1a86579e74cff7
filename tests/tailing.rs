//! `kalamdb tail` as a process: of a directory while a server writes it, of a server over the network; both tell the same.

use crate::support::{Follower, Server, in_time};

fn tail(arguments: &[&str]) -> Follower {
    Follower::start(&[&["tail"], arguments].concat())
}

fn tail_of_directory(server: &Server, arguments: &[&str]) -> Follower {
    let dir = server.data_dir().display().to_string();
    tail(&[&["--data-dir", &dir], arguments].concat())
}

fn tail_of_server(server: &Server, arguments: &[&str]) -> Follower {
    tail(&[&["--url", &server.url()], arguments].concat())
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
        let (of_directory, code, errors) = tail_of_directory(&server, &arguments).end().await;
        assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
        assert!(of_directory.len() >= 2, "{arguments:?}: {of_directory:?}");
        let (of_server, code, errors) = tail_of_server(&server, &arguments).end().await;
        assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
        assert_eq!(of_server, of_directory, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_follow_and_end_when_they_are_told_to() {
    let server = database().await;
    let root = server.root().await;
    let arguments = ["--format", "json", "--from", "start", "--op", "insert"];
    let mut tails = [tail_of_directory(&server, &arguments), tail_of_server(&server, &arguments)];
    // The first ones are there already: from then on they follow.
    for tail in &mut tails {
        for _ in 0..2 {
            assert!(tail.next().await.contains("\"user\":\"ada\""));
        }
    }
    for id in 0..20 {
        root.sql(&format!("INSERT INTO app.notes (id) VALUES ({id})")).await;
        for tail in &mut tails {
            assert_eq!(tail.next_json().await["after"]["id"], id.to_string());
        }
    }
    for tail in tails {
        assert_eq!(tail.terminate().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_what_was_wrong() {
    let server = database().await;
    let code = async |tail: Follower| {
        let (_, code, errors) = tail.end().await;
        assert!(!errors.is_empty());
        code
    };
    assert_eq!(code(tail(&["--since", "yesterday"])).await, 2);
    assert_eq!(code(tail(&["--data-dir", "/nowhere"])).await, 1);
    assert_eq!(code(tail_of_server(&server, &["--user", "ada", "--password", "wrong"])).await, 1);
    let ada = ["--user", "ada", "--password", "password of ada"];
    assert_eq!(code(tail_of_server(&server, &ada)).await, 1, "it takes the role dba");
    // A seq that was never given out is none that one could go on from.
    assert_eq!(code(tail_of_server(&server, &["--from", "999999"])).await, 4);
    // Who reads the output goes away.
    let mut gone = tail_of_directory(&server, &["--from", "start", "--format", "json"]);
    gone.next().await;
    let Follower { mut child, lines } = gone;
    drop(lines);
    server.root().await.sql("INSERT INTO app.notes (id) VALUES (1)").await;
    assert_eq!(in_time("the end", child.wait()).await.unwrap().code(), Some(0));
}
