//! Arithmetic of times and dates, their zones and their parts.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;

use super::Totality::{Partial, Total};
use super::casts::cast_array;
use super::spans::{SPAN, from_arrow};
use super::{Evaluate, Function, Last, call_shared};
use crate::text::{
    DAY_MICROS, Interval, Zone, instant_of_local, is_date, is_timestamp, local_of_instant, parse_zone,
};

/// The type of times without a zone.
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The type of instants.
pub(crate) fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

/// The type of AT TIME ZONE.
fn zoned_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [_, DataType::Timestamp(_, Some(_))] => Ok(TIMESTAMP),
        [_, DataType::Timestamp(_, None) | DataType::Date32 | DataType::Utf8 | DataType::Null] => {
            Ok(instant_type())
        }
        _ => plan_err!("AT TIME ZONE takes a time"),
    }
}

/// Evaluates `timezone`, the function of AT TIME ZONE.
fn evaluate_zoned(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [zone, time] = args else { return exec_err!("AT TIME ZONE takes a time and a zone") };
    let is_local = matches!(target, DataType::Timestamp(_, Some(_)));
    let time = match (time.data_type(), is_local) {
        (DataType::Timestamp(..), _) => {
            cast(time, &DataType::Timestamp(TimeUnit::Microsecond, zone_of(time)))?
        }
        _ => cast_array(time, &TIMESTAMP)?,
    };
    let time = time.as_primitive::<TimestampMicrosecondType>();
    let spans = matches!(zone.data_type(), DataType::Interval(_)).then(|| cast(zone, &SPAN)).transpose()?;
    let names = if spans.is_none() { Some(cast(zone, &DataType::Utf8)?) } else { None };
    let mut last = Last::default();
    let mut zone_at = |row: usize| -> Result<Option<Zone>> {
        if let Some(spans) = &spans {
            let spans = spans.as_primitive::<IntervalMonthDayNanoType>();
            return if spans.is_valid(row) { zone_of_span(spans.value(row)).map(Some) } else { Ok(None) };
        }
        let Some(names) = &names else { return Ok(None) };
        let names = names.as_string::<i32>();
        if names.is_null(row) {
            return Ok(None);
        }
        last.get(names.value(row), zone_named).copied().map(Some)
    };
    let mut values: Vec<Option<i64>> = Vec::with_capacity(time.len());
    for row in 0..time.len() {
        let Some(zone) = zone_at(row)?.filter(|_| time.is_valid(row)) else {
            values.push(None);
            continue;
        };
        let value = time.value(row);
        let moved = if is_local { instant_of_local(value, zone) } else { local_of_instant(value, zone) };
        values.push(Some(moved.filter(|moved| is_timestamp(*moved)).ok_or_else(out_of_range)?));
    }
    let values = TimestampMicrosecondArray::from(values);
    Ok(Arc::new(if is_local { values.with_timezone("+00:00") } else { values }))
}

/// The zone with an interval's offset east of Greenwich.
fn zone_of_span(span: IntervalMonthDayNano) -> Result<Zone> {
    if span.months != 0 || span.days != 0 {
        return exec_err!("interval time zone must not include months or days");
    }
    match i32::try_from(span.nanoseconds / 1_000_000_000) {
        Ok(seconds) => Ok(Zone::Fixed(seconds)),
        Err(_) => exec_err!("interval time zone is out of range"),
    }
}

/// The zone that AT TIME ZONE names. Offsets that are written count west of Greenwich, as in POSIX.
fn zone_named(name: &str) -> Result<Zone> {
    match parse_zone(name) {
        Some(Zone::Fixed(offset)) if name.trim().starts_with(['+', '-']) => Ok(Zone::Fixed(-offset)),
        Some(zone) => Ok(zone),
        None => exec_err!("time zone \"{name}\" not recognized"),
    }
}

/// The zone of an array's type.
fn zone_of(array: &ArrayRef) -> Option<Arc<str>> {
    match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

/// The error of a time beyond the calendar.
fn out_of_range() -> DataFusionError {
    DataFusionError::Execution("timestamp out of range".to_owned())
}

/// A date plus a number of days.
pub(crate) fn date_plus_days(date: Expr, days: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [date, days] = args else { return exec_err!("a date and days are added") };
        let days = cast(days, &DataType::Int64)?;
        let pairs = date.as_primitive::<Date32Type>().iter().zip(days.as_primitive::<Int64Type>().iter());
        let dates = pairs.map(|(date, days)| match (date, days) {
            (Some(date), Some(days)) => {
                let sum = i64::from(date).checked_add(days).filter(|sum| is_date(*sum));
                let sum = sum.and_then(|sum| i32::try_from(sum).ok());
                sum.map(Some).ok_or_else(|| DataFusionError::Execution("date out of range".to_owned()))
            }
            _ => Ok(None),
        });
        Ok(Arc::new(dates.collect::<Result<Date32Array>>()?))
    };
    call_shared!(Function::to("date_plus_days", Partial, DataType::Date32, EVALUATE), vec![date, days])
}

