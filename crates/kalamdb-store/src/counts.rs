//! How many live rows each partition and each table has, and their bytes, without reading the rows.
//!
//! The numbers are a projection like the rows: they follow from the events, stand in a column family of their own, and are
//! written in the batch that writes the rows. A record's key is the prefix of the rows it counts: a partition's, or a
//! table's alone for all of its partitions. None stands for no rows. Beside them stands which event took all rows of a table.
//!
//! Events tell what they add and take away; how many rows an eviction takes is counted over what it takes, once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use log_format::{Seq, TableId};
use rocksdb::{IteratorMode, ReadOptions, WriteBatch};

use crate::error::{Error, Result};
use crate::keyspace::{
    Keyspace, StoredRow, partition_of_key, prefix_end, row_bytes, table_of_prefix, table_prefix,
};
use crate::store::Shared;

/// Partitions and tables whose numbers are kept in memory at the most.
const SLOTS_MAX: usize = 1 << 16;
/// Partitions written at a time when everything is counted anew.
const RECOUNT_PARTITIONS: usize = 4096;
/// Stands where the numbers are complete.
const COUNTED_KEY: &[u8] = b"rows_are_counted";

/// Live rows: those that are there and not deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many.
    pub rows: u64,
    /// The bytes of their rows as the events hold them, without keys.
    pub bytes: u64,
    /// How many of them the cold tier has.
    pub cold_rows: u64,
    /// The bytes of those.
    pub cold_bytes: u64,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Hot,
    Cold,
}

/// What is added to counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delta {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    cold_rows: i64,
    cold_bytes: i64,
}

impl Delta {
    /// Of a row that came, or went.
    pub(crate) fn of_row(rows: i64, row: &[u8]) -> Self {
        Self { rows, bytes: rows * signed(row.len()), ..Self::default() }
    }

    /// Of a row that stays and is moved to the cold tier.
    pub(crate) fn to_cold(row: &[u8]) -> Self {
        Self { cold_rows: 1, cold_bytes: signed(row.len()), ..Self::default() }
    }

    /// The same of rows in this tier.
    pub(crate) const fn in_tier(self, tier: Tier) -> Self {
        match tier {
            Tier::Hot => self,
            Tier::Cold => Self { cold_rows: self.rows, cold_bytes: self.bytes, ..self },
        }
    }

    /// Both together.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            cold_rows: self.cold_rows + other.cold_rows,
            cold_bytes: self.cold_bytes + other.cold_bytes,
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Counts {
    fn with(self, delta: Delta) -> Self {
        Self {
            rows: self.rows.saturating_add_signed(delta.rows),
            bytes: self.bytes.saturating_add_signed(delta.bytes),
            cold_rows: self.cold_rows.saturating_add_signed(delta.cold_rows),
            cold_bytes: self.cold_bytes.saturating_add_signed(delta.cold_bytes),
        }
    }

    fn since(self, before: Self) -> Delta {
        Delta {
            rows: self.rows.wrapping_sub(before.rows).cast_signed(),
            bytes: self.bytes.wrapping_sub(before.bytes).cast_signed(),
            cold_rows: self.cold_rows.wrapping_sub(before.cold_rows).cast_signed(),
            cold_bytes: self.cold_bytes.wrapping_sub(before.cold_bytes).cast_signed(),
        }
    }

    fn encode(self) -> [u8; 32] {
        let mut value = [0; 32];
        let numbers = [self.rows, self.bytes, self.cold_rows, self.cold_bytes];
        for (slot, number) in value.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *slot = number.to_le_bytes();
        }
        value
    }

    fn decode(value: &[u8]) -> Result<Self> {
        const DAMAGED: Error = Error::Damaged { what: "row counts" };
        let (numbers, []) = value.as_chunks::<8>() else { return Err(DAMAGED) };
        let number = |number: &[u8; 8]| u64::from_le_bytes(*number);
        match numbers {
            // What a database of before has: all rows are hot.
            [rows, bytes] => Ok(Self { rows: number(rows), bytes: number(bytes), ..Self::default() }),
            [rows, bytes, cold_rows, cold_bytes] => Ok(Self {
                rows: number(rows),
                bytes: number(bytes),
                cold_rows: number(cold_rows),
                cold_bytes: number(cold_bytes),
            }),
            _ => Err(DAMAGED),
        }
    }

    /// The counts of the rows whose keys begin with this prefix: a partition's or a table's.
    pub(crate) fn read(shared: &Shared, prefix: &[u8]) -> Result<Self> {
        let found = shared
            .database
            .get_pinned_cf(&shared.counts_family()?, prefix)
            .map_err(|source| Error::Engine { action: "read row counts", source })?;
        found.map_or(Ok(Self::default()), |value| Self::decode(&value))
    }
}

