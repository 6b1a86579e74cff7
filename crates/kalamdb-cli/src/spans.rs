//! Spans of time (INTERVAL) as text: read in any notation that a server sends, written as PostgreSQL or as ISO 8601 has them.
//!
//! Months, days and the time of a span are kept apart, because a month has no number of days and a day none of hours. The difference of
//! two instants is a number of seconds alone: of that, whole days are days, as in PostgreSQL.

use std::fmt::Write as _;

const SECOND_NANOS: i128 = 1_000_000_000;
const MINUTE_NANOS: i128 = 60 * SECOND_NANOS;
const HOUR_NANOS: i128 = 60 * MINUTE_NANOS;
const DAY_NANOS: i128 = 24 * HOUR_NANOS;

/// A span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    months: i64,
    days: i64,
    nanos: i128,
}

impl Span {
    /// A span of these parts.
    pub(crate) fn new(months: i64, days: i64, nanos: i64) -> Self {
        Self { months, days, nanos: nanos.into() }
    }

    /// The difference of two instants.
    pub(crate) fn elapsed(nanos: i128) -> Self {
        let days = i64::try_from(nanos / DAY_NANOS).unwrap_or_default();
        Self { months: 0, days, nanos: nanos - i128::from(days) * DAY_NANOS }
    }

    /// The span that a text is: ISO 8601 (`P1DT2H`), units with their numbers (`1 mons 2 days`), PostgreSQL's (`1 day 02:00:00`).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.strip_prefix('-').unwrap_or(text).strip_prefix('P') {
            Some(parts) => Self::parse_iso(parts, if text.starts_with('-') { -1 } else { 1 }),
            None => Self::parse_words(text),
        }
    }

    fn parse_iso(text: &str, sign: i128) -> Option<Self> {
        let (dates, times) = text.split_once('T').unwrap_or((text, ""));
        let mut span = Self::default();
        let mut units = String::new();
        for (part, is_time) in [(dates, false), (times, true)] {
            let mut rest = part;
            while let Some(at) = rest.find(|it: char| it.is_ascii_alphabetic()) {
                let (number, unit) = (rest.get(..at)?, rest.get(at..=at)?);
                let nanos = nanos(number)?.checked_mul(sign)?;
                match (unit, is_time) {
                    ("H", true) => span.add_nanos(nanos, 3_600)?,
                    ("M", true) => span.add_nanos(nanos, 60)?,
                    ("S", true) => span.add_nanos(nanos, 1)?,
                    ("Y", false) => span.months += 12 * whole(nanos)?,
                    ("M", false) => span.months += whole(nanos)?,
                    ("W", false) => span.days += 7 * whole(nanos)?,
                    ("D", false) => span.days += whole(nanos)?,
                    _ => return None,
                }
                units.push_str(unit);
                rest = rest.get(at + 1..)?;
            }
            if !rest.is_empty() {
                return None;
            }
        }
        match units.as_str() {
            "" => None,
            "S" => Some(Self::elapsed(span.nanos)),
            _ => Some(span),
        }
    }

    fn parse_words(text: &str) -> Option<Self> {
        let mut span = Self::default();
        let mut words = text.split_whitespace().peekable();
        words.peek()?;
        while let Some(word) = words.next() {
            if word.contains(':') {
                let is_negative = word.starts_with('-');
                let mut seconds = 0;
                for part in word.trim_start_matches(['-', '+']).split(':') {
                    seconds = nanos(part)?.checked_add(i128::checked_mul(seconds, 60)?)?;
                }
                span.add_nanos(if is_negative { -seconds } else { seconds }, 1)?;
                continue;
            }
            let number = nanos(word)?;
            match words.next()?.trim_end_matches('s') {
                "year" => span.months += 12 * whole(number)?,
                "mon" | "month" => span.months += whole(number)?,
                "week" => span.days += 7 * whole(number)?,
                "day" => span.days += whole(number)?,
                "hour" => span.add_nanos(number, 3_600)?,
                "min" | "minute" => span.add_nanos(number, 60)?,
                "sec" | "second" => span.add_nanos(number, 1)?,
                _ => return None,
            }
        }
        Some(span)
    }

    fn add_nanos(&mut self, nanos: i128, times: i128) -> Option<()> {
        self.nanos = self.nanos.checked_add(nanos.checked_mul(times)?)?;
        Some(())
    }

    /// As PostgreSQL prints it: `1 year 2 mons 3 days 04:05:06.7`.
    pub(crate) fn postgres(&self) -> String {
        let mut text = String::new();
        let mut after_negative = false;
        for (count, name) in [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")] {
            if count != 0 {
                let space = if text.is_empty() { "" } else { " " };
                let plus = if after_negative && count > 0 { "+" } else { "" };
                let plural = if count == 1 { "" } else { "s" };
                // A string takes everything.
                let _ = write!(text, "{space}{plus}{count} {name}{plural}");
                after_negative = count < 0;
            }
        }
        if self.nanos != 0 || text.is_empty() {
            let space = if text.is_empty() { "" } else { " " };
            let sign = match self.nanos {
                negative if negative < 0 => "-",
                _ if after_negative => "+",
                _ => "",
            };
            let nanos = self.nanos.abs();
            let (hours, minutes) = (nanos / HOUR_NANOS, nanos % HOUR_NANOS / MINUTE_NANOS);
            let seconds = seconds_text(nanos % MINUTE_NANOS, 2);
            let _ = write!(text, "{space}{sign}{hours:02}:{minutes:02}:{seconds}");
        }
        text
    }

    /// As ISO 8601 writes it: `P1Y2M3DT4H5M6.7S`.
    pub(crate) fn iso(&self) -> String {
        let mut text = String::from("P");
        for (count, unit) in [(self.months / 12, 'Y'), (self.months % 12, 'M'), (self.days, 'D')] {
            if count != 0 {
                let _ = write!(text, "{count}{unit}");
            }
        }
        if self.nanos != 0 {
            text.push('T');
            let sign = if self.nanos < 0 { "-" } else { "" };
            let nanos = self.nanos.abs();
            for (count, unit) in [(nanos / HOUR_NANOS, 'H'), (nanos % HOUR_NANOS / MINUTE_NANOS, 'M')] {
                if count != 0 {
                    let _ = write!(text, "{sign}{count}{unit}");
                }
            }
            if nanos % MINUTE_NANOS != 0 {
                let _ = write!(text, "{sign}{}S", seconds_text(nanos % MINUTE_NANOS, 1));
            }
        }
        if text == "P" { "PT0S".to_owned() } else { text }
    }
}

