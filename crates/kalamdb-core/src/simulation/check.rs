//! What must hold after every start, told from the log's own bytes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kalamdb_log::LogReader;
use kalamdb_sql::SystemTables;
use kalamdb_store::{Counts, KeyRange, Keyspace, Store, StoreOptions};
use log_format::{
    ArchivedChangeEvent as Event, ArchivedPartition, ChangeEvent, Column, ColumnDefault, ColumnId, Frame,
    Partition, RowReader, SchemaVersion, Seq, TableId, TableSchema, UserId, Value,
};

use crate::Engine;

/// Every frame of the log.
pub(super) fn frames(reader: &mut LogReader) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        frames.push(frame);
    }
    frames
}

/// What is in the log is a beginning of what was published, to the byte, and goes beyond it only where all of that is
/// there. At least everything up to `required` is.
pub(super) fn is_prefix(found: &[Frame], published: &[Frame], required: Seq) {
    let mut found = found.iter().peekable();
    for published in published {
        let Some(frame) = found.peek() else {
            assert!(published.last_seq() > required, "{} to {required} are lost", published.first_seq());
            return;
        };
        if frame.first_seq() > published.last_seq() {
            // The log was cut before this one, and went on in a later epoch.
            assert!(published.last_seq() > required, "{} to {required} are lost", published.first_seq());
            continue;
        }
        assert_eq!(
            frame.as_bytes(),
            published.as_bytes(),
            "the log has another commit at {}",
            frame.first_seq()
        );
        found.next();
    }
}

/// By keyspace, table and key: the row's seq, whether it is deleted, its bytes.
type Rows = BTreeMap<(u8, TableId, Vec<u8>), (Seq, bool, Vec<u8>)>;

fn full_key(partition: &Partition, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::new();
    log_format::escape_bytes(&mut full, partition.user.as_ref().map_or("", |user| user.as_str()).as_bytes());
    full.extend_from_slice(key);
    full
}

/// The rows that the log's events make. Each event must follow from those before it: an insert meets no row, an update and a
/// delete meet the row they name, to the byte.
pub(super) fn rows_of_log(frames: &[Frame]) -> Rows {
    let mut rows = Rows::new();
    for frame in frames {
        for (seq, event) in frame.events() {
            let event = event.unwrap();
            let partition = event.partition().map(ArchivedPartition::to_partition);
            let mut put = |key: &[u8], old: Option<&[u8]>, deleted: bool, row: &[u8]| {
                let partition = partition.as_ref().unwrap();
                let keyspace = u8::from(partition.user.is_none());
                let at = (keyspace, partition.table, full_key(partition, key));
                let before = rows.insert(at, (seq, deleted, row.to_vec()));
                let live = before.filter(|(_, deleted, _)| !deleted).map(|(_, _, row)| row);
                assert_eq!(live.as_deref(), old, "the event {seq} does not follow from those before it");
            };
            match event {
                Event::RowInserted(event) => put(&event.key, None, false, &event.row),
                Event::RowUpdated(event) => put(&event.key, Some(&event.old), false, &event.new),
                Event::RowDeleted(event) => put(&event.key, Some(&event.old), true, &event.old),
                Event::StreamAppended(event) => {
                    let time = kalamdb_store::stream_key(frame.header().fields.commit_time, seq);
                    let partition = event.partition.to_partition();
                    let at = (2, partition.table, full_key(&partition, &time));
                    rows.insert(at, (seq, false, event.row.to_vec()));
                }
                Event::StreamEvicted(_) => panic!("nothing evicts here"),
                Event::TableDropped(event) => {
                    let table = event.table.to_id();
                    rows.retain(|(_, of, _), _| *of != table);
                }
                Event::TableTruncated(event) => {
                    let table = event.table.to_id();
                    rows.retain(|(_, of, _), _| *of != table);
                }
                _ => {}
            }
        }
    }
    rows
}

/// The rows that a store has.
pub(super) fn rows_of_store(engine: &Engine) -> Rows {
    rows_of(engine.store(), engine.system())
}