/// A partition's counts, or a table's.
#[derive(Debug)]
struct Slot {
    now: Counts,
    /// Before the batch that is being made.
    before: Counts,
    is_touched: bool,
    /// The database has no row of this stream before this key: where the next eviction begins to count.
    evicted_until: Option<[u8; 16]>,
    /// The least key that the batch appends to this stream.
    least_appended: Option<[u8; 16]>,
}

/// A stream row that is in the batch and not yet in the database.
#[derive(Debug)]
struct Appended {
    partition: Arc<[u8]>,
    key: [u8; 16],
    bytes: usize,
}

/// The counts of what was written lately, and what the batch that is being made changes. Belongs to the one who applies.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    slots: HashMap<Arc<[u8]>, Slot>,
    // Of the batch that is being made:
    touched: Vec<Arc<[u8]>>,
    /// Tables that lost all their rows: what the database says of their partitions no longer holds.
    cleared: Vec<TableId>,
    appended: Vec<Appended>,
}

impl Counters {
    /// The slot of a partition or table that the batch changes.
    fn touch(&mut self, shared: &Shared, prefix: &[u8]) -> Result<(Arc<[u8]>, &mut Slot)> {
        if !self.slots.contains_key(prefix) {
            let is_cleared = table_of_prefix(prefix).is_some_and(|table| self.cleared.contains(&table));
            let now = if is_cleared { Counts::default() } else { Counts::read(shared, prefix)? };
            let slot =
                Slot { now, before: now, is_touched: false, evicted_until: None, least_appended: None };
            self.slots.insert(Arc::from(prefix), slot);
        }
        let known = self.slots.get_key_value(prefix).map(|(key, _)| Arc::clone(key));
        let (Some(key), Some(slot)) = (known, self.slots.get_mut(prefix)) else {
            return Err(Error::Damaged { what: "row counts" });
        };
        if !slot.is_touched {
            slot.is_touched = true;
            slot.before = slot.now;
            self.touched.push(Arc::clone(&key));
        }
        Ok((key, slot))
    }

    /// Rows of a partition came, changed or went.
    pub(crate) fn add(&mut self, shared: &Shared, partition: &[u8], delta: Delta) -> Result<()> {
        // The usual case costs one look: the partition was written to in this batch already.
        if let Some(slot) = self.slots.get_mut(partition).filter(|slot| slot.is_touched) {
            slot.now = slot.now.with(delta);
            return Ok(());
        }
        let (_, slot) = self.touch(shared, partition)?;
        slot.now = slot.now.with(delta);
        Ok(())
    }

    /// A stream row came.
    pub(crate) fn append(
        &mut self,
        shared: &Shared,
        partition: &[u8],
        key: [u8; 16],
        row: &[u8],
    ) -> Result<()> {
        let (partition, slot) = self.touch(shared, partition)?;
        slot.now = slot.now.with(Delta::of_row(1, row));
        slot.least_appended = Some(slot.least_appended.map_or(key, |least| least.min(key)));
        self.appended.push(Appended { partition, key, bytes: row.len() });
        Ok(())
    }

    /// The stream rows of a partition before a key go.
    pub(crate) fn evict(&mut self, shared: &Shared, partition: &[u8], until: [u8; 16]) -> Result<()> {
        let (name, slot) = self.touch(shared, partition)?;
        let from = slot.evicted_until.replace(until).unwrap_or_default();
        slot.evicted_until = slot.evicted_until.max(Some(from));
        let mut gone = Delta::default();
        let is_cleared = table_of_prefix(partition).is_some_and(|table| self.cleared.contains(&table));
        if from < until && !is_cleared {
            gone = stored_between(shared, partition, &from, &until)?;
        }
        self.appended.retain(|row| {
            let goes = row.key < until && *row.partition == *name;
            if goes {
                gone.rows += 1;
                gone.bytes += signed(row.bytes);
            }
            !goes
        });
        self.add(shared, partition, Delta { rows: -gone.rows, bytes: -gone.bytes, ..Delta::default() })
    }

    /// All rows of a table go.
    pub(crate) fn clear(&mut self, table: TableId) {
        let prefix = table_prefix(table);
        self.slots.retain(|key, _| !key.starts_with(&prefix));
        self.touched.retain(|key| !key.starts_with(&prefix));
        self.appended.retain(|row| !row.partition.starts_with(&prefix));
        self.cleared.push(table);
    }

    /// Puts what changed into the batch, behind everything else that is in it.
    pub(crate) fn write(&mut self, shared: &Shared, writes: &mut WriteBatch) -> Result<()> {
        let mut tables: BTreeMap<[u8; 8], Delta> = BTreeMap::new();
        for partition in &self.touched {
            let Some(slot) = self.slots.get(partition) else { continue };
            let delta = slot.now.since(slot.before);
            if let Some((table, _)) = partition.split_first_chunk::<8>() {
                let of_table = tables.entry(*table).or_default();
                *of_table = of_table.plus(delta);
            }
        }
        for (table, delta) in tables {
            self.add(shared, &table, delta)?;
        }
        let family = shared.counts_family()?;
        for key in self.touched.drain(..) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            slot.is_touched = false;
            if let Some(least) = slot.least_appended.take() {
                slot.evicted_until = slot.evicted_until.map(|until| until.min(least));
            }
            if slot.now == Counts::default() {
                writes.delete_cf(&family, &key);
            } else {
                writes.put_cf(&family, &key, slot.now.encode());
            }
        }
        self.cleared.clear();
        self.appended.clear();
        if self.slots.len() > SLOTS_MAX {
            self.slots.clear();
        }
        Ok(())
    }

    /// Nothing of the batch that was being made has been written.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The stream rows of a partition from one key to another that the database has.
