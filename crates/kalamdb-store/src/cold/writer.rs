//! Writes one cold file: rows of one schema version in key order, sorted once and for all.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Int64Builder, RecordBatch, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use log_format::{ColumnBounds, DataType, KeyBuilder, Partition, RowReader, SchemaVersion};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::columns::{CellBuilder, ColdColumn, cell_at};
use crate::error::{Error, Result};
use crate::keyspace::StoredRow;

/// The encoded primary key, which the file is sorted by.
pub(super) const KEY_COLUMN: &str = "_key";
/// Whether a row is deleted.
pub(super) const DELETED_COLUMN: &str = "_deleted";
/// The columns before the table's own: key, seq, commit time, whether deleted.
pub(super) const SYSTEM_COLUMNS: [&str; 4] = [KEY_COLUMN, "_seq", "_updated", DELETED_COLUMN];
/// Rows of a page at the most: what is read for the sake of one row.
pub(super) const PAGE_ROWS: usize = 1024;
/// Bytes of a column's different values up to which they are worth a dictionary: it is unpacked for the sake of one row.
const DICTIONARY_BYTES: usize = 1 << 15;
/// Values that a bloom filter has room for while it is filled; it shrinks to those that came.
const BLOOM_VALUES: u64 = 1 << 16;
/// Batches that wait to be packed at the most.
const BATCHES_WAITING: usize = 2;
/// Rows between those that are held as Arrow.
const BATCH_ROWS: usize = 8192;

/// What a file's rows are of.
#[derive(Clone, Debug)]
pub struct FileOrigin {
    /// Whose rows.
    pub partition: Partition,
    /// The schema version of all of them.
    pub version: SchemaVersion,
    /// That version's columns, in the order of a row's cells.
    pub columns: Vec<ColdColumn>,
}

/// A file's bytes, with what a manifest says of it.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// All of it.
    pub bytes: Bytes,
    /// Their CRC-32C.
    pub crc32c: u32,
    /// How many rows.
    pub rows: u64,
    /// The least and greatest seq.
    pub seqs: (u64, u64),
    /// The least and greatest key.
    pub keys: (Vec<u8>, Vec<u8>),
    /// The first and last time of a commit, microseconds since 1970.
    pub updated: (i64, i64),
    /// What the values of its columns lie between, where that is told.
    pub bounds: Vec<ColumnBounds>,
}

/// A file that is being written, in memory: who writes bounds its rows.
pub struct ColdWriter {
    origin: FileOrigin,
    schema: SchemaRef,
    out: Encoder,
    key: BinaryBuilder,
    seq: Int64Builder,
    updated: TimestampMicrosecondBuilder,
    deleted: BooleanBuilder,
    cells: Vec<CellBuilder>,
    in_batch: usize,
    rows: u64,
    seqs: (u64, u64),
    times: (i64, i64),
    keys: (Vec<u8>, Vec<u8>),
}

impl std::fmt::Debug for ColdWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdWriter")
            .field("origin", &self.origin)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// What packs batches into the file.
enum Encoder {
    /// Who writes does it, at the end: there is one batch at the most.
    Here(Box<Writer>, Option<RecordBatch>),
    /// A thread does it, one batch behind the other.
    Beside(SyncSender<RecordBatch>, JoinHandle<Result<Box<Writer>>>),
    /// Nobody: it has failed.
    Gone,
}

type Writer = ArrowWriter<Vec<u8>>;

impl Encoder {
    fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match std::mem::replace(self, Self::Gone) {
            Self::Here(writer, None) => *self = Self::Here(writer, Some(batch)),
            // There is more than one: who gathers rows need not wait for them to be packed.
            Self::Here(mut writer, Some(first)) => {
                let (sender, batches) = sync_channel(BATCHES_WAITING);
                let work = move || {
                    for batch in std::iter::once(first).chain(batches) {
                        writer.write(&batch)?;
                    }
                    Ok(writer)
                };
                let spawned = std::thread::Builder::new().name("cold-encoder".to_owned()).spawn(work);
                let thread = spawned.map_err(Error::Thread)?;
                *self = Self::Beside(sender, thread);
                return self.write(batch);
            }
            Self::Beside(sender, thread) if sender.send(batch).is_ok() => {
                *self = Self::Beside(sender, thread);
            }
            // It takes no more since it has failed: it says how.
            gone => return gone.back().map(drop),
        }
        Ok(())
    }

    /// The writer, once it has all batches.
    fn back(self) -> Result<Box<Writer>> {
        match self {
            Self::Here(mut writer, batch) => {
                batch.map_or(Ok(()), |batch| writer.write(&batch))?;
                Ok(writer)
            }
            Self::Beside(sender, thread) => {
                drop(sender);
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            }
            Self::Gone => Err(Error::Damaged { what: "cold file that is being written" }),
        }
    }
}

