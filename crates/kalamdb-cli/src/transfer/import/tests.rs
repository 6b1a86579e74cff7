use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    LargeStringArray, ListArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array,
};
use arrow::datatypes::{DataType as ArrowType, Field, Float64Type, Int32Type, TimeUnit};
use clap::Parser as _;
use kalamdb_core::format::DataType;
use parquet::arrow::ArrowWriter;
use serde_json::{Value as Json, json};

use super::batch::{Batch, OnConflict};
use super::source::{Reader, Row, open};
use super::{ImportArgs, format};
use crate::transfer::progress::Position;
use crate::transfer::table::{Table, TableColumn};

fn table() -> Table {
    let item = Arc::new(Field::new_list_field(ArrowType::Float32, false));
    let columns = [
        ("id", DataType::BigInt, ArrowType::Int64),
        ("t", DataType::Text, ArrowType::Utf8),
        ("m", DataType::Decimal { precision: 10, scale: 2 }, ArrowType::Decimal128(10, 2)),
        ("ts", DataType::Timestamp, ArrowType::Timestamp(TimeUnit::Microsecond, None)),
        ("b", DataType::Boolean, ArrowType::Boolean),
        ("j", DataType::Json, ArrowType::Utf8),
        ("y", DataType::Bytes, ArrowType::Binary),
        ("u", DataType::Uuid, ArrowType::Utf8),
        ("e", DataType::Embedding(2), ArrowType::FixedSizeList(item, 2)),
    ];
    let columns = columns.map(|(name, data_type, arrow)| TableColumn {
        name: name.to_owned(),
        field: Field::new(name, arrow, true),
        data_type,
    });
    Table { name: "app.t".parse().unwrap(), columns: columns.into(), key: vec![0], is_stream: false }
}

/// The rows of a file with this name and these bytes, up to the first bad one.
pub(super) fn read(name: &str, bytes: &[u8], options: &[&str]) -> (Vec<Row>, Option<String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = path.display().to_string();
    let words = ["kalamdb", "import"].into_iter().chain(options.iter().copied());
    let command = crate::Command::parse_from(words.chain([path.as_str(), "INTO", "app.t"]));
    let crate::Command::Import(args) = command else { panic!("another command") };
    read_with(&args).unwrap_or_else(|error| (Vec::new(), Some(format!("{error:#}"))))
}

fn read_with(args: &ImportArgs) -> anyhow::Result<(Vec<Row>, Option<String>)> {
    let (format, compression) = format::of_file(&args.file, args.format)?;
    let position = Position::default();
    let (input, _) = open(&args.file, format, compression, &position)?;
    let table = table();
    let (mut rows, _) = Reader { args, table: &table, file: "the file", position }.rows(input)?;
    let mut found = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => found.push(row),
            Ok(None) => return Ok((found, None)),
            Err(bad) => return Ok((found, Some(bad.to_string()))),
        }
    }
}

pub(super) fn values(rows: &[Row]) -> Vec<Vec<Json>> {
    rows.iter().map(|row| row.values.clone()).collect()
}

#[test]
fn json_values_go_as_they_stand() {
    let lines = r#"{"id":12345678901234567890123,"m":1.50,"b":true,"t":true,"j":{"z":1, "a":2.50}}
{"ID":"1","j":"\"x\"","t":"\u00fc","e":[1, 2.0],"y":null}
{"j":null,"b":"t","t":7.10}"#;
    let (rows, bad) = read("a.jsonl", lines.as_bytes(), &[]);
    assert_eq!(bad, None);
    let expected = vec![
        vec![
            json!("12345678901234567890123"),
            json!("1.50"),
            json!(true),
            json!("true"),
            json!("{\"z\":1, \"a\":2.50}"),
        ],
        vec![json!("1"), json!("\"x\""), json!("ü"), json!("[1, 2.0]"), Json::Null],
        vec![Json::Null, json!("t"), json!("7.10")],
    ];
    assert_eq!(values(&rows), expected);
    assert_eq!(*rows[1].columns, [0, 5, 1, 8, 6]);
    assert_eq!((rows[2].number, rows[2].line), (3, Some(3)));
}

