//! A subquery's plan, evaluated for every value of its domain at once.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::utils::{conjunction, merge_schema};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, EmptyRelation, Expr, FetchType, Filter, GroupingSet, Join, JoinType,
    Limit, LogicalPlan, Projection, SkipType, Sort, Union, Values, Window, WindowFunctionDefinition, when,
};
use datafusion::prelude::lit;

use super::domain::{Domain, join_nulls_equal};
use super::outer::{bind, has_subquery, outer_columns};
use super::{
    Lateral, Place, Rewriter, columns_of, columns_of_schema, implicit_lateral, named, refuse, select,
};

/// The conditions of a join: pairs that are equal, and what else must hold.
type Conditions = (Vec<(Expr, Expr)>, Option<Expr>);

/// The name of the column that numbers rows within a value of the domain.
const ROW_NUMBER: &str = "\u{1}row";

impl Rewriter {
    /// The rows of a subquery for every value of the domain, with the domain's columns beside them.
    pub(super) fn unnest(&mut self, plan: LogicalPlan, domain: &Domain) -> Result<LogicalPlan> {
        if domain.is_empty() {
            return self.rewrite(plan);
        }
        if outer_columns(&plan)?.is_empty() {
            let plan = self.rewrite(plan)?;
            return domain.beside(plan);
        }
        match plan {
            LogicalPlan::Projection(projection) => self.unnest_projection(projection, domain),
            LogicalPlan::Filter(filter) => self.unnest_filter(filter, domain),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.unnest(alias.input.as_ref().clone(), domain)?;
                domain.with_alias(input, &alias.input, Some(&alias.alias))
            }
            LogicalPlan::Aggregate(aggregate) => self.unnest_aggregate(aggregate, domain),
            LogicalPlan::Limit(limit) => self.unnest_limit(limit, domain),
            LogicalPlan::Sort(sort) => self.unnest_sort(sort, domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let columns = with_domain(&columns_of(&input), domain);
                let input = self.unnest(input.as_ref().clone(), domain)?;
                Ok(LogicalPlan::Distinct(Distinct::All(select(input, &columns)?.into())))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.unnest_distinct_on(on, domain),
            LogicalPlan::Union(union) => self.unnest_union(&union, domain),
            LogicalPlan::Join(join) => self.unnest_join(&join, domain),
            LogicalPlan::Window(window) => self.unnest_window(window, domain),
            LogicalPlan::Values(values) => self.unnest(values_as_union(values)?, domain),
            other => refuse(&other),
        }
    }

    /// Expressions of a node over its unnested input, under the names they had.
    fn bound(
        &mut self,
        mut input: LogicalPlan,
        exprs: Vec<Expr>,
        own: &DFSchema,
        domain: &Domain,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let mut bound = Vec::with_capacity(exprs.len());
        for expr in exprs {
            let (qualifier, name) = expr.qualified_name();
            let (joined, expr) = self.attach(input, bind(expr, &domain.bound, own)?, Place::Other)?;
            input = joined;
            bound.push(named(expr, qualifier, &name));
        }
        Ok((input, bound))
    }

