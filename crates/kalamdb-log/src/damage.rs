//! Looking through a whole log for the first place that is damaged, judged as opening and reading it would.

use log_format::{DatabaseId, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Seq};

use crate::disk::LogDirectory;
use crate::error::{Error, Flaw, Result};
use crate::marker::CleanMarker;
use crate::recovery::{check_link, has_torn_head, is_torn};
use crate::segment::{SegmentPath, SegmentReader, Step};
use crate::survivors;

/// The first damaged place of a log, and what is known of the log there.
#[derive(Debug)]
pub(crate) struct FoundDamage {
    pub(crate) segments: Vec<SegmentPath>,
    /// Which of them is damaged.
    pub(crate) index: usize,
    /// From where on; 0 where its head is.
    pub(crate) offset: u64,
    /// What is wrong.
    pub(crate) problem: String,
    /// The last frame before.
    pub(crate) last: Option<FrameHeader>,
    /// The seq that should come.
    pub(crate) expected: Seq,
    /// What the clean mark says.
    pub(crate) closed_at: Option<Seq>,
    pub(crate) database: Option<DatabaseId>,
}

impl FoundDamage {
    /// A segment's reader even where its head cannot be read.
    pub(crate) fn reader(&self, dir: &LogDirectory, segment: &SegmentPath) -> Result<SegmentReader> {
        match SegmentReader::open(dir, segment.clone()) {
            Err(Error::Head { .. } | Error::RenamedSegment { .. }) => {
                let header = SegmentHeader {
                    database: self.database.unwrap_or(DatabaseId::new([0; 16])),
                    epoch: 0,
                    base_seq: segment.base_seq,
                    after_hole: false,
                };
                SegmentReader::open_without_head(dir, segment.clone(), header)
            }
            reader => reader,
        }
    }
}

/// What was read so far.
struct Walk {
    last: Option<FrameHeader>,
    durable: Seq,
    database: Option<DatabaseId>,
}

/// The first damage; none where the log can be opened and read.
pub(crate) fn find(dir: &LogDirectory) -> Result<Option<FoundDamage>> {
    let marker = CleanMarker::read(dir)?;
    let segments = dir.segments()?;
    let closed_at = marker.map(|marker| marker.end);
    let mut walk = Walk { last: None, durable: closed_at.unwrap_or_default(), database: None };
    let mut bad = None;
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1);
        if let Some((offset, problem)) = look_through(dir, segment, next, closed_at, &mut walk)? {
            bad = Some((index, offset, problem));
            break;
        }
    }
    let end = walk.last.map_or(Seq::ZERO, |last| last.last_seq());
    if bad.is_none() && closed_at.is_some_and(|closed_at| closed_at > end) {
        let Some(index) = segments.len().checked_sub(1) else { return Ok(None) };
        let offset = match segments.get(index).map(|segment| SegmentReader::open(dir, segment.clone())) {
            Some(Ok(mut reader)) => {
                while matches!(reader.step()?, Step::Frame(_)) {}
                reader.position()
            }
            _ => 0,
        };
        bad = Some((index, offset, "the log once was longer".to_owned()));
    }
    let Some((index, offset, problem)) = bad else { return Ok(None) };
    let base = segments.get(index).map_or(Seq::ZERO, |segment| segment.base_seq);
    let expected = walk.last.map_or(base, |last| last.last_seq().next());
    let Walk { last, database, .. } = walk;
    Ok(Some(FoundDamage { segments, index, offset, problem, last, expected, closed_at, database }))
}

/// Reads one segment; gives where it is damaged and how.
fn look_through(
    dir: &LogDirectory,
    segment: &SegmentPath,
    next: Option<&SegmentPath>,
    closed_at: Option<Seq>,
    walk: &mut Walk,
) -> Result<Option<(u64, String)>> {
    let mut reader = match SegmentReader::open(dir, segment.clone()) {
        Err(Error::Head { .. })
            if next.is_none()
                && closed_at.is_none_or(|closed_at| closed_at < segment.base_seq)
                && has_torn_head(dir, &segment.path)? =>
        {
            return Ok(None);
        }
        Err(error @ (Error::Head { .. } | Error::RenamedSegment { .. })) => {
            return Ok(Some((0, error.to_string())));
        }
        reader => reader?,
    };
    let header = *reader.header();
    let expected_database = *walk.database.get_or_insert(header.database);
    if expected_database != header.database {
        let (path, found) = (segment.path.clone(), header.database);
        return Err(Error::ForeignSegment { segment: path, expected: expected_database, found });
    }
    loop {
        let offset = reader.position();
        let flaw = match reader.step()? {
            Step::Frame(frame) => {
                if let Err(error) = check_link(&reader, offset, walk.last.as_ref(), frame.header()) {
                    return Ok(Some((offset, error.to_string())));
                }
                walk.durable = walk.durable.max(frame.header().fields.durable_seq);
                walk.last = Some(*frame.header());
                continue;
            }
            Step::Footer => return Ok(None),
            Step::End if reader.only_zeros_behind()? => {
                let is_empty = offset == SEGMENT_HEADER_BYTES as u64 && next.is_some();
                return Ok(is_empty.then(|| (offset, Flaw::Behind.to_string())));
            }
            Step::End => Flaw::Behind,
            Step::Bad(flaw) => Flaw::from(flaw),
        };
        let expected = walk.last.map_or(reader.base(), |last| last.last_seq().next());
        let behind = survivors::find(&mut reader, offset, expected)?;
        let is_harmless = match next {
            None => is_torn(expected, walk.durable, &behind),
            Some(next) => behind.frames == 0 && is_followed(dir, walk.last.as_ref(), next)?,
        };
        return Ok((!is_harmless).then(|| (offset, flaw.to_string())));
    }
}

/// Whether a segment begins right behind the last frame, so that a damaged footer stands between them.
fn is_followed(dir: &LogDirectory, last: Option<&FrameHeader>, next: &SegmentPath) -> Result<bool> {
    let Some(last) = last else { return Ok(false) };
    if next.base_seq == last.last_seq().next() {
        return Ok(true);
    }
    let Ok(mut reader) = SegmentReader::open(dir, next.clone()) else { return Ok(false) };
    Ok(matches!(reader.step()?, Step::Frame(frame) if frame.header().fields.previous_crc == last.crc))
}
