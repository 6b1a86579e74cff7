//! `kalamdb demo`: the main job in one command.
//!
//! Streams a real chat into a real server so that each message lands in the table of each participant of its
//! conversation, with live subscribers for all of them; kills the server half way, starts it again, lets everybody
//! resume, and holds what arrived against the input. This module owns the sequence; it uses the public HTTP and
//! WebSocket interface alone and looks into the data directory only to measure the log.

mod backoff;
mod cold;
mod counters;
mod data;
mod progress;
mod report;
mod server_process;
mod setup;
mod stream;
mod subscriber;
mod verdict;
mod wire;
mod writer;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use data::Chat;
use progress::Progress;
use server_process::{ServerProcess, ServerSettings};

/// Descriptors for everything that is not a subscriber: RocksDB's files, segments, writers.
const SPARE_DESCRIPTORS: u64 = 512;

/// Stream a real chat through a real server, kill it half way, and prove that nothing was lost.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The chat to stream: JSON lines, zstd-compressed or plain [default: the built-in sample]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Only this many users, in order of first appearance [default: all]
    #[arg(long, value_name = "N")]
    users: Option<usize>,
    /// Only this many users watch live [default: all]
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    /// Connections that write
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parse_count)]
    writers: usize,
    /// Rows in one INSERT at most
    #[arg(long, value_name = "ROWS", default_value_t = 50, value_parser = parse_count)]
    batch: usize,
    /// Move a user's rows to Parquet files whenever so many are hot, and read those files in the end
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    flush_rows: Option<u32>,
    /// When the server acknowledges
    #[arg(long, default_value = "always", value_parser = ["always", "interval", "os"])]
    durability: String,
    /// Keep the data directory and the server's log
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; the exit code is 1 unless everything is as it must be.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let directory =
        tempfile::Builder::new().prefix("kalamdb-demo-").tempdir().context("no temporary directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = demonstrate(args, directory.path()) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(Ending::Interrupted),
        }
    });
    // Ends the server, if it is still there, before its directory goes.
    drop(runtime);
    let is_kept = args.keep || !matches!(outcome, Ok(Ending::Verified | Ending::Interrupted));
    let mut out = std::io::stdout().lock();
    if is_kept {
        writeln!(out, "kept: {}", directory.keep().display())?;
    }
    let reason = match outcome {
        Ok(Ending::Verified) => {
            writeln!(out, "verified")?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(Ending::Failed(reason)) => reason,
        Ok(Ending::Interrupted) => "interrupted".to_owned(),
        Err(error) => {
            // The last line stays one line: the whole story, such as the end of the server's log, goes before it.
            let story = format!("{error:#}");
            eprintln!("error: {story}");
            story.lines().next().unwrap_or_default().to_owned()
        }
    };
    writeln!(out, "FAILED: {reason}")?;
    Ok(ExitCode::FAILURE)
}

enum Ending {
    Verified,
    Failed(String),
    Interrupted,
}

async fn demonstrate(args: &DemoArgs, directory: &Path) -> anyhow::Result<Ending> {
    let progress = Progress::new();
    let mut chat = match &args.data {
        Some(path) => Chat::read(path)?,
        None => Chat::sample()?,
    };
    if let Some(users) = args.users {
        chat.keep_users(users.max(1));
    }
    progress.say(&format!(
        "{} messages, {} conversations → {} rows in the tables of {} users",
        chat.message_count,
        chat.conversation_count,
        chat.row_count(),
        chat.inboxes.len()
    ));
    let subscribers = subscriber_count(args, chat.inboxes.len(), &progress);
    let settings = ServerSettings {
        data_dir: directory.join("data"),
        log_file: directory.join("server.log"),
        durability: args.durability.clone(),
        root_password: secret()?,
        flush_rows: args.flush_rows,
    };
    let data_dir = settings.data_dir.clone();
    let root_password = settings.root_password.clone();
    let mut server = ServerProcess::start(settings).await?;
    progress.say(&format!("server at {}, durability {}", server.url(), args.durability));
    let plan = stream::Plan { subscribers, writers: args.writers, batch_rows: args.batch, root_password };
    let run = stream::run(&mut server, chat, &plan, &progress).await?;
    drop(server);
    let cold = args.flush_rows.map(|_| cold::examine(&data_dir, run.inboxes())).transpose()?;
    let figures = run.figures(report::log_bytes(&data_dir)?, cold.as_ref());
    let verdict = run.verdict(cold.as_ref());
    report::write(&mut std::io::stdout().lock(), &figures, &verdict)?;
    Ok(verdict.failure().map_or(Ending::Verified, Ending::Failed))
}

/// As many as asked for and as the process may have connections: the server, which inherits the limit, needs one
/// descriptor for each, and so does this process.
fn subscriber_count(args: &DemoArgs, users: usize, progress: &Progress) -> usize {
    let wanted = args.subscribers.unwrap_or(users).min(users);
    let needed = wanted as u64 + args.writers as u64 + SPARE_DESCRIPTORS;
    let allowed = rlimit::increase_nofile_limit(needed.max(1024)).unwrap_or(1024);
    if allowed >= needed {
        return wanted;
    }
    let possible = allowed.saturating_sub(args.writers as u64 + SPARE_DESCRIPTORS);
    let possible = usize::try_from(possible).unwrap_or(wanted).clamp(1, wanted.max(1));
    progress.say(&format!(
        "only {possible} of {wanted} users watch live: the limit of open files is {allowed} (see ulimit -n)"
    ));
    possible
}

fn secret() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).context("no randomness from the system")?;
    Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000) => Ok(count),
        _ => Err("a number from 1 to 1000".to_owned()),
    }
}
