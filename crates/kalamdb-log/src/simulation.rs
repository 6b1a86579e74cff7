//! A disk in memory that fails as real ones do, for simulations: what a seed did once it does again.
//!
//! [`SimulatedDisk`] keeps what processes see apart from what the platter holds. A `sync` brings the first to the second;
//! [`SimulatedDisk::crash`] gives the disk as it is after the power went: of what was not synced, each 512-byte sector,
//! each length and each name is there or not as the dice fall. [`SimulatedDisk::kill`] gives it as it is after the process
//! died, with all that was written.
//!
//! Calls are counted, and [`SimulatedDisk::fail_at`] lets any of them fail. A sync that fails does what Linux does: some
//! of the pages are written, the others never will be, though reading still shows them, and the next sync succeeds.
//!
//! There is no time and no thread in it; with [`crate::LogOptions::write_behind`] off, a log on it has neither.

mod disk;
mod file;
mod names;
mod random;

pub use self::disk::{Fault, SimulatedDisk};
pub use self::random::Random;

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
