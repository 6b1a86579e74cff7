//! A subscription's SQL, compiled once: `SELECT expressions FROM one table [WHERE condition]`.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, Operator, Volatility, utils::split_conjunction,
};
use datafusion::physical_expr::PhysicalExpr;
use log_format::{KeyBuilder, Partition};

use crate::error::{Error, Result, from_query};
use crate::rows::Shape;
use crate::table::TableInfo;
use crate::values;

/// An equality on a constant: only rows with this value in this column can match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The column's position in the table.
    pub(crate) column: usize,
    /// The constant, as a key.
    pub(crate) value: Vec<u8>,
}

/// A compiled live query.
#[derive(Debug)]
pub(crate) struct LiveQuery {
    pub(crate) info: Arc<TableInfo>,
    pub(crate) partition: Partition,
    filter: Option<Arc<dyn PhysicalExpr>>,
    projection: Vec<Arc<dyn PhysicalExpr>>,
    /// What subscribers see; `_seq` is always in it.
    pub(crate) schema: SchemaRef,
    /// Two live queries with the same signature over the same table project alike.
    pub(crate) signature: String,
    pub(crate) route: Option<Route>,
}

impl LiveQuery {
    /// Compiles the plan of a subscription's SELECT, in which `_seq` has been added to what is selected.
    pub(crate) fn compile(
        state: &SessionState,
        plan: &LogicalPlan,
        info: Arc<TableInfo>,
        partition: Partition,
    ) -> Result<Self> {
        let LogicalPlan::Projection(projection) = plan else { return Err(shape_error(plan)) };
        let (scan, predicate) = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => (filter.input.as_ref(), Some(filter.predicate.clone())),
            other => (other, None),
        };
        let scan = match scan {
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            other => other,
        };
        if !matches!(scan, LogicalPlan::TableScan(_)) {
            return Err(shape_error(scan));
        }
        let input = projection.input.schema();
        let expressions = projection.expr.iter().chain(predicate.as_ref());
        if let Some(volatile) = expressions.clone().find(|expression| changes_by_itself(expression)) {
            return Err(Error::Unsupported {
                what: format!("{volatile} in a live query"),
                hint: Some("its value is another one each time it is evaluated"),
            });
        }
        if let Some(subquery) = expressions.clone().find(|expression| has_subquery(expression)) {
            return Err(Error::Unsupported {
                what: format!("the subquery {subquery} in a live query"),
                hint: Some("a live query reads one table"),
            });
        }
        let physical = |expression: &Expr| {
            let bare = expression.clone().unalias_nested().data;
            state.create_physical_expr(bare, input).map_err(from_query)
        };
        let filter = predicate.as_ref().map(physical).transpose()?;
        let columns = projection.expr.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(Schema::new(
            projection.schema.fields().iter().map(|field| field.as_ref().clone()).collect::<Vec<Field>>(),
        ));
        let signature = projection.expr.iter().map(ToString::to_string).collect::<Vec<_>>().join("\u{1}");
        let route = predicate.as_ref().and_then(|predicate| find_route(&info, predicate));
        Ok(Self { info, partition, filter, projection: columns, schema, signature, route })
    }

    /// Which rows of a batch match.
    pub(crate) fn matching(&self, batch: &RecordBatch) -> Result<Vec<bool>> {
        let Some(filter) = &self.filter else { return Ok(vec![true; batch.num_rows()]) };
        let mask = filter.evaluate(batch)?.into_array(batch.num_rows())?;
        if mask.data_type() == &datafusion::arrow::datatypes::DataType::Null {
            return Ok(vec![false; batch.num_rows()]);
        }
        let mask = mask.as_boolean();
        Ok((0..mask.len()).map(|row| mask.is_valid(row) && mask.value(row)).collect())
    }

    /// What subscribers see of these rows of a batch.
    pub(crate) fn project(&self, batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        let picked = take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?;
        let arrays = self
            .projection
            .iter()
            .map(|expression| expression.evaluate(&picked)?.into_array(picked.num_rows()))
            .collect::<Result<Vec<_>, _>>()?;
        // An expression may come out as another type of text than planned; what is sent is the same.
        let fields = self.schema.fields().iter().zip(&arrays).map(|(field, array)| {
            field.as_ref().clone().with_data_type(array.data_type().clone()).with_nullable(true)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(picked.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }
}

/// Whether the value may be another one later for the same row: `random()`, `now()`. Who asks stays who it is.
fn changes_by_itself(expression: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let unstable = |part: &Expr| match part {
        Expr::ScalarFunction(call) => {
            let of_session = matches!(call.func.name(), "current_user" | "current_role");
            !of_session && call.func.signature().volatility != Volatility::Immutable
        }
        _ => false,
    };
    expression.exists(|part| Ok(unstable(part))).unwrap_or(true)
}

fn has_subquery(expression: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expression
        .exists(|part| Ok(matches!(part, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_))))
        .unwrap_or(true)
}

fn shape_error(plan: &LogicalPlan) -> Error {
    Error::Unsupported {
        what: format!("{} in a live query", plan.display().to_string().split(':').next().unwrap_or_default()),
        hint: Some("write SELECT columns FROM one table [WHERE condition]"),
    }
}

/// The first equality of a column of the table with a constant, among conditions that must all hold.
fn find_route(info: &TableInfo, predicate: &Expr) -> Option<Route> {
    split_conjunction(predicate).into_iter().find_map(|condition| {
        let (name, literal) = column_equals(condition)?;
        let column = info.column_position(name)?;
        let data_type = info.columns().get(column)?.data_type;
        let value = values::from_scalar(literal, data_type).ok().filter(|value| !value.is_null())?;
        // A constant that changes on its way into the column's type (`1.5` for an INT) is left to the filter.
        let mut key = KeyBuilder::new();
        key.push(&value).ok()?;
        lossless(literal, &value).then(|| Route { column, value: key.finish() })
    })
}

/// `column = literal`, either way round.
pub(crate) fn column_equals(condition: &Expr) -> Option<(&str, &ScalarValue)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(literal, _))
        | (Expr::Literal(literal, _), Expr::Column(column)) => Some((column.name.as_str(), literal)),
        _ => None,
    }
}

/// Whether a literal means the very value it was turned into: integers and text always, other pairs are not relied on.
pub(crate) fn lossless(literal: &ScalarValue, value: &log_format::Value) -> bool {
    use log_format::Value;
    match value {
        Value::SmallInt(_) | Value::Int(_) | Value::BigInt(_) => literal.data_type().is_integer(),
        Value::Text(_) => values::is_text(&literal.data_type()),
        Value::Boolean(_) => literal.data_type() == datafusion::arrow::datatypes::DataType::Boolean,
        _ => false,
    }
}

/// What the expressions of every live query over this table read: all of its columns and the system's.
pub(crate) fn live_shape(info: &TableInfo) -> Shape {
    Shape::of_table(info, info.system_columns())
}
