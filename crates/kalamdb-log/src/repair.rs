//! Making a damaged log one that opens and reads again, at the price of what is damaged and nothing else.
//!
//! What is whole stays, in front of the damage and behind it: a segment that begins with the first whole frame behind says
//! that it follows a hole. Nothing is deleted: damaged bytes are kept beside the log as `*.damaged-OFFSET`. Each step is
//! such that a repair that was interrupted can be run again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use log_format::{
    ArchivedChangeEvent, Bytes, ChangeEvent, DatabaseId, EpochStarted, Frame, FrameBuffer, FrameEncoder,
    FrameFields, SEGMENT_HEADER_BYTES, SegmentHeader, Seq, TableId, segment_file_name,
};

use crate::damage::{self, FoundDamage};
use crate::disk::{LogDirectory, OpenMode};
use crate::error::{At, Result};
use crate::lock::DirectoryLock;
use crate::segment::SegmentPath;
use crate::survivors;

const COPY_BYTES: usize = 1 << 20;
const HEAD: u64 = SEGMENT_HEADER_BYTES as u64;

/// How far seqs skip ahead behind a lost end: nobody knows how many there were.
const LOST_END_SEQS: u64 = 1 << 20;

/// One damaged place, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The segment.
    pub segment: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was wrong there.
    pub problem: String,
    /// The first lost seq; none where nothing was lost.
    pub lost_from: Option<Seq>,
    /// The last one; none where nobody can know: everything behind `lost_from`.
    pub lost_to: Option<Seq>,
    /// Lost events per table, as far as the damaged bytes can still be read. They may be wrong.
    pub tables: BTreeMap<TableId, u64>,
    /// Lost events of the catalog, as far as they can still be read.
    pub catalog_events: u64,
    /// Whether damaged bytes could not be read as events at all.
    pub has_unreadable: bool,
    /// Where the damaged bytes are kept.
    pub kept: Vec<PathBuf>,
}

/// A whole frame behind the damage.
#[derive(Clone, Copy, Debug)]
struct Resume {
    index: usize,
    offset: u64,
    first_seq: Seq,
    epoch: u32,
    /// The last seq before it that may be lost.
    lost_to: Seq,
}

/// Mends the log in `dir`, which nobody may have open. Gives what was wrong; nothing where all was well.
///
/// # Errors
/// [`crate::Error::Locked`], [`crate::Error::ForeignSegment`] and those of the disk.
pub fn repair(dir: impl Into<LogDirectory>, now_micros: i64) -> Result<Vec<Mended>> {
    let dir = dir.into();
    let _lock = DirectoryLock::take(&dir)?;
    let mut mended = Vec::new();
    while let Some(found) = damage::find(&dir)? {
        let one = mend(&dir, &found, now_micros)?;
        tracing::warn!(segment = %one.segment.display(), offset = one.offset, "mended the log");
        mended.push(one);
    }
    Ok(mended)
}

fn mend(dir: &LogDirectory, found: &FoundDamage, now_micros: i64) -> Result<Mended> {
    let resume = resume(dir, found)?;
    let Some(segment) = found.segments.get(found.index) else { return Err(lost_sight(dir)) };
    let mut mended = Mended {
        segment: segment.path.clone(),
        offset: found.offset,
        problem: found.problem.clone(),
        lost_from: Some(found.expected),
        lost_to: resume.map(|resume| resume.lost_to).or(found.closed_at),
        tables: BTreeMap::new(),
        catalog_events: 0,
        has_unreadable: false,
        kept: Vec::new(),
    };
    let upto = resume.filter(|resume| resume.index == found.index).map(|resume| resume.offset);
    count_lost(dir, segment, found.offset, upto, &mut mended)?;
    match resume {
        Some(resume) => {
            let is_hole = resume.lost_to >= found.expected;
            if !is_hole {
                (mended.lost_from, mended.lost_to) = (None, None);
            }
            split(dir, found, &resume, is_hole, &mut mended)?;
        }
        None => give_up_end(dir, found, now_micros, &mut mended)?,
    }
    Ok(mended)
}

fn lost_sight(dir: &LogDirectory) -> crate::Error {
    let source = std::io::ErrorKind::NotFound.into();
    crate::Error::Io { action: "repair", path: dir.path().to_owned(), source }
}

