//! Rows of user, shared and stream tables: the hot tier, over RocksDB.
//!
//! Owns the directory `rows/` of a database. Everything in it is a projection of the log: [`Store::apply`] is the only
//! way in, one write batch per group of commits, with `applied_seq` in the same batch. There is no write-ahead log
//! here: after a crash the engine replays the log from [`Store::applied_seq`].
//!
//! Knows partitions, keys and row bytes. Does not know SQL, schemas, sessions or subscriptions.

mod batch;
mod counts;
mod cut;
mod error;
mod keyspace;
mod reclaim;
mod store;
#[cfg(test)]
mod testing;

pub use crate::batch::{Batch, SharedTableStore, StreamTableStore, TableStore, UserTableStore};
pub use crate::counts::Counts;
pub use crate::cut::{Cut, KeyRange, Scanned};
pub use crate::error::{Error, Result};
pub use crate::keyspace::{Keyspace, StoredRow, stream_key};
pub use crate::reclaim::Reclaimed;
pub use crate::store::{Store, StoreOptions};
