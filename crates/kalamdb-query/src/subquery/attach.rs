//! A subquery's value as a column: what is joined to a relation, and the expression that reads it.

use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue, internal_err, not_impl_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{count, first_value, max, min};
use datafusion::logical_expr::expr::{SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, not, when,
};
use datafusion::prelude::lit;

use super::domain::{Domain, join_nulls_equal};
use super::outer::{has_subquery, outer_columns};
use super::{Place, Rewriter, plain};
use crate::functions::single_value;

/// Counts and bounds of the values a subquery gives for one outer row.
struct Summary {
    /// Number of values.
    rows: Expr,
    /// Number of values that are not NULL.
    present: Expr,
    least: Expr,
    greatest: Expr,
}

impl Rewriter {
    /// Replaces the subqueries of an expression by columns that are joined to its input.
    pub(super) fn attach(
        &mut self,
        input: LogicalPlan,
        expr: Expr,
        place: Place,
    ) -> Result<(LogicalPlan, Expr)> {
        if !has_subquery(&expr) {
            return Ok((input, expr));
        }
        let mut joined = input;
        let expr = expr.transform_up(|part| {
            let (plan, replaced) = match part {
                Expr::Exists(exists) => {
                    let (plan, found) = self.exists(joined.clone(), &exists.subquery.subquery)?;
                    (plan, if exists.negated { not(found) } else { found })
                }
                Expr::InSubquery(membership) => {
                    let subquery = &membership.subquery.subquery;
                    let (plan, found) = self.membership(joined.clone(), *membership.expr, subquery)?;
                    (plan, if membership.negated { not(found) } else { found })
                }
                Expr::SetComparison(comparison) => self.comparison(joined.clone(), comparison)?,
                Expr::ScalarSubquery(subquery) => {
                    let plan = subquery.subquery.as_ref();
                    let is_constant = outer_columns(plan)?.is_empty();
                    // `DataFusion` takes such a column for one without NULLs, also where there is no row.
                    let is_null_safe = plan.schema().fields().iter().all(|field| field.is_nullable())
                        || plain::gives_one_row(plan);
                    if place == Place::Row && (is_constant && is_null_safe || plain::is_plain_scalar(plan)?) {
                        return self.inside(Expr::ScalarSubquery(subquery)).map(Transformed::yes);
                    }
                    self.scalar(joined.clone(), plan)?
                }
                other => return Ok(Transformed::no(other)),
            };
            joined = plan;
            Ok(Transformed::yes(replaced))
        })?;
        Ok((joined, expr.data))
    }

    /// Whether a subquery gives a row.
    fn exists(&mut self, input: LogicalPlan, subquery: &LogicalPlan) -> Result<(LogicalPlan, Expr)> {
        let (domain, outer) = self.domain(&input, subquery)?;
        let inner = self.unnest(subquery.clone(), &domain)?;
        let relation = self.name("exists");
        if domain.is_empty() {
            let counted = LogicalPlanBuilder::from(inner)
                .limit(0, Some(1))?
                .aggregate(Vec::<Expr>::new(), [count(lit(1_i64)).alias("n")])?
                .project([unqualified("n").alias_qualified(Some(relation.clone()), "n")])?
                .build()?;
            let joined = LogicalPlanBuilder::from(input).cross_join(counted)?.build()?;
            return Ok((joined, column(&relation, "n").gt(lit(0_i64))));
        }
        let marked = LogicalPlanBuilder::from(inner)
            .project(domain.exprs())?
            .distinct()?
            .project(key_exprs(&domain, &relation).chain([mark(&relation)]))?
            .build()?;
        let keys = key_pairs(&outer, &relation);
        let joined = join_nulls_equal(input, marked, keys, None, JoinType::Left)?;
        Ok((joined, column(&relation, MARK).is_not_null()))
    }

