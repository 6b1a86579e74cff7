//! A row's cells as Arrow columns and back, without loss.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    FixedSizeBinaryBuilder, FixedSizeListBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, StringArray, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use log_format::{CellRef, ColumnId, DataType, TypedCells};

use crate::error::{Error, Result};

/// What a field says of its column: its type as KalamDB calls it.
const TYPE_METADATA: &str = "kalamdb.type";
/// What other readers of Parquet know a column by.
const FIELD_ID_METADATA: &str = "PARQUET:field_id";

/// Floats of embeddings that room is made for before they come.
const FLOATS_EXPECTED_MAX: usize = 1 << 16;

/// A column of a table, as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdColumn {
    /// Its id.
    pub id: ColumnId,
    /// Its name when the file was written.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether it is part of the primary key.
    pub is_key: bool,
}

/// The Arrow type of a column's cells as they are stored.
pub fn arrow_type(data_type: DataType) -> ArrowType {
    match data_type {
        DataType::Boolean => ArrowType::Boolean,
        DataType::SmallInt => ArrowType::Int16,
        DataType::Int => ArrowType::Int32,
        DataType::BigInt => ArrowType::Int64,
        DataType::Float => ArrowType::Float32,
        DataType::Double => ArrowType::Float64,
        DataType::Decimal { precision, scale } => {
            ArrowType::Decimal128(precision, i8::try_from(scale).unwrap_or(i8::MAX))
        }
        DataType::Text | DataType::Json => ArrowType::Utf8,
        DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, None),
        DataType::DateTime => ArrowType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        DataType::Date => ArrowType::Date32,
        DataType::Time => ArrowType::Time64(TimeUnit::Microsecond),
        DataType::Bytes => ArrowType::Binary,
        DataType::Uuid => ArrowType::FixedSizeBinary(16),
        DataType::Embedding(dimension) => {
            ArrowType::FixedSizeList(Arc::new(embedding_item()), i32::try_from(dimension).unwrap_or(i32::MAX))
        }
    }
}

fn embedding_item() -> Field {
    Field::new_list_field(ArrowType::Float32, false)
}

impl ColdColumn {
    /// The field of this column under a name that nobody else in the file has.
    pub(super) fn field(&self, name: &str) -> Field {
        let metadata = [
            (TYPE_METADATA.to_owned(), self.data_type.to_string()),
            (FIELD_ID_METADATA.to_owned(), self.id.get().to_string()),
        ];
        // Tombstones and rows from before a column was added have nothing where the table promises something.
        Field::new(name, arrow_type(self.data_type), true).with_metadata(metadata.into_iter().collect())
    }

    /// The column that [`ColdColumn::field`] made a field of.
    pub(super) fn of_field(field: &Field) -> Option<Self> {
        let data_type = parse_type(field.metadata().get(TYPE_METADATA)?)?;
        let id = ColumnId::new(field.metadata().get(FIELD_ID_METADATA)?.parse().ok()?);
        let fits = *field.data_type() == arrow_type(data_type);
        fits.then(|| Self { id, name: field.name().clone(), data_type, is_key: false })
    }
}

/// The type that is written like this.
fn parse_type(text: &str) -> Option<DataType> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (text, ""),
    };
    Some(match name {
        "BOOLEAN" => DataType::Boolean,
        "SMALLINT" => DataType::SmallInt,
        "INT" => DataType::Int,
        "BIGINT" => DataType::BigInt,
        "FLOAT" => DataType::Float,
        "DOUBLE" => DataType::Double,
        "DECIMAL" => {
            let (precision, scale) = arguments.split_once(", ")?;
            DataType::Decimal { precision: precision.parse().ok()?, scale: scale.parse().ok()? }
        }
        "TEXT" => DataType::Text,
        "TIMESTAMP" => DataType::Timestamp,
        "DATETIME" => DataType::DateTime,
        "DATE" => DataType::Date,
        "TIME" => DataType::Time,
        "JSON" => DataType::Json,
        "BYTES" => DataType::Bytes,
        "UUID" => DataType::Uuid,
        "EMBEDDING" => DataType::Embedding(arguments.parse().ok()?),
        _ => return None,
    })
}

/// One column that is being filled.
pub struct CellBuilder(Cells);

