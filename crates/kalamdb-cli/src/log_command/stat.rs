//! `kalamdb log stat`: what stands in which segment, at which rate, of which tables.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{HumanBytes, HumanCount};
use kalamdb_core::format::{Frame, Seq};
use kalamdb_core::log::{LogReader, segment_overviews};

use super::{aligned, write_table};
use crate::tail::catalog::Catalog;
use crate::tail::instant;

/// What a segment, or all of them, holds.
#[derive(Debug, Default)]
struct Totals {
    frames: u64,
    events: u64,
    bytes: u64,
    first: Option<Seq>,
    last: Seq,
    first_time: Option<i64>,
    last_time: i64,
}

impl Totals {
    fn add(&mut self, frame: &Frame) {
        let time = frame.header().fields.commit_time;
        self.frames += 1;
        self.events += frame.count() as u64;
        self.bytes += frame.as_bytes().len() as u64;
        self.first.get_or_insert(frame.first_seq());
        self.last = frame.last_seq();
        self.first_time.get_or_insert(time);
        self.last_time = time;
    }

    /// Events a second, between the first and the last commit; none where that is no time.
    fn rate(&self) -> Option<u64> {
        let micros = u64::try_from(self.last_time.saturating_sub(self.first_time?)).ok()?;
        self.events.saturating_mul(1_000_000).checked_div(micros)
    }
}

/// One line of a table of counts.
#[derive(Debug, Default)]
struct Count {
    events: u64,
    bytes: u64,
}

/// Prints the counts.
pub(super) fn stat(dir: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut reader = LogReader::open(dir);
    reader.over_holes();
    let mut catalog = Catalog::new(dir);
    let mut segments: BTreeMap<PathBuf, Totals> = BTreeMap::new();
    let mut all = Totals::default();
    let (mut operations, mut tables) = (BTreeMap::new(), BTreeMap::new());
    while let Some(frame) = reader.next()? {
        all.add(&frame);
        if let Some(place) = reader.place() {
            segments.entry(place.segment).or_default().add(&frame);
        }
        let mean = frame.as_bytes().len() as u64 / (frame.count() as u64).max(1);
        for (seq, event) in frame.events() {
            let event = event?;
            catalog.note(event)?;
            add(operations.entry(event.operation().as_str().to_owned()).or_default(), mean);
            if let Some(partition) = event.partition() {
                let table = partition.table.to_id();
                // What named it may be in a hole.
                let name = catalog.table(table, seq).ok().flatten();
                let name = name.map_or_else(|| table.to_string(), str::to_owned);
                add(tables.entry(name).or_default(), mean);
            }
        }
    }
    write_segments(out, dir, &segments, &all)?;
    write_counts(out, "operation", &operations, &all)?;
    write_counts(out, "table", &tables, &all)?;
    Ok(ExitCode::SUCCESS)
}

fn add(count: &mut Count, bytes: u64) {
    count.events += 1;
    count.bytes += bytes;
}

fn write_segments(
    out: &mut impl Write,
    dir: &Path,
    segments: &BTreeMap<PathBuf, Totals>,
    all: &Totals,
) -> anyhow::Result<()> {
    let footers: BTreeMap<_, _> =
        segment_overviews(dir)?.into_iter().map(|segment| (segment.path, segment.has_footer)).collect();
    let header =
        ["segment", "first seq", "last seq", "frames", "events", "bytes", "events/s", "footer", "from", "to"];
    let mut table = aligned(&header);
    for (path, totals) in segments {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let footer = if footers.get(path).copied().unwrap_or_default() { "yes" } else { "no" };
        table.add_row(line(name, totals, footer));
    }
    table.add_row(line("all".to_owned(), all, ""));
    Ok(write_table(out, &table)?)
}

fn line(name: String, totals: &Totals, footer: &str) -> Vec<String> {
    vec![
        name,
        totals.first.unwrap_or_default().to_string(),
        totals.last.to_string(),
        HumanCount(totals.frames).to_string(),
        HumanCount(totals.events).to_string(),
        HumanBytes(totals.bytes).to_string(),
        totals.rate().map(|rate| HumanCount(rate).to_string()).unwrap_or_default(),
        footer.to_owned(),
        totals.first_time.map(second).unwrap_or_default(),
        totals.first_time.map(|_| second(totals.last_time)).unwrap_or_default(),
    ]
}

/// A commit time, to the second.
fn second(micros: i64) -> String {
    let whole = instant(micros);
    whole.split_once('.').map_or_else(|| whole.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn write_counts(
    out: &mut impl Write,
    what: &str,
    counts: &BTreeMap<String, Count>,
    all: &Totals,
) -> io::Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    let mut table = aligned(&[what, "events", "bytes, about", "share"]);
    for (name, count) in counts {
        let per_mille = (count.bytes * 1000).checked_div(all.bytes).unwrap_or_default();
        table.add_row(vec![
            name.escape_debug().to_string(),
            HumanCount(count.events).to_string(),
            HumanBytes(count.bytes).to_string(),
            format!("{}.{} %", per_mille / 10, per_mille % 10),
        ]);
    }
    writeln!(out)?;
    write_table(out, &table)
}
