//! A subscription's SQL, compiled once: `SELECT expressions FROM one table [WHERE condition]`, and what `result` makes of that.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType as ArrowType, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, Operator, Volatility, utils::split_conjunction,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr as PhysicalBinary, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use log_format::{ColumnId, KeyBuilder, Partition, Value};

use crate::error::{Error, Result, from_query};
use crate::live::projection::{Projection, Projections};
use crate::live::result::{
    ResultPlan, computes_from_system_column, filter_of, result_plan, shape_error, shape_of,
};
use crate::table::TableInfo;
use crate::values;

/// An equality on a constant: only rows with this value in this column can match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The column's position in the table.
    pub(crate) column: usize,
    /// The constant, as a key.
    pub(crate) value: Arc<[u8]>,
}

/// Which rows match.
#[derive(Debug)]
enum Condition {
    All,
    /// Those with this value in this column.
    Equals(usize, Value),
    Expression(Arc<dyn PhysicalExpr>),
}

/// A compiled live query.
#[derive(Debug)]
pub(crate) struct LiveQuery {
    pub(crate) info: Arc<TableInfo>,
    pub(crate) partition: Partition,
    condition: Condition,
    /// What subscribers see; `_seq` is always in it.
    pub(crate) projection: Arc<Projection>,
    /// What is made of the rows that match, where it is not the rows themselves.
    pub(crate) result: Option<Box<ResultPlan>>,
    pub(crate) route: Option<Route>,
    /// Whether it computes what it selects from system columns, of which the log does not have those of rows before a change.
    pub(crate) selects_of_system: bool,
    /// The columns it selects or compares.
    pub(crate) columns: Box<[ColumnId]>,
}

impl LiveQuery {
    /// Compiles the plan of a subscription's SELECT, in which `_seq` has been added to what is selected.
    pub(crate) fn compile(
        state: &SessionState,
        plan: &LogicalPlan,
        info: Arc<TableInfo>,
        partition: Partition,
        projections: &Projections,
    ) -> Result<Self> {
        let shape = shape_of(plan)?;
        let predicate = filter_of(shape.input).cloned();
        let scan = match shape.input {
            LogicalPlan::Filter(filter) => filter.input.as_ref(),
            other => other,
        };
        let scan = match scan {
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            other => other,
        };
        if !matches!(scan, LogicalPlan::TableScan(_)) {
            return Err(shape_error(scan));
        }
        let input = shape.input.schema();
        let expressions = shape.expressions().chain(predicate.as_ref());
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
        let columns = named_columns(&info, expressions);
        let physical = |expression: &Expr, input| {
            kalamdb_query::compile(state, expression.clone(), input).map_err(from_query)
        };
        let shared = projections.shared(info.id(), info.version(), shape.signature(), || {
            let select = shape.select.iter().map(|expression| physical(expression, shape.selected_from()));
            Ok((select.collect::<Result<Vec<_>>>()?, shape.arrow_schema()))
        })?;
        let result = result_plan(state, &shape, &info, &shared)?.map(Box::new);
        let equality = predicate.as_ref().and_then(|predicate| find_equality(&info, predicate));
        let condition = match (&predicate, &equality) {
            (None, _) => Condition::All,
            (Some(predicate), Some((column, value)))
                if is_compared_directly(value) && split_conjunction(predicate).len() == 1 =>
            {
                Condition::Equals(*column, value.clone())
            }
            (Some(predicate), _) => Condition::Expression(physical(predicate, input)?),
        };
        let route = equality.and_then(|(column, value)| {
            let mut key = KeyBuilder::new();
            key.push(&value).ok()?;
            Some(Route { column, value: key.finish().into() })
        });
        let selects_of_system = shape.select.iter().any(computes_from_system_column);
        Ok(Self { info, partition, condition, projection: shared, result, route, selects_of_system, columns })
    }

    /// Lists the rows of a batch that match.
    pub(crate) fn matching_rows(&self, batch: &RecordBatch) -> Result<Vec<u32>> {
        let matching = self.matching(batch)?;
        Ok((0_u32..).zip(matching).filter_map(|(row, matches)| matches.then_some(row)).collect())
    }

    /// Whether the condition or what is selected may fail for some row, as far as that is known.
    pub(crate) fn may_fail(&self) -> bool {
        let fails = match &self.condition {
            Condition::All | Condition::Equals(..) => false,
            Condition::Expression(expression) => may_fail(expression),
        };
        fails || self.projection.may_fail()
    }

    /// Which rows of a batch match.
    pub(crate) fn matching(&self, batch: &RecordBatch) -> Result<Vec<bool>> {
        let expression = match &self.condition {
            Condition::All => return Ok(vec![true; batch.num_rows()]),
            Condition::Equals(column, value) => return Ok(equal(batch.column(*column), value)),
            Condition::Expression(expression) => expression,
        };
        let mask = expression.evaluate(batch)?.into_array(batch.num_rows())?;
        if mask.data_type() == &ArrowType::Null {
            return Ok(vec![false; batch.num_rows()]);
        }
        let mask = mask.as_boolean();
        Ok((0..mask.len()).map(|row| mask.is_valid(row) && mask.value(row)).collect())
    }
}

