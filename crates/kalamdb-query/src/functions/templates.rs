//! `to_char`, `to_date` and `to_timestamp` with PostgreSQL's template patterns.

use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;

use super::Function;
use super::times::instant_type;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Patterns, longer ones before those they begin with.
const PATTERNS: [&str; 47] = [
    "HH24", "HH12", "HH", "MI", "SSSS", "SS", "MS", "US", "FF6", "FF3", "FF", "YYYY", "YYY", "YY", "Y,YYY",
    "Y", "IYYY", "IW", "MONTH", "Month", "month", "MON", "Mon", "mon", "MM", "DAY", "Day", "day", "DY", "Dy",
    "dy", "DDD", "DD", "D", "ID", "WW", "W", "CC", "Q", "J", "AM", "PM", "am", "pm", "TZ", "OF", "AD",
];

/// A piece of a template.
enum Piece {
    Pattern { name: &'static str, is_plain: bool, ordinal: bool },
    Text(String),
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut is_plain = false;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            (rest, is_plain) = (behind, true);
            continue;
        }
        if first == '"' {
            let quoted = rest.get(1..).unwrap_or_default();
            let end = quoted.find('"').unwrap_or(quoted.len());
            pieces.push(Piece::Text(quoted.get(..end).unwrap_or_default().to_owned()));
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        let is_here = |name: &&&str| {
            let head = rest.get(..name.len());
            let is_word =
                matches!(name.to_ascii_uppercase().as_str(), "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM");
            head.is_some_and(|head| if is_word { head == **name } else { head.eq_ignore_ascii_case(name) })
        };
        if let Some(name) = PATTERNS.iter().find(is_here) {
            rest = rest.get(name.len()..).unwrap_or_default();
            let ordinal = rest.get(..2).is_some_and(|it| it.eq_ignore_ascii_case("th"));
            if ordinal {
                rest = rest.get(2..).unwrap_or_default();
            }
            pieces.push(Piece::Pattern { name, is_plain, ordinal });
            is_plain = false;
            continue;
        }
        match pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(first),
            _ => pieces.push(Piece::Text(first.to_string())),
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    pieces
}

fn write_time(time: NaiveDateTime, template: &str) -> String {
    let mut text = String::new();
    for piece in pieces(template) {
        match piece {
            Piece::Text(literal) => text.push_str(&literal),
            Piece::Pattern { name, is_plain, ordinal } => {
                let part = part(time, name, is_plain);
                text.push_str(&part);
                if ordinal {
                    let value: u32 = part.trim().parse().unwrap_or_default();
                    text.push_str(match (value % 10, value % 100) {
                        (_, 11..=13) => "th",
                        (1, _) => "st",
                        (2, _) => "nd",
                        (3, _) => "rd",
                        _ => "th",
                    });
                }
            }
        }
    }
    text
}

fn part(time: NaiveDateTime, name: &str, is_plain: bool) -> String {
    let number = |value: i64, width: usize| {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = if is_plain { write!(text, "{value}") } else { write!(text, "{value:0width$}") };
        text
    };
    let padded = |text: String| if is_plain { text } else { format!("{text:<9}") };
    let month = MONTHS.get(time.month0() as usize).copied().unwrap_or_default();
    let day = DAYS.get(time.weekday().num_days_from_sunday() as usize).copied().unwrap_or_default();
    let short = |text: &str| text.get(..3).unwrap_or_default().to_owned();
    let year = i64::from(time.year());
    match name {
        "HH24" => number(time.hour().into(), 2),
        "HH12" | "HH" => number(time.hour12().1.into(), 2),
        "MI" => number(time.minute().into(), 2),
        "SSSS" => number(time.num_seconds_from_midnight().into(), 1),
        "SS" => number(time.second().into(), 2),
        "MS" | "FF3" => number((time.nanosecond() / 1_000_000).into(), 3),
        "US" | "FF6" | "FF" => number((time.nanosecond() / 1000).into(), 6),
        "YYYY" => number(year, 4),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y,YYY" => format!("{},{:03}", year / 1000, year % 1000),
        "Y" => number(year % 10, 1),
        "IYYY" => number(time.iso_week().year().into(), 4),
        "IW" => number(time.iso_week().week().into(), 2),
        "MONTH" => padded(month.to_uppercase()),
        "Month" => padded(month.to_owned()),
        "month" => padded(month.to_lowercase()),
        "MON" => short(month).to_uppercase(),
        "Mon" => short(month),
        "mon" => short(month).to_lowercase(),
        "MM" => number(time.month().into(), 2),
        "DAY" => padded(day.to_uppercase()),
        "Day" => padded(day.to_owned()),
        "day" => padded(day.to_lowercase()),
        "DY" => short(day).to_uppercase(),
        "Dy" => short(day),
        "dy" => short(day).to_lowercase(),
        "DDD" => number(time.ordinal().into(), 3),
        "DD" => number(time.day().into(), 2),
        "D" => number(i64::from(time.weekday().num_days_from_sunday()) + 1, 1),
        "ID" => number(time.weekday().number_from_monday().into(), 1),
        "WW" => number((i64::from(time.ordinal0())) / 7 + 1, 2),
        "W" => number((i64::from(time.day0())) / 7 + 1, 1),
        "CC" => number((year + 99) / 100, 2),
        "Q" => number((i64::from(time.month()) + 2) / 3, 1),
        "J" => number(i64::from(time.date().num_days_from_ce()) + 1_721_425, 1),
        "AM" | "PM" => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        "am" | "pm" => if time.hour() < 12 { "am" } else { "pm" }.to_owned(),
        "OF" => "+00".to_owned(),
        "AD" => "AD".to_owned(),
        _ => "UTC".to_owned(),
    }
}

/// The parts of a time that have been read.
#[derive(Default)]
struct Read {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: Option<u32>,
    minute: u32,
    second: u32,
    micros: u32,
    is_pm: Option<bool>,
}

fn read_time(text: &str, template: &str) -> Result<NaiveDateTime> {
    let mut read = Read::default();
    let mut rest = text.trim_start();
    for piece in pieces(template) {
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
            Piece::Pattern { name, .. } => name,
        };
        rest = rest.trim_start();
        rest = read_part(&mut read, rest, name, template)?;
    }
    let year = read.year.unwrap_or(1);
    let date = match read.day_of_year {
        Some(day) => NaiveDate::from_yo_opt(year, day),
        None => NaiveDate::from_ymd_opt(year, read.month.unwrap_or(1), read.day.unwrap_or(1)),
    };
    let hour = match (read.hour.unwrap_or(0), read.is_pm) {
        (hour, Some(is_pm)) => hour % 12 + if is_pm { 12 } else { 0 },
        (hour, None) => hour,
    };
    let time = date.and_then(|date| date.and_hms_micro_opt(hour, read.minute, read.second, read.micros));
    match time {
        Some(time) => Ok(time),
        None => exec_err!("date/time field value out of range: \"{text}\""),
    }
}

