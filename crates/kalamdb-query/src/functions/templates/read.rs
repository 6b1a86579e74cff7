//! Times read by a template.

use chrono::{NaiveDate, NaiveDateTime};
use datafusion::common::exec_err;
use datafusion::error::Result;

use super::pieces::Piece;
use crate::text::MONTHS;

/// The parts of a time that have been read.
#[derive(Default)]
struct Read {
    is_before_christ: bool,
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: Option<u32>,
    minute: u32,
    second: u32,
    micros: u32,
    is_pm: Option<bool>,
    /// Whether the hour is one of twelve.
    is_half_day: bool,
}

/// Reads a time.
pub(super) fn read_time(text: &str, template: &[Piece]) -> Result<NaiveDateTime> {
    let mut read = Read::default();
    let mut rest = text.trim_start();
    for (at, piece) in template.iter().enumerate() {
        // Patterns behind the end of the text keep their defaults.
        if rest.is_empty() {
            break;
        }
        let name = match piece {
            Piece::Text(literal) => {
                for expected in literal.chars() {
                    let next = rest.chars().next();
                    // Any separator stands for any other.
                    let matches = next.is_some_and(|next| {
                        next == expected || !next.is_alphanumeric() && !expected.is_alphanumeric()
                    });
                    if matches {
                        rest = rest.get(next.map_or(0, char::len_utf8)..).unwrap_or_default();
                    }
                }
                continue;
            }
            Piece::Pattern(pattern) => pattern.name,
        };
        rest = rest.trim_start();
        let is_open = match template.get(at + 1) {
            Some(Piece::Pattern(next)) => is_word(next.name),
            _ => true,
        };
        rest = read_part(&mut read, rest, name, is_open)?;
    }
    let year = read.year.unwrap_or(0);
    let year = if read.is_before_christ { 1 - year } else { year };
    let date = match read.day_of_year {
        Some(day) => NaiveDate::from_yo_opt(year, day),
        None => NaiveDate::from_ymd_opt(year, read.month.unwrap_or(1), read.day.unwrap_or(1)),
    };
    let hour = match read.hour {
        Some(hour) if (read.is_half_day || read.is_pm.is_some()) && !(1..=12).contains(&hour) => {
            return exec_err!("hour \"{hour}\" is invalid for the 12-hour clock");
        }
        Some(hour) if read.is_half_day || read.is_pm.is_some() => {
            hour % 12 + if read.is_pm == Some(true) { 12 } else { 0 }
        }
        hour => hour.unwrap_or(0),
    };
    let time = date.and_then(|date| date.and_hms_micro_opt(hour, read.minute, read.second, read.micros));
    match time {
        Some(time) => Ok(time),
        None => exec_err!("date/time field value out of range: \"{text}\""),
    }
}

/// Whether a pattern is a word and not a number.
fn is_word(name: &str) -> bool {
    matches!(
        name,
        "MONTH"
            | "MON"
            | "DAY"
            | "DY"
            | "AM"
            | "PM"
            | "A.M."
            | "P.M."
            | "AD"
            | "BC"
            | "A.D."
            | "B.C."
            | "TZ"
            | "OF"
            | "RM"
    )
}

/// A year of fewer than four digits, near 2020.
const fn whole_year(year: i32) -> i32 {
    match year {
        70..100 => year + 1900,
        ..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

/// Reads a part; one that is open takes all digits that follow.
fn read_part<'t>(read: &mut Read, rest: &'t str, name: &str, is_open: bool) -> Result<&'t str> {
    let word_end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let word = rest.get(..word_end).unwrap_or_default();
    match name {
        "MONTH" | "MON" => {
            let is_it = |month: &str| {
                word.len() >= 3 && month.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
            };
            let Some(at) = MONTHS.iter().position(|month| is_it(month)) else {
                return exec_err!("invalid value \"{word}\" for \"{name}\"");
            };
            read.month = u32::try_from(at + 1).ok();
            return Ok(rest.get(word_end..).unwrap_or_default());
        }
        "AD" | "BC" => {
            read.is_before_christ = word.eq_ignore_ascii_case("bc");
            return Ok(rest.get(word_end..).unwrap_or_default());
        }
        "DAY" | "DY" | "TZ" => return Ok(rest.get(word_end..).unwrap_or_default()),
        "AM" | "PM" | "A.M." | "P.M." => {
            let half = rest.get(..name.len()).unwrap_or_default().to_ascii_lowercase();
            read.is_pm = Some(match half.as_str() {
                "am" | "a.m." => false,
                "pm" | "p.m." => true,
                _ => return exec_err!("invalid value \"{rest}\" for \"{name}\""),
            });
            return Ok(rest.get(name.len()..).unwrap_or_default());
        }
        _ => {}
    }
    let width = match name {
        "MS" | "FF3" => 3,
        "US" | "FF6" => 6,
        _ if is_open => 9,
        "YYYY" | "IYYY" => 4,
        "YYY" | "DDD" => 3,
        "SSSS" | "SSSSS" | "J" => 7,
        "Y" | "D" | "ID" | "W" | "Q" => 1,
        _ => 2,
    };
    let digits = rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
    let Ok(value) = rest.get(..digits).unwrap_or_default().parse::<u32>() else {
        return exec_err!("invalid value \"{rest}\" for \"{name}\"");
    };
    let year = i32::try_from(value).unwrap_or_default();
    match name {
        "YYYY" => read.year = Some(year),
        "YYY" | "YY" | "Y" => read.year = Some(if digits < 4 { whole_year(year) } else { year }),
        "MM" => read.month = Some(value),
        "DD" => read.day = Some(value),
        "DDD" => read.day_of_year = Some(value),
        "HH24" => read.hour = Some(value),
        "HH12" | "HH" => (read.hour, read.is_half_day) = (Some(value), true),
        "MI" => read.minute = value,
        "SS" => read.second = value,
        "MS" | "FF3" => read.micros = value * 10_u32.pow(u32::try_from(3 - digits).unwrap_or(0)) * 1000,
        "US" | "FF6" => read.micros = value * 10_u32.pow(u32::try_from(6 - digits).unwrap_or(0)),
        other => return exec_err!("the pattern {other} is not supported in reading a time"),
    }
    Ok(rest.get(digits..).unwrap_or_default())
}
