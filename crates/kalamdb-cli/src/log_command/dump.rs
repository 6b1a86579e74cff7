//! `kalamdb log dump SEQ`: one frame, each of its bytes with what it means, in the words of the format's specification.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use kalamdb_core::format::{ArchivedChangeEvent, Frame, FrameHeader, RowReader, Seq};
use kalamdb_core::log::LogReader;

use super::place;
use crate::tail::catalog::Catalog;
use crate::tail::instant;

/// Bytes shown in a line.
const LINE_BYTES: usize = 16;

/// What ranges of a frame's bytes are.
struct Explained<'a> {
    bytes: &'a [u8],
    /// Where each part begins, its length, what it is.
    parts: Vec<(usize, usize, String)>,
}

/// Explains the frame that holds `seq`.
pub(super) fn dump(dir: &Path, seq: Seq, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut reader = LogReader::open(dir);
    reader.over_holes();
    reader.seek_from(seq)?;
    let Some(frame) = reader.next()?.filter(|frame| frame.first_seq() <= seq) else {
        bail!("no event has seq {seq}: the log begins at {} and ends at {}", reader.floor()?, reader.end()?);
    };
    let place = reader.place().map(|at| place(&at.segment, at.offset)).unwrap_or_default();
    let length = frame.as_bytes().len();
    writeln!(out, "{place}: seq {} to {}, {length} bytes", frame.first_seq(), frame.last_seq())?;
    let mut explained = Explained { bytes: frame.as_bytes(), parts: Vec::new() };
    explained.head(frame.header());
    let mut catalog = Catalog::new(dir);
    for (index, (seq, event)) in frame.events().enumerate() {
        let (at, length) = explained.entry(index).context("the offset table ends early")?;
        let event = event?;
        explained.event(&frame, event, seq, (at, length), &mut catalog)?;
    }
    explained.write(out)?;
    Ok(ExitCode::SUCCESS)
}

impl Explained<'_> {
    fn add(&mut self, at: usize, length: usize, what: impl Into<String>) {
        self.parts.push((at, length, what.into()));
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn head(&mut self, header: &FrameHeader) {
        let fields = &header.fields;
        self.add(0, 4, format!("crc32c of all that follows: {:08x}, right", header.crc));
        self.add(4, 4, format!("length: {}", header.length));
        self.add(8, 8, format!("first seq: {}", fields.first_seq));
        self.add(16, 4, format!("events: {}", header.count));
        self.add(20, 4, format!("epoch: {}", fields.epoch));
        self.add(24, 4, format!("crc32c of the frame before: {:08x}", fields.previous_crc));
        self.add(28, 4, "flags: none");
        let time = fields.commit_time;
        self.add(32, 8, format!("commit time: {time} microseconds, {}", instant(time)));
        self.add(40, 8, format!("durable when this was written: seq {}", fields.durable_seq));
    }

    /// An entry of the offset table: where the event's archive stands, and its length.
    fn entry(&mut self, index: usize) -> Option<(usize, usize)> {
        let entry = 48 + 8 * index;
        let (at, length) = (self.word(entry)? as usize, self.word(entry + 4)? as usize);
        self.add(entry, 4, format!("event {index} stands at {at:04x}"));
        self.add(entry + 4, 4, format!("and has {length} bytes"));
        Some((at, length))
    }

    fn event(
        &mut self,
        frame: &Frame,
        event: &ArchivedChangeEvent,
        seq: Seq,
        (at, length): (usize, usize),
        catalog: &mut Catalog,
    ) -> anyhow::Result<()> {
        let table = match event.partition() {
            Some(partition) => {
                let table = partition.table.to_id();
                let name =
                    catalog.table(table, seq).ok().flatten().map(|name| name.escape_debug().to_string());
                let owner = partition.owner().map(|owner| format!(" of {owner:?}")).unwrap_or_default();
                format!(" in {}{owner}", name.unwrap_or_else(|| format!("table {table}")))
            }
            None => String::new(),
        };
        let root = at + length.saturating_sub(8);
        self.add(root, 4, format!("root of seq {seq}: {}{table}", event.name()));
        self.add(root + 4, 4, "pointer to its payload, relative to here");
        let start = frame.as_bytes().as_ptr().addr();
        for (name, bytes, is_row) in pieces(event) {
            let from = bytes.as_ptr().addr().saturating_sub(start);
            if is_row {
                self.row(name, bytes, from)?;
            } else if !bytes.is_empty() {
                self.add(from, bytes.len(), format!("{name}: {} bytes", bytes.len()));
            }
        }
        self.rest(at, root, event.name());
        Ok(())
    }

    fn row(&mut self, name: &str, bytes: &[u8], from: usize) -> anyhow::Result<()> {
        let row = RowReader::new(bytes)?;
        self.add(from, 4, format!("{name}: schema version {}", row.version()));
        self.add(from + 4, 2, format!("{name}: {} cells", row.count()));
        let mut at = from + 6;
        for (index, cell) in row.cells().enumerate() {
            let cell = cell?;
            self.add(at, cell.encoded_bytes(), format!("{name}: cell {index}, {:?}", cell.to_value()));
            at += cell.encoded_bytes();
        }
        Ok(())
    }

    /// What is left between `at` and `upto` is the archive's own.
    fn rest(&mut self, at: usize, upto: usize, name: &str) {
        let mut within: Vec<_> = self
            .parts
            .iter()
            .map(|part| (part.0, part.1))
            .filter(|part| (at..upto).contains(&part.0))
            .collect();
        within.sort_unstable();
        let mut free = at;
        for (start, length) in within.into_iter().chain([(upto, 0)]) {
            if start > free {
                self.add(free, start - free, format!("archive: fields of {name}"));
            }
            free = free.max(start + length);
        }
    }

    fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        self.parts.sort_unstable_by_key(|part| part.0);
        let mut at = 0;
        for (start, length, what) in &self.parts {
            self.lines(out, at, *start, "padding")?;
            self.lines(out, *start, start + length, what)?;
            at = at.max(start + length);
        }
        self.lines(out, at, self.bytes.len(), "padding")
    }

    fn lines(&self, out: &mut impl Write, from: usize, upto: usize, what: &str) -> io::Result<()> {
        let bytes = self.bytes.get(from..upto).unwrap_or_default();
        for (index, line) in bytes.chunks(LINE_BYTES).enumerate() {
            let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let what = if index == 0 { what } else { "" };
            let line = format!("{:06x}  {:47}  {what}", from + index * LINE_BYTES, digits.join(" "));
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The bytes of an event that have an encoding of their own, and whether they are a row.
fn pieces(event: &ArchivedChangeEvent) -> Vec<(&'static str, &[u8], bool)> {
    match event {
        ArchivedChangeEvent::RowInserted(event) => {
            vec![("key", event.key.as_slice(), false), ("row", event.row.as_slice(), true)]
        }
        ArchivedChangeEvent::RowUpdated(event) => vec![
            ("key", event.key.as_slice(), false),
            ("old row", event.old.as_slice(), true),
            ("new row", event.new.as_slice(), true),
        ],
        ArchivedChangeEvent::RowDeleted(event) => {
            vec![("key", event.key.as_slice(), false), ("old row", event.old.as_slice(), true)]
        }
        ArchivedChangeEvent::StreamAppended(event) => vec![("row", event.row.as_slice(), true)],
        _ => Vec::new(),
    }
}
