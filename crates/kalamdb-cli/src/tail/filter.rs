//! Which events are shown.

use kalamdb_core::ChangeRecord;
use kalamdb_core::format::{ArchivedChangeEvent, Operation, Seq};

use super::catalog::Catalog;
use super::narrow::Narrow;
use crate::client::quote_literal;

/// An operation as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OperationName {
    /// A row or stream row came.
    Insert,
    /// A row changed.
    Update,
    /// A row was deleted.
    Delete,
    /// Stream rows went.
    Evict,
    /// Rows moved to the cold tier.
    Flush,
    /// Cold files became one.
    Compact,
    /// The catalog changed.
    Catalog,
    /// The log itself.
    Epoch,
}

impl OperationName {
    const fn operation(self) -> Operation {
        match self {
            Self::Insert => Operation::Insert,
            Self::Update => Operation::Update,
            Self::Delete => Operation::Delete,
            Self::Evict => Operation::Evict,
            Self::Flush => Operation::Flush,
            Self::Compact => Operation::Compact,
            Self::Catalog => Operation::Catalog,
            Self::Epoch => Operation::Epoch,
        }
    }
}

/// What the command line asked for; everything that is given must hold.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    table: Option<String>,
    owner: Option<String>,
    operation: Option<Operation>,
}

impl Filter {
    pub(crate) fn new(table: Option<&str>, owner: Option<&str>, operation: Option<OperationName>) -> Self {
        Self {
            table: table.map(str::to_owned),
            owner: owner.map(str::to_owned),
            operation: operation.map(OperationName::operation),
        }
    }

    /// What can be said before rows are decoded: most events of a narrow tail are not.
    pub(crate) fn may_match(
        &self,
        seq: Seq,
        event: &ArchivedChangeEvent,
        names: &mut Catalog,
    ) -> anyhow::Result<bool> {
        if self.operation.is_some_and(|operation| event.operation() != operation) {
            return Ok(false);
        }
        let Some(partition) = event.partition() else { return Ok(true) };
        if self.owner.as_deref().is_some_and(|owner| partition.owner() != Some(owner)) {
            return Ok(false);
        }
        let Some(wanted) = &self.table else { return Ok(true) };
        let id = partition.table.to_id();
        Ok(match names.table(id, seq)? {
            Some(name) => name == wanted,
            None => *wanted == id.to_string(),
        })
    }

    pub(crate) fn matches(&self, record: &ChangeRecord) -> bool {
        self.operation.is_none_or(|operation| record.operation == operation)
            && self.table.as_deref().is_none_or(|table| is_table(record, table))
            && self.owner.as_deref().is_none_or(|owner| record.user == owner)
    }

    /// The same in partitions, as far as it can be said so.
    pub(super) fn narrow(&self) -> Option<Narrow> {
        Narrow::new(self.table.as_deref(), self.owner.as_deref())
    }

    /// The same as a condition on `system.changes`, as far as it can be said there.
    pub(crate) fn condition(&self) -> String {
        let mut conditions = Vec::new();
        if let Some((namespace, table)) = self.table.as_deref().and_then(|table| table.split_once('.')) {
            conditions.push(format!("namespace_id = {}", quote_literal(namespace)));
            conditions.push(format!("table_name = {}", quote_literal(table)));
        }
        conditions.extend(self.owner.as_deref().map(|owner| format!("user_id = {}", quote_literal(owner))));
        conditions
            .extend(self.operation.map(|operation| format!("op = {}", quote_literal(operation.as_str()))));
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
    }
}

/// Whether a record is of the table `namespace.table`, or of this id where nothing tells its name.
fn is_table(record: &ChangeRecord, wanted: &str) -> bool {
    match wanted.split_once('.') {
        Some((namespace, table)) => record.namespace == namespace && record.table == table,
        None => record.namespace.is_empty() && record.table == wanted,
    }
}
