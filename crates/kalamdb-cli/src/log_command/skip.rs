//! `kalamdb log skip`: seqs that a lost part of the log may have given out are left out.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use kalamdb_core::clock;
use kalamdb_core::log::{LogOptions, LogWriter};

/// Begins an epoch behind so many seqs. None in front of them is used: the first ones are those that were most likely seen.
pub(super) fn skip(dir: &Path, by: u64, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let options =
        LogOptions { preallocate_bytes: 0, seq_gap: by, skips_always: true, ..LogOptions::default() };
    let (log, recovery) = LogWriter::open(dir, &options, clock::now_micros())?;
    let next = log.next_seq();
    log.close()?;
    writeln!(out, "the log ended at seq {}; what is written next has seq {next}", recovery.previous_end)?;
    Ok(ExitCode::SUCCESS)
}
