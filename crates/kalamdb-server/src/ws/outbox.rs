//! Where the engine leaves what a connection's subscriptions get. Bounded in changes and in bytes; the engine never waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kalamdb_core::{ChangeFrame, Error as EngineError, FlushNotice, Sink, SubscriptionId};
use tokio::sync::Notify;

/// Something for one subscription. What comes for one subscription is taken out in the order in which it came.
#[derive(Debug)]
pub(super) enum Item {
    /// What one commit changes for it.
    Changes(SubscriptionId, Vec<ChangeFrame>),
    /// No more of it until it has caught up.
    Lagging(SubscriptionId),
    /// It is over.
    Ended(SubscriptionId, EngineError),
    /// Rows of it moved to the cold tier.
    Flushed(SubscriptionId, FlushNotice),
}

impl Item {
    pub(super) const fn subscription(&self) -> SubscriptionId {
        match self {
            Self::Changes(id, _) | Self::Lagging(id) | Self::Ended(id, _) | Self::Flushed(id, _) => *id,
        }
    }

    /// How many changes it counts as.
    const fn changes(&self) -> usize {
        match self {
            Self::Changes(_, frames) => frames.len(),
            Self::Flushed(..) => 1,
            Self::Lagging(_) | Self::Ended(..) => 0,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<(Item, usize)>,
    changes: usize,
    bytes: usize,
}

/// The queue between the engine and one connection.
#[derive(Debug)]
pub(super) struct Outbox {
    // Held for queue operations only, by the engine's router and the connection's task.
    queue: Mutex<Queue>,
    news: Notify,
    changes_max: usize,
    bytes_max: usize,
}

impl Outbox {
    pub(super) fn new(changes_max: usize, bytes_max: usize) -> Self {
        Self { queue: Mutex::new(Queue::default()), news: Notify::new(), changes_max, bytes_max }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: Item) {
        self.queue().items.push_back((item, 0));
        self.news.notify_one();
    }

    fn push_if_it_fits(&self, item: Item, bytes: usize) -> bool {
        let mut queue = self.queue();
        let changes = queue.changes.saturating_add(item.changes());
        if changes > self.changes_max || queue.bytes.saturating_add(bytes) > self.bytes_max {
            return false;
        }
        queue.changes = changes;
        queue.bytes += bytes;
        queue.items.push_back((item, bytes));
        drop(queue);
        self.news.notify_one();
        true
    }

    fn pop(&self) -> Option<Item> {
        let mut queue = self.queue();
        let (item, bytes) = queue.items.pop_front()?;
        queue.bytes -= bytes;
        queue.changes -= item.changes();
        Some(item)
    }

    /// The next item, once there is one. Nothing is lost when this is dropped before it completes.
    pub(super) async fn next(&self) -> Item {
        loop {
            let news = self.news.notified();
            if let Some(item) = self.pop() {
                return item;
            }
            news.await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue().items.is_empty()
    }
}

impl Sink for Outbox {
    fn deliver(&self, subscription: SubscriptionId, frames: Vec<ChangeFrame>) -> bool {
        let bytes = frames.iter().map(ChangeFrame::bytes).sum();
        self.push_if_it_fits(Item::Changes(subscription, frames), bytes)
    }

    fn flushed(&self, subscription: SubscriptionId, notice: FlushNotice) {
        let bytes = notice.file.as_ref().map_or(0, String::len);
        if !self.push_if_it_fits(Item::Flushed(subscription, notice), bytes) {
            metrics::counter!("kalamdb_ws_flush_notices_dropped_total").increment(1);
        }
    }

    fn lagging(&self, subscription: SubscriptionId) {
        metrics::counter!("kalamdb_ws_lagging_total").increment(1);
        self.push(Item::Lagging(subscription));
    }

    fn ended(&self, subscription: SubscriptionId, error: EngineError) {
        self.push(Item::Ended(subscription, error));
    }
}
