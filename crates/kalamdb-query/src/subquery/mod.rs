//! Subqueries, as joins with the distinct values that they depend on.
//!
//! A subquery that names columns of the query around it (a dependent join, also called apply) is evaluated once for each
//! distinct combination of those columns: the *domain*. The domain is joined to the subquery's relations, is carried through
//! its operators (a GROUP BY groups by it as well, a LIMIT counts within it), and the result is joined back. What comes out is
//! an ordinary plan with the memory limits, parallelism and cancellation of any other.
//!
//! The method is that of Neumann and Kemper, "Unnesting Arbitrary Queries" (BTW 2015). `DataFusion`'s own rewriting is kept where
//! it is right and cheaper ([`plain`]).
//!
//! Invariant: a rewritten plan has the columns of the plan it replaces, under the same names, and as many rows.

mod attach;
mod domain;
mod outer;
mod plain;
mod unnest;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::Spans;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, JoinType, LogicalPlan, Projection, Sort, Subquery, SubqueryAlias, Window,
};
use datafusion::optimizer::AnalyzerRule;

use outer::{has_subquery, map_subquery, subquery_of};

/// Replaces subqueries by joins where `DataFusion` would not, or would do it wrongly.
#[derive(Debug, Default)]
pub struct UnnestSubqueries;

impl AnalyzerRule for UnnestSubqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if plain::has_subqueries(&plan)? { Rewriter::default().rewrite(plan) } else { Ok(plan) }
    }

    fn name(&self) -> &'static str {
        "unnest_subqueries"
    }
}

/// The place of an expression, which decides which of its subqueries are left to `DataFusion`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A condition or a column of a SELECT: scalar subqueries may stay.
    Row,
    /// Anywhere else.
    Other,
}

/// One analysis.
#[derive(Default)]
struct Rewriter {
    /// Relations named so far.
    names: usize,
    /// Domains so far, by their relations.
    domains: HashMap<TableReference, LogicalPlan>,
}

impl Rewriter {
    /// A relation's name that no statement can write.
    fn name(&mut self, what: &str) -> TableReference {
        self.names += 1;
        TableReference::bare(format!("\u{1}{what}{}", self.names))
    }

    /// Replaces the subqueries of a plan without outer references.
    fn rewrite(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if !plain::has_subqueries(&plan)? {
            return Ok(plan);
        }
        if let LogicalPlan::Join(join) = plan {
            let left = self.rewrite(join.left.as_ref().clone())?;
            let implicit = implicit_lateral(&join)?;
            let lateral = implicit.as_ref().map(|subquery| Lateral { subquery, alias: None });
            if let Some(lateral) = Lateral::of(&join.right).or(lateral) {
                return self.lateral_join(left, &lateral, &join);
            }
            let right = self.rewrite(join.right.as_ref().clone())?;
            return self.join(Join { left: left.into(), right: right.into(), ..join });
        }
        if let LogicalPlan::Values(values) = plan {
            return self.rewrite(unnest::values_as_union(values)?);
        }
        let plan = plan.map_children(|child| Ok(Transformed::yes(self.rewrite(child)?)))?.data;
        self.node(plan)
    }