#[test]
fn a_batch_knows_where_its_parameters_come_from() {
    let lines = "{\"id\":1,\"t\":\"a\"}\n{}\n{\"t\":\"b\",\"b\":false,\"id\":2}";
    let (rows, _) = read("a.jsonl", lines.as_bytes(), &[]);
    let mut batch = Batch::default();
    for row in rows {
        assert!(!batch.is_full(&row, 10, OnConflict::Ignore));
        assert_eq!(batch.is_full(&row, 10, OnConflict::Replace), !batch.is_empty(), "other columns");
        assert_eq!(batch.is_full(&row, 2, OnConflict::Ignore), batch.len() == 2);
        batch.push(row);
    }
    let insert = "INSERT INTO \"app\".\"t\" (\"id\", \"t\", \"b\") VALUES ";
    assert_eq!(
        batch.sql(&(0..3), &table(), OnConflict::Error),
        format!("{insert}($1,$2,DEFAULT),(DEFAULT,DEFAULT,DEFAULT),($5,$3,$4)")
    );
    assert_eq!(
        batch.sql(&(2..3), &table(), OnConflict::Replace),
        format!(
            "{insert}($3,$1,$2) ON CONFLICT DO UPDATE SET \"t\" = excluded.\"t\", \"b\" = excluded.\"b\""
        )
    );
    assert_eq!(
        batch.sql(&(1..2), &table(), OnConflict::Replace),
        "INSERT INTO \"app\".\"t\" (\"id\") VALUES (DEFAULT) ON CONFLICT DO NOTHING"
    );
    assert_eq!(batch.params(&(2..3)), [json!("b"), json!(false), json!("2")]);
    assert_eq!(
        [1, 2, 3, 4, 5].map(|number| batch.origin(&(0..3), number).unwrap()),
        [(0, 0), (0, 1), (2, 1), (2, 4), (2, 0)]
    );
    assert_eq!(batch.origin(&(2..3), 1), Some((2, 1)));
    assert_eq!((batch.origin(&(2..3), 0), batch.origin(&(2..3), 4)), (None, None));
}

pub(super) fn parquet_of(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
pub(super) fn parquet_of_other_programs_has_types_of_its_own() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
    let lists = vec![Some(vec![Some(1.0), Some(0.5)]), None];
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    let uuid = FixedSizeBinaryArray::try_from_iter([[7_u8; 16], [255; 16]].iter()).unwrap();
    let nanos = TimestampNanosecondArray::from(vec![1_500_000_001_000, -1_000]).with_timezone("UTC");
    let decimals = Decimal128Array::from(vec![123_400, -500]).with_precision_and_scale(20, 4).unwrap();
    let bytes = parquet_of(vec![
        ("ID", Arc::new(UInt8Array::from(vec![1, 255]))),
        ("t", Arc::new(dictionary)),
        ("m", Arc::new(decimals)),
        ("ts", Arc::new(nanos)),
        ("j", Arc::new(LargeStringArray::from(vec!["{}", "[1]"]))),
        ("u", Arc::new(uuid)),
        ("e", Arc::new(lists)),
        ("y", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..], b""]))),
    ]);
    let (rows, bad) = read("a.parquet", &bytes, &[]);
    assert_eq!(bad, None);
    let expected = vec![
        vec![
            json!("1"),
            json!("x"),
            json!("12.34"),
            json!("1970-01-01T00:25:00.000001"),
            json!("{}"),
            json!("07".repeat(16)),
            json!("[1.0,0.5]"),
            json!("AP8="),
        ],
        vec![
            json!("255"),
            Json::Null,
            json!("-0.05"),
            json!("1969-12-31T23:59:59.999999"),
            json!("[1]"),
            json!("ff".repeat(16)),
            Json::Null,
            json!(""),
        ],
    ];
    assert_eq!(values(&rows), expected);
}

#[test]
fn a_value_of_parquet_that_does_not_fit_is_named() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, 1e300]));
    let (rows, bad) = read("a.parquet", &parquet_of(vec![("t", Arc::clone(&texts)), ("m", doubles)]), &[]);
    assert_eq!(values(&rows), [[json!("a"), json!("1.00")], [json!("b"), json!("2.00")]]);
    let bad = bad.unwrap();
    assert!(bad.starts_with("row 3, column m: ") && bad.ends_with("; it should be DECIMAL(10, 2)"), "{bad}");
    let (rows, bad) = read("a.parquet", &parquet_of(vec![("b", Arc::clone(&texts))]), &[]);
    assert_eq!((rows.len(), bad), (3, None), "of texts the server decides");
    // Programs that have no NULL of integers write them as floats.
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(7.0), None, Some(0.5)]));
    let (rows, bad) = read("a.parquet", &parquet_of(vec![("id", floats)]), &[]);
    assert_eq!(values(&rows), [[json!("7")], [Json::Null]]);
    assert_eq!(bad.unwrap(), "row 3, column id: a fraction is no integer; it should be BIGINT");
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
    let bad = read("a.parquet", &parquet_of(vec![("id", times)]), &[]).1.unwrap();
    assert!(bad.starts_with("row 1, column id: ") && bad.ends_with("it should be BIGINT"), "{bad}");
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0, 5]));
    assert_eq!(
        values(&read("a.parquet", &parquet_of(vec![("b", numbers)]), &[]).0),
        [[json!("0")], [json!("5")]]
    );
    let unknown = parquet_of(vec![("t", texts), ("more", Arc::new(Int64Array::from(vec![1, 2, 3])))]);
    assert!(read("a.parquet", &unknown, &[]).1.unwrap().contains("has no column \"more\""));
    assert_eq!(read("a.parquet", &unknown, &["--skip-unknown"]).0.len(), 3);
}

