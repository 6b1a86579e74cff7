//! Events as records with names: what `kalamdb tail` and `system.changes` show.
//!
//! - [`ChangeRecord`]: one event, its rows as JSON.
//! - [`ChangeNames`]: the names of tables and columns, which events only number.
//! - `json`: cells as JSON, for people and tools. What a number of JSON cannot hold exactly is a string; times are ISO 8601.
//!
//! - `table`: `system.changes`, a table whose rows are the log's events.
//!
//! - `sight`: which events a session sees.
//!
//! A record never holds a password's hash.

mod details;
mod json;
mod names;
mod record;
mod sight;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use json::cell_text;
pub use json::instant;
pub use names::ChangeNames;
pub use record::ChangeRecord;
pub(crate) use sight::Sight;
pub(crate) use table::{CHANGES, CHANGES_NAME, ChangeRows, changes_partition, changes_table};
