//! Rows of user, shared and stream tables: the hot tier, over RocksDB, and the cold one, in Parquet files.
//!
//! Owns the directories `rows/` and `cold/` of a database. Everything in the first is a projection of the log: [`Store::apply`] is the only
//! way in, one write batch per group of commits, with `applied_seq` in the same batch. There is no write-ahead log
//! here: after a crash the engine replays the log from [`Store::applied_seq`].
//!
//! A cold file is written before the event that lists it, and is nothing without: see [`Store::sweep_cold_files`].
//!
//! Knows partitions, keys and row bytes. Does not know SQL, schemas, sessions or subscriptions.

mod batch;
mod cold;
mod cold_state;
mod counts;
mod cut;
mod error;
mod keyspace;
mod reclaim;
mod store;
#[cfg(test)]
mod testing;

pub use crate::batch::{Batch, SharedTableStore, StreamTableStore, TableStore, UserTableStore};
pub use crate::cold::{
    CellBuilder, Claim, ColdColumn, ColdFiles, ColdScan, ColdWriter, CompactStep, FileBatches, FileOrigin,
    FileScan, FilesChecked, FlushStep, Hidden, Manifest, ManifestFile, OpenFile, Owner, Pages, Place,
    PreparedFlush, Prune, TablePath, USER_IN_PATH, WrittenFile, arrow_type, instance_of,
};
pub use crate::cold_state::ColdTotals;
pub use crate::counts::Counts;
pub use crate::cut::{Cut, FirstError, KeyRange, Scanned};
pub use crate::error::{Error, Result};
pub use crate::keyspace::{Keyspace, StoredRow, stream_key};
pub use crate::reclaim::Reclaimed;
pub use crate::store::{Store, StoreOptions};
