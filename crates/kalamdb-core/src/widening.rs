//! Which types a column may be widened to, and a cell of an old row as one of the newest type.
//!
//! *Invariant*: widening loses nothing: every value of the old type is a value of the new one, and stays it through further
//! widenings. Whatever reads rows of older schema versions goes through [`Widening::cell`], nobody casts by themselves.

use log_format::{CellRef, DataType, Value};

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

    /// The same number with more digits behind the point.
    fn decimal<'a>(self, unscaled: i128) -> CellRef<'a> {
        let more = u32::from(self.to.decimal_scale().saturating_sub(self.from.decimal_scale()));
        CellRef::Decimal(unscaled.saturating_mul(10_i128.saturating_pow(more)))
    }

    /// As [`Widening::cell`], for a value at hand.
    pub(crate) fn value(self, value: &Value) -> Value {
        let (mut text, mut scratch) = (NO_UUID_TEXT, Vec::new());
        self.cell(value.as_cell(&mut scratch), &mut text).to_value()
    }
}

#[cfg(test)]
#[path = "widening_tests.rs"]
mod tests;
