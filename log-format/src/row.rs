//! A row's bytes: what an event holds is what the hot tier stores and what scans read.
//!
//! Every cell carries its type, so a row can be walked without its schema; the schema gives names and the order.

use crate::error::{Error, Result, array, slice};
use crate::ids::SchemaVersion;
use crate::value::Value;

/// Bytes one row may take, encoded.
pub const ROW_BYTES_MAX: usize = 16 << 20;

const WHAT: &str = "row";
const HEADER_BYTES: usize = 6;

mod tag {
    pub(super) const NULL: u8 = 0x00;
    pub(super) const FALSE: u8 = 0x01;
    pub(super) const TRUE: u8 = 0x02;
    pub(super) const SMALLINT: u8 = 0x03;
    pub(super) const INT: u8 = 0x04;
    pub(super) const BIGINT: u8 = 0x05;
    pub(super) const FLOAT: u8 = 0x06;
    pub(super) const DOUBLE: u8 = 0x07;
    pub(super) const DECIMAL: u8 = 0x08;
    pub(super) const TEXT: u8 = 0x09;
    pub(super) const TIMESTAMP: u8 = 0x0a;
    pub(super) const DATETIME: u8 = 0x0b;
    pub(super) const DATE: u8 = 0x0c;
    pub(super) const TIME: u8 = 0x0d;
    pub(super) const JSON: u8 = 0x0e;
    pub(super) const BYTES: u8 = 0x0f;
    pub(super) const UUID: u8 = 0x10;
    pub(super) const EMBEDDING: u8 = 0x11;
}

/// Writes a row, cell after cell, in the order of its schema version's columns.
#[derive(Debug)]
pub struct RowBuilder {
    bytes: Vec<u8>,
    count: u16,
}

impl RowBuilder {
    /// Begins a row of this schema version.
    pub fn new(version: SchemaVersion) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&version.get().to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        Self { bytes, count: 0 }
    }

    /// Adds the next cell.
    pub fn push(&mut self, value: &Value) {
        let mut scratch = Vec::new();
        self.push_cell(&value.as_cell(&mut scratch));
    }

    /// Adds the next cell from borrowed bytes.
    pub fn push_cell(&mut self, cell: &CellRef<'_>) {
        self.count = self.count.saturating_add(1);
        match *cell {
            CellRef::Null => self.bytes.push(tag::NULL),
            CellRef::Boolean(false) => self.bytes.push(tag::FALSE),
            CellRef::Boolean(true) => self.bytes.push(tag::TRUE),
            CellRef::SmallInt(v) => self.fixed(tag::SMALLINT, &v.to_le_bytes()),
            CellRef::Int(v) => self.fixed(tag::INT, &v.to_le_bytes()),
            CellRef::BigInt(v) => self.fixed(tag::BIGINT, &v.to_le_bytes()),
            CellRef::Float(v) => self.fixed(tag::FLOAT, &v.to_bits().to_le_bytes()),
            CellRef::Double(v) => self.fixed(tag::DOUBLE, &v.to_bits().to_le_bytes()),
            CellRef::Decimal(v) => self.fixed(tag::DECIMAL, &v.to_le_bytes()),
            CellRef::Timestamp(v) => self.fixed(tag::TIMESTAMP, &v.to_le_bytes()),
            CellRef::DateTime(v) => self.fixed(tag::DATETIME, &v.to_le_bytes()),
            CellRef::Date(v) => self.fixed(tag::DATE, &v.to_le_bytes()),
            CellRef::Time(v) => self.fixed(tag::TIME, &v.to_le_bytes()),
            CellRef::Uuid(v) => self.fixed(tag::UUID, v),
            CellRef::Text(v) => self.variable(tag::TEXT, v.as_bytes()),
            CellRef::Json(v) => self.variable(tag::JSON, v.as_bytes()),
            CellRef::Bytes(v) => self.variable(tag::BYTES, v),
            CellRef::Embedding(v) => self.variable(tag::EMBEDDING, v),
        }
    }

    fn fixed(&mut self, tag: u8, payload: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(payload);
    }

    fn variable(&mut self, tag: u8, payload: &[u8]) {
        // Longer payloads are refused in `finish`: the row is then over its limit.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// The row's bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`ROW_BYTES_MAX`] or 65,535 cells.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        if self.bytes.len() > ROW_BYTES_MAX || self.count == u16::MAX {
            return Err(Error::TooLarge { what: WHAT, size: self.bytes.len(), limit: ROW_BYTES_MAX });
        }
        if let Some(count) = self.bytes.get_mut(4..HEADER_BYTES) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        Ok(self.bytes)
    }
}

