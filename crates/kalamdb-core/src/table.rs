//! A table as statements see it: its columns now, and how rows of older schema versions become rows of now.

use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use kalamdb_store::Keyspace;
use log_format::{
    CellRef, Column, ColumnDefault, DataType, KeyBuilder, KeyReader, RowBuilder, RowReader, SchemaVersion,
    StreamOptions, Table, TableId, TableKind, TableSchema, Value,
};

use crate::error::{Error, Result};
use crate::rows::Shape;
use crate::values;
use crate::widening::{NO_UUID_TEXT, UuidText, Widening};

pub use kalamdb_query::TYPE_METADATA;

/// The key of a table that defines none: no column that is defined may be called so.
pub(crate) const GENERATED_KEY: &str = "_id";

/// A column the system fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemColumn {
    /// The event that wrote the row.
    Seq,
    /// When that was committed.
    Updated,
    /// Whether the row is deleted.
    Deleted,
}

impl SystemColumn {
    /// All of them, in the order in which they follow a table's own columns.
    pub const ALL: [Self; 3] = [Self::Seq, Self::Updated, Self::Deleted];

    /// The column's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seq => "_seq",
            Self::Updated => "_updated",
            Self::Deleted => "_deleted",
        }
    }

    /// The column's type.
    pub const fn data_type(self) -> DataType {
        match self {
            Self::Seq => DataType::BigInt,
            Self::Updated => DataType::DateTime,
            Self::Deleted => DataType::Boolean,
        }
    }

    /// Its Arrow field.
    pub fn field(self) -> Field {
        arrow_field(self.name(), self.data_type(), false)
    }
}

/// The Arrow type that holds values of a SQL type.
pub(crate) fn arrow_type(data_type: DataType) -> ArrowType {
    match data_type {
        // They are shown and compared in their canonical text form.
        DataType::Uuid => ArrowType::Utf8,
        other => kalamdb_store::arrow_type(other),
    }
}

/// The Arrow field of a column of this SQL type.
pub(crate) fn arrow_field(name: &str, data_type: DataType, nullable: bool) -> Field {
    let field = Field::new(name, arrow_type(data_type), nullable);
    match data_type {
        DataType::Json | DataType::Uuid => {
            field.with_metadata([(TYPE_METADATA.to_owned(), data_type.to_string())].into())
        }
        _ => field,
    }
}

/// The SQL type of an Arrow field.
pub fn sql_type(field: &Field) -> DataType {
    match field.metadata().get(TYPE_METADATA).map(String::as_str) {
        Some("JSON") => return DataType::Json,
        Some("UUID") => return DataType::Uuid,
        _ => {}
    }
    match field.data_type() {
        ArrowType::Boolean => DataType::Boolean,
        ArrowType::Int8 | ArrowType::Int16 | ArrowType::UInt8 => DataType::SmallInt,
        ArrowType::Int32 | ArrowType::UInt16 => DataType::Int,
        ArrowType::Int64 | ArrowType::UInt32 | ArrowType::UInt64 => DataType::BigInt,
        ArrowType::Float16 | ArrowType::Float32 => DataType::Float,
        ArrowType::Float64 => DataType::Double,
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale)
        | ArrowType::Decimal256(precision, scale) => {
            DataType::Decimal { precision: *precision, scale: u8::try_from(*scale).unwrap_or(0) }
        }
        ArrowType::Timestamp(_, None) => DataType::Timestamp,
        ArrowType::Timestamp(_, Some(_)) => DataType::DateTime,
        ArrowType::Date32 | ArrowType::Date64 => DataType::Date,
        ArrowType::Time32(_) | ArrowType::Time64(_) => DataType::Time,
        ArrowType::Binary
        | ArrowType::LargeBinary
        | ArrowType::BinaryView
        | ArrowType::FixedSizeBinary(_) => DataType::Bytes,
        ArrowType::FixedSizeList(item, dimension) if *item.data_type() == ArrowType::Float32 => {
            DataType::Embedding(u32::try_from(*dimension).unwrap_or(0))
        }
        // Text, and what has no SQL type of its own: it is shown as text.
        _ => DataType::Text,
    }
}

/// What a cell of an old row becomes in a row of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellTarget {
    /// The column now; none where it was dropped.
    pub(crate) column: Option<usize>,
    /// What it goes through; nothing where the column has the type it was written with.
    widening: Option<Widening>,
}

impl CellTarget {
    /// Whether the column still has the type that it was written with.
    pub(crate) const fn is_as_written(&self) -> bool {
        self.widening.is_none()
    }

