//! Rows to Arrow, straight from their bytes; the columns a batch of them has.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeListBuilder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, RecordBatch,
    RecordBatchOptions, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result as QueryResult};
use log_format::{CellRef, DataType, RowReader, SchemaVersion, Seq, TypedCells, Value};

use crate::error::Result;
use crate::table::{CellTarget, SystemColumn, TableInfo, arrow_type};
use crate::widening::NO_UUID_TEXT;

/// One column that is being filled.
enum ColumnBuilder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Uuid(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Bytes(BinaryBuilder),
    Embedding(FixedSizeListBuilder<Float32Builder>, usize),
}

impl ColumnBuilder {
    /// With room for so many values.
    fn new(data_type: DataType, rows: usize) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::SmallInt => Self::SmallInt(Int16Builder::with_capacity(rows)),
            DataType::Int => Self::Int(Int32Builder::with_capacity(rows)),
            DataType::BigInt => Self::BigInt(Int64Builder::with_capacity(rows)),
            DataType::Float => Self::Float(Float32Builder::with_capacity(rows)),
            DataType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            DataType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(arrow_type(data_type)))
            }
            DataType::Text | DataType::Json => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            DataType::Uuid => Self::Uuid(StringBuilder::with_capacity(rows, rows * 16)),
            DataType::Timestamp | DataType::DateTime => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(arrow_type(data_type)),
            ),
            DataType::Date => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            DataType::Bytes => Self::Bytes(BinaryBuilder::with_capacity(rows, rows * 16)),
            DataType::Embedding(dimension) => {
                let item = datafusion::arrow::datatypes::Field::new_list_field(
                    datafusion::arrow::datatypes::DataType::Float32,
                    false,
                );
                let list = FixedSizeListBuilder::new(
                    Float32Builder::new(),
                    i32::try_from(dimension).unwrap_or(i32::MAX),
                );
                Self::Embedding(list.with_field(Arc::new(item)), dimension as usize)
            }
        }
    }

    /// Adds a cell of the column's type; one of another type would be NULL.
    fn append(&mut self, cell: &CellRef<'_>) {
        match self {
            Self::Boolean(out) => {
                out.append_option(if let CellRef::Boolean(v) = cell { Some(*v) } else { None });
            }
            Self::SmallInt(out) => {
                out.append_option(if let CellRef::SmallInt(v) = cell { Some(*v) } else { None });
            }
            Self::Int(out) => out.append_option(if let CellRef::Int(v) = cell { Some(*v) } else { None }),
            Self::BigInt(out) => {
                out.append_option(if let CellRef::BigInt(v) = cell { Some(*v) } else { None });
            }
            Self::Float(out) => out.append_option(if let CellRef::Float(v) = cell { Some(*v) } else { None }),
            Self::Double(out) => {
                out.append_option(if let CellRef::Double(v) = cell { Some(*v) } else { None });
            }
            Self::Decimal(out) => {
                out.append_option(if let CellRef::Decimal(v) = cell { Some(*v) } else { None });
            }
            Self::Text(out) => match cell {
                CellRef::Text(v) | CellRef::Json(v) => out.append_value(v),
                _ => out.append_null(),
            },
            Self::Uuid(out) => match cell {
                CellRef::Uuid(v) => {
                    let mut text = uuid::Uuid::encode_buffer();
                    out.append_value(uuid::Uuid::from_bytes(**v).hyphenated().encode_lower(&mut text));
                }
                _ => out.append_null(),
            },
            Self::Timestamp(out) => match cell {
                CellRef::Timestamp(v) | CellRef::DateTime(v) => out.append_value(*v),
                _ => out.append_null(),
            },
            Self::Date(out) => out.append_option(if let CellRef::Date(v) = cell { Some(*v) } else { None }),
            Self::Time(out) => out.append_option(if let CellRef::Time(v) = cell { Some(*v) } else { None }),
            Self::Bytes(out) => out.append_option(if let CellRef::Bytes(v) = cell { Some(*v) } else { None }),
            Self::Embedding(out, dimension) => append_embedding(out, *dimension, cell),
        }
    }

    /// Adds a row's next cell, read as the column's type, which is quick; none, and nothing added, where it is of another, or one
    /// that has to be turned into something.
    #[inline]
    fn append_typed(&mut self, cells: &mut TypedCells<'_>) -> Option<()> {
        match self {
            Self::Boolean(out) => out.append_option(cells.boolean()?),
            Self::SmallInt(out) => out.append_option(cells.small_int()?),
            Self::Int(out) => out.append_option(cells.int()?),
            Self::BigInt(out) => out.append_option(cells.big_int()?),
            Self::Float(out) => out.append_option(cells.float()?),
            Self::Double(out) => out.append_option(cells.double()?),
            Self::Decimal(out) => out.append_option(cells.decimal()?),
            Self::Text(out) => out.append_option(cells.text()?),
            Self::Timestamp(out) => out.append_option(cells.timestamp()?),
            Self::Date(out) => out.append_option(cells.date()?),
            Self::Time(out) => out.append_option(cells.time()?),
            Self::Bytes(out) => out.append_option(cells.bytes()?),
            Self::Uuid(_) | Self::Embedding(..) => return None,
        }
        Some(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(out) => Arc::new(out.finish()),
            Self::SmallInt(out) => Arc::new(out.finish()),
            Self::Int(out) => Arc::new(out.finish()),
            Self::BigInt(out) => Arc::new(out.finish()),
            Self::Float(out) => Arc::new(out.finish()),
            Self::Double(out) => Arc::new(out.finish()),
            Self::Decimal(out) => Arc::new(out.finish()),
            Self::Text(out) | Self::Uuid(out) => Arc::new(out.finish()),
            Self::Timestamp(out) => Arc::new(out.finish()),
            Self::Date(out) => Arc::new(out.finish()),
            Self::Time(out) => Arc::new(out.finish()),
            Self::Bytes(out) => Arc::new(out.finish()),
            Self::Embedding(out, _) => Arc::new(out.finish()),
        }
    }
}

