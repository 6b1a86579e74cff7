//! A cold file that is open: all its bytes, checked, and its keys.
//!
//! Files are small enough to be taken whole (a flush bounds them), so a row is found by its key without asking the file
//! anything, and only the pages that hold it are unpacked.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use log_format::{ColdFile, ColumnId, RowBuilder, SchemaVersion, Seq};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    RowSelection,
};
use parquet::file::metadata::PageIndexPolicy;

use super::columns::{ColdColumn, push_cell};
use super::writer::SYSTEM_COLUMNS;
use crate::cut::KeyRange;
use crate::error::{Error, Result};
use crate::keyspace::StoredRow;

/// Rows that are unpacked at a time.
const BATCH_ROWS: usize = 1024;

/// A cold file that is open.
pub struct OpenFile {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    version: SchemaVersion,
    columns: Vec<ColdColumn>,
    keys: BinaryArray,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("rows", &self.keys.len()).finish_non_exhaustive()
    }
}

/// What a column has in each page of it, or in all of the file.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The least values.
    pub least: ArrayRef,
    /// The greatest values.
    pub greatest: ArrayRef,
    /// The first row of each page, and where the last one ends.
    pub bounds: Vec<usize>,
}

impl OpenFile {
    /// Opens the file with these bytes, which the manifest lists like this.
    ///
    /// # Errors
    /// [`Error::ColdFile`] where it is not that file.
    pub(super) fn open(listed: &ColdFile, bytes: Bytes) -> Result<Self> {
        let damaged = |reason| Error::ColdFile { path: listed.path.clone(), reason };
        if bytes.len() as u64 != listed.bytes || crc32c::crc32c(&bytes) != listed.crc32c {
            return Err(damaged("it is not what was written: length or checksum differ"));
        }
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&bytes, options)?;
        let fields = metadata.schema().fields();
        let columns: Option<Vec<ColdColumn>> =
            fields.iter().skip(SYSTEM_COLUMNS.len()).map(|field| ColdColumn::of_field(field)).collect();
        let columns = columns.ok_or_else(|| damaged("its columns do not say what they are"))?;
        let keys = read_keys(&bytes, &metadata)?;
        if keys.len() as u64 != listed.rows {
            return Err(damaged("it has another number of rows than the manifest says"));
        }
        Ok(Self { bytes, metadata, version: listed.schema_version, columns, keys })
    }

    /// Bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.keys.get_array_memory_size() + self.metadata.metadata().memory_size()
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.keys.len()
    }

    /// The columns of its rows, in order.
    pub fn columns(&self) -> &[ColdColumn] {
        &self.columns
    }

    /// What Arrow calls its columns.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    pub(super) fn key(&self, position: usize) -> &[u8] {
        if position < self.keys.len() { self.keys.value(position) } else { &[] }
    }

    /// Where the row of a key is, if the file has one.
    pub fn position_of(&self, key: &[u8]) -> Option<usize> {
        let at = self.first_from(key);
        (at < self.rows() && self.key(at) == key).then_some(at)
    }

    /// The first row whose key is not below this one.
    fn first_from(&self, key: &[u8]) -> usize {
        let (mut from, mut until) = (0, self.rows());
        while from < until {
            let middle = usize::midpoint(from, until);
            if self.key(middle) < key { from = middle + 1 } else { until = middle }
        }
        from
    }

    /// The rows whose keys are in a range.
    pub(super) fn rows_in(&self, range: &KeyRange) -> Range<usize> {
        let from = range.from.as_ref().map_or(0, |key| self.first_from(key));
        let until = range.until.as_ref().map_or_else(|| self.rows(), |key| self.first_from(key));
        from..until.max(from)
    }

    /// What a column's values lie between, page by page; none where the file does not tell.
    pub fn pages(&self, column: &str) -> Option<Pages> {
        let metadata = self.metadata.metadata();
        let converter =
            StatisticsConverter::try_new(column, self.metadata.schema(), self.metadata.parquet_schema())
                .ok()?;
        let at = converter.parquet_column_index()?;
        let (index, offsets) = (metadata.column_index()?, metadata.offset_index()?);
        if metadata.num_row_groups() != 1 || index.first()?.get(at)?.num_pages() == 0 {
            return None;
        }
        let bounds = offsets.first()?.get(at)?.page_locations().iter();
        let mut bounds: Vec<usize> =
            bounds.map(|page| usize::try_from(page.first_row_index).ok()).collect::<Option<_>>()?;
        bounds.push(self.rows());
        let least = converter.data_page_mins(index, offsets, &[0]).ok()?;
        let greatest = converter.data_page_maxes(index, offsets, &[0]).ok()?;
        Some(Pages { least, greatest, bounds })
    }

    /// Reads rows at rising positions, with what is in these columns; none: in all.
    pub(super) fn read(
        self: &Arc<Self>,
        ranges: Vec<Range<usize>>,
        columns: Option<&[ColumnId]>,
    ) -> Result<Rows> {
        let is_wanted = |column: &ColdColumn| columns.is_none_or(|columns| columns.contains(&column.id));
        let own = self.columns.iter().map(is_wanted).collect::<Vec<_>>();
        let places =
            own.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(at, _)| at + SYSTEM_COLUMNS.len());
        let mask =
            ProjectionMask::roots(self.metadata.parquet_schema(), (1..SYSTEM_COLUMNS.len()).chain(places));
        let count: usize = ranges.iter().map(Range::len).sum();
        let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), self.rows());
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone())
                .with_projection(mask)
                .with_row_selection(selection)
                .with_batch_size(BATCH_ROWS.min(count.max(1)))
                .build()?;
        Ok(Rows {
            file: Arc::clone(self),
            own,
            reader,
            batch: None,
            row: 0,
            bytes: Vec::new(),
            scratch: Vec::new(),
        })
    }
}