/// Seconds with as many digits of their fraction as they need.
fn seconds_text(nanos: i128, width: usize) -> String {
    let (seconds, fraction) = (nanos / SECOND_NANOS, nanos % SECOND_NANOS);
    let fraction = format!("{fraction:09}");
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{seconds:0width$}{point}{fraction}")
}

/// A number of seconds with at most nine digits behind its point, in nanoseconds.
fn nanos(number: &str) -> Option<i128> {
    let is_negative = number.starts_with('-');
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty()
        || !is_number(whole)
        || !is_number(fraction)
        || whole.len() > 20
        || fraction.len() > 9
    {
        return None;
    }
    let nanos: i128 = format!("{whole}{fraction:0<9}").parse().ok()?;
    Some(if is_negative { -nanos } else { nanos })
}

fn whole(nanos: i128) -> Option<i64> {
    if nanos % SECOND_NANOS != 0 {
        return None;
    }
    // A year is twelve times a month: far from what overflows.
    i32::try_from(nanos / SECOND_NANOS).ok().map(i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, postgres: &str, iso: &str) {
        let span = Span::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((span.postgres().as_str(), span.iso().as_str()), (postgres, iso), "{text}");
        assert_eq!(Span::parse(postgres), Some(span), "{text}");
        assert_eq!(Span::parse(iso).unwrap().iso(), iso, "{text}");
    }

    #[test]
    fn every_notation_becomes_one() {
        check("1 days", "1 day", "P1D");
        check("PT86400S", "1 day", "P1D");
        check("P2DT12H", "2 days 12:00:00", "P2DT12H");
        check("60 hours", "60:00:00", "PT60H");
        check("PT216000S", "2 days 12:00:00", "P2DT12H");
        check("1 mons 3 days", "1 mon 3 days", "P1M3D");
        check("14 hours 30 mins", "14:30:00", "PT14H30M");
        check("334 days 9 hours 0 mins 1.500000000 secs", "334 days 09:00:01.5", "P334DT9H1.5S");
        check("1 years 2 mons", "1 year 2 mons", "P1Y2M");
        check("14 mons", "1 year 2 mons", "P1Y2M");
        check("P1W", "7 days", "P7D");
        check("0 secs", "00:00:00", "PT0S");
        check("P0D", "00:00:00", "PT0S");
        check("-PT1.5S", "-00:00:01.5", "PT-1.5S");
        check("-1 mons 2 days", "-1 mons +2 days", "P-1M2D");
        check("-1 days 2 hours", "-1 days +02:00:00", "P-1DT2H");
        check("-PT90000S", "-1 days -01:00:00", "P-1DT-1H");
        check("PT0.000001S", "00:00:00.000001", "PT0.000001S");
    }

    #[test]
    fn what_is_no_span_is_none() {
        for text in [
            "",
            "P",
            "PT",
            "P1",
            "1",
            "day",
            "1 apple",
            "PT1.0000000001S",
            "P1.5D",
            "PX",
            "1:2:x",
            "Peter",
            "-",
        ] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
