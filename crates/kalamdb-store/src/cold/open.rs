//! A cold file that is open: all its bytes, checked, and its keys once they are asked for.
//!
//! Files are small enough to be taken whole (a flush bounds them), so a row is found by its key without asking the file
//! anything, and only the pages that hold it are unpacked.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::columns::{ColdColumn, cell_at};
use super::filter::KeyFilter;
use super::writer::SYSTEM_COLUMNS;
use crate::cut::KeyRange;
use crate::error::{Error, Result};
use crate::keyspace::StoredRow;

/// Rows that are unpacked at a time: those of a page.
const BATCH_ROWS: usize = super::writer::PAGE_ROWS;
const DAMAGED: Error = Error::Damaged { what: "cold file" };

/// A cold file that is open.
pub struct OpenFile {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    version: SchemaVersion,
    columns: Vec<ColdColumn>,
    rows: usize,
    // Unpacked when they are first asked for: a query of everything needs none.
    keys: OnceLock<Keys>,
    // The rows around the one that was asked for last: who changes one often changes the next.
    block: Mutex<Option<Arc<Block>>>,
}

/// Rows of a file that stand together, unpacked.
struct Block {
    from: usize,
    batch: Batch,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("rows", &self.rows).finish_non_exhaustive()
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
        let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or_default();
        if rows as u64 != listed.rows {
            return Err(damaged("it has another number of rows than the manifest says"));
        }
        let (keys, block) = (OnceLock::new(), Mutex::default());
        Ok(Self { bytes, metadata, version: listed.schema_version, columns, rows, keys, block })
    }

    /// Bytes it takes in memory, its keys and the rows that it keeps unpacked among them, whether or not they are there yet.
    pub(super) fn size(&self) -> usize {
        let metadata = self.metadata.metadata();
        let keys = metadata.row_groups().iter().filter_map(|group| group.columns().first());
        let keys: i64 = keys.map(ColumnChunkMetaData::uncompressed_size).sum();
        let all: i64 = metadata.row_groups().iter().map(RowGroupMetaData::total_byte_size).sum();
        let [keys, all] = [keys, all].map(|bytes| usize::try_from(bytes).unwrap_or_default());
        let block = all / self.rows.max(1) * self.rows.min(BATCH_ROWS);
        self.bytes.len() + keys + block + metadata.memory_size()
    }

    /// What tells whether it may have a row of a key.
    pub(super) fn key_filter(&self) -> Result<Option<KeyFilter>> {
        KeyFilter::read(&self.bytes, self.metadata.metadata())
    }

    /// How many rows it has.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The schema version that wrote them.
    pub const fn version(&self) -> SchemaVersion {
        self.version
    }

    /// The columns of its rows, in order.
    pub fn columns(&self) -> &[ColdColumn] {
        &self.columns
    }

    /// What Arrow calls its columns.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// The keys of its rows.
    pub(super) fn keys(&self) -> Result<&Keys> {
        if let Some(keys) = self.keys.get() {
            return Ok(keys);
        }
        let keys = Keys(read_keys(&self.bytes, &self.metadata)?);
        Ok(self.keys.get_or_init(|| keys))
    }

    /// Whether any of its rows may be deleted, as far as it tells.
    pub(super) fn may_have_deleted(&self) -> bool {
        let at = SYSTEM_COLUMNS.len() - 1;
        self.metadata.metadata().row_groups().iter().any(|group| {
            let told = group.columns().get(at).and_then(ColumnChunkMetaData::statistics);
            !matches!(told, Some(Statistics::Boolean(told)) if told.max_opt() == Some(&false))
        })
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
        bounds.push(self.rows);
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
        let places = (1..SYSTEM_COLUMNS.len()).chain(places);
        let reader = self.reader(ranges, places, BATCH_ROWS)?;
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

    /// One row, handed to `read`.
    pub(super) fn row<T>(&self, position: usize, read: impl FnOnce(StoredRow<'_>) -> T) -> Result<T> {
        let block = self.block_of(position)?;
        let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
        let all = vec![true; self.columns.len()];
        block.batch.row(self, &all, position - block.from, &mut bytes, &mut scratch).map(read)
    }

    fn block_of(&self, position: usize) -> Result<Arc<Block>> {
        let from = position - position % BATCH_ROWS;
        let known = || self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = known().as_ref().filter(|block| block.from == from) {
            return Ok(Arc::clone(block));
        }
        let range = from..(from + BATCH_ROWS).min(self.rows);
        let places = 1..SYSTEM_COLUMNS.len() + self.columns.len();
        let batch = self.reader(vec![range], places, BATCH_ROWS)?.next().ok_or(DAMAGED)??;
        let block = Arc::new(Block { from, batch: Batch::of(&batch).ok_or(DAMAGED)? });
        *known() = Some(Arc::clone(&block));
        Ok(block)
    }

    /// The columns at these places, of rows at rising positions, so many at a time.
    pub(super) fn reader(
        &self,
        ranges: Vec<Range<usize>>,
        places: impl IntoIterator<Item = usize>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let count: usize = ranges.iter().map(Range::len).sum();
        let mut reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone())
                .with_projection(ProjectionMask::roots(self.metadata.parquet_schema(), places))
                .with_batch_size(batch_rows.min(count.max(1)));
        if count < self.rows {
            let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), self.rows);
            reader = reader.with_row_selection(selection);
        }
        Ok(reader.build()?)
    }
}

