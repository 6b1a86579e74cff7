//! One event with everything that is shown of it: names instead of numbers, JSON instead of bytes.

use log_format::{
    ArchivedChangeEvent as Archived, ArchivedPartition, ChangeEvent, FrameFields, Operation, RowReader, Seq,
    TableDropped, TableTruncated,
};

use crate::changes::details;
use crate::changes::names::{ChangeNames, write_row};
use crate::error::Result;

/// An event, ready to be shown. Made to be filled again and again, so that a log is read without allocating for each
/// event; what an event does not have is empty. What is bytes here is JSON in UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Its seq.
    pub seq: Seq,
    /// When it was committed, microseconds since 1970.
    pub commit_time: i64,
    /// What it does.
    pub operation: Operation,
    /// The name of its type.
    pub event: String,
    /// The table's namespace; empty too where nothing tells the table's name.
    pub namespace: String,
    /// The table, or its id where nothing tells its name.
    pub table: String,
    /// The owner of the rows, or the account it is about.
    pub user: String,
    /// The schema version that wrote the row; 0 where there is none.
    pub schema_version: u32,
    /// The primary key's columns.
    pub key: Vec<u8>,
    /// The row before.
    pub before: Vec<u8>,
    /// The row after.
    pub after: Vec<u8>,
    /// What there is to say of an event that is not a row's.
    pub details: Vec<u8>,
    /// Whether everything had a name.
    pub is_named: bool,
}

impl Default for ChangeRecord {
    fn default() -> Self {
        Self {
            seq: Seq::ZERO,
            commit_time: 0,
            operation: Operation::Epoch,
            event: String::new(),
            namespace: String::new(),
            table: String::new(),
            user: String::new(),
            schema_version: 0,
            key: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            details: Vec::new(),
            is_named: true,
        }
    }
}

impl ChangeRecord {
    /// Becomes the record of this event, which `names` has been told of.
    ///
    /// # Errors
    /// Rows that are not legal, or a log that cannot be read for names.
    pub fn fill(
        &mut self,
        seq: Seq,
        frame: &FrameFields,
        event: &Archived,
        names: &mut ChangeNames,
    ) -> Result<()> {
        self.clear();
        self.seq = seq;
        self.commit_time = frame.commit_time;
        self.operation = event.operation();
        self.event.push_str(event.name());
        match event {
            Archived::RowInserted(it) => self.row(&it.partition, Some(&it.key), None, Some(&it.row), names),
            Archived::RowUpdated(it) => {
                self.row(&it.partition, Some(&it.key), Some(&it.old), Some(&it.new), names)
            }
            Archived::RowDeleted(it) => self.row(&it.partition, Some(&it.key), Some(&it.old), None, names),
            Archived::StreamAppended(it) => self.row(&it.partition, None, None, Some(&it.row), names),
            Archived::StreamEvicted(it) => {
                self.row(&it.partition, None, None, None, names)?;
                details::write(&mut self.details, &event.to_event()?, frame.epoch);
                Ok(())
            }
            Archived::Flushed(it) => {
                self.row(&it.partition, None, None, None, names)?;
                self.schema_version = it.schema_version.to_version().get();
                details::write(&mut self.details, &event.to_event()?, frame.epoch);
                Ok(())
            }
            Archived::Compacted(it) => {
                self.row(&it.partition, None, None, None, names)?;
                let version = it.file.as_ref().map(|file| file.schema_version.to_version().get());
                self.schema_version = version.unwrap_or(self.schema_version);
                details::write(&mut self.details, &event.to_event()?, frame.epoch);
                Ok(())
            }
            _ => {
                let event = event.to_event()?;
                self.subject(&event, names)?;
                details::write(&mut self.details, &event, frame.epoch);
                Ok(())
            }
        }
    }

    /// Holds nothing, and keeps its memory.
    pub fn clear(&mut self) {
        self.is_named = true;
        self.schema_version = 0;
        for text in [&mut self.event, &mut self.namespace, &mut self.table, &mut self.user] {
            text.clear();
        }
        for json in [&mut self.key, &mut self.before, &mut self.after, &mut self.details] {
            json.clear();
        }
    }

    fn row(
        &mut self,
        partition: &ArchivedPartition,
        key: Option<&[u8]>,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        names: &mut ChangeNames,
    ) -> Result<()> {
        self.user.push_str(partition.owner().unwrap_or_default());
        let old = old.map(RowReader::new).transpose()?;
        let new = new.map(RowReader::new).transpose()?;
        // The older version first: asking for one leaves what is known of the other.
        let id = partition.table.to_id();
        if let Some(old) = &old {
            names.find(id, Some(old.version()), self.seq)?;
        }
        let newest = new.or(old);
        let table = names.find(id, newest.map(|row| row.version()), self.seq)?;
        match table.filter(|table| !table.name.is_empty()) {
            Some(table) => {
                self.namespace.push_str(&table.namespace);
                self.table.push_str(&table.name);
            }
            None => {
                self.table = id.to_string();
                self.is_named = false;
            }
        }
        let schema_of = |row: RowReader<'_>| table.and_then(|table| table.schema(row.version()));
        if let Some(newest) = newest {
            self.schema_version = newest.version().get();
            self.is_named &= schema_of(newest).is_some();
            if let (Some(key), Some(schema)) = (key, schema_of(newest)) {
                schema.write_key(&mut self.key, key)?;
            }
        }
        if let Some(old) = old {
            write_row(&mut self.before, old, schema_of(old))?;
        }
        if let Some(new) = new {
            write_row(&mut self.after, new, schema_of(new))?;
        }
        Ok(())
    }

    /// Which table or user a catalog event is about.
    fn subject(&mut self, event: &ChangeEvent, names: &mut ChangeNames) -> Result<()> {
        match event {
            ChangeEvent::TableCreated(table) | ChangeEvent::TableAltered(table) => {
                self.named(table.namespace.as_str(), &table.name);
            }
            ChangeEvent::TableDropped(dropped) => {
                let TableDropped { namespace, name, .. } = dropped.as_ref();
                self.named(namespace.as_str(), name);
            }
            ChangeEvent::TableTruncated(truncated) => {
                let TableTruncated { namespace, name, .. } = truncated.as_ref();
                self.named(namespace.as_str(), name);
            }
            ChangeEvent::SchemaVersionAdded(schema) => {
                match names.find(schema.table, None, self.seq)?.filter(|table| !table.name.is_empty()) {
                    Some(table) => self.named(&table.namespace, &table.name),
                    None => {
                        self.table = schema.table.to_string();
                        self.is_named = false;
                    }
                }
            }
            ChangeEvent::NamespaceCreated(namespace) | ChangeEvent::NamespaceAltered(namespace) => {
                self.namespace.push_str(namespace.id.as_str());
            }
            ChangeEvent::NamespaceDropped(namespace) => self.namespace.push_str(namespace.as_str()),
            ChangeEvent::UserCreated(user) | ChangeEvent::UserAltered(user) => {
                self.user.push_str(user.id.as_str());
            }
            ChangeEvent::UserDropped(user) => self.user.push_str(user.as_str()),
            ChangeEvent::JobCreated(job) | ChangeEvent::JobUpdated(job) => {
                let namespace = job.namespace.as_ref().map_or("", |namespace| namespace.as_str());
                self.named(namespace, job.table_name.as_deref().unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    }

    fn named(&mut self, namespace: &str, table: &str) {
        self.namespace.push_str(namespace);
        self.table.push_str(table);
    }
}
