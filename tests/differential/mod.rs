//! Differential test against PostgreSQL: both databases run the same generated statements and must return the same rows.
//!
//! A seed determines the statements. They run over four small tables with the same rows on both sides, in rounds. A round has rows,
//! changes, queries, and queries that are live. It runs three times: with hot rows, half flushed, and cold. After a change the whole
//! table is compared, and the result that a client keeps of each live query is compared with what the SELECT says. Each query is
//! answered in Arrow in one of the three states, and in JSON in the others. A statement with different answers is reduced as long as
//! they differ, and printed.
//!
//! 2,000 statements in the suite (`KALAMDB_SEED` for another seed); `cargo test --test differential -- --statements 100000 [--seed N]`
//! for more. Where PostgreSQL is not installed nothing is compared.

mod arrow;
mod changes;
pub(crate) mod expressions;
mod kalamdb;
mod known;
mod live;
pub(crate) mod node;
pub(crate) mod pair;
mod postgres;
pub(crate) mod queries;
pub(crate) mod values;

use std::collections::BTreeMap;

use self::expressions::Generator;
pub(crate) use self::kalamdb::ask;
use self::known::{Answers, KNOWN};
use self::node::Node;
use self::pair::{Case, Form, Pair, State};
use self::postgres::{Postgres, Rows};
use self::queries::TABLES;
use self::values::shown;

/// Statements of a run that says no number.
pub(crate) const STATEMENTS: u64 = 2000;
/// Statements of a round.
const STATEMENTS_OF_ROUND: u64 = 120;
/// Statements per change: the others are queries.
const CHANGES: u64 = 12;
/// Statements per live query.
const LIVE: u64 = 24;
/// Reduced statements that are tried for each difference.
const ATTEMPTS: u32 = 150;
/// Reduced statements that are tried for each difference of a live query, each of which is waited for.
const LIVE_ATTEMPTS: u32 = 30;
/// Statements per refusal that a run allows.
const REFUSALS: u64 = 5;
/// Prefix of the classes of refusals.
const REFUSED: &str = "KalamDB fails: ";
/// The code of a statement that ended in a panic.
const PANICKED: &str = "STATEMENT_PANICKED";
/// Refusals of one class that are printed.
const OF_A_CLASS: u32 = 1;

/// A statement whose answers differ.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Kind of the difference, without names and numbers.
    class: String,
    sql: String,
    ours: String,
    theirs: String,
}

impl Found {
    /// Whether it fails a run.
    fn wrong(&self) -> bool {
        is_wrong(&self.class)
    }

    /// None where it is known.
    fn new(sql: &str, ours: &Rows, theirs: &Rows) -> Option<Self> {
        let class = match (ours, theirs) {
            (Err(error), _) if error.starts_with(PANICKED) => PANICKED.to_owned(),
            (Err(error), _) => format!("{REFUSED}{}", without_names(error)),
            (_, Err(error)) => format!("PostgreSQL fails: {}", without_names(error)),
            _ => "other rows".to_owned(),
        };
        let (ours, theirs) = (shown(ours), shown(theirs));
        let known = class != PANICKED
            && KNOWN.iter().any(|it| (it.applies)(&Answers { ours: &ours, theirs: &theirs }));
        (!known).then(|| Self { class, sql: sql.to_owned(), ours, theirs })
    }
}

/// Whether differences of this class fail a run.
fn is_wrong(class: &str) -> bool {
    known::REFUSALS_FAIL || !class.starts_with(REFUSED)
}

/// Fails where too much differs.
pub(crate) fn judge(statements: u64, seed: u64, classes: &BTreeMap<String, u32>) {
    let count = |wrong: bool| -> u64 {
        let classes = classes.iter().filter(|(class, _)| is_wrong(class) == wrong);
        classes.map(|(_, times)| u64::from(*times)).sum()
    };
    let (wrong, refused) = (count(true), count(false));
    assert!(wrong == 0, "seed {seed}: {wrong} statements of {statements} have another answer");
    assert!(refused * REFUSALS <= statements, "seed {seed}: KalamDB refuses {refused} of {statements}");
}

/// Whether both databases refuse a statement, ours with an error of its own.
fn agrees_in_failing<T>(ours: &Result<T, String>, theirs: &Rows) -> bool {
    theirs.is_err() && ours.as_ref().is_err_and(|error| !error.starts_with(PANICKED))
}

/// An error's first words, without names and numbers.
fn without_names(error: &str) -> String {
    let words = error.split_whitespace().take(14);
    let words = words.filter(|word| word.chars().all(|it| it.is_ascii_alphabetic() || "_:;,".contains(it)));
    words.collect::<Vec<_>>().join(" ")
}

