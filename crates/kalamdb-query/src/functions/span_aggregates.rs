//! Sums and averages of intervals.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
};
use datafusion::common::{ScalarValue, exec_err, internal_err, not_impl_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::arithmetic::scaled;
use super::spans::SPAN;

/// `sum` or `avg` of intervals.
pub(crate) fn of_spans(is_average: bool) -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(OfSpans { is_average, signature }))
}

/// The aggregate of [`of_spans`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfSpans {
    is_average: bool,
    signature: Signature,
}

impl AggregateUDFImpl for OfSpans {
    fn name(&self) -> &'static str {
        if self.is_average { "avg_of_spans" } else { "sum_of_spans" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SPAN)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!(
                "DISTINCT in sum and avg of intervals; select the distinct intervals in a subquery"
            );
        }
        Ok(Box::new(Total { sum: IntervalMonthDayNano::ZERO, count: 0, is_average: self.is_average }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(format!("{}[sum]", args.name), SPAN, true)),
            Arc::new(Field::new(format!("{}[count]", args.name), DataType::Int64, true)),
        ])
    }
}

/// The sum of intervals, and their number.
#[derive(Debug)]
struct Total {
    sum: IntervalMonthDayNano,
    count: i64,
    is_average: bool,
}

impl Total {
    /// Adds an interval to the sum.
    fn add(&mut self, span: IntervalMonthDayNano) -> Result<()> {
        let sum = self.sum;
        let months = sum.months.checked_add(span.months);
        let days = sum.days.checked_add(span.days);
        let nanos = sum.nanoseconds.checked_add(span.nanoseconds);
        self.replace(months, days, nanos)
    }

    /// Takes an interval back from the sum.
    fn subtract(&mut self, span: IntervalMonthDayNano) -> Result<()> {
        let sum = self.sum;
        let months = sum.months.checked_sub(span.months);
        let days = sum.days.checked_sub(span.days);
        let nanos = sum.nanoseconds.checked_sub(span.nanoseconds);
        self.replace(months, days, nanos)
    }

    /// Replaces the sum; an error where a part does not fit.
    fn replace(&mut self, months: Option<i32>, days: Option<i32>, nanos: Option<i64>) -> Result<()> {
        let (Some(months), Some(days), Some(nanos)) = (months, days, nanos) else {
            return exec_err!("interval out of range");
        };
        self.sum = IntervalMonthDayNano::new(months, days, nanos);
        Ok(())
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return exec_err!("sum and avg take one interval") };
        let spans = cast(values, &SPAN)?;
        for span in spans.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.add(span)?;
            self.count += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return exec_err!("sum and avg take one interval") };
        let spans = cast(values, &SPAN)?;
        for span in spans.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.subtract(span)?;
            self.count -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    #[expect(clippy::cast_precision_loss, reason = "PostgreSQL divides spans by doubles as well")]
    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&SPAN);
        }
        let value = if self.is_average {
            scaled(self.sum, self.count as f64, |part, count| Ok::<f64, DataFusionError>(part / count))?
        } else {
            self.sum
        };
        Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::IntervalMonthDayNano(Some(self.sum)), ScalarValue::Int64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [sums, counts] = states else {
            return internal_err!("the state of an aggregate of intervals has two columns");
        };
        let counts = counts.as_primitive::<Int64Type>();
        for (row, sum) in sums.as_primitive::<IntervalMonthDayNanoType>().iter().enumerate() {
            let Some(sum) = sum else { continue };
            self.add(sum)?;
            self.count += if counts.is_valid(row) { counts.value(row) } else { 0 };
        }
        Ok(())
    }
}
