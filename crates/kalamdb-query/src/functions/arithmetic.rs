//! Arithmetic with PostgreSQL's results: exact quotients, rounding, negation, and intervals multiplied by numbers.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Array, Decimal256Array, Float32Array,
    Float64Array, IntervalMonthDayNanoArray, PrimitiveArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal256Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, i256,
};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::Totality::{Partial, Total};
use super::spans::{SPAN, to_arrow};
use super::{Evaluate, Function, call_shared};
use crate::text::{Interval, power_of_ten};

/// Maximum digits before the point of a quotient in 128 bits, which has [`QUOTIENT_SCALE`] behind it.
const NARROW_DIGITS: u8 = 18;
/// Digits behind the point of a quotient's type; PostgreSQL's rule decides how many of them a value uses.
const QUOTIENT_SCALE: i8 = 20;

/// The digits and scale of a decimal type, or of the decimal type that holds all values of an integer type.
pub(crate) const fn digits_of(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            // Digits before the point that are not kept are zeros.
            let zeros = if *scale < 0 { scale.unsigned_abs() } else { 0 };
            Some((precision.saturating_add(zeros), if *scale < 0 { 0 } else { *scale }))
        }
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        _ => None,
    }
}

/// Whether a type is one of floating-point numbers.
pub(crate) const fn is_float(found: &DataType) -> bool {
    matches!(found, DataType::Float32 | DataType::Float64)
}

/// Whether a type is one of decimals.
pub(crate) const fn is_decimal(found: &DataType) -> bool {
    matches!(found, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// The smallest type that holds the exact numbers of several digits and scales.
pub(crate) fn exact_type(digits: &[(u8, i8)], is_decimal: bool) -> DataType {
    let scale = digits.iter().map(|(_, scale)| *scale).max().unwrap_or(0);
    let whole =
        digits.iter().map(|(digits, scale)| i16::from(*digits) - i16::from(*scale)).max().unwrap_or(1);
    if !is_decimal {
        return match whole {
            ..=5 => DataType::Int16,
            6..=10 => DataType::Int32,
            _ => DataType::Int64,
        };
    }
    match u8::try_from(whole + i16::from(scale)).unwrap_or(76).clamp(1, 76) {
        precision @ ..=38 => DataType::Decimal128(precision, scale),
        precision => DataType::Decimal256(precision, scale),
    }
}

/// `a / b` of numerics.
pub(crate) fn divide_numerics(a: Expr, b: Expr) -> Expr {
    call_shared!(Function::new("numeric_divide", Partial, quotient_type, evaluate_quotient), vec![a, b])
}

/// The type of a quotient of numerics.
fn quotient_type(types: &[DataType]) -> Result<DataType> {
    let [a, b] = types else { return plan_err!("numeric_divide takes two arguments") };
    let (Some((a_precision, a_scale)), Some((_, b_scale))) = (digits_of(a), digits_of(b)) else {
        return plan_err!("numeric_divide takes two numerics");
    };
    let whole = i16::from(a_precision) - i16::from(a_scale) + i16::from(b_scale);
    let scale = QUOTIENT_SCALE.max(a_scale).max(b_scale);
    let is_narrow = whole <= i16::from(NARROW_DIGITS) && scale == QUOTIENT_SCALE;
    Ok(if is_narrow { DataType::Decimal128(38, scale) } else { DataType::Decimal256(76, scale) })
}

/// An array of integers or decimals in 256 bits, with its scale.
fn wide(array: &ArrayRef) -> Result<(ArrayRef, u8)> {
    let Some((_, scale)) = digits_of(array.data_type()) else { return exec_err!("not a numeric") };
    let wide = cast(array, &DataType::Decimal256(76, scale))?;
    Ok((wide, u8::try_from(scale).unwrap_or(0)))
}

/// Evaluates `numeric_divide`.
fn evaluate_quotient(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [a, b] = args else { return exec_err!("numeric_divide takes two arguments") };
    let ((a, a_scale), (b, b_scale)) = (wide(a)?, wide(b)?);
    let (a, b) = (a.as_primitive::<Decimal256Type>(), b.as_primitive::<Decimal256Type>());
    let Some((_, scale)) = digits_of(target) else { return exec_err!("not a numeric") };
    let scale = u8::try_from(scale).unwrap_or(0);
    let values = a.iter().zip(b.iter()).map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => quotient(a, a_scale, b, b_scale, scale).map(Some),
        _ => Ok(None),
    });
    narrow(values.collect::<Result<Vec<_>>>()?, target)
}

