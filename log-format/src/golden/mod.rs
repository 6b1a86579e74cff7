//! Golden vectors: `vectors/NAME.bin` with `NAME.txt`, which says what each byte is.
//!
//! A vector of a released format is never changed. After a change before a release, `KALAMDB_WRITE_VECTORS=1 cargo test
//! -p log-format` writes them anew, and the tables of SPEC.md; the difference is then read like code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use self::annotate::Annotations;
use crate::{
    ArchivedChangeEvent, DataType, Frame, KeyReader, RowReader, SegmentFooter, SegmentHeader, Value,
};

mod annotate;
mod archived;
mod layout;
mod rejections;
mod samples;

/// A vector as it should be.
struct Vector {
    name: String,
    bytes: Vec<u8>,
    text: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn is_writing() -> bool {
    std::env::var_os("KALAMDB_WRITE_VECTORS").is_some_and(|value| value == "1")
}

/// `RowInserted` as `row-inserted`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn vector(name: &str, what: &str, bytes: Vec<u8>, annotations: Annotations) -> Vector {
    let text = format!("{what}\n\n{}", annotations.render(&bytes));
    Vector { name: name.to_owned(), bytes, text }
}

fn of_events() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (event, (name, _, meaning)) in samples::events().iter().zip(layout::EVENTS) {
        let bytes = event.encode().unwrap().as_bytes().to_vec();
        let mut annotations = Annotations::default();
        annotations.event(&bytes, 0);
        let what = format!("{name}, archived: {meaning}.");
        vectors.push(vector(&format!("event-{}", kebab(name)), &what, bytes, annotations));
    }
    vectors
}

fn key_parts() -> Vec<(DataType, Value, usize)> {
    vec![
        (DataType::Boolean, Value::Boolean(true), 1),
        (DataType::SmallInt, Value::SmallInt(-1), 2),
        (DataType::Int, Value::Int(1), 4),
        (DataType::BigInt, Value::BigInt(-2), 8),
        (DataType::Float, Value::Float(1.5), 4),
        (DataType::Double, Value::Double(-1.5), 8),
        (DataType::Decimal { precision: 9, scale: 2 }, Value::Decimal(-100), 16),
        (DataType::Text, Value::Text("a\0b".to_owned()), 6),
        (DataType::Timestamp, Value::Timestamp(0), 8),
        (DataType::DateTime, Value::DateTime(1), 8),
        (DataType::Date, Value::Date(-1), 4),
        (DataType::Time, Value::Time(1), 8),
        (DataType::Bytes, Value::Bytes(vec![0, 0xff]), 5),
        (DataType::Uuid, Value::Uuid([0x22; 16]), 16),
    ]
}

fn of_structures() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut annotated =
        |name: &str, what: &str, bytes: Vec<u8>, annotate: &dyn Fn(&mut Annotations, &[u8])| {
            let mut annotations = Annotations::default();
            annotate(&mut annotations, &bytes);
            vectors.push(vector(name, what, bytes, annotations));
        };
    annotated("segment", "The head of a segment.", rejections::segment(), &Annotations::segment);
    annotated(
        "segment-after-hole",
        "The head of a segment that follows a hole.",
        rejections::segment_after_hole(),
        &Annotations::segment,
    );
    annotated(
        "footer",
        "The footer of a segment of two frames, with events of the catalog, of table 42 and of ada's rows in table 7.",
        rejections::footer().encode().unwrap(),
        &Annotations::footer,
    );
    annotated("frame", "A frame of two events.", rejections::frame(), &Annotations::frame);
    let values = samples::values();
    annotated("row", "A row with a cell of each type.", samples::row(&values), &|annotations, bytes| {
        annotations.row(bytes, &values);
    });
    let parts = key_parts();
    let key_values: Vec<_> = parts.iter().map(|(_, value, _)| value.clone()).collect();
    annotated(
        "key",
        "A key of each type that can be in one.",
        samples::key(&key_values),
        &|annotations, _| {
            annotations.key(&parts);
        },
    );
    vectors
}

fn of_rejections() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for rejection in rejections::all() {
        let error = rejections::read(rejection.reader, &rejection.bytes).unwrap_err();
        let mut text =
            format!("Refused: {}.\nRead as: {:?}\nError: {error}\n\n", rejection.why, rejection.reader);
        annotate::hex(&mut text, &rejection.bytes, 0, rejection.bytes.len(), "");
        vectors.push(Vector { name: format!("reject-{}", rejection.name), bytes: rejection.bytes, text });
    }
    vectors
}

