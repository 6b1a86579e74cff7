//! log-format/SPEC.md is enough to write a reader: the one in `decoder`, written from it alone, reads the golden vectors and
//! the log of a real server, and finds what they hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::Server;

mod decoder;

use decoder::{Event, Spec};

fn log_format() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../log-format")
}

fn spec() -> Spec {
    Spec::parse(&fs::read_to_string(log_format().join("SPEC.md")).unwrap())
}

fn vector(name: &str) -> (Vec<u8>, String) {
    let path = log_format().join("vectors").join(name);
    (fs::read(path.with_extension("bin")).unwrap(), fs::read_to_string(path.with_extension("txt")).unwrap())
}

/// What a vector's text says of its bytes: the note beside them, and the bytes of a note without a value.
fn notes(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut notes: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with("0000")) {
        let (hex, note) = line[6..].split_at_checked(49).unwrap_or((&line[6..], ""));
        let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap());
        match notes.last_mut() {
            Some((_, known)) if note.is_empty() => known.extend(bytes),
            _ => notes.push((note.to_owned(), bytes.collect())),
        }
    }
    notes
}

/// The fields that a vector's text tells, in the decoder's form: `path = value`, and bytes in hexadecimal digits.
fn told_fields(text: &str, event: &str) -> BTreeMap<String, String> {
    let of_event = |note: &String| {
        note == event || note.starts_with(&format!("{event}.")) || note.starts_with(&format!("{event} "))
    };
    let fields = notes(text).into_iter().filter(|(note, _)| of_event(note)).filter_map(|(note, bytes)| {
        match note.split_once(" = ") {
            Some((path, value)) => Some((path.to_owned(), value.to_owned())),
            // Whether an option is there, and where a pointer points, the paths tell.
            None if note.contains(": ") => None,
            None => Some((note, format!("{bytes:02x?}"))),
        }
    });
    fields.collect()
}

fn found_fields(event: &Event) -> BTreeMap<String, String> {
    let text = |leaf: &decoder::Leaf| {
        if leaf.bytes.is_empty() { leaf.text.clone() } else { format!("{:02x?}", leaf.bytes) }
    };
    event.fields.iter().map(|(path, leaf)| (path.clone(), text(leaf))).collect()
}

#[test]
fn the_page_tells_where_every_field_of_every_event_stands() {
    let spec = spec();
    let names: Vec<&str> = spec.event_names().collect();
    assert!(names.len() >= 21, "{names:?}");
    for name in names {
        let file: String = name.chars().fold("event".to_owned(), |mut file, letter| {
            if letter.is_uppercase() {
                file.push('-');
            }
            file.extend(letter.to_lowercase());
            file
        });
        let (bytes, text) = vector(&file);
        let event = spec.event(1, &bytes).unwrap_or_else(|| panic!("{file} cannot be read"));
        assert_eq!(event.name, name);
        assert_eq!(found_fields(&event), told_fields(&text, name), "{file}");
    }
}

#[test]
fn frames_segments_rows_and_keys_are_what_the_page_says() {
    let spec = spec();
    let (bytes, text) = vector("frame");
    let (events, length, [_, previous_crc, epoch]) = spec.frame(&bytes).unwrap();
    assert_eq!((length, previous_crc, epoch), (bytes.len(), 0x1122_3344, 3));
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [42, 43]);
    for event in &events {
        assert_eq!(found_fields(event), told_fields(&text, &event.name));
    }
    assert_eq!(decoder::segment_head(&vector("segment").0), Some((42, false)));
    let after_hole = decoder::segment_head(&vector("segment-after-hole").0);
    assert!(after_hole.is_some_and(|(_, after_hole)| after_hole));

    let footer = decoder::footer(&vector("footer").0).unwrap();
    let mut partitions =
        [(0, None), (42, None), (7, Some("ada"))].map(|(table, owner)| decoder::partition_hash(table, owner));
    partitions.sort_unstable();
    let time = 1_790_000_000_000_000;
    let expected = decoder::Footer {
        last_seq: 46,
        events: 5,
        end: 70_064,
        last_crc: 0x5566_7788,
        entries: vec![[42, time, 64], [44, time + 500_000, 66_064]],
        partitions: Some(partitions.to_vec()),
    };
    assert_eq!(footer, expected);

    let (bytes, text) = vector("row");
    let cells = notes(&text).into_iter().filter_map(|(note, _)| {
        note.strip_prefix("cell ").map(|note| note.split_once(": ").unwrap().1.to_owned())
    });
    assert_eq!(decoder::row(&bytes), Some((1, cells.collect())));

    let (bytes, text) = vector("key");
    let notes = notes(&text);
    let columns =
        notes.iter().map(|(note, _)| note.rsplit_once(' ').filter(|(_, value)| value.ends_with(')')));
    let columns = columns.zip(&notes).map(|(split, (note, _))| match split {
        // A list holds spaces of its own.
        Some((kind, value)) if !kind.contains('[') => (kind, value),
        _ => note.split_once(' ').unwrap(),
    });
    let (types, values): (Vec<&str>, Vec<String>) =
        columns.map(|(kind, value)| (kind.split('(').next().unwrap(), value.to_owned())).unzip();
    assert_eq!(decoder::key(&bytes, &types), Some(values));
}

