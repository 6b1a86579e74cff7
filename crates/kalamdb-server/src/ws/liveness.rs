//! When a client was last heard of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kalamdb_core::clock;

/// Shared by the two halves of a connection.
#[derive(Debug)]
pub(super) struct Liveness {
    since: Instant,
    /// Milliseconds after `since`.
    last_ms: AtomicU64,
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self { since: clock::instant(), last_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        let passed = clock::instant().saturating_duration_since(self.since);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    /// The client gave a sign.
    pub(super) fn touch(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long it has given none.
    pub(super) fn silent_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }
}
