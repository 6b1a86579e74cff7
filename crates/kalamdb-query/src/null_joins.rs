//! Joins of which NULL equals NULL, kept apart from those of which it does not.
//!
//! A join has one answer to whether NULL equals NULL, for all of its keys. Two rules of `DataFusion` (as of 55.2.0) give keys of `=` to a
//! join of `IS NOT DISTINCT FROM`, so that rows with NULL are found that are none.

use std::sync::Arc;

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{Join, JoinType, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// A rule of `DataFusion` for the plans that it is right for.
#[derive(Debug)]
pub struct NullSafeRule {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
    /// Whether the rule would be wrong for a plan.
    is_wrong: fn(&LogicalPlan) -> Result<bool>,
}

impl NullSafeRule {
    /// A rule that makes keys of the equalities of a join's condition.
    pub fn of_keys(rule: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { rule, is_wrong: |plan| Ok(join_of(plan).is_some_and(is_null_safe)) }
    }

    /// A rule that puts all inner joins below a node into one order, with the keys of all.
    pub fn of_order(rule: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { rule, is_wrong: |plan| plan.exists(|node| Ok(join_of(node).is_some_and(is_inner_null_safe))) }
    }
}

fn join_of(plan: &LogicalPlan) -> Option<&Join> {
    match plan {
        LogicalPlan::Join(join) => Some(join),
        _ => None,
    }
}

fn is_null_safe(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull
}

fn is_inner_null_safe(join: &Join) -> bool {
    join.join_type == JoinType::Inner && is_null_safe(join)
}

impl OptimizerRule for NullSafeRule {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if (self.is_wrong)(&plan)? { Ok(Transformed::no(plan)) } else { self.rule.rewrite(plan, config) }
    }
}
