//! `BETWEEN SYMMETRIC`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use datafusion::arrow::compute::{and_kleene, cast, or_kleene};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;

use super::{Function, Totality};

/// `between_symmetric(value, a, b)`: whether the value lies between the bounds, in either order.
pub(super) fn named() -> Vec<Function> {
    vec![Function::to("between_symmetric", Totality::Total, DataType::Boolean, |args, _| between(args))]
}

fn between(args: &[ArrayRef]) -> Result<ArrayRef> {
    let [value, low, high] = args else { return exec_err!("BETWEEN SYMMETRIC takes a value and two bounds") };
    let common = |a: &DataType, b: &ArrayRef| comparison_coercion(a, b.data_type());
    let Some(wanted) = common(value.data_type(), low).and_then(|found| common(&found, high)) else {
        return exec_err!(
            "BETWEEN SYMMETRIC cannot compare {} with {} and {}",
            value.data_type(),
            low.data_type(),
            high.data_type()
        );
    };
    let (value, low, high) = (cast(value, &wanted)?, cast(low, &wanted)?, cast(high, &wanted)?);
    let within = |low: &ArrayRef, high: &ArrayRef| -> Result<BooleanArray> {
        Ok(and_kleene(&gt_eq(&value, low)?, &lt_eq(&value, high)?)?)
    };
    Ok(Arc::new(or_kleene(&within(&low, &high)?, &within(&high, &low)?)?))
}
