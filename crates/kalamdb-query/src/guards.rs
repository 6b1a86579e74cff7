//! Conditions that guard others: AND, OR and CASE do not evaluate what they exclude.
//!
//! `DataFusion` evaluates both sides of an AND on whole batches, takes it apart and moves its parts, and makes ANDs and ORs of a CASE
//! whose results are truth values. Where one part may fail (a division, a cast of text), it is put into a CASE of integers,
//! which is evaluated row by row and left as it is.

use std::collections::HashSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, disjunction, merge_schema};
use datafusion::logical_expr::{
    BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::lit;

use crate::functions::{Function, digits_of, is_one};
use crate::sizes;

/// Maximum number of fallible parts of one condition that guard each other.
const FALLIBLE_MAX: usize = 8;

/// Makes conditions guard the fallible expressions that stand after them.
#[derive(Debug, Default)]
pub struct GuardConditions;

impl AnalyzerRule for GuardConditions {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let guarded = plan.transform_up_with_subqueries(|node| {
            if matches!(node, LogicalPlan::TableScan(_)) {
                return Ok(Transformed::no(node));
            }
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                if !may_fail(&expr, &schema) {
                    return Ok(Transformed::no(expr));
                }
                let name = names.save(&expr);
                let guarded = guard(expr, &schema)?;
                Ok(guarded.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(guarded.data)
    }

    fn name(&self) -> &'static str {
        "guard_conditions"
    }
}

/// An expression in which conditions guard fallible ones.
pub(crate) fn guard(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // From the top: a chain of ANDs is taken whole.
    expr.transform_down(|part| match part {
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. })
            if may_fail(&part, schema) =>
        {
            let mut parts = Vec::new();
            flatten(part, op, &mut parts);
            Ok(guard_chain(parts, op, schema))
        }
        Expr::Case(case) if case.expr.is_none() && may_fail_in_results(&case, schema) => {
            let whole = Expr::Case(case);
            let is_truth = whole.get_type(schema)? == DataType::Boolean;
            match whole {
                Expr::Case(case) if is_truth => Ok(Transformed::new(
                    is_one(Expr::Case(of_integers(case))),
                    true,
                    datafusion::common::tree_node::TreeNodeRecursion::Continue,
                )),
                other => Ok(Transformed::no(other)),
            }
        }
        Expr::AggregateFunction(mut call) => {
            let Some(filter) = call.params.filter.clone() else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            if !call.params.args.iter().any(|arg| may_fail(arg, schema)) {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            }
            let only = |arg: Expr| {
                let when = vec![(filter.clone(), Box::new(arg))];
                Expr::Case(Case { expr: None, when_then_expr: when, else_expr: None })
            };
            call.params.args = call.params.args.into_iter().map(only).collect();
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Collects the parts of a chain of ANDs or ORs.
fn flatten(expr: Expr, op: Operator, parts: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: own, right }) if own == op => {
            flatten(*left, op, parts);
            flatten(*right, op, parts);
        }
        other => parts.push(other),
    }
}

/// A chain of ANDs or ORs whose fallible parts are evaluated only for the rows that the other parts do not decide.
fn guard_chain(parts: Vec<Expr>, op: Operator, schema: &DFSchema) -> Transformed<Expr> {
    let is_and = op == Operator::And;
    let join = |parts: Vec<Expr>| if is_and { conjunction(parts) } else { disjunction(parts) };
    let (fallible, safe): (Vec<Expr>, Vec<Expr>) =
        parts.into_iter().partition(|part| may_fail(part, schema) && !(is_and && is_join_key(part, schema)));
    let count = fallible.len();
    let mut guards = safe.clone();
    let mut whole = safe;
    for part in fallible {
        let guarded = match join(guards.clone()) {
            None => part,
            Some(guard) => {
                let open = if is_and { guard.is_not_false() } else { guard.is_not_true() };
                let case = Case {
                    expr: None,
                    when_then_expr: vec![(Box::new(open), Box::new(integer(part)))],
                    else_expr: Some(Box::new(lit(i8::from(!is_and)))),
                };
                is_one(Expr::Case(case))
            }
        };
        if count <= FALLIBLE_MAX {
            guards.push(guarded.clone());
        }
        whole.push(guarded);
    }
    let whole = join(whole).unwrap_or_else(|| lit(is_and));
    // What is inside has been looked at as a whole; its parts' own conditions are still to come.
    Transformed::new(whole, true, datafusion::common::tree_node::TreeNodeRecursion::Jump)
}

/// Whether a conjunct is a join's equality whose sides fail only where a sum does. Guarded, it would not be a key of a hash join;
/// conditions on each side are evaluated before the join all the same.
fn is_join_key(part: &Expr, schema: &DFSchema) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part else { return false };
    let relations = |side: &Expr| -> HashSet<_> {
        side.column_refs().into_iter().filter_map(|column| column.relation.clone()).collect()
    };
    let (left, right) = (relations(left), relations(right));
    let is_sum = |part: &Expr| {
        matches!(part, Expr::Negative(_))
            || matches!(part, Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Plus | Operator::Minus))
    };
    let fails_otherwise = part.exists(|part| Ok(fails_itself(part, schema) && !is_sum(part))).unwrap_or(true);
    !left.is_empty() && !right.is_empty() && left.is_disjoint(&right) && !fails_otherwise
}

