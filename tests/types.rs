//! Values of every type, at their ends, come back as they went: written as SQL or as parameters, read as JSON or as Arrow.

use kalamdb_core::arrow::ipc::reader::StreamReader;
use kalamdb_core::arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use crate::support::{Api, Server};

pub(crate) const COLUMNS: &str = "id INT PRIMARY KEY, b BOOLEAN, s SMALLINT, i INT, l BIGINT, f FLOAT, d DOUBLE, m DECIMAL(38, 10), t TEXT, \
    ts TIMESTAMP, tz DATETIME, dt DATE, tm TIME, j JSON, y BYTES, u UUID, e EMBEDDING(3)";
const NAMES: [&str; 17] =
    ["id", "b", "s", "i", "l", "f", "d", "m", "t", "ts", "tz", "dt", "tm", "j", "y", "u", "e"];

/// For each column: SQL that writes a value, and the JSON that a result has for it.
pub(crate) fn values() -> Vec<(&'static str, Vec<(String, Value)>)> {
    let same =
        |texts: &[&str]| texts.iter().map(|text| ((*text).to_owned(), json!(text))).collect::<Vec<_>>();
    let pairs = |pairs: &[(&str, Value)]| {
        pairs.iter().map(|(sql, json)| ((*sql).to_owned(), json.clone())).collect::<Vec<_>>()
    };
    let long = "x".repeat(65_536);
    let mut texts = vec![(format!("'{long}'"), json!(long)), ("'it''s'".to_owned(), json!("it's"))];
    texts.extend(pairs(&[
        ("''", json!("")),
        ("'👩‍👩‍👧 ünï'", json!("👩‍👩‍👧 ünï")),
        ("E'a\\tb\\n'", json!("a\tb\n")),
    ]));
    vec![
        ("b", pairs(&[("true", json!(true)), ("false", json!(false))])),
        ("s", pairs(&[("32767", json!(32767)), ("-32768", json!(-32768))])),
        ("i", pairs(&[("2147483647", json!(2_147_483_647)), ("-2147483648", json!(-2_147_483_648_i64))])),
        ("l", same(&["9223372036854775807", "-9223372036854775808", "0"])),
        ("f", pairs(&[("1.5", json!(1.5)), ("'NaN'", json!("NaN")), ("'-Infinity'", json!("-Infinity"))])),
        (
            "d",
            pairs(&[
                ("5e-324", json!(5e-324)),
                ("1.7976931348623157e308", json!(f64::MAX)),
                ("'Infinity'", json!("Infinity")),
                ("'NaN'", json!("NaN")),
                ("-0.0", json!(-0.0)),
            ]),
        ),
        (
            "m",
            pairs(&[
                (
                    "'9999999999999999999999999999.9999999999'",
                    json!("9999999999999999999999999999.9999999999"),
                ),
                ("-0.0000000001", json!("-0.0000000001")),
            ]),
        ),
        ("t", texts),
    ]
    .into_iter()
    .chain(other_values())
    .collect()
}

/// As [`values`].
fn other_values() -> Vec<(&'static str, Vec<(String, Value)>)> {
    let pairs = |pairs: &[(&str, Value)]| {
        pairs.iter().map(|(sql, json)| ((*sql).to_owned(), json.clone())).collect::<Vec<_>>()
    };
    vec![
        (
            "ts",
            pairs(&[
                ("'2024-02-29T23:59:59.999999'", json!("1709251199999999")),
                ("'1969-12-31T23:59:59'", json!("-1000000")),
            ]),
        ),
        (
            "tz",
            pairs(&[
                ("'2024-02-29T23:59:59+02:00'", json!("1709243999000000")),
                ("'1970-01-01T00:00:00Z'", json!("0")),
            ]),
        ),
        (
            "dt",
            pairs(&[
                ("'0001-01-01'", json!(-719_162)),
                ("'9999-12-31'", json!(2_932_896)),
                ("'1970-01-02'", json!(1)),
            ]),
        ),
        ("tm", pairs(&[("'00:00:00'", json!("0")), ("'23:59:59.999999'", json!("86399999999"))])),
        (
            "j",
            pairs(&[
                ("'{\"a\": [1, 2.50]}'", json!("{\"a\": [1, 2.50]}")),
                ("'\"text\"'", json!("\"text\"")),
                ("'null'", json!("null")),
            ]),
        ),
        ("y", pairs(&[("'\\x00ff'", json!("AP8=")), ("''", json!("")), ("'abc'", json!("YWJj"))])),
        (
            "u",
            pairs(&[(
                "'0198A7D2-7B0C-7000-8000-00000000ABCD'",
                json!("0198a7d2-7b0c-7000-8000-00000000abcd"),
            )]),
        ),
        ("e", pairs(&[("'[1, -2.5, 0.1]'", json!([1.0, -2.5, 0.1]))])),
    ]
}