enum Cells {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    /// Texts as bytes: that they are UTF-8 is seen of all at once.
    Text(BinaryBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Bytes(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Embedding(FixedSizeListBuilder<Float32Builder>, usize),
}

impl std::fmt::Debug for CellBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CellBuilder").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl CellBuilder {
    /// With room for so many rows, and so many bytes of texts or bytes in them.
    pub fn with_capacity(data_type: DataType, rows: usize, bytes: usize) -> Self {
        let arrow = arrow_type(data_type);
        Self(match data_type {
            DataType::Boolean => Cells::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::SmallInt => Cells::SmallInt(Int16Builder::with_capacity(rows)),
            DataType::Int => Cells::Int(Int32Builder::with_capacity(rows)),
            DataType::BigInt => Cells::BigInt(Int64Builder::with_capacity(rows)),
            DataType::Float => Cells::Float(Float32Builder::with_capacity(rows)),
            DataType::Double => Cells::Double(Float64Builder::with_capacity(rows)),
            DataType::Decimal { .. } => {
                Cells::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(arrow))
            }
            DataType::Text | DataType::Json => Cells::Text(BinaryBuilder::with_capacity(rows, bytes)),
            DataType::Timestamp | DataType::DateTime => {
                Cells::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(arrow))
            }
            DataType::Date => Cells::Date(Date32Builder::with_capacity(rows)),
            DataType::Time => Cells::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            DataType::Bytes => Cells::Bytes(BinaryBuilder::with_capacity(rows, bytes)),
            DataType::Uuid => Cells::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            DataType::Embedding(dimension) => {
                let size = i32::try_from(dimension).unwrap_or(i32::MAX);
                let floats = (rows * dimension as usize).min(FLOATS_EXPECTED_MAX);
                let floats = Float32Builder::with_capacity(floats);
                let list = FixedSizeListBuilder::with_capacity(floats, size, rows);
                Cells::Embedding(list.with_field(embedding_item()), dimension as usize)
            }
        })
    }

    /// Adds a row's next cell, read as the column's type. None, and nothing added, where it is of another, or not legal.
    #[inline]
    pub fn append(&mut self, cells: &mut TypedCells<'_>) -> Option<()> {
        match &mut self.0 {
            Cells::Boolean(out) => out.append_option(cells.boolean()?),
            Cells::SmallInt(out) => out.append_option(cells.small_int()?),
            Cells::Int(out) => out.append_option(cells.int()?),
            Cells::BigInt(out) => out.append_option(cells.big_int()?),
            Cells::Float(out) => out.append_option(cells.float()?),
            Cells::Double(out) => out.append_option(cells.double()?),
            Cells::Decimal(out) => out.append_option(cells.decimal()?),
            Cells::Text(out) => out.append_option(cells.text_bytes()?),
            Cells::Timestamp(out) => out.append_option(cells.timestamp()?),
            Cells::Date(out) => out.append_option(cells.date()?),
            Cells::Time(out) => out.append_option(cells.time()?),
            Cells::Bytes(out) => out.append_option(cells.bytes()?),
            Cells::Uuid(out) => match cells.uuid()? {
                Some(uuid) => out.append_value(uuid).ok()?,
                None => out.append_null(),
            },
            Cells::Embedding(out, dimension) => append_embedding(out, *dimension, cells.embedding()?)?,
        }
        Some(())
    }

    /// Adds a cell; one of another type than the column's is NULL.
    pub fn append_cell(&mut self, cell: &CellRef<'_>) {
        macro_rules! append {
            ($out:ident, $($cell:ident)|+) => {
                match cell {
                    $(CellRef::$cell(value))|+ => $out.append_value(*value),
                    _ => $out.append_null(),
                }
            };
        }
        match &mut self.0 {
            Cells::Boolean(out) => append!(out, Boolean),
            Cells::SmallInt(out) => append!(out, SmallInt),
            Cells::Int(out) => append!(out, Int),
            Cells::BigInt(out) => append!(out, BigInt),
            Cells::Float(out) => append!(out, Float),
            Cells::Double(out) => append!(out, Double),
            Cells::Decimal(out) => append!(out, Decimal),
            Cells::Text(out) => append!(out, Text | Json),
            Cells::Timestamp(out) => append!(out, Timestamp | DateTime),
            Cells::Date(out) => append!(out, Date),
            Cells::Time(out) => append!(out, Time),
            Cells::Bytes(out) => append!(out, Bytes),
            Cells::Uuid(out) => match cell {
                CellRef::Uuid(uuid) if out.append_value(uuid).is_ok() => {}
                _ => out.append_null(),
            },
            Cells::Embedding(out, dimension) => {
                let floats = if let CellRef::Embedding(bytes) = cell { Some(*bytes) } else { None };
                if append_embedding(out, *dimension, floats).is_none() {
                    let _null = append_embedding(out, *dimension, None);
                }
            }
        }
    }

    /// Bytes of texts or bytes in it.
    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Cells::Text(out) | Cells::Bytes(out) => out.values_slice().len(),
            _ => 0,
        }
    }

    /// The column; none where a text is not UTF-8. The builder is empty after.
    pub fn finish(&mut self) -> Option<ArrayRef> {
        Some(match &mut self.0 {
            Cells::Boolean(out) => Arc::new(out.finish()),
            Cells::SmallInt(out) => Arc::new(out.finish()),
            Cells::Int(out) => Arc::new(out.finish()),
            Cells::BigInt(out) => Arc::new(out.finish()),
            Cells::Float(out) => Arc::new(out.finish()),
            Cells::Double(out) => Arc::new(out.finish()),
            Cells::Decimal(out) => Arc::new(out.finish()),
            Cells::Text(out) => Arc::new(StringArray::try_from_binary(out.finish()).ok()?),
            Cells::Timestamp(out) => Arc::new(out.finish()),
            Cells::Date(out) => Arc::new(out.finish()),
            Cells::Time(out) => Arc::new(out.finish()),
            Cells::Bytes(out) => Arc::new(out.finish()),
            Cells::Uuid(out) => Arc::new(out.finish()),
            Cells::Embedding(out, _) => Arc::new(out.finish()),
        })
    }
}

