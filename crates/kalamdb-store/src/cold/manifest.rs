//! Which cold files a partition has, in a column family beside its rows.
//!
//! Below a partition's prefix: `0` holds the event that last flushed it, when that was, and the greatest key that any of
//! its files ever had; `1` and a file's id hold what the log says of the file; `2` and a file's id the positions of its rows
//! that newer ones stand in the place of.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ahash::RandomState;
use log_format::{ColdFile, Partition, Record, Seq, TableId};
use lru::LruCache;
use rocksdb::{IteratorMode, ReadOptions};

use crate::error::{Error, Result};
use crate::keyspace::{partition_of, prefix_end, table_of_prefix, table_prefix};
use crate::store::Shared;

pub(crate) const MANIFESTS_FAMILY: &str = "manifests";
const STATE: u8 = 0;
const FILE: u8 = 1;
const SUPERSEDED: u8 = 2;
/// Manifests that are kept decoded.
const MANIFESTS_KEPT: usize = 1024;

/// A file of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// What the log says of it.
    pub file: ColdFile,
    /// Positions of its rows that newer ones stand in the place of, rising.
    pub superseded: Vec<u32>,
}

/// The files of one partition, by their least key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The event that last changed it.
    pub flushed_at: Seq,
    /// Its files.
    pub files: Vec<ManifestFile>,
}

/// When a partition was last flushed, and what keys it ever had in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) flushed_at: Seq,
    pub(crate) commit_time: i64,
    pub(crate) highest_key: Vec<u8>,
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = self.flushed_at.get().to_le_bytes().to_vec();
        value.extend_from_slice(&self.commit_time.to_le_bytes());
        value.extend_from_slice(&self.highest_key);
        value
    }

    fn decode(value: &[u8]) -> Result<Self> {
        let (seq, rest) = value.split_first_chunk::<8>().ok_or(DAMAGED)?;
        let (time, key) = rest.split_first_chunk::<8>().ok_or(DAMAGED)?;
        Ok(Self {
            flushed_at: Seq::new(u64::from_le_bytes(*seq)),
            commit_time: i64::from_le_bytes(*time),
            highest_key: key.to_vec(),
        })
    }
}

const DAMAGED: Error = Error::Damaged { what: "manifest" };

/// Manifests, by partition and the event that flushed it last.
type Kept = LruCache<(Vec<u8>, Seq), Arc<Manifest>>;

/// What each entry of a manifest is handed to: its key and its value.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// The tables that ever had a cold file, as long as this process runs: most have none, and cost no look-up.
#[derive(Debug, Default)]
pub(crate) struct ColdTables {
    // Written when a table is flushed for the first time.
    tables: RwLock<HashSet<TableId, RandomState>>,
    // Held for a look-up. By partition and what flushed it last, which together say everything.
    kept: Mutex<Option<Kept>>,
}

impl ColdTables {
    pub(crate) fn contains(&self, table: TableId) -> bool {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).contains(&table)
    }

    pub(crate) fn insert(&self, table: TableId) {
        if !self.contains(table) {
            self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(table);
        }
    }

    fn kept(&self, key: &(Vec<u8>, Seq)) -> Option<Arc<Manifest>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_mut()?.get(key).map(Arc::clone)
    }

    fn keep(&self, key: (Vec<u8>, Seq), manifest: &Arc<Manifest>) {
        let Some(room) = std::num::NonZeroUsize::new(MANIFESTS_KEPT) else { return };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert_with(|| LruCache::new(room)).put(key, Arc::clone(manifest));
    }
}

pub(super) fn state_key(partition: &[u8]) -> Vec<u8> {
    [partition, &[STATE]].concat()
}

pub(super) fn file_key(partition: &[u8], file: u64) -> Vec<u8> {
    [partition, &[FILE], &file.to_be_bytes()].concat()
}

pub(super) fn superseded_key(partition: &[u8], file: u64) -> Vec<u8> {
    [partition, &[SUPERSEDED], &file.to_be_bytes()].concat()
}

pub(super) fn encode_positions(positions: &[u32]) -> Vec<u8> {
    positions.iter().flat_map(|position| position.to_le_bytes()).collect()
}

