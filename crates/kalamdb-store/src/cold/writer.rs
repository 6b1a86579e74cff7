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
/// Values that a bloom filter has room for while it is filled, where it is not known how many come; it shrinks to those that came.
const BLOOM_VALUES: u64 = 1 << 16;
/// Batches that wait to be packed at the most.
const BATCHES_WAITING: usize = 8;
/// Rows that become columns at a time: so few that they are still in a core's cache when they do.
const BATCH_ROWS: usize = 2048;

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

/// Rows on their way into a file, as they are stored, one behind the other.
#[derive(Default)]
struct Gathered {
    /// Keys and rows in turn.
    bytes: Vec<u8>,
    rows: Vec<GatheredRow>,
}

/// What is known of one of them, and where it ends.
struct GatheredRow {
    key_end: usize,
    end: usize,
    seq: u64,
    updated: i64,
    deleted: bool,
}

impl Gathered {
    /// With room for as much as another one has.
    fn like(other: &Self) -> Self {
        let (bytes, rows) = (other.bytes.len(), other.rows.len());
        Self { bytes: Vec::with_capacity(bytes + bytes / 8), rows: Vec::with_capacity(rows) }
    }

    fn push(&mut self, key: &[u8], row: &StoredRow<'_>) {
        let (seq, updated, deleted) = (row.seq.get(), row.updated, row.deleted);
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(row.row);
        self.rows.push(GatheredRow { key_end, end: self.bytes.len(), seq, updated, deleted });
    }

    /// Each row, its key and its bytes.
    fn iter(&self) -> impl Iterator<Item = (&GatheredRow, &[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.rows.iter().map(|row| row.end));
        let of = |from: usize, until: usize| self.bytes.get(from..until).unwrap_or_default();
        starts
            .zip(&self.rows)
            .map(move |(start, row)| (row, of(start, row.key_end), of(row.key_end, row.end)))
    }
}

/// Makes columns of rows, and packs those into the file.
struct Packer {
    version: SchemaVersion,
    columns: Vec<ColdColumn>,
    schema: SchemaRef,
    out: ArrowWriter<Vec<u8>>,
    /// By column: bytes of texts or bytes that the last rows had, so that columns need not grow, which copies them.
    bytes: Vec<usize>,
}

impl Packer {
    /// Into a new file that will have so many rows, about.
    fn new(origin: &FileOrigin, rows: u64) -> Result<Self> {
        let (schema, properties) = describe(origin, rows);
        let out = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        let (version, columns) = (origin.version, origin.columns.clone());
        let bytes = vec![0; columns.len()];
        Ok(Self { version, columns, schema, out, bytes })
    }

    fn pack(&mut self, gathered: &Gathered) -> Result<()> {
        let Some(columns) = self.columns_of(gathered) else { return Err(Error::Damaged { what: "row" }) };
        Ok(self.out.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?)
    }

    /// Rows as columns; none where one is not of the origin, or not legal.
    fn columns_of(&mut self, gathered: &Gathered) -> Option<Vec<ArrayRef>> {
        let rows = gathered.rows.len();
        let mut keys = BinaryBuilder::with_capacity(rows, gathered.bytes.len() / 8);
        let mut seqs = Int64Builder::with_capacity(rows);
        let mut times = TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("+00:00");
        let mut deleted = BooleanBuilder::with_capacity(rows);
        let columns = self.columns.iter().zip(&self.bytes);
        let mut cells: Vec<CellBuilder> = columns
            .map(|(column, bytes)| CellBuilder::with_capacity(column.data_type, rows, bytes + bytes / 8))
            .collect();
        for (head, key, row) in gathered.iter() {
            let row = RowReader::new(row).ok()?;
            if row.version() != self.version || row.count() != cells.len() {
                return None;
            }
            let mut row = row.typed();
            for out in &mut cells {
                out.append(&mut row)?;
            }
            keys.append_value(key);
            seqs.append_value(head.seq.cast_signed());
            times.append_value(head.updated);
            deleted.append_value(head.deleted);
        }
        self.bytes = cells.iter().map(CellBuilder::bytes).collect();
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(keys.finish()),
            Arc::new(seqs.finish()),
            Arc::new(times.finish()),
            Arc::new(deleted.finish()),
        ];
        for out in &mut cells {
            arrays.push(out.finish()?);
        }
        Some(arrays)
    }
}

/// Who packs.
enum Packing {
    /// Who writes does it, at the end: there is one batch at the most.
    Here(Option<Gathered>),
    /// A thread does it, one batch behind the other.
    Beside(SyncSender<Gathered>, JoinHandle<Result<Box<Packer>>>),
    /// Nobody: it has failed.
    Gone,
}