fn read_part<'t>(read: &mut Read, rest: &'t str, name: &str, template: &str) -> Result<&'t str> {
    let word_end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let word = rest.get(..word_end).unwrap_or_default();
    match name.to_ascii_uppercase().as_str() {
        "MONTH" | "MON" => {
            let lower = word.to_lowercase();
            let is_it = |month: &str| lower.len() >= 3 && month.to_lowercase().starts_with(&lower);
            let Some(at) = MONTHS.iter().position(|month| is_it(month)) else {
                return exec_err!("invalid value \"{word}\" for \"{name}\"");
            };
            read.month = u32::try_from(at + 1).ok();
            return Ok(rest.get(word_end..).unwrap_or_default());
        }
        "DAY" | "DY" | "TZ" | "AD" => return Ok(rest.get(word_end..).unwrap_or_default()),
        "AM" | "PM" => {
            read.is_pm = Some(rest.get(..1).is_some_and(|it| it.eq_ignore_ascii_case("p")));
            return Ok(rest.get(2..).unwrap_or_default());
        }
        _ => {}
    }
    let width = match name {
        "YYYY" | "IYYY" => 4,
        "YYY" | "MS" | "FF3" | "DDD" => 3,
        "US" | "FF6" | "FF" => 6,
        "SSSS" | "J" => 7,
        "Y" | "D" | "ID" | "W" | "Q" => 1,
        _ => 2,
    };
    let digits = rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
    let Ok(value) = rest.get(..digits).unwrap_or_default().parse::<u32>() else {
        return exec_err!("invalid value \"{rest}\" for \"{name}\" of \"{template}\"");
    };
    let year = i32::try_from(value).unwrap_or_default();
    match name {
        "YYYY" => read.year = Some(year),
        "YYY" => read.year = Some(if year < 520 { 2000 + year } else { 1000 + year }),
        "YY" => read.year = Some(if year < 70 { 2000 + year } else { 1900 + year }),
        "Y" => read.year = Some(2020 + year),
        "MM" => read.month = Some(value),
        "DD" => read.day = Some(value),
        "DDD" => read.day_of_year = Some(value),
        "HH24" | "HH12" | "HH" => read.hour = Some(value),
        "MI" => read.minute = value,
        "SS" => read.second = value,
        "MS" | "FF3" => read.micros = value * 10_u32.pow(u32::try_from(3 - digits).unwrap_or(0)) * 1000,
        "US" | "FF6" | "FF" => read.micros = value * 10_u32.pow(u32::try_from(6 - digits).unwrap_or(0)),
        other => return plan_err!("the pattern {other} is not supported in reading a time"),
    }
    Ok(rest.get(digits..).unwrap_or_default())
}

