//! Subqueries that `DataFusion` itself turns into correct joins, without a domain.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Projection};

use super::outer::{has_subquery, outer_columns};

/// Whether `DataFusion` turns a conjunct of a WHERE into a correct semi or anti join.
pub(super) fn is_plain_conjunct(expr: &Expr) -> Result<bool> {
    match expr {
        Expr::Exists(exists) => is_plain(&exists.subquery.subquery),
        Expr::Not(inner) => match inner.as_ref() {
            Expr::Exists(exists) => is_plain(&exists.subquery.subquery),
            _ => Ok(false),
        },
        // NULL is not told from false by a conjunct, so the missing third value does no harm.
        Expr::InSubquery(membership) if !membership.negated && is_value(&membership.expr) => {
            let plan = &membership.subquery.subquery;
            Ok(outer_columns(plan)?.is_empty() || is_plain(plan)?)
        }
        _ => Ok(false),
    }
}

/// Whether the left side of an IN is a value of the row; `DataFusion` loses rows of a constant.
fn is_value(expr: &Expr) -> bool {
    !has_subquery(expr) && !expr.column_refs().is_empty()
}

/// Whether `DataFusion` turns a scalar subquery into a correct join: an aggregate of a filtered relation, whose only outer
/// references are equalities in that filter.
pub(super) fn is_plain_scalar(plan: &LogicalPlan) -> Result<bool> {
    let (projection, below) = match plan {
        LogicalPlan::Projection(projection) => (Some(projection), projection.input.as_ref()),
        other => (None, other),
    };
    let LogicalPlan::Aggregate(aggregate) = below else { return Ok(false) };
    if !aggregate.group_expr.is_empty() || aggregate.aggr_expr.iter().any(has_outer) {
        return Ok(false);
    }
    if projection.is_some_and(|projection| projection.expr.iter().any(has_outer)) {
        return Ok(false);
    }
    let is_column = projection.is_none_or(|projection| {
        projection.expr.iter().all(|expr| matches!(expr.clone().unalias(), Expr::Column(_)))
    });
    let counts = aggregate.aggr_expr.iter().any(|expr| match expr.clone().unalias() {
        Expr::AggregateFunction(call) => call.func.name().contains("count"),
        _ => true,
    });
    if counts && !is_column {
        return Ok(false);
    }
    let Some((filters, _)) = correlated_filters(&aggregate.input)? else { return Ok(false) };
    Ok(!filters.is_empty()
        && filters
            .iter()
            .flat_map(|filter| split_conjunction(filter))
            .all(|part| !has_outer(part) || is_outer_equality(part)))
}

/// Whether a plan gives exactly one row: an aggregate without GROUP BY, or a SELECT without FROM.
pub(super) fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

fn is_outer_equality(expr: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return false };
    let is_outer = |side: &Expr| matches!(side, Expr::OuterReferenceColumn(..));
    let is_inner = |side: &Expr| matches!(side, Expr::Column(_));
    is_outer(left) && is_inner(right) || is_inner(left) && is_outer(right)
}

fn is_plain(plan: &LogicalPlan) -> Result<bool> {
    let mut plan = plan;
    while let LogicalPlan::Projection(Projection { expr, input, .. }) = plan {
        if expr.iter().any(|expr| has_outer(expr) || has_subquery(expr)) {
            return Ok(false);
        }
        plan = input;
    }
    let Some((filters, _)) = correlated_filters(plan)? else { return Ok(false) };
    // Without any there is no correlation: that is asked once for all rows.
    Ok(filters.iter().any(|filter| has_outer(filter)))
}

/// The filters on top of a relation that itself has no outer references and no subqueries.
fn correlated_filters(plan: &LogicalPlan) -> Result<Option<(Vec<&Expr>, &LogicalPlan)>> {
    let (mut filters, mut plan) = (Vec::new(), plan);
    while let LogicalPlan::Filter(filter) = plan {
        if has_subquery(&filter.predicate) {
            return Ok(None);
        }
        filters.push(&filter.predicate);
        plan = &filter.input;
    }
    if !outer_columns(plan)?.is_empty() || has_subqueries(plan)? {
        return Ok(None);
    }
    Ok(Some((filters, plan)))
}

fn has_outer(expr: &Expr) -> bool {
    expr.contains_outer()
}

/// Whether a plan has subqueries, in expressions or as lateral relations.
pub(super) fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    use datafusion::common::tree_node::TreeNode;
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= has_subquery(expr);
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
