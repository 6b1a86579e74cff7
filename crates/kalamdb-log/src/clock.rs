//! The only place of this crate that reads a clock, to say how long something took. Nothing is decided by it.

use std::time::{Duration, Instant};

/// How often a line says how far something is.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Measures, and tells from time to time how far it is.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    started: Instant,
    told: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let started = now();
        Self { started, told: started }
    }

    /// How long it runs.
    pub(crate) fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }

    /// Whether another second passed since this said so.
    pub(crate) fn is_line_due(&mut self) -> bool {
        let now = now();
        let is_due = now.saturating_duration_since(self.told) >= LINE_EVERY;
        if is_due {
            self.told = now;
        }
        is_due
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
fn now() -> Instant {
    Instant::now()
}
