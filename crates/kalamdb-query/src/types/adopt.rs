//! Literals that take the type of what they stand beside.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Case, Expr};

use super::operators::common_time;
use super::{cast_to, sql_type_of, type_of};
use crate::functions::{coalesce, digits_of, exact_type, is_decimal, is_float, to_arrow};
use crate::text;

/// Whether an expression is text that a statement writes without a type.
pub(super) fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), None))
}

/// A literal as a value of a type, where it is text without one; anything else stays.
pub(super) fn literal(expr: Expr, target: &DataType, sql_type: Option<&str>) -> Result<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), None) = &expr else { return Ok(expr) };
    match read(text, target, sql_type)? {
        Some(value) => Ok(Expr::Literal(value, None)),
        None => Ok(expr),
    }
}

/// The value that text writes for a type; none where text is what it takes.
pub(super) fn read(text: &str, target: &DataType, sql_type: Option<&str>) -> Result<Option<ScalarValue>> {
    let wrong = |error: text::Malformed| DataFusionError::Plan(error.to_string());
    let too_large = || DataFusionError::Plan(format!("\"{text}\" is out of range of its type"));
    Ok(Some(match (target, sql_type) {
        (_, Some("UUID")) => ScalarValue::Utf8(Some(text::parse_uuid(text).map_err(wrong)?.to_string())),
        (DataType::Boolean, _) => ScalarValue::Boolean(Some(text::parse_boolean(text).map_err(wrong)?)),
        (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, _) => {
            let value = ScalarValue::Int64(Some(text::parse_integer(text).map_err(wrong)?));
            value.cast_to(target).ok().filter(|value| !value.is_null()).ok_or_else(too_large)?
        }
        (DataType::Float32, _) => ScalarValue::Float32(Some(text::parse_real(text).map_err(wrong)?)),
        (DataType::Float64, _) => ScalarValue::Float64(Some(text::parse_float(text).map_err(wrong)?)),
        (DataType::Decimal128(..) | DataType::Decimal256(..), _) => decimal(text)?,
        (DataType::Timestamp(_, zone), _) => {
            let micros = text::parse_timestamp(text, zone.is_some()).map_err(wrong)?;
            ScalarValue::TimestampMicrosecond(Some(micros), zone.clone())
        }
        (DataType::Date32, _) => ScalarValue::Date32(Some(text::parse_date(text).map_err(wrong)?)),
        (DataType::Time64(_), _) => {
            ScalarValue::Time64Microsecond(Some(text::parse_time(text).map_err(wrong)?))
        }
        (DataType::Interval(_) | DataType::Duration(_), _) => ScalarValue::IntervalMonthDayNano(Some(
            to_arrow(text::parse_interval(text, None).map_err(wrong)?)?,
        )),
        (DataType::Binary, _) => ScalarValue::Binary(Some(text::parse_bytes(text).map_err(wrong)?)),
        _ => return Ok(None),
    }))
}

/// Text as the numeric it writes, with each of its digits.
pub(super) fn decimal(text: &str) -> Result<ScalarValue> {
    let number = text::parse_numeric(text).map_err(|error| DataFusionError::Plan(error.to_string()))?;
    let scale = i8::try_from(number.scale).unwrap_or(i8::MAX);
    Ok(match number.unscaled.to_i128() {
        Some(unscaled) if number.precision <= 38 => {
            ScalarValue::Decimal128(Some(unscaled), number.precision.max(1), scale)
        }
        _ => ScalarValue::Decimal256(Some(number.unscaled), number.precision, scale),
    })
}

/// The type that several values are made alike to, where `DataFusion` would choose another: the first typed one for literals, a
/// double beside decimals.
fn common(values: &[&Expr], schema: &DFSchema) -> Option<(DataType, Option<String>)> {
    let typed: Vec<(&Expr, DataType)> = values
        .iter()
        .filter(|value| !is_untyped(value))
        .filter_map(|value| Some((*value, type_of(value, schema)?)))
        .filter(|(_, found)| *found != DataType::Null)
        .collect();
    let floats = typed.iter().any(|(_, found)| is_float(found));
    if floats && typed.iter().any(|(_, found)| is_decimal(found) || found.is_integer()) {
        return Some((DataType::Float64, None));
    }
    let exact: Option<Vec<(u8, i8)>> = typed.iter().map(|(_, found)| digits_of(found)).collect();
    if let Some(exact) = exact
        && typed.iter().any(|(_, found)| Some(found) != typed.first().map(|(_, first)| first))
    {
        return Some((exact_type(&exact, typed.iter().any(|(_, found)| is_decimal(found))), None));
    }
    if let Some(target) = common_time(typed.iter().map(|(_, found)| found)) {
        return Some((target, None));
    }
    let (first, found) = typed.into_iter().next()?;
    Some((found, sql_type_of(first, schema)))
}

fn alike(values: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let refs: Vec<&Expr> = values.iter().collect();
    let Some((target, sql_type)) = common(&refs, schema) else { return Ok(values) };
    values
        .into_iter()
        .map(|value| {
            if is_untyped(&value) {
                return literal(value, &target, sql_type.as_deref());
            }
            match type_of(&value, schema) {
                Some(found)
                    if target.is_numeric() && found.is_numeric()
                        || found == DataType::Date32 && matches!(target, DataType::Timestamp(..)) =>
                {
                    Ok(cast_to(value, &found, &target))
                }
                _ => Ok(value),
            }
        })
        .collect()
}

/// The arguments of a function that gives one of them.
pub(super) fn arguments(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let ScalarFunction { func, args } = call;
    let args = alike(args, schema)?;
    if matches!(func.name(), "coalesce" | "nvl" | "ifnull") {
        return Ok(Transformed::yes(coalesce(args)));
    }
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
}

/// Values made alike so that the kernels of Arrow compare them as `=` and `<` do.
pub(super) fn comparable(values: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    Ok(alike(values, schema)?.into_iter().map(|value| super::sort_key(value, schema).data).collect())
}

/// Whether an expression may stand several times where it stood once: a column, a literal, a cast of one.
pub(super) fn is_small(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::Literal(..) => true,
        Expr::Cast(cast) => is_small(&cast.expr),
        Expr::Alias(alias) => is_small(&alias.expr),
        _ => false,
    }
}

/// A CASE: its results are made alike, and its operand and what that is compared with.
pub(super) fn case(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Case { mut expr, when_then_expr, else_expr } = case;
    let (mut conditions, mut results): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    match expr.take() {
        // Compared one by one, as `=` compares.
        Some(operand) if is_small(&operand) => {
            conditions = conditions
                .into_iter()
                .map(|when| Ok(super::resolve_part(operand.as_ref().clone().eq(when), schema)?.data))
                .collect::<Result<_>>()?;
        }
        Some(operand) => {
            conditions.push(*operand);
            conditions = comparable(conditions, schema)?;
            expr = conditions.pop().map(Box::new);
        }
        None => {}
    }
    let has_else = else_expr.is_some();
    results.extend(else_expr.map(|value| *value));
    let mut results = alike(results, schema)?;
    let else_expr = if has_else { results.pop().map(Box::new) } else { None };
    let when_then_expr =
        conditions.into_iter().zip(results).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    Ok(Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr })))
}
