//! Compilation of plans and of single expressions, with one meaning.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::arithmetic::check_integers;
use crate::{ResolveTypes, guards, types};

/// Resolves the types of a plan as PostgreSQL does, before `DataFusion` coerces them.
pub fn resolve_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    let resolved = ResolveTypes.analyze(plan, &datafusion::common::config::ConfigOptions::default())?;
    // A node keeps its schema where only a node below it changed.
    Ok(resolved.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?)))?.data)
}

/// Compiles an expression over the columns of `schema`, with the result that it has in a plan.
pub fn compile(state: &SessionState, expr: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    let mut expr = types::resolve(expr, schema)?.data;
    for rewrite in state.analyzer().function_rewrites() {
        expr = expr.transform_up(|part| rewrite.rewrite(part, schema, state.config_options()))?.data;
    }
    let expr = simplifier.coerce(expr, schema)?;
    let expr = guards::guard(expr, schema)?.data;
    let expr = simplifier.simplify(expr)?;
    let expr = check_integers(expr, schema)?.data;
    let bare = expr.unalias_nested().data;
    datafusion::physical_expr::create_physical_expr(
        &bare,
        schema,
        state.execution_props(),
        &PhysicalPlanningContext::default(),
    )
}

/// The planner of physical plans, with checked integer arithmetic.
#[derive(Debug, Default)]
pub struct CheckedPlanner;

#[async_trait]
impl QueryPlanner for CheckedPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        state: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let checked = checked(plan.clone())?;
        DefaultPhysicalPlanner::default().create_physical_plan(&checked, state).await
    }
}

fn checked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let checked = plan.transform_up_with_subqueries(|node| {
        if matches!(node, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(node));
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let checked = check_integers(expr, &schema)?;
            Ok(checked.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(checked.data)
}
