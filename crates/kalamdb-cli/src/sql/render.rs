//! Results as text: aligned tables, JSON, CSV.
//!
//! It owns how a value looks. NULL is `∅` in a table, nothing in CSV (where an empty string is `""`), `null` in JSON.
//! Control characters never reach the terminal. It writes nowhere and asks nobody.

use std::fmt::Write as _;

use chrono::DateTime;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::client::{Column, ResultSet};

/// How NULL looks in a table.
pub(crate) const NULL_TEXT: &str = "∅";

/// What results are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned, for people.
    Table,
    /// An array of objects, one object a line.
    Json,
    /// RFC 4180 with a header line.
    Csv,
}

/// A result as text with its final newline; empty if there is nothing to show in this format.
pub(crate) fn render(format: Format, result: &ResultSet) -> String {
    let has_rows = !result.schema.is_empty();
    match format {
        Format::Table if has_rows && result.message.is_some() => {
            format!("{}{}\n", render_table(result), message_of(result))
        }
        Format::Table if has_rows => render_table(result),
        Format::Table => format!("{}\n", message_of(result)),
        Format::Json if has_rows => render_json(result),
        Format::Json => render_json_message(result),
        Format::Csv if has_rows => render_csv(result),
        Format::Csv => String::new(),
    }
}

/// `3 rows`, `1 row`.
pub(crate) fn count_of_rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

/// An empty table in the style of this program; numbers go right through [`right_aligned`].
pub(crate) fn new_table<I: IntoIterator<Item = S>, S: Into<String>>(header: I) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.into_iter().map(|name| Cell::new(name.into())));
    table
}

