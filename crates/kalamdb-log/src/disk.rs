//! Every access to files goes through [`Disk`]: the operating system's ([`RealDisk`]), or a twin in memory that fails on
//! demand ([`crate::simulation::SimulatedDisk`]).
//!
//! What a disk promises is what POSIX does, no more: bytes are durable after `sync` of their file, names after
//! `sync_dir` of their directory, and nothing is in order before. Directories alone are durable once they are made.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::error::{At, CREATE, Result};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// One that is there, for reading.
    Read,
    /// One that is there, for reading and writing.
    Write,
    /// One that must not be there yet, for reading and writing.
    New,
    /// One that is empty afterwards, there before or not, for reading and writing.
    Replace,
}

/// A place that keeps files.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// What stands in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Gives a file another name in the same directory; what had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Who has it open still reads it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and those above it, durably. One that is there is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes durable what names a directory has.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file, made if missing, until the guard is dropped; [`ErrorKind::WouldBlock`] where another one holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads some bytes at `offset`; none at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some bytes at `offset`, at least one.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written durable, the length as well. After a failure nobody knows what is.
    fn sync(&self) -> io::Result<()>;

    /// Makes room for that many bytes at `offset`, where the file ends or zeros stand, so that writing there cannot fail
    /// for lack of it. The file is that long afterwards; what is new in it are zeros. After a failure some of it may be.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Cuts the file off, or fills it up with zeros.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Bytes of the file.
    fn length(&self) -> io::Result<u64>;

    /// Whether the file has no name any more.
    fn is_removed(&self) -> io::Result<bool>;
}

/// Holds a lock for as long as it lives.
pub trait DiskLock: fmt::Debug + Send + Sync {}

impl dyn DiskFile + '_ {
    /// Fills the buffer from `offset` on; tells how far, which is short only at the end of the file.
    pub fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
            match self.read_at(free, offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes all bytes at `offset`. After a failure any beginning of them may be there.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.write_at(rest, offset + written as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All bytes of the file.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length()?).map_err(io::Error::other)?];
        let filled = self.read_full_at(&mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::Write => &mut options,
            OpenMode::New => options.create_new(true),
            OpenMode::Replace => options.create(true).truncate(true),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let Some(parent) = dir.parent() else { return Ok(()) };
        // The one above a relative name is the working directory.
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if !dir.is_dir() {
            if !parent.is_dir() {
                self.create_dir_all(parent)?;
            }
            match fs::create_dir(dir) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
                made => made?,
            }
        }
        self.sync_dir(parent)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(self, FallocateFlags::empty(), offset, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(self, offset, bytes),
                reserved => return Ok(reserved?),
            }
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() == 0)
    }
}

/// Room on a file system that cannot reserve any otherwise.
fn write_zeros(file: &dyn DiskFile, offset: u64, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 64 << 10];
    let (mut at, end) = (offset, offset + bytes);
    while at < end {
        let count = usize::try_from(end - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        let piece = zeros.get(..count).unwrap_or_default();
        file.write_all_at(piece, at)?;
        at += count as u64;
    }
    Ok(())
}

/// The lock goes with the process, however it ends, so there is nothing to clean up.
impl DiskLock for File {}

/// Where a log is: a directory of a disk. A path alone means the operating system's.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl LogDirectory {
    /// A directory of a disk.
    pub fn new(disk: Arc<dyn Disk>, path: impl Into<PathBuf>) -> Self {
        Self { disk, path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Opens a file of it, or any other of the same disk.
    pub(crate) fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        self.disk.open(path, mode).at(if mode == OpenMode::New { CREATE } else { "open" }, path)
    }

    /// The content of a file; none where there is no such file.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.disk.open(path, OpenMode::Read).and_then(|file| file.read_all()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", path),
        }
    }

    /// Makes a file with this content, durable but for its name.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = self.disk.open(path, OpenMode::Replace).at("create", path)?;
        file.write_all_at(bytes, 0).at("write", path)?;
        file.sync().at("sync", path)
    }

    /// Removes a file; tells whether there was one.
    pub(crate) fn remove(&self, path: &Path) -> Result<bool> {
        match self.disk.remove(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).at("remove", path),
        }
    }

    /// Makes names created, renamed or removed durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.disk.sync_dir(&self.path).at("sync", &self.path)
    }
}

impl From<&Path> for LogDirectory {
    fn from(path: &Path) -> Self {
        Self::new(Arc::new(RealDisk), path)
    }
}

impl From<&PathBuf> for LogDirectory {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&Self> for LogDirectory {
    fn from(directory: &Self) -> Self {
        directory.clone()
    }
}
