//! Spans of time in text: PostgreSQL's words, its clock notation, and ISO 8601.

use super::Malformed;

/// A span of time in PostgreSQL's three parts, none of which is turned into another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Months; twelve of them a year.
    pub months: i32,
    /// Days, of whatever length.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// Microseconds of a second.
const SECOND: f64 = 1e6;
/// Seconds of a day.
const DAY_SECONDS: f64 = 86_400.0;

/// Parts of a span as they are added up.
#[derive(Default)]
struct Sum {
    months: f64,
    days: f64,
    micros: f64,
}

impl Sum {
    /// Adds a quantity of a unit; what is no whole month or day goes on as days and time, a month having 30 days.
    fn add(&mut self, quantity: f64, unit: Unit) {
        match unit {
            Unit::Months(of) => {
                let months = quantity * of;
                self.months += months.trunc();
                // A fraction of a year is whole months.
                if of > 1.0 {
                    self.months = self.months.trunc() + months.fract().round().trunc();
                } else {
                    self.add(months.fract() * 30.0, Unit::Days(1.0));
                }
            }
            Unit::Days(of) => {
                let days = quantity * of;
                self.days += days.trunc();
                self.micros += (days.fract() * DAY_SECONDS * SECOND).round();
            }
            Unit::Micros(of) => self.micros += (quantity * of).round(),
        }
    }

    /// The interval of the sum; none where it does not fit.
    #[expect(clippy::cast_possible_truncation, reason = "bounds are looked at before")]
    fn finish(&self) -> Option<Interval> {
        let fits = |value: f64, bound: f64| value.abs() <= bound;
        let is_valid = fits(self.months, f64::from(i32::MAX))
            && fits(self.days, f64::from(i32::MAX))
            && fits(self.micros, 9.2e15);
        is_valid.then_some(Interval {
            months: self.months as i32,
            days: self.days as i32,
            micros: self.micros as i64,
        })
    }
}

/// A unit, by its number of months, days or microseconds.
#[derive(Clone, Copy)]
enum Unit {
    Months(f64),
    Days(f64),
    Micros(f64),
}

/// The unit that a word names.
fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" => {
            Unit::Micros(1.0)
        }
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" => {
            Unit::Micros(1e3)
        }
        "second" | "seconds" | "s" | "sec" | "secs" => Unit::Micros(SECOND),
        "minute" | "minutes" | "m" | "min" | "mins" => Unit::Micros(60.0 * SECOND),
        "hour" | "hours" | "h" | "hr" | "hrs" => Unit::Micros(3600.0 * SECOND),
        "day" | "days" | "d" => Unit::Days(1.0),
        "week" | "weeks" | "w" => Unit::Days(7.0),
        "month" | "months" | "mon" | "mons" => Unit::Months(1.0),
        "year" | "years" | "y" | "yr" | "yrs" => Unit::Months(12.0),
        "decade" | "decades" | "dec" | "decs" => Unit::Months(120.0),
        "century" | "centuries" | "c" | "cent" => Unit::Months(1200.0),
        "millennium" | "millennia" | "mil" | "mils" => Unit::Months(12_000.0),
        _ => return None,
    })
}

/// The fields that a literal names after its text: `HOUR TO SECOND`. Less significant parts than the last one are cut off.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'f> {
    /// The first field, in lower case.
    pub first: &'f str,
    /// The field after TO, in lower case.
    pub last: Option<&'f str>,
}

impl Fields<'_> {
    /// The least significant field: the unit of a number that names none.
    fn least(&self) -> &str {
        self.last.unwrap_or(self.first)
    }

    /// Whether SQL has these two fields together.
    fn is_valid(&self) -> bool {
        let Some(last) = self.last else { return true };
        matches!(
            (self.first, last),
            ("year", "month")
                | ("day", "hour" | "minute" | "second")
                | ("hour", "minute" | "second")
                | ("minute", "second")
        )
    }

    /// An interval without the parts that are less significant than the last field.
    fn cut(&self, span: Interval) -> Interval {
        let to = |unit: i64| Interval { micros: span.micros - span.micros % unit, ..span };
        match self.least() {
            "year" => Interval { months: span.months - span.months % 12, days: 0, micros: 0 },
            "month" => Interval { days: 0, micros: 0, ..span },
            "day" => Interval { micros: 0, ..span },
            "hour" => to(3_600_000_000),
            "minute" => to(60_000_000),
            _ => span,
        }
    }
}

