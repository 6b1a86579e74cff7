//! What spares most inserts the look for a row of their key: a key above every key that its partition ever had is new.
//!
//! Keys mostly rise: generated ids, sequences, times. Those that do not are looked up as before.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use kalamdb_store::{Keyspace, Store};
use log_format::Partition;

use crate::error::Result;

/// Partitions that are remembered at the most.
const PARTITIONS_MAX: usize = 8192;

/// What is known of a partition's keys.
#[derive(Debug)]
enum Bound {
    /// It was first written to in this run. Nothing yet: finding its last key costs more than looking for one row.
    Seen(u64),
    /// No key is above this one.
    Highest(Vec<u8>),
}

/// A bound above the keys of each partition that was written lately. Belongs to the sequencer: nobody else adds keys.
#[derive(Debug, Default)]
pub(crate) struct HighKeys {
    partitions: HashMap<Arc<Partition>, Bound, RandomState>,
    /// Counts runs of commits.
    run: u64,
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
        let Some(bound) = self.partitions.get_mut(partition) else {
            self.partitions.insert(Arc::clone(partition), Bound::Seen(self.run));
            return Ok(false);
        };
        if let Bound::Seen(run) = bound {
            // IMPORTANT: the store does not have yet what this run has staged.
            if *run == self.run {
                return Ok(false);
            }
            *bound = Bound::Highest(store.last_key(keyspace, partition)?.unwrap_or_default());
        }
        let Bound::Highest(highest) = bound else { return Ok(false) };
        let is_above = key > highest.as_slice();
        if is_above {
            highest.clear();
            highest.extend_from_slice(key);
        }
        Ok(is_above)
    }

    /// Another run begins: the store has everything that was staged before. Forgets all where there is too much.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        if self.partitions.len() > PARTITIONS_MAX {
            self.partitions.clear();
        }
    }
}
