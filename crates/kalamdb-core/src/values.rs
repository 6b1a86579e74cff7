//! Single values: from Arrow, from JSON parameters, from text, and back into text for messages.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use log_format::{DataType, Value};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::table::arrow_type;
use kalamdb_query::text as read;

/// Turns an array into one that [`value_at`] reads as this type.
///
/// # Errors
/// Where a value does not fit: nothing is rounded into range or replaced by NULL.
pub(crate) fn cast_to(array: &ArrayRef, data_type: DataType) -> Result<ArrayRef> {
    kalamdb_query::cast_array(array, &arrow_type(data_type)).map_err(crate::error::from_query)
}

/// Values of any type as Arrow shows them, for types that no column has.
///
/// # Errors
/// Where a value cannot be shown, as a time beyond what the calendar has.
pub fn text_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let texts = (0..array.len()).map(|row| {
        let text = || formatter.value(row).try_to_string();
        (!array.is_null(row)).then(text).transpose()
    });
    Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?))
}

/// The value at `row` of an array that [`cast_to`] made for this type.
///
/// # Errors
/// [`Error::Value`] for text that is no UUID or no JSON.
pub(crate) fn value_at(array: &dyn Array, row: usize, data_type: DataType) -> Result<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let text = || array.as_string::<i32>().value(row);
    Ok(match data_type {
        DataType::Boolean => Value::Boolean(array.as_boolean().value(row)),
        DataType::SmallInt => Value::SmallInt(array.as_primitive::<Int16Type>().value(row)),
        DataType::Int => Value::Int(array.as_primitive::<Int32Type>().value(row)),
        DataType::BigInt => Value::BigInt(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float => Value::Float(array.as_primitive::<Float32Type>().value(row)),
        DataType::Double => Value::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal { .. } => Value::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Timestamp => Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::DateTime => Value::DateTime(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Date => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Time => Value::Time(array.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Text => Value::Text(text().to_owned()),
        DataType::Json | DataType::Uuid => from_text(text(), data_type)?,
        DataType::Bytes => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::Embedding(_) => {
            let items = array.as_fixed_size_list().value(row);
            Value::Embedding(items.as_primitive::<Float32Type>().values().to_vec())
        }
    })
}

/// The value that `text` writes.
///
/// # Errors
/// [`Error::Value`] where it writes none of this type.
pub(crate) fn from_text(text: &str, data_type: DataType) -> Result<Value> {
    let wrong = || Error::Value { text: excerpt(text), data_type };
    Ok(match data_type {
        DataType::Text => Value::Text(text.to_owned()),
        DataType::Json => {
            serde_json::from_str::<serde_json::Value>(text).map_err(|_| wrong())?;
            Value::Json(text.to_owned())
        }
        DataType::Uuid => Value::Uuid(read::parse_uuid(text).map_err(|_| wrong())?.into_bytes()),
        DataType::SmallInt => Value::SmallInt(text.trim().parse().map_err(|_| wrong())?),
        DataType::Int => Value::Int(text.trim().parse().map_err(|_| wrong())?),
        DataType::BigInt => Value::BigInt(text.trim().parse().map_err(|_| wrong())?),
        DataType::Float => Value::Float(narrow(read::parse_float(text).map_err(|_| wrong())?)),
        DataType::Double => Value::Double(read::parse_float(text).map_err(|_| wrong())?),
        DataType::Bytes => Value::Bytes(read::parse_bytes(text).map_err(|_| wrong())?),
        DataType::Boolean => Value::Boolean(read::parse_boolean(text).map_err(|_| wrong())?),
        DataType::Timestamp => Value::Timestamp(read::parse_timestamp(text, false).map_err(|_| wrong())?),
        DataType::DateTime => Value::DateTime(read::parse_timestamp(text, true).map_err(|_| wrong())?),
        DataType::Date => Value::Date(read::parse_date(text).map_err(|_| wrong())?),
        DataType::Time => Value::Time(read::parse_time(text).map_err(|_| wrong())?),
        DataType::Decimal { precision, scale } => decimal_value(text, precision, scale).ok_or_else(wrong)?,
        DataType::Embedding(dimension) => {
            let items: Vec<f32> = serde_json::from_str::<Vec<f64>>(text)
                .map_err(|_| wrong())?
                .into_iter()
                .map(narrow)
                .collect();
            if items.len() != dimension as usize {
                return Err(wrong());
            }
            Value::Embedding(items)
        }
    })
}

/// A numeric in a column's digits, rounded; none where it does not fit. A NUMERIC without digits of its own loses none.
fn decimal_value(text: &str, precision: u8, scale: u8) -> Option<Value> {
    const FREE_NUMERIC: (u8, u8) = (38, 18);
    let number = read::parse_numeric(text).ok()?;
    let unscaled = number.at_scale(scale)?;
    let is_whole = number.scale <= scale
        || number.at_scale(scale)? == unscaled && {
            let back = read::Numeric { unscaled, scale, precision };
            back.at_scale(number.scale) == Some(number.unscaled)
        };
    if (precision, scale) == FREE_NUMERIC && !is_whole {
        return None;
    }
    let unscaled = unscaled.to_i128()?;
    (unscaled.unsigned_abs() < 10_u128.pow(u32::from(precision.min(38)))).then_some(Value::Decimal(unscaled))
}

#[expect(clippy::cast_possible_truncation, reason = "an embedding's items are 32-bit floats")]
fn narrow(item: f64) -> f32 {
    item as f32
}

/// The value a JSON parameter stands for in a column of this type: what results write for it, or its text.
///
/// # Errors
/// [`Error::Value`] where it stands for none.
pub(crate) fn from_json(json: &Json, data_type: DataType) -> Result<Value> {
    match (json, data_type) {
        (Json::Null, _) => Ok(Value::Null),
        (Json::String(text), DataType::Json) => {
            // A string that is a document is that document; any other is a JSON string.
            from_text(text, DataType::Json).or_else(|_| Ok(Value::Json(json.to_string())))
        }
        (_, DataType::Json) => Ok(Value::Json(json.to_string())),
        (Json::String(text), DataType::Bytes) => from_base64(text),
        (Json::String(text), _) => match text.parse() {
            Ok(count) if is_instant(data_type) => instant(count, data_type),
            _ => from_text(text, data_type),
        },
        (Json::Bool(value), DataType::Boolean) => Ok(Value::Boolean(*value)),
        (Json::Number(number), _) => match number.as_i64() {
            Some(count) if is_instant(data_type) => instant(count, data_type),
            _ => from_text(&number.to_string(), data_type),
        },
        (Json::Array(_), DataType::Embedding(_)) => from_text(&json.to_string(), data_type),
        (Json::Bool(_) | Json::Array(_) | Json::Object(_), DataType::Text) => {
            Ok(Value::Text(json.to_string()))
        }
        _ => Err(Error::Value { text: excerpt(&json.to_string()), data_type }),
    }
}

const fn is_instant(data_type: DataType) -> bool {
    matches!(data_type, DataType::Timestamp | DataType::DateTime | DataType::Date | DataType::Time)
}

/// Dates and times as results write them: days or microseconds since 1970, microseconds since midnight.
fn instant(count: i64, data_type: DataType) -> Result<Value> {
    const DAY_MICROS: i64 = 86_400_000_000;
    let value = match data_type {
        DataType::Timestamp => Some(Value::Timestamp(count)),
        DataType::DateTime => Some(Value::DateTime(count)),
        DataType::Date => i32::try_from(count).ok().map(Value::Date),
        _ => (0..DAY_MICROS).contains(&count).then_some(Value::Time(count)),
    };
    value.ok_or_else(|| Error::Value { text: count.to_string(), data_type })
}

/// Bytes as results write them, base64 with padding; or PostgreSQL's way, `\x` and hexadecimal digits.
fn from_base64(text: &str) -> Result<Value> {
    if text.starts_with("\\x") {
        return from_text(text, DataType::Bytes);
    }
    let bytes = BASE64.decode(text);
    bytes.map(Value::Bytes).map_err(|_| Error::Value { text: excerpt(text), data_type: DataType::Bytes })
}

/// A JSON parameter as a literal of a query.
pub(crate) fn scalar_from_json(json: &Json) -> ScalarValue {
    match json {
        Json::Null => ScalarValue::Null,
        Json::Bool(value) => ScalarValue::Boolean(Some(*value)),
        Json::Number(number) => number.as_i64().map_or_else(
            || decimal(&number.to_string()).unwrap_or(ScalarValue::Float64(number.as_f64())),
            |integer| ScalarValue::Int64(Some(integer)),
        ),
        Json::String(text) => ScalarValue::Utf8(Some(text.clone())),
        Json::Array(_) | Json::Object(_) => ScalarValue::Utf8(Some(json.to_string())),
    }
}

/// A number as written, where a numeric holds its digits.
fn decimal(text: &str) -> Option<ScalarValue> {
    let number = kalamdb_query::text::parse_numeric(text).ok().filter(|number| number.precision <= 38)?;
    let scale = i8::try_from(number.scale).ok()?;
    Some(ScalarValue::Decimal128(Some(number.unscaled.to_i128()?), number.precision, scale))
}

/// The value of a literal in a column of this type.
///
/// # Errors
/// Where it is not one of that type.
pub(crate) fn from_scalar(scalar: &ScalarValue, data_type: DataType) -> Result<Value> {
    if let (DataType::Uuid | DataType::Json | DataType::Bytes | DataType::Embedding(_), Some(Some(text))) =
        (data_type, scalar.try_as_str())
    {
        return from_text(text, data_type);
    }
    let array = cast_to(&scalar.to_array()?, data_type)?;
    value_at(&array, 0, data_type)
}

/// Whether a value can stand in a column of this type as it is.
pub(crate) fn fits(value: &Value, data_type: DataType) -> bool {
    match (value, data_type) {
        (Value::Null, _)
        | (Value::Boolean(_), DataType::Boolean)
        | (Value::SmallInt(_), DataType::SmallInt)
        | (Value::Int(_), DataType::Int)
        | (Value::BigInt(_), DataType::BigInt)
        | (Value::Float(_), DataType::Float)
        | (Value::Double(_), DataType::Double)
        | (Value::Text(_), DataType::Text)
        | (Value::Timestamp(_), DataType::Timestamp)
        | (Value::DateTime(_), DataType::DateTime)
        | (Value::Date(_), DataType::Date)
        | (Value::Time(_), DataType::Time)
        | (Value::Bytes(_), DataType::Bytes)
        | (Value::Uuid(_), DataType::Uuid) => true,
        (Value::Decimal(unscaled), DataType::Decimal { precision, .. }) => {
            unscaled.unsigned_abs() < 10_u128.pow(u32::from(precision.min(38)))
        }
        (Value::Json(text), DataType::Json) => from_text(text, DataType::Json).is_ok(),
        (Value::Embedding(items), DataType::Embedding(dimension)) => items.len() == dimension as usize,
        _ => false,
    }
}

/// A value as text, for messages and keys.
pub(crate) fn to_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(v) => v.to_string(),
        Value::SmallInt(v) => v.to_string(),
        Value::Int(v) | Value::Date(v) => v.to_string(),
        Value::BigInt(v) | Value::Timestamp(v) | Value::DateTime(v) | Value::Time(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Double(v) => v.to_string(),
        Value::Decimal(v) => v.to_string(),
        Value::Text(v) | Value::Json(v) => format!("'{}'", excerpt(v)),
        Value::Uuid(v) => uuid::Uuid::from_bytes(*v).to_string(),
        Value::Bytes(v) => format!("{} bytes", v.len()),
        Value::Embedding(v) => format!("{} floats", v.len()),
    }
}

/// Enough of a text to know it again.
fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether arrays of this type can be compared with literals to find keys.
pub(crate) fn is_text(arrow: &ArrowType) -> bool {
    matches!(arrow, ArrowType::Utf8 | ArrowType::Utf8View | ArrowType::LargeUtf8)
}
