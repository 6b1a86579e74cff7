//! Values as PostgreSQL writes them.

use chrono::{DateTime, Datelike, NaiveDate, Timelike};

use super::{DAY_MICROS, Interval};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// The text of a year, and its era where that is BC.
fn year_text(date: NaiveDate) -> (String, &'static str) {
    // There is no year 0: before 1 AD is 1 BC.
    if date.year() > 0 {
        (format!("{:04}", date.year()), "")
    } else {
        (format!("{:04}", 1 - date.year()), " BC")
    }
}

/// The text of a fraction of a second.
fn fraction(micros: u32) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

/// A date, of days since 1970.
pub fn write_date(days: i32) -> Option<String> {
    let date = NaiveDate::from_epoch_days(days)?;
    let (year, era) = year_text(date);
    Some(format!("{year}-{:02}-{:02}{era}", date.month(), date.day()))
}

/// A time of day, of microseconds since midnight.
pub fn write_time(micros: i64) -> String {
    let (seconds, rest) = (micros.div_euclid(SECOND), micros.rem_euclid(SECOND));
    let rest = fraction(u32::try_from(rest).unwrap_or_default());
    format!("{:02}:{:02}:{:02}{rest}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A time, of microseconds since 1970, with `+00` behind it where it is an instant.
pub fn write_timestamp(micros: i64, is_instant: bool) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?.naive_utc();
    let (year, era) = year_text(time.date());
    let rest = fraction(time.nanosecond() / 1000);
    let zone = if is_instant { "+00" } else { "" };
    let (month, day) = (time.month(), time.day());
    Some(format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}:{:02}{rest}{zone}{era}",
        time.hour(),
        time.minute(),
        time.second()
    ))
}

/// A span in PostgreSQL's words: `1 year 2 mons -3 days 04:05:06.7`.
pub fn write_interval(interval: Interval) -> String {
    let Interval { months, days, micros } = interval;
    let mut parts: Vec<String> = Vec::new();
    let mut was_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let sign = if value > 0 && was_negative { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        parts.push(format!("{sign}{value} {unit}{plural}"));
        was_negative = value < 0;
    }
    if micros != 0 || parts.is_empty() {
        let sign = match (micros < 0, was_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let unsigned = micros.unsigned_abs();
        let seconds = unsigned / 1_000_000;
        let rest = fraction(u32::try_from(unsigned % 1_000_000).unwrap_or_default());
        parts.push(format!("{sign}{:02}:{:02}:{:02}{rest}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    }
    parts.join(" ")
}

/// A span in ISO 8601: `P1Y2M-3DT4H5M6.7S`.
pub fn write_interval_iso(interval: Interval) -> String {
    let Interval { months, days, micros } = interval;
    let part = |value: i64, unit: char| if value == 0 { String::new() } else { format!("{value}{unit}") };
    let date =
        [part((months / 12).into(), 'Y'), part((months % 12).into(), 'M'), part(days.into(), 'D')].concat();
    let seconds = micros / SECOND;
    let rest = micros % SECOND;
    let tail = if seconds % 60 == 0 && rest == 0 {
        String::new()
    } else {
        let sign = if micros < 0 { "-" } else { "" };
        let rest = fraction(u32::try_from(rest.unsigned_abs()).unwrap_or_default());
        format!("{sign}{}{rest}S", (seconds % 60).abs())
    };
    let time = [part(seconds / 3600, 'H'), part(seconds / 60 % 60, 'M'), tail].concat();
    match (date.is_empty(), time.is_empty()) {
        (true, true) => "PT0S".to_owned(),
        (_, true) => format!("P{date}"),
        _ => format!("P{date}T{time}"),
    }
}

/// A floating-point number in its shortest form that is read back as the same one.
pub fn write_float(value: f64, is_single: bool) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    #[expect(clippy::cast_possible_truncation, reason = "it was a 32-bit number")]
    let scientific = if is_single { format!("{:e}", value as f32) } else { format!("{value:e}") };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits_max = if is_single { 6 } else { 15 };
    if exponent < -4 || exponent >= digits_max {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    #[expect(clippy::cast_possible_truncation, reason = "it was a 32-bit number")]
    let plain = if is_single { format!("{}", value as f32) } else { format!("{value}") };
    plain
}

/// Days and the time of day of microseconds since 1970.
pub(crate) const fn days_and_time(micros: i64) -> (i64, i64) {
    (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS))
}