/// One cell, borrowed from a row's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CellRef<'a> {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// 16-bit integer.
    SmallInt(i16),
    /// 32-bit integer.
    Int(i32),
    /// 64-bit integer.
    BigInt(i64),
    /// 32-bit float.
    Float(f32),
    /// 64-bit float.
    Double(f64),
    /// Unscaled decimal.
    Decimal(i128),
    /// UTF-8.
    Text(&'a str),
    /// Microseconds, no zone.
    Timestamp(i64),
    /// Microseconds, UTC.
    DateTime(i64),
    /// Days.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// JSON text.
    Json(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// 128 bits.
    Uuid(&'a [u8; 16]),
    /// 32-bit little-endian floats.
    Embedding(&'a [u8]),
}

impl CellRef<'_> {
    /// Bytes it takes in a row, its tag among them.
    pub const fn encoded_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) => 1,
            Self::SmallInt(_) => 3,
            Self::Int(_) | Self::Float(_) | Self::Date(_) => 5,
            Self::BigInt(_) | Self::Double(_) | Self::Timestamp(_) | Self::DateTime(_) | Self::Time(_) => 9,
            Self::Decimal(_) | Self::Uuid(_) => 17,
            Self::Text(text) | Self::Json(text) => 5 + text.len(),
            Self::Bytes(bytes) | Self::Embedding(bytes) => 5 + bytes.len(),
        }
    }

    /// The cell as a value of its own.
    pub fn to_value(&self) -> Value {
        match *self {
            CellRef::Null => Value::Null,
            CellRef::Boolean(v) => Value::Boolean(v),
            CellRef::SmallInt(v) => Value::SmallInt(v),
            CellRef::Int(v) => Value::Int(v),
            CellRef::BigInt(v) => Value::BigInt(v),
            CellRef::Float(v) => Value::Float(v),
            CellRef::Double(v) => Value::Double(v),
            CellRef::Decimal(v) => Value::Decimal(v),
            CellRef::Text(v) => Value::Text(v.to_owned()),
            CellRef::Timestamp(v) => Value::Timestamp(v),
            CellRef::DateTime(v) => Value::DateTime(v),
            CellRef::Date(v) => Value::Date(v),
            CellRef::Time(v) => Value::Time(v),
            CellRef::Json(v) => Value::Json(v.to_owned()),
            CellRef::Bytes(v) => Value::Bytes(v.to_owned()),
            CellRef::Uuid(v) => Value::Uuid(*v),
            CellRef::Embedding(v) => Value::Embedding(floats(v).collect()),
        }
    }
}

/// The floats of an embedding's bytes.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk))
}

