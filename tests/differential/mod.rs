//! Differential test against PostgreSQL: both databases run the same generated statements and must return the same rows.
//!
//! A seed determines the statements. They run over four small tables with the same rows on both sides. After a change the whole table
//! is compared. Tables are flushed in between, so that some statements read hot rows, some both tiers, some cold rows only. A statement
//! with different answers is reduced as long as they differ, and printed.
//!
//! 400 statements in the suite (`KALAMDB_SEED` for another seed); `cargo test --test differential -- --statements 100000 [--seed N]`
//! for more. Where PostgreSQL is not installed nothing is compared.

mod changes;
mod expressions;
mod known;
mod node;
mod postgres;
mod queries;
mod values;

use std::collections::BTreeMap;

use serde_json::Value;

use self::expressions::Generator;
use self::known::{Answers, KNOWN};
use self::node::Node;
pub(crate) use self::postgres::{Postgres, Rows};
use self::queries::TABLES;
pub(crate) use self::values::{both, same, shown};
use crate::support::{Api, Random, Server};

/// Statements from one set of rows to the next: a third with hot rows, a third half flushed, a third with cold ones.
const STATEMENTS_OF_ROWS: u64 = 120;
/// Statements per change: the others are queries.
const CHANGES: u64 = 8;
/// Reduced statements that are tried for each difference.
const ATTEMPTS: u32 = 150;
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
struct Found {
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
fn agrees_in_failing(ours: &Result<Value, String>, theirs: &Rows) -> bool {
    theirs.is_err() && ours.as_ref().is_err_and(|error| !error.starts_with(PANICKED))
}

/// An error's first words, without names and numbers.
fn without_names(error: &str) -> String {
    let words = error.split_whitespace().take(14);
    let words = words.filter(|word| word.chars().all(|it| it.is_ascii_alphabetic() || "_:;,".contains(it)));
    words.collect::<Vec<_>>().join(" ")
}

/// The rows of our answer as texts.
pub(crate) fn our_rows(answer: &Result<Value, String>) -> Rows {
    let empty = Vec::new();
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let answer = answer.as_ref().map_err(Clone::clone)?;
    let rows = answer["rows"].as_array().unwrap_or(&empty).iter();
    Ok(rows.map(|row| row.as_array().unwrap().iter().map(text).collect()).collect())
}

/// Runs one statement in KalamDB.
pub(crate) async fn ask(api: &Api, sql: &str, params: &[Value]) -> Result<Value, String> {
    let answer = api.try_sql(sql, params).await;
    if answer.body["status"] == "success" {
        Ok(answer.body["results"].as_array().unwrap().last().cloned().unwrap_or_default())
    } else {
        Err(format!("{} {}", answer.code(), answer.body["error"]["message"]))
    }
}

/// Both databases.
struct Pair {
    _server: Server,
    root: Api,
    postgres: Postgres,
    /// Statements that make the rows of both anew.
    rows: Vec<String>,
    flushed: bool,
    /// Whether the last change left different rows, known or not.
    apart: bool,
}

impl Pair {
    async fn begin(postgres: Postgres) -> Self {
        let server = Server::start_with("durability = \"os\"\n").await;
        let root = server.root().await;
        let mut pair =
            Self { _server: server, root, postgres, rows: Vec::new(), flushed: false, apart: false };
        pair.root.sql("CREATE NAMESPACE g").await;
        pair.postgres.sql("CREATE SCHEMA g").await.unwrap();
        for table in &TABLES {
            let mut columns: Vec<String> =
                table.columns.iter().map(|(name, sql, _)| format!("{name} {sql}")).collect();
            if !table.key.is_empty() {
                columns.push(format!("PRIMARY KEY ({})", table.key.join(", ")));
            }
            let rest = format!("TABLE {} ({})", table.name, columns.join(", "));
            pair.root.sql(&format!("CREATE SHARED {rest}")).await;
            pair.postgres.sql(&format!("CREATE {rest}")).await.unwrap();
        }
        pair
    }

    async fn on_both(&mut self, sql: &str) {
        self.root.sql(sql).await;
        self.postgres.sql(sql).await.unwrap();
    }

    /// The rows that both began with.
    async fn fill(&mut self) {
        for table in &TABLES {
            self.on_both(&format!("TRUNCATE {}", table.name)).await;
        }
        for sql in self.rows.clone() {
            self.on_both(&sql).await;
        }
    }

    async fn flush(&self, tables: &[queries::Table]) {
        for table in tables {
            self.root.sql(&format!("STORAGE FLUSH TABLE {}", table.name)).await;
            let (status, result) = self.root.last_job("flush_table").await;
            assert_eq!(status, "completed", "{result}");
        }
    }

    /// Runs a query on both sides; none where the answers agree.
    async fn compare(&mut self, sql: &str, in_order: bool) -> Option<Found> {
        let ours = ask(&self.root, sql, &[]).await;
        let theirs = self.postgres.sql(sql).await;
        if let (Ok(answer), Ok(rows)) = (&ours, &theirs) {
            let (ours, theirs) = both(answer, rows);
            if same(ours, theirs, in_order) {
                return None;
            }
        } else if agrees_in_failing(&ours, &theirs) {
            return None;
        }
        Found::new(sql, &our_rows(&ours), &theirs)
    }

