//! One writer per directory: a file that is locked as long as the writer lives. The lock goes with the process,
//! however it ends, so there is nothing to clean up.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{At, Error, Result};

const FILE_NAME: &str = "LOCK";

/// Holds the directory.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
        }
    }
}

/// Makes names created, renamed or removed in `dir` durable.
pub(crate) fn sync_directory(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|handle| handle.sync_all()).at("sync", dir)
}
