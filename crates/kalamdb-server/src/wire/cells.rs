//! Rows, as clients see them.
//!
//! | SQL type | on the wire |
//! |---|---|
//! | BOOLEAN, SMALLINT, INT | `true`, number |
//! | BIGINT, DECIMAL | string of digits, so that no client loses any |
//! | FLOAT, DOUBLE | number; `"NaN"`, `"Infinity"`, `"-Infinity"` as strings |
//! | TEXT, JSON, UUID | string |
//! | TIMESTAMP, DATETIME, TIME | string: microseconds since 1970 (since midnight), a 64-bit integer like any other |
//! | DATE | number: days since 1970-01-01 |
//! | BYTES | string, base64 with padding |
//! | EMBEDDING | array of numbers |
//! | arrays, structures | JSON arrays and objects, with numbers in them as numbers |
//! | spans of time | string, ISO 8601 |
//!
//! These are the forms which the typed accessors of the published SDK (`KalamCellValue`) read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kalamdb_core::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use kalamdb_core::arrow::compute::cast;
use kalamdb_core::arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use kalamdb_core::arrow::error::ArrowError;
use kalamdb_core::documents;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

/// How a column's values are read; each array has the type that its kind names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Int,
    BigInt,
    UnsignedBigInt,
    Float,
    Double,
    Decimal128,
    Decimal256,
    Text,
    TextView,
    Micros,
    TimeMicros,
    Date,
    Bytes,
    Embedding,
    /// JSON values of their own.
    Document,
}

struct Column<'a> {
    name: &'a str,
    array: ArrayRef,
    kind: Kind,
    /// The values, where they are documents.
    documents: Vec<Json>,
}

/// The rows of one batch, ready to be written.
pub(crate) struct Rows<'a> {
    columns: Vec<Column<'a>>,
    count: usize,
}

impl<'a> Rows<'a> {
    /// Brings every column into one of the forms that can be written.
    ///
    /// # Errors
    /// Where a value does not fit into that form.
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| {
            let (array, kind) = normalize(array)?;
            let documents = match kind {
                Kind::Document => {
                    documents(&array).map_err(|error| ArrowError::ExternalError(Box::new(error)))?
                }
                _ => Vec::new(),
            };
            Ok(Column { name: field.name(), array, kind, documents })
        });
        Ok(Self { columns: columns.collect::<Result<_, ArrowError>>()?, count: batch.num_rows() })
    }

    /// Rows as objects: `[{column: value}]`.
    pub(crate) const fn named(&'a self) -> NamedRows<'a> {
        NamedRows(self)
    }
}

/// Rows as objects.
pub(crate) struct NamedRows<'a>(&'a Rows<'a>);

/// The rows of several batches as arrays: `[[value]]`.
pub(crate) struct PositionalRows<'a>(pub(crate) &'a [Rows<'a>]);

struct NamedRow<'a>(&'a [Column<'a>], usize);
struct PositionalRow<'a>(&'a [Column<'a>], usize);
struct Cell<'a>(&'a Column<'a>, usize);

impl Serialize for NamedRows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.0.count).map(|row| NamedRow(&self.0.columns, row)))
    }
}

impl Serialize for PositionalRows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = self.0.iter().map(|rows| rows.count).sum();
        let mut seq = serializer.serialize_seq(Some(count))?;
        for rows in self.0 {
            for row in 0..rows.count {
                seq.serialize_element(&PositionalRow(&rows.columns, row))?;
            }
        }
        seq.end()
    }
}

impl Serialize for NamedRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for column in self.0 {
            map.serialize_entry(column.name, &Cell(column, self.1))?;
        }
        map.end()
    }
}

impl Serialize for PositionalRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|column| Cell(column, self.1)))
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Column { array, kind, documents, .. }, row) = *self;
        if *kind == Kind::Null || array.is_null(row) {
            return serializer.serialize_none();
        }
        match kind {
            Kind::Null => serializer.serialize_none(),
            Kind::Boolean => serializer.serialize_bool(array.as_boolean().value(row)),
            Kind::Int => serializer.serialize_i32(array.as_primitive::<Int32Type>().value(row)),
            Kind::BigInt => serializer.collect_str(&array.as_primitive::<Int64Type>().value(row)),
            Kind::UnsignedBigInt => serializer.collect_str(&array.as_primitive::<UInt64Type>().value(row)),
            Kind::Float => {
                let value = array.as_primitive::<Float32Type>().value(row);
                if value.is_finite() {
                    serializer.serialize_f32(value)
                } else {
                    not_finite(serializer, value.into())
                }
            }
            Kind::Double => {
                let value = array.as_primitive::<Float64Type>().value(row);
                if value.is_finite() {
                    serializer.serialize_f64(value)
                } else {
                    not_finite(serializer, value)
                }
            }
            Kind::Decimal128 => {
                serializer.serialize_str(&array.as_primitive::<Decimal128Type>().value_as_string(row))
            }
            Kind::Decimal256 => {
                serializer.serialize_str(&array.as_primitive::<Decimal256Type>().value_as_string(row))
            }
            Kind::Text => serializer.serialize_str(array.as_string::<i32>().value(row)),
            Kind::TextView => serializer.serialize_str(array.as_string_view().value(row)),
            Kind::Micros => {
                serializer.collect_str(&array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            Kind::TimeMicros => {
                serializer.collect_str(&array.as_primitive::<Time64MicrosecondType>().value(row))
            }
            Kind::Date => serializer.serialize_i32(array.as_primitive::<Date32Type>().value(row)),
            Kind::Bytes => serializer.serialize_str(&BASE64.encode(array.as_binary::<i32>().value(row))),
            Kind::Embedding => {
                let items = array.as_fixed_size_list().value(row);
                serializer.collect_seq(items.as_primitive::<Float32Type>().values())
            }
            Kind::Document => documents.get(row).unwrap_or(&Json::Null).serialize(serializer),
        }
    }
}