/// The first whole frame behind the damage, in its segment or a later one.
fn resume(dir: &LogDirectory, found: &FoundDamage) -> Result<Option<Resume>> {
    for (index, segment) in found.segments.iter().enumerate().skip(found.index) {
        let mut reader = found.reader(dir, segment)?;
        let from = if index == found.index { found.offset.max(HEAD) } else { HEAD };
        let Some(offset) = survivors::next_frame(&mut reader, from, found.expected)? else { continue };
        reader.go_to(offset);
        if let crate::segment::Step::Frame(frame) = reader.step()? {
            let (first_seq, epoch) = (frame.first_seq(), frame.header().fields.epoch);
            let lost_to = match frame.event(0) {
                Ok(ArchivedChangeEvent::EpochStarted(event)) => Seq::new(event.previous_end.to_native()),
                _ => first_seq.previous(),
            };
            return Ok(Some(Resume { index, offset, first_seq, epoch, lost_to }));
        }
    }
    Ok(None)
}

/// Reads what it can of the damaged bytes, to say whose events they were.
fn count_lost(
    dir: &LogDirectory,
    segment: &SegmentPath,
    from: u64,
    upto: Option<u64>,
    mended: &mut Mended,
) -> Result<()> {
    let bytes = read_range(dir, &segment.path, from.max(HEAD), upto)?;
    let mut buffer = FrameBuffer::new();
    buffer.extend_from_slice(&bytes);
    let mut rest = Bytes::from_owner(buffer);
    while !rest.iter().all(|byte| *byte == 0) {
        let Ok(frame) = Frame::salvage(&rest) else {
            mended.has_unreadable = true;
            return Ok(());
        };
        for (_, event) in frame.events() {
            match event.map(ArchivedChangeEvent::partition) {
                Ok(Some(partition)) => *mended.tables.entry(partition.table.to_id()).or_default() += 1,
                Ok(None) => mended.catalog_events += 1,
                Err(_) => mended.has_unreadable = true,
            }
        }
        rest = rest.slice(frame.as_bytes().len()..);
    }
    Ok(())
}

/// Lets the log go on with a whole frame behind the damage.
///
/// IMPORTANT: what goes on is in place, durably, before anything damaged is taken away.
fn split(
    dir: &LogDirectory,
    found: &FoundDamage,
    resume: &Resume,
    is_hole: bool,
    mended: &mut Mended,
) -> Result<()> {
    let (Some(damaged), Some(from)) = (found.segments.get(found.index), found.segments.get(resume.index))
    else {
        return Err(lost_sight(dir));
    };
    let database = database(dir, found, from)?;
    let header =
        SegmentHeader { database, epoch: resume.epoch, base_seq: resume.first_seq, after_hole: is_hole };
    let is_same = resume.index == found.index;
    let keeps_frames = is_same && found.offset > HEAD;
    if from.base_seq == resume.first_seq && resume.offset == HEAD {
        keep(dir, from, 0, Some(HEAD), mended)?;
        let file = dir.open(&from.path, OpenMode::Write)?;
        file.write_all_at(&header.encode(), 0).at("write", &from.path)?;
        file.sync().at("sync", &from.path)?;
    } else {
        // A footer that tells of the frames before as well is left behind.
        let upto = found.reader(dir, from)?.footer()?.map(|footer| footer.end);
        begin_behind(dir, from, &header, resume.offset, upto)?;
        if from.base_seq != resume.first_seq && !keeps_frames {
            set_aside(dir, from, mended)?;
        }
    }
    if is_same {
        if keeps_frames {
            keep(dir, damaged, found.offset, Some(resume.offset), mended)?;
            cut(dir, damaged, found.offset)?;
        }
        return Ok(());
    }
    for between in found.segments.get(found.index + 1..resume.index).unwrap_or_default() {
        set_aside(dir, between, mended)?;
    }
    take_away(dir, damaged, found.offset, mended)
}

/// Writes a segment with this head and what stands in `from` behind `offset`; takes the place of one of the same name.
fn begin_behind(
    dir: &LogDirectory,
    from: &SegmentPath,
    header: &SegmentHeader,
    offset: u64,
    upto: Option<u64>,
) -> Result<()> {
    let path = dir.path().join(segment_file_name(header.base_seq));
    let new = path.with_extension("klog.new");
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&read_range(dir, &from.path, offset, upto)?);
    dir.write(&new, &bytes)?;
    dir.disk().rename(&new, &path).at("rename", &new)?;
    dir.sync()
}

