//! Who is asking.

use std::sync::Arc;

use log_format::{NamespaceId, Partition, Role, StreamScope, TableKind, UserId};

use crate::error::{Error, Result};
use crate::table::TableInfo;

/// The namespace a session begins in.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Who is asking, and where names without a namespace belong.
///
/// Every partition a statement or subscription touches is formed here, from the session's own user: there is no way to
/// name somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    // Shared: each live query keeps the session that asked for it.
    user: Arc<UserId>,
    role: Role,
    namespace: Arc<NamespaceId>,
    /// Whether somebody else runs a statement as this user.
    acts_for_another: bool,
}

impl Session {
    /// A session of this user, in this namespace or the default one.
    pub fn new(user: UserId, role: Role, namespace: Option<&str>) -> Self {
        let namespace = NamespaceId::new(namespace.unwrap_or(DEFAULT_NAMESPACE));
        Self { user: Arc::new(user), role, namespace: Arc::new(namespace), acts_for_another: false }
    }

    /// The session of a statement that somebody else runs as this user.
    pub(crate) fn for_another(self) -> Self {
        Self { acts_for_another: true, ..self }
    }

    /// Whether somebody else runs a statement as this user: it may read and change rows of tables, and nothing else.
    pub(crate) const fn acts_for_another(&self) -> bool {
        self.acts_for_another
    }

    /// The user.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    pub(crate) const fn shared_user(&self) -> &Arc<UserId> {
        &self.user
    }

    /// What they may do.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Where names without a namespace belong.
    pub fn namespace(&self) -> &NamespaceId {
        &self.namespace
    }

    pub(crate) fn use_namespace(&mut self, namespace: NamespaceId) {
        self.namespace = Arc::new(namespace);
    }

    /// The rows of a table that this session sees.
    pub(crate) fn partition(&self, table: &TableInfo) -> Partition {
        let id = table.id();
        match table.kind() {
            TableKind::User => Partition::of_user(id, self.user().clone()),
            TableKind::Stream(options) if options.scope == StreamScope::User => {
                Partition::of_user(id, self.user().clone())
            }
            TableKind::Shared(_) | TableKind::Stream(_) => Partition::shared(id),
        }
    }

    /// Refuses what the role may not do.
    pub(crate) fn require(&self, least: Role, action: &str) -> Result<()> {
        if self.role >= least {
            return Ok(());
        }
        let needed = match least {
            Role::User => "user",
            Role::Service => "service or dba",
            Role::Dba => "dba",
        };
        Err(Error::PermissionDenied { user: self.user.to_string(), action: action.to_owned(), needed })
    }
}
