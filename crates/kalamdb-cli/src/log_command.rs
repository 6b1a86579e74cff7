//! `kalamdb log verify` and `kalamdb log stat`: what the log holds, and whether it is what was written.
//!
//! Both read the directory alone, without a lock, and change nothing. With a server at work there they see the log as
//! it is at that moment.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, HumanCount};
use kalamdb_core::format::{ArchivedChangeEvent, ChangeEvent, Frame, RowReader, Seq};
use kalamdb_core::log::{LogReader, Place, closed_at, list_segments};

use crate::tail::catalog::Catalog;
use crate::tail::{instant, is_broken_pipe, log_directory};

/// Look at the log itself.
#[derive(clap::Args, Debug)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Read everything and check it: checksums, archives, rows, the order of seqs, the chain of frames.
    Verify(DirectoryArgs),
    /// Count: segments, times, frames, events per operation and per table.
    Stat(DirectoryArgs),
}

#[derive(clap::Args, Debug)]
struct DirectoryArgs {
    /// The server's data directory.
    #[arg(long, value_name = "DIR", default_value = "./kalamdb-data")]
    data_dir: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let done = match &args.command {
        Command::Verify(args) => verify(&log_directory(&args.data_dir)?, &mut io::stdout().lock()),
        Command::Stat(args) => stat(&log_directory(&args.data_dir)?, &mut io::stdout().lock()),
    };
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Totals {
    frames: u64,
    events: u64,
    bytes: u64,
    first: Option<Seq>,
    last: Seq,
    last_time: Option<i64>,
}

impl Totals {
    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.events += frame.count() as u64;
        self.bytes += frame.as_bytes().len() as u64;
        self.first.get_or_insert(frame.first_seq());
        self.last = frame.last_seq();
        self.last_time = Some(frame.header().fields.commit_time);
    }
}

/// Checks everything; gives exit code 1 where something is wrong.
fn verify(dir: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut reader = LogReader::open(dir);
    let mut totals = Totals::default();
    let damage = loop {
        match reader.next() {
            Ok(None) => break missing_end(dir, totals.last)?,
            Ok(Some(frame)) => {
                if let Err(problem) = check_frame(&frame, &totals) {
                    let place = reader.place().map(|place| told(&place)).unwrap_or_default();
                    break Some(format!("{place}: {problem}"));
                }
                totals.add(&frame);
            }
            Err(error) => break Some(error.to_string()),
        }
    };
    let range = match totals.first {
        Some(first) => format!("seq {first} to {}", totals.last),
        None => "no events".to_owned(),
    };
    writeln!(
        out,
        "{} segments, {range}, {} frames, {} events, {}",
        list_segments(dir)?.len(),
        HumanCount(totals.frames),
        HumanCount(totals.events),
        HumanBytes(totals.bytes),
    )?;
    if let Some(damage) = damage {
        writeln!(out, "damaged: {damage}")?;
        return Ok(ExitCode::FAILURE);
    }
    if let Some(place) = reader.unfinished()? {
        writeln!(
            out,
            "unfinished: {}: a frame that is being written, or that a crash tore; the next start cuts it off",
            told(&place)
        )?;
    }
    writeln!(out, "verified")?;
    Ok(ExitCode::SUCCESS)
}

/// Where a clean shutdown noted a later end than is there.
fn missing_end(dir: &Path, last: Seq) -> anyhow::Result<Option<String>> {
    let closed = closed_at(dir)?.filter(|closed| *closed > last);
    Ok(closed.map(|closed| format!("the log was closed at seq {closed}, but ends at seq {last}")))
}

fn told(place: &Place) -> String {
    format!("{} at byte {}", place.segment.display(), place.offset)
}

