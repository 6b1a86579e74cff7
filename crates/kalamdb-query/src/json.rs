//! Planning of operators: those of JSON as PostgreSQL has them, and those that `DataFusion` has for fewer types.

use datafusion::common::DFSchema;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::{functions, udfs};

use crate::functions::{clock_part, json_at, json_contains, substring};

/// Registers the operators and the functions of `datafusion-functions-json`, except those whose result has a type that no client
/// knows.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> QueryResult<()> {
    for function in [
        udfs::json_as_text_udf(),
        udfs::json_contains_udf(),
        udfs::json_get_bool_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_int_udf(),
        udfs::json_get_json_udf(),
        udfs::json_get_str_udf(),
        udfs::json_length_udf(),
    ] {
        registry.register_udf(function)?;
    }
    registry.register_expr_planner(std::sync::Arc::new(Operators))
}

/// Plans calls that have a syntax of their own: `substring`, which is also of a BYTEA, and `extract`, which PostgreSQL refuses
/// for the hour of a date, where `date_part` has one.
#[derive(Debug)]
pub(crate) struct Calls;

impl ExprPlanner for Calls {
    fn plan_substring(&self, args: Vec<Expr>) -> QueryResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(substring(), args))))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> QueryResult<PlannerResult<Vec<Expr>>> {
        if let [Expr::Literal(field, _), value] = args.as_slice()
            && let Some(Some(field)) = field.try_as_str()
            && let Some(part) = clock_part(field, value.clone())
        {
            return Ok(PlannerResult::Planned(part));
        }
        Ok(PlannerResult::Original(args))
    }
}

/// Plans the operators of JSON: `json -> key` is JSON, `json ->> key` is text.
#[derive(Debug)]
struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> QueryResult<PlannerResult<RawBinaryExpr>> {
        let is_list = |side: &Expr| side.get_type(schema).is_ok_and(|found| found.is_nested());
        Ok(match expr.op {
            BinaryOperator::AtArrow if !is_list(&expr.left) => {
                PlannerResult::Planned(json_contains(expr.left, expr.right))
            }
            BinaryOperator::ArrowAt if !is_list(&expr.right) => {
                PlannerResult::Planned(json_contains(expr.right, expr.left))
            }
            BinaryOperator::HashArrow => PlannerResult::Planned(json_at(expr.left, expr.right, false)),
            BinaryOperator::HashLongArrow => PlannerResult::Planned(json_at(expr.left, expr.right, true)),
            BinaryOperator::Arrow => PlannerResult::Planned(functions::json_get_json(expr.left, expr.right)),
            BinaryOperator::LongArrow => {
                PlannerResult::Planned(functions::json_as_text(expr.left, expr.right))
            }
            _ => resolved(expr, schema)?,
        })
    }
}

/// An operator with PostgreSQL's meaning where `DataFusion` would refuse its operands before a rule sees them.
fn resolved(expr: RawBinaryExpr, schema: &DFSchema) -> QueryResult<PlannerResult<RawBinaryExpr>> {
    let Some(op) = operator(&expr.op) else { return Ok(PlannerResult::Original(expr)) };
    let binary = BinaryExpr { left: Box::new(expr.left.clone()), op, right: Box::new(expr.right.clone()) };
    let is_refused = Expr::BinaryExpr(binary.clone()).get_type(schema).is_err();
    if !is_refused {
        return Ok(PlannerResult::Original(expr));
    }
    let resolved = crate::types::resolve_binary(binary, schema)?;
    Ok(if resolved.transformed {
        PlannerResult::Planned(resolved.data)
    } else {
        PlannerResult::Original(expr)
    })
}

/// The operator of a plan, of one in a statement.
const fn operator(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Plus => Operator::Plus,
        BinaryOperator::Minus => Operator::Minus,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}
