//! Files of faults against a server: `cargo test --test faults -- --dir DIR`.
//!
//! Each Markdown file of DIR has inputs with the answers that are right. Those that are SQL are run, and the answer of each is compared
//! with the one that the file states, or with PostgreSQL's where the file states none that a program can read. It fails where an answer
//! differs; a refusal is none.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

#[path = "faults/documents.rs"]
mod documents;
#[path = "differential/kalamdb.rs"]
mod kalamdb;
#[path = "differential/postgres.rs"]
mod postgres;
#[path = "faults/sides.rs"]
mod sides;
#[path = "faults/stated.rs"]
mod stated;
#[path = "support/mod.rs"]
mod support;
#[path = "differential/values.rs"]
#[expect(dead_code, reason = "the comparison with PostgreSQL uses the rest of it")]
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::documents::Input;
use crate::sides::{Outcome, Sides};

/// The text after a flag.
fn option(flag: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != flag).nth(1)
}

/// The Markdown files of a directory in the order of their names.
fn files(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    found.sort();
    found
}

/// Prints what came of an input, and gives the word for it.
fn tell(file: &str, input: &Input, outcome: &Outcome) -> &'static str {
    let word = match outcome {
        Outcome::AsExpected => "as expected",
        Outcome::Differs(..) => "differs",
        Outcome::Refused(..) => "refused",
        Outcome::Skipped(_) => "skipped",
    };
    print!("{file} {}: {word}", input.name);
    match outcome {
        Outcome::AsExpected => println!(),
        Outcome::Skipped(why) => println!(", {why}"),
        Outcome::Differs(expected, ours) | Outcome::Refused(expected, ours) => {
            let statements = input.statements.join(" ; ");
            println!("\n  {statements}\n  expected: {expected}\n  KalamDB:  {ours}");
        }
    }
    word
}

/// Runs the inputs of all files, and prints the totals.
async fn run() {
    let Some(directory) = option("--dir") else {
        println!("cargo test --test faults -- --dir DIR: a directory with Markdown files of faults");
        return;
    };
    let found = files(&directory);
    assert!(!found.is_empty(), "there is no .md file in {directory}");
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for path in found {
        let mut sides = Sides::begin().await;
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        for input in documents::read(&std::fs::read_to_string(&path).unwrap()) {
            let outcome = sides.run(&input).await;
            *totals.entry(tell(&file, &input, &outcome)).or_default() += 1;
        }
    }
    let count = |word: &str| totals.get(word).copied().unwrap_or_default();
    println!(
        "\n{} as expected, {} differ, {} refused, {} skipped",
        count("as expected"),
        count("differs"),
        count("refused"),
        count("skipped")
    );
    assert!(count("differs") == 0, "answers differ");
}

/// Checks the readers, then runs.
fn main() {
    documents::check();
    stated::check();
    sides::check();
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}
