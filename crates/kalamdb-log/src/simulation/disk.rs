//! The disk itself: calls, their faults, its room, and its ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::SimulatedFile;
use super::names::{FileId, Names};
use super::random::Random;
use crate::disk::{Disk, DiskFile, DiskLock, OpenMode};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read or write does less than asked for; other calls are not affected.
    Short,
    /// EIO: a write may have written a part, a sync loses a part for good.
    InputOutput,
    /// ENOSPC: a write may have written a part. Calls that need no room are not affected.
    NoSpace,
    /// The call is done in part, or not, or wholly, and it and all calls after it fail: the process or the power is
    /// gone, and which one says [`SimulatedDisk::kill`] or [`SimulatedDisk::crash`].
    Halt,
}

/// A disk in memory; see [`crate::simulation`]. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug)]
struct State {
    names: Names,
    files: BTreeMap<FileId, SimulatedFile>,
    next_file: FileId,
    locked: BTreeSet<PathBuf>,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    capacity: Option<usize>,
    is_halted: bool,
    random: Random,
}

impl SimulatedDisk {
    /// An empty disk without limits or faults.
    pub fn new(seed: u64) -> Self {
        let mut names = Names::default();
        names.make_directories(Path::new("/"));
        Self::with(State {
            names,
            files: BTreeMap::new(),
            next_file: 0,
            locked: BTreeSet::new(),
            calls: 0,
            faults: BTreeMap::new(),
            capacity: None,
            is_halted: false,
            random: Random::new(seed),
        })
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere is told by its own message.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets the call of this number fail, the first one being 0. Numbers that are past do nothing.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Takes back all faults to come.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// Gives it that much room; writes beyond fail with ENOSPC. None for no limit.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files that have a name.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// Whether [`Fault::Halt`] came.
    pub fn is_halted(&self) -> bool {
        self.state().is_halted
    }

    /// The disk after the power went. This one is halted; what the dice decide comes from `random`.
    #[must_use]
    pub fn crash(&self, random: &mut Random) -> Self {
        let mut state = self.state();
        state.is_halted = true;
        let names = state.names.after_power_loss(random);
        let mut files = BTreeMap::new();
        for (_, id) in names.files() {
            if let Some(file) = state.files.get(&id) {
                files
                    .entry(id)
                    .and_modify(|after: &mut SimulatedFile| after.names += 1)
                    .or_insert_with(|| SimulatedFile::named(file.after_power_loss(random)));
            }
        }
        Self::with(state.restarted(names, files))
    }

    /// The disk after the process died: all that was written is there, and just as unsynced. This one is halted.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state();
        state.is_halted = true;
        Self::with(state.restarted(state.names.clone(), state.files.clone()))
    }

    /// The files there are, in order of their paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.files().map(|(path, _)| path.clone()).collect()
    }

    /// What reads of a file see; none where there is no such file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.files.get(&state.names.file(path)?)?;
        Some(file.content().to_vec())
    }

    /// Puts a file in place, or replaces it, durably and without a call.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.name_new(path);
        state.files.insert(id, SimulatedFile::named(bytes));
        if let Some(dir) = path.parent() {
            state.names.make_directories(dir);
            state.names.sync(dir);
        }
    }
}

impl State {
    fn restarted(&self, names: Names, files: BTreeMap<FileId, SimulatedFile>) -> Self {
        Self {
            names,
            files,
            next_file: self.next_file,
            locked: BTreeSet::new(),
            calls: 0,
            faults: BTreeMap::new(),
            capacity: self.capacity,
            is_halted: false,
            random: self.random.clone(),
        }
    }

    /// Counts a call; gives its fault. A halt is the caller's to carry out in part, after which nothing goes any more.
    fn call(&mut self) -> io::Result<Option<Fault>> {
        let number = self.calls;
        self.calls += 1;
        if self.is_halted {
            return Err(halted());
        }
        let fault = self.faults.remove(&number);
        self.is_halted = fault == Some(Fault::Halt);
        Ok(fault)
    }