impl ColdWriter {
    /// A file without rows.
    ///
    /// # Errors
    /// Where Parquet cannot hold such columns.
    pub fn new(origin: FileOrigin) -> Result<Self> {
        let (schema, properties) = describe(&origin);
        let out = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        Ok(Self {
            schema,
            out: Encoder::Here(Box::new(out), None),
            key: BinaryBuilder::new(),
            seq: Int64Builder::new(),
            updated: TimestampMicrosecondBuilder::new().with_timezone("+00:00"),
            deleted: BooleanBuilder::new(),
            cells: origin
                .columns
                .iter()
                .map(|column| CellBuilder::with_capacity(column.data_type, 0, 0))
                .collect(),
            in_batch: 0,
            rows: 0,
            seqs: (u64::MAX, 0),
            times: (i64::MAX, i64::MIN),
            keys: (Vec::new(), Vec::new()),
            origin,
        })
    }

    /// Adds the row of the next greater key.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a row of another version or a key out of order.
    pub fn push(&mut self, key: &[u8], row: &StoredRow<'_>) -> Result<()> {
        const DAMAGED: Error = Error::Damaged { what: "row" };
        let cells = RowReader::new(row.row).map_err(|_| DAMAGED)?;
        let is_next = self.rows == 0 || self.keys.1.as_slice() < key;
        if cells.version() != self.origin.version || cells.count() != self.cells.len() || !is_next {
            return Err(DAMAGED);
        }
        let mut cells = cells.typed();
        for out in &mut self.cells {
            out.append(&mut cells).ok_or(DAMAGED)?;
        }
        self.key.append_value(key);
        self.seq.append_value(row.seq.get().cast_signed());
        self.updated.append_value(row.updated);
        self.deleted.append_value(row.deleted);
        if self.rows == 0 {
            self.keys.0 = key.to_vec();
        }
        self.keys.1.clear();
        self.keys.1.extend_from_slice(key);
        self.seqs = (self.seqs.0.min(row.seq.get()), self.seqs.1.max(row.seq.get()));
        self.times = (self.times.0.min(row.updated), self.times.1.max(row.updated));
        self.rows += 1;
        self.in_batch += 1;
        if self.in_batch == BATCH_ROWS { self.write_batch(true) } else { Ok(()) }
    }

    /// What its rows are of.
    pub(super) const fn origin(&self) -> &FileOrigin {
        &self.origin
    }

    /// Rows so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    fn write_batch(&mut self, is_more_to_come: bool) -> Result<()> {
        let rows = std::mem::take(&mut self.in_batch);
        let key_bytes = self.key.values_slice().len();
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.key.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.updated.finish()),
            Arc::new(self.deleted.finish()),
        ];
        if is_more_to_come {
            // Columns that grow copy themselves.
            self.key = BinaryBuilder::with_capacity(rows, key_bytes + key_bytes / 8);
            self.seq = Int64Builder::with_capacity(rows);
            self.updated = TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("+00:00");
            self.deleted = BooleanBuilder::with_capacity(rows);
            let cells = self.cells.iter_mut().zip(&self.origin.columns);
            arrays.extend(cells.map(|(out, column)| out.finish_full(column.data_type, rows)));
        } else {
            arrays.extend(self.cells.iter_mut().map(CellBuilder::finish));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        self.out.write(batch)
    }

    /// The file.
    ///
    /// # Errors
    /// Where Parquet cannot write it.
    pub fn finish(mut self) -> Result<WrittenFile> {
        if self.in_batch > 0 {
            self.write_batch(false)?;
        }
        let mut out = self.out.back()?;
        let pairs = [("kalamdb.first_seq", self.seqs.0), ("kalamdb.last_seq", self.seqs.1)];
        for (name, seq) in pairs {
            out.append_key_value_metadata(KeyValue::new(name.to_owned(), seq.to_string()));
        }
        let metadata = out.finish()?;
        let bounds = self.origin.columns.iter().zip(self.schema.fields().iter().skip(SYSTEM_COLUMNS.len()));
        let bounds =
            bounds.filter_map(|(column, field)| bounds_of(column, field.name(), &self.schema, &metadata));
        let bounds = bounds.collect();
        let bytes = Bytes::from(std::mem::take(out.inner_mut()));
        let crc32c = crc32c::crc32c(&bytes);
        let Self { rows, seqs, keys, times: updated, .. } = self;
        Ok(WrittenFile { bytes, crc32c, rows, seqs, keys, updated, bounds })
    }
}

