//! The domain: the distinct outer values that a subquery depends on, as a relation of its own.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinConstraint, NullEquality, not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};

use super::Rewriter;
use super::outer::outer_columns;
use super::plain::gives_one_row;

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
        require_bounded(input)?;
        let source = match self.domain_with(&outer) {
            Some(domain) => domain,
            None => source_of(input, &outer).clone(),
        };
        let domain = self.domain_of(&source, &outer)?;
        Ok((domain, outer))
    }

    /// The domain of an enclosing subquery that has all these columns.
    fn domain_with(&self, outer: &[Column]) -> Option<LogicalPlan> {
        let relation = outer.first()?.relation.as_ref()?;
        let is_of_it = |column: &Column| column.relation.as_ref() == Some(relation);
        outer.iter().all(is_of_it).then(|| self.domains.get(relation).cloned()).flatten()
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
        self.domains.insert(relation, plan.clone());
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

/// Nodes of a plan that a subquery may be joined to: LATERAL subqueries, for one, repeat what stands before them.
const NODES_MAX: usize = 5000;

fn require_bounded(plan: &LogicalPlan) -> Result<()> {
    let mut nodes = 0;
    plan.apply(|_| {
        nodes += 1;
        Ok(if nodes > NODES_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if nodes > NODES_MAX {
        return not_impl_err!(
            "a statement whose subqueries expand to more than {NODES_MAX} steps is not supported; compute some of them in a \
             statement of their own"
        );
    }
    Ok(())
}

/// The least part of a plan whose rows have the same distinct values in these columns: what subqueries have been joined to it by, all
/// of its rows being kept, is left out.
fn source_of<'p>(input: &'p LogicalPlan, columns: &[Column]) -> &'p LogicalPlan {
    let has_all = |plan: &LogicalPlan| columns.iter().all(|column| plan.schema().has_column(column));
    let below = match input {
        LogicalPlan::Join(join)
            if join.join_type == JoinType::Left
                || join.join_type == JoinType::Inner
                    && join.on.is_empty()
                    && join.filter.is_none()
                    && gives_one_row(&join.right) =>
        {
            &join.left
        }
        LogicalPlan::Projection(projection)
            if columns.iter().all(|column| projection.expr.contains(&Expr::Column(column.clone()))) =>
        {
            &projection.input
        }
        _ => return input,
    };
    if has_all(below) { source_of(below, columns) } else { input }
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
