//! Why the server cannot start or go on.

use std::path::PathBuf;

/// A failure of the server itself; what clients do wrong is answered, not returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key that signs tokens cannot be read or written.
    #[error("the token key {path}: {source}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The key that signs tokens is no key.
    #[error(
        "the token key {path} holds {found} bytes instead of {expected}; delete it to get a new one (everyone has to log in again)"
    )]
    KeyLength {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: usize,
        /// What it should hold.
        expected: usize,
    },
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[source] getrandom::Error),
    /// The listener.
    #[error("serving: {0}")]
    Serve(#[source] std::io::Error),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
