//! Aggregates that rows can be taken out of again, and that come out the same whatever the order was.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::{SortOptions, cast};
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Decimal256Type, Float64Type, Int64Type, Schema, i256,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use kalamdb_query::average_of;
use xsum::{Xsum, XsumSmall};

use super::window::Window;
use crate::error::Result;

/// Values that a minimum or maximum keeps, so that it need not look for the next one each time one goes. Tests see it look.
const VALUES_KEPT: usize = if cfg!(test) { 2 } else { 64 };

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Count,
    SumInteger,
    SumDecimal,
    SumDouble,
    AverageDouble,
    /// The average of numbers with so many digits behind the point.
    AverageDecimal(u8),
    /// MIN or MAX.
    Extreme,
}

/// An aggregate of a query.
#[derive(Debug)]
pub(super) struct AggregateCall {
    function: Function,
    /// None for `COUNT(*)`.
    argument: Option<Arc<dyn PhysicalExpr>>,
    /// `FILTER (WHERE …)`.
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// What the argument is turned into.
    taken_as: ArrowType,
    result: ArrowType,
    /// The order of values; for extremes.
    order: Option<RowConverter>,
}

/// What an aggregate is given of a batch.
pub(super) struct Arguments {
    values: Option<ArrayRef>,
    counts: Option<ArrayRef>,
    ordered: Option<Rows>,
}

impl AggregateCall {
    /// An aggregate by its name in SQL; none where it is not one of those that can be kept up to date.
    pub(super) fn new(
        name: &str,
        argument: Option<Arc<dyn PhysicalExpr>>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        input: &Schema,
        result: &ArrowType,
    ) -> Result<Option<Self>> {
        let argument_type = argument.as_ref().map(|argument| argument.data_type(input)).transpose()?;
        let given = argument_type.clone().unwrap_or(ArrowType::Null);
        let (function, taken_as) = match (name, result, &given) {
            ("count", ArrowType::Int64, _) => (Function::Count, given),
            ("sum", ArrowType::Int64, _) => (Function::SumInteger, ArrowType::Int64),
            ("sum", ArrowType::Float64, _) => (Function::SumDouble, ArrowType::Float64),
            ("avg", ArrowType::Float64, _) => (Function::AverageDouble, ArrowType::Float64),
            (
                "sum",
                ArrowType::Decimal128(_, scale) | ArrowType::Decimal256(_, scale),
                ArrowType::Decimal128(..) | ArrowType::Decimal256(..),
            ) => (Function::SumDecimal, ArrowType::Decimal256(76, *scale)),
            ("average", ArrowType::Decimal128(..) | ArrowType::Decimal256(..), _) => {
                let scale = match &given {
                    ArrowType::Decimal128(_, scale) | ArrowType::Decimal256(_, scale) => *scale,
                    _ => 0,
                };
                let digits = u8::try_from(scale).unwrap_or(0);
                (Function::AverageDecimal(digits), ArrowType::Decimal256(76, scale))
            }
            ("min" | "max", _, _) => (Function::Extreme, result.clone()),
            _ => return Ok(None),
        };
        let mut order = None;
        if function == Function::Extreme {
            let options = SortOptions { descending: name == "max", nulls_first: false };
            order = Some(RowConverter::new(vec![SortField::new_with_options(taken_as.clone(), options)])?);
        }
        Ok(Some(Self { function, argument, filter, taken_as, result: result.clone(), order }))
    }

    /// Whether it is MIN or MAX.
    pub(super) fn is_extreme(&self) -> bool {
        self.function == Function::Extreme
    }

    /// What it needs of rows.
    pub(super) fn arguments(&self, batch: &RecordBatch) -> Result<Arguments> {
        let rows = batch.num_rows();
        let evaluate = |expression: &Option<Arc<dyn PhysicalExpr>>| -> Result<Option<ArrayRef>> {
            Ok(expression.as_ref().map(|it| it.evaluate(batch)?.into_array(rows)).transpose()?)
        };
        let values = match evaluate(&self.argument)? {
            Some(values) if *values.data_type() != self.taken_as => Some(cast(&values, &self.taken_as)?),
            values => values,
        };
        let counts = evaluate(&self.filter)?;
        let ordered = match (&self.order, &values) {
            (Some(order), Some(values)) => Some(order.convert_columns(&[Arc::clone(values)])?),
            _ => None,
        };
        Ok(Arguments { values, counts, ordered })
    }

