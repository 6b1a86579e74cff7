//! Which of the log's events a session sees: the changes of rows that it may read now, and a dba everything.
//!
//! *Invariant*: an event of another user's rows is seen by a dba alone, and so is what changes the catalog.

use std::sync::Arc;

use log_format::{ArchivedChangeEvent as Event, Partition, Role, TableId};

use crate::catalog::Catalog;
use crate::session::Session;
use crate::sql::require_read;
use crate::table::TableInfo;

/// What a session sees.
#[derive(Debug)]
pub(crate) struct Sight {
    session: Session,
    catalog: Arc<Catalog>,
    /// One table only.
    table: Option<TableId>,
    /// One partition only.
    partition: Option<Partition>,
}

impl Sight {
    /// Whatever the session may see.
    pub(crate) fn of_session(session: &Session, catalog: Arc<Catalog>) -> Self {
        Self { session: session.clone(), catalog, table: None, partition: None }
    }

    /// What it may see of one table, which it may read.
    pub(crate) fn of_table(session: &Session, catalog: Arc<Catalog>, info: &TableInfo) -> Self {
        let own = session.partition(info);
        let partition = (session.role() < Role::Dba || own.user.is_none()).then_some(own);
        Self { session: session.clone(), catalog, table: Some(info.id()), partition }
    }

    /// The one partition whose rows' changes it sees, where it is one.
    pub(crate) const fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// Whether it sees an event.
    pub(crate) fn sees(&self, event: &Event) -> bool {
        if self.table.is_some_and(|table| table_of(event) != Some(table)) {
            return false;
        }
        if self.session.role() >= Role::Dba {
            return true;
        }
        let Some(partition) = event.partition() else { return false };
        match partition.owner() {
            Some(owner) => owner == self.session.user().as_str(),
            // Nobody knows any more who could read a table that is gone.
            None => {
                let info = self.catalog.by_id(partition.table.to_id());
                info.is_some_and(|info| require_read(&self.session, &info).is_ok())
            }
        }
    }
}

/// The table an event is about.
fn table_of(event: &Event) -> Option<TableId> {
    match event {
        Event::TableCreated(table) | Event::TableAltered(table) => Some(table.id.to_id()),
        Event::SchemaVersionAdded(schema) => Some(schema.table.to_id()),
        Event::TableDropped(event) => Some(event.table.to_id()),
        Event::TableTruncated(event) => Some(event.table.to_id()),
        Event::Flushed(event) => Some(event.partition.table.to_id()),
        Event::Compacted(event) => Some(event.partition.table.to_id()),
        _ => event.partition().map(|partition| partition.table.to_id()),
    }
}
