//! Rows of JSON lines: an object a line, its keys the table's columns.
//!
//! Values reach the server as they stand in the file: numbers digit by digit, documents character by character. A string in a JSON
//! column is what it is in results: the text of a document, where it is one.

use std::fmt;
use std::io::{BufRead, Read as _};
use std::sync::Arc;

use kalamdb_core::format::DataType;
use serde::Deserialize as _;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::source::{BadRow, Row, Rows, excerpt};
use crate::transfer::ROW_BYTES_MAX;
use crate::transfer::table::Table;

/// The rows.
pub(super) struct JsonRows {
    input: Box<dyn BufRead + Send>,
    table: Table,
    skip_unknown: bool,
    line: u64,
    number: u64,
    text: Vec<u8>,
    /// The columns of the row before, which are mostly those of the next.
    columns: Arc<[usize]>,
}

/// An object's members in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What is wrong with a line.
struct Problem {
    column: Option<String>,
    text: String,
}

impl Problem {
    fn new(text: impl Into<String>) -> Self {
        Self { column: None, text: text.into() }
    }
}

impl JsonRows {
    pub(super) fn new(input: Box<dyn BufRead + Send>, table: &Table, skip_unknown: bool) -> Self {
        let table = table.clone();
        Self { input, table, skip_unknown, line: 0, number: 0, text: Vec::new(), columns: Arc::new([]) }
    }

    /// Reads a line into `text`; false at the end.
    fn read_line(&mut self) -> Result<bool, BadRow> {
        self.text.clear();
        self.line += 1;
        let mut bounded = self.input.by_ref().take(ROW_BYTES_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.text);
        let problem = match read {
            Ok(_) if self.text.len() <= ROW_BYTES_MAX => return Ok(!self.text.is_empty()),
            Ok(_) => "the line takes more than 16 MiB".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(self.bad(self.number + 1, Problem::new(problem), true))
    }

    fn bad(&self, number: u64, problem: Problem, ends_file: bool) -> BadRow {
        let Problem { column, text } = problem;
        BadRow { number, line: Some(self.line), column, problem: text, ends_file }
    }

    fn row(&mut self) -> Result<Row, Problem> {
        let text = std::str::from_utf8(&self.text)
            .map_err(|error| Problem::new(format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        let Members(members) = serde_json::from_str(text)
            .map_err(|error| Problem::new(format!("not a JSON object: {}", of_line(&error))))?;
        let mut columns = Vec::with_capacity(members.len());
        let mut values = Vec::with_capacity(members.len());
        for (key, raw) in members {
            let wrong = |text: String| Problem { column: Some(excerpt(&key)), text };
            let Some(at) = self.table.position(&key) else {
                if self.skip_unknown {
                    continue;
                }
                return Err(Problem::new(format!(
                    "{} has no column {:?} (it has {}); --skip-unknown passes over such keys",
                    self.table.name,
                    excerpt(&key),
                    self.table.names()
                )));
            };
            if columns.contains(&at) {
                return Err(wrong("the key is there twice".to_owned()));
            }
            let Some(column) = self.table.columns.get(at) else { continue };
            values.push(param(raw.get(), column.data_type).map_err(|error| wrong(of_line(&error)))?);
            columns.push(at);
        }
        if *columns != *self.columns {
            self.columns = columns.into();
        }
        let columns = Arc::clone(&self.columns);
        Ok(Row { number: self.number, line: Some(self.line), columns, values })
    }
}

/// A value as it stands in a file, as the parameter that is the same value in a column of this type.
fn param(raw: &str, data_type: DataType) -> serde_json::Result<Json> {
    let text = match raw.as_bytes().first() {
        Some(b'n') => return Ok(Json::Null),
        Some(b't' | b'f') if data_type == DataType::Boolean => return serde_json::from_str(raw),
        Some(b'"') => {
            return String::deserialize(&mut serde_json::Deserializer::from_str(raw)).map(Json::String);
        }
        // Numbers, documents: every digit and every space of them.
        _ => raw.to_owned(),
    };
    Ok(Json::String(text))
}

/// The parser counts lines of its own.
fn of_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    format!("{message} at character {}", error.column())
}

impl Rows for JsonRows {
    fn next(&mut self) -> Result<Option<Row>, BadRow> {
        while self.read_line()? {
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            self.number += 1;
            return self.row().map(Some).map_err(|problem| self.bad(self.number, problem, false));
        }
        Ok(None)
    }
}
