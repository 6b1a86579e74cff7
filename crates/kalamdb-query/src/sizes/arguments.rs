//! The arguments of a call, row by row: their bytes, their elements, their numbers.

#![expect(clippy::cast_precision_loss, reason = "sizes are estimated")]

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::length::length;
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::ELEMENT_BYTES;

const DAY_NANOS: f64 = 86_400e9;

/// A number for each row.
pub(super) enum Numbers {
    One(f64),
    Many(Vec<f64>),
}

impl Numbers {
    /// The number of a row; zero where there is none.
    pub(super) fn at(&self, row: usize) -> f64 {
        match self {
            Self::One(number) => *number,
            Self::Many(numbers) => numbers.get(row).copied().unwrap_or(0.0),
        }
    }

    /// The numbers of an array whose type casts to a double.
    fn from_array(array: &ArrayRef) -> QueryResult<Self> {
        let array = cast(array, &ArrowType::Float64)?;
        let numbers = array.as_primitive::<Float64Type>().iter();
        Ok(Self::Many(numbers.map(|number| number.unwrap_or(0.0)).collect()))
    }

    fn times(self, factor: f64) -> Self {
        match self {
            Self::One(number) => Self::One(number * factor),
            Self::Many(numbers) => Self::Many(numbers.into_iter().map(|number| number * factor).collect()),
        }
    }
}

/// The arguments of a call.
pub(super) struct Arguments<'a> {
    args: &'a [ColumnarValue],
    rows: usize,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(args: &'a ScalarFunctionArgs) -> Self {
        let is_one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        Self { args: &args.args, rows: if is_one { 1 } else { args.number_rows } }
    }

    /// Rows of the result; one where all arguments are constants.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    pub(super) const fn count(&self) -> usize {
        self.args.len()
    }

    fn map(&self, at: usize, of: impl Fn(&ArrayRef) -> QueryResult<Numbers>) -> QueryResult<Numbers> {
        match self.args.get(at) {
            None => Ok(Numbers::One(0.0)),
            Some(ColumnarValue::Array(array)) => of(array),
            Some(ColumnarValue::Scalar(scalar)) if scalar.is_null() => Ok(Numbers::One(0.0)),
            Some(ColumnarValue::Scalar(scalar)) => Ok(Numbers::One(of(&scalar.to_array()?)?.at(0))),
        }
    }

    /// Bytes of an argument.
    pub(super) fn bytes(&self, at: usize) -> QueryResult<Numbers> {
        if let Some(ColumnarValue::Scalar(scalar)) = self.args.get(at)
            && let Some(Some(text)) = scalar.try_as_str()
        {
            return Ok(Numbers::One(text.len() as f64));
        }
        self.map(at, |array| bytes_of_rows(array))
    }

    /// The numbers of an argument; times, dates and intervals in nanoseconds.
    pub(super) fn numbers(&self, at: usize) -> QueryResult<Numbers> {
        self.map(at, numbers)
    }

    /// Elements of an argument that is a list.
    pub(super) fn elements(&self, at: usize) -> QueryResult<Numbers> {
        self.map(at, |array| match list(array.as_ref()) {
            Some((offsets, _)) => {
                Ok(Numbers::Many(ranges(&offsets).map(|(from, to)| (to - from) as f64).collect()))
            }
            None => Ok(Numbers::One(1.0)),
        })
    }

    /// Elements of an argument that is a list, nested lists counted by their elements.
    pub(super) fn leaves(&self, at: usize) -> QueryResult<Numbers> {
        self.map(at, |array| of_rows(array.as_ref(), 0.0, &|_| Ok(Numbers::One(1.0))))
    }

    /// A measure of each argument.
    pub(super) fn each(
        &self,
        of: impl Fn(&Self, usize) -> QueryResult<Numbers>,
    ) -> QueryResult<Vec<Numbers>> {
        (0..self.count()).map(|at| of(self, at)).collect()
    }

    /// Bytes of all arguments together.
    pub(super) fn sum(&self) -> QueryResult<Box<dyn Fn(usize) -> f64>> {
        let each = self.each(Self::bytes)?;
        Ok(Box::new(move |row| each.iter().map(|it| it.at(row)).sum()))
    }

    /// Minimum bytes of an element of a list, NULL included.
    pub(super) fn element_bytes(&self, at: usize) -> f64 {
        self.args.get(at).map_or(ELEMENT_BYTES, |arg| match arg.data_type() {
            ArrowType::List(field) | ArrowType::LargeList(field) | ArrowType::FixedSizeList(field, _) => {
                least_bytes(field.data_type())
            }
            _ => ELEMENT_BYTES,
        })
    }

    /// Whether the elements of this list are floats.
    pub(super) fn has_floats(&self, at: usize) -> bool {
        let mut data_type = self.args.get(at).map_or(ArrowType::Null, ColumnarValue::data_type);
        while let ArrowType::List(field) | ArrowType::LargeList(field) | ArrowType::FixedSizeList(field, _) =
            &data_type
        {
            data_type = field.data_type().clone();
        }
        data_type.is_floating()
    }

    /// Bytes of a range from the first argument to the second in steps of the third; infinite where the steps do not lead there.
    pub(super) fn range(&self) -> QueryResult<Box<dyn Fn(usize) -> f64>> {
        let (first, second, step) = (self.numbers(0)?, self.numbers(1)?, self.numbers(2)?);
        let count = self.count();
        Ok(Box::new(move |row| {
            let (start, end) =
                if count == 1 { (0.0, first.at(row)) } else { (first.at(row), second.at(row)) };
            let step = if count < 3 { 1.0 } else { step.at(row) };
            if step.is_nan() {
                f64::INFINITY
            } else if step == 0.0 {
                0.0
            } else {
                (end - start) / step * ELEMENT_BYTES
            }
        }))
    }
}

