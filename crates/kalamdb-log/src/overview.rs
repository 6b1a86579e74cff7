//! What each segment holds, told by its footer where it has one, else by its frames.

use std::io::ErrorKind;
use std::path::PathBuf;

use log_format::{SegmentFooter, Seq};

use crate::disk::LogDirectory;
use crate::error::{Error, Result};
use crate::segment::{SegmentPath, SegmentReader, Step};
use crate::summary::Summary;

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOverview {
    /// The file.
    pub path: PathBuf,
    /// The seq its first event has, as its name says.
    pub base_seq: Seq,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether another segment follows, so that nothing is written to this one any more.
    pub is_sealed: bool,
    /// Whether it has a footer that is whole.
    pub has_footer: bool,
    /// What its frames hold, in the words of a footer; none where there are none yet. Partitions are told by a footer
    /// alone.
    pub content: Option<SegmentFooter>,
}

/// The segments in a log's directory, in order. A segment without a footer is read from its beginning to its end.
///
/// # Errors
/// Those of reading; damage in the middle of a segment is not looked for and ends what is told of it.
pub fn segment_overviews(dir: impl Into<LogDirectory>) -> Result<Vec<SegmentOverview>> {
    let dir = dir.into();
    let segments = dir.segments()?;
    let last = segments.last().map(|last| last.base_seq);
    let mut overviews = Vec::with_capacity(segments.len());
    for segment in segments {
        let is_sealed = Some(segment.base_seq) != last;
        match overview(&dir, &segment, is_sealed) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            told => overviews.push(told?),
        }
    }
    Ok(overviews)
}

fn overview(dir: &LogDirectory, segment: &SegmentPath, is_sealed: bool) -> Result<SegmentOverview> {
    let SegmentPath { base_seq, path } = segment.clone();
    let empty = SegmentOverview { path, base_seq, bytes: 0, is_sealed, has_footer: false, content: None };
    let Some(mut reader) = SegmentReader::open_if_made(dir, segment)? else { return Ok(empty) };
    let bytes = reader.file_bytes()?;
    let footer = reader.footer()?;
    let has_footer = footer.is_some();
    let content = if has_footer { footer } else { read(&mut reader)? };
    Ok(SegmentOverview { bytes, has_footer, content, ..empty })
}

/// The footer that a segment's frames would have, but for its partitions.
fn read(reader: &mut SegmentReader) -> Result<Option<SegmentFooter>> {
    let mut summary = Summary::new(reader.base());
    while let Step::Frame(frame) = reader.step()? {
        summary.add(frame.header());
    }
    Ok(summary.footer().map(|footer| SegmentFooter { partitions: None, ..footer }))
}
