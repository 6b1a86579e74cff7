//! The system tables: `namespaces`, `tables`, `table_schemas`, `users`, `storage_locations`, `jobs`, `live_queries`.
//!
//! Owns the directory `catalog/` of a database. All but `live_queries` are projections of the log: [`SystemTables::apply`]
//! is the only way in, with `applied_seq` in the same write batch. `live_queries` lives in memory ([`LiveQueries`]):
//! a subscription does not outlive its process.
//!
//! Schema versions are only ever added. Knows records and their keys; does not know rows of users' tables, SQL,
//! or `DataFusion`.

mod batch;
mod error;
mod live;
mod system;
#[cfg(test)]
mod testing;

pub use crate::batch::Batch;
pub use crate::error::{Error, Result};
pub use crate::live::{LiveProgress, LiveQueries, LiveQuery, LiveState};
pub use crate::system::SystemTables;
