//! Times and intervals written by a template.

use chrono::{Datelike, NaiveDateTime, Timelike};
use datafusion::common::exec_err;
use datafusion::error::Result;

use super::pieces::{Letters, Pattern, Piece, ordinal_suffix};
use crate::text::{Interval, MONTHS};

/// Names of the days of a week.
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Numbers of the months in Roman numerals.
const ROMAN_MONTHS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// A time or an interval in parts.
pub(super) struct Parts {
    /// The year of a time, 0 being the year before 1; the years of an interval.
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// The time, unless it is an interval.
    time: Option<NaiveDateTime>,
    has_zone: bool,
}

impl Parts {
    /// The parts of a time; `has_zone` where it is an instant.
    pub(super) fn of_time(time: NaiveDateTime, has_zone: bool) -> Self {
        Self {
            year: time.year().into(),
            month: time.month().into(),
            day: time.day().into(),
            day_of_year: time.ordinal().into(),
            hour: time.hour().into(),
            minute: time.minute().into(),
            second: time.second().into(),
            micros: (time.nanosecond() / 1000).into(),
            time: Some(time),
            has_zone,
        }
    }

    /// The parts of an interval.
    pub(super) fn of_interval(span: Interval) -> Self {
        let seconds = span.micros / 1_000_000;
        Self {
            year: (span.months / 12).into(),
            month: (span.months % 12).into(),
            day: span.days.into(),
            day_of_year: i64::from(span.months) * 30 + i64::from(span.days),
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: span.micros % 1_000_000,
            time: None,
            has_zone: false,
        }
    }

    /// The year as it is written: years before 1 count backwards.
    const fn written_year(&self, year: i64) -> i64 {
        if self.time.is_some() && year <= 0 { 1 - year } else { year }
    }

    /// The text of a pattern.
    fn part(&self, pattern: Pattern) -> Result<String> {
        if let Some(number) = self.number(pattern)? {
            let suffix = pattern.ordinal.map_or("", |letters| ordinal_suffix(&number, letters));
            return Ok(number + suffix);
        }
        self.word(pattern)
    }

    /// A part that is a number; none where it is a word.
    fn number(&self, pattern: Pattern) -> Result<Option<String>> {
        let padded = |value: i64, digits: usize| {
            let digits = if pattern.is_plain { 0 } else { digits + usize::from(value < 0) };
            Some(format!("{value:0digits$}"))
        };
        let half_hour = if self.hour % 12 == 0 { 12 } else { self.hour % 12 };
        Ok(match pattern.name {
            "HH" | "HH12" => padded(half_hour, 2),
            "HH24" => padded(self.hour, 2),
            "MI" => padded(self.minute, 2),
            "SS" => padded(self.second, 2),
            "FF1" => Some(format!("{:01}", self.micros / 100_000)),
            "FF2" => Some(format!("{:02}", self.micros / 10_000)),
            "MS" | "FF3" => Some(format!("{:03}", self.micros / 1000)),
            "FF4" => Some(format!("{:04}", self.micros / 100)),
            "FF5" => Some(format!("{:05}", self.micros / 10)),
            "US" | "FF6" => Some(format!("{:06}", self.micros)),
            "SSSS" | "SSSSS" => Some((self.hour * 3600 + self.minute * 60 + self.second).to_string()),
            "MM" => padded(self.month, 2),
            "DDD" if pattern.is_plain => Some(self.day_of_year.to_string()),
            "DDD" => Some(format!("{:03}", self.day_of_year)),
            "DD" => padded(self.day, 2),
            "WW" => padded((self.day_of_year - 1) / 7 + 1, 2),
            "W" => Some(((self.day - 1) / 7 + 1).to_string()),
            "Q" if self.month == 0 => Some(String::new()),
            "Q" => Some(((self.month - 1) / 3 + 1).to_string()),
            "CC" => {
                let century = match (&self.time, self.year) {
                    (None, year) => year / 100,
                    (_, year @ 1..) => (year - 1) / 100 + 1,
                    (_, year) => year / 100 - 1,
                };
                if century.abs() <= 99 { padded(century, 2) } else { Some(century.to_string()) }
            }
            "Y,YYY" => {
                let year = self.written_year(self.year);
                Some(format!("{},{:03}", year / 1000, year % 1000))
            }
            "YYYY" => padded(self.written_year(self.year), 4),
            "YYY" => padded(self.written_year(self.year) % 1000, 3),
            "YY" => padded(self.written_year(self.year) % 100, 2),
            "Y" => Some((self.written_year(self.year) % 10).to_string()),
            "IYYY" => padded(self.iso_year()?, 4),
            "IYY" => padded(self.iso_year()? % 1000, 3),
            "IY" => padded(self.iso_year()? % 100, 2),
            "I" => Some((self.iso_year()? % 10).to_string()),
            "D" | "ID" | "IW" | "IDDD" | "J" => {
                let time = self.calendar()?;
                let week = i64::from(time.iso_week().week());
                let weekday = i64::from(time.weekday().number_from_monday());
                match pattern.name {
                    "D" => Some((weekday % 7 + 1).to_string()),
                    "ID" => Some(weekday.to_string()),
                    "IW" => padded(week, 2),
                    "IDDD" => padded((week - 1) * 7 + weekday, 3),
                    _ => Some((i64::from(time.date().num_days_from_ce()) + 1_721_425).to_string()),
                }
            }
            _ => None,
        })
    }

