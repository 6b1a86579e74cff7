//! Functions that look into JSON documents and build them.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, StringArray, StructArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::Totality::{Partial, Total};
use super::casts::{as_list, written};
use super::document::{Document, at_path, path_of_text, quoted};
use super::documents::json_texts;
use super::{Evaluate, Function, Last, call_shared};

/// Whether a document contains another one, as `@>` has it.
pub(crate) fn contains(document: Expr, part: Expr) -> Expr {
    call_shared!(
        Function::to("json_contains_document", Partial, DataType::Boolean, evaluate_contains),
        vec![document, part]
    )
}

/// The value at a path in a document, as `#>` has it, or its text, as `#>>` has it.
pub(crate) fn at(document: Expr, path: Expr, is_text: bool) -> Expr {
    if is_text {
        return call_shared!(
            path_function("json_text_at_path", |args, _| evaluate_path(args, true)),
            vec![document, path]
        );
    }
    call_shared!(
        path_function("json_at_path", |args, _| evaluate_path(args, false)).of_sql_type("JSON"),
        vec![document, path]
    )
}

/// The function of `#>` or `#>>`.
fn path_function(name: &'static str, evaluate: Evaluate) -> Function {
    let returns: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [document, path] if is_document(document) && (path.is_nested() || is_document(path)) => {
            Ok(DataType::Utf8)
        }
        _ => plan_err!("#> and #>> take a document and an array of keys"),
    };
    Function::new(name, Partial, returns, evaluate)
}