fn not_finite<S: Serializer>(serializer: S, value: f64) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "Infinity",
        _ => "-Infinity",
    })
}

fn normalize(array: &ArrayRef) -> Result<(ArrayRef, Kind), ArrowError> {
    let (target, kind) = match array.data_type() {
        ArrowType::Null => return Ok((Arc::clone(array), Kind::Null)),
        ArrowType::Boolean => (ArrowType::Boolean, Kind::Boolean),
        ArrowType::Int8 | ArrowType::Int16 | ArrowType::Int32 | ArrowType::UInt8 | ArrowType::UInt16 => {
            (ArrowType::Int32, Kind::Int)
        }
        ArrowType::Int64 | ArrowType::UInt32 => (ArrowType::Int64, Kind::BigInt),
        ArrowType::UInt64 => (ArrowType::UInt64, Kind::UnsignedBigInt),
        ArrowType::Float16 | ArrowType::Float32 => (ArrowType::Float32, Kind::Float),
        ArrowType::Float64 => (ArrowType::Float64, Kind::Double),
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale) => {
            (ArrowType::Decimal128(*precision, *scale), Kind::Decimal128)
        }
        ArrowType::Decimal256(precision, scale) => {
            (ArrowType::Decimal256(*precision, *scale), Kind::Decimal256)
        }
        ArrowType::Utf8 | ArrowType::LargeUtf8 => (ArrowType::Utf8, Kind::Text),
        ArrowType::Utf8View => (ArrowType::Utf8View, Kind::TextView),
        ArrowType::Timestamp(_, zone) => {
            (ArrowType::Timestamp(TimeUnit::Microsecond, zone.clone()), Kind::Micros)
        }
        ArrowType::Date32 | ArrowType::Date64 => (ArrowType::Date32, Kind::Date),
        ArrowType::Time32(_) | ArrowType::Time64(_) => {
            (ArrowType::Time64(TimeUnit::Microsecond), Kind::TimeMicros)
        }
        ArrowType::Binary
        | ArrowType::LargeBinary
        | ArrowType::BinaryView
        | ArrowType::FixedSizeBinary(_) => (ArrowType::Binary, Kind::Bytes),
        ArrowType::FixedSizeList(item, _) if *item.data_type() == ArrowType::Float32 => {
            (array.data_type().clone(), Kind::Embedding)
        }
        ArrowType::Dictionary(_, values) => return normalize(&cast(array, values)?),
        _ => return Ok((Arc::clone(array), Kind::Document)),
    };
    if *array.data_type() == target {
        return Ok((Arc::clone(array), kind));
    }
    Ok((cast(array, &target)?, kind))
}

#[cfg(test)]
mod tests {
    use kalamdb_core::arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int16Array,
        Int64Array, ListArray, NullArray, StringViewArray, TimestampMicrosecondArray,
        TimestampNanosecondArray,
    };
    use kalamdb_core::arrow::datatypes::Int32Type as KeyType;
    use serde_json::{Value, json};

    use super::*;

    fn check(array: ArrayRef, expected: &Value) {
        let batch = RecordBatch::try_from_iter([("c", array)]).unwrap();
        let rows = Rows::new(&batch).unwrap();
        let written = serde_json::to_value(PositionalRows(std::slice::from_ref(&rows))).unwrap();
        let column: Vec<Value> = written.as_array().unwrap().iter().map(|row| row[0].clone()).collect();
        assert_eq!(&Value::Array(column), expected);
        // Both encodings say the same.
        let packed = rmp_serde::to_vec_named(&rows.named()).unwrap();
        let unpacked: Value = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(unpacked, serde_json::to_value(rows.named()).unwrap());
    }

    #[test]
    fn integers_that_javascript_would_round_are_strings() {
        check(Arc::new(Int64Array::from(vec![Some(i64::MAX), None])), &json!(["9223372036854775807", null]));
        check(Arc::new(Int16Array::from(vec![-5])), &json!([-5]));
        let decimal = Decimal128Array::from(vec![-1_234_567]).with_precision_and_scale(10, 2).unwrap();
        check(Arc::new(decimal), &json!(["-12345.67"]));
    }

    #[test]
    fn floats_without_a_json_form_are_strings() {
        let values = vec![1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        check(Arc::new(Float64Array::from(values)), &json!([1.5, "NaN", "Infinity", "-Infinity"]));
    }

    #[test]
    fn instants_are_microseconds() {
        check(Arc::new(TimestampMicrosecondArray::from(vec![1])), &json!(["1"]));
        check(Arc::new(TimestampNanosecondArray::from(vec![2_000])), &json!(["2"]));
        check(Arc::new(Date32Array::from(vec![19_000])), &json!([19_000]));
    }

    #[test]
    fn other_types_have_a_form_too() {
        check(Arc::new(BooleanArray::from(vec![true, false])), &json!([true, false]));
        check(Arc::new(NullArray::new(2)), &json!([null, null]));
        check(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])), &json!(["AP8="]));
        check(Arc::new(StringViewArray::from(vec!["a\"b"])), &json!(["a\"b"]));
        let dictionary: DictionaryArray<KeyType> = vec!["x", "y", "x"].into_iter().collect();
        check(Arc::new(dictionary), &json!(["x", "y", "x"]));
        let list = ListArray::from_iter_primitive::<KeyType, _, _>(vec![Some(vec![Some(1), None]), None]);
        check(Arc::new(list), &json!([[1, null], null]));
    }
}
