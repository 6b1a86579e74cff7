//! `ORDER BY` of a table's key with a LIMIT: rows are read in that order, as many as it takes, instead of all to keep a few.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as QueryResult;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning, ReplaceChildrenOptions};

use crate::provider::scan::TableScan;

/// The rule that finds such plans.
#[derive(Debug)]
pub(crate) struct KeyOrder;

/// Columns by position, and whether each goes down.
type Order = Vec<(usize, bool)>;

impl PhysicalOptimizerRule for KeyOrder {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| {
            let Some((sort, fetch)) = limited_sort(&plan) else { return Ok(Transformed::no(plan)) };
            let order: Option<Order> = sort.expr().iter().map(column_of).collect();
            let Some(order) = order else { return Ok(Transformed::no(plan)) };
            Ok(match in_order(sort.input(), order, fetch, true)? {
                Some(ordered) => Transformed::yes(Arc::new(GlobalLimitExec::new(ordered, 0, Some(fetch)))),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "KeyOrder"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The sort of which this gives the first rows, and how many.
fn limited_sort(plan: &Arc<dyn ExecutionPlan>) -> Option<(&SortExec, usize)> {
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        let sort = merge.input().downcast_ref::<SortExec>()?;
        return Some((sort, merge.fetch().or(sort.fetch())?));
    }
    let sort = plan.downcast_ref::<SortExec>().filter(|sort| !sort.preserve_partitioning())?;
    Some((sort, sort.fetch()?))
}

fn column_of(sorted: &PhysicalSortExpr) -> Option<(usize, bool)> {
    let column = sorted.expr.downcast_ref::<Column>()?;
    Some((column.index(), sorted.options.descending))
}

/// The same plan with rows in an order; none where it is not the order of a table's key. `reaches_all`: nothing above drops rows.
fn in_order(
    plan: &Arc<dyn ExecutionPlan>,
    order: Order,
    fetch: usize,
    reaches_all: bool,
) -> QueryResult<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<TableScan>() {
        return Ok(scan.in_order(&order, fetch).map(|scan| Arc::new(scan) as _));
    }
    let spread = plan.downcast_ref::<RepartitionExec>().map(RepartitionExec::partitioning);
    if let (Some(Partitioning::RoundRobinBatch(_)), [child]) = (spread, plan.children().as_slice()) {
        // What comes in order comes in one stream.
        return in_order(child, order, fetch, reaches_all);
    }
    let below: Option<Order> = if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let projection = filter.projection().as_deref();
        order
            .into_iter()
            .map(|(at, down)| Some((projection.map_or(Some(at), |kept| kept.get(at).copied())?, down)))
            .collect()
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let column = |at: usize| Some(projection.expr().get(at)?.expr.downcast_ref::<Column>()?.index());
        order.into_iter().map(|(at, down)| Some((column(at)?, down))).collect()
    } else if plan.is::<CooperativeExec>() {
        Some(order)
    } else {
        None
    };
    let children = plan.children();
    let (Some(below), [child]) = (below, children.as_slice()) else { return Ok(None) };
    let is_filter = plan.is::<FilterExec>();
    let Some(child) = in_order(child, below, fetch, reaches_all && !is_filter)? else { return Ok(None) };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let plan = Arc::clone(plan).replace_children(vec![child], options)?;
    // A filter gathers rows until it has a whole batch: it is told how many will do, unless another one drops some of them.
    let enough = if is_filter && reaches_all { plan.with_fetch(Some(fetch)) } else { None };
    Ok(Some(enough.unwrap_or(plan)))
}
