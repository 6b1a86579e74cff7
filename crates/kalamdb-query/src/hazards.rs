//! Plans that optimizations of `DataFusion` would answer wrongly (as of 55.2.0).

use std::collections::HashSet;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::config::SessionConfig;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Optimizations that a plan is to be run without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hazards {
    /// A join, sort or aggregate reads two columns of one name: dynamic filters are pushed down by column name, so that a filter for one
    /// column may reach the other.
    dynamic_filters: bool,
    /// An aggregate is below a sort with a limit, and below a window or a column that is computed: the limit is pushed into the aggregate by
    /// column name, through windows, so that groups are missing.
    limited_groups: bool,
}

impl Hazards {
    /// The hazards of an optimized plan, its subqueries included.
    ///
    /// # Errors
    /// None of its own.
    pub fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut hazards = Self { dynamic_filters: has_twins_below(plan, false), limited_groups: false };
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Sort(sort) = node
                && sort.fetch.is_some()
                && let Some(key) = sort.expr.first()
            {
                hazards.limited_groups |= misleads_limit(&sort.input, key.expr.try_as_col());
            }
            node.apply_expressions(|expr| {
                hazards.dynamic_filters |= has_twins_in_subqueries(expr)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(hazards)
    }

    /// Whether there are any.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Turns the optimizations off.
    pub fn avoid(self, config: &mut SessionConfig) {
        let optimizer = &mut config.options_mut().optimizer;
        if self.dynamic_filters {
            optimizer.enable_topk_dynamic_filter_pushdown = false;
            optimizer.enable_join_dynamic_filter_pushdown = false;
            optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        }
        if self.limited_groups {
            optimizer.enable_topk_aggregation = false;
        }
    }
}

fn has_twins_below(plan: &LogicalPlan, is_below: bool) -> bool {
    let mut names = HashSet::new();
    if is_below && !plan.schema().fields().iter().all(|field| names.insert(field.name())) {
        return true;
    }
    let makes_filters =
        matches!(plan, LogicalPlan::Join(_) | LogicalPlan::Sort(_) | LogicalPlan::Aggregate(_));
    plan.inputs().into_iter().any(|input| has_twins_below(input, is_below || makes_filters))
}

fn has_twins_in_subqueries(expr: &Expr) -> Result<bool> {
    expr.exists(|part| {
        Ok(match part {
            Expr::ScalarSubquery(subquery) => has_twins_below(&subquery.subquery, true),
            Expr::Exists(exists) => has_twins_below(&exists.subquery.subquery, true),
            Expr::InSubquery(membership) => has_twins_below(&membership.subquery.subquery, true),
            _ => false,
        })
    })
}

/// Whether a limit on the order of a column would reach an aggregate that does not have that column, or of which all groups count.
fn misleads_limit(plan: &LogicalPlan, key: Option<&Column>) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) => key.is_none(),
        LogicalPlan::Projection(projection) => {
            let source = key.and_then(|key| {
                let at = projection.schema.maybe_index_of_column(key)?;
                unaliased(projection.expr.get(at)?).try_as_col()
            });
            let renames = |(at, expr): (usize, &Expr)| {
                let name = projection.schema.field(at).name();
                let is_taken = projection.input.schema().has_column_with_unqualified_name(name);
                is_taken && unaliased(expr).try_as_col().is_none_or(|column| column.name != *name)
            };
            let is_renamed = projection.expr.iter().enumerate().any(renames);
            misleads_limit(&projection.input, source.filter(|_| !is_renamed))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = key.map(|key| Column::new_unqualified(key.name.clone()));
            misleads_limit(&alias.input, inner.as_ref())
        }
        LogicalPlan::Window(window) => misleads_limit(&window.input, None),
        LogicalPlan::Unnest(unnest) => misleads_limit(&unnest.input, None),
        LogicalPlan::Sort(sort) => misleads_limit(&sort.input, key),
        LogicalPlan::Repartition(repartition) => misleads_limit(&repartition.input, key),
        _ => false,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}