    /// Of no rows.
    pub(super) fn accumulator(&self) -> Accumulator {
        match self.function {
            Function::Count => Accumulator::Count(0),
            Function::SumInteger => Accumulator::Integer { sum: 0, count: 0 },
            Function::SumDecimal | Function::AverageDecimal(_) => {
                Accumulator::Decimal { sum: i256::ZERO, count: 0 }
            }
            Function::SumDouble | Function::AverageDouble => Accumulator::Double(Box::default()),
            Function::Extreme => Accumulator::Extreme(Window::default()),
        }
    }

    /// The aggregate's value.
    pub(super) fn value(&self, of: &mut Accumulator) -> Result<ScalarValue> {
        let null = || ScalarValue::try_from(&self.result);
        Ok(match (of, self.function) {
            (Accumulator::Count(count), _) => ScalarValue::Int64(Some(*count)),
            (Accumulator::Integer { count: 0, .. } | Accumulator::Decimal { count: 0, .. }, _) => null()?,
            (Accumulator::Integer { sum, .. }, _) => ScalarValue::Int64(Some(*sum)),
            (Accumulator::Decimal { sum, count }, Function::AverageDecimal(scale)) => {
                let average =
                    average_of(*sum, scale, *count, &self.result).map_err(crate::error::from_query)?;
                self.decimal(Some(average))?
            }
            (Accumulator::Decimal { sum, .. }, _) => self.decimal(Some(*sum))?,
            (Accumulator::Double(sum), function) => match sum.count {
                0 => null()?,
                #[expect(clippy::cast_precision_loss, reason = "as the average of a SELECT has it")]
                count if function == Function::AverageDouble => {
                    ScalarValue::Float64(Some(sum.value() / count as f64))
                }
                _ => ScalarValue::Float64(Some(sum.value())),
            },
            (Accumulator::Extreme(window), _) => match (window.iter().next(), &self.order) {
                (Some((value, _)), Some(order)) => {
                    let found = order.convert_rows([order.parser().parse(value)])?;
                    let found = found.first().map(|array| ScalarValue::try_from_array(array, 0));
                    found.transpose()?.map_or_else(null, Ok)?
                }
                _ => null()?,
            },
        })
    }

    fn decimal(&self, value: Option<i256>) -> Result<ScalarValue> {
        match (value, &self.result) {
            (Some(value), ArrowType::Decimal256(precision, scale)) => {
                Ok(ScalarValue::Decimal256(Some(value), *precision, *scale))
            }
            (Some(value), ArrowType::Decimal128(precision, scale)) if value.to_i128().is_some() => {
                Ok(ScalarValue::Decimal128(value.to_i128(), *precision, *scale))
            }
            _ => Err(ArrowError::ArithmeticOverflow("an average of decimals".to_owned()).into()),
        }
    }
}

fn add_weight(window: &mut Window<i64>, value: &[u8], weight: i64) {
    if !window.reaches(value) {
        return;
    }
    let count = window.entry_or(value, 0);
    *count += weight;
    if *count == 0 {
        window.remove(value);
    }
}