/// The span that text writes. A number without a unit is one of the last of `fields`, or of seconds.
pub fn parse_interval(text: &str, fields: Option<Fields<'_>>) -> Result<Interval, Malformed> {
    let wrong = || Malformed::new("INTERVAL", text);
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(wrong());
    }
    let sum = match trimmed.strip_prefix(['P', 'p']) {
        Some(rest)
            if rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, 'T' | 't' | '-' | '+' | '.')) =>
        {
            iso(rest)
        }
        _ => words(trimmed, fields),
    };
    let span = sum.and_then(|sum| sum.finish()).ok_or_else(wrong)?;
    match fields {
        Some(fields) if fields.is_valid() => Ok(fields.cut(span)),
        Some(_) => Err(wrong().because("its fields do not go together")),
        None => Ok(span),
    }
}

/// The sum of an ISO 8601 text, after its `P`.
fn iso(text: &str) -> Option<Sum> {
    let (mut sum, mut rest, mut in_time, mut any) = (Sum::default(), text, false, false);
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(['T', 't']) {
            (rest, in_time) = (behind, true);
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, behind) = rest.split_at_checked(end)?;
        let quantity: f64 = number.replace(',', ".").parse().ok()?;
        let designator = behind.chars().next()?.to_ascii_uppercase();
        let unit = match (designator, in_time) {
            ('Y', false) => Unit::Months(12.0),
            ('M', false) => Unit::Months(1.0),
            ('W', false) => Unit::Days(7.0),
            ('D', false) => Unit::Days(1.0),
            ('H', true) => Unit::Micros(3600.0 * SECOND),
            ('M', true) => Unit::Micros(60.0 * SECOND),
            ('S', true) => Unit::Micros(SECOND),
            _ => return None,
        };
        sum.add(quantity, unit);
        rest = behind.get(1..)?;
        any = true;
    }
    any.then_some(sum)
}

/// The sum of PostgreSQL's words.
fn words(text: &str, fields: Option<Fields<'_>>) -> Option<Sum> {
    let default_unit = fields.as_ref().map_or("second", Fields::least);
    let is_of_minutes = fields.is_some_and(|fields| fields.first == "minute" && fields.last.is_some());
    let mut has_bare = false;
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_prefix('@').unwrap_or(&lower).trim();
    let (lower, is_ago) = match lower.strip_suffix("ago") {
        Some(before) if before.ends_with(char::is_whitespace) => (before, true),
        _ => (lower, false),
    };
    let (mut sum, mut rest, mut any) = (Sum::default(), lower.trim(), false);
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | ':' | 'e')))
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at_checked(end)?;
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (word, after) = behind.split_at_checked(end)?;
        if number.contains(':') {
            sum.micros += time(number, is_of_minutes)?;
            rest = behind;
        } else if let Some((years, months)) = year_month(number).filter(|_| word.is_empty()) {
            sum.months += years * 12.0 + months;
            rest = behind;
        } else if let Some(unit) = unit(word) {
            sum.add(number.parse().ok()?, unit);
            rest = after.trim_start();
        } else if word.is_empty() {
            // A number before the clock's part is a number of days; alone it is of the unit that was said.
            let is_days = after.contains(':') || default_unit == "hour" && !after.trim().is_empty();
            if !is_days && std::mem::replace(&mut has_bare, true) {
                return None;
            }
            let unit = if is_days { Unit::Days(1.0) } else { unit(default_unit)? };
            sum.add(number.parse().ok()?, unit);
            rest = after.trim_start();
        } else {
            return None;
        }
        any = true;
    }
    if is_ago {
        sum = Sum { months: -sum.months, days: -sum.days, micros: -sum.micros };
    }
    any.then_some(sum)
}

/// `1-2`: a year and two months.
fn year_month(text: &str) -> Option<(f64, f64)> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let (years, months) = unsigned.split_once('-')?;
    let digits = |part: &str| part.parse::<u16>().ok().map(f64::from);
    Some((sign * digits(years)?, sign * digits(months).filter(|months| *months < 12.0)?))
}

/// `[-]h:m[:s[.f]]` in microseconds; two parts are minutes and seconds where the literal says so or the second has a fraction.
fn time(text: &str, is_of_minutes: bool) -> Option<f64> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let parts: Vec<&str> = unsigned.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [minutes, seconds] if is_of_minutes || seconds.contains('.') => ("0", *minutes, *seconds),
        [hours, minutes] => (*hours, *minutes, "0"),
        [hours, minutes, seconds] => (*hours, *minutes, *seconds),
        _ => return None,
    };
    let hours: f64 = hours.parse::<u32>().ok()?.into();
    let minutes: f64 = minutes.parse::<u32>().ok()?.into();
    let seconds: f64 = seconds.parse().ok()?;
    if !(0.0..60.0).contains(&minutes) || !(0.0..=60.0).contains(&seconds) {
        return None;
    }
    Some(sign * ((hours * 3600.0 + minutes * 60.0) * SECOND + (seconds * SECOND).round()))
}
