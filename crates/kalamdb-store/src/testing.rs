//! What the tests of this crate share.

use std::ops::ControlFlow;
use std::path::Path;

use log_format::{
    ChangeEvent, Frame, FrameEncoder, FrameFields, NamespaceId, Partition, RowDeleted, RowInserted,
    RowUpdated, Seq, StreamAppended, StreamEvicted, TableDropped, TableId, TableTruncated, UserId,
};

use crate::batch::Batch;
use crate::{Cut, Keyspace, Store, StoreOptions, StoredRow};

pub(crate) const TABLE: TableId = TableId::new(7);
pub(crate) const OTHER_TABLE: TableId = TableId::new(8);

/// Too small for anything to be flushed but by the test itself.
pub(crate) fn options() -> StoreOptions {
    StoreOptions { block_cache_bytes: 1 << 20, write_buffer_bytes: 8 << 20, ..StoreOptions::default() }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, &options()).unwrap()
}

pub(crate) fn user(name: &str) -> Partition {
    Partition::of_user(TABLE, UserId::new(name))
}

pub(crate) fn shared() -> Partition {
    Partition::shared(TABLE)
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number)
}

/// A commit as the log hands it over. It was committed at ten times its first seq.
pub(crate) fn commit(first_seq: u64, events: &[ChangeEvent]) -> Frame {
    let mut encoder = FrameEncoder::new();
    let archives: Vec<_> = events.iter().map(|event| event.encode().unwrap()).collect();
    let fields = FrameFields {
        first_seq: seq(first_seq),
        epoch: 1,
        previous_crc: 0,
        commit_time: time_of(first_seq),
        durable_seq: Seq::ZERO,
    };
    encoder.push(&fields, &archives).unwrap();
    encoder.take_frames().remove(0)
}

pub(crate) fn time_of(first_seq: u64) -> i64 {
    i64::try_from(first_seq * 10).unwrap()
}

pub(crate) fn insert(partition: &Partition, key: &[u8], row: &[u8]) -> ChangeEvent {
    let (partition, key, row) = (partition.clone(), key.to_vec(), row.to_vec());
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key, row }))
}

pub(crate) fn update(partition: &Partition, key: &[u8], old: &[u8], new: &[u8]) -> ChangeEvent {
    let (partition, key) = (partition.clone(), key.to_vec());
    ChangeEvent::RowUpdated(Box::new(RowUpdated { partition, key, old: old.to_vec(), new: new.to_vec() }))
}

pub(crate) fn delete(partition: &Partition, key: &[u8], old: &[u8]) -> ChangeEvent {
    let (partition, key, old) = (partition.clone(), key.to_vec(), old.to_vec());
    ChangeEvent::RowDeleted(Box::new(RowDeleted { partition, key, old }))
}

pub(crate) fn append(partition: &Partition, row: &[u8]) -> ChangeEvent {
    ChangeEvent::StreamAppended(Box::new(StreamAppended { partition: partition.clone(), row: row.to_vec() }))
}

pub(crate) fn evict(partition: &Partition, before_time: i64, before_seq: u64) -> ChangeEvent {
    let partition = partition.clone();
    ChangeEvent::StreamEvicted(Box::new(StreamEvicted { partition, before_time, before_seq }))
}

pub(crate) fn truncate(table: TableId) -> ChangeEvent {
    let (namespace, name) = (NamespaceId::new("n"), "t".to_owned());
    ChangeEvent::TableTruncated(Box::new(TableTruncated { table, namespace, name }))
}

pub(crate) fn drop_table(table: TableId) -> ChangeEvent {
    let (namespace, name) = (NamespaceId::new("app"), "messages".to_owned());
    ChangeEvent::TableDropped(Box::new(TableDropped { table, namespace, name }))
}

/// What a test compares of a stored row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) key: Vec<u8>,
    pub(crate) seq: u64,
    pub(crate) updated: i64,
    pub(crate) deleted: bool,
    pub(crate) row: Vec<u8>,
}

impl Found {
    pub(crate) fn of(key: &[u8], row: StoredRow<'_>) -> Self {
        let StoredRow { seq, updated, deleted, row } = row;
        Self { key: key.to_vec(), seq: seq.get(), updated, deleted, row: row.to_vec() }
    }

    /// A row that the commit of this seq alone has put.
    pub(crate) fn put(key: &[u8], seq: u64, row: &[u8]) -> Self {
        Self { key: key.to_vec(), seq, updated: time_of(seq), deleted: false, row: row.to_vec() }
    }

    pub(crate) fn tombstone(key: &[u8], seq: u64, row: &[u8]) -> Self {
        Self { deleted: true, ..Self::put(key, seq, row) }
    }
}

/// All rows of a table, keys with their partition's user before them.
pub(crate) fn table_rows(cut: &Cut, keyspace: Keyspace, table: TableId) -> Vec<Found> {
    let mut found = Vec::new();
    let visit = |key: &[u8], row: StoredRow<'_>| {
        found.push(Found::of(key, row));
        ControlFlow::Continue(())
    };
    cut.scan_table(keyspace, table, visit).unwrap();
    found
}

/// The row keys of a partition.
pub(crate) fn keys(store: &Store, keyspace: Keyspace, partition: &Partition) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let visit = |key: &[u8], _: StoredRow<'_>| {
        found.push(key.to_vec());
        ControlFlow::Continue(())
    };
    store.cut().unwrap().scan(keyspace, partition, &crate::KeyRange::default(), visit).unwrap();
    found
}

/// What the typed calls do, without an event.
pub(crate) fn write(store: &Store, fill: impl FnOnce(&mut Batch<'_>)) {
    store
        .write(0, |batch| {
            fill(batch);
            Ok(())
        })
        .unwrap();
}
