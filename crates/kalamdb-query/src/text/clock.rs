//! Dates, times of day, times and zones in text.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::{DAY_MICROS, MONTHS, Malformed};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// The parts of a time's text.
#[derive(Default)]
struct Parts {
    date: Option<NaiveDate>,
    /// Microseconds since midnight.
    time: Option<i64>,
    zone: Option<Zone>,
}

/// A zone of time.
#[derive(Clone, Copy, Debug)]
pub enum Zone {
    /// So many seconds east of Greenwich.
    Fixed(i32),
    /// One of the zones of the world, with its changes.
    Named(Tz),
}

/// The first day of PostgreSQL's calendar, 4714-11-24 BC, in days since 1970.
const FIRST_DAY: i64 = -2_440_588;

/// Whether a number of days since 1970 is a date: one that PostgreSQL's calendar and ours have.
pub(crate) fn is_date(days: i64) -> bool {
    days >= FIRST_DAY && i32::try_from(days).is_ok_and(|days| NaiveDate::from_epoch_days(days).is_some())
}

/// Whether a number of microseconds since 1970 is a time: one that PostgreSQL's calendar and ours have.
pub(crate) fn is_timestamp(micros: i64) -> bool {
    is_date(micros.div_euclid(DAY_MICROS))
}

/// The days since 1970 of a date in text; a time behind it is left out.
pub fn parse_date(text: &str) -> Result<i32, Malformed> {
    let parts = parse(text).ok_or_else(|| Malformed::new("DATE", text))?;
    let date = parts.date.ok_or_else(|| Malformed::new("DATE", text))?;
    let days = date.to_epoch_days();
    if !is_date(days.into()) {
        return Err(Malformed::new("DATE", text).because("it is out of range"));
    }
    Ok(days)
}

/// The microseconds since midnight of a time of day in text.
pub fn parse_time(text: &str) -> Result<i64, Malformed> {
    parse(text).and_then(|parts| parts.time).ok_or_else(|| Malformed::new("TIME", text))
}

/// The microseconds since 1970 of a time in text. A zone in it counts for an instant, and is passed over otherwise.
pub fn parse_timestamp(text: &str, is_instant: bool) -> Result<i64, Malformed> {
    let sql_type = if is_instant { "TIMESTAMPTZ" } else { "TIMESTAMP" };
    let wrong = || Malformed::new(sql_type, text);
    let parts = parse(text).ok_or_else(wrong)?;
    let date = parts.date.ok_or_else(wrong)?;
    let local = i64::from(date.to_epoch_days())
        .checked_mul(DAY_MICROS)
        .and_then(|micros| micros.checked_add(parts.time.unwrap_or(0)))
        .filter(|micros| is_timestamp(*micros))
        .ok_or_else(|| wrong().because("it is out of range"))?;
    match parts.zone.filter(|_| is_instant) {
        Some(zone) => instant_of_local(local, zone)
            .filter(|micros| is_timestamp(*micros))
            .ok_or_else(|| wrong().because("it is out of range")),
        None => Ok(local),
    }
}

/// Zones by their names in lower case.
static ZONES: LazyLock<HashMap<String, Tz>> = LazyLock::new(|| {
    chrono_tz::TZ_VARIANTS.iter().map(|zone| (zone.name().to_ascii_lowercase(), *zone)).collect()
});

/// A zone by its name, abbreviation or offset.
pub fn parse_zone(text: &str) -> Option<Zone> {
    let trimmed = text.trim();
    let lower = trimmed.to_ascii_lowercase();
    match lower.as_str() {
        "z" | "zulu" | "utc" | "gmt" | "ut" => return Some(Zone::Fixed(0)),
        "est" => return Some(Zone::Fixed(-5 * 3600)),
        "edt" | "cst" => {
            return Some(Zone::Fixed(if trimmed.eq_ignore_ascii_case("edt") { -4 } else { -6 } * 3600));
        }
        "cdt" | "mst" => {
            return Some(Zone::Fixed(if trimmed.eq_ignore_ascii_case("cdt") { -5 } else { -7 } * 3600));
        }
        "mdt" | "pst" => {
            return Some(Zone::Fixed(if trimmed.eq_ignore_ascii_case("mdt") { -6 } else { -8 } * 3600));
        }
        "pdt" => return Some(Zone::Fixed(-7 * 3600)),
        "cet" | "bst" => return Some(Zone::Fixed(3600)),
        "cest" | "eet" => return Some(Zone::Fixed(7200)),
        _ => {}
    }
    if let Some(offset) = offset(trimmed) {
        return Some(Zone::Fixed(offset));
    }
    ZONES.get(&lower).copied().map(Zone::Named)
}

