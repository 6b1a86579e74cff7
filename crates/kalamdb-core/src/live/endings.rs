//! Ending subscriptions from outside, whatever they are doing: KILL LIVE QUERY, a user who was dropped or whose role changed.
//!
//! A subscription is here for as long as it lives. One that is ended is told at once, through its sink, and gets nothing more by
//! any way: the router lets it go, and it may not catch up. Nor is it listed: nobody has to wait for a client to let go of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kalamdb_sql::LiveQuery as LiveQueryRecord;
use log_format::{Role, UserId};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::{Sink, SubscriptionId};

/// Why a subscription was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `KILL LIVE QUERY`, by this user.
    Killed(UserId),
    /// Its user was dropped.
    UserDropped,
    /// Its user has another role now.
    RoleChanged,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Killed(by) => write!(f, "{by} ended it with KILL LIVE QUERY"),
            Self::UserDropped => f.write_str("its user was dropped"),
            Self::RoleChanged => f.write_str("its user has another role now; log in again"),
        }
    }
}

/// A subscription that lives.
struct Open {
    record: Arc<LiveQueryRecord>,
    /// Its user's, when it began.
    role: Role,
    sink: Arc<dyn Sink>,
    ending: Option<Ending>,
}

/// All subscriptions that live, and those of them that have been ended.
#[derive(Default)]
pub(crate) struct Endings {
    // Held for map operations; sinks are called after.
    open: Mutex<HashMap<SubscriptionId, Open>>,
}

impl Endings {
    fn open(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscription begins.
    pub(crate) fn begin(
        &self,
        id: SubscriptionId,
        record: &Arc<LiveQueryRecord>,
        role: Role,
        sink: &Arc<dyn Sink>,
    ) {
        let (record, sink) = (Arc::clone(record), Arc::clone(sink));
        self.open().insert(id, Open { record, role, sink, ending: None });
    }

    /// A subscription is over.
    pub(crate) fn forget(&self, id: SubscriptionId) {
        self.open().remove(&id);
    }

    /// Refuses one that was ended.
    pub(crate) fn check(&self, id: SubscriptionId) -> Result<()> {
        match self.open().get(&id).and_then(|open| open.ending.clone()) {
            None => Ok(()),
            Some(ending) => Err(Error::Ended { ending }),
        }
    }

    /// Ends the live query of this id; how many that were: one or none.
    pub(crate) fn kill(engine: &Engine, live_id: &str, by: &UserId) -> usize {
        Self::end(engine, &Ending::Killed(by.clone()), |open| *open.record.live_id == *live_id)
    }

    /// Ends what a user has open, unless it was begun with the role they have now; none: they were dropped.
    pub(crate) fn end_of_user(engine: &Engine, user: &UserId, role: Option<Role>) -> usize {
        let ending = if role.is_some() { Ending::RoleChanged } else { Ending::UserDropped };
        Self::end(engine, &ending, |open| *open.record.user == *user && role != Some(open.role))
    }

    fn end(engine: &Engine, ending: &Ending, is_meant: impl Fn(&Open) -> bool) -> usize {
        let mut ended = Vec::new();
        for (id, open) in engine.endings().open().iter_mut() {
            if open.ending.is_none() && is_meant(open) {
                open.ending = Some(ending.clone());
                ended.push((*id, Arc::clone(&open.record), Arc::clone(&open.sink)));
            }
        }
        for (id, record, sink) in &ended {
            engine.router().detach(*id);
            engine.live_queries().delete_live_query(&record.live_id, &record.progress);
            sink.ended(*id, Error::Ended { ending: ending.clone() });
        }
        ended.len()
    }
}

impl std::fmt::Debug for Endings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endings").field("open", &self.open().len()).finish()
    }
}
