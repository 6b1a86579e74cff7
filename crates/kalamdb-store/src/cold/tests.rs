//! A store that flushes beside one that never does: whatever is asked of both, the answers are the same.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::LazyLock;

use log_format::{
    CellRef, ChangeEvent, ColumnId, DataType, Frame, Partition, RowBuilder, SchemaVersion, TableId,
    TableTruncated,
};
use log_format::{NamespaceId, Seq};

use super::*;
use crate::keyspace::Keyspace;
use crate::testing::{Found, TABLE, commit, delete, insert, open, seq, shared, update, user};
use crate::{Error, KeyRange, Store};

/// Where files are: lives as long as the process.
fn path() -> &'static TablePath {
    static PATH: LazyLock<TablePath> =
        LazyLock::new(|| TablePath::new(None, "app", "notes", TableId::new(7), false));
    &PATH
}

fn columns() -> Vec<ColdColumn> {
    let types = [
        DataType::BigInt,
        DataType::Text,
        DataType::Boolean,
        DataType::SmallInt,
        DataType::Int,
        DataType::Float,
        DataType::Double,
        DataType::Decimal { precision: 30, scale: 4 },
        DataType::Timestamp,
        DataType::DateTime,
        DataType::Date,
        DataType::Time,
        DataType::Json,
        DataType::Bytes,
        DataType::Uuid,
        DataType::Embedding(2),
    ];
    let named = |(number, data_type): (usize, DataType)| ColdColumn {
        id: ColumnId::new(u32::try_from(number).unwrap() + 1),
        name: if number == 1 { "_key".to_owned() } else { format!("column {number}") },
        data_type,
        is_key: number == 0,
    };
    types.into_iter().enumerate().map(named).collect()
}

fn row(id: i64, salt: u64) -> Vec<u8> {
    let mut row = RowBuilder::new(SchemaVersion::FIRST);
    row.push_cell(&CellRef::BigInt(id));
    if salt.is_multiple_of(7) {
        (1..columns().len()).for_each(|_| row.push_cell(&CellRef::Null));
        return row.finish().unwrap();
    }
    let text = "ä".repeat(usize::try_from(salt % 5).unwrap());
    let uuid = u128::from(salt).to_be_bytes();
    let float = if salt.is_multiple_of(2) { -0.0_f32 } else { f32::from_bits(0x7fc0_0001) };
    let floats: Vec<u8> = [float, 1.5].iter().flat_map(|it: &f32| it.to_le_bytes()).collect();
    let signed = salt.cast_signed();
    for cell in [
        CellRef::Text(&text),
        CellRef::Boolean(salt.is_multiple_of(3)),
        CellRef::SmallInt(i16::MIN),
        CellRef::Int(i32::try_from(salt % 1000).unwrap()),
        CellRef::Float(float),
        CellRef::Double(if salt.is_multiple_of(2) { 0.0 } else { -0.0 }),
        CellRef::Decimal(-i128::from(salt) * 1_000_000_007),
        CellRef::Timestamp(signed),
        CellRef::DateTime(-signed),
        CellRef::Date(-3),
        CellRef::Time(86_399_999_999),
        CellRef::Json("{\"a\":1}"),
        CellRef::Bytes(&uuid[9..]),
        CellRef::Uuid(&uuid),
        CellRef::Embedding(&floats),
    ] {
        row.push_cell(&cell);
    }
    row.finish().unwrap()
}

fn step(partition: &Partition, from_key: Vec<u8>, rows_max: usize) -> FlushStep<'static> {
    let origin =
        FileOrigin { partition: partition.clone(), version: SchemaVersion::FIRST, columns: columns() };
    let (tombstones_from, bytes_max) = (i64::MIN, usize::MAX);
    FlushStep { origin, directory: path(), number: 0, from_key, tombstones_from, rows_max, bytes_max }
}

fn write_flush(store: &Store, step: FlushStep<'_>) -> Option<log_format::Flushed> {
    let prepared = store.cut().unwrap().prepare_flush(step).unwrap();
    prepared.map(|prepared| prepared.put(store.cold_files()).unwrap())
}

/// Flushes all of a partition in steps of so many rows; the commits it took.
fn flush(store: &Store, partition: &Partition, next_seq: &mut u64, rows_max: usize) -> Vec<Frame> {
    let (mut frames, mut from_key) = (Vec::new(), Vec::new());
    while let Some(flushed) = write_flush(store, step(partition, from_key.clone(), rows_max)) {
        from_key.clone_from(&flushed.until_key);
        let frame = commit(*next_seq, &[ChangeEvent::Flushed(Box::new(flushed))]);
        *next_seq += 1;
        store.apply(std::slice::from_ref(&frame)).unwrap();
        frames.push(frame);
        if from_key.is_empty() {
            break;
        }
    }
    frames
}

