//! Numbers of a file as values of their columns: exponents are written out, and counts since 1970 get their unit.
//!
//! A TIMESTAMP column takes a bare number as microseconds since 1970, as results have it. Most files that hold numbers mean seconds or
//! milliseconds, which would silently be moments of January 1970. So a number that is too small to be microseconds of a time that
//! anybody writes down is refused until `--timestamp-unit` says what it counts.

use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive as _};
use kalamdb_core::format::DataType;
use serde_json::Value as Json;

use super::source::{BadRow, Row, Rows, excerpt};
use crate::iso::{date_text, timestamp_text};
use crate::transfer::table::Table;

/// Digits that an exponent may add to a number.
const EXPONENT_MAX: i64 = 400;
/// Microseconds of 1970 (until 26 April) that are rather seconds or milliseconds of any year up to 2286.
const TOO_FEW_MICROS: i128 = 10_000_000_000_000;
/// Nanoseconds of 1990 to 2100, which as microseconds would be years beyond 20,000.
const RATHER_NANOS: std::ops::Range<i128> = 631_152_000_000_000_000..4_102_444_800_000_000_000;
/// Microseconds of the years 1 to 9999.
const CALENDAR_MICROS: std::ops::RangeInclusive<i128> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Microseconds from which on a time is taken for one of our time: 1 January 1980.
const OUR_TIME_MICROS: i128 = 315_532_800_000_000;
/// Days beyond the year 9999 that are rather seconds: until 18 July 2036, which leaves the last days that a DATE has.
const RATHER_SECONDS: std::ops::Range<i64> = 2_932_897..2_100_000_000;
const DAY_MICROS: i128 = 86_400_000_000;

/// The unit that a bare number in a column of instants counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum TimestampUnit {
    /// Seconds since 1970
    S,
    /// Milliseconds since 1970
    Ms,
    /// Microseconds since 1970, whatever the numbers are
    Us,
    /// Nanoseconds since 1970
    Ns,
}

impl TimestampUnit {
    const ALL: [Self; 4] = [Self::S, Self::Ms, Self::Us, Self::Ns];

    const fn name(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }

    /// The microseconds that a number of this unit is; fractions of a microsecond are dropped, as SQL drops them.
    fn micros(self, number: &BigDecimal) -> Option<i128> {
        let power = match self {
            Self::S => 6,
            Self::Ms => 3,
            Self::Us => 0,
            Self::Ns => -3,
        };
        let (digits, scale) = number.as_bigint_and_exponent();
        BigDecimal::new(digits, scale - power).with_scale_round(0, RoundingMode::Down).to_i128()
    }
}

/// Instants of one column so far.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// One between 1970 and 1980 that a smaller unit would put there.
    is_early: bool,
    /// One of our time.
    is_late: bool,
}

/// Brings the numbers of rows into the form in which a server takes them.
pub(super) struct Numbered {
    rows: Box<dyn Rows>,
    table: Table,
    unit: Option<TimestampUnit>,
    /// For each of the table's columns.
    seen: Vec<Seen>,
}

impl Numbered {
    pub(super) fn new(rows: Box<dyn Rows>, table: &Table, unit: Option<TimestampUnit>) -> Self {
        let seen = vec![Seen::default(); table.columns.len()];
        Self { rows, table: table.clone(), unit, seen }
    }

    /// The text of a value in a column in its other form; none where it stays as it is.
    fn value(&mut self, at: usize, text: &str) -> Result<Option<String>, String> {
        let Some(column) = self.table.columns.get(at) else { return Ok(None) };
        match column.data_type {
            DataType::SmallInt | DataType::Int | DataType::BigInt => integer(text, column.data_type),
            DataType::Decimal { .. } => Ok(decimal(text)),
            DataType::Timestamp | DataType::DateTime => {
                let Some(number) = number(text) else { return Ok(None) };
                let seen = self.seen.get_mut(at);
                instant(text, &number, self.unit, seen.unwrap_or(&mut Seen::default())).map(Some)
            }
            DataType::Date => date(text, self.unit),
            _ => Ok(None),
        }
    }
}

impl Rows for Numbered {
    fn next(&mut self) -> Result<Option<Row>, BadRow> {
        let Some(mut row) = self.rows.next()? else { return Ok(None) };
        let columns = std::sync::Arc::clone(&row.columns);
        for (at, value) in columns.iter().zip(&mut row.values) {
            let Json::String(text) = &value else { continue };
            match self.value(*at, text) {
                Ok(None) => {}
                Ok(Some(other)) => *value = Json::String(other),
                Err(problem) => {
                    let column = self.table.columns.get(*at);
                    return Err(BadRow {
                        number: row.number,
                        line: row.line,
                        column: column.map(|it| it.name.clone()),
                        problem,
                        ends_file: false,
                    });
                }
            }
        }
        Ok(Some(row))
    }
}

