//! Functions that make much of little (`repeat`, `lpad`, `range` and the like) say so before they do: the memory pool bounds what
//! operators keep, but it knows nothing of what a function allocates, and one call could take all the memory there is.
//!
//! Those that put their arguments together are among them, `||` too: each doubles at the most, but subqueries in subqueries double
//! what was doubled, for each of many rows.

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

/// Bytes that one row's result may have, and about how many are made at a time.
const CALL_BYTES_MAX: f64 = (128 << 20) as f64;
/// Bytes that one call, of a batch of rows, may make.
const BATCH_BYTES_MAX: f64 = (256 << 20) as f64;
/// Bytes of an element of a list at the least, and of a character at the most.
const ELEMENT_BYTES: f64 = 8.0;
const CHARACTER_BYTES: f64 = 4.0;
/// Bytes that a number or a time has as text at the most; of a float all digits are written.
const NUMBER_BYTES: f64 = 48.0;
const FLOAT_BYTES: f64 = 330.0;
/// How often a format that says how to write a time fits into what it makes: `%+` makes 35 bytes.
const FORMAT_FACTOR: f64 = 18.0;

/// Each function whose result may be much larger than its largest argument.
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

/// Puts a bound on each of them, however a statement comes to it.
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

/// Operators (`||`) and literals (`[…]`) stand for functions that no registry is asked for.
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

/// Whether a value is one of those that a chain of texts is made of.
fn is_flat(expr: &Expr, schema: &DFSchema) -> bool {
    let is_bytes = |found: &ArrowType| matches!(found, ArrowType::Binary | ArrowType::LargeBinary);
    expr.get_type(schema).is_ok_and(|found| !found.is_nested() && !is_bytes(&found))
}

/// How large the result of a row becomes at the most, from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    /// The first, as often as the second says.
    Repeat,
    /// As many characters as the second says.
    Pad,
    /// The third in the place of the second, at each byte of the first at the most.
    Replace,
    /// The third once, with the first in it at each of its groups; with flags, at each byte of the first.
    ReplacePattern,
    /// The first for each group of the second.
    Groups,
    /// All together.
    Sum,
    /// All together, with the first between them.
    Joined,
    /// What the second says of a time.
    Format,
    /// From the first to the second in steps of the third.
    Range,
    /// As many elements as the second says, each like this argument.
    Elements { of: usize },
    /// The third in the place of each element of the first.
    ReplaceElements,
    /// For each element of the longest a value of all of them.
    Zip,
    /// The elements of the first as text, with the longer of the others at each.
    ElementsAsText,
    /// An element for each byte of the first.
    Split,
}

impl Measure {
    /// About how many bytes the result has for each row.
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

    /// The same, of functions of many arguments and of lists.
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

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    measure: Measure,
}

impl Bounded {
    fn function(inner: Arc<ScalarUDF>, measure: Measure) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { inner, measure })
    }

    fn refuse<T>(&self, bytes: f64, limit: f64) -> QueryResult<T> {
        if bytes.is_infinite() {
            return resources_err!(
                "{} would never end: the months, days and seconds of its step point both ways",
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

    /// Rows that may be done at a time. What is measured is the most that can be made of a row: of many rows it is much more than they
    /// come to, so these are taken in parts.
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

    /// Does some rows after the others, as long as what they make is not too much.
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
