//! Tests of the crate.

mod subqueries;
