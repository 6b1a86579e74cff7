//! `kalamdb user` as a process: the way back into a database whose passwords are lost.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{Api, Server, in_time};

/// Runs the command; whether it succeeded, and what it said.
async fn user(data_dir: &Path, arguments: &[&str], input: &str, variable: Option<&str>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kalamdb"));
    command.arg("user").args(arguments).arg("--data-dir").arg(data_dir).env_remove("KALAMDB_NEW_PASSWORD");
    command.envs(variable.map(|password| ("KALAMDB_NEW_PASSWORD", password)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let done = in_time("kalamdb user", child.wait_with_output()).await.unwrap();
    (done.status.success(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_while_the_server_is_stopped() {
    let mut server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE USER \"O'Hara\" WITH PASSWORD 'x' ROLE user").await;
    let at = server.data_dir();
    let (is_done, said) = user(&at, &["set-password", "root", "--password-stdin"], "new\n", None).await;
    assert!(!is_done && said.contains("a server runs on"), "{said}");
    assert!(server.stop().await.success());

    let set = ["set-password", "root", "--password-stdin"];
    assert_eq!(user(&at, &set, "it's new\n", None).await, (true, "root has a new password\n".to_owned()));
    let (is_done, said) = user(&at, &set, "", None).await;
    assert!(!is_done && said.contains("no password"), "{said}");
    let (is_done, said) = user(&at, &["set-password", "O'Hara"], "", Some("of o'hara")).await;
    assert!(is_done, "{said}");
    let (is_done, said) = user(&at, &["set-password", "O'Hara"], "", None).await;
    assert!(!is_done && said.contains("--password-stdin"), "{said}");
    let (is_done, said) = user(&at, &["set-password", "nobody", "--password-stdin"], "x", None).await;
    assert!(!is_done && said.contains("nobody"), "{said}");
    let (is_done, said) = user(&at, &["set-role", "O'Hara", "king"], "", None).await;
    assert!(!is_done && said.contains("user, service and dba"), "{said}");
    let (is_done, said) = user(&at, &["set-role", "root", "user"], "", None).await;
    assert!(!is_done && said.contains("root"), "{said}");
    assert!(user(&at, &["set-role", "O'Hara", "DBA"], "", None).await.0);
    assert_eq!(user(&at, &["list"], "", None).await, (true, "O'Hara\tdba\nroot\tdba\n".to_owned()));
    let nowhere = at.join("nowhere");
    assert!(!user(&nowhere, &["list"], "", None).await.0);
    assert!(!nowhere.exists(), "no database is made");

    server.start_again().await;
    Api::login(&server, "root", "it's new").await;
    let other = Api::login(&server, "O'Hara", "of o'hara").await;
    // It is in the log like any change, and without the password.
    let changes = other.rows("SELECT event FROM system.changes WHERE event = 'UserAltered'").await;
    assert_eq!(changes.len(), 3);
}
