//! Numbers written by a template, as `NUM_processor` of PostgreSQL's `formatting.c` does it.

use datafusion::common::exec_err;
use datafusion::error::Result;

use super::pieces::{Letters, ordinal_suffix, quoted};
use crate::text::parse_numeric;

/// Significant digits that a double is written with.
const DOUBLE_DIGITS: usize = 15;
/// Digits that a template may ask for.
const DIGITS_MAX: usize = 200;

/// Patterns, longer ones before those they begin with. Each is also one in lower case.
const PATTERNS: [&str; 20] = [
    ",", ".", "0", "9", "B", "C", "D", "EEEE", "FM", "G", "L", "MI", "PL", "PR", "RN", "SG", "SP", "S", "TH",
    "V",
];

/// The side of a number that its sign stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignAt {
    Front,
    Back,
}

/// A piece of a template.
#[derive(Clone, Debug)]
enum Piece {
    Pattern(&'static str, Letters),
    Text(String),
}

/// A template of numbers.
#[expect(clippy::struct_excessive_bools, reason = "each is a pattern that a template may have")]
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    /// Digits before the point and behind it.
    whole: usize,
    fraction: usize,
    /// Digits behind a `V`: the power of ten that the number is multiplied by.
    shift: usize,
    has_point: bool,
    has_shift: bool,
    is_plain: bool,
    /// The place of the first `0`, and the places up to the last one.
    zero: Option<usize>,
    zero_end: usize,
    sign: Option<SignAt>,
    digits_before_sign: usize,
    has_plus: bool,
    has_minus: bool,
    has_brackets: bool,
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                let (literal, behind) = quoted(rest.get(1..).unwrap_or_default());
                template.pieces.push(Piece::Text(literal));
                rest = behind;
                continue;
            }
            let is_here = |name: &&&'static str| {
                rest.get(..name.len()).is_some_and(|head| head == **name || head == name.to_ascii_lowercase())
            };
            if let Some(name) = PATTERNS.iter().find(is_here) {
                let letters = if rest.starts_with(*name) { Letters::Upper } else { Letters::Lower };
                template.add(name)?;
                template.pieces.push(Piece::Pattern(name, letters));
                rest = rest.get(name.len()..).unwrap_or_default();
                continue;
            }
            let behind = rest.strip_prefix('\\').filter(|it| it.starts_with('"')).unwrap_or(rest);
            let first = behind.chars().next().unwrap_or(first);
            template.pieces.push(Piece::Text(first.to_string()));
            rest = behind.get(first.len_utf8()..).unwrap_or_default();
        }
        if template.whole + template.fraction + template.shift > DIGITS_MAX {
            return exec_err!("a template of to_char has at most {DIGITS_MAX} digits");
        }
        Ok(template)
    }

    /// Takes a pattern into account; an error where it does not go with those before it.
    fn add(&mut self, name: &str) -> Result<()> {
        let is_signed = self.sign.is_some();
        match name {
            "9" | "0" if self.has_brackets => return exec_err!("\"{name}\" must be ahead of \"PR\""),
            "9" if self.has_shift => self.shift += 1,
            "9" if self.has_point => self.fraction += 1,
            "9" => self.whole += 1,
            "0" => {
                if self.zero.is_none() && !self.has_point {
                    self.zero = Some(self.whole);
                }
                if self.has_point {
                    self.fraction += 1;
                } else {
                    self.whole += 1;
                }
                self.zero_end = self.whole + self.fraction;
            }
            "." | "D" if self.has_point => return exec_err!("multiple decimal points"),
            "." | "D" if self.has_shift => return exec_err!("cannot use \"V\" and decimal point together"),
            "." | "D" => self.has_point = true,
            "V" if self.has_point => return exec_err!("cannot use \"V\" and decimal point together"),
            "V" => self.has_shift = true,
            "FM" => self.is_plain = true,
            "S" if is_signed => return exec_err!("cannot use \"S\" twice"),
            "S" if self.has_plus || self.has_minus || self.has_brackets => {
                return exec_err!("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together");
            }
            "S" if self.has_point => self.sign = Some(SignAt::Back),
            "S" => {
                self.sign = Some(SignAt::Front);
                self.digits_before_sign = self.whole;
            }
            "MI" | "PL" | "SG" if is_signed => return exec_err!("cannot use \"S\" and \"{name}\" together"),
            "PR" if is_signed || self.has_plus || self.has_minus => {
                return exec_err!("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together");
            }
            "MI" => self.has_minus = true,
            "PL" => self.has_plus = true,
            "SG" => (self.has_plus, self.has_minus) = (true, true),
            "PR" => self.has_brackets = true,
            "EEEE" | "RN" => return exec_err!("the pattern {name} is not supported in to_char"),
            _ => {}
        }
        Ok(())
    }

    /// Writes a number that is given in digits.
    pub(super) fn write_exact(&self, value: &str) -> Result<String> {
        let Ok(mut number) = parse_numeric(value) else { return exec_err!("\"{value}\" is not a number") };
        let shift = u8::try_from(self.shift).unwrap_or(u8::MAX);
        let lowered = number.scale.saturating_sub(shift);
        let raised = shift - (number.scale - lowered);
        let scaled = crate::text::power_of_ten(raised).and_then(|power| number.unscaled.checked_mul(power));
        let Some(scaled) = scaled else { return exec_err!("numeric field overflow") };
        (number.unscaled, number.scale) = (scaled, lowered);
        // Digits beyond those of a numeric are zeros.
        let scale = self.fraction.min(usize::from(number.scale));
        let scale = u8::try_from(scale).unwrap_or(u8::MAX);
        let Some(unscaled) = number.at_scale(scale) else { return exec_err!("numeric field overflow") };
        (number.unscaled, number.scale) = (unscaled, scale);
        let mut text = number.to_string();
        if self.fraction > usize::from(scale) {
            text.push_str(if scale == 0 { "." } else { "" });
            text.extend(std::iter::repeat_n('0', self.fraction - usize::from(scale)));
        }
        self.write(&text, self.fraction)
    }

    /// Writes a double, with as many digits as a double has.
    pub(super) fn write_double(&self, value: f64) -> Result<String> {
        let value = value * 10_f64.powi(i32::try_from(self.shift).unwrap_or(i32::MAX));
        let whole = if value.is_finite() { format!("{:.0}", value.abs()).len() } else { 8 };
        let fraction = self.fraction.min(DOUBLE_DIGITS.saturating_sub(whole));
        let text = if value.is_nan() {
            "NaN".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        } else {
            format!("{value:.fraction$}")
        };
        self.write(&text, fraction)
    }

    /// Writes a number's text, with `fraction` digits behind the point.
    fn write(&self, text: &str, fraction: usize) -> Result<String> {
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let whole = self.whole + self.shift;
        let length = digits.find('.').unwrap_or(digits.len());
        let overflow: String;
        let digits = if length > whole {
            let hashes = |count: usize| "#".repeat(count);
            overflow = format!("{}.{}", hashes(whole), hashes(fraction));
            overflow.as_str()
        } else {
            digits
        };
        Writer::new(self, digits.as_bytes(), is_negative, whole, fraction, whole.saturating_sub(length))
            .write()
    }
}