impl Value {
    /// The value as a borrowed cell; an embedding has to be turned into bytes first, into `scratch`.
    pub fn as_cell<'a>(&'a self, scratch: &'a mut Vec<u8>) -> CellRef<'a> {
        match self {
            Value::Null => CellRef::Null,
            Value::Boolean(v) => CellRef::Boolean(*v),
            Value::SmallInt(v) => CellRef::SmallInt(*v),
            Value::Int(v) => CellRef::Int(*v),
            Value::BigInt(v) => CellRef::BigInt(*v),
            Value::Float(v) => CellRef::Float(*v),
            Value::Double(v) => CellRef::Double(*v),
            Value::Decimal(v) => CellRef::Decimal(*v),
            Value::Text(v) => CellRef::Text(v),
            Value::Timestamp(v) => CellRef::Timestamp(*v),
            Value::DateTime(v) => CellRef::DateTime(*v),
            Value::Date(v) => CellRef::Date(*v),
            Value::Time(v) => CellRef::Time(*v),
            Value::Json(v) => CellRef::Json(v),
            Value::Bytes(v) => CellRef::Bytes(v),
            Value::Uuid(v) => CellRef::Uuid(v),
            Value::Embedding(v) => {
                scratch.extend(v.iter().flat_map(|float| float.to_le_bytes()));
                CellRef::Embedding(scratch)
            }
        }
    }
}

/// Reads a row's bytes, cell after cell.
#[derive(Clone, Copy, Debug)]
pub struct RowReader<'a> {
    bytes: &'a [u8],
    version: SchemaVersion,
    count: usize,
}

impl<'a> RowReader<'a> {
    /// Reads the head of a row.
    ///
    /// # Errors
    /// [`Error::Truncated`] where there is no head.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let version = SchemaVersion::new(u32::from_le_bytes(array(WHAT, bytes, 0)?));
        let count = usize::from(u16::from_le_bytes(array(WHAT, bytes, 4)?));
        Ok(Self { bytes, version, count })
    }

    /// The schema version that wrote it.
    pub const fn version(&self) -> SchemaVersion {
        self.version
    }

    /// How many cells it has.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Its cells, in order. Ends after the first one that is not legal.
    pub fn cells(&self) -> impl Iterator<Item = Result<CellRef<'a>>> + use<'a> {
        let bytes = self.bytes;
        let mut at = HEADER_BYTES;
        let mut broken = false;
        (0..self.count).map_while(move |index| {
            if broken {
                return None;
            }
            let cell = read_cell(bytes, &mut at, index);
            broken = cell.is_err();
            Some(cell)
        })
    }

    /// A walk through its cells that passes over some.
    pub fn walk(&self) -> CellWalk<'a> {
        CellWalk { bytes: self.bytes, cells: self.typed(), next: 0, count: self.count }
    }

    /// Its cells, for who knows the type of each.
    pub fn typed(&self) -> TypedCells<'a> {
        TypedCells { rest: self.bytes.get(HEADER_BYTES..).unwrap_or_default() }
    }

    /// All cells as values.
    ///
    /// # Errors
    /// The first cell that is not legal.
    pub fn values(&self) -> Result<Vec<Value>> {
        self.cells().map(|cell| cell.map(|cell| cell.to_value())).collect()
    }
}

/// A walk through a row's cells; see [`RowReader::walk`].
#[derive(Clone, Debug)]
pub struct CellWalk<'a> {
    bytes: &'a [u8],
    /// Those ahead.
    cells: TypedCells<'a>,
    /// Which of them is the first.
    next: usize,
    count: usize,
}