#[test]
fn a_number_is_no_time_until_its_unit_is_known() {
    let seconds: ArrayRef = Arc::new(Int64Array::from(vec![Some(1_485_913_259), None]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1_485_913_259.0), None]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("1485913259"), None]));
    let files = [
        ("a.csv", b"ts\n1485913259\n\"\"\n".to_vec()),
        ("a.jsonl", b"{\"ts\":1485913259}\n".to_vec()),
        ("b.jsonl", b"{\"ts\":\"1485913259\"}\n".to_vec()),
        ("c.jsonl", b"{\"ts\":1.485913259e9}\n".to_vec()),
        ("a.parquet", parquet_of(vec![("ts", seconds)])),
        ("b.parquet", parquet_of(vec![("ts", floats)])),
        ("c.parquet", parquet_of(vec![("ts", texts)])),
    ];
    for (name, bytes) in &files {
        let (rows, bad) = read(name, bytes, &[]);
        assert!(rows.is_empty(), "{name}");
        let bad = bad.unwrap();
        assert!(bad.contains("column ts: ") && bad.contains("--timestamp-unit s"), "{name}: {bad}");
        let micros = json!("1485913259000000");
        assert_eq!(read(name, bytes, &["--timestamp-unit=s"]).0[0].values, [micros], "{name}");
        assert_eq!(read(name, bytes, &["--timestamp-unit", "us"]).0[0].values[0].as_str().unwrap().len(), 10);
    }
    let slack = b"ts\n1485913259.000200\n2017-02-01T01:40:59\n0\n";
    let (rows, bad) = read("a.csv", slack, &["--timestamp-unit=s"]);
    assert_eq!(bad, None);
    let expected = [[json!("1485913259000200")], [json!("2017-02-01T01:40:59")], [json!("0")]];
    assert_eq!(values(&rows), expected);
    let mixed = b"id,ts\n1,1485913259000\n2,\n3,1485913259\n";
    let (rows, bad) = read("a.csv", mixed, &["--timestamp-unit=ms"]);
    assert_eq!(rows.len(), 2);
    assert!(
        bad.unwrap().starts_with("row 3 (line 4), column ts: the numbers of this column are of more than")
    );
    let (_, bad) = read("a.csv", mixed, &["--timestamp-unit=s"]);
    assert!(bad.unwrap().starts_with("row 1 (line 2), column ts: 1485913259000 s since 1970 are beyond"));
}

#[test]
fn numbers_with_an_exponent_are_numbers() {
    let csv = b"id,m\n1e2,1.5E+02\n-20.0,-2E-1\n+3E0,1e0\n";
    let expected = [[json!("100"), json!("150")], [json!("-20"), json!("-0.2")], [json!("3"), json!("1")]];
    assert_eq!(values(&read("a.csv", csv, &[]).0), expected);
    let jsonl = b"{\"id\":1E2,\"m\":1.5E+02}\n{\"id\":-20.0,\"m\":\"-2E-1\"}\n{\"id\":\"+3e0\",\"m\":1e0}\n";
    assert_eq!(values(&read("a.jsonl", jsonl, &[]).0), expected);
    for (name, bytes) in
        [("a.csv", b"id\n20.7\n".as_slice()), ("a.jsonl", b"{\"id\":2.07e1}"), ("b.jsonl", b"{\"id\":20.7}")]
    {
        let bad = read(name, bytes, &[]).1.unwrap();
        assert!(bad.ends_with("is not a value of type BIGINT: it has a fraction"), "{bad}");
    }
    let excel = b"\xef\xbb\xbfsep=;\r\nid;t\r\n1;a,b\r\n";
    let (rows, bad) = read("a.csv", excel, &[]);
    assert_eq!((values(&rows), bad, rows[0].line), (vec![vec![json!("1"), json!("a,b")]], None, Some(3)));
    let bad = read("a.csv", excel, &["--delimiter=,"]).1.unwrap();
    assert!(bad.contains("names another delimiter"), "{bad}");
}

/// Files that are cut or have a wrong byte give rows or an error, whatever the byte is.
#[test]
fn damaged_files_end_in_an_error() {
    let texts: Vec<String> = (0..300).map(|row| format!("text {}", row * 7919 % 1000)).collect();
    let ids: ArrayRef = Arc::new((0..300).map(Some).collect::<Int64Array>());
    let parquet = parquet_of(vec![("id", ids), ("t", Arc::new(StringArray::from(texts.clone())))]);
    let lines: Vec<String> = texts.iter().enumerate().map(|(id, text)| format!("{id},{text}\n")).collect();
    let csv = format!("id,t\n{}", lines.concat());
    let zstd = zstd::encode_all(csv.as_bytes(), 3).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut state = 1_u64;
    for (name, whole) in
        [("a.parquet", parquet), ("a.csv.zst", zstd), ("a.csv.gz", gzip), ("a.csv", csv.into())]
    {
        assert_eq!(read(name, &whole, &[]).0.len(), 300, "{name}");
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap() % whole.len();
            let mut damaged = whole.clone();
            damaged[at] ^= u8::try_from(state >> 24 & 0xff).unwrap() | 1;
            read(name, &damaged, &[]);
            let (rows, bad) = read(name, &whole[..at], &[]);
            // What is cut off of plain text nobody can know.
            assert!(name == "a.csv" || bad.is_some(), "{name} cut at {at}: {} rows, {bad:?}", rows.len());
        }
    }
}
