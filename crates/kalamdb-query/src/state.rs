//! The rules, types and functions of a session's state, which give statements PostgreSQL's meaning.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use crate::{
    BoundExpressions, CheckedPlanner, CountCopies, GroupDistinct, GuardConditions, HideConstants,
    NullSafeRule, PushDownConditions, ResolveTypes, SqlTypes, UnnestSubqueries, functions, json, sizes,
};

/// The analyzer rules, in order.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> =
        vec![Arc::new(CountCopies), Arc::new(UnnestSubqueries), Arc::new(ResolveTypes)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(BoundExpressions));
    rules.push(Arc::new(GuardConditions));
    rules.push(Arc::new(GroupDistinct));
    rules
}

/// The rules that optimize a plan: `DataFusion`'s own, three of them in a form that is right.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let ours = |rule: Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        match rule.name() {
            "push_down_filter" => Arc::new(PushDownConditions::default()),
            "extract_equijoin_predicate" => Arc::new(NullSafeRule::of_keys(rule)),
            "eliminate_cross_join" => Arc::new(NullSafeRule::of_order(rule)),
            _ => rule,
        }
    };
    Optimizer::new().rules.into_iter().map(ours).collect()
}

/// The rules that optimize a physical plan: `DataFusion`'s own, and [`HideConstants`] once joins have their sides.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |at| at + 1);
    rules.insert(after, Arc::new(HideConstants));
    rules
}

/// A configuration in which literals with a point are decimals.
pub fn config() -> SessionConfig {
    SessionConfig::new()
        // The physical plan of a join takes columns for nullable that the logical one knows are not: a check of both refuses it.
        .set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true)
        .set_bool("datafusion.sql_parser.collect_spans", true)
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
}

/// A state with our rules, types and planners.
pub fn with_rules(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    // Before those of `DataFusion`, which plan every `extract`.
    if let Some(planners) = builder.expr_planners() {
        planners.insert(0, Arc::new(json::Calls));
    }
    builder
        .with_analyzer_rules(analyzer_rules())
        .with_optimizer_rules(optimizer_rules())
        .with_physical_optimizer_rules(physical_rules())
        .with_type_planner(Arc::new(SqlTypes))
        .with_query_planner(Arc::new(CheckedPlanner))
}

/// Registers our functions and operators, and the memory limits of functions.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    json::register(registry)?;
    functions::register(registry)?;
    sizes::register(registry)
}