/// A decimal number, with or without an exponent.
fn number(text: &str) -> Option<BigDecimal> {
    let text = text.trim();
    let is_of_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().any(|byte| byte.is_ascii_digit()) || !text.bytes().all(is_of_number) {
        return None;
    }
    let number: BigDecimal = text.parse().ok()?;
    let (_, scale) = number.as_bigint_and_scale();
    (-EXPONENT_MAX..=EXPONENT_MAX).contains(&scale).then_some(number)
}

/// An integer that is written with a point or an exponent, by its digits.
fn integer(text: &str, data_type: DataType) -> Result<Option<String>, String> {
    if !text.contains(['.', 'e', 'E']) {
        return Ok(None);
    }
    let Some(number) = number(text) else { return Ok(None) };
    if !number.is_integer() {
        return Err(format!("{:?} is not a value of type {data_type}: it has a fraction", excerpt(text)));
    }
    Ok(Some(number.with_scale(0).to_plain_string()))
}

/// A number with an exponent without it.
fn decimal(text: &str) -> Option<String> {
    if !text.contains(['e', 'E']) {
        return None;
    }
    number(text).map(|number| number.to_plain_string())
}

/// The microseconds that a bare number is.
fn instant(
    text: &str,
    number: &BigDecimal,
    unit: Option<TimestampUnit>,
    seen: &mut Seen,
) -> Result<String, String> {
    let text = excerpt(text.trim());
    let Some(micros) = unit.unwrap_or(TimestampUnit::Us).micros(number) else {
        return Err(format!("{text} is beyond the times there are"));
    };
    let Some(unit) = unit else {
        let is_too_small = micros.abs() < TOO_FEW_MICROS && micros != 0;
        if is_too_small || RATHER_NANOS.contains(&micros) || !number.is_integer() {
            return Err(unknown_unit(&text, number));
        }
        return Ok(micros.to_string());
    };
    if unit != TimestampUnit::Us {
        if !CALENDAR_MICROS.contains(&micros) {
            return Err(format!("{text} {} since 1970 are beyond the year 9999", unit.name()));
        }
        let other =
            TimestampUnit::ALL.into_iter().find(|other| *other != unit && is_of_our_time(*other, number));
        seen.is_early |= micros.abs() < OUR_TIME_MICROS && other.is_some();
        seen.is_late |= micros >= OUR_TIME_MICROS;
        if seen.is_early && seen.is_late {
            return Err(format!(
                "the numbers of this column are of more than one unit: {text} {} would be {}, and others are \
                 of another time",
                unit.name(),
                shown(micros)
            ));
        }
    }
    Ok(micros.to_string())
}

/// Whether a number of this unit is a moment from 1980 to 2100.
fn is_of_our_time(unit: TimestampUnit, number: &BigDecimal) -> bool {
    const END_MICROS: i128 = 4_102_444_800_000_000;
    unit.micros(number).is_some_and(|micros| (OUR_TIME_MICROS..END_MICROS).contains(&micros))
}

/// Why a number is refused whose unit nobody said.
fn unknown_unit(text: &str, number: &BigDecimal) -> String {
    let guess = TimestampUnit::ALL.into_iter().find(|unit| is_of_our_time(*unit, number));
    let guess = guess.and_then(|unit| Some((unit.name(), shown(unit.micros(number)?))));
    let hint =
        guess.map(|(unit, time)| format!(", such as {unit}, which makes it {time}")).unwrap_or_default();
    format!("{text} says no unit: give --timestamp-unit s, ms, us or ns{hint}")
}

fn shown(micros: i128) -> String {
    i64::try_from(micros).map_or_else(|_| micros.to_string(), |micros| timestamp_text(micros, false))
}

