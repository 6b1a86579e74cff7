//! Segment files: which there are, and reading one frame after another from one of them.
//!
//! Reads go in large pieces into aligned memory; frames are slices of it, nothing is copied. Every frame's checksum and
//! offset table are checked. What a bad frame means, a torn write or rot or one that is being written right now, is for
//! the caller to say.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_format::{
    Bytes, FOOTER_TAIL_BYTES, FRAME_HEADER_BYTES, Frame, FrameBuffer, FrameHeader, SEGMENT_HEADER_BYTES,
    SegmentFooter, SegmentHeader, Seq,
};

use crate::disk::{DiskFile, LogDirectory, OpenMode};
use crate::error::{At, Error, Flaw, Result};
use crate::recovery::has_torn_head;

const READ_BYTES: usize = 256 << 10;

/// A segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPath {
    /// The seq its first event has, as its name says.
    pub base_seq: Seq,
    /// The file.
    pub path: PathBuf,
}

/// The segments in a log's directory, in order; none where there is no directory.
pub fn list_segments(dir: impl Into<LogDirectory>) -> Result<Vec<SegmentPath>> {
    dir.into().segments()
}

impl LogDirectory {
    /// See [`list_segments`].
    pub(crate) fn segments(&self) -> Result<Vec<SegmentPath>> {
        let paths = match self.disk().list(self.path()) {
            Ok(paths) => paths,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).at("list", self.path()),
        };
        let base = |path: &Path| -> Option<u64> {
            let digits = path.file_name()?.to_str()?.strip_suffix(".klog")?;
            (digits.len() == 20).then(|| digits.parse().ok())?
        };
        let mut segments: Vec<_> = paths
            .into_iter()
            .filter_map(|path| Some(SegmentPath { base_seq: Seq::new(base(&path)?), path }))
            .collect();
        segments.sort_by_key(|segment| segment.base_seq);
        Ok(segments)
    }
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(crate) enum Step {
    /// A frame.
    Frame(Frame),
    /// Zeros, or the end of the file.
    End,
    /// What begins as a footer does.
    Footer,
    /// Neither.
    Bad(log_format::Error),
}

/// Reads one segment, frame after frame.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: Arc<dyn DiskFile>,
    segment: SegmentPath,
    header: SegmentHeader,
    position: u64,
    buffer: Bytes,
    buffer_at: u64,
    /// What [`SegmentReader::step_over`] read last: nobody else has a part of it, so it is used again.
    scratch: FrameBuffer,
    scratch_at: u64,
}

impl SegmentReader {
    /// Opens a segment at its first frame. A head that cannot be read is [`Error::Head`].
    pub(crate) fn open(dir: &LogDirectory, segment: SegmentPath) -> Result<Self> {
        let file = dir.open(&segment.path, OpenMode::Read)?;
        let head = read_at(&*file, 0, SEGMENT_HEADER_BYTES).at("read", &segment.path)?;
        let header = SegmentHeader::parse(&head)
            .map_err(|source| Error::Head { segment: segment.path.clone(), source })?;
        if header.base_seq != segment.base_seq {
            return Err(Error::RenamedSegment { segment: segment.path, base_seq: header.base_seq });
        }
        Ok(Self::over(file, segment, header))
    }

    fn over(file: Arc<dyn DiskFile>, segment: SegmentPath, header: SegmentHeader) -> Self {
        let position = SEGMENT_HEADER_BYTES as u64;
        let (buffer, scratch) = (Bytes::new(), FrameBuffer::new());
        Self { file, segment, header, position, buffer, buffer_at: position, scratch, scratch_at: position }
    }

    /// Opens a segment; none where it is just being made, or a crash left it so.
    pub(crate) fn open_if_made(dir: &LogDirectory, segment: &SegmentPath) -> Result<Option<Self>> {
        match Self::open(dir, segment.clone()) {
            Err(Error::Head { .. }) => {
                let is_being_made = has_torn_head(dir, &segment.path)?;
                // Its head may have come to be in between.
                if is_being_made { Ok(None) } else { Self::open(dir, segment.clone()).map(Some) }
            }
            opened => opened.map(Some),
        }
    }

    /// Opens a segment whatever its head says.
    pub(crate) fn open_without_head(
        dir: &LogDirectory,
        segment: SegmentPath,
        header: SegmentHeader,
    ) -> Result<Self> {
        let file = dir.open(&segment.path, OpenMode::Read)?;
        Ok(Self::over(file, segment, header))
    }

    pub(crate) const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    pub(crate) const fn base(&self) -> Seq {
        self.segment.base_seq
    }

    pub(crate) fn path(&self) -> &Path {
        &self.segment.path
    }

