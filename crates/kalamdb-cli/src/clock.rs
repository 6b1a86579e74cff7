//! The one place of this crate that reads a clock.
//!
//! Everything else measures with the [`Instant`]s it is handed from here, so that a reader can find every reading of
//! time by looking for `clock::now`. It knows nothing of wall-clock time: the CLI orders and times, it never dates.

use std::time::Instant;

/// The monotonic clock, now.
#[expect(clippy::disallowed_methods, reason = "this is the module that the ban points to")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
