//! Intervals: differences of times, the key that orders intervals, and their justification.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, IntervalMonthDayNanoArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;

use super::Totality::{Partial, Total};
use super::casts::cast_array;
use super::{Evaluate, Function, call_shared};
use crate::text::{DAY_MICROS, Interval};

/// The type of intervals.
pub(crate) const SPAN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The error of an interval that its type does not hold.
pub(super) fn out_of_range() -> DataFusionError {
    DataFusionError::Execution("interval out of range".to_owned())
}

/// An interval in Arrow's form.
pub(crate) fn to_arrow(interval: Interval) -> Result<IntervalMonthDayNano> {
    let Interval { months, days, micros } = interval;
    if let Some(nanos) = micros.checked_mul(1000) {
        return Ok(IntervalMonthDayNano::new(months, days, nanos));
    }
    // Whole days are carried where 64 bits of nanoseconds do not hold the time.
    let carried = i32::try_from(micros / DAY_MICROS).ok().and_then(|carried| days.checked_add(carried));
    let days = carried.ok_or_else(out_of_range)?;
    Ok(IntervalMonthDayNano::new(months, days, micros % DAY_MICROS * 1000))
}

/// An interval in PostgreSQL's parts.
pub(crate) const fn from_arrow(value: IntervalMonthDayNano) -> Interval {
    Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 }
}

/// `a - b` of two times or dates, in days and the remaining time.
pub(crate) fn span_between(a: Expr, b: Expr) -> Expr {
    call_shared!(Function::to("span_between", Partial, SPAN, evaluate_between), vec![a, b])
}

/// Times, dates and times of day in microseconds.
fn micros(array: &ArrayRef) -> Result<ArrayRef> {
    let target = match array.data_type() {
        DataType::Time64(_) | DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        _ => DataType::Timestamp(TimeUnit::Microsecond, None),
    };
    let local = match array.data_type() {
        // An instant is what UTC's clocks show.
        DataType::Timestamp(unit, Some(_)) => {
            cast(&cast(array, &DataType::Int64)?, &DataType::Timestamp(*unit, None))?
        }
        _ => Arc::clone(array),
    };
    let cast_array = cast(&local, &target)?;
    if matches!(target, DataType::Time64(_)) {
        let values = cast_array.as_primitive::<Time64MicrosecondType>();
        let values: datafusion::arrow::array::TimestampMicrosecondArray = values.iter().collect();
        return Ok(Arc::new(values));
    }
    Ok(cast_array)
}

/// Evaluates `span_between`.
fn evaluate_between(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [a, b] = args else { return exec_err!("span_between takes two arguments") };
    let (a, b) = (micros(a)?, micros(b)?);
    let (a, b) = (a.as_primitive::<TimestampMicrosecondType>(), b.as_primitive::<TimestampMicrosecondType>());
    let spans = a.iter().zip(b.iter()).map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => {
            let micros = a.checked_sub(b).ok_or_else(out_of_range)?;
            let days = i32::try_from(micros / DAY_MICROS).map_err(|_| out_of_range())?;
            Ok(Some(IntervalMonthDayNano::new(0, days, micros % DAY_MICROS * 1000)))
        }
        _ => Ok(None),
    });
    Ok(Arc::new(spans.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// Days between two dates.
pub(crate) fn date_difference(a: Expr, b: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [a, b] = args else { return exec_err!("date_difference takes two arguments") };
        let pairs = a.as_primitive::<Date32Type>().iter().zip(b.as_primitive::<Date32Type>().iter());
        let days = pairs.map(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => match a.checked_sub(b) {
                Some(days) => Ok(Some(days)),
                None => exec_err!("date out of range"),
            },
            _ => Ok(None),
        });
        Ok(Arc::new(days.collect::<Result<Int32Array>>()?))
    };
    call_shared!(Function::to("date_difference", Partial, DataType::Int32, EVALUATE), vec![a, b])
}

/// The type of [`span_key`].
pub(super) const SPAN_KEY: DataType = DataType::Decimal128(38, 0);

/// A number that orders intervals as PostgreSQL does: microseconds, a month having 30 days and a day 24 hours.
pub(crate) fn span_key(span: Expr) -> Expr {
    call_shared!(Function::to("span_key", Total, SPAN_KEY, evaluate_key), vec![span])
}

