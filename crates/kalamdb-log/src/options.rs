//! What an operator decides about the log.

use std::time::Duration;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the disk has it; writers that wait at the same time share one sync.
    #[default]
    Always,
    /// Once the operating system has it; the disk gets it within this time.
    Interval(Duration),
    /// Once the operating system has it; the disk gets it when a segment is full or the log is closed.
    Os,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes after which the next segment begins; a footer comes on top.
    pub segment_bytes: u64,
    /// When a write counts as done.
    pub durability: Durability,
    /// How far seqs skip ahead where a log was not closed: more than could have been handed out unseen.
    pub seq_gap: u64,
    /// Whether they do where it was closed, too: it may have gone on elsewhere.
    pub skips_always: bool,
    /// Bytes written as zeros ahead of the end, so that a sync need not also record a new file length; 0 for none.
    /// Not used with [`Durability::Os`].
    pub preallocate_bytes: usize,
    /// Whether a thread of its own syncs behind the writer's back with [`Durability::Os`]; a simulation wants none.
    pub write_behind: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            durability: Durability::default(),
            seq_gap: 1 << 20,
            skips_always: false,
            preallocate_bytes: 1 << 20,
            write_behind: true,
        }
    }
}
