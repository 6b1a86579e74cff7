//! Cells of both sides as values that can be compared.

use std::cmp::Ordering;

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde_json::Value;

use super::postgres::Rows;

/// A value, whatever its text was.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Number(BigDecimal),
    Double(f64),
    Text(String),
}

impl Cell {
    /// Rank of the value's type, by which values of unlike types are ordered.
    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Number(_) => 1,
            Self::Double(_) => 2,
            Self::Text(_) => 3,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => one.cmp(other),
            (Self::Double(one), Self::Double(other)) => one.total_cmp(other),
            (Self::Text(one), Self::Text(other)) => match (written_number(one), written_number(other)) {
                (Some(one), Some(other)) => one.cmp(&other),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => one.cmp(other),
            },
            _ => self.kind().cmp(&other.kind()),
        }
    }

    /// Compares two values: doubles and numbers in texts to twelve digits, others exactly.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Double(one), Self::Double(other)) => {
                let size = one.abs().max(other.abs());
                one.to_bits() == other.to_bits() || (one - other).abs() <= size * 1e-12
            }
            _ => self.order(other).is_eq(),
        }
    }
}

/// Rows of one side.
pub(crate) type Cells = Vec<Vec<Cell>>;

/// A double, rounded so that sorting puts both sides' rows in one order.
pub(crate) fn double(value: f64) -> Cell {
    if value.is_finite() && value != 0.0 {
        Cell::Double(format!("{value:.12e}").parse().unwrap())
    } else {
        Cell::Double(value.abs().copysign(if value < 0.0 { -1.0 } else { 1.0 }))
    }
}

/// A JSON value as a text, without quotes around strings.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The number that a text writes, rounded to 12 digits: a column of decimals has one scale here, where PostgreSQL chooses the digits of
/// each quotient and average.
fn written_number(text: &str) -> Option<BigDecimal> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: BigDecimal = text.parse().ok().filter(|_| is_number)?;
    Some(number.with_prec(12).normalized())
}

/// A cell of KalamDB's answer, with its column's entry in the schema.
fn ours(value: &Value, column: &Value) -> Cell {
    if value.is_null() {
        return Cell::Null;
    }
    let text = text(value);
    match kind(column) {
        "Float" | "Double" => text.replace("Infinity", "inf").parse().map_or(Cell::Text(text), double),
        "Text" | "Json" | "Uuid" | "Bytes" | "Boolean" => Cell::Text(text),
        _ => text.parse().map_or(Cell::Text(text), Cell::Number),
    }
}

fn kind(column: &Value) -> &str {
    column["data_type"].as_str().unwrap_or("Decimal")
}

/// A time of PostgreSQL in microseconds since 1970, in UTC.
fn micros(text: &str) -> Option<i64> {
    let text = text.trim_end_matches(":00").strip_suffix("+00").unwrap_or(text);
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(time.and_utc().timestamp_micros())
}

/// A date of PostgreSQL in days since 1970.
fn days(text: &str) -> Option<i64> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some((date - DateTime::UNIX_EPOCH.date_naive()).num_days())
}

/// A time of day of PostgreSQL in microseconds.
fn of_day(text: &str) -> Option<i64> {
    let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok()?;
    (time - NaiveTime::MIN).num_microseconds()
}

/// A cell of PostgreSQL's answer, read as the type that KalamDB says the column has.
fn theirs(value: Option<&str>, column: &Value) -> Cell {
    let Some(text) = value else { return Cell::Null };
    let number = match kind(column) {
        "Boolean" => {
            let value = match text {
                "t" => "true",
                "f" => "false",
                other => other,
            };
            return Cell::Text(value.to_owned());
        }
        "Float" | "Double" => return text.parse().map_or_else(|_| Cell::Text(text.to_owned()), double),
        "Text" | "Json" | "Uuid" | "Bytes" => return Cell::Text(text.to_owned()),
        "Timestamp" | "DateTime" => micros(text).map(BigDecimal::from),
        "Date" => days(text).map(BigDecimal::from),
        "Time" => of_day(text).map(BigDecimal::from),
        _ => text.parse().ok(),
    };
    number.map_or_else(|| Cell::Text(text.to_owned()), Cell::Number)
}

/// The columns of KalamDB's answer, as its schema lists them.
fn columns(schema: &Value) -> &[Value] {
    schema.as_array().map_or(&[], Vec::as_slice)
}

/// The rows of KalamDB's answer.
pub(crate) fn our_cells(answer: &Value) -> Cells {
    let rows = answer["rows"].as_array().into_iter().flatten();
    let row = |row: &Value| {
        let cells = row.as_array().unwrap().iter().zip(columns(&answer["schema"]));
        cells.map(|(value, column)| ours(value, column)).collect()
    };
    rows.map(row).collect()
}

/// Rows of a live query, which are objects, without the column `_seq`.
pub(crate) fn of_objects(rows: &[Value], schema: &Value) -> Cells {
    let columns = columns(schema).iter().filter(|column| column["name"] != "_seq");
    let columns: Vec<(&str, &Value)> =
        columns.map(|column| (column["name"].as_str().unwrap(), column)).collect();
    let row = |row: &Value| columns.iter().map(|(name, column)| ours(&row[*name], column)).collect();
    rows.iter().map(row).collect()
}

/// The rows of PostgreSQL's answer, read as the types that KalamDB's schema says.
pub(crate) fn their_cells(schema: &Value, rows: &[Vec<Option<String>>]) -> Cells {
    let columns = columns(schema);
    let row = |row: &Vec<Option<String>>| {
        let column = |index: usize| columns.get(index).unwrap_or(&Value::Null);
        row.iter().enumerate().map(|(index, value)| theirs(value.as_deref(), column(index))).collect()
    };
    rows.iter().map(row).collect()
}

/// Cells as texts.
pub(crate) fn rows_of(cells: &Cells) -> Vec<Vec<Option<String>>> {
    let text = |cell: &Cell| match cell {
        Cell::Null => None,
        Cell::Number(number) => Some(number.to_string()),
        Cell::Double(number) => Some(number.to_string()),
        Cell::Text(text) => Some(text.clone()),
    };
    cells.iter().map(|row| row.iter().map(text).collect()).collect()
}

fn order(one: &[Cell], other: &[Cell]) -> Ordering {
    let cells = one.iter().zip(other).map(|(one, other)| one.order(other));
    cells.fold(Ordering::Equal, Ordering::then)
}

/// Whether they are the same rows, in any order unless it counts.
pub(crate) fn same(mut ours: Cells, mut theirs: Cells, in_order: bool) -> bool {
    if !in_order {
        ours.sort_by(|one, other| order(one, other));
        theirs.sort_by(|one, other| order(one, other));
    }
    ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(one, other)| {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.same(other))
        })
}

/// Rows as a person reads them, not more than fit.
pub(crate) fn shown(rows: &Rows) -> String {
    match rows {
        Err(error) => format!("error: {error}"),
        Ok(rows) => {
            let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
            let row = |row: &Vec<Option<String>>| {
                format!("({})", row.iter().map(cell).collect::<Vec<_>>().join(", "))
            };
            let first: Vec<String> = rows.iter().take(12).map(row).collect();
            format!("{} rows: {}", rows.len(), first.join(" "))
        }
    }
}