/// Puts some of a partition's files together, each where the bit of its place is set; the commit it took.
fn compact(store: &Store, partition: &Partition, next_seq: &mut u64, chosen: u64) -> Option<Frame> {
    let manifest = store.cut().unwrap().manifest(partition).unwrap()?;
    let is_chosen = |(at, _): &(usize, &ManifestFile)| chosen >> (at % 3) & 1 == 1;
    let files: Vec<_> =
        manifest.files.iter().enumerate().filter(is_chosen).map(|(_, of)| of.file.id).collect();
    if files.is_empty() {
        return None;
    }
    let origin =
        FileOrigin { partition: partition.clone(), version: SchemaVersion::FIRST, columns: columns() };
    let step = CompactStep { origin, directory: path(), files: &files, tombstones_from: i64::MIN };
    let compacted = store.cut().unwrap().write_compacted(step).unwrap();
    let frame = commit(*next_seq, &[ChangeEvent::Compacted(Box::new(compacted))]);
    *next_seq += 1;
    store.apply(std::slice::from_ref(&frame)).unwrap();
    Some(frame)
}

fn scan(store: &Store, partition: &Partition, range: &KeyRange) -> Vec<Found> {
    let mut found = Vec::new();
    let keyspace = if partition.user.is_some() { Keyspace::User } else { Keyspace::Shared };
    let visit = |key: &[u8], row: crate::StoredRow<'_>| {
        found.push(Found::of(key, row));
        ControlFlow::Continue(())
    };
    store.cut().unwrap().scan(keyspace, partition, range, visit).unwrap();
    found
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// The next random change of a key, as the rows of a model have it.
fn change(random: &mut Random, partition: &Partition, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> ChangeEvent {
    let id = random.below(60);
    let key = id.to_be_bytes().to_vec();
    let new = row(id.cast_signed(), random.below(1 << 40));
    match rows.get(&key).cloned() {
        None => {
            rows.insert(key.clone(), new.clone());
            insert(partition, &key, &new)
        }
        Some(old) if random.below(3) == 0 => {
            rows.remove(&key);
            delete(partition, &key, &old)
        }
        Some(old) => {
            rows.insert(key.clone(), new.clone());
            update(partition, &key, &old, &new)
        }
    }
}

/// A commit of some random changes, which both stores apply.
fn write_some(
    random: &mut Random,
    partition: &Partition,
    rows: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    next_seq: &mut u64,
    stores: [&Store; 2],
) -> Frame {
    let events: Vec<_> = (0..=random.below(4)).map(|_| change(random, partition, rows)).collect();
    let frame = commit(*next_seq, &events);
    *next_seq += events.len() as u64;
    for store in stores {
        store.apply(std::slice::from_ref(&frame)).unwrap();
    }
    frame
}

fn flushed_equals_never_flushed(seed: u64, partition: &Partition) {
    let (flushing, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut store, other) = (open(flushing.path()), open(plain.path()));
    let (mut random, mut rows, mut log) = (Random(seed), BTreeMap::new(), Vec::new());
    let mut next_seq = 1;
    for _ in 0..random.below(120) + 20 {
        match random.below(12) {
            0 => log.extend(flush(
                &store,
                partition,
                &mut next_seq,
                1 + usize::try_from(random.below(40)).unwrap(),
            )),
            1 => log.extend(compact(&store, partition, &mut next_seq, random.below(7))),
            2 => {
                // As RocksDB would by itself: the counts that are written are of another event, and all is counted anew.
                let is_its_own = random.below(2) == 0;
                if is_its_own {
                    store.flush_files(true).unwrap();
                } else {
                    store.flush(true).unwrap();
                }
                drop(store);
                store = open(flushing.path());
            }
            3 => {
                // Somebody writes, or all is opened anew, between the cut and the commit.
                let rows_max = 1 + usize::try_from(random.below(40)).unwrap();
                let Some(flushed) = write_flush(&store, step(partition, Vec::new(), rows_max)) else {
                    continue;
                };
                if random.below(2) == 0 {
                    log.push(write_some(&mut random, partition, &mut rows, &mut next_seq, [&store, &other]));
                }
                if random.below(2) == 0 {
                    store.flush(true).unwrap();
                    drop(store);
                    store = open(flushing.path());
                }
                let frame = commit(next_seq, &[ChangeEvent::Flushed(Box::new(flushed))]);
                next_seq += 1;
                store.apply(std::slice::from_ref(&frame)).unwrap();
                log.push(frame);
            }
            _ => log.push(write_some(&mut random, partition, &mut rows, &mut next_seq, [&store, &other])),
        }
        let bound = |random: &mut Random| {
            Some(random.below(60).to_be_bytes().to_vec()).filter(|_| random.below(2) == 0)
        };
        let range = KeyRange { from: bound(&mut random), until: bound(&mut random) };
        assert_eq!(scan(&store, partition, &range), scan(&other, partition, &range), "seed {seed}");
        let keyspace = if partition.user.is_some() { Keyspace::User } else { Keyspace::Shared };
        let key = random.below(60).to_be_bytes();
        let get = |store: &Store| store.get(keyspace, partition, &key, |row| Found::of(&key, row)).unwrap();
        assert_eq!(get(&store), get(&other), "seed {seed}");
        let (counts, all) = (store.counts(partition).unwrap(), other.counts(partition).unwrap());
        assert_eq!((counts.rows, counts.bytes), (all.rows, all.bytes), "seed {seed}");
        let mut hot = 0;
        let count = |_: &[u8], row: crate::StoredRow<'_>| {
            hot += u64::from(!row.deleted);
            ControlFlow::Continue(())
        };
        store.cut().unwrap().scan_hot(keyspace, partition, &KeyRange::default(), count).unwrap();
        assert_eq!(counts.rows - counts.cold_rows, hot, "seed {seed}");
        assert_eq!(store.table_counts(TABLE).unwrap(), counts, "seed {seed}");
    }
    rebuilt_is_the_same(&store, flushing.path(), &log, partition);
}

