//! Values as `SQLite`'s sqllogictest writes them, and whether they are those that a file has.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::records::Sort;

/// The values of a result, row after row, in the form that each type has there.
pub(crate) fn values(result: &Value, types: &str, sort: Sort) -> Vec<String> {
    let rows = result["rows"].as_array().unwrap();
    let row = |row: &Value| -> Vec<String> {
        let cells = row.as_array().unwrap().iter();
        cells.zip(types.chars().chain(std::iter::repeat('T'))).map(|(cell, kind)| value(cell, kind)).collect()
    };
    let mut rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    if sort == Sort::Rows {
        rows.sort();
    }
    let mut values: Vec<String> = rows.into_iter().flatten().collect();
    if sort == Sort::Values {
        values.sort();
    }
    values
}

fn value(cell: &Value, kind: char) -> String {
    let text = match cell {
        Value::Null => return "NULL".to_owned(),
        Value::Bool(is) => i32::from(*is).to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (kind, text.parse::<f64>()) {
        ('I', Ok(_)) if text.parse::<i64>().is_ok() => text,
        // As C's cast of a double does it.
        #[expect(clippy::cast_possible_truncation, reason = "fractions are dropped")]
        ('I', Ok(number)) => (number as i64).to_string(),
        ('I', Err(_)) => "0".to_owned(),
        ('R', number) => format!("{:.3}", number.unwrap_or_default()),
        _ if text.is_empty() => "(empty)".to_owned(),
        _ => text.chars().map(|it| if (' '..='~').contains(&it) { it } else { '@' }).collect(),
    }
}

/// Whether these are the values of a file, or have the count and hash that stand there.
pub(crate) fn is_right(values: &[String], expected: &[String]) -> bool {
    let hashed = match expected {
        [only] => only.split_once(" values hashing to "),
        _ => None,
    };
    match hashed {
        Some((count, hash)) => count.parse() == Ok(values.len()) && hash == hash_of(values),
        None => values == expected,
    }
}

fn hash_of(values: &[String]) -> String {
    let mut hasher = Md5::new();
    for value in values {
        hasher.update(value.as_bytes());
        hasher.update(b"\n");
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// Checks itself.
pub(crate) fn check() {
    let result = json!({ "rows": [["10", 1.5, "b"], [null, "2.0005", ""], ["9", 7, "a\u{fc}"]] });
    assert_eq!(
        values(&result, "IRT", Sort::None),
        ["10", "1.500", "b", "NULL", "2.001", "(empty)", "9", "7.000", "a@"]
    );
    assert_eq!(values(&result, "IRT", Sort::Rows)[..3], ["10", "1.500", "b"]);
    assert_eq!(values(&result, "IRT", Sort::Values)[..3], ["(empty)", "1.500", "10"]);
    assert_eq!(value(&json!(-2.7), 'I'), "-2");
    let texts = |values: &[&str]| values.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    // The hash of "1\n2\n".
    let hashed = ["2 values hashing to 6ddb4095eb719e2a9f0a3f95677d24e0"];
    assert!(is_right(&texts(&["1", "2"]), &texts(&hashed)));
    assert!(!is_right(&texts(&["2", "1"]), &texts(&hashed)));
    assert!(is_right(&[], &[]));
}
