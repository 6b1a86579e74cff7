//! Cells of an Arrow answer, comparable with those of the same statement's JSON answer.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, TimeUnit};
use datafusion::arrow::ipc::reader::StreamReader;

use serde_json::{Value, json};

use super::values::{Cell, Cells, double};

/// The schema and the rows of an Arrow IPC stream, the schema as JSON answers have it.
pub(crate) fn arrow_answer(bytes: &[u8]) -> (Value, Cells) {
    let reader = StreamReader::try_new(bytes, None).unwrap();
    let fields =
        reader.schema().fields().iter().map(|it| json!({ "data_type": kind(it.data_type()) })).collect();
    let mut rows = Cells::new();
    for batch in reader {
        let batch = batch.unwrap();
        let columns: Vec<Vec<Cell>> = batch.columns().iter().map(|it| column(it.as_ref())).collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|it| it[row].clone()).collect()));
    }
    (Value::Array(fields), rows)
}

/// The name that JSON answers have for a type.
fn kind(of: &DataType) -> &'static str {
    match of {
        DataType::Float32 | DataType::Float64 => "Double",
        DataType::Boolean => "Boolean",
        DataType::Date32 => "Date",
        DataType::Timestamp(..) => "Timestamp",
        DataType::Time64(_) => "Time",
        of if of.is_string() => "Text",
        _ => "BigInt",
    }
}

/// The values of a column, times and dates as numbers of microseconds and days.
fn column(array: &dyn Array) -> Vec<Cell> {
    match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Float32 | DataType::Float64 => {
            let doubles = cast(array, &DataType::Float64).unwrap();
            let doubles = doubles.as_primitive::<Float64Type>();
            doubles.iter().map(|value| value.map_or(Cell::Null, double)).collect()
        }
        DataType::Boolean => texts(array).map(|text| text.map_or(Cell::Null, Cell::Text)).collect(),
        of if of.is_string() => texts(array).map(|text| text.map_or(Cell::Null, Cell::Text)).collect(),
        DataType::Date32 => numbers(&cast(array, &DataType::Int32).unwrap()),
        DataType::Timestamp(..) => {
            let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
            numbers(&cast(&micros, &DataType::Int64).unwrap())
        }
        DataType::Time64(_) => {
            let micros = cast(array, &DataType::Time64(TimeUnit::Microsecond)).unwrap();
            numbers(&cast(&micros, &DataType::Int64).unwrap())
        }
        _ => numbers(array),
    }
}

/// Values whose texts are numbers.
fn numbers(array: &dyn Array) -> Vec<Cell> {
    let number = |text: String| text.parse().map_or(Cell::Text(text), Cell::Number);
    texts(array).map(|text| text.map_or(Cell::Null, number)).collect()
}

/// Values as texts; NULL is none.
fn texts(array: &dyn Array) -> impl Iterator<Item = Option<String>> {
    let texts = cast(array, &DataType::Utf8).unwrap();
    let texts: Vec<_> = texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
    texts.into_iter()
}
