//! SQL over `DataFusion`, answered as PostgreSQL answers it.
//!
//! What stands here changes what statements mean, and knows nothing of where rows are: the dialect, the analysis of plans, the
//! functions it puts into them, subqueries.

mod arithmetic;
pub mod dialect;
mod functions;
mod json;
mod sizes;
mod state;
mod subquery;
#[cfg(test)]
mod tests;

pub use state::{analyzer_rules, register};
pub use subquery::UnnestSubqueries;