/// Minimum bytes of a value of a type, NULL included.
fn least_bytes(data_type: &ArrowType) -> f64 {
    match data_type {
        ArrowType::FixedSizeList(field, length) => {
            f64::from((*length).max(1)) * least_bytes(field.data_type())
        }
        ArrowType::FixedSizeBinary(length) => f64::from(*length).max(ELEMENT_BYTES),
        ArrowType::Struct(fields) => fields.iter().map(|field| least_bytes(field.data_type())).sum(),
        other => other.primitive_width().map_or(ELEMENT_BYTES, |width| ELEMENT_BYTES.max(width as f64)),
    }
}

/// Numbers, and times, dates and intervals in nanoseconds; NaN of an interval whose parts have different signs.
fn numbers(array: &ArrayRef) -> QueryResult<Numbers> {
    Ok(match array.data_type() {
        ArrowType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>().iter();
            Numbers::Many(
                intervals
                    .map(|it| {
                        it.map_or(0.0, |it| {
                            interval_nanos(f64::from(it.months), f64::from(it.days), it.nanoseconds as f64)
                        })
                    })
                    .collect(),
            )
        }
        ArrowType::Date32 | ArrowType::Date64 => {
            let days = cast(&cast(array, &ArrowType::Date32)?, &ArrowType::Int32)?;
            Numbers::from_array(&days)?.times(DAY_NANOS)
        }
        ArrowType::Timestamp(unit, _) => {
            let nanos = match unit {
                TimeUnit::Second => 1e9,
                TimeUnit::Millisecond => 1e6,
                TimeUnit::Microsecond => 1e3,
                TimeUnit::Nanosecond => 1.0,
            };
            Numbers::from_array(&cast(array, &ArrowType::Int64)?)?.times(nanos)
        }
        _ => Numbers::from_array(array)?,
    })
}

