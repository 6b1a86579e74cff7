//! What SQL can do with JSON: the functions of `datafusion-functions-json`, and `->` and `->>` as PostgreSQL has them.

use datafusion::common::DFSchema;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
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
    registry.register_expr_planner(std::sync::Arc::new(JsonOperators))
}

/// `json -> key` is JSON, `json ->> key` is text.
#[derive(Debug)]
struct JsonOperators;

impl ExprPlanner for JsonOperators {
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
            _ => PlannerResult::Original(expr),
        })
    }
}
