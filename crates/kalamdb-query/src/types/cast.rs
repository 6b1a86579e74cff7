//! Casts that round, read text and write it as PostgreSQL does.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::functions::expr_fn::round;
use datafusion::logical_expr::{Cast, Expr};

use super::{adopt, sql_type_of, type_of};
use crate::functions::{TYPE_METADATA, as_text, parse_as, round_to_integer, to_real};
use crate::types::planner::FREE_SCALE;

pub(super) fn resolve(cast: Cast, schema: &DFSchema) -> Transformed<Expr> {
    let target = cast.field.data_type().clone();
    let sql_type = cast.field.metadata().get(TYPE_METADATA).cloned();
    let Some(from) = type_of(&cast.expr, schema) else { return Transformed::no(Expr::Cast(cast)) };
    let is_text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let to_text = matches!(target, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    if let Some(known) = known(sql_type.as_deref()) {
        if sql_type_of(&cast.expr, schema).as_deref() == Some(known) {
            return Transformed::yes(*cast.expr);
        }
        let text = if is_text || from == DataType::Null { *cast.expr } else { as_text(*cast.expr) };
        return Transformed::yes(parse_as(text, &target, Some(known)));
    }
    if is_text && !to_text {
        return from_text(cast, &target);
    }
    if to_text && !is_text && is_written_otherwise(&from) {
        return Transformed::yes(as_text(*cast.expr));
    }
    let is_integer = matches!(target, DataType::Int16 | DataType::Int32 | DataType::Int64);
    match from {
        DataType::Float64 | DataType::Decimal128(..) | DataType::Decimal256(..)
            if target == DataType::Float32 =>
        {
            Transformed::yes(to_real(*cast.expr))
        }
        DataType::Float32 | DataType::Float64 if is_integer => {
            Transformed::yes(round_to_integer(*cast.expr, &target))
        }
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if is_integer && scale > 0 => {
            let rounded = round(vec![*cast.expr]);
            Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field: cast.field }))
        }
        _ => Transformed::no(Expr::Cast(cast)),
    }
}

fn known(sql_type: Option<&str>) -> Option<&'static str> {
    match sql_type {
        Some("UUID") => Some("UUID"),
        Some("JSON") => Some("JSON"),
        _ => None,
    }
}

fn from_text(cast: Cast, target: &DataType) -> Transformed<Expr> {
    let is_free = *target == DataType::Decimal128(38, FREE_SCALE);
    if let Expr::Literal(value, _) = cast.expr.as_ref()
        && let Some(Some(text)) = value.try_as_str()
    {
        // A NUMERIC without digits has those that are written.
        let read = if is_free { adopt::decimal(text).map(Some) } else { adopt::read(text, target, None) };
        if let Ok(Some(value)) = read
            && (is_free || value.data_type() == *target)
        {
            return Transformed::yes(Expr::Literal(value, None));
        }
    }
    match target {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Time64(_)
        | DataType::Interval(_)
        | DataType::Binary => Transformed::yes(parse_as(*cast.expr, target, None)),
        _ => Transformed::no(Expr::Cast(cast)),
    }
}

const fn is_written_otherwise(from: &DataType) -> bool {
    matches!(
        from,
        DataType::Float32
            | DataType::Float64
            | DataType::Timestamp(..)
            | DataType::Time64(_)
            | DataType::Date32
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Binary
            | DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
    )
}