/// Gives up the log's end: an event behind it says that seqs up to there may be lost.
fn give_up_end(dir: &LogDirectory, found: &FoundDamage, now_micros: i64, mended: &mut Mended) -> Result<()> {
    let Some(damaged) = found.segments.get(found.index) else { return Err(lost_sight(dir)) };
    let known = found.closed_at.unwrap_or_default().max(found.expected);
    let lost_to = known.plus(LOST_END_SEQS);
    let epoch = found.last.map_or(0, |last| last.fields.epoch).saturating_add(1);
    let event = ChangeEvent::EpochStarted(Box::new(EpochStarted { previous_end: lost_to.get() })).encode()?;
    let fields = FrameFields {
        first_seq: lost_to.next(),
        epoch,
        previous_crc: found.last.map_or(0, |last| last.crc),
        commit_time: found.last.map_or(now_micros, |last| now_micros.max(last.fields.commit_time)),
        durable_seq: found.last.map_or(Seq::ZERO, |last| last.last_seq()),
    };
    let mut encoder = FrameEncoder::new();
    encoder.push(&fields, &[event])?;
    let database = database(dir, found, damaged)?;
    let header = SegmentHeader { database, epoch, base_seq: fields.first_seq, after_hole: true };
    let bytes = [&header.encode()[..], encoder.as_bytes()].concat();
    let path = dir.path().join(segment_file_name(fields.first_seq));
    let new = path.with_extension("klog.new");
    dir.write(&new, &bytes)?;
    dir.disk().rename(&new, &path).at("rename", &new)?;
    dir.sync()?;
    for behind in found.segments.get(found.index + 1..).unwrap_or_default() {
        set_aside(dir, behind, mended)?;
    }
    take_away(dir, damaged, found.offset, mended)
}

/// The database a log belongs to; where no head says it, what stands in the damaged one.
fn database(dir: &LogDirectory, found: &FoundDamage, from: &SegmentPath) -> Result<DatabaseId> {
    if let Some(database) = found.database {
        return Ok(database);
    }
    for segment in &found.segments {
        if let Ok(reader) = crate::segment::SegmentReader::open(dir, segment.clone()) {
            return Ok(reader.header().database);
        }
    }
    let head = read_range(dir, &from.path, 16, Some(32))?;
    Ok(DatabaseId::new(head.try_into().unwrap_or([0; 16])))
}

/// Takes what stands behind `offset` out of a segment; all of it where no frame is before.
fn take_away(dir: &LogDirectory, segment: &SegmentPath, offset: u64, mended: &mut Mended) -> Result<()> {
    if offset <= HEAD {
        return set_aside(dir, segment, mended);
    }
    keep(dir, segment, offset, None, mended)?;
    cut(dir, segment, offset)
}

fn cut(dir: &LogDirectory, segment: &SegmentPath, offset: u64) -> Result<()> {
    let file = dir.open(&segment.path, OpenMode::Write)?;
    file.truncate(offset).at("truncate", &segment.path)?;
    file.sync().at("sync", &segment.path)
}

/// Copies a range of a segment to a file beside it, durably.
fn keep(
    dir: &LogDirectory,
    segment: &SegmentPath,
    from: u64,
    upto: Option<u64>,
    mended: &mut Mended,
) -> Result<()> {
    let bytes = read_range(dir, &segment.path, from, upto)?;
    if bytes.is_empty() {
        return Ok(());
    }
    let path = free_name(dir, &segment.path, from)?;
    dir.write(&path, &bytes)?;
    dir.sync()?;
    mended.kept.push(path);
    Ok(())
}

/// Gives a whole segment a name that is none of a segment.
fn set_aside(dir: &LogDirectory, segment: &SegmentPath, mended: &mut Mended) -> Result<()> {
    let path = free_name(dir, &segment.path, 0)?;
    dir.disk().rename(&segment.path, &path).at("rename", &segment.path)?;
    dir.sync()?;
    mended.kept.push(path);
    Ok(())
}

/// A name that nothing has, so that what an earlier repair kept is not written over.
fn free_name(dir: &LogDirectory, segment: &Path, offset: u64) -> Result<PathBuf> {
    let mut path = segment.with_extension(format!("klog.damaged-{offset}"));
    let taken = dir.disk().list(dir.path()).at("list", dir.path())?;
    let mut number = 1;
    while taken.contains(&path) {
        number += 1;
        path = segment.with_extension(format!("klog.damaged-{offset}-{number}"));
    }
    Ok(path)
}

fn read_range(dir: &LogDirectory, path: &Path, from: u64, upto: Option<u64>) -> Result<Vec<u8>> {
    let file = dir.open(path, OpenMode::Read)?;
    let length = file.length().at("inspect", path)?;
    let end = upto.map_or(length, |upto| upto.min(length));
    let mut bytes = Vec::new();
    let mut at = from;
    while at < end {
        let count = usize::try_from(end - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let mut piece = vec![0; count];
        let filled = file.read_full_at(&mut piece, at).at("read", path)?;
        if filled == 0 {
            break;
        }
        bytes.extend(piece.drain(..filled));
        at += filled as u64;
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
