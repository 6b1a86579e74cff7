//! How many live rows each partition and each table has, and their bytes, without reading the rows.
//!
//! The numbers are a projection like the rows: they follow from the events and stand in a column family of their own. A
//! record's key is the prefix of the rows it counts: a partition's, or a table's alone for all of its partitions. None stands
//! for no rows. Beside them stands which event took all rows of a table.
//!
//! What changes is kept in memory and written before each flush, with the event up to which it counts: nothing that is not
//! flushed outlives the process, so more would be written for nothing. Where the files say another event than the rows' do
//! (RocksDB flushed by itself), everything is counted anew at the start.
//!
//! Events tell what they add and take away; how many rows an eviction takes is counted over what it takes, once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use log_format::{LiveRows, Seq, TableId};
use rocksdb::{IteratorMode, ReadOptions, WriteBatch};

use crate::cold::{cold_partitions, each_live_cold_row};
use crate::error::{Error, Result};
use crate::keyspace::{
    Keyspace, StoredRow, partition_of_key, prefix_end, row_bytes, table_of_prefix, table_prefix,
};
use crate::store::Shared;

/// Partitions and tables whose numbers are kept in memory at the most, some 25 MiB: those of a hundred thousand users with one table,
/// and of another batch before the hash table would double.
const SLOTS_MAX: usize = 110_000;
/// Partitions written at a time when everything is counted anew.
const RECOUNT_PARTITIONS: usize = 4096;
/// The event up to which the numbers that are written count.
const COUNTED_KEY: &[u8] = b"counted_seq";

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

    /// Of rows that stay and are moved to the cold tier.
    pub(crate) fn to_cold(rows: LiveRows) -> Self {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self { cold_rows: signed(rows.rows), cold_bytes: signed(rows.bytes), ..Self::default() }
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
    /// Whether the database has other numbers.
    is_unwritten: bool,
    /// The database has no row of this stream before this key: where the next eviction begins to count.
    evicted_until: Option<[u8; 16]>,
    /// The least key that the batch appends to this stream.
    least_appended: Option<[u8; 16]>,
    /// No event after this one wrote a row of the partition. Flushes do not count, nor what streams do.
    written_at: Seq,
}

/// A stream row that is in the batch and not yet in the database.
#[derive(Debug)]
struct Appended {
    partition: Arc<[u8]>,
    key: [u8; 16],
    bytes: usize,
}

/// The counts of what was written lately, and what the batch that is being made changes. Belongs to the one who applies.
#[derive(Debug)]
pub(crate) struct Counters {
    slots: HashMap<Arc<[u8]>, Slot, RandomState>,
    /// The last event that wrote a row.
    written_at: Seq,
    /// No event after this one wrote rows of partitions without a slot, or took all of a table.
    others_written_at: Seq,
    // Of the batch that is being made:
    touched: Vec<Arc<[u8]>>,
    /// Tables that lost all their rows: what the database says of their partitions no longer holds.
    cleared: Vec<TableId>,
    appended: Vec<Appended>,
}

impl Counters {
    /// Where this event was the last that was applied.
    pub(crate) fn new(applied: Seq) -> Self {
        Self {
            slots: HashMap::default(),
            written_at: applied,
            others_written_at: applied,
            touched: Vec::new(),
            cleared: Vec::new(),
            appended: Vec::new(),
        }
    }