/// Adds a list; none, and nothing added, where it is of another length.
fn append_embedding(
    out: &mut FixedSizeListBuilder<Float32Builder>,
    dimension: usize,
    floats: Option<&[u8]>,
) -> Option<()> {
    match floats {
        Some(bytes) if bytes.len() == dimension * 4 => {
            let floats = bytes.as_chunks::<4>().0.iter();
            floats.for_each(|float| out.values().append_value(f32::from_le_bytes(*float)));
        }
        Some(_) => return None,
        None => out.values().append_slice(&vec![0.0; dimension]),
    }
    out.append(floats.is_some());
    Some(())
}

/// The cell of a column at `row`. `scratch` is where an embedding's bytes are put together.
pub(super) fn cell_at<'a>(
    data_type: DataType,
    array: &'a dyn Array,
    row: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<CellRef<'a>> {
    // Not `ok_or`: an error that is made and dropped for each cell costs more than the cell.
    let Some(cell) = typed_cell_at(data_type, array, row, scratch) else {
        return Err(Error::Damaged { what: "cold file" });
    };
    Ok(cell)
}

/// The cell; none where the column is of another type.
fn typed_cell_at<'a>(
    data_type: DataType,
    array: &'a dyn Array,
    row: usize,
    scratch: &'a mut Vec<u8>,
) -> Option<CellRef<'a>> {
    if array.is_null(row) {
        return Some(CellRef::Null);
    }
    macro_rules! number {
        ($arrow:ty, $cell:ident) => {
            CellRef::$cell(array.as_primitive_opt::<$arrow>()?.value(row))
        };
    }
    Some(match data_type {
        DataType::Boolean => CellRef::Boolean(array.as_boolean_opt()?.value(row)),
        DataType::SmallInt => number!(Int16Type, SmallInt),
        DataType::Int => number!(Int32Type, Int),
        DataType::BigInt => number!(Int64Type, BigInt),
        DataType::Float => number!(Float32Type, Float),
        DataType::Double => number!(Float64Type, Double),
        DataType::Decimal { .. } => number!(Decimal128Type, Decimal),
        DataType::Timestamp => number!(TimestampMicrosecondType, Timestamp),
        DataType::DateTime => number!(TimestampMicrosecondType, DateTime),
        DataType::Date => number!(Date32Type, Date),
        DataType::Time => number!(Time64MicrosecondType, Time),
        DataType::Text => CellRef::Text(array.as_string_opt::<i32>()?.value(row)),
        DataType::Json => CellRef::Json(array.as_string_opt::<i32>()?.value(row)),
        DataType::Bytes => CellRef::Bytes(array.as_binary_opt::<i32>()?.value(row)),
        DataType::Uuid => {
            let bytes = array.as_fixed_size_binary_opt()?.value(row);
            CellRef::Uuid(bytes.try_into().ok()?)
        }
        DataType::Embedding(_) => {
            let floats = array.as_fixed_size_list_opt()?.value(row);
            let floats = floats.as_primitive_opt::<Float32Type>()?;
            scratch.clear();
            scratch.extend(floats.values().iter().flat_map(|float| float.to_le_bytes()));
            CellRef::Embedding(scratch)
        }
    })
}