pub(super) fn decode_positions(value: &[u8]) -> Vec<u32> {
    value.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// One look at the database: as it is, or as a cut has it.
pub(crate) trait Look {
    fn get(&self, shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn each(&self, shared: &Shared, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()>;
}

/// The database as it is.
pub(crate) struct Now;

fn engine(source: rocksdb::Error) -> Error {
    Error::Engine { action: "read a manifest", source }
}

pub(crate) fn below(prefix: &[u8]) -> ReadOptions {
    let mut range = ReadOptions::default();
    range.set_iterate_lower_bound(prefix.to_vec());
    let end = prefix_end(prefix);
    if !end.is_empty() {
        range.set_iterate_upper_bound(end);
    }
    range
}

impl Look for Now {
    fn get(&self, shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>> {
        shared.database.get_cf(&shared.manifests_family()?, key).map_err(engine)
    }

    fn each(&self, shared: &Shared, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let family = shared.manifests_family()?;
        for entry in shared.database.iterator_cf_opt(&family, below(prefix), IteratorMode::Start) {
            let (key, value) = entry.map_err(engine)?;
            visit(&key, &value)?;
        }
        Ok(())
    }
}

/// When a partition was last flushed; none where it never was, or has lost everything since.
pub(crate) fn state(shared: &Shared, look: &impl Look, partition: &[u8]) -> Result<Option<State>> {
    if !table_of_prefix(partition).is_some_and(|table| shared.cold_tables.contains(table)) {
        return Ok(None);
    }
    look.get(shared, &state_key(partition))?.map(|value| State::decode(&value)).transpose()
}

/// The files of a partition; none where it has no cold rows.
pub(crate) fn manifest(shared: &Shared, look: &impl Look, partition: &[u8]) -> Result<Option<Arc<Manifest>>> {
    let Some(state) = state(shared, look, partition)? else { return Ok(None) };
    let key = (partition.to_vec(), state.flushed_at);
    if let Some(known) = shared.cold_tables.kept(&key) {
        return Ok(Some(known));
    }
    let mut found = Manifest { flushed_at: state.flushed_at, files: Vec::new() };
    let mut superseded = Vec::new();
    look.each(shared, partition, &mut |key, value| {
        match key.get(partition.len()..).and_then(<[u8]>::split_first) {
            Some((&FILE, _)) => {
                let file = ColdFile::from_bytes(value).map_err(|_| DAMAGED)?;
                found.files.push(ManifestFile { file, superseded: Vec::new() });
            }
            Some((&SUPERSEDED, id)) => {
                let id = id.try_into().map_err(|_| DAMAGED)?;
                superseded.push((u64::from_be_bytes(id), decode_positions(value)));
            }
            _ => {}
        }
        Ok(())
    })?;
    for (id, positions) in superseded {
        if let Some(of) = found.files.iter_mut().find(|of| of.file.id == id) {
            of.superseded = positions;
        }
    }
    found.files.sort_by(|left, right| left.file.first_key.cmp(&right.file.first_key));
    let found = Arc::new(found);
    shared.cold_tables.keep(key, &found);
    Ok(Some(found))
}

/// Hands the files of all partitions below a prefix to `visit`.
pub(crate) fn each_file(shared: &Shared, prefix: &[u8], mut visit: impl FnMut(ColdFile)) -> Result<()> {
    Now.each(shared, prefix, &mut |key, value| {
        if tag_of(key) == Some(FILE) {
            visit(ColdFile::from_bytes(value).map_err(|_| DAMAGED)?);
        }
        Ok(())
    })
}

/// The states of all partitions below a prefix.
pub(crate) fn each_state(
    shared: &Shared,
    look: &impl Look,
    prefix: &[u8],
    mut visit: impl FnMut(Partition, State),
) -> Result<()> {
    look.each(shared, prefix, &mut |key, value| {
        if tag_of(key) == Some(STATE) {
            visit(partition_of(key)?, State::decode(value)?);
        }
        Ok(())
    })
}

/// The prefixes of all partitions that were ever flushed.
pub(crate) fn cold_partitions(shared: &Shared) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in shared.database.iterator_cf(&shared.manifests_family()?, IteratorMode::Start) {
        let (key, _) = entry.map_err(engine)?;
        if tag_of(&key) == Some(STATE) {
            found.push(crate::keyspace::partition_of_key(&key)?.1.to_vec());
        }
    }
    Ok(found)
}

/// What kind of entry stands at a key.
fn tag_of(key: &[u8]) -> Option<u8> {
    let (_, partition) = crate::keyspace::partition_of_key(key).ok()?;
    key.get(partition.len()).copied()
}

/// Finds the tables that have cold files.
pub(crate) fn find_cold_tables(shared: &Shared) -> Result<()> {
    let family = shared.manifests_family()?;
    let mut entries = shared.database.raw_iterator_cf(&family);
    entries.seek_to_first();
    while let Some(table) = entries.key().and_then(table_of_prefix) {
        shared.cold_tables.insert(table);
        entries.seek(prefix_end(&table_prefix(table)));
    }
    entries.status().map_err(engine)
}
