//! Reading: one consistent cut of all rows.
//!
//! This is the one module of the project with `unsafe` in it: RocksDB's binding ties a snapshot to a borrow of its
//! database, while a query must hold its cut for as long as its streams live, whoever polls them.

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use log_format::{ColdFile, Partition, Seq, TableId, UserId};
use rocksdb::{IteratorMode, ReadOptions, SnapshotWithThreadMode};

use crate::cold::{
    ColdFiles, ColdScan, Look, Manifest, OpenFile, Visit, below, cold_key_before_end, cold_state, each_state,
    get_cold, manifest, scan_both,
};
use crate::error::{Error, Result};
use crate::keyspace::{
    Keyspace, StoredRow, full_key, partition_of, partition_prefix, prefix_end, table_prefix,
};
use crate::store::{Database, Shared, read_applied_seq};

/// Which keys of a partition. Bounds are row keys; none means from the first or to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key, inclusive.
    pub from: Option<Vec<u8>>,
    /// Where to end, exclusive.
    pub until: Option<Vec<u8>>,
}

impl KeyRange {
    /// The keys that begin with `prefix`.
    pub fn with_prefix(prefix: &[u8]) -> Self {
        let end = prefix_end(prefix);
        Self { from: Some(prefix.to_vec()), until: Some(end).filter(|end| !end.is_empty()) }
    }
}

/// The first error of a visitor that may fail, which ends its scan.
#[derive(Debug)]
pub struct FirstError<E>(Option<E>);

impl<E> FirstError<E> {
    /// None yet.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What a scan is told by a visit that came to this.
    pub fn or_stop(&mut self, visited: Result<ControlFlow<()>, E>) -> ControlFlow<()> {
        visited.unwrap_or_else(|error| {
            self.0 = Some(error);
            ControlFlow::Break(())
        })
    }

    /// After the scan: the error, if there was one.
    ///
    /// # Errors
    /// That one.
    pub fn check(self) -> Result<(), E> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Where a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// After the last key of the range.
    All,
    /// The visitor stopped it at this row key, which it has seen; a range from the one behind it goes on.
    StoppedAt(Vec<u8>),
}

impl Scanned {
    /// The range that continues a stopped scan of a range ending at `until`.
    pub fn rest(self, until: Option<Vec<u8>>) -> Option<KeyRange> {
        match self {
            Self::All => None,
            Self::StoppedAt(mut key) => {
                // The least key after this one: nothing stands between a key and itself with a zero byte added.
                key.push(0);
                Some(KeyRange { from: Some(key), until })
            }
        }
    }
}

/// All rows as of one seq, however much is written meanwhile.
pub struct Cut {
    seq: Seq,
    /// Must be dropped before `shared`: see `drop`.
    snapshot: ManuallyDrop<SnapshotWithThreadMode<'static, Database>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl Drop for Cut {
    #[expect(unsafe_code, reason = "the proof stands beside it")]
    fn drop(&mut self) {
        // SAFETY: `snapshot` is dropped here and nowhere else, and is not used again. `shared`, which owns the database
        // that the snapshot points into, is a field and so is dropped only after this body.
        unsafe { ManuallyDrop::drop(&mut self.snapshot) }
        let mut cuts = self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = cuts.get_mut(&self.seq) {
            *held -= 1;
            if *held == 0 {
                cuts.remove(&self.seq);
            }
        }
    }
}

impl Cut {
    #[expect(unsafe_code, reason = "the proof stands beside it")]
    pub(crate) fn take(shared: &Arc<Shared>) -> Result<Self> {
        // IMPORTANT: held from before the snapshot until it is listed: who asks for the oldest cut misses none.
        let mut cuts = shared.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = shared.database.snapshot();
        // SAFETY: only the lifetime changes. The snapshot borrows `shared.database`, which stands inside an `Arc`'s
        // allocation and so does not move; this struct holds a clone of that `Arc` for as long as the snapshot, and drops
        // the snapshot first. The field is private and is never handed out with its made-up lifetime.
        let snapshot = unsafe {
            std::mem::transmute::<
                SnapshotWithThreadMode<'_, Database>,
                SnapshotWithThreadMode<'static, Database>,
            >(snapshot)
        };
        let seq = read_applied_seq(|key| snapshot.get(key))?;
        *cuts.entry(seq).or_default() += 1;
        Ok(Self { seq, snapshot: ManuallyDrop::new(snapshot), shared: Arc::clone(shared) })
    }

