//! The fuzzer for as long as one likes: `cargo test --test fuzzing -- --rounds 100 [--seed N]`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

#[path = "fuzzing/mod.rs"]
mod fuzzing;
#[path = "support/mod.rs"]
mod support;

/// The number after a flag.
fn number(flag: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments
        .nth(1)
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{flag} takes a number, not {text:?}")))
}

fn main() {
    let rounds = number("--rounds").unwrap_or(50);
    let seed = number("--seed").unwrap_or_else(|| u64::from(std::process::id()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fuzzing::run(rounds, seed));
    println!("test result: ok. {rounds} rounds, seed {seed}");
}
