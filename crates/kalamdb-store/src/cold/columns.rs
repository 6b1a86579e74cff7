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

pub(super) fn arrow_type(data_type: DataType) -> ArrowType {
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
pub(super) enum CellBuilder {
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

impl CellBuilder {
    /// With room for so many rows, and so many bytes of texts or bytes in them.
    pub(super) fn with_capacity(data_type: DataType, rows: usize, bytes: usize) -> Self {
        let arrow = arrow_type(data_type);
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::SmallInt => Self::SmallInt(Int16Builder::with_capacity(rows)),
            DataType::Int => Self::Int(Int32Builder::with_capacity(rows)),
            DataType::BigInt => Self::BigInt(Int64Builder::with_capacity(rows)),
            DataType::Float => Self::Float(Float32Builder::with_capacity(rows)),
            DataType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            DataType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(arrow))
            }
            DataType::Text | DataType::Json => Self::Text(BinaryBuilder::with_capacity(rows, bytes)),
            DataType::Timestamp | DataType::DateTime => {
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(arrow))
            }
            DataType::Date => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            DataType::Bytes => Self::Bytes(BinaryBuilder::with_capacity(rows, bytes)),
            DataType::Uuid => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            DataType::Embedding(dimension) => {
                let size = i32::try_from(dimension).unwrap_or(i32::MAX);
                let floats = Float32Builder::with_capacity(rows * dimension as usize);
                let list = FixedSizeListBuilder::with_capacity(floats, size, rows);
                Self::Embedding(list.with_field(embedding_item()), dimension as usize)
            }
        }
    }

    /// Adds a row's next cell; none where it is of another type than the column, or not legal: it would be lost.
    #[inline]
    pub(super) fn append(&mut self, cells: &mut TypedCells<'_>) -> Option<()> {
        match self {
            Self::Boolean(out) => out.append_option(cells.boolean()?),
            Self::SmallInt(out) => out.append_option(cells.small_int()?),
            Self::Int(out) => out.append_option(cells.int()?),
            Self::BigInt(out) => out.append_option(cells.big_int()?),
            Self::Float(out) => out.append_option(cells.float()?),
            Self::Double(out) => out.append_option(cells.double()?),
            Self::Decimal(out) => out.append_option(cells.decimal()?),
            Self::Text(out) => out.append_option(cells.text_bytes()?),
            Self::Timestamp(out) => out.append_option(cells.timestamp()?),
            Self::Date(out) => out.append_option(cells.date()?),
            Self::Time(out) => out.append_option(cells.time()?),
            Self::Bytes(out) => out.append_option(cells.bytes()?),
            Self::Uuid(out) => match cells.uuid()? {
                Some(uuid) => out.append_value(uuid).ok()?,
                None => out.append_null(),
            },
            Self::Embedding(out, dimension) => {
                let floats = cells.embedding()?;
                match floats {
                    Some(bytes) if bytes.len() == *dimension * 4 => {
                        let floats = bytes.as_chunks::<4>().0.iter();
                        floats.for_each(|float| out.values().append_value(f32::from_le_bytes(*float)));
                    }
                    Some(_) => return None,
                    None => out.values().append_slice(&vec![0.0; *dimension]),
                }
                out.append(floats.is_some());
            }
        }
        Some(())
    }

    /// Bytes of texts or bytes in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(out) | Self::Bytes(out) => out.values_slice().len(),
            _ => 0,
        }
    }

    /// The column; none where a text is not UTF-8.
    pub(super) fn finish(&mut self) -> Option<ArrayRef> {
        Some(match self {
            Self::Boolean(out) => Arc::new(out.finish()),
            Self::SmallInt(out) => Arc::new(out.finish()),
            Self::Int(out) => Arc::new(out.finish()),
            Self::BigInt(out) => Arc::new(out.finish()),
            Self::Float(out) => Arc::new(out.finish()),
            Self::Double(out) => Arc::new(out.finish()),
            Self::Decimal(out) => Arc::new(out.finish()),
            Self::Text(out) => Arc::new(StringArray::try_from_binary(out.finish()).ok()?),
            Self::Timestamp(out) => Arc::new(out.finish()),
            Self::Date(out) => Arc::new(out.finish()),
            Self::Time(out) => Arc::new(out.finish()),
            Self::Bytes(out) => Arc::new(out.finish()),
            Self::Uuid(out) => Arc::new(out.finish()),
            Self::Embedding(out, _) => Arc::new(out.finish()),
        })
    }
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
