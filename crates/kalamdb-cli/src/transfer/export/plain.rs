//! Arrays of the types that columns have, whatever types a query's expressions have.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use kalamdb_core::format::DataType;
use kalamdb_core::{TYPE_METADATA, text_array};

use crate::transfer::json_text::{Spacing, is_nested, is_span, json_array, span_array};

/// The schema of [`batch`]es.
pub(super) fn schema(of: &Schema) -> SchemaRef {
    let fields = of.fields().iter().map(|field| {
        let plain = field.as_ref().clone().with_data_type(plain(field.data_type()));
        if !is_document(field.data_type()) {
            return plain;
        }
        plain.with_metadata([(TYPE_METADATA.to_owned(), DataType::Json.to_string())].into())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A batch with these types.
pub(super) fn batch(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let arrays = batch.columns().iter().zip(schema.fields()).map(|(array, field)| {
        if array.data_type() == field.data_type() {
            Ok(Arc::clone(array))
        } else if is_castable(array.data_type()) {
            cast(array, field.data_type())
        } else if is_document(array.data_type()) {
            json_array(array, Spacing::WIDE)
        } else if is_span(array.data_type()) {
            Ok(span_array(array))
        } else {
            text_array(array)
        }
    });
    RecordBatch::try_new(Arc::clone(schema), arrays.collect::<Result<_, _>>()?)
}

fn plain(of: &ArrowType) -> ArrowType {
    match of {
        ArrowType::Int8 | ArrowType::UInt8 => ArrowType::Int16,
        ArrowType::UInt16 => ArrowType::Int32,
        ArrowType::UInt32 => ArrowType::Int64,
        ArrowType::UInt64 => ArrowType::Decimal128(20, 0),
        ArrowType::Float16 => ArrowType::Float32,
        ArrowType::Decimal32(precision, scale) | ArrowType::Decimal64(precision, scale) => {
            ArrowType::Decimal128(*precision, *scale)
        }
        ArrowType::Timestamp(_, zone) => ArrowType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        ArrowType::Date64 => ArrowType::Date32,
        ArrowType::Time32(_) | ArrowType::Time64(_) => ArrowType::Time64(TimeUnit::Microsecond),
        ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => ArrowType::Binary,
        ArrowType::Dictionary(_, values) => plain(values),
        ArrowType::Boolean
        | ArrowType::Int16
        | ArrowType::Int32
        | ArrowType::Int64
        | ArrowType::Float32
        | ArrowType::Float64
        | ArrowType::Decimal128(..)
        | ArrowType::Date32
        | ArrowType::Binary => of.clone(),
        ArrowType::FixedSizeList(item, _) if *item.data_type() == ArrowType::Float32 => of.clone(),
        _ => ArrowType::Utf8,
    }
}

/// Whether values of this type are documents in a file: lists, structs and maps, but for an embedding.
fn is_document(of: &ArrowType) -> bool {
    is_nested(of) && plain(of) == ArrowType::Utf8
}

/// What becomes the plain type value by value; the rest is shown as text.
fn is_castable(of: &ArrowType) -> bool {
    match of {
        ArrowType::Dictionary(_, values) => is_castable(values),
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View | ArrowType::Null => true,
        other => plain(other) != ArrowType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, DictionaryArray, DurationSecondArray, ListArray, NullArray, StringViewArray,
        TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::transfer::values::text_of;

    fn check(array: ArrayRef, expected: &[Option<&str>]) {
        let given = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
        let made = batch(&schema(&given.schema()), &given).unwrap();
        let texts: Vec<Option<String>> =
            (0..made.num_rows()).map(|row| text_of(made.column(0), row)).collect();
        assert_eq!(texts.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_type_has_a_text() {
        check(Arc::new(UInt64Array::from(vec![u64::MAX])), &[Some("18446744073709551615")]);
        check(Arc::new(NullArray::new(2)), &[None, None]);
        check(Arc::new(StringViewArray::from(vec![Some("a"), None])), &[Some("a"), None]);
        check(Arc::new(TimestampNanosecondArray::from(vec![2_000])), &[Some("1970-01-01T00:00:00.000002")]);
        let dictionary: DictionaryArray<Int32Type> = vec!["x", "y", "x"].into_iter().collect();
        check(Arc::new(dictionary), &[Some("x"), Some("y"), Some("x")]);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
        check(Arc::new(list), &[Some("[1, null]"), None]);
        let spans = DurationSecondArray::from(vec![Some(90_000), None]);
        check(Arc::new(spans), &[Some("P1DT1H"), None]);
    }
}
