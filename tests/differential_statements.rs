//! The comparison with PostgreSQL for as long as one likes: `cargo test --test differential -- --statements 100000 [--seed N]`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

#[path = "differential/mod.rs"]
mod differential;
#[path = "metamorphic/mod.rs"]
mod metamorphic;
#[path = "support/mod.rs"]
mod support;

/// Generated expressions for as many statements as the suite has, beside those of `own`.
const EXPRESSIONS: u64 = 40;

/// The number after a flag.
fn number(flag: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments
        .nth(1)
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{flag} takes a number, not {text:?}")))
}

fn main() {
    let statements = number("--statements").unwrap_or(differential::STATEMENTS);
    let seed = number("--seed").unwrap_or_else(|| u64::from(std::process::id()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // As many checks for each statement as the suite makes.
    let times = |count: u64| count * statements / differential::STATEMENTS;
    let (queries, expressions) = (times(metamorphic::QUERIES), times(EXPRESSIONS));
    let outcome = runtime.block_on(metamorphic::run(queries, expressions, seed));
    let found = runtime.block_on(differential::run(statements, seed));
    outcome.judge(seed);
    match found {
        None => println!("PostgreSQL is not installed: nothing was compared with it"),
        Some(found) => {
            differential::judge(statements, seed, &found);
            println!("test result: ok. {statements} statements, seed {seed}");
        }
    }
}