    /// Replaces the subqueries of one node, whose inputs have none left.
    fn node(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let mut has_any = false;
        plan.apply_expressions(|expr| {
            has_any |= has_subquery(expr);
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })?;
        if !has_any {
            return Ok(plan);
        }
        match plan {
            LogicalPlan::Filter(filter) => {
                let columns = columns_of(&filter.input);
                let input = self.filter(filter.input.as_ref().clone(), filter.predicate)?;
                select(input, &columns)
            }
            LogicalPlan::Projection(projection) => {
                let input = projection.input.as_ref().clone();
                let (input, exprs) = self.exprs(input, projection.expr, Place::Row)?;
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, input.into())?))
            }
            LogicalPlan::Sort(sort) => {
                let columns = columns_of(&sort.input);
                let mut input = with_hidden(sort.input.as_ref().clone(), &sort.expr)?;
                let mut keys = Vec::with_capacity(sort.expr.len());
                for mut key in sort.expr {
                    let (joined, expr) = self.attach(input, key.expr, Place::Other)?;
                    (input, key.expr) = (joined, expr);
                    keys.push(key);
                }
                let sorted = LogicalPlan::Sort(Sort { expr: keys, input: input.into(), fetch: sort.fetch });
                select(sorted, &columns)
            }
            LogicalPlan::Aggregate(aggregate) => {
                let input = aggregate.input.as_ref().clone();
                let (input, groups) = self.exprs(input, aggregate.group_expr, Place::Other)?;
                let (input, aggregates) = self.exprs(input, aggregate.aggr_expr, Place::Other)?;
                Ok(LogicalPlan::Aggregate(Aggregate::try_new(input.into(), groups, aggregates)?))
            }
            LogicalPlan::Window(window) => {
                let columns = columns_of_schema(&window.schema);
                let input = window.input.as_ref().clone();
                let (input, exprs) = self.exprs(input, window.window_expr, Place::Other)?;
                select(LogicalPlan::Window(Window::try_new(exprs, input.into())?), &columns)
            }
            other => refuse(&other),
        }
    }

    /// Filters a relation by a condition with subqueries. Columns that this takes stay beside the relation's own.
    fn filter(&mut self, mut input: LogicalPlan, predicate: Expr) -> Result<LogicalPlan> {
        let mut conjuncts = Vec::new();
        for conjunct in split_conjunction_owned(predicate) {
            if plain::is_plain_conjunct(&conjunct)? {
                conjuncts.push(self.inside(conjunct)?);
                continue;
            }
            let (joined, conjunct) = self.attach(input, conjunct, Place::Row)?;
            input = joined;
            conjuncts.push(conjunct);
        }
        match conjunction(conjuncts) {
            Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, input.into())?)),
            None => Ok(input),
        }
    }

    /// An expression whose subqueries stay, with theirs replaced.
    fn inside(&mut self, expr: Expr) -> Result<Expr> {
        let rewritten = expr.transform_up(|part| match subquery_of(&part) {
            Some(_) => map_subquery(part, |plan| self.rewrite(plan)),
            None => Ok(Transformed::no(part)),
        })?;
        Ok(rewritten.data)
    }

    /// Replaces the subqueries of expressions, which keep their names.
    fn exprs(
        &mut self,
        mut input: LogicalPlan,
        exprs: Vec<Expr>,
        place: Place,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let mut rewritten = Vec::with_capacity(exprs.len());
        for expr in exprs {
            let (qualifier, name) = expr.qualified_name();
            let (joined, expr) = self.attach(input, expr, place)?;
            input = joined;
            rewritten.push(named(expr, qualifier, &name));
        }
        Ok((input, rewritten))
    }

    /// A join whose condition has subqueries: an inner one is filtered, of an outer one the side that a subquery depends on gets its value
    /// as a column beforehand.
    fn join(&mut self, join: Join) -> Result<LogicalPlan> {
        let in_filter = join.filter.as_ref().is_some_and(has_subquery);
        let in_keys = join.on.iter().any(|(left, right)| has_subquery(left) || has_subquery(right));
        if !in_filter && !in_keys {
            return Ok(LogicalPlan::Join(join));
        }
        let columns = columns_of_schema(&join.schema);
        if join.join_type != JoinType::Inner || in_keys {
            return select(self.outer_join(join)?, &columns);
        }
        let predicate = join.filter.clone().unwrap_or_else(|| datafusion::prelude::lit(true));
        let joined = LogicalPlan::Join(Join { filter: None, ..join });
        select(self.filter(joined, predicate)?, &columns)
    }

    fn outer_join(&mut self, join: Join) -> Result<LogicalPlan> {
        let (mut left, mut right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
        let mut keys = Vec::with_capacity(join.on.len());
        for (left_key, right_key) in join.on.clone() {
            let (joined_left, left_key) = self.attach(left, left_key, Place::Other)?;
            let (joined_right, right_key) = self.attach(right, right_key, Place::Other)?;
            (left, right) = (joined_left, joined_right);
            keys.push((left_key, right_key));
        }
        let mut conditions = Vec::new();
        for condition in join.filter.clone().into_iter().flat_map(split_conjunction_owned) {
            if !has_subquery(&condition) {
                conditions.push(condition);
                continue;
            }
            let columns = outer::columns_of_subqueries(&condition)?;
            let is_of = |side: &LogicalPlan| columns.iter().all(|column| side.schema().has_column(column));
            let condition = if is_of(&left) {
                let (joined, condition) = self.attach(left, condition, Place::Other)?;
                left = joined;
                condition
            } else if is_of(&right) {
                let (joined, condition) = self.attach(right, condition, Place::Other)?;
                right = joined;
                condition
            } else {
                return refuse(&LogicalPlan::Join(join));
            };
            conditions.push(condition);
        }
        Ok(LogicalPlan::Join(Join::try_new(
            left.into(),
            right.into(),
            keys,
            conjunction(conditions),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?))
    }

    /// Joins a relation to a lateral subquery, which sees its columns.
    fn lateral_join(&mut self, left: LogicalPlan, lateral: &Lateral<'_>, join: &Join) -> Result<LogicalPlan> {
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return datafusion::common::plan_err!(
                "a LATERAL subquery may stand at the right of JOIN, LEFT JOIN, CROSS JOIN or a comma only"
            );
        }
        let mut columns = columns_of(&left);
        let (domain, outer) = self.domain(&left, lateral.plan())?;
        let right = self.unnest(lateral.plan().clone(), &domain)?;
        let right = domain.with_alias(right, lateral.plan(), lateral.alias())?;
        columns.extend(columns_of(&join.right));
        let same: Vec<Expr> = join.on.iter().map(|(a, b)| a.clone().eq(b.clone())).collect();
        let filter = conjunction(same.into_iter().chain(join.filter.clone()));
        let keys = domain.keys(&outer);
        select(domain::join_nulls_equal(left, right, keys, filter, join.join_type)?, &columns)
    }
}

