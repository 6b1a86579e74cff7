//! The store of the system tables: opening, applying, reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_format::{
    ArchivedChangeEvent as Event, Frame, Job, JobId, Namespace, NamespaceId, Operation, Record,
    SchemaVersion, Seq, StorageLocation, Table, TableId, TableSchema, User, UserId,
};
use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, Direction, FlushOptions, IteratorMode,
    MultiThreaded, Options, ReadOptions, ReadTier, WriteOptions,
};

use crate::batch::{Batch, unreadable};
use crate::error::{Error, Result};

pub(crate) type Database = DBWithThreadMode<MultiThreaded>;

const APPLIED_SEQ_KEY: &[u8] = b"applied_seq";
const DEFAULT_FAMILY: &str = "default";

/// The system tables that are stored: one column family each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemTable {
    Namespaces,
    Tables,
    TableSchemas,
    Users,
    StorageLocations,
    Jobs,
}

impl SystemTable {
    const ALL: [Self; 6] =
        [Self::Namespaces, Self::Tables, Self::TableSchemas, Self::Users, Self::StorageLocations, Self::Jobs];

    const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Tables => "tables",
            Self::TableSchemas => "table_schemas",
            Self::Users => "users",
            Self::StorageLocations => "storage_locations",
            Self::Jobs => "jobs",
        }
    }

    pub(crate) fn family(self, database: &Database) -> Result<Arc<BoundColumnFamily<'_>>> {
        database.cf_handle(self.name()).ok_or_else(|| self.damaged(None))
    }

    pub(crate) const fn damaged(self, source: Option<log_format::Error>) -> Error {
        Error::Damaged { table: self.name(), source }
    }
}

pub(crate) fn table_key(table: TableId) -> [u8; 8] {
    table.get().to_be_bytes()
}

pub(crate) fn schema_key(table: TableId, version: SchemaVersion) -> Vec<u8> {
    [table_key(table).as_slice(), &version.get().to_be_bytes()].concat()
}

/// The stored system tables of one database.
pub struct SystemTables {
    database: Database,
    path: PathBuf,
}

