//! Letting go of the oldest segments, whole ones only.
//!
//! Segments go oldest first, each durably before the next: whatever happens in between, what is left has no hole.

use std::time::Duration;

use log_format::Seq;

use crate::disk::{LogDirectory, OpenMode};
use crate::error::{At, Result};
use crate::segment::{SegmentPath, SegmentReader, Step};

/// How much of a log is kept. With neither limit, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments go whose last commit is older than this.
    pub age: Option<Duration>,
    /// The oldest segments go while all together have more bytes.
    pub bytes: Option<u64>,
}

/// A segment that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its file, which is gone.
    pub segment: SegmentPath,
    /// Bytes it had.
    pub bytes: u64,
    /// The first seq that is there now.
    pub floor: Seq,
}

/// Removes segments that the limits want gone, never one with a seq at `keep_from` or behind it, nor the last one. The
/// caller is, or speaks for, the log's writer.
///
/// # Errors
/// Those of the disk. Segments that were removed until then are gone.
pub fn drop_segments(
    dir: impl Into<LogDirectory>,
    retention: &Retention,
    keep_from: Seq,
    now_micros: i64,
) -> Result<Vec<Dropped>> {
    let dir = dir.into();
    let mut sized = Vec::new();
    for segment in dir.segments()? {
        let file = dir.open(&segment.path, OpenMode::Read)?;
        let bytes = file.length().at("inspect", &segment.path)?;
        sized.push((segment, bytes));
    }
    let mut total: u64 = sized.iter().map(|(_, bytes)| bytes).sum();
    let mut dropped = Vec::new();
    for (index, (segment, bytes)) in sized.iter().enumerate() {
        let Some((next, _)) = sized.get(index + 1) else { break };
        if next.base_seq > keep_from {
            break;
        }
        let is_over = retention.bytes.is_some_and(|limit| total > limit);
        if !is_over && !is_too_old(&dir, segment, next, retention, now_micros)? {
            break;
        }
        dir.remove(&segment.path)?;
        // IMPORTANT: one at a time. Names that go together may come back one by one after a power loss.
        dir.sync()?;
        total -= bytes;
        tracing::info!(segment = %segment.path.display(), bytes, floor = %next.base_seq, "let go of a segment");
        dropped.push(Dropped { segment: segment.clone(), bytes: *bytes, floor: next.base_seq });
    }
    Ok(dropped)
}

fn is_too_old(
    dir: &LogDirectory,
    segment: &SegmentPath,
    next: &SegmentPath,
    retention: &Retention,
    now_micros: i64,
) -> Result<bool> {
    let Some(age) = retention.age else { return Ok(false) };
    let footer = SegmentReader::open(dir, segment.clone())?.footer()?;
    let last_time = match footer {
        Some(footer) => footer.last_time,
        // The commit behind its last one is not older.
        None => match SegmentReader::open(dir, next.clone())?.step()? {
            Step::Frame(frame) => frame.header().fields.commit_time,
            _ => return Ok(false),
        },
    };
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    Ok(last_time < now_micros.saturating_sub(age))
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