/// The same commit where a flush does not tell what it moved, so that who applies it has to look.
fn untold(frame: &Frame) -> Frame {
    match frame.event(0).unwrap().to_event().unwrap() {
        ChangeEvent::Flushed(flushed) if frame.count() == 1 => {
            let flushed = log_format::Flushed { live: None, ..*flushed };
            commit(frame.last_seq().get(), &[ChangeEvent::Flushed(Box::new(flushed))])
        }
        _ => frame.clone(),
    }
}

/// The log alone, applied in batches of any size, gives the same store, whether a flush tells what it moved or not.
fn rebuilt_is_the_same(store: &Store, directory: &Path, log: &[Frame], partition: &Partition) {
    rebuilt_from_is_the_same(store, directory, log, partition);
    let untold: Vec<_> = log.iter().map(untold).collect();
    rebuilt_from_is_the_same(store, directory, &untold, partition);
}

fn rebuilt_from_is_the_same(store: &Store, directory: &Path, log: &[Frame], partition: &Partition) {
    let other = tempfile::tempdir().unwrap();
    let cold_directory = Some(directory.join("cold"));
    let options = crate::StoreOptions { cold_directory, ..crate::testing::options() };
    let rebuilt = Store::open(other.path(), &options).unwrap();
    for frames in log.chunks(7) {
        rebuilt.apply(frames).unwrap();
    }
    let all = KeyRange::default();
    assert_eq!(scan(&rebuilt, partition, &all), scan(store, partition, &all));
    assert_eq!(rebuilt.counts(partition).unwrap(), store.counts(partition).unwrap());
    let manifest = |store: &Store| store.cut().unwrap().manifest(partition).unwrap();
    assert_eq!(manifest(&rebuilt), manifest(store));
}

#[test]
fn whatever_is_flushed_the_rows_are_those_of_a_store_that_never_was() {
    for seed in 1..30 {
        let partition = if seed % 2 == 0 { user("ann") } else { shared() };
        flushed_equals_never_flushed(seed * 0x9e37_79b9, &partition);
    }
}