impl Pair {
    /// The smallest statement that differs the same way, as `found` then says.
    async fn shrink(&mut self, mut node: Node, found: &mut Found, case: &Case) -> Node {
        let mut attempts = match case {
            Case::Query(_) | Case::Change => ATTEMPTS,
            Case::Live(_) | Case::LiveChange(_) => LIVE_ATTEMPTS,
        };
        'smaller: loop {
            for smaller in node.smaller() {
                if attempts == 0 {
                    return node;
                }
                attempts -= 1;
                if let Some(other) = self.differ(&smaller, case).await
                    && other.class == found.class
                {
                    (node, *found) = (smaller, other);
                    continue 'smaller;
                }
            }
            return node;
        }
    }

    /// The smallest form of a difference between two answers to a query.
    async fn query(&mut self, node: &Node, form: Form) -> Option<Found> {
        let case = Case::Query(form);
        let mut found = self.differ(node, &case).await?;
        if found.wrong() {
            self.shrink(node.clone(), &mut found, &case).await;
        }
        Some(found)
    }

    /// Makes a change on both sides; the smallest form of a difference, after which both are filled again.
    async fn change_both(&mut self, node: &Node) -> Option<Found> {
        let found = self.change(&node.sql()).await;
        if found.is_none() && !self.is_apart {
            return None;
        }
        let mut small = found?;
        // A change that differs after others did may not do so after none.
        if let Some(again) = self.differ(node, &Case::Change).await
            && again.wrong()
        {
            small = again;
            self.shrink(node.clone(), &mut small, &Case::Change).await;
        }
        Some(small)
    }

    /// The smallest form of a difference between a live query and its SELECT, and the live query.
    async fn live_query(&mut self, change: &Node) -> Option<(Found, Node)> {
        let (mut small, live) = self.compare_live().await?;
        let case = Case::Live(change.clone());
        let (mut smallest, mut change) = (live.clone(), change.clone());
        if let Some(again) = self.differ(&live, &case).await {
            small = again;
            smallest = self.shrink(smallest, &mut small, &case).await;
            change = self.shrink(change, &mut small, &Case::LiveChange(smallest.clone())).await;
        }
        let sql = format!("{}\n  after {}", smallest.sql(), change.sql());
        Some((Found { sql, ..small }, live))
    }
}

/// Statements over the same rows.
struct Round {
    rows: Vec<[String; 2]>,
    changes: Vec<Node>,
    live: Vec<Node>,
    /// Queries with their numbers in the round, by which they are answered in Arrow or JSON.
    queries: Vec<(usize, Node)>,
}

impl Round {
    /// Generates a round of so many statements.
    fn new(generator: &mut Generator, statements: u64) -> Self {
        let rows = TABLES.iter().map(|table| generator.rows_of_table(table)).collect();
        let mut round = Self { rows, changes: Vec::new(), live: Vec::new(), queries: Vec::new() };
        let mut queries = Vec::new();
        for number in 0..statements {
            generator.names = 0;
            if number % CHANGES == 0 {
                round.changes.push(generator.change());
            } else if number % LIVE == 1 {
                round.live.push(generator.live());
                queries.extend(round.live.last().cloned());
            } else {
                queries.push(generator.select());
            }
        }
        round.queries = queries.into_iter().enumerate().collect();
        round
    }
}

/// Differences of a run.
struct Run {
    pair: Pair,
    seed: u64,
    /// Statements of the rounds so far.
    statements: u64,
    classes: BTreeMap<String, u32>,
}

impl Run {
    /// Counts a difference, and prints it where it is wrong or the first of its class.
    fn note(&mut self, found: Option<Found>) {
        let Some(found) = found else { return };
        let wrong = found.wrong();
        let Found { class, sql, ours, theirs } = found;
        let times = self.classes.entry(class.clone()).or_insert(0);
        *times += 1;
        if wrong || *times <= OF_A_CLASS {
            let (seed, first, state) = (self.seed, self.statements, self.pair.state);
            println!(
                "seed {seed}, in the round from statement {first}, {state:?}: {class}\n{sql}\n  expected: {theirs}\n  KalamDB:  {ours}\n"
            );
        }
    }

    /// Fills both databases and begins the live queries.
    async fn fill(&mut self, round: &Round) {
        self.pair.fill().await;
        for live in &round.live {
            let refused = self.pair.subscribe(live).await.err();
            self.note(refused);
        }
    }

    /// Runs a round in one storage state, but for queries that differed in another.
    async fn round(&mut self, round: &mut Round, state: State) {
        self.pair.state = state;
        self.fill(round).await;
        for change in &round.changes.clone() {
            let found = self.pair.change_both(change).await;
            let is_over = found.is_some() || self.pair.is_apart;
            self.note(found);
            if !is_over {
                let Some((found, live)) = self.pair.live_query(change).await else { continue };
                self.note(Some(found));
                // The other changes and states would only show it again.
                round.live.retain(|it| it.sql() != live.sql());
            }
            self.fill(round).await;
        }
        let mut alike = Vec::new();
        for (index, query) in std::mem::take(&mut round.queries) {
            let is_arrow = State::ALL[index % State::ALL.len()] == state;
            let form = if is_arrow { Form::Arrow } else { Form::Json };
            let found = self.pair.query(&query, form).await;
            if found.is_none() {
                alike.push((index, query));
            }
            self.note(found);
        }
        round.queries = alike;
    }
}

/// Runs so many statements, and gives how many differ of each class; none where PostgreSQL is not installed.
pub(crate) async fn run(statements: u64, seed: u64) -> Option<BTreeMap<String, u32>> {
    known::check();
    let pair = Pair::begin(Postgres::start().await?).await;
    let mut run = Run { pair, seed, statements: 0, classes: BTreeMap::new() };
    let mut generator = Generator::new(seed);
    while run.statements < statements {
        let size = STATEMENTS_OF_ROUND.min(statements - run.statements);
        let mut round = Round::new(&mut generator, size);
        run.pair.rows.clone_from(&round.rows);
        for state in State::ALL {
            run.round(&mut round, state).await;
        }
        run.statements += size;
    }
    for (class, times) in &run.classes {
        println!("{times} times: {class}");
    }
    Some(run.classes)
}

/// A run as the suite has it.
#[tokio::test(flavor = "multi_thread")]
async fn both_databases_answer_alike() {
    let seed = crate::support::seed();
    match run(STATEMENTS, seed).await {
        None => println!("PostgreSQL is not installed: nothing was compared with it"),
        Some(classes) => judge(STATEMENTS, seed, &classes),
    }
}
