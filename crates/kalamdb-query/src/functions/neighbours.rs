//! `lead` and `lag` that ignore NULLs.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;

/// `lead … IGNORE NULLS` or `lag … IGNORE NULLS`.
pub(crate) fn present_neighbour(is_lead: bool) -> Arc<WindowUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(WindowUDF::from(PresentNeighbour { is_lead, signature }))
}

/// `lead` or `lag` as a window function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PresentNeighbour {
    is_lead: bool,
    signature: Signature,
}

impl WindowUDFImpl for PresentNeighbour {
    fn name(&self) -> &'static str {
        if self.is_lead { "lead_present" } else { "lag_present" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Neighbours { is_lead: self.is_lead }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = args.input_fields().first().map_or(DataType::Null, |field| field.data_type().clone());
        Ok(Arc::new(datafusion::arrow::datatypes::Field::new(args.name(), data_type, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

/// The evaluation of one partition.
#[derive(Debug)]
struct Neighbours {
    is_lead: bool,
}

impl PartitionEvaluator for Neighbours {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let Some(column) = values.first() else { return exec_err!("lead and lag take a value") };
        let offsets = values.get(1).map(|offsets| cast(offsets, &DataType::Int64)).transpose()?;
        let present: Vec<usize> = (0..rows).filter(|row| column.is_valid(*row)).collect();
        let mut found = Vec::with_capacity(rows);
        for row in 0..rows {
            let offset = match &offsets {
                None => Some(1),
                Some(offsets) => {
                    let offsets = offsets.as_primitive::<Int64Type>();
                    offsets.is_valid(row).then(|| offsets.value(row))
                }
            };
            found.push(match offset {
                None => ScalarValue::try_from(column.data_type())?,
                Some(0) => ScalarValue::try_from_array(column, row)?,
                Some(offset) => {
                    let is_forward = self.is_lead == (offset > 0);
                    let distance = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
                    match nth(&present, row, distance, is_forward) {
                        Some(at) => ScalarValue::try_from_array(column, at)?,
                        None => match values.get(2) {
                            Some(default) => {
                                ScalarValue::try_from_array(default, row)?.cast_to(column.data_type())?
                            }
                            None => ScalarValue::try_from(column.data_type())?,
                        },
                    }
                }
            });
        }
        if found.is_empty() {
            return Ok(column.slice(0, 0));
        }
        ScalarValue::iter_to_array(found)
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}

/// The nth row before or after a row whose value is not NULL.
fn nth(present: &[usize], row: usize, distance: usize, is_forward: bool) -> Option<usize> {
    if is_forward {
        let first = present.partition_point(|at| *at <= row);
        present.get(first.checked_add(distance)?.checked_sub(1)?).copied()
    } else {
        let first = present.partition_point(|at| *at < row);
        present.get(first.checked_sub(distance)?).copied()
    }
}
