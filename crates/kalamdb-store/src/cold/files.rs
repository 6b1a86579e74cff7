//! Where cold files are kept: on a local disk here; another place is another [`ObjectStore`].

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use log_format::ColdFile;
use lru::LruCache;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::open::OpenFile;
use crate::error::{Error, Result};

/// The cold files of one database, those that were read lately kept open.
pub struct ColdFiles {
    store: Arc<dyn ObjectStore>,
    /// Where it is a directory of this machine: what was written there is synced by hand.
    directory: Option<PathBuf>,
    bytes_max: usize,
    // Held for a look-up, never while a file is read.
    open: Mutex<Open>,
}

struct Open {
    files: LruCache<String, Arc<OpenFile>>,
    bytes: usize,
}

impl std::fmt::Debug for ColdFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdFiles").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Runs what is to be waited for, with what of a runtime the store of a local disk asks for.
///
/// IMPORTANT: on a thread of its own. Who asks may be a task of another runtime, whose futures may wait for that task to give
/// way, which it does not while it waits here. Files are opened rarely enough for a thread to cost nothing.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    let run = || Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future));
    let done = std::thread::scope(|scope| scope.spawn(run).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(Error::Runtime)
}

impl ColdFiles {
    /// Files below a directory, which is made if it is not there. So many bytes of them are kept in memory.
    pub(crate) fn in_directory(directory: &Path, bytes_max: usize) -> Result<Self> {
        let made = std::fs::create_dir_all(directory)
            .map_err(|source| Error::File { path: directory.to_owned(), source });
        made?;
        if let Some(above) = directory.parent() {
            let synced = File::open(above).and_then(|above| above.sync_all());
            synced.map_err(|source| Error::File { path: above.to_owned(), source })?;
        }
        let store = LocalFileSystem::new_with_prefix(directory)?.with_automatic_cleanup(true);
        let open = Mutex::new(Open { files: LruCache::unbounded(), bytes: 0 });
        Ok(Self { store: Arc::new(store), directory: Some(directory.to_owned()), bytes_max, open })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a file, whole or not at all, and waits until it is durable.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let at = ObjectPath::parse(path)?;
        wait(self.store.put(&at, PutPayload::from_bytes(bytes)))??;
        let Some(directory) = &self.directory else { return Ok(()) };
        // The file, then every directory that may be new: an entry is durable with the directory it stands in.
        let mut place = directory.join(path);
        loop {
            let synced = File::open(&place).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::File { path: place.clone(), source })?;
            if place == *directory || !place.pop() {
                return Ok(());
            }
        }
    }

    /// Removes a file; one that is not there is as good.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, path: &str) -> Result<()> {
        let removed = self.open().files.pop(path);
        if let Some(file) = removed {
            self.open().bytes -= file.size();
        }
        let at = ObjectPath::parse(path)?;
        match wait(self.store.delete(&at))? {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            done => Ok(done?),
        }
    }

    /// The paths and lengths of all files below a directory.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn list(&self, directory: &str) -> Result<Vec<(String, u64)>> {
        let under = ObjectPath::parse(directory)?;
        let found = self.store.list((!directory.is_empty()).then_some(&under));
        let found: Vec<_> = match wait(found.try_collect())? {
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            found => found?,
        };
        Ok(found.into_iter().map(|it: object_store::ObjectMeta| (it.location.to_string(), it.size)).collect())
    }

    /// The file that a manifest lists, read and checked where nobody has it open.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was written.
    pub(crate) fn file(&self, listed: &ColdFile) -> Result<Arc<OpenFile>> {
        if let Some(known) = self.open().files.get(&listed.path) {
            return Ok(Arc::clone(known));
        }
        let path = ObjectPath::parse(&listed.path)?;
        let bytes = wait(async { self.store.get(&path).await?.bytes().await })?;
        let bytes = match bytes {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::ColdFile { path: listed.path.clone(), reason: "it is not there" });
            }
            bytes => bytes?,
        };
        let file = Arc::new(OpenFile::open(listed, bytes)?);
        let mut open = self.open();
        open.bytes += file.size();
        if let Some(other) = open.files.put(listed.path.clone(), Arc::clone(&file)) {
            open.bytes -= other.size();
        }
        while open.bytes > self.bytes_max && open.files.len() > 1 {
            let Some((_, oldest)) = open.files.pop_lru() else { break };
            open.bytes -= oldest.size();
        }
        Ok(file)
    }

    /// Removes what no partition lists, as a process leaves it that dies between a file and its commit.
    pub(crate) fn sweep(&self, is_listed: impl Fn(&str) -> bool) -> Result<u64> {
        let mut swept = 0;
        for (path, _) in self.list("")? {
            if !is_listed(&path) {
                self.remove(&path)?;
                swept += 1;
            }
        }
        self.sweep_unfinished()?;
        Ok(swept)
    }

    /// Removes what the local store left behind of a file that was never finished; it does not list those.
    fn sweep_unfinished(&self) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let mut open = vec![directory.clone()];
        while let Some(at) = open.pop() {
            let failed = |source| Error::File { path: at.clone(), source };
            for entry in std::fs::read_dir(&at).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.to_string_lossy().contains(".parquet#") {
                    match std::fs::remove_file(&path) {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}
