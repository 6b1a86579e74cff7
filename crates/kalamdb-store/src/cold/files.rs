//! Where cold files are kept: below the database's own directory, or at a place elsewhere; see [`Place`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use log_format::ColdFile;
use lru::LruCache;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::runtime::Runtime;

use super::filter::KeyFilter;
use super::open::OpenFile;
use super::owner::{Claim, MARKER, Owner, Standing, is_shared};
use super::places::{Connected, Place, Places};
use crate::error::{Error, Result};

/// The cold files of one database, those that were read lately kept open.
pub struct ColdFiles {
    /// The database's own directory.
    own: Connected,
    /// Whether others may reach that directory: it is a link or a mount.
    own_is_shared: bool,
    /// The instance that writes; none where nobody else can be there.
    owner: Option<Owner>,
    places: Places,
    /// Locations that this process has found to be its own.
    claimed: Mutex<HashSet<String>>,
    /// Listed files that were not there when they were last looked for.
    pub(super) missing: Mutex<BTreeSet<String>>,
    /// What serves the clients of places elsewhere, once there is one.
    runtime: OnceLock<Runtime>,
    bytes_max: usize,
    // Held for a look-up, never while a file is read.
    open: Mutex<Open>,
    /// Directories whose own entries are durable.
    synced: Mutex<HashSet<PathBuf>>,
}

/// The name of the database's own directory, as a storage location.
const OWN_NAME: &str = "local";

/// Directories that are remembered at the most.
const SYNCED_MAX: usize = 10_000;

