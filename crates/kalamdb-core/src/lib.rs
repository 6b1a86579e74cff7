//! The engine of KalamDB: business logic over a log and two projections.
//!
//! Where to begin reading:
//! - a write: `commit` (`Sequencer::commit_run`), fed by `sql::dml` and `sql::ddl`;
//! - a read: `sql::select`, then `provider` (whose rows) and `rows` (bytes to Arrow);
//! - a live query: `live`.
//!
//! Invariants: every change goes through the sequencer as an event; every partition is formed from a session's own user;
//! nothing here knows RocksDB, HTTP or the wire format.

#![cfg_attr(
    test,
    expect(clippy::duplicate_mod, reason = "feed and router once more, over locks of a scheduler")
)]

#[cfg(test)]
mod account_tests;
mod accounts;
#[cfg(test)]
mod alter_tests;
mod backup;
#[cfg(test)]
mod backup_tests;
mod catalog;
mod changes;
mod check;
pub mod clock;
#[cfg(test)]
mod cold_tests;
mod commit;
#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
mod corruption_tests;
#[cfg(test)]
mod describe_tests;
mod engine;
mod error;
mod fail_points;
#[cfg(test)]
mod fast_path_tests;
#[cfg(test)]
mod flush_tests;
mod flushes;
mod functions;
mod health;
mod high_keys;
mod jobs;
#[cfg(test)]
mod jobs_tests;
#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod large_statement_tests;
#[cfg(test)]
mod literal_tests;
mod live;
#[cfg(test)]
mod live_expression_tests;
mod log_keeper;
#[cfg(test)]
mod model_tests;
mod overlap;
mod places;
#[cfg(test)]
mod postgres_tests;
mod provider;
mod queries;
mod replay;
mod reply;
mod requests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod row_tests;
mod rows;
#[cfg(test)]
mod scan_tests;
mod session;
mod settings;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod sizes_tests;
mod sql;
mod streams;
#[cfg(test)]
mod system_tests;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;
mod values;
mod view;
mod widening;

pub use datafusion::arrow;
pub use datafusion::execution::SendableRecordBatchStream;
pub use kalamdb_log as log;
pub use kalamdb_query::documents;
pub use kalamdb_sql as system;
pub use kalamdb_store::Claim as LocationClaim;
pub use log_format as format;

pub use crate::catalog::nearest_name;
pub use crate::changes::{ChangeNames, ChangeRecord, instant};
pub use crate::check::{ColdChecked, FileProblem};
pub use crate::engine::{
    CATALOG_DIRECTORY, COLD_DIRECTORY, Engine, EngineOptions, LOG_DIRECTORY, Opened, ROWS_DIRECTORY,
};
pub use crate::error::{Error, ErrorCode, Position, Result};
pub use crate::flushes::FlushOptions;
pub use crate::functions::role_name;
pub use crate::jobs::JobRetention;
pub use crate::live::{
    CaughtUp, ChangeFrame, ChangeKind, ChangePayload, Ending, FlushNotice, OnGap, RowFailure, SchemaFrame,
    Sink, Snapshot, SubscribeRequest, Subscription, SubscriptionId, without_seq,
};
pub use crate::replay::Replayed;
pub use crate::requests::Committed;
pub use crate::session::{DEFAULT_NAMESPACE, Session};
pub use crate::sql::{Executed, StatementResult, parse_duration_ms, parse_flush_policy};
pub use crate::table::{SystemColumn, TYPE_METADATA, sql_type};
pub use crate::values::text_array;