    fn unnest_projection(&mut self, projection: Projection, domain: &Domain) -> Result<LogicalPlan> {
        let own = Arc::clone(projection.input.schema());
        let input = self.unnest(projection.input.as_ref().clone(), domain)?;
        let (input, mut exprs) = self.bound(input, projection.expr, &own, domain)?;
        exprs.extend(domain.exprs());
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, input.into())?))
    }

    fn unnest_filter(&mut self, filter: Filter, domain: &Domain) -> Result<LogicalPlan> {
        let own = Arc::clone(filter.input.schema());
        let columns = with_domain(&columns_of(&filter.input), domain);
        let input = self.unnest(filter.input.as_ref().clone(), domain)?;
        let predicate = bind(filter.predicate, &domain.bound, &own)?;
        select(self.filter(input, predicate)?, &columns)
    }

    fn unnest_sort(&mut self, sort: Sort, domain: &Domain) -> Result<LogicalPlan> {
        let own = Arc::clone(sort.input.schema());
        let columns = with_domain(&columns_of(&sort.input), domain);
        let mut input = self.unnest(sort.input.as_ref().clone(), domain)?;
        let mut keys = Vec::with_capacity(sort.expr.len());
        for mut key in sort.expr {
            let (joined, expr) = self.attach(input, bind(key.expr, &domain.bound, &own)?, Place::Other)?;
            (input, key.expr) = (joined, expr);
            keys.push(key);
        }
        select(LogicalPlan::Sort(Sort { expr: keys, input: input.into(), fetch: None }), &columns)
    }

    /// Grouped by the domain as well. Without GROUP BY, or with a grouping set of no columns, there is a row for each value, also where
    /// nothing was aggregated.
    fn unnest_aggregate(&mut self, mut aggregate: Aggregate, domain: &Domain) -> Result<LogicalPlan> {
        let own = Arc::clone(aggregate.input.schema());
        let columns = columns_of_schema(&aggregate.schema);
        let sets = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(set)] => Some(grouping_sets(set)),
            _ => None,
        };
        let has_total =
            sets.as_ref().map_or(aggregate.group_expr.is_empty(), |sets| sets.iter().any(Vec::is_empty));
        let counts_sets = aggregate.aggr_expr.iter().any(is_grouping);
        let is_own = |key: &Expr| !has_subquery(key) && !key.contains_outer();
        if sets.is_some() && (!aggregate.group_expr.iter().all(is_own) || has_total && counts_sets) {
            return refuse(&LogicalPlan::Aggregate(aggregate));
        }
        let input = self.unnest(aggregate.input.as_ref().clone(), domain)?;
        let (input, groups) = match sets {
            Some(sets) => (input, vec![by_domain(sets, &own, domain)?]),
            None => {
                let groups = std::mem::take(&mut aggregate.group_expr);
                let (input, groups) = self.bound(input, groups, &own, domain)?;
                (input, domain.exprs().into_iter().chain(groups).collect())
            }
        };
        let (input, aggregates) = self.bound(input, aggregate.aggr_expr, &own, domain)?;
        let (group_columns, aggregate_columns) =
            columns.split_at(columns.len().saturating_sub(aggregates.len()));
        let values = default_values(&aggregates, aggregate_columns, &aggregate.schema)?;
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(input.into(), groups, aggregates)?);
        if !has_total {
            return Ok(grouped);
        }
        let (all, pairs) = self.domain_again(domain)?;
        let Some(all_plan) = all.plan.clone() else { return Ok(grouped) };
        let pairs = pairs.into_iter().map(|(first, second)| (second, first)).collect();
        let joined = join_nulls_equal(all_plan, grouped, pairs, None, JoinType::Left)?;
        let domain_columns = domain
            .columns
            .iter()
            .zip(all.exprs())
            .map(|(column, expr)| expr.alias_qualified(column.relation.clone(), column.name.clone()));
        let group_columns = group_columns.iter().cloned().map(Expr::Column);
        let exprs = group_columns.chain(values).chain(domain_columns).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, joined.into())?))
    }

    /// Rows are counted within each value of the domain.
    fn unnest_limit(&mut self, limit: Limit, domain: &Domain) -> Result<LogicalPlan> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return refuse(&LogicalPlan::Limit(limit));
        };
        self.limited(limit.input.as_ref().clone(), skip, fetch, domain)
    }

    fn limited(
        &mut self,
        plan: LogicalPlan,
        skip: usize,
        fetch: Option<usize>,
        domain: &Domain,
    ) -> Result<LogicalPlan> {
        // A projection changes no order: what it is over is what is limited.
        if let LogicalPlan::Projection(projection) = plan {
            let own = Arc::clone(projection.input.schema());
            let input = self.limited(projection.input.as_ref().clone(), skip, fetch, domain)?;
            let (input, mut exprs) = self.bound(input, projection.expr, &own, domain)?;
            exprs.extend(domain.exprs());
            return Ok(LogicalPlan::Projection(Projection::try_new(exprs, input.into())?));
        }
        let columns = with_domain(&columns_of(&plan), domain);
        let (input, order) = match plan {
            LogicalPlan::Sort(sort) => {
                let own = Arc::clone(sort.input.schema());
                let mut input = self.unnest(sort.input.as_ref().clone(), domain)?;
                let mut keys: Vec<SortExpr> = Vec::with_capacity(sort.expr.len());
                for mut key in sort.expr {
                    let (joined, expr) =
                        self.attach(input, bind(key.expr, &domain.bound, &own)?, Place::Other)?;
                    (input, key.expr) = (joined, expr);
                    keys.push(key);
                }
                (input, keys)
            }
            other => (self.unnest(other, domain)?, Vec::new()),
        };
        let mut number =
            WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
        number.params.partition_by = domain.exprs();
        number.params.window_frame =
            datafusion::logical_expr::WindowFrame::new((!order.is_empty()).then_some(false));
        number.params.order_by = order;
        let number = Expr::from(number).alias(ROW_NUMBER);
        let numbered = LogicalPlan::Window(Window::try_new(vec![number], input.into())?);
        let row = || Expr::Column(Column::new_unqualified(ROW_NUMBER));
        let bound = |rows: usize| lit(u64::try_from(rows).unwrap_or(u64::MAX));
        let after = (skip > 0).then(|| row().gt(bound(skip)));
        let until = fetch.map(|fetch| row().lt_eq(bound(skip.saturating_add(fetch))));
        let kept = match conjunction(after.into_iter().chain(until)) {
            Some(kept) => LogicalPlan::Filter(Filter::try_new(kept, numbered.into())?),
            None => numbered,
        };
        select(kept, &columns)
    }

    fn unnest_distinct_on(&mut self, on: DistinctOn, domain: &Domain) -> Result<LogicalPlan> {
        let own = Arc::clone(on.input.schema());
        let input = self.unnest(on.input.as_ref().clone(), domain)?;
        let (input, keys) = self.bound(input, on.on_expr, &own, domain)?;
        let (mut input, selected) = self.bound(input, on.select_expr, &own, domain)?;
        let order = match on.sort_expr {
            None => None,
            Some(order) => {
                let mut keys: Vec<SortExpr> =
                    domain.exprs().into_iter().map(|expr| expr.sort(true, false)).collect();
                for mut key in order {
                    let bound = bind(key.expr, &domain.bound, &own)?;
                    let (joined, expr) = self.attach(input, bound, Place::Other)?;
                    (input, key.expr) = (joined, expr);
                    keys.push(key);
                }
                Some(keys)
            }
        };
        let keys = domain.exprs().into_iter().chain(keys).collect();
        let selected = selected.into_iter().chain(domain.exprs()).collect();
        Ok(LogicalPlan::Distinct(Distinct::On(DistinctOn::try_new(keys, selected, order, input.into())?)))
    }

    fn unnest_union(&mut self, union: &Union, domain: &Domain) -> Result<LogicalPlan> {
        let names = columns_of_schema(&union.schema);
        let carried = |at: usize| format!("\u{1}d{at}");
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let columns = columns_of(input);
            let input = self.unnest(input.as_ref().clone(), domain)?;
            let values = columns
                .into_iter()
                .zip(&names)
                .map(|(column, name)| named(Expr::Column(column), name.relation.clone(), &name.name));
            let keys = domain.exprs().into_iter().enumerate().map(|(at, expr)| expr.alias(carried(at)));
            let exprs = values.chain(keys).collect();
            inputs.push(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, input.into())?)));
        }
        let whole = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let whole_columns = columns_of(&whole);
        let exprs = names
            .iter()
            .zip(&whole_columns)
            .map(|(name, column)| named(Expr::Column(column.clone()), name.relation.clone(), &name.name));
        let keys = domain.columns.iter().enumerate().map(|(at, column)| {
            Expr::Column(Column::new_unqualified(carried(at)))
                .alias_qualified(column.relation.clone(), column.name.clone())
        });
        let exprs = exprs.chain(keys).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, whole.into())?))
    }

    fn unnest_window(&mut self, window: Window, domain: &Domain) -> Result<LogicalPlan> {
        let columns = with_domain(&columns_of_schema(&window.schema), domain);
        let own = Arc::clone(window.input.schema());
        let input = self.unnest(window.input.as_ref().clone(), domain)?;
        let (input, exprs) = self.bound(input, window.window_expr, &own, domain)?;
        let partitioned = |expr: Expr| {
            let (qualifier, name) = expr.qualified_name();
            let expr = match expr.unalias() {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(domain.exprs());
                    Expr::WindowFunction(call)
                }
                other => other,
            };
            named(expr, qualifier, &name)
        };
        let exprs = exprs.into_iter().map(partitioned).collect();
        select(LogicalPlan::Window(Window::try_new(exprs, input.into())?), &columns)
    }

    fn unnest_join(&mut self, join: &Join, domain: &Domain) -> Result<LogicalPlan> {
        let own = merge_schema(&[&join.left, &join.right]);
        let implicit = implicit_lateral(join)?;
        let lateral = implicit.as_ref().map(|subquery| Lateral { subquery, alias: None });
        if let Some(lateral) = Lateral::of(&join.right).or(lateral) {
            let left = self.unnest(join.left.as_ref().clone(), domain)?;
            let mut subquery = lateral.subquery.clone();
            let wrapped = bind(Expr::ScalarSubquery(subquery.clone()), &domain.bound, join.left.schema())?;
            if let Expr::ScalarSubquery(bound) = wrapped {
                subquery = bound;
            }
            let lateral = Lateral { subquery: &subquery, alias: lateral.alias };
            let mut join = join.clone();
            join.filter = join.filter.map(|filter| bind(filter, &domain.bound, &own)).transpose()?;
            return self.lateral_join(left, &lateral, &join);
        }
        let left_depends = !outer_columns(&join.left)?.is_empty();
        let right_depends = !outer_columns(&join.right)?.is_empty();
        let columns = with_domain(&columns_of_schema(&join.schema), domain);
        let bind_all = |join: &Join, bound: &Domain| -> Result<Conditions> {
            let on = join
                .on
                .iter()
                .map(|(left, right)| {
                    Ok((bind(left.clone(), &bound.bound, &own)?, bind(right.clone(), &bound.bound, &own)?))
                })
                .collect::<Result<Vec<_>>>()?;
            let filter = join.filter.clone().map(|filter| bind(filter, &bound.bound, &own)).transpose()?;
            Ok((on, filter))
        };
        let keeps_left = matches!(
            join.join_type,
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        );
        let keeps_right = matches!(join.join_type, JoinType::Inner | JoinType::Right);
        if keeps_left && !right_depends || keeps_right && !left_depends {
            let (on, filter) = bind_all(join, domain)?;
            let (left, right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
            let (left, right) = if keeps_left && !right_depends {
                (self.unnest(left, domain)?, self.rewrite(right)?)
            } else {
                (self.rewrite(left)?, self.unnest(right, domain)?)
            };
            let joined = Join::try_new(
                left.into(),
                right.into(),
                on,
                filter,
                join.join_type,
                join.join_constraint,
                join.null_equality,
                join.null_aware,
            )?;
            return select(self.join(joined)?, &columns);
        }
        self.unnest_both(join, domain, &columns, bind_all)
    }

    /// Both sides for each value of the domain, joined by it as well.
    fn unnest_both(
        &mut self,
        join: &Join,
        domain: &Domain,
        columns: &[Column],
        bind_all: impl Fn(&Join, &Domain) -> Result<Conditions>,
    ) -> Result<LogicalPlan> {
        let (again, pairs) = self.domain_again(domain)?;
        let left = self.unnest(join.left.as_ref().clone(), domain)?;
        let right = self.unnest(join.right.as_ref().clone(), &again)?;
        let is_right = matches!(
            join.join_type,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
        );
        let (on, filter) = bind_all(join, if is_right { &again } else { domain })?;
        // NULL equals NULL in the domain's columns, and in the others only where it did.
        let present = match join.null_equality {
            NullEquality::NullEqualsNull => Vec::new(),
            NullEquality::NullEqualsNothing => {
                on.iter().map(|(left, _)| left.clone().is_not_null()).collect()
            }
        };
        let filter = conjunction(filter.into_iter().chain(present));
        let keys = pairs.into_iter().chain(on).collect();
        let joined = Join::try_new(
            left.into(),
            right.into(),
            keys,
            filter,
            join.join_type,
            join.join_constraint,
            NullEquality::NullEqualsNull,
            false,
        )?;
        let joined = self.join(joined)?;
        let carried = domain.columns.iter().zip(again.exprs()).map(|(first, second)| {
            let (relation, name) = (first.relation.clone(), first.name.clone());
            let first = Expr::Column(first.clone());
            Ok(match join.join_type {
                JoinType::Full => {
                    when(first.clone().is_null(), second).otherwise(first)?.alias_qualified(relation, name)
                }
                _ if is_right => second.alias_qualified(relation, name),
                _ => first,
            })
        });
        let own =
            columns.iter().take(columns.len() - domain.columns.len()).cloned().map(Expr::Column).map(Ok);
        let exprs = own.chain(carried).collect::<Result<Vec<_>>>()?;
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, joined.into())?))
    }
}