/// The state of writing one number.
#[expect(clippy::struct_excessive_bools, reason = "each is a part of the state of `NUM_processor`")]
struct Writer<'t> {
    template: &'t Template,
    number: &'t [u8],
    is_negative: bool,
    fraction: usize,
    /// Places of the template that stand before the number's first digit.
    blanks: usize,
    /// The next digit of the number.
    at: usize,
    /// The number of places that were written.
    places: usize,
    /// The place of the last one.
    last_place: i64,
    /// The last digit behind the point that `FM` leaves.
    last_relevant: Option<usize>,
    has_brackets: bool,
    sign: Option<SignAt>,
    is_sign_written: bool,
    is_in_number: bool,
    /// Whether a digit behind the number's end was asked for.
    is_ended: bool,
    text: String,
}

impl<'t> Writer<'t> {
    /// Begins to write a number with `fraction` digits behind the point, after `blanks` places.
    fn new(
        template: &'t Template,
        number: &'t [u8],
        is_negative: bool,
        whole: usize,
        fraction: usize,
        blanks: usize,
    ) -> Self {
        let mut writer = Self {
            template,
            number,
            is_negative,
            fraction,
            blanks,
            at: 0,
            places: 0,
            last_place: i64::try_from(whole + fraction).unwrap_or(0) - 1,
            last_relevant: None,
            has_brackets: template.has_brackets,
            sign: template.sign,
            is_sign_written: false,
            is_in_number: false,
            is_ended: false,
            text: String::new(),
        };
        if template.has_plus || template.has_minus {
            writer.is_sign_written = !template.has_plus || template.has_minus;
        } else {
            if !is_negative && template.is_plain {
                writer.has_brackets = false;
            }
            writer.is_sign_written = !is_negative && template.is_plain && template.sign.is_none();
            if template.sign == Some(SignAt::Front) && whole == template.digits_before_sign {
                writer.sign = Some(SignAt::Back);
            }
        }
        if template.is_plain && template.has_point {
            writer.last_relevant = writer.last_relevant_digit();
        }
        if !writer.is_sign_written && blanks == 0 {
            writer.last_place += 1;
        }
        writer
    }

