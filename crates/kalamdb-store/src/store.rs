//! The store: opening, applying, flushing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use log_format::{Frame, Partition, Seq, TableId};
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBWithThreadMode, FlushOptions,
    MultiThreaded, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use crate::batch::{Batch, readable};
use crate::cold::{
    ColdFiles, ColdTables, MANIFESTS_FAMILY, Now, Owner, changes_files, cold_state, find_cold_tables,
};
use crate::counts::{Counters, Counts, count_anew_if_needed, truncated_at};
use crate::cut::Cut;
use crate::error::{Error, Result};
use crate::keyspace::{Keyspace, StoredRow, full_key, partition_prefix, prefix_end, table_prefix};

pub(crate) type Database = DBWithThreadMode<MultiThreaded>;

const APPLIED_SEQ_KEY: &[u8] = b"applied_seq";
const DEFAULT_FAMILY: &str = "default";
const COUNTS_FAMILY: &str = "row_counts";
/// The directory of cold files where nobody says another.
const COLD_DIRECTORY: &str = "cold";

/// How much memory the store may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of the cache for blocks read from disk.
    pub block_cache_bytes: usize,
    /// Bytes of rows in memory at which RocksDB flushes by itself. It should never come to that: the engine flushes
    /// earlier, after syncing the log.
    pub write_buffer_bytes: usize,
    /// Bytes of cold files that are kept in memory.
    pub cold_cache_bytes: usize,
    /// The directory of cold files; none: `cold` in the store's own.
    pub cold_directory: Option<PathBuf>,
    /// The instance that writes cold files; none: nobody else can be where they are.
    pub owner: Option<Owner>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 256 << 20,
            cold_cache_bytes: 256 << 20,
            cold_directory: None,
            owner: None,
        }
    }
}

/// What the store and its cuts hold together.
pub(crate) struct Shared {
    pub(crate) database: Database,
    /// How many cuts of each seq are held. Locked while one is taken, so that none is overlooked.
    pub(crate) cuts: Mutex<BTreeMap<Seq, usize>>,
    pub(crate) cold_files: ColdFiles,
    pub(crate) cold_tables: ColdTables,
}

impl Shared {
    pub(crate) fn family(&self, keyspace: Keyspace) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.database.cf_handle(keyspace.column_family()).ok_or(Error::Damaged { what: "column family" })
    }

    pub(crate) fn counts_family(&self) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.database.cf_handle(COUNTS_FAMILY).ok_or(Error::Damaged { what: "column family" })
    }

    pub(crate) fn manifests_family(&self) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.database.cf_handle(MANIFESTS_FAMILY).ok_or(Error::Damaged { what: "column family" })
    }

    /// Writes a batch. The log is the only write-ahead log.
    pub(crate) fn write(&self, writes: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.database
            .write_opt(writes, &options)
            .map_err(|source| Error::Engine { action: "apply a commit", source })
    }
}

/// What the one who applies knows.
struct Applied {
    /// The last event that was applied.
    seq: Seq,
    counters: Counters,
}

/// The hot tier of one database.
pub struct Store {
    shared: Arc<Shared>,
    // Held for as long as commits are applied; nobody else wants it.
    applied: Mutex<Applied>,
    path: PathBuf,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `path`, creating it where there is none.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self> {
        // IMPORTANT: closing flushes nothing by itself: after a failed sync the rows would get ahead of the log.
        let mut database = Options::default()
            .get_options_from_string("avoid_flush_during_shutdown=true")
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        // All column families are flushed together, so that `applied_seq` on disk never disagrees with the rows.
        database.set_atomic_flush(true);
        database.set_max_background_jobs(2);
        database.set_keep_log_file_num(2);
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_bloom_filter(10.0, false);
        let mut family = Options::default();
        family.set_write_buffer_size(options.write_buffer_bytes);
        // A flush that is asked for while the one before is still at work need not wait for it.
        family.set_max_write_buffer_number(4);
        // Every insert looks for its key first, and mostly there is none: a filter tells without walking the rows in
        // memory.
        family.set_memtable_prefix_bloom_ratio(0.02);
        family.set_memtable_whole_key_filtering(true);
        family.set_block_based_table_factory(&blocks);
        family.set_compression_type(rocksdb::DBCompressionType::Lz4);
        family.set_level_compaction_dynamic_level_bytes(true);
        let families = std::iter::once(DEFAULT_FAMILY)
            .chain(Keyspace::ALL.map(Keyspace::column_family))
            .chain([COUNTS_FAMILY, MANIFESTS_FAMILY])
            .map(|name| ColumnFamilyDescriptor::new(name, family.clone()));
        let opened = Database::open_cf_descriptors(&database, path, families)
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        let cold = options.cold_directory.clone().unwrap_or_else(|| path.join(COLD_DIRECTORY));
        let shared = Arc::new(Shared {
            database: opened,
            cuts: Mutex::default(),
            cold_files: ColdFiles::in_directory(&cold, options.cold_cache_bytes, options.owner.clone())?,
            cold_tables: ColdTables::default(),
        });
        find_cold_tables(&shared)?;
        let seq = read_applied_seq(|key| shared.database.get(key))?;
        count_anew_if_needed(&shared, seq)?;
        let applied = Mutex::new(Applied { seq, counters: Counters::new(seq) });
        Ok(Self { shared, applied, path: path.to_owned() })
    }

