//! Columns, as clients see them: `{name, data_type, index, sql_type?}`.

use kalamdb_core::arrow::datatypes::{DataType as ArrowType, Field, Schema};
use kalamdb_core::format::DataType;
use kalamdb_core::sql_type;
use serde::{Serialize, Serializer};

/// The columns of a result.
pub(crate) struct WireSchema<'a>(pub(crate) &'a Schema);

#[derive(Serialize)]
struct Column<'a> {
    name: &'a str,
    data_type: TypeName,
    index: usize,
    /// The SQL type of values whose `data_type` says only that they are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql_type: Option<&'static str>,
}

/// The names of the protocol; those with parameters are objects.
#[derive(Serialize)]
enum TypeName {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    Text,
    Timestamp,
    DateTime,
    Date,
    Time,
    Json,
    Bytes,
    Uuid,
    Embedding(u32),
}

impl From<DataType> for TypeName {
    fn from(data_type: DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::SmallInt => Self::SmallInt,
            DataType::Int => Self::Int,
            DataType::BigInt => Self::BigInt,
            DataType::Float => Self::Float,
            DataType::Double => Self::Double,
            DataType::Decimal { precision, scale } => Self::Decimal { precision, scale },
            DataType::Text => Self::Text,
            DataType::Timestamp => Self::Timestamp,
            DataType::DateTime => Self::DateTime,
            DataType::Date => Self::Date,
            DataType::Time => Self::Time,
            DataType::Json => Self::Json,
            DataType::Bytes => Self::Bytes,
            DataType::Uuid => Self::Uuid,
            DataType::Embedding(dimension) => Self::Embedding(dimension),
        }
    }
}

impl Serialize for WireSchema<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.fields().iter().enumerate().map(|(index, field)| Column {
            name: field.name(),
            data_type: sql_type(field).into(),
            index,
            sql_type: untold_type(field),
        }))
    }
}

/// The type that [`TypeName`] has no name for: the published SDK knows no others.
fn untold_type(field: &Field) -> Option<&'static str> {
    matches!(field.data_type(), ArrowType::Interval(_) | ArrowType::Duration(_)).then_some("INTERVAL")
}

#[cfg(test)]
mod tests {
    use kalamdb_core::arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn types_have_the_protocols_names() {
        let schema = Schema::new(vec![
            Field::new("id", ArrowType::Int64, false),
            Field::new("price", ArrowType::Decimal128(10, 2), true),
            Field::new("took", ArrowType::Duration(TimeUnit::Second), true),
        ]);
        let json = serde_json::to_value(WireSchema(&schema)).unwrap();
        let expected = serde_json::json!([
            { "name": "id", "data_type": "BigInt", "index": 0 },
            { "name": "price", "data_type": { "Decimal": { "precision": 10, "scale": 2 } }, "index": 1 },
            { "name": "took", "data_type": "Text", "index": 2, "sql_type": "INTERVAL" },
        ]);
        assert_eq!(json, expected);
    }
}