    /// The last event the cut contains.
    pub const fn seq(&self) -> Seq {
        self.seq
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
        let full = full_key(partition, key);
        let found = self
            .snapshot
            .get_pinned_cf(&self.shared.family(keyspace)?, full)
            .map_err(|source| Error::Engine { action: "read a row", source })?;
        match found {
            Some(value) => StoredRow::decode(&value).map(|row| Some(read(row))),
            None => self.get_cold(partition, key, read),
        }
    }

    /// The cold row of this key, tombstones included, handed to `read`: whether or not the hot tier hides it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn get_cold<T>(
        &self,
        partition: &Partition,
        key: &[u8],
        read: impl FnOnce(StoredRow<'_>) -> T,
    ) -> Result<Option<T>> {
        let prefix = partition_prefix(partition);
        // A key above all that ever were in a file is not looked for in any.
        match cold_state(&self.shared, self, &prefix)? {
            Some(state) if state.highest_key.as_slice() >= key => {}
            _ => return Ok(None),
        }
        let manifest = manifest(&self.shared, self, &prefix)?;
        manifest.map_or(Ok(None), |manifest| get_cold(&self.shared, &manifest, key, read))
    }

    /// The cold files of a partition; none where it has no cold rows.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn manifest(&self, partition: &Partition) -> Result<Option<Arc<Manifest>>> {
        manifest(&self.shared, self, &partition_prefix(partition))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Where cold files are.
    pub(crate) fn cold_files(&self) -> &ColdFiles {
        &self.shared.cold_files
    }

    /// A cold file that a manifest lists.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was written.
    pub fn open_file(&self, listed: &ColdFile) -> Result<Arc<OpenFile>> {
        self.shared.cold_files.file(listed)
    }

    /// Hands the rows of a partition in both tiers to `visit` in key order, each key once, tombstones included, until it
    /// breaks.
    ///
    /// # Errors
    /// Where a tier cannot be read, or a record is damaged.
    pub fn scan(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        self.scan_with(keyspace, partition, range, ColdScan::default(), visit)
    }

    /// As [`Cut::scan`], with what need not be read of cold files.
    ///
    /// # Errors
    /// As [`Cut::scan`].
    pub fn scan_with(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        cold: ColdScan<'_>,
        mut visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        let prefix = partition_prefix(partition);
        let Some(manifest) = manifest(&self.shared, self, &prefix)? else {
            return self.scan_prefix(keyspace, &prefix, range, visit);
        };
        let hot = |visit: &mut dyn FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>| {
            self.scan_prefix(keyspace, &prefix, range, visit)
        };
        scan_both(&self.shared, &manifest, range, cold, hot, &mut visit)
    }

    /// The hot rows of a partition; see [`Cut::scan`].
    ///
    /// # Errors
    /// As [`Cut::scan`].
    pub fn scan_hot(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        self.scan_prefix(keyspace, &partition_prefix(partition), range, visit)
    }

    /// As [`Cut::scan_hot`], for who takes the rows away: they need not be kept in memory for the next reader.
    pub(crate) fn scan_hot_once(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        let prefix = partition_prefix(partition);
        let Some((from, mut options)) = bounds_of(&prefix, range) else { return Ok(Scanned::All) };
        options.fill_cache(false);
        self.scan_bounded(keyspace, &prefix, &from, options, visit)
    }

    /// A key of a range from which on a partition has about so many rows in both tiers, tombstones and hidden ones among them;
    /// none where it has no more than that. For reading a range from its end.
    ///
    /// # Errors
    /// As [`Cut::scan`].
    pub fn key_before_end(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        rows: usize,
    ) -> Result<Option<Vec<u8>>> {
        let prefix = partition_prefix(partition);
        let hot = self.hot_key_before_end(keyspace, &prefix, range, rows)?;
        match manifest(&self.shared, self, &prefix)? {
            Some(manifest) => cold_key_before_end(&self.shared, &manifest, range, rows, hot),
            None => Ok(hot),
        }
    }