/// A date plus a time of day.
pub(crate) fn date_at_time(date: Expr, time: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [date, time] = args else { return exec_err!("a date and a time are added") };
        let time = cast(time, &DataType::Time64(TimeUnit::Microsecond))?;
        let pairs =
            date.as_primitive::<Date32Type>().iter().zip(time.as_primitive::<Time64MicrosecondType>().iter());
        let values = pairs.map(|(date, time)| match (date, time) {
            (Some(date), Some(time)) => {
                let micros =
                    i64::from(date).checked_mul(DAY_MICROS).and_then(|midnight| midnight.checked_add(time));
                micros.filter(|micros| is_timestamp(*micros)).map(Some).ok_or_else(out_of_range)
            }
            _ => Ok(None),
        });
        Ok(Arc::new(values.collect::<Result<TimestampMicrosecondArray>>()?))
    };
    call_shared!(Function::to("date_at_time", Partial, TIMESTAMP, EVALUATE), vec![date, time])
}

/// A time of day plus or minus an interval, wrapped at midnight.
pub(crate) fn time_moved(time: Expr, span: Expr, is_back: bool) -> Expr {
    let evaluate: Evaluate = if is_back { |args, _| moved(args, -1) } else { |args, _| moved(args, 1) };
    let name = if is_back { "time_minus" } else { "time_plus" };
    Function::to(name, Total, DataType::Time64(TimeUnit::Microsecond), evaluate).call(vec![time, span])
}

/// Evaluates the sum or difference of a time of day and an interval.
fn moved(args: &[ArrayRef], sign: i64) -> Result<ArrayRef> {
    let [time, span] = args else { return exec_err!("a time of day is moved by a span") };
    let (time, span) = (cast(time, &DataType::Time64(TimeUnit::Microsecond))?, cast(span, &SPAN)?);
    let pairs = time.as_primitive::<Time64MicrosecondType>().iter();
    let pairs = pairs.zip(span.as_primitive::<IntervalMonthDayNanoType>().iter());
    let times: Time64MicrosecondArray = pairs
        .map(|(time, span)| {
            let micros = span?.nanoseconds / 1000 % DAY_MICROS;
            Some((time? + sign * micros).rem_euclid(DAY_MICROS))
        })
        .collect();
    Ok(Arc::new(times))
}

/// A part of a time or an interval as a number; none where PostgreSQL has no such part.
pub(crate) fn part_of_time(field: &str, value: Expr) -> Option<Expr> {
    let (name, scale, evaluate): (&'static str, i8, Evaluate) = match field {
        "second" | "seconds" | "sec" => ("part_second", 6, |args, target| parts(args, target, "second")),
        "millisecond" | "milliseconds" | "msec" | "ms" => {
            ("part_milliseconds", 3, |args, target| parts(args, target, "milliseconds"))
        }
        "microsecond" | "microseconds" | "usec" | "us" => {
            ("part_microseconds", 0, |args, target| parts(args, target, "microseconds"))
        }
        "epoch" => ("part_epoch", 6, |args, target| parts(args, target, "epoch")),
        "minute" | "minutes" => ("part_minute", 0, |args, target| parts(args, target, "minute")),
        "hour" | "hours" => ("part_hour", 0, |args, target| parts(args, target, "hour")),
        "day" | "days" => ("part_day", 0, |args, target| parts(args, target, "day")),
        "month" | "months" => ("part_month", 0, |args, target| parts(args, target, "month")),
        "quarter" => ("part_quarter", 0, |args, target| parts(args, target, "quarter")),
        "year" | "years" => ("part_year", 0, |args, target| parts(args, target, "year")),
        "decade" | "decades" => ("part_decade", 0, |args, target| parts(args, target, "decade")),
        "century" | "centuries" => ("part_century", 0, |args, target| parts(args, target, "century")),
        "millennium" | "millennia" => {
            ("part_millennium", 0, |args, target| parts(args, target, "millennium"))
        }
        "dow" => ("part_dow", 0, |args, target| parts(args, target, "dow")),
        "isodow" => ("part_isodow", 0, |args, target| parts(args, target, "isodow")),
        "doy" => ("part_doy", 0, |args, target| parts(args, target, "doy")),
        "week" => ("part_week", 0, |args, target| parts(args, target, "week")),
        "isoyear" => ("part_isoyear", 0, |args, target| parts(args, target, "isoyear")),
        _ => return None,
    };
    Some(Function::to(name, Partial, DataType::Decimal128(20, scale), evaluate).call(vec![value]))
}

