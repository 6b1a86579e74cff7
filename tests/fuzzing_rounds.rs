//! The fuzzer for as long as one likes: `cargo test --test fuzzing -- --rounds 100 [--seed N]`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

#[path = "fuzzing/mod.rs"]
mod fuzzing;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/mod.rs"]
mod support;

fn main() {
    rounds::run_to_the_end(fuzzing::run);
}
