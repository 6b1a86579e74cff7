//! Results as text: aligned tables, records, JSON, CSV.
//!
//! The module owns the output formats; [`cells`] formats values. NULL is `∅` in a table, nothing in CSV (where an empty string is `""`),
//! `null` in JSON. Control characters never reach the terminal. It writes nowhere and asks nobody.

use std::fmt::Write as _;

use serde_json::Value;

use super::cells;
use super::table;
use crate::client::ResultSet;

pub(crate) use super::table::{new_table, right_aligned};

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
    /// A line for each value, for rows that are wide.
    Line,
}

/// When a table's rows are written as records, a line for each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expanded {
    /// Always.
    On,
    /// Never.
    Off,
    /// A choice by width: expanded if the table is wider than the terminal.
    Auto,
}

/// Output settings of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) format: Format,
    pub(super) expanded: Expanded,
    /// Whether values of a table are cut so that it is no wider than the terminal.
    pub(super) is_cut: bool,
    pub(super) null_text: String,
}

impl Style {
    pub(super) fn new(format: Format) -> Self {
        Self { format, expanded: Expanded::Off, is_cut: true, null_text: NULL_TEXT.to_owned() }
    }
}

/// A result as text with its final newline, on a terminal of this width; empty if there is nothing to show in this format.
pub(super) fn render(style: &Style, width: Option<usize>, result: &ResultSet) -> String {
    let has_rows = !result.schema.is_empty();
    match style.format {
        Format::Table | Format::Line if has_rows => {
            let rows = rows_text(style, width, result);
            if result.message.is_some() { format!("{rows}{}\n", message_of(result)) } else { rows }
        }
        Format::Table | Format::Line => format!("{}\n", message_of(result)),
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

fn rows_of(result: &ResultSet) -> &[Vec<Value>] {
    result.rows.as_deref().unwrap_or_default()
}

fn message_of(result: &ResultSet) -> String {
    match &result.message {
        Some(message) => printable(message),
        None => format!("OK, {}", count_of_rows(result.row_count)),
    }
}

fn rows_text(style: &Style, width: Option<usize>, result: &ResultSet) -> String {
    let cells = rows_of(result).iter().map(|row| {
        let texts = result.schema.iter().zip(row).map(|(column, value)| {
            cells::text(column, value).map_or_else(|| style.null_text.clone(), |text| printable(&text))
        });
        texts.collect()
    });
    let sheet = table::Sheet {
        names: result.schema.iter().map(|column| printable(&column.name)).collect(),
        is_numeric: result.schema.iter().map(cells::is_numeric).collect(),
        rows: cells.collect(),
    };
    let is_wide = || width.is_some_and(|width| sheet.width() > width);
    let is_expanded = style.format == Format::Line
        || match style.expanded {
            Expanded::On => true,
            Expanded::Off => false,
            Expanded::Auto => is_wide(),
        };
    if is_expanded { sheet.records() } else { sheet.aligned(width.filter(|_| style.is_cut)) }
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
            let _ = write!(text, "{separator}{name}:{}", cells::json(column, value));
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
        let fields = result.schema.iter().zip(row).map(|(column, value)| {
            cells::text(column, value).map_or_else(String::new, |field| csv_field(&field))
        });
        text.push_str(&fields.collect::<Vec<_>>().join(","));
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
    use crate::client::Column;

    fn result(columns: &[(&str, Value)], rows: Vec<Vec<Value>>) -> ResultSet {
        let column = |(name, data_type): &(&str, Value)| Column {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            sql_type: None,
        };
        ResultSet {
            schema: columns.iter().map(column).collect(),
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

    fn as_format(format: Format, result: &ResultSet) -> String {
        render(&Style::new(format), None, result)
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
        assert_eq!(as_format(Format::Table, &sample()), expected);
    }

    #[test]
    fn records_have_a_line_for_each_value() {
        let mut style = Style::new(Format::Table);
        let expected = "\
─[ record 1 ]────────
id    │ 7
body  │ say \"hi\", you
price │ 1.50
─[ record 2 ]────────
id    │ 1234
body  │ ∅
price │ ∅
";
        style.expanded = Expanded::On;
        assert_eq!(render(&style, None, &sample()), expected);
        assert_eq!(as_format(Format::Line, &sample()), expected);
        style.expanded = Expanded::Auto;
        assert_eq!(render(&style, Some(31), &sample()), expected);
        assert!(render(&style, Some(32), &sample()).starts_with('┌'));
        assert!(render(&style, None, &sample()).starts_with('┌'), "no terminal is too narrow");
    }

    #[test]
    fn values_are_cut_to_the_terminal_and_nowhere_else() {
        let long = "x".repeat(500);
        let wide =
            result(&[("id", json!("Int")), ("body", json!("Text"))], vec![vec![json!(1), json!(long)]]);
        let mut style = Style::new(Format::Table);
        let cut = render(&style, Some(40), &wide);
        assert!(cut.contains('…') && cut.lines().all(|line| line.chars().count() == 40), "{cut}");
        assert!(render(&style, None, &wide).contains(&long));
        style.is_cut = false;
        assert!(render(&style, Some(40), &wide).contains(&long));
        for format in [Format::Json, Format::Csv, Format::Line] {
            assert!(render(&Style::new(format), Some(40), &wide).contains(&long), "{format:?}");
        }
    }

    #[test]
    fn csv_quotes_and_tells_null_from_empty() {
        let csv = as_format(Format::Csv, &sample());
        assert_eq!(csv, "id,body,price\n7,\"say \"\"hi\"\", you\",1.50\n1234,,\n");
        let empty = result(&[("a", json!("Text"))], vec![vec![json!("")]]);
        assert_eq!(as_format(Format::Csv, &empty), "a\n\"\"\n");
    }

    #[test]
    fn json_keeps_every_column() {
        let twice =
            result(&[("id", json!("Int")), ("id", json!("BigInt"))], vec![vec![json!(1), json!("2")]]);
        assert_eq!(as_format(Format::Json, &twice), "[\n  {\"id\":1,\"id\":\"2\"}\n]\n");
        assert_eq!(as_format(Format::Json, &result(&[("a", json!("Int"))], vec![])), "[]\n");
    }

    #[test]
    fn every_output_has_dates_and_times_alike() {
        let row = result(
            &[("d", json!("Date")), ("t", json!("Time")), ("ts", json!("Timestamp"))],
            vec![vec![json!(20_788), json!("3600000000"), json!("0")]],
        );
        for format in [Format::Table, Format::Json, Format::Csv, Format::Line] {
            let shown = as_format(format, &row);
            for text in ["2026-12-01", "01:00:00", "1970-01-01T00:00:00"] {
                assert!(shown.contains(text), "{format:?}: {shown}");
            }
        }
    }

    #[test]
    fn statements_without_rows_tell_what_they_did() {
        let done =
            ResultSet { row_count: 2, message: Some("2 rows inserted".to_owned()), ..ResultSet::default() };
        assert_eq!(as_format(Format::Table, &done), "2 rows inserted\n");
        assert_eq!(as_format(Format::Json, &done), "{\"message\":\"2 rows inserted\",\"row_count\":2}\n");
        assert_eq!(as_format(Format::Csv, &done), "");
        let silent = ResultSet { row_count: 1, ..ResultSet::default() };
        assert_eq!(as_format(Format::Table, &silent), "OK, 1 row\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\tc\r\nd"), "a\\u{1b}[31mb    c\nd");
    }
}