    fn hot_key_before_end(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        range: &KeyRange,
        rows: usize,
    ) -> Result<Option<Vec<u8>>> {
        let Some((from, options)) = bounds_of(prefix, range) else { return Ok(None) };
        let mut keys = self.snapshot.raw_iterator_cf_opt(&self.shared.family(keyspace)?, options);
        keys.seek_to_last();
        let mut found = None;
        for left in (0..rows).rev() {
            let Some(key) = keys.key().filter(|key| *key >= from.as_slice()) else { break };
            if left == 0 {
                found = Some(key.get(prefix.len()..).unwrap_or_default().to_vec());
            }
            keys.prev();
        }
        keys.status().map_err(|source| Error::Engine { action: "scan rows", source })?;
        Ok(found)
    }

    /// The partitions of a table that have hot rows, tombstones included.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn hot_partitions(&self, keyspace: Keyspace, table: TableId) -> Result<Vec<Partition>> {
        let mut found = Vec::new();
        let mut rows = self.snapshot.raw_iterator_cf(&self.shared.family(keyspace)?);
        rows.seek(table_prefix(table));
        while let Some(key) = rows.key().filter(|key| key.starts_with(&table_prefix(table))) {
            let partition = partition_of(key)?;
            let end = prefix_end(&partition_prefix(&partition));
            found.push(partition);
            rows.seek(end);
        }
        rows.status().map_err(|source| Error::Engine { action: "scan rows", source })?;
        Ok(found)
    }

    /// The partitions of a table that have rows in either tier, tombstones included, or had some in files.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn partitions(&self, keyspace: Keyspace, table: TableId) -> Result<BTreeSet<Partition>> {
        let mut found: BTreeSet<_> = self.hot_partitions(keyspace, table)?.into_iter().collect();
        each_state(&self.shared, self, &table_prefix(table), |partition, _| {
            found.insert(partition);
        })?;
        Ok(found)
    }

    /// The rows of one user in a USER table; see [`Cut::scan`].
    ///
    /// # Errors
    /// As [`Cut::scan`].
    pub fn scan_user(
        &self,
        table: TableId,
        user: &UserId,
        visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        let partition = Partition::of_user(table, user.clone());
        self.scan(Keyspace::User, &partition, &KeyRange::default(), visit)
    }

    /// All hot rows of a table, of every partition: for counting and checking, never on behalf of a user. The key handed
    /// to `visit` begins with the partition's user.
    ///
    /// # Errors
    /// As [`Cut::scan`].
    pub fn scan_table(
        &self,
        keyspace: Keyspace,
        table: TableId,
        visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        self.scan_prefix(keyspace, &table_prefix(table), &KeyRange::default(), visit)
    }

    fn scan_prefix(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        range: &KeyRange,
        visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        let Some((from, options)) = bounds_of(prefix, range) else { return Ok(Scanned::All) };
        self.scan_bounded(keyspace, prefix, &from, options, visit)
    }

    /// From a full key on, to the bound of the options.
    fn scan_bounded(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        from: &[u8],
        options: ReadOptions,
        mut visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        let mut rows = self.snapshot.raw_iterator_cf_opt(&self.shared.family(keyspace)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            let key = key.get(prefix.len()..).unwrap_or_default();
            if visit(key, StoredRow::decode(value)?).is_break() {
                return Ok(Scanned::StoppedAt(key.to_vec()));
            }
            rows.next();
        }
        rows.status().map_err(|source| Error::Engine { action: "scan rows", source })?;
        Ok(Scanned::All)
    }
}

/// Where a range of keys below a prefix begins, and what bounds it; none where it is empty.
fn bounds_of(prefix: &[u8], range: &KeyRange) -> Option<(Vec<u8>, ReadOptions)> {
    let bound = |key: &Vec<u8>| [prefix, key].concat();
    let from = range.from.as_ref().map_or_else(|| prefix.to_vec(), bound);
    let until = range.until.as_ref().map_or_else(|| prefix_end(prefix), bound);
    if !until.is_empty() && from >= until {
        return None;
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from.clone());
    if !until.is_empty() {
        options.set_iterate_upper_bound(until);
    }
    Some((from, options))
}

impl Look for Cut {
    fn get(&self, shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.snapshot.get_cf(&shared.manifests_family()?, key);
        found.map_err(|source| Error::Engine { action: "read a manifest", source })
    }

    fn each(&self, shared: &Shared, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let family = shared.manifests_family()?;
        for entry in self.snapshot.iterator_cf_opt(&family, below(prefix), IteratorMode::Start) {
            let (key, value) = entry.map_err(|source| Error::Engine { action: "read a manifest", source })?;
            visit(&key, &value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
