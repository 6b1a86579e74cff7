//! Rows of CSV.
//!
//! An unquoted field whose text is that of NULL (nothing, if not told otherwise) is NULL; any other is its text, which the server
//! reads as a value of the column's type. Nothing in a TEXT column that is NOT NULL is an empty text: many programs write it
//! without quotes, and NULL cannot be meant.

use std::io::BufRead;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kalamdb_core::format::DataType;
use serde_json::Value as Json;

use super::source::{BadRow, Reader, Row, Rows};
use crate::transfer::csv_text::{CsvError, CsvField, CsvReader};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The table has no column for it.
    Skipped,
    Taken,
    /// NULL cannot be meant.
    RequiredText,
}

/// The rows.
pub(super) struct CsvRows {
    input: CsvReader<Box<dyn BufRead + Send>>,
    /// For each field, what becomes of it.
    uses: Vec<Use>,
    columns: Arc<[usize]>,
    null_text: String,
    /// The first record, where it is a row.
    first: Option<(u64, Vec<CsvField>)>,
    fields: Vec<CsvField>,
    number: u64,
}

impl CsvRows {
    pub(super) fn new(input: Box<dyn BufRead + Send>, reader: &Reader<'_>) -> anyhow::Result<Self> {
        let of_file = || reader.file.to_owned();
        let mut input = CsvReader::new(input, reader.args.delimiter).with_context(of_file)?;
        let mut fields = Vec::new();
        let line = loop {
            match input.read(&mut fields).with_context(of_file)? {
                Some(line) if !is_blank(&fields) => break Some(line),
                Some(_) => {}
                None => break None,
            }
        };
        let Some(line) = line else {
            if reader.args.no_header {
                return Ok(Self::of(input, Vec::new(), reader, None));
            }
            bail!("{}: there is no header line", reader.file);
        };
        if reader.args.no_header {
            let positions = by_position(fields.len(), reader)?;
            return Ok(Self::of(input, positions, reader, Some((line, fields))));
        }
        let names: Vec<&str> = fields.iter().map(|field| field.text.as_str()).collect();
        let positions = reader.matched(&names)?;
        Ok(Self::of(input, positions, reader, None))
    }

    fn of(
        input: CsvReader<Box<dyn BufRead + Send>>,
        positions: Vec<Option<usize>>,
        reader: &Reader<'_>,
        first: Option<(u64, Vec<CsvField>)>,
    ) -> Self {
        let required_text = |at: usize| {
            let column = reader.table.columns.get(at);
            column.is_some_and(|it| it.data_type == DataType::Text && !it.field.is_nullable())
        };
        let use_of = |position: &Option<usize>| match position {
            None => Use::Skipped,
            Some(at) if required_text(*at) => Use::RequiredText,
            Some(_) => Use::Taken,
        };
        Self {
            input,
            uses: positions.iter().map(use_of).collect(),
            columns: positions.into_iter().flatten().collect(),
            null_text: reader.args.null.clone(),
            first,
            fields: Vec::new(),
            number: 0,
        }
    }

    fn bad(&self, line: u64, problem: String, ends_file: bool) -> BadRow {
        BadRow { number: self.number, line: Some(line), column: None, problem, ends_file }
    }
}

/// The table's columns in their order; a generated key is none of them, as in an INSERT without names.
fn by_position(width: usize, reader: &Reader<'_>) -> anyhow::Result<Vec<Option<usize>>> {
    let columns = reader.table.columns.iter().enumerate().filter(|(_, column)| column.name != "_id");
    let positions: Vec<Option<usize>> = columns.map(|(at, _)| Some(at)).take(width).collect();
    if positions.len() < width && !reader.args.skip_unknown {
        bail!(
            "{}: the first row has {width} fields, and {} {} columns ({})",
            reader.file,
            reader.table.name,
            positions.len(),
            reader.table.names()
        );
    }
    Ok(positions.into_iter().chain(std::iter::repeat(None)).take(width).collect())
}

fn is_blank(fields: &[CsvField]) -> bool {
    matches!(fields, [only] if only.text.is_empty() && !only.is_quoted)
}

impl Rows for CsvRows {
    fn next(&mut self) -> Result<Option<Row>, BadRow> {
        let mut fields = std::mem::take(&mut self.fields);
        let width = self.uses.len();
        let line = loop {
            if let Some((line, first)) = self.first.take() {
                fields = first;
                break line;
            }
            match self.input.read(&mut fields) {
                // A line with nothing in it is a row where rows have one field.
                Ok(Some(_)) if width != 1 && is_blank(&fields) => {}
                Ok(Some(line)) => break line,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.number += 1;
                    let (line, problem) = match error {
                        CsvError::Io(error) => (None, error.to_string()),
                        CsvError::Text { line, problem } => (Some(line), problem.to_owned()),
                    };
                    return Err(BadRow { number: self.number, line, column: None, problem, ends_file: true });
                }
            }
        };
        self.number += 1;
        if fields.len() != width {
            return Err(self.bad(line, format!("{} fields, where {width} are due", fields.len()), false));
        }
        let taken = fields.iter_mut().zip(&self.uses).filter(|(_, used)| **used != Use::Skipped);
        let values = taken.map(|(field, used)| {
            let is_null = !field.is_quoted && field.text == self.null_text;
            let is_required = *used == Use::RequiredText && field.text.is_empty();
            if is_null && !is_required { Json::Null } else { Json::String(std::mem::take(&mut field.text)) }
        });
        let values = values.collect();
        self.fields = fields;
        Ok(Some(Row { number: self.number, line: Some(line), columns: Arc::clone(&self.columns), values }))
    }
}