/// Values in a decimal type; an error where one does not fit.
pub(crate) fn narrow(values: Vec<Option<i256>>, target: &DataType) -> Result<ArrayRef> {
    match target {
        DataType::Decimal128(precision, scale) => {
            let narrow = values.into_iter().map(|value| match value {
                None => Ok(None),
                Some(value) => match value.to_i128() {
                    Some(value) if value.unsigned_abs() < 10_u128.pow(u32::from(*precision)) => {
                        Ok(Some(value))
                    }
                    _ => exec_err!(
                        "numeric field overflow: {precision} digits, {scale} of them behind the point"
                    ),
                },
            });
            let array = narrow.collect::<Result<Decimal128Array>>()?;
            Ok(Arc::new(array.with_precision_and_scale(*precision, *scale)?))
        }
        DataType::Decimal256(precision, scale) => {
            let array = Decimal256Array::from(values).with_precision_and_scale(*precision, *scale)?;
            array.validate_decimal_precision(*precision)?;
            Ok(Arc::new(array))
        }
        other => exec_err!("{other} is not a decimal type"),
    }
}

/// The quotient of two numerics at `scale`, rounded to the digits that PostgreSQL gives it.
pub(crate) fn quotient(a: i256, a_scale: u8, b: i256, b_scale: u8, scale: u8) -> Result<i256> {
    if b == i256::ZERO {
        return exec_err!("division by zero");
    }
    let digits = quotient_digits(a, a_scale, b, b_scale).min(scale);
    let overflow = || datafusion::error::DataFusionError::Execution("numeric field overflow".to_owned());
    // a / 10^as / (b / 10^bs) * 10^digits = a * 10^(digits + bs - as) / b
    let shift = i16::from(digits) + i16::from(b_scale) - i16::from(a_scale);
    let power = |exponent: i16| u8::try_from(exponent).ok().and_then(power_of_ten).ok_or_else(overflow);
    let (dividend, divisor) = if shift >= 0 {
        (a.checked_mul(power(shift)?).ok_or_else(overflow)?, b)
    } else {
        (a, b.checked_mul(power(-shift)?).ok_or_else(overflow)?)
    };
    let (whole, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    let two = i256::from_i128(2);
    let magnitude = |value: i256| if value < i256::ZERO { value.wrapping_neg() } else { value };
    let is_away = magnitude(rest).checked_mul(two).is_none_or(|doubled| doubled >= magnitude(divisor));
    let sign = if (dividend < i256::ZERO) == (divisor < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    let rounded = if is_away { whole.checked_add(sign).ok_or_else(overflow)? } else { whole };
    rounded.checked_mul(power(i16::from(scale - digits))?).ok_or_else(overflow)
}

/// Scale of a quotient in PostgreSQL: at least sixteen significant digits, counted in groups of four
/// (`select_div_scale` of its `numeric.c`).
fn quotient_digits(a: i256, a_scale: u8, b: i256, b_scale: u8) -> u8 {
    let (a_weight, a_first) = leading_group(a, a_scale);
    let (b_weight, b_first) = leading_group(b, b_scale);
    let mut weight = a_weight - b_weight;
    if a_first <= b_first {
        weight -= 1;
    }
    let digits = (16 - weight * 4).max(i32::from(a_scale)).max(i32::from(b_scale)).max(0);
    u8::try_from(digits).unwrap_or(u8::MAX)
}

/// The weight of a number's leading group of four digits, counted from the point, and its value.
fn leading_group(value: i256, scale: u8) -> (i32, u16) {
    if value == i256::ZERO {
        return (0, 0);
    }
    let text = value.to_string();
    let digits = text.trim_start_matches('-');
    let exponent = i32::try_from(digits.len()).unwrap_or(0) - 1 - i32::from(scale);
    let weight = exponent.div_euclid(4);
    let count = usize::try_from(exponent - weight * 4 + 1).unwrap_or(1);
    let group: String = digits.chars().chain(std::iter::repeat('0')).take(count).collect();
    (weight, group.parse().unwrap_or(0))
}

/// `a / b` of floating-point numbers, an error where b is zero.
pub(crate) fn divide_floats(a: Expr, b: Expr) -> Expr {
    call_shared!(
        Function::to("float_divide", Partial, DataType::Float64, evaluate_float_quotient),
        vec![a, b]
    )
}

/// Evaluates `float_divide`.
fn evaluate_float_quotient(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [a, b] = args else { return exec_err!("float_divide takes two arguments") };
    let (a, b) = (cast(a, &DataType::Float64)?, cast(b, &DataType::Float64)?);
    let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
    let values = a.iter().zip(b.iter()).map(|(a, b)| match (a, b) {
        (Some(a), Some(0.0)) if !a.is_nan() => exec_err!("division by zero"),
        (Some(a), Some(b)) => Ok(Some(a / b)),
        _ => Ok(None),
    });
    Ok(Arc::new(values.collect::<Result<Float64Array>>()?))
}

/// A floating-point number rounded to a whole one, half to even.
pub(crate) fn round_float(value: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [value] = args else { return exec_err!("round takes one argument") };
        let value = cast(value, &DataType::Float64)?;
        let rounded: Float64Array = value.as_primitive::<Float64Type>().unary(f64::round_ties_even);
        Ok(Arc::new(rounded))
    };
    call_shared!(Function::to("round_float", Total, DataType::Float64, EVALUATE), vec![value])
}

/// A floating-point number as an integer, rounded half to even; an error where it does not fit.
pub(crate) fn round_to_integer(value: Expr, target: &DataType) -> Expr {
    Function::to("round_to_integer", Partial, target.clone(), evaluate_integer).call(vec![value])
}

/// Evaluates `round_to_integer`.
fn evaluate_integer(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [value] = args else { return exec_err!("round_to_integer takes one argument") };
    let value = cast(value, &DataType::Float64)?;
    let value = value.as_primitive::<Float64Type>();
    match target {
        DataType::Int16 => integers::<Int16Type>(value, "SMALLINT"),
        DataType::Int32 => integers::<Int32Type>(value, "INT"),
        _ => integers::<Int64Type>(value, "BIGINT"),
    }
}

/// Floating-point numbers as integers, as [`round_to_integer`] computes them.
pub(super) fn integers_of(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    evaluate_integer(&[Arc::clone(array)], target)
}

/// Doubles as integers of a type, rounded half to even.
fn integers<T: ArrowPrimitiveType>(values: &Float64Array, name: &str) -> Result<ArrayRef>
where
    T::Native: TryFrom<i64>,
{
    let integer = |value: f64| {
        let rounded = value.round_ties_even();
        // The bound itself is no 64-bit integer any more.
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded);
        #[expect(clippy::cast_possible_truncation, reason = "the bounds were looked at")]
        let whole = fits.then_some(rounded as i64);
        whole.and_then(|whole| T::Native::try_from(whole).ok())
    };
    let integers = values.iter().map(|value| match value {
        None => Ok(None),
        Some(value) => match integer(value) {
            Some(integer) => Ok(Some(integer)),
            None => exec_err!("{value} is out of range of {name}"),
        },
    });
    Ok(Arc::new(integers.collect::<Result<PrimitiveArray<T>>>()?))
}