    /// The one value of a subquery; NULL where it gives no row, an error where it gives several.
    fn scalar(&mut self, input: LogicalPlan, subquery: &LogicalPlan) -> Result<(LogicalPlan, Expr)> {
        let (domain, outer) = self.domain(&input, subquery)?;
        let value = Expr::Column(first_column(subquery)?);
        let inner = self.unnest(subquery.clone(), &domain)?;
        let relation = self.name("scalar");
        let aggregates = [count(lit(1_i64)).alias("\u{1}n"), first_value(value, Vec::new()).alias("\u{1}v")];
        let columns =
            ["\u{1}n", "\u{1}v"].map(|name| unqualified(name).alias_qualified(Some(relation.clone()), name));
        let single = LogicalPlanBuilder::from(inner)
            .aggregate(domain.exprs(), aggregates)?
            .project(key_exprs(&domain, &relation).chain(columns))?
            .build()?;
        let joined = self.join_back(input, single, &outer, &relation)?;
        let value = single_value(column(&relation, "\u{1}v"), column(&relation, "\u{1}n"));
        Ok((joined, value))
    }

    /// `value IN (subquery)`, in three-valued logic.
    fn membership(
        &mut self,
        input: LogicalPlan,
        value: Expr,
        subquery: &LogicalPlan,
    ) -> Result<(LogicalPlan, Expr)> {
        let (domain, outer) = self.domain(&input, subquery)?;
        let member = Expr::Column(first_column(subquery)?);
        let inner = self.unnest(subquery.clone(), &domain)?;
        let is_certain = !member.nullable(inner.schema())? && !value.nullable(input.schema())?;
        let (input, value) = self.as_column(input, value)?;
        let relation = self.name("member");
        let key = member.clone().alias_qualified(Some(relation.clone()), "\u{1}v");
        let members = LogicalPlanBuilder::from(inner.clone())
            .filter(member.clone().is_not_null())?
            .project(key_exprs(&domain, &relation).chain([key]))?
            .distinct()?
            .build()?;
        let all_keys: Vec<Expr> = members.schema().columns().into_iter().map(Expr::Column).collect();
        let members = LogicalPlanBuilder::from(members)
            .project(all_keys.into_iter().chain([mark(&relation)]))?
            .build()?;
        let mut keys = key_pairs(&outer, &relation);
        keys.push((value.clone(), column(&relation, "\u{1}v")));
        let joined = join_nulls_equal(input, members, keys, None, JoinType::Left)?;
        let found = column(&relation, MARK).is_not_null();
        if is_certain {
            return Ok((joined, found));
        }
        let (joined, summary) = self.summary(joined, inner, &domain, &outer, member, false)?;
        let unknown = value.is_null().or(summary.present.lt(summary.rows.clone()));
        let empty = summary.rows.clone().is_null().or(summary.rows.eq(lit(0_i64)));
        let found =
            when(found, lit(true)).when(empty, lit(false)).when(unknown, null()).otherwise(lit(false))?;
        Ok((joined, found))
    }

    /// `value op ANY | ALL (subquery)`, in three-valued logic.
    fn comparison(&mut self, input: LogicalPlan, comparison: SetComparison) -> Result<(LogicalPlan, Expr)> {
        use Operator as O;
        let SetComparison { expr, subquery, op, quantifier } = comparison;
        let subquery = subquery.subquery.as_ref();
        let is_any = quantifier == SetQuantifier::Any;
        match (op, is_any) {
            (O::Eq, true) => return self.membership(input, *expr, subquery),
            (O::NotEq, false) => {
                let (joined, found) = self.membership(input, *expr, subquery)?;
                return Ok((joined, not(found)));
            }
            (O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq, _) => {}
            _ => {
                return not_impl_err!(
                    "{op} ANY or ALL of a subquery is not supported; write EXISTS (… WHERE …)"
                );
            }
        }
        let (domain, outer) = self.domain(&input, subquery)?;
        let member = Expr::Column(first_column(subquery)?);
        let inner = self.unnest(subquery.clone(), &domain)?;
        let (input, value) = self.as_column(input, *expr)?;
        let (joined, summary) = self.summary(input, inner, &domain, &outer, member, true)?;
        let Summary { rows, present, least, greatest } = summary;
        let holds = match (op, is_any) {
            (O::Eq, _) => value.clone().eq(least).and(value.clone().eq(greatest)),
            (O::NotEq, _) => value.clone().not_eq(least).or(value.clone().not_eq(greatest)),
            (O::Lt | O::LtEq, true) | (O::Gt | O::GtEq, false) => binary_expr(value.clone(), op, greatest),
            _ => binary_expr(value.clone(), op, least),
        };
        let empty = rows.clone().is_null().or(rows.clone().eq(lit(0_i64)));
        let decided = if is_any { holds } else { not(holds) };
        let unknown = value.is_null().or(present.lt(rows));
        let result = when(empty, lit(!is_any))
            .when(decided, lit(is_any))
            .when(unknown, null())
            .otherwise(lit(!is_any))?;
        Ok((joined, result))
    }

