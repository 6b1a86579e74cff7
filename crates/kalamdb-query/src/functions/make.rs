//! Times and intervals of their parts, and buckets of numbers.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, IntervalMonthDayNanoArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Decimal256Type, Float64Type, Int32Type, TimeUnit, i256};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};

use super::Function;
use super::Totality::Partial;
use super::arithmetic::{digits_of, exact_type, is_float};
use super::casts::cast_array;
use super::compare::thresholds_reached;
use super::spans::{self, SPAN, to_arrow};
use super::times::TIMESTAMP;
use crate::text::{DAY_MICROS, Interval, is_date, is_timestamp};

/// The functions by name.
pub(super) fn named() -> Vec<Function> {
    let time = DataType::Time64(TimeUnit::Microsecond);
    vec![
        Function::to("make_date", Partial, DataType::Date32, evaluate_date).of_types(|types| {
            if takes(types, 3, 3) {
                Ok(DataType::Date32)
            } else {
                plan_err!("make_date takes a year, a month and a day")
            }
        }),
        Function::to("make_time", Partial, time, evaluate_time).of_types(|types| {
            if takes(types, 2, 3) {
                Ok(DataType::Time64(TimeUnit::Microsecond))
            } else {
                plan_err!("make_time takes an hour, a minute and seconds")
            }
        }),
        Function::to("make_timestamp", Partial, TIMESTAMP, evaluate_timestamp).of_types(|types| {
            if takes(types, 5, 6) {
                Ok(TIMESTAMP)
            } else {
                plan_err!("make_timestamp takes a year, a month, a day, an hour, a minute and seconds")
            }
        }),
        Function::to("make_interval", Partial, SPAN, evaluate_interval).of_types(|types| {
            if takes(types, 6, 7) {
                Ok(SPAN)
            } else {
                plan_err!("make_interval takes years, months, weeks, days, hours, minutes and seconds")
            }
        }),
        Function::new("width_bucket", Partial, bucket_type, evaluate_bucket),
    ]
}

/// Whether arguments are so many, the first of them integers and the rest numbers.
fn takes(types: &[DataType], integers: usize, count: usize) -> bool {
    let fits = |(at, found): (usize, &DataType)| match found {
        DataType::Null | DataType::Utf8 => true,
        found if at < integers => found.is_integer(),
        found => found.is_numeric(),
    };
    types.len() == count && types.iter().enumerate().all(fits)
}

/// Arguments as columns of integers and, after them, of doubles.
struct Parts {
    integers: Vec<ArrayRef>,
    seconds: Option<ArrayRef>,
    rows: usize,
}

impl Parts {
    /// Casts the first `count` arguments to integers and the next to doubles.
    fn new(args: &[ArrayRef], count: usize) -> Result<Self> {
        let to = |args: &[ArrayRef], target: &DataType| -> Result<Vec<ArrayRef>> {
            args.iter().map(|arg| cast_array(arg, target)).collect()
        };
        let (integers, rest) = args.split_at_checked(count).unwrap_or((args, &[]));
        let seconds = to(rest, &DataType::Float64)?.pop();
        Ok(Self {
            integers: to(integers, &DataType::Int32)?,
            seconds,
            rows: args.first().map_or(1, Array::len),
        })
    }

    /// The integers of a row and its seconds; none where one is NULL.
    fn row<const N: usize>(&self, row: usize) -> Option<([i32; N], f64)> {
        let mut values = [0; N];
        for (value, column) in values.iter_mut().zip(&self.integers) {
            let column = column.as_primitive::<Int32Type>();
            *value = column.is_valid(row).then(|| column.value(row))?;
        }
        let seconds = match &self.seconds {
            None => 0.0,
            Some(column) => {
                let column: &Float64Array = column.as_primitive::<Float64Type>();
                column.is_valid(row).then(|| column.value(row))?
            }
        };
        Some((values, seconds))
    }

    /// Computes a value of each row without NULLs.
    fn each<const N: usize, T>(
        &self,
        make: impl Fn([i32; N], f64) -> Result<T>,
    ) -> impl Iterator<Item = Result<Option<T>>> {
        (0..self.rows).map(move |row| match self.row::<N>(row) {
            Some((values, seconds)) => make(values, seconds).map(Some),
            None => Ok(None),
        })
    }
}