/// A truth value as an integer, which the optimizer leaves in its CASE.
fn integer(expr: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), DataType::Int8))
}

/// A CASE with integers in place of truth values.
fn of_integers(case: Case) -> Case {
    Case {
        expr: None,
        when_then_expr: case
            .when_then_expr
            .into_iter()
            .map(|(when, then)| (when, Box::new(integer(*then))))
            .collect(),
        else_expr: case.else_expr.map(|other| Box::new(integer(*other))),
    }
}

/// Whether a result of a CASE may be an error for some row.
fn may_fail_in_results(case: &Case, schema: &DFSchema) -> bool {
    case.when_then_expr.iter().any(|(_, then)| may_fail(then, schema))
        || case.else_expr.as_deref().is_some_and(|other| may_fail(other, schema))
}

/// Whether evaluating an expression may be an error for some row.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    expr.exists(|part| Ok(fails_itself(part, schema))).unwrap_or(true)
}

/// Whether an expression may be an error for some row, whatever its parts are.
fn fails_itself(expr: &Expr, schema: &DFSchema) -> bool {
    use Operator as O;
    // Without columns it is computed once, whatever its rows are.
    let of_columns = |expr: &Expr| !expr.column_refs().is_empty();
    match expr {
        Expr::BinaryExpr(binary) => match binary.op {
            O::Divide | O::Modulo | O::Multiply => true,
            O::Plus | O::Minus => of_columns(expr),
            O::RegexMatch | O::RegexIMatch | O::RegexNotMatch | O::RegexNotIMatch => {
                of_columns(&binary.right)
            }
            _ => false,
        },
        Expr::Negative(inner) => of_columns(inner),
        Expr::Cast(cast) => !is_safe(cast, schema),
        Expr::ScalarFunction(call) => is_partial(&call.func),
        _ => false,
    }
}

/// Whether a function is an error for some values.
fn is_partial(function: &ScalarUDF) -> bool {
    if let Some(function) = function.inner().downcast_ref::<Function>() {
        return function.is_partial();
    }
    if let Some(inner) = sizes::unbounded(function) {
        return is_partial(inner);
    }
    // Those of `DataFusion`.
    matches!(
        function.name(),
        "single_value"
            | "checked_add"
            | "checked_subtract"
            | "checked_multiply"
            | "abs"
            | "chr"
            | "date_bin"
            | "decode"
            | "factorial"
            | "gcd"
            | "generate_series"
            | "lcm"
            | "ln"
            | "log"
            | "log10"
            | "log2"
            | "power"
            | "range"
            | "regexp_count"
            | "regexp_instr"
            | "regexp_like"
            | "regexp_match"
            | "regexp_replace"
            | "split_part"
            | "sqrt"
            | "substr"
    )
}

/// Whether a cast has a result for every value of its operand.
fn is_safe(cast: &Cast, schema: &DFSchema) -> bool {
    let target = cast.field.data_type();
    let Ok(found) = cast.expr.get_type(schema) else { return false };
    if found == *target || found == DataType::Null {
        return true;
    }
    if let (Some((digits, scale)), Some((target_digits, target_scale))) =
        (digits_of(&found), digits_of(target))
    {
        let whole = |digits: u8, scale: i8| i16::from(digits) - i16::from(scale);
        // Rounding may carry a digit, and an integer type does not hold all numbers of its digits.
        let is_rounded = scale > target_scale;
        let is_narrow = target.is_integer() && !found.is_integer();
        let carried = i16::from(is_rounded || is_narrow);
        return whole(digits, scale) + carried <= whole(target_digits, target_scale);
    }
    match target {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => true,
        DataType::Float64 | DataType::Boolean => found.is_numeric() || found == DataType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => found == DataType::Boolean,
        DataType::Timestamp(..) | DataType::Date32 => {
            matches!(found, DataType::Timestamp(..) | DataType::Date32)
        }
        _ => false,
    }
}
