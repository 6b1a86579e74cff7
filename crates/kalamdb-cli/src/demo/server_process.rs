//! The server of a run: this very binary, as a child process that can be killed.
//!
//! It owns starting, killing (SIGKILL, so that nothing is tidied up) and starting again on the same directory and
//! port, and turns an unexpected end into an error that shows the end of the server's log. It never outlives its
//! owner. It knows nothing of what the server is asked.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

const START_TIMEOUT: Duration = Duration::from_mins(5);
const LOG_TAIL_BYTES: u64 = 4_096;

/// What a server is started with.
#[derive(Debug, Clone)]
pub(super) struct ServerSettings {
    /// Where it keeps its data.
    pub(super) data_dir: PathBuf,
    /// Where its stderr goes.
    pub(super) log_file: PathBuf,
    /// `always`, `interval` or `os`.
    pub(super) durability: String,
    /// Of user `root`.
    pub(super) root_password: String,
    /// Rows of a user after which they move to Parquet files.
    pub(super) flush_rows: Option<u32>,
}

/// A running server.
#[derive(Debug)]
pub(super) struct ServerProcess {
    settings: ServerSettings,
    address: String,
    child: Child,
    /// What it prints; the channel closes when the process ends.
    lines: mpsc::UnboundedReceiver<String>,
}

impl ServerProcess {
    /// Starts a server on a free port and waits until it is ready.
    pub(super) async fn start(settings: ServerSettings) -> anyhow::Result<Self> {
        let (child, lines) = spawn(&settings, "127.0.0.1:0")?;
        let mut server = ServerProcess { settings, address: String::new(), child, lines };
        server.address = server.ready().await?;
        Ok(server)
    }

    /// `http://127.0.0.1:port`; the same before and after a crash.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the server in mid-flight, starts it again on the same directory and port, and waits until it is ready.
    pub(super) async fn crash_and_restart(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("can't kill the server")?;
        self.child.wait().context("can't wait for the killed server")?;
        (self.child, self.lines) = spawn(&self.settings, &self.address)?;
        let address = self.ready().await?;
        anyhow::ensure!(
            address == self.address,
            "the server came back at {address}, not at {}",
            self.address
        );
        Ok(())
    }

    /// Does `work` as long as the server lives; its unexpected end is the error.
    pub(super) async fn while_alive<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let ended = async { while self.lines.recv().await.is_some() {} };
        tokio::select! {
            outcome = work => outcome,
            () = ended => Err(self.obituary()),
        }
    }

    async fn ready(&mut self) -> anyhow::Result<String> {
        let address = async {
            while let Some(line) = self.lines.recv().await {
                if let Some(address) = address_in(&line) {
                    return Some(address);
                }
            }
            None
        };
        match tokio::time::timeout(START_TIMEOUT, address).await {
            Ok(Some(address)) => Ok(address),
            Ok(None) => Err(self.obituary()),
            Err(_) => anyhow::bail!("the server was not ready after {} s", START_TIMEOUT.as_secs()),
        }
    }

    fn obituary(&mut self) -> anyhow::Error {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let tail = tail(&self.settings.log_file).unwrap_or_else(|error| format!("(can't be read: {error})"));
        anyhow::anyhow!("the server ended unexpectedly ({status})\nthe end of its log:\n{tail}")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    settings: &ServerSettings,
    listen: &str,
) -> anyhow::Result<(Child, mpsc::UnboundedReceiver<String>)> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&settings.log_file)
        .with_context(|| format!("can't write {}", settings.log_file.display()))?;
    let mut child = Command::new(std::env::current_exe().context("can't find this program's own file")?)
        .arg("serve")
        .arg("--data-dir")
        .arg(&settings.data_dir)
        .args(["--listen", listen, "--durability", &settings.durability])
        .args(settings.flush_rows.map(|rows| format!("--flush-policy=rows:{rows}")))
        .env("KALAMDB_ROOT_PASSWORD", &settings.root_password)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("can't start the server")?;
    let (sender, lines) = mpsc::unbounded_channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || forward(stdout, &sender));
    }
    Ok((child, lines))
}

/// Reads on even when nobody listens, so that the server never blocks on a full pipe.
fn forward(stdout: ChildStdout, lines: &mpsc::UnboundedSender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let _ = lines.send(line);
    }
}

/// `127.0.0.1:2900` out of `… http://127.0.0.1:2900 …`.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".:-[]".contains(c))).unwrap_or(rest.len());
    Some(rest.get(..end)?.trim_end_matches(['.', ':']).to_owned())
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_the_server_prints() {
        assert_eq!(address_in("listening on http://127.0.0.1:2900").as_deref(), Some("127.0.0.1:2900"));
        assert_eq!(address_in("http://127.0.0.1:2900/ (ready)").as_deref(), Some("127.0.0.1:2900"));
        assert_eq!(address_in("kalamdb at http://[::1]:80.").as_deref(), Some("[::1]:80"));
        assert_eq!(address_in("starting"), None);
    }
}
