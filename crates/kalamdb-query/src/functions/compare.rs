//! A value beside each element of an array, in three-valued logic.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;

use super::{Evaluate, Function};

/// The forms that statements are rewritten to: `any_equal(value, array)` is `value = ANY (array)`.
pub(super) fn named() -> Vec<Function> {
    let forms: [(&'static str, Evaluate); 12] = [
        ("any_equal", |args, _| quantified(args, true, |v, i| cmp::eq(v, i))),
        ("any_unequal", |args, _| quantified(args, true, |v, i| cmp::neq(v, i))),
        ("any_less", |args, _| quantified(args, true, |v, i| cmp::lt(v, i))),
        ("any_less_equal", |args, _| quantified(args, true, |v, i| cmp::lt_eq(v, i))),
        ("any_greater", |args, _| quantified(args, true, |v, i| cmp::gt(v, i))),
        ("any_greater_equal", |args, _| quantified(args, true, |v, i| cmp::gt_eq(v, i))),
        ("all_equal", |args, _| quantified(args, false, |v, i| cmp::eq(v, i))),
        ("all_unequal", |args, _| quantified(args, false, |v, i| cmp::neq(v, i))),
        ("all_less", |args, _| quantified(args, false, |v, i| cmp::lt(v, i))),
        ("all_less_equal", |args, _| quantified(args, false, |v, i| cmp::lt_eq(v, i))),
        ("all_greater", |args, _| quantified(args, false, |v, i| cmp::gt(v, i))),
        ("all_greater_equal", |args, _| quantified(args, false, |v, i| cmp::gt_eq(v, i))),
    ];
    forms.into_iter().map(|(name, evaluate)| Function::to(name, DataType::Boolean, evaluate)).collect()
}

type Compare = fn(
    &dyn datafusion::arrow::array::Datum,
    &dyn datafusion::arrow::array::Datum,
) -> std::result::Result<BooleanArray, datafusion::arrow::error::ArrowError>;

fn quantified(args: &[ArrayRef], is_any: bool, compare: Compare) -> Result<ArrayRef> {
    let [values, lists] = args else { return exec_err!("ANY and ALL take a value and an array") };
    let lists = match lists.data_type() {
        DataType::List(_) => Arc::clone(lists),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            cast(lists, &DataType::List(Arc::clone(field)))?
        }
        DataType::Null => return Ok(Arc::new(BooleanArray::new_null(values.len()))),
        other => return exec_err!("ANY and ALL take an array, not {other}"),
    };
    let lists = lists.as_list::<i32>();
    let mut results: Vec<Option<bool>> = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        if lists.is_null(row) {
            results.push(None);
            continue;
        }
        let items = lists.value(row);
        let value = values.slice(row, 1);
        let (value, items) = match (value.data_type(), items.data_type()) {
            (a, b) if a == b => (value, items),
            (_, DataType::Null) => (Arc::clone(&value), cast(&items, value.data_type())?),
            (_, wanted) => {
                let wanted = wanted.clone();
                (cast(&value, &wanted)?, items)
            }
        };
        let compared = compare(&Scalar::new(value), &items)?;
        let mut is_unknown = false;
        let mut decided = None;
        for answer in &compared {
            match answer {
                None => is_unknown = true,
                Some(answer) if answer == is_any => decided = Some(is_any),
                Some(_) => {}
            }
        }
        results.push(decided.or(if is_unknown { None } else { Some(!is_any) }));
    }
    Ok(Arc::new(BooleanArray::from(results)))
}