/// A number by a template of 9, 0, `.`, `,`, FM, S and MI.
fn write_number(value: &str, template: &str) -> String {
    let upper = template.to_ascii_uppercase();
    let is_plain = upper.starts_with("FM");
    let body: String = upper.trim_start_matches("FM").chars().filter(|c| "90.,DG".contains(*c)).collect();
    let (whole_template, fraction_template) = body.split_once(['.', 'D']).unwrap_or((&body, ""));
    let number = crate::text::parse_numeric(value).ok();
    let scale =
        u8::try_from(fraction_template.chars().filter(|c| matches!(c, '9' | '0')).count()).unwrap_or(0);
    let Some(scaled) = number.and_then(|number| number.at_scale(scale)) else {
        return "#".repeat(body.len());
    };
    let text = scaled.to_string();
    let (is_negative, digits) =
        text.strip_prefix('-').map_or((false, text.as_str()), |digits| (true, digits));
    let padded = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) =
        padded.split_at_checked(padded.len() - usize::from(scale)).unwrap_or((&padded, ""));
    let places = whole_template.chars().filter(|c| matches!(c, '9' | '0')).count();
    let significant = whole.trim_start_matches('0');
    if significant.len() > places {
        return format!(" {}", "#".repeat(body.len()));
    }
    let mut rest: Vec<char> = format!("{significant:0>places$}").chars().collect();
    let mut seen = false;
    let mut out = String::new();
    rest.reverse();
    for slot in whole_template.chars() {
        match slot {
            '9' | '0' => {
                let digit = rest.pop().unwrap_or('0');
                seen |= digit != '0' || slot == '0';
                let is_last = rest.is_empty() && fraction_template.is_empty();
                out.push(if seen || is_last { digit } else { ' ' });
                seen |= is_last;
            }
            _ => out.push(if seen { ',' } else { ' ' }),
        }
    }
    if !fraction_template.is_empty() {
        out.push('.');
        let kept = if is_plain {
            let needed = fraction_template.rfind('0').map_or(0, |at| at + 1);
            let trimmed = fraction.trim_end_matches('0');
            fraction.get(..trimmed.len().max(needed)).unwrap_or(fraction)
        } else {
            fraction
        };
        out.push_str(kept);
    }
    let blanks = out.chars().take_while(|c| *c == ' ').count();
    let sign = if is_negative { "-" } else { " " };
    let signed = format!("{}{sign}{}", " ".repeat(blanks), out.trim_start());
    if is_plain { signed.trim().to_owned() } else { signed }
}