#[test]
fn what_must_be_refused_is() {
    let spec = spec();
    let mut refused = 0;
    for entry in fs::read_dir(log_format().join("vectors")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".bin").filter(|name| name.starts_with("reject-")) else {
            continue;
        };
        let (bytes, text) = vector(name);
        let reader = text.lines().find_map(|line| line.strip_prefix("Read as: ")).unwrap();
        let is_read = match reader {
            "Frame" => spec.frame(&bytes).is_some(),
            "Segment" => decoder::segment_head(&bytes).is_some(),
            "Row" => decoder::row(&bytes).is_some(),
            "Footer" => decoder::footer(&bytes).is_some(),
            key => {
                let kind = key.strip_prefix("Key(").and_then(|key| key.strip_suffix(')')).unwrap();
                decoder::key(&bytes, &[&kind.to_uppercase()]).is_some()
            }
        };
        assert!(!is_read, "{name} is to be refused");
        refused += 1;
    }
    assert!(refused >= 32, "{refused}");
}

/// Rows by table id, owner and key.
type Rows = BTreeMap<(String, String, Vec<u8>), Vec<u8>>;

/// Reads a log from its first byte to its last, checks what holds it together, and plays its events back.
fn rebuild(spec: &Spec, dir: &Path) -> (Rows, BTreeMap<String, String>) {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "klog"));
    segments.sort();
    let (mut rows, mut tables, mut next_seq, mut last_crc, mut last_epoch) =
        (Rows::new(), BTreeMap::new(), 1, 0, 0);
    for path in segments {
        let bytes = fs::read(&path).unwrap();
        let (base, _) = decoder::segment_head(&bytes).unwrap();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{base:020}.klog"));
        let mut at = 64;
        while bytes.get(at..at + 48).is_some_and(|head| head.iter().any(|byte| *byte != 0)) {
            if bytes[at..].starts_with(b"KALAMFTR") {
                let footer = decoder::footer(&bytes[at..]).unwrap();
                let told = (footer.end, footer.last_seq + 1, footer.last_crc);
                assert_eq!(told, (at as u64, next_seq, u64::from(last_crc)), "{}", path.display());
                break;
            }
            let (events, length, [crc, previous_crc, epoch]) =
                spec.frame(&bytes[at..]).unwrap_or_else(|| panic!("{} at {at}", path.display()));
            assert_eq!(previous_crc, last_crc);
            assert!(events[0].seq == next_seq || events[0].seq > next_seq && epoch > last_epoch);
            (last_crc, last_epoch, next_seq) = (crc, epoch, events[0].seq + events.len() as u64);
            for event in &events {
                play(event, &mut rows, &mut tables);
            }
            at += length;
        }
    }
    (rows, tables)
}

fn play(event: &Event, rows: &mut Rows, tables: &mut BTreeMap<String, String>) {
    let leaf = |field: &str| event.fields.get(&format!("{}.{field}", event.name)).cloned();
    let text =
        |field: &str| leaf(field).map(|leaf| leaf.text.trim_matches('"').to_owned()).unwrap_or_default();
    if event.name == "TableCreated" {
        tables.insert(text("name"), text("id"));
    }
    let key = || (text("partition.table"), text("partition.user"), leaf("key").unwrap().bytes);
    match event.name.as_str() {
        "RowInserted" => drop(rows.insert(key(), leaf("row").unwrap().bytes)),
        "RowUpdated" => {
            assert_eq!(rows.insert(key(), leaf("new").unwrap().bytes), Some(leaf("old").unwrap().bytes));
        }
        "RowDeleted" => assert_eq!(rows.remove(&key()), Some(leaf("old").unwrap().bytes)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_log_gives_the_rows_that_the_server_answers_with() {
    let mut server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, stars INT)").await;
    root.sql("CREATE SHARED TABLE app.board (name TEXT PRIMARY KEY, score DOUBLE)").await;
    let ada = server.user(&root, "ada").await;
    for api in [&root, &ada] {
        api.sql("INSERT INTO app.notes VALUES (1, 'one', 1), (2, 'two, which is longer', NULL), (3, 'drei ß', -3)").await;
        api.sql("UPDATE app.notes SET stars = 20 WHERE id = 2").await;
        api.sql("DELETE FROM app.notes WHERE id = 1").await;
    }
    root.sql("INSERT INTO app.board VALUES ('a', 0.5), ('b', -1.0)").await;
    let told = |rows: Vec<Value>| -> Vec<String> {
        let cell = |value: &Value, kind: &str| match value {
            Value::Null => "Null".to_owned(),
            Value::String(text) if kind == "Text" => format!("Text({text:?})"),
            other => format!("{kind}({})", other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
        };
        let row =
            |row: &Value| [cell(&row[0], "BigInt"), cell(&row[1], "Text"), cell(&row[2], "Int")].join(" ");
        rows.iter().map(row).collect()
    };
    let select = "SELECT id, body, stars FROM app.notes ORDER BY id";
    let of_root = told(root.rows(select).await);
    let of_ada = told(ada.rows(select).await);
    let board = root.rows("SELECT name, score FROM app.board ORDER BY name").await;
    // As a crash leaves it: with space made ahead behind the last frame.
    server.kill().await;

    let (rows, tables) = rebuild(&spec(), &server.data_dir().join("log"));
    let of = |table: &str, user: &str| -> Vec<String> {
        let mine = rows.iter().filter(|((id, owner, _), _)| *id == tables[table] && owner == user);
        mine.map(|(_, row)| decoder::row(row).unwrap().1.join(" ")).collect()
    };
    assert_eq!(of_ada.len(), 2);
    assert_eq!(of("notes", "root"), of_root);
    assert_eq!(of("notes", "ada"), of_ada);
    assert_eq!(of("board", ""), ["Text(\"a\") Double(0.5)", "Text(\"b\") Double(-1.0)"]);
    assert_eq!(board, [json!(["a", 0.5]), json!(["b", -1.0])]);
}
