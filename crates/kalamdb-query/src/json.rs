//! What SQL can do with JSON: the functions of `datafusion-functions-json`, and `->` and `->>` as PostgreSQL has them.

use datafusion::common::DFSchema;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::{functions, udfs};

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
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> QueryResult<PlannerResult<RawBinaryExpr>> {
        Ok(match expr.op {
            BinaryOperator::Arrow => PlannerResult::Planned(functions::json_get_json(expr.left, expr.right)),
            BinaryOperator::LongArrow => {
                PlannerResult::Planned(functions::json_as_text(expr.left, expr.right))
            }
            _ => PlannerResult::Original(expr),
        })
    }
}