#[test]
fn rows_come_back_to_the_bit_and_hot_ones_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    let events: Vec<_> = (0..20_000_u64)
        .map(|id| insert(&ann, &id.to_be_bytes(), &row(id.cast_signed(), id * 0x9e37_79b9)))
        .collect();
    store.apply(&[commit(1, &events)]).unwrap();
    let before = scan(&store, &ann, &KeyRange::default());
    // The first file takes several batches, and so a second thread.
    flush(&store, &ann, &mut 20_001, 17_000);
    assert_eq!(scan(&store, &ann, &KeyRange::default()), before);
    assert_eq!(store.head(Keyspace::User, &ann, &7_u64.to_be_bytes()).unwrap(), None);
    assert_eq!(store.last_key(Keyspace::User, &ann).unwrap(), Some(19_999_u64.to_be_bytes().to_vec()));
    assert_eq!(store.cold_totals(&ann).unwrap().files, 2);
    assert_eq!(store.flushed_at(&ann).unwrap(), Some(seq(20_002)));
    assert_eq!(store.flushed_at(&user("bob")).unwrap(), None);
    let file = &store.cut().unwrap().manifest(&ann).unwrap().unwrap().files[0];
    let pages = store.cut().unwrap().open_file(&file.file).unwrap().pages("column 0").unwrap();
    assert_eq!(pages.bounds.get(..3), Some(&[0, 1024, 2048][..]));
    assert_eq!(pages.bounds.last(), Some(&17_000));
}

/// A store with two live rows and a tombstone, and a flush of them that is not committed.
fn about_to_flush(directory: &Path) -> (Store, log_format::Flushed) {
    let (store, ann) = (open(directory), user("ann"));
    let events = [b"a", b"b", b"c"].map(|key| insert(&ann, key, &row(1, 1)));
    store.apply(&[commit(1, &events), commit(4, &[delete(&ann, b"c", &row(1, 1))])]).unwrap();
    let flushed = write_flush(&store, step(&ann, Vec::new(), 100)).unwrap();
    let bytes = 2 * row(1, 1).len() as u64;
    assert_eq!(flushed.live, Some(log_format::LiveRows { rows: 2, bytes }), "tombstones do not count");
    (store, flushed)
}

#[test]
fn a_row_that_is_written_after_the_cut_of_a_flush_stays_hot() {
    let (ann, bob) = (user("ann"), user("bob"));
    for is_opened_anew in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, flushed) = about_to_flush(directory.path());
        store.apply(&[commit(5, &[update(&ann, b"b", &row(1, 1), &row(1, 2))])]).unwrap();
        store.apply(&[commit(6, &[insert(&bob, b"b", &row(1, 1))])]).unwrap();
        if is_opened_anew {
            store.flush(true).unwrap();
            drop(store);
            store = open(directory.path());
        }
        store.apply(&[commit(7, &[ChangeEvent::Flushed(Box::new(flushed))])]).unwrap();
        assert_eq!(store.head(Keyspace::User, &ann, b"a").unwrap(), None);
        assert_eq!(store.head(Keyspace::User, &ann, b"b").unwrap(), Some((seq(5), false)));
        let (counts, row) = (store.counts(&ann).unwrap(), row(1, 1).len() as u64);
        assert_eq!((counts.rows, counts.cold_rows, counts.cold_bytes), (2, 1, row));
        assert_eq!(store.head(Keyspace::User, &bob, b"b").unwrap(), Some((seq(6), false)));
    }
}

#[test]
fn rows_that_nobody_wrote_since_are_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut flushed) = about_to_flush(directory.path());
    let (ann, bob) = (user("ann"), user("bob"));
    store.apply(&[commit(5, &[insert(&bob, b"b", &row(1, 1))])]).unwrap();
    // What only the event can have told.
    flushed.live = Some(log_format::LiveRows { rows: 2, bytes: 12_345 });
    store.apply(&[commit(6, &[ChangeEvent::Flushed(Box::new(flushed))])]).unwrap();
    assert_eq!(store.counts(&ann).unwrap().cold_bytes, 12_345);
    assert_eq!(store.head(Keyspace::User, &ann, b"c").unwrap(), None);
}

#[test]
fn rows_of_another_version_between_those_that_go_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    let mut newer = RowBuilder::new(SchemaVersion::new(2));
    newer.push_cell(&CellRef::BigInt(1));
    let newer = newer.finish().unwrap();
    let events = [insert(&ann, b"a", &row(1, 1)), insert(&ann, b"b", &newer), insert(&ann, b"c", &row(1, 1))];
    store.apply(&[commit(1, &events)]).unwrap();
    let flushed = write_flush(&store, step(&ann, Vec::new(), 100)).unwrap();
    assert_eq!((flushed.live, flushed.file.as_ref().unwrap().rows), (None, 2));
    store.apply(&[commit(4, &[ChangeEvent::Flushed(Box::new(flushed))])]).unwrap();
    assert_eq!(store.head(Keyspace::User, &ann, b"b").unwrap(), Some((seq(2), false)));
    assert_eq!(store.head(Keyspace::User, &ann, b"c").unwrap(), None);
    let counts = store.counts(&ann).unwrap();
    assert_eq!((counts.rows, counts.cold_rows), (3, 2));
}

