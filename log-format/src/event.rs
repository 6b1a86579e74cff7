//! The typed events. One event is one rkyv archive.
//!
//! Every variant is boxed: the archived enum is then a tag and a relative pointer, eight bytes whatever the payload,
//! so that a new variant leaves the archives of old ones readable.

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::catalog::{Job, Namespace, StorageLocation, Table, TableSchema, User};
use crate::cold::{Compacted, Flushed};
use crate::error::{Error, Result};
use crate::footer::PartitionHash;
use crate::ids::{JobId, NamespaceId, Partition, TableId, UserId};

/// One change of the database. What is not listed here cannot happen to it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ChangeEvent {
    /// The log was opened for writing, or seqs were left out.
    EpochStarted(Box<EpochStarted>),
    /// A row came to be.
    RowInserted(Box<RowInserted>),
    /// A row changed.
    RowUpdated(Box<RowUpdated>),
    /// A row was deleted; its tombstone stays.
    RowDeleted(Box<RowDeleted>),
    /// A stream row arrived.
    StreamAppended(Box<StreamAppended>),
    /// The oldest rows of a stream partition went.
    StreamEvicted(Box<StreamEvicted>),
    /// A namespace was created.
    NamespaceCreated(Box<Namespace>),
    /// A namespace's options changed.
    NamespaceAltered(Box<Namespace>),
    /// An empty namespace was dropped.
    NamespaceDropped(Box<NamespaceId>),
    /// A table was created; its first schema version comes in the same commit.
    TableCreated(Box<Table>),
    /// A table's options or current schema version changed.
    TableAltered(Box<Table>),
    /// A table was dropped, with its rows and schema versions.
    TableDropped(Box<TableDropped>),
    /// A schema version was added.
    SchemaVersionAdded(Box<TableSchema>),
    /// An account was created.
    UserCreated(Box<User>),
    /// An account changed.
    UserAltered(Box<User>),
    /// An account was dropped.
    UserDropped(Box<UserId>),
    /// A place for cold files was registered.
    StorageLocationCreated(Box<StorageLocation>),
    /// A place for cold files changed.
    StorageLocationAltered(Box<StorageLocation>),
    /// A place for cold files was dropped.
    StorageLocationDropped(Box<String>),
    /// A job was queued or started.
    JobCreated(Box<Job>),
    /// A job went on or ended.
    JobUpdated(Box<Job>),
    /// All rows of a table went; the table stays.
    TableTruncated(Box<TableTruncated>),
    /// A job that ended is remembered no longer.
    JobDropped(Box<JobId>),
    /// Rows moved from the hot tier into a cold file.
    Flushed(Box<Flushed>),
    /// Cold files of a partition became one.
    Compacted(Box<Compacted>),
}

/// A writer opened the log, or left out seqs that another log gave out (one for what was before, one for what is behind them). Between `previous_end` and this event's seq there is a gap: seqs that may have been
/// published by a process that died before they were durable, and are therefore never used again.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct EpochStarted {
    /// The last seq before; 0 in a new log.
    pub previous_end: u64,
}

/// A row and where it stands. `row` is encoded by [`crate::RowBuilder`], `key` by [`crate::KeyBuilder`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RowInserted {
    /// Whose rows.
    pub partition: Partition,
    /// The primary key.
    pub key: Vec<u8>,
    /// The new row.
    pub row: Vec<u8>,
}

/// A row before and after. The key never changes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RowUpdated {
    /// Whose rows.
    pub partition: Partition,
    /// The primary key.
    pub key: Vec<u8>,
    /// The row before.
    pub old: Vec<u8>,
    /// The row after.
    pub new: Vec<u8>,
}

/// A row that is deleted.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RowDeleted {
    /// Whose rows.
    pub partition: Partition,
    /// The primary key.
    pub key: Vec<u8>,
    /// The row before.
    pub old: Vec<u8>,
}

/// A stream row. Its place is its commit's time and its seq.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StreamAppended {
    /// Whose rows.
    pub partition: Partition,
    /// The row.
    pub row: Vec<u8>,
}

/// All rows of a stream partition before a point in (time, seq) went.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StreamEvicted {
    /// Whose rows.
    pub partition: Partition,
    /// Rows of commits before this time, microseconds, …
    pub before_time: i64,
    /// … or of this very time and before this seq.
    pub before_seq: u64,
}

/// A table that is gone, with what a reader needs to say which.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TableDropped {
    /// The table.
    pub table: TableId,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its name.
    pub name: String,
}

/// A table that lost all its rows, with what a reader needs to say which.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TableTruncated {
    /// The table.
    pub table: TableId,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its name.
    pub name: String,
}

/// What an event does, in one word, for tools and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
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

impl Operation {
    /// The operation that this word names.
    pub fn from_name(word: &str) -> Option<Self> {
        let rows = [Self::Insert, Self::Update, Self::Delete, Self::Evict];
        let others = [Self::Flush, Self::Compact, Self::Catalog, Self::Epoch];
        rows.into_iter().chain(others).find(|operation| operation.as_str() == word)
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Evict => "evict",
            Self::Flush => "flush",
            Self::Compact => "compact",
            Self::Catalog => "catalog",
            Self::Epoch => "epoch",
        }
    }
}

/// An event's archive, ready to be put into a frame.
#[derive(Clone, Debug)]
pub struct EncodedEvent {
    archive: AlignedVec<16>,
    partition: PartitionHash,
    partition_is_stream: bool,
}

