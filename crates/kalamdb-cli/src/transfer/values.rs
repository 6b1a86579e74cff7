//! Values of Arrow arrays as text: what a parameter takes back exactly, and what stands in CSV and JSON lines.
//!
//! Dates and times are ISO 8601 where that has a form for them, else the count that results have on the wire; bytes are base64,
//! floats the shortest text that is the same float again.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::iso::{date_text, time_text, timestamp_text};

/// The value at a row as text; none for NULL, and for an array of a type that no column has.
pub(super) fn text_of(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        ArrowType::Boolean => array.as_boolean().value(row).to_string(),
        ArrowType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        ArrowType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        ArrowType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        ArrowType::Float32 => float_text(array.as_primitive::<Float32Type>().value(row)),
        ArrowType::Float64 => double_text(array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        ArrowType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        ArrowType::Timestamp(_, zone) => {
            timestamp_text(array.as_primitive::<TimestampMicrosecondType>().value(row), zone.is_some())
        }
        ArrowType::Date32 => date_text(array.as_primitive::<Date32Type>().value(row)),
        ArrowType::Time64(_) => time_text(array.as_primitive::<Time64MicrosecondType>().value(row)),
        ArrowType::Binary => BASE64.encode(array.as_binary::<i32>().value(row)),
        ArrowType::FixedSizeList(..) => {
            let items = array.as_fixed_size_list().value(row);
            let items = items.as_primitive::<Float32Type>().values();
            // An item without a JSON form has none in an embedding.
            let texts: Vec<String> = items.iter().map(|item| float_text(*item)).collect();
            format!("[{}]", texts.join(","))
        }
        _ => return None,
    })
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Rust's shortest text of a float, in digits or with an exponent, whichever is shorter to read.
pub(super) fn float_text(value: f32) -> String {
    match value {
        it if it.is_nan() => "NaN".to_owned(),
        it if it.is_infinite() => infinity(it > 0.0),
        it => format!("{it:?}"),
    }
}

pub(super) fn double_text(value: f64) -> String {
    match value {
        it if it.is_nan() => "NaN".to_owned(),
        it if it.is_infinite() => infinity(it > 0.0),
        it => format!("{it:?}"),
    }
}

fn infinity(is_positive: bool) -> String {
    if is_positive { "Infinity".to_owned() } else { "-Infinity".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_the_same_again() {
        for value in [0.1, -0.0, 5e-324, f64::MAX, 1e21, 123_456_789.25, f64::INFINITY, f64::NEG_INFINITY] {
            let again: f64 = double_text(value).parse().unwrap();
            assert_eq!(again.to_bits(), value.to_bits(), "{value}");
        }
        for value in [0.1_f32, f32::MIN_POSITIVE, f32::MAX, 1e-45, 16_777_217.0] {
            let again: f32 = float_text(value).parse().unwrap();
            assert_eq!(again.to_bits(), value.to_bits(), "{value}");
        }
        assert_eq!((double_text(f64::NAN), double_text(1e21)), ("NaN".to_owned(), "1e21".to_owned()));
    }
}
