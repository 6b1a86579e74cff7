//! Comparisons of a value with each element of an array, in three-valued logic.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, ListArray, Scalar,
};
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;

use super::Totality::Partial;
use super::casts::{as_list, cast_array};
use super::spans::{SPAN_KEY, evaluate_key};
use super::{Evaluate, Function, digits_of, exact_type, is_decimal, is_float};

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
    let returns: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [_, list] if list.is_nested() || matches!(list, DataType::Null) => Ok(DataType::Boolean),
        _ => plan_err!("ANY and ALL take a value and an array"),
    };
    forms.into_iter().map(|(name, evaluate)| Function::new(name, Partial, returns, evaluate)).collect()
}

/// A comparison of two arrays, or of a value and an array.
type Compare = fn(
    &dyn datafusion::arrow::array::Datum,
    &dyn datafusion::arrow::array::Datum,
) -> std::result::Result<BooleanArray, datafusion::arrow::error::ArrowError>;

/// The type in which values of two types are compared, as PostgreSQL chooses it.
fn common_type(value: &DataType, item: &DataType) -> DataType {
    match (digits_of(value), digits_of(item)) {
        (Some(value_digits), Some(item_digits)) if value != item => {
            exact_type(&[value_digits, item_digits], is_decimal(value) || is_decimal(item))
        }
        _ if is_float(value) && item.is_numeric() || value.is_numeric() && is_float(item) => {
            DataType::Float64
        }
        _ if *item == DataType::Null => value.clone(),
        // A date beside a time is its midnight.
        _ if *item == DataType::Date32 && matches!(value, DataType::Timestamp(..)) => value.clone(),
        _ => item.clone(),
    }
}

/// Values of a type in a form whose order in Arrow is PostgreSQL's.
fn comparable(values: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let values = cast_array(values, target)?;
    Ok(match target {
        DataType::Interval(_) | DataType::Duration(_) => evaluate_key(&[values], &SPAN_KEY)?,
        // Both zeros are one number: -0.0 + 0.0 is 0.0.
        DataType::Float32 | DataType::Float64 => {
            let values = cast_array(&values, &DataType::Float64)?;
            let values: Float64Array = values.as_primitive::<Float64Type>().unary(|value| value + 0.0);
            Arc::new(values)
        }
        _ => values,
    })
}

/// The comparisons of each row's value with the elements of its array; none where the array is NULL. Both sides are cast once, to
/// one comparable type.
fn each_row<T>(
    values: &ArrayRef,
    lists: &ListArray,
    compare: Compare,
    answer: impl Fn(&BooleanArray) -> Option<T>,
) -> Result<Vec<Option<T>>> {
    let target = common_type(values.data_type(), lists.values().data_type());
    let place = |offset: i32| usize::try_from(offset).unwrap_or(0);
    let offsets = lists.value_offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let items = lists.values().slice(place(first), place(last - first));
    let (values, items) = (comparable(values, &target)?, comparable(&items, &target)?);
    let rows = offsets.windows(2).enumerate().map(|(row, ends)| {
        let [from, to] = ends else { return Ok(None) };
        if lists.is_null(row) {
            return Ok(None);
        }
        let items = items.slice(place(from - first), place(to - from));
        Ok(answer(&compare(&Scalar::new(values.slice(row, 1)), &items)?))
    });
    rows.collect()
}

/// Evaluates a comparison with any or all elements.
fn quantified(args: &[ArrayRef], is_any: bool, compare: Compare) -> Result<ArrayRef> {
    let [values, lists] = args else { return exec_err!("ANY and ALL take a value and an array") };
    if *lists.data_type() == DataType::Null {
        return Ok(Arc::new(BooleanArray::new_null(values.len())));
    }
    let results = each_row(values, &as_list(lists)?, compare, |compared| {
        let mut is_unknown = false;
        for answer in compared {
            match answer {
                None => is_unknown = true,
                Some(answer) if answer == is_any => return Some(is_any),
                Some(_) => {}
            }
        }
        (!is_unknown).then_some(!is_any)
    })?;
    Ok(Arc::new(BooleanArray::from(results)))
}

/// The number of thresholds, in a rising array, that a value reaches.
pub(super) fn thresholds_reached(values: &ArrayRef, lists: &ArrayRef) -> Result<ArrayRef> {
    let lists = as_list(lists)?;
    if lists.values().null_count() > 0 {
        return exec_err!("thresholds array must not contain NULLs");
    }
    let counts = each_row(
        values,
        &lists,
        |value, items| cmp::gt_eq(value, items),
        |reached| {
            if reached.null_count() > 0 { None } else { i32::try_from(reached.true_count()).ok() }
        },
    )?;
    Ok(Arc::new(Int32Array::from(counts)))
}
