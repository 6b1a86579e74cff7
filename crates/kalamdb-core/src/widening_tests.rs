//! Widening: what may become what, and that nothing is lost on the way.

use super::*;

fn decimal(precision: u8, scale: u8) -> DataType {
    DataType::Decimal { precision, scale }
}

fn all() -> Vec<DataType> {
    let mut all = vec![
        DataType::Boolean,
        DataType::SmallInt,
        DataType::Int,
        DataType::BigInt,
        DataType::Float,
        DataType::Double,
        DataType::Text,
        DataType::Timestamp,
        DataType::DateTime,
        DataType::Date,
        DataType::Time,
        DataType::Json,
        DataType::Bytes,
        DataType::Uuid,
        DataType::Embedding(2),
    ];
    all.extend(
        (1..=38).flat_map(|precision| [0, 1, 5, 18].map(|scale| decimal(precision, scale.min(precision)))),
    );
    all
}

#[test]
fn what_is_widened_twice_could_have_been_widened_at_once() {
    for from in all() {
        assert!(!widens(from, from), "{from}");
        for middle in all().into_iter().filter(|middle| widens(from, *middle)) {
            for to in all().into_iter().filter(|to| widens(middle, *to)) {
                assert!(widens(from, to) || from == to, "{from} to {middle} to {to}");
            }
        }
    }
}

#[test]
fn what_would_lose_a_value_is_no_widening() {
    for (from, to) in [
        (DataType::Int, DataType::SmallInt),
        (DataType::Int, DataType::Float),
        (DataType::BigInt, DataType::Double),
        (DataType::BigInt, decimal(18, 0)),
        (DataType::BigInt, decimal(20, 2)),
        (decimal(10, 2), decimal(10, 3)),
        (decimal(10, 2), decimal(12, 1)),
        (DataType::Text, DataType::Uuid),
        (DataType::Timestamp, DataType::Date),
        (DataType::Timestamp, DataType::DateTime),
        (DataType::Embedding(2), DataType::Embedding(3)),
        (DataType::Int, DataType::Text),
    ] {
        assert!(!widens(from, to), "{from} to {to}");
    }
}

#[test]
fn each_type_names_what_it_can_become() {
    for from in all() {
        let is_widened = all().into_iter().any(|to| widens(from, to));
        // A decimal of 38 digits has no room, but its words are right all the same.
        assert!(wider_types(from).is_some() || !is_widened, "{from}");
    }
    assert_eq!(
        wider_types(DataType::Int).unwrap(),
        "BIGINT, DOUBLE and DECIMAL(p, s) with p - s of at least 10"
    );
    assert!(wider_types(decimal(10, 2)).unwrap().contains("s of at least 2 and p - s of at least 8"));
    assert_eq!(wider_types(DataType::Text), None);
}

#[test]
fn a_widened_cell_is_the_same_value() {
    let uuid = uuid::Uuid::parse_str("0198C6E2-0000-7000-8000-0000000000AB").unwrap();
    for (from, to, value, expected) in [
        (DataType::SmallInt, DataType::Int, Value::SmallInt(i16::MIN), Value::Int(-32768)),
        (DataType::SmallInt, DataType::Float, Value::SmallInt(-7), Value::Float(-7.0)),
        (DataType::Int, DataType::BigInt, Value::Int(i32::MAX), Value::BigInt(2_147_483_647)),
        (DataType::Int, DataType::Double, Value::Int(i32::MIN), Value::Double(-2_147_483_648.0)),
        (DataType::Float, DataType::Double, Value::Float(0.5), Value::Double(0.5)),
        (DataType::SmallInt, decimal(7, 2), Value::SmallInt(-3), Value::Decimal(-300)),
        (
            DataType::BigInt,
            decimal(38, 19),
            Value::BigInt(i64::MIN),
            Value::Decimal(i128::from(i64::MIN) * 10_i128.pow(19)),
        ),
        (decimal(4, 2), decimal(8, 4), Value::Decimal(1234), Value::Decimal(123_400)),
        (DataType::Date, DataType::Timestamp, Value::Date(-1), Value::Timestamp(-DAY_MICROS)),
        (DataType::Json, DataType::Text, Value::Json("{}".to_owned()), Value::Text("{}".to_owned())),
        (DataType::Uuid, DataType::Text, Value::Uuid(uuid.into_bytes()), Value::Text(uuid.to_string())),
    ] {
        assert!(widens(from, to), "{from} to {to}");
        let widening = Widening::between(from, to).unwrap();
        assert_eq!(widening.value(&value), expected);
        assert_eq!(widening.value(&Value::Null), Value::Null);
    }
    assert_eq!(Widening::between(DataType::Int, DataType::Int), None);
}
