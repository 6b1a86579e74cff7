//! Cells as JSON, written straight into a buffer: a log is shown as fast as it is read.
//!
//! What a number of JSON cannot hold exactly (BIGINT, DECIMAL) is a string; dates and times are ISO 8601; bytes are `\x`
//! and hexadecimal digits.

use std::fmt;
use std::io::Write;

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, TimeDelta, Timelike};
use log_format::CellRef;
use serde::Serialize;

/// Microseconds since 1970 as RFC 3339, in UTC.
pub fn instant(micros: i64) -> String {
    let mut text = Vec::with_capacity(27);
    write_instant(&mut text, micros);
    String::from_utf8(text).unwrap_or_default()
}

/// A value as JSON: escaped if it is text, its shortest form if it is a number.
pub(super) fn write_value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Text, numbers and what is made of them can be written, and a vector takes everything.
    let _ = serde_json::to_writer(out, value);
}

/// A cell as JSON; `scale` is its column's, if it is a decimal.
pub(super) fn write_cell(out: &mut Vec<u8>, cell: &CellRef<'_>, scale: u8) {
    match *cell {
        CellRef::Null => out.extend_from_slice(b"null"),
        CellRef::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        CellRef::SmallInt(value) => write_value(out, &value),
        CellRef::Int(value) => write_value(out, &value),
        CellRef::Float(value) if value.is_finite() => write_value(out, &value),
        CellRef::Double(value) if value.is_finite() => write_value(out, &value),
        CellRef::Text(value) | CellRef::Json(value) => write_value(out, value),
        CellRef::Embedding(bytes) => write_embedding(out, bytes),
        _ => {
            // None of these writes anything that would have to be escaped.
            out.push(b'"');
            write_as_text(out, cell, scale);
            out.push(b'"');
        }
    }
}

/// A number or time as text; `scale` is its column's, if it is a decimal.
pub(crate) fn cell_text(cell: &CellRef<'_>, scale: u8) -> String {
    let mut text = Vec::new();
    write_as_text(&mut text, cell, scale);
    String::from_utf8(text).unwrap_or_default()
}

/// What JSON has no number for.
fn write_as_text(out: &mut Vec<u8>, cell: &CellRef<'_>, scale: u8) {
    match *cell {
        CellRef::BigInt(value) => write_value(out, &value),
        CellRef::Float(value) => write_text(out, format_args!("{value}")),
        CellRef::Double(value) => write_text(out, format_args!("{value}")),
        CellRef::Decimal(value) => write_decimal(out, value, scale),
        CellRef::Timestamp(micros) => {
            write_instant(out, micros);
            out.pop_if(|last| *last == b'Z');
        }
        CellRef::DateTime(micros) => write_instant(out, micros),
        CellRef::Date(days) => write_date(out, days),
        CellRef::Time(micros) => write_time(out, micros),
        CellRef::Bytes(bytes) => write_hex(out, bytes),
        CellRef::Uuid(bytes) => {
            let mut text = uuid::Uuid::encode_buffer();
            let text = uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut text);
            out.extend_from_slice(text.as_bytes());
        }
        CellRef::Null
        | CellRef::Boolean(_)
        | CellRef::SmallInt(_)
        | CellRef::Int(_)
        | CellRef::Text(_)
        | CellRef::Json(_)
        | CellRef::Embedding(_) => {}
    }
}

fn write_text(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // A vector takes everything.
    let _ = out.write_fmt(text);
}

fn write_decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let begin = out.len();
    write_value(out, &unscaled.unsigned_abs());
    let scale = usize::from(scale);
    if scale > 0 {
        let missing = (scale + 1).saturating_sub(out.len() - begin);
        out.splice(begin..begin, std::iter::repeat_n(b'0', missing));
        out.insert(out.len() - scale, b'.');
    }
}

/// The last `COUNT` digits of a number.
fn digits<const COUNT: usize>(out: &mut Vec<u8>, mut number: u32) {
    let mut text = [b'0'; COUNT];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    out.extend_from_slice(&text);
}

pub(super) fn write_instant(out: &mut Vec<u8>, micros: i64) {
    let Some(time) = DateTime::from_timestamp_micros(micros) else {
        out.extend_from_slice(micros.to_string().as_bytes());
        return;
    };
    let Some(year) = u32::try_from(time.year()).ok().filter(|year| *year <= 9999) else {
        out.extend_from_slice(time.to_rfc3339_opts(SecondsFormat::Micros, true).as_bytes());
        return;
    };
    let time = time.naive_utc();
    write_day(out, year, time.date());
    out.push(b'T');
    write_clock(out, time.num_seconds_from_midnight(), time.nanosecond() / 1000);
    out.push(b'Z');
}