/// Columns, then those of the domain.
fn with_domain(columns: &[Column], domain: &Domain) -> Vec<Column> {
    let own = columns.iter().filter(|column| !domain.columns.contains(column));
    own.chain(&domain.columns).cloned().collect()
}

/// The sets of columns that ROLLUP, CUBE or GROUPING SETS group by.
fn grouping_sets(set: &GroupingSet) -> Vec<Vec<Expr>> {
    match set {
        GroupingSet::Rollup(keys) => {
            (0..=keys.len()).rev().map(|width| keys.iter().take(width).cloned().collect()).collect()
        }
        GroupingSet::Cube(keys) => keys.iter().fold(vec![Vec::new()], |sets, key| {
            let with_key = |set: &Vec<Expr>| set.iter().cloned().chain([key.clone()]).collect();
            sets.iter().map(with_key).chain(sets.clone()).collect()
        }),
        GroupingSet::GroupingSets(sets) => sets.clone(),
    }
}

/// Grouping sets that each group by the domain as well.
fn by_domain(sets: Vec<Vec<Expr>>, own: &DFSchema, domain: &Domain) -> Result<Expr> {
    let with_domain = |set: Vec<Expr>| -> Result<Vec<Expr>> {
        let bound = set.into_iter().map(|key| bind(key, &domain.bound, own));
        domain.exprs().into_iter().map(Ok).chain(bound).collect()
    };
    let sets = sets.into_iter().map(with_domain).collect::<Result<Vec<_>>>()?;
    Ok(Expr::GroupingSet(GroupingSet::GroupingSets(sets)))
}