fn rows_of(store: &Store, system: &SystemTables) -> Rows {
    let mut rows = Rows::new();
    let cut = store.cut().unwrap();
    for table in system.scan_all_tables().unwrap() {
        for (number, keyspace) in (0..).zip([Keyspace::User, Keyspace::Shared, Keyspace::Stream]) {
            cut.scan_table(keyspace, table.id, |key, row| {
                rows.insert((number, table.id, key.to_vec()), (row.seq, row.deleted, row.row.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        for partition in store.cold_partitions(table.id).unwrap() {
            let (number, keyspace) = match partition.user {
                Some(_) => (0, Keyspace::User),
                None => (1, Keyspace::Shared),
            };
            cut.scan(keyspace, &partition, &KeyRange::default(), |key, row| {
                let at = (number, table.id, full_key(&partition, key));
                let row = (row.seq, row.deleted, row.row.to_vec());
                // What the hot tier has is what both tiers have of the key.
                assert!(rows.insert(at, row.clone()).is_none_or(|hot| hot == row));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
    }
    rows
}

/// The store's counts of live rows, of each partition and each table, are those of these rows.
pub(super) fn counts_are_those_of(rows: &Rows, store: &Store, system: &SystemTables) {
    let mut expected: BTreeMap<(TableId, Option<Vec<u8>>), Counts> = BTreeMap::new();
    for ((_, table, key), (_, deleted, row)) in rows {
        let (user, _) = log_format::unescape_bytes(key).unwrap();
        for of in [None, Some(user)] {
            let counts = expected.entry((*table, of)).or_default();
            counts.rows += u64::from(!deleted);
            counts.bytes += if *deleted { 0 } else { row.len() as u64 };
        }
    }
    for ((table, user), counts) in &expected {
        let found = match user {
            None => store.table_counts(*table),
            Some(user) if user.is_empty() => store.counts(&Partition::shared(*table)),
            Some(user) => {
                let user = UserId::new(String::from_utf8(user.clone()).unwrap());
                store.counts(&Partition::of_user(*table, user))
            }
        };
        let found = found.unwrap();
        let of_both = (found.rows, found.bytes);
        assert_eq!(of_both, (counts.rows, counts.bytes), "the rows of table {table}, of {user:?}");
    }
    for table in system.scan_all_tables().unwrap() {
        let expected = expected.get(&(table.id, None)).copied().unwrap_or_default();
        let found = store.table_counts(table.id).unwrap();
        let of_both = (found.rows, found.bytes);
        assert_eq!(of_both, (expected.rows, expected.bytes), "the rows of {}", table.name);
    }
}

/// Everything the catalog has, as text.
fn catalog(system: &SystemTables) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        system.scan_all_namespaces().unwrap(),
        system.scan_all_tables().unwrap(),
        system.scan_all_table_schemas().unwrap(),
        system.scan_all_users().unwrap(),
        system.scan_all_storage_locations().unwrap(),
        system.scan_all_jobs().unwrap(),
    )
}

/// Both projections, built from the log alone, are the live ones.
pub(super) fn rebuilt_equals_live(engine: &Engine, frames: &[Frame]) {
    let directory = tempfile::tempdir().unwrap();
    let system = SystemTables::open(&directory.path().join("catalog")).unwrap();
    let cold_directory = Some(engine.data_dir().join(crate::COLD_DIRECTORY));
    let options = StoreOptions { cold_directory, ..StoreOptions::default() };
    let store = Store::open(&directory.path().join("rows"), &options).unwrap();
    for frames in frames.chunks(64) {
        system.apply(frames).unwrap();
        store.apply(frames).unwrap();
    }
    assert_eq!(catalog(&system), catalog(engine.system()));
    let rows = rows_of(&store, &system);
    counts_are_those_of(&rows, &store, &system);
    counts_are_those_of(&rows, engine.store(), engine.system());
    assert_eq!(rows, rows_of_store(engine));
}

/// Whether a commit is of a stream: those do not wait for the disk.
pub(super) fn is_stream(frame: &Frame) -> bool {
    frame.events().any(|(_, event)| matches!(event, Ok(Event::StreamAppended(_) | Event::StreamEvicted(_))))
}

/// By tag: how many rows carry it, and in how many commits.
pub(super) fn tags(frames: &[Frame]) -> BTreeMap<u64, (u64, u64)> {
    let mut tags: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for frame in frames {
        let mut of_frame: BTreeMap<u64, u64> = BTreeMap::new();
        for tag in frame.events().filter_map(|(_, event)| tag_of(event.unwrap())) {
            *of_frame.entry(tag).or_default() += 1;
        }
        for (tag, rows) in of_frame {
            let (all, frames) = tags.entry(tag).or_default();
            *all += rows;
            *frames += 1;
        }
    }
    tags
}

fn tag_of(event: &Event) -> Option<u64> {
    // A stream's rows begin with the key that was made for them.
    let (row, column) = match event {
        Event::RowInserted(event) => (&event.row[..], 1),
        Event::RowUpdated(event) => (&event.new[..], 1),
        Event::StreamAppended(event) => (&event.row[..], 2),
        _ => return None,
    };
    match log_format::RowReader::new(row).unwrap().values().unwrap().get(column)? {
        log_format::Value::BigInt(tag) => u64::try_from(*tag).ok(),
        _ => None,
    }
}

/// How many schema versions were added.
pub(super) fn schema_versions(frames: &[Frame]) -> u64 {
    let events = frames.iter().flat_map(Frame::events);
    events.filter(|(_, event)| matches!(event, Ok(Event::SchemaVersionAdded(_)))).count() as u64
}

/// By id: the values of a row by column, as text; NULL is empty.
pub(super) type Columns = BTreeMap<i64, BTreeMap<String, String>>;

/// What a user sees of a table, told from the log alone: a cell belongs to the column with its id, a row that lacks a column has
/// its default. All numbers here are integers, which are the same in every integer type.
pub(super) fn columns_of_log(frames: &[Frame], table: &str, user: &str) -> Columns {
    let name = table.strip_prefix("sim.").unwrap();
    let mut schemas: BTreeMap<SchemaVersion, TableSchema> = BTreeMap::new();
    let mut id = None;
    for (_, event) in frames.iter().flat_map(Frame::events) {
        match event.unwrap().to_event().unwrap() {
            ChangeEvent::TableCreated(created) if created.name == name => id = Some(created.id),
            ChangeEvent::SchemaVersionAdded(schema) if Some(schema.table) == id => {
                schemas.insert(schema.version, *schema);
            }
            _ => {}
        }
    }
    let newest = schemas.values().last().unwrap();
    let own = full_key(&Partition::of_user(newest.table, UserId::new(user)), &[]);
    let rows = rows_of_log(frames).into_iter().filter(|((keyspace, of, key), (_, deleted, _))| {
        *of == newest.table && !deleted && (*keyspace == 1 || key.starts_with(&own))
    });
    let row = |row: &[u8]| {
        let reader = RowReader::new(row).unwrap();
        let written = schemas.get(&reader.version()).unwrap().columns.iter().map(|column| column.id);
        let cells: BTreeMap<ColumnId, Value> = written.zip(reader.values().unwrap()).collect();
        let value = |column: &Column| match (cells.get(&column.id), &column.default) {
            (Some(value), _) => text(value),
            (None, Some(ColumnDefault::Constant(cell))) => {
                text(&RowReader::new(cell).unwrap().values().unwrap()[0])
            }
            (None, _) => String::new(),
        };
        newest.columns.iter().map(|column| (column.name.clone(), value(column))).collect()
    };
    let id = |row: &BTreeMap<String, String>| row.get("id").unwrap().parse().unwrap();
    rows.map(|(_, (_, _, bytes))| row(&bytes)).map(|row| (id(&row), row)).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::SmallInt(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::BigInt(value) => value.to_string(),
        Value::Text(value) => value.clone(),
        other => panic!("{other:?}"),
    }
}
