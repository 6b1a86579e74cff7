//! The change log by itself, beside what the machine can do with plain files: appended, checked, read as records.
//!
//! Everything stays in the page cache where there is room for it: what is compared is work, not disks.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use kalamdb_core::{ChangeNames, ChangeRecord, clock};
use kalamdb_log::{Durability, FramesAlone, LogOptions, LogReader, LogWriter, list_segments, verify};
use log_format::{
    ChangeEvent, Column, ColumnId, DataType, EncodedEvent, KeyBuilder, NamespaceId, Partition, RowInserted,
    SchemaVersion, Table, TableId, TableKind, TableSchema, UserId, Value,
};
use tempfile::TempDir;

use crate::{directory, encoded_row};

/// Bytes of one commit, and of one plain write.
pub const BATCH_BYTES: usize = 64 << 10;

const TABLE: TableId = TableId::new(7);

/// Events of rows, about as many as a commit of [`BATCH_BYTES`] holds.
pub fn batch() -> Vec<EncodedEvent> {
    let mut key = KeyBuilder::new();
    key.push(&Value::BigInt(42)).expect("an integer can be a key");
    let partition = Partition::of_user(TABLE, UserId::new("user_01"));
    let row = RowInserted { partition, key: key.finish(), row: encoded_row(42, 1) };
    let event = ChangeEvent::RowInserted(Box::new(row)).encode().expect("a row is encoded");
    // An entry of the offset table and the alignment come with each.
    let bytes = event.as_bytes().len().next_multiple_of(16) + 8;
    vec![event; BATCH_BYTES / bytes]
}

/// What names the table and the columns of the rows.
fn table_events() -> [EncodedEvent; 2] {
    let columns = [("id", DataType::BigInt), ("room", DataType::BigInt), ("body", DataType::Text)];
    let column = |(number, (name, data_type)): (u32, (&str, DataType))| Column {
        id: ColumnId::new(number),
        name: name.to_owned(),
        data_type,
        nullable: number > 1,
        default: None,
    };
    let table = Table {
        id: TABLE,
        namespace: NamespaceId::new("bench"),
        name: "messages".to_owned(),
        kind: TableKind::User,
        current_version: SchemaVersion::FIRST,
        location_path: None,
        location_reference: None,
        flush_policy: None,
        deleted_retention_ms: None,
        created_at: 0,
        updated_at: 0,
    };
    let schema = TableSchema {
        table: TABLE,
        version: SchemaVersion::FIRST,
        columns: (1_u32..).zip(columns).map(column).collect(),
        primary_key: vec![ColumnId::new(1)],
        change: "CREATE".to_owned(),
        created_at: 0,
        created_by: UserId::new("root"),
    };
    let events =
        [ChangeEvent::TableCreated(Box::new(table)), ChangeEvent::SchemaVersionAdded(Box::new(schema))];
    events.map(|event| event.encode().expect("a table is encoded"))
}

/// How long it took to write something.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Until the operating system had it all.
    pub to_memory: Duration,
    /// Until the disk had.
    pub to_disk: Duration,
}

/// A new log of at least so many bytes, in commits of [`BATCH_BYTES`] that wait for nothing, and how long appending took.
pub fn append(bytes: usize) -> (TempDir, Written) {
    let dir = directory();
    let options = LogOptions { durability: Durability::Os, ..LogOptions::default() };
    let opened = LogWriter::open(dir.path(), &options, clock::now_micros());
    let (mut log, _) = opened.expect("a new log is opened");
    log.stage(&table_events(), clock::now_micros()).expect("a table is staged");
    let events = batch();
    let begun = clock::instant();
    for _ in 0..bytes / BATCH_BYTES {
        log.stage(&events, clock::now_micros()).expect("a commit is staged");
        log.write().expect("a commit is written");
    }
    let to_memory = begun.elapsed();
    log.sync().expect("the log is synced");
    let to_disk = begun.elapsed();
    log.close().expect("the log is closed");
    (dir, Written { to_memory, to_disk })
}

/// How long plain writes of the same size take, one after another, into a new file.
pub fn write_plainly(bytes: usize) -> Written {
    let dir = directory();
    let mut file = File::create(dir.path().join("plain")).expect("a file is made");
    let batch = vec![0x5a; BATCH_BYTES];
    let begun = clock::instant();
    for _ in 0..bytes / BATCH_BYTES {
        file.write_all(&batch).expect("a batch is written");
    }
    let to_memory = begun.elapsed();
    file.sync_data().expect("a file is synced");
    Written { to_memory, to_disk: begun.elapsed() }
}

/// How long it takes to read the log's files from end to end and to make one checksum of each.
pub fn checksum(log: &Path) -> Duration {
    let begun = clock::instant();
    let mut buffer = vec![0; 1 << 20];
    for segment in list_segments(log).expect("the log is listed") {
        let mut file = File::open(segment.path).expect("a segment is opened");
        let mut crc = 0;
        loop {
            let count = file.read(&mut buffer).expect("a segment is read");
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            crc = crc32c::crc32c_append(crc, bytes);
        }
        std::hint::black_box(crc);
    }
    begun.elapsed()
}

/// How long it takes to check the log as `kalamdb log verify` does, with so many threads.
pub fn check(log: &Path, threads: usize) -> Duration {
    let begun = clock::instant();
    let verified = verify(log, threads, &FramesAlone).expect("the log is read");
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    begun.elapsed()
}

/// Reads the log as records, with names and rows as JSON, as `kalamdb tail` does; how many events, in which time.
pub fn read_records(log: &Path) -> (u64, Duration) {
    let begun = clock::instant();
    let mut reader = LogReader::open(log);
    let mut names = ChangeNames::new(log);
    let mut record = ChangeRecord::default();
    let mut events = 0;
    while let Some(frame) = reader.next().expect("the log is read") {
        for (seq, event) in frame.events() {
            let event = event.expect("an event is valid");
            names.note(event).expect("the catalog's events are read");
            record.fill(seq, &frame.header().fields, event, &mut names).expect("an event becomes a record");
            std::hint::black_box(&record);
            events += 1;
        }
    }
    (events, begun.elapsed())
}