pub(crate) async fn in_arrow(root: &Api, sql: &str) -> Vec<RecordBatch> {
    let bytes = root.arrow(sql).await;
    StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn every_type_comes_back_as_it_went() {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    for table in ["written", "returned", "selected"] {
        root.sql(&format!("CREATE SHARED TABLE app.{table} ({COLUMNS})")).await;
    }
    let mut id = 0;
    for (column, values) in values() {
        for (sql, expected) in values {
            id += 1;
            root.sql(&format!("INSERT INTO app.written (id, {column}) VALUES ({id}, {sql})")).await;
            let rows = root.rows(&format!("SELECT {column} FROM app.written WHERE id = {id}")).await;
            assert_eq!(rows, [json!([expected])], "{column}: {sql}");
            // The same as a parameter of a query, by the query engine.
            let found = root
                .rows(&format!("SELECT id FROM app.written WHERE id > {id} - 1 AND {column} IS NOT NULL"))
                .await;
            assert_eq!(found, [json!([id])], "{column}: {sql}");
        }
    }
    root.sql_with("INSERT INTO app.written (id, t) VALUES ($1, $2)", &[json!(id + 1), json!("a\u{0}b")])
        .await;

    // What was read is written, value by value.
    let rows = root.rows("SELECT * FROM app.written ORDER BY id").await;
    assert_eq!(rows.len(), id + 1);
    let places: Vec<String> = (1..=NAMES.len()).map(|number| format!("${number}")).collect();
    let insert = format!("INSERT INTO app.returned ({}) VALUES ({})", NAMES.join(", "), places.join(", "));
    for row in &rows {
        root.sql_with(&insert, row.as_array().unwrap()).await;
    }
    root.sql("INSERT INTO app.selected SELECT * FROM app.written").await;
    for table in ["returned", "selected"] {
        assert_eq!(root.rows(&format!("SELECT * FROM app.{table} ORDER BY id")).await, rows, "{table}");
        let all = |table: &str| format!("SELECT * FROM app.{table} ORDER BY id");
        let (written, copied) = (in_arrow(&root, &all("written")).await, in_arrow(&root, &all(table)).await);
        assert_eq!(written.iter().map(RecordBatch::num_rows).sum::<usize>(), rows.len());
        assert_eq!(written, copied, "{table}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_no_value_of_its_column_is_refused() {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql(&format!("CREATE SHARED TABLE app.t ({COLUMNS})")).await;
    for (column, param) in [
        ("b", json!(2)),
        ("s", json!(32768)),
        ("i", json!("many")),
        ("l", json!(1.5)),
        ("m", json!("1e99")),
        ("ts", json!("yesterday")),
        ("tm", json!(86_400_000_000_i64)),
        ("dt", json!("2023-02-29")),
        ("y", json!("not base64!")),
        ("u", json!("1234")),
        ("e", json!([1, 2])),
        ("e", json!("far")),
    ] {
        let sql = format!("INSERT INTO app.t (id, {column}) VALUES (1, $1)");
        let answer = root.try_sql(&sql, std::slice::from_ref(&param)).await;
        assert_eq!(answer.code(), "INVALID_PARAMETER", "{column} {param}: {answer:?}");
    }
    assert!(root.rows("SELECT * FROM app.t").await.is_empty());
}