fn stored_between(shared: &Shared, partition: &[u8], from: &[u8], until: &[u8]) -> Result<Delta> {
    let mut range = ReadOptions::default();
    range.set_iterate_lower_bound([partition, from].concat());
    range.set_iterate_upper_bound([partition, until].concat());
    let mut found = Delta::default();
    let family = shared.family(Keyspace::Stream)?;
    for row in shared.database.iterator_cf_opt(&family, range, IteratorMode::Start) {
        let (_, value) = row.map_err(|source| Error::Engine { action: "count rows", source })?;
        found.rows += 1;
        found.bytes += signed(row_bytes(&value)?);
    }
    Ok(found)
}

/// Counts everything, where that was never done: what a database of before has, or one that is new.
pub(crate) fn count_all_once(shared: &Shared) -> Result<()> {
    let counted = shared
        .database
        .get_pinned(COUNTED_KEY)
        .map_err(|source| Error::Engine { action: "read row counts", source })?;
    if counted.is_some() {
        return Ok(());
    }
    let mut tables: BTreeMap<TableId, Counts> = BTreeMap::new();
    let mut partitions: Vec<(Vec<u8>, Counts)> = Vec::new();
    for keyspace in Keyspace::ALL {
        let rows = shared.database.iterator_cf(&shared.family(keyspace)?, IteratorMode::Start);
        for row in rows {
            let (key, value) = row.map_err(|source| Error::Engine { action: "count rows", source })?;
            let row = StoredRow::decode(&value)?;
            if row.deleted {
                continue;
            }
            let (table, partition) = partition_of_key(&key)?;
            let delta = Delta::of_row(1, row.row);
            let of_table = tables.entry(table).or_default();
            *of_table = of_table.with(delta);
            match partitions.last_mut().filter(|(last, _)| last == partition) {
                Some((_, counts)) => *counts = counts.with(delta),
                None => {
                    if partitions.len() == RECOUNT_PARTITIONS {
                        put_all(shared, partitions.drain(..), |_| {})?;
                    }
                    partitions.push((partition.to_vec(), Counts::default().with(delta)));
                }
            }
        }
    }
    let tables = tables.into_iter().map(|(table, counts)| (table_prefix(table).to_vec(), counts));
    put_all(shared, partitions.into_iter().chain(tables), |writes| writes.put(COUNTED_KEY, []))
}

fn put_all(
    shared: &Shared,
    counts: impl Iterator<Item = (Vec<u8>, Counts)>,
    more: impl FnOnce(&mut WriteBatch),
) -> Result<()> {
    let mut writes = WriteBatch::default();
    let family = shared.counts_family()?;
    for (prefix, counts) in counts {
        writes.put_cf(&family, prefix, counts.encode());
    }
    more(&mut writes);
    shared.write(writes)
}

/// Takes a table's counts out of the database, as part of a batch.
pub(crate) fn delete_table_counts(shared: &Shared, writes: &mut WriteBatch, table: TableId) -> Result<()> {
    let prefix = table_prefix(table);
    writes.delete_range_cf(&shared.counts_family()?, prefix.to_vec(), prefix_end(&prefix));
    Ok(())
}

/// The key that tells when a table was truncated. No partition's prefix is as short.
fn truncated_key(table: TableId) -> Vec<u8> {
    [table_prefix(table).as_slice(), &[0]].concat()
}

/// Notes, as part of a batch, which event took all rows of a table.
pub(crate) fn put_truncated_at(
    shared: &Shared,
    writes: &mut WriteBatch,
    table: TableId,
    seq: Seq,
) -> Result<()> {
    writes.put_cf(&shared.counts_family()?, truncated_key(table), seq.get().to_le_bytes());
    Ok(())
}

/// The event that last took all rows of a table; zero where none ever did.
pub(crate) fn truncated_at(shared: &Shared, table: TableId) -> Result<Seq> {
    let found = shared
        .database
        .get_cf(&shared.counts_family()?, truncated_key(table))
        .map_err(|source| Error::Engine { action: "read when a table was truncated", source })?;
    found.map_or(Ok(Seq::ZERO), |bytes| {
        let bytes = bytes.try_into().map_err(|_| Error::Damaged { what: "truncation" })?;
        Ok(Seq::new(u64::from_le_bytes(bytes)))
    })
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
