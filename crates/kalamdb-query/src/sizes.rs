//! Memory limits of functions whose result may be much larger than their arguments (`repeat`, `lpad`, `range`).
//!
//! The memory pool limits what operators keep. It does not count what a function allocates, so that one call could exhaust the
//! memory. Functions that join their arguments have limits as well, `||` included: each at most doubles its arguments, but nested
//! subqueries repeat that for every row.

mod arguments;
mod operator;

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::Array;
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType as ArrowType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, resources_err};
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use arguments::{Arguments, bytes_of_rows};
use operator::Concatenation;

/// Maximum bytes of one row's result, and the estimated bytes of the rows that are evaluated together.
const CALL_BYTES_MAX: f64 = (128 << 20) as f64;
/// Maximum bytes of the result of one call, for a batch of rows.
const BATCH_BYTES_MAX: f64 = (256 << 20) as f64;
/// Minimum bytes of an element of a list.
const ELEMENT_BYTES: f64 = 8.0;
/// Maximum bytes of a character.
const CHARACTER_BYTES: f64 = 4.0;
/// Maximum bytes of the text of a number or a time.
const NUMBER_BYTES: f64 = 48.0;
/// Maximum bytes of the text of a float with all its digits.
const FLOAT_BYTES: f64 = 330.0;
/// Maximum ratio of a written time to its template.
const FORMAT_FACTOR: f64 = 18.0;
/// Maximum ratio of encoded bytes to the bytes: `\\000` of each.
const ENCODED_FACTOR: f64 = 4.0;
/// Maximum ratio of a string of JSON to its text: `\\u0001` of a character.
const ESCAPED_FACTOR: f64 = 6.0;
/// Maximum bytes of the JSON of a value that is no text.
const JSON_VALUE_BYTES: f64 = 100.0;

/// Functions whose result may be much larger than their largest argument, each with its measure.
const MEASURES: &[(&str, Measure)] = &[
    ("repeat", Measure::Repeat),
    ("lpad", Measure::Pad),
    ("rpad", Measure::Pad),
    ("replace", Measure::Replace),
    ("regexp_replace", Measure::ReplacePattern),
    ("regexp_match", Measure::Groups),
    ("concat", Measure::Sum),
    ("concat_ws", Measure::Joined),
    (Concatenation::NAME, Measure::Sum),
    ("overlay", Measure::Sum),
    ("encode", Measure::Encoded),
    ("json_build_object", Measure::Json),
    ("jsonb_build_object", Measure::Json),
    ("json_build_array", Measure::Json),
    ("jsonb_build_array", Measure::Json),
    ("to_json", Measure::Json),
    ("to_jsonb", Measure::Json),
    ("json_pair", Measure::Json),
    ("json_join", Measure::Json),
    ("json_join_pairs", Measure::Json),
    ("jsonb_join_pairs", Measure::Json),
    ("to_char", Measure::Format),
    ("range", Measure::Range),
    ("generate_series", Measure::Range),
    ("make_array", Measure::Sum),
    ("map", Measure::Sum),
    ("struct", Measure::Sum),
    ("named_struct", Measure::Sum),
    ("array_append", Measure::Sum),
    ("array_prepend", Measure::Sum),
    ("array_concat", Measure::Sum),
    ("array_union", Measure::Sum),
    ("array_replace", Measure::Sum),
    ("array_replace_n", Measure::ReplaceElements),
    ("array_replace_all", Measure::ReplaceElements),
    ("array_repeat", Measure::Elements { of: 0 }),
    ("array_resize", Measure::Elements { of: 2 }),
    ("arrays_zip", Measure::Zip),
    ("array_to_string", Measure::ElementsAsText),
    ("string_to_array", Measure::Split),
];

/// Gives each of these functions its memory limit.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> QueryResult<()> {
    for (name, measure) in MEASURES {
        // `||` is no function that could be called by name.
        if *name != Concatenation::NAME {
            let inner = registry.udf(name)?;
            registry.register_udf(Arc::new(Bounded::function(inner, *measure)))?;
        }
    }
    registry.register_function_rewrite(Arc::new(BoundAll))
}

/// Limits the functions that operators (`||`) and literals (`[…]`) stand for, which are not looked up in a registry.
#[derive(Debug)]
struct BoundAll;

