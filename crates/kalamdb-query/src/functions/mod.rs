//! Scalar functions that the analysis puts into plans.

mod single_value;

pub(crate) use single_value::single_value;
