//! Functions that look into JSON documents and make them.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, StructArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal256Type, Field, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType,
};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use serde_json::Value as Json;

use super::casts::written;
use super::spans::{SPAN, from_arrow};
use super::{Evaluate, Function};
use crate::text::write_interval_iso;

/// Whether a document contains another one, as `@>` asks.
pub(crate) fn contains(document: Expr, part: Expr) -> Expr {
    Function::to("json_contains_document", DataType::Boolean, evaluate_contains).call(vec![document, part])
}

/// The one field of a structure that stands for a document.
const EMBEDDED: &str = "\u{1}json";

/// A document among other values, which is to stand as it is and not as text.
pub(crate) fn embed(document: Expr) -> Expr {
    let returns: fn(&[DataType]) -> Result<DataType> =
        |_| Ok(DataType::Struct(vec![Field::new(EMBEDDED, DataType::Utf8, true)].into()));
    let evaluate: Evaluate = |args, _| {
        let [document] = args else { return exec_err!("a document is embedded alone") };
        let document = cast(document, &DataType::Utf8)?;
        let nulls = document.nulls().cloned();
        let field = Arc::new(Field::new(EMBEDDED, DataType::Utf8, true));
        Ok(Arc::new(StructArray::try_new(vec![field].into(), vec![document], nulls)?))
    };
    Function::new("json_embed", returns, evaluate).call(vec![document])
}

/// Documents of a list as one array.
fn evaluate_join(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [lists] = args else { return exec_err!("json_join takes one array") };
    let Some(lists) = lists.as_list_opt::<i32>() else { return exec_err!("json_join takes an array") };
    let mut texts: Vec<Option<String>> = Vec::with_capacity(lists.len());
    for items in lists.iter() {
        let Some(items) = items else {
            texts.push(None);
            continue;
        };
        let items = cast(&items, &DataType::Utf8)?;
        let items: Vec<&str> = items.as_string::<i32>().iter().map(|item| item.unwrap_or("null")).collect();
        texts.push(Some(format!("[{}]", items.join(", "))));
    }
    Ok(Arc::new(StringArray::from(texts)))
}

fn parse(text: &str) -> Result<Json> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(json),
        Err(error) => exec_err!("invalid JSON: {error}"),
    }
}

fn evaluate_contains(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document, part] = args else { return exec_err!("@> takes two documents") };
    let (document, part) = (cast(document, &DataType::Utf8)?, cast(part, &DataType::Utf8)?);
    let pairs = document.as_string::<i32>().iter().zip(part.as_string::<i32>().iter());
    let found = pairs.map(|(document, part)| match (document, part) {
        (Some(document), Some(part)) => Ok(Some(is_contained(&parse(part)?, &parse(document)?, true))),
        _ => Ok(None),
    });
    Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
}

/// Whether `part` is in `whole`: members of objects, elements of arrays in any order. An array contains a bare value as well, at
/// the top.
fn is_contained(part: &Json, whole: &Json, is_top: bool) -> bool {
    match (part, whole) {
        (Json::Object(part), Json::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| is_contained(value, found, false))),
        (Json::Array(part), Json::Array(whole)) => {
            part.iter().all(|item| whole.iter().any(|found| is_contained(item, found, false)))
        }
        (part, Json::Array(whole)) if is_top && !part.is_object() => {
            whole.iter().any(|found| is_equal(part, found))
        }
        (part, whole) => is_equal(part, whole),
    }
}

fn is_equal(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            left == right || left.as_f64().is_some() && left.as_f64() == right.as_f64()
        }
        (left, right) => left == right,
    }
}

fn has_key(document: &Json, key: &str) -> bool {
    match document {
        Json::Object(members) => members.contains_key(key),
        Json::Array(items) => items.iter().any(|item| item.as_str() == Some(key)),
        Json::String(text) => text == key,
        _ => false,
    }
}

fn evaluate_has_key(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document, key] = args else { return exec_err!("? takes a document and a key") };
    let (document, key) = (cast(document, &DataType::Utf8)?, cast(key, &DataType::Utf8)?);
    let pairs = document.as_string::<i32>().iter().zip(key.as_string::<i32>().iter());
    let found = pairs.map(|(document, key)| match (document, key) {
        (Some(document), Some(key)) => Ok(Some(has_key(&parse(document)?, key))),
        _ => Ok(None),
    });
    Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
}

fn evaluate_has_keys(args: &[ArrayRef], is_all: bool) -> Result<ArrayRef> {
    let [document, keys] = args else { return exec_err!("it takes a document and an array of keys") };
    let document = cast(document, &DataType::Utf8)?;
    let document = document.as_string::<i32>();
    let Some(lists) = keys.as_list_opt::<i32>() else { return exec_err!("it takes an array of keys") };
    let mut found: Vec<Option<bool>> = Vec::with_capacity(document.len());
    for row in 0..document.len() {
        if document.is_null(row) || lists.is_null(row) {
            found.push(None);
            continue;
        }
        let json = parse(document.value(row))?;
        let keys = cast(&lists.value(row), &DataType::Utf8)?;
        let mut each = keys.as_string::<i32>().iter().flatten().map(|key| has_key(&json, key));
        found.push(Some(if is_all { each.all(|has| has) } else { each.any(|has| has) }));
    }
    Ok(Arc::new(BooleanArray::from(found)))
}

