//! What can go wrong with a log, told with the place it went wrong at.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_format::{DatabaseId, Seq};

/// Making a file.
pub(crate) const CREATE: &str = "create";

/// Making room in one.
pub(crate) const RESERVE: &str = "reserve space in";

/// Why a log cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// Another process writes this log.
    #[error("the log in {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{} is damaged at byte {offset}: {flaw}. Nothing was changed: copy the directory, then restore from a backup, or \
         keep what is whole with `kalamdb log repair`",
        segment.display()
    )]
    Rot {
        /// The segment.
        segment: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        #[source]
        flaw: Flaw,
    },
    /// The log is shorter than it once was.
    #[error(
        "the log in {} ends at seq {end}, but was durable up to seq {durable}: segments are missing. Put them back, \
         restore from a backup, or accept the loss with `kalamdb log repair`",
        dir.display()
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
        /// What the clean shutdown before noted as the end.
        durable: Seq,
        /// The end that is there.
        end: Seq,
    },
    /// A segment of another database.
    #[error("{} belongs to database {found}, the segments before it to {expected}", segment.display())]
    ForeignSegment {
        /// The segment.
        segment: PathBuf,
        /// The log's database.
        expected: DatabaseId,
        /// The segment's.
        found: DatabaseId,
    },
    /// A segment that was renamed.
    #[error("{} says that it begins at seq {base_seq}", segment.display())]
    RenamedSegment {
        /// The segment.
        segment: PathBuf,
        /// The seq its head names.
        base_seq: Seq,
    },
    /// The head of a segment that this program cannot read.
    #[error("cannot read {}: {source}", segment.display())]
    Head {
        /// The segment.
        segment: PathBuf,
        /// What is wrong.
        #[source]
        source: log_format::Error,
    },
    /// Events that do not fit into a frame. The writer is as it was.
    #[error(transparent)]
    Encode(#[from] log_format::Error),
    /// A write or a sync failed earlier; what the disk holds is not known, so nothing more is written.
    #[error("the log takes no more writes: {cause}")]
    Poisoned {
        /// The failure.
        #[source]
        cause: Arc<Error>,
    },
    /// The disk is full. Nothing of the group was written and its seqs are free again; what was written before is as good
    /// as it was. See [`crate::LogWriter::try_recover`].
    #[error("the log waits for space: {cause}")]
    Full {
        /// What the operating system refused.
        #[source]
        cause: Arc<Error>,
    },
    /// What should come next was deleted by retention.
    #[error("the log begins at seq {floor} by now")]
    BelowFloor {
        /// The first seq that is there.
        floor: Seq,
    },
    /// A seq this log never gave to an event: beyond its end, or in a gap.
    #[error("seq {after} is not in the log, which ends at {end}")]
    NotInLog {
        /// The seq asked for.
        after: Seq,
        /// The last seq there is.
        end: Seq,
    },
    /// No other epoch or no seqs are left: what comes next could not be told from what is there.
    #[error(
        "the log ends at seq {end} in epoch {epoch}, and has no other to give; no writer gets there: it is damaged"
    )]
    Exhausted {
        /// The last seq there is.
        end: Seq,
        /// The last epoch.
        epoch: u32,
    },
    /// The operating system has no random bytes.
    #[error("no random bytes for a database id")]
    Random {
        /// What it said.
        #[source]
        source: getrandom::Error,
    },
}

/// What is wrong at one place of a segment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// The bytes are no frame.
    #[error(transparent)]
    Format(#[from] log_format::Error),
    /// The frame names another predecessor than the one before it.
    #[error("the frame follows one with checksum {found:08x}, the one before it has {expected:08x}")]
    Chain {
        /// The checksum of the frame before.
        expected: u32,
        /// The one it names.
        found: u32,
    },
    /// Seqs are missing, or come twice.
    #[error("the frame begins at seq {found} instead of {expected}")]
    Seq {
        /// The seq that should come.
        expected: Seq,
        /// The seq that is there.
        found: Seq,
    },
    /// Something stands behind the last frame.
    #[error("there are bytes behind the last frame")]
    Behind,
}

impl Error {
    /// Whether there was no space where room is made, before anything is written into it. Anywhere else, a sync above all,
    /// it is a failure like others.
    pub(crate) fn is_no_space(&self) -> bool {
        let Self::Io { action: CREATE | RESERVE, source, .. } = self else { return false };
        matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds action and path to what the operating system says.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}
