//! Live queries: readers of the log.
//!
//! - [`Feed`]: the newest commits, kept in memory for those who read along.
//! - `query`: a subscription's SQL, compiled once.
//! - `projection`: what live queries select, shared by those that select the same.
//! - `change`: what one commit changes for one live query.
//! - `failure`: rows for which a live query fails.
//! - `result`: live queries that order, limit or aggregate.
//! - `ids`: whom a route leads to.
//! - `router`: who gets what, as commits are published.
//! - `sink`: where a subscriber's changes go.
//! - `evictions`: rows of STREAM tables that went by themselves.
//! - `endings`: ending a subscription from outside.
//! - `subscription`: one subscriber's way through snapshot, log and live commits.
//!
//! A subscriber is always at some seq. Whether it gets commits from the router or reads them from the log is only a
//! question of speed: both go through the same matching code. So a subscriber that is new, resumed or too slow is one thing,
//! a reader that has not caught up yet, and there is no window in which a commit could be missed or seen twice.
//!
//! One whose table is altered is such a reader, too: the router takes it out at that commit, and it has its query compiled anew
//! before it reads on. *Invariant*: no row is matched by a query of an older schema version than the row's own.

/// What feed and router meet at.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

#[cfg(test)]
mod asking_tests;
#[cfg(test)]
mod catch_up_tests;
mod change;
mod endings;
#[cfg(test)]
mod eviction_tests;
mod evictions;
mod failure;
#[cfg(test)]
mod failure_tests;
mod feed;
mod ids;
#[cfg(test)]
mod interleaving;
mod projection;
mod query;
mod result;
mod router;
mod sink;
mod subscription;

pub use endings::Ending;
pub use failure::RowFailure;

pub use change::{ChangeFrame, ChangeKind, ChangePayload, without_seq};
pub use sink::{FlushNotice, Sink, SubscriptionId};
pub use subscription::{CaughtUp, OnGap, SchemaFrame, Snapshot, SubscribeRequest, Subscription};

pub(crate) use endings::Endings;
pub(crate) use feed::{After as FeedAfter, Feed};
pub(crate) use projection::Projections;
pub(crate) use query::{LiveQuery, column_equals, lossless};
pub(crate) use router::Router;
pub(crate) use subscription::subscribe;