/// Minimum nanoseconds of an interval; NaN where its parts have different signs, as steps of it may never arrive.
fn interval_nanos(months: f64, days: f64, nanos: f64) -> f64 {
    let parts = [months, days, nanos];
    if parts.iter().any(|part| *part > 0.0) && parts.iter().any(|part| *part < 0.0) {
        return f64::NAN;
    }
    (months * 28.0 + days) * DAY_NANOS + nanos
}

/// The offsets of each row's elements, and the elements.
fn list(array: &dyn Array) -> Option<(Vec<usize>, ArrayRef)> {
    let offsets = |offsets: &[i32]| offsets.iter().map(|it| usize::try_from(*it).unwrap_or(0)).collect();
    Some(match array.data_type() {
        ArrowType::List(_) => {
            let list = array.as_list::<i32>();
            (offsets(list.value_offsets()), Arc::clone(list.values()))
        }
        ArrowType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets().iter().map(|it| usize::try_from(*it).unwrap_or(0));
            (offsets.collect(), Arc::clone(list.values()))
        }
        ArrowType::FixedSizeList(_, length) => {
            let list = array.as_fixed_size_list();
            let length = usize::try_from(*length).unwrap_or(0);
            ((0..=list.len()).map(|row| row * length).collect(), Arc::clone(list.values()))
        }
        ArrowType::Map(..) => {
            let map = array.as_map();
            (offsets(map.value_offsets()), Arc::new(map.entries().clone()))
        }
        _ => return None,
    })
}

/// The first and the end of the places of each row's elements.
fn ranges(offsets: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    offsets.iter().copied().zip(offsets.iter().copied().skip(1))
}

/// Bytes of each row.
pub(super) fn bytes_of_rows(array: &dyn Array) -> QueryResult<Numbers> {
    of_rows(array, ELEMENT_BYTES, &|leaf| {
        Ok(match leaf.data_type() {
            ArrowType::Utf8
            | ArrowType::LargeUtf8
            | ArrowType::Utf8View
            | ArrowType::Binary
            | ArrowType::LargeBinary
            | ArrowType::BinaryView => Numbers::from_array(&length(leaf)?)?,
            ArrowType::Boolean | ArrowType::Null => Numbers::One(1.0),
            other => match other.primitive_width() {
                Some(width) => Numbers::One(width as f64),
                None => Numbers::One(leaf.get_array_memory_size() as f64 / leaf.len().max(1) as f64),
            },
        })
    })
}

/// Sums up, for each row, `of_leaf` of the values without elements and `of_element` for each element of a list.
fn of_rows(
    array: &dyn Array,
    of_element: f64,
    of_leaf: &dyn Fn(&dyn Array) -> QueryResult<Numbers>,
) -> QueryResult<Numbers> {
    if let Some((offsets, values)) = list(array) {
        let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
        let values = values.slice(first, last - first);
        let inner = of_rows(values.as_ref(), of_element, of_leaf)?;
        let of_range = |(from, to): (usize, usize)| match &inner {
            Numbers::One(each) => (to - from) as f64 * each,
            Numbers::Many(_) => (from..to).map(|at| inner.at(at - first) + of_element).sum(),
        };
        return Ok(Numbers::Many(ranges(&offsets).map(of_range).collect()));
    }
    match array.data_type() {
        ArrowType::Struct(_) => {
            let fields = array.as_struct().columns().iter();
            let fields: Vec<Numbers> =
                fields.map(|field| of_rows(field, of_element, of_leaf)).collect::<QueryResult<_>>()?;
            let of_row = |row: usize| fields.iter().map(|field| field.at(row)).sum::<f64>() + of_element;
            Ok(Numbers::Many((0..array.len()).map(of_row).collect()))
        }
        ArrowType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            if dictionary.values().is_empty() {
                return Ok(Numbers::One(0.0));
            }
            let values = of_rows(dictionary.values().as_ref(), of_element, of_leaf)?;
            let keys = dictionary.normalized_keys();
            Ok(Numbers::Many(keys.into_iter().map(|key| values.at(key)).collect()))
        }
        _ => of_leaf(array),
    }
}
