//! Writing: the typed calls on a batch. A batch exists only inside [`crate::Store::apply`].

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;

use ahash::RandomState;
use log_format::{ArchivedChangeEvent as Event, ArchivedPartition, Partition, Seq, TableId};
use rocksdb::{BoundColumnFamily, WriteBatch};

use crate::counts::{Counters, Delta, Tier, delete_table_counts, put_truncated_at};
use crate::error::{Error, Result};
use crate::keyspace::{
    Keyspace, StoredRow, full_key, partition_prefix, prefix_end, stream_key, table_prefix, write_full_key,
};
use crate::store::Shared;

/// What one group of commits changes, written all at once.
pub struct Batch<'s> {
    pub(crate) shared: &'s Shared,
    families: [Arc<BoundColumnFamily<'s>>; 3],
    pub(crate) counters: &'s mut Counters,
    /// Keys of rows that the batch puts, in tables with cold files.
    pub(crate) put_here: HashSet<Vec<u8>, RandomState>,
    pub(crate) writes: WriteBatch,
    /// Where keys and values are put together, so that a row costs no allocation of its own.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("writes", &self.writes.len()).finish_non_exhaustive()
    }
}

/// Names a keyspace in a type.
pub trait Rows {
    /// The keyspace.
    const KEYSPACE: Keyspace;
}

macro_rules! rows {
    ($($name:ident => $keyspace:ident),*) => {$(
        #[doc = concat!("Names [`Keyspace::", stringify!($keyspace), "`] in a type.")]
        #[derive(Debug)]
        pub struct $name;

        impl Rows for $name {
            const KEYSPACE: Keyspace = Keyspace::$keyspace;
        }
    )*};
}

rows!(UserRows => User, SharedRows => Shared, StreamRows => Stream);

/// The rows of one kind of table, within a batch.
pub struct TableStore<'b, 's, R: Rows> {
    batch: &'b mut Batch<'s>,
    rows: PhantomData<R>,
}

/// Rows of USER tables.
pub type UserTableStore<'b, 's> = TableStore<'b, 's, UserRows>;
/// Rows of SHARED tables.
pub type SharedTableStore<'b, 's> = TableStore<'b, 's, SharedRows>;
/// Rows of STREAM tables.
pub type StreamTableStore<'b, 's> = TableStore<'b, 's, StreamRows>;

