//! `kalamdb log verify`: everything in the log is read and checked; exit code 1 where something is wrong.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use kalamdb_core::format::{ArchivedChangeEvent, ChangeEvent, Frame, RowReader};
use kalamdb_core::log::{Inspector, list_segments, verify as verify_log};

use super::place;

/// What is looked at beside the frames, and where progress is shown.
struct Inspection {
    with_events: bool,
    bar: ProgressBar,
}

impl Inspector for Inspection {
    fn frame(&self, frame: &Frame) -> Result<(), String> {
        for (seq, event) in frame.events() {
            let event = event.and_then(ArchivedChangeEvent::to_event).map_err(|error| error.to_string())?;
            check_rows(&event).map_err(|error| format!("seq {seq}: {error}"))?;
        }
        Ok(())
    }

    fn reads_events(&self) -> bool {
        self.with_events
    }

    fn advanced(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

fn check_rows(event: &ChangeEvent) -> kalamdb_core::format::Result<()> {
    let check = |row: &Vec<u8>| RowReader::new(row)?.values().map(drop);
    match event {
        ChangeEvent::RowInserted(event) => check(&event.row),
        ChangeEvent::RowUpdated(event) => check(&event.old).and_then(|()| check(&event.new)),
        ChangeEvent::RowDeleted(event) => check(&event.old),
        ChangeEvent::StreamAppended(event) => check(&event.row),
        _ => Ok(()),
    }
}

/// A bar of all bytes, drawn on stderr.
fn bar(dir: &Path, is_shown: bool) -> anyhow::Result<ProgressBar> {
    if !is_shown {
        return Ok(ProgressBar::hidden());
    }
    let bytes =
        list_segments(dir)?.into_iter().filter_map(|segment| segment.path.metadata().ok()).map(|it| it.len());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    Ok(ProgressBar::new(bytes.sum()).with_style(style))
}

/// Checks everything.
pub(crate) fn verify(
    dir: &Path,
    with_events: bool,
    is_shown: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let inspection = Inspection { with_events, bar: bar(dir, is_shown)? };
    let threads = available_parallelism().map_or(1, std::num::NonZero::get);
    let verified = verify_log(dir, threads, &inspection)?;
    inspection.bar.finish_and_clear();
    let range = match verified.first_seq {
        Some(first) => format!("seq {first} to {}", verified.last_seq),
        None => "no events".to_owned(),
    };
    writeln!(
        out,
        "{} segments, {range}, {} frames, {} events, {}, {} footers",
        verified.segments,
        HumanCount(verified.frames),
        HumanCount(verified.events),
        HumanBytes(verified.bytes),
        verified.footers,
    )?;
    for (last, first) in &verified.holes {
        writeln!(out, "hole: a repair gave up what was between seq {last} and {first}")?;
    }
    for problem in &verified.problems {
        writeln!(out, "damaged: {}: {}", place(&problem.segment, problem.offset), problem.what)?;
    }
    if !verified.problems.is_empty() {
        writeln!(out, "{} problems; `kalamdb log repair` keeps what is whole", verified.problems.len())?;
        return Ok(ExitCode::FAILURE);
    }
    if let Some((segment, offset)) = &verified.unfinished {
        writeln!(
            out,
            "unfinished: {}: a frame that is being written, or that a crash tore; the next start cuts it off",
            place(segment, *offset)
        )?;
    }
    writeln!(out, "verified")?;
    Ok(ExitCode::SUCCESS)
}
