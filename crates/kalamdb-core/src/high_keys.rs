//! What spares most inserts the look for a row of their key: a key above every key that its partition ever had is new.
//!
//! Keys mostly rise: generated ids, sequences, times. Those that do not are looked up as before.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use kalamdb_store::{Keyspace, Store};
use log_format::Partition;

use crate::error::Result;

/// Partitions whose keys are remembered at the most.
const PARTITIONS_MAX: usize = 1 << 15;
/// Places for partitions that were written to once.
const SEEN_PLACES: usize = 1 << 13;

/// That a partition of this hash was written to.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    hash: u64,
    run: u64,
}

/// A bound above the keys of each partition that is written to again and again. Belongs to the sequencer: nobody else adds keys.
///
/// Finding a partition's last key costs more than looking for one row, so it is done where a second run inserts into it before others
/// have taken its place. Among a hundred thousand users most write seldom: of them there is no more than a hash.
#[derive(Debug)]
pub(crate) struct HighKeys {
    /// No key of the partition is above this one.
    highest: HashMap<Arc<Partition>, Vec<u8>, RandomState>,
    seen: Vec<Seen>,
    /// Counts runs of commits.
    run: u64,
}

impl Default for HighKeys {
    fn default() -> Self {
        Self { highest: HashMap::default(), seen: vec![Seen::default(); SEEN_PLACES], run: 0 }
    }
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
        if let Some(highest) = self.highest.get_mut(partition) {
            let is_above = key > highest.as_slice();
            if is_above {
                highest.clear();
                highest.extend_from_slice(key);
            }
            return Ok(is_above);
        }
        if self.is_seen_before(partition) {
            let highest = store.last_key(keyspace, partition)?.unwrap_or_default();
            let is_above = key > highest.as_slice();
            let highest = if is_above { key.to_vec() } else { highest };
            self.highest.insert(Arc::clone(partition), highest);
            return Ok(is_above);
        }
        Ok(false)
    }

    /// Whether the partition was written to in a run before and not in this one, as far as is remembered; it is now.
    ///
    /// IMPORTANT: the store does not have yet what this run has staged. Each write of a partition without a bound leaves this run in
    /// its place, and whoever takes that place leaves the same run there.
    fn is_seen_before(&mut self, partition: &Partition) -> bool {
        let hash = self.highest.hasher().hash_one(partition);
        let place = usize::try_from(hash % SEEN_PLACES as u64).unwrap_or_default();
        let Some(seen) = self.seen.get_mut(place) else { return false };
        let before = std::mem::replace(seen, Seen { hash, run: self.run });
        before.hash == hash && before.run != self.run
    }

    /// Another run begins: the store has everything that was staged before. Forgets all bounds where there are too many.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        if self.highest.len() > PARTITIONS_MAX {
            self.highest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use kalamdb_store::StoreOptions;
    use log_format::{TableId, UserId};
    use tempfile::TempDir;

    use super::*;

    fn of_user(name: &str) -> Arc<Partition> {
        Arc::new(Partition::of_user(TableId::new(7), UserId::new(name)))
    }

    fn empty_store() -> (TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
        (directory, store)
    }

    #[test]
    fn keys_have_a_bound_from_the_second_run_on_that_writes_to_a_partition() {
        let (_directory, store) = empty_store();
        let (mut keys, ann) = (HighKeys::default(), of_user("ann"));
        let above = |keys: &mut HighKeys, key| keys.is_above(&store, Keyspace::User, &ann, &[key]).unwrap();
        keys.begin_run();
        assert!(!above(&mut keys, 5));
        assert!(!above(&mut keys, 5), "what the same run has staged the store does not know");
        assert!(!above(&mut keys, 6));
        keys.begin_run();
        assert!(above(&mut keys, 7), "the store has no key");
        assert_eq!([7, 6, 8, 8].map(|key| above(&mut keys, key)), [false, false, true, false]);
        keys.begin_run();
        assert_eq!([8, 9].map(|key| above(&mut keys, key)), [false, true]);
    }

    #[test]
    fn partitions_of_one_place_do_not_hide_what_a_run_has_staged() {
        let (_directory, store) = empty_store();
        let (mut keys, ann) = (HighKeys::default(), of_user("ann"));
        let place = |keys: &HighKeys, of: &Partition| {
            keys.highest.hasher().hash_one(of) % u64::try_from(SEEN_PLACES).unwrap()
        };
        let of_ann = place(&keys, &ann);
        let names = (0..).map(|number: u64| of_user(&number.to_string()));
        let other = names.into_iter().find(|other| place(&keys, other) == of_ann).unwrap();
        let is_above = |keys: &mut HighKeys, of| keys.is_above(&store, Keyspace::User, of, &[5]).unwrap();
        keys.begin_run();
        assert_eq!([&ann, &other, &ann].map(|of| is_above(&mut keys, of)), [false; 3]);
        keys.begin_run();
        assert_eq!([&ann, &other, &other].map(|of| is_above(&mut keys, of)), [true, false, false]);
        keys.begin_run();
        assert!(is_above(&mut keys, &other));
    }

    #[test]
    fn bounds_are_forgotten_where_there_are_too_many() {
        let mut keys = HighKeys::default();
        keys.highest.extend((0..PARTITIONS_MAX).map(|number| (of_user(&number.to_string()), Vec::new())));
        keys.begin_run();
        assert_eq!(keys.highest.len(), PARTITIONS_MAX);
        keys.highest.insert(of_user("ann"), Vec::new());
        keys.begin_run();
        assert!(keys.highest.is_empty());
    }
}