fn append_embedding(out: &mut FixedSizeListBuilder<Float32Builder>, dimension: usize, cell: &CellRef<'_>) {
    if let CellRef::Embedding(bytes) = cell
        && bytes.len() == dimension * 4
    {
        for chunk in bytes.as_chunks::<4>().0 {
            out.values().append_value(f32::from_le_bytes(*chunk));
        }
        out.append(true);
    } else {
        out.values().append_slice(&vec![0.0; dimension]);
        out.append(false);
    }
}

/// So many times what rows older than a column hold in it.
pub(crate) fn constant_column(info: &TableInfo, position: usize, rows: usize) -> ArrayRef {
    let data_type = info.columns().get(position).map_or(DataType::Boolean, |column| column.data_type);
    let mut builder = ColumnBuilder::new(data_type, rows);
    let mut scratch = Vec::new();
    let value = info.missing_values().get(position).unwrap_or(&Value::Null);
    let cell = value.as_cell(&mut scratch);
    for _ in 0..rows {
        builder.append(&cell);
    }
    builder.finish()
}

/// One column of a batch of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShapeColumn {
    /// The table's own, by position.
    Own(usize),
    /// One of the system's.
    System(SystemColumn),
}

/// Which columns a batch of rows has, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    columns: Vec<ShapeColumn>,
    schema: SchemaRef,
}

impl Shape {
    /// All of the table's columns, then these of the system's.
    pub(crate) fn of_table(info: &TableInfo, system: &[SystemColumn]) -> Self {
        let own = info.arrow().fields().iter().map(|field| field.as_ref().clone());
        let schema = Schema::new(own.chain(system.iter().map(|column| column.field())).collect::<Vec<_>>());
        let columns = (0..info.columns().len()).map(ShapeColumn::Own);
        let columns = columns.chain(system.iter().copied().map(ShapeColumn::System)).collect();
        Self { columns, schema: Arc::new(schema) }
    }

    /// Some of the columns, by position.
    fn project(&self, projection: &[usize]) -> Result<Self> {
        let columns = projection.iter().filter_map(|at| self.columns.get(*at).copied()).collect();
        Ok(Self { columns, schema: Arc::new(self.schema.project(projection)?) })
    }

