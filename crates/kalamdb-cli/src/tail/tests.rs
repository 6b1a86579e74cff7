use clap::Parser;
use kalamdb_core::format::{
    ChangeEvent, Column, ColumnId, DataType, EncodedEvent, EpochStarted, KeyBuilder, NamespaceId, Partition,
    RowBuilder, RowDeleted, RowInserted, RowUpdated, SchemaVersion, StreamAppended, Table, TableId,
    TableKind, TableSchema, User, UserId, Value,
};
use kalamdb_core::log::{LogOptions, LogWriter};

use super::*;

pub(crate) const TIME: i64 = 1_790_000_000_123_456;

fn column(id: u32, name: &str, data_type: DataType) -> Column {
    Column { id: ColumnId::new(id), name: name.to_owned(), data_type, nullable: id > 1, default: None }
}

pub(crate) fn table_events() -> Vec<ChangeEvent> {
    let id = TableId::new(7);
    let table = Table {
        id,
        namespace: NamespaceId::new("shop"),
        name: "orders".to_owned(),
        kind: TableKind::User,
        current_version: SchemaVersion::FIRST,
        location_path: None,
        location_reference: None,
        flush_policy: None,
        deleted_retention_ms: None,
        created_at: TIME,
        updated_at: TIME,
    };
    let columns = vec![
        column(1, "id", DataType::BigInt),
        column(2, "price", DataType::Decimal { precision: 9, scale: 2 }),
        column(3, "note", DataType::Text),
    ];
    let schema = TableSchema {
        table: id,
        version: SchemaVersion::FIRST,
        columns,
        primary_key: vec![ColumnId::new(1)],
        change: "CREATE".to_owned(),
        created_at: TIME,
        created_by: UserId::new("root"),
    };
    vec![ChangeEvent::TableCreated(Box::new(table)), ChangeEvent::SchemaVersionAdded(Box::new(schema))]
}

fn row(price: i128, note: &str) -> Vec<u8> {
    let mut row = RowBuilder::new(SchemaVersion::FIRST);
    row.push(&Value::BigInt(5));
    row.push(&Value::Decimal(price));
    row.push(&Value::Text(note.to_owned()));
    row.finish().unwrap()
}

fn key() -> Vec<u8> {
    let mut key = KeyBuilder::new();
    key.push(&Value::BigInt(5)).unwrap();
    key.finish()
}

fn of(user: &str) -> Partition {
    Partition::of_user(TableId::new(7), UserId::new(user))
}

/// The life of one row of each of two users, and things that are not rows.
pub(crate) fn events() -> Vec<ChangeEvent> {
    let user = User {
        id: UserId::new("ada"),
        role: kalamdb_core::format::Role::User,
        password_hash: "$argon2id$secret".to_owned(),
        metadata: None,
        created_at: TIME,
        updated_at: TIME,
    };
    let mut events = table_events();
    events.push(ChangeEvent::UserCreated(Box::new(user)));
    for user in ["ada", "bob"] {
        events.push(ChangeEvent::RowInserted(Box::new(RowInserted {
            partition: of(user),
            key: key(),
            row: row(-5, "new\x1b[2J"),
        })));
        events.push(ChangeEvent::RowUpdated(Box::new(RowUpdated {
            partition: of(user),
            key: key(),
            old: row(-5, "new"),
            new: row(12_345, "new"),
        })));
        events.push(ChangeEvent::RowDeleted(Box::new(RowDeleted {
            partition: of(user),
            key: key(),
            old: row(12_345, "new"),
        })));
    }
    events
}

pub(crate) fn encoded(events: &[ChangeEvent]) -> Vec<EncodedEvent> {
    events.iter().map(|event| event.encode().unwrap()).collect()
}

/// A data directory whose log holds these commits.
pub(crate) fn data_dir(commits: &[Vec<ChangeEvent>]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 512, ..LogOptions::default() };
    let (mut writer, _) = LogWriter::open(&dir.path().join("log"), &options, TIME).unwrap();
    for commit in commits {
        writer.stage(&encoded(commit), TIME).unwrap();
        writer.write().unwrap();
    }
    writer.close().unwrap();
    dir
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: TailArgs,
}

