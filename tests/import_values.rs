//! Values of files that other programs wrote, as they are in a table in the end: epochs, exponents, nested Parquet, UUIDs.

use std::sync::Arc;

use kalamdb_core::arrow::array::{
    ArrayRef, BinaryArray, Int64Array, ListArray, NullArray, RecordBatch, StringArray, StructArray,
};
use kalamdb_core::arrow::buffer::OffsetBuffer;
use kalamdb_core::arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use crate::import::{World, done, refused};

/// The bytes of a Parquet file of these columns.
fn parquet_of(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// 2017-02-01T01:40:59, as results have it.
const MICROS: &str = "1485913259000000";

#[tokio::test]
async fn epochs_need_their_unit() {
    let world = World::new().await;
    let (server, root) = (&world.server, &world.root);
    root.sql("CREATE SHARED TABLE app.seen (id INT PRIMARY KEY, at TIMESTAMP, zoned DATETIME, day DATE)")
        .await;
    let seconds: ArrayRef = Arc::new(Int64Array::from(vec![1_485_913_259]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![3]));
    let columns =
        vec![("id", ids), ("at", Arc::clone(&seconds)), ("zoned", Arc::clone(&seconds)), ("day", seconds)];
    let files = [
        world.write("a.csv", "id,at,zoned,day\n1,1485913259,1485913259,1485913259\n"),
        world.write("a.jsonl", r#"{"id":2,"at":"1485913259","zoned":1485913259,"day":1485913259}"#),
        world.write("a.parquet", parquet_of(columns)),
    ];
    for file in &files {
        let said = ["row 1", "column at: 1485913259 says no unit: give --timestamp-unit s, ms, us or ns"];
        refused(server, &["import", file, "INTO", "app.seen"], &said).await;
        done(server, &["import", "--timestamp-unit=s", file, "INTO", "app.seen"]).await;
    }
    let rows = root.rows("SELECT at, zoned, day FROM app.seen ORDER BY id").await;
    assert_eq!(rows, vec![json!([MICROS, MICROS, 17198]); 3]);
    let mixed = world.write("b.csv", "id,at\n4,1485913259000\n5,1485913259\n");
    let said = ["row 2 (line 3), column at: the numbers of this column are of more than one unit"];
    refused(server, &["import", "--timestamp-unit=ms", &mixed, "INTO", "app.seen"], &said).await;
    let any = world.write("c.csv", "id,at\n6,1\n7,1485913259000000\n");
    done(server, &["import", "--timestamp-unit=us", &any, "INTO", "app.seen"]).await;
    let rows = root.rows("SELECT at FROM app.seen WHERE id > 5 ORDER BY id").await;
    assert_eq!(rows, [json!(["1"]), json!([MICROS])]);
}

#[tokio::test]
async fn exponents_are_numbers_and_fractions_no_integers() {
    let world = World::new().await;
    let (server, root) = (&world.server, &world.root);
    root.sql("CREATE SHARED TABLE app.paid (n INT PRIMARY KEY, amount DECIMAL(10, 2))").await;
    let excel = world.write("a.csv", "\u{feff}sep=;\r\nn;amount\r\n1e2;1.5E+02\r\n-2;-2E-1\r\n");
    done(server, &["import", &excel, "INTO", "app.paid"]).await;
    let json = world.write("a.jsonl", "{\"n\":1.0E1,\"amount\":1e2}\n");
    done(server, &["import", &json, "INTO", "app.paid"]).await;
    let rows = root.rows("SELECT n, amount FROM app.paid ORDER BY n").await;
    assert_eq!(rows, [json!([-2, "-0.20"]), json!([10, "100.00"]), json!([100, "150.00"])]);
    for (name, text, problem) in [
        ("b.csv", "n\n20.7\n", "column n: \"20.7\" is not a value of type INT: it has a fraction"),
        ("b.jsonl", "{\"n\":20.7}", "column n: \"20.7\" is not a value of type INT: it has a fraction"),
        ("c.csv", "n\n1e10\n", "column n: \"10000000000\" is not a value of type INT"),
        ("d.csv", "n,amount\n1,1e9\n", "column amount: \"1000000000\" is not a value of type DECIMAL(10, 2)"),
    ] {
        refused(server, &["import", &world.write(name, text), "INTO", "app.paid"], &[problem]).await;
    }
}

#[tokio::test]
async fn nested_parquet_becomes_documents() {
    let world = World::new().await;
    let (server, root) = (&world.server, &world.root);
    root.sql("CREATE SHARED TABLE app.docs (id INT PRIMARY KEY, n BIGINT, j JSON, t TEXT, u UUID)").await;
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a, b"]));
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let lists: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([2, 1]), texts, None));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, i64::MAX]));
    let field = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
    let structs: ArrayRef = Arc::new(StructArray::from(vec![
        (field("a", &numbers), Arc::clone(&numbers)),
        (field("b", &lists), Arc::clone(&lists)),
    ]));
    let uuid = [1_u8; 16];
    let file = parquet_of(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("n", Arc::new(NullArray::new(2))),
        ("j", structs),
        ("t", lists),
        ("u", Arc::new(BinaryArray::from(vec![&uuid[..], &uuid[..]]))),
    ]);
    done(server, &["import", &world.write("a.parquet", file), "INTO", "app.docs"]).await;
    let rows = root.rows("SELECT id, n, j, j->'b'->>0, t, u FROM app.docs ORDER BY id").await;
    let uuid = "01010101-0101-0101-0101-010101010101";
    let expected = [
        json!([1, null, r#"{"a":1,"b":["a","b"]}"#, "a", r#"["a","b"]"#, uuid]),
        json!([2, null, r#"{"a":9223372036854775807,"b":["a, b"]}"#, "a, b", r#"["a, b"]"#, uuid]),
    ];
    assert_eq!(rows, expected);
}

/// Lists, structs and spans of a query are documents and ISO 8601 in each format that is exported.
#[tokio::test]
async fn nested_results_leave_as_documents() {
    let world = World::new().await;
    let query = "SELECT ARRAY['a', 'b, c', NULL] AS l, struct('x' AS y, 1 AS n) AS s, interval '1 day' AS i";
    for (name, expected) in [
        ("a.jsonl", r#"{"l":["a", "b, c", null],"s":{"y": "x", "n": 1},"i":"P1D"}"#),
        ("a.csv", "l,s,i\n\"[\"\"a\"\", \"\"b, c\"\", null]\",\"{\"\"y\"\": \"\"x\"\", \"\"n\"\": 1}\",P1D"),
    ] {
        let file = world.path(name).display().to_string();
        done(&world.server, &["export", "--query", query, &file]).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{expected}\n"));
    }
}