/// A date of its parts. There is no year 0, and years before 1 are negative.
fn date_of(year: i32, month: i32, day: i32) -> Result<i32> {
    let year_of_calendar = if year < 0 { year.checked_add(1) } else { Some(year).filter(|year| *year != 0) };
    let date = year_of_calendar
        .and_then(|year| NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?));
    match date.map(|date| date.to_epoch_days()).filter(|days| is_date((*days).into())) {
        Some(days) => Ok(days),
        None => exec_err!("date field value out of range: {year}-{month:02}-{day:02}"),
    }
}

/// The microseconds since midnight of a time of day in parts.
#[expect(clippy::cast_possible_truncation, reason = "the seconds are at most 60")]
fn time_of(hour: i32, minute: i32, seconds: f64) -> Result<i64> {
    let out_of_range = || exec_err!("time field value out of range: {hour}:{minute:02}:{seconds}");
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&seconds) {
        return out_of_range();
    }
    let minutes = i64::from(hour) * 60 + i64::from(minute);
    let micros = minutes * 60_000_000 + (seconds * 1e6).round_ties_even() as i64;
    if micros > DAY_MICROS { out_of_range() } else { Ok(micros) }
}

/// Evaluates `make_date`.
fn evaluate_date(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let parts = Parts::new(args, 3)?;
    let dates = parts.each(|[year, month, day], _| date_of(year, month, day));
    Ok(Arc::new(dates.collect::<Result<Date32Array>>()?))
}

/// Evaluates `make_time`.
fn evaluate_time(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let parts = Parts::new(args, 2)?;
    let times = parts.each(|[hour, minute], seconds| time_of(hour, minute, seconds));
    Ok(Arc::new(times.collect::<Result<Time64MicrosecondArray>>()?))
}

/// Evaluates `make_timestamp`.
fn evaluate_timestamp(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let parts = Parts::new(args, 5)?;
    let times = parts.each(|[year, month, day, hour, minute], seconds| {
        let midnight = i64::from(date_of(year, month, day)?).checked_mul(DAY_MICROS);
        let time = time_of(hour, minute, seconds)?;
        let micros = midnight.and_then(|midnight| midnight.checked_add(time));
        let out_of_range = || DataFusionError::Execution("timestamp out of range".to_owned());
        micros.filter(|micros| is_timestamp(*micros)).ok_or_else(out_of_range)
    });
    Ok(Arc::new(times.collect::<Result<TimestampMicrosecondArray>>()?))
}

