//! The real binary, as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Api, in_time};

pub(crate) const ROOT_PASSWORD: &str = "the password of root";

/// A server with a directory of its own. Dropping it kills it.
pub(crate) struct Server {
    directory: TempDir,
    child: Option<Child>,
    address: String,
    arguments: Vec<String>,
}

impl Server {
    /// A server with all defaults but the port.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// A server of the database that `fill` puts into its directory.
    pub(crate) async fn start_from(fill: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fill(&directory.path().join("data"));
        Self::start_in(directory, "").await
    }

    /// A server with this configuration file.
    pub(crate) async fn start_with(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config).await
    }

    /// A server with this configuration file and a table `app.notes` of users, and its root.
    pub(crate) async fn with_notes(config: &str) -> (Self, Api) {
        let server = Self::start_with(config).await;
        let root = server.root().await;
        root.sql("CREATE NAMESPACE app").await;
        root.sql("CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT NOT NULL)").await;
        (server, root)
    }

    async fn start_in(directory: TempDir, config: &str) -> Self {
        let file = directory.path().join("kalamdb.toml");
        std::fs::write(&file, config).unwrap();
        let arguments = vec!["--config".to_owned(), file.display().to_string()];
        let mut server = Self { directory, child: None, address: "127.0.0.1:0".to_owned(), arguments };
        server.spawn().await;
        server
    }

    async fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kalamdb"))
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen", &self.address])
            .args(&self.arguments)
            .env("KALAMDB_ROOT_PASSWORD", ROOT_PASSWORD)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.child = Some(child);
        let line = in_time("starting a server", lines.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the server ended at once:\n{}", self.log()));
        let (_, address) = line.split_once("http://").unwrap();
        address.trim().clone_into(&mut self.address);
    }

    /// What it is started with from the next start on, beside its configuration file.
    pub(crate) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments.truncate(2);
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// All that the server has written to stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A size from `/proc/PID/status`, such as `VmRSS`, in MiB.
    pub(crate) fn memory_mib(&self, field: &str) -> u64 {
        let pid = self.child.as_ref().and_then(Child::id).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
        kib >> 10
    }

    /// `ws://…/v1/ws`, with this query.
    pub(crate) fn socket_url(&self, query: &str) -> String {
        format!("ws://{}/v1/ws?{query}", self.address)
    }

    /// SIGKILL: what a crash does to a process.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.start_kill().unwrap();
        in_time("killing the server", child.wait()).await.unwrap();
    }

    /// Starts a killed or stopped server again: same directory, same port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        self.spawn().await;
    }

    /// SIGTERM, and what it exits with.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        in_time("stopping the server", child.wait()).await.unwrap()
    }

    /// The API, logged in as root.
    pub(crate) async fn root(&self) -> Api {
        Api::login(self, "root", ROOT_PASSWORD).await
    }

    /// A new user, logged in.
    pub(crate) async fn user(&self, root: &Api, name: &str) -> Api {
        root.sql(&format!("CREATE USER {name} WITH PASSWORD 'password of {name}' ROLE user")).await;
        Api::login(self, name, &format!("password of {name}")).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}
