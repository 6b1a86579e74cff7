//! `kalamdb check`: the whole of a stopped database is read and checked; exit code 1 where something is wrong.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use kalamdb_core::{Engine, EngineOptions, LocationClaim};

use crate::log_command;
use crate::tail::log_directory;

/// Checks a database that no server has open: its log, then every Parquet file against the manifests.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The database's directory.
    #[arg(long, value_name = "DIR", default_value = "kalamdb-data")]
    data_dir: PathBuf,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let is_shown = std::io::stderr().is_terminal();
    let of_log = log_command::verify(&log_directory(&args.data_dir)?, true, is_shown, &mut out)?;
    if of_log != ExitCode::SUCCESS {
        writeln!(out, "the log is damaged, so nothing else was looked at; see `kalamdb log repair`")?;
        return Ok(of_log);
    }
    let (engine, _) = Engine::open(EngineOptions {
        // A copy that is looked into takes nothing from its original.
        location_claim: LocationClaim::Never,
        ..EngineOptions::new(&args.data_dir)
    })?;
    let bar = if is_shown { ProgressBar::new(engine.cold_file_count()?) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} files {per_sec} {eta}")?);
    let checked = engine.check_files(|files| bar.inc(files));
    bar.finish_and_clear();
    engine.close();
    let checked = checked?;
    for problem in &checked.problems {
        let owner = problem.owner.as_ref().map(|owner| format!(" of {owner}")).unwrap_or_default();
        writeln!(out, "{}: {} ({}{owner})", problem.path, problem.problem, problem.table)?;
    }
    writeln!(
        out,
        "{} Parquet files of {} partitions, {}, {} rows",
        HumanCount(checked.files),
        HumanCount(checked.partitions),
        HumanBytes(checked.bytes),
        HumanCount(checked.rows),
    )?;
    for of in &checked.unreachable {
        writeln!(out, "{}: not looked at: {} ({})", of.path, of.problem, of.table)?;
    }
    if !checked.unreachable.is_empty() {
        writeln!(
            out,
            "{} files could not be looked at, since their storage location does not answer: nothing says that they are wrong. \
             Check again when it does",
            checked.unreachable.len()
        )?;
    }
    if checked.problems.is_empty() && !checked.unreachable.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if checked.problems.is_empty() {
        writeln!(out, "nothing is wrong")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} files are wrong: bring them back from a backup", checked.problems.len())?;
    Ok(ExitCode::FAILURE)
}
