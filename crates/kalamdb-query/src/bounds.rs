//! The bound on what the optimizer expands expressions to.
//!
//! `DataFusion` repeats the operand of BETWEEN, of IN with few items and of `coalesce`, and puts the expression of a column in the place of
//! its name where it moves a condition below a projection. Nested, each of these doubles an expression with every level.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

/// Operators and columns that the expressions of a node may expand to.
const WEIGHT_MAX: u64 = 100_000;
/// Items of an IN that is written as comparisons.
const INLINE_ITEMS: usize = 3;

/// Refuses plans whose expressions would expand without bound.
#[derive(Debug, Default)]
pub struct BoundExpressions;

impl AnalyzerRule for BoundExpressions {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        weights_of(&plan)?;
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "bound_expressions"
    }
}

/// The weights of a plan's columns: operators and columns that each expands to where a condition on it is moved below the plan.
fn weights_of(plan: &LogicalPlan) -> Result<Vec<u64>> {
    let mut input = Vec::new();
    let mut inputs = Vec::new();
    for below in plan.inputs() {
        let weights = weights_of(below)?;
        input.extend(&weights);
        inputs.push(weights);
    }
    let schema = match plan.inputs().as_slice() {
        [] => Arc::new(DFSchema::empty()),
        [input] => Arc::clone(input.schema()),
        inputs => Arc::new(merge_schema(inputs)),
    };
    let own = Columns { schema: Arc::clone(&schema), weights: Vec::new() };
    let moved = Columns { schema, weights: input };
    let width = plan.schema().fields().len();
    let mut of_exprs = Vec::new();
    if !matches!(plan, LogicalPlan::Values(_) | LogicalPlan::TableScan(_)) {
        let is_condition = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        plan.apply_expressions(|expr| {
            require_bounded_subqueries(expr)?;
            require_bounded(expr, own.weigh(expr)?)?;
            let weight = moved.weigh(expr)?;
            if is_condition {
                require_bounded(expr, weight)?;
            }
            of_exprs.push(weight);
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let mut weights = match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => of_exprs,
        LogicalPlan::Union(_) => {
            let widest = |at| inputs.iter().filter_map(|weights| weights.get(at).copied()).max();
            (0..width).map(|at| widest(at).unwrap_or(1)).collect()
        }
        _ => moved.weights,
    };
    weights.resize(width, 1);
    Ok(weights)
}

fn require_bounded_subqueries(expr: &Expr) -> Result<()> {
    expr.apply(|part| {
        match part {
            Expr::ScalarSubquery(subquery) => weights_of(&subquery.subquery).map(drop)?,
            Expr::Exists(exists) => weights_of(&exists.subquery.subquery).map(drop)?,
            Expr::InSubquery(membership) => weights_of(&membership.subquery.subquery).map(drop)?,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Refuses an expression of this weight, unless it is written about as long.
fn require_bounded(expr: &Expr, weight: u64) -> Result<()> {
    if weight <= WEIGHT_MAX {
        return Ok(());
    }
    let mut written: u64 = 0;
    expr.apply(|_| {
        written += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if weight <= written.saturating_mul(4) {
        return Ok(());
    }
    not_impl_err!(
        "an expression that expands to more than {WEIGHT_MAX} operators is not supported; nest BETWEEN, IN, coalesce and derived \
         tables less deeply, or compute parts of it in a statement of their own"
    )
}

/// The columns that an expression reads, with their weights; those without one weigh 1.
struct Columns {
    schema: DFSchemaRef,
    weights: Vec<u64>,
}

impl Columns {
    fn weigh(&self, expr: &Expr) -> Result<u64> {
        Ok(match expr {
            Expr::Literal(..) => 0,
            Expr::Column(column) => self.weight_of(column),
            Expr::Between(between) => {
                let value = self.weigh(&between.expr)?.saturating_mul(2);
                value.saturating_add(self.weigh(&between.low)?).saturating_add(self.weigh(&between.high)?)
            }
            Expr::InList(list) if list.list.len() <= INLINE_ITEMS => {
                let value = self.weigh(&list.expr)?;
                let mut weight = 0_u64;
                for item in &list.list {
                    weight = weight.saturating_add(value).saturating_add(self.weigh(item)?);
                }
                weight.saturating_add(1)
            }
            Expr::ScalarFunction(call) if call.func.name() == "coalesce" => {
                let mut weight = 1_u64;
                for arg in &call.args {
                    weight = weight.saturating_add(self.weigh(arg)?.saturating_mul(2));
                }
                weight
            }
            other => {
                let mut weight = 1_u64;
                other.apply_children(|part| {
                    weight = weight.saturating_add(self.weigh(part)?);
                    Ok(TreeNodeRecursion::Continue)
                })?;
                weight
            }
        })
    }

    fn weight_of(&self, column: &Column) -> u64 {
        let at = self.schema.maybe_index_of_column(column);
        at.and_then(|at| self.weights.get(at)).copied().unwrap_or(1)
    }
}
