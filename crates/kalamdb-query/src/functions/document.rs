//! JSON documents with the order of their members and each digit of their numbers.

use std::borrow::Cow;
use std::cmp::Ordering;

use datafusion::common::exec_err;
use datafusion::error::{DataFusionError, Result};
use jiter::{Jiter, JiterError, Peek};

use crate::text::parse_numeric;

/// Levels of arrays and objects that a document may have.
const DEPTH_MAX: usize = 128;

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Document {
    Null,
    Boolean(bool),
    /// The digits of a number, as they are written.
    Number(String),
    Text(String),
    Array(Vec<Document>),
    /// Members in their order, a name perhaps several times.
    Object(Vec<(String, Document)>),
}

/// The error of a text that is not a document.
fn invalid(error: &JiterError) -> DataFusionError {
    DataFusionError::Execution(format!("invalid JSON: {error}"))
}

/// A text, unless it is no document.
pub(super) fn validated(text: &str) -> Result<&str> {
    Document::parse(text).map(|_| text)
}

/// A text as a string of JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

impl Document {
    /// Reads a document.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut reader = Jiter::new(text.as_bytes());
        let first = reader.peek().map_err(|error| invalid(&error))?;
        let document = Self::read(&mut reader, first, DEPTH_MAX)?;
        reader.finish().map_err(|error| invalid(&error))?;
        Ok(document)
    }

    /// Reads the value that begins with `first`, of at most `depth` levels.
    fn read(reader: &mut Jiter<'_>, first: Peek, depth: usize) -> Result<Self> {
        let Some(depth) = depth.checked_sub(1) else {
            return exec_err!("invalid JSON: it has more than {DEPTH_MAX} levels");
        };
        let wrong = |error: JiterError| invalid(&error);
        Ok(match first {
            Peek::Null => {
                reader.known_null().map_err(wrong)?;
                Self::Null
            }
            Peek::True | Peek::False => Self::Boolean(reader.known_bool(first).map_err(wrong)?),
            Peek::String => Self::Text(reader.known_str().map_err(wrong)?.to_owned()),
            Peek::Array => {
                let mut items = Vec::new();
                let mut next = reader.known_array().map_err(wrong)?;
                while let Some(first) = next {
                    items.push(Self::read(reader, first, depth)?);
                    next = reader.array_step().map_err(wrong)?;
                }
                Self::Array(items)
            }
            Peek::Object => {
                let mut members = Vec::new();
                let mut next = reader.known_object().map_err(wrong)?.map(str::to_owned);
                while let Some(name) = next {
                    let first = reader.peek().map_err(wrong)?;
                    members.push((name, Self::read(reader, first, depth)?));
                    next = reader.next_key().map_err(wrong)?.map(str::to_owned);
                }
                Self::Object(members)
            }
            number => {
                let digits = reader.known_number_bytes(number).map_err(wrong)?;
                Self::Number(String::from_utf8_lossy(digits).into_owned())
            }
        })
    }

    /// The value of a member; of several with one name, the last.
    fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether an object has a member, an array a string, or a string is one, of this name.
    pub(super) fn has_key(&self, key: &str) -> bool {
        match self {
            Self::Object(_) => self.member(key).is_some(),
            Self::Array(items) => items.iter().any(|item| matches!(item, Self::Text(text) if text == key)),
            Self::Text(text) => text == key,
            _ => false,
        }
    }

    /// Whether `part` is contained in the document, as `@>` has it: members of objects, elements of arrays in any order. At the
    /// top, an array also contains a value that is no array.
    pub(super) fn contains(&self, part: &Self) -> bool {
        match (part, self) {
            (part, Self::Array(items)) if !matches!(part, Self::Array(_) | Self::Object(_)) => {
                items.iter().any(|item| item.is_equal(part))
            }
            (part, whole) => whole.contains_inside(part),
        }
    }

    /// Whether `part` is contained in the document, below the top.
    fn contains_inside(&self, part: &Self) -> bool {
        match (part, self) {
            (Self::Object(members), Self::Object(_)) => members
                .iter()
                .all(|(name, value)| self.member(name).is_some_and(|found| found.contains_inside(value))),
            (Self::Array(part), Self::Array(items)) => {
                part.iter().all(|part| items.iter().any(|item| item.contains_inside(part)))
            }
            (part, whole) => whole.is_equal(part),
        }
    }

    /// Whether two values that are neither arrays nor objects are equal; numbers are compared exactly.
    fn is_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => left == right || canonical(left) == canonical(right),
            (left, right) => left == right,
        }
    }

    /// The document's kind, as `json_typeof` names it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Writes the document as PostgreSQL writes a `jsonb`: members ordered by the length of their names and then by the names,
    /// the last of those with one name.
    pub(super) fn write_binary_form(&self, text: &mut String) {
        match self {
            Self::Null => text.push_str("null"),
            Self::Boolean(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::Number(digits) => text.push_str(&plain_number(digits)),
            Self::Text(value) => text.push_str(&quoted(value)),
            Self::Array(items) => {
                text.push('[');
                for (at, item) in items.iter().enumerate() {
                    text.push_str(if at == 0 { "" } else { ", " });
                    item.write_binary_form(text);
                }
                text.push(']');
            }
            Self::Object(members) => {
                let mut members: Vec<&(String, Self)> = members.iter().rev().collect();
                members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
                members.dedup_by(|(a, _), (b, _)| a.cmp(b) == Ordering::Equal);
                text.push('{');
                for (at, (name, value)) in members.into_iter().enumerate() {
                    text.push_str(if at == 0 { "" } else { ", " });
                    text.push_str(&quoted(name));
                    text.push_str(": ");
                    value.write_binary_form(text);
                }
                text.push('}');
            }
        }
    }
}

