//! Scalar functions that the analysis puts into plans, and those that PostgreSQL has and `DataFusion` lacks.

mod arithmetic;
mod average;
mod bytes;
mod casts;
mod choose;
mod compare;
mod json;
mod neighbours;
mod patterns;
mod percentile;
mod single_value;
mod span_aggregates;
mod spans;
mod templates;
mod times;
mod truncate;
mod within;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub use arithmetic::average_of;
pub(crate) use arithmetic::{
    digits_of, divide_floats, divide_numerics, divide_span, is_one, multiply_span, negate_checked,
    round_float, round_to_integer,
};
pub(crate) use average::average;
pub(crate) use bytes::bytes_length;
pub use casts::cast_array;
pub(crate) use casts::{as_text, parse_as};
pub(crate) use choose::coalesce;
pub use json::documents;
pub(crate) use json::{contains as json_contains, embed as json_embed};
pub(crate) use neighbours::present_neighbour;
pub(crate) use patterns::{like_pattern, matches_similar, regular_pattern};
pub(crate) use single_value::single_value;
pub(crate) use span_aggregates::of_spans;
pub(crate) use spans::{SPAN, date_difference, span_between, span_key, to_arrow};
pub(crate) use times::{TIMESTAMP, date_at_time, date_plus_days, part_of_time, time_moved};

/// The metadata entry of an Arrow field that tells its SQL type where Arrow alone does not.
pub const TYPE_METADATA: &str = "kalam_type";

/// Evaluates a function: its arguments, all as long as the result, and the type of the result.
type Evaluate = fn(&[ArrayRef], &DataType) -> Result<ArrayRef>;

/// A function without state, by what it is called, what it gives and how.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    name: &'static str,
    /// The type of its values; none where its arguments decide.
    target: Option<DataType>,
    /// The SQL type that Arrow does not tell.
    sql_type: Option<&'static str>,
    returns: fn(&[DataType]) -> Result<DataType>,
    evaluate: Evaluate,
    signature: Signature,
}

impl Function {
    fn new(name: &'static str, returns: fn(&[DataType]) -> Result<DataType>, evaluate: Evaluate) -> Self {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Self { name, target: None, sql_type: None, returns, evaluate, signature }
    }

    /// A function that gives values of one type.
    fn to(name: &'static str, target: DataType, evaluate: Evaluate) -> Self {
        Self { target: Some(target), ..Self::new(name, |_| Ok(DataType::Null), evaluate) }
    }

    fn of_sql_type(self, sql_type: &'static str) -> Self {
        Self { sql_type: Some(sql_type), ..self }
    }

    fn call(self, args: Vec<Expr>) -> Expr {
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(self)), args))
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.target == other.target && self.sql_type == other.sql_type
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.target.hash(state);
        self.sql_type.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.target.clone().map_or_else(|| (self.returns)(types), Ok)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let field = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(match self.sql_type {
            Some(name) => field.with_metadata([(TYPE_METADATA.to_owned(), name.to_owned())].into()),
            None => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant =
            !args.args.is_empty() && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let result = (self.evaluate)(&arrays, args.return_field.data_type())?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// Makes the functions that statements may call by name known.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    let all = arithmetic::named()
        .into_iter()
        .chain(bytes::named())
        .chain(choose::named())
        .chain(truncate::named())
        .chain(patterns::named())
        .chain(compare::named())
        .chain(json::named())
        .chain(spans::named())
        .chain(times::named())
        .chain(templates::named())
        .chain(within::named());
    for function in all {
        registry.register_udf(Arc::new(ScalarUDF::new_from_impl(function)))?;
    }
    registry.register_udaf(Arc::new(percentile::named()))?;
    Ok(())
}
