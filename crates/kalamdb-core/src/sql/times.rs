//! Text beside a time is that time, in microseconds as columns have it.
//!
//! Left alone, `DataFusion` makes nanoseconds of it, which begin in 1677 and end in 2262: comparing with a time beyond would be
//! refused, though columns hold them.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use log_format::{DataType, Value};

use crate::error::{Result, from_query};
use crate::table::arrow_type;
use crate::values;

/// The plan with every such text as what it means.
pub(crate) fn with_times(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expression| {
            let name = names.save(&expression);
            let expression = expression.transform_up(|part| Ok(time_in(part, &schema)))?;
            Ok(expression.update_data(|expression| name.restore(expression)))
        })
    });
    Ok(rewritten.map_err(from_query)?.data)
}

/// The same for an expression by itself.
pub(crate) fn with_times_in(expression: Expr, schema: &DFSchema) -> QueryResult<Expr> {
    Ok(expression.transform_up(|part| Ok(time_in(part, schema)))?.data)
}

fn time_in(expression: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expression {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (right, is_right) = beside(&left, *right, schema);
            let (left, is_left) = beside(&right, *left, schema);
            let whole = BinaryExpr { left: Box::new(left), op, right: Box::new(right) };
            Transformed::new_transformed(Expr::BinaryExpr(whole), is_right || is_left)
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (low, is_low) = beside(&expr, *low, schema);
            let (high, is_high) = beside(&expr, *high, schema);
            let whole = Between { expr, negated, low: Box::new(low), high: Box::new(high) };
            Transformed::new_transformed(Expr::Between(whole), is_low || is_high)
        }
        Expr::InList(InList { expr, list, negated }) => {
            let items: Vec<(Expr, bool)> = list.into_iter().map(|item| beside(&expr, item, schema)).collect();
            let any = items.iter().any(|(_, is_time)| *is_time);
            let list = items.into_iter().map(|(item, _)| item).collect();
            Transformed::new_transformed(Expr::InList(InList { expr, list, negated }), any)
        }
        other => Transformed::no(other),
    }
}

const fn compares(op: Operator) -> bool {
    use Operator as O;
    matches!(
        op,
        O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom
    )
}

/// An operand that is text, beside one that is a time; and whether that is so.
fn beside(other: &Expr, operand: Expr, schema: &DFSchema) -> (Expr, bool) {
    match time(other, &operand, schema) {
        Some(time) => (Expr::Literal(time, None), true),
        None => (operand, false),
    }
}

fn time(other: &Expr, operand: &Expr, schema: &DFSchema) -> Option<ScalarValue> {
    let Expr::Literal(literal, _) = operand else { return None };
    let text = literal.try_as_str()??;
    let found = other.get_type(schema).ok()?;
    let data_type =
        [DataType::Timestamp, DataType::DateTime].into_iter().find(|it| arrow_type(*it) == found)?;
    // What is finer than a microsecond equals no value of a column; cut off, it would.
    let fraction = text.split_once('.').map_or("", |(_, behind)| behind);
    if fraction.chars().take_while(char::is_ascii_digit).count() > 6 {
        return None;
    }
    match values::from_text(text, data_type).ok()? {
        Value::Timestamp(micros) => Some(ScalarValue::TimestampMicrosecond(Some(micros), None)),
        Value::DateTime(micros) => {
            Some(ScalarValue::TimestampMicrosecond(Some(micros), Some("+00:00".into())))
        }
        _ => None,
    }
}
