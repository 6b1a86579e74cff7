//! `SQLite`'s sqllogictest against a server: `cargo test --test slt -- --dir DIR [--jobs N] [--flush rows:1]`.
//!
//! Each file of DIR that ends in `.test` has a namespace of its own. What is wrong is told one by one, what is refused by its reason, and
//! the end has the totals. It fails where an answer is wrong; a refusal is none.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

#[path = "slt/answers.rs"]
mod answers;
#[path = "slt/records.rs"]
mod records;
#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use serde_json::json;

use crate::records::{Record, Sort};
use crate::support::{Answer, Api, ROOT_PASSWORD, Server};

/// Engine name for `onlyif` and `skipif` of the files.
const ENGINE: &str = "postgresql";
/// Files at a time.
const JOBS: usize = 2;
/// Wrong answers of a file, and kinds of refusals, that are shown.
const SHOWN_MAX: usize = 20;

/// Counts of records by their outcome.
#[derive(Debug, Default)]
struct Totals {
    statements: usize,
    statements_refused: usize,
    queries: usize,
    right: usize,
    wrong: Vec<String>,
    /// Queries that were refused, and how many for each reason.
    refused: usize,
    reasons: BTreeMap<String, usize>,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.statements += other.statements;
        self.statements_refused += other.statements_refused;
        self.queries += other.queries;
        self.right += other.right;
        self.wrong.extend(other.wrong);
        self.refused += other.refused;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    fn refuse(&mut self, answer: &Answer) {
        let message = answer.body["error"]["message"].as_str().unwrap_or_default();
        let reason: String =
            message.chars().take_while(|it| !it.is_ascii_digit() && *it != '"').take(60).collect();
        *self.reasons.entry(format!("{}: {}", answer.code(), reason.trim())).or_default() += 1;
    }
}

/// The text after a flag.
fn option(flag: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != flag).nth(1)
}

fn files(under: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(under).unwrap_or_else(|error| panic!("{}: {error}", under.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "test") {
            found.push(path);
        }
    }
}

/// A statement as KalamDB has it: a table says whose its rows are.
fn adapted(sql: &str) -> String {
    let mut words = sql.split_whitespace();
    let is =
        |word: Option<&str>, expected: &str| word.is_some_and(|word| word.eq_ignore_ascii_case(expected));
    if is(words.next(), "create") && is(words.next(), "table") {
        let at = sql.to_ascii_lowercase().find("table").unwrap();
        return format!("CREATE SHARED {}", &sql[at..]);
    }
    sql.to_owned()
}

async fn run_file(api: &Api, namespace: &str, path: &Path) -> Totals {
    let text = std::fs::read_to_string(path).unwrap();
    // A token does not last as long as all the files.
    let api = api.logged_in("root", ROOT_PASSWORD).await;
    api.sql(&format!("CREATE NAMESPACE {namespace}")).await;
    let ask =
        async |sql: &str| api.post("/v1/api/sql", json!({ "sql": sql, "namespace_id": namespace })).await;
    let mut totals = Totals::default();
    let mut labels: HashMap<String, Vec<String>> = HashMap::new();
    for record in records::read(&text, ENGINE) {
        let place = format!("{}:{}", path.display(), record.line());
        match record {
            Record::Statement { sql, is_ok, .. } => {
                let answer = ask(&adapted(&sql)).await;
                totals.statements += 1;
                if (answer.status == 200) != is_ok {
                    totals.statements_refused += 1;
                    totals.refuse(&answer);
                }
            }
            Record::Query { sql, types, sort, label, expected, .. } => {
                totals.queries += 1;
                let answer = ask(&sql).await;
                if answer.status != 200 {
                    totals.refused += 1;
                    totals.refuse(&answer);
                    continue;
                }
                let values = answers::values(&answer.body["results"][0], &types, sort);
                let before = label.map(|label| labels.entry(label).or_insert_with(|| values.clone()).clone());
                let is_same = before.is_none_or(|before| sort == Sort::None || before == values);
                if answers::is_right(&values, &expected) && is_same {
                    totals.right += 1;
                } else if totals.wrong.len() < SHOWN_MAX {
                    let shown =
                        |values: &[String]| values.iter().take(12).cloned().collect::<Vec<_>>().join(" ");
                    totals.wrong.push(format!(
                        "{place}: {sql}\n  expected {}\n  got {} values: {}",
                        shown(&expected),
                        values.len(),
                        shown(&values)
                    ));
                } else {
                    totals.wrong.push(place);
                }
            }
        }
    }
    api.sql(&format!("DROP NAMESPACE {namespace} CASCADE")).await;
    totals
}

async fn run() {
    let Some(directory) = option("--dir") else {
        println!("cargo test --test slt -- --dir DIR: a directory with SQLite's sqllogictest files (.test)");
        return;
    };
    let mut found = Vec::new();
    files(Path::new(&directory), &mut found);
    found.sort();
    assert!(!found.is_empty(), "there is no .test file in {directory}");
    let policy = option("--flush").map(|policy| format!("flush_policy = \"{policy}\"\n"));
    let server = Server::start_with(&policy.unwrap_or_default()).await;
    let api = Api::anonymous(&server);
    let jobs = option("--jobs").map_or(JOBS, |jobs| jobs.parse().expect("--jobs takes a number"));
    let count = found.len();
    let mut totals = Totals::default();
    let running = found.into_iter().enumerate().map(|(at, path)| {
        let api = api.clone();
        async move {
            let done = run_file(&api, &format!("slt_{at}"), &path).await;
            println!(
                "{}: {} of {} right, {} wrong, {} refused",
                path.display(),
                done.right,
                done.queries,
                done.wrong.len(),
                done.refused
            );
            done
        }
    });
    let mut running = futures_util::stream::iter(running).buffer_unordered(jobs);
    while let Some(done) = running.next().await {
        totals.add(done);
    }
    println!("\nrefused:");
    let mut reasons: Vec<_> = totals.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (reason, count) in reasons.into_iter().take(SHOWN_MAX) {
        println!("{count:>8}  {reason}");
    }
    for wrong in &totals.wrong {
        println!("\nwrong: {wrong}");
    }
    println!(
        "\n{count} files, {} statements ({} not as expected), {} queries: {} right, {} wrong, {} refused",
        totals.statements,
        totals.statements_refused,
        totals.queries,
        totals.right,
        totals.wrong.len(),
        totals.refused
    );
    assert!(totals.wrong.is_empty(), "answers are wrong");
}

fn main() {
    answers::check();
    records::check();
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}
