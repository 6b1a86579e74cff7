//! How long to wait before trying again, and when to give up.

use std::time::{Duration, Instant};

use crate::clock;

const DELAY_MIN: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(1);
/// A server that has not come back for so long never will.
const OUTAGE_MAX: Duration = Duration::from_mins(5);

/// Doubling pauses, bounded in length and, from the first failure to the last, in sum.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    outage: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Things work again.
    pub(super) fn reset(&mut self) {
        self.outage = None;
    }

    /// Waits before the next attempt; `false` if it is time to give up.
    pub(super) async fn pause(&mut self) -> bool {
        let (since, delay) = self.outage.unwrap_or_else(|| (clock::now(), DELAY_MIN));
        if since.elapsed() > OUTAGE_MAX {
            return false;
        }
        tokio::time::sleep(delay).await;
        self.outage = Some((since, (delay * 2).min(DELAY_MAX)));
        true
    }
}
