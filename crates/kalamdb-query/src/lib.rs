//! SQL over `DataFusion`, answered as PostgreSQL answers it.
//!
//! The crate decides what statements mean, and knows nothing of where rows are: the dialect, the rewriting of statements, types and their
//! texts, subqueries, functions, memory limits of functions, bounds on what expressions expand to.

mod arithmetic;
mod bounds;
mod compile;
mod constants;
pub mod dialect;
mod functions;
mod guards;
mod hazards;
mod json;
mod null_joins;
mod push_down;
pub mod rewrite;
mod sets;
mod sizes;
mod state;
mod subquery;
#[cfg(test)]
mod tests;
pub mod text;
mod types;

pub use bounds::BoundExpressions;
pub use compile::{CheckedPlanner, compile, resolve_types};
pub use constants::HideConstants;
pub use functions::{TYPE_METADATA, average_of, cast_array, documents};
pub use guards::GuardConditions;
pub use hazards::Hazards;
pub use null_joins::NullSafeRule;
pub use push_down::PushDownConditions;
pub use sets::{CountCopies, GroupDistinct};
pub use state::{config, register, with_rules};
pub use subquery::UnnestSubqueries;
pub use types::{ResolveTypes, SqlTypes};