/// What `kalamdb tail --no-follow` with these arguments writes.
fn tail(dir: &tempfile::TempDir, arguments: &str) -> Vec<String> {
    let data_dir = dir.path().to_str().unwrap();
    let line =
        ["tail", "--no-follow", "--data-dir", data_dir].into_iter().chain(arguments.split_whitespace());
    let args = Line::try_parse_from(line).unwrap().args;
    let mut out = Vec::new();
    write(&args, &mut out, false).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn shows_every_event_as_json_with_names() {
    let dir = data_dir(&events().into_iter().map(|event| vec![event]).collect::<Vec<_>>());
    let lines = tail(&dir, "--format json --from 5 --user ada");
    let time = "2026-09-21T14:13:20.123456Z";
    let head = |seq: u64, op: &str, event: &str| {
        format!(
            r#"{{"seq":{seq},"commit_ts":"{time}","op":"{op}","event":"{event}","table":"shop.orders","user":"ada","schema_version":1,"key":{{"id":"5"}}"#
        )
    };
    let old = r#"{"id":"5","price":"-0.05","note":"new"}"#;
    let new = r#"{"id":"5","price":"123.45","note":"new"}"#;
    assert_eq!(
        lines,
        [
            head(5, "insert", "RowInserted") + r#","row":{"id":"5","price":"-0.05","note":"new\u001b[2J"}}"#,
            head(6, "update", "RowUpdated") + &format!(r#","row":{new},"old":{old}}}"#),
            head(7, "delete", "RowDeleted") + &format!(r#","old":{new}}}"#),
        ]
    );
    for line in tail(&dir, "--format json") {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
        assert!(!line.contains("argon2id"), "{line}");
    }
}

#[test]
fn filters_hold_all_at_once() {
    let dir = data_dir(&[events()]);
    let seqs = |arguments: &str| -> Vec<u64> {
        let lines = tail(&dir, &format!("--format json {arguments}"));
        let seq =
            |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap();
        lines.iter().map(seq).collect()
    };
    assert_eq!(seqs(""), (1..=10).collect::<Vec<_>>());
    assert_eq!(seqs("--from end"), [0; 0]);
    assert_eq!(seqs("--from 9"), [9, 10]);
    assert_eq!(seqs("--op epoch"), [1]);
    assert_eq!(seqs("--op catalog"), [2, 3, 4]);
    assert_eq!(seqs("--table shop.orders --op insert"), [5, 8]);
    assert_eq!(seqs("--table shop.orders --user bob"), [8, 9, 10]);
    assert_eq!(seqs("--user ada"), [4, 5, 6, 7]);
    assert_eq!(seqs("--table shop.order"), [0; 0]);
}

#[test]
fn a_line_for_people_says_what_changed() {
    let dir = data_dir(&[events()]);
    let lines = tail(&dir, "--user ada --table shop.orders");
    assert_eq!(lines.len(), 3);
    assert!(lines[0].ends_with(r#"id=5  price=-0.05  note="new\u{1b}[2J""#), "{}", lines[0]);
    assert!(lines[1].ends_with("id=5  price: -0.05 → 123.45"), "{}", lines[1]);
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "colours only on a terminal");
    let starts: Vec<_> = lines.iter().map(|line| line.find("shop.orders").unwrap()).collect();
    assert_eq!(starts, [starts[0]; 3]);
}

#[test]
fn a_table_nobody_named_is_shown_by_its_id() {
    let appended = StreamAppended { partition: Partition::shared(TableId::new(99)), row: row(1, "x") };
    let dir = data_dir(&[vec![ChangeEvent::StreamAppended(Box::new(appended))]]);
    let lines = tail(&dir, "--format json --op insert");
    assert!(lines[0].contains(r#""table":"99""#), "{}", lines[0]);
    assert!(lines[0].contains(r#""column_1":"5","column_2":"1","column_3":"x""#), "{}", lines[0]);
}

#[test]
fn follows_what_is_written_until_it_is_told_to_stop() {
    let dir = data_dir(&[events()]);
    let (mut writer, _) = LogWriter::open(&dir.path().join("log"), &LogOptions::default(), TIME).unwrap();
    let mut reader = LogReader::open(&dir.path().join("log"));
    let from = reader.end().unwrap().next();
    reader.seek_from(from).unwrap();
    let (line, lines) = std::sync::mpsc::channel();
    let (sender, stop) = channel();
    let log = dir.path().join("log");
    let follower = std::thread::spawn(move || {
        let out = Lines { sender: line };
        let mut tail = Tail {
            from,
            filter: Filter::new(None, None, None),
            catalog: Catalog::new(&log),
            pretty: Pretty::new(false),
            format: Format::Pretty,
            out,
        };
        tail.follow(&mut reader, &stop, false).unwrap();
    });
    for previous_end in 0..3 {
        let epoch = ChangeEvent::EpochStarted(Box::new(EpochStarted { previous_end }));
        writer.stage(&encoded(&[epoch]), TIME).unwrap();
        writer.write().unwrap();
        let line = lines.recv_timeout(Duration::from_mins(1)).unwrap();
        assert!(line.contains(&format!("previous_end={previous_end}")), "{line}");
    }
    sender.send(()).unwrap();
    follower.join().unwrap();
}

/// Sends what is written, piece by piece.
struct Lines {
    sender: Sender<String>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let text = String::from_utf8(bytes.to_vec()).map_err(io::Error::other)?;
        self.sender.send(text).map_err(io::Error::other)
    }

    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(arguments.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_directory_without_a_log_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = log_directory(dir.path()).unwrap_err().to_string();
    assert!(error.contains("there is no log in"), "{error}");
}
