//! Functions that make much of little (`repeat`, `lpad`, `range` and the like) say so before they do: the memory pool bounds what
//! operators keep, but it knows nothing of what a function allocates, and one call could take all the memory there is.

#![expect(clippy::cast_precision_loss, reason = "about how much is what is asked")]

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::length::length;
use datafusion::arrow::datatypes::{
    DataType as ArrowType, FieldRef, Float64Type, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::{ScalarValue, resources_err};
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// Bytes that one call, of a batch of rows, may make.
const CALL_BYTES_MAX: f64 = (128 << 20) as f64;
/// Bytes of an element of a list that is no text, and of a character.
const ELEMENT_BYTES: f64 = 8.0;
const CHARACTER_BYTES: f64 = 4.0;

/// Puts a bound on each of them.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> QueryResult<()> {
    for (name, measure) in [
        ("repeat", Measure::Repeat),
        ("lpad", Measure::Pad),
        ("rpad", Measure::Pad),
        ("replace", Measure::Replace),
        ("range", Measure::Range),
        ("generate_series", Measure::Range),
        ("array_repeat", Measure::Elements),
        ("array_resize", Measure::Elements),
    ] {
        let inner = registry.udf(name)?;
        registry.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, measure })))?;
    }
    Ok(())
}

/// How large a result becomes, from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    /// The first, as often as the second says.
    Repeat,
    /// As many characters as the second says.
    Pad,
    /// The third in the place of the second, at each byte of the first at the most.
    Replace,
    /// From the first to the second in steps of the third.
    Range,
    /// As many elements as the second says.
    Elements,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    measure: Measure,
}

impl Bounded {
    /// About how many bytes the result has.
    fn bytes(&self, args: &ScalarFunctionArgs) -> QueryResult<f64> {
        let rows = if args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_))) {
            args.number_rows
        } else {
            1
        };
        let sizes = |at: usize| args.args.get(at).map_or_else(|| Ok(Numbers::One(0.0)), text_bytes);
        let numbers = |at: usize| args.args.get(at).map_or_else(|| Ok(Numbers::One(0.0)), numbers);
        let sum = |of: &dyn Fn(usize) -> f64| (0..rows).map(|row| of(row).max(0.0)).sum();
        Ok(match self.measure {
            Measure::Repeat => {
                let (text, times) = (sizes(0)?, numbers(1)?);
                sum(&|row| text.at(row) * times.at(row))
            }
            Measure::Pad => {
                let characters = numbers(1)?;
                sum(&|row| characters.at(row) * CHARACTER_BYTES)
            }
            Measure::Replace => {
                let (text, from, to) = (sizes(0)?, sizes(1)?, sizes(2)?);
                // Nothing is found between bytes that are not there: an empty text stands beside each character.
                sum(&|row| text.at(row) + (text.at(row) / from.at(row).max(1.0) + 1.0) * to.at(row))
            }
            Measure::Range => {
                let (first, second, step) = (numbers(0)?, numbers(1)?, numbers(2)?);
                let (one, two) = (args.args.len() == 1, args.args.len() < 3);
                sum(&|row| {
                    let (start, end) =
                        if one { (0.0, first.at(row)) } else { (first.at(row), second.at(row)) };
                    let step = if two { 1.0 } else { step.at(row) };
                    if step == 0.0 { 0.0 } else { (end - start) / step * ELEMENT_BYTES }
                })
            }
            Measure::Elements => {
                let (element, times) =
                    (sizes(if self.inner.name() == "array_resize" { 2 } else { 0 })?, numbers(1)?);
                sum(&|row| (element.at(row) + ELEMENT_BYTES) * times.at(row))
            }
        })
    }
}

/// A number for each row.
enum Numbers {
    One(f64),
    Many(Arc<dyn Array>),
}

impl Numbers {
    /// None is nothing.
    fn at(&self, row: usize) -> f64 {
        match self {
            Self::One(number) => *number,
            Self::Many(array) => {
                let array = array.as_primitive::<Float64Type>();
                if row < array.len() && array.is_valid(row) { array.value(row) } else { 0.0 }
            }
        }
    }
}

/// Numbers as they are; times, dates and the time between them in nanoseconds.
fn numbers(value: &ColumnarValue) -> QueryResult<Numbers> {
    const DAY: f64 = 86_400e9;
    let array = match value {
        ColumnarValue::Array(array) => Arc::clone(array),
        ColumnarValue::Scalar(scalar) => scalar.to_array()?,
    };
    let array = match array.data_type() {
        ArrowType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            let nanos =
                |it: <IntervalMonthDayNanoType as datafusion::arrow::array::ArrowPrimitiveType>::Native| {
                    (f64::from(it.months) * 28.0 + f64::from(it.days)) * DAY + it.nanoseconds as f64
                };
            Arc::new(intervals.unary::<_, Float64Type>(nanos)) as Arc<dyn Array>
        }
        ArrowType::Date32 | ArrowType::Date64 => {
            let days = cast(&cast(&array, &ArrowType::Date32)?, &ArrowType::Int32)?;
            let days = cast(&days, &ArrowType::Float64)?;
            Arc::new(days.as_primitive::<Float64Type>().unary::<_, Float64Type>(|days| days * DAY))
        }
        ArrowType::Timestamp(unit, _) => {
            use datafusion::arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
            let nanos = match unit {
                Second => 1e9,
                Millisecond => 1e6,
                Microsecond => 1e3,
                Nanosecond => 1.0,
            };
            let times = cast(&cast(&array, &ArrowType::Int64)?, &ArrowType::Float64)?;
            Arc::new(times.as_primitive::<Float64Type>().unary::<_, Float64Type>(|time| time * nanos))
        }
        _ => cast(&array, &ArrowType::Float64)?,
    };
    Ok(match value {
        ColumnarValue::Array(_) => Numbers::Many(array),
        ColumnarValue::Scalar(_) => Numbers::One(Numbers::Many(array).at(0)),
    })
}

/// Bytes of texts; of other values, of one of them on average.
fn text_bytes(value: &ColumnarValue) -> QueryResult<Numbers> {
    let array = match value {
        ColumnarValue::Scalar(
            ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text),
        ) => {
            return Ok(Numbers::One(text.as_ref().map_or(0.0, |text| text.len() as f64)));
        }
        ColumnarValue::Scalar(scalar) => return Ok(Numbers::One(scalar.size() as f64)),
        ColumnarValue::Array(array) => array,
    };
    match array.data_type() {
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => {
            Ok(Numbers::Many(cast(&length(array)?, &ArrowType::Float64)?))
        }
        _ => Ok(Numbers::One(array.get_array_memory_size() as f64 / array.len().max(1) as f64)),
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
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
        let bytes = self.bytes(&args)?;
        if bytes > CALL_BYTES_MAX {
            return resources_err!(
                "{} would make {:.0} MiB at once, more than {:.0} MiB",
                self.name(),
                bytes / f64::from(1 << 20),
                CALL_BYTES_MAX / f64::from(1 << 20)
            );
        }
        self.inner.invoke_with_args(args)
    }
}