/// A part of the time of day of a value that has one; none where `field` is another part.
pub(crate) fn clock_part(field: &str, value: Expr) -> Option<Expr> {
    fn returns<const SCALE: i8>(types: &[DataType]) -> Result<DataType> {
        match types {
            [found] if found.is_temporal() || matches!(found, DataType::Utf8 | DataType::Null) => {
                Ok(DataType::Decimal128(20, SCALE))
            }
            _ => plan_err!("extract takes a time or an interval"),
        }
    }
    let (name, evaluate): (&'static str, Evaluate) = match field.to_ascii_lowercase().as_str() {
        "hour" | "hours" => ("extract_hour", |args, target| parts(args, target, "hour")),
        "minute" | "minutes" => ("extract_minute", |args, target| parts(args, target, "minute")),
        "second" | "seconds" => ("extract_second", |args, target| parts(args, target, "second")),
        "millisecond" | "milliseconds" => {
            ("extract_milliseconds", |args, target| parts(args, target, "milliseconds"))
        }
        "microsecond" | "microseconds" => {
            ("extract_microseconds", |args, target| parts(args, target, "microseconds"))
        }
        _ => return None,
    };
    let function = match name {
        "extract_second" => Function::new(name, Partial, returns::<6>, evaluate),
        "extract_milliseconds" => Function::new(name, Partial, returns::<3>, evaluate),
        _ => Function::new(name, Partial, returns::<0>, evaluate),
    };
    Some(function.call(vec![value]))
}

/// Evaluates a part of times, times of day or intervals.
fn parts(args: &[ArrayRef], target: &DataType, field: &str) -> Result<ArrayRef> {
    let [value] = args else { return exec_err!("extract takes one value") };
    let mut values: Vec<Option<i128>> = Vec::with_capacity(value.len());
    match value.data_type() {
        DataType::Interval(_) | DataType::Duration(_) => {
            let spans = cast(value, &SPAN)?;
            for span in spans.as_primitive::<IntervalMonthDayNanoType>() {
                values.push(span.map(|span| part_of_span(span, field)).transpose()?);
            }
        }
        DataType::Time64(_) | DataType::Time32(_) => {
            let times = cast(value, &DataType::Time64(TimeUnit::Microsecond))?;
            for time in times.as_primitive::<Time64MicrosecondType>() {
                values.push(time.map(|time| part_of_clock(time, field)).transpose()?);
            }
        }
        _ => {
            let zone = zone_of(value);
            let times = cast_array(value, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
            for time in times.as_primitive::<TimestampMicrosecondType>() {
                values.push(time.map(|time| part_of_instant(time, field)).transpose()?);
            }
        }
    }
    let DataType::Decimal128(precision, scale) = target else { return exec_err!("not a numeric") };
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale)?))
}

/// A part of a time of day.
fn part_of_clock(micros: i64, field: &str) -> Result<i128> {
    let minute = i128::from(micros.rem_euclid(60_000_000));
    Ok(match field {
        "second" | "milliseconds" | "microseconds" => minute,
        "epoch" => i128::from(micros),
        "minute" => i128::from(micros.div_euclid(60_000_000).rem_euclid(60)),
        "hour" => i128::from(micros.div_euclid(3_600_000_000)),
        _ => return exec_err!("unit \"{field}\" is not in a TIME"),
    })
}

/// A part of a time.
fn part_of_instant(micros: i64, field: &str) -> Result<i128> {
    if field == "epoch" {
        return Ok(micros.into());
    }
    if matches!(field, "second" | "milliseconds" | "microseconds" | "minute" | "hour") {
        return part_of_clock(micros.rem_euclid(DAY_MICROS), field);
    }
    let date = DateTime::from_timestamp_micros(micros).ok_or_else(out_of_range)?.date_naive();
    // There is no year 0: the year before 1 is -1.
    let year = i128::from(if date.year() > 0 { date.year() } else { date.year() - 1 });
    Ok(match field {
        "day" => date.day().into(),
        "month" => date.month().into(),
        "quarter" => date.month().div_ceil(3).into(),
        "year" => year,
        "decade" => i128::from(date.year().div_euclid(10)),
        "century" => grouped(year, 100),
        "millennium" => grouped(year, 1000),
        "dow" => date.weekday().num_days_from_sunday().into(),
        "isodow" => date.weekday().number_from_monday().into(),
        "doy" => date.ordinal().into(),
        "week" => date.iso_week().week().into(),
        _ => date.iso_week().year().into(),
    })
}