    /// Where the next frame is looked for.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Goes to another place, where a frame must begin.
    pub(crate) const fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        self.file.length().at("inspect", self.path())
    }

    /// Whether the file has no name any more: retention, or a writer that removed it because it held nothing.
    pub(crate) fn is_removed(&self) -> Result<bool> {
        self.file.is_removed().at("inspect", self.path())
    }

    /// Damage at a place of this segment.
    pub(crate) fn rot(&self, offset: u64, flaw: impl Into<Flaw>) -> Error {
        Error::Rot { segment: self.path().to_owned(), offset, flaw: flaw.into() }
    }

    /// What stands at the position; goes behind it if that is a frame. Whatever is not a whole frame in the buffer is
    /// read from the file again, so the answer is never older than the call.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let step = match self.buffered() {
            Some(frame) => Step::Frame(frame),
            None => self.read()?,
        };
        if let Step::Frame(frame) = &step {
            self.position += u64::from(frame.header().length);
        }
        Ok(step)
    }

    /// The head of the frame at the position, and on behind it, for whoever wants no more of it: that costs less than
    /// [`SegmentReader::step`], which says what stands there where it is no frame.
    #[inline]
    pub(crate) fn step_over(&mut self) -> Result<Option<FrameHeader>> {
        let header = match self.check_scratch() {
            Some(header) => Some(header),
            None => self.check_next_scratch()?,
        };
        if let Some(header) = &header {
            self.position += u64::from(header.length);
        }
        Ok(header)
    }

    #[cold]
    fn check_next_scratch(&mut self) -> Result<Option<FrameHeader>> {
        self.fill_scratch(READ_BYTES)?;
        let mut header = self.check_scratch();
        if header.is_none()
            && let Ok(found) = FrameHeader::parse(&self.scratch)
            && found.length as usize > self.scratch.len()
        {
            self.fill_scratch(found.length as usize)?;
            header = self.check_scratch();
        }
        Ok(header)
    }

    #[inline]
    fn check_scratch(&self) -> Option<FrameHeader> {
        let start = usize::try_from(self.position.checked_sub(self.scratch_at)?).ok()?;
        Frame::check(self.scratch.get(start..)?).ok()
    }

    /// Reads on from the position, into the same memory again.
    fn fill_scratch(&mut self, count: usize) -> Result<()> {
        self.scratch.resize(count.max(READ_BYTES), 0);
        let filled =
            self.file.read_full_at(&mut self.scratch, self.position).at("read", &self.segment.path)?;
        self.scratch.resize(filled, 0);
        self.scratch_at = self.position;
        Ok(())
    }

    fn buffered(&self) -> Option<Frame> {
        let start = usize::try_from(self.position.checked_sub(self.buffer_at)?).ok()?;
        let rest = start..self.buffer.len();
        (rest.len() > FRAME_HEADER_BYTES).then(|| Frame::parse(&self.buffer.slice(rest)).ok())?
    }

    fn read(&mut self) -> Result<Step> {
        self.buffer = Bytes::new();
        let head = read_at(&*self.file, self.position, FRAME_HEADER_BYTES).at("read", self.path())?;
        if head.iter().all(|byte| *byte == 0) {
            return Ok(Step::End);
        }
        if SegmentFooter::begins(&head) {
            return Ok(Step::Footer);
        }
        let length = match FrameHeader::parse(&head) {
            Ok(header) => header.length as usize,
            Err(error) => return Ok(Step::Bad(error)),
        };
        // A head may claim 64 MiB where there are a few bytes: no more memory is taken than the file can fill.
        let there = self.file_bytes()?.saturating_sub(self.position);
        let there = usize::try_from(there).unwrap_or(usize::MAX);
        let bytes = self.bytes_at(self.position, length.max(READ_BYTES).min(there))?;
        self.buffer = Bytes::from_owner(bytes);
        self.buffer_at = self.position;
        Ok(Frame::parse(&self.buffer).map_or_else(Step::Bad, Step::Frame))
    }

    /// The segment's footer; none where there is none that is whole.
    pub(crate) fn footer(&self) -> Result<Option<SegmentFooter>> {
        let bytes = self.file_bytes()?;
        let tail_at = bytes.saturating_sub(FOOTER_TAIL_BYTES as u64);
        let tail = self.bytes_at(tail_at, FOOTER_TAIL_BYTES)?;
        let Some(length) = SegmentFooter::length(&tail) else { return Ok(None) };
        let Some(start) = bytes.checked_sub(length as u64) else { return Ok(None) };
        let footer = SegmentFooter::parse(&self.bytes_at(start, length)?).ok();
        Ok(footer.filter(|footer| footer.base_seq == self.base() && footer.end == start))
    }

    /// Up to `count` bytes at `offset`; fewer only at the end of the file.
    pub(crate) fn bytes_at(&self, offset: u64, count: usize) -> Result<FrameBuffer> {
        // Where the file ends sooner, the rest of a large buffer would be filled for nothing.
        let left = self.file_bytes()?.saturating_sub(offset);
        let count = usize::try_from(left).map_or(count, |left| left.min(count));
        read_at(&*self.file, offset, count).at("read", self.path())
    }

    /// Whether nothing but zeros stands from the position on.
    pub(crate) fn only_zeros_behind(&self) -> Result<bool> {
        let mut at = self.position;
        loop {
            let bytes = self.bytes_at(at, READ_BYTES)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
    }
}

fn read_at(file: &dyn DiskFile, offset: u64, count: usize) -> std::io::Result<FrameBuffer> {
    let mut buffer = FrameBuffer::new();
    buffer.resize(count, 0);
    let filled = file.read_full_at(&mut buffer, offset)?;
    buffer.resize(filled, 0);
    Ok(buffer)
}
