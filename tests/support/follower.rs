//! A command of `kalamdb` that runs and writes lines.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{ROOT_PASSWORD, in_time};

/// One that goes on until it has nothing more to say, or is told to end.
pub(crate) struct Follower {
    pub(crate) child: Child,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    /// Starts `kalamdb` with these arguments, which know root's password.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kalamdb"))
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

    pub(crate) async fn next(&mut self) -> String {
        in_time("a line", self.lines.next_line()).await.unwrap().expect("another line")
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next().await).unwrap()
    }

    /// Its other lines, what it exits with, and what it says on the side.
    pub(crate) async fn end(mut self) -> (Vec<String>, i32, String) {
        let mut lines = Vec::new();
        while let Some(line) = in_time("the end", self.lines.next_line()).await.unwrap() {
            lines.push(line);
        }
        let output = in_time("the end", self.child.wait_with_output()).await.unwrap();
        (lines, output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
    }

    /// SIGTERM, and what it exits with.
    pub(crate) async fn terminate(self) -> i32 {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        self.end().await.1
    }
}