/// Whether an expression tells the grouping set of a row.
fn is_grouping(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::AggregateFunction(call) if call.func.name() == "grouping")))
        .unwrap_or(true)
}

/// The aggregates' values, with those of no rows where there were none.
fn default_values(aggregates: &[Expr], columns: &[Column], schema: &DFSchema) -> Result<Vec<Expr>> {
    let value = |(expr, column): (&Expr, Column)| {
        let (_, field) = schema.qualified_field_from_column(&column)?;
        let default = match expr.clone().unalias() {
            Expr::AggregateFunction(call) => call.func.default_value(field.data_type())?,
            _ => datafusion::common::ScalarValue::try_from(field.data_type())?,
        };
        let (relation, name) = (column.relation.clone(), column.name.clone());
        let column = Expr::Column(column);
        if default.is_null() {
            return Ok(column);
        }
        let or_default = when(column.clone().is_null(), Expr::Literal(default, None)).otherwise(column)?;
        Ok(or_default.alias_qualified(relation, name))
    };
    aggregates.iter().zip(columns.iter().cloned()).map(value).collect()
}

/// VALUES as a union of rows, so that each may have subqueries and outer references.
pub(super) fn values_as_union(values: Values) -> Result<LogicalPlan> {
    let columns = columns_of_schema(&values.schema);
    let rows = values.values.into_iter().map(|row| {
        let one = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: true,
            schema: DFSchema::empty().into(),
        });
        let exprs = row
            .into_iter()
            .zip(&columns)
            .map(|(expr, column)| named(expr, column.relation.clone(), &column.name));
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs.collect(), one.into())?)))
    });
    let mut rows = rows.collect::<Result<Vec<_>>>()?;
    if rows.len() == 1
        && let Some(only) = rows.pop()
    {
        return Ok(only.as_ref().clone());
    }
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(rows)?))
}
