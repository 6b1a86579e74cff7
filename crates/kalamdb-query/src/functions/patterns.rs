//! Patterns: SIMILAR TO, and LIKE with another escape character.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::{cast, kernels};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::Totality::{Partial, Total};
use super::{Evaluate, Function, Last, call_shared};

/// Whether a text is similar to a pattern, with an escape character.
pub(crate) fn matches_similar(text: Expr, pattern: Expr, escape: Expr) -> Expr {
    call_shared!(
        Function::to("similar_to", Partial, DataType::Boolean, evaluate_similar),
        vec![text, pattern, escape]
    )
}

/// A pattern of LIKE with a backslash for its escape character.
pub(crate) fn like_pattern(pattern: Expr, escape: Expr) -> Expr {
    call_shared!(
        Function::to("like_pattern", Partial, DataType::Utf8, evaluate_like_pattern),
        vec![pattern, escape]
    )
}

/// `similar_to` and `like_pattern` by name.
pub(super) fn named() -> Vec<Function> {
    vec![
        Function::to("similar_to", Partial, DataType::Boolean, evaluate_similar),
        Function::to("like_pattern", Partial, DataType::Utf8, evaluate_like_pattern),
    ]
}

/// The escape character of a text; none of an empty one.
fn escape_of(text: &str) -> Result<Option<char>> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (escape, None) => Ok(escape),
        _ => exec_err!("invalid escape string: it must be empty or one character"),
    }
}

/// Evaluates `like_pattern`.
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

/// A pattern of LIKE in which a backslash stands in place of the escape character.
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

/// Evaluates `similar_to`.
fn evaluate_similar(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [text, pattern, escape] = args else {
        return exec_err!("similar_to takes a text, a pattern and an escape character");
    };
    let (pattern, escape) = (cast(pattern, &DataType::Utf8)?, cast(escape, &DataType::Utf8)?);
    let (pattern, escape) = (pattern.as_string::<i32>(), escape.as_string::<i32>());
    let mut last = Last::default();
    let mut expressions: Vec<Option<String>> = Vec::with_capacity(pattern.len());
    for row in 0..pattern.len() {
        if pattern.is_null(row) || escape.is_null(row) {
            expressions.push(None);
            continue;
        }
        let escape = escape_of(escape.value(row))?;
        let key = (escape, pattern.value(row).to_owned());
        expressions.push(Some(last.get(&key, |(escape, pattern)| regular(pattern, *escape))?.clone()));
    }
    let text = cast(text, &DataType::Utf8)?;
    let found: BooleanArray = kernels::regexp::regexp_is_match(
        text.as_string::<i32>(),
        &StringArray::from(expressions),
        None::<&StringArray>,
    )?;
    Ok(Arc::new(found))
}

/// The regular expression of a pattern of SIMILAR TO, which matches whole texts.
fn regular(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut regular = String::from("^(?s:");
    let mut characters = pattern.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let Some(escaped) = characters.next() else {
                return exec_err!("SIMILAR TO pattern must not end with escape character");
            };
            // PostgreSQL hands the escape of a letter or digit on to its regular expressions: `\d` is a digit.
            if escaped.is_ascii_alphanumeric() {
                regular.push_str(&translated_escape(escaped, in_class));
                continue;
            }
            if escaped.is_ascii_punctuation() {
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

/// A regular expression of PostgreSQL in the syntax of Rust's.
pub(crate) fn regular_pattern(pattern: Expr) -> Expr {
    const EVALUATE: Evaluate = |args, _| {
        let [pattern] = args else { return exec_err!("a regular expression is one text") };
        let pattern = cast(pattern, &DataType::Utf8)?;
        let patterns = pattern.as_string::<i32>().iter();
        Ok(Arc::new(patterns.map(|pattern| pattern.map(translated)).collect::<StringArray>()))
    };
    call_shared!(Function::to("regular_pattern", Total, DataType::Utf8, EVALUATE), vec![pattern])
}

/// `DataFusion`'s functions of regular expressions, the second argument of which is a pattern.
pub(super) const NAMES: [&str; 5] =
    ["regexp_replace", "regexp_match", "regexp_like", "regexp_count", "regexp_instr"];

/// One of these functions, of a pattern as PostgreSQL reads it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Translated {
    inner: Arc<ScalarUDF>,
}

impl Translated {
    /// The function that replaces `DataFusion`'s.
    pub(super) fn instead_of(inner: Arc<ScalarUDF>) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { inner })
    }
}

impl ScalarUDFImpl for Translated {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(pattern) = args.args.get_mut(1) {
            let target = pattern.data_type();
            let translated = match &*pattern {
                ColumnarValue::Scalar(scalar) => {
                    let text = scalar.try_as_str().flatten().map(translated);
                    ColumnarValue::Scalar(ScalarValue::Utf8(text).cast_to(&target)?)
                }
                ColumnarValue::Array(array) => {
                    let array = cast(array, &DataType::Utf8)?;
                    let patterns = array.as_string::<i32>().iter();
                    let patterns: StringArray = patterns.map(|pattern| pattern.map(translated)).collect();
                    ColumnarValue::Array(cast(&patterns, &target)?)
                }
            };
            *pattern = translated;
        }
        self.inner.invoke_with_args(args)
    }
}

/// A regular expression in Rust's syntax. In PostgreSQL's, `.` also matches a newline, and `\m`, `\M` and `\y` are the edges of words.
fn translated(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 4);
    let mut has_dot = false;
    let mut in_class = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped) => text.push_str(&translated_escape(escaped, in_class)),
                None => text.push('\\'),
            },
            other => {
                match other {
                    '[' => in_class = true,
                    ']' => in_class = false,
                    // A brace that begins no repetition is a character.
                    '{' if !in_class
                        && !characters.clone().next().is_some_and(|next| next.is_ascii_digit()) =>
                    {
                        text.push('\\');
                    }
                    '.' if !in_class => has_dot = true,
                    _ => {}
                }
                text.push(other);
            }
        }
    }
    if has_dot { format!("(?s){text}") } else { text }
}

/// The escape of a character in the syntax of Rust's regular expressions.
fn translated_escape(escaped: char, in_class: bool) -> String {
    match escaped {
        'm' if !in_class => "\\b{start}".to_owned(),
        'M' if !in_class => "\\b{end}".to_owned(),
        'y' if !in_class => "\\b".to_owned(),
        'Y' if !in_class => "\\B".to_owned(),
        'Z' if !in_class => "\\z".to_owned(),
        other => format!("\\{other}"),
    }
}
