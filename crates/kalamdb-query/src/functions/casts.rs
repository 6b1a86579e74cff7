//! Casts from and to text, as PostgreSQL reads and writes values.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array,
    Float64Array, IntervalMonthDayNanoArray, ListArray, PrimitiveArray, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::exec_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;

use super::Totality::Partial;
use super::arithmetic::narrow;
use super::spans::{SPAN, from_arrow, to_arrow};
use super::{Evaluate, Function, call_shared};
use crate::text::{self, Malformed};

/// Text as a value of a type; `sql_type` names one that Arrow does not have (UUID, JSON).
pub(crate) fn parse_as(value: Expr, target: &DataType, sql_type: Option<&'static str>) -> Expr {
    match sql_type {
        Some("UUID") => call_shared!(
            Function::to("parse_uuid", Partial, DataType::Utf8, parse_uuids).of_sql_type("UUID"),
            vec![value]
        ),
        Some("JSON") => call_shared!(
            Function::to("parse_json", Partial, DataType::Utf8, parse_documents).of_sql_type("JSON"),
            vec![value]
        ),
        _ => Function::to("parse_text", Partial, target.clone(), parse_texts).call(vec![value]),
    }
}

/// The error of a text that is not a value of its type.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn malformed(error: Malformed) -> DataFusionError {
    DataFusionError::Execution(error.to_string())
}

/// The one argument of a cast, as text.
fn texts(args: &[ArrayRef]) -> Result<ArrayRef> {
    let [value] = args else { return exec_err!("a cast takes one argument") };
    Ok(cast(value, &DataType::Utf8)?)
}

/// The values of texts.
fn parsed<T>(
    values: &StringArray,
    parse: impl Fn(&str) -> Result<T>,
) -> impl Iterator<Item = Result<Option<T>>> {
    values.iter().map(move |text| text.map(&parse).transpose())
}

/// Evaluates `parse_uuid`.
fn parse_uuids(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let values = texts(args)?;
    let parse = |text: &str| Ok(text::parse_uuid(text).map_err(malformed)?.to_string());
    Ok(Arc::new(parsed(values.as_string(), parse).collect::<Result<StringArray>>()?))
}

/// Evaluates `parse_json`, which keeps the text of a document.
fn parse_documents(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let values = texts(args)?;
    let parse = |text: &str| super::document::validated(text).map(str::to_owned);
    Ok(Arc::new(parsed(values.as_string(), parse).collect::<Result<StringArray>>()?))
}

/// Evaluates `parse_text`.
fn parse_texts(args: &[ArrayRef], target: &DataType) -> Result<ArrayRef> {
    let values = texts(args)?;
    let values: &StringArray = values.as_string();
    Ok(match target {
        DataType::Boolean => {
            let parse = |text: &str| text::parse_boolean(text).map_err(malformed);
            Arc::new(parsed(values, parse).collect::<Result<BooleanArray>>()?)
        }
        DataType::Int16 => integers::<Int16Type>(values, "SMALLINT")?,
        DataType::Int32 => integers::<Int32Type>(values, "INT")?,
        DataType::Int64 => integers::<Int64Type>(values, "BIGINT")?,
        DataType::Float32 => {
            let parse = |text: &str| text::parse_real(text).map_err(malformed);
            Arc::new(parsed(values, parse).collect::<Result<Float32Array>>()?)
        }
        DataType::Float64 => {
            let parse = |text: &str| text::parse_float(text).map_err(malformed);
            Arc::new(parsed(values, parse).collect::<Result<Float64Array>>()?)
        }
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            let scale = u8::try_from(*scale).unwrap_or(0);
            let parse = |text: &str| {
                let number = text::parse_numeric(text).map_err(malformed)?;
                let scaled = number.at_scale(scale);
                scaled.ok_or_else(|| DataFusionError::Execution(format!("numeric field overflow: {text}")))
            };
            narrow(parsed(values, parse).collect::<Result<Vec<_>>>()?, target)?
        }
        DataType::Timestamp(_, zone) => {
            let parse = |text: &str| text::parse_timestamp(text, zone.is_some()).map_err(malformed);
            let array = parsed(values, parse).collect::<Result<TimestampMicrosecondArray>>()?;
            Arc::new(array.with_timezone_opt(zone.clone()))
        }
        DataType::Date32 => {
            let parse = |text: &str| text::parse_date(text).map_err(malformed);
            Arc::new(parsed(values, parse).collect::<Result<Date32Array>>()?)
        }
        DataType::Time64(_) => {
            let parse = |text: &str| text::parse_time(text).map_err(malformed);
            Arc::new(parsed(values, parse).collect::<Result<Time64MicrosecondArray>>()?)
        }
        DataType::Interval(_) => {
            let parse = |text: &str| to_arrow(text::parse_interval(text, None).map_err(malformed)?);
            Arc::new(parsed(values, parse).collect::<Result<IntervalMonthDayNanoArray>>()?)
        }
        DataType::Binary => {
            let parsed = parsed(values, |text| text::parse_bytes(text).map_err(malformed));
            Arc::new(parsed.collect::<Result<Vec<_>>>()?.into_iter().collect::<BinaryArray>())
        }
        other => cast(args.first().unwrap_or(&(Arc::new(values.clone()) as ArrayRef)), other)?,
    })
}