/// Evaluates `span_key`.
pub(super) fn evaluate_key(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [span] = args else { return exec_err!("span_key takes one argument") };
    let span = match span.data_type() {
        DataType::Duration(_) => {
            let micros = cast(span, &DataType::Duration(TimeUnit::Microsecond))?;
            cast(&micros, &DataType::Int64).and_then(|micros| cast(&micros, target))?
        }
        _ => {
            let span = cast(span, &SPAN)?;
            let keys: Decimal128Array = span
                .as_primitive::<IntervalMonthDayNanoType>()
                .iter()
                .map(|span| {
                    let span = span?;
                    let days = i128::from(span.months) * 30 + i128::from(span.days);
                    Some(days * i128::from(DAY_MICROS) + i128::from(span.nanoseconds / 1000))
                })
                .collect();
            Arc::new(keys.with_precision_and_scale(38, 0)?)
        }
    };
    Ok(span)
}

/// `justify_hours`, `justify_days` and `justify_interval` by name.
pub(super) fn named() -> Vec<Function> {
    let returns: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [DataType::Interval(_) | DataType::Duration(_) | DataType::Utf8 | DataType::Null] => Ok(SPAN),
        _ => plan_err!("justify_hours, justify_days and justify_interval take one interval"),
    };
    let function = |name: &'static str, evaluate: Evaluate| Function::new(name, Partial, returns, evaluate);
    vec![
        function("justify_hours", |args, _| justified(args, justify_hours)),
        function("justify_days", |args, _| justified(args, justify_days)),
        function("justify_interval", |args, _| justified(args, justify_interval)),
    ]
}

/// Evaluates one of the functions that justify intervals.
fn justified(args: &[ArrayRef], justify: fn(Interval) -> Option<Interval>) -> Result<ArrayRef> {
    let [span] = args else { return exec_err!("an interval is justified alone") };
    let spans = cast_array(span, &SPAN)?;
    let justified = spans.as_primitive::<IntervalMonthDayNanoType>().iter().map(|span| match span {
        Some(span) => to_arrow(justify(from_arrow(span)).ok_or_else(out_of_range)?).map(Some),
        None => Ok(None),
    });
    Ok(Arc::new(justified.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// Carries whole days of the time to the days.
fn days_of_time(span: Interval) -> Option<Interval> {
    let carried = i32::try_from(span.micros / DAY_MICROS).ok()?;
    Some(Interval { days: span.days.checked_add(carried)?, micros: span.micros % DAY_MICROS, ..span })
}

/// Carries each thirty days to the months.
fn months_of_days(span: Interval) -> Option<Interval> {
    Some(Interval { months: span.months.checked_add(span.days / 30)?, days: span.days % 30, ..span })
}

/// Gives the time the sign of the days.
const fn align_time(mut span: Interval) -> Interval {
    if span.days > 0 && span.micros < 0 {
        span.micros += DAY_MICROS;
        span.days -= 1;
    } else if span.days < 0 && span.micros > 0 {
        span.micros -= DAY_MICROS;
        span.days += 1;
    }
    span
}

/// Carries the time to the days.
fn justify_hours(span: Interval) -> Option<Interval> {
    days_of_time(span).map(align_time)
}

/// Carries the days to the months.
fn justify_days(span: Interval) -> Option<Interval> {
    let mut span = months_of_days(span)?;
    if span.months > 0 && span.days < 0 {
        span.days += 30;
        span.months -= 1;
    } else if span.months < 0 && span.days > 0 {
        span.days -= 30;
        span.months += 1;
    }
    Some(span)
}

/// Carries in the order of PostgreSQL's `interval_justify_interval`: a month is borrowed from before a day is.
fn justify_interval(span: Interval) -> Option<Interval> {
    let is_alike = span.days > 0 && span.micros > 0 || span.days < 0 && span.micros < 0;
    let span = if is_alike { months_of_days(span)? } else { span };
    let mut span = months_of_days(days_of_time(span)?)?;
    if span.months > 0 && (span.days < 0 || span.days == 0 && span.micros < 0) {
        span.days += 30;
        span.months -= 1;
    } else if span.months < 0 && (span.days > 0 || span.days == 0 && span.micros > 0) {
        span.days -= 30;
        span.months += 1;
    }
    Some(align_time(span))
}
