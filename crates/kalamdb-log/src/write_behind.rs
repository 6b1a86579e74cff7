//! Writes to the disk what the operating system holds, ahead of the sync that needs it, where nobody waits for either.
//!
//! Without it, a log that is synced once per segment keeps its writer waiting for a whole segment to reach the disk.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use crate::disk::DiskFile;

/// How far the disk may be behind before it is told to go on.
const STEP_BYTES: u64 = 8 << 20;

/// A thread that syncs what it is given.
#[derive(Debug)]
pub(crate) struct WriteBehind {
    /// None once dropped.
    files: Option<Sender<Arc<dyn DiskFile>>>,
    // Held by the thread while it syncs: who holds it knows that no sync is under way. An operating system tells of a lost
    // write once only, so a failure that the thread was told of is kept for the writer.
    failure: Arc<Mutex<Option<io::Error>>>,
    thread: Option<JoinHandle<()>>,
    /// The offset in the active segment from which on the thread gets it again.
    next: u64,
}

impl WriteBehind {
    pub(crate) fn start() -> io::Result<Self> {
        let (files, waiting) = crossbeam_channel::bounded::<Arc<dyn DiskFile>>(1);
        let failure = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&failure);
        let thread = std::thread::Builder::new().name("log-write-behind".to_owned()).spawn(move || {
            for file in waiting {
                let mut failure = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = file.sync() {
                    *failure = Some(error);
                }
            }
        })?;
        Ok(Self { files: Some(files), failure, thread: Some(thread), next: STEP_BYTES })
    }

    /// The active segment ends here now.
    pub(crate) fn written(&mut self, file: &Arc<dyn DiskFile>, end: u64) {
        if end >= self.next {
            self.next = end + STEP_BYTES;
            if let Some(files) = &self.files {
                // One that is still at work will be given this file with the next step.
                drop(files.try_send(Arc::clone(file)));
            }
        }
    }

    /// Another segment begins.
    pub(crate) const fn begin_segment(&mut self) {
        self.next = STEP_BYTES;
    }

    /// Waits for the sync that is under way, and gives the failure of one since the last call.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        drop(self.files.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's write-behind thread panicked");
        }
    }
}