#[test]
fn vectors_are_what_is_written_and_nothing_else_is_there() {
    let mut names = BTreeSet::new();
    for vector in [of_structures(), of_events(), of_rejections()].into_iter().flatten() {
        let (bin, txt) = (format!("{}.bin", vector.name), format!("{}.txt", vector.name));
        if is_writing() {
            fs::write(directory().join(&bin), &vector.bytes).unwrap();
            fs::write(directory().join(&txt), &vector.text).unwrap();
        }
        assert!(fs::read(directory().join(&bin)).unwrap() == vector.bytes, "{bin} differs");
        assert_eq!(fs::read_to_string(directory().join(&txt)).unwrap(), vector.text, "{txt}");
        names.extend([bin, txt]);
    }
    let there: BTreeSet<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, names);
}

fn stored(name: &str) -> Vec<u8> {
    fs::read(directory().join(format!("{name}.bin"))).unwrap()
}

#[test]
fn every_event_is_read_from_its_vector_and_written_as_it() {
    for (tag, event) in samples::events().into_iter().enumerate() {
        let (name, ..) = layout::EVENTS[tag];
        let bytes = stored(&format!("event-{}", kebab(name)));
        let aligned = rejections::aligned(&bytes);
        let archived = ArchivedChangeEvent::access(&aligned).unwrap();
        assert_eq!(archived.name(), name);
        assert_eq!(archived.to_event().unwrap(), event);
        assert_eq!(
            archived.partition().map(crate::ids::ArchivedPartition::to_partition).as_ref(),
            event.partition()
        );
        assert!(event.encode().unwrap().as_bytes() == bytes, "{name}");
    }
}

#[test]
fn the_other_vectors_are_read_as_what_they_are() {
    let header = SegmentHeader::parse(&stored("segment")).unwrap();
    assert_eq!((header.epoch, header.base_seq.get()), (3, 42));
    assert_eq!(header.database.to_string(), "0123456789abcdeffedcba9876543210");
    assert_eq!(header.encode(), *stored("segment"));

    assert!(!header.after_hole && SegmentHeader::parse(&stored("segment-after-hole")).unwrap().after_hole);

    let footer = stored("footer");
    assert_eq!(SegmentFooter::parse(&footer).unwrap(), rejections::footer());
    assert_eq!(SegmentFooter::length(&footer[footer.len() - 16..]), Some(footer.len()));

    let frame = Frame::parse(&rejections::aligned(&stored("frame"))).unwrap();
    assert_eq!((frame.first_seq().get(), frame.last_seq().get(), frame.header().fields.epoch), (42, 43, 3));
    let events: Vec<_> = frame.events().map(|(_, event)| event.unwrap().to_event().unwrap()).collect();
    assert_eq!(events, samples::events()[..2]);

    let row = stored("row");
    assert_eq!(RowReader::new(&row).unwrap().values().unwrap(), samples::values());
    let key = stored("key");
    let mut reader = KeyReader::new(&key);
    for (data_type, value, _) in key_parts() {
        assert_eq!(reader.next(data_type).unwrap(), value);
    }
}

#[test]
fn every_rejection_is_refused_with_its_error() {
    for rejection in rejections::all() {
        let bytes = stored(&format!("reject-{}", rejection.name));
        let error = rejections::read(rejection.reader, &bytes).expect_err(rejection.name);
        assert!((rejection.expects)(&error), "{}: {error:?}", rejection.name);
    }
}

#[test]
fn the_spec_tells_the_layout_as_it_is() {
    const BEGIN: &str = "<!-- generated from src/golden/layout.rs: begin -->\n";
    const END: &str = "<!-- generated from src/golden/layout.rs: end -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEC.md");
    let spec = fs::read_to_string(&path).unwrap();
    let (before, rest) = spec.split_once(BEGIN).unwrap();
    let (told, after) = rest.split_once(END).unwrap();
    let text = format!("\n{}\n", layout::spec_text());
    if is_writing() {
        fs::write(path, [before, BEGIN, &text, END, after].concat()).unwrap();
    } else {
        assert_eq!(told, text);
    }
}