impl<'a> CellWalk<'a> {
    /// The cell of this number, behind those that were asked for before; none where the row ends earlier, or it is behind. What
    /// stands in the cells between is not looked at.
    ///
    /// # Errors
    /// Where a cell on the way is not legal.
    pub fn cell(&mut self, number: usize) -> Result<Option<CellRef<'a>>> {
        if self.reach(number)? { self.read().map(Some) } else { Ok(None) }
    }

    /// As [`CellWalk::cell`], for who knows its type. None also where `read` finds nothing of it: the cell can then still be asked for.
    ///
    /// # Errors
    /// Where a cell on the way is not legal.
    #[inline]
    pub fn typed<T>(
        &mut self,
        number: usize,
        read: impl FnOnce(&mut TypedCells<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        if !self.reach(number)? {
            return Ok(None);
        }
        let mut cells = self.cells.clone();
        let found = read(&mut cells);
        if found.is_some() {
            self.cells = cells;
            self.next += 1;
        }
        Ok(found)
    }

    /// Goes to the cell of this number; false where there is none ahead.
    #[inline]
    fn reach(&mut self, number: usize) -> Result<bool> {
        if number >= self.count || number < self.next {
            return Ok(false);
        }
        while self.next < number {
            let mut cells = self.cells.clone();
            if cells.skip().is_some() {
                self.cells = cells;
                self.next += 1;
            } else {
                // What is wrong with it is found by reading it.
                self.read()?;
            }
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<CellRef<'a>> {
        let mut at = self.bytes.len() - self.cells.rest.len();
        let cell = read_cell(self.bytes, &mut at, self.next)?;
        self.cells.rest = self.bytes.get(at..).unwrap_or_default();
        self.next += 1;
        Ok(cell)
    }
}

/// A row's cells, read one after the other as the types that they should have; see [`RowReader::typed`]. What is not of that type,
/// or not legal, is none; a cell without a value is none within.
///
/// A [`CellRef`] for each cell would be written to memory and read back, which costs more than all else of it.
#[derive(Clone, Debug)]
pub struct TypedCells<'a> {
    rest: &'a [u8],
}

macro_rules! typed {
    ($($doc:literal $name:ident: $type:ty, $($tag:ident)|+, $from:expr;)*) => {$(
        #[doc = $doc]
        #[inline]
        pub fn $name(&mut self) -> Option<Option<$type>> {
            match self.kind()? {
                tag::NULL => Some(None),
                $(tag::$tag)|+ => Some(Some($from(self.fixed()?))),
                _ => None,
            }
        }
    )*};
}

impl<'a> TypedCells<'a> {
    #[inline]
    fn kind(&mut self) -> Option<u8> {
        let (kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*kind)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    fn run(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(*self.fixed()?) as usize;
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// Passes over the next cell, whatever its type.
    #[inline]
    fn skip(&mut self) -> Option<()> {
        let length = match self.kind()? {
            tag::NULL | tag::FALSE | tag::TRUE => 0,
            tag::SMALLINT => 2,
            tag::INT | tag::FLOAT | tag::DATE => 4,
            tag::BIGINT | tag::DOUBLE | tag::TIMESTAMP | tag::DATETIME | tag::TIME => 8,
            tag::DECIMAL | tag::UUID => 16,
            tag::TEXT | tag::JSON | tag::BYTES | tag::EMBEDDING => return self.run().map(drop),
            _ => return None,
        };
        self.rest = self.rest.get(length..)?;
        Some(())
    }

    typed! {
        "The next cell, a 16-bit integer."
        small_int: i16, SMALLINT, |v: &[u8; 2]| i16::from_le_bytes(*v);
        "The next cell, a 32-bit integer."
        int: i32, INT, |v: &[u8; 4]| i32::from_le_bytes(*v);
        "The next cell, a 64-bit integer."
        big_int: i64, BIGINT, |v: &[u8; 8]| i64::from_le_bytes(*v);
        "The next cell, a 32-bit float."
        float: f32, FLOAT, |v: &[u8; 4]| f32::from_le_bytes(*v);
        "The next cell, a 64-bit float."
        double: f64, DOUBLE, |v: &[u8; 8]| f64::from_le_bytes(*v);
        "The next cell, an unscaled decimal."
        decimal: i128, DECIMAL, |v: &[u8; 16]| i128::from_le_bytes(*v);
        "The next cell, microseconds with or without a zone."
        timestamp: i64, TIMESTAMP | DATETIME, |v: &[u8; 8]| i64::from_le_bytes(*v);
        "The next cell, days."
        date: i32, DATE, |v: &[u8; 4]| i32::from_le_bytes(*v);
        "The next cell, microseconds since midnight."
        time: i64, TIME, |v: &[u8; 8]| i64::from_le_bytes(*v);
        "The next cell, 128 bits."
        uuid: &'a [u8; 16], UUID, |v: &'a [u8; 16]| v;
    }

    /// The next cell, a boolean.
    #[inline]
    pub fn boolean(&mut self) -> Option<Option<bool>> {
        match self.kind()? {
            tag::NULL => Some(None),
            tag::FALSE => Some(Some(false)),
            tag::TRUE => Some(Some(true)),
            _ => None,
        }
    }

    /// The next cell, text or JSON. That it is UTF-8 is for the caller to see, who may do so of many at once.
    #[inline]
    pub fn text_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.kind()? {
            tag::NULL => Some(None),
            tag::TEXT | tag::JSON => self.run().map(Some),
            _ => None,
        }
    }

    /// The next cell, raw bytes.
    #[inline]
    pub fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.kind()? {
            tag::NULL => Some(None),
            tag::BYTES => self.run().map(Some),
            _ => None,
        }
    }

