//! The rules, types and functions of a session's state, which give statements PostgreSQL's meaning.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionConfig;

use crate::{
    CheckedPlanner, CountCopies, GroupDistinct, GuardConditions, ResolveTypes, SqlTypes, UnnestSubqueries,
    functions, json, sizes,
};

/// The analyzer rules, in order.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> =
        vec![Arc::new(CountCopies), Arc::new(UnnestSubqueries), Arc::new(ResolveTypes)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(GuardConditions));
    rules.push(Arc::new(GroupDistinct));
    rules
}

/// A configuration in which literals with a point are decimals.
pub fn config() -> SessionConfig {
    SessionConfig::new()
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
        .with_type_planner(Arc::new(SqlTypes))
        .with_query_planner(Arc::new(CheckedPlanner))
}

/// Registers our functions and operators, and the memory limits of functions.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    json::register(registry)?;
    functions::register(registry)?;
    sizes::register(registry)
}
