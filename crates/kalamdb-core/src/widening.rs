//! Which types a column may be widened to, and a cell of an old row as one of the newest type.
//!
//! *Invariant*: widening loses nothing: every value of the old type is a value of the new one, and stays it through further
//! widenings. Whatever reads rows of older schema versions goes through [`Widening::cell`] or, column by column, through
//! [`column_of_now`], nobody casts by themselves.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, PrimitiveArray, StringBuilder};
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use log_format::{CellRef, DataType, Value};

use crate::error::{Error, Result};
use crate::table::arrow_type;

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Where the text of a UUID is written while its cell is at hand.
pub(crate) type UuidText = [u8; uuid::fmt::Hyphenated::LENGTH];

/// Room for one.
pub(crate) const NO_UUID_TEXT: UuidText = [0; uuid::fmt::Hyphenated::LENGTH];

/// The decimal digits of an integer type; 0 for others.
const fn digits(data_type: DataType) -> u8 {
    match data_type {
        DataType::SmallInt => 5,
        DataType::Int => 10,
        DataType::BigInt => 19,
        _ => 0,
    }
}

/// Whether every value of `from` is one of `to`, another type.
pub(crate) const fn widens(from: DataType, to: DataType) -> bool {
    match (from, to) {
        (DataType::SmallInt, DataType::Int | DataType::BigInt | DataType::Float | DataType::Double)
        | (DataType::Int, DataType::BigInt | DataType::Double)
        | (DataType::Float, DataType::Double)
        | (DataType::Date, DataType::Timestamp)
        | (DataType::Uuid | DataType::Json, DataType::Text) => true,
        (DataType::SmallInt | DataType::Int | DataType::BigInt, DataType::Decimal { precision, scale }) => {
            precision.saturating_sub(scale) >= digits(from)
        }
        (
            DataType::Decimal { precision: from_precision, scale: from_scale },
            DataType::Decimal { precision, scale },
        ) => {
            let is_same = precision == from_precision && scale == from_scale;
            let keeps_whole = precision.saturating_sub(scale) >= from_precision.saturating_sub(from_scale);
            !is_same && scale >= from_scale && keeps_whole
        }
        _ => false,
    }
}

/// What a column of this type can become, in words; none where it stays what it is.
pub(crate) fn wider_types(from: DataType) -> Option<String> {
    let decimal = |digits: u8, scale: u8| match scale {
        0 => format!("DECIMAL(p, s) with p - s of at least {digits}"),
        scale => format!("DECIMAL(p, s) with s of at least {scale} and p - s of at least {digits}"),
    };
    match from {
        DataType::SmallInt => Some(format!("INT, BIGINT, FLOAT, DOUBLE and {}", decimal(5, 0))),
        DataType::Int => Some(format!("BIGINT, DOUBLE and {}", decimal(10, 0))),
        DataType::BigInt => Some(decimal(19, 0)),
        DataType::Float => Some("DOUBLE".to_owned()),
        DataType::Decimal { precision, scale } => Some(decimal(precision.saturating_sub(scale), scale)),
        DataType::Date => Some("TIMESTAMP".to_owned()),
        DataType::Uuid | DataType::Json => Some("TEXT".to_owned()),
        _ => None,
    }
}

/// From a type to a wider one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widening {
    from: DataType,
    to: DataType,
}

impl Widening {
    /// What cells of the type `from` have to go through in a column that is `to` now; nothing where those are the same.
    pub(crate) fn between(from: DataType, to: DataType) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }

    /// The cell as one of the wider type. `text` is where a UUID's text is written.
    pub(crate) fn cell<'a>(self, cell: CellRef<'a>, text: &'a mut UuidText) -> CellRef<'a> {
        match (self.to, cell) {
            (DataType::Int, CellRef::SmallInt(v)) => CellRef::Int(i32::from(v)),
            (DataType::BigInt, CellRef::SmallInt(v)) => CellRef::BigInt(i64::from(v)),
            (DataType::BigInt, CellRef::Int(v)) => CellRef::BigInt(i64::from(v)),
            (DataType::Float, CellRef::SmallInt(v)) => CellRef::Float(f32::from(v)),
            (DataType::Double, CellRef::SmallInt(v)) => CellRef::Double(f64::from(v)),
            (DataType::Double, CellRef::Int(v)) => CellRef::Double(f64::from(v)),
            (DataType::Double, CellRef::Float(v)) => CellRef::Double(f64::from(v)),
            (DataType::Decimal { .. }, CellRef::SmallInt(v)) => self.decimal(i128::from(v)),
            (DataType::Decimal { .. }, CellRef::Int(v)) => self.decimal(i128::from(v)),
            (DataType::Decimal { .. }, CellRef::BigInt(v)) => self.decimal(i128::from(v)),
            (DataType::Decimal { .. }, CellRef::Decimal(v)) => self.decimal(v),
            (DataType::Timestamp, CellRef::Date(days)) => {
                CellRef::Timestamp(i64::from(days).saturating_mul(DAY_MICROS))
            }
            (DataType::Text, CellRef::Json(v)) => CellRef::Text(v),
            (DataType::Text, CellRef::Uuid(v)) => {
                CellRef::Text(uuid::Uuid::from_bytes(*v).hyphenated().encode_lower(text))
            }
            (_, other) => other,
        }
    }

    fn decimal<'a>(self, unscaled: i128) -> CellRef<'a> {
        CellRef::Decimal(self.rescaled(unscaled))
    }

    /// The same number with more digits behind the point.
    fn rescaled(self, unscaled: i128) -> i128 {
        let more = u32::from(self.to.decimal_scale().saturating_sub(self.from.decimal_scale()));
        unscaled.saturating_mul(10_i128.saturating_pow(more))
    }

    /// As [`Widening::cell`], for a value at hand.
    pub(crate) fn value(self, value: &Value) -> Value {
        let (mut text, mut scratch) = (NO_UUID_TEXT, Vec::new());
        self.cell(value.as_cell(&mut scratch), &mut text).to_value()
    }
}