/// The right side of a join as a lateral subquery, where only subqueries in it read the left side: `DataFusion` plans it as any other.
fn implicit_lateral(join: &Join) -> Result<Option<Subquery>> {
    let columns = outer::outer_columns(&join.right)?;
    if Lateral::of(&join.right).is_some()
        || !columns.iter().any(|column| join.left.schema().has_column(column))
    {
        return Ok(None);
    }
    let subquery = Arc::clone(&join.right);
    Ok(Some(Subquery { subquery, outer_ref_columns: Vec::new(), spans: Spans::default() }))
}

/// A lateral subquery, and the name it has in FROM.
struct Lateral<'p> {
    subquery: &'p Subquery,
    alias: Option<&'p SubqueryAlias>,
}

impl<'p> Lateral<'p> {
    fn of(plan: &'p LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::Subquery(subquery) => Some(Self { subquery, alias: None }),
            LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
                LogicalPlan::Subquery(subquery) => Some(Self { subquery, alias: Some(alias) }),
                _ => None,
            },
            _ => None,
        }
    }

    fn plan(&self) -> &'p LogicalPlan {
        &self.subquery.subquery
    }

    fn alias(&self) -> Option<&'p TableReference> {
        self.alias.map(|alias| &alias.alias)
    }
}

/// The columns of a plan, by their qualified names.
fn columns_of(plan: &LogicalPlan) -> Vec<Column> {
    columns_of_schema(plan.schema())
}

fn columns_of_schema(schema: &datafusion::common::DFSchema) -> Vec<Column> {
    schema.columns()
}

/// These columns of a plan, and no others.
fn select(plan: LogicalPlan, columns: &[Column]) -> Result<LogicalPlan> {
    if plan.schema().columns() == columns {
        return Ok(plan);
    }
    let exprs = columns.iter().cloned().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// The input of an ORDER BY, with the columns beside it that only subqueries of the sort keys name.
fn with_hidden(input: LogicalPlan, keys: &[SortExpr]) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = &input else { return Ok(input) };
    let mut exprs = projection.expr.clone();
    for key in keys {
        for column in outer::outer_columns_of(&key.expr)? {
            if !input.schema().has_column(&column) && projection.input.schema().has_column(&column) {
                exprs.push(Expr::Column(column));
            }
        }
    }
    if exprs.len() == projection.expr.len() {
        return Ok(input);
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?))
}

/// An expression under the name that another one had.
fn named(expr: Expr, qualifier: Option<TableReference>, name: &str) -> Expr {
    if expr.qualified_name() == (qualifier.clone(), name.to_owned()) {
        return expr;
    }
    expr.alias_qualified(qualifier, name)
}

/// Says that a subquery cannot stand where it does.
fn refuse<T>(plan: &LogicalPlan) -> Result<T> {
    let place = match plan {
        LogicalPlan::Join(_) => "of columns of both sides in the ON of an outer join",
        LogicalPlan::Limit(_) => "in LIMIT or OFFSET",
        LogicalPlan::RecursiveQuery(_) => "around WITH RECURSIVE that it depends on",
        LogicalPlan::Aggregate(_) => "with grouping(), or with outer columns in its GROUPING SETS,",
        LogicalPlan::Unnest(_) => "over UNNEST of its own rows",
        _ => "here",
    };
    datafusion::common::not_impl_err!(
        "a subquery {place} is not supported; compute it in WITH … AS (…) and join it"
    )
}
