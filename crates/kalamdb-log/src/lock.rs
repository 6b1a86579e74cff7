//! One writer per directory: a file that is locked as long as the writer lives.

use std::io::ErrorKind;

use crate::disk::{DiskLock, LogDirectory};
use crate::error::{At, Error, Result};

const FILE_NAME: &str = "LOCK";

/// Holds the directory.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _lock: Box<dyn DiskLock>,
}

impl DirectoryLock {
    pub(crate) fn take(dir: &LogDirectory) -> Result<Self> {
        let path = dir.path().join(FILE_NAME);
        match dir.disk().lock(&path) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Error::Locked { dir: dir.path().to_owned() })
            }
            Err(error) => Err(error).at("lock", &path),
        }
    }
}
