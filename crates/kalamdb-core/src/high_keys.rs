//! What spares most inserts the look for a row of their key: a key above every key that its partition ever had is new.
//!
//! Keys mostly rise: generated ids, sequences, times. Those that do not are looked up as before.

use std::collections::HashMap;
use std::sync::Arc;

use kalamdb_store::{Keyspace, Store};
use log_format::Partition;

use crate::error::Result;

/// Partitions that are remembered at the most.
const PARTITIONS_MAX: usize = 8192;

/// A bound above the keys of each partition that was written lately. Belongs to the sequencer: nobody else adds keys.
#[derive(Debug, Default)]
pub(crate) struct HighKeys {
    /// No key while the partition was seen once only: finding its last one costs more than looking for one row.
    partitions: HashMap<Arc<Partition>, Option<Vec<u8>>>,
}

impl HighKeys {
    /// Whether there is certainly no row of this key, not even a deleted one; it is then taken to be there from now on.
    pub(crate) fn is_above(
        &mut self,
        store: &Store,
        keyspace: Keyspace,
        partition: &Arc<Partition>,
        key: &[u8],
    ) -> Result<bool> {
        let Some(highest) = self.partitions.get_mut(partition) else {
            self.partitions.insert(Arc::clone(partition), None);
            return Ok(false);
        };
        let highest = match highest {
            Some(highest) => highest,
            None => highest.insert(store.last_key(keyspace, partition)?.unwrap_or_default()),
        };
        let is_above = key > highest.as_slice();
        if is_above {
            highest.clear();
            highest.extend_from_slice(key);
        }
        Ok(is_above)
    }

    /// Forgets all where there are too many. IMPORTANT: not while commits are staged that the store does not have yet.
    pub(crate) fn shed(&mut self) {
        if self.partitions.len() > PARTITIONS_MAX {
            self.partitions.clear();
        }
    }
}
