//! The segment that is written to: its file, where its frames end, and the zeros written ahead of them.
//!
//! Zeros ahead are worth their writing where small commits are synced one by one: a sync into space that is already
//! there need not record a new file length. They are cut off when the segment is sealed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_format::{DatabaseId, SEGMENT_HEADER_BYTES, SegmentHeader, Seq, segment_file_name};

use crate::disk::{DiskFile, LogDirectory, OpenMode};
use crate::error::{At, Result};
use crate::segment::SegmentPath;

/// The most zeros ever written ahead at once.
pub(crate) const ZEROS_BYTES_MAX: usize = 4 << 20;

const REWRITE_BYTES: usize = 1 << 20;

/// The segment at the log's end.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    base: Seq,
    end: u64,
    allocated: u64,
    zeros: Vec<u8>,
}

impl ActiveSegment {
    /// Makes a segment, durable before it returns.
    pub(crate) fn create(
        dir: &LogDirectory,
        database: DatabaseId,
        epoch: u32,
        base: Seq,
        preallocate: usize,
    ) -> Result<Self> {
        let path = dir.path().join(segment_file_name(base));
        let header = SegmentHeader { database, epoch, base_seq: base };
        let file = dir.open(&path, OpenMode::New)?;
        file.write_all_at(&header.encode(), 0).at("write", &path)?;
        file.sync().at("sync", &path)?;
        dir.sync()?;
        Ok(Self::over(file, SegmentPath { base_seq: base, path }, SEGMENT_HEADER_BYTES as u64, preallocate))
    }

    /// Goes on with a segment whose frames end at `end`; what is behind is cut off, durably.
    ///
    /// IMPORTANT: what is not known to be durable, from `unsure_from` on, is written again before the sync. After a sync
    /// that failed, the operating system may hold pages as clean that the disk never got; the next sync succeeds without
    /// them.
    pub(crate) fn reopen(
        dir: &LogDirectory,
        segment: SegmentPath,
        unsure_from: u64,
        end: u64,
        preallocate: usize,
    ) -> Result<Self> {
        let path = &segment.path;
        let file = dir.open(path, OpenMode::Write)?;
        file.truncate(end).at("truncate", path)?;
        let mut at = unsure_from;
        let mut buffer = vec![0; REWRITE_BYTES];
        while at < end {
            let count = usize::try_from(end - at).map_or(REWRITE_BYTES, |left| left.min(REWRITE_BYTES));
            buffer.truncate(count);
            let filled = file.read_full_at(&mut buffer, at).at("read", path)?;
            buffer.truncate(filled);
            if filled == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).at("read", path);
            }
            file.write_all_at(&buffer, at).at("write", path)?;
            at += filled as u64;
            buffer.resize(REWRITE_BYTES, 0);
        }
        file.sync().at("sync", path)?;
        Ok(Self::over(file, segment, end, preallocate))
    }

    fn over(file: Arc<dyn DiskFile>, segment: SegmentPath, end: u64, preallocate: usize) -> Self {
        Self {
            file,
            path: segment.path,
            base: segment.base_seq,
            end,
            allocated: end,
            zeros: vec![0; preallocate.min(ZEROS_BYTES_MAX)],
        }
    }

    pub(crate) const fn base(&self) -> Seq {
        self.base
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next frame goes.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) const fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Whether it holds a frame.
    pub(crate) const fn has_frames(&self) -> bool {
        self.end > SEGMENT_HEADER_BYTES as u64
    }

    /// Writes frames behind the last one.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.end + bytes.len() as u64;
        // Large groups gain nothing: there the length is recorded once for many commits.
        if end > self.allocated && bytes.len() <= self.zeros.len() / 4 {
            self.file.write_all_at(&self.zeros, self.allocated).at("write", &self.path)?;
            self.allocated += self.zeros.len() as u64;
        }
        self.file.write_all_at(bytes, self.end).at("write", &self.path)?;
        self.end = end;
        self.allocated = self.allocated.max(end);
        Ok(())
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().at("sync", &self.path)
    }

    /// Cuts the zeros off and makes everything durable.
    pub(crate) fn seal(&mut self) -> Result<()> {
        if self.allocated > self.end {
            self.file.truncate(self.end).at("truncate", &self.path)?;
            self.allocated = self.end;
        }
        self.sync()
    }
}
