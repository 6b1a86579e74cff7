use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

fn encode(values: &[Value]) -> Vec<u8> {
    let mut key = KeyBuilder::new();
    for value in values {
        key.push(value).unwrap();
    }
    key.finish()
}

/// Two values of one type that can be in a key.
fn pair() -> impl Strategy<Value = (DataType, Value, Value)> {
    fn of<T: std::fmt::Debug>(
        data_type: DataType,
        strategy: impl Strategy<Value = T> + Clone,
        value: fn(T) -> Value,
    ) -> impl Strategy<Value = (DataType, Value, Value)> {
        (strategy.clone(), strategy).prop_map(move |(a, b)| (data_type, value(a), value(b)))
    }
    // Few different bytes, so that prefixes and zeros are likely.
    let bytes = prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..6);
    prop_oneof![
        of(DataType::Boolean, any::<bool>(), Value::Boolean),
        of(DataType::SmallInt, any::<i16>(), Value::SmallInt),
        of(DataType::Int, any::<i32>(), Value::Int),
        of(DataType::BigInt, any::<i64>(), Value::BigInt),
        of(DataType::Float, any::<f32>(), Value::Float),
        of(DataType::Double, any::<f64>(), Value::Double),
        of(DataType::Decimal { precision: 38, scale: 0 }, any::<i128>(), Value::Decimal),
        of(DataType::Text, "[\0\u{1}ab\u{ff}]{0,5}", Value::Text),
        of(DataType::Bytes, bytes, Value::Bytes),
        of(DataType::Timestamp, any::<i64>(), Value::Timestamp),
        of(DataType::DateTime, any::<i64>(), Value::DateTime),
        of(DataType::Date, any::<i32>(), Value::Date),
        of(DataType::Time, any::<i64>(), Value::Time),
        of(DataType::Uuid, any::<[u8; 16]>(), Value::Uuid),
    ]
}

/// The order of values that SQL has.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::SmallInt(a), Value::SmallInt(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) | (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::BigInt(a), Value::BigInt(b))
        | (Value::Timestamp(a), Value::Timestamp(b))
        | (Value::DateTime(a), Value::DateTime(b))
        | (Value::Time(a), Value::Time(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap(),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b).unwrap(),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        _ => panic!("{a:?} and {b:?} are not of one type"),
    }
}

proptest! {
    #[test]
    fn keys_are_ordered_as_their_values((_, a, b) in pair()) {
        prop_assert_eq!(encode(std::slice::from_ref(&a)).cmp(&encode(std::slice::from_ref(&b))), compare(&a, &b));
    }

    #[test]
    fn keys_of_two_columns_are_ordered_column_by_column((_, a, b) in pair(), (_, c, d) in pair()) {
        let keys = encode(&[a.clone(), c.clone()]).cmp(&encode(&[b.clone(), d.clone()]));
        prop_assert_eq!(keys, compare(&a, &b).then(compare(&c, &d)));
    }

    #[test]
    fn no_key_is_the_beginning_of_another((_, a, b) in pair()) {
        let (a, b) = (encode(&[a]), encode(&[b]));
        prop_assert!(a == b || !a.starts_with(&b));
    }

    #[test]
    fn a_key_comes_back_as_it_went_in((first, a, _) in pair(), (second, b, _) in pair()) {
        let bytes = encode(&[a.clone(), b.clone()]);
        let mut reader = KeyReader::new(&bytes);
        prop_assert_eq!(compare(&reader.next(first).unwrap(), &a), Ordering::Equal);
        prop_assert_eq!(compare(&reader.next(second).unwrap(), &b), Ordering::Equal);
        prop_assert!(reader.next(DataType::Boolean).is_err());
    }

    #[test]
    fn escaped_bytes_come_back(bytes: Vec<u8>, behind: Vec<u8>) {
        let mut escaped = Vec::new();
        escape_bytes(&mut escaped, &bytes);
        let used = escaped.len();
        escaped.extend_from_slice(&behind);
        prop_assert_eq!(unescape_bytes(&escaped).unwrap(), (bytes, used));
    }

    #[test]
    fn no_bytes_make_a_key_panic(bytes: Vec<u8>, (data_type, ..) in pair()) {
        let mut reader = KeyReader::new(&bytes);
        let mut values = 0;
        while reader.next(data_type).is_ok() {
            values += 1;
        }
        prop_assert!(values <= bytes.len());
    }
}

#[test]
fn equal_floats_are_one_key_and_nan_is_the_greatest() {
    assert_eq!(encode(&[Value::Double(-0.0)]), encode(&[Value::Double(0.0)]));
    assert_eq!(encode(&[Value::Float(-0.0)]), encode(&[Value::Float(0.0)]));
    assert_eq!(encode(&[Value::Double(-f64::NAN)]), encode(&[Value::Double(f64::NAN)]));
    assert!(encode(&[Value::Double(f64::NAN)]) > encode(&[Value::Double(f64::INFINITY)]));
    assert!(encode(&[Value::Float(-f32::NAN)]) > encode(&[Value::Float(f32::INFINITY)]));
}

#[test]
fn what_has_no_order_is_no_key() {
    for value in [Value::Null, Value::Json("1".to_owned()), Value::Embedding(vec![1.0])] {
        assert!(matches!(KeyBuilder::new().push(&value), Err(Error::Key { .. })), "{value:?}");
    }
    assert!(!KeyBuilder::supports(DataType::Json) && !KeyBuilder::supports(DataType::Embedding(3)));
    assert!(KeyBuilder::supports(DataType::Uuid));
}
