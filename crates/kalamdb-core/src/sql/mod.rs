//! SQL: what a request's text means, and doing it.
//!
//! - `parse`: text to statements; `sqlparser` does what it knows, KalamDB's own statements are read here.
//! - `definition`: CREATE TABLE's columns and options, both spellings.
//! - `ddl`: namespaces, tables, accounts.
//! - `dml`: INSERT, UPDATE, DELETE.
//! - `select`: everything that reads, by way of `DataFusion`.
//! - `execute`: statements in order.

mod ddl;
mod definition;
mod dml;
mod execute;
mod literal;
mod parse;
mod select;

pub use execute::{Executed, StatementResult};

pub(crate) use ddl::namespace_of;
pub use definition::parse_duration_ms;
pub(crate) use dml::insert_rows;
pub(crate) use execute::{execute, require_read};
pub(crate) use parse::TableName;
pub(crate) use select::live_plan;