impl Packing {
    fn take(&mut self, batch: Gathered, origin: &FileOrigin) -> Result<()> {
        match std::mem::replace(self, Self::Gone) {
            Self::Here(None) => *self = Self::Here(Some(batch)),
            // There is more than one: who gathers rows need not wait for them to be packed.
            Self::Here(Some(first)) => {
                let mut packer = Box::new(Packer::new(origin, BLOOM_VALUES)?);
                let (sender, batches) = sync_channel(BATCHES_WAITING);
                let work = move || {
                    for batch in std::iter::once(first).chain(batches) {
                        packer.pack(&batch)?;
                    }
                    Ok(packer)
                };
                let spawned = std::thread::Builder::new().name("cold-packer".to_owned()).spawn(work);
                let thread = spawned.map_err(Error::Thread)?;
                *self = Self::Beside(sender, thread);
                return self.take(batch, origin);
            }
            Self::Beside(sender, thread) if sender.send(batch).is_ok() => {
                *self = Self::Beside(sender, thread);
            }
            // It takes no more since it has failed: it says how.
            gone => return gone.back(origin).map(drop),
        }
        Ok(())
    }

    /// The packer, once it has all batches.
    fn back(self, origin: &FileOrigin) -> Result<Box<Packer>> {
        match self {
            Self::Here(batch) => {
                let batch = batch.unwrap_or_default();
                let mut packer = Packer::new(origin, batch.rows.len() as u64)?;
                packer.pack(&batch)?;
                Ok(Box::new(packer))
            }
            Self::Beside(sender, thread) => {
                drop(sender);
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            }
            Self::Gone => Err(Error::Damaged { what: "cold file that is being written" }),
        }
    }
}

/// A file that is being written, in memory: who writes bounds its rows.
pub struct ColdWriter {
    origin: FileOrigin,
    packing: Packing,
    gathered: Gathered,
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

impl ColdWriter {
    /// A file without rows.
    pub fn new(origin: FileOrigin) -> Self {
        Self {
            packing: Packing::Here(None),
            gathered: Gathered::default(),
            rows: 0,
            seqs: (u64::MAX, 0),
            times: (i64::MAX, i64::MIN),
            keys: (Vec::new(), Vec::new()),
            origin,
        }
    }

    /// Adds the row of the next greater key. Whether it is one of the origin's is found when it is packed, at the end at the latest.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a key out of order, or a row before that was not of the origin.
    pub fn push(&mut self, key: &[u8], row: &StoredRow<'_>) -> Result<()> {
        if self.rows == 0 {
            self.keys.0 = key.to_vec();
        } else if self.keys.1.as_slice() >= key {
            return Err(Error::Damaged { what: "row" });
        }
        self.keys.1.clear();
        self.keys.1.extend_from_slice(key);
        self.gathered.push(key, row);
        self.seqs = (self.seqs.0.min(row.seq.get()), self.seqs.1.max(row.seq.get()));
        self.times = (self.times.0.min(row.updated), self.times.1.max(row.updated));
        self.rows += 1;
        if self.gathered.rows.len() < BATCH_ROWS {
            return Ok(());
        }
        let next = Gathered::like(&self.gathered);
        self.packing.take(std::mem::replace(&mut self.gathered, next), &self.origin)
    }

    /// What its rows are of.
    pub(super) const fn origin(&self) -> &FileOrigin {
        &self.origin
    }

    /// Rows so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The file.
    ///
    /// # Errors
    /// Where Parquet cannot write it.
    pub fn finish(mut self) -> Result<WrittenFile> {
        if !self.gathered.rows.is_empty() {
            self.packing.take(self.gathered, &self.origin)?;
        }
        let Packer { mut out, schema, .. } = *self.packing.back(&self.origin)?;
        let pairs = [("kalamdb.first_seq", self.seqs.0), ("kalamdb.last_seq", self.seqs.1)];
        for (name, seq) in pairs {
            out.append_key_value_metadata(KeyValue::new(name.to_owned(), seq.to_string()));
        }
        let metadata = out.finish()?;
        let bounds = self.origin.columns.iter().zip(schema.fields().iter().skip(SYSTEM_COLUMNS.len()));
        let bounds = bounds.filter_map(|(column, field)| bounds_of(column, field.name(), &schema, &metadata));
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
fn describe(origin: &FileOrigin, rows: u64) -> (SchemaRef, WriterProperties) {
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
        properties = with_bloom_filter(properties, ColumnPath::from(name), rows);
    }
    for name in ["_seq", "_updated"] {
        properties = with_differences(properties, ColumnPath::from(name));
    }
    let is_whole_key = origin.columns.iter().filter(|column| column.is_key).count() == 1;
    for column in &origin.columns {
        let is_taken = fields.iter().any(|field| *field.name() == column.name);
        let name =
            if is_taken { format!("{}#{}", column.name, column.id.get()) } else { column.name.clone() };
        properties = of_column(properties, column, &name, (is_whole_key, rows));
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
    (is_whole_key, rows): (bool, u64),
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
    let properties = with_bloom_filter(properties, path.clone(), rows);
    match column.data_type {
        _ if !is_whole_key => properties,
        DataType::Int | DataType::BigInt | DataType::Timestamp | DataType::DateTime => {
            with_differences(properties, path)
        }
        _ => properties.set_column_dictionary_enabled(path, false),
    }
}

fn with_bloom_filter(
    properties: WriterPropertiesBuilder,
    path: ColumnPath,
    rows: u64,
) -> WriterPropertiesBuilder {
    properties
        .set_column_bloom_filter_enabled(path.clone(), true)
        .set_column_bloom_filter_max_ndv(path, rows.max(1))
}

/// Numbers that mostly rise, each as what it is more than the one before.
fn with_differences(properties: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
}
