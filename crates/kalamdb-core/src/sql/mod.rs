//! SQL: what a request's text means, and doing it.
//!
//! - `tokens`, `parse`: text to statements; `sqlparser` does what it knows, KalamDB's own statements are read here.
//! - `definition`: CREATE TABLE's columns and options, both spellings.
//! - `ddl`: namespaces, tables, accounts. `alteration`: what ALTER TABLE says; `alter`: doing it. `removal`: DROP and TRUNCATE.
//! - `backup`: BACKUP, RESTORE and what shows them.
//! - `describe`: what tables are; `definition_text`: that as SQL; `stats`: SHOW STATS.
//! - `target`: the table a statement changes; `change_set`: what it changes, to be committed as one.
//! - `insert`: INSERT; `conflict`: what it does where a key is taken. `dml`: UPDATE and DELETE.
//! - `returning`: the changed rows as an answer; `expressions`: what is evaluated on rows at hand.
//! - `system_rows`: writing system tables; `user_changes`, `locations`: what may become of what they hold.
//! - `select`: everything that reads, by way of `DataFusion`; `point`: what names one row and needs no
//!   plan; `plans`: those that are kept. `times`: text that is compared with times.
//! - `transaction`: `BEGIN; …; COMMIT`. `execute`: statements in order.

mod alter;
mod alteration;
mod backup;
mod change_set;
mod conflict;
mod ctes;
mod ddl;
mod definition;
mod definition_text;
mod describe;
mod dml;
mod execute;
mod expressions;
mod insert;
mod literal;
mod locations;
mod pace;
mod parameters;
mod parse;
mod plans;
mod point;
mod refusals;
#[cfg(test)]
mod refusals_tests;
mod removal;
mod returning;
mod select;
mod stats;
mod storage;
mod system_rows;
mod target;
mod tokens;
mod transaction;
mod user_changes;

pub use execute::{Executed, StatementResult};

pub(crate) use ddl::namespace_of;
pub use definition::{parse_duration_ms, parse_flush_policy};
pub(crate) use definition_text::flush_policy_text;
pub(crate) use execute::{execute, require_read};
pub(crate) use insert::insert_rows;
pub(crate) use parse::TableName;
#[cfg(test)]
pub(crate) use plans::PlanKey;
pub(crate) use plans::Plans;
pub(crate) use select::{LivePlan, live_plan};
#[cfg(test)]
pub(crate) use target::Context;