    /// The next cell, an embedding: 32-bit little-endian floats.
    #[inline]
    pub fn embedding(&mut self) -> Option<Option<&'a [u8]>> {
        match self.kind()? {
            tag::NULL => Some(None),
            tag::EMBEDDING => self.run().map(Some),
            _ => None,
        }
    }
}

fn read_cell<'a>(bytes: &'a [u8], at: &mut usize, index: usize) -> Result<CellRef<'a>> {
    fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> Result<[u8; N]> {
        let taken = array(WHAT, bytes, *at)?;
        *at += N;
        Ok(taken)
    }
    fn run<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a [u8]> {
        let length = u32::from_le_bytes(take(bytes, at)?) as usize;
        let taken = slice(WHAT, bytes, *at, length)?;
        *at += length;
        Ok(taken)
    }
    let text = |bytes: &'a [u8]| {
        std::str::from_utf8(bytes).map_err(|_| Error::Cell { index, problem: "text is not UTF-8" })
    };
    let [kind] = take::<1>(bytes, at)?;
    Ok(match kind {
        tag::NULL => CellRef::Null,
        tag::FALSE => CellRef::Boolean(false),
        tag::TRUE => CellRef::Boolean(true),
        tag::SMALLINT => CellRef::SmallInt(i16::from_le_bytes(take(bytes, at)?)),
        tag::INT => CellRef::Int(i32::from_le_bytes(take(bytes, at)?)),
        tag::BIGINT => CellRef::BigInt(i64::from_le_bytes(take(bytes, at)?)),
        tag::FLOAT => CellRef::Float(f32::from_bits(u32::from_le_bytes(take(bytes, at)?))),
        tag::DOUBLE => CellRef::Double(f64::from_bits(u64::from_le_bytes(take(bytes, at)?))),
        tag::DECIMAL => CellRef::Decimal(i128::from_le_bytes(take(bytes, at)?)),
        tag::TEXT => CellRef::Text(text(run(bytes, at)?)?),
        tag::TIMESTAMP => CellRef::Timestamp(i64::from_le_bytes(take(bytes, at)?)),
        tag::DATETIME => CellRef::DateTime(i64::from_le_bytes(take(bytes, at)?)),
        tag::DATE => CellRef::Date(i32::from_le_bytes(take(bytes, at)?)),
        tag::TIME => CellRef::Time(i64::from_le_bytes(take(bytes, at)?)),
        tag::JSON => CellRef::Json(text(run(bytes, at)?)?),
        tag::BYTES => CellRef::Bytes(run(bytes, at)?),
        tag::UUID => {
            let taken = slice(WHAT, bytes, *at, 16)?;
            *at += 16;
            CellRef::Uuid(taken.try_into().map_err(|_| Error::Cell { index, problem: "uuid" })?)
        }
        tag::EMBEDDING => {
            let taken = run(bytes, at)?;
            if taken.len() % 4 != 0 {
                return Err(Error::Cell { index, problem: "an embedding's length is no multiple of 4" });
            }
            CellRef::Embedding(taken)
        }
        _ => return Err(Error::Cell { index, problem: "unknown type tag" }),
    })
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
