//! What stands behind a bad frame: the evidence that tells a torn write from rot.
//!
//! Bytes behind the log's end are zeros or missing before they are written, so a write that the disk did only in part
//! leaves whole sectors of zeros, while a flipped bit or a stray write leaves a frame that is wrong but complete.

use log_format::{FRAME_HEADER_BYTES, FrameHeader, Seq};

use crate::error::Result;
use crate::segment::{SegmentReader, Step};

const STEP_BYTES: usize = 16;
const SECTOR_BYTES: usize = 512;
const WINDOW_BYTES: usize = 1 << 20;

/// Frames found behind a bad one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survivors {
    /// How many.
    pub(crate) frames: u64,
    /// The last seq one of them says was durable when it was written.
    pub(crate) durable: Seq,
    /// Whether bytes before the first of them were never written.
    pub(crate) hole: bool,
}

/// Looks for frames behind the bad one at `bad_at`, where `expected` should begin, up to the end of the file. The
/// reader's position is left at the bad frame.
pub(crate) fn find(segment: &mut SegmentReader, bad_at: u64, expected: Seq) -> Result<Survivors> {
    let mut found = Survivors::default();
    let mut from = bad_at + STEP_BYTES as u64;
    while let Some(at) = next_candidate(segment, from, expected)? {
        segment.go_to(at);
        while let Step::Frame(frame) = segment.step()? {
            if found.frames == 0 {
                found.hole = has_hole(segment, bad_at, at)?;
            }
            found.frames += 1;
            found.durable = found.durable.max(frame.header().fields.durable_seq);
        }
        from = segment.position().max(at + STEP_BYTES as u64);
    }
    segment.go_to(bad_at);
    Ok(found)
}

/// Where the next whole frame begins, at `from` or behind it, whose first seq is `least` or above.
pub(crate) fn next_frame(segment: &mut SegmentReader, from: u64, least: Seq) -> Result<Option<u64>> {
    let mut from = from.next_multiple_of(STEP_BYTES as u64);
    while let Some(at) = next_candidate(segment, from, least.previous())? {
        segment.go_to(at);
        if matches!(segment.step()?, Step::Frame(_)) {
            return Ok(Some(at));
        }
        from = at + STEP_BYTES as u64;
    }
    Ok(None)
}

/// The next place at which a frame's head could stand, judged by the head alone.
fn next_candidate(segment: &SegmentReader, from: u64, expected: Seq) -> Result<Option<u64>> {
    let end = segment.file_bytes()?;
    let mut window_at = from;
    loop {
        let window = segment.bytes_at(window_at, WINDOW_BYTES + FRAME_HEADER_BYTES)?;
        for (index, head) in window.windows(FRAME_HEADER_BYTES).step_by(STEP_BYTES).enumerate() {
            let at = window_at + (index * STEP_BYTES) as u64;
            if FrameHeader::parse(head)
                .is_ok_and(|header| plausible(&header, end.saturating_sub(at), expected))
            {
                return Ok(Some(at));
            }
        }
        if window.len() < WINDOW_BYTES + FRAME_HEADER_BYTES {
            return Ok(None);
        }
        window_at += WINDOW_BYTES as u64;
    }
}

/// It fits into the file and comes after the seq that is missing.
fn plausible(header: &FrameHeader, room: u64, expected: Seq) -> bool {
    let table = u64::from(header.count) * 8 + FRAME_HEADER_BYTES as u64;
    u64::from(header.length) <= room
        && header.count > 0
        && table <= u64::from(header.length)
        && header.fields.first_seq > expected
}

/// Whether a sector between the two places holds only zeros, or the bad frame's beginning does.
fn has_hole(segment: &SegmentReader, bad_at: u64, survivor_at: u64) -> Result<bool> {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if is_zero(&segment.bytes_at(bad_at, STEP_BYTES)?) {
        return Ok(true);
    }
    let sector = SECTOR_BYTES as u64;
    let mut at = bad_at.next_multiple_of(sector);
    while at + sector <= survivor_at {
        let within = usize::try_from(survivor_at - at).unwrap_or(usize::MAX);
        let bytes = segment.bytes_at(at, WINDOW_BYTES.min(within / SECTOR_BYTES * SECTOR_BYTES))?;
        if bytes.is_empty() || bytes.chunks(SECTOR_BYTES).any(is_zero) {
            return Ok(!bytes.is_empty());
        }
        at += bytes.len() as u64;
    }
    Ok(false)
}