/// A column as it is stored, of the type it was written with, as one of now: what [`Widening::cell`] makes of its cells, as queries
/// have them.
pub(crate) fn column_of_now(array: &ArrayRef, written: DataType, now: DataType) -> Result<ArrayRef> {
    let widened = Widening { from: written, to: now }.column(array);
    widened.ok_or_else(|| Error::Inconsistent {
        reason: format!("a stored column is {} and not {written} that is {now} now", array.data_type()),
    })
}

fn days_to_micros(days: i32) -> i64 {
    i64::from(days).saturating_mul(DAY_MICROS)
}

impl Widening {
    /// None where the array is not of the type it is to be widened from.
    fn column(self, array: &ArrayRef) -> Option<ArrayRef> {
        macro_rules! unary {
            ($from:ty => $to:ty, $function:expr) => {
                Arc::new(array.as_primitive_opt::<$from>()?.unary::<_, $to>($function))
            };
        }
        macro_rules! decimal {
            ($from:ty) => {{
                let numbers = array.as_primitive_opt::<$from>()?;
                let numbers: PrimitiveArray<Decimal128Type> =
                    numbers.unary(|number| self.rescaled(i128::from(number)));
                Arc::new(numbers.with_data_type(arrow_type(self.to)))
            }};
        }
        Some(match (self.from, self.to) {
            (DataType::SmallInt, DataType::Int) => unary!(Int16Type => Int32Type, i32::from),
            (DataType::SmallInt, DataType::BigInt) => unary!(Int16Type => Int64Type, i64::from),
            (DataType::Int, DataType::BigInt) => unary!(Int32Type => Int64Type, i64::from),
            (DataType::SmallInt, DataType::Float) => unary!(Int16Type => Float32Type, f32::from),
            (DataType::SmallInt, DataType::Double) => unary!(Int16Type => Float64Type, f64::from),
            (DataType::Int, DataType::Double) => unary!(Int32Type => Float64Type, f64::from),
            (DataType::Float, DataType::Double) => unary!(Float32Type => Float64Type, f64::from),
            (DataType::SmallInt, DataType::Decimal { .. }) => decimal!(Int16Type),
            (DataType::Int, DataType::Decimal { .. }) => decimal!(Int32Type),
            (DataType::BigInt, DataType::Decimal { .. }) => decimal!(Int64Type),
            (DataType::Decimal { .. }, DataType::Decimal { .. }) if self.from != self.to => {
                decimal!(Decimal128Type)
            }
            (DataType::Date, DataType::Timestamp) => {
                unary!(Date32Type => TimestampMicrosecondType, days_to_micros)
            }
            (DataType::Uuid, DataType::Uuid | DataType::Text) => uuid_texts(array)?,
            (DataType::Embedding(_), DataType::Embedding(_)) => embeddings(array, self.to)?,
            _ => Arc::clone(array),
        })
    }
}

/// UUIDs as the text that they are shown as.
fn uuid_texts(array: &ArrayRef) -> Option<ArrayRef> {
    let bytes = array.as_fixed_size_binary_opt()?;
    let mut texts = StringBuilder::with_capacity(bytes.len(), bytes.len() * NO_UUID_TEXT.len());
    let mut text = NO_UUID_TEXT;
    for value in bytes {
        match value {
            Some(value) => {
                let value = uuid::Uuid::from_slice(value).ok()?;
                texts.append_value(value.hyphenated().encode_lower(&mut text));
            }
            None => texts.append_null(),
        }
    }
    Some(Arc::new(texts.finish()))
}

/// The same lists, of the items that queries have.
fn embeddings(array: &ArrayRef, data_type: DataType) -> Option<ArrayRef> {
    let lists = array.as_fixed_size_list_opt()?;
    let ArrowType::FixedSizeList(item, size) = arrow_type(data_type) else { return None };
    let (values, nulls) = (Arc::clone(lists.values()), lists.nulls().cloned());
    Some(Arc::new(FixedSizeListArray::try_new(item, size, values, nulls).ok()?))
}

#[cfg(test)]
#[path = "widening_tests.rs"]
mod tests;
