//! Rows to Arrow, straight from their bytes; the columns a batch of them has.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result as QueryResult};
use kalamdb_store::CellBuilder;
use log_format::{CellRef, DataType, RowReader, SchemaVersion, Seq, Value};

use crate::error::{Error, Result};
use crate::table::{CellTarget, SystemColumn, TableInfo};
use crate::widening::{NO_UUID_TEXT, column_of_now};

/// Bytes of texts or bytes that a row is expected to have in a column of them.
const BYTES_EXPECTED: usize = 16;

/// A column of a batch that is being filled, of a table's column of this type.
struct ColumnBuilder {
    data_type: DataType,
    cells: CellBuilder,
}

impl ColumnBuilder {
    /// With room for so many rows.
    fn new(data_type: DataType, rows: usize) -> Self {
        let cells = CellBuilder::with_capacity(data_type, rows, rows * BYTES_EXPECTED);
        Self { data_type, cells }
    }

    /// The column, as queries have it; the builder is empty after.
    fn finish(&mut self) -> Result<ArrayRef> {
        let array = self
            .cells
            .finish()
            .ok_or_else(|| Error::Inconsistent { reason: "a row has a text that is not UTF-8".to_owned() })?;
        column_of_now(&array, self.data_type, self.data_type)
    }
}

/// So many times what rows older than a column hold in it.
pub(crate) fn constant_column(info: &TableInfo, position: usize, rows: usize) -> Result<ArrayRef> {
    let data_type = info.columns().get(position).map_or(DataType::Boolean, |column| column.data_type);
    let mut builder = ColumnBuilder::new(data_type, rows);
    let mut scratch = Vec::new();
    let value = info.missing_values().get(position).unwrap_or(&Value::Null);
    let cell = value.as_cell(&mut scratch);
    for _ in 0..rows {
        builder.cells.append_cell(&cell);
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
            if target.is_as_written() && walk.typed(*cell, |cells| builder.cells.append(cells))?.is_some() {
                continue;
            }
            let cell = walk.cell(*cell)?.unwrap_or(CellRef::Null);
            builder.cells.append_cell(&target.read(cell, &mut text));
        }
        for slot in &self.route.others {
            let (Some(column), Some(builder)) = (self.shape.columns.get(*slot), self.builders.get_mut(*slot))
            else {
                continue;
            };
            match column {
                ShapeColumn::System(SystemColumn::Seq) => {
                    builder.cells.append_cell(&CellRef::BigInt(head.seq.get().cast_signed()));
                }
                ShapeColumn::System(SystemColumn::Updated) => {
                    builder.cells.append_cell(&CellRef::DateTime(head.updated));
                }
                ShapeColumn::System(SystemColumn::Deleted) => {
                    builder.cells.append_cell(&CellRef::Boolean(head.deleted));
                }
                ShapeColumn::Own(position) => {
                    let mut scratch = Vec::new();
                    let value = self.missing.get(*position).unwrap_or(&Value::Null);
                    builder.cells.append_cell(&value.as_cell(&mut scratch));
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

    /// The rows so far as a batch. The builder is empty after, and of no use where it fails.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.builders.iter_mut().map(ColumnBuilder::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.shape.schema), arrays, &options)?)
    }
}
