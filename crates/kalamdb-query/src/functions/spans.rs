//! Spans of time: differences, and the number that orders them.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, IntervalMonthDayNanoArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::Function;
use crate::text::Interval;

/// The type of spans.
pub(crate) const SPAN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

const DAY_MICROS: i128 = 86_400_000_000;

/// A span as Arrow holds it.
pub(crate) fn to_arrow(interval: Interval) -> Result<IntervalMonthDayNano> {
    let nanos = interval.micros.checked_mul(1000);
    // Whole days are moved where nanoseconds do not hold the time.
    let (days, nanos) = match nanos {
        Some(nanos) => (interval.days, nanos),
        None => {
            let day = 86_400_000_000;
            let days =
                i32::try_from(interval.micros / day).ok().and_then(|more| interval.days.checked_add(more));
            let Some(days) = days else { return datafusion::common::exec_err!("interval out of range") };
            (days, interval.micros % day * 1000)
        }
    };
    Ok(IntervalMonthDayNano::new(interval.months, days, nanos))
}

/// A span in PostgreSQL's parts.
pub(crate) const fn from_arrow(value: IntervalMonthDayNano) -> Interval {
    Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 }
}

/// `a - b` of two times or dates, as days and the time left over.
pub(crate) fn span_between(a: Expr, b: Expr) -> Expr {
    Function::to("span_between", SPAN, evaluate_between).call(vec![a, b])
}

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

fn evaluate_between(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [a, b] = args else { return datafusion::common::exec_err!("span_between takes two arguments") };
    let (a, b) = (micros(a)?, micros(b)?);
    let (a, b) = (a.as_primitive::<TimestampMicrosecondType>(), b.as_primitive::<TimestampMicrosecondType>());
    let spans = a.iter().zip(b.iter()).map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => {
            let Some(micros) = a.checked_sub(b) else {
                return datafusion::common::exec_err!("interval out of range");
            };
            let day = 86_400_000_000;
            let Ok(days) = i32::try_from(micros / day) else {
                return datafusion::common::exec_err!("interval out of range");
            };
            Ok(Some(IntervalMonthDayNano::new(0, days, micros % day * 1000)))
        }
        _ => Ok(None),
    });
    Ok(Arc::new(spans.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// Days between two dates.
pub(crate) fn date_difference(a: Expr, b: Expr) -> Expr {
    let evaluate: super::Evaluate = |args, _| {
        let [a, b] = args else {
            return datafusion::common::exec_err!("date_difference takes two arguments");
        };
        let (a, b) = (a.as_primitive::<Date32Type>(), b.as_primitive::<Date32Type>());
        let days: Int32Array = a.iter().zip(b.iter()).map(|(a, b)| Some(a?.wrapping_sub(b?))).collect();
        Ok(Arc::new(days))
    };
    Function::to("date_difference", DataType::Int32, evaluate).call(vec![a, b])
}

/// A number that orders spans as PostgreSQL does: microseconds, a month having 30 days and a day 24 hours.
pub(crate) fn span_key(span: Expr) -> Expr {
    Function::to("span_key", DataType::Decimal128(38, 0), evaluate_key).call(vec![span])
}

fn evaluate_key(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [span] = args else { return datafusion::common::exec_err!("span_key takes one argument") };
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
                    Some(days * DAY_MICROS + i128::from(span.nanoseconds / 1000))
                })
                .collect();
            Arc::new(keys.with_precision_and_scale(38, 0)?)
        }
    };
    Ok(span)
}

/// `justify_hours`, `justify_days` and `justify_interval`: whole days of hours, whole months of days, or both.
pub(super) fn named() -> Vec<Function> {
    vec![
        Function::to("justify_hours", SPAN, |args, _| justified(args, true, false)),
        Function::to("justify_days", SPAN, |args, _| justified(args, false, true)),
        Function::to("justify_interval", SPAN, |args, _| justified(args, true, true)),
    ]
}

fn justified(args: &[ArrayRef], hours: bool, days: bool) -> Result<ArrayRef> {
    const DAY_NANOS: i64 = 86_400_000_000_000;
    let [span] = args else { return datafusion::common::exec_err!("it takes one span") };
    let spans = cast(span, &SPAN)?;
    let justified: IntervalMonthDayNanoArray = spans
        .as_primitive::<IntervalMonthDayNanoType>()
        .iter()
        .map(|span| {
            let mut span = span?;
            if hours {
                span.days =
                    span.days.saturating_add(i32::try_from(span.nanoseconds / DAY_NANOS).unwrap_or(0));
                span.nanoseconds %= DAY_NANOS;
            }
            if days {
                span.months = span.months.saturating_add(span.days / 30);
                span.days %= 30;
            }
            // Parts of one span have one sign.
            if hours && span.days > 0 && span.nanoseconds < 0 {
                span.days -= 1;
                span.nanoseconds += DAY_NANOS;
            } else if hours && span.days < 0 && span.nanoseconds > 0 {
                span.days += 1;
                span.nanoseconds -= DAY_NANOS;
            }
            if days && span.months > 0 && span.days < 0 {
                span.months -= 1;
                span.days += 30;
            } else if days && span.months < 0 && span.days > 0 {
                span.months += 1;
                span.days -= 30;
            }
            Some(span)
        })
        .collect();
    Ok(Arc::new(justified))
}
