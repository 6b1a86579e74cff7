//! Writes to the disk what the operating system holds, ahead of the sync that needs it, where nobody waits for either.
//!
//! Without it, a log that is synced once per segment keeps its writer waiting for a whole segment to reach the disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use crate::clock::Stopwatch;
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
                let stopwatch = Stopwatch::start();
                let mut failure = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = file.sync() {
                    *failure = Some(error);
                }
                drop(failure);
                // A sync holds up whoever writes: half of the time nobody is. Only a log that is written faster than half of
                // what the disk takes notices, and its next sync then has more to do.
                std::thread::sleep(stopwatch.elapsed());
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

    /// Waits for the sync that is under way, gives the failure of one since the last call, and lets none begin while the
    /// guard lives: of two syncs at a time, only one is told of a failure.
    pub(crate) fn pause(&self) -> io::Result<Paused<'_>> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.take() {
            None => Ok(Paused { _failure: failure }),
            Some(error) => Err(error),
        }
    }
}

/// The thread syncs nothing meanwhile.
#[derive(Debug)]
pub(crate) struct Paused<'w> {
    _failure: MutexGuard<'w, Option<io::Error>>,
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// A file whose syncs fail, or find out whether another one is under way.
    #[derive(Debug, Default)]
    struct Watched {
        fails: bool,
        busy: AtomicBool,
        met: AtomicBool,
        syncs: AtomicUsize,
    }

    impl DiskFile for Watched {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn sync(&self) -> io::Result<()> {
            if self.busy.swap(true, Ordering::SeqCst) {
                self.met.store(true, Ordering::SeqCst);
            }
            (0..100).for_each(|_| std::thread::yield_now());
            self.busy.store(false, Ordering::SeqCst);
            self.syncs.fetch_add(1, Ordering::SeqCst);
            if self.fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
        }

        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn length(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn is_removed(&self) -> io::Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn a_failure_behind_the_writer_is_kept_for_it() {
        let file: Arc<dyn DiskFile> = Arc::new(Watched { fails: true, ..Watched::default() });
        let mut behind = WriteBehind::start().unwrap();
        behind.written(&file, STEP_BYTES);
        while behind.pause().is_ok() {
            std::thread::yield_now();
        }
        assert!(behind.pause().is_ok(), "it is told once");
    }

    #[test]
    fn no_two_syncs_are_under_way() {
        let watched = Arc::new(Watched::default());
        let file: Arc<dyn DiskFile> = Arc::clone(&watched) as _;
        let mut behind = WriteBehind::start().unwrap();
        let mut end = 0;
        for _ in 0..200 {
            end += STEP_BYTES;
            behind.written(&file, end);
            let _paused = behind.pause().unwrap();
            file.sync().unwrap();
        }
        drop(behind);
        assert!(watched.syncs.load(Ordering::SeqCst) > 200, "the thread synced as well");
        assert!(!watched.met.load(Ordering::SeqCst), "two syncs at a time");
    }
}
