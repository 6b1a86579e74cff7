//! `format`, and the quotation of names and literals.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{exec_err, plan_err, resources_err};
use datafusion::error::Result;

use super::Function;
use super::Totality::Partial;
use super::casts::written;

/// Bytes that one formatted text may have.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Bytes that the texts of one batch of rows may have.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Keywords of PostgreSQL 15 that are no names without quotation marks, in order.
const RESERVED: [&str; 151] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// `format` by name.
pub(super) fn named() -> Vec<Function> {
    let returns: fn(&[DataType]) -> Result<DataType> = |types| {
        if types.is_empty() { plan_err!("format takes a text and values") } else { Ok(DataType::Utf8) }
    };
    vec![Function::new("format", Partial, returns, evaluate_format)]
}

/// Evaluates `format`.
fn evaluate_format(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [template, values @ ..] = args else { return exec_err!("format takes a text and values") };
    let template = cast(template, &DataType::Utf8)?;
    let template = template.as_string::<i32>();
    let values = values.iter().map(argument_texts).collect::<Result<Vec<_>>>()?;
    let mut bytes = 0;
    let mut texts: Vec<Option<String>> = Vec::with_capacity(template.len());
    for row in 0..template.len() {
        if template.is_null(row) {
            texts.push(None);
            continue;
        }
        let value = |at: usize| {
            let column: &StringArray = values.get(at)?.as_string();
            Some(column.is_valid(row).then(|| column.value(row)))
        };
        let text = formatted(template.value(row), value)?;
        bytes += text.len();
        if bytes > BATCH_BYTES_MAX {
            return resources_err!("the texts of format would have more than 256 MiB at once");
        }
        texts.push(Some(text));
    }
    Ok(Arc::new(StringArray::from(texts)))
}

/// The texts of values. Truth values have one letter in PostgreSQL's `format`.
fn argument_texts(values: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Boolean = values.data_type() else { return written(values) };
    let letters = values.as_boolean().iter().map(|value| value.map(|value| if value { "t" } else { "f" }));
    Ok(Arc::new(letters.collect::<StringArray>()))
}

/// The number of an argument, or a width.
fn number(characters: &mut Peekable<Chars<'_>>) -> Result<Option<usize>> {
    let mut digits = String::new();
    while let Some(digit) = characters.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    match digits.parse::<i32>().ok().and_then(|number| usize::try_from(number).ok()) {
        Some(number) => Ok(Some(number)),
        None if digits.is_empty() => Ok(None),
        None => exec_err!("number is out of range"),
    }
}

/// The place of an argument, of its number.
fn place_of(number: usize) -> Result<usize> {
    match number.checked_sub(1) {
        Some(place) => Ok(place),
        None => exec_err!("format specifies argument 0, but arguments are numbered from 1"),
    }
}

/// A value, an error where a call has fewer.
fn argument<'v>(place: usize, value: impl Fn(usize) -> Option<Option<&'v str>>) -> Result<Option<&'v str>> {
    match value(place) {
        Some(value) => Ok(value),
        None => exec_err!("too few arguments for format()"),
    }
}

/// One text: `%[position$][-][width]type`, the type being s, I, L or %, the width a number, `*` or `*position$`.
fn formatted<'v>(template: &str, value: impl Fn(usize) -> Option<Option<&'v str>>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut characters = template.chars().peekable();
    let mut next = 0;
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        if characters.next_if_eq(&'%').is_some() {
            text.push('%');
            continue;
        }
        let mut place = None;
        let mut width = number(&mut characters)?;
        if let Some(position) = width
            && characters.next_if_eq(&'$').is_some()
        {
            (place, width) = (Some(place_of(position)?), None);
        }
        let mut is_left = false;
        if width.is_none() {
            while characters.next_if_eq(&'-').is_some() {
                is_left = true;
            }
            width = number(&mut characters)?;
        }
        if width.is_none() && characters.next_if_eq(&'*').is_some() {
            let at = match number(&mut characters)? {
                Some(position) if characters.next_if_eq(&'$').is_some() => place_of(position)?,
                Some(_) => return exec_err!("width argument position must be ended by \"$\""),
                None => next,
            };
            next = at + 1;
            let wanted = argument(at, &value)?.unwrap_or("0");
            let Ok(wanted) = wanted.parse::<i32>() else {
                return exec_err!("the width \"{wanted}\" of format is not an integer");
            };
            is_left |= wanted < 0;
            width = usize::try_from(wanted.unsigned_abs()).ok();
        }
        let kind = characters.next();
        if !matches!(kind, Some('s' | 'I' | 'L')) {
            return exec_err!("unrecognized format() type specifier; use %s, %I, %L or %%");
        }
        let at = place.unwrap_or(next);
        next = at + 1;
        let piece = match (kind, argument(at, &value)?) {
            (Some('s'), given) => given.unwrap_or_default().to_owned(),
            (Some('I'), Some(name)) => identifier(name),
            (Some('I'), None) => return exec_err!("null values cannot be formatted as an SQL identifier"),
            (_, Some(text)) => literal(text),
            (_, None) => "NULL".to_owned(),
        };
        let padding = width.unwrap_or(0).saturating_sub(piece.chars().count());
        if text.len().saturating_add(piece.len()).saturating_add(padding) > TEXT_BYTES_MAX {
            return resources_err!("a formatted text would have more than 16 MiB");
        }
        let blanks = " ".repeat(padding);
        let (first, second) = if is_left { (&piece, &blanks) } else { (&blanks, &piece) };
        text.push_str(first);
        text.push_str(second);
    }
    Ok(text)
}

/// A name, in quotation marks unless it is one without them.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && RESERVED.binary_search(&name).is_err();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as a literal, with `E` before it where it has backslashes.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