impl FunctionRewrite for BoundAll {
    fn name(&self) -> &'static str {
        "bound_sizes"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> QueryResult<Transformed<Expr>> {
        let (func, args) = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let function = Arc::new(ScalarUDF::new_from_impl(Concatenation::default()));
                match *left {
                    // One call for a chain of texts: what asks a call for its type asks its arguments, and theirs.
                    Expr::ScalarFunction(chain)
                        if chain.func.name() == Concatenation::NAME
                            && chain.args.iter().chain([right.as_ref()]).all(|arg| is_flat(arg, schema)) =>
                    {
                        let mut args = chain.args;
                        args.push(*right);
                        (function, args)
                    }
                    left => (function, vec![left, *right]),
                }
            }
            Expr::ScalarFunction(call) if call.func.inner().downcast_ref::<Bounded>().is_none() => {
                (call.func, call.args)
            }
            other => return Ok(Transformed::no(other)),
        };
        let measure = MEASURES.iter().find(|(name, _)| *name == func.name()).map(|(_, measure)| *measure);
        let Some(measure) = measure else {
            return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })));
        };
        let func = Arc::new(Bounded::function(func, measure));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
    }
}

/// Whether a value may be a part of a chain of concatenated texts.
fn is_flat(expr: &Expr, schema: &DFSchema) -> bool {
    let is_bytes = |found: &ArrowType| matches!(found, ArrowType::Binary | ArrowType::LargeBinary);
    expr.get_type(schema).is_ok_and(|found| !found.is_nested() && !is_bytes(&found))
}

/// An upper bound of the size of a row's result, by its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    /// The first argument, repeated as often as the second says.
    Repeat,
    /// The number of characters that the second argument gives.
    Pad,
    /// The third argument in place of the second, at most at each byte of the first.
    Replace,
    /// The third argument once, with the first in each of its groups; with flags, at each byte of the first.
    ReplacePattern,
    /// The first argument for each group of the second.
    Groups,
    /// The sum of all arguments.
    Sum,
    /// The sum of all arguments, with the first between each two.
    Joined,
    /// The text of a time by the template that is the second argument.
    Format,
    /// The numbers from the first argument to the second in steps of the third.
    Range,
    /// The number of elements that the second argument gives, each as large as the argument `of`.
    Elements { of: usize },
    /// The third argument in place of each element of the first.
    ReplaceElements,
    /// A value of each argument for each element of the longest.
    Zip,
    /// The elements of the first argument as text, each with the longer of the others.
    ElementsAsText,
    /// An element for each byte of the first argument.
    Split,
    /// The first argument with each of its bytes encoded.
    Encoded,
    /// The sum of all arguments as JSON.
    Json,
}

impl Measure {
    /// Estimates the bytes of each row's result.
    fn of_rows(self, args: &Arguments<'_>) -> QueryResult<Box<dyn Fn(usize) -> f64>> {
        let (bytes, numbers) = (|at| args.bytes(at), |at| args.numbers(at));
        Ok(match self {
            Self::Repeat => {
                let (text, times) = (bytes(0)?, numbers(1)?);
                Box::new(move |row| text.at(row) * times.at(row))
            }
            Self::Pad => {
                let characters = numbers(1)?;
                Box::new(move |row| characters.at(row) * CHARACTER_BYTES)
            }
            Self::Replace => {
                let (text, from, to) = (bytes(0)?, bytes(1)?, bytes(2)?);
                // Nothing is found between bytes that are not there: an empty text stands beside each character.
                Box::new(move |row| text.at(row) + (text.at(row) / from.at(row).max(1.0) + 1.0) * to.at(row))
            }
            Self::ReplacePattern => {
                let (text, to, everywhere) = (bytes(0)?, bytes(2)?, args.count() > 3);
                // A group is named by two bytes; where all matches are replaced they have no byte in common.
                Box::new(move |row| {
                    let (text, to) = (text.at(row), to.at(row));
                    text + if everywhere { (text + 1.0) * to } else { to + text * to / 2.0 }
                })
            }
            Self::Groups => {
                let (text, pattern) = (bytes(0)?, bytes(1)?);
                Box::new(move |row| text.at(row) * (pattern.at(row) / 2.0 + 1.0))
            }
            Self::Format => {
                let format = bytes(1)?;
                Box::new(move |row| format.at(row) * FORMAT_FACTOR)
            }
            Self::Range => args.range()?,
            _ => self.of_lists(args)?,
        })
    }

