//! What the store tells of its cold tier.

use std::collections::HashSet;

use log_format::{Partition, Seq, TableId};

use crate::cold::{ColdFiles, Now, cold_state, each_file, each_state};
use crate::error::Result;
use crate::keyspace::{partition_prefix, table_prefix};
use crate::store::Store;

/// The cold files of a partition or a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdTotals {
    /// How many.
    pub files: u64,
    /// Their bytes on disk.
    pub file_bytes: u64,
    /// When one was last written, microseconds since 1970.
    pub last_flush: Option<i64>,
}

impl Store {
    /// Where cold files are.
    pub fn cold_files(&self) -> &ColdFiles {
        &self.shared().cold_files
    }

    /// Whether a table may have cold rows.
    pub fn has_cold_rows(&self, table: TableId) -> bool {
        self.shared().cold_tables.contains(table)
    }

    /// The event that last changed which cold rows a partition has, as far as they were flushed; none where it has none.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn flushed_at(&self, partition: &Partition) -> Result<Option<Seq>> {
        if !self.has_cold_rows(partition.table) {
            return Ok(None);
        }
        Ok(cold_state(self.shared(), &Now, &partition_prefix(partition))?.map(|state| state.flushed_at))
    }

    /// The cold files of one partition.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn cold_totals(&self, partition: &Partition) -> Result<ColdTotals> {
        self.totals_below(&partition_prefix(partition))
    }

    /// The cold files of all partitions of a table.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn table_cold_totals(&self, table: TableId) -> Result<ColdTotals> {
        self.totals_below(&table_prefix(table))
    }

    /// The partitions of a table that have cold rows, or had some.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn cold_partitions(&self, table: TableId) -> Result<Vec<Partition>> {
        let mut found = Vec::new();
        each_state(self.shared(), &Now, &table_prefix(table), |partition, _| found.push(partition))?;
        Ok(found)
    }

    fn totals_below(&self, prefix: &[u8]) -> Result<ColdTotals> {
        let mut totals = ColdTotals::default();
        each_file(self.shared(), prefix, |file| {
            totals.files += 1;
            totals.file_bytes += file.bytes;
        })?;
        each_state(self.shared(), &Now, prefix, |_, state| {
            totals.last_flush = totals.last_flush.max(Some(state.commit_time));
        })?;
        Ok(totals)
    }

    /// The paths of the cold files that a table's partitions list.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn listed_files(&self, table: TableId) -> Result<HashSet<String>> {
        self.listed_below(&table_prefix(table))
    }

    /// Removes the cold files that no partition lists: what a process leaves that dies between a file and its commit. Only
    /// before anybody reads or flushes, and when all of the log is applied.
    ///
    /// # Errors
    /// Where files cannot be listed or removed.
    pub fn sweep_cold_files(&self) -> Result<u64> {
        let listed = self.listed_below(&[])?;
        self.cold_files().sweep(self.applied_seq()?.get(), |path| listed.contains(path))
    }

    /// As [`Store::sweep_cold_files`], at a storage location elsewhere: of files that this instance began before the event
    /// `until`, which its log ended with when it was opened.
    ///
    /// # Errors
    /// [`Error`](crate::Error) if RocksDB cannot read, a record is damaged, the location does not answer, or another instance owns it.
    pub fn sweep_storage_location(&self, name: &str, until: Seq) -> Result<u64> {
        let listed = self.listed_below(&[])?;
        self.cold_files().sweep_place(name, until.get(), |path| listed.contains(path))
    }

    /// Checks that the files of all manifests exist; [`ColdFiles::missing_files`] returns the missing ones. Object stores are
    /// checked only with `with_objects`.
    ///
    /// # Errors
    /// [`Error`](crate::Error) if RocksDB cannot read, or a record is damaged.
    pub fn audit_cold_files(&self, with_objects: bool) -> Result<()> {
        self.cold_files().audit(&self.listed_below(&[])?, with_objects);
        Ok(())
    }

    fn listed_below(&self, prefix: &[u8]) -> Result<HashSet<String>> {
        let mut listed = HashSet::new();
        each_file(self.shared(), prefix, |file| {
            listed.insert(file.path);
        })?;
        Ok(listed)
    }
}
