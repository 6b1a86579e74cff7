//! Metamorphic checks: statements that must agree with each other, whatever the right answer is. They need no second database.
//!
//! - `partitioning`: the rows of a query are those where a condition is true, those where it is not, and those where it is unknown.
//! - `paths`: an expression has one value, whichever way of the database computes it, or the same error.
//!
//! Both use the generator of the comparison with PostgreSQL, and KalamDB's own functions and types beside it.

mod own;
mod partitioning;
mod paths;

use std::collections::BTreeMap;

use self::paths::Connection;
use crate::differential::expressions::Generator;
use crate::support::{Server, Socket};

/// Partitioned queries in the suite.
pub(crate) const QUERIES: u64 = 240;
/// Disagreements of a run that are printed, each of another class.
const SHOWN_MAX: usize = 60;

/// A disagreement between statements that must agree.
#[derive(Debug)]
pub(crate) struct Disagreement {
    /// Name of its kind, of which one is printed.
    pub(crate) class: String,
    /// The statements and their answers.
    pub(crate) text: String,
}

/// Checks that fail a run, and counts of those that were made.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Comparisons of two answers.
    pub(crate) compared: u64,
    /// Statements of which KalamDB refuses a form.
    pub(crate) refused: u64,
    pub(crate) disagreements: Vec<Disagreement>,
}

impl Outcome {
    /// Adds the checks of another part.
    pub(crate) fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.refused += other.refused;
        self.disagreements.extend(other.disagreements);
    }

    /// Fails where statements disagree, or where too few could be compared.
    pub(crate) fn judge(&self, seed: u64) {
        let classes: BTreeMap<&str, &str> =
            self.disagreements.iter().rev().map(|it| (it.class.as_str(), it.text.as_str())).collect();
        for (class, text) in classes.into_iter().take(SHOWN_MAX) {
            println!("seed {seed}: {class}\n{text}\n");
        }
        println!("{} comparisons, {} refused", self.compared, self.refused);
        let disagreeing = self.disagreements.len();
        assert!(disagreeing == 0, "seed {seed}: {disagreeing} statements disagree");
        assert!(self.refused * 10 <= self.compared, "seed {seed}: {} are refused", self.refused);
    }
}

/// Runs so many partitioned queries and so many generated expressions.
pub(crate) async fn run(queries: u64, expressions: u64, seed: u64) -> Outcome {
    let server = Server::start_with("durability = \"os\"\n").await;
    let root = server.root().await;
    let mut generator = Generator::new(seed);
    let mut outcome = partitioning::run(&root, &mut generator, queries).await;
    let socket = Socket::connect(&server, &root.token).await;
    let mut connection = Connection { root, socket, live_queries: 0 };
    outcome.add(paths::run(&mut connection, &mut generator, expressions).await);
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_query_are_its_rows() {
    let seed = crate::support::seed();
    run(QUERIES, 0, seed).await.judge(seed);
}
