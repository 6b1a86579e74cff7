//! `kalamdb log skip`: seqs that a lost part of the log may have given out are left out.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use kalamdb_core::clock;
use kalamdb_core::log::{LogOptions, LogWriter};

/// Begins an epoch behind so many seqs.
pub(super) fn skip(dir: &Path, by: u64, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let options = LogOptions { preallocate_bytes: 0, ..LogOptions::default() };
    let (mut log, recovery) = LogWriter::open(dir, &options, clock::now_micros())?;
    log.stage_epoch(log.end().plus(by), clock::now_micros())?;
    log.write()?;
    let next = log.next_seq();
    log.close()?;
    writeln!(out, "the log ended at seq {}; what is written next has seq {next}", recovery.previous_end)?;
    Ok(ExitCode::SUCCESS)
}