/// Evaluates `make_interval`.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn evaluate_interval(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    const MICROS_MAX: f64 = 9_223_372_036_854_775_807.0;
    let parts = Parts::new(args, 6)?;
    let spans = parts.each(|[years, months, weeks, days, hours, minutes], seconds| {
        let months = years.checked_mul(12).and_then(|whole| whole.checked_add(months));
        let days = weeks.checked_mul(7).and_then(|whole| whole.checked_add(days));
        let rounded = (seconds * 1e6).round_ties_even();
        let rest = (rounded.abs() < MICROS_MAX).then_some(rounded as i64);
        let whole = (i64::from(hours) * 60 + i64::from(minutes)) * 60_000_000;
        let micros = rest.and_then(|rest| whole.checked_add(rest));
        let (Some(months), Some(days), Some(micros)) = (months, days, micros) else {
            return Err(spans::out_of_range());
        };
        to_arrow(Interval { months, days, micros })
    });
    Ok(Arc::new(spans.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// Checks the types of `width_bucket`.
fn bucket_type(types: &[DataType]) -> Result<DataType> {
    let is_number = |found: &DataType| found.is_numeric() || *found == DataType::Null;
    match types {
        [operand, low, high, count]
            if [operand, low, high].into_iter().all(is_number)
                && (count.is_integer() || *count == DataType::Null) =>
        {
            Ok(DataType::Int32)
        }
        [_, thresholds] if thresholds.is_nested() || *thresholds == DataType::Null => Ok(DataType::Int32),
        _ => plan_err!(
            "width_bucket takes a number, two bounds and a count, or a value and an array of thresholds"
        ),
    }
}

/// Evaluates `width_bucket`.
fn evaluate_bucket(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let (operand, low, high, count) = match args {
        [operand, low, high, count] => (operand, low, high, count),
        [values, thresholds] if thresholds.data_type().is_nested() => {
            return thresholds_reached(values, thresholds);
        }
        _ => return Ok(Arc::new(Int32Array::new_null(args.first().map_or(1, Array::len)))),
    };
    let counts = cast_array(count, &DataType::Int32)?;
    let counts = counts.as_primitive::<Int32Type>();
    let bounds = [operand, low, high];
    let digits: Option<Vec<(u8, i8)>> = bounds.iter().map(|bound| digits_of(bound.data_type())).collect();
    let is_double = bounds.iter().any(|bound| is_float(bound.data_type()));
    let buckets: Int32Array = if let (Some(digits), false) = (digits, is_double) {
        let scale = digits_of(&exact_type(&digits, true)).map_or(0, |(_, scale)| scale);
        let target = DataType::Decimal256(76, scale);
        let [operand, low, high] =
            [cast_array(operand, &target)?, cast_array(low, &target)?, cast_array(high, &target)?];
        let [operand, low, high] = [&operand, &low, &high].map(AsArray::as_primitive::<Decimal256Type>);
        let rows = operand.iter().zip(low.iter()).zip(high.iter()).zip(counts.iter());
        rows.map(|(((operand, low), high), count)| match (operand, low, high, count) {
            (Some(operand), Some(low), Some(high), Some(count)) => {
                exact_bucket(operand, low, high, count).map(Some)
            }
            _ => Ok(None),
        })
        .collect::<Result<_>>()?
    } else {
        let target = DataType::Float64;
        let [operand, low, high] =
            [cast_array(operand, &target)?, cast_array(low, &target)?, cast_array(high, &target)?];
        let [operand, low, high] = [&operand, &low, &high].map(AsArray::as_primitive::<Float64Type>);
        let rows = operand.iter().zip(low.iter()).zip(high.iter()).zip(counts.iter());
        rows.map(|(((operand, low), high), count)| match (operand, low, high, count) {
            (Some(operand), Some(low), Some(high), Some(count)) => {
                float_bucket(operand, low, high, count).map(Some)
            }
            _ => Ok(None),
        })
        .collect::<Result<_>>()?
    };
    Ok(Arc::new(buckets))
}

/// The bucket above the last one.
fn above(count: i32) -> Result<i32> {
    match count.checked_add(1) {
        Some(bucket) => Ok(bucket),
        None => exec_err!("integer out of range"),
    }
}

/// The bucket of an exact number, as PostgreSQL computes it.
fn exact_bucket(operand: i256, low: i256, high: i256, count: i32) -> Result<i32> {
    if count <= 0 {
        return exec_err!("count must be greater than zero");
    }
    if low == high {
        return exec_err!("lower bound cannot equal upper bound");
    }
    let (from, to, value) = if low < high { (low, high, operand) } else { (high, low, operand) };
    let is_rising = low < high;
    if is_rising && value < from || !is_rising && value > to {
        return Ok(0);
    }
    if is_rising && value >= to || !is_rising && value <= from {
        return above(count);
    }
    let distance = if is_rising { value.checked_sub(from) } else { to.checked_sub(value) };
    let bucket = distance
        .and_then(|distance| distance.checked_mul(i256::from_i128(count.into())))
        .and_then(|scaled| scaled.checked_div(to.checked_sub(from)?))
        .and_then(i256::to_i128)
        .and_then(|bucket| i32::try_from(bucket).ok());
    match bucket {
        Some(bucket) => Ok(bucket.min(count - 1) + 1),
        None => exec_err!("numeric field overflow"),
    }
}

/// The bucket of a double, as PostgreSQL computes it.
#[expect(clippy::cast_possible_truncation, reason = "the quotient is between 0 and 1")]
fn float_bucket(operand: f64, low: f64, high: f64, count: i32) -> Result<i32> {
    if count <= 0 {
        return exec_err!("count must be greater than zero");
    }
    if operand.is_nan() || low.is_nan() || high.is_nan() {
        return exec_err!("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return exec_err!("lower and upper bounds must be finite");
    }
    let (is_below, is_above) = match low.partial_cmp(&high) {
        Some(Ordering::Less) => (operand < low, operand >= high),
        Some(Ordering::Greater) => (operand > low, operand <= high),
        _ => return exec_err!("lower bound cannot equal upper bound"),
    };
    if is_below {
        return Ok(0);
    }
    if is_above {
        return above(count);
    }
    let quotient = if (high - low).is_finite() {
        (operand - low) / (high - low)
    } else {
        (operand / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
    };
    let bucket = (f64::from(count) * quotient) as i32;
    Ok(bucket.min(count - 1) + 1)
}