    /// What a scan of the query engine asks for: some of the columns, or all.
    pub(crate) fn of_scan(&self, projection: Option<&Vec<usize>>) -> QueryResult<Self> {
        let projected = projection.map_or_else(|| Ok(self.clone()), |projection| self.project(projection));
        projected.map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// The columns, in order.
    pub(crate) fn columns(&self) -> &[ShapeColumn] {
        &self.columns
    }

    /// What that is in Arrow.
    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// What a row is beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowHead {
    pub(crate) seq: Seq,
    pub(crate) updated: i64,
    pub(crate) deleted: bool,
}

/// Fills a batch with rows.
pub(crate) struct BatchBuilder<'t> {
    info: &'t TableInfo,
    shape: &'t Shape,
    /// By column of the table: where in `builders`.
    slots: Vec<Option<usize>>,
    builders: Vec<ColumnBuilder>,
    /// What rows older than a column hold in it, as cells of one row.
    missing: &'t [Value],
    /// Where the cells of rows go that are of the version of the last one.
    route: Route,
    rows: usize,
}

/// Where the cells of rows of one schema version go.
#[derive(Default)]
struct Route {
    version: Option<SchemaVersion>,
    /// By cell, rising: which, into which builder, as what.
    cells: Vec<(usize, usize, CellTarget)>,
    /// The builders that get nothing from cells.
    others: Vec<usize>,
}

impl<'t> BatchBuilder<'t> {
    /// With room for so many rows; it grows if there are more.
    pub(crate) fn new(info: &'t TableInfo, shape: &'t Shape, rows: usize) -> Self {
        let mut slots = vec![None; info.columns().len()];
        let mut builders = Vec::with_capacity(shape.columns.len());
        for (slot, column) in shape.columns.iter().enumerate() {
            let data_type = match column {
                ShapeColumn::System(system) => system.data_type(),
                ShapeColumn::Own(position) => {
                    if let Some(entry) = slots.get_mut(*position) {
                        *entry = Some(slot);
                    }
                    info.columns().get(*position).map_or(DataType::Boolean, |column| column.data_type)
                }
            };
            builders.push(ColumnBuilder::new(data_type, rows));
        }
        let (missing, route) = (info.missing_values(), Route::default());
        Self { info, shape, slots, builders, missing, route, rows: 0 }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, head: RowHead, row: &[u8]) -> Result<()> {
        let reader = RowReader::new(row)?;
        if self.route.version != Some(reader.version()) {
            self.route = self.route_of(reader.version())?;
        }
        let (mut walk, mut text) = (reader.walk(), NO_UUID_TEXT);
        for (cell, slot, target) in &self.route.cells {
            let Some(builder) = self.builders.get_mut(*slot) else { continue };
            if target.is_as_written() && walk.typed(*cell, |cells| builder.append_typed(cells))?.is_some() {
                continue;
            }
            let cell = walk.cell(*cell)?.unwrap_or(CellRef::Null);
            builder.append(&target.read(cell, &mut text));
        }
        for slot in &self.route.others {
            let (Some(column), Some(builder)) = (self.shape.columns.get(*slot), self.builders.get_mut(*slot))
            else {
                continue;
            };
            match column {
                ShapeColumn::System(SystemColumn::Seq) => {
                    builder.append(&CellRef::BigInt(head.seq.get().cast_signed()));
                }
                ShapeColumn::System(SystemColumn::Updated) => {
                    builder.append(&CellRef::DateTime(head.updated));
                }
                ShapeColumn::System(SystemColumn::Deleted) => builder.append(&CellRef::Boolean(head.deleted)),
                ShapeColumn::Own(position) => {
                    let mut scratch = Vec::new();
                    let value = self.missing.get(*position).unwrap_or(&Value::Null);
                    builder.append(&value.as_cell(&mut scratch));
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn route_of(&self, version: SchemaVersion) -> Result<Route> {
        let slot = |target: &CellTarget| self.slots.get(target.column?).copied().flatten();
        let targets = self.info.targets(version)?.iter().enumerate();
        let cells: Vec<_> =
            targets.filter_map(|(cell, target)| Some((cell, slot(target)?, *target))).collect();
        let is_other = |at: &usize| !cells.iter().any(|(_, slot, _)| slot == at);
        let others = (0..self.builders.len()).filter(is_other).collect();
        Ok(Route { version: Some(version), cells, others })
    }

    /// Rows so far.
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// The rows so far as a batch; the builder is empty after.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.shape.schema), arrays, &options)?)
    }
}