#[test]
fn a_cut_from_before_a_flush_reads_what_was_there_then() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    store.apply(&[commit(1, &[insert(&ann, b"a", &row(1, 1)), insert(&ann, b"b", &row(2, 1))])]).unwrap();
    let before = store.cut().unwrap();
    flush(&store, &ann, &mut 3, 100);
    let between = store.cut().unwrap();
    store.apply(&[commit(4, &[delete(&ann, b"a", &row(1, 1))])]).unwrap();
    flush(&store, &ann, &mut 5, 100);
    let deleted = |cut: &crate::Cut| cut.get(Keyspace::User, &ann, b"a", |row| row.deleted).unwrap();
    assert_eq!(
        [&before, &between, &store.cut().unwrap()].map(deleted),
        [Some(false), Some(false), Some(true)]
    );
    assert!(before.manifest(&ann).unwrap().is_none());
    assert_eq!(between.manifest(&ann).unwrap().unwrap().files.len(), 1);
}

#[test]
fn a_compaction_leaves_out_what_was_superseded_and_old_tombstones() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    store.apply(&[commit(1, &[insert(&ann, b"a", &row(1, 1)), insert(&ann, b"b", &row(2, 1))])]).unwrap();
    flush(&store, &ann, &mut 3, 100);
    let between = store.cut().unwrap();
    store
        .apply(&[commit(4, &[delete(&ann, b"a", &row(1, 1)), update(&ann, b"b", &row(2, 1), &row(2, 5))])])
        .unwrap();
    flush(&store, &ann, &mut 6, 100);
    let before = scan(&store, &ann, &KeyRange::default());
    let cut = store.cut().unwrap();
    let files = cut.manifest(&ann).unwrap().unwrap();
    assert_eq!(files.files.iter().map(|of| of.superseded.len()).sum::<usize>(), 2);
    let last = cut.open_file(&files.files.iter().find(|of| of.superseded.is_empty()).unwrap().file).unwrap();
    let deleted_at = before[0].updated;
    assert!(last.may_have_tombstones_before(deleted_at + 1) && !last.may_have_tombstones_before(deleted_at));
    compact(&store, &ann, &mut 7, 7).unwrap();
    assert_eq!(scan(&store, &ann, &KeyRange::default()), before);
    let rows = |cut: &crate::Cut| -> Vec<u64> {
        cut.manifest(&ann).unwrap().unwrap().files.iter().map(|of| of.file.rows).collect()
    };
    assert_eq!(rows(&store.cut().unwrap()), [2]);
    assert_eq!((rows(&between), rows(&cut)), (vec![2], vec![2, 2]), "older cuts keep their files");
    let origin = FileOrigin { partition: ann.clone(), version: SchemaVersion::FIRST, columns: columns() };
    let files = [store.cut().unwrap().manifest(&ann).unwrap().unwrap().files[0].file.id];
    let step = CompactStep { origin, directory: path(), files: &files, tombstones_from: i64::MAX };
    let compacted = store.cut().unwrap().write_compacted(step.clone()).unwrap();
    assert_eq!(compacted.file.as_ref().unwrap().rows, 1);
    store.apply(&[commit(8, &[ChangeEvent::Compacted(Box::new(compacted))])]).unwrap();
    assert_eq!(scan(&store, &ann, &KeyRange::default()), before[1..]);
    assert_eq!(store.counts(&ann).unwrap().cold_rows, 1);
    let gone = store.cut().unwrap().write_compacted(step);
    assert!(matches!(gone, Err(Error::Damaged { .. })), "{gone:?}");
}

#[test]
fn old_tombstones_are_not_kept_and_what_they_hid_stays_hidden() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    store.apply(&[commit(1, &[insert(&ann, b"a", &row(1, 1))])]).unwrap();
    flush(&store, &ann, &mut 2, 100);
    store.apply(&[commit(3, &[delete(&ann, b"a", &row(1, 1))])]).unwrap();
    let late = FlushStep { tombstones_from: i64::MAX, ..step(&ann, Vec::new(), 100) };
    let flushed = write_flush(&store, late).unwrap();
    assert_eq!(flushed.file, None);
    store.apply(&[commit(4, &[ChangeEvent::Flushed(Box::new(flushed))])]).unwrap();
    assert_eq!(scan(&store, &ann, &KeyRange::default()), []);
    assert_eq!(store.get(Keyspace::User, &ann, b"a", |_| ()).unwrap(), None);
}

