//! Comparisons of a value with each element of an array, in three-valued logic.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, ListArray, UInt32Array,
};
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::take;
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

/// Each value, as often as its row's array has elements, and the elements, both in one comparable type.
pub(super) fn beside_elements(values: &ArrayRef, lists: &ListArray) -> Result<(ArrayRef, ArrayRef)> {
    let offsets = lists.value_offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let place = |offset: i32| usize::try_from(offset).unwrap_or(0);
    let items = lists.values().slice(place(first), place(last - first));
    let counts = offsets.iter().zip(offsets.iter().skip(1)).map(|(from, to)| place(to - from));
    let rows = (0_u32..).zip(counts).flat_map(|(row, count)| std::iter::repeat_n(row, count));
    let values = take(values, &UInt32Array::from_iter_values(rows), None)?;
    let target = common_type(values.data_type(), items.data_type());
    Ok((comparable(&values, &target)?, comparable(&items, &target)?))
}

fn quantified(args: &[ArrayRef], is_any: bool, compare: Compare) -> Result<ArrayRef> {
    let [values, lists] = args else { return exec_err!("ANY and ALL take a value and an array") };
    if *lists.data_type() == DataType::Null {
        return Ok(Arc::new(BooleanArray::new_null(values.len())));
    }
    let lists = as_list(lists)?;
    let (each, items) = beside_elements(values, &lists)?;
    let compared = compare(&each, &items)?;
    let first = lists.value_offsets().first().copied().unwrap_or(0);
    let results = lists.value_offsets().windows(2).enumerate().map(|(row, ends)| {
        let [from, to] = ends else { return None };
        if lists.is_null(row) {
            return None;
        }
        let place = |offset: i32| usize::try_from(offset - first).unwrap_or(0);
        let answers = (place(*from)..place(*to)).map(|at| compared.is_valid(at).then(|| compared.value(at)));
        let mut is_unknown = false;
        for answer in answers {
            match answer {
                None => is_unknown = true,
                Some(answer) if answer == is_any => return Some(is_any),
                Some(_) => {}
            }
        }
        (!is_unknown).then_some(!is_any)
    });
    Ok(Arc::new(results.collect::<BooleanArray>()))
}

/// The number of thresholds, in a rising array, that a value reaches.
pub(super) fn thresholds_reached(values: &ArrayRef, lists: &ArrayRef) -> Result<ArrayRef> {
    let lists = as_list(lists)?;
    if lists.values().null_count() > 0 {
        return exec_err!("thresholds array must not contain NULLs");
    }
    let (each, items) = beside_elements(values, &lists)?;
    let reached = cmp::gt_eq(&each, &items)?;
    let first = lists.value_offsets().first().copied().unwrap_or(0);
    let counts = lists.value_offsets().windows(2).enumerate().map(|(row, ends)| {
        let [from, to] = ends else { return None };
        if lists.is_null(row) || values.is_null(row) {
            return None;
        }
        let place = |offset: i32| usize::try_from(offset - first).unwrap_or(0);
        i32::try_from((place(*from)..place(*to)).filter(|at| reached.value(*at)).count()).ok()
    });
    Ok(Arc::new(counts.collect::<Int32Array>()))
}