/// Whether a type may be that of a document.
fn is_document(found: &DataType) -> bool {
    matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

/// The name of the one field of a structure that stands for a document.
pub(super) const EMBEDDED: &str = "\u{1}json";

/// A document among other values, which is written as it is and not as a string.
pub(crate) fn embed(document: Expr) -> Expr {
    const RETURNS: fn(&[DataType]) -> Result<DataType> =
        |_| Ok(DataType::Struct(vec![Field::new(EMBEDDED, DataType::Utf8, true)].into()));
    const EVALUATE: Evaluate = |args, _| {
        let [document] = args else { return exec_err!("a document is embedded alone") };
        let document = cast(document, &DataType::Utf8)?;
        let nulls = document.nulls().cloned();
        let field = Arc::new(Field::new(EMBEDDED, DataType::Utf8, true));
        Ok(Arc::new(StructArray::try_new(vec![field].into(), vec![document], nulls)?))
    };
    call_shared!(Function::new("json_embed", Total, RETURNS, EVALUATE), vec![document])
}

/// Joins the texts of each list.
fn evaluate_join(args: &[ArrayRef], join: fn(&[&str]) -> Result<String>) -> Result<ArrayRef> {
    let [lists] = args else { return exec_err!("an array of documents is joined alone") };
    let lists = as_list(lists)?;
    let texts = lists.iter().map(|items| {
        let Some(items) = items else { return Ok(None) };
        let items = cast(&items, &DataType::Utf8)?;
        let items: Vec<&str> = items.as_string::<i32>().iter().map(|item| item.unwrap_or("null")).collect();
        join(&items).map(Some)
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

/// A document as PostgreSQL writes a `jsonb`.
fn binary_form(text: &str) -> Result<String> {
    let mut written = String::with_capacity(text.len());
    Document::parse(text)?.write_binary_form(&mut written);
    Ok(written)
}

/// Documents or members with commas between them and brackets around them.
fn join_pairs(pairs: &[&str], open: &str, close: &str) -> String {
    format!("{open}{}{close}", pairs.join(", "))
}

/// The names of members, as strings of JSON.
fn name_texts(names: &ArrayRef) -> Result<Vec<String>> {
    if names.data_type().is_nested() {
        return exec_err!(
            "the name of a member of an object must not be an array, a structure or a document"
        );
    }
    if names.logical_null_count() > 0 {
        return exec_err!("the name of a member of an object must not be NULL");
    }
    let texts = json_texts(names)?.into_iter();
    Ok(texts.map(|text| if text.starts_with('"') { text } else { quoted(&text) }).collect())
}

/// A member of an object: a name and a document.
fn evaluate_pair(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [names, documents] = args else { return exec_err!("json_object_agg takes a name and a value") };
    let documents = cast(documents, &DataType::Utf8)?;
    let pairs = name_texts(names)?.into_iter().zip(documents.as_string::<i32>().iter());
    let members = pairs.map(|(name, document)| Some(format!("{name} : {}", document.unwrap_or("null"))));
    Ok(Arc::new(members.collect::<StringArray>()))
}

/// Evaluates `@>`.
fn evaluate_contains(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document, part] = args else { return exec_err!("@> takes two documents") };
    let (document, part) = (cast(document, &DataType::Utf8)?, cast(part, &DataType::Utf8)?);
    let pairs = document.as_string::<i32>().iter().zip(part.as_string::<i32>().iter());
    let mut last = Last::<String, Document>::default();
    let found = pairs.map(|(document, part)| match (document, part) {
        (Some(document), Some(part)) => {
            let document = Document::parse(document)?;
            Ok(Some(document.contains(last.get(part, Document::parse)?)))
        }
        _ => Ok(None),
    });
    Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
}

/// Evaluates `?`.
fn evaluate_has_key(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document, key] = args else { return exec_err!("? takes a document and a key") };
    let (document, key) = (cast(document, &DataType::Utf8)?, cast(key, &DataType::Utf8)?);
    let pairs = document.as_string::<i32>().iter().zip(key.as_string::<i32>().iter());
    let found = pairs.map(|(document, key)| match (document, key) {
        (Some(document), Some(key)) => Ok(Some(Document::parse(document)?.has_key(key))),
        _ => Ok(None),
    });
    Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
}

/// Evaluates `?|` and `?&`.
fn evaluate_has_keys(args: &[ArrayRef], is_all: bool) -> Result<ArrayRef> {
    let name = if is_all { "json_has_all_keys" } else { "json_has_any_key" };
    let [document, keys] = args else { return exec_err!("{name} takes a document and an array of keys") };
    if !keys.data_type().is_nested() {
        return exec_err!("{name} takes an array of keys");
    }
    let document = cast(document, &DataType::Utf8)?;
    let pairs = document.as_string::<i32>().iter();
    let lists = as_list(keys)?;
    let found = pairs.zip(lists.iter()).map(|(document, keys)| {
        let (Some(document), Some(keys)) = (document, keys) else { return Ok(None) };
        let document = Document::parse(document)?;
        let keys = cast(&keys, &DataType::Utf8)?;
        let mut each = keys.as_string::<i32>().iter().flatten().map(|key| document.has_key(key));
        Ok(Some(if is_all { each.all(|has| has) } else { each.any(|has| has) }))
    });
    Ok(Arc::new(found.collect::<Result<BooleanArray>>()?))
}

/// The value at a path, which is an array of keys or the text of one.
fn evaluate_path(args: &[ArrayRef], is_text: bool) -> Result<ArrayRef> {
    let [documents, paths] = args else { return exec_err!("a path leads into one document") };
    let documents = cast(documents, &DataType::Utf8)?;
    let rows = documents.as_string::<i32>().iter();
    if paths.data_type().is_nested() {
        let lists = as_list(paths)?;
        let found = rows.zip(lists.iter()).map(|(document, keys)| {
            let (Some(document), Some(keys)) = (document, keys) else { return Ok(None) };
            let keys = written(&keys)?;
            let path: Vec<Option<String>> =
                keys.as_string::<i32>().iter().map(|key| key.map(str::to_owned)).collect();
            value_at(document, &path, is_text)
        });
        return Ok(Arc::new(found.collect::<Result<StringArray>>()?));
    }
    let paths = cast(paths, &DataType::Utf8)?;
    let mut last = Last::<String, Vec<Option<String>>>::default();
    let found = rows.zip(paths.as_string::<i32>().iter()).map(|(document, path)| {
        let (Some(document), Some(path)) = (document, path) else { return Ok(None) };
        let path = last.get(path, |text| match path_of_text(text) {
            Some(path) => Ok(path),
            None => exec_err!("malformed array literal: \"{text}\""),
        })?;
        value_at(document, path, is_text)
    });
    Ok(Arc::new(found.collect::<Result<StringArray>>()?))
}

/// The value at a path as a document, or as text without quotation marks.
fn value_at(document: &str, path: &[Option<String>], is_text: bool) -> Result<Option<String>> {
    let Some(found) = at_path(document, path)? else { return Ok(None) };
    if !is_text {
        return Ok(Some(found.to_owned()));
    }
    Ok(match found.as_bytes().first() {
        Some(b'"') => match Document::parse(found)? {
            Document::Text(text) => Some(text),
            _ => None,
        },
        _ if found == "null" => None,
        _ => Some(found.to_owned()),
    })
}

/// Checks the types of `json_extract_path`.
fn extracted_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [_, _, ..] if types.iter().all(is_document) => Ok(DataType::Utf8),
        _ => plan_err!("json_extract_path takes a document and keys"),
    }
}

