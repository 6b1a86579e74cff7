//! What the log says of the cold tier: rows that moved into a Parquet file, files that became one.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::error::{Error, Result};
use crate::ids::{ColumnId, Partition, SchemaVersion};
use crate::value::DataType;

/// Rows of a partition that moved from the hot tier into a cold file. What they hold does not change.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Whose rows.
    pub partition: Partition,
    /// Hot rows of keys from this one on went, …
    pub from_key: Vec<u8>,
    /// … up to this one, which stays; empty: to the last, …
    pub until_key: Vec<u8>,
    /// … if they have this schema version, …
    pub schema_version: SchemaVersion,
    /// … and were not written after this seq.
    pub until_seq: u64,
    /// Where they are; none where nothing of them had to be kept.
    pub file: Option<ColdFile>,
    /// Rows of older files that they stand in the place of.
    pub superseded: Vec<SupersededRows>,
    /// The live ones of the rows that went, where all hot rows of these keys were of this schema version; else none.
    pub live: Option<LiveRows>,
}

/// Rows that are not deleted.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveRows {
    /// How many.
    pub rows: u64,
    /// Their bytes as events hold them, without keys.
    pub bytes: u64,
}

/// A cold file, as the manifest of its partition lists it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ColdFile {
    /// Which file of its partition: the seq of the cut that it was written from.
    pub id: u64,
    /// Where it is, below the directory or bucket of cold files.
    pub path: String,
    /// How many rows, tombstones included.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// The CRC-32C of all of it.
    pub crc32c: u32,
    /// The schema version of all its rows.
    pub schema_version: SchemaVersion,
    /// The least seq of its rows.
    pub first_seq: u64,
    /// The greatest seq of its rows.
    pub last_seq: u64,
    /// The least key of its rows.
    pub first_key: Vec<u8>,
    /// The greatest key of its rows.
    pub last_key: Vec<u8>,
    /// When the first of them was committed, microseconds since 1970.
    pub first_updated: i64,
    /// When the last of them was.
    pub last_updated: i64,
    /// What the values of some of its columns lie between; of the others that is not known.
    pub bounds: Vec<ColumnBounds>,
}

/// What the values that a cold file has in a column lie between, NULL left aside. A bound need not be one of the values.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ColumnBounds {
    /// Which column.
    pub column: ColumnId,
    /// None is less: a value of the file's schema version as a key holds it.
    pub least: Vec<u8>,
    /// None is greater.
    pub greatest: Vec<u8>,
}

/// Rows of one cold file that newer ones stand in the place of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SupersededRows {
    /// The file's id.
    pub file: u64,
    /// Their positions in it, from 0, rising.
    pub positions: Vec<u32>,
}

/// Cold files of a partition that one new file stands in the place of. No row comes, changes or goes but tombstones that need
/// not be kept any longer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Whose files.
    pub partition: Partition,
    /// The ids of those that went, rising.
    pub removed: Vec<u64>,
    /// The file that came; none where no row of them had to be kept.
    pub file: Option<ColdFile>,
}

impl LiveRows {
    /// Counts another row, which has these bytes.
    pub const fn add(&mut self, row: &[u8]) {
        self.rows += 1;
        self.bytes += row.len() as u64;
    }
}

impl ArchivedLiveRows {
    /// These as a value of their own.
    pub const fn to_rows(&self) -> LiveRows {
        LiveRows { rows: self.rows.to_native(), bytes: self.bytes.to_native() }
    }
}

impl ColumnBounds {
    /// Whether columns of a type have bounds: where values are compared as the file has them. Statistics pass over a float that
    /// is no number, which has a place in our order; UUIDs are compared as text.
    pub const fn are_of(data_type: DataType) -> bool {
        matches!(
            data_type,
            DataType::SmallInt
                | DataType::Int
                | DataType::BigInt
                | DataType::Decimal { .. }
                | DataType::Text
                | DataType::Date
                | DataType::Time
                | DataType::Timestamp
                | DataType::DateTime
        )
    }
}

impl ArchivedColdFile {
    /// The entry as a value of its own.
    ///
    /// # Errors
    /// [`Error::Encode`] where the archive cannot be turned back; a validated one always can.
    pub fn to_file(&self) -> Result<ColdFile> {
        rkyv::deserialize::<ColdFile, rancor::Error>(self)
            .map_err(|error| Error::Encode { reason: error.to_string() })
    }
}