/// A number as a 32-bit floating-point number; an error where it is too large or too small for one.
pub(crate) fn to_real(value: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [value] = args else { return exec_err!("a cast takes one argument") };
        reals_of(value)
    };
    call_shared!(Function::to("to_real", Partial, DataType::Float32, EVALUATE), vec![value])
}

/// Numbers as 32-bit floating-point numbers, as [`to_real`] computes them.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn reals_of(array: &ArrayRef) -> Result<ArrayRef> {
    let wide = cast(array, &DataType::Float64)?;
    let values = wide.as_primitive::<Float64Type>().iter().map(|value| match value {
        None => Ok(None),
        Some(value) => {
            let narrow = value as f32;
            let is_lost = narrow.is_infinite() && value.is_finite() || narrow == 0.0 && value != 0.0;
            if is_lost { exec_err!("{value} is out of range of REAL") } else { Ok(Some(narrow)) }
        }
    });
    Ok(Arc::new(values.collect::<Result<Float32Array>>()?))
}

/// `-value` of an integer, an error where it does not fit.
pub(crate) fn negate_checked(value: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [value] = args else { return exec_err!("negation takes one argument") };
        Ok(datafusion::arrow::compute::kernels::numeric::neg(value.as_ref())?)
    };
    const RETURNS: fn(&[DataType]) -> Result<DataType> =
        |types| Ok(types.first().cloned().unwrap_or(DataType::Int64));
    call_shared!(Function::new("checked_negate", Partial, RETURNS, EVALUATE), vec![value])
}

/// An interval multiplied by a number.
pub(crate) fn multiply_span(span: Expr, factor: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| scale_spans(args, |part, factor| Ok(part * factor));
    call_shared!(Function::to("span_multiply", Partial, SPAN, EVALUATE), vec![span, factor])
}

/// An interval divided by a number.
pub(crate) fn divide_span(span: Expr, divisor: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        scale_spans(
            args,
            |part, divisor| {
                if divisor == 0.0 { exec_err!("division by zero") } else { Ok(part / divisor) }
            },
        )
    };
    call_shared!(Function::to("span_divide", Partial, SPAN, EVALUATE), vec![span, divisor])
}