/// The value at a path whose keys are the arguments after the document.
fn evaluate_extract(args: &[ArrayRef], is_text: bool) -> Result<ArrayRef> {
    let [documents, keys @ ..] = args else {
        return exec_err!("json_extract_path takes a document and keys");
    };
    let documents = cast(documents, &DataType::Utf8)?;
    let keys = keys.iter().map(written).collect::<Result<Vec<_>>>()?;
    let found = documents.as_string::<i32>().iter().enumerate().map(|(row, document)| {
        let Some(document) = document else { return Ok(None) };
        let key = |column: &ArrayRef| {
            let column = column.as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let path: Vec<Option<String>> = keys.iter().map(key).collect();
        value_at(document, &path, is_text)
    });
    Ok(Arc::new(found.collect::<Result<StringArray>>()?))
}

/// Evaluates `json_build_object`.
fn evaluate_object(args: &[ArrayRef], is_binary: bool) -> Result<ArrayRef> {
    if !args.len().is_multiple_of(2) {
        return exec_err!("json_build_object takes names and values in turn");
    }
    let rows = args.first().map_or(1, Array::len);
    let mut objects = vec!["{".to_owned(); rows];
    for pair in args.chunks(2) {
        let [names, values] = pair else { continue };
        let members = name_texts(names)?.into_iter().zip(json_texts(values)?);
        for (object, (name, value)) in objects.iter_mut().zip(members) {
            object.push_str(if object.len() > 1 { ", " } else { "" });
            object.push_str(&name);
            object.push_str(" : ");
            object.push_str(&value);
        }
    }
    built(objects.into_iter().map(|object| Some(object + "}")), is_binary)
}

/// Evaluates `json_build_array`.
fn evaluate_array(args: &[ArrayRef], is_binary: bool) -> Result<ArrayRef> {
    let rows = args.first().map_or(1, Array::len);
    let columns = args.iter().map(json_texts).collect::<Result<Vec<_>>>()?;
    let array = |row: usize| {
        let items: Vec<&str> =
            columns.iter().filter_map(|column| column.get(row)).map(String::as_str).collect();
        Some(join_pairs(&items, "[", "]"))
    };
    built((0..rows).map(array), is_binary)
}

/// Evaluates `to_json`.
fn evaluate_document(args: &[ArrayRef], is_binary: bool) -> Result<ArrayRef> {
    let [value] = args else { return exec_err!("to_json takes one value") };
    let nulls = value.logical_nulls();
    let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let texts = json_texts(value)?.into_iter().enumerate();
    built(texts.map(|(row, text)| is_valid(row).then_some(text)), is_binary)
}

/// Documents as they were built, or as `jsonb` writes them.
fn built(documents: impl Iterator<Item = Option<String>>, is_binary: bool) -> Result<ArrayRef> {
    let texts = documents.map(|text| match text {
        Some(text) if is_binary => binary_form(&text).map(Some),
        text => Ok(text),
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

/// Evaluates `json_typeof`.
fn evaluate_kind(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document] = args else { return exec_err!("json_typeof takes one document") };
    let document = cast(document, &DataType::Utf8)?;
    let kinds = document.as_string::<i32>().iter();
    let kinds = kinds.map(|text| text.map(|text| Ok(Document::parse(text)?.kind())).transpose());
    Ok(Arc::new(kinds.collect::<Result<StringArray>>()?))
}

/// Evaluates `json_array_length`.
fn evaluate_array_length(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [document] = args else { return exec_err!("json_array_length takes one document") };
    let document = cast(document, &DataType::Utf8)?;
    let lengths =
        document.as_string::<i32>().iter().map(|text| match text.map(Document::parse).transpose()? {
            None => Ok(None),
            Some(Document::Array(items)) => Ok(i32::try_from(items.len()).ok()),
            Some(_) => exec_err!("cannot get array length of a non-array"),
        });
    Ok(Arc::new(lengths.collect::<Result<Int32Array>>()?))
}

/// The functions by name.
pub(super) fn named() -> Vec<Function> {
    let json = |name: &'static str, evaluate: Evaluate| {
        Function::to(name, Partial, DataType::Utf8, evaluate).of_sql_type("JSON")
    };
    let text = |name: &'static str, evaluate: Evaluate| Function::to(name, Partial, DataType::Utf8, evaluate);
    let boolean =
        |name: &'static str, evaluate: Evaluate| Function::to(name, Partial, DataType::Boolean, evaluate);
    let length = |name: &'static str| {
        Function::to(name, Partial, DataType::Int32, evaluate_array_length).of_types(|types| match types {
            [document] if is_document(document) => Ok(DataType::Int32),
            _ => plan_err!("json_array_length takes one document"),
        })
    };
    let kind = |name: &'static str| {
        text(name, evaluate_kind).of_types(|types| match types {
            [document] if is_document(document) => Ok(DataType::Utf8),
            _ => plan_err!("json_typeof takes one document"),
        })
    };
    vec![
        boolean("json_contains_document", evaluate_contains),
        boolean("json_has_key", evaluate_has_key),
        boolean("json_has_any_key", |args, _| evaluate_has_keys(args, false)),
        boolean("json_has_all_keys", |args, _| evaluate_has_keys(args, true)),
        json("json_join", |args, _| evaluate_join(args, |items| Ok(join_pairs(items, "[", "]")))),
        text("json_pair", evaluate_pair),
        json("json_join_pairs", |args, _| evaluate_join(args, |items| Ok(join_pairs(items, "{ ", " }")))),
        json("jsonb_join_pairs", |args, _| {
            evaluate_join(args, |items| binary_form(&join_pairs(items, "{", "}")))
        }),
        json("json_build_object", |args, _| evaluate_object(args, false)).or_of_none(),
        json("jsonb_build_object", |args, _| evaluate_object(args, true)).or_of_none(),
        json("json_build_array", |args, _| evaluate_array(args, false)).or_of_none(),
        json("jsonb_build_array", |args, _| evaluate_array(args, true)).or_of_none(),
        json("to_json", |args, _| evaluate_document(args, false)),
        json("to_jsonb", |args, _| evaluate_document(args, true)),
        json("json_extract_path", |args, _| evaluate_extract(args, false)).of_types(extracted_type),
        json("jsonb_extract_path", |args, _| evaluate_extract(args, false)).of_types(extracted_type),
        text("json_extract_path_text", |args, _| evaluate_extract(args, true)).of_types(extracted_type),
        text("jsonb_extract_path_text", |args, _| evaluate_extract(args, true)).of_types(extracted_type),
        kind("json_typeof"),
        kind("jsonb_typeof"),
        length("json_array_length"),
        length("jsonb_array_length"),
    ]
}
