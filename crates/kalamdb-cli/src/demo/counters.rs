//! What the writers, the subscribers and the narrator of one run share.
//!
//! It owns the run's clock (microseconds since it began) and the counts that others wait for. Waiting is always for a
//! value, never for a time. It keeps no messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::data::Inbox;
use crate::client::Token;
use crate::clock;

/// The counts of one run.
#[derive(Debug)]
pub(super) struct Counters {
    began: Instant,
    /// Rows that the server has acknowledged.
    pub(super) acknowledged: watch::Sender<u64>,
    /// Rows that have reached a subscriber.
    pub(super) delivered: watch::Sender<u64>,
    /// Subscribers that have subscribed once, or have given up.
    pub(super) subscribed: watch::Sender<u64>,
    /// Subscribers that have everything, or have given up.
    pub(super) complete: watch::Sender<u64>,
    failure: Mutex<Option<String>>,
}

impl Counters {
    /// All zero, and the clock starts.
    pub(super) fn new() -> Self {
        let zero = || watch::Sender::new(0);
        Counters {
            began: clock::now(),
            acknowledged: zero(),
            delivered: zero(),
            subscribed: zero(),
            complete: zero(),
            failure: Mutex::new(None),
        }
    }

    /// Microseconds since the run began; never 0.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Keeps the first reason for which a subscriber gave up.
    pub(super) fn fail(&self, reason: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| reason.to_owned());
    }

    /// The first reason for which a subscriber gave up.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds to a count and wakes who waits for it.
pub(super) fn add(count: &watch::Sender<u64>, more: u64) {
    count.send_modify(|value| *value += more);
}

/// Waits until a count has reached `goal`.
pub(super) async fn reach(count: &watch::Sender<u64>, goal: u64) {
    // The sender is borrowed, so it can't be gone.
    let _ = count.subscribe().wait_for(|value| *value >= goal).await;
}

/// One user of the run: what they must receive, their token, and when each row was first sent.
#[derive(Debug)]
pub(super) struct Account {
    /// What the user must receive.
    pub(super) inbox: Inbox,
    /// Outlives the crash: tokens are signed with a secret of the data directory.
    pub(super) token: Token,
    sent_us: Vec<AtomicU64>,
}

impl Account {
    /// An account none of whose rows has been sent.
    pub(super) fn new(inbox: Inbox, token: Token) -> Self {
        let sent_us = inbox.messages.iter().map(|_| AtomicU64::new(0)).collect();
        Account { inbox, token, sent_us }
    }

    /// Notes that the rows at these positions of the inbox are about to be sent. Only the first time counts, so that
    /// a row whose request died is measured from its first attempt.
    pub(super) fn mark_sent(&self, positions: std::ops::Range<usize>, now_us: u64) {
        for sent in self.sent_us.get(positions).unwrap_or_default() {
            let _ = sent.compare_exchange(0, now_us, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// When the row at this position of the inbox was first sent.
    pub(super) fn sent_us(&self, position: usize) -> Option<u64> {
        self.sent_us.get(position).map(|sent| sent.load(Ordering::Acquire)).filter(|&sent| sent > 0)
    }
}