/// Whether evaluating an expression may be an error for some row: only comparisons of columns and constants never are.
pub(super) fn may_fail(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let is_safe = match expression.downcast_ref::<PhysicalBinary>() {
        Some(binary) => binary.op().is_logic_operator() || binary.op().supports_propagation(),
        None => {
            expression.is::<Column>()
                || expression.is::<Literal>()
                || expression.is::<NotExpr>()
                || expression.is::<IsNullExpr>()
                || expression.is::<IsNotNullExpr>()
                || expression.is::<InListExpr>()
        }
    };
    !is_safe || expression.children().into_iter().any(may_fail)
}

/// Whether [`equal`] knows values of this type.
const fn is_compared_directly(value: &Value) -> bool {
    matches!(
        value,
        Value::SmallInt(_) | Value::Int(_) | Value::BigInt(_) | Value::Boolean(_) | Value::Text(_)
    )
}

/// Tells for each value of a column whether it is this one. Of the types that [`is_compared_directly`] names.
fn equal(array: &dyn Array, value: &Value) -> Vec<bool> {
    fn integers<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, value: T::Native) -> Vec<bool> {
        array.iter().map(|found| found == Some(value)).collect()
    }
    match value {
        Value::SmallInt(value) => integers(array.as_primitive::<Int16Type>(), *value),
        Value::Int(value) => integers(array.as_primitive::<Int32Type>(), *value),
        Value::BigInt(value) => integers(array.as_primitive::<Int64Type>(), *value),
        Value::Boolean(value) => array.as_boolean().iter().map(|found| found == Some(*value)).collect(),
        Value::Text(value) => array.as_string::<i32>().iter().map(|found| found == Some(value)).collect(),
        _ => vec![false; array.len()],
    }
}

/// The table's own columns that expressions name.
fn named_columns<'e>(info: &TableInfo, expressions: impl Iterator<Item = &'e Expr>) -> Box<[ColumnId]> {
    let named = expressions.flat_map(Expr::column_refs).map(|column| column.name.as_str());
    let mut columns: Vec<ColumnId> = named
        .filter_map(|name| info.columns().iter().find(|column| column.name == name))
        .map(|column| column.id)
        .collect();
    columns.sort_unstable();
    columns.dedup();
    columns.into()
}

/// Whether the value may be another one later for the same row: `random()`, `now()`. Who asks is told by a constant already.
fn changes_by_itself(expression: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let unstable = |part: &Expr| match part {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
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

/// The first equality of a column of the table with a constant, among conditions that must all hold.
fn find_equality(info: &TableInfo, predicate: &Expr) -> Option<(usize, Value)> {
    split_conjunction(predicate).into_iter().find_map(|condition| {
        let (name, literal) = column_equals(condition)?;
        let column = info.column_position(name)?;
        let data_type = info.columns().get(column)?.data_type;
        let value = values::from_scalar(literal, data_type).ok().filter(|value| !value.is_null())?;
        // A constant that changes on its way into the column's type (`1.5` for an INT) is left to the expression.
        lossless(literal, &value).then_some((column, value))
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

/// Whether a literal means the very value it was turned into, in the same order among others. Pairs that are not listed are not
/// relied on.
pub(crate) fn lossless(literal: &ScalarValue, value: &log_format::Value) -> bool {
    use log_format::Value;
    match value {
        Value::SmallInt(_) | Value::Int(_) | Value::BigInt(_) => literal.data_type().is_integer(),
        Value::Text(_) => values::is_text(&literal.data_type()),
        Value::Boolean(_) => literal.data_type() == datafusion::arrow::datatypes::DataType::Boolean,
        Value::Timestamp(micros) => *literal == ScalarValue::TimestampMicrosecond(Some(*micros), None),
        Value::DateTime(micros) => {
            matches!(literal, ScalarValue::TimestampMicrosecond(Some(literal), Some(_)) if literal == micros)
        }
        Value::Date(days) => *literal == ScalarValue::Date32(Some(*days)),
        Value::Time(micros) => *literal == ScalarValue::Time64Microsecond(Some(*micros)),
        // The same digits are the same number only with as many of them behind the point: nothing else is cast to them.
        Value::Decimal(unscaled) => {
            matches!(literal, ScalarValue::Decimal128(Some(literal), ..) if literal == unscaled)
        }
        Value::Uuid(bytes) => {
            let mut text = uuid::Uuid::encode_buffer();
            let text = uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut text);
            literal.try_as_str().flatten() == Some(text)
        }
        _ => false,
    }
}
