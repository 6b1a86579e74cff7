//! Where each subscription of a connection is on its way: starting, snapshot, catching up, live.

use std::collections::HashMap;
use std::sync::Arc;

use kalamdb_core::system::LiveProgress;
use kalamdb_core::{Subscription, SubscriptionId};

use super::jobs::Cursor;
use crate::refusal::Refusal;

/// Bytes of a client's name for a subscription.
const ID_BYTES_MAX: usize = 256;

/// Where a subscription is.
pub(super) enum Phase {
    /// A job works on it and holds it.
    Working,
    /// The client is to ask for the next batch of its snapshot.
    Snapshot(Box<Subscription>, Box<Cursor>),
    /// It gets changes as they are committed. Held, because dropping it ends it.
    Live(Box<Subscription>),
}

/// One subscription.
pub(super) struct Entry {
    pub(super) id: Arc<str>,
    pub(super) rows_max: usize,
    engine_id: Option<SubscriptionId>,
    progress: Option<Arc<LiveProgress>>,
    pub(super) phase: Phase,
    /// Whether all of its snapshot has been sent.
    pub(super) is_loaded: bool,
    /// Whether a batch was asked for before it was known whether there is one.
    pub(super) asked_early: bool,
    /// Warnings for its next answer of fields that are not known.
    pub(super) warnings: Vec<String>,
}

/// The subscriptions of one connection, by the client's name, by the engine's, and by a number that is never used twice:
/// a job that comes back for a subscription that has been given up, and its name given to another, finds nothing.
#[derive(Default)]
pub(super) struct Subscriptions {
    entries: HashMap<u64, Entry>,
    by_id: HashMap<Arc<str>, u64>,
    by_engine_id: HashMap<SubscriptionId, u64>,
    last_number: u64,
}

impl Subscriptions {
    /// Takes a name, if it may be taken.
    pub(super) fn begin(&mut self, id: &Arc<str>, rows_max: usize, count_max: usize) -> Result<u64, Refusal> {
        let invalid = |message: &str| Err(Refusal::new("INVALID_SUBSCRIPTION_ID", message));
        if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            return invalid("an id has 1 to 256 bytes and no control characters");
        }
        if self.by_id.contains_key(id) {
            return invalid("there is a subscription with this id on the connection");
        }
        if self.entries.len() >= count_max {
            let message = format!("a connection may have {count_max} subscriptions");
            return Err(Refusal::new("SUBSCRIPTION_LIMIT_EXCEEDED", message));
        }
        self.last_number += 1;
        self.by_id.insert(Arc::clone(id), self.last_number);
        let entry = Entry {
            id: Arc::clone(id),
            rows_max,
            engine_id: None,
            progress: None,
            phase: Phase::Working,
            is_loaded: false,
            asked_early: false,
            warnings: Vec::new(),
        };
        self.entries.insert(self.last_number, entry);
        Ok(self.last_number)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&number)
    }

    /// The engine's name for it is known now.
    pub(super) fn name(&mut self, number: u64, subscription: &Subscription) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.engine_id = Some(subscription.id());
            entry.progress = Some(Arc::clone(subscription.progress()));
            self.by_engine_id.insert(subscription.id(), number);
        }
    }

    /// How far it is, once the engine has a name for it.
    pub(super) fn progress(&self, number: u64) -> Option<&LiveProgress> {
        self.entries.get(&number)?.progress.as_deref()
    }

    /// Takes the warnings for an answer of fields that are not known, once.
    pub(super) fn take_warnings(&mut self, number: u64) -> Vec<String> {
        self.entries.get_mut(&number).map(|entry| std::mem::take(&mut entry.warnings)).unwrap_or_default()
    }

    pub(super) fn number_of(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    pub(super) fn number_of_engine_id(&self, id: SubscriptionId) -> Option<u64> {
        self.by_engine_id.get(&id).copied()
    }

    /// Ends it.
    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.by_id.remove(&entry.id);
        if let Some(engine_id) = entry.engine_id {
            self.by_engine_id.remove(&engine_id);
        }
        Some(entry)
    }

    pub(super) fn ids(&self) -> Vec<Arc<str>> {
        self.by_id.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_come_free_again() {
        let mut subscriptions = Subscriptions::default();
        let first = subscriptions.begin(&"a".into(), 1, 2).unwrap();
        let refused = |subscriptions: &mut Subscriptions, id: &str| {
            subscriptions.begin(&id.into(), 1, 2).unwrap_err().code
        };
        for id in ["", "a", "a\nb", &"x".repeat(257)] {
            assert_eq!(refused(&mut subscriptions, id), "INVALID_SUBSCRIPTION_ID", "{id:?}");
        }
        subscriptions.begin(&"b".into(), 1, 2).unwrap();
        assert_eq!(refused(&mut subscriptions, "c"), "SUBSCRIPTION_LIMIT_EXCEEDED");
        subscriptions.remove(first).unwrap();
        let again = subscriptions.begin(&"a".into(), 1, 2).unwrap();
        assert_ne!(first, again);
        assert!(subscriptions.get(first).is_none());
    }
}
