//! Values as the model has them, those that are tried, and the ways to write them down.

use std::cmp::Ordering;
use std::fmt::Write;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use kalamdb_log::simulation::Random;
use log_format::DataType;
use serde_json::{Value as Json, json};

/// One value. Integers, dates and times are whole numbers; JSON and UUIDs are their text.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    Flag(bool),
    Whole(i64),
    /// A decimal without its point.
    Fixed(i128),
    Single(f32),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<f32>),
}

impl Cell {
    pub(super) const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// As part of a key: zero is one, with or without a sign.
    pub(super) fn in_key(&self) -> Self {
        match self {
            Self::Single(value) if *value == 0.0 => Self::Single(0.0),
            Self::Double(value) if *value == 0.0 => Self::Double(0.0),
            other => other.clone(),
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Flag(_) => 1,
            Self::Whole(_) => 2,
            Self::Fixed(_) => 3,
            Self::Single(_) => 4,
            Self::Double(_) => 5,
            Self::Text(_) => 6,
            Self::Bytes(_) => 7,
            Self::List(_) => 8,
        }
    }
}

impl Ord for Cell {
    /// The order of SQL for two of a type; floats are in IEEE 754's total order, so NaN is above all numbers.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Flag(left), Self::Flag(right)) => left.cmp(right),
            (Self::Whole(left), Self::Whole(right)) => left.cmp(right),
            (Self::Fixed(left), Self::Fixed(right)) => left.cmp(right),
            (Self::Single(left), Self::Single(right)) => left.total_cmp(right),
            (Self::Double(left), Self::Double(right)) => left.total_cmp(right),
            (Self::Text(left), Self::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Self::Bytes(left), Self::Bytes(right)) => left.cmp(right),
            (Self::List(left), Self::List(right)) => {
                let bits = |list: &[f32]| list.iter().map(|item| item.to_bits()).collect::<Vec<_>>();
                bits(left).cmp(&bits(right))
            }
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl PartialOrd for Cell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cell {}

/// The value at `row` of what the engine answers.
pub(super) fn cell_of(array: &ArrayRef, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        ArrowType::Boolean => Cell::Flag(array.as_boolean().value(row)),
        ArrowType::Int16 => Cell::Whole(array.as_primitive::<Int16Type>().value(row).into()),
        ArrowType::Int32 => Cell::Whole(array.as_primitive::<Int32Type>().value(row).into()),
        ArrowType::Int64 => Cell::Whole(array.as_primitive::<Int64Type>().value(row)),
        ArrowType::UInt32 => Cell::Whole(array.as_primitive::<UInt32Type>().value(row).into()),
        ArrowType::Decimal128(..) => Cell::Fixed(array.as_primitive::<Decimal128Type>().value(row)),
        ArrowType::Float32 => Cell::Single(array.as_primitive::<Float32Type>().value(row)),
        ArrowType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        ArrowType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        ArrowType::Timestamp(..) => Cell::Whole(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        ArrowType::Date32 => Cell::Whole(array.as_primitive::<Date32Type>().value(row).into()),
        ArrowType::Time64(_) => Cell::Whole(array.as_primitive::<Time64MicrosecondType>().value(row)),
        ArrowType::FixedSizeList(..) => {
            let items = array.as_fixed_size_list().value(row);
            Cell::List(items.as_primitive::<Float32Type>().values().to_vec())
        }
        other => panic!("a column of the type {other}"),
    }
}

// ── values that are tried ──

/// Years 1 and 9999 begin and end what can be written as a date.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;
const DAY_MICROS: i64 = 86_400_000_000;

/// Any type.
pub(super) fn any_type(random: &mut Random) -> DataType {
    match random.below(18) {
        0 => DataType::Boolean,
        1 | 2 => DataType::SmallInt,
        3 | 4 => DataType::Int,
        5 => DataType::BigInt,
        6 => DataType::Float,
        7 => DataType::Double,
        8 => DataType::Decimal { precision: 38, scale: 0 },
        9 | 10 => {
            let precision = 1 + below(random, 38);
            DataType::Decimal { precision, scale: below(random, precision + 1) }
        }
        11 => DataType::Text,
        12 => DataType::Timestamp,
        13 => DataType::DateTime,
        14 => DataType::Date,
        15 => DataType::Time,
        16 => [DataType::Json, DataType::Embedding(3)][random.below(2)],
        _ => [DataType::Bytes, DataType::Uuid][random.below(2)],
    }
}

/// A type that a key can have.
pub(super) fn any_key_type(random: &mut Random) -> DataType {
    match random.below(6) {
        0..2 => DataType::BigInt,
        2 => DataType::Text,
        _ => loop {
            let found = any_type(random);
            if !matches!(found, DataType::Json | DataType::Embedding(_)) {
                break found;
            }
        },
    }
}

/// As `Random::below`, for small numbers.
pub(super) fn below(random: &mut Random, limit: u8) -> u8 {
    u8::try_from(random.below(limit.into())).unwrap()
}

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len())]
}