/// What the values of a column lie between in all of the file, as its statistics tell; none where they do not.
fn bounds_of(
    column: &ColdColumn,
    name: &str,
    schema: &SchemaRef,
    metadata: &ParquetMetaData,
) -> Option<ColumnBounds> {
    if !ColumnBounds::are_of(column.data_type) {
        return None;
    }
    let descriptor = metadata.file_metadata().schema_descr();
    let statistics = StatisticsConverter::try_new(name, schema, descriptor).ok()?;
    let mut scratch = Vec::new();
    let mut key = |bound: &dyn Array| {
        let cell = (bound.len() == 1).then(|| cell_at(column.data_type, bound, 0, &mut scratch).ok())??;
        let mut key = KeyBuilder::new();
        key.push(&cell.to_value()).ok()?;
        Some(key.finish())
    };
    let least = key(&statistics.row_group_mins(metadata.row_groups()).ok()?)?;
    let greatest = key(&statistics.row_group_maxes(metadata.row_groups()).ok()?)?;
    Some(ColumnBounds { column: column.id, least, greatest })
}

/// The schema of such a file, and how it is written.
fn describe(origin: &FileOrigin) -> (SchemaRef, WriterProperties) {
    let mut fields = vec![
        Field::new(KEY_COLUMN, ArrowType::Binary, false),
        Field::new("_seq", ArrowType::Int64, false),
        Field::new("_updated", ArrowType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), false),
        Field::new(DELETED_COLUMN, ArrowType::Boolean, false),
    ];
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("kalamdb ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // One group: who writes bounds the rows of a file.
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]));
    // No key is there twice.
    properties = properties.set_column_dictionary_enabled(ColumnPath::from(KEY_COLUMN), false);
    // The key's own columns have one, too, for other readers.
    for name in [KEY_COLUMN, "_updated"] {
        properties = with_bloom_filter(properties, ColumnPath::from(name));
    }
    for name in ["_seq", "_updated"] {
        properties = with_differences(properties, ColumnPath::from(name));
    }
    let is_whole_key = origin.columns.iter().filter(|column| column.is_key).count() == 1;
    for column in &origin.columns {
        let is_taken = fields.iter().any(|field| *field.name() == column.name);
        let name =
            if is_taken { format!("{}#{}", column.name, column.id.get()) } else { column.name.clone() };
        properties = of_column(properties, column, &name, is_whole_key);
        fields.push(column.field(&name));
    }
    let mut about = vec![
        ("kalamdb.table_id", origin.partition.table.to_string()),
        ("kalamdb.schema_version", origin.version.to_string()),
    ];
    if let Some(user) = &origin.partition.user {
        about.push(("kalamdb.user", user.as_str().to_owned()));
    }
    let about = about.into_iter().map(|(name, value)| KeyValue::new(name.to_owned(), value)).collect();
    (Arc::new(Schema::new(fields)), properties.set_key_value_metadata(Some(about)).build())
}

fn of_column(
    properties: WriterPropertiesBuilder,
    column: &ColdColumn,
    name: &str,
    is_whole_key: bool,
) -> WriterPropertiesBuilder {
    // What a column of lists is called further down does not matter to these.
    let path = ColumnPath::from(name);
    let properties = match column.data_type {
        // IMPORTANT: a dictionary may take 0.0 for -0.0; rows come back to the bit.
        DataType::Float | DataType::Double => properties.set_column_dictionary_enabled(path.clone(), false),
        DataType::Embedding(_) => {
            let items = ColumnPath::new(vec![name.to_owned(), "list".to_owned(), "item".to_owned()]);
            return properties.set_column_dictionary_enabled(items, false);
        }
        _ => properties,
    };
    if !column.is_key {
        return properties;
    }
    let properties = with_bloom_filter(properties, path.clone());
    match column.data_type {
        _ if !is_whole_key => properties,
        DataType::Int | DataType::BigInt | DataType::Timestamp | DataType::DateTime => {
            with_differences(properties, path)
        }
        _ => properties.set_column_dictionary_enabled(path, false),
    }
}

fn with_bloom_filter(properties: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    properties
        .set_column_bloom_filter_enabled(path.clone(), true)
        .set_column_bloom_filter_max_ndv(path, BLOOM_VALUES)
}

/// Numbers that mostly rise, each as what it is more than the one before.
fn with_differences(properties: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
}
