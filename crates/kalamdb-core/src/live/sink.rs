//! Where live queries hand their changes to.

use log_format::Seq;

use crate::error::Error;
use crate::live::change::ChangeFrame;

/// Names a subscription within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(u64);

impl SubscriptionId {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Where a subscriber's frames go. Called by the router's thread: must not block.
pub trait Sink: Send + Sync {
    /// Takes all frames of one commit, or none of them where there is no room (false).
    fn deliver(&self, subscription: SubscriptionId, frames: Vec<ChangeFrame>) -> bool;

    /// The subscription gets no more live frames until it has caught up ([`crate::Subscription::catch_up`]).
    fn lagging(&self, subscription: SubscriptionId);

    /// The subscription is over.
    fn ended(&self, subscription: SubscriptionId, error: Error);

    /// Rows of the subscription's partition moved to the cold tier, which changes nothing of what it sees. Only for those that
    /// asked for it, and not while they catch up.
    fn flushed(&self, _: SubscriptionId, _: FlushNotice) {}
}

/// Rows that moved to the cold tier; see [`Sink::flushed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushNotice {
    /// How many, tombstones included.
    pub rows: u64,
    /// The file that has them; none where none of them had to be kept.
    pub file: Option<String>,
    /// The event that moved them.
    pub seq: Seq,
}
