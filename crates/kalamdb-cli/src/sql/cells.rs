//! Formats one value by the type of its column: on the wire, dates and times are integers.
//!
//! Dates and times are ISO 8601 in every output. Spans and arrays are written as PostgreSQL writes them where text is asked for, as
//! ISO 8601 and as JSON arrays where JSON is.

use std::borrow::Cow;

use serde_json::Value;

use crate::client::Column;
use crate::iso::{date_text, time_text, timestamp_text};
use crate::spans::Span;

/// The text of a value; none for NULL.
pub(super) fn text(column: &Column, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    if let Some(moment) = moment(column, value) {
        return Some(moment);
    }
    Some(match value {
        Value::String(text) if is_span(column) => {
            Span::parse(text).map_or_else(|| text.clone(), |span| span.postgres())
        }
        Value::String(text) => text.clone(),
        Value::Array(items) if !is_document(column) => array_text(items),
        other => other.to_string(),
    })
}

/// A value as JSON.
pub(crate) fn json<'a>(column: &Column, value: &'a Value) -> Cow<'a, Value> {
    if let Some(moment) = moment(column, value) {
        return Cow::Owned(Value::String(moment));
    }
    match value {
        Value::String(text) if is_span(column) => {
            Span::parse(text).map_or(Cow::Borrowed(value), |span| Cow::Owned(Value::String(span.iso())))
        }
        _ => Cow::Borrowed(value),
    }
}

/// A date or time; none for other values, and for one that is text already.
fn moment(column: &Column, value: &Value) -> Option<String> {
    let count = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    match column.data_type.as_str()? {
        "Timestamp" => Some(timestamp_text(count?, false)),
        "DateTime" => Some(timestamp_text(count?, true)),
        "Date" => Some(date_text(i32::try_from(count?).ok()?)),
        "Time" => Some(time_text(count?)),
        _ => None,
    }
}

/// Whether values are spans of time, which travel as text.
fn is_span(column: &Column) -> bool {
    let named = |name: &str| name.eq_ignore_ascii_case("interval") || name.eq_ignore_ascii_case("duration");
    column.data_type.as_str().is_some_and(named) || column.sql_type.as_deref().is_some_and(named)
}

/// Whether an array of this column is one of JSON, not of SQL.
fn is_document(column: &Column) -> bool {
    column.data_type.as_str() == Some("Json") || column.data_type.get("Embedding").is_some()
}

/// An array as PostgreSQL writes it: `{a,"b, c",NULL}`.
fn array_text(items: &[Value]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::Null => "NULL".to_owned(),
            Value::Array(items) => array_text(items),
            Value::String(text) => item_text(text),
            Value::Object(_) => item_text(&item.to_string()),
            other => other.to_string(),
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

fn item_text(text: &str) -> String {
    let is_special =
        |character: char| matches!(character, '{' | '}' | ',' | '"' | '\\') || character.is_whitespace();
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(is_special) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether values are numbers, which stand at the right.
pub(super) fn is_numeric(column: &Column) -> bool {
    let named = matches!(column.data_type.as_str(), Some("SmallInt" | "Int" | "BigInt" | "Float" | "Double"));
    named || column.data_type.get("Decimal").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn column(data_type: Value) -> Column {
        Column { name: "c".to_owned(), data_type, sql_type: None }
    }

    #[expect(clippy::needless_pass_by_value, reason = "values stand where they are checked")]
    fn check(data_type: Value, value: Value, text_expected: &str, json_expected: Value) {
        let column = column(data_type);
        assert_eq!(text(&column, &value).as_deref(), Some(text_expected), "{value}");
        assert_eq!(*json(&column, &value), json_expected, "{value}");
    }

    #[test]
    fn dates_and_times_are_iso_in_every_output() {
        for value in [json!(1_523_383_337_000_000_i64), json!("1523383337000000")] {
            check(json!("Timestamp"), value.clone(), "2018-04-10T18:02:17", json!("2018-04-10T18:02:17"));
            check(json!("DateTime"), value, "2018-04-10T18:02:17Z", json!("2018-04-10T18:02:17Z"));
        }
        check(json!("Date"), json!(20_788), "2026-12-01", json!("2026-12-01"));
        check(json!("Date"), json!(i32::MAX), "2147483647", json!("2147483647"));
        check(json!("Time"), json!("45296500000"), "12:34:56.500", json!("12:34:56.500"));
        check(
            json!("Timestamp"),
            json!("2018-04-10T18:02:17"),
            "2018-04-10T18:02:17",
            json!("2018-04-10T18:02:17"),
        );
        check(json!("BigInt"), json!("20788"), "20788", json!("20788"));
        assert_eq!(text(&column(json!("Date")), &Value::Null), None);
    }

    #[test]
    fn spans_have_one_notation_by_the_output() {
        let both = [
            Column { name: "c".to_owned(), data_type: json!("Text"), sql_type: Some("INTERVAL".to_owned()) },
            column(json!("Interval")),
        ];
        for column in both {
            for value in [json!("PT86400S"), json!("1 days"), json!("P1D")] {
                assert_eq!(text(&column, &value).as_deref(), Some("1 day"));
                assert_eq!(json(&column, &value).into_owned(), json!("P1D"));
            }
            assert_eq!(text(&column, &json!("for ever")).as_deref(), Some("for ever"));
        }
        check(json!("Text"), json!("P1D"), "P1D", json!("P1D"));
    }

    #[test]
    fn arrays_are_told_apart() {
        let list = |value: Value, expected: &str| check(json!("Text"), value.clone(), expected, value);
        list(json!(["a", "b"]), "{a,b}");
        list(json!(["a", "b, c", null]), "{a,\"b, c\",NULL}");
        list(json!([null, "", " ", "NULL"]), "{NULL,\"\",\" \",\"NULL\"}");
        list(json!([[1, 2], [3]]), "{{1,2},{3}}");
        list(json!(["say \"x\"", "a\\b", "{}"]), "{\"say \\\"x\\\"\",\"a\\\\b\",\"{}\"}");
        list(json!([{"a": 1}]), "{\"{\\\"a\\\":1}\"}");
        list(json!({"a": [1]}), "{\"a\":[1]}");
        check(json!("Json"), json!(["a", 1]), "[\"a\",1]", json!(["a", 1]));
        check(json!({"Embedding": 2}), json!([1.0, 2.5]), "[1.0,2.5]", json!([1.0, 2.5]));
    }
}
