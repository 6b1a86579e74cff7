//! Conditions moved below other nodes by `DataFusion`'s rule, but not below an aggregate that gives a row of no rows.

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Filter, GroupingSet, LogicalPlan};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// `DataFusion`'s rule, with conditions on no column kept above such aggregates: it moves them below, where they decide which rows are
/// aggregated, not whether there is a result.
#[derive(Debug, Default)]
pub struct PushDownConditions {
    rule: PushDownFilter,
}

impl OptimizerRule for PushDownConditions {
    fn name(&self) -> &'static str {
        "push_down_conditions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return self.rule.rewrite(plan, config) };
        if !matches!(filter.input.as_ref(), LogicalPlan::Aggregate(aggregate) if gives_row_of_none(aggregate))
        {
            return self.rule.rewrite(LogicalPlan::Filter(filter), config);
        }
        let (constant, other): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.predicate.clone())
            .into_iter()
            .partition(|condition| condition.column_refs().is_empty());
        let Some(constant) = conjunction(constant) else {
            return self.rule.rewrite(LogicalPlan::Filter(filter), config);
        };
        let Some(other) = conjunction(other) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let below = LogicalPlan::Filter(Filter::try_new(other, filter.input)?);
        self.rule
            .rewrite(below, config)?
            .map_data(|below| Ok(LogicalPlan::Filter(Filter::try_new(constant, below.into())?)))
    }
}

/// Whether an aggregate has a row where its input has none: without GROUP BY, or with a grouping set of no columns.
fn gives_row_of_none(aggregate: &Aggregate) -> bool {
    match aggregate.group_expr.as_slice() {
        [] | [Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_))] => true,
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter().any(Vec::is_empty),
        _ => false,
    }
}