    /// The slot of a partition or table that the batch changes.
    fn touch(&mut self, shared: &Shared, prefix: &[u8]) -> Result<(Arc<[u8]>, &mut Slot)> {
        if !self.slots.contains_key(prefix) {
            let is_cleared = table_of_prefix(prefix).is_some_and(|table| self.cleared.contains(&table));
            let now = if is_cleared { Counts::default() } else { Counts::read(shared, prefix)? };
            let slot = Slot {
                now,
                before: now,
                is_touched: false,
                is_unwritten: false,
                evicted_until: None,
                least_appended: None,
                written_at: self.others_written_at,
            };
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

    /// An event wrote a row of a partition, which came, changed or went.
    pub(crate) fn write_row(
        &mut self,
        shared: &Shared,
        partition: &[u8],
        seq: Seq,
        delta: Delta,
    ) -> Result<()> {
        self.written_at = seq;
        // The usual case costs one look: the partition was written to in this batch already.
        if let Some(slot) = self.slots.get_mut(partition).filter(|slot| slot.is_touched) {
            (slot.now, slot.written_at) = (slot.now.with(delta), seq);
            return Ok(());
        }
        let (_, slot) = self.touch(shared, partition)?;
        (slot.now, slot.written_at) = (slot.now.with(delta), seq);
        Ok(())
    }

    /// Whether rows of a partition may have been written after this event. Told only of what was applied before the batch.
    pub(crate) fn may_be_written_since(&self, partition: &[u8], seq: Seq) -> bool {
        self.slots.get(partition).map_or(self.others_written_at, |slot| slot.written_at) > seq
    }

    /// Rows of a partition or table came, went or were moved.
    pub(crate) fn add(&mut self, shared: &Shared, partition: &[u8], delta: Delta) -> Result<()> {
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

    /// An event takes all rows of a table.
    pub(crate) fn clear(&mut self, table: TableId, seq: Seq) {
        (self.written_at, self.others_written_at) = (seq, seq);
        let prefix = table_prefix(table);
        self.slots.retain(|key, _| !key.starts_with(&prefix));
        self.touched.retain(|key| !key.starts_with(&prefix));
        self.appended.retain(|row| !row.partition.starts_with(&prefix));
        self.cleared.push(table);
    }

    /// The numbers of a partition or table; none where the database has them.
    pub(crate) fn get(&self, prefix: &[u8]) -> Option<Counts> {
        self.slots.get(prefix).map(|slot| slot.now)
    }

    /// Ends the batch: adds up what it did to its tables. Where too much is in memory, all of it goes into the batch.
    pub(crate) fn finish(&mut self, shared: &Shared, writes: &mut WriteBatch) -> Result<()> {
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
        for key in self.touched.drain(..) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            slot.is_touched = false;
            slot.is_unwritten = true;
            if let Some(least) = slot.least_appended.take() {
                slot.evicted_until = slot.evicted_until.map(|until| until.min(least));
            }
        }
        self.cleared.clear();
        self.appended.clear();
        if self.slots.len() > SLOTS_MAX {
            self.write(shared, writes)?;
            self.slots.clear();
            self.others_written_at = self.written_at;
        }
        Ok(())
    }

    /// Puts into a batch what the database does not have yet.
    fn write(&mut self, shared: &Shared, writes: &mut WriteBatch) -> Result<()> {
        let family = shared.counts_family()?;
        for (key, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.is_unwritten) {
            slot.is_unwritten = false;
            if slot.now == Counts::default() {
                writes.delete_cf(&family, key);
            } else {
                writes.put_cf(&family, key, slot.now.encode());
            }
        }
        Ok(())
    }

    /// Writes everything, which counts up to this event. For before a flush.
    pub(crate) fn persist(&mut self, shared: &Shared, seq: Seq) -> Result<()> {
        let mut writes = WriteBatch::default();
        self.write(shared, &mut writes)?;
        writes.put(COUNTED_KEY, seq.get().to_le_bytes());
        shared.write(writes)
    }

    /// Nothing of the batch that was being made has been written: nothing is applied any more.
    pub(crate) fn forget(&mut self) {
        for key in self.touched.drain(..) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.now = slot.before;
                slot.is_touched = false;
                (slot.evicted_until, slot.least_appended) = (None, None);
            }
        }
        self.cleared.clear();
        self.appended.clear();
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

/// Counts everything where what is written counts up to another event than the rows have: in a database of before, or where
/// RocksDB flushed by itself.
pub(crate) fn count_anew_if_needed(shared: &Shared, applied: Seq) -> Result<()> {
    let counted = shared
        .database
        .get_pinned(COUNTED_KEY)
        .map_err(|source| Error::Engine { action: "read row counts", source })?;
    if counted.is_some_and(|seq| *seq == applied.get().to_le_bytes()) {
        return Ok(());
    }
    tracing::info!(%applied, "counting all rows");
    forget_all(shared)?;
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
    put_all(shared, partitions.into_iter(), |_| {})?;
    for partition in cold_partitions(shared)? {
        let mut cold = Delta::default();
        each_live_cold_row(shared, &partition, |row| {
            cold = cold.plus(Delta::of_row(1, row.row).in_tier(Tier::Cold));
        })?;
        let of_table = tables.entry(partition_of_key(&partition)?.0).or_default();
        *of_table = of_table.with(cold);
        let counts = Counts::read(shared, &partition)?.with(cold);
        put_all(shared, std::iter::once((partition, counts)), |_| {})?;
    }
    let tables = tables.into_iter().map(|(table, counts)| (table_prefix(table).to_vec(), counts));
    let seq = applied.get().to_le_bytes();
    put_all(shared, tables, |writes| writes.put(COUNTED_KEY, seq))
}

/// Takes all counts out of the database, but for what tells when tables were truncated.
fn forget_all(shared: &Shared) -> Result<()> {
    let (mut writes, family) = (WriteBatch::default(), shared.counts_family()?);
    for record in shared.database.iterator_cf(&family, IteratorMode::Start) {
        let (key, _) = record.map_err(|source| Error::Engine { action: "read row counts", source })?;
        if !is_truncated_key(&key) {
            writes.delete_cf(&family, key);
        }
    }
    shared.write(writes)
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

fn is_truncated_key(key: &[u8]) -> bool {
    key.len() == table_prefix(TableId::new(0)).len() + 1
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
