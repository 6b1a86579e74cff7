//! Dates and times as text: ISO 8601, in every output of this program.
//!
//! Years that ISO 8601 does not write with four digits have no such text: there stands the count that results have on the wire, which
//! a parameter takes back.

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, TimeDelta};

/// Years that ISO 8601 writes with four digits.
fn has_iso_form(year: i32) -> bool {
    (1..=9999).contains(&year)
}

/// An instant of microseconds since 1970; with a zone it is UTC.
pub(crate) fn timestamp_text(micros: i64, has_zone: bool) -> String {
    let iso = DateTime::from_timestamp_micros(micros).filter(|instant| has_iso_form(instant.year()));
    iso.map_or_else(
        || micros.to_string(),
        |instant| {
            let zone = if has_zone { "Z" } else { "" };
            format!("{}{zone}", instant.format("%Y-%m-%dT%H:%M:%S%.f"))
        },
    )
}

/// A date of days since 1970.
pub(crate) fn date_text(days: i32) -> String {
    let epoch = NaiveDate::default();
    let date = TimeDelta::try_days(days.into()).and_then(|delta| epoch.checked_add_signed(delta));
    let iso = date.filter(|date| has_iso_form(date.year()));
    iso.map_or_else(|| days.to_string(), |date| date.format("%Y-%m-%d").to_string())
}

/// A time of microseconds since midnight.
pub(crate) fn time_text(micros: i64) -> String {
    let seconds = u32::try_from(micros.div_euclid(1_000_000)).ok();
    let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1_000).ok();
    let time = seconds
        .zip(nanos)
        .and_then(|(seconds, nanos)| NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos));
    time.map_or_else(|| micros.to_string(), |time| time.format("%H:%M:%S%.f").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_a_form_however_far_they_are() {
        assert_eq!(timestamp_text(1_709_251_199_999_999, false), "2024-02-29T23:59:59.999999");
        assert_eq!(timestamp_text(-1_000_000, true), "1969-12-31T23:59:59Z");
        assert_eq!(timestamp_text(i64::MAX, true), i64::MAX.to_string());
        assert_eq!(timestamp_text(i64::MIN, false), i64::MIN.to_string());
        assert_eq!(date_text(-719_162), "0001-01-01");
        assert_eq!(date_text(2_932_896), "9999-12-31");
        assert_eq!(date_text(2_932_897), "2932897");
        assert_eq!(date_text(i32::MIN), i32::MIN.to_string());
        assert_eq!(time_text(86_399_999_999), "23:59:59.999999");
        assert_eq!((time_text(0), time_text(1_500_000)), ("00:00:00".to_owned(), "00:00:01.500".to_owned()));
    }
}
