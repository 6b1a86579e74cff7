//! What can go wrong in the hot tier.

use std::path::PathBuf;

use log_format::Seq;

/// A failure of the hot tier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be opened.
    #[error("cannot open the row store at {path}: {source}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// A read or write failed.
    #[error("the row store cannot {action}: {source}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// A stored record is not what this program writes.
    #[error(
        "the row store holds a damaged record ({what}); delete the directory `rows` to rebuild it from the log"
    )]
    Damaged {
        /// Which kind of record.
        what: &'static str,
    },
    /// An event that cannot be read.
    #[error("event {seq} cannot be applied: {source}")]
    Event {
        /// Which event.
        seq: Seq,
        /// What is wrong with it.
        source: log_format::Error,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