/// What a reader of the log takes for granted in a frame that follows the one before.
fn check_frame(frame: &Frame, before: &Totals) -> Result<(), String> {
    let fields = &frame.header().fields;
    if before.last_time.is_some_and(|time| fields.commit_time < time) {
        return Err("its commit time is before that of the frame before it".to_owned());
    }
    if fields.durable_seq >= fields.first_seq {
        return Err(format!("it says that seq {} was durable before it", fields.durable_seq));
    }
    for (seq, event) in frame.events() {
        let event = event.and_then(ArchivedChangeEvent::to_event).map_err(|error| error.to_string())?;
        check_rows(&event).map_err(|error| format!("seq {seq}: {error}"))?;
    }
    Ok(())
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

/// One line of a table of counts.
#[derive(Debug, Default)]
struct Count {
    events: u64,
    bytes: u64,
}

/// Prints the counts.
fn stat(dir: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut reader = LogReader::open(dir);
    let mut catalog = Catalog::new(dir);
    let mut segments: BTreeMap<PathBuf, (Totals, Option<i64>)> = BTreeMap::new();
    let (mut operations, mut tables) = (BTreeMap::new(), BTreeMap::new());
    while let Some(frame) = reader.next()? {
        if let Some(place) = reader.place() {
            let (totals, first_time) = segments.entry(place.segment).or_default();
            first_time.get_or_insert(frame.header().fields.commit_time);
            totals.add(&frame);
        }
        let mean = frame.as_bytes().len() as u64 / (frame.count() as u64).max(1);
        for (seq, event) in frame.events() {
            let event = event?;
            catalog.note(event)?;
            add(operations.entry(event.operation().as_str().to_owned()).or_default(), mean);
            if let Some(partition) = event.partition() {
                let table = partition.table.to_id();
                let name = catalog.table(table, seq)?.map_or_else(|| table.to_string(), str::to_owned);
                add(tables.entry(name).or_default(), mean);
            }
        }
    }
    write_segments(out, &segments)?;
    write_counts(out, "operation", &operations)?;
    write_counts(out, "table", &tables)?;
    Ok(ExitCode::SUCCESS)
}

fn add(count: &mut Count, bytes: u64) {
    count.events += 1;
    count.bytes += bytes;
}

fn write_segments(
    out: &mut impl Write,
    segments: &BTreeMap<PathBuf, (Totals, Option<i64>)>,
) -> anyhow::Result<()> {
    let mut table = aligned(&["segment", "first seq", "last seq", "frames", "events", "bytes", "from", "to"]);
    let mut all = Totals::default();
    for (path, (totals, first_time)) in segments {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        table.add_row(vec![
            name,
            totals.first.unwrap_or_default().to_string(),
            totals.last.to_string(),
            HumanCount(totals.frames).to_string(),
            HumanCount(totals.events).to_string(),
            HumanBytes(totals.bytes).to_string(),
            first_time.map(second).unwrap_or_default(),
            totals.last_time.map(second).unwrap_or_default(),
        ]);
        all.frames += totals.frames;
        all.events += totals.events;
        all.bytes += totals.bytes;
    }
    let sum = [
        HumanCount(all.frames).to_string(),
        HumanCount(all.events).to_string(),
        HumanBytes(all.bytes).to_string(),
    ];
    let label = ["all".to_owned(), String::new(), String::new()];
    table.add_row(label.into_iter().chain(sum).chain([String::new(), String::new()]));
    Ok(write_table(out, &table)?)
}

/// A commit time, to the second.
fn second(micros: i64) -> String {
    let whole = instant(micros);
    whole.split_once('.').map_or_else(|| whole.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn write_counts(out: &mut impl Write, what: &str, counts: &BTreeMap<String, Count>) -> io::Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    let mut table = aligned(&[what, "events", "bytes, about"]);
    for (name, count) in counts {
        table.add_row(vec![
            name.escape_debug().to_string(),
            HumanCount(count.events).to_string(),
            HumanBytes(count.bytes).to_string(),
        ]);
    }
    writeln!(out)?;
    write_table(out, &table)
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

#[cfg(test)]
mod tests;
