//! What the tests that go on for as long as one likes have in common: how long, and with which numbers.

/// The number after a flag.
fn number(flag: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments
        .nth(1)
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{flag} takes a number, not {text:?}")))
}

/// Runs as many rounds as the command line says, with the seed that it says.
pub(crate) fn run_to_the_end(test: impl AsyncFnOnce(u64, u64)) {
    let rounds = number("--rounds").unwrap_or(50);
    let seed = number("--seed").unwrap_or_else(|| u64::from(std::process::id()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(test(rounds, seed));
    println!("test result: ok. {rounds} rounds, seed {seed}");
}