/// The number of a cold file, and the token of the instance that wrote it, if its name has one; none where it is called otherwise.
fn name_of(path: &str) -> Option<(u64, Option<&str>)> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name).strip_suffix(".parquet")?;
    let (rest, version) = name.rsplit_once("-v")?;
    let (id, token) = rest.split_once('-').map_or((rest, None), |(id, token)| (id, Some(token)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (id.len() == 20 && is_number(id) && is_number(version)).then_some((id.parse().ok()?, token))
}

/// What part of the memory for files their filters may take beside it.
const FILTERS_PART: usize = 8;

struct Open {
    files: LruCache<String, Arc<OpenFile>>,
    bytes: usize,
    /// Of these files and of those that were open before.
    filters: LruCache<String, Arc<KeyFilter>>,
    filter_bytes: usize,
}

impl Open {
    fn remove(&mut self, path: &str) {
        if let Some(file) = self.files.pop(path) {
            self.bytes -= file.size();
        }
        if let Some(filter) = self.filters.pop(path) {
            self.filter_bytes -= filter.size();
        }
    }

    /// Keeps a file, and lets go those that were not asked for for longest.
    fn keep(&mut self, path: &str, file: &Arc<OpenFile>, filter: Option<KeyFilter>, bytes_max: usize) {
        self.remove(path);
        self.bytes += file.size();
        self.files.put(path.to_owned(), Arc::clone(file));
        while self.bytes > bytes_max && self.files.len() > 1 {
            let Some((_, oldest)) = self.files.pop_lru() else { break };
            self.bytes -= oldest.size();
        }
        let Some(filter) = filter else { return };
        self.filter_bytes += filter.size();
        self.filters.put(path.to_owned(), Arc::new(filter));
        while self.filter_bytes > bytes_max / FILTERS_PART {
            let Some((_, oldest)) = self.filters.pop_lru() else { break };
            self.filter_bytes -= oldest.size();
        }
    }
}

impl std::fmt::Debug for ColdFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdFiles").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Drop for ColdFiles {
    fn drop(&mut self) {
        // Whoever drops it may be a task of another runtime, which may not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A file of a place, as a path says.
struct Found<'a> {
    /// The place's name; none: the database's own directory.
    name: Option<&'a str>,
    place: Connected,
    /// Where it is there.
    path: &'a str,
}

impl ColdFiles {
    /// Files below a directory, which is made if it is not there. So many bytes of them are kept in memory.
    pub(crate) fn in_directory(directory: &Path, bytes_max: usize, owner: Option<Owner>) -> Result<Self> {
        let made = std::fs::create_dir_all(directory)
            .map_err(|source| Error::File { path: directory.to_owned(), source });
        made?;
        if let Some(above) = directory.parent() {
            let synced = File::open(above).and_then(|above| above.sync_all());
            synced.map_err(|source| Error::File { path: above.to_owned(), source })?;
        }
        let store = Arc::new(LocalFileSystem::new_with_prefix(directory)?.with_automatic_cleanup(true));
        let own = Connected { store, directory: Some(directory.to_owned()) };
        let open = Mutex::new(Open {
            files: LruCache::unbounded(),
            bytes: 0,
            filters: LruCache::unbounded(),
            filter_bytes: 0,
        });
        Ok(Self {
            own,
            own_is_shared: is_shared(directory),
            owner,
            places: Places::default(),
            claimed: Mutex::default(),
            missing: Mutex::default(),
            runtime: OnceLock::new(),
            bytes_max,
            open,
            synced: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a place, or tells why it cannot be used; what is asked of it then is refused with that. None: it is gone.
    pub fn set_place(&self, name: &str, place: Option<Result<Place, String>>) {
        let connected = |place: Place| place.connect().map_err(|error| error.to_string());
        self.places.set(name, place.map(|place| place.and_then(connected)));
    }

    /// The places elsewhere.
    pub fn place_names(&self) -> Vec<String> {
        self.places.names()
    }

    /// The places at which the last request failed, and how.
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.places.failures()
    }

    /// Writes a file to a place, reads it, removes it.
    ///
    /// # Errors
    /// Where one of these fails.
    pub fn probe(&self, place: &Place) -> Result<()> {
        const PROBE: &[u8] = b"kalamdb";
        let connected = place.connect()?;
        self.require_own(&connected, &place.path, None)?;
        let at = ObjectPath::from("probe");
        self.wait(async {
            let store = &connected.store;
            store.put(&at, PutPayload::from_static(PROBE)).await?;
            let found = store.get(&at).await?.bytes().await?;
            store.delete(&at).await?;
            let is_same = found == PROBE;
            is_same.then_some(()).ok_or(Error::Place {
                name: place.path.clone(),
                reason: "it gives back something else than what was written".to_owned(),
            })
        })?
    }

    /// The instance that writes to a place, where others may reach it.
    fn owner_at(&self, of: &Found<'_>) -> Option<&Owner> {
        self.owner.as_ref().filter(|_| of.name.is_some() || self.own_is_shared)
    }

    /// Refuses to write or delete at a place that another instance owns; claims it where nobody does.
    fn require_owner(&self, of: &Found<'_>) -> Result<()> {
        if self.owner_at(of).is_none() {
            return Ok(());
        }
        let name = of.name.unwrap_or(OWN_NAME);
        let is_claimed = self.claimed().contains(name);
        let owned = self.require_own(&of.place, name, is_claimed.then_some(Claim::Free));
        self.places.note(name, &owned);
        if owned.is_ok() && !is_claimed {
            self.claimed().insert(name.to_owned());
        }
        owned
    }

    fn require_own(&self, place: &Connected, name: &str, claim: Option<Claim>) -> Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let claim = claim.unwrap_or(owner.claim);
        let standing = match &place.directory {
            Some(directory) => owner.claim_directory(directory, claim)?,
            None => self.wait(owner.claim_objects(place, claim))??,
        };
        let other = match standing {
            Standing::Owner => return Ok(()),
            Standing::Of(other) => Some(other),
            Standing::Free => None,
        };
        Err(Error::Owned { name: name.to_owned(), owner: other.unwrap_or_else(|| "nobody yet".to_owned()) })
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of a new file: where others may write beside this instance, its token is in the name.
    pub(super) fn signed(&self, path: String) -> String {
        let is_shared = path.starts_with('@') || self.own_is_shared;
        let Some(owner) = self.owner.as_ref().filter(|_| is_shared) else { return path };
        match path.rsplit_once("-v") {
            Some((file, version)) => format!("{file}-{}-v{version}", owner.instance),
            None => path,
        }
    }

    /// Whether this instance wrote a file, or began to: it is called as cold files are, and where others may write as well, its
    /// name has this instance's token and the number of an event up to `until`.
    fn is_own(&self, of: &Found<'_>, path: &str, until: u64) -> bool {
        let Some((id, token)) = name_of(path) else { return false };
        match self.owner_at(of) {
            None => true,
            Some(owner) => id <= until && token == Some(owner.instance.as_str()),
        }
    }

    fn find<'a>(&self, path: &'a str) -> Result<Found<'a>> {
        match path.strip_prefix('@') {
            None => Ok(Found { name: None, place: self.own.clone(), path }),
            Some(rest) => {
                let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Found { name: Some(name), place: self.places.get(name)?, path })
            }
        }
    }

    /// The directory of this machine that a place is, if it is one; an empty name is the database's own directory.
    pub(super) fn directory_of_place(&self, name: &str) -> Result<Option<PathBuf>> {
        if name.is_empty() {
            return Ok(self.own.directory.clone());
        }
        Ok(self.places.get(name)?.directory)
    }

    /// Asks a place for something, and takes down whether it went through.
    fn ask<'a, T: Send, F>(&self, of: &'a Found<'_>, question: impl FnOnce(&'a Connected) -> F) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>> + Send + 'a,
    {
        let answer = self.wait(question(&of.place)).and_then(|answer| Ok(answer?));
        if let Some(name) = of.name {
            self.places.note(name, &answer);
        }
        answer
    }

    /// Runs what is to be waited for.
    ///
    /// IMPORTANT: on a thread of its own. Who asks may be a task of another runtime, whose futures may wait for that task to
    /// give way, which it does not while it waits here. Files are opened rarely enough for a thread to cost nothing.
    fn wait<T: Send>(&self, future: impl Future<Output = T> + Send) -> Result<T> {
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                // One thread serves connections, also between two requests.
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                let made = builder.worker_threads(1).thread_name("cold-files").enable_all().build();
                let made = made.map_err(Error::Thread)?;
                // Where another thread was faster, that one's is taken.
                if let Err(made) = self.runtime.set(made) {
                    made.shutdown_background();
                }
                self.runtime.get().ok_or(Error::Damaged { what: "runtime" })?
            }
        };
        let done = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join());
        Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Writes a file, whole or not at all, and waits until it is durable.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let of = self.find(path)?;
        let at = ObjectPath::parse(of.path)?;
        self.require_owner(&of)?;
        self.ask(&of, |place| place.store.put(&at, PutPayload::from_bytes(bytes)))?;
        let Some(directory) = &of.place.directory else { return Ok(()) };
        let mut place = directory.join(of.path);
        let sync = |place: &Path| {
            let synced = File::open(place).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::File { path: place.to_owned(), source })
        };
        sync(&place)?;
        // Then every directory that may be new: an entry is durable with the directory it stands in.
        let mut new = Vec::new();
        while place != *directory && place.pop() {
            sync(&place)?;
            if self.synced().contains(&place) {
                break;
            }
            new.push(place.clone());
        }
        let mut synced = self.synced();
        if synced.len() > SYNCED_MAX {
            synced.clear();
        }
        synced.extend(new);
        Ok(())
    }

    fn synced(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a file; one that is not there is as good.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, path: &str) -> Result<()> {
        // Its directory may go with it; one that is made again is a new entry.
        self.synced().clear();
        self.open().remove(path);
        let of = self.find(path)?;
        let at = ObjectPath::parse(of.path)?;
        self.require_owner(&of)?;
        match self.ask(&of, |place| place.store.delete(&at)) {
            Err(Error::ObjectStore(object_store::Error::NotFound { .. })) => Ok(()),
            done => done,
        }
    }

    /// The paths and lengths of all files below a directory.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn list(&self, directory: &str) -> Result<Vec<(String, u64)>> {
        let of = self.find(directory)?;
        let under = ObjectPath::parse(of.path)?;
        let found = self.ask(&of, |place| {
            place.store.list((!of.path.is_empty()).then_some(&under)).try_collect::<Vec<_>>()
        });
        let found = match found {
            Err(Error::ObjectStore(object_store::Error::NotFound { .. })) => Vec::new(),
            found => found?,
        };
        let full = |it: object_store::ObjectMeta| match of.name {
            Some(name) => (format!("@{name}/{}", it.location), it.size),
            None => (it.location.to_string(), it.size),
        };
        let is_file = |it: &object_store::ObjectMeta| it.location.as_ref() != MARKER;
        Ok(found.into_iter().filter(is_file).map(full).collect())
    }

    /// The file that a manifest lists, read and checked where nobody has it open.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was written.
    pub(crate) fn file(&self, listed: &ColdFile) -> Result<Arc<OpenFile>> {
        if let Some(known) = self.open().files.get(&listed.path) {
            return Ok(Arc::clone(known));
        }
        let file = Arc::new(self.fetch(listed)?);
        let filter = file.key_filter()?;
        self.open().keep(&listed.path, &file, filter, self.bytes_max);
        Ok(file)
    }

    /// Whether a file may have a row of a key, as far as that is known without opening it.
    pub(crate) fn may_have(&self, listed: &ColdFile, key: &[u8]) -> bool {
        let filter = self.open().filters.get(&listed.path).cloned();
        let may_have = filter.is_none_or(|filter| filter.may_have(key));
        if !may_have {
            metrics::counter!("kalamdb_cold_files_filtered_total").increment(1);
        }
        may_have
    }

    /// The file that a manifest lists, read anew and checked.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was written.
    pub(crate) fn fetch(&self, listed: &ColdFile) -> Result<OpenFile> {
        let of = self.find(&listed.path)?;
        let path = ObjectPath::parse(of.path)?;
        let bytes = match self.ask(&of, |place| async { place.store.get(&path).await?.bytes().await }) {
            Err(Error::ObjectStore(object_store::Error::NotFound { .. })) => {
                self.note_missing(&listed.path, true);
                return Err(Error::ColdFile { path: listed.path.clone(), reason: "it is not there" });
            }
            bytes => bytes?,
        };
        self.note_missing(&listed.path, false);
        OpenFile::open(listed, bytes)
    }

    /// Removes what no partition lists from the database's own directory, as a process leaves it that dies between a file and
    /// its commit. Where others can write there, only what this instance began before the event `until`.
    pub(crate) fn sweep(&self, until: u64, is_listed: impl Fn(&str) -> bool) -> Result<u64> {
        let swept = match self.sweep_below("", until, &is_listed) {
            Err(error @ Error::Owned { .. }) => {
                tracing::warn!(%error, "the directory of cold files was not swept");
                return Ok(0);
            }
            swept => swept?,
        };
        if !self.own_is_shared || self.owner.is_none() {
            self.sweep_unfinished()?;
        }
        Ok(swept)
    }

    /// As [`ColdFiles::sweep`], in a place elsewhere.
    pub(crate) fn sweep_place(
        &self,
        name: &str,
        until: u64,
        is_listed: impl Fn(&str) -> bool,
    ) -> Result<u64> {
        self.sweep_below(&format!("@{name}/"), until, &is_listed)
    }

    fn sweep_below(&self, directory: &str, until: u64, is_listed: &impl Fn(&str) -> bool) -> Result<u64> {
        let of = self.find(directory)?;
        self.require_owner(&of)?;
        let mut swept = 0;
        let found = self.list(directory)?;
        // Another database's location may lie below this directory.
        let markers = found.iter().filter_map(|(path, _)| path.strip_suffix(MARKER));
        let others: Vec<&str> = markers.filter(|above| above.ends_with('/')).collect();
        for (path, _) in &found {
            let is_others = others.iter().any(|above| path.starts_with(above));
            if !is_others && !is_listed(path) && self.is_own(&of, path, until) {
                self.remove(path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Removes what the local store left behind of a file that was never finished; it does not list those.
    fn sweep_unfinished(&self) -> Result<()> {
        let Some(directory) = &self.own.directory else { return Ok(()) };
        let mut open = vec![directory.clone()];
        while let Some(at) = open.pop() {
            let failed = |source| Error::File { path: at.clone(), source };
            for entry in std::fs::read_dir(&at).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    // Another database's location has a marker.
                    open.extend((!path.join(MARKER).exists()).then_some(path));
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
