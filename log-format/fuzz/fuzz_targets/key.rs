//! A key: any bytes are columns of the asked types or an error, and columns are written as they were read.
//!
//! The first byte says how many columns, the next ones of which type.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_format::{DataType, KeyBuilder, KeyReader, Value};

const TYPES: [DataType; 16] = [
    DataType::Boolean,
    DataType::SmallInt,
    DataType::Int,
    DataType::BigInt,
    DataType::Float,
    DataType::Double,
    DataType::Decimal { precision: 9, scale: 2 },
    DataType::Text,
    DataType::Timestamp,
    DataType::DateTime,
    DataType::Date,
    DataType::Time,
    DataType::Json,
    DataType::Bytes,
    DataType::Uuid,
    DataType::Embedding(3),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((count, rest)) = bytes.split_first() else { return };
    let Some((types, key)) = rest.split_at_checked(usize::from(*count)) else { return };
    let mut reader = KeyReader::new(key);
    let mut builder = KeyBuilder::new();
    for kind in types {
        let Ok(value) = reader.next(TYPES[usize::from(*kind) % TYPES.len()]) else { return };
        // Zero and not-a-number have one form each, whatever was read.
        match value {
            Value::Float(float) if float == 0.0 || float.is_nan() => return,
            Value::Double(double) if double == 0.0 || double.is_nan() => return,
            _ => {}
        }
        builder.push(&value).unwrap();
    }
    assert!(key.starts_with(&builder.finish()));
});
