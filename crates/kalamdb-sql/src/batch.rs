//! Writing: the typed calls on a batch. A batch exists only inside [`crate::SystemTables::apply`].

use log_format::{
    ChangeEvent, Job, JobId, Namespace, NamespaceId, Record, StorageLocation, Table, TableId, TableSchema,
    User, UserId,
};
use rocksdb::WriteBatch;

use crate::error::{Error, Result};
use crate::system::{Database, SystemTable, schema_key, table_key};

/// What one group of commits changes in the system tables, written all at once.
pub struct Batch<'s> {
    database: &'s Database,
    pub(crate) writes: WriteBatch,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("writes", &self.writes.len()).finish_non_exhaustive()
    }
}

impl<'s> Batch<'s> {
    pub(crate) fn new(database: &'s Database) -> Self {
        Self { database, writes: WriteBatch::default() }
    }

    /// Takes over what one event changes. Events of rows change nothing here.
    pub(crate) fn apply(&mut self, event: &ChangeEvent) -> Result<()> {
        match event {
            ChangeEvent::NamespaceCreated(record) => self.insert_namespace(record),
            ChangeEvent::NamespaceAltered(record) => self.update_namespace(record),
            ChangeEvent::NamespaceDropped(id) => self.delete_namespace(id),
            ChangeEvent::TableCreated(record) => self.insert_table(record),
            ChangeEvent::TableAltered(record) => self.update_table(record),
            ChangeEvent::TableDropped(dropped) => {
                self.delete_table(dropped.table)?;
                self.delete_table_schemas_for_table(dropped.table)
            }
            ChangeEvent::SchemaVersionAdded(record) => self.insert_table_schema(record),
            ChangeEvent::UserCreated(record) => self.insert_user(record),
            ChangeEvent::UserAltered(record) => self.update_user(record),
            ChangeEvent::UserDropped(id) => self.delete_user(id),
            ChangeEvent::StorageLocationCreated(record) => self.insert_storage_location(record),
            ChangeEvent::StorageLocationAltered(record) => self.update_storage_location(record),
            ChangeEvent::StorageLocationDropped(name) => self.delete_storage_location(name),
            ChangeEvent::JobCreated(record) => self.insert_job(record),
            ChangeEvent::JobUpdated(record) => self.update_job(record),
            ChangeEvent::JobDropped(id) => self.delete_job(id),
            ChangeEvent::EpochStarted(_)
            | ChangeEvent::RowInserted(_)
            | ChangeEvent::RowUpdated(_)
            | ChangeEvent::RowDeleted(_)
            | ChangeEvent::StreamAppended(_)
            | ChangeEvent::StreamEvicted(_)
            | ChangeEvent::TableTruncated(_)
            | ChangeEvent::Flushed(_)
            | ChangeEvent::Compacted(_) => Ok(()),
        }
    }

    fn put(&mut self, table: SystemTable, key: &[u8], record: &impl Record) -> Result<()> {
        let value = record.to_bytes().map_err(|source| table.damaged(Some(source)))?;
        self.writes.put_cf(&table.family(self.database)?, key, value);
        Ok(())
    }

    fn delete(&mut self, table: SystemTable, key: &[u8]) -> Result<()> {
        self.writes.delete_cf(&table.family(self.database)?, key);
        Ok(())
    }
}

/// One line a call: which table, which key.
macro_rules! calls {
    ($($(#[$doc:meta])* $put:ident => $table:ident($record:ident: $model:ty) $key:expr;)*) => {
        impl Batch<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// Where the record is too large to store.
            pub fn $put(&mut self, $record: &$model) -> Result<()> {
                self.put(SystemTable::$table, $key, $record)
            }
        )*}
    };
}

calls! {
    /// Adds a namespace.
    insert_namespace => Namespaces(record: Namespace) record.id.as_str().as_bytes();
    /// Replaces a namespace.
    update_namespace => Namespaces(record: Namespace) record.id.as_str().as_bytes();
    /// Adds a table.
    insert_table => Tables(record: Table) &table_key(record.id);
    /// Replaces a table.
    update_table => Tables(record: Table) &table_key(record.id);
    /// Adds a schema version.
    insert_table_schema => TableSchemas(record: TableSchema) &schema_key(record.table, record.version);
    /// Adds an account.
    insert_user => Users(record: User) record.id.as_str().as_bytes();
    /// Replaces an account.
    update_user => Users(record: User) record.id.as_str().as_bytes();
    /// Adds a storage location.
    insert_storage_location => StorageLocations(record: StorageLocation) record.name.as_bytes();
    /// Replaces a storage location.
    update_storage_location => StorageLocations(record: StorageLocation) record.name.as_bytes();
    /// Adds a job.
    insert_job => Jobs(record: Job) record.id.as_str().as_bytes();
    /// Replaces a job.
    update_job => Jobs(record: Job) record.id.as_str().as_bytes();
}

impl Batch<'_> {
    /// Removes a namespace.
    ///
    /// # Errors
    /// Where the store is damaged.
    pub fn delete_namespace(&mut self, id: &NamespaceId) -> Result<()> {
        self.delete(SystemTable::Namespaces, id.as_str().as_bytes())
    }

    /// Removes a table.
    ///
    /// # Errors
    /// Where the store is damaged.
    pub fn delete_table(&mut self, table: TableId) -> Result<()> {
        self.delete(SystemTable::Tables, &table_key(table))
    }

    /// Removes every schema version of a table that is dropped.
    ///
    /// # Errors
    /// Where the store is damaged.
    pub fn delete_table_schemas_for_table(&mut self, table: TableId) -> Result<()> {
        let family = SystemTable::TableSchemas.family(self.database)?;
        let until = TableId::new(table.get().saturating_add(1));
        self.writes.delete_range_cf(&family, table_key(table), table_key(until));
        Ok(())
    }

    /// Removes an account.
    ///
    /// # Errors
    /// Where the store is damaged.
    pub fn delete_user(&mut self, id: &UserId) -> Result<()> {
        self.delete(SystemTable::Users, id.as_str().as_bytes())
    }

    /// Removes a storage location.
    ///
    /// # Errors
    /// Where the store is damaged.
    pub fn delete_storage_location(&mut self, name: &str) -> Result<()> {
        self.delete(SystemTable::StorageLocations, name.as_bytes())
    }

    /// Removes a job.
    ///
    /// # Errors
    /// Where the store is damaged.
    pub fn delete_job(&mut self, id: &JobId) -> Result<()> {
        self.delete(SystemTable::Jobs, id.as_str().as_bytes())
    }
}

/// Turns a failure to read an event into one that names it.
pub(crate) fn unreadable(seq: log_format::Seq) -> impl FnOnce(log_format::Error) -> Error {
    move |source| Error::Event { seq, source }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