    /// Estimates the bytes of each row's result, for functions of many arguments and of lists.
    fn of_lists(self, args: &Arguments<'_>) -> QueryResult<Box<dyn Fn(usize) -> f64>> {
        let (bytes, numbers, elements) = (|at| args.bytes(at), |at| args.numbers(at), |at| args.elements(at));
        Ok(match self {
            Self::Elements { of } => {
                let (element, times, null_bytes) = (bytes(of)?, numbers(1)?, args.element_bytes(0));
                Box::new(move |row| (element.at(row) + null_bytes) * times.at(row))
            }
            Self::ReplaceElements => {
                let (list, count, to) = (bytes(0)?, elements(0)?, bytes(2)?);
                Box::new(move |row| list.at(row) + count.at(row) * to.at(row))
            }
            Self::Zip => {
                let count = args.each(Arguments::elements)?;
                let element_bytes: f64 = (0..args.count()).map(|at| args.element_bytes(at)).sum();
                let sum = args.sum()?;
                Box::new(move |row| {
                    sum(row) + count.iter().map(|it| it.at(row)).fold(0.0, f64::max) * element_bytes
                })
            }
            Self::ElementsAsText => {
                let (text, count, between, none) = (bytes(0)?, args.leaves(0)?, bytes(1)?, bytes(2)?);
                let written = if args.has_floats(0) { FLOAT_BYTES } else { NUMBER_BYTES };
                Box::new(move |row| {
                    text.at(row) + count.at(row) * (written + between.at(row).max(none.at(row)))
                })
            }
            Self::Json => {
                let (sum, leaves) = (args.sum()?, args.each(Arguments::leaves)?);
                Box::new(move |row| {
                    let values: f64 = leaves.iter().map(|it| it.at(row)).sum();
                    sum(row) * ESCAPED_FACTOR + values * JSON_VALUE_BYTES
                })
            }
            Self::Encoded => {
                let value = bytes(0)?;
                Box::new(move |row| value.at(row) * ENCODED_FACTOR)
            }
            Self::Split => {
                let text = bytes(0)?;
                Box::new(move |row| (text.at(row) + 1.0) * ELEMENT_BYTES)
            }
            Self::Joined => {
                let (sum, between) = (args.sum()?, bytes(0)?);
                let places = f64::from(u32::try_from(args.count()).unwrap_or(u32::MAX));
                Box::new(move |row| sum(row) + between.at(row) * places)
            }
            _ => args.sum()?,
        })
    }
}

/// The function that a limited one calls; none of a function without a limit.
pub(crate) fn unbounded(function: &ScalarUDF) -> Option<&ScalarUDF> {
    function.inner().downcast_ref::<Bounded>().map(|bounded| bounded.inner.as_ref())
}

/// A function with a memory limit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    measure: Measure,
}

impl Bounded {
    /// A function with a memory limit.
    fn function(inner: Arc<ScalarUDF>, measure: Measure) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { inner, measure })
    }

    /// The error of a result that is too large.
    fn refuse<T>(&self, bytes: f64, limit: f64) -> QueryResult<T> {
        if bytes.is_infinite() {
            return resources_err!(
                "{} never ends: the months, days and time of its step have different signs",
                self.name()
            );
        }
        resources_err!(
            "{} would make {:.0} MiB at once, more than {:.0} MiB",
            self.name(),
            bytes / f64::from(1 << 20),
            limit / f64::from(1 << 20)
        )
    }

    /// Ranges of rows that are evaluated together. The estimates are upper bounds, whose sum over many rows is far above the real
    /// size, so that a batch is taken in parts.
    fn parts(&self, args: &ScalarFunctionArgs) -> QueryResult<Vec<Range<usize>>> {
        let arguments = Arguments::new(args);
        let of_row = self.measure.of_rows(&arguments)?;
        let (mut parts, mut start, mut sum) = (Vec::new(), 0, 0.0);
        for row in 0..arguments.rows() {
            let bytes = of_row(row).max(0.0);
            if bytes > CALL_BYTES_MAX {
                return self.refuse(bytes, CALL_BYTES_MAX);
            }
            if sum + bytes > CALL_BYTES_MAX {
                parts.push(start..row);
                (start, sum) = (row, 0.0);
            }
            sum += bytes;
        }
        parts.push(start..arguments.rows());
        Ok(parts)
    }

    /// Evaluates the parts one after the other, up to the limit of their results.
    fn invoke_by_parts(
        &self,
        args: &ScalarFunctionArgs,
        parts: Vec<Range<usize>>,
    ) -> QueryResult<ColumnarValue> {
        let (mut made, mut bytes) = (Vec::with_capacity(parts.len()), 0.0);
        for part in parts {
            let of_part = |arg: &ColumnarValue| match arg {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(part.start, part.len())),
                scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
            };
            let args = ScalarFunctionArgs {
                args: args.args.iter().map(of_part).collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: part.len(),
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            };
            let result = self.inner.invoke_with_args(args)?.into_array(part.len())?;
            let of_row = bytes_of_rows(&result)?;
            bytes += (0..part.len()).map(|row| of_row.at(row)).sum::<f64>();
            if bytes > BATCH_BYTES_MAX {
                return self.refuse(bytes, BATCH_BYTES_MAX);
            }
            made.push(result);
        }
        let made: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&made)?))
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> QueryResult<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[ArrowType]) -> QueryResult<Vec<ArrowType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[ArrowType]) -> QueryResult<ArrowType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> QueryResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let parts = self.parts(&args)?;
        if parts.len() == 1 { self.inner.invoke_with_args(args) } else { self.invoke_by_parts(&args, parts) }
    }
}
