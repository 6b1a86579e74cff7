//! Values of Arrow arrays as JSON: lists as arrays, structs and maps as objects, however deep they are.
//!
//! Integers and decimals keep every digit. What JSON has no form for is a string: dates and times, spans and instants in ISO 8601,
//! bytes in base64, floats that are no number. Arrow's own writer is not taken: it makes NULL of NaN, and has no maps but of texts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListLikeArray, MapArray, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType as ArrowType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float16Type, Float32Type, Float64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit, IntervalYearMonthType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, SecondsFormat};
use serde_json::Value as Json;

use super::values::{double_text, float_text};
use crate::spans::Span;

/// The text between the parts of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spacing {
    comma: &'static str,
    colon: &'static str,
}

impl Spacing {
    /// As few characters as may be.
    pub(super) const COMPACT: Self = Self { comma: ",", colon: ":" };
    /// As PostgreSQL writes documents, for people.
    pub(super) const WIDE: Self = Self { comma: ", ", colon: ": " };
}

/// Whether values of this type consist of others.
pub(super) fn is_nested(data_type: &ArrowType) -> bool {
    match data_type {
        ArrowType::Dictionary(_, values) => is_nested(values),
        ArrowType::Union(..) | ArrowType::RunEndEncoded(..) => false,
        other => other.is_nested(),
    }
}

/// The values of an array as texts of JSON; NULL stays NULL.
///
/// # Errors
/// An [`ArrowError`] if a value has no JSON form: a map whose keys are NULL, or a time outside of the calendar.
pub(super) fn json_array(array: &ArrayRef, spacing: Spacing) -> Result<ArrayRef, ArrowError> {
    let texts = (0..array.len()).map(|row| {
        let mut text = String::new();
        write(&mut text, array, row, spacing)?;
        Ok((text != NULL).then_some(text))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?))
}

const NULL: &str = "null";

fn write(out: &mut String, array: &dyn Array, row: usize, spacing: Spacing) -> Result<(), ArrowError> {
    if array.is_null(row) {
        out.push_str(NULL);
        return Ok(());
    }
    match array.data_type() {
        ArrowType::Null => out.push_str(NULL),
        ArrowType::List(_) => write_list(out, array.as_list::<i32>(), row, spacing)?,
        ArrowType::LargeList(_) => write_list(out, array.as_list::<i64>(), row, spacing)?,
        ArrowType::ListView(_) => write_list(out, array.as_list_view::<i32>(), row, spacing)?,
        ArrowType::LargeListView(_) => write_list(out, array.as_list_view::<i64>(), row, spacing)?,
        ArrowType::FixedSizeList(..) => write_list(out, array.as_fixed_size_list(), row, spacing)?,
        ArrowType::Struct(_) => write_struct(out, array.as_struct(), row, spacing)?,
        ArrowType::Map(..) => write_map(out, array.as_map(), row, spacing)?,
        ArrowType::Dictionary(_, values) => write(out, &cast(&array.slice(row, 1), values)?, 0, spacing)?,
        _ => write_single(out, array, row)?,
    }
    Ok(())
}

fn write_list(
    out: &mut String,
    list: &impl ListLikeArray,
    row: usize,
    spacing: Spacing,
) -> Result<(), ArrowError> {
    out.push('[');
    for (at, item) in list.element_range(row).enumerate() {
        if at > 0 {
            out.push_str(spacing.comma);
        }
        write(out, list.values(), item, spacing)?;
    }
    out.push(']');
    Ok(())
}

fn write_struct(
    out: &mut String,
    array: &StructArray,
    row: usize,
    spacing: Spacing,
) -> Result<(), ArrowError> {
    out.push('{');
    for (at, (field, column)) in array.fields().iter().zip(array.columns()).enumerate() {
        if at > 0 {
            out.push_str(spacing.comma);
        }
        push_string(out, field.name());
        out.push_str(spacing.colon);
        write(out, column, row, spacing)?;
    }
    out.push('}');
    Ok(())
}

fn write_map(out: &mut String, map: &MapArray, row: usize, spacing: Spacing) -> Result<(), ArrowError> {
    let range = map.value_offsets().get(row..row + 2).unwrap_or_default();
    let ends = range.iter().map(|end| usize::try_from(*end).unwrap_or_default()).collect::<Vec<_>>();
    let [begin, end] = ends.as_slice() else {
        return Err(ArrowError::InvalidArgumentError("a map without entries".to_owned()));
    };
    out.push('{');
    for (at, entry) in (*begin..*end).enumerate() {
        if at > 0 {
            out.push_str(spacing.comma);
        }
        let mut key = String::new();
        write(&mut key, map.keys(), entry, spacing)?;
        // The name of a member is a string, whatever the keys are.
        if key.starts_with('"') {
            out.push_str(&key);
        } else {
            push_string(out, &key);
        }
        out.push_str(spacing.colon);
        write(out, map.values(), entry, spacing)?;
    }
    out.push('}');
    Ok(())
}

