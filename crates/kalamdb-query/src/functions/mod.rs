//! Functions that the analysis puts into plans, and functions of PostgreSQL that `DataFusion` lacks.

mod arithmetic;
mod average;
mod bytes;
mod casts;
mod choose;
mod compare;
mod document;
mod documents;
mod format;
mod json;
mod make;
mod neighbours;
mod patterns;
mod percentile;
mod round;
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
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

pub use arithmetic::average_of;
pub(crate) use arithmetic::{
    digits_of, divide_floats, divide_numerics, divide_span, exact_type, is_decimal, is_float, is_one,
    multiply_span, negate_checked, round_float, round_to_integer, to_real,
};
pub(crate) use average::average;
pub(crate) use bytes::{bytes_length, substring};
pub use casts::cast_array;
pub(crate) use casts::{as_text, parse_as};
pub(crate) use choose::coalesce;
pub use documents::documents;
pub(crate) use json::{at as json_at, contains as json_contains, embed as json_embed};
pub(crate) use neighbours::present_neighbour;
pub(crate) use patterns::{like_pattern, matches_similar, regular_pattern};
pub(crate) use single_value::single_value;
pub(crate) use span_aggregates::of_spans;
pub(crate) use spans::{SPAN, date_difference, span_between, span_key, to_arrow};
pub(crate) use times::{
    TIMESTAMP, clock_part, date_at_time, date_plus_days, instant_type, part_of_time, time_moved,
};

/// The key of a field's metadata with the SQL type that Arrow does not have.
pub const TYPE_METADATA: &str = "kalam_type";

/// The evaluation of a function: of its arguments, each as long as the result, and the type of the result.
type Evaluate = fn(&[ArrayRef], &DataType) -> Result<ArrayRef>;

/// Whether a function has a result for every value of its arguments' types. Conditions guard calls of partial functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Totality {
    /// Evaluation succeeds for every value.
    Total,
    /// Evaluation is an error for some values.
    Partial,
}

/// A function without state: its name, the type of its result and its evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    name: &'static str,
    totality: Totality,
    /// Whether the result is NULL where an argument is.
    is_strict: bool,
    /// The type of the results; none where `returns` computes it.
    target: Option<DataType>,
    /// The SQL type that Arrow does not have.
    sql_type: Option<&'static str>,
    returns: fn(&[DataType]) -> Result<DataType>,
    evaluate: Evaluate,
    signature: Signature,
}

impl Function {
    /// A function whose arguments decide the type of its results.
    fn new(
        name: &'static str,
        totality: Totality,
        returns: fn(&[DataType]) -> Result<DataType>,
        evaluate: Evaluate,
    ) -> Self {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Self { name, totality, is_strict: true, target: None, sql_type: None, returns, evaluate, signature }
    }

    /// A function whose results have one type.
    fn to(name: &'static str, totality: Totality, target: DataType, evaluate: Evaluate) -> Self {
        Self { target: Some(target), ..Self::new(name, totality, |_| Ok(DataType::Null), evaluate) }
    }

    /// A function that computes the type of its results, and so refuses arguments of a wrong type when a statement is planned.
    fn of_types(self, returns: fn(&[DataType]) -> Result<DataType>) -> Self {
        Self { target: None, returns, ..self }
    }

    /// A function that may have a value where an argument is NULL.
    fn of_nulls(self) -> Self {
        Self { is_strict: false, ..self }
    }

    /// A function that may also be called without arguments.
    fn or_of_none(mut self) -> Self {
        let forms = vec![TypeSignature::VariadicAny, TypeSignature::Nullary];
        self.signature = Signature::one_of(forms, Volatility::Immutable);
        self
    }

    /// Whether evaluation may be an error for some values.
    pub(crate) fn is_partial(&self) -> bool {
        self.totality == Totality::Partial
    }

    /// The function as one that several calls share.
    fn shared(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(self))
    }

    /// A function whose results have an SQL type that Arrow does not have.
    fn of_sql_type(self, sql_type: &'static str) -> Self {
        Self { sql_type: Some(sql_type), ..self }
    }

    /// A call of the function.
    fn call(self, args: Vec<Expr>) -> Expr {
        Expr::ScalarFunction(ScalarFunction::new_udf(self.shared(), args))
    }
}

/// The value that was computed for the last key: neighbouring rows mostly share one.
struct Last<K, V> {
    known: Option<(K, V)>,
}

impl<K, V> Default for Last<K, V> {
    fn default() -> Self {
        Self { known: None }
    }
}

impl<K, V> Last<K, V> {
    /// The value of a key, computed unless it was the last one.
    fn get<Q>(&mut self, key: &Q, compute: impl FnOnce(&Q) -> Result<V>) -> Result<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: PartialEq + ToOwned<Owned = K> + ?Sized,
    {
        let known = match self.known.take() {
            Some((last, value)) if last.borrow() == key => (last, value),
            _ => (key.to_owned(), compute(key)?),
        };
        Ok(&self.known.insert(known).1)
    }
}

/// A call of a function that is built once for all calls.
macro_rules! call_shared {
    ($function:expr, $args:expr) => {{
        static FUNCTION: std::sync::LazyLock<std::sync::Arc<datafusion::logical_expr::ScalarUDF>> =
            std::sync::LazyLock::new(|| $function.shared());
        datafusion::logical_expr::Expr::ScalarFunction(
            datafusion::logical_expr::expr::ScalarFunction::new_udf(std::sync::Arc::clone(&FUNCTION), $args),
        )
    }};
}
use call_shared;

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
        // The optimizer asks what becomes of a condition where columns are NULL, of no type.
        if self.is_strict && args.args.iter().any(|arg| arg.data_type() == DataType::Null) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?));
        }
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let result = (self.evaluate)(&arrays, args.return_field.data_type())?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// Registers the functions that statements call by name.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    let of_nulls = [format::named(), compare::named(), json::named(), within::named()].into_iter().flatten();
    let all = arithmetic::named()
        .into_iter()
        .chain(of_nulls.map(Function::of_nulls))
        .chain(bytes::named())
        .chain(make::named())
        .chain(choose::named())
        .chain(truncate::named())
        .chain(patterns::named())
        .chain(spans::named())
        .chain(times::named())
        .chain(templates::named());
    for function in all {
        registry.register_udf(function.shared())?;
    }
    for name in patterns::NAMES {
        let translated = patterns::Translated::instead_of(registry.udf(name)?);
        registry.register_udf(Arc::new(translated))?;
    }
    registry.register_udf(bytes::substring())?;
    registry.register_udf(Arc::new(round::Rounded::instead_of(registry.udf("round")?)))?;
    registry.register_udaf(Arc::new(percentile::named()))?;
    registry.register_udaf(Arc::new(average::unresolved()))?;
    Ok(())
}
