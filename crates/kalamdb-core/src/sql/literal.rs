//! Values written in a statement that need no query engine: literals, parameters, functions without arguments.

use datafusion::sql::sqlparser::ast::{Expr, FunctionArguments, UnaryOperator, Value as Literal};
use log_format::{DataType, Value};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::sql::parse::identifier;
use crate::values;

/// The name of a function that is called without arguments.
pub(crate) fn function_name(expression: &Expr) -> Option<String> {
    let Expr::Function(function) = expression else { return None };
    let bare = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let [name] = function.name.0.as_slice() else { return None };
    bare.then(|| name.as_ident().map(identifier)).flatten()
}

/// The number of a parameter `$n`, from 1.
pub(crate) fn parameter_number(text: &str) -> Option<usize> {
    text.strip_prefix('$')?.parse().ok().filter(|number| *number > 0)
}

/// The value an expression writes for a column of this type; none where it is no literal.
///
/// # Errors
/// Where it is a literal, but not one of that type.
pub(crate) fn constant(expression: &Expr, data_type: DataType) -> Result<Option<Value>> {
    value(expression, data_type, &[])
}

/// As [`constant`], or a parameter.
///
/// # Errors
/// Where it is a literal or parameter, but not one of that type.
pub(crate) fn value(expression: &Expr, data_type: DataType, params: &[Json]) -> Result<Option<Value>> {
    match expression {
        Expr::Nested(inner) => value(inner, data_type, params),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(literal) => match &literal.value {
                Literal::Number(text, _) => number(&format!("-{text}"), data_type),
                _ => Ok(None),
            },
            _ => Ok(None),
        },
        Expr::Value(literal) => match &literal.value {
            Literal::Null => Ok(Some(Value::Null)),
            Literal::Number(text, _) => number(text, data_type),
            Literal::SingleQuotedString(text) | Literal::EscapedStringLiteral(text) => {
                values::from_text(text, data_type).map(Some)
            }
            Literal::DollarQuotedString(text) => values::from_text(&text.value, data_type).map(Some),
            Literal::Boolean(value) if data_type == DataType::Boolean => Ok(Some(Value::Boolean(*value))),
            Literal::Placeholder(name) => parameter(name, data_type, params).map(Some),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// A number without the sign of its zero: a number that is written without quotes is a decimal first, which has none.
fn without_sign_of_zero(value: Value) -> Value {
    match value {
        Value::Double(number) => Value::Double(number + 0.0),
        Value::Float(number) => Value::Float(number + 0.0),
        other => other,
    }
}

/// Numbers written as integers or with a point; what needs rounding or a cast is left to the query engine.
fn number(text: &str, data_type: DataType) -> Result<Option<Value>> {
    match data_type {
        DataType::SmallInt | DataType::Int | DataType::BigInt if text.contains(['.', 'e', 'E']) => Ok(None),
        DataType::SmallInt
        | DataType::Int
        | DataType::BigInt
        | DataType::Float
        | DataType::Double
        | DataType::Decimal { .. } => values::from_text(text, data_type).map(without_sign_of_zero).map(Some),
        _ => Ok(None),
    }
}

fn parameter(name: &str, data_type: DataType, params: &[Json]) -> Result<Value> {
    let number = parameter_number(name).ok_or_else(|| Error::Parameter {
        number: 0,
        problem: format!("{name} is no parameter; write $1, $2, …"),
    })?;
    let json = params.get(number - 1).ok_or_else(|| Error::Parameter {
        number,
        problem: format!("the request has {} parameters", params.len()),
    })?;
    values::from_json(json, data_type)
        .map_err(|error| Error::Parameter { number, problem: error.to_string() })
}