fn read_keys(bytes: &Bytes, metadata: &ArrowReaderMetadata) -> Result<BinaryArray> {
    let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or_default();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
        .with_projection(ProjectionMask::roots(metadata.parquet_schema(), [0]))
        .with_batch_size(rows.max(1))
        .build()?;
    let mut parts = Vec::new();
    for batch in reader {
        parts.push(Arc::clone(batch?.column(0)));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    if parts.is_empty() {
        return Ok(BinaryArray::from(Vec::<&[u8]>::new()));
    }
    let all = arrow::compute::concat(&parts)?;
    all.as_binary_opt::<i32>().cloned().ok_or(Error::Damaged { what: "cold file" })
}

/// A batch that is at hand, taken apart.
struct Batch {
    seq: Int64Array,
    updated: TimestampMicrosecondArray,
    deleted: BooleanArray,
    own: Vec<ArrayRef>,
}

impl Batch {
    fn of(batch: &RecordBatch) -> Option<Self> {
        let (system, own) = batch.columns().split_at_checked(SYSTEM_COLUMNS.len() - 1)?;
        let [seq, updated, deleted] = system else { return None };
        Some(Self {
            seq: seq.as_primitive_opt::<Int64Type>()?.clone(),
            updated: updated.as_primitive_opt::<TimestampMicrosecondType>()?.clone(),
            deleted: deleted.as_boolean_opt()?.clone(),
            own: own.to_vec(),
        })
    }
}

/// Rows of one file, one after the other.
pub(super) struct Rows {
    file: Arc<OpenFile>,
    /// By column: whether it is read.
    own: Vec<bool>,
    reader: ParquetRecordBatchReader,
    batch: Option<Batch>,
    row: usize,
    bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Rows {
    /// The next row.
    pub(super) fn next(&mut self) -> Result<StoredRow<'_>> {
        const DAMAGED: Error = Error::Damaged { what: "cold file" };
        if self.batch.as_ref().is_none_or(|batch| self.row >= batch.seq.len()) {
            let batch = self.reader.next().ok_or(DAMAGED)??;
            self.batch = Some(Batch::of(&batch).ok_or(DAMAGED)?);
            self.row = 0;
        }
        let Some(batch) = &self.batch else { return Err(DAMAGED) };
        let mut row = RowBuilder::new(self.file.version);
        let mut arrays = batch.own.iter();
        for (column, is_read) in self.file.columns.iter().zip(&self.own) {
            if *is_read {
                let array = arrays.next().ok_or(DAMAGED)?;
                push_cell(&mut row, column.data_type, array, self.row, &mut self.scratch)?;
            } else {
                row.push_cell(&log_format::CellRef::Null);
            }
        }
        self.bytes = row.finish().map_err(|_| DAMAGED)?;
        let at = self.row;
        self.row += 1;
        Ok(StoredRow {
            seq: Seq::new(batch.seq.value(at).cast_unsigned()),
            updated: batch.updated.value(at),
            deleted: batch.deleted.value(at),
            row: &self.bytes,
        })
    }
}
