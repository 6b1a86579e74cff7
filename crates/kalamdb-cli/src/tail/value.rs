//! Values as JSON, the way the server sends them: what JSON's numbers cannot hold exactly travels as a string.

use std::fmt::Write;

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, TimeDelta};
use kalamdb_core::format::Value;
use serde_json::{Value as Json, json};

/// Microseconds since 1970 as RFC 3339, in UTC.
pub(crate) fn instant(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// A value, with the scale that its column has if it is a decimal.
pub(crate) fn to_json(value: &Value, scale: u8) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::SmallInt(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::BigInt(value) => json!(value.to_string()),
        Value::Float(value) => float(f64::from(*value), &value.to_string()),
        Value::Double(value) => float(*value, &value.to_string()),
        Value::Decimal(value) => json!(decimal(*value, scale)),
        Value::Text(value) | Value::Json(value) => json!(value),
        Value::Timestamp(micros) => json!(instant(*micros).trim_end_matches('Z')),
        Value::DateTime(micros) => json!(instant(*micros)),
        Value::Date(days) => json!(date(*days)),
        Value::Time(micros) => json!(time(*micros)),
        Value::Bytes(bytes) => json!(format!("\\x{}", hex(bytes))),
        Value::Uuid(bytes) => json!(uuid(bytes)),
        Value::Embedding(items) => {
            items.iter().map(|item| float(f64::from(*item), &item.to_string())).collect()
        }
    }
}

/// The shortest number that reads as this one; text where JSON has none, as for NaN.
fn float(value: f64, shortest: &str) -> Json {
    if value.is_finite() {
        shortest.parse::<f64>().map_or(Json::Null, |value| json!(value))
    } else {
        json!(shortest)
    }
}

fn decimal(unscaled: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn date(days: i32) -> String {
    NaiveDate::default()
        .checked_add_signed(TimeDelta::days(i64::from(days)))
        .map_or_else(|| days.to_string(), |date| date.format("%Y-%m-%d").to_string())
}

fn time(micros: i64) -> String {
    let seconds = u32::try_from(micros.div_euclid(1_000_000)).unwrap_or(u32::MAX);
    let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(u32::MAX);
    NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)
        .map_or_else(|| micros.to_string(), |time| time.format("%H:%M:%S%.6f").to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = hex(bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_digits() {
        let cases = [
            (Value::BigInt(i64::MIN), 0, json!("-9223372036854775808")),
            (Value::Int(7), 0, json!(7)),
            (Value::Decimal(-5), 2, json!("-0.05")),
            (Value::Decimal(12_345), 2, json!("123.45")),
            (Value::Decimal(12_345), 0, json!("12345")),
            (Value::Float(0.1), 0, json!(0.1)),
            (Value::Double(f64::NAN), 0, json!("NaN")),
            (Value::Timestamp(1), 0, json!("1970-01-01T00:00:00.000001")),
            (Value::DateTime(-1), 0, json!("1969-12-31T23:59:59.999999Z")),
            (Value::DateTime(i64::MAX), 0, json!("9223372036854775807")),
            (Value::Date(-1), 0, json!("1969-12-31")),
            (Value::Date(i32::MAX), 0, json!("2147483647")),
            (Value::Time(86_399_999_999), 0, json!("23:59:59.999999")),
            (Value::Time(-1), 0, json!("-1")),
            (Value::Bytes(vec![0, 255]), 0, json!("\\x00ff")),
            (Value::Uuid([0x11; 16]), 0, json!("11111111-1111-1111-1111-111111111111")),
            (Value::Embedding(vec![0.5, -1.0]), 0, json!([0.5, -1.0])),
        ];
        for (value, scale, expected) in cases {
            assert_eq!(to_json(&value, scale), expected, "{value:?}");
        }
    }
}