/// A number without an exponent, with the zeros that it has at its end.
fn plain_number(digits: &str) -> Cow<'_, str> {
    let is_plain = !digits.contains(['e', 'E']) && digits != "-0";
    match parse_numeric(digits) {
        Ok(number) if !is_plain => Cow::Owned(number.to_string()),
        _ => Cow::Borrowed(digits),
    }
}

/// A number's digits in a form that equal numbers share.
fn canonical(digits: &str) -> String {
    let plain = plain_number(digits);
    let plain = if plain.contains('.') { plain.trim_end_matches('0').trim_end_matches('.') } else { &plain };
    if plain == "-0" { "0".to_owned() } else { plain.to_owned() }
}

/// The text of the value at a path of names and places in a document; none where there is none.
pub(super) fn at_path<'d>(document: &'d str, path: &[Option<String>]) -> Result<Option<&'d str>> {
    let mut found = document.trim();
    for key in path {
        let Some(key) = key else { return Ok(None) };
        match step(found, key).map_err(|error| invalid(&error))? {
            Some(inner) => found = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// The text of the value at one key of a document.
fn step<'d>(document: &'d str, key: &str) -> std::result::Result<Option<&'d str>, JiterError> {
    let mut reader = Jiter::new(document.as_bytes());
    // Where the value that the reader skips begins and ends.
    let skip = |reader: &mut Jiter<'d>| -> std::result::Result<Option<&'d str>, JiterError> {
        let start = reader.current_index();
        reader.next_skip()?;
        Ok(document.get(start..reader.current_index()).map(str::trim))
    };
    let mut found = None;
    match reader.peek()? {
        Peek::Object => {
            let mut is_it = reader.known_object()?.map(|name| name == key);
            while let Some(is_this) = is_it {
                let value = skip(&mut reader)?;
                if is_this {
                    found = value;
                }
                is_it = reader.next_key()?.map(|name| name == key);
            }
        }
        Peek::Array => {
            let Ok(place) = key.trim().parse::<i64>() else { return Ok(None) };
            let mut items = Vec::new();
            let mut next = reader.known_array()?;
            while next.is_some() {
                items.extend(skip(&mut reader)?);
                next = reader.array_step()?;
            }
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let place = if place < 0 { place.checked_add(count) } else { Some(place) };
            found = place
                .and_then(|place| usize::try_from(place).ok())
                .and_then(|place| items.get(place).copied());
        }
        _ => {}
    }
    Ok(found)
}

/// The keys of a path in the text of an array: `{a,0,"b c"}`; none where the text is malformed.
pub(super) fn path_of_text(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut keys = Vec::new();
    if inner.trim().is_empty() {
        return Some(keys);
    }
    let (mut key, mut in_quotes, mut was_quoted) = (String::new(), false, false);
    let mut characters = inner.chars();
    let finish = |key: &mut String, was_quoted: bool| {
        let text = std::mem::take(key);
        if was_quoted {
            return Some(Some(text));
        }
        let text = text.trim();
        // An element is written as `""` where it is empty.
        (!text.is_empty()).then(|| (!text.eq_ignore_ascii_case("null")).then(|| text.to_owned()))
    };
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next()?),
            '"' => (in_quotes, was_quoted) = (!in_quotes, true),
            ',' if !in_quotes => {
                keys.push(finish(&mut key, was_quoted)?);
                was_quoted = false;
            }
            '{' | '}' if !in_quotes => return None,
            ' ' if was_quoted && !in_quotes => {}
            other => key.push(other),
        }
    }
    keys.push(finish(&mut key, was_quoted)?);
    (!in_quotes).then_some(keys)
}