fn write_day(out: &mut Vec<u8>, year: u32, date: NaiveDate) {
    digits::<4>(out, year);
    out.push(b'-');
    digits::<2>(out, date.month());
    out.push(b'-');
    digits::<2>(out, date.day());
}

fn write_clock(out: &mut Vec<u8>, seconds: u32, micros: u32) {
    digits::<2>(out, seconds / 3600);
    out.push(b':');
    digits::<2>(out, seconds / 60 % 60);
    out.push(b':');
    digits::<2>(out, seconds % 60);
    out.push(b'.');
    digits::<6>(out, micros);
}

fn write_date(out: &mut Vec<u8>, days: i32) {
    match NaiveDate::default().checked_add_signed(TimeDelta::days(i64::from(days))) {
        None => write_value(out, &days),
        Some(date) => match u32::try_from(date.year()).ok().filter(|year| *year <= 9999) {
            Some(year) => write_day(out, year, date),
            None => write_text(out, format_args!("{}", date.format("%Y-%m-%d"))),
        },
    }
}

fn write_time(out: &mut Vec<u8>, micros: i64) {
    let parts = u64::try_from(micros).ok().filter(|micros| *micros < 86_400_000_000).and_then(|micros| {
        Some((u32::try_from(micros / 1_000_000).ok()?, u32::try_from(micros % 1_000_000).ok()?))
    });
    match parts {
        None => write_value(out, &micros),
        Some((seconds, micros)) => write_clock(out, seconds, micros),
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or_default();
    // A backslash is escaped in JSON.
    out.extend_from_slice(b"\\\\x");
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

fn write_embedding(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'[');
    for (index, item) in bytes.as_chunks::<4>().0.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_cell(out, &CellRef::Float(f32::from_le_bytes(*item)), 0);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use log_format::Value;
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn values_keep_their_digits() {
        let cases = [
            (Value::Null, 0, json!(null)),
            (Value::Boolean(true), 0, json!(true)),
            (Value::BigInt(i64::MIN), 0, json!("-9223372036854775808")),
            (Value::SmallInt(-7), 0, json!(-7)),
            (Value::Int(7), 0, json!(7)),
            (Value::Decimal(-5), 2, json!("-0.05")),
            (Value::Decimal(12_345), 2, json!("123.45")),
            (Value::Decimal(12_345), 5, json!("0.12345")),
            (Value::Decimal(12_345), 0, json!("12345")),
            (Value::Decimal(i128::MIN), 0, json!("-170141183460469231731687303715884105728")),
            (Value::Double(0.1), 0, json!(0.1)),
            (Value::Double(f64::NAN), 0, json!("NaN")),
            (Value::Float(f32::NEG_INFINITY), 0, json!("-inf")),
            (Value::Text("a\"\u{1b}ü".to_owned()), 0, json!("a\"\u{1b}ü")),
            (Value::Timestamp(1), 0, json!("1970-01-01T00:00:00.000001")),
            (Value::DateTime(-1), 0, json!("1969-12-31T23:59:59.999999Z")),
            (Value::DateTime(1_790_000_000_123_456), 0, json!("2026-09-21T14:13:20.123456Z")),
            (Value::DateTime(i64::MAX), 0, json!("9223372036854775807")),
            (Value::DateTime(253_402_300_800_000_000), 0, json!("+10000-01-01T00:00:00.000000Z")),
            (Value::Date(-1), 0, json!("1969-12-31")),
            (Value::Date(i32::MAX), 0, json!("2147483647")),
            (Value::Time(86_399_999_999), 0, json!("23:59:59.999999")),
            (Value::Time(-1), 0, json!("-1")),
            (Value::Bytes(vec![0, 255]), 0, json!("\\x00ff")),
            (Value::Uuid([0x11; 16]), 0, json!("11111111-1111-1111-1111-111111111111")),
            (Value::Embedding(vec![0.5, -1.0]), 0, json!([0.5, -1.0])),
        ];
        for (value, scale, expected) in cases {
            let (mut out, mut scratch) = (Vec::new(), Vec::new());
            write_cell(&mut out, &value.as_cell(&mut scratch), scale);
            let read: Json = serde_json::from_slice(&out).unwrap();
            assert_eq!(read, expected, "{value:?}");
        }
    }

    #[test]
    fn a_float_is_the_shortest_number_that_reads_as_it() {
        let mut out = Vec::new();
        write_cell(&mut out, &CellRef::Float(0.1), 0);
        assert_eq!(out, b"0.1");
    }
}
