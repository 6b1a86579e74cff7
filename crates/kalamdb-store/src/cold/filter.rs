//! Whether a cold file may have a row of a key, told by its bloom filter, which is kept for longer than the file: keys that come in
//! no order lie within the range of every file, and few of these fit into memory.

use bytes::Bytes;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::ParquetMetaData;

use crate::error::Result;

/// What a file says of keys.
#[derive(Debug)]
pub(super) struct KeyFilter(Sbbf);

impl KeyFilter {
    /// The filter of a file; none where it has none.
    pub(super) fn read(bytes: &Bytes, metadata: &ParquetMetaData) -> Result<Option<Self>> {
        // The first column is the key's, and there is one group.
        let keys = metadata.row_groups().first().and_then(|group| group.columns().first());
        let filter = keys.map(|keys| Sbbf::read_from_column_chunk(keys, bytes)).transpose()?;
        Ok(filter.flatten().map(Self))
    }

    /// Bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        self.0.num_blocks() * 32
    }

    /// Whether the file may have a row of a key; false: it has none.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        self.0.check(key)
    }
}