/// The functions by name.
pub(super) fn named() -> Vec<Function> {
    vec![
        Function::to("to_char", DataType::Utf8, evaluate_to_char),
        Function::to("to_date", DataType::Date32, evaluate_to_date),
        Function::to("to_timestamp", instant_type(), evaluate_to_timestamp),
    ]
}

fn evaluate_to_char(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [value, template] = args else { return exec_err!("to_char takes a value and a template") };
    let template = cast(template, &DataType::Utf8)?;
    let template = template.as_string::<i32>();
    let is_time = matches!(value.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    let mut texts: Vec<Option<String>> = Vec::with_capacity(value.len());
    if is_time {
        let zone = match value.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let times = cast(value, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        for row in 0..times.len() {
            let is_null = times.is_null(row) || template.is_null(row);
            let time = if is_null { None } else { DateTime::from_timestamp_micros(times.value(row)) };
            texts.push(time.map(|time| write_time(time.naive_utc(), template.value(row))));
        }
    } else {
        let numbers = super::casts::written(value)?;
        let numbers = numbers.as_string::<i32>();
        for row in 0..numbers.len() {
            let is_null = numbers.is_null(row) || template.is_null(row);
            texts.push((!is_null).then(|| write_number(numbers.value(row), template.value(row))));
        }
    }
    Ok(Arc::new(StringArray::from(texts)))
}

fn read_times(args: &[ArrayRef]) -> Result<TimestampMicrosecondArray> {
    let [text, template] = args else { return exec_err!("it takes a text and a template") };
    let (text, template) = (cast(text, &DataType::Utf8)?, cast(template, &DataType::Utf8)?);
    let pairs = text.as_string::<i32>().iter().zip(template.as_string::<i32>().iter());
    pairs
        .map(|(text, template)| match (text, template) {
            (Some(text), Some(template)) => Ok(Some(read_time(text, template)?.and_utc().timestamp_micros())),
            _ => Ok(None),
        })
        .collect()
}

fn evaluate_to_date(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let dates: Date32Array = match args {
        [_] => {
            return Ok(cast(
                args.first()
                    .unwrap_or(&(Arc::new(StringArray::from(Vec::<Option<String>>::new())) as ArrayRef)),
                &DataType::Date32,
            )?);
        }
        _ => read_times(args)?
            .iter()
            .map(|micros| micros.and_then(|micros| i32::try_from(crate::text::days_and_time(micros).0).ok()))
            .collect(),
    };
    Ok(Arc::new(dates))
}

fn evaluate_to_timestamp(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    match args {
        // Seconds since 1970.
        [seconds] if seconds.data_type().is_numeric() => {
            let seconds = cast(seconds, &DataType::Float64)?;
            let seconds = seconds.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
            #[expect(clippy::cast_possible_truncation, reason = "the range is looked at")]
            let micros = seconds.iter().map(|seconds| match seconds {
                None => Ok(None),
                Some(seconds) if seconds.abs() < 9.2e12 => Ok(Some((seconds * 1e6).round() as i64)),
                Some(_) => exec_err!("timestamp out of range"),
            });
            Ok(Arc::new(micros.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("+00:00")))
        }
        [text] => {
            let text = cast(text, &DataType::Utf8)?;
            let micros = text.as_string::<i32>().iter().map(|text| match text {
                None => Ok(None),
                Some(text) => match crate::text::parse_timestamp(text, true) {
                    Ok(micros) => Ok(Some(micros)),
                    Err(error) => exec_err!("{error}"),
                },
            });
            Ok(Arc::new(micros.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("+00:00")))
        }
        _ => Ok(Arc::new(read_times(args)?.with_timezone("+00:00"))),
    }
}
