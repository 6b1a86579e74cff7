//! `coalesce` before its arguments have one type.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::Function;
use super::Totality::Total;

/// `coalesce` and its other names, with arguments of any types. The analysis replaces them by `DataFusion`'s own, which would refuse
/// text beside other types at once.
pub(super) fn named() -> Vec<Function> {
    ["coalesce", "nvl", "ifnull"]
        .map(|name| {
            Function::new(name, Total, chosen_type, |_, _| internal_err!("coalesce was not resolved"))
        })
        .into()
}

/// `DataFusion`'s `coalesce`.
pub(crate) fn coalesce(args: Vec<Expr>) -> Expr {
    datafusion::functions::core::expr_fn::coalesce(args)
}

/// The widest type of the arguments that are neither text nor NULL; text may be a literal of that type.
fn chosen_type(types: &[DataType]) -> Result<DataType> {
    if types.is_empty() {
        return plan_err!("coalesce takes at least one argument");
    }
    let has_type = |found: &&DataType| !matches!(found, DataType::Utf8 | DataType::Null);
    if types.iter().any(|found| matches!(found, DataType::Float32 | DataType::Float64)) {
        return Ok(DataType::Float64);
    }
    let others: Vec<&DataType> = types.iter().filter(has_type).collect();
    let widest =
        others.iter().copied().reduce(|a, b| if b.primitive_width() > a.primitive_width() { b } else { a });
    let has_text = types.contains(&DataType::Utf8);
    Ok(widest.cloned().unwrap_or(if has_text { DataType::Utf8 } else { DataType::Null }))
}
