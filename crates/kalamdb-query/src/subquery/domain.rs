//! The domain: the distinct outer values that a subquery depends on, as a relation of its own.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::common::{Column, JoinConstraint, NullEquality, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};

use super::Rewriter;
use super::outer::outer_columns;

/// The distinct outer values of a subquery.
#[derive(Clone, Debug)]
pub(super) struct Domain {
    /// The relation; none where the subquery depends on nothing.
    pub(super) plan: Option<LogicalPlan>,
    /// Its columns, by the outer columns that they hold.
    pub(super) bound: HashMap<Column, Column>,
    /// Its columns in order.
    pub(super) columns: Vec<Column>,
}

impl Domain {
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Its columns as expressions.
    pub(super) fn exprs(&self) -> Vec<Expr> {
        self.columns.iter().cloned().map(Expr::Column).collect()
    }

    /// A relation beside each value of the domain.
    pub(super) fn beside(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match &self.plan {
            None => Ok(plan),
            Some(domain) => LogicalPlanBuilder::from(domain.clone()).cross_join(plan)?.build(),
        }
    }

    /// Pairs that join the outer columns to the domain's.
    pub(super) fn keys(&self, outer: &[Column]) -> Vec<(Expr, Expr)> {
        outer.iter().cloned().map(Expr::Column).zip(self.exprs()).collect()
    }

    /// The columns of a subquery under its name in FROM, beside those of the domain.
    pub(super) fn with_alias(
        &self,
        plan: LogicalPlan,
        original: &LogicalPlan,
        alias: Option<&TableReference>,
    ) -> Result<LogicalPlan> {
        let Some(alias) = alias else { return Ok(plan) };
        let renamed = original.schema().columns().into_iter().map(|column| {
            let name = column.name.clone();
            Expr::Column(column).alias_qualified(Some(alias.clone()), name)
        });
        let exprs = renamed.chain(self.exprs()).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, plan.into())?))
    }
}

impl Rewriter {
    /// The domain of a subquery over `input`, and the outer columns that its columns hold, in their order.
    pub(super) fn domain(
        &mut self,
        input: &LogicalPlan,
        subquery: &LogicalPlan,
    ) -> Result<(Domain, Vec<Column>)> {
        let outer = outer_columns(subquery)?;
        if let Some(unknown) = outer.iter().find(|column| !input.schema().has_column(column)) {
            return plan_err!("{} is not visible to the subquery that names it", unknown.flat_name());
        }
        let domain = self.domain_of(input, &outer)?;
        Ok((domain, outer))
    }

    fn domain_of(&mut self, input: &LogicalPlan, outer: &[Column]) -> Result<Domain> {
        if outer.is_empty() {
            return Ok(Domain { plan: None, bound: HashMap::new(), columns: Vec::new() });
        }
        let relation = self.name("outer");
        let columns: Vec<Column> =
            (0..outer.len()).map(|at| Column::new(Some(relation.clone()), format!("\u{1}{at}"))).collect();
        let exprs = outer.iter().zip(&columns).map(|(outer, column)| {
            Expr::Column(outer.clone()).alias_qualified(column.relation.clone(), column.name.clone())
        });
        let values = Projection::try_new(exprs.collect(), Arc::new(input.clone()))?;
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Projection(values))));
        Ok(Domain {
            plan: Some(plan),
            bound: outer.iter().cloned().zip(columns.iter().cloned()).collect(),
            columns,
        })
    }

    /// A second relation of the domain's values, with other names, and pairs that join it to the first.
    pub(super) fn domain_again(&mut self, domain: &Domain) -> Result<(Domain, Vec<(Expr, Expr)>)> {
        let Some(plan) = &domain.plan else { return Ok((domain.clone(), Vec::new())) };
        let mut again = self.domain_of(plan, &domain.columns)?;
        let pairs = again.keys(&domain.columns);
        again.bound = domain
            .bound
            .iter()
            .filter_map(|(outer, first)| Some((outer.clone(), again.bound.get(first)?.clone())))
            .collect();
        Ok((again, pairs))
    }
}

/// Joins by keys of which NULL equals NULL.
pub(super) fn join_nulls_equal(
    left: LogicalPlan,
    right: LogicalPlan,
    keys: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    join_type: JoinType,
) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Join(Join::try_new(
        left.into(),
        right.into(),
        keys,
        filter,
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?))
}