    /// The cell as it is in a row of now.
    pub(crate) fn read<'a>(&self, cell: CellRef<'a>, text: &'a mut UuidText) -> CellRef<'a> {
        match self.widening {
            None => cell,
            Some(widening) => widening.cell(cell, text),
        }
    }
}

/// A table: its record, its columns now, and every schema version.
#[derive(Debug)]
pub(crate) struct TableInfo {
    table: Table,
    versions: Vec<TableSchema>,
    columns: Vec<Column>,
    key_columns: Vec<usize>,
    arrow: SchemaRef,
    /// By version: what becomes of its cells.
    targets: Vec<Vec<CellTarget>>,
    /// By column: what a row that was written before it was added holds in it.
    missing: Vec<Value>,
    shape: OnceLock<Shape>,
}

impl TableInfo {
    pub(crate) fn new(table: Table, versions: Vec<TableSchema>) -> Result<Self> {
        let name = format!("{}.{}", table.namespace, table.name);
        let current = versions
            .iter()
            .find(|schema| schema.version == table.current_version)
            .ok_or_else(|| Error::Inconsistent {
                reason: format!("table {name} has no schema version {}", table.current_version),
            })?
            .clone();
        let position = |id| current.columns.iter().position(|column| column.id == id);
        let key_columns: Option<Vec<usize>> = current.primary_key.iter().map(|id| position(*id)).collect();
        let key_columns = key_columns.ok_or_else(|| Error::Inconsistent {
            reason: format!("table {name}: a key column is not among its columns"),
        })?;
        let target = |written: &Column| {
            let column = position(written.id);
            let now = column.and_then(|at| current.columns.get(at)).map(|column| column.data_type);
            CellTarget { column, widening: now.and_then(|now| Widening::between(written.data_type, now)) }
        };
        let targets = versions.iter().map(|schema| schema.columns.iter().map(target).collect()).collect();
        let missing = current.columns.iter().map(|column| missing_value(column, &versions));
        let missing = missing.collect::<Result<Vec<Value>>>()?;
        let fields: Vec<Field> = current
            .columns
            .iter()
            .zip(&missing)
            .map(|(column, missing)| {
                let nullable = column.nullable || missing.is_null() && is_added(column, &versions);
                arrow_field(&column.name, column.data_type, nullable)
            })
            .collect();
        Ok(Self {
            table,
            versions,
            columns: current.columns,
            key_columns,
            arrow: Arc::new(Schema::new(fields)),
            targets,
            missing,
            shape: OnceLock::new(),
        })
    }

    pub(crate) const fn id(&self) -> TableId {
        self.table.id
    }

    pub(crate) const fn record(&self) -> &Table {
        &self.table
    }

    pub(crate) const fn kind(&self) -> &TableKind {
        &self.table.kind
    }

    pub(crate) const fn stream(&self) -> Option<&StreamOptions> {
        match &self.table.kind {
            TableKind::Stream(options) => Some(options),
            _ => None,
        }
    }

    pub(crate) const fn keyspace(&self) -> Keyspace {
        match self.table.kind {
            TableKind::User => Keyspace::User,
            TableKind::Shared(_) => Keyspace::Shared,
            TableKind::Stream(_) => Keyspace::Stream,
        }
    }

