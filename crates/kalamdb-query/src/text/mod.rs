//! Values as PostgreSQL reads and writes them in text: one reader for literals, parameters, columns and casts.
//!
//! Times are microseconds since 1970, spans are months, days and microseconds, numerics are an integer and a scale.

mod clock;
mod interval;
mod numeric;
mod write;

use std::fmt;

/// Microseconds of a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// Names of the months.
pub(crate) const MONTHS: [&str; 12] = [
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

pub use clock::{
    Zone, instant_of_local, local_of_instant, parse_date, parse_time, parse_timestamp, parse_zone,
};
pub(crate) use clock::{is_date, is_timestamp};
pub use interval::{Fields, Interval, parse_interval};
pub(crate) use numeric::power_of_ten;
pub use numeric::{Numeric, parse_numeric};
pub(crate) use write::days_and_time;
pub use write::{write_date, write_float, write_interval, write_interval_iso, write_time, write_timestamp};

/// Text that does not write a value of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The type, as SQL names it.
    pub sql_type: &'static str,
    /// The text, cut where it is long.
    pub text: String,
    /// The fault, where it is not the form.
    pub reason: Option<&'static str>,
}

impl Malformed {
    /// The error of a text, of which it keeps the beginning.
    fn new(sql_type: &'static str, text: &str) -> Self {
        const CHARACTERS_MAX: usize = 60;
        let mut excerpt: String = text.chars().take(CHARACTERS_MAX).collect();
        if excerpt.len() < text.len() {
            excerpt.push('…');
        }
        Self { sql_type, text: excerpt, reason: None }
    }

    /// The error with a reason.
    fn because(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a value of type {}", self.text, self.sql_type)?;
        match self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Malformed {}

/// The bytes that text writes: `\x` and hexadecimal digits, or PostgreSQL's escape format.
pub fn parse_bytes(text: &str) -> Result<Vec<u8>, Malformed> {
    let wrong = || Malformed::new("BYTEA", text);
    if let Some(digits) = text.strip_prefix("\\x").or_else(|| text.strip_prefix("\\X")) {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return Err(wrong().because("it has an odd number of hexadecimal digits"));
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        return digits
            .chunks_exact(2)
            .map(|pair| match pair {
                [high, low] => Some(value(*high)? << 4 | value(*low)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(wrong);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'\\' {
            bytes.push(first);
            rest = behind;
            continue;
        }
        match behind {
            [b'\\', more @ ..] => {
                bytes.push(b'\\');
                rest = more;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = more;
            }
            _ => {
                return Err(wrong().because("a backslash stands before another one, three octal digits or x"));
            }
        }
    }
    Ok(bytes)
}

/// The truth value that text writes: an unambiguous beginning of `true`, `false`, `yes`, `no`, `on`, `off`, or 1 and 0.
pub fn parse_boolean(text: &str) -> Result<bool, Malformed> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Ok(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Ok(false),
        _ => Err(Malformed::new("BOOLEAN", text)),
    }
}

/// The floating-point number that text writes.
pub fn parse_float(text: &str) -> Result<f64, Malformed> {
    let wrong = || Malformed::new("DOUBLE", text);
    let trimmed = text.trim();
    let value: f64 = trimmed.parse().map_err(|_| wrong())?;
    let is_written = trimmed.bytes().any(|byte| byte.is_ascii_digit());
    if is_written && (value.is_infinite() || value == 0.0 && has_digit_but_zero(trimmed)) {
        return Err(wrong().because("it is out of range"));
    }
    Ok(value)
}

/// The 32-bit floating-point number that text writes.
pub fn parse_real(text: &str) -> Result<f32, Malformed> {
    let wide = parse_float(text).map_err(|error| Malformed { sql_type: "REAL", ..error })?;
    // Rounded once, from the digits that are written.
    let value: f32 = text.trim().parse().map_err(|_| Malformed::new("REAL", text))?;
    if wide.is_finite() && (value.is_infinite() || value == 0.0 && wide != 0.0) {
        return Err(Malformed::new("REAL", text).because("it is out of range"));
    }
    Ok(value)
}

/// Whether a number's digits are not all zero.
fn has_digit_but_zero(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The UUID that text writes, in any of PostgreSQL's forms, as its canonical text.
pub fn parse_uuid(text: &str) -> Result<uuid::Uuid, Malformed> {
    let wrong = || Malformed::new("UUID", text);
    let trimmed = text.trim();
    let inner = match trimmed.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(wrong)?,
        None => trimmed,
    };
    if inner.contains(['{', '}', ':']) {
        return Err(wrong());
    }
    // A hyphen may follow any group of four digits.
    let mut digits = String::with_capacity(32);
    for character in inner.chars() {
        match character {
            '-' if digits.len().is_multiple_of(4) && !digits.is_empty() && digits.len() < 32 => {}
            digit if digit.is_ascii_hexdigit() && digits.len() < 32 => digits.push(digit),
            _ => return Err(wrong()),
        }
    }
    uuid::Uuid::parse_str(&digits).map_err(|_| wrong())
}

/// The integer that text writes.
pub fn parse_integer(text: &str) -> Result<i64, Malformed> {
    text.trim().parse().map_err(|_| Malformed::new("BIGINT", text))
}
