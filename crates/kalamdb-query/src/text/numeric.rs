//! Numerics in text: digits, a point, an exponent.

use std::fmt;

use datafusion::arrow::datatypes::i256;

use super::Malformed;

/// Digits that a numeric has at the most.
const DIGITS_MAX: usize = 76;

/// An exact number: an integer and how many of its digits stand behind the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numeric {
    /// The number without its point.
    pub unscaled: i256,
    /// Digits behind the point.
    pub scale: u8,
    /// Digits in all, leading zeros apart, at least one.
    pub precision: u8,
}

impl Numeric {
    /// The unscaled number at another scale, rounded half away from zero; none where it does not fit.
    pub fn at_scale(&self, scale: u8) -> Option<i256> {
        if scale >= self.scale {
            return self.unscaled.checked_mul(power_of_ten(scale - self.scale)?);
        }
        let divisor = power_of_ten(self.scale - scale)?;
        let (quotient, rest) = (self.unscaled.checked_div(divisor)?, self.unscaled.checked_rem(divisor)?);
        let doubled = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
        if doubled < divisor {
            return Some(quotient);
        }
        let away = if self.unscaled < i256::ZERO { i256::MINUS_ONE } else { i256::ONE };
        quotient.checked_add(away)
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.unscaled.to_string();
        let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
        let scale = usize::from(self.scale);
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at_checked(padded.len() - scale).unwrap_or((&padded, ""));
        if fraction.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

/// A power of ten of at most 76 digits.
pub(crate) fn power_of_ten(exponent: u8) -> Option<i256> {
    i256::from_i128(10).checked_pow(u32::from(exponent))
}

/// The numeric that text writes, with each of its digits.
pub fn parse_numeric(text: &str) -> Result<Numeric, Malformed> {
    let wrong = || Malformed::new("DECIMAL", text);
    let trimmed = text.trim();
    let (negative, unsigned) = match trimmed.strip_prefix(['-', '+']) {
        Some(rest) => (trimmed.starts_with('-'), rest),
        None => (false, trimmed),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| wrong())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty()
        || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
    {
        return Err(wrong());
    }
    let too_long = || wrong().because("it has more than 76 digits");
    let mut digits: String = [whole, fraction].concat();
    let mut scale = i64::try_from(fraction.len()).map_err(|_| too_long())? - i64::from(exponent);
    if digits.bytes().all(|digit| digit == b'0') {
        digits.clear();
        scale = scale.clamp(0, 37);
    }
    if scale < 0 {
        let zeros = usize::try_from(-scale).map_err(|_| too_long())?;
        if zeros > DIGITS_MAX {
            return Err(too_long());
        }
        digits.extend(std::iter::repeat_n('0', zeros));
        scale = 0;
    }
    let significant = digits.trim_start_matches('0');
    let scale = u8::try_from(scale).ok().filter(|scale| usize::from(*scale) <= DIGITS_MAX);
    let scale = scale.ok_or_else(too_long)?;
    if significant.len() > DIGITS_MAX {
        return Err(too_long());
    }
    let signed = format!(
        "{}{}",
        if negative { "-" } else { "" },
        if significant.is_empty() { "0" } else { significant }
    );
    let unscaled = signed.parse::<i256>().map_err(|_| wrong())?;
    let precision = u8::try_from(significant.len()).unwrap_or(u8::MAX).max(scale).max(1);
    Ok(Numeric { unscaled, scale, precision })
}
