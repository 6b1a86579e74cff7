//! Writes one cold file: rows of one schema version in key order, sorted once and for all.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Int64Builder, RecordBatch, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use log_format::{DataType, Partition, RowReader, SchemaVersion};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::columns::{CellBuilder, ColdColumn};
use crate::error::{Error, Result};
use crate::keyspace::StoredRow;

/// The encoded primary key, which the file is sorted by.
pub(super) const KEY_COLUMN: &str = "_key";
/// Whether a row is deleted.
pub(super) const DELETED_COLUMN: &str = "_deleted";
/// The columns before the table's own: key, seq, commit time, whether deleted.
pub(super) const SYSTEM_COLUMNS: [&str; 4] = [KEY_COLUMN, "_seq", "_updated", DELETED_COLUMN];
/// Rows of a page at the most: what is read for the sake of one row.
const PAGE_ROWS: usize = 1024;
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
}

/// A file that is being written, in memory: who writes bounds its rows.
pub struct ColdWriter {
    origin: FileOrigin,
    schema: SchemaRef,
    out: ArrowWriter<Vec<u8>>,
    key: BinaryBuilder,
    seq: Int64Builder,
    updated: TimestampMicrosecondBuilder,
    deleted: BooleanBuilder,
    cells: Vec<CellBuilder>,
    in_batch: usize,
    rows: u64,
    seqs: (u64, u64),
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
    ///
    /// # Errors
    /// Where Parquet cannot hold such columns.
    pub fn new(origin: FileOrigin) -> Result<Self> {
        let (schema, properties) = describe(&origin);
        let out = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        Ok(Self {
            schema,
            out,
            key: BinaryBuilder::new(),
            seq: Int64Builder::new(),
            updated: TimestampMicrosecondBuilder::new().with_timezone("+00:00"),
            deleted: BooleanBuilder::new(),
            cells: origin.columns.iter().map(|column| CellBuilder::new(column.data_type)).collect(),
            in_batch: 0,
            rows: 0,
            seqs: (u64::MAX, 0),
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
        for (cell, out) in cells.cells().zip(&mut self.cells) {
            out.append(&cell.map_err(|_| DAMAGED)?)?;
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
        self.rows += 1;
        self.in_batch += 1;
        if self.in_batch == BATCH_ROWS { self.write_batch() } else { Ok(()) }
    }

    /// What its rows are of.
    pub(super) const fn origin(&self) -> &FileOrigin {
        &self.origin
    }

    /// Rows so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    fn write_batch(&mut self) -> Result<()> {
        self.in_batch = 0;
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.key.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.updated.finish()),
            Arc::new(self.deleted.finish()),
        ];
        arrays.extend(self.cells.iter_mut().map(CellBuilder::finish));
        Ok(self.out.write(&RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)?)
    }

    /// The file.
    ///
    /// # Errors
    /// Where Parquet cannot write it.
    pub fn finish(mut self) -> Result<WrittenFile> {
        if self.in_batch > 0 {
            self.write_batch()?;
        }
        let pairs = [("kalamdb.first_seq", self.seqs.0), ("kalamdb.last_seq", self.seqs.1)];
        for (name, seq) in pairs {
            self.out.append_key_value_metadata(KeyValue::new(name.to_owned(), seq.to_string()));
        }
        let bytes = Bytes::from(self.out.into_inner()?);
        let crc32c = crc32c::crc32c(&bytes);
        Ok(WrittenFile { bytes, crc32c, rows: self.rows, seqs: self.seqs, keys: self.keys })
    }
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
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]));
    for name in [KEY_COLUMN, "_updated"] {
        properties = properties.set_column_bloom_filter_enabled(ColumnPath::from(name), true);
    }
    for column in &origin.columns {
        let is_taken = fields.iter().any(|field| *field.name() == column.name);
        let name =
            if is_taken { format!("{}#{}", column.name, column.id.get()) } else { column.name.clone() };
        properties = of_column(properties, column, &name);
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
) -> WriterPropertiesBuilder {
    // What a column of lists is called further down does not matter to these.
    let path = ColumnPath::from(name);
    match column.data_type {
        // IMPORTANT: a dictionary may take 0.0 for -0.0; rows come back to the bit.
        DataType::Float | DataType::Double => properties.set_column_dictionary_enabled(path, false),
        DataType::Embedding(_) => properties.set_column_dictionary_enabled(
            ColumnPath::new(vec![name.to_owned(), "list".to_owned(), "item".to_owned()]),
            false,
        ),
        _ if column.is_key => properties.set_column_bloom_filter_enabled(path, true),
        _ => properties,
    }
}
