//! The segment that is written to: its file, where its frames end, and the zeros written ahead of them.
//!
//! Zeros ahead are worth their writing where small commits are synced one by one: a sync into space that is already
//! there need not record a new file length. They are cut off when the segment is sealed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_format::{DatabaseId, SEGMENT_HEADER_BYTES, SegmentHeader, Seq, segment_file_name};

use crate::error::{At, Result};
use crate::lock::sync_directory;
use crate::segment::SegmentPath;

/// The most zeros ever written ahead at once.
pub(crate) const ZEROS_BYTES_MAX: usize = 4 << 20;

/// What is done to a segment's file; tests put a failing disk behind it.
pub(crate) trait SegmentFile: std::fmt::Debug + Send + Sync {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()>;
    fn sync(&self) -> std::io::Result<()>;
    fn truncate(&self, length: u64) -> std::io::Result<()>;
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> std::io::Result<()> {
        self.set_len(length)
    }
}

/// The segment at the log's end.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    file: Arc<dyn SegmentFile>,

    path: PathBuf,
    base: Seq,
    end: u64,
    allocated: u64,
    zeros: Vec<u8>,
}

impl ActiveSegment {
    /// Makes a segment, durable before it returns.
    pub(crate) fn create(
        dir: &Path,
        database: DatabaseId,
        epoch: u32,
        base: Seq,
        preallocate: usize,
    ) -> Result<Self> {
        let path = dir.join(segment_file_name(base));
        let header = SegmentHeader { database, epoch, base_seq: base };
        let file = OpenOptions::new().write(true).create_new(true).open(&path).at("create", &path)?;
        file.write_all_at(&header.encode(), 0).at("write", &path)?;
        file.sync_all().at("sync", &path)?;
        sync_directory(dir)?;
        Ok(Self::over(file, SegmentPath { base_seq: base, path }, SEGMENT_HEADER_BYTES as u64, preallocate))
    }

    /// Goes on with a segment whose frames end at `end`; what is behind is cut off, durably.
    pub(crate) fn reopen(segment: SegmentPath, end: u64, preallocate: usize) -> Result<Self> {
        let file = OpenOptions::new().write(true).open(&segment.path).at("open", &segment.path)?;
        file.set_len(end).at("truncate", &segment.path)?;
        file.sync_all().at("sync", &segment.path)?;
        Ok(Self::over(file, segment, end, preallocate))
    }

    fn over(file: File, segment: SegmentPath, end: u64, preallocate: usize) -> Self {
        Self {
            file: Arc::new(file),
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

    pub(crate) const fn file(&self) -> &Arc<dyn SegmentFile> {
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
            self.file.write_at(&self.zeros, self.allocated).at("write", &self.path)?;
            self.allocated += self.zeros.len() as u64;
        }
        self.file.write_at(bytes, self.end).at("write", &self.path)?;
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

    #[cfg(test)]
    pub(crate) fn put_file(&mut self, file: Arc<dyn SegmentFile>) {
        self.file = file;
    }
}