fn write_single(out: &mut String, array: &dyn Array, row: usize) -> Result<(), ArrowError> {
    match array.data_type() {
        ArrowType::Float64 => double(out, array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Float32 => float(out, array.as_primitive::<Float32Type>().value(row)),
        ArrowType::Float16 => float(out, array.as_primitive::<Float16Type>().value(row).to_f32()),
        ArrowType::Utf8 => push_string(out, array.as_string::<i32>().value(row)),
        ArrowType::LargeUtf8 => push_string(out, array.as_string::<i64>().value(row)),
        ArrowType::Utf8View => push_string(out, array.as_string_view().value(row)),
        ArrowType::Binary => push_string(out, &BASE64.encode(array.as_binary::<i32>().value(row))),
        ArrowType::LargeBinary => push_string(out, &BASE64.encode(array.as_binary::<i64>().value(row))),
        ArrowType::BinaryView => push_string(out, &BASE64.encode(array.as_binary_view().value(row))),
        ArrowType::FixedSizeBinary(_) => {
            push_string(out, &BASE64.encode(array.as_fixed_size_binary().value(row)));
        }
        ArrowType::Timestamp(unit, Some(_)) => push_string(out, &utc_text(array, *unit, row)?),
        other => match span_at(array, row) {
            Some(span) => push_string(out, &span.iso()),
            None => {
                let options = FormatOptions::new();
                let text = ArrayFormatter::try_new(array, &options)?.value(row).try_to_string()?;
                let is_bare = other.is_numeric() || *other == ArrowType::Boolean;
                if is_bare { out.push_str(&text) } else { push_string(out, &text) }
            }
        },
    }
    Ok(())
}

fn float(out: &mut String, value: f32) {
    push_number(out, &float_text(value), value.is_finite());
}

fn double(out: &mut String, value: f64) {
    push_number(out, &double_text(value), value.is_finite());
}

/// A number, or the name of one that JSON has none for.
fn push_number(out: &mut String, text: &str, is_finite: bool) {
    if is_finite {
        out.push_str(text);
    } else {
        push_string(out, text);
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push_str(&Json::from(text).to_string());
}

/// An instant with a zone, in UTC and to its last digit, whether or not the zone is one that is known here.
fn utc_text(array: &dyn Array, unit: TimeUnit, row: usize) -> Result<String, ArrowError> {
    let instant = match unit {
        TimeUnit::Second => {
            DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(row), 0)
        }
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => {
            Some(DateTime::from_timestamp_nanos(array.as_primitive::<TimestampNanosecondType>().value(row)))
        }
    };
    let beyond = || ArrowError::CastError("a time beyond the calendar".to_owned());
    Ok(instant.ok_or_else(beyond)?.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Whether values of this type are spans of time.
pub(super) fn is_span(data_type: &ArrowType) -> bool {
    matches!(data_type, ArrowType::Interval(_) | ArrowType::Duration(_))
}

/// Spans of time as texts of ISO 8601.
pub(super) fn span_array(array: &ArrayRef) -> ArrayRef {
    let texts = (0..array.len()).map(|row| {
        let span = (!array.is_null(row)).then(|| span_at(array, row));
        span.flatten().map(|span| span.iso())
    });
    Arc::new(texts.collect::<StringArray>())
}

/// A span of time; none where the array has none.
fn span_at(array: &dyn Array, row: usize) -> Option<Span> {
    match array.data_type() {
        ArrowType::Interval(IntervalUnit::YearMonth) => {
            Some(Span::new(array.as_primitive::<IntervalYearMonthType>().value(row).into(), 0, 0))
        }
        ArrowType::Interval(IntervalUnit::DayTime) => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            Some(Span::new(0, value.days.into(), i64::from(value.milliseconds) * 1_000_000))
        }
        ArrowType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Some(Span::new(value.months.into(), value.days.into(), value.nanoseconds))
        }
        ArrowType::Duration(unit) => {
            let (value, nanos) = match unit {
                TimeUnit::Second => (array.as_primitive::<DurationSecondType>().value(row), 1_000_000_000),
                TimeUnit::Millisecond => {
                    (array.as_primitive::<DurationMillisecondType>().value(row), 1_000_000)
                }
                TimeUnit::Microsecond => (array.as_primitive::<DurationMicrosecondType>().value(row), 1_000),
                TimeUnit::Nanosecond => (array.as_primitive::<DurationNanosecondType>().value(row), 1),
            };
            Some(Span::elapsed(i128::from(value) * nanos))
        }
        _ => None,
    }
}