/// `+hh[[:]mm[[:]ss]]` in seconds.
fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let part = |text: &str| text.parse::<i32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (hours, minutes, seconds) = if digits.contains(':') {
        let mut parts = digits.split(':');
        let all = (parts.next()?, parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
        (part(all.0)?, part(all.1)?, part(all.2)?)
    } else {
        match digits.len() {
            1 | 2 => (part(digits)?, 0, 0),
            3 => (part(digits.get(..1)?)?, part(digits.get(1..)?)?, 0),
            4 => (part(digits.get(..2)?)?, part(digits.get(2..)?)?, 0),
            6 => (part(digits.get(..2)?)?, part(digits.get(2..4)?)?, part(digits.get(4..)?)?),
            _ => return None,
        }
    };
    ((0..=15).contains(&hours) && minutes < 60 && seconds < 60)
        .then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

/// The instant of a local time. One that a zone skips is read with the zone's time before the change, one that it has twice
/// is the later, standard one, as in PostgreSQL.
pub fn instant_of_local(local: i64, zone: Zone) -> Option<i64> {
    match zone {
        Zone::Fixed(offset) => local.checked_sub(i64::from(offset) * SECOND),
        Zone::Named(zone) => {
            let time = chrono::DateTime::from_timestamp_micros(local)?.naive_utc();
            let offset = match zone.offset_from_local_datetime(&time) {
                MappedLocalTime::Single(offset) => offset.fix(),
                MappedLocalTime::Ambiguous(first, second) => {
                    let (first, second) = (first.fix(), second.fix());
                    if first.local_minus_utc() < second.local_minus_utc() { first } else { second }
                }
                MappedLocalTime::None => {
                    let before = time.checked_sub_signed(TimeDelta::hours(12))?;
                    zone.offset_from_local_datetime(&before).earliest()?.fix()
                }
            };
            local.checked_sub(i64::from(offset.local_minus_utc()) * SECOND)
        }
    }
}

/// The local time of an instant.
pub fn local_of_instant(instant: i64, zone: Zone) -> Option<i64> {
    let offset = match zone {
        Zone::Fixed(offset) => offset,
        Zone::Named(zone) => {
            let time: NaiveDateTime = chrono::DateTime::from_timestamp_micros(instant)?.naive_utc();
            zone.offset_from_utc_datetime(&time).fix().local_minus_utc()
        }
    };
    instant.checked_add(i64::from(offset) * SECOND)
}

/// The parts of a time's text.
fn parse(text: &str) -> Option<Parts> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("epoch") {
        return Some(Parts {
            date: NaiveDate::from_ymd_opt(1970, 1, 1),
            time: Some(0),
            zone: Some(Zone::Fixed(0)),
        });
    }
    let (text, is_bc) = match text.get(text.len().checked_sub(2)?..) {
        Some(era) if era.eq_ignore_ascii_case("bc") => (text.get(..text.len() - 2)?.trim_end(), true),
        Some(era) if era.eq_ignore_ascii_case("ad") => (text.get(..text.len() - 2)?.trim_end(), false),
        _ => (text, false),
    };
    let mut parts = Parts::default();
    let mut rest = text;
    let mut words: Vec<&str> = Vec::new();
    // The `T` between a date and a time is a blank.
    let has_t = text.find(['T', 't']).filter(|at| {
        let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        *at > 0 && is_digit(*at - 1) && is_digit(*at + 1)
    });
    let split;
    if let Some(at) = has_t {
        split = format!("{} {}", text.get(..at)?, text.get(at + 1..)?);
        rest = &split;
    }
    words.extend(rest.split([' ', ',']).filter(|word| !word.is_empty()));
    let mut dated: Vec<&str> = Vec::new();
    for word in words {
        if word.contains(':') && parts.time.is_none() {
            let (time, zone) = time_and_zone(word)?;
            (parts.time, parts.zone) = (Some(time), zone.or(parts.zone));
        } else if parts.time.is_some() && matches!(word.to_ascii_lowercase().as_str(), "am" | "pm") {
            parts.time = Some(half_day(parts.time?, word.eq_ignore_ascii_case("pm"))?);
        } else if parts.time.is_some() && parts.zone.is_none() && (!dated.is_empty() || parts.date.is_some())
        {
            parts.zone = Some(parse_zone(word)?);
        } else if is_weekday(word) {
        } else if parts.date.is_none() && dated.is_empty() && is_whole_date(word) {
            parts.date = Some(date(word)?);
        } else if parts.date.is_some()
            && parts.time.is_none()
            && word.len() == 6
            && word.bytes().all(|b| b.is_ascii_digit())
        {
            let number = |range: std::ops::Range<usize>| word.get(range)?.parse::<i64>().ok();
            parts.time = Some(clock(number(0..2)?, number(2..4)?, number(4..6)? * SECOND)?);
        } else {
            dated.push(word);
        }
    }
    if !dated.is_empty() {
        if parts.date.is_some() {
            // A zone may follow a date alone.
            let [zone] = dated.as_slice() else { return None };
            parts.zone = Some(parse_zone(zone)?);
        } else {
            parts.date = Some(named_date(&dated)?);
        }
    }
    if is_bc {
        let date = parts.date?;
        parts.date = Some(date.with_year(1 - date.year())?);
    }
    (parts.date.is_some() || parts.time.is_some()).then_some(parts)
}

