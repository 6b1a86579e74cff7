//! `percentile_disc`: the first value in an order whose rank reaches a share of all.

use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

/// `percentile_disc(share) WITHIN GROUP (ORDER BY value)`.
pub(super) fn named() -> AggregateUDF {
    AggregateUDF::new_from_impl(PercentileDisc { signature: Signature::any(2, Volatility::Immutable) })
}

/// The aggregate of `percentile_disc`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PercentileDisc {
    signature: Signature,
}

impl AggregateUDFImpl for PercentileDisc {
    fn name(&self) -> &'static str {
        "percentile_disc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("percentile_disc takes a share, and WITHIN GROUP (ORDER BY value)"),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let share = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
        let share = share.and_then(|literal| literal.value().cast_to(&DataType::Float64).ok());
        let Some(ScalarValue::Float64(Some(share))) = share.filter(|it| !it.is_null()) else {
            return plan_err!("the share of percentile_disc is a constant number");
        };
        if !(0.0..=1.0).contains(&share) {
            return plan_err!("percentile value {share} is not between 0 and 1");
        }
        let is_descending = args.order_bys.first().is_some_and(|key| key.options.descending);
        let target = args.return_field.data_type().clone();
        Ok(Box::new(Values { kept: Vec::new(), share, is_descending, target }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = args.input_fields.first().map_or(DataType::Null, |field| field.data_type().clone());
        let list = DataType::List(Arc::new(Field::new_list_field(value, true)));
        Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), list, true))])
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// The values so far that are not NULL.
#[derive(Debug)]
struct Values {
    kept: Vec<ScalarValue>,
    share: f64,
    is_descending: bool,
    target: DataType,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return exec_err!("percentile_disc takes a value") };
        for row in 0..values.len() {
            if values.is_valid(row) {
                self.kept.push(ScalarValue::try_from_array(values, row)?);
            }
        }
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a count of values"
    )]
    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.kept.is_empty() {
            return ScalarValue::try_from(&self.target);
        }
        let is_descending = self.is_descending;
        self.kept.sort_by(|a, b| {
            let order = a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal);
            if is_descending { order.reverse() } else { order }
        });
        let at = (self.share * self.kept.len() as f64).ceil() as usize;
        match self.kept.get(at.saturating_sub(1)) {
            Some(value) => Ok(value.clone()),
            None => ScalarValue::try_from(&self.target),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.kept.iter().map(ScalarValue::size).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&self.kept, &self.target))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        use datafusion::arrow::array::AsArray;
        let Some(lists) = states.first() else { return exec_err!("percentile_disc has one state") };
        for values in lists.as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }
}