    /// The last event whose effect is in the files: what a crash leaves.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn persisted_seq(&self) -> Result<Seq> {
        let mut files_only = ReadOptions::default();
        files_only.set_read_tier(ReadTier::Persisted);
        read_applied_seq(|key| self.shared.database.get_opt(key, &files_only))
    }

    /// The last event whose effect the store holds. Replay begins behind it.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn applied_seq(&self) -> Result<Seq> {
        read_applied_seq(|key| self.shared.database.get(key))
    }

    /// Applies commits in order, as one write. Those that were applied before are passed over.
    ///
    /// # Errors
    /// Where an event cannot be read or RocksDB cannot write; nothing is then applied.
    pub fn apply(&self, commits: &[Frame]) -> Result<()> {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let first_new = commits.iter().position(|commit| commit.last_seq() > applied.seq);
        let commits = first_new.and_then(|first| commits.get(first..)).unwrap_or_default();
        // A flush looks at what was written before it, and those after it look at what it left: it is a batch of its own. The same
        // goes for a compaction.
        let is_alone = |at: usize| commits.get(at).is_some_and(changes_files);
        let is_start = |at: &usize| *at == 0 || is_alone(*at) || is_alone(*at - 1);
        let starts: Vec<usize> = (0..commits.len()).filter(is_start).chain([commits.len()]).collect();
        for (from, until) in starts.iter().zip(starts.iter().skip(1)) {
            self.apply_batch(&mut applied, commits.get(*from..*until).unwrap_or_default())?;
        }
        Ok(())
    }

    fn apply_batch(&self, applied: &mut Applied, commits: &[Frame]) -> Result<()> {
        let Some(last) = commits.last() else { return Ok(()) };
        let bytes = commits.iter().map(|commit| commit.as_bytes().len()).sum();
        let written = self.write_counted(&mut applied.counters, bytes, |batch| {
            for commit in commits {
                for (seq, event) in commit.events() {
                    batch.apply(seq, commit.header().fields.commit_time, readable(seq, event)?)?;
                }
            }
            batch.writes.put(APPLIED_SEQ_KEY, last.last_seq().get().to_le_bytes());
            Ok(())
        });
        if written.is_ok() {
            applied.seq = last.last_seq();
        }
        written
    }

    /// Writes what `fill` puts into a batch of about that many bytes, all of it or nothing.
    fn write_counted(
        &self,
        counters: &mut Counters,
        bytes: usize,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut batch = Batch::new(&self.shared, &mut *counters, bytes)?;
        let written = fill(&mut batch).and_then(|()| batch.finish()).and_then(|it| self.shared.write(it));
        if written.is_err() {
            counters.forget();
        }
        written
    }

    /// As [`Store::apply`] writes, without commits.
    #[cfg(test)]
    pub(crate) fn write(&self, bytes: usize, fill: impl FnOnce(&mut Batch<'_>) -> Result<()>) -> Result<()> {
        let mut applied = self.applied.lock().unwrap();
        self.write_counted(&mut applied.counters, bytes, fill)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The seq of the oldest cut that somebody holds.
    pub fn oldest_cut(&self) -> Option<Seq> {
        let cuts = self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.first_key_value().map(|(seq, _)| *seq)
    }

    /// The live rows of a partition.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn counts(&self, partition: &Partition) -> Result<Counts> {
        self.counts_of(&partition_prefix(partition))
    }

    /// The live rows of all partitions of a table.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn table_counts(&self, table: TableId) -> Result<Counts> {
        self.counts_of(&table_prefix(table))
    }

    fn counts_of(&self, prefix: &[u8]) -> Result<Counts> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.counters.get(prefix).map_or_else(|| Counts::read(&self.shared, prefix), Ok)
    }

    /// The event that last took all rows of a table at once; zero where none ever did. The log does not tell which rows
    /// went, so nobody can go on from before it.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn truncated_at(&self, table: TableId) -> Result<Seq> {
        truncated_at(&self.shared, table)
    }

    /// Which event wrote the hot row of this key, and whether that is a tombstone.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or the record is damaged.
    pub fn head(&self, keyspace: Keyspace, partition: &Partition, key: &[u8]) -> Result<Option<(Seq, bool)>> {
        self.get_hot(keyspace, partition, key, |row| (row.seq, row.deleted))
    }

    /// The newest row of this key in either tier, tombstones included, handed to `read`.
    ///
    /// # Errors
    /// Where a tier cannot be read, or a record is damaged.
    pub fn get<T>(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        key: &[u8],
        read: impl FnOnce(StoredRow<'_>) -> T,
    ) -> Result<Option<T>> {
        if self.shared.cold_tables.contains(partition.table) {
            // A row may be on its way from one tier to the other.
            return self.cut()?.get(keyspace, partition, key, read);
        }
        self.get_hot(keyspace, partition, key, read)
    }

    fn get_hot<T>(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        key: &[u8],
        read: impl FnOnce(StoredRow<'_>) -> T,
    ) -> Result<Option<T>> {
        let found = self
            .shared
            .database
            .get_pinned_cf(&self.shared.family(keyspace)?, full_key(partition, key))
            .map_err(|source| Error::Engine { action: "read a row", source })?;
        found.map(|value| StoredRow::decode(&value).map(read)).transpose()
    }

    /// The greatest key a partition has or ever had in a cold file, deleted rows included.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn last_key(&self, keyspace: Keyspace, partition: &Partition) -> Result<Option<Vec<u8>>> {
        let prefix = partition_prefix(partition);
        let mut range = ReadOptions::default();
        range.set_iterate_upper_bound(prefix_end(&prefix));
        let mut rows = self.shared.database.raw_iterator_cf_opt(&self.shared.family(keyspace)?, range);
        rows.seek_to_last();
        rows.status().map_err(|source| Error::Engine { action: "read a partition's last row", source })?;
        let hot = rows.key().and_then(|key| key.strip_prefix(prefix.as_slice())).map(<[u8]>::to_vec);
        let cold = cold_state(&self.shared, &Now, &prefix)?.map(|state| state.highest_key);
        Ok(hot.max(cold))
    }

    /// One consistent cut of all rows.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn cut(&self) -> Result<Cut> {
        Cut::take(&self.shared)
    }

    /// Puts everything applied so far onto disk: at once where `wait`, else in the background. The log must be durable
    /// up to [`Store::applied_seq`] before, or the rows could get ahead of it.
    ///
    /// # Errors
    /// Where RocksDB cannot write.
    pub fn flush(&self, wait: bool) -> Result<()> {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let Applied { seq, counters } = &mut *applied;
        counters.persist(&self.shared, *seq)?;
        self.flush_files(wait)
    }

    /// As [`Store::flush`], with the counts as they are written: what RocksDB does where its memory is full.
    pub(crate) fn flush_files(&self, wait: bool) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        let mut families = Vec::with_capacity(6);
        for keyspace in Keyspace::ALL {
            families.push(self.shared.family(keyspace)?);
        }
        families.push(self.shared.counts_family()?);
        families.push(self.shared.manifests_family()?);
        families.extend(self.shared.database.cf_handle(DEFAULT_FAMILY));
        self.shared
            .database
            .flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options)
            .map_err(|source| Error::Engine { action: "flush", source })
    }
}

pub(crate) fn read_applied_seq(
    get: impl FnOnce(&'static [u8]) -> Result<Option<Vec<u8>>, rocksdb::Error>,
) -> Result<Seq> {
    let found =
        get(APPLIED_SEQ_KEY).map_err(|source| Error::Engine { action: "read applied_seq", source })?;
    found.map_or(Ok(Seq::ZERO), |bytes| {
        let bytes = bytes.try_into().map_err(|_| Error::Damaged { what: "applied_seq" })?;
        Ok(Seq::new(u64::from_le_bytes(bytes)))
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
