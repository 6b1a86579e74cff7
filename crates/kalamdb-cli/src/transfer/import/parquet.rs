//! Rows of Parquet: each array brought to the type of its column in the table, then read value by value.
//!
//! A value that the column's type does not have makes its row a bad one. What SQL would round is rounded (a decimal's digits, a
//! double in a FLOAT column, nanoseconds), but no fraction becomes an integer. A text is handed on as it is, whatever the column.
//! The library is not trusted with a damaged file: should it panic, the file ends there.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType as ArrowType;
use arrow::error::ArrowError;
use kalamdb_core::format::DataType;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value as Json;

use super::source::{BadRow, Reader, Row, Rows};
use crate::transfer::json_text::{Spacing, is_nested, is_span, json_array, span_array};
use crate::transfer::progress::Position;
use crate::transfer::table::TableColumn;
use crate::transfer::values::{hex, text_of};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1024;

/// The rows.
pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    /// For each of the file's columns, that of the table.
    matched: Vec<Option<TableColumn>>,
    columns: Arc<[usize]>,
    /// The batch that is being read, its arrays of the columns' types, and the next row of it.
    batch: Option<(RecordBatch, Vec<Result<ArrayRef, String>>)>,
    next: usize,
    number: u64,
    position: Position,
}

impl ParquetRows {
    /// With how many there are.
    pub(super) fn new(file: File, reader: &Reader<'_>) -> anyhow::Result<(Self, u64)> {
        let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file))
            .and_then(|built| built.map_err(|error| error.to_string()))
            .map_err(anyhow::Error::msg)
            .with_context(|| reader.file.to_owned())?;
        let count = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let names: Vec<&str> = builder.schema().fields().iter().map(|field| field.name().as_str()).collect();
        let positions = reader.matched(&names)?;
        let column = |at: &Option<usize>| at.map(|at| reader.table.column(at).cloned()).transpose();
        let matched = positions.iter().map(column).collect::<anyhow::Result<_>>()?;
        let input = guarded(|| builder.with_batch_size(BATCH_ROWS).build())
            .and_then(|built| built.map_err(|error| error.to_string()))
            .map_err(anyhow::Error::msg)
            .with_context(|| reader.file.to_owned())?;
        let columns = positions.into_iter().flatten().collect();
        let position = reader.position.clone();
        Ok((Self { reader: input, matched, columns, batch: None, next: 0, number: 0, position }, count))
    }

    /// Decodes until there is a row; false at the end.
    fn fill(&mut self) -> Result<bool, BadRow> {
        while self.batch.as_ref().is_none_or(|(batch, _)| self.next >= batch.num_rows()) {
            let decoded = guarded(|| self.reader.next());
            let decoded = decoded.and_then(|next| next.transpose().map_err(|error| error.to_string()));
            let batch = match decoded {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(false),
                Err(problem) => {
                    let number = self.number + 1;
                    return Err(BadRow { number, line: None, column: None, problem, ends_file: true });
                }
            };
            let arrays = self.matched.iter().zip(batch.columns()).filter_map(|(column, array)| {
                let column = column.as_ref()?;
                Some(guarded(|| fitted(array, column)).and_then(|fitted| fitted))
            });
            let arrays = arrays.collect();
            self.batch = Some((batch, arrays));
            self.next = 0;
        }
        Ok(true)
    }
}

/// What a library gives, or that it panicked.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the file is damaged".to_owned())
}