/// A value of this type: the ends of its range often, a few others else, so that values meet.
pub(super) fn any_cell(random: &mut Random, data_type: DataType) -> Cell {
    let extreme = random.per_mille(350);
    let small = [0, 1, 2, 3, -1][random.below(5)];
    match data_type {
        DataType::Boolean => Cell::Flag(random.per_mille(500)),
        DataType::SmallInt if extreme => {
            Cell::Whole(pick(random, &[i16::MIN, i16::MIN + 1, i16::MAX]).into())
        }
        DataType::Int if extreme => Cell::Whole(pick(random, &[i32::MIN, i32::MIN + 1, i32::MAX]).into()),
        DataType::BigInt if extreme => {
            Cell::Whole(pick(random, &[i64::MIN, i64::MIN + 1, i64::MAX, 1 << 53, (1 << 53) + 1]))
        }
        DataType::SmallInt | DataType::Int | DataType::BigInt => Cell::Whole(small),
        DataType::Float | DataType::Double => any_float(random, data_type == DataType::Float),
        DataType::Decimal { precision, .. } => {
            let end = 10_i128.pow(precision.into()) - 1;
            Cell::Fixed(pick(random, &[end, -end, end - 1, 0, 1, -1, 2, 3]))
        }
        DataType::Text => Cell::Text(any_text(random)),
        DataType::Timestamp | DataType::DateTime => Cell::Whole(pick(
            random,
            &[
                FIRST_DAY * DAY_MICROS,
                LAST_DAY * DAY_MICROS + DAY_MICROS - 1,
                0,
                1,
                -1,
                1_700_000_000_123_456,
            ],
        )),
        DataType::Date => Cell::Whole(pick(random, &[FIRST_DAY, LAST_DAY, 0, 1, -1, 19_782])),
        DataType::Time => Cell::Whole(pick(random, &[0, DAY_MICROS - 1, 1, 1_000_000, 43_200_000_000])),
        DataType::Json => Cell::Text(
            pick(
                random,
                &["null", "{}", r#"{"a": [1, 2.50, "x"]}"#, r#""é😀""#, "-0", "true", r#""\u0000""#],
            )
            .to_owned(),
        ),
        DataType::Bytes => Cell::Bytes(
            pick::<&[u8]>(random, &[b"", b"\0", b"\0\xff", b"\\x00", b"abc", &[0xff; 33]]).to_vec(),
        ),
        DataType::Uuid => Cell::Text(
            pick(
                random,
                &[
                    "00000000-0000-0000-0000-000000000000",
                    "ffffffff-ffff-ffff-ffff-ffffffffffff",
                    "018f3c3e-7c1e-7a3b-8f00-0123456789ab",
                    "00000000-0000-0000-0000-000000000001",
                ],
            )
            .to_owned(),
        ),
        DataType::Embedding(dimension) => {
            let item = |_| pick(random, &[0.0, -0.0, 1.5, f32::MAX, f32::MIN_POSITIVE, 0.1]);
            Cell::List((0..dimension).map(item).collect())
        }
    }
}

fn any_float(random: &mut Random, is_single: bool) -> Cell {
    if random.per_mille(650) {
        let few = pick(random, &[0.0, 0.1, 1.5, -2.25, 3.0_f32]);
        return if is_single { Cell::Single(few) } else { Cell::Double(few.into()) };
    }
    if is_single {
        let ends =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, f32::MAX, f32::MIN_POSITIVE, -0.0, 1e-45];
        return Cell::Single(pick(random, &ends));
    }
    let ends =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN, f64::MAX, f64::MIN_POSITIVE, -0.0, 5e-324];
    Cell::Double(pick(random, &ends))
}

