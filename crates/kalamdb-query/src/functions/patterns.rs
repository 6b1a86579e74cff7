//! Patterns: SIMILAR TO, and LIKE with another escape character.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::{cast, kernels};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::Function;

/// Whether a text is similar to a pattern, with an escape character.
pub(crate) fn matches_similar(text: Expr, pattern: Expr, escape: Expr) -> Expr {
    Function::to("similar_to", DataType::Boolean, evaluate_similar).call(vec![text, pattern, escape])
}

/// A pattern of LIKE with a backslash for its escape character.
pub(crate) fn like_pattern(pattern: Expr, escape: Expr) -> Expr {
    Function::to("like_pattern", DataType::Utf8, evaluate_like_pattern).call(vec![pattern, escape])
}

pub(super) fn named() -> Vec<Function> {
    vec![
        Function::to("similar_to", DataType::Boolean, evaluate_similar),
        Function::to("like_pattern", DataType::Utf8, evaluate_like_pattern),
    ]
}

fn escape_of(text: &str) -> Result<Option<char>> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (escape, None) => Ok(escape),
        _ => exec_err!("invalid escape string: it must be empty or one character"),
    }
}

fn evaluate_like_pattern(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [pattern, escape] = args else { return exec_err!("ESCAPE takes one character") };
    let (pattern, escape) = (cast(pattern, &DataType::Utf8)?, cast(escape, &DataType::Utf8)?);
    let pairs = pattern.as_string::<i32>().iter().zip(escape.as_string::<i32>().iter());
    let patterns = pairs.map(|(pattern, escape)| match (pattern, escape) {
        (Some(pattern), Some(escape)) => backslashed(pattern, escape_of(escape)?).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(patterns.collect::<Result<StringArray>>()?))
}

fn backslashed(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let Some(escaped) = characters.next() else {
                return exec_err!("LIKE pattern must not end with escape character");
            };
            if matches!(escaped, '%' | '_' | '\\') {
                text.push('\\');
            }
            text.push(escaped);
        } else {
            if character == '\\' {
                text.push('\\');
            }
            text.push(character);
        }
    }
    Ok(text)
}

fn evaluate_similar(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [text, pattern, escape] = args else { return exec_err!("SIMILAR TO takes a text and a pattern") };
    let (pattern, escape) = (cast(pattern, &DataType::Utf8)?, cast(escape, &DataType::Utf8)?);
    let (pattern, escape) = (pattern.as_string::<i32>(), escape.as_string::<i32>());
    // A pattern is mostly the same for all rows.
    let mut last: Option<(String, String)> = None;
    let mut expressions: Vec<Option<String>> = Vec::with_capacity(pattern.len());
    for row in 0..pattern.len() {
        if pattern.is_null(row) || escape.is_null(row) {
            expressions.push(None);
            continue;
        }
        let key = pattern.value(row);
        let known = last.as_ref().filter(|(known, _)| known == key).map(|(_, expression)| expression.clone());
        let expression = match known {
            Some(expression) => expression,
            None => regular(key, escape_of(escape.value(row))?)?,
        };
        last = Some((key.to_owned(), expression.clone()));
        expressions.push(Some(expression));
    }
    let text = cast(text, &DataType::Utf8)?;
    let found: BooleanArray = kernels::regexp::regexp_is_match(
        text.as_string::<i32>(),
        &StringArray::from(expressions),
        None::<&StringArray>,
    )?;
    Ok(Arc::new(found))
}

/// The regular expression of an SQL pattern, of which the whole text is to match.
fn regular(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut regular = String::from("^(?s:");
    let mut characters = pattern.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let Some(escaped) = characters.next() else {
                return exec_err!("SIMILAR TO pattern must not end with escape character");
            };
            if !escaped.is_alphanumeric() {
                regular.push('\\');
            }
            regular.push(escaped);
            continue;
        }
        match character {
            '[' if !in_class => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        match character {
            _ if in_class || character == ']' => match character {
                '\\' => regular.push_str("\\\\"),
                other => regular.push(other),
            },
            '%' => regular.push_str(".*"),
            '_' => regular.push('.'),
            '(' => regular.push_str("(?:"),
            '|' | '*' | '+' | '?' | '{' | '}' | ')' => regular.push(character),
            '.' | '^' | '$' | '\\' => {
                regular.push('\\');
                regular.push(character);
            }
            other => regular.push(other),
        }
    }
    regular.push_str(")$");
    Ok(regular)
}

/// A pattern of PostgreSQL's regular expressions as one of Rust's.
pub(crate) fn regular_pattern(pattern: Expr) -> Expr {
    let evaluate: super::Evaluate = |args, _| {
        let [pattern] = args else { return exec_err!("a regular expression is one text") };
        let pattern = cast(pattern, &DataType::Utf8)?;
        let patterns = pattern.as_string::<i32>().iter();
        Ok(Arc::new(patterns.map(|pattern| pattern.map(translated)).collect::<StringArray>()))
    };
    Function::to("regular_pattern", DataType::Utf8, evaluate).call(vec![pattern])
}

/// PostgreSQL's `.` matches a newline too, and words' edges are written `\m`, `\M` and `\y`.
fn translated(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 4);
    let mut has_dot = false;
    let mut in_class = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('m') if !in_class => text.push_str("\\b{start}"),
                Some('M') if !in_class => text.push_str("\\b{end}"),
                Some('y') if !in_class => text.push_str("\\b"),
                Some('Y') if !in_class => text.push_str("\\B"),
                Some('Z') if !in_class => text.push_str("\\z"),
                Some(other) => {
                    text.push('\\');
                    text.push(other);
                }
                None => text.push('\\'),
            },
            other => {
                match other {
                    '[' => in_class = true,
                    ']' => in_class = false,
                    '.' if !in_class => has_dot = true,
                    _ => {}
                }
                text.push(other);
            }
        }
    }
    if has_dot { format!("(?s){text}") } else { text }
}
