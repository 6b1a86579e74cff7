//! What a crash left, and where the log really ends.
//!
//! Only the last segment is read, and those before it as long as they turn out to hold nothing. A bad frame is one of
//! two things. A *torn tail* was never durable: it is cut off. *Rot* was durable once: nothing is touched and the log
//! does not open. A bad frame counts as torn where
//! - no later frame, and no clean shutdown, says that it was durable, and
//! - nothing valid stands behind it, or what stands behind is just as little known to be durable and the bad frame has
//!   a hole of sectors that were never written (an unsynced tail that the disk wrote out of order).
//!
//! Frames behind such a hole are kept in a file beside the segment: they cannot be part of the log, which has no holes.
//! Archives are not validated here; whoever reads an event does that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log_format::{DatabaseId, FRAME_LENGTH_MAX, FrameHeader, SEGMENT_HEADER_BYTES, Seq};

use crate::clock::Stopwatch;
use crate::disk::{LogDirectory, OpenMode};
use crate::error::{At, Error, Flaw, Result};
use crate::index::LogIndex;
use crate::marker::CleanMarker;
use crate::segment::{SegmentPath, SegmentReader, Step};
use crate::summary::Summary;
use crate::survivors::{self, Survivors};

/// How often a scan looks at the clock.
const LOOK_EVERY_BYTES: u64 = 4 << 20;

/// What opening a log for writing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The last seq of the log as it is now, that of the event that opening wrote.
    pub end: Seq,
    /// The last seq that was found; zero for a new log.
    pub previous_end: Seq,
    /// The epoch that began.
    pub epoch: u32,
    /// Whether seqs skip ahead after `previous_end`: nothing proves that no later ones were ever handed out.
    pub gap: bool,
    /// Frames read to find the end.
    pub frames: u64,
    /// Bytes read to find the end.
    pub bytes: u64,
    /// The torn tail that was cut off.
    pub cut: Option<Cut>,
    /// How long opening took.
    pub elapsed: Duration,
}

/// A torn tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment it was in.
    pub segment: PathBuf,
    /// Where it began.
    pub offset: u64,
    /// How many bytes it had.
    pub bytes: u64,
    /// Where they were kept, if there were whole frames among them.
    pub kept: Option<PathBuf>,
}

/// The log as it was found. Nothing was changed yet.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) database: Option<DatabaseId>,
    /// The greatest epoch any segment or frame names.
    pub(crate) epoch: u32,
    /// The last seq.
    pub(crate) end: Seq,
    /// The last frame, if any is left.
    pub(crate) last: Option<FrameHeader>,
    /// Whether a clean shutdown vouches for this end, or there is nothing at all.
    pub(crate) clean: bool,
    /// The last segment that holds frames.
    pub(crate) active: Option<FoundSegment>,
    /// Segments behind it, without frames.
    pub(crate) empty: Vec<SegmentPath>,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) cut: Option<Cut>,
    /// Whether the torn tail has frames to keep.
    pub(crate) keep: bool,
}

/// The last segment with frames.
#[derive(Debug)]
pub(crate) struct FoundSegment {
    pub(crate) segment: SegmentPath,
    /// From where on nothing proves that the disk has it.
    pub(crate) unsure_from: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    /// What its footer would say.
    pub(crate) summary: Summary,
}

/// Reads what is there.
pub(crate) fn examine(dir: &LogDirectory, index: &LogIndex) -> Result<Found> {
    let marker = CleanMarker::read(dir)?;
    let mut segments = dir.segments()?;
    let mut found = Found::default();
    check_heads(dir, &segments, marker, &mut found)?;
    while let Some(segment) = segments.pop() {
        if found.database.is_none() || has_torn_head(dir, &segment.path)? {
            found.empty.push(segment);
            continue;
        }
        scan(dir, segment, marker, index, &mut found)?;
        if found.last.is_some() {
            break;
        }
    }
    if let Some(marker) = marker
        && marker.end > found.end
    {
        return Err(Error::Lost { dir: dir.path().to_owned(), durable: marker.end, end: found.end });
    }
    let end = CleanMarker { end: found.end, crc: found.last.map_or(0, |last| last.crc) };
    let is_new = found.active.is_none() && found.empty.is_empty();
    found.clean = marker.map_or(is_new, |marker| marker == end);
    Ok(found)
}