/// An array of a file as one that [`text_of`] reads as this column's values.
fn fitted(array: &ArrayRef, column: &TableColumn) -> Result<ArrayRef, String> {
    let said = |error: ArrowError| error.to_string();
    let plain = plain(array).map_err(said)?;
    let (source, target) = (plain.data_type(), column.field.data_type());
    if source == target || matches!(source, ArrowType::Null) {
        return Ok(plain);
    }
    match column.data_type {
        // A text is a document or is none: the server knows.
        DataType::Json if !is_text_or_bytes(source) => {
            return json_array(&plain, Spacing::COMPACT).map_err(said);
        }
        DataType::Text if is_span(source) => return Ok(span_array(&plain)),
        DataType::Text if is_nested(source) => return json_array(&plain, Spacing::COMPACT).map_err(said),
        DataType::Uuid if is_text_or_bytes(source) && *source != ArrowType::Utf8 => {
            return sixteen_bytes(&plain);
        }
        DataType::Bytes => {}
        _ if *source == ArrowType::Utf8 => return Ok(plain),
        _ => {}
    }
    if source.is_temporal() && target.is_numeric() {
        return Err(format!("{source} has no one number"));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |array: &ArrayRef, to: &ArrowType| cast_with_options(array, to, &strict).map_err(said);
    if source.is_numeric() && is_counted(column.data_type) {
        return cast(&plain, &ArrowType::Utf8);
    }
    let fitted = cast(&plain, target)?;
    if target.is_integer() && !source.is_integer() && cast(&fitted, source)?.as_ref() != plain.as_ref() {
        return Err("a fraction is no integer".to_owned());
    }
    Ok(fitted)
}

/// An array of values of their own, and of one type of text.
fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        ArrowType::Dictionary(_, values) if !is_nested(values) => plain(&cast(array, values)?),
        ArrowType::LargeUtf8 | ArrowType::Utf8View => cast(array, &ArrowType::Utf8),
        ArrowType::Float16 => cast(array, &ArrowType::Float32),
        _ => Ok(Arc::clone(array)),
    }
}

fn is_text_or_bytes(data_type: &ArrowType) -> bool {
    matches!(
        data_type,
        ArrowType::Utf8
            | ArrowType::Binary
            | ArrowType::LargeBinary
            | ArrowType::BinaryView
            | ArrowType::FixedSizeBinary(_)
    )
}

/// The bytes of UUIDs.
fn sixteen_bytes(array: &ArrayRef) -> Result<ArrayRef, String> {
    const UUID_BYTES: usize = 16;
    let bytes = cast(array, &ArrowType::Binary).map_err(|error| error.to_string())?;
    match bytes.as_binary::<i32>().iter().flatten().find(|value| value.len() != UUID_BYTES) {
        Some(other) => Err(format!("{} bytes are no UUID, which has {UUID_BYTES}", other.len())),
        None => Ok(bytes),
    }
}

/// Whether numbers in a column of this type are read one by one: of 0 and 1 the server knows which truth they are, and counts since
/// 1970 need their unit.
fn is_counted(data_type: DataType) -> bool {
    matches!(data_type, DataType::Boolean | DataType::Timestamp | DataType::DateTime | DataType::Date)
}

/// The value at a row as a parameter.
fn param(array: &dyn Array, row: usize, data_type: DataType) -> Json {
    let text = match array.data_type() {
        ArrowType::Null => None,
        ArrowType::Binary if data_type == DataType::Uuid => {
            (!array.is_null(row)).then(|| hex(array.as_binary::<i32>().value(row)))
        }
        _ => text_of(array, row),
    };
    text.map_or(Json::Null, Json::String)
}

impl Rows for ParquetRows {
    fn next(&mut self) -> Result<Option<Row>, BadRow> {
        if !self.fill()? {
            return Ok(None);
        }
        let Some((batch, arrays)) = &self.batch else { return Ok(None) };
        let row = self.next;
        self.next += 1;
        self.number += 1;
        self.position.advance(1);
        let number = self.number;
        let mut values = Vec::with_capacity(arrays.len());
        let given = self.matched.iter().zip(batch.columns());
        let given = given.filter_map(|(column, array)| Some((column.as_ref()?, array)));
        for ((column, array), whole) in given.zip(arrays) {
            values.push(match whole {
                Ok(whole) => param(whole, row, column.data_type),
                // Some value of the batch does not fit: this one may.
                Err(_) => {
                    let alone = guarded(|| fitted(&array.slice(row, 1), column)).and_then(|fitted| fitted);
                    let alone = alone.map_err(|problem| BadRow {
                        number,
                        line: None,
                        column: Some(column.name.clone()),
                        problem: format!("{problem}; it should be {}", column.data_type),
                        ends_file: false,
                    })?;
                    param(&alone, 0, column.data_type)
                }
            });
        }
        Ok(Some(Row { number, line: None, columns: Arc::clone(&self.columns), values }))
    }
}
