//! Joins of which NULL equals NULL, kept apart from those of which it does not.
//!
//! A join has one answer to whether NULL equals NULL, for all of its keys. Two rules of `DataFusion` (as of 55.2.0) give keys of `=` to a
//! join of `IS NOT DISTINCT FROM`, so that rows with NULL are found that are none.

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// `DataFusion`'s rule that makes keys of equalities, for joins whose keys may be so compared.
#[derive(Debug, Default)]
pub struct ExtractKeys {
    rule: ExtractEquijoinPredicate,
}

impl OptimizerRule for ExtractKeys {
    fn name(&self) -> &'static str {
        "extract_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if matches!(&plan, LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull) {
            return Ok(Transformed::no(plan));
        }
        self.rule.rewrite(plan, config)
    }
}

/// `DataFusion`'s rule that orders inner joins, for plans whose inner joins are of one kind.
#[derive(Debug, Default)]
pub struct OrderJoins {
    rule: EliminateCrossJoin,
}

impl OptimizerRule for OrderJoins {
    fn name(&self) -> &'static str {
        "order_joins"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let is_null_safe = |node: &LogicalPlan| {
            Ok(matches!(node, LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull))
        };
        if plan.exists(is_null_safe)? {
            return Ok(Transformed::no(plan));
        }
        self.rule.rewrite(plan, config)
    }
}
