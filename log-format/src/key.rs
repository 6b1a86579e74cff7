//! Keys whose byte order is the order of their values, so that a range of values is a range of keys.
//!
//! Integers: big-endian with the sign bit flipped. Floats: IEEE bits, ordered. Text and bytes: every `00` becomes
//! `00 ff`, and `00 01` ends them, so no value is a prefix of another. Columns follow each other without a separator.

use crate::error::{Error, Result};
use crate::value::{DataType, Value};

/// Appends `bytes` so that it keeps its order and cannot run into what follows.
pub fn escape_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0x00, 0x01]);
}

/// Reads what [`escape_bytes`] wrote: the bytes, and how many encoded ones they took.
///
/// # Errors
/// [`Error::Key`] where the end mark is missing.
pub fn unescape_bytes(encoded: &[u8]) -> Result<(Vec<u8>, usize)> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().copied().enumerate();
    while let Some((_, byte)) = bytes.next() {
        if byte != 0 {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some((_, 0xff)) => out.push(0),
            Some((at, 0x01)) => return Ok((out, at + 1)),
            _ => break,
        }
    }
    Err(Error::Key { problem: "text without its end mark" })
}

/// Writes a primary key, column after column.
#[derive(Debug, Default)]
pub struct KeyBuilder {
    bytes: Vec<u8>,
}

impl KeyBuilder {
    /// An empty key.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Whether a column of this type can be part of a key.
    pub const fn supports(data_type: DataType) -> bool {
        !matches!(data_type, DataType::Json | DataType::Embedding(_))
    }

    /// Adds the next column.
    ///
    /// # Errors
    /// [`Error::Key`] for NULL and for types without an order.
    pub fn push(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Boolean(v) => self.bytes.push(u8::from(*v)),
            Value::SmallInt(v) => self.signed(&v.to_be_bytes()),
            Value::Int(v) | Value::Date(v) => self.signed(&v.to_be_bytes()),
            Value::BigInt(v) | Value::Timestamp(v) | Value::DateTime(v) | Value::Time(v) => {
                self.signed(&v.to_be_bytes());
            }
            Value::Decimal(v) => self.signed(&v.to_be_bytes()),
            Value::Float(v) => self.float32(*v),
            Value::Double(v) => self.float64(*v),
            Value::Text(v) => escape_bytes(&mut self.bytes, v.as_bytes()),
            Value::Bytes(v) => escape_bytes(&mut self.bytes, v),
            Value::Uuid(v) => self.bytes.extend_from_slice(v),
            Value::Null => return Err(Error::Key { problem: "a key column is NULL" }),
            Value::Json(_) | Value::Embedding(_) => {
                return Err(Error::Key { problem: "JSON and EMBEDDING have no order" });
            }
        }
        Ok(())
    }

    fn signed(&mut self, big_endian: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(big_endian);
        if let Some(first) = self.bytes.get_mut(start) {
            *first ^= 0x80;
        }
    }

    // -0.0 and 0.0 are equal, so they are one key; so is every NaN, above all numbers.

    fn float32(&mut self, value: f32) {
        let bits = match value {
            0.0 => 0,
            value if value.is_nan() => f32::NAN.to_bits(),
            value => value.to_bits(),
        };
        let ordered = if bits >> 31 == 0 { bits ^ (1 << 31) } else { !bits };
        self.bytes.extend_from_slice(&ordered.to_be_bytes());
    }

    fn float64(&mut self, value: f64) {
        let bits = match value {
            0.0 => 0,
            value if value.is_nan() => f64::NAN.to_bits(),
            value => value.to_bits(),
        };
        let ordered = if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits };
        self.bytes.extend_from_slice(&ordered.to_be_bytes());
    }

    /// The key's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a primary key back into values, given its columns' types.
#[derive(Clone, Copy, Debug)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
}

impl<'a> KeyReader<'a> {
    /// Begins with the first column.
    pub const fn new(key: &'a [u8]) -> Self {
        Self { rest: key }
    }

    /// The next column's value.
    ///
    /// # Errors
    /// [`Error::Key`] where the bytes do not hold one.
    pub fn next(&mut self, data_type: DataType) -> Result<Value> {
        Ok(match data_type {
            DataType::Boolean => match self.take()? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                _ => return Err(Error::Key { problem: "a boolean that is neither true nor false" }),
            },
            DataType::SmallInt => Value::SmallInt(i16::from_be_bytes(self.signed()?)),
            DataType::Int => Value::Int(i32::from_be_bytes(self.signed()?)),
            DataType::Date => Value::Date(i32::from_be_bytes(self.signed()?)),
            DataType::BigInt => Value::BigInt(i64::from_be_bytes(self.signed()?)),
            DataType::Timestamp => Value::Timestamp(i64::from_be_bytes(self.signed()?)),
            DataType::DateTime => Value::DateTime(i64::from_be_bytes(self.signed()?)),
            DataType::Time => Value::Time(i64::from_be_bytes(self.signed()?)),
            DataType::Decimal { .. } => Value::Decimal(i128::from_be_bytes(self.signed()?)),
            DataType::Float => {
                let ordered = u32::from_be_bytes(self.take()?);
                let bits = if ordered >> 31 == 1 { ordered ^ (1 << 31) } else { !ordered };
                Value::Float(f32::from_bits(bits))
            }
            DataType::Double => {
                let ordered = u64::from_be_bytes(self.take()?);
                let bits = if ordered >> 63 == 1 { ordered ^ (1 << 63) } else { !ordered };
                Value::Double(f64::from_bits(bits))
            }
            DataType::Text => Value::Text(
                String::from_utf8(self.run()?).map_err(|_| Error::Key { problem: "text is not UTF-8" })?,
            ),
            DataType::Bytes => Value::Bytes(self.run()?),
            DataType::Uuid => Value::Uuid(self.take()?),
            DataType::Json | DataType::Embedding(_) => {
                return Err(Error::Key { problem: "JSON and EMBEDDING have no order" });
            }
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(Error::Key { problem: "it ends too early" })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn signed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut taken = self.take::<N>()?;
        if let Some(first) = taken.first_mut() {
            *first ^= 0x80;
        }
        Ok(taken)
    }

    fn run(&mut self) -> Result<Vec<u8>> {
        let (bytes, used) = unescape_bytes(self.rest)?;
        self.rest = self.rest.get(used..).unwrap_or_default();
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
