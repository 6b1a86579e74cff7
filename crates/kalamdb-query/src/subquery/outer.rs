//! Outer references: the columns of an enclosing query that a subquery names.

use std::collections::HashMap;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

/// The subquery of an expression that is one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(membership) => Some(&membership.subquery),
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}

/// Whether an expression has a subquery in it.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|part| Ok(subquery_of(part).is_some())).unwrap_or(true)
}

/// The columns that a plan takes from enclosing queries, each once, in the order in which they are named.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    Ok(found)
}

/// The columns that the subqueries of an expression take from the row it is evaluated on.
pub(super) fn outer_columns_of(expr: &Expr) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    expr.apply(|part| {
        if let Some(subquery) = subquery_of(part) {
            collect(&subquery.subquery, &mut found)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    found.dedup();
    Ok(found)
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Column>) -> Result<()> {
    if let LogicalPlan::Subquery(subquery) = plan {
        return collect(&subquery.subquery, found);
    }
    let mut own = Vec::new();
    plan.apply_expressions(|expr| {
        collect_in(expr, plan, &mut own)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let LogicalPlan::Join(join) = plan {
        // A lateral right side sees the left one.
        collect(&join.left, &mut own)?;
        let mut right = Vec::new();
        collect(&join.right, &mut right)?;
        own.extend(right.into_iter().filter(|column| !join.left.schema().has_column(column)));
    } else {
        for input in plan.inputs() {
            collect(input, &mut own)?;
        }
    }
    for column in own {
        if !found.contains(&column) {
            found.push(column);
        }
    }
    Ok(())
}

fn collect_in(expr: &Expr, plan: &LogicalPlan, found: &mut Vec<Column>) -> Result<()> {
    expr.apply(|part| {
        if let Expr::OuterReferenceColumn(_, column) = part {
            found.push(column.clone());
        } else if let Some(subquery) = subquery_of(part) {
            let mut inner = Vec::new();
            collect(&subquery.subquery, &mut inner)?;
            let own = merge_schema(&plan.inputs());
            found.extend(inner.into_iter().filter(|column| !own.has_column(column)));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The columns around an expression's subqueries that they and the values compared with them read.
pub(super) fn columns_of_subqueries(expr: &Expr) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    expr.apply(|part| {
        if let Some(subquery) = subquery_of(part) {
            found.extend(outer_columns(&subquery.subquery)?);
            part.apply_children(|value| {
                found.extend(value.column_refs().into_iter().cloned());
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Replaces outer references of an expression by columns that now stand beside its own; those of subqueries in it stay outer
/// references, to the new columns. `own` are the columns the expression sees already, which hide others of their names.
pub(super) fn bind(expr: Expr, columns: &HashMap<Column, Column>, own: &DFSchema) -> Result<Expr> {
    Ok(expr
        .transform_up(|part| match &part {
            Expr::OuterReferenceColumn(_, column) => Ok(match columns.get(column) {
                Some(bound) => Transformed::yes(Expr::Column(bound.clone())),
                None => Transformed::no(part),
            }),
            _ if subquery_of(&part).is_some() => bind_subquery(part, columns, own),
            _ => Ok(Transformed::no(part)),
        })?
        .data)
}

fn bind_subquery(expr: Expr, columns: &HashMap<Column, Column>, own: &DFSchema) -> Result<Transformed<Expr>> {
    let visible: HashMap<Column, Column> = columns
        .iter()
        .filter(|(column, _)| !own.has_column(column))
        .map(|(column, bound)| (column.clone(), bound.clone()))
        .collect();
    map_subquery(expr, |plan| rename_outer(plan, &visible))
}

/// Replaces the plan of an expression that is a subquery.
pub(super) fn map_subquery(
    expr: Expr,
    map: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<Transformed<Expr>> {
    let rebuilt = |subquery: Subquery, map: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>| {
        let plan = map(subquery.subquery.as_ref().clone())?;
        let outer_ref_columns = plan.all_out_ref_exprs();
        Ok::<_, datafusion::error::DataFusionError>(Subquery {
            subquery: plan.into(),
            outer_ref_columns,
            spans: subquery.spans,
        })
    };
    let mut once = Some(map);
    let mut map = |plan: LogicalPlan| once.take().map_or_else(|| Ok(plan.clone()), |map| map(plan.clone()));
    Ok(Transformed::yes(match expr {
        Expr::Exists(mut exists) => {
            exists.subquery = rebuilt(exists.subquery, &mut map)?;
            Expr::Exists(exists)
        }
        Expr::InSubquery(mut membership) => {
            membership.subquery = rebuilt(membership.subquery, &mut map)?;
            Expr::InSubquery(membership)
        }
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(rebuilt(subquery, &mut map)?),
        Expr::SetComparison(mut comparison) => {
            comparison.subquery = rebuilt(comparison.subquery, &mut map)?;
            Expr::SetComparison(comparison)
        }
        other => return Ok(Transformed::no(other)),
    }))
}

/// Renames the outer references of a plan, those of subqueries within it included.
fn rename_outer(plan: LogicalPlan, columns: &HashMap<Column, Column>) -> Result<LogicalPlan> {
    if columns.is_empty() {
        return Ok(plan);
    }
    let renamed = plan.transform_up(|node| {
        if let LogicalPlan::Subquery(mut subquery) = node {
            subquery.outer_ref_columns = subquery.subquery.all_out_ref_exprs();
            return Ok(Transformed::yes(LogicalPlan::Subquery(subquery)));
        }
        let own = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let mapped = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|part| match part {
                Expr::OuterReferenceColumn(field, column) => Ok(match columns.get(&column) {
                    Some(bound) => Transformed::yes(Expr::OuterReferenceColumn(field, bound.clone())),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                }),
                part if subquery_of(&part).is_some() => bind_subquery(part, columns, &own),
                part => Ok(Transformed::no(part)),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        if mapped.transformed { Ok(Transformed::yes(mapped.data.recompute_schema()?)) } else { Ok(mapped) }
    })?;
    Ok(renamed.data)
}
