//! The exact average of integers and decimals.

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal256Type, Field, FieldRef, i256};
use datafusion::common::{ScalarValue, exec_err, internal_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::arithmetic::{average_of, digits_of, narrow};
use super::spans::SPAN;

/// The aggregate of [`average`].
static AVERAGE: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
    Arc::new(AggregateUDF::new_from_impl(Average { signature: Signature::any(1, Volatility::Immutable) }))
});

/// The average of integers and decimals.
pub(crate) fn average() -> Arc<AggregateUDF> {
    Arc::clone(&AVERAGE)
}

/// `avg` until the type of its argument is resolved: `DataFusion`'s refuses intervals before a rule sees them.
pub(super) fn unresolved() -> AggregateUDF {
    AggregateUDF::new_from_impl(Unresolved { signature: Signature::any(1, Volatility::Immutable) })
}

/// The aggregate of [`unresolved`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unresolved {
    signature: Signature,
}

impl AggregateUDFImpl for Unresolved {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Interval(_) | DataType::Duration(_)] => Ok(SPAN),
            [DataType::Float32 | DataType::Float64 | DataType::Null] => Ok(DataType::Float64),
            [found] if digits_of(found).is_some() => AVERAGE.return_type(types),
            _ => plan_err!("avg takes numbers or intervals"),
        }
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("avg was not resolved")
    }
}

/// The average of exact numbers, as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    signature: Signature,
}

/// The type of the sums of a type's values, and their scale.
fn sum_type(argument: &DataType) -> Result<(DataType, i8)> {
    match digits_of(argument) {
        Some((_, scale)) => Ok((DataType::Decimal256(76, scale), scale)),
        None => plan_err!("avg of {argument} is not exact"),
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let Some((precision, scale)) = types.first().and_then(digits_of) else {
            return plan_err!("avg takes numbers");
        };
        let digits = scale.max(16);
        let whole = i16::from(precision) - i16::from(scale);
        Ok(if whole + i16::from(digits) <= 38 {
            DataType::Decimal128(38, digits)
        } else {
            DataType::Decimal256(76, digits)
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let argument = match args.expr_fields.first() {
            Some(field) => field.data_type().clone(),
            None => return exec_err!("avg takes one argument"),
        };
        let (sum, scale) = sum_type(&argument)?;
        let scale = u8::try_from(scale).unwrap_or(0);
        let target = args.return_field.data_type().clone();
        let seen = args.is_distinct.then(HashSet::new);
        Ok(Box::new(Mean { sum: i256::ZERO, count: 0, sum_type: sum, scale, target, seen }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let argument = args.input_fields.first().map_or(DataType::Int64, |field| field.data_type().clone());
        let (sum, _) = sum_type(&argument)?;
        if args.is_distinct {
            let list = DataType::List(Arc::new(Field::new_list_field(sum, true)));
            return Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), list, true))]);
        }
        Ok(vec![
            Arc::new(Field::new(format!("{}[sum]", args.name), sum, true)),
            Arc::new(Field::new(format!("{}[count]", args.name), DataType::Int64, true)),
        ])
    }
}

/// A sum, and the number of its values.
#[derive(Debug)]
struct Mean {
    sum: i256,
    count: i64,
    sum_type: DataType,
    scale: u8,
    target: DataType,
    /// The distinct values so far, of an average of DISTINCT values.
    seen: Option<HashSet<i256>>,
}

impl Mean {
    /// Adds values to the sum, or takes them back.
    fn add(&mut self, values: &[ArrayRef], is_back: bool) -> Result<()> {
        let [values] = values else { return exec_err!("avg takes one argument") };
        let values = cast(values, &self.sum_type)?;
        for value in values.as_primitive::<Decimal256Type>().iter().flatten() {
            if self.seen.as_mut().is_some_and(|seen| !seen.insert(value)) {
                continue;
            }
            let sum = if is_back { self.sum.checked_sub(value) } else { self.sum.checked_add(value) };
            self.sum = sum.ok_or_else(|| DataFusionError::Execution("numeric field overflow".to_owned()))?;
            self.count += if is_back { -1 } else { 1 };
        }
        Ok(())
    }
}

impl Accumulator for Mean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, false)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, true)
    }

    fn supports_retract_batch(&self) -> bool {
        self.seen.is_none()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.target);
        }
        let mean = average_of(self.sum, self.scale, self.count, &self.target)?;
        ScalarValue::try_from_array(&narrow(vec![Some(mean)], &self.target)?, 0)
    }

    fn size(&self) -> usize {
        let values = self.seen.as_ref().map_or(0, |seen| seen.capacity() * 2 * size_of::<i256>());
        size_of::<Self>() + values
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (precision, scale) = digits_of(&self.sum_type).unwrap_or((76, 0));
        if let Some(seen) = &self.seen {
            let values = seen.iter().map(|value| ScalarValue::Decimal256(Some(*value), precision, scale));
            let values: Vec<ScalarValue> = values.collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.sum_type))]);
        }
        Ok(vec![
            ScalarValue::Decimal256(Some(self.sum), precision, scale),
            ScalarValue::Int64(Some(self.count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if let [lists] = states {
            for values in lists.as_list::<i32>().iter().flatten() {
                self.add(&[values], false)?;
            }
            return Ok(());
        }
        let [sums, counts] = states else { return exec_err!("avg has a sum and a count") };
        let sums = sums.as_primitive::<Decimal256Type>();
        let counts = counts.as_primitive::<datafusion::arrow::datatypes::Int64Type>();
        for (sum, count) in sums.iter().zip(counts.iter()) {
            let (Some(sum), Some(count)) = (sum, count) else { continue };
            let added = self.sum.checked_add(sum);
            self.sum =
                added.ok_or_else(|| DataFusionError::Execution("numeric field overflow".to_owned()))?;
            self.count += count;
        }
        Ok(())
    }
}
