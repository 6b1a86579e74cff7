//! `kalamdb tail`: the log, event by event, as it is written.
//!
//! Of a directory it reads the files alone, with or without a server at work there, takes no lock and changes nothing.
//! Events are shown once they are in the log's files; whether they are durable yet only the server knows. Of a server
//! (`--url`) it shows `system.changes`, which has what is published. The forms and filters are the same.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, bail};
use kalamdb_core::log::{Error as LogError, list_segments};
use kalamdb_core::{ChangeRecord, LOG_DIRECTORY};

pub(crate) use kalamdb_core::instant;

use crate::connection::{Refused, Server};

use self::filter::{Filter, OperationName};
use self::format::{Format, Formatter};
use self::start::{From, Since};

pub(crate) mod catalog;
mod directory;
mod filter;
mod format;
mod narrow;
mod pretty;
mod server;
mod start;

/// The exit code where the log is damaged.
const EXIT_DAMAGED: u8 = 3;
/// The exit code where events that were asked for have been deleted by retention.
const EXIT_BELOW_FLOOR: u8 = 4;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;

/// Show the log's events, and go on as new ones are written.
#[derive(clap::Args, Debug)]
pub(crate) struct TailArgs {
    /// The server's data directory.
    #[arg(long, value_name = "DIR", default_value = "./kalamdb-data")]
    data_dir: PathBuf,
    /// Show the log of the server that listens here instead; it takes the role dba.
    #[arg(long, conflicts_with = "data_dir", value_parser = crate::account::server_url)]
    url: Option<String>,
    /// With --url, the password; other users of this machine can see it, so rather use --password-env or the variable
    /// `KALAMDB_PASSWORD`.
    #[arg(long, requires = "url", conflicts_with = "password_env")]
    password: Option<String>,
    /// With --url, the environment variable that holds the password.
    #[arg(long, requires = "url", value_name = "VARIABLE")]
    password_env: Option<String>,
    /// The first event to show: a seq, `start` or `end`. [default: end; start with --no-follow]
    #[arg(long, value_name = "SEQ|start|end")]
    from: Option<From>,
    /// Only what was committed since: a time (RFC 3339) or a duration (90s, 10m, 2h, 1d) before now.
    #[arg(long, value_name = "TIME", conflicts_with = "from")]
    since: Option<Since>,
    /// Only events of this table.
    #[arg(long, value_name = "NAMESPACE.TABLE")]
    table: Option<String>,
    /// Only rows of this user, and events about the account. With --url, who logs in: then it is --owner that filters.
    /// [default with --url: root]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only rows of this user, and events about the account.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Only this kind of event.
    #[arg(long, value_name = "OP")]
    op: Option<OperationName>,
    /// How an event is written.
    #[arg(long, value_enum, default_value = "pretty")]
    format: Format,
    /// Stop at the end of the log.
    #[arg(long, alias = "to-end")]
    no_follow: bool,
}

/// The log's directory within a data directory.
pub(crate) fn log_directory(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = data_dir.join(LOG_DIRECTORY);
    if list_segments(&dir).with_context(|| format!("no log in {}", data_dir.display()))?.is_empty() {
        bail!("there is no log in {}: is this a data directory of kalamdb?", data_dir.display());
    }
    Ok(dir)
}

/// Runs the command. Its exit codes are promised in docs/operations.md.
pub(crate) fn run(args: &TailArgs) -> anyhow::Result<ExitCode> {
    let is_coloured =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (sender, stop) = channel();
    stop_on_signals(sender)?;
    match write(args, io::stdout().lock(), is_coloured, stop) {
        Err(error) if !is_broken_pipe(&error) => {
            eprintln!("Error: {error:?}");
            Ok(exit_code(&error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write(args: &TailArgs, out: impl Write, is_coloured: bool, stop: Receiver<()>) -> anyhow::Result<()> {
    let mut output = Output::new(out, Formatter::new(args.format, is_coloured));
    let Some(url) = args.url.as_deref() else {
        let owner = args.owner.as_deref().or(args.user.as_deref());
        let filter = Filter::new(args.table.as_deref(), owner, args.op);
        return directory::Tail::open(args, filter)?.follow(&mut output, &stop, args.no_follow);
    };
    let user = args.user.as_deref().unwrap_or("root");
    let password = crate::sql::password(user, args.password.as_deref(), args.password_env.as_deref())?;
    let filter = Filter::new(args.table.as_deref(), args.owner.as_deref(), args.op);
    let server = Server { url, user, password: &password };
    server::follow(&server, args, &filter, &mut output, stop)
}

/// Sends to `stop` once somebody asks this process to end.
pub(crate) fn stop_on_signals(stop: Sender<()>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = stop.send(());
    })?;
    Ok(())
}

/// Whether whoever read the output has gone: the usual end of `kalamdb tail | head`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_log = error.chain().find_map(|cause| cause.downcast_ref::<LogError>());
    match of_log {
        Some(LogError::BelowFloor { .. }) => ExitCode::from(EXIT_BELOW_FLOOR),
        Some(
            LogError::Rot { .. }
            | LogError::Head { .. }
            | LogError::RenamedSegment { .. }
            | LogError::ForeignSegment { .. },
        ) => ExitCode::from(EXIT_DAMAGED),
        _ => {
            let refused = error.downcast_ref::<Refused>();
            let is_below_floor = refused.is_some_and(|refused| refused.code == "RESYNC_REQUIRED");
            if is_below_floor { ExitCode::from(EXIT_BELOW_FLOOR) } else { ExitCode::FAILURE }
        }
    }
}

/// Where events go: written in one form, and many at once.
struct Output<W> {
    out: W,
    formatter: Formatter,
    buffer: Vec<u8>,
}

impl<W: Write> Output<W> {
    fn new(out: W, formatter: Formatter) -> Self {
        Self { out, formatter, buffer: Vec::with_capacity(2 * WRITE_BYTES) }
    }

    fn show(&mut self, record: &ChangeRecord) -> io::Result<()> {
        self.formatter.line(&mut self.buffer, record);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what has been held back: nothing waits while there is nothing to read.
    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        self.out.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests;