/// A bare number of a DATE column counts days; where that is no date of the calendar, the unit that is given.
fn date(text: &str, unit: Option<TimestampUnit>) -> Result<Option<String>, String> {
    let Some(number) = number(text) else { return Ok(None) };
    let days = number.to_i64().unwrap_or(i64::MAX);
    let is_no_date = RATHER_SECONDS.contains(&days) || i32::try_from(days).is_err();
    let day_of = |unit: TimestampUnit| {
        let days = unit.micros(&number).map(|micros| micros.div_euclid(DAY_MICROS));
        days.and_then(|days| i32::try_from(days).ok())
    };
    match unit {
        Some(TimestampUnit::Us) => Ok(None),
        // Programs that have no NULL of integers write them as floats.
        _ if !is_no_date => Ok(number.is_integer().then(|| days.to_string())),
        Some(unit) => day_of(unit).map(|days| Some(days.to_string())).ok_or_else(|| "no date".to_owned()),
        None => {
            let guess = TimestampUnit::ALL.into_iter().find(|unit| is_of_our_time(*unit, &number));
            let guess = guess.and_then(|unit| Some((unit.name(), date_text(day_of(unit)?))));
            let hint = guess.map(|(unit, date)| format!("; --timestamp-unit {unit} makes it {date}"));
            Err(format!(
                "{} days since 1970 are beyond the year 9999{}",
                excerpt(text.trim()),
                hint.unwrap_or_default()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str, unit: Option<TimestampUnit>) -> Result<String, String> {
        instant(text, &number(text).unwrap(), unit, &mut Seen::default())
    }

    #[test]
    fn a_number_without_a_unit_is_refused_where_it_would_be_1970() {
        for text in [
            "1485913259",
            "1752219371",
            "1714557600000",
            "-86400",
            "1",
            "1485913259.000200",
            "1.485913259E9",
            "4102444800",
        ] {
            let problem = micros(text, None).unwrap_err();
            assert!(problem.contains("--timestamp-unit s, ms, us or ns"), "{problem}");
        }
        let problem = micros("1485913259", None).unwrap_err();
        assert!(problem.ends_with("such as s, which makes it 2017-02-01T01:40:59"), "{problem}");
        let problem = micros("1485913259000000000", None).unwrap_err();
        assert!(problem.ends_with("such as ns, which makes it 2017-02-01T01:40:59"), "{problem}");
        for text in
            ["0", "1704067200000000", "-62135596800000001", "9223372036854775807", "-9223372036854775808"]
        {
            assert_eq!(micros(text, None).as_deref(), Ok(text));
        }
        assert_eq!(micros(" 1.7040672e15 ", None).as_deref(), Ok("1704067200000000"));
    }

    #[test]
    fn a_unit_makes_microseconds_to_the_last_digit() {
        let of = |text: &str, unit| micros(text, Some(unit));
        assert_eq!(of("1485913259", TimestampUnit::S).as_deref(), Ok("1485913259000000"));
        assert_eq!(of("1485913259.000200", TimestampUnit::S).as_deref(), Ok("1485913259000200"));
        assert_eq!(of("1.485913259E+9", TimestampUnit::S).as_deref(), Ok("1485913259000000"));
        assert_eq!(of("-0.5", TimestampUnit::S).as_deref(), Ok("-500000"));
        assert_eq!(of("1714557600000.5", TimestampUnit::Ms).as_deref(), Ok("1714557600000500"));
        assert_eq!(of("1714557600000000999", TimestampUnit::Ns).as_deref(), Ok("1714557600000000"));
        assert_eq!(of("1", TimestampUnit::Us).as_deref(), Ok("1"));
        assert!(of("1485913259000", TimestampUnit::S).unwrap_err().contains("beyond the year 9999"));
        assert!(of("1e300", TimestampUnit::Us).is_err());
    }

    #[test]
    fn one_column_has_one_unit() {
        let mut seen = Seen::default();
        let mut take = |text: &str| instant(text, &number(text).unwrap(), Some(TimestampUnit::Ms), &mut seen);
        assert!(take("1714557600000").is_ok());
        assert!(take("0").is_ok(), "the epoch is of every unit");
        assert!(take("86400000").is_ok(), "2 January 1970 and nothing else");
        assert!(take("1714557600").unwrap_err().contains("of more than one unit"));
    }

    #[test]
    fn numbers_are_written_out_where_they_are_exact() {
        assert_eq!(decimal("1.5E+02").as_deref(), Some("150"));
        assert_eq!(decimal("-2E-1").as_deref(), Some("-0.2"));
        assert_eq!(decimal("1.50"), None);
        assert_eq!(decimal("1e999999999"), None);
        let integer = |text| integer(text, DataType::Int);
        assert_eq!(integer("1e2"), Ok(Some("100".to_owned())));
        assert_eq!(integer("-1.50E1"), Ok(Some("-15".to_owned())));
        assert_eq!(integer("20.0"), Ok(Some("20".to_owned())));
        assert_eq!(integer("007"), Ok(None));
        assert_eq!(integer("1.2.3"), Ok(None));
        assert_eq!(integer("e"), Ok(None));
        for fraction in ["20.7", "1e-1", "2.55E1"] {
            let expected = format!("{fraction:?} is not a value of type INT: it has a fraction");
            assert_eq!(integer(fraction), Err(expected));
        }
    }

    #[test]
    fn days_that_are_no_dates_are_seconds() {
        assert_eq!(date("17198.0", None), Ok(Some("17198".to_owned())));
        assert_eq!(date("17198.5", None), Ok(None), "the server refuses it");
        assert!(date("2147483647", None).is_ok(), "the last day of the type");
        assert!(date("1485913259", None).unwrap_err().ends_with("--timestamp-unit s makes it 2017-02-01"));
        assert_eq!(date("1485913259", Some(TimestampUnit::S)), Ok(Some("17198".to_owned())));
        assert_eq!(date("1714557600000", Some(TimestampUnit::Ms)), Ok(Some("19844".to_owned())));
        assert_eq!(date("17198", Some(TimestampUnit::S)), Ok(Some("17198".to_owned())));
        assert_eq!(date("2017-02-01", None), Ok(None), "what is no number is the server's");
    }
}