/// The integers of texts, in a type.
fn integers<T: ArrowPrimitiveType>(values: &StringArray, name: &str) -> Result<ArrayRef>
where
    T::Native: TryFrom<i64>,
{
    let parse = |text: &str| match text.trim().parse::<i64>().ok().map(T::Native::try_from) {
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) => exec_err!("{text} is out of range of {name}"),
        None => exec_err!("\"{text}\" is not a value of type {name}"),
    };
    Ok(Arc::new(parsed(values, parse).collect::<Result<PrimitiveArray<T>>>()?))
}

/// The text of a value, as PostgreSQL writes it.
pub(crate) fn as_text(value: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| match args {
        [value] => written(value),
        _ => exec_err!("a cast takes one argument"),
    };
    call_shared!(Function::to("as_text", Partial, DataType::Utf8, EVALUATE), vec![value])
}

/// The text of each value.
pub(crate) fn written(array: &ArrayRef) -> Result<ArrayRef> {
    let out_of_range = || DataFusionError::Execution("timestamp out of range".to_owned());
    Ok(match array.data_type() {
        DataType::Utf8 => Arc::clone(array),
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().iter();
            Arc::new(
                values.map(|value| Some(text::write_float(value?.into(), true))).collect::<StringArray>(),
            )
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().iter();
            Arc::new(values.map(|value| Some(text::write_float(value?, false))).collect::<StringArray>())
        }
        DataType::Timestamp(_, zone) => {
            let zone = zone.clone();
            let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let values = micros.as_primitive::<TimestampMicrosecondType>().iter().map(|value| {
                value
                    .map(|value| text::write_timestamp(value, zone.is_some()).ok_or_else(out_of_range))
                    .transpose()
            });
            Arc::new(values.collect::<Result<StringArray>>()?)
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>().iter();
            let values = values
                .map(|value| value.map(|value| text::write_date(value).ok_or_else(out_of_range)).transpose());
            Arc::new(values.collect::<Result<StringArray>>()?)
        }
        DataType::Time64(_) => {
            let micros = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
            let values = micros.as_primitive::<Time64MicrosecondType>().iter();
            Arc::new(values.map(|value| Some(text::write_time(value?))).collect::<StringArray>())
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let spans = cast(array, &SPAN)?;
            let values = spans.as_primitive::<IntervalMonthDayNanoType>().iter();
            Arc::new(
                values.map(|value| Some(text::write_interval(from_arrow(value?)))).collect::<StringArray>(),
            )
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = cast(array, &DataType::Binary)?;
            let values = bytes.as_binary::<i32>().iter();
            Arc::new(values.map(|value| value.map(hexadecimal)).collect::<StringArray>())
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => lists(array)?,
        _ => cast(array, &DataType::Utf8)?,
    })
}

/// Bytes as hexadecimal digits after `\x`.
fn hexadecimal(bytes: &[u8]) -> String {
    format!("\\x{}", hex_digits(bytes))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex_digits(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An array of lists of any kind as one of lists with 32-bit offsets.
pub(super) fn as_list(array: &ArrayRef) -> Result<ListArray> {
    let list = match array.data_type() {
        DataType::List(_) => Arc::clone(array),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            cast(array, &DataType::List(Arc::clone(field)))?
        }
        other => return exec_err!("an array is expected, not {other}"),
    };
    Ok(list.as_list::<i32>().clone())
}

/// Lists in braces. Elements that would not be read back as they are stand in quotation marks.
fn lists(array: &ArrayRef) -> Result<ArrayRef> {
    let list = as_list(array)?;
    let mut texts: Vec<Option<String>> = Vec::with_capacity(list.len());
    for items in list.iter() {
        let Some(items) = items else {
            texts.push(None);
            continue;
        };
        let is_nested = matches!(items.data_type(), DataType::List(_));
        let written = written(&items)?;
        let written = written.as_string::<i32>();
        let items: Vec<String> = written
            .iter()
            .map(|item| item.map_or_else(|| "NULL".to_owned(), |item| element(item, is_nested)))
            .collect();
        texts.push(Some(format!("{{{}}}", items.join(","))));
    }
    Ok(Arc::new(StringArray::from(texts)))
}

/// An element of a list as text, in quotation marks where it takes them to be read back.
fn element(text: &str, is_nested: bool) -> String {
    let is_plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\'));
    if is_nested || is_plain {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// An array in another type, as a cast or an assignment computes it: rounded, read from text or written as text.
///
/// # Errors
/// A value that the type does not hold.
pub fn cast_array(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    use datafusion::arrow::compute::{CastOptions, cast_with_options};
    let from = array.data_type();
    if from == target {
        return Ok(Arc::clone(array));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let is_text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_integer = matches!(target, DataType::Int16 | DataType::Int32 | DataType::Int64);
    match (from, target) {
        (_, DataType::Utf8) if !is_text => written(array),
        (_, DataType::FixedSizeList(..)) => Ok(cast_with_options(array, target, &strict)?),
        _ if is_text => parse_texts(&[Arc::clone(array)], target),
        (DataType::Float32 | DataType::Float64, _) if is_integer => {
            super::arithmetic::integers_of(array, target)
        }
        (DataType::Float64 | DataType::Decimal128(..) | DataType::Decimal256(..), DataType::Float32) => {
            super::arithmetic::reals_of(array)
        }
        (DataType::Decimal128(..) | DataType::Decimal256(..), _) if is_integer => {
            let whole = cast_with_options(array, &DataType::Decimal256(76, 0), &strict)?;
            Ok(cast_with_options(&whole, target, &strict)?)
        }
        _ => Ok(cast_with_options(array, target, &strict)?),
    }
}
