//! What can go wrong in the system tables.

use std::path::PathBuf;

use log_format::Seq;

/// A failure of the system tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be opened.
    #[error("cannot open the catalog at {path}: {source}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// A read or write failed.
    #[error("the catalog cannot {action}: {source}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// A stored record is not what this program writes.
    #[error(
        "the catalog holds a damaged record in {table}; delete the directory `catalog` to rebuild it from the log"
    )]
    Damaged {
        /// The system table.
        table: &'static str,
        /// What is wrong, where known.
        source: Option<log_format::Error>,
    },
    /// An event that cannot be applied.
    #[error("event {seq} cannot be applied to the catalog: {source}")]
    Event {
        /// Which event.
        seq: Seq,
        /// What is wrong with it.
        source: log_format::Error,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
