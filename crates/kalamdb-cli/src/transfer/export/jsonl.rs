//! A row as a JSON object: values as results have them, but dates, times and spans ISO 8601 and documents as documents.
//!
//! 64-bit integers and decimals are strings, so that no reader loses digits; so are floats that JSON has no form for. A JSON column's
//! object or array stands as it is; a document that is neither, or takes several lines, is its text, so that `null` is not
//! taken for no value.

use arrow::array::RecordBatch;
use kalamdb_core::format::DataType;
use kalamdb_core::sql_type;
use serde_json::Value as Json;

use crate::transfer::values::text_of;

/// Appends the rows of a batch, a line each.
pub(super) fn write(out: &mut Vec<u8>, batch: &RecordBatch) {
    let schema = batch.schema();
    let columns: Vec<(String, DataType)> = schema
        .fields()
        .iter()
        .map(|field| (Json::from(field.name().as_str()).to_string(), sql_type(field)))
        .collect();
    for row in 0..batch.num_rows() {
        for (at, ((name, data_type), array)) in columns.iter().zip(batch.columns()).enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.extend(name.as_bytes());
            out.push(b':');
            match text_of(array, row) {
                None => out.extend(b"null"),
                Some(text) if is_written_as_it_is(&text, *data_type) => out.extend(text.into_bytes()),
                Some(text) => out.extend(Json::String(text).to_string().into_bytes()),
            }
        }
        out.extend(if columns.is_empty() { b"{}\n".as_slice() } else { b"}\n" });
    }
}

/// Whether a value's text is the JSON it stands as.
fn is_written_as_it_is(text: &str, data_type: DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::SmallInt | DataType::Int => true,
        DataType::Float | DataType::Double | DataType::Embedding(_) => !text.contains(['N', 'I']),
        DataType::Json => text.starts_with(['{', '[']) && !text.contains(['\n', '\r']),
        _ => false,
    }
}
