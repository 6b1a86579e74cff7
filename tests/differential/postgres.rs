//! A PostgreSQL server of its own, in a directory that goes with it, and one `psql` that stays open.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::support::in_time;

/// Between the values of a row.
const FIELD: char = '\u{1f}';
/// A value that is NULL.
const NULL: &str = "\u{1e}";
/// The line after all lines of a statement.
const END: &str = "-- the end of the statement --";

/// The directory of `initdb`, `pg_ctl` and `psql`; none where PostgreSQL is not installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    found.sort();
    found.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    found.into_iter().find(|directory| {
        ["initdb", "pg_ctl", "psql"].iter().all(|program| directory.join(program).is_file())
    })
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

/// A program of PostgreSQL, which refuses to run as root.
fn command(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn run(command: &mut Command) {
    let status = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?} failed");
}

/// Rows as texts, NULL as none; or the error's text.
pub(crate) type Rows = Result<Vec<Vec<Option<String>>>, String>;

/// The server. Dropping it stops it.
pub(crate) struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    _psql: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Postgres {
    /// A new, empty one; none where PostgreSQL is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let programs = programs()?;
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory.path()));
        }
        let data = directory.path().join("data");
        let initialize = ["-A", "trust", "--locale=C", "-E", "UTF8", "-U", "postgres", "--no-sync"];
        run(command(&programs.join("initdb")).arg("-D").arg(&data).args(initialize));
        let socket = directory.path().display();
        let options = format!(
            "-k {socket} -c listen_addresses='' -c timezone=UTC -c fsync=off -c jit=off -c autovacuum=off"
        );
        run(command(&programs.join("pg_ctl"))
            .arg("-D")
            .arg(&data)
            .arg("-l")
            .arg(directory.path().join("log"))
            .args(["-w", "-o", &options, "start"]));
        let null = format!("null={NULL}");
        let mut psql = tokio::process::Command::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .arg(programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-F", &FIELD.to_string(), "-P", &null, "-U", "postgres", "-h"])
            .arg(directory.path())
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = psql.stdin.take().unwrap();
        let output = BufReader::new(psql.stdout.take().unwrap()).lines();
        let mut postgres = Self { directory, programs, _psql: psql, input, output };
        let settings =
            "\\set VERBOSITY terse\nSET intervalstyle = 'iso_8601'; SET client_min_messages = error";
        postgres.sql(settings).await.unwrap();
        Some(postgres)
    }

    /// Runs one statement.
    pub(crate) async fn sql(&mut self, sql: &str) -> Rows {
        self.input.write_all(format!("{sql}\n;\n\\echo '{END}'\n").as_bytes()).await.unwrap();
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let line = in_time("psql", self.output.next_line()).await.unwrap().expect("psql ended");
            if line == END {
                break;
            }
            match line.split_once("ERROR:  ") {
                Some((_, text)) => error = Some(text.to_owned()),
                None => rows
                    .push(line.split(FIELD).map(|value| (value != NULL).then(|| value.to_owned())).collect()),
            }
        }
        error.map_or(Ok(rows), Err)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.directory.path().join("data");
        let stop = ["-m", "immediate", "stop"];
        let mut command = command(&self.programs.join("pg_ctl"));
        let command = command.arg("-D").arg(data).args(stop).current_dir("/").stdout(Stdio::null());
        if let Err(error) = command.status() {
            eprintln!("cannot stop PostgreSQL: {error}");
        }
    }
}
