//! The segment that is written to: its file, where its frames end, and the zeros written ahead of them.
//!
//! Room is made before anything is written into it: a disk that is full is noticed where nothing but zeros can have been
//! written, so no part of a commit is ever there that was refused for lack of space.
//!
//! Zeros ahead are worth their writing where small commits are synced one by one: a sync into space that is already
//! there need not record a new file length. They are cut off when the segment is sealed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_format::{DatabaseId, SEGMENT_HEADER_BYTES, SegmentHeader, Seq, segment_file_name};

use crate::disk::{DiskFile, LogDirectory, OpenMode};
use crate::error::{At, RESERVE, Result};
use crate::segment::SegmentPath;

/// The most zeros ever written ahead at once.
pub(crate) const ZEROS_BYTES_MAX: usize = 4 << 20;

const REWRITE_BYTES: usize = 1 << 20;

/// How much room there must be after a full disk.
const RECOVER_BYTES: u64 = 1 << 20;

/// How room is made ahead of the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// Zeros written at once; 0 where nobody waits for syncs.
    pub(crate) zeros: usize,
    /// Bytes reserved at once where no zeros are written; 0 for what is needed alone.
    pub(crate) reserve: u64,
}

/// The segment at the log's end.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    base: Seq,
    end: u64,
    allocated: u64,
    zeros: Vec<u8>,
    ahead: Ahead,
    /// Nothing is appended any more.
    is_sealed: bool,
}

impl ActiveSegment {
    /// Makes a segment, durable before it returns. Where the disk is full, none is there afterwards.
    pub(crate) fn create(
        dir: &LogDirectory,
        database: DatabaseId,
        epoch: u32,
        base: Seq,
        ahead: Ahead,
    ) -> Result<Self> {
        let path = dir.path().join(segment_file_name(base));
        let header = SegmentHeader { database, epoch, base_seq: base, after_hole: false };
        let file = dir.open(&path, OpenMode::New)?;
        if let Err(error) = file.reserve(0, SEGMENT_HEADER_BYTES as u64).at(RESERVE, &path) {
            dir.remove(&path)?;
            dir.sync()?;
            return Err(error);
        }
        file.write_all_at(&header.encode(), 0).at("write", &path)?;
        file.sync().at("sync", &path)?;
        dir.sync()?;
        Ok(Self::over(file, SegmentPath { base_seq: base, path }, SEGMENT_HEADER_BYTES as u64, ahead))
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
        ahead: Ahead,
    ) -> Result<Self> {
        let path = &segment.path;
        let file = dir.open(path, OpenMode::Write)?;
        file.truncate(end).at("truncate", path)?;
        let mut at = unsure_from;
        while at < end {
            let count = usize::try_from(end - at).map_or(REWRITE_BYTES, |left| left.min(REWRITE_BYTES));
            let mut buffer = vec![0; count];
            if file.read_full_at(&mut buffer, at).at("read", path)? < count {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).at("read", path);
            }
            file.write_all_at(&buffer, at).at("write", path)?;
            at += count as u64;
        }
        file.sync().at("sync", path)?;
        Ok(Self::over(file, segment, end, ahead))
    }

    fn over(file: Arc<dyn DiskFile>, segment: SegmentPath, end: u64, ahead: Ahead) -> Self {
        Self {
            file,
            path: segment.path,
            base: segment.base_seq,
            end,
            allocated: end,
            zeros: vec![0; ahead.zeros.min(ZEROS_BYTES_MAX)],
            ahead,
            is_sealed: false,
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

    /// Whether it takes nothing more.
    pub(crate) const fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Makes room for that many bytes behind the last frame, and some more where that is worth it.
    pub(crate) fn make_room(&mut self, bytes: u64) -> Result<()> {
        let end = self.end + bytes;
        if end <= self.allocated {
            return Ok(());
        }
        // Large groups gain nothing by zeros: there the length is recorded once for many commits.
        let zeros = self.zeros.len() as u64;
        let more = if bytes <= zeros / 4 {
            self.file.write_all_at(&self.zeros, self.allocated).at(RESERVE, &self.path).map(|()| zeros)
        } else {
            let upto = self.ahead.segment_bytes.min(self.allocated + self.ahead.reserve);
            self.reserve(end.max(upto) - self.allocated)
        };
        let more = match more {
            Err(error) if error.is_no_space() => self.reserve(end - self.allocated)?,
            more => more?,
        };
        self.allocated += more;
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<u64> {
        self.file.reserve(self.allocated, bytes).at(RESERVE, &self.path).map(|()| bytes)
    }

    /// Whether there is space again, and enough not to be full with the next commit.
    pub(crate) fn probe_room(&mut self) -> Result<()> {
        self.allocated += self.reserve(RECOVER_BYTES.min(self.ahead.segment_bytes))?;
        Ok(())
    }

    /// Writes frames behind the last one, where there is room for them.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.end).at("write", &self.path)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn put_footer(&self, footer: &[u8]) -> Result<()> {
        match self.file.reserve(self.end, footer.len() as u64).at(RESERVE, &self.path) {
            Ok(()) => self.file.write_all_at(footer, self.end).at("write", &self.path),
            Err(error) if error.is_no_space() => {
                // A part of the room may have been made: a segment without a footer ends with its frames.
                tracing::warn!(%error, "sealed a segment without a footer");
                self.file.truncate(self.end).at("truncate", &self.path)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().at("sync", &self.path)
    }

    /// Cuts the zeros off, puts the footer there if there is space for it, and makes everything durable.
    pub(crate) fn seal(&mut self, footer: &[u8]) -> Result<()> {
        if self.file.length().at("inspect", &self.path)? > self.end {
            self.file.truncate(self.end).at("truncate", &self.path)?;
            self.allocated = self.end;
        }
        if !footer.is_empty() {
            self.put_footer(footer)?;
        }
        self.sync()?;
        self.is_sealed = true;
        Ok(())
    }
}
