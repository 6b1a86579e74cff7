//! `to_char`, `to_date` and `to_timestamp` with PostgreSQL's template patterns.

mod numbers;
mod pieces;
mod read;
mod write;

use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};

use super::Totality::Partial;
use super::arithmetic::is_float;
use super::casts::written;
use super::spans::{SPAN, from_arrow};
use super::times::instant_type;
use super::{Function, Last};
use numbers::Template;
use pieces::{Piece, pieces};
use write::Parts;

/// The functions by name.
pub(super) fn named() -> Vec<Function> {
    let written_type: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [value, template] if is_written(value) && is_text(template) => Ok(DataType::Utf8),
        _ => plan_err!("to_char takes a time, an interval or a number, and a template"),
    };
    let date_type: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [text, template] if is_text(text) && is_text(template) => Ok(DataType::Date32),
        _ => plan_err!("to_date takes a text and a template"),
    };
    let time_type: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [seconds] if seconds.is_numeric() || is_text(seconds) => Ok(instant_type()),
        [text, template] if is_text(text) && is_text(template) => Ok(instant_type()),
        _ => plan_err!("to_timestamp takes a number of seconds, or a text and a template"),
    };
    vec![
        Function::new("to_char", Partial, written_type, evaluate_to_char),
        Function::new("to_date", Partial, date_type, evaluate_to_date),
        Function::new("to_timestamp", Partial, time_type, evaluate_to_timestamp),
    ]
}

/// Whether a type is one of texts.
fn is_text(found: &DataType) -> bool {
    matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

/// Whether `to_char` writes values of a type.
fn is_written(found: &DataType) -> bool {
    found.is_numeric()
        || matches!(
            found,
            DataType::Timestamp(..)
                | DataType::Date32
                | DataType::Interval(_)
                | DataType::Duration(_)
                | DataType::Null
        )
}

/// Evaluates `to_char`.
fn evaluate_to_char(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [value, template] = args else { return exec_err!("to_char takes a value and a template") };
    let template = cast(template, &DataType::Utf8)?;
    let templates = template.as_string::<i32>();
    let mut times = Last::<String, Vec<Piece>>::default();
    let mut numbers = Last::<String, Template>::default();
    let times_of = |template: &str| Ok(pieces(template));
    let texts: Result<StringArray> = match value.data_type() {
        DataType::Null => return Ok(Arc::new(StringArray::new_null(value.len()))),
        DataType::Timestamp(..) | DataType::Date32 => {
            let zone = match value.data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                _ => None,
            };
            // PostgreSQL writes a date as the instant of its midnight.
            let has_zone = zone.is_some() || *value.data_type() == DataType::Date32;
            let values = cast(value, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
            let values = values.as_primitive::<TimestampMicrosecondType>().iter();
            let out_of_range = || DataFusionError::Execution("timestamp out of range".to_owned());
            let texts = values.zip(templates.iter()).map(|(value, template)| {
                let (Some(value), Some(template)) = (value, template) else { return Ok(None) };
                let time = DateTime::from_timestamp_micros(value).ok_or_else(out_of_range)?.naive_utc();
                write::write(&Parts::of_time(time, has_zone), times.get(template, times_of)?).map(Some)
            });
            texts.collect()
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let values = cast(value, &SPAN)?;
            let values = values.as_primitive::<IntervalMonthDayNanoType>().iter();
            let texts = values.zip(templates.iter()).map(|(value, template)| {
                let (Some(value), Some(template)) = (value, template) else { return Ok(None) };
                let parts = Parts::of_interval(from_arrow(value));
                write::write(&parts, times.get(template, times_of)?).map(Some)
            });
            texts.collect()
        }
        found if is_float(found) => {
            let values = cast(value, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>().iter();
            let texts = values.zip(templates.iter()).map(|(value, template)| {
                let (Some(value), Some(template)) = (value, template) else { return Ok(None) };
                numbers.get(template, Template::parse)?.write_double(value).map(Some)
            });
            texts.collect()
        }
        _ => {
            let values = written(value)?;
            let texts = values.as_string::<i32>().iter().zip(templates.iter()).map(|(value, template)| {
                let (Some(value), Some(template)) = (value, template) else { return Ok(None) };
                numbers.get(template, Template::parse)?.write_exact(value).map(Some)
            });
            texts.collect()
        }
    };
    Ok(Arc::new(texts?))
}

/// Reads texts by templates.
fn read_times(args: &[ArrayRef]) -> Result<TimestampMicrosecondArray> {
    let [text, template] = args else { return exec_err!("a time is read from a text by a template") };
    let (text, template) = (cast(text, &DataType::Utf8)?, cast(template, &DataType::Utf8)?);
    let pairs = text.as_string::<i32>().iter().zip(template.as_string::<i32>().iter());
    let mut last = Last::<String, Vec<Piece>>::default();
    pairs
        .map(|(text, template)| {
            let (Some(text), Some(template)) = (text, template) else { return Ok(None) };
            let time = read::read_time(text, last.get(template, |template| Ok(pieces(template)))?)?;
            Ok(Some(time.and_utc().timestamp_micros()))
        })
        .collect()
}

/// Evaluates `to_date`.
fn evaluate_to_date(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let times = read_times(args)?;
    let day = |micros: i64| i32::try_from(crate::text::days_and_time(micros).0).ok();
    Ok(Arc::new(times.iter().map(|micros| micros.and_then(day)).collect::<Date32Array>()))
}

/// Evaluates `to_timestamp`.
fn evaluate_to_timestamp(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [seconds] = args else {
        return Ok(Arc::new(read_times(args)?.with_timezone("+00:00")));
    };
    // Seconds since 1970.
    let seconds = super::casts::cast_array(seconds, &DataType::Float64)?;
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let micros = seconds.as_primitive::<Float64Type>().iter().map(|seconds| match seconds {
        None => Ok(None),
        Some(seconds) if seconds.abs() < 9.2e12 => Ok(Some((seconds * 1e6).round() as i64)),
        Some(_) => exec_err!("timestamp out of range"),
    });
    Ok(Arc::new(micros.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("+00:00")))
}