/// The number of a year's century or millennium, the first being 1.
const fn grouped(year: i128, of: i128) -> i128 {
    if year > 0 { (year + of - 1) / of } else { -((-year + of - 1) / of) }
}

/// A part of an interval.
fn part_of_span(span: IntervalMonthDayNano, field: &str) -> Result<i128> {
    let Interval { months, days, micros } = from_arrow(span);
    let (months, days, micros) = (i128::from(months), i128::from(days), i128::from(micros));
    Ok(match field {
        "second" | "milliseconds" | "microseconds" => micros % 60_000_000,
        "minute" => micros / 60_000_000 % 60,
        "hour" => micros / 3_600_000_000,
        "day" => days,
        "month" => months % 12,
        "quarter" => months % 12 / 3 + 1,
        "year" => months / 12,
        "decade" => months / 120,
        "century" => months / 1200,
        "millennium" => months / 12_000,
        // A year has 365.25 days, a month beside whole years has 30.
        "epoch" => {
            let years = months / 12 * 36_525 * 864_000_000;
            years + (months % 12 * 30 + days) * i128::from(DAY_MICROS) + micros
        }
        _ => return exec_err!("unit \"{field}\" is not in an INTERVAL"),
    })
}

/// `age` and `timezone` by name.
pub(super) fn named() -> Vec<Function> {
    let age_type: fn(&[DataType]) -> Result<DataType> = |types| {
        let is_time = |found: &DataType| {
            matches!(found, DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Null)
        };
        match types {
            [late, early] if is_time(late) && is_time(early) => Ok(SPAN),
            _ => plan_err!("age takes one or two times"),
        }
    };
    vec![
        Function::new("timezone", Partial, zoned_type, evaluate_zoned),
        Function::new("age", Partial, age_type, evaluate_age),
    ]
}

/// `age`: the years, months, days and time between two times.
fn evaluate_age(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [late, early] = args else { return exec_err!("age takes two times") };
    let micros = |array: &ArrayRef| -> Result<ArrayRef> {
        let local = match array.data_type() {
            DataType::Timestamp(..) => {
                cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone_of(array)))?
            }
            _ => cast_array(array, &TIMESTAMP)?,
        };
        Ok(local)
    };
    let (late, early) = (micros(late)?, micros(early)?);
    let pairs = late
        .as_primitive::<TimestampMicrosecondType>()
        .iter()
        .zip(early.as_primitive::<TimestampMicrosecondType>().iter());
    let spans = pairs.map(|(late, early)| match (late, early) {
        (Some(late), Some(early)) => age(late, early).ok_or_else(out_of_range).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(spans.collect::<Result<datafusion::arrow::array::IntervalMonthDayNanoArray>>()?))
}

/// The years, months, days and time between two times.
fn age(late: i64, early: i64) -> Option<IntervalMonthDayNano> {
    if late < early {
        let span = age(early, late)?;
        return Some(IntervalMonthDayNano::new(-span.months, -span.days, -span.nanoseconds));
    }
    let split = |micros: i64| {
        let (days, time) = crate::text::days_and_time(micros);
        let date = DateTime::from_timestamp_micros(days.checked_mul(DAY_MICROS)?)?.date_naive();
        Some((date, time))
    };
    let ((late_date, late_time), (early_date, early_time)) = (split(late)?, split(early)?);
    let small = |part: u32| i32::try_from(part).unwrap_or(0);
    let mut months =
        (late_date.year() - early_date.year()) * 12 + small(late_date.month0()) - small(early_date.month0());
    let mut days = small(late_date.day()) - small(early_date.day());
    let mut time = late_time - early_time;
    if time < 0 {
        time += DAY_MICROS;
        days -= 1;
    }
    if days < 0 {
        // Days are those of the earlier time's month.
        days += i32::from(early_date.num_days_in_month());
        months -= 1;
    }
    Some(IntervalMonthDayNano::new(months, days, time.checked_mul(1000)?))
}