    pub(crate) const fn kind_name(&self) -> &'static str {
        match self.table.kind {
            TableKind::User => "user",
            TableKind::Shared(_) => "shared",
            TableKind::Stream(_) => "stream",
        }
    }

    /// `namespace.name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.table.namespace, self.table.name)
    }

    pub(crate) const fn version(&self) -> SchemaVersion {
        self.table.current_version
    }

    pub(crate) fn versions(&self) -> &[TableSchema] {
        &self.versions
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Positions of the primary key's columns, in key order.
    pub(crate) fn key_columns(&self) -> &[usize] {
        &self.key_columns
    }

    /// The table's own columns, without the system's.
    pub(crate) const fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The system columns this kind of table has.
    pub(crate) fn system_columns(&self) -> &'static [SystemColumn] {
        if self.stream().is_some() { &SystemColumn::ALL[..1] } else { &SystemColumn::ALL }
    }

    /// All of its columns, then the system's.
    pub(crate) fn shape(&self) -> &Shape {
        self.shape.get_or_init(|| Shape::of_table(self, self.system_columns()))
    }

    pub(crate) fn column_position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// What becomes of the cells of a row of `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a version that came after this one: the table was altered meanwhile, plan anew.
    pub(crate) fn targets(&self, version: SchemaVersion) -> Result<&[CellTarget]> {
        if version > self.version() {
            return Err(Error::Conflict { attempts: 1 });
        }
        self.versions
            .iter()
            .position(|schema| schema.version == version)
            .and_then(|at| self.targets.get(at))
            .map(Vec::as_slice)
            .ok_or_else(|| Error::Inconsistent {
                reason: format!("a row of {} has the unknown schema version {version}", self.full_name()),
            })
    }

    /// The values of a row, as a row of now.
    pub(crate) fn values(&self, row: &[u8]) -> Result<Vec<Value>> {
        let reader = RowReader::new(row)?;
        let mut values = self.missing.clone();
        let mut text = NO_UUID_TEXT;
        for (cell, target) in reader.cells().zip(self.targets(reader.version())?) {
            if let Some(slot) = target.column.and_then(|column| values.get_mut(column)) {
                *slot = target.read(cell?, &mut text).to_value();
            }
        }
        Ok(values)
    }

    /// The value of one column in a row, as of now.
    pub(crate) fn value_in(&self, row: &[u8], column: usize) -> Result<Value> {
        let reader = RowReader::new(row)?;
        let mut text = NO_UUID_TEXT;
        let mut cells = reader.cells().zip(self.targets(reader.version())?);
        match cells.find(|(_, target)| target.column == Some(column)) {
            Some((cell, target)) => Ok(target.read(cell?, &mut text).to_value()),
            None => Ok(self.missing.get(column).cloned().unwrap_or(Value::Null)),
        }
    }

    /// What a row that was written before a column was added holds in it.
    pub(crate) fn missing_values(&self) -> &[Value] {
        &self.missing
    }

    /// The bytes of a row of now.
    pub(crate) fn encode_row(&self, values: &[Value]) -> Result<Vec<u8>> {
        let mut row = RowBuilder::new(self.version());
        for value in values {
            row.push(value);
        }
        Ok(row.finish()?)
    }

    /// The primary key of a row of now.
    pub(crate) fn encode_key(&self, values: &[Value]) -> Result<Vec<u8>> {
        let mut key = KeyBuilder::new();
        for &position in &self.key_columns {
            let value = values.get(position).unwrap_or(&Value::Null);
            key.push(value).map_err(|_| self.constraint(position, "a key column cannot be NULL"))?;
        }
        Ok(key.finish())
    }

    /// What an INSERT is told whose key is taken.
    pub(crate) fn duplicate_key(&self, key: &[u8]) -> Error {
        let mut reader = KeyReader::new(key);
        let columns = self.key_columns.iter().filter_map(|at| self.columns.get(*at));
        let values = columns.map(|column| reader.next(column.data_type).map(|value| values::to_text(&value)));
        match values.collect::<Result<Vec<String>, _>>() {
            Ok(values) => Error::DuplicateKey { table: self.full_name(), key: values.join(", ") },
            Err(error) => error.into(),
        }
    }

    /// A constraint of one column that a row breaks.
    pub(crate) fn constraint(&self, position: usize, problem: impl Into<String>) -> Error {
        Error::Constraint {
            table: self.full_name(),
            column: self.columns.get(position).map(|column| column.name.clone()).unwrap_or_default(),
            problem: problem.into(),
        }
    }
}

/// The value of a default that is the same for every row; NULL where there is none.
pub(crate) fn constant_default(column: &Column) -> Result<Value> {
    match &column.default {
        Some(ColumnDefault::Constant(cell)) => {
            Ok(RowReader::new(cell)?.values()?.into_iter().next().unwrap_or(Value::Null))
        }
        _ => Ok(Value::Null),
    }
}

/// What a row that was written before the column was added holds in it: the default that it was added with, whatever became of
/// that since.
fn missing_value(column: &Column, versions: &[TableSchema]) -> Result<Value> {
    let in_version = |schema: &TableSchema| {
        let found = schema.columns.iter().find(|other| other.id == column.id)?;
        Some((schema.version, found.clone()))
    };
    let Some((_, added)) = versions.iter().filter_map(in_version).min_by_key(|(version, _)| *version) else {
        return Ok(Value::Null);
    };
    let value = constant_default(&added)?;
    Ok(match Widening::between(added.data_type, column.data_type) {
        Some(widening) if !value.is_null() => widening.value(&value),
        _ => value,
    })
}

/// Whether rows of older versions, tombstones and events among them, may lack the column. Where they have nothing in its place
/// Arrow is told so, though no row that is written can.
fn is_added(column: &Column, versions: &[TableSchema]) -> bool {
    let is_in = |schema: &TableSchema| schema.columns.iter().any(|other| other.id == column.id);
    !versions.iter().all(is_in)
}
