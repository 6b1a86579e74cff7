//! The types of columns and the values in them.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// The type of a column.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// True or false.
    Boolean,
    /// 16-bit signed integer.
    SmallInt,
    /// 32-bit signed integer.
    Int,
    /// 64-bit signed integer.
    BigInt,
    /// 32-bit IEEE 754.
    Float,
    /// 64-bit IEEE 754.
    Double,
    /// Fixed point, up to 38 digits.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// UTF-8.
    Text,
    /// Microseconds since 1970-01-01T00:00:00, without a zone.
    Timestamp,
    /// Microseconds since 1970-01-01T00:00:00Z, an instant.
    DateTime,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight.
    Time,
    /// A JSON document, as text.
    Json,
    /// Raw bytes.
    Bytes,
    /// 128 bits, RFC 9562.
    Uuid,
    /// That many 32-bit floats.
    Embedding(u32),
}

impl DataType {
    /// Digits after the point; 0 where values have none.
    pub const fn decimal_scale(self) -> u8 {
        match self {
            Self::Decimal { scale, .. } => scale,
            _ => 0,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::SmallInt => f.write_str("SMALLINT"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Float => f.write_str("FLOAT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision}, {scale})"),
            Self::Text => f.write_str("TEXT"),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::DateTime => f.write_str("DATETIME"),
            Self::Date => f.write_str("DATE"),
            Self::Time => f.write_str("TIME"),
            Self::Json => f.write_str("JSON"),
            Self::Bytes => f.write_str("BYTES"),
            Self::Uuid => f.write_str("UUID"),
            Self::Embedding(dimension) => write!(f, "EMBEDDING({dimension})"),
        }
    }
}

/// One value. Units are those of [`DataType`]; a decimal is its unscaled integer.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// Of [`DataType::Boolean`].
    Boolean(bool),
    /// Of [`DataType::SmallInt`].
    SmallInt(i16),
    /// Of [`DataType::Int`].
    Int(i32),
    /// Of [`DataType::BigInt`].
    BigInt(i64),
    /// Of [`DataType::Float`].
    Float(f32),
    /// Of [`DataType::Double`].
    Double(f64),
    /// Of [`DataType::Decimal`], unscaled.
    Decimal(i128),
    /// Of [`DataType::Text`].
    Text(String),
    /// Of [`DataType::Timestamp`].
    Timestamp(i64),
    /// Of [`DataType::DateTime`].
    DateTime(i64),
    /// Of [`DataType::Date`].
    Date(i32),
    /// Of [`DataType::Time`].
    Time(i64),
    /// Of [`DataType::Json`].
    Json(String),
    /// Of [`DataType::Bytes`].
    Bytes(Vec<u8>),
    /// Of [`DataType::Uuid`].
    Uuid([u8; 16]),
    /// Of [`DataType::Embedding`].
    Embedding(Vec<f32>),
}

impl Value {
    /// Whether it is no value.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}