    /// The place of the last digit that is not a zero at the end, or of the point; no `0` of the template is left out.
    fn last_relevant_digit(&self) -> Option<usize> {
        let point = self.number.iter().position(|byte| *byte == b'.')?;
        let last = self.number.iter().rposition(|byte| *byte != b'0').unwrap_or(point).max(point);
        let zero_end = self.template.zero_end;
        if zero_end <= self.blanks {
            return Some(last);
        }
        Some(last.max((self.number.len() - 1).min(zero_end - self.blanks)))
    }

    /// Writes the number.
    fn write(mut self) -> Result<String> {
        let is_plain = self.template.is_plain;
        for piece in &self.template.pieces {
            if self.is_ended {
                break;
            }
            let (name, letters) = match piece {
                Piece::Text(text) => {
                    self.text.push_str(text);
                    continue;
                }
                Piece::Pattern(name, letters) => (*name, *letters),
            };
            match name {
                "9" | "0" | "." | "D" => self.write_place(name),
                "," | "G" if self.is_in_number => self.text.push(','),
                "L" => self.text.push(' '),
                "MI" if self.is_negative => self.text.push('-'),
                "PL" if !self.is_negative => self.text.push('+'),
                "," | "G" | "MI" | "PL" if !is_plain => self.text.push(' '),
                "SG" => self.text.push(if self.is_negative { '-' } else { '+' }),
                "TH" if !self.is_negative
                    && !self.template.has_point
                    && self.number.first() != Some(&b'#') =>
                {
                    let digits = std::str::from_utf8(self.number).unwrap_or_default();
                    if !digits.ends_with(|last: char| last.is_ascii_digit()) {
                        return exec_err!("\"{digits}\" is not a number");
                    }
                    self.text.push_str(ordinal_suffix(digits, letters));
                }
                _ => {}
            }
        }
        Ok(self.text)
    }

    /// Whether the number is a zero before a point that the template has no `0` for.
    fn is_leading_zero(&self) -> bool {
        self.template.zero.is_none()
            && self.at == 0
            && self.number.first() == Some(&b'0')
            && self.fraction != 0
    }

    /// Whether no digit behind the point is left.
    fn is_point_last(&self) -> bool {
        self.last_relevant.is_some_and(|at| self.number.get(at) == Some(&b'.'))
    }

    /// Writes the sign before the number.
    fn write_sign(&mut self) {
        match (self.sign, self.has_brackets, self.is_negative) {
            (Some(SignAt::Back), ..) => return,
            (Some(SignAt::Front), _, is_negative) => self.text.push(if is_negative { '-' } else { '+' }),
            (None, true, is_negative) => self.text.push(if is_negative { '<' } else { ' ' }),
            (None, false, true) => self.text.push('-'),
            (None, false, false) if !self.template.is_plain => self.text.push(' '),
            (None, false, false) => {}
        }
        self.is_sign_written = true;
    }

    /// Writes what stands at a `9`, a `0` or the point.
    fn write_place(&mut self, name: &str) {
        self.is_in_number = false;
        let is_plain = self.template.is_plain;
        let zero = self.template.zero;
        let is_begun = self.places >= self.blanks || zero == Some(self.places);
        if !self.is_sign_written && is_begun && (!self.is_leading_zero() || self.is_point_last()) {
            self.write_sign();
        }
        if self.places < self.blanks && zero.is_none_or(|zero| zero > self.places) {
            if !is_plain {
                self.text.push(' ');
            }
        } else if self.places < self.blanks {
            self.text.push('0');
            self.is_in_number = true;
        } else {
            self.write_digit(name);
        }
        let place = i64::try_from(self.places).unwrap_or(0);
        let mut end = self.last_place + i64::from(self.blanks > 0) + i64::from(self.template.has_point);
        if self.last_relevant == Some(self.at) {
            end = place;
        }
        if place + 1 == end && !self.is_ended {
            if self.is_sign_written && self.has_brackets {
                self.text.push(if self.is_negative { '>' } else { ' ' });
            } else if self.sign == Some(SignAt::Back) {
                self.text.push(if self.is_negative { '-' } else { '+' });
            }
        }
        self.places += 1;
    }

    /// Writes the next digit, or the point.
    fn write_digit(&mut self, name: &str) {
        let is_plain = self.template.is_plain;
        let digit = self.number.get(self.at).copied();
        match digit {
            Some(b'.') => {
                if !self.is_point_last() || is_plain {
                    self.text.push('.');
                }
            }
            _ if self.last_relevant.is_some_and(|last| self.at > last) && name != "0" => {}
            _ if self.is_leading_zero() => {
                if !is_plain {
                    self.text.push(' ');
                } else if self.is_point_last() {
                    self.text.push('0');
                }
            }
            Some(digit) => {
                self.text.push(char::from(digit));
                self.is_in_number = true;
            }
            // Behind the number's end PostgreSQL ends the text.
            None => {
                self.is_ended = true;
                self.is_in_number = true;
            }
        }
        if digit.is_some() {
            self.at += 1;
        }
    }
}