    /// The year that the ISO week belongs to.
    fn iso_year(&self) -> Result<i64> {
        Ok(self.written_year(self.calendar()?.iso_week().year().into()))
    }

    /// The time; an error of an interval, which has no place in the calendar.
    fn calendar(&self) -> Result<NaiveDateTime> {
        match self.time {
            Some(time) => Ok(time),
            None => exec_err!("invalid format specification for an interval value"),
        }
    }

    /// A part that is a word.
    fn word(&self, pattern: Pattern) -> Result<String> {
        let name = pattern.name;
        let cased = |word: &str| match pattern.letters {
            Letters::Upper => word.to_uppercase(),
            Letters::Lower => word.to_lowercase(),
            Letters::Capitalized => word.to_owned(),
        };
        let padded = |word: &str, length: usize| {
            if pattern.is_plain { cased(word) } else { format!("{:length$}", cased(word)) }
        };
        let short = |word: &str| cased(word.get(..3).unwrap_or(word));
        let month = |time: NaiveDateTime| MONTHS.get(time.month0() as usize).copied().unwrap_or_default();
        let day = |time: NaiveDateTime| {
            DAYS.get(time.weekday().num_days_from_sunday() as usize).copied().unwrap_or_default()
        };
        Ok(match name {
            "A.M." | "P.M." => cased(if self.hour % 24 >= 12 { "P.M." } else { "A.M." }),
            "AM" | "PM" => cased(if self.hour % 24 >= 12 { "PM" } else { "AM" }),
            "RM" => match self.roman_month() {
                Some(month) => padded(month, 4),
                None => String::new(),
            },
            _ => {
                let time = self.calendar()?;
                match name {
                    "A.D." | "B.C." => cased(if self.year <= 0 { "B.C." } else { "A.D." }),
                    "AD" | "BC" => cased(if self.year <= 0 { "BC" } else { "AD" }),
                    "MONTH" => padded(month(time), 9),
                    "MON" => short(month(time)),
                    "DAY" => padded(day(time), 9),
                    "DY" => short(day(time)),
                    "TZ" if self.has_zone => cased("UTC"),
                    "TZ" => String::new(),
                    "TZM" => "00".to_owned(),
                    "OF" if pattern.is_plain => "+0".to_owned(),
                    _ => "+00".to_owned(),
                }
            }
        })
    }

    /// The month in Roman numerals; none of an interval without months.
    fn roman_month(&self) -> Option<&'static str> {
        let at = match (self.month, self.year) {
            (0, 0) => return None,
            (0, 1..) => 11,
            (0, _) => 0,
            (month @ ..0, _) => 12 + month,
            (month, _) => month - 1,
        };
        ROMAN_MONTHS.get(usize::try_from(at).ok()?).copied()
    }
}

/// Writes a time or an interval.
pub(super) fn write(parts: &Parts, template: &[Piece]) -> Result<String> {
    let mut text = String::new();
    for piece in template {
        match piece {
            Piece::Text(literal) => text.push_str(literal),
            Piece::Pattern(pattern) => text.push_str(&parts.part(*pattern)?),
        }
    }
    Ok(text)
}
