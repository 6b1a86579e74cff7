//! Values as JSON: as trees for the cells of results, and as text for JSON's functions.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal256Type, Field, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType,
};
use datafusion::error::Result;
use serde_json::Value as Json;

use super::casts::{as_list, written};
use super::document::quoted;
use super::json::EMBEDDED;
use super::spans::{SPAN, from_arrow};
use crate::text::write_interval_iso;

/// A time in ISO 8601, of its text in SQL.
fn iso_time(text: &str) -> String {
    text.replacen(' ', "T", 1).replace("+00", "+00:00")
}

/// Values as JSON: lists as arrays, structures as objects, numbers with each of their digits, times and spans as ISO 8601.
///
/// # Errors
/// A value that has no form, as a time beyond the calendar.
#[expect(clippy::too_many_lines, reason = "a case for each type")]
pub fn documents(array: &ArrayRef) -> Result<Vec<Json>> {
    let null_or = |is_null: bool, value: Json| if is_null { Json::Null } else { value };
    // A number that JSON's would round stays text.
    let number = |text: String| match serde_json::from_str::<Json>(&text) {
        Ok(number) => {
            let written = number.to_string();
            if written == text { number } else { Json::String(text) }
        }
        Err(_) => Json::String(text),
    };
    let rows = 0..array.len();
    Ok(match array.data_type() {
        DataType::Null => rows.map(|_| Json::Null).collect(),
        DataType::Boolean => {
            let values = array.as_boolean();
            rows.map(|row| null_or(values.is_null(row), Json::Bool(values.value(row)))).collect()
        }
        found if found.is_integer() => {
            let wide = cast(array, &DataType::Int64)?;
            wide.as_primitive::<Int64Type>()
                .iter()
                .map(|value| value.map_or(Json::Null, Json::from))
                .collect()
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().iter();
            values.map(|value| value.map_or(Json::Null, |value| number(value.to_string()))).collect()
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().iter();
            values.map(|value| value.map_or(Json::Null, Json::from)).collect()
        }
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            let wide = cast(array, &DataType::Decimal256(76, *scale))?;
            let values = wide.as_primitive::<Decimal256Type>();
            rows.map(|row| null_or(values.is_null(row), number(values.value_as_string(row)))).collect()
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let spans = cast(array, &SPAN)?;
            let spans = spans.as_primitive::<IntervalMonthDayNanoType>().iter();
            spans
                .map(|span| {
                    span.map_or(Json::Null, |span| Json::String(write_interval_iso(from_arrow(span))))
                })
                .collect()
        }
        DataType::Timestamp(..) => {
            let texts = written(array)?;
            let texts = texts.as_string::<i32>();
            texts.iter().map(|text| text.map_or(Json::Null, |text| Json::String(iso_time(text)))).collect()
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            let list = as_list(array)?;
            let items = list.iter().map(|items| match items {
                None => Ok(Json::Null),
                Some(items) => Ok(Json::Array(documents(&items)?)),
            });
            items.collect::<Result<Vec<_>>>()?
        }
        DataType::Struct(fields) => {
            let values = array.as_struct();
            let columns = values.columns().iter().map(documents).collect::<Result<Vec<_>>>()?;
            let member = |row: usize, (field, column): (&Arc<Field>, &Vec<Json>)| {
                (field.name().clone(), column.get(row).cloned().unwrap_or(Json::Null))
            };
            rows.map(|row| {
                let members = fields.iter().zip(&columns).map(|pair| member(row, pair)).collect();
                null_or(values.is_null(row), Json::Object(members))
            })
            .collect()
        }
        _ => {
            let texts = written(array)?;
            let texts = texts.as_string::<i32>();
            texts.iter().map(|text| text.map_or(Json::Null, |text| Json::String(text.to_owned()))).collect()
        }
    })
}

/// The JSON text of each value, as PostgreSQL's `to_json` writes it: `null` for NULL.
///
/// # Errors
/// A value that has no text, as a time beyond the calendar.
pub(super) fn json_texts(array: &ArrayRef) -> Result<Vec<String>> {
    let null = || "null".to_owned();
    Ok(match array.data_type() {
        DataType::Null => vec![null(); array.len()],
        found @ (DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
            if found.is_nested() =>
        {
            let list = as_list(array)?;
            let items = list.iter().map(|items| match items {
                None => Ok(null()),
                Some(items) => Ok(format!("[{}]", json_texts(&items)?.join(","))),
            });
            items.collect::<Result<Vec<_>>>()?
        }
        DataType::Struct(fields) if matches!(fields.as_ref(), [only] if only.name() == EMBEDDED) => {
            let texts = array.as_struct().column(0);
            texts.as_string::<i32>().iter().map(|text| text.map_or_else(null, str::to_owned)).collect()
        }
        DataType::Struct(fields) => {
            let values = array.as_struct();
            let columns = values.columns().iter().map(json_texts).collect::<Result<Vec<_>>>()?;
            let member = |row: usize, (field, column): (&Arc<Field>, &Vec<String>)| {
                format!("{}:{}", quoted(field.name()), column.get(row).map_or("null", String::as_str))
            };
            let object = |row: usize| {
                let members: Vec<String> =
                    fields.iter().zip(&columns).map(|pair| member(row, pair)).collect();
                format!("{{{}}}", members.join(","))
            };
            (0..array.len()).map(|row| if values.is_null(row) { null() } else { object(row) }).collect()
        }
        found => {
            let is_bare = found.is_numeric() || *found == DataType::Boolean;
            let is_time = matches!(found, DataType::Timestamp(..));
            let texts = written(array)?;
            let text = |text: &str| match text {
                "NaN" | "Infinity" | "-Infinity" => quoted(text),
                _ if is_bare => text.to_owned(),
                _ if is_time => quoted(&iso_time(text)),
                _ => quoted(text),
            };
            texts.as_string::<i32>().iter().map(|value| value.map_or_else(null, text)).collect()
        }
    })
}
