//! The change log on disk: the only write-ahead log there is.
//!
//! This crate owns the segments of one directory: appending frames to them, making them durable, recovering what a
//! crash left, reading from any seq, following a log that another process writes.
//!
//! What it keeps true:
//! - One writer per directory, held by a lock file; readers need no lock and no writer.
//! - Seqs only grow. A seq that may have been seen outside is never given to another event: see [`LogWriter::open`].
//! - A frame never spans segments, and names the checksum of the frame before it, across segments too.
//! - Bytes behind the end of the log are zeros or not there. A write that was torn therefore leaves zeros or the file's
//!   end where bytes are missing, and rot does not.
//! - After one failed write or sync nothing is written again ([`Error::Poisoned`]).
//! - Every access to a file goes through [`Disk`], so that [`simulation`] can put failing disks and lost power behind it.
//!
//! It does not know what an event means: the single one it writes itself is `EpochStarted`.

mod active;
mod clock;
#[cfg(test)]
mod corruption_tests;
mod damage;
mod disk;
mod error;
mod index;
mod lock;
mod marker;
#[cfg(test)]
mod model_tests;
mod options;
mod overview;
mod poison;
mod queue;
mod reader;
mod recovery;
mod repair;
mod retention;
mod segment;
pub mod simulation;
mod summary;
mod survivors;
#[cfg(test)]
mod testing;
mod verify;
mod write_behind;
mod writer;

pub use crate::disk::{Disk, DiskFile, DiskLock, LogDirectory, OpenMode, RealDisk};
pub use crate::error::{Error, Flaw, Result};
pub use crate::index::LogIndex;
pub use crate::marker::closed_at;
pub use crate::options::{Durability, LogOptions};
pub use crate::overview::{SegmentOverview, segment_overviews};
pub use crate::queue::{CommitReceiver, CommitSender, Group, QueueClosed, commit_queue};
pub use crate::reader::{LogReader, Place};
pub use crate::recovery::{Cut, Recovery};
pub use crate::repair::{Mended, repair};
pub use crate::retention::{Dropped, Retention, drop_segments};
pub use crate::segment::{SegmentPath, list_segments};
pub use crate::verify::{FooterState, FramesAlone, Inspector, Problem, Verified, verify};
pub use crate::writer::LogWriter;
