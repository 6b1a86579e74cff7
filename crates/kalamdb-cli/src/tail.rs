//! `kalamdb tail`: the log, event by event, as it is written.
//!
//! It reads the directory alone, with or without a server at work there, takes no lock and changes nothing. Events are
//! shown once they are in the log's files; whether they are durable yet only the server knows.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, bail};
use kalamdb_core::LOG_DIRECTORY;
use kalamdb_core::format::{Frame, Seq};
use kalamdb_core::log::{LogReader, list_segments};

use self::catalog::Catalog;
use self::filter::{Filter, OperationName};
use self::pretty::Pretty;
pub(crate) use self::value::instant;

pub(crate) mod catalog;
mod details;
mod event;
mod filter;
mod json;
mod pretty;
mod value;

/// How long a follower waits before it looks again.
const POLL: Duration = Duration::from_millis(50);

/// Show the log's events, and go on as new ones are written.
#[derive(clap::Args, Debug)]
pub(crate) struct TailArgs {
    /// The server's data directory.
    #[arg(long, value_name = "DIR", default_value = "./kalamdb-data")]
    data_dir: PathBuf,
    /// The first event to show: a seq, `start` or `end`. [default: end; start with --no-follow]
    #[arg(long, value_name = "SEQ|start|end")]
    from: Option<From>,
    /// Only events of this table.
    #[arg(long, value_name = "NAMESPACE.TABLE")]
    table: Option<String>,
    /// Only rows of this user, and events about the account.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only this kind of event.
    #[arg(long, value_name = "OP")]
    op: Option<OperationName>,
    /// One line to read, or one JSON object, per event.
    #[arg(long, value_enum, default_value = "pretty")]
    format: Format,
    /// Stop at the end of the log.
    #[arg(long)]
    no_follow: bool,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Start,
    End,
    Seq(Seq),
}

impl FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            number => match number.parse() {
                Ok(seq) => Ok(Self::Seq(Seq::new(seq))),
                Err(_) => Err("neither a seq nor `start` nor `end`"),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Pretty,
    Json,
}

/// The log's directory within a data directory.
pub(crate) fn log_directory(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = data_dir.join(LOG_DIRECTORY);
    if list_segments(&dir).with_context(|| format!("no log in {}", data_dir.display()))?.is_empty() {
        bail!("there is no log in {}: is this a data directory of kalamdb?", data_dir.display());
    }
    Ok(dir)
}

/// Runs the command.
pub(crate) fn run(args: &TailArgs) -> anyhow::Result<ExitCode> {
    let is_coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match write(args, BufWriter::new(io::stdout().lock()), is_coloured) {
        Err(error) if !is_broken_pipe(&error) => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write(args: &TailArgs, out: impl Write, is_coloured: bool) -> anyhow::Result<()> {
    let dir = log_directory(&args.data_dir)?;
    let mut reader = LogReader::open(&dir);
    let default = if args.no_follow { From::Start } else { From::End };
    let from = match args.from.unwrap_or(default) {
        From::Start => reader.floor()?,
        From::End => reader.end()?.next(),
        From::Seq(seq) => seq,
    };
    reader.seek_from(from)?;
    let mut tail = Tail {
        from,
        filter: Filter::new(args.table.as_deref(), args.user.as_deref(), args.op),
        catalog: Catalog::new(&dir),
        pretty: Pretty::new(is_coloured),
        format: args.format,
        out,
    };
    let (sender, stop) = channel();
    if !args.no_follow {
        stop_on_interrupt(sender.clone())?;
    }
    tail.follow(&mut reader, &stop, args.no_follow)
}

/// Sends to `stop` once somebody asks this process to end.
fn stop_on_interrupt(stop: Sender<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        // Where there are no signals to wait for, the process ends the hard way, as it did before this thread.
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            let _ = stop.send(());
        }
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

struct Tail<W> {
    from: Seq,
    filter: Filter,
    catalog: Catalog,
    pretty: Pretty,
    format: Format,
    out: W,
}

impl<W: Write> Tail<W> {
    fn follow(&mut self, reader: &mut LogReader, stop: &Receiver<()>, once: bool) -> anyhow::Result<()> {
        loop {
            while let Some(frame) = reader.next()? {
                self.show(&frame)?;
                if stop.try_recv().is_ok() {
                    return Ok(self.out.flush()?);
                }
            }
            self.out.flush()?;
            if once {
                return Ok(());
            }
            match stop.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn show(&mut self, frame: &Frame) -> anyhow::Result<()> {
        for (seq, archived) in frame.events() {
            let archived = archived?;
            self.catalog.note(archived)?;
            if seq < self.from || !self.filter.may_match(archived) {
                continue;
            }
            let event = event::Shown::new(seq, frame, archived, &mut self.catalog)
                .with_context(|| format!("the event of seq {seq} cannot be shown"))?;
            if !self.filter.matches(&event) {
                continue;
            }
            match self.format {
                Format::Json => {
                    serde_json::to_writer(&mut self.out, &json::event(&event)).map_err(io::Error::from)?;
                    self.out.write_all(b"\n")?;
                }
                Format::Pretty => self.pretty.line(&mut self.out, &event)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