impl EncodedEvent {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.archive
    }

    /// What stands for the partition it touches.
    pub const fn partition(&self) -> PartitionHash {
        self.partition
    }

    /// Whether it only appends to or evicts from a stream: such commits do not wait for the disk.
    pub const fn is_stream(&self) -> bool {
        self.partition_is_stream
    }
}

impl ChangeEvent {
    /// The event's archive.
    ///
    /// # Errors
    /// [`Error::Encode`] where it is too large for 32-bit relative pointers.
    pub fn encode(&self) -> Result<EncodedEvent> {
        let mut archive = AlignedVec::with_capacity(self.size_hint());
        archive = rkyv::api::high::to_bytes_in::<_, rancor::Error>(self, archive)
            .map_err(|error| Error::Encode { reason: error.to_string() })?;
        let partition_is_stream = matches!(self, Self::StreamAppended(_) | Self::StreamEvicted(_));
        let partition = self.partition().map_or(PartitionHash::CATALOG, PartitionHash::of);
        Ok(EncodedEvent { archive, partition, partition_is_stream })
    }

    /// About how many bytes its archive takes: enough for rows, so that they are encoded without growing.
    fn size_hint(&self) -> usize {
        let partition =
            |partition: &Partition| 64 + partition.user.as_ref().map_or(0, |user| user.as_str().len());
        match self {
            Self::RowInserted(event) => partition(&event.partition) + event.key.len() + event.row.len() + 32,
            Self::RowUpdated(event) => {
                partition(&event.partition) + event.key.len() + event.old.len() + event.new.len() + 48
            }
            Self::RowDeleted(event) => partition(&event.partition) + event.key.len() + event.old.len() + 32,
            Self::StreamAppended(event) => partition(&event.partition) + event.row.len() + 32,
            _ => 0,
        }
    }

    /// The partition whose rows it changes, if it changes rows.
    pub fn partition(&self) -> Option<&Partition> {
        match self {
            Self::RowInserted(event) => Some(&event.partition),
            Self::RowUpdated(event) => Some(&event.partition),
            Self::RowDeleted(event) => Some(&event.partition),
            Self::StreamAppended(event) => Some(&event.partition),
            Self::StreamEvicted(event) => Some(&event.partition),
            _ => None,
        }
    }
}

impl ArchivedChangeEvent {
    /// Checks that `bytes` are the archive of one event and gives access to it.
    ///
    /// # Errors
    /// `None` where they are not, or are not aligned to 16 bytes.
    pub fn access(bytes: &[u8]) -> Option<&Self> {
        rkyv::access::<Self, rancor::Failure>(bytes).ok()
    }

    /// The event as a value of its own.
    ///
    /// # Errors
    /// [`Error::Encode`] where the archive cannot be turned back; a validated one always can.
    pub fn to_event(&self) -> Result<ChangeEvent> {
        rkyv::deserialize::<ChangeEvent, rancor::Error>(self)
            .map_err(|error| Error::Encode { reason: error.to_string() })
    }

    /// The partition whose rows it changes, if it changes rows.
    pub fn partition(&self) -> Option<&crate::ids::ArchivedPartition> {
        match self {
            Self::RowInserted(event) => Some(&event.partition),
            Self::RowUpdated(event) => Some(&event.partition),
            Self::RowDeleted(event) => Some(&event.partition),
            Self::StreamAppended(event) => Some(&event.partition),
            Self::StreamEvicted(event) => Some(&event.partition),
            _ => None,
        }
    }

    /// Whether it writes a row of a USER or SHARED table.
    pub const fn writes_row(&self) -> bool {
        matches!(self, Self::RowInserted(_) | Self::RowUpdated(_) | Self::RowDeleted(_))
    }

    /// What it does, in one word.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::RowInserted(_) | Self::StreamAppended(_) => Operation::Insert,
            Self::RowUpdated(_) => Operation::Update,
            Self::RowDeleted(_) => Operation::Delete,
            Self::StreamEvicted(_) => Operation::Evict,
            Self::Flushed(_) => Operation::Flush,
            Self::Compacted(_) => Operation::Compact,
            Self::EpochStarted(_) => Operation::Epoch,
            _ => Operation::Catalog,
        }
    }

    /// The name of its type, as SPEC.md lists them.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::EpochStarted(_) => "EpochStarted",
            Self::RowInserted(_) => "RowInserted",
            Self::RowUpdated(_) => "RowUpdated",
            Self::RowDeleted(_) => "RowDeleted",
            Self::StreamAppended(_) => "StreamAppended",
            Self::StreamEvicted(_) => "StreamEvicted",
            Self::NamespaceCreated(_) => "NamespaceCreated",
            Self::NamespaceAltered(_) => "NamespaceAltered",
            Self::NamespaceDropped(_) => "NamespaceDropped",
            Self::TableCreated(_) => "TableCreated",
            Self::TableAltered(_) => "TableAltered",
            Self::TableDropped(_) => "TableDropped",
            Self::SchemaVersionAdded(_) => "SchemaVersionAdded",
            Self::UserCreated(_) => "UserCreated",
            Self::UserAltered(_) => "UserAltered",
            Self::UserDropped(_) => "UserDropped",
            Self::StorageLocationCreated(_) => "StorageLocationCreated",
            Self::StorageLocationAltered(_) => "StorageLocationAltered",
            Self::StorageLocationDropped(_) => "StorageLocationDropped",
            Self::JobCreated(_) => "JobCreated",
            Self::JobUpdated(_) => "JobUpdated",
            Self::TableTruncated(_) => "TableTruncated",
            Self::JobDropped(_) => "JobDropped",
            Self::Flushed(_) => "Flushed",
            Self::Compacted(_) => "Compacted",
        }
    }
}
