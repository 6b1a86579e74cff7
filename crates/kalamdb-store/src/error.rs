//! What can go wrong in either tier.

use std::path::PathBuf;

use log_format::Seq;

/// A failure of the hot or the cold tier.
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
    /// A directory or file of the cold tier cannot be used.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A cold file that is not what the manifest says.
    #[error("the cold file {path} cannot be read: {reason}; bring it back from a backup")]
    ColdFile {
        /// Which, below the directory of cold files.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Parquet failed.
    #[error("a cold file cannot be read or written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow failed.
    #[error("rows of a cold file cannot be put together: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Where cold files are kept failed.
    #[error("cold files cannot be reached: {0}")]
    ObjectStore(#[from] object_store::Error),
    /// A storage location cannot be used.
    #[error("the storage location {name} cannot be used: {reason}")]
    Place {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// A storage location that another instance of the database writes to.
    #[error(
        "the storage location {name} belongs to another instance of this database ({owner}), as where this directory is a copy: \
         nothing is written or deleted there. Give this one a location of its own; where the other one is gone for good, start \
         once with --take-over-locations"
    )]
    Owned {
        /// Name of the location.
        name: String,
        /// The token of the instance that owns it.
        owner: String,
    },
    /// The operating system gives no thread for what cold files need one for.
    #[error("cold files cannot be written or waited for without another thread: {0}")]
    Thread(std::io::Error),
    /// No path of a cold file.
    #[error("not the path of a cold file: {0}")]
    Path(#[from] object_store::path::Error),
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
