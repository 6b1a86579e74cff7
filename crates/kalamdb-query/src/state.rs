//! What a session's state is made with, so that statements mean here what they mean to PostgreSQL.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::optimizer::{Analyzer, AnalyzerRule};

use crate::{UnnestSubqueries, arithmetic, json, sizes};

/// The rules that analyse a plan, in their order.
pub fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(UnnestSubqueries)];
    rules.extend(Analyzer::new().rules);
    rules
}

/// Makes our functions and operators known to every statement, and bounds those that make much of little.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    arithmetic::register(registry)?;
    json::register(registry)?;
    sizes::register(registry)
}
