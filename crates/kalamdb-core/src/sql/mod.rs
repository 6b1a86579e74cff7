//! SQL: what a request's text means, and doing it.
//!
//! - `parse`: text to statements; `sqlparser` does what it knows, KalamDB's own statements are read here.
//! - `definition`: CREATE TABLE's columns and options, both spellings.
//! - `ddl`: namespaces, tables, accounts; `removal`: DROP and TRUNCATE; `stats`: SHOW STATS.
//! - `target`: the table a statement changes; `change_set`: what it changes, to be committed as one.
//! - `insert`: INSERT; `conflict`: what it does where a key is taken. `dml`: UPDATE and DELETE.
//! - `returning`: the changed rows as an answer; `expressions`: what is evaluated on rows at hand.
//! - `system_rows`: writing system tables; `user_changes`, `locations`: what may become of what they hold.
//! - `select`: everything that reads, by way of `DataFusion`.
//! - `execute`: statements in order.

mod change_set;
mod conflict;
mod ddl;
mod definition;
mod dml;
mod execute;
mod expressions;
mod insert;
mod literal;
mod locations;
mod parse;
mod removal;
mod returning;
mod select;
mod stats;
mod system_rows;
mod target;
mod user_changes;

pub use execute::{Executed, StatementResult};

pub(crate) use ddl::namespace_of;
pub use definition::parse_duration_ms;
pub(crate) use execute::{execute, require_read};
pub(crate) use insert::insert_rows;
pub(crate) use parse::TableName;
pub(crate) use select::live_plan;
