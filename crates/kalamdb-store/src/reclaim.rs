//! Giving back the space of rows that are gone: a range that was deleted stays in the files until they are written anew.

use log_format::TableId;
use rocksdb::{CompactOptions, LiveFile};

use crate::error::{Error, Result};
use crate::keyspace::{Keyspace, prefix_end, table_prefix};
use crate::store::{Shared, Store};

/// Bytes of rows that are always worth writing files anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Fewer are, where they are this part of the files.
const REWRITE_SHARE: u64 = 10;

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Files that are gone.
    pub files: u64,
    /// Bytes of the files that held rows of the table, less what they take now.
    pub bytes: u64,
}

impl Store {
    /// Gives back the space of a dropped table whose rows had about so many bytes. Files of nothing else go as they are.
    /// What it shares with others is written anew where it is worth that: a tenth of those files, or a MiB. The rest goes
    /// with RocksDB's own compactions, so that dropping thousands of small tables does not write all of them anew for each.
    /// Doing it again finds nothing to do.
    ///
    /// IMPORTANT: only once the drop is in the files ([`Store::persisted_seq`]), since what is deleted here does not come
    /// back, and once nobody reads a cut from before it ([`Store::oldest_cut`]), since files go whoever reads them.
    ///
    /// # Errors
    /// Where RocksDB cannot tell its files or delete them.
    pub fn reclaim(&self, table: TableId, row_bytes: u64) -> Result<Reclaimed> {
        let shared = self.shared();
        let before = files_of(shared, table)?;
        let (from, until) = (table_prefix(table).to_vec(), prefix_end(&table_prefix(table)));
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        for keyspace in Keyspace::ALL {
            let of_keyspace = |file: &&LiveFile| file.column_family_name == keyspace.column_family();
            // A file of nothing but deletions is what earlier drops left in keyspaces that they had no rows in.
            let has_rows = |file: &&LiveFile| file.num_entries > file.num_deletions;
            let of_rows = before.iter().filter(of_keyspace).filter(has_rows);
            let shared_bytes: u64 = of_rows.map(|file| file.size as u64).sum();
            if shared_bytes == 0 {
                continue;
            }
            let family = shared.family(keyspace)?;
            // The end counts as in the range here, but no row has a key of nothing but a table.
            shared
                .database
                .delete_file_in_range_cf(&family, &from, &until)
                .map_err(|source| Error::Engine { action: "delete a dropped table's files", source })?;
            if row_bytes >= REWRITE_BYTES_MIN || row_bytes.saturating_mul(REWRITE_SHARE) >= shared_bytes {
                shared.database.compact_range_cf_opt(&family, Some(&from), Some(&until), &options);
            }
        }
        let after = files_of(shared, table)?;
        let bytes = |files: &[LiveFile]| files.iter().map(|file| file.size as u64).sum::<u64>();
        let gone = |file: &&LiveFile| !after.iter().any(|left| left.name == file.name);
        Ok(Reclaimed {
            files: before.iter().filter(gone).count() as u64,
            bytes: bytes(&before).saturating_sub(bytes(&after)),
        })
    }
}

/// The files that may hold rows of a table.
fn files_of(shared: &Shared, table: TableId) -> Result<Vec<LiveFile>> {
    let (from, until) = (table_prefix(table).to_vec(), prefix_end(&table_prefix(table)));
    let mut files =
        shared.database.live_files().map_err(|source| Error::Engine { action: "list its files", source })?;
    files.retain(|file| {
        let is_of_rows = Keyspace::ALL.iter().any(|it| it.column_family() == file.column_family_name);
        let reaches = file.end_key.as_ref().is_none_or(|end| *end >= from);
        is_of_rows && reaches && file.start_key.as_ref().is_none_or(|start| *start < until)
    });
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OTHER_TABLE, TABLE, commit, drop_table, insert, open, table_rows, user};
    use log_format::{Partition, UserId};

    #[test]
    fn a_dropped_tables_space_is_given_back_and_nobody_elses_rows() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let other = Partition::of_user(OTHER_TABLE, UserId::new("ann"));
        // Bytes that do not compress away.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        });
        let mut seq = 1;
        for round in 0_u64..4 {
            for number in 0..200_u64 {
                let row: Vec<u8> = noise.by_ref().take(400).collect();
                let key = (round * 1000 + number).to_be_bytes();
                store
                    .apply(&[commit(seq, &[insert(&user("ann"), &key, &row), insert(&other, &key, &row)])])
                    .unwrap();
                seq += 2;
            }
            store.flush(true).unwrap();
        }
        let others = table_rows(&store.cut().unwrap(), Keyspace::User, OTHER_TABLE);
        store.apply(&[commit(seq, &[drop_table(TABLE)])]).unwrap();
        store.flush(true).unwrap();
        let small = store.reclaim(TABLE, 10).unwrap();
        assert_eq!(small.bytes, 0, "a small part of files that others are in stays");
        let freed = store.reclaim(TABLE, 4 * 200 * 400).unwrap();
        assert!(freed.files > 0 && freed.bytes > 100_000, "{freed:?}");
        assert!(
            store.reclaim(TABLE, 4 * 200 * 400).unwrap().bytes < 10_000,
            "a second time there is nothing to do"
        );
        let cut = store.cut().unwrap();
        assert_eq!(table_rows(&cut, Keyspace::User, OTHER_TABLE), others);
        assert_eq!(table_rows(&cut, Keyspace::User, TABLE), []);
    }

    #[test]
    fn the_oldest_cut_is_known_for_as_long_as_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        assert_eq!(store.oldest_cut(), None);
        store.apply(&[commit(1, &[insert(&user("ann"), b"a", b"1")])]).unwrap();
        let (first, same) = (store.cut().unwrap(), store.cut().unwrap());
        store.apply(&[commit(2, &[insert(&user("ann"), b"b", b"1")])]).unwrap();
        let second = store.cut().unwrap();
        assert_eq!(store.oldest_cut(), Some(first.seq()));
        drop(first);
        assert_eq!(store.oldest_cut(), Some(same.seq()));
        drop(same);
        assert_eq!(store.oldest_cut(), Some(second.seq()));
        drop(second);
        assert_eq!(store.oldest_cut(), None);
    }
}
