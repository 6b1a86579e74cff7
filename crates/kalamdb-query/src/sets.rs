//! INTERSECT ALL and EXCEPT ALL, which count rows, and DISTINCT, which groups them.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Join, JoinType, LogicalPlan, Projection, SubqueryAlias, Window,
    WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;

const NUMBER: &str = "\u{1}copy";

/// Joins the nth copy of a row with the nth copy on the other side: `DataFusion` joins every copy with any.
#[derive(Debug, Default)]
pub struct CountCopies;

impl AnalyzerRule for CountCopies {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(count)?.data)
    }

    fn name(&self) -> &'static str {
        "count_copies"
    }
}

fn count(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
    let is_set = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && join.on.len() == join.left.schema().fields().len();
    let is_distinct = match join.left.as_ref() {
        LogicalPlan::Distinct(Distinct::All(_)) => true,
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => {
            matches!(input.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
        }
        _ => false,
    };
    if !is_set || is_distinct {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let columns = join.left.schema().columns();
    let left_keys = join.on.iter().map(|(left, _)| left.clone()).collect();
    let right_keys = join.on.iter().map(|(_, right)| right.clone()).collect();
    let left = numbered(&join.left, left_keys, "\u{1}left")?;
    let right = numbered(&join.right, right_keys, "\u{1}right")?;
    let number = |name: &str| Expr::Column(Column::new_unqualified(format!("{NUMBER}{name}")));
    let mut on = join.on.clone();
    on.push((number("\u{1}left"), number("\u{1}right")));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        false,
    )?;
    let exprs = columns.into_iter().map(Expr::Column).collect();
    let plan = Projection::try_new(exprs, Arc::new(LogicalPlan::Join(joined)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(plan)))
}

fn numbered(input: &Arc<LogicalPlan>, keys: Vec<Expr>, side: &str) -> Result<LogicalPlan> {
    let mut number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
    number.params.partition_by = keys;
    let number = Expr::from(number).alias(format!("{NUMBER}{side}"));
    Ok(LogicalPlan::Window(Window::try_new(vec![number], Arc::clone(input))?))
}

/// Distinct rows as groups. `DataFusion` would make groups of them itself, but leaves that out where it takes the rows for distinct
/// already (as of 55.0.0): those of `GROUP BY a, b` by `a`, where `a` was distinct before a join gave it several times.
#[derive(Debug)]
pub struct GroupDistinct;

impl AnalyzerRule for GroupDistinct {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(as_groups)?.data)
    }

    fn name(&self) -> &'static str {
        "group_distinct"
    }
}

fn as_groups(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Distinct(Distinct::All(input)) = plan else { return Ok(Transformed::no(plan)) };
    if input.schema().fields().is_empty() {
        return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
    }
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, columns, Vec::new())?)))
}