fn any_text(random: &mut Random) -> String {
    if random.per_mille(15) {
        return "y".repeat(64 << 10);
    }
    let texts =
        ["", "a", "b", "ab", "\0", "a\0b", "😀", "é", "O'Hara", "\"", "\\", "NaN", "null", "1", " a ", "%_"];
    pick(random, &texts).to_owned()
}

// ── ways to write them ──

/// A string literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An identifier.
pub(super) fn name(name: &str) -> String {
    let is_plain = name.len() == 2 && name.is_ascii() && name != "by";
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A decimal with its point.
pub(super) fn decimal_text(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, behind) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if behind.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{behind}") }
}

fn micros_text(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap().format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

fn days_text(days: i64) -> String {
    let epoch = NaiveDate::default();
    let at = Days::new(days.unsigned_abs());
    let day = if days < 0 { epoch.checked_sub_days(at) } else { epoch.checked_add_days(at) };
    day.unwrap().format("%Y-%m-%d").to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn list_text(items: &[f32]) -> String {
    format!("[{}]", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// A value as text, without quotes.
fn text_of(cell: &Cell, data_type: DataType) -> String {
    match (cell, data_type) {
        (Cell::Null, _) => "NULL".to_owned(),
        (Cell::Flag(value), _) => value.to_string(),
        (Cell::Whole(value), DataType::Timestamp) => micros_text(*value),
        (Cell::Whole(value), DataType::DateTime) => format!("{}Z", micros_text(*value)),
        (Cell::Whole(value), DataType::Date) => days_text(*value),
        (Cell::Whole(value), DataType::Time) => {
            let time = NaiveTime::MIN + TimeDelta::microseconds(*value);
            time.format("%H:%M:%S%.6f").to_string()
        }
        (Cell::Whole(value), _) => value.to_string(),
        (Cell::Fixed(value), _) => decimal_text(*value, data_type.decimal_scale()),
        (Cell::Single(value), _) => value.to_string(),
        (Cell::Double(value), _) => value.to_string(),
        (Cell::Text(value), _) => value.clone(),
        (Cell::Bytes(value), _) => format!("\\x{}", hex(value)),
        (Cell::List(value), _) => list_text(value),
    }
}

/// What INSERT, SET and DEFAULT have to say for a value in a column of this type.
pub(super) fn written(random: &mut Random, cell: &Cell, data_type: DataType) -> String {
    let text = text_of(cell, data_type);
    match cell {
        Cell::Null | Cell::Flag(_) => text,
        Cell::Whole(_)
            if matches!(data_type, DataType::SmallInt | DataType::Int | DataType::BigInt)
                && random.per_mille(700) =>
        {
            text
        }
        Cell::Fixed(_) if random.per_mille(500) => text,
        Cell::Single(value) if value.is_finite() && random.per_mille(500) => text,
        Cell::Double(value) if value.is_finite() && random.per_mille(500) => text,
        _ => quoted(&text),
    }
}

/// The same as a parameter.
pub(super) fn as_parameter(cell: &Cell, data_type: DataType) -> Json {
    match cell {
        Cell::Null => Json::Null,
        Cell::Flag(value) => json!(value),
        Cell::Whole(value) if matches!(data_type, DataType::SmallInt | DataType::Int | DataType::BigInt) => {
            json!(value)
        }
        Cell::Double(value) if value.is_finite() => json!(value),
        _ => json!(text_of(cell, data_type)),
    }
}

/// What a condition compares a column of this type with: the literal, or `$n` and its value.
pub(super) fn compared(cell: &Cell, data_type: DataType, params: Option<&mut Vec<Json>>) -> String {
    let text = text_of(cell, data_type);
    if let (Cell::Bytes(bytes), _) = (cell, data_type) {
        return format!("X'{}'", hex(bytes));
    }
    let is_number = matches!(data_type, DataType::SmallInt | DataType::Int | DataType::BigInt);
    let literal = match params {
        Some(params) => {
            params.push(match cell {
                Cell::Whole(value) if is_number => json!(value),
                Cell::Flag(value) => json!(value),
                _ => json!(text),
            });
            format!("${}", params.len())
        }
        None if is_number || matches!(cell, Cell::Flag(_)) => text,
        None => quoted(&text),
    };
    match data_type {
        DataType::Decimal { .. } | DataType::Float | DataType::Double => {
            format!("CAST({literal} AS {data_type})")
        }
        _ => literal,
    }
}