impl std::fmt::Debug for SystemTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemTables").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SystemTables {
    /// Opens the system tables in `path`, creating them where there are none.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(path: &Path) -> Result<Self> {
        // IMPORTANT: closing flushes nothing by itself: after a failed sync the catalog would get ahead of the log.
        let mut options = Options::default()
            .get_options_from_string("avoid_flush_during_shutdown=true")
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // All flushed together, so that `applied_seq` on disk never disagrees with the records.
        options.set_atomic_flush(true);
        options.set_keep_log_file_num(2);
        let opened = Database::open_cf_descriptors(&options, path, families())
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Self { database: opened, path: path.to_owned() })
    }

    /// Opens the system tables of a database that another process may be writing, to read what it has flushed.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open_read_only(path: &Path) -> Result<Self> {
        let opened = Database::open_cf_descriptors_read_only(&Options::default(), path, families(), false)
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Self { database: opened, path: path.to_owned() })
    }

    /// The last event whose effect is in the files: what a crash leaves.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn persisted_seq(&self) -> Result<Seq> {
        let mut files_only = ReadOptions::default();
        files_only.set_read_tier(ReadTier::Persisted);
        self.read_applied_seq(&files_only)
    }

    /// The last event whose effect the tables hold. Replay begins behind it.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn applied_seq(&self) -> Result<Seq> {
        self.read_applied_seq(&ReadOptions::default())
    }

    fn read_applied_seq(&self, options: &ReadOptions) -> Result<Seq> {
        let found = self
            .database
            .get_opt(APPLIED_SEQ_KEY, options)
            .map_err(|source| Error::Engine { action: "read applied_seq", source })?;
        found.map_or(Ok(Seq::ZERO), |bytes| {
            let bytes =
                bytes.try_into().map_err(|_| Error::Damaged { table: "applied_seq", source: None })?;
            Ok(Seq::new(u64::from_le_bytes(bytes)))
        })
    }

    /// Applies commits that follow those already applied, in order, as one write. Applying the same commits again
    /// changes nothing.
    ///
    /// # Errors
    /// Where an event cannot be read or RocksDB cannot write; nothing is then applied.
    pub fn apply(&self, commits: &[Frame]) -> Result<()> {
        let Some(last) = commits.last() else { return Ok(()) };
        self.write(|batch| {
            for commit in commits {
                for (seq, event) in commit.events() {
                    let event: &Event = event.map_err(unreadable(seq))?;
                    if event.operation() == Operation::Catalog {
                        batch.apply(&event.to_event().map_err(unreadable(seq))?)?;
                    }
                }
            }
            batch.writes.put(APPLIED_SEQ_KEY, last.last_seq().get().to_le_bytes());
            Ok(())
        })
    }

    /// Writes what `fill` puts into a batch, all of it or nothing. The log is the only write-ahead log.
    pub(crate) fn write(&self, fill: impl FnOnce(&mut Batch<'_>) -> Result<()>) -> Result<()> {
        let mut batch = Batch::new(&self.database);
        fill(&mut batch)?;
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.database
            .write_opt(batch.writes, &options)
            .map_err(|source| Error::Engine { action: "apply a commit", source })
    }

    /// Puts everything applied so far onto disk: at once where `wait`, else in the background. The log must be durable
    /// up to [`SystemTables::applied_seq`] before.
    ///
    /// # Errors
    /// Where RocksDB cannot write.
    pub fn flush(&self, wait: bool) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        let mut families = Vec::with_capacity(7);
        for table in SystemTable::ALL {
            families.push(table.family(&self.database)?);
        }
        families.extend(self.database.cf_handle(DEFAULT_FAMILY));
        self.database
            .flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options)
            .map_err(|source| Error::Engine { action: "flush", source })
    }

    fn get<R: Record>(&self, table: SystemTable, key: &[u8]) -> Result<Option<R>> {
        let found = self
            .database
            .get_pinned_cf(&table.family(&self.database)?, key)
            .map_err(|source| Error::Engine { action: "read a record", source })?;
        found.map(|bytes| R::from_bytes(&bytes).map_err(|source| table.damaged(Some(source)))).transpose()
    }

    fn scan<R: Record>(&self, table: SystemTable, prefix: &[u8]) -> Result<Vec<R>> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(rocksdb::PrefixRange(prefix));
        self.database
            .iterator_cf_opt(
                &table.family(&self.database)?,
                options,
                IteratorMode::From(prefix, Direction::Forward),
            )
            .map(|record| {
                let (_, bytes) = record.map_err(|source| Error::Engine { action: "scan records", source })?;
                R::from_bytes(&bytes).map_err(|source| table.damaged(Some(source)))
            })
            .collect()
    }

    /// The namespace of this name.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn get_namespace(&self, id: &NamespaceId) -> Result<Option<Namespace>> {
        self.get(SystemTable::Namespaces, id.as_str().as_bytes())
    }

    /// The table with this id.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn get_table(&self, id: TableId) -> Result<Option<Table>> {
        self.get(SystemTable::Tables, &table_key(id))
    }

    /// A table's schema versions, oldest first.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn get_table_schemas_for_table(&self, id: TableId) -> Result<Vec<TableSchema>> {
        self.scan(SystemTable::TableSchemas, &table_key(id))
    }

    /// The account of this name.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn get_user(&self, id: &UserId) -> Result<Option<User>> {
        self.get(SystemTable::Users, id.as_str().as_bytes())
    }

    /// The storage location of this name.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn get_storage_location(&self, name: &str) -> Result<Option<StorageLocation>> {
        self.get(SystemTable::StorageLocations, name.as_bytes())
    }

    /// The job with this id.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn get_job(&self, id: &JobId) -> Result<Option<Job>> {
        self.get(SystemTable::Jobs, id.as_str().as_bytes())
    }

    /// All namespaces, by name.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn scan_all_namespaces(&self) -> Result<Vec<Namespace>> {
        self.scan(SystemTable::Namespaces, &[])
    }

    /// All tables, by id.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn scan_all_tables(&self) -> Result<Vec<Table>> {
        self.scan(SystemTable::Tables, &[])
    }

    /// All schema versions, by table, then version.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn scan_all_table_schemas(&self) -> Result<Vec<TableSchema>> {
        self.scan(SystemTable::TableSchemas, &[])
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn scan_all_users(&self) -> Result<Vec<User>> {
        self.scan(SystemTable::Users, &[])
    }

    /// All storage locations, by name.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn scan_all_storage_locations(&self) -> Result<Vec<StorageLocation>> {
        self.scan(SystemTable::StorageLocations, &[])
    }

    /// All jobs, by id.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn scan_all_jobs(&self) -> Result<Vec<Job>> {
        self.scan(SystemTable::Jobs, &[])
    }
}

fn families() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    std::iter::once(DEFAULT_FAMILY).chain(SystemTable::ALL.map(SystemTable::name)).map(|name| {
        let mut options = Options::default();
        options.set_write_buffer_size(16 << 20);
        ColumnFamilyDescriptor::new(name, options)
    })
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
