//! Where the engine leaves what a connection's subscriptions get. Bounded in changes and in bytes; the engine never waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kalamdb_core::arrow::array::RecordBatch;
use kalamdb_core::{ChangeFrame, Error as EngineError, Sink, SubscriptionId};
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
}

impl Item {
    pub(super) const fn subscription(&self) -> SubscriptionId {
        match self {
            Self::Changes(id, _) | Self::Lagging(id) | Self::Ended(id, _) => *id,
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

    fn pop(&self) -> Option<Item> {
        let mut queue = self.queue();
        let (item, bytes) = queue.items.pop_front()?;
        queue.bytes -= bytes;
        if let Item::Changes(_, frames) = &item {
            queue.changes -= frames.len();
        }
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
        let bytes = frames.iter().map(bytes_of).sum();
        let mut queue = self.queue();
        let fits = queue.changes.saturating_add(frames.len()) <= self.changes_max
            && queue.bytes.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            return false;
        }
        queue.changes += frames.len();
        queue.bytes += bytes;
        queue.items.push_back((Item::Changes(subscription, frames), bytes));
        drop(queue);
        self.news.notify_one();
        true
    }

    fn lagging(&self, subscription: SubscriptionId) {
        metrics::counter!("kalamdb_ws_lagging_total").increment(1);
        self.push(Item::Lagging(subscription));
    }

    fn ended(&self, subscription: SubscriptionId, error: EngineError) {
        self.push(Item::Ended(subscription, error));
    }
}

/// What a change keeps in memory, at the most: others may share it.
fn bytes_of(frame: &ChangeFrame) -> usize {
    let of = |batch: &Option<RecordBatch>| batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
    of(&frame.payload.rows).saturating_add(of(&frame.payload.old_rows))
}