/// A cell whose text ends at the column's right edge.
pub(crate) fn right_aligned(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

fn rows_of(result: &ResultSet) -> &[Vec<Value>] {
    result.rows.as_deref().unwrap_or_default()
}

fn message_of(result: &ResultSet) -> String {
    match &result.message {
        Some(message) => printable(message),
        None => format!("OK, {}", count_of_rows(result.row_count)),
    }
}

fn render_table(result: &ResultSet) -> String {
    let mut table = new_table(result.schema.iter().map(|column| printable(&column.name)));
    for row in rows_of(result) {
        table.add_row(result.schema.iter().zip(row).map(|(column, value)| {
            let text = printable(&display(column, value).unwrap_or_else(|| NULL_TEXT.to_owned()));
            if is_numeric(column) { right_aligned(text) } else { Cell::new(text) }
        }));
    }
    format!("{table}\n")
}

/// Objects are written by hand: two columns of one name must both appear, in the order of the columns.
fn render_json(result: &ResultSet) -> String {
    let mut text = String::from("[");
    for (index, row) in rows_of(result).iter().enumerate() {
        text.push_str(if index == 0 { "\n  {" } else { ",\n  {" });
        for (position, (column, value)) in result.schema.iter().zip(row).enumerate() {
            let separator = if position == 0 { "" } else { "," };
            let name = Value::from(column.name.as_str());
            // Writing to a String can't fail.
            let _ = write!(text, "{separator}{name}:{value}");
        }
        text.push('}');
    }
    text.push_str(if rows_of(result).is_empty() { "]\n" } else { "\n]\n" });
    text
}

fn render_json_message(result: &ResultSet) -> String {
    let message = result.message.as_deref().map_or(Value::Null, Value::from);
    format!("{{\"message\":{message},\"row_count\":{}}}\n", result.row_count)
}

fn render_csv(result: &ResultSet) -> String {
    let header: Vec<String> = result.schema.iter().map(|column| csv_field(&column.name)).collect();
    let mut text = header.join(",");
    text.push('\n');
    for row in rows_of(result) {
        let fields: Vec<String> = result
            .schema
            .iter()
            .zip(row)
            .map(|(column, value)| display(column, value).map_or_else(String::new, |field| csv_field(&field)))
            .collect();
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

fn csv_field(text: &str) -> String {
    if text.is_empty() || text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// A value as people read it; `None` for NULL.
fn display(column: &Column, value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !is_instant(column) {
        return Some(text);
    }
    // Instants may travel as microseconds since 1970.
    let instant = text.parse().ok().and_then(DateTime::from_timestamp_micros);
    Some(instant.map_or(text, |instant| instant.format("%Y-%m-%d %H:%M:%S%.6f").to_string()))
}

fn is_instant(column: &Column) -> bool {
    matches!(column.data_type.as_str(), Some("Timestamp" | "DateTime"))
}

fn is_numeric(column: &Column) -> bool {
    let named = matches!(column.data_type.as_str(), Some("SmallInt" | "Int" | "BigInt" | "Float" | "Double"));
    named || column.data_type.get("Decimal").is_some()
}

/// Control characters other than a line break, made visible: a row must not be able to drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => shown.push_str("    "),
            '\r' => {}
            c if c.is_control() && c != '\n' => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(columns: &[(&str, Value)], rows: Vec<Vec<Value>>) -> ResultSet {
        ResultSet {
            schema: columns
                .iter()
                .map(|(name, data_type)| Column { name: (*name).to_owned(), data_type: data_type.clone() })
                .collect(),
            row_count: rows.len() as u64,
            rows: Some(rows),
            message: None,
        }
    }

    fn sample() -> ResultSet {
        result(
            &[
                ("id", json!("BigInt")),
                ("body", json!("Text")),
                ("price", json!({"Decimal": {"precision": 5, "scale": 2}})),
            ],
            vec![
                vec![json!("7"), json!("say \"hi\", you"), json!("1.50")],
                vec![json!("1234"), json!(null), json!(null)],
            ],
        )
    }

    #[test]
    fn tables_align_numbers_right_and_show_null() {
        let expected = "\
┌──────┬───────────────┬───────┐
│ id   ┆ body          ┆ price │
╞══════╪═══════════════╪═══════╡
│    7 ┆ say \"hi\", you ┆  1.50 │
│ 1234 ┆ ∅             ┆     ∅ │
└──────┴───────────────┴───────┘
";
        assert_eq!(render(Format::Table, &sample()), expected);
    }

    #[test]
    fn csv_quotes_and_tells_null_from_empty() {
        assert_eq!(render(Format::Csv, &sample()), "id,body,price\n7,\"say \"\"hi\"\", you\",1.50\n1234,,\n");
        let empty = result(&[("a", json!("Text"))], vec![vec![json!("")]]);
        assert_eq!(render(Format::Csv, &empty), "a\n\"\"\n");
    }

    #[test]
    fn json_keeps_the_wire_values_and_every_column() {
        let twice =
            result(&[("id", json!("Int")), ("id", json!("BigInt"))], vec![vec![json!(1), json!("2")]]);
        assert_eq!(render(Format::Json, &twice), "[\n  {\"id\":1,\"id\":\"2\"}\n]\n");
        assert_eq!(render(Format::Json, &result(&[("a", json!("Int"))], vec![])), "[]\n");
    }

    #[test]
    fn statements_without_rows_tell_what_they_did() {
        let done =
            ResultSet { row_count: 2, message: Some("2 rows inserted".to_owned()), ..ResultSet::default() };
        assert_eq!(render(Format::Table, &done), "2 rows inserted\n");
        assert_eq!(render(Format::Json, &done), "{\"message\":\"2 rows inserted\",\"row_count\":2}\n");
        assert_eq!(render(Format::Csv, &done), "");
        assert_eq!(render(Format::Table, &ResultSet { row_count: 1, ..ResultSet::default() }), "OK, 1 row\n");
    }

    #[test]
    fn instants_are_readable_however_they_travel() {
        let column = Column { name: "t".to_owned(), data_type: json!("Timestamp") };
        let shown = |value: Value| display(&column, &value);
        assert_eq!(shown(json!(1_523_383_337_000_000_i64)).as_deref(), Some("2018-04-10 18:02:17.000000"));
        assert_eq!(shown(json!("1523383337000000")).as_deref(), Some("2018-04-10 18:02:17.000000"));
        assert_eq!(shown(json!("2018-04-10T18:02:17Z")).as_deref(), Some("2018-04-10T18:02:17Z"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\tc\r\nd"), "a\\u{1b}[31mb    c\nd");
    }
}
