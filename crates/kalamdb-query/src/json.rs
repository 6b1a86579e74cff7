//! Operators as they are planned: those of JSON as PostgreSQL has them, and those that `DataFusion` has for fewer types. The functions
//! of `datafusion-functions-json`.

use datafusion::common::DFSchema;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::{functions, udfs};

use crate::functions::json_contains;

/// Makes them known to every statement. Those whose result has a type that no client knows are left out.
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

/// `json -> key` is JSON, `json ->> key` is text.
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
