//! What the catalog's events hold: the records of the system tables, whole, so that applying one is a put.
//!
//! Times are microseconds since 1970-01-01T00:00:00Z.

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::cold::ColdFile;
use crate::error::{Error, Result};
use crate::ids::{ColumnId, JobId, NamespaceId, SchemaVersion, TableId, UserId};
use crate::value::{DataType, Value};

/// A namespace.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub id: NamespaceId,
    /// What `WITH OPTIONS` said: names and values, as text.
    pub options: Vec<(String, String)>,
    /// When it was created.
    pub created_at: i64,
    /// When it was last changed.
    pub updated_at: i64,
}

/// What kind of table, with what only that kind has.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Each row belongs to one user.
    User,
    /// Rows belong to nobody.
    Shared(Access),
    /// Rows are ephemeral.
    Stream(StreamOptions),
}

/// Who may touch a shared table.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone reads and writes rows.
    Public,
    /// Everyone reads; service and dba write.
    Restricted,
    /// Only service and dba read or write.
    Private,
}

/// Who sees the rows of a stream table.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamScope {
    /// Each user their own.
    User,
    /// Everyone all.
    All,
}

/// How long the rows of a stream table live.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Who sees them.
    pub scope: StreamScope,
    /// Milliseconds until a row goes; none: no limit in time.
    pub ttl_ms: Option<u64>,
    /// Rows kept per partition, the newest; none: no limit in number.
    pub max_buffer: Option<u64>,
    /// Whether rows are kept only while somebody listens.
    pub ephemeral: bool,
}

/// When the hot rows of a table go to the cold tier.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushPolicy {
    /// After that many rows, counted per partition.
    pub rows: Option<u64>,
    /// After that many milliseconds.
    pub interval_ms: Option<u64>,
}

/// A table, without its columns: those are in its schema versions.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its id, never used again.
    pub id: TableId,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: TableKind,
    /// The newest schema version.
    pub current_version: SchemaVersion,
    /// `LOCATION '…'`: a path, perhaps with `${user_id}`.
    pub location_path: Option<String>,
    /// `LOCATION REFERENCE '…'`: the name of a storage location.
    pub location_reference: Option<String>,
    /// When rows go to the cold tier.
    pub flush_policy: Option<FlushPolicy>,
    /// Milliseconds a deleted row's tombstone is kept.
    pub deleted_retention_ms: Option<u64>,
    /// When it was created.
    pub created_at: i64,
    /// When it was last changed.
    pub updated_at: i64,
}

/// What a column holds where an INSERT names no value.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ColumnDefault {
    /// A constant, as a one-cell row ([`crate::RowBuilder`]).
    Constant(Vec<u8>),
    /// `SNOWFLAKE_ID()`.
    SnowflakeId,
    /// `UUID_V7()`.
    UuidV7,
    /// `ULID()`.
    Ulid,
    /// `NOW()`.
    Now,
    /// `CURRENT_USER()`.
    CurrentUser,
    /// `CURRENT_ROLE()`.
    CurrentRole,
}

impl ColumnDefault {
    /// The default that is always this value.
    ///
    /// # Errors
    /// Where the value is too large for a row.
    pub fn constant(value: &Value) -> Result<Self> {
        let mut cell = crate::RowBuilder::new(SchemaVersion::FIRST);
        cell.push(value);
        Ok(Self::Constant(cell.finish()?))
    }
}

/// A column of one schema version.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its id: stays through renames, is never given to another column of the table.
    pub id: ColumnId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// What stands in for a missing value.
    pub default: Option<ColumnDefault>,
}

/// One version of a table's schema. Versions are only ever added.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The table.
    pub table: TableId,
    /// Which version, from 1.
    pub version: SchemaVersion,
    /// The columns, in the order of the row's cells.
    pub columns: Vec<Column>,
    /// The primary key's columns, in key order.
    pub primary_key: Vec<ColumnId>,
    /// What this version changed, in words.
    pub change: String,
    /// When it was added.
    pub created_at: i64,
    /// Who added it.
    pub created_by: UserId,
}

/// What a user may do.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Own rows, and what shared tables allow.
    User,
    /// Also tables and namespaces, and statements in the name of users.
    Service,
    /// Everything.
    Dba,
}

/// An account.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub id: UserId,
    /// What they may do.
    pub role: Role,
    /// The argon2id hash, in PHC form. Never shown.
    pub password_hash: String,
    /// Free JSON.
    pub metadata: Option<String>,
    /// When it was created.
    pub created_at: i64,
    /// When it was last changed.
    pub updated_at: i64,
}

/// Everything but the hash.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("metadata", &self.metadata)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .finish_non_exhaustive()
    }
}

/// A place for cold files.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StorageLocation {
    /// Its name.
    pub name: String,
    /// `filesystem`, `s3`, `gcs` or `azure`.
    pub location_type: String,
    /// Where it is.
    pub path: String,
    /// Where credentials are found; never the credentials.
    pub credentials_ref: Option<String>,
    /// How many tables use it.
    pub usage_count: u64,
    /// When it was created.
    pub created_at: i64,
    /// When it was last changed.
    pub updated_at: i64,
}

/// How far a job is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// Not started.
    Queued,
    /// At work.
    Running,
    /// Done.
    Completed,
    /// Given up.
    Failed,
    /// Stopped by somebody.
    Cancelled,
}

/// One run of a background job.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does, such as `drop_table`.
    pub job_type: String,
    /// The namespace it works on.
    pub namespace: Option<NamespaceId>,
    /// The table's name.
    pub table_name: Option<String>,
    /// The user it works for.
    pub user: Option<UserId>,
    /// How far it is.
    pub status: JobStatus,
    /// JSON.
    pub parameters: Option<String>,
    /// JSON.
    pub result: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Where it failed.
    pub trace: Option<String>,
    /// Bytes it used at the most.
    pub memory_used: Option<u64>,
    /// Microseconds of processor time.
    pub cpu_used: Option<u64>,
    /// The node it ran on.
    pub node: String,
    /// When it was queued.
    pub created_at: i64,
    /// When it started.
    pub started_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
}

/// A record of a system table or a manifest: one rkyv archive, in an event and at rest alike.
pub trait Record: Sized {
    /// The record's archive.
    ///
    /// # Errors
    /// [`Error::Encode`] where it is too large.
    fn to_bytes(&self) -> Result<Vec<u8>>;

    /// The record in these bytes, which need not be aligned.
    ///
    /// # Errors
    /// [`Error::Record`] where they hold none.
    fn from_bytes(bytes: &[u8]) -> Result<Self>;
}

macro_rules! records {
    ($($name:ident),*) => {$(
        impl Record for $name {
            fn to_bytes(&self) -> Result<Vec<u8>> {
                rkyv::to_bytes::<rancor::Error>(self)
                    .map(|bytes| bytes.to_vec())
                    .map_err(|error| Error::Encode { reason: error.to_string() })
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self> {
                let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
                aligned.extend_from_slice(bytes);
                rkyv::from_bytes::<Self, rancor::Failure>(&aligned)
                    .map_err(|_| Error::Record { what: stringify!($name) })
            }
        }
    )*};
}

records!(Namespace, Table, TableSchema, User, StorageLocation, Job, ColdFile);