    /// Joins counts and bounds of a subquery's values to a relation.
    fn summary(
        &mut self,
        input: LogicalPlan,
        inner: LogicalPlan,
        domain: &Domain,
        outer: &[Column],
        member: Expr,
        with_bounds: bool,
    ) -> Result<(LogicalPlan, Summary)> {
        let relation = self.name("summary");
        let mut aggregates = vec![count(lit(1_i64)).alias("\u{1}n"), count(member.clone()).alias("\u{1}p")];
        if with_bounds {
            aggregates.push(min(member.clone()).alias("\u{1}l"));
            aggregates.push(max(member).alias("\u{1}g"));
        }
        let names = ["\u{1}n", "\u{1}p", "\u{1}l", "\u{1}g"].into_iter().take(aggregates.len());
        let columns = names.map(|name| unqualified(name).alias_qualified(Some(relation.clone()), name));
        let summary = LogicalPlanBuilder::from(inner)
            .aggregate(domain.exprs(), aggregates)?
            .project(key_exprs(domain, &relation).chain(columns))?
            .build()?;
        let joined = self.join_back(input, summary, outer, &relation)?;
        let of = |name: &str| column(&relation, name);
        Ok((
            joined,
            Summary {
                rows: of("\u{1}n"),
                present: of("\u{1}p"),
                least: of("\u{1}l"),
                greatest: of("\u{1}g"),
            },
        ))
    }

    #[expect(clippy::unused_self, reason = "a step of the rewriter as the others")]
    fn join_back(
        &self,
        input: LogicalPlan,
        right: LogicalPlan,
        outer: &[Column],
        relation: &TableReference,
    ) -> Result<LogicalPlan> {
        if outer.is_empty() {
            return LogicalPlanBuilder::from(input).cross_join(right)?.build();
        }
        join_nulls_equal(input, right, key_pairs(outer, relation), None, JoinType::Left)
    }

    /// A value as a column of its relation: a join takes no constants.
    fn as_column(&mut self, input: LogicalPlan, value: Expr) -> Result<(LogicalPlan, Expr)> {
        if matches!(value, Expr::Column(_)) {
            return Ok((input, value));
        }
        let relation = self.name("value");
        let all: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let value = value.alias_qualified(Some(relation.clone()), "\u{1}v");
        let plan = LogicalPlanBuilder::from(input).project(all.into_iter().chain([value]))?.build()?;
        Ok((plan, column(&relation, "\u{1}v")))
    }
}

/// The name of the column that tells that a row was found.
const MARK: &str = "\u{1}mark";

fn mark(relation: &TableReference) -> Expr {
    lit(true).alias_qualified(Some(relation.clone()), MARK)
}

fn null() -> Expr {
    Expr::Literal(ScalarValue::Boolean(None), None)
}

fn unqualified(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn column(relation: &TableReference, name: &str) -> Expr {
    Expr::Column(Column::new(Some(relation.clone()), name))
}

fn key_name(at: usize) -> String {
    format!("\u{1}k{at}")
}

/// The domain's columns under the name of a relation that is joined back.
fn key_exprs<'d>(domain: &'d Domain, relation: &'d TableReference) -> impl Iterator<Item = Expr> + 'd {
    domain.columns.iter().enumerate().map(|(at, column)| {
        Expr::Column(column.clone()).alias_qualified(Some(relation.clone()), key_name(at))
    })
}

fn key_pairs(outer: &[Column], relation: &TableReference) -> Vec<(Expr, Expr)> {
    let pair = |(at, outer): (usize, &Column)| (Expr::Column(outer.clone()), column(relation, &key_name(at)));
    outer.iter().enumerate().map(pair).collect()
}

fn first_column(subquery: &LogicalPlan) -> Result<Column> {
    match subquery.schema().columns().into_iter().next() {
        Some(column) => Ok(column),
        None => internal_err!("a subquery without columns"),
    }
}