fn number_text(number: &Json) -> String {
    number.to_string()
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
        Ok(number) if number_text(&number) == text => number,
        _ => Json::String(text),
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
            let iso = |text: &str| text.replacen(' ', "T", 1).replace("+00", "+00:00");
            texts.iter().map(|text| text.map_or(Json::Null, |text| Json::String(iso(text)))).collect()
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            let list = match array.data_type() {
                DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                    cast(array, &DataType::List(Arc::clone(field)))?
                }
                _ => Arc::clone(array),
            };
            let list = list.as_list::<i32>();
            let items = list.iter().map(|items| match items {
                None => Ok(Json::Null),
                Some(items) => Ok(Json::Array(documents(&items)?)),
            });
            items.collect::<Result<Vec<_>>>()?
        }
        DataType::Struct(fields) if matches!(fields.as_ref(), [only] if only.name() == EMBEDDED) => {
            let texts = array.as_struct().column(0);
            let texts = texts.as_string::<i32>();
            texts.iter().map(|text| text.map_or(Ok(Json::Null), parse)).collect::<Result<Vec<_>>>()?
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

fn evaluate_object(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    if !args.len().is_multiple_of(2) {
        return exec_err!("json_build_object takes names and values in turn");
    }
    let rows = args.first().map_or(1, Array::len);
    let mut members: Vec<serde_json::Map<String, Json>> = vec![serde_json::Map::new(); rows];
    for pair in args.chunks(2) {
        let [names, values] = pair else { continue };
        let (names, values) = (written(names)?, documents(values)?);
        let names = names.as_string::<i32>();
        for (row, (members, value)) in members.iter_mut().zip(values).enumerate() {
            if names.is_null(row) {
                return exec_err!("a name in json_build_object must not be NULL");
            }
            members.insert(names.value(row).to_owned(), value);
        }
    }
    let texts: StringArray =
        members.into_iter().map(|members| Some(Json::Object(members).to_string())).collect();
    Ok(Arc::new(texts))
}

fn evaluate_array(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let rows = args.first().map_or(1, Array::len);
    let columns = args.iter().map(documents).collect::<Result<Vec<_>>>()?;
    let item =
        |row: usize| columns.iter().map(|column| column.get(row).cloned().unwrap_or(Json::Null)).collect();
    let texts: StringArray = (0..rows).map(|row| Some(Json::Array(item(row)).to_string())).collect();
    Ok(Arc::new(texts))
}

fn evaluate_document(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [value] = args else { return exec_err!("to_json takes one value") };
    let texts: StringArray = documents(value)?
        .into_iter()
        .enumerate()
        .map(|(row, json)| value.is_valid(row).then(|| json.to_string()))
        .collect();
    Ok(Arc::new(texts))
}

fn evaluate_kind(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document] = args else { return exec_err!("json_typeof takes one document") };
    let document = cast(document, &DataType::Utf8)?;
    let kinds = document.as_string::<i32>().iter().map(|text| match text {
        None => Ok(None),
        Some(text) => Ok(Some(match parse(text)? {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        })),
    });
    Ok(Arc::new(kinds.collect::<Result<StringArray>>()?))
}

fn evaluate_array_length(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document] = args else { return exec_err!("json_array_length takes one document") };
    let document = cast(document, &DataType::Utf8)?;
    let lengths = document.as_string::<i32>().iter().map(|text| match text.map(parse).transpose()? {
        None => Ok(None),
        Some(Json::Array(items)) => Ok(i64::try_from(items.len()).ok()),
        Some(_) => exec_err!("cannot get array length of a document that is no array"),
    });
    Ok(Arc::new(lengths.collect::<Result<Int64Array>>()?))
}

/// The functions by name.
pub(super) fn named() -> Vec<Function> {
    let json = |name: &'static str, evaluate: Evaluate| {
        Function::to(name, DataType::Utf8, evaluate).of_sql_type("JSON")
    };
    let boolean = |name: &'static str, evaluate: Evaluate| Function::to(name, DataType::Boolean, evaluate);
    let mut all = vec![
        boolean("json_contains_document", evaluate_contains),
        json("json_join", evaluate_join),
        boolean("json_has_key", evaluate_has_key),
        boolean("json_has_any_key", |args, _| evaluate_has_keys(args, false)),
        boolean("json_has_all_keys", |args, _| evaluate_has_keys(args, true)),
    ];
    for prefix in ["json", "jsonb"] {
        let name = |rest: &'static str| -> &'static str {
            match (prefix, rest) {
                ("json", "object") => "json_build_object",
                ("json", "array") => "json_build_array",
                ("json", "document") => "to_json",
                ("json", "kind") => "json_typeof",
                ("json", _) => "json_array_length",
                (_, "object") => "jsonb_build_object",
                (_, "array") => "jsonb_build_array",
                (_, "document") => "to_jsonb",
                (_, "kind") => "jsonb_typeof",
                _ => "jsonb_array_length",
            }
        };
        all.push(json(name("object"), evaluate_object));
        all.push(json(name("array"), evaluate_array));
        all.push(json(name("document"), evaluate_document));
        all.push(Function::to(name("kind"), DataType::Utf8, evaluate_kind));
        all.push(Function::to(name("length"), DataType::Int64, evaluate_array_length));
    }
    all
}
