//! How rows become keys and values.
//!
//! `table (u64, big-endian) · user (escaped; empty where rows have no owner) · row key`. A partition is a prefix that
//! no other partition's rows can have, so isolation is in the key. In stream tables the row key is
//! `commit time (i64, ordered) · seq (u64)`.
//!
//! A value is `seq (u64) · commit time (i64) · flags (u8)`, little-endian, then the row's bytes as the event held them.

use log_format::{Partition, Seq, TableId, UserId, escape_bytes, unescape_bytes};

use crate::error::{Error, Result};

const VALUE_HEADER_BYTES: usize = 17;
const FLAG_DELETED: u8 = 1;

/// Which kind of table's rows: one column family each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keyspace {
    /// Rows of USER tables.
    User,
    /// Rows of SHARED tables.
    Shared,
    /// Rows of STREAM tables.
    Stream,
}

impl Keyspace {
    pub(crate) const ALL: [Self; 3] = [Self::User, Self::Shared, Self::Stream];

    pub(crate) const fn column_family(self) -> &'static str {
        match self {
            Self::User => "user_rows",
            Self::Shared => "shared_rows",
            Self::Stream => "stream_rows",
        }
    }
}

/// The prefix of all rows of a table.
pub(crate) fn table_prefix(table: TableId) -> [u8; 8] {
    table.get().to_be_bytes()
}

/// The prefix of all rows of a partition.
pub(crate) fn partition_prefix(partition: &Partition) -> Vec<u8> {
    full_key(partition, &[])
}

/// The key of a row.
pub(crate) fn full_key(partition: &Partition, key: &[u8]) -> Vec<u8> {
    let user = partition.user.as_ref().map_or(0, |user| user.as_str().len());
    let mut full = Vec::with_capacity(12 + user + key.len());
    write_full_key(&mut full, partition, key);
    full
}

/// The key of a row, in the place of what `full` held.
pub(crate) fn write_full_key(full: &mut Vec<u8>, partition: &Partition, key: &[u8]) {
    let user = partition.user.as_ref().map_or("", |user| user.as_str());
    full.clear();
    full.extend_from_slice(&table_prefix(partition.table));
    escape_bytes(full, user.as_bytes());
    full.extend_from_slice(key);
}

/// The table whose rows' keys begin with this prefix, where it is long enough to tell.
pub(crate) fn table_of_prefix(prefix: &[u8]) -> Option<TableId> {
    prefix.split_first_chunk::<8>().map(|(table, _)| TableId::new(u64::from_be_bytes(*table)))
}

/// The table of a row's key, and the prefix of its partition.
pub(crate) fn partition_of_key(key: &[u8]) -> Result<(TableId, &[u8])> {
    const DAMAGED: Error = Error::Damaged { what: "row key" };
    let (table, rest) = key.split_first_chunk::<8>().ok_or(DAMAGED)?;
    let (_, user) = unescape_bytes(rest).map_err(|_| DAMAGED)?;
    let prefix = key.get(..table.len() + user).ok_or(DAMAGED)?;
    Ok((TableId::new(u64::from_be_bytes(*table)), prefix))
}

/// The partition of a row's key in a table of users or without owners.
pub(crate) fn partition_of(key: &[u8]) -> Result<Partition> {
    const DAMAGED: Error = Error::Damaged { what: "row key" };
    let (table, rest) = key.split_first_chunk::<8>().ok_or(DAMAGED)?;
    let (user, _) = unescape_bytes(rest).map_err(|_| DAMAGED)?;
    let table = TableId::new(u64::from_be_bytes(*table));
    if user.is_empty() {
        return Ok(Partition::shared(table));
    }
    Ok(Partition::of_user(table, UserId::new(String::from_utf8(user).map_err(|_| DAMAGED)?)))
}

/// How many bytes the row of a stored value has.
pub(crate) fn row_bytes(value: &[u8]) -> Result<usize> {
    value.len().checked_sub(VALUE_HEADER_BYTES).ok_or(Error::Damaged { what: "row" })
}

/// The least key greater than every key with this prefix; empty where there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// The row key of a stream row: its commit's time, then its seq.
pub fn stream_key(commit_time: i64, seq: Seq) -> [u8; 16] {
    let time = commit_time.cast_unsigned() ^ (1 << 63);
    let mut key = [0; 16];
    let (first, second) = key.split_at_mut(8);
    first.copy_from_slice(&time.to_be_bytes());
    second.copy_from_slice(&seq.get().to_be_bytes());
    key
}

/// A row as the hot tier holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRow<'a> {
    /// The event that wrote it: `_seq`.
    pub seq: Seq,
    /// When that was committed, microseconds since 1970: `_updated`.
    pub updated: i64,
    /// Whether it is a tombstone: `_deleted`. Its row is the one that was deleted.
    pub deleted: bool,
    /// The row's bytes.
    pub row: &'a [u8],
}

impl<'a> StoredRow<'a> {
    /// The stored value, in the place of what `value` held.
    pub(crate) fn write_to(&self, value: &mut Vec<u8>) {
        value.clear();
        value.reserve(VALUE_HEADER_BYTES + self.row.len());
        value.extend_from_slice(&self.seq.get().to_le_bytes());
        value.extend_from_slice(&self.updated.to_le_bytes());
        value.push(if self.deleted { FLAG_DELETED } else { 0 });
        value.extend_from_slice(self.row);
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it is too short or has unknown flags.
    pub fn decode(value: &'a [u8]) -> Result<Self> {
        // Not `ok_or`: an error that is made and dropped for each row costs more than this does.
        let Some(row) = Self::split(value) else { return Err(Error::Damaged { what: "row" }) };
        Ok(row)
    }

    #[inline]
    fn split(value: &'a [u8]) -> Option<Self> {
        let (seq, rest) = value.split_first_chunk()?;
        let (updated, rest) = rest.split_first_chunk()?;
        let (flags, row) = rest.split_first()?;
        let deleted = match *flags {
            0 => false,
            FLAG_DELETED => true,
            _ => return None,
        };
        Some(Self {
            seq: Seq::new(u64::from_le_bytes(*seq)),
            updated: i64::from_le_bytes(*updated),
            deleted,
            row,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_partition_is_a_prefix_of_another() {
        let users = ["", "a", "a\0", "a\0b", "ab", "b", "ÿ"];
        for left in users {
            for right in users {
                let key =
                    |user: &str| partition_prefix(&Partition::of_user(TableId::new(7), UserId::new(user)));
                assert_eq!(key(right).starts_with(&key(left)), left == right, "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn stream_keys_order_by_time_then_seq() {
        let keys = [(-5, 9), (0, 1), (0, 2), (3, 1)].map(|(time, seq)| stream_key(time, Seq::new(seq)));
        assert!(keys.is_sorted());
    }

    #[test]
    fn prefix_end_bounds_the_prefix() {
        assert_eq!(prefix_end(&[1, 2]), vec![1, 3]);
        assert_eq!(prefix_end(&[1, 0xff]), vec![2]);
        assert_eq!(prefix_end(&[0xff, 0xff]), Vec::<u8>::new());
    }

    #[test]
    fn values_round_trip_and_damage_is_told() {
        let row = StoredRow { seq: Seq::new(3), updated: -4, deleted: true, row: b"abc" };
        let mut bytes = b"what was there before".to_vec();
        row.write_to(&mut bytes);
        assert_eq!(StoredRow::decode(&bytes).unwrap(), row);
        assert!(StoredRow::decode(&bytes[..16]).is_err());
        let mut wrong = bytes;
        wrong[16] = 2;
        assert!(StoredRow::decode(&wrong).is_err());
    }
}
