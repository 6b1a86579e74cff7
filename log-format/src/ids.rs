//! The names of things: newtypes, so that a seq is never taken for a table.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// The position of one event in the log. The first event of a database is seq 1; 0 means "before everything".
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct Seq(u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// The seq with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The seq `count` events later; saturates at the greatest one.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The seq after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The seq before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A table for as long as it lives. A table that is dropped and created again gets another id,
/// so rows of the old one can never show up in the new one.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Debug))]
pub struct TableId(u64);

impl TableId {
    /// The table with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl ArchivedTableId {
    /// The id as a value of its own.
    pub const fn to_id(&self) -> TableId {
        TableId(self.0.to_native())
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The nth version of one table's schema, counted from 1.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Debug))]
pub struct SchemaVersion(u32);

impl SchemaVersion {
    /// The version that CREATE writes.
    pub const FIRST: Self = Self(1);

    /// The version with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ArchivedSchemaVersion {
    /// The version as a value of its own.
    pub const fn to_version(&self) -> SchemaVersion {
        SchemaVersion(self.0.to_native())
    }
}

/// A column for as long as it lives, within its table: a rename keeps it, a new column of an old name has another.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Debug))]
pub struct ColumnId(u32);

impl ColumnId {
    /// The column with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $archived:ident) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[rkyv(derive(Debug))]
        pub struct $name(String);

        impl $name {
            /// The id with this text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $archived {
            /// Its text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_id!(
    /// One who logs in and owns rows.
    UserId, ArchivedUserId
);
text_id!(
    /// A namespace of tables.
    NamespaceId, ArchivedNamespaceId
);
text_id!(
    /// One run of a job.
    JobId, ArchivedJobId
);

/// Tells one database directory from every other: 16 random bytes, written into each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseId([u8; 16]);

impl DatabaseId {
    /// The id with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The rows that live and move together: those of one user in a table with an owner, else those of the whole table.
///
/// Isolation stands here: the partition is the beginning of every row's key, and a session can only name its own.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Debug))]
pub struct Partition {
    /// The table.
    pub table: TableId,
    /// The owner; none where the table's rows belong to nobody.
    pub user: Option<UserId>,
}

impl Partition {
    /// The rows of one user.
    pub const fn of_user(table: TableId, user: UserId) -> Self {
        Self { table, user: Some(user) }
    }

    /// The rows of a table without owners.
    pub const fn shared(table: TableId) -> Self {
        Self { table, user: None }
    }
}

impl ArchivedPartition {
    /// The owner's name; none where the rows belong to nobody.
    pub fn owner(&self) -> Option<&str> {
        self.user.as_ref().map(ArchivedUserId::as_str)
    }

    /// The partition as a value of its own.
    pub fn to_partition(&self) -> Partition {
        Partition {
            table: self.table.to_id(),
            user: self.user.as_ref().map(|user| UserId::new(user.as_str())),
        }
    }
}
