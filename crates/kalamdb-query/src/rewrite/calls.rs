//! Calls of functions that have another name or other arguments here, and literals.

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Value, ValueWithSpan,
};

use super::expressions::{call, op};
use crate::text;

/// A literal in a form that `DataFusion` reads as PostgreSQL does; none where it has that form.
pub(super) fn literal(expr: &Expr) -> Result<Option<Expr>, String> {
    match expr {
        Expr::Cast { expr, data_type, .. } if is_float(data_type) => Ok(float_of_digits(expr, data_type)),
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => without_exponent(digits),
        Expr::Value(ValueWithSpan { value: Value::UnicodeStringLiteral(text), .. }) => {
            Ok(Some(Expr::value(Value::SingleQuotedString(text.clone()))))
        }
        Expr::Interval(interval) => interval_literal(interval),
        _ => Ok(None),
    }
}

/// Whether a type is one of floating-point numbers.
const fn is_float(data_type: &ast::DataType) -> bool {
    use ast::DataType as T;
    matches!(
        data_type,
        T::Float(_)
            | T::Real
            | T::Double(_)
            | T::DoublePrecision
            | T::Float4
            | T::Float8
            | T::Float32
            | T::Float64
    )
}

/// A number with an exponent that is cast to a floating-point number: it is read as one, with whatever exponent.
fn float_of_digits(expr: &Expr, data_type: &ast::DataType) -> Option<Expr> {
    let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) = expr else { return None };
    digits.contains(['e', 'E']).then(|| Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(Expr::value(Value::SingleQuotedString(digits.clone()))),
        data_type: data_type.clone(),
        array: false,
        format: None,
    })
}

/// A number with an exponent without it: `DataFusion` gives `1e3` the scale -3, which functions of decimals do not expect.
fn without_exponent(digits: &str) -> Result<Option<Expr>, String> {
    if !digits.contains(['e', 'E']) {
        return Ok(None);
    }
    let mut digits = text::parse_numeric(digits).map_err(|error| error.to_string())?.to_string();
    if !digits.contains('.') {
        // It is a numeric all the same.
        digits.push('.');
    }
    Ok(Some(Expr::value(Value::Number(digits, false))))
}

/// A literal of an interval in the words that `DataFusion` reads alike; none where it has them already.
fn interval_literal(interval: &ast::Interval) -> Result<Option<Expr>, String> {
    let written = match interval.value.as_ref() {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text) | Value::Number(text, _),
            ..
        }) => text.clone(),
        _ => return Ok(None),
    };
    let name = |field: &ast::DateTimeField| field.to_string().to_lowercase();
    let (first, last) = (interval.leading_field.as_ref().map(name), interval.last_field.as_ref().map(name));
    let fields = first.as_deref().map(|first| text::Fields { first, last: last.as_deref() });
    let mut span = text::parse_interval(&written, fields).map_err(|error| error.to_string())?;
    // `SECOND (3)`: the one number between the parentheses is the precision of seconds.
    let is_second = first.as_deref() == Some("second");
    let precision = if is_second { interval.leading_precision } else { None };
    if let Some(digits @ 0..=5) = interval.fractional_seconds_precision.or(precision) {
        let unit = 10_i64.pow(6 - u32::try_from(digits).unwrap_or(0));
        let half = if span.micros < 0 { -unit / 2 } else { unit / 2 };
        span.micros = (span.micros + half) / unit * unit;
    }
    let canonical = format!("{} months {} days {} microseconds", span.months, span.days, span.micros);
    if canonical == written && first.is_none() {
        return Ok(None);
    }
    let value = Box::new(Expr::value(Value::SingleQuotedString(canonical)));
    Ok(Some(Expr::Interval(ast::Interval {
        value,
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })))
}

/// The two arguments of a call.
fn pair(args: Vec<Expr>) -> Option<(Expr, Expr)> {
    let [first, second] = <[Expr; 2]>::try_from(args).ok()?;
    Some((first, second))
}

/// `json_object_agg`: the object of an array of pairs, in the aggregate's order.
fn object_of_pairs(function: &Function, name: &str) -> Option<Expr> {
    let mut inner = function.clone();
    inner.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let FunctionArguments::List(list) = &mut inner.args else { return None };
    let args = list.args.drain(..).map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    let (key, value) = pair(args.collect::<Option<Vec<_>>>()?)?;
    let pair = call("json_pair", vec![key, call("to_json", vec![value])]);
    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(pair))];
    let join = if name == "json_object_agg" { "json_join_pairs" } else { "jsonb_join_pairs" };
    Some(call(join, vec![Expr::Function(inner)]))
}

/// The arguments of `make_interval` in their order, some of which a call may name.
fn interval_arguments(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    const NAMES: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let zero = || Expr::value(Value::Number("0".to_owned(), false));
    let mut all = [const { None }; NAMES.len()];
    for (at, arg) in args.iter().enumerate() {
        let (at, arg) = match arg {
            FunctionArg::Unnamed(arg) => (at, arg),
            FunctionArg::Named { name, arg, .. } => {
                (NAMES.iter().position(|known| name.value.eq_ignore_ascii_case(known))?, arg)
            }
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                (NAMES.iter().position(|known| name.value.eq_ignore_ascii_case(known))?, arg)
            }
            FunctionArg::ExprNamed { .. } => return None,
        };
        let FunctionArgExpr::Expr(expr) = arg else { return None };
        let slot = all.get_mut(at).filter(|slot| slot.is_none())?;
        *slot = Some(expr.clone());
    }
    Some(all.into_iter().map(|slot| slot.unwrap_or_else(zero)).collect())
}

/// Functions that have another name here, and `age` of one argument.
pub(super) fn renamed(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    let args = || -> Option<Vec<Expr>> {
        list.args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect()
    };
    let as_named = |name: &str| {
        let mut function = function.clone();
        function.name = ObjectName::from(vec![Ident::new(name)]);
        Some(Expr::Function(function))
    };
    match (name.as_str(), list.args.len()) {
        ("mod", 2) => {
            let (a, b) = pair(args()?)?;
            Some(Expr::Nested(Box::new(op(a, BinaryOperator::Modulo, b))))
        }
        ("json_object_agg" | "jsonb_object_agg", 2) => object_of_pairs(function, &name),
        ("make_interval", _) => Some(call("make_interval", interval_arguments(&list.args)?)),
        ("variance", 1) => as_named("var_samp"),
        ("every", 1) => as_named("bool_and"),
        ("gen_random_uuid", 0) => Some(call("uuid", Vec::new())),
        ("age", 1) => {
            let today = Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(call("current_date", Vec::new())),
                data_type: ast::DataType::Timestamp(None, ast::TimezoneInfo::None),
                array: false,
                format: None,
            };
            Some(call("age", vec![today, args()?.pop()?]))
        }
        ("array_remove", 2) => Some(call("array_remove_all", args()?)),
        ("sign", 1) => Some(call("signum", args()?)),
        ("localtimestamp", 0) => Some(Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(call("now", Vec::new())),
            data_type: ast::DataType::Timestamp(None, ast::TimezoneInfo::None),
            array: false,
            format: None,
        }),
        ("transaction_timestamp" | "statement_timestamp" | "clock_timestamp", 0) => {
            Some(call("now", Vec::new()))
        }
        _ => None,
    }
}