/// Evaluates the multiplication or division of intervals by numbers.
fn scale_spans(args: &[ArrayRef], scale: fn(f64, f64) -> Result<f64>) -> Result<ArrayRef> {
    let [span, factor] = args else { return exec_err!("an interval is scaled by one number") };
    let (span, factor) = (cast(span, &SPAN)?, cast(factor, &DataType::Float64)?);
    let pairs = span
        .as_primitive::<IntervalMonthDayNanoType>()
        .iter()
        .zip(factor.as_primitive::<Float64Type>().iter());
    let spans = pairs.map(|(span, factor)| match (span, factor) {
        (Some(span), Some(factor)) => scaled(span, factor, scale).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(spans.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

/// A double as a 32-bit integer, truncated; an error where it does not fit.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn truncated(value: f64) -> Result<i32> {
    if value.is_nan() || value > f64::from(i32::MAX) || value < f64::from(i32::MIN) {
        return exec_err!("interval out of range");
    }
    Ok(value as i32)
}

/// An interval with each part scaled. A fraction of a month is carried to days, a fraction of a day to the time
/// (`interval_mul` of PostgreSQL's `timestamp.c`).
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
#[expect(clippy::cast_precision_loss, reason = "PostgreSQL computes in doubles as well")]
pub(super) fn scaled(
    span: IntervalMonthDayNano,
    factor: f64,
    scale: fn(f64, f64) -> Result<f64>,
) -> Result<IntervalMonthDayNano> {
    const DAY_SECONDS: f64 = 86_400.0;
    const MICROS_MAX: f64 = 9_223_372_036_854_775_807.0;
    let to_micros = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let exact_months = scale(f64::from(span.months), factor)?;
    let months = truncated(exact_months)?;
    let exact_days = scale(f64::from(span.days), factor)?;
    let mut days = truncated(exact_days)?;
    let month_days = to_micros((exact_months - f64::from(months)) * 30.0);
    let whole_month_days = truncated(month_days)?;
    let fraction = exact_days - f64::from(days) + month_days - f64::from(whole_month_days);
    let mut seconds = to_micros(fraction * DAY_SECONDS);
    let carried = truncated(seconds / DAY_SECONDS)?;
    seconds -= f64::from(carried) * DAY_SECONDS;
    let out_of_range = || datafusion::error::DataFusionError::Execution("interval out of range".to_owned());
    days = days
        .checked_add(carried)
        .and_then(|days| days.checked_add(whole_month_days))
        .ok_or_else(out_of_range)?;
    let micros = (scale((span.nanoseconds / 1000) as f64, factor)? + seconds * 1e6).round_ties_even();
    if micros.is_nan() || micros.abs() >= MICROS_MAX {
        return exec_err!("interval out of range");
    }
    to_arrow(Interval { months, days, micros: micros as i64 })
}

/// `div` by name.
pub(super) fn named() -> Vec<Function> {
    let returns: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [a, b] if digits_of(a).is_some() && digits_of(b).is_some() => Ok(DataType::Decimal128(38, 0)),
        _ => plan_err!("div takes two numerics"),
    };
    vec![Function::new("div", Partial, returns, evaluate_whole_quotient)]
}

/// Evaluates `div`: the quotient without its fraction.
fn evaluate_whole_quotient(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let [a, b] = args else { return exec_err!("div takes two arguments") };
    let ((a, a_scale), (b, b_scale)) = (wide(a)?, wide(b)?);
    let scale = a_scale.max(b_scale);
    let to = DataType::Decimal256(76, i8::try_from(scale).unwrap_or(0));
    let (a, b) = (cast(&a, &to)?, cast(&b, &to)?);
    let pairs = a.as_primitive::<Decimal256Type>().iter().zip(b.as_primitive::<Decimal256Type>().iter());
    let values = pairs.map(|(a, b)| match (a, b) {
        (Some(_), Some(b)) if b == i256::ZERO => exec_err!("division by zero"),
        (Some(a), Some(b)) => Ok(Some(a.wrapping_div(b))),
        _ => Ok(None),
    });
    narrow(values.collect::<Result<Vec<_>>>()?, target)
}

/// The truth value of an integer: true of one. The optimizer does not simplify it.
pub(crate) fn is_one(value: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [value] = args else { return exec_err!("is_one takes one argument") };
        let truth: datafusion::arrow::array::BooleanArray = value
            .as_primitive::<datafusion::arrow::datatypes::Int8Type>()
            .iter()
            .map(|value| value.map(|value| value == 1))
            .collect();
        Ok(Arc::new(truth))
    };
    call_shared!(Function::to("is_one", Total, DataType::Boolean, EVALUATE), vec![value])
}

/// The average of `count` numbers with the sum `sum`, in a decimal type.
///
/// # Errors
/// An average that does not fit.
pub fn average_of(sum: i256, scale: u8, count: i64, target: &DataType) -> Result<i256> {
    let Some((_, digits)) = digits_of(target) else { return exec_err!("{target} is not a decimal type") };
    quotient(sum, scale, i256::from_i128(count.into()), 0, u8::try_from(digits).unwrap_or(0))
}