/// Whether a word names a day of the week, which is ignored.
fn is_weekday(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].iter().any(|day| lower.starts_with(day))
}

/// Whether a word is a date of digits.
fn is_whole_date(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let separators = word.bytes().filter(|byte| matches!(byte, b'-' | b'/' | b'.')).count();
    digits + separators == word.len() && (separators == 2 || separators == 0 && word.len() == 8)
}

/// A date of digits.
fn date(word: &str) -> Option<NaiveDate> {
    if word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit()) {
        let part = |range: std::ops::Range<usize>| word.get(range)?.parse::<u32>().ok();
        return NaiveDate::from_ymd_opt(i32::try_from(part(0..4)?).ok()?, part(4..6)?, part(6..8)?);
    }
    let parts: Vec<&str> = word.split(['-', '/', '.']).collect();
    let [first, second, third] = parts.as_slice() else { return None };
    let number = |text: &str| text.parse::<u32>().ok();
    // A year of three digits or more stands first; else the order is month, day, year.
    let (year, month, day) = if first.len() > 2 {
        (number(first)?, number(second)?, number(third)?)
    } else {
        (full_year(third)?, number(first)?, number(second)?)
    };
    if year == 0 {
        return None;
    }
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
}

/// A year; one of two digits is near 2000.
fn full_year(text: &str) -> Option<u32> {
    let year: u32 = text.parse().ok()?;
    Some(match (text.len(), year) {
        (..=2, ..70) => 2000 + year,
        (..=2, _) => 1900 + year,
        _ => year,
    })
}

/// A date with its month by name: `8 Jan 1999`, `January 8 1999`, `1999-Jan-08`.
fn named_date(words: &[&str]) -> Option<NaiveDate> {
    let all: Vec<&str> =
        words.iter().flat_map(|word| word.split('-')).filter(|word| !word.is_empty()).collect();
    let [first, second, third] = all.as_slice() else { return None };
    let (month, one, two) = match (month(first), month(second)) {
        (Some(month), _) => (month, *second, *third),
        (None, Some(month)) => (month, *first, *third),
        _ => return None,
    };
    let (day, year) = if one.len() > 2 { (two, one) } else { (one, two) };
    let year = i32::try_from(full_year(year)?).ok()?;
    NaiveDate::from_ymd_opt(year, month, day.parse().ok()?)
}

/// The number of a month, by its name or the beginning of it.
fn month(word: &str) -> Option<u32> {
    let is_beginning =
        |name: &str| name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let is_name = |name: &str| {
        word.len() >= 3 && is_beginning(name) || word.eq_ignore_ascii_case("sept") && name == "September"
    };
    let at = MONTHS.iter().position(|name| is_name(name))?;
    u32::try_from(at + 1).ok()
}

/// A time of day, perhaps with a zone.
fn time_and_zone(word: &str) -> Option<(i64, Option<Zone>)> {
    let lower = word.to_ascii_lowercase();
    let (clock_text, half) = match lower
        .strip_suffix("am")
        .map(|it| (it, false))
        .or(lower.strip_suffix("pm").map(|it| (it, true)))
    {
        Some((before, is_pm)) => (before, Some(is_pm)),
        None => (lower.as_str(), None),
    };
    let end = clock_text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.')))
        .unwrap_or(clock_text.len());
    let (time, zone) = clock_text.split_at_checked(end)?;
    let zone = if zone.is_empty() { None } else { Some(parse_zone(zone)?) };
    let mut parts = time.split(':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let micros = parts.next().map_or(Some(0), seconds)?;
    if parts.next().is_some() {
        return None;
    }
    let time = clock(hours, minutes, micros)?;
    Some((half.map_or(Some(time), |is_pm| half_day(time, is_pm))?, zone))
}

/// Seconds with a fraction in microseconds, rounded.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seven: String = fraction.chars().chain(std::iter::repeat('0')).take(7).collect();
    whole.checked_mul(SECOND)?.checked_add((seven.parse::<i64>().ok()? + 5) / 10)
}

/// The microseconds since midnight of a time of day in parts.
fn clock(hours: i64, minutes: i64, micros: i64) -> Option<i64> {
    let is_valid = (0..=24).contains(&hours)
        && (0..60).contains(&minutes)
        && (0..61 * SECOND).contains(&micros)
        && (hours < 24 || minutes == 0 && micros == 0);
    // A leap second may lead to midnight and not beyond.
    is_valid.then_some((hours * 60 + minutes) * 60 * SECOND + micros).filter(|time| *time <= DAY_MICROS)
}

/// A time of day of the 12-hour clock.
fn half_day(time: i64, is_pm: bool) -> Option<i64> {
    const HALF: i64 = DAY_MICROS / 2;
    if time >= HALF + 3600 * SECOND {
        return None;
    }
    Some(time % HALF + if is_pm { HALF } else { 0 })
}