#[test]
fn a_truncated_table_has_no_cold_rows_and_its_files_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    store.apply(&[commit(1, &[insert(&ann, b"a", &row(1, 1))])]).unwrap();
    flush(&store, &ann, &mut 2, 100);
    let (namespace, name) = (NamespaceId::new("app"), "notes".to_owned());
    let truncated = ChangeEvent::TableTruncated(Box::new(TableTruncated { table: TABLE, namespace, name }));
    store.apply(&[commit(3, &[truncated])]).unwrap();
    assert_eq!(scan(&store, &ann, &KeyRange::default()), []);
    assert_eq!(store.flushed_at(&ann).unwrap(), None);
    assert_eq!(store.cold_files().list("").unwrap().len(), 1);
    assert_eq!(store.sweep_cold_files().unwrap(), 1);
    assert_eq!(store.cold_files().list("").unwrap(), []);
    assert_eq!(std::fs::read_dir(directory.path().join("cold")).unwrap().count(), 0, "no empty directories");
}

#[test]
fn a_file_without_a_commit_is_swept_and_one_with_it_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    store.apply(&[commit(1, &[insert(&ann, b"a", &row(1, 1))])]).unwrap();
    flush(&store, &ann, &mut 2, 100);
    store.apply(&[commit(3, &[insert(&ann, b"b", &row(2, 1))])]).unwrap();
    write_flush(&store, step(&ann, Vec::new(), 100)).unwrap();
    std::fs::write(directory.path().join("cold/app/x.parquet#1"), "half a file").unwrap();
    assert_eq!(store.sweep_cold_files().unwrap(), 1);
    assert_eq!(scan(&store, &ann, &KeyRange::default()).len(), 2);
    assert!(!directory.path().join("cold/app/x.parquet#1").exists());
}

#[test]
fn files_that_do_not_have_a_key_need_not_be_read_for_it() {
    let (directory, ann) = (tempfile::tempdir().unwrap(), user("ann"));
    // Not all of the files are kept, but what they say of keys.
    let options = crate::StoreOptions { cold_cache_bytes: 1 << 17, ..crate::testing::options() };
    let store = Store::open(directory.path(), &options).unwrap();
    let mut next_seq = 1;
    let key = |number: u64| number.to_be_bytes();
    for file in 0..4 {
        // Every file's keys lie between those of all others.
        let rows = (0..1000).map(|at| insert(&ann, &key((at * 4 + file) * 8), &row(1, at)));
        store.apply(&[commit(next_seq, &rows.collect::<Vec<_>>())]).unwrap();
        next_seq += 1000;
        flush(&store, &ann, &mut next_seq, 1000);
    }
    let is_there = |number: u64| Ok(store.get(Keyspace::User, &ann, &key(number), |_| ())?.is_some());
    assert!((0..4000).step_by(97).all(|number| matches!(is_there(number * 8), Ok::<_, Error>(true))));
    for (path, _) in store.cold_files().list("").unwrap() {
        std::fs::remove_file(directory.path().join("cold").join(path)).unwrap();
    }
    let absent = (0..4000).filter(|number| matches!(is_there(number * 8 + 3), Ok(false))).count();
    assert!(absent > 3600, "{absent} of 4,000 keys that no file has");
    assert!((0..4).any(|number| is_there(number * 8).is_err()), "one of them was not at hand any more");
}

#[test]
fn a_changed_or_missing_file_is_told_apart_from_rows_that_are_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ann) = (open(directory.path()), user("ann"));
    store.apply(&[commit(1, &[insert(&ann, b"a", &row(1, 1))])]).unwrap();
    flush(&store, &ann, &mut 2, 100);
    let path = store.cold_files().list("").unwrap().remove(0).0;
    let path = directory.path().join("cold").join(path);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        std::fs::write(&path, &changed).unwrap();
        let found = store.get(Keyspace::User, &ann, b"a", |_| ());
        assert!(matches!(found, Err(Error::ColdFile { .. })), "byte {at}: {found:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let found = store.get(Keyspace::User, &ann, b"a", |_| ());
    assert!(matches!(found, Err(Error::ColdFile { reason: "it is not there", .. })), "{found:?}");
    assert!(store.get(Keyspace::User, &ann, b"b", |_| ()).unwrap().is_none(), "no file has such a key");
    assert_eq!(store.applied_seq().unwrap(), Seq::new(2));
}
