//! Functions of bytes, and small ones that PostgreSQL has.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::casts::written;
use super::{Evaluate, Function};

/// `length` of a BYTEA value, in bytes.
pub(crate) fn bytes_length(value: Expr) -> Expr {
    let evaluate: Evaluate = |args, _| {
        let [value] = args else { return exec_err!("length takes one argument") };
        let bytes = cast(value, &DataType::Binary)?;
        let lengths: Int64Array = bytes
            .as_binary::<i32>()
            .iter()
            .map(|value| value.and_then(|value| i64::try_from(value.len()).ok()))
            .collect();
        Ok(Arc::new(lengths))
    };
    Function::to("bytes_length", DataType::Int64, evaluate).call(vec![value])
}

/// `format`, as PostgreSQL has it.
pub(super) fn named() -> Vec<Function> {
    let returns: fn(&[DataType]) -> Result<DataType> = |types| {
        if types.is_empty() { plan_err!("format takes a text and values") } else { Ok(DataType::Utf8) }
    };
    let length: Evaluate = |args, _| {
        let [value] = args else { return exec_err!("octet_length takes one argument") };
        let value = if matches!(value.data_type(), DataType::Binary | DataType::Utf8) {
            Arc::clone(value)
        } else {
            written(value)?
        };
        let lengths = cast(&value, &DataType::Binary)?;
        let lengths: Int64Array = lengths
            .as_binary::<i32>()
            .iter()
            .map(|it| it.and_then(|it| i64::try_from(it.len()).ok()))
            .collect();
        Ok(Arc::new(lengths))
    };
    vec![
        Function::new("format", returns, evaluate_format),
        Function::to("octet_length", DataType::Int64, length),
        Function::to("encode", DataType::Utf8, evaluate_encode),
    ]
}

/// Bytes as text: `hex`, `base64` in lines of 76 characters, or `escape`.
fn evaluate_encode(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [bytes, format] = args else { return exec_err!("encode takes bytes and a format") };
    let (bytes, format) = (cast(bytes, &DataType::Binary)?, cast(format, &DataType::Utf8)?);
    let pairs = bytes.as_binary::<i32>().iter().zip(format.as_string::<i32>().iter());
    let texts = pairs.map(|(bytes, format)| match (bytes, format) {
        (Some(bytes), Some(format)) => encoded(bytes, format).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

fn encoded(bytes: &[u8], format: &str) -> Result<String> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => {
            let mut text = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                // Writing into a string cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            Ok(text)
        }
        "base64" => {
            const LINE: usize = 76;
            let text = BASE64.encode(bytes);
            let lines: Vec<&str> = (0..text.len())
                .step_by(LINE)
                .filter_map(|at| text.get(at..text.len().min(at + LINE)))
                .collect();
            Ok(lines.join("\n"))
        }
        "escape" => Ok(bytes
            .iter()
            .map(|byte| match byte {
                b'\\' => "\\\\".to_owned(),
                0 | 128.. => format!("\\{byte:03o}"),
                _ => char::from(*byte).to_string(),
            })
            .collect()),
        _ => exec_err!("unrecognized encoding: \"{format}\"; there are hex, base64 and escape"),
    }
}

/// Bytes that one formatted text may have.
const FORMATTED_BYTES_MAX: usize = 16 << 20;

fn evaluate_format(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [template, values @ ..] = args else { return exec_err!("format takes a text and values") };
    let template = cast(template, &DataType::Utf8)?;
    let template = template.as_string::<i32>();
    let values = values.iter().map(written).collect::<Result<Vec<_>>>()?;
    let mut texts: Vec<Option<String>> = Vec::with_capacity(template.len());
    for row in 0..template.len() {
        if template.is_null(row) {
            texts.push(None);
            continue;
        }
        let value = |at: usize| {
            let column: &StringArray = values.get(at)?.as_string();
            column.is_valid(row).then(|| column.value(row))
        };
        texts.push(Some(formatted(template.value(row), values.len(), value)?));
    }
    Ok(Arc::new(StringArray::from(texts)))
}

/// One text: `%[position$][-][width]type`, the type being s, I, L or %.
fn formatted<'v>(template: &str, count: usize, value: impl Fn(usize) -> Option<&'v str>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut characters = template.chars().peekable();
    let mut next = 0;
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = String::new();
        let kind = loop {
            match characters.next() {
                Some(kind @ ('s' | 'I' | 'L' | '%')) => break kind,
                Some(part @ ('0'..='9' | '-' | '$')) if directive.len() < 12 => directive.push(part),
                _ => return exec_err!("unrecognized format() type specifier; use %s, %I, %L or %%"),
            }
        };
        if kind == '%' {
            text.push('%');
            continue;
        }
        let (position, width) = match directive.split_once('$') {
            Some((position, width)) => (position.parse::<usize>().ok(), width.to_owned()),
            None => (None, directive),
        };
        let at = position.map_or(Some(next), |position| position.checked_sub(1));
        let Some(at) = at.filter(|at| *at < count) else {
            return exec_err!("too few arguments for format()");
        };
        next = at + 1;
        let given = value(at);
        let piece = match (kind, given) {
            ('s', given) => given.unwrap_or_default().to_owned(),
            ('I', Some(name)) => identifier(name),
            ('I', None) => return exec_err!("null values cannot be formatted as an SQL identifier"),
            (_, Some(text)) => format!("'{}'", text.replace('\'', "''")),
            (_, None) => "NULL".to_owned(),
        };
        let is_left = width.starts_with('-');
        let width: usize = width.trim_start_matches('-').parse().unwrap_or(0);
        let padding = width.saturating_sub(piece.chars().count());
        if text.len() + piece.len() + padding > FORMATTED_BYTES_MAX {
            return datafusion::common::resources_err!("a formatted text would have more than 16 MiB");
        }
        let blanks = " ".repeat(padding);
        if is_left {
            text.push_str(&piece);
            text.push_str(&blanks);
        } else {
            text.push_str(&blanks);
            text.push_str(&piece);
        }
    }
    Ok(text)
}

fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