impl<'s> Batch<'s> {
    /// An empty batch with room for about that many bytes.
    pub(crate) fn new(shared: &'s Shared, counters: &'s mut Counters, bytes: usize) -> Result<Self> {
        let [user, shared_rows, stream] = Keyspace::ALL;
        let families = [shared.family(user)?, shared.family(shared_rows)?, shared.family(stream)?];
        let writes = WriteBatch::with_capacity_bytes(bytes);
        Ok(Self {
            shared,
            families,
            counters,
            put_here: HashSet::default(),
            writes,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// All there is to write, counts included.
    pub(crate) fn finish(mut self) -> Result<WriteBatch> {
        self.counters.finish(self.shared, &mut self.writes)?;
        Ok(self.writes)
    }

    /// Rows of USER tables.
    pub const fn users(&mut self) -> UserTableStore<'_, 's> {
        TableStore { batch: self, rows: PhantomData }
    }

    /// Rows of SHARED tables.
    pub const fn shared(&mut self) -> SharedTableStore<'_, 's> {
        TableStore { batch: self, rows: PhantomData }
    }

    /// Rows of STREAM tables.
    pub const fn streams(&mut self) -> StreamTableStore<'_, 's> {
        TableStore { batch: self, rows: PhantomData }
    }

    /// Takes over what one event changes. Events of the catalog change no rows, but for a table that is dropped or
    /// truncated.
    pub(crate) fn apply(&mut self, seq: Seq, commit_time: i64, event: &Event) -> Result<()> {
        match event {
            Event::RowInserted(event) => {
                self.comes_from(&event.partition, &event.key)?;
                self.put_row(&event.partition.to_partition(), &event.key, seq, commit_time, &event.row);
                self.count(&event.key, seq, Delta::of_row(1, &event.row))
            }
            Event::RowUpdated(event) => {
                let from = self.comes_from(&event.partition, &event.key)?;
                self.put_row(&event.partition.to_partition(), &event.key, seq, commit_time, &event.new);
                let gone = Delta::of_row(-1, &event.old).in_tier(from);
                self.count(&event.key, seq, Delta::of_row(1, &event.new).plus(gone))
            }
            Event::RowDeleted(event) => {
                let from = self.comes_from(&event.partition, &event.key)?;
                let partition = event.partition.to_partition();
                let tombstone = StoredRow { seq, updated: commit_time, deleted: true, row: &event.old };
                match partition.user {
                    Some(_) => self.users().put(&partition, &event.key, &tombstone),
                    None => self.shared().put(&partition, &event.key, &tombstone),
                }
                self.count(&event.key, seq, Delta::of_row(-1, &event.old).in_tier(from))
            }
            Event::StreamAppended(event) => {
                let row = StoredRow { seq, updated: commit_time, deleted: false, row: &event.row };
                let key = stream_key(commit_time, seq);
                self.streams().put(&event.partition.to_partition(), &key, &row);
                let Self { shared, counters, key: full, .. } = self;
                counters.append(shared, partition_part(full, &key), key, &event.row)
            }
            Event::StreamEvicted(event) => {
                let (before_time, before_seq) =
                    (event.before_time.to_native(), Seq::new(event.before_seq.to_native()));
                let partition = event.partition.to_partition();
                self.streams().evict_older_than(&partition, before_time, before_seq);
                let until = stream_key(before_time, before_seq);
                self.counters.evict(self.shared, &partition_prefix(&partition), until)
            }
            Event::Flushed(event) => self.apply_flushed(seq, commit_time, event),
            Event::Compacted(event) => self.apply_compacted(seq, event),
            Event::TableDropped(event) => self.clear_table(event.table.to_id(), seq),
            Event::TableTruncated(event) => {
                let table = event.table.to_id();
                self.clear_table(table, seq)?;
                put_truncated_at(self.shared, &mut self.writes, table, seq)
            }
            _ => Ok(()),
        }
    }

    /// The tier that has the row which is about to be written, where it has one, as a change of that row takes it from there.
    fn comes_from(&mut self, partition: &ArchivedPartition, key: &[u8]) -> Result<Tier> {
        if !self.shared.cold_tables.contains(partition.table.to_id()) {
            return Ok(Tier::Hot);
        }
        let keyspace = if partition.owner().is_some() { Keyspace::User } else { Keyspace::Shared };
        let full = full_key(&partition.to_partition(), key);
        let was_hot = self.was_hot(keyspace, &full)?;
        self.put_here.insert(full);
        Ok(if was_hot { Tier::Hot } else { Tier::Cold })
    }

    /// Counts the row that was put last, whose row key is this.
    fn count(&mut self, key: &[u8], seq: Seq, delta: Delta) -> Result<()> {
        let Self { shared, counters, key: full, .. } = self;
        counters.write_row(shared, partition_part(full, key), seq, delta)
    }

    /// No row of a table is left, whatever its kind.
    fn clear_table(&mut self, table: TableId, seq: Seq) -> Result<()> {
        self.users().drop_table(table);
        self.shared().drop_table(table);
        self.streams().drop_table(table);
        self.counters.clear(table, seq);
        let prefix = table_prefix(table);
        self.writes.delete_range_cf(&self.shared.manifests_family()?, prefix.to_vec(), prefix_end(&prefix));
        delete_table_counts(self.shared, &mut self.writes, table)
    }

    fn put_row(&mut self, partition: &Partition, key: &[u8], seq: Seq, updated: i64, row: &[u8]) {
        let row = StoredRow { seq, updated, deleted: false, row };
        match partition.user {
            Some(_) => self.users().put(partition, key, &row),
            None => self.shared().put(partition, key, &row),
        }
    }
}

/// The part of a row's key that its partition makes up.
fn partition_part<'k>(full: &'k [u8], key: &[u8]) -> &'k [u8] {
    full.get(..full.len() - key.len()).unwrap_or_default()
}

impl<'s, R: Rows> TableStore<'_, 's, R> {
    fn family(&self) -> Arc<BoundColumnFamily<'s>> {
        let [user, shared, stream] = &self.batch.families;
        Arc::clone(match R::KEYSPACE {
            Keyspace::User => user,
            Keyspace::Shared => shared,
            Keyspace::Stream => stream,
        })
    }

    /// Writes a row or a tombstone.
    pub fn put(&mut self, partition: &Partition, key: &[u8], row: &StoredRow<'_>) {
        let family = self.family();
        let Batch { key: full, value, writes, .. } = &mut *self.batch;
        write_full_key(full, partition, key);
        row.write_to(value);
        writes.put_cf(&family, full, value);
    }

    /// Removes a row without a trace.
    pub fn delete(&mut self, partition: &Partition, key: &[u8]) {
        self.delete_batch_by_keys(partition, [key]);
    }

    /// Removes rows without a trace.
    pub fn delete_batch_by_keys<'k>(
        &mut self,
        partition: &Partition,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) {
        let prefix = partition_prefix(partition);
        let family = self.family();
        for key in keys {
            self.batch.writes.delete_cf(&family, [&prefix, key].concat());
        }
    }

    /// Removes every row of a table, as one range.
    pub fn drop_table(&mut self, table: TableId) {
        let prefix = table_prefix(table);
        let family = self.family();
        self.batch.writes.delete_range_cf(&family, prefix.to_vec(), prefix_end(&prefix));
    }
}

impl StreamTableStore<'_, '_> {
    /// Removes the rows of a partition that were committed before `before_time`, or at that very time with a seq below
    /// `before_seq`, as one range.
    pub fn evict_older_than(&mut self, partition: &Partition, before_time: i64, before_seq: Seq) {
        let prefix = partition_prefix(partition);
        let until = [prefix.as_slice(), &stream_key(before_time, before_seq)].concat();
        let family = self.family();
        self.batch.writes.delete_range_cf(&family, prefix, until);
    }
}

/// Turns a failure to read an event into one that names it.
pub(crate) fn readable(seq: Seq, event: log_format::Result<&Event>) -> Result<&Event> {
    event.map_err(|source| Error::Event { seq, source })
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