    /// Runs a change on both sides and compares the tables, filled again before where `anew`; none where they agree.
    async fn change(&mut self, sql: &str, anew: bool) -> Option<Found> {
        if anew {
            self.fill().await;
            if self.flushed {
                self.flush(&TABLES).await;
            }
        }
        let ours = ask(&self.root, sql, &[]).await;
        let theirs = self.postgres.sql(sql).await;
        self.apart = false;
        for table in &TABLES {
            let columns: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
            let select = format!("SELECT {} FROM {}", columns.join(", "), table.name);
            let (our_rows, their_rows) =
                (ask(&self.root, &select, &[]).await, self.postgres.sql(&select).await);
            let (our_cells, their_cells) = both(our_rows.as_ref().unwrap(), their_rows.as_ref().unwrap());
            if !same(our_cells, their_cells, false) {
                self.apart = true;
                let our_rows = ours.and_then(|_| self::our_rows(&our_rows));
                return Found::new(sql, &our_rows, &theirs.and(their_rows));
            }
        }
        // Both have what they had, though one side says that the statement is wrong.
        match (&ours, &theirs) {
            (Ok(_), Ok(_)) => None,
            _ if agrees_in_failing(&ours, &theirs) => None,
            _ => Found::new(sql, &our_rows(&ours), &theirs),
        }
    }

    async fn differ(&mut self, node: &Node, change: bool) -> Option<Found> {
        let sql = node.sql();
        if change { self.change(&sql, true).await } else { self.compare(&sql, node.ends_in_order()).await }
    }

    /// The smallest statement that differs the same way.
    async fn shrink(&mut self, mut node: Node, mut found: Found, change: bool) -> Found {
        let mut attempts = 0;
        'smaller: loop {
            for smaller in node.smaller() {
                if attempts == ATTEMPTS {
                    return found;
                }
                attempts += 1;
                if let Some(other) = self.differ(&smaller, change).await
                    && other.class == found.class
                {
                    (node, found) = (smaller, other);
                    continue 'smaller;
                }
            }
            return found;
        }
    }

    /// A statement of either kind, and how the sides differ.
    async fn statement(&mut self, generator: &mut Generator) -> Option<Found> {
        let change = generator.random.one_in(CHANGES);
        let node = if change { generator.change() } else { generator.select() };
        let found =
            if change { self.change(&node.sql(), false).await } else { self.differ(&node, false).await };
        if change && self.apart {
            self.fill().await;
        }
        let found = found?;
        // A change that differs after others did may not do so after none.
        let again = if change { self.differ(&node, true).await } else { Some(found.clone()) };
        let small = match again {
            Some(again) if again.wrong() => self.shrink(node, again, change).await,
            _ => found,
        };
        if change {
            self.fill().await;
        }
        Some(small)
    }
}

/// Runs so many statements, and gives how many differ of each class; none where PostgreSQL is not installed.
pub(crate) async fn run(statements: u64, seed: u64) -> Option<BTreeMap<String, u32>> {
    let postgres = Postgres::start().await?;
    let mut pair = Pair::begin(postgres).await;
    let mut generator = Generator { random: Random(seed), names: 0 };
    let mut classes = BTreeMap::new();
    for number in 0..statements {
        match number % STATEMENTS_OF_ROWS {
            0 => {
                pair.rows = TABLES.iter().map(|table| generator.rows_of_table(table)).collect();
                pair.flushed = false;
                pair.fill().await;
            }
            at if at == STATEMENTS_OF_ROWS / 3 => pair.flush(&TABLES[..2]).await,
            at if at == STATEMENTS_OF_ROWS / 3 * 2 => {
                pair.flushed = true;
                pair.flush(&TABLES).await;
            }
            _ => {}
        }
        generator.names = 0;
        if let Some(found) = pair.statement(&mut generator).await {
            let wrong = found.wrong();
            let Found { class, sql, ours, theirs } = found;
            let times = classes.entry(class.clone()).or_insert(0);
            *times += 1;
            if wrong || *times <= OF_A_CLASS {
                println!(
                    "seed {seed}, statement {number}: {class}\n{sql}\n  PostgreSQL: {theirs}\n  KalamDB:    {ours}\n"
                );
            }
        }
    }
    for (class, times) in &classes {
        println!("{times} times: {class}");
    }
    Some(classes)
}

/// A run as the suite has it.
#[tokio::test(flavor = "multi_thread")]
async fn both_databases_answer_alike() {
    let seed = std::env::var("KALAMDB_SEED").map_or(1, |text| text.parse().unwrap());
    match run(400, seed).await {
        None => println!("PostgreSQL is not installed: nothing was compared with it"),
        Some(classes) => judge(400, seed, &classes),
    }
}
