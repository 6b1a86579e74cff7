use clap::Parser;
use kalamdb_core::format::{
    ChangeEvent, Column, ColumnId, DataType, EncodedEvent, EpochStarted, KeyBuilder, NamespaceId, Partition,
    RowBuilder, RowDeleted, RowInserted, RowUpdated, SchemaVersion, StreamAppended, Table, TableId,
    TableKind, TableSchema, User, UserId, Value,
};
use kalamdb_core::log::{LogOptions, LogWriter};

use std::sync::mpsc::Sender;
use std::time::Duration;

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
    let (_keep, stop) = channel();
    write(&args, &mut out, false, stop).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn shows_every_event_as_json_with_names() {
    let dir = data_dir(&events().into_iter().map(|event| vec![event]).collect::<Vec<_>>());
    let lines = tail(&dir, "--format json --from 5 --user ada");
    let time = "2026-09-21T14:13:20.123456Z";
    let head = |seq: u64, op: &str, event: &str| {
        format!(
            r#"{{"seq":{seq},"commit_time":"{time}","op":"{op}","event":"{event}","namespace":"shop","table":"orders","user":"ada","schema_version":1,"key":{{"id":"5"}}"#
        )
    };
    let old = r#"{"id":"5","price":"-0.05","note":"new"}"#;
    let new = r#"{"id":"5","price":"123.45","note":"new"}"#;
    assert_eq!(
        lines,
        [
            head(5, "insert", "RowInserted")
                + r#","after":{"id":"5","price":"-0.05","note":"new\u001b[2J"}}"#,
            head(6, "update", "RowUpdated") + &format!(r#","before":{old},"after":{new}}}"#),
            head(7, "delete", "RowDeleted") + &format!(r#","before":{new}}}"#),
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
    assert!(lines[0].contains(r#""event":"StreamAppended","table":"99""#), "{}", lines[0]);
    assert!(lines[0].contains(r#""column_1":"5","column_2":"1","column_3":"x""#), "{}", lines[0]);
}

#[test]
fn the_envelope_of_change_data_tools_holds_rows_alone() {
    let dir = data_dir(&[events()]);
    let lines = tail(&dir, "--format debezium --user ada");
    let read: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |price: &str, note: &str| serde_json::json!({"id": "5", "price": price, "note": note});
    let (old, new) = (row("-0.05", "new"), row("123.45", "new"));
    let expected = [
        (5, "c", serde_json::Value::Null, row("-0.05", "new\u{1b}[2J")),
        (6, "u", old, new.clone()),
        (7, "d", new, serde_json::Value::Null),
    ];
    assert_eq!(read.len(), expected.len());
    for (read, (seq, op, before, after)) in read.iter().zip(expected) {
        let source = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "connector": "kalamdb", "name": "kalamdb",
            "ts_ms": TIME / 1000, "ts_us": TIME, "snapshot": "false", "db": "shop", "table": "orders",
            "user": "ada", "seq": seq, "schema_version": 1,
        });
        let whole = serde_json::json!({
            "before": before, "after": after, "source": source, "op": op, "ts_ms": TIME / 1000,
            "transaction": null,
        });
        assert_eq!(*read, whole);
    }
}

#[test]
fn begins_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 512, ..LogOptions::default() };
    let (mut writer, _) = LogWriter::open(&dir.path().join("log"), &options, TIME).unwrap();
    // One event a second, some to a segment; two commits of the same second in the end.
    for second in [1, 2, 3, 4, 5, 6, 7, 8, 8_i64] {
        writer.stage(&encoded(&[epoch(0)]), TIME + second * 1_000_000).unwrap();
        writer.write().unwrap();
    }
    writer.close().unwrap();
    let seqs = |since: i64| tail(&dir, &format!("--format json --since {}", instant(since))).len();
    assert_eq!(seqs(TIME - 1), 10);
    assert_eq!(seqs(TIME + 1), 9);
    for second in 1..=8 {
        let left = usize::try_from(9 - second).unwrap() + 1;
        assert_eq!(seqs(TIME + second * 1_000_000), left, "since second {second}");
        assert_eq!(seqs(TIME + second * 1_000_000 + 1), if second == 8 { 0 } else { left - 1 });
    }
    assert_eq!(tail(&dir, "--since 0s").len(), 0);
    assert_eq!(tail(&dir, "--since 100000d").len(), 10);
}

fn epoch(previous_end: u64) -> ChangeEvent {
    ChangeEvent::EpochStarted(Box::new(EpochStarted { previous_end }))
}

/// A follower from the log's end on, its lines, and what stops it.
fn follower(
    dir: &tempfile::TempDir,
) -> (Receiver<String>, Sender<()>, std::thread::JoinHandle<anyhow::Result<()>>) {
    let (sender, lines) = channel();
    let (stop, stopped) = channel();
    let data_dir = dir.path().to_str().unwrap();
    let args = Line::try_parse_from(["tail", "--data-dir", data_dir]).unwrap().args;
    let tail = directory::Tail::open(&args, Filter::default()).unwrap();
    let mut output = Output::new(Lines { sender }, Formatter::new(Format::Pretty, false));
    let thread = std::thread::spawn(move || tail.follow(&mut output, &stopped, false));
    (lines, stop, thread)
}

#[test]
fn follows_through_rotation_and_retention_until_it_is_told_to_stop() {
    let dir = data_dir(&[events()]);
    let log = dir.path().join("log");
    let (lines, stop, thread) = follower(&dir);
    let options = LogOptions { segment_bytes: 512, ..LogOptions::default() };
    let (mut writer, _) = LogWriter::open(&log, &options, TIME).unwrap();
    let mut deleted = 0;
    for number in 0..30 {
        writer.stage(&encoded(&[epoch(number)]), TIME).unwrap();
        writer.write().unwrap();
        loop {
            let line = lines.recv_timeout(Duration::from_mins(1)).unwrap();
            if line.contains(&format!("previous_end={number}\n")) {
                break;
            }
        }
        // What has been read may go, as it does with retention.
        let segments = list_segments(&log).unwrap();
        for segment in segments.iter().rev().skip(1) {
            std::fs::remove_file(&segment.path).unwrap();
            deleted += 1;
        }
    }
    assert!(deleted > 5, "{deleted} segments came and went");
    stop.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn exit_codes_tell_damage_from_retention() {
    let code = |error: LogError| format!("{:?}", exit_code(&anyhow::Error::new(error).context("reading")));
    let floor = LogError::BelowFloor { floor: kalamdb_core::format::Seq::new(9) };
    assert_eq!(code(floor), format!("{:?}", ExitCode::from(EXIT_BELOW_FLOOR)));
    let source = kalamdb_core::format::Error::Magic { found: [0; 8] };
    let damaged = LogError::Head { segment: PathBuf::from("x"), source };
    assert_eq!(code(damaged), format!("{:?}", ExitCode::from(EXIT_DAMAGED)));
    let missing = anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound));
    assert_eq!(format!("{:?}", exit_code(&missing)), format!("{:?}", ExitCode::FAILURE));
}

#[test]
fn what_retention_took_is_told() {
    let commits: Vec<_> = events().into_iter().map(|event| vec![event]).collect();
    let dir = data_dir(&commits);
    let segments = list_segments(&dir.path().join("log")).unwrap();
    let floor = segments.last().unwrap().base_seq;
    for segment in &segments[..segments.len() - 1] {
        std::fs::remove_file(&segment.path).unwrap();
    }
    let arguments = ["tail", "--no-follow", "--from", "2", "--data-dir", dir.path().to_str().unwrap()];
    let args = Line::try_parse_from(arguments).unwrap().args;
    let (_keep, stop) = channel();
    let error = write(&args, Vec::new(), false, stop).unwrap_err();
    let told = error.chain().find_map(|cause| cause.downcast_ref::<LogError>());
    assert!(matches!(told, Some(LogError::BelowFloor { floor: told }) if *told == floor), "{error:?}");
    assert!(!tail(&dir, "--from start").is_empty());
    assert!(!tail(&dir, "--since 100000d").is_empty());
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
