//! `date_trunc` over the whole range of times.

use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};

use super::Function;
use super::Totality::Partial;
use super::casts::cast_array;
use super::spans::SPAN;
use super::times::{TIMESTAMP, instant_type};
use crate::text::DAY_MICROS;

/// `date_trunc` by name.
pub(super) fn named() -> Vec<Function> {
    vec![Function::new("date_trunc", Partial, truncated_type, evaluate)]
}

/// The type of `date_trunc`.
fn truncated_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [_, DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
        // A date is an instant of UTC's calendar.
        [_, DataType::Date32] => Ok(instant_type()),
        [_, DataType::Utf8 | DataType::Null] => Ok(TIMESTAMP),
        [_, DataType::Interval(_) | DataType::Duration(_)] => Ok(SPAN),
        _ => plan_err!("date_trunc takes a unit and a time"),
    }
}

/// Evaluates `date_trunc`.
fn evaluate(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [units, times] = args else { return exec_err!("date_trunc takes a unit and a time") };
    let units = cast(units, &DataType::Utf8)?;
    let units = units.as_string::<i32>();
    if *target == SPAN {
        let spans = cast(times, &SPAN)?;
        let pairs = units.iter().zip(spans.as_primitive::<IntervalMonthDayNanoType>().iter());
        let spans = pairs.map(|(unit, span)| match (unit, span) {
            (Some(unit), Some(span)) => truncated_span(span, unit).map(Some),
            _ => Ok(None),
        });
        return Ok(Arc::new(spans.collect::<Result<IntervalMonthDayNanoArray>>()?));
    }
    let times = match times.data_type() {
        DataType::Date32 => cast(&cast(times, &TIMESTAMP)?, target)?,
        _ => cast_array(times, target)?,
    };
    let pairs = units.iter().zip(times.as_primitive::<TimestampMicrosecondType>().iter());
    let times = pairs.map(|(unit, time)| match (unit, time) {
        (Some(unit), Some(time)) => truncated(time, unit).map(Some),
        _ => Ok(None),
    });
    let times = times.collect::<Result<TimestampMicrosecondArray>>()?;
    let zone = match target {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Ok(Arc::new(times.with_timezone_opt(zone)))
}

/// Microseconds of a unit of fixed length.
fn fixed(unit: &str) -> Option<i64> {
    Some(match unit {
        "microsecond" | "microseconds" => 1,
        "millisecond" | "milliseconds" => 1000,
        "second" | "seconds" => 1_000_000,
        "minute" | "minutes" => 60_000_000,
        "hour" | "hours" => 3_600_000_000,
        "day" | "days" => DAY_MICROS,
        _ => return None,
    })
}

/// The error of an unknown unit.
fn unknown<T>(unit: &str) -> Result<T> {
    exec_err!("unit \"{unit}\" is not one of date_trunc; there are microseconds to millennium")
}

/// The beginning of a time's unit.
fn truncated(time: i64, unit: &str) -> Result<i64> {
    let unit = unit.to_ascii_lowercase();
    if let Some(length) = fixed(&unit) {
        return Ok(time - time.rem_euclid(length));
    }
    let out_of_range = || DataFusionError::Execution("timestamp out of range".to_owned());
    let date = DateTime::from_timestamp_micros(time).ok_or_else(out_of_range)?.date_naive();
    let first_of = |year: i32, month: u32| NaiveDate::from_ymd_opt(year, month, 1);
    let year = date.year();
    // Centuries begin with a year that ends in 1.
    let group = |of: i32| first_of((year - 1).div_euclid(of) * of + 1, 1);
    let begin = match unit.as_str() {
        "week" | "weeks" => {
            date.checked_sub_days(chrono::Days::new(date.weekday().num_days_from_monday().into()))
        }
        "month" | "months" => first_of(year, date.month()),
        "quarter" | "quarters" => first_of(year, (date.month() - 1) / 3 * 3 + 1),
        "year" | "years" => first_of(year, 1),
        "decade" | "decades" => first_of(year.div_euclid(10) * 10, 1),
        "century" | "centuries" => group(100),
        "millennium" | "millennia" => group(1000),
        _ => return unknown(&unit),
    };
    let days = i64::from(begin.ok_or_else(out_of_range)?.to_epoch_days());
    days.checked_mul(DAY_MICROS).ok_or_else(out_of_range)
}

/// An interval without the parts below a unit.
fn truncated_span(span: IntervalMonthDayNano, unit: &str) -> Result<IntervalMonthDayNano> {
    let unit = unit.to_ascii_lowercase();
    if let Some(length) = fixed(&unit) {
        let nanos =
            if length == DAY_MICROS { 0 } else { span.nanoseconds - span.nanoseconds % (length * 1000) };
        return Ok(IntervalMonthDayNano::new(span.months, span.days, nanos));
    }
    let months = match unit.as_str() {
        "month" | "months" => 1,
        "quarter" | "quarters" => 3,
        "year" | "years" => 12,
        "decade" | "decades" => 120,
        "century" | "centuries" => 1200,
        "millennium" | "millennia" => 12_000,
        _ => return unknown(&unit),
    };
    Ok(IntervalMonthDayNano::new(span.months - span.months % months, 0, 0))
}