impl Arguments {
    /// Adds (weight 1) or takes out (weight -1) one of the rows they are of.
    pub(super) fn apply(&self, to: &mut Accumulator, row: usize, weight: i64) {
        let filtered_out = |counts: &ArrayRef| {
            counts.as_boolean_opt().is_none_or(|mask| mask.is_null(row) || !mask.value(row))
        };
        if self.counts.as_ref().is_some_and(filtered_out) {
            return;
        }
        let values = self.values.as_ref();
        if values.is_some_and(|values| values.is_null(row) || *values.data_type() == ArrowType::Null) {
            return;
        }
        match (to, values) {
            (Accumulator::Count(count), _) => *count += weight,
            (Accumulator::Integer { sum, count }, Some(values)) => {
                let value = values.as_primitive::<Int64Type>().value(row);
                *sum = sum.wrapping_add(value.wrapping_mul(weight));
                *count += weight;
            }
            (Accumulator::Decimal { sum, count }, Some(values)) => {
                let value = values.as_primitive::<Decimal256Type>().value(row);
                *sum = sum.wrapping_add(value.wrapping_mul(i256::from_i128(weight.into())));
                *count += weight;
            }
            (Accumulator::Double(sum), Some(values)) => {
                sum.add(values.as_primitive::<Float64Type>().value(row), weight);
            }
            (Accumulator::Extreme(window), _) => {
                let Some(ordered) = &self.ordered else { return };
                add_weight(window, ordered.row(row).as_ref(), weight);
            }
            _ => {}
        }
    }
}

/// An aggregate of the rows so far. While rows are added and taken out it may be of less than none.
#[derive(Debug)]
pub(super) enum Accumulator {
    Count(i64),
    /// Wraps, as a SELECT's sum does.
    Integer {
        sum: i64,
        count: i64,
    },
    Decimal {
        sum: i256,
        count: i64,
    },
    Double(Box<DoubleSum>),
    /// Values in order, and how often each is there.
    Extreme(Window<i64>),
}

impl Accumulator {
    /// Keeps no more than it needs and `spare` values; false where it does not know its value any more.
    pub(super) fn trim(&mut self, spare: usize) -> bool {
        let Self::Extreme(window) = self else { return true };
        window.cut_to(VALUES_KEPT.saturating_add(spare));
        !window.is_short_of(1)
    }

    /// Bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Extreme(window) => window.iter().map(|(value, _)| value.len() + 64).sum(),
            Self::Double(_) => size_of::<DoubleSum>(),
            _ => size_of::<Self>(),
        }
    }
}

/// A sum of doubles without rounding: what was added can be taken out again, and nothing of it stays.
pub(super) struct DoubleSum {
    finite: XsumSmall,
    nan: i64,
    infinite: i64,
    negative_infinite: i64,
    count: i64,
}

impl Default for DoubleSum {
    fn default() -> Self {
        Self { finite: XsumSmall::new(), nan: 0, infinite: 0, negative_infinite: 0, count: 0 }
    }
}

impl std::fmt::Debug for DoubleSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DoubleSum").field("count", &self.count).finish_non_exhaustive()
    }
}

impl DoubleSum {
    fn add(&mut self, value: f64, weight: i64) {
        self.count += weight;
        if value.is_nan() {
            self.nan += weight;
        } else if value == f64::INFINITY {
            self.infinite += weight;
        } else if value == f64::NEG_INFINITY {
            self.negative_infinite += weight;
        } else {
            self.finite.add(if weight < 0 { -value } else { value });
        }
    }

    fn value(&mut self) -> f64 {
        match (self.nan, self.infinite, self.negative_infinite) {
            (0, 0, 0) => self.finite.sum(),
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_of_a_sum_leaves_no_trace() {
        let mut sum = DoubleSum::default();
        for value in [1e300, 0.1, -1e300, 0.2, f64::NAN, f64::INFINITY, 1e-300, f64::MAX, f64::MAX] {
            sum.add(value, 1);
        }
        assert!(sum.value().is_nan());
        sum.add(f64::NAN, -1);
        assert!(sum.value().is_infinite());
        sum.add(f64::INFINITY, -1);
        sum.add(f64::MAX, -1);
        sum.add(f64::MAX, -1);
        assert_eq!(sum.value().to_bits(), (0.1_f64 + 0.2).to_bits());
        sum.add(0.2, -1);
        sum.add(1e-300, -1);
        assert_eq!((sum.value().to_bits(), sum.count), (0.1_f64.to_bits(), 3));
    }
}