/// All segments belong to one database. The head of the last one may be torn, if it holds nothing.
fn check_heads(
    dir: &LogDirectory,
    segments: &[SegmentPath],
    marker: Option<CleanMarker>,
    found: &mut Found,
) -> Result<()> {
    for (index, segment) in segments.iter().enumerate() {
        let header = match SegmentReader::open(dir, segment.clone()) {
            Ok(reader) => *reader.header(),
            Err(Error::Head { .. })
                if index + 1 == segments.len()
                    && has_torn_head(dir, &segment.path)?
                    && marker.is_none_or(|marker| marker.end < segment.base_seq) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let expected = *found.database.get_or_insert(header.database);
        if header.database != expected {
            return Err(Error::ForeignSegment {
                segment: segment.path.clone(),
                expected,
                found: header.database,
            });
        }
        found.epoch = found.epoch.max(header.epoch);
    }
    Ok(())
}

/// Whether a segment ends, but for zeros, within its head: a crash while it was made. Frames come only after the head
/// is durable.
pub(crate) fn has_torn_head(dir: &LogDirectory, path: &Path) -> Result<bool> {
    let file = dir.open(path, OpenMode::Read)?;
    if file.length().at("inspect", path)? > (SEGMENT_HEADER_BYTES + crate::active::ZEROS_BYTES_MAX) as u64 {
        return Ok(false);
    }
    let content = file.read_all().at("read", path)?;
    let head = log_format::SegmentHeader::parse(&content);
    let behind = content.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
    Ok(head.is_err() && behind.iter().all(|byte| *byte == 0))
}

/// The frames of one segment.
struct Walk {
    last: Option<FrameHeader>,
    summary: Summary,
    /// The last seq that a frame, or the clean mark, says was durable.
    durable: Seq,
    /// What is wrong where they end.
    bad: Option<log_format::Error>,
}

/// Reads one segment to its end.
fn walk(reader: &mut SegmentReader, marker: Option<CleanMarker>, index: &LogIndex) -> Result<Walk> {
    let (mut stopwatch, mut look_at) = (Stopwatch::start(), LOOK_EVERY_BYTES);
    let mut walk = Walk {
        last: None,
        summary: Summary::new(reader.base()),
        durable: marker.map_or(Seq::ZERO, |marker| marker.end),
        bad: None,
    };
    let mut note_at = 0;
    loop {
        let offset = reader.position();
        if offset >= look_at {
            look_at = offset + LOOK_EVERY_BYTES;
            if stopwatch.is_line_due() {
                let (segment, of) = (reader.path().display(), reader.file_bytes()?);
                tracing::info!(%segment, bytes = offset, of, frames = walk.summary.frames(), "recovering the log");
            }
        }
        match reader.step()? {
            Step::Frame(frame) => {
                let header = *frame.header();
                check_link(reader, offset, walk.last.as_ref(), &header)?;
                if offset >= note_at {
                    note_at = index.note(reader.base(), header.fields.first_seq, offset);
                }
                walk.durable = walk.durable.max(header.fields.durable_seq);
                walk.summary.add_frame(&frame);
                walk.last = Some(header);
            }
            Step::Footer => return Ok(walk),
            Step::End if reader.only_zeros_behind()? => return Ok(walk),
            Step::End => {
                let max = FRAME_LENGTH_MAX as u64;
                walk.bad = Some(log_format::Error::Length { what: "frame", length: 0, min: 64, max });
                return Ok(walk);
            }
            Step::Bad(error) => {
                walk.bad = Some(error);
                return Ok(walk);
            }
        }
    }
}

/// Reads one segment and adds what it holds to `found`.
fn scan(
    dir: &LogDirectory,
    segment: SegmentPath,
    marker: Option<CleanMarker>,
    index: &LogIndex,
    found: &mut Found,
) -> Result<()> {
    let mut reader = SegmentReader::open(dir, segment.clone())?;
    let Walk { last, summary, durable, bad } = walk(&mut reader, marker, index)?;
    let end = reader.position();
    found.bytes += end - SEGMENT_HEADER_BYTES as u64;
    found.frames += summary.frames();
    if let Some(flaw) = bad {
        let expected = last.map_or(reader.base(), |last| last.last_seq().next());
        let behind = survivors::find(&mut reader, end, expected)?;
        // The footer of a segment, where the next one was begun right behind its last frame.
        let was_sealed = found.empty.last().is_some_and(|next| last.is_some() && next.base_seq == expected);
        let is_footer = was_sealed && behind.frames == 0;
        if !is_footer && (!found.empty.is_empty() || !is_torn(expected, durable, &behind)) {
            return Err(reader.rot(end, flaw));
        }
        if !is_footer {
            let bytes = reader.file_bytes()?.saturating_sub(end);
            found.cut = Some(Cut { segment: segment.path.clone(), offset: end, bytes, kept: None });
            found.keep = behind.frames > 0;
        }
    }
    if let Some(last) = last {
        found.epoch = found.epoch.max(last.fields.epoch);
        found.end = last.last_seq();
        found.last = Some(last);
        let is_sure = marker.is_some_and(|marker| marker.end >= found.end);
        let unsure_from = if is_sure { end } else { index.offset(reader.base(), durable.next()).min(end) };
        found.active = Some(FoundSegment { segment, unsure_from, end, summary });
    } else {
        found.empty.push(segment);
    }
    Ok(())
}

pub(crate) fn is_torn(expected: Seq, durable: Seq, behind: &Survivors) -> bool {
    let was_durable = expected <= durable || expected <= behind.durable;
    !was_durable && (behind.frames == 0 || behind.hole)
}

/// A frame follows the one before it; the first of a segment begins where the segment does.
pub(crate) fn check_link(
    reader: &SegmentReader,
    offset: u64,
    last: Option<&FrameHeader>,
    next: &FrameHeader,
) -> Result<()> {
    let found = next.fields.first_seq;
    let Some(last) = last else {
        let expected = reader.base();
        let starts = offset != SEGMENT_HEADER_BYTES as u64 || found == expected;
        return if starts { Ok(()) } else { Err(reader.rot(offset, Flaw::Seq { expected, found })) };
    };
    let expected = last.last_seq().next();
    if reader.header().after_hole && offset == SEGMENT_HEADER_BYTES as u64 {
        let follows = found >= expected && found == reader.base() && next.fields.epoch >= last.fields.epoch;
        return if follows { Ok(()) } else { Err(reader.rot(offset, Flaw::Seq { expected, found })) };
    }
    let skips = found > expected && next.fields.epoch > last.fields.epoch;
    if found != expected && !skips || next.fields.epoch < last.fields.epoch {
        return Err(reader.rot(offset, Flaw::Seq { expected, found }));
    }
    if next.fields.previous_crc != last.crc {
        let flaw = Flaw::Chain { expected: last.crc, found: next.fields.previous_crc };
        return Err(reader.rot(offset, flaw));
    }
    Ok(())
}

/// Copies the torn tail beside its segment.
pub(crate) fn keep_tail(dir: &LogDirectory, cut: &mut Cut) -> Result<()> {
    let content = dir.open(&cut.segment, OpenMode::Read)?.read_all().at("read", &cut.segment)?;
    let offset = usize::try_from(cut.offset).unwrap_or(usize::MAX);
    let path = cut.segment.with_extension(format!("torn-{}", cut.offset));
    dir.write(&path, content.get(offset..).unwrap_or_default())?;
    cut.kept = Some(path);
    dir.sync()
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
