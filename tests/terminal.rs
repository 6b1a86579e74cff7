//! `kalamdb sql` at a terminal: what is typed, what is shown, and what a pager gets.
//!
//! `script` (bsdutils) makes the terminal; the test answers the line editor's question where the cursor is.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::{ROOT_PASSWORD, Server, in_time};

/// The question where the cursor is, which each prompt begins with.
const QUESTION: &str = "\x1b[6n";

/// A terminal of 80 columns and 24 lines with a prompt in it.
struct Terminal {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// Output that was not looked at yet.
    shown: String,
    /// The directory of the history.
    _state: TempDir,
}

impl Terminal {
    async fn start(server: &Server) -> Self {
        let command = format!("stty rows 24 cols 80; exec {} sql", env!("CARGO_BIN_EXE_kalamdb"));
        let state = tempfile::tempdir().unwrap();
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("KALAMDB_URL", server.url())
            .env("KALAMDB_PASSWORD", ROOT_PASSWORD)
            .env("XDG_STATE_HOME", state.path())
            .env("PAGER", "sed 's/^/paged: /'")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("script, of the package bsdutils");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut terminal = Self { child, input, output, shown: String::new(), _state: state };
        terminal.until(QUESTION).await;
        terminal.answer().await;
        terminal
    }

    /// Reads until this has been shown; what stands before it.
    async fn until(&mut self, text: &str) -> String {
        let mut buffer = vec![0; 4096];
        loop {
            if let Some(at) = self.shown.find(text) {
                let before = self.shown[..at].to_owned();
                self.shown.drain(..at + text.len());
                return before;
            }
            let what = format!("{text:?} after {:?}", self.shown);
            let count = in_time(&what, self.output.read(&mut buffer)).await.unwrap();
            assert!(count > 0, "the end came before {what}");
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    async fn answer(&mut self) {
        self.input.write_all(b"\x1b[1;1R").await.unwrap();
    }

    /// Types a text, and gives what is shown until the next prompt.
    async fn typed(&mut self, text: &str) -> String {
        self.input.write_all(text.as_bytes()).await.unwrap();
        let shown = self.until(QUESTION).await;
        self.answer().await;
        shown
    }

    async fn end(mut self, text: &str) -> i32 {
        self.input.write_all(text.as_bytes()).await.unwrap();
        in_time("the end", self.child.wait()).await.unwrap().code().unwrap()
    }
}

#[tokio::test]
async fn a_terminal_shows_what_is_asked_for() {
    let server = Server::start().await;
    let mut terminal = Terminal::start(&server).await;
    // A command within a statement, which then goes on.
    let tables = terminal.typed("select 1 as a\r\\d\r").await;
    assert!(tables.contains("(0 rows)") && tables.contains("Time: "), "{tables}");
    let row = terminal.typed(", 2 as b;\r").await;
    assert!(row.contains("│ a ┆ b │") && row.contains("│ 1 ┆ 2 │"), "{row}");
    // A word within a statement is answered, and is not part of it.
    let hint = terminal.typed("select\rexit\r").await;
    assert!(hint.contains("\\q leaves; Ctrl-C drops the statement"), "{hint}");
    let row = terminal.typed(" 3 as c;\r").await;
    assert!(row.contains("│ 3 │"), "{row}");
    let hint = terminal.typed("select\rhelp\r").await;
    assert!(hint.contains("\\? shows help"), "{hint}");
    let refused = terminal.typed("\\nope\r").await;
    assert!(refused.contains("\\nope is not a command"), "{refused}");
    terminal.typed("\x03").await;

    // What is too wide is cut, what is too long is paged, as long as that is wanted.
    let cut = terminal.typed("select repeat('x', 500) as r;\r").await;
    assert!(cut.contains("xxx… │") && !cut.contains("paged"), "{cut}");
    let long = "select unnest(range(1, 50)) as n;\r";
    let paged = terminal.typed(long).await;
    assert!(paged.contains("paged: │  1 │") && paged.contains("paged: │ 49 │"), "{paged}");
    terminal.typed("\\pset pager off\r").await;
    let whole = terminal.typed(long).await;
    assert!(whole.contains("│ 49 │") && !whole.contains("paged"), "{whole}");
    terminal.typed("\\pset cut off\r").await;
    assert!(terminal.typed("select repeat('x', 500) as r;\r").await.contains(&"x".repeat(500)));
    let records = terminal.typed("\\x auto\r").await;
    assert!(records.contains("expanded auto"), "{records}");
    let records = terminal.typed("select repeat('y', 100) as r;\r").await;
    assert!(records.contains("─[ record 1 ]") && records.contains("r │ yyy"), "{records}");
    assert_eq!(terminal.end("quit\r").await, 0);
}
