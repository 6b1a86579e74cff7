//! `kalamdb log`: what the log holds, whether it is what was written, and making it readable again where it is not.
//!
//! `verify`, `stat` and `dump` read the directory alone, without a lock, and change nothing: with a server at work there
//! they see the log as it is at that moment. `repair` and `skip` want the directory for themselves.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use kalamdb_core::format::Seq;

use crate::tail::{is_broken_pipe, log_directory};

mod dump;
mod repair;
mod skip;
mod stat;
mod verify;

pub(crate) use verify::verify;

/// Look at the log itself.
#[derive(clap::Args, Debug)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Read everything and check it: checksums, the order of seqs, the chain of frames, footers.
    Verify(VerifyArgs),
    /// Count: segments, times, rates, frames, events per operation and per table.
    Stat(DirectoryArgs),
    /// Explain the frame that holds an event, byte by byte.
    Dump(DumpArgs),
    /// Make a damaged log readable again: move what is damaged aside, keep the rest, say what is lost.
    Repair(DirectoryArgs),
    /// Leave out seqs behind the end: after an older copy of the directory was brought back, so that who saw what it has not is told
    /// to begin anew.
    Skip(SkipArgs),
}

#[derive(clap::Args, Debug)]
struct DirectoryArgs {
    /// The server's data directory.
    #[arg(long, value_name = "DIR", default_value = "./kalamdb-data")]
    data_dir: PathBuf,
}

#[derive(clap::Args, Debug)]
struct VerifyArgs {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// Also decode every event and every row, and compare footers with the partitions of events. Takes several times as
    /// long.
    #[arg(long)]
    events: bool,
}

#[derive(clap::Args, Debug)]
struct DumpArgs {
    /// The event's seq.
    seq: u64,
    #[command(flatten)]
    directory: DirectoryArgs,
}

#[derive(clap::Args, Debug)]
struct SkipArgs {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// How many: more than the events that were written since the copy was made.
    #[arg(long, value_name = "SEQS", default_value_t = 1 << 32, value_parser = clap::value_parser!(u64).range(1..=1 << 48))]
    by: u64,
}

/// Runs the command.
pub(crate) fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    let done = match &args.command {
        Command::Verify(args) => {
            let is_shown = io::stderr().is_terminal();
            verify(&log_directory(&args.directory.data_dir)?, args.events, is_shown, out)
        }
        Command::Stat(args) => stat::stat(&log_directory(&args.data_dir)?, out),
        Command::Dump(args) => dump::dump(&log_directory(&args.directory.data_dir)?, Seq::new(args.seq), out),
        Command::Repair(args) => repair::repair(&log_directory(&args.data_dir)?, out),
        Command::Skip(args) => skip::skip(&log_directory(&args.directory.data_dir)?, args.by, out),
    };
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// A table without lines whose numbers stand to the right.
fn aligned(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn write_table(out: &mut impl Write, table: &Table) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
    }
    Ok(())
}

/// Where something stands.
fn place(segment: &Path, offset: u64) -> String {
    format!("{} at byte {offset}", segment.display())
}

#[cfg(test)]
mod tests;