    /// A call that happens or does not: runs it, unless its fault says no.
    fn all_or_nothing<T>(
        &mut self,
        needs_room: bool,
        run: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.call()? {
            Some(Fault::InputOutput) => Err(io::Error::from_raw_os_error(EIO)),
            Some(Fault::NoSpace) if needs_room => Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::Halt) => {
                if self.random.per_mille(500) {
                    drop(run(self));
                }
                Err(halted())
            }
            Some(Fault::Short | Fault::NoSpace) | None => run(self),
        }
    }

    fn used(&self) -> usize {
        self.files.values().filter(|file| file.names > 0).map(|file| file.content().len()).sum()
    }

    fn name_new(&mut self, path: &Path) -> FileId {
        let id = self.next_file;
        self.next_file += 1;
        self.unname(path);
        self.names.name(path, id);
        self.files.insert(id, SimulatedFile::named(Vec::new()));
        id
    }

    fn unname(&mut self, path: &Path) {
        if let Some(file) = self.names.file(path).and_then(|id| self.files.get_mut(&id)) {
            file.names -= 1;
        }
    }

    fn file(&mut self, id: FileId) -> io::Result<&mut SimulatedFile> {
        self.files.get_mut(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        let found = self.names.file(path);
        if !path.parent().is_some_and(|dir| self.names.has_directory(dir)) {
            return Err(ErrorKind::NotFound.into());
        }
        match (mode, found) {
            (OpenMode::Read | OpenMode::Write, None) => Err(ErrorKind::NotFound.into()),
            (OpenMode::New, Some(_)) => Err(ErrorKind::AlreadyExists.into()),
            (OpenMode::Replace, Some(id)) => {
                self.file(id)?.truncate(0);
                Ok(id)
            }
            (_, Some(id)) => Ok(id),
            (_, None) => Ok(self.name_new(path)),
        }
    }

    /// Writes as much as there is room for and the fault lets through.
    fn write(&mut self, id: FileId, bytes: &[u8], offset: usize) -> io::Result<usize> {
        let fault = self.call()?;
        let free = self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()));
        let room =
            self.file(id)?.content().len().saturating_sub(offset).saturating_add(free).min(bytes.len());
        let upto = match fault {
            None => room,
            Some(Fault::Short) => room.min(1 + self.random.below(bytes.len())),
            Some(Fault::InputOutput | Fault::NoSpace | Fault::Halt) => {
                room.min(self.random.below(bytes.len() + 1))
            }
        };
        if let Some(written) = bytes.get(..upto).filter(|written| !written.is_empty()) {
            self.file(id)?.write(offset, written);
        }
        match fault {
            Some(Fault::InputOutput) => Err(io::Error::from_raw_os_error(EIO)),
            Some(Fault::NoSpace) => Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::Halt) => Err(halted()),
            _ if upto == 0 && !bytes.is_empty() => Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::Short) | None => Ok(upto),
        }
    }

    /// Makes a file at least that long; where it fails, some of it may be done.
    fn reserve(&mut self, id: FileId, end: usize) -> io::Result<()> {
        let fault = self.call()?;
        let free = self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()));
        let length = self.file(id)?.content().len();
        let needed = end.saturating_sub(length);
        let failure = match fault {
            Some(Fault::InputOutput) => Some(io::Error::from_raw_os_error(EIO)),
            Some(Fault::Halt) => Some(halted()),
            Some(Fault::NoSpace) => Some(io::Error::from_raw_os_error(ENOSPC)),
            _ if needed > free => Some(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::Short) | None => None,
        };
        let added =
            if failure.is_some() { self.random.below(needed.min(free).saturating_add(1)) } else { needed };
        if added > 0 {
            self.file(id)?.truncate(length + added);
        }
        failure.map_or(Ok(()), Err)
    }

    fn sync(&mut self, id: FileId) -> io::Result<()> {
        let fault = self.call()?;
        let mut random = self.random.clone();
        let file = self.file(id)?;
        let done = match fault {
            Some(Fault::InputOutput) => {
                file.fail_sync(&mut random);
                Err(io::Error::from_raw_os_error(EIO))
            }
            // What was not written yet is as it was before the call.
            Some(Fault::Halt) => Err(halted()),
            Some(Fault::Short | Fault::NoSpace) | None => {
                file.sync();
                Ok(())
            }
        };
        self.random = random;
        done
    }
}

fn halted() -> io::Error {
    io::Error::other("the simulated machine is halted")
}

/// An open file of a simulated disk.
#[derive(Debug)]
struct OpenFile {
    disk: SimulatedDisk,
    id: FileId,
}

/// Held on a simulated disk.
#[derive(Debug)]
struct Lock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl DiskLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.path);
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let makes = matches!(mode, OpenMode::New | OpenMode::Replace);
        let id = self.state().all_or_nothing(makes, |state| state.open(path, mode))?;
        Ok(Arc::new(OpenFile { disk: self.clone(), id }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.state().all_or_nothing(false, |state| {
            if !state.names.has_directory(dir) {
                return Err(ErrorKind::NotFound.into());
            }
            let within = |(path, _): (&PathBuf, FileId)| (path.parent() == Some(dir)).then(|| path.clone());
            Ok(state.names.files().filter_map(within).collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().all_or_nothing(true, |state| {
            let file = state.names.file(from).ok_or(ErrorKind::NotFound)?;
            if from.parent() != to.parent() {
                return Err(ErrorKind::CrossesDevices.into());
            }
            state.unname(to);
            state.names.rename(from, to, file);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().all_or_nothing(false, |state| {
            state.names.file(path).ok_or(ErrorKind::NotFound)?;
            state.unname(path);
            state.names.remove(path);
            Ok(())
        })
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.state().all_or_nothing(true, |state| {
            state.names.make_directories(dir);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().all_or_nothing(false, |state| {
            state.names.sync(dir);
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.state().all_or_nothing(true, |state| {
            if !state.locked.insert(path.to_owned()) {
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(())
        })?;
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_owned() }))
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let wanted = match state.call()? {
            Some(Fault::InputOutput) => return Err(io::Error::from_raw_os_error(EIO)),
            Some(Fault::Halt) => return Err(halted()),
            Some(Fault::Short) => 1 + state.random.below(buffer.len()),
            Some(Fault::NoSpace) | None => buffer.len(),
        };
        let content = state.file(self.id)?.content();
        let rest = content.get(place(offset)?..).unwrap_or_default();
        let count = rest.len().min(wanted).min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.state().write(self.id, bytes, place(offset)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(self.id)
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = place(offset)?.saturating_add(place(bytes)?);
        self.disk.state().reserve(self.id, end)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let length = place(length)?;
        self.disk.state().all_or_nothing(false, |state| {
            state.file(self.id)?.truncate(length);
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.state().all_or_nothing(false, |state| Ok(state.file(self.id)?.content().len() as u64))
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.disk.state().all_or_nothing(false, |state| Ok(state.file(self.id)?.names == 0))
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