/// The keys of a file's rows, rising.
#[derive(Clone, Debug)]
pub(super) struct Keys(BinaryArray);

impl Keys {
    pub(super) fn get(&self, position: usize) -> &[u8] {
        if position < self.0.len() { self.0.value(position) } else { &[] }
    }

    /// Where the row of a key is, if the file has one.
    pub(super) fn position_of(&self, key: &[u8]) -> Option<usize> {
        self.search(key, 0..self.0.len()).ok()
    }

    /// Where the row of a key is, at `from` or behind; where there is none, the first row there whose key is above, or the end. Quick
    /// where it is near, or about as far as the last time, which is what `stride` says.
    pub(super) fn search_from(&self, key: &[u8], from: usize, stride: &mut usize) -> Result<usize, usize> {
        let (mut least, mut step) = (from.min(self.0.len()), (*stride).max(1));
        let found = loop {
            let probe = least + step;
            if probe >= self.0.len() {
                break self.search(key, least..self.0.len());
            }
            match self.get(probe).cmp(key) {
                Ordering::Less => (least, step) = (probe + 1, step * 2),
                Ordering::Equal => break Ok(probe),
                Ordering::Greater => break self.search(key, least..probe),
            }
        };
        let (Ok(at) | Err(at)) = found;
        *stride = at - from.min(at);
        found
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the row of a key is in a range of rows; where there is none, the first one there whose key is above, or the end.
    fn search(
        &self,
        key: &[u8],
        Range { start: mut from, end: mut until }: Range<usize>,
    ) -> Result<usize, usize> {
        while from < until {
            let middle = usize::midpoint(from, until);
            match self.get(middle).cmp(key) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => until = middle,
            }
        }
        Err(from)
    }

    /// The rows whose keys are in a range.
    pub(super) fn rows_in(&self, range: &KeyRange) -> Range<usize> {
        let all = 0..self.0.len();
        let first_from = |key: &Vec<u8>| self.search(key, all.clone()).unwrap_or_else(|above| above);
        let from = range.from.as_ref().map_or(0, first_from);
        let until = range.until.as_ref().map_or(all.end, first_from);
        from..until.max(from)
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
    all.as_binary_opt::<i32>().cloned().ok_or(DAMAGED)
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

    /// A row of it, with the columns of the file that were read, put together in `bytes`.
    fn row<'a>(
        &self,
        file: &OpenFile,
        is_read: &[bool],
        at: usize,
        bytes: &'a mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<StoredRow<'a>> {
        if at >= self.seq.len() {
            return Err(DAMAGED);
        }
        let mut row = RowBuilder::new(file.version);
        let mut arrays = self.own.iter();
        for (column, is_read) in file.columns.iter().zip(is_read) {
            if *is_read {
                let array = arrays.next().ok_or(DAMAGED)?;
                row.push_cell(&cell_at(column.data_type, array, at, scratch)?);
            } else {
                row.push_cell(&log_format::CellRef::Null);
            }
        }
        *bytes = row.finish().map_err(|_| DAMAGED)?;
        Ok(StoredRow {
            seq: Seq::new(self.seq.value(at).cast_unsigned()),
            updated: self.updated.value(at),
            deleted: self.deleted.value(at),
            row: bytes,
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
        if self.batch.as_ref().is_none_or(|batch| self.row >= batch.seq.len()) {
            let batch = self.reader.next().ok_or(DAMAGED)??;
            self.batch = Some(Batch::of(&batch).ok_or(DAMAGED)?);
            self.row = 0;
        }
        let Some(batch) = self.batch.as_ref() else { return Err(DAMAGED) };
        let at = self.row;
        self.row += 1;
        batch.row(&self.file, &self.own, at, &mut self.bytes, &mut self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_found_from_wherever_one_begins(
            keys in prop::collection::btree_set(0..400_u16, 0..100),
            wanted in prop::collection::vec((0..420_u16, 0..30_usize), 0..50),
        ) {
            let all: Vec<[u8; 2]> = keys.iter().map(|key| key.to_be_bytes()).collect();
            let of_file = Keys(BinaryArray::from_iter_values(&all));
            let (mut at, mut stride) = (0, 0);
            for (key, back) in wanted {
                let from = at - at.min(back);
                let expected = from.max(keys.range(..key).count()).min(all.len());
                let is_there = all.get(expected) == Some(&key.to_be_bytes());
                let found = of_file.search_from(&key.to_be_bytes(), from, &mut stride);
                prop_assert_eq!(found, if is_there { Ok(expected) } else { Err(expected) });
                at = expected;
            }
        }
    }
}
