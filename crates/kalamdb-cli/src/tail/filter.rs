//! Which events are shown.

use kalamdb_core::format::{ArchivedChangeEvent, Operation};

use super::event::Shown;

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
            Self::Catalog => Operation::Catalog,
            Self::Epoch => Operation::Epoch,
        }
    }
}

/// What the command line asked for; everything that is given must hold.
#[derive(Debug)]
pub(crate) struct Filter {
    table: Option<String>,
    user: Option<String>,
    operation: Option<Operation>,
}

impl Filter {
    pub(crate) fn new(table: Option<&str>, user: Option<&str>, operation: Option<OperationName>) -> Self {
        Self {
            table: table.map(str::to_owned),
            user: user.map(str::to_owned),
            operation: operation.map(OperationName::operation),
        }
    }

    /// What can be said without names, so that most events need not be decoded.
    pub(crate) fn may_match(&self, event: &ArchivedChangeEvent) -> bool {
        let partition = event.partition();
        self.operation.is_none_or(|operation| event.operation() == operation)
            && self.user.as_deref().is_none_or(|user| partition.is_none_or(|of| of.owner() == Some(user)))
    }

    pub(crate) fn matches(&self, event: &Shown) -> bool {
        self.operation.is_none_or(|operation| event.operation == operation)
            && self.table.as_deref().is_none_or(|table| event.table.as_deref() == Some(table))
            && self.user.as_deref().is_none_or(|user| event.user.as_deref() == Some(user))
    }
}
