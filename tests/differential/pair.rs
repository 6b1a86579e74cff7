//! Both databases with the same rows, KalamDB's in one storage state after the other.

use super::arrow::arrow_answer;
use super::kalamdb::{ask, error_of, our_rows};
use super::live::Watcher;
use super::node::Node;
use super::queries::{TABLES, Table};
use super::values::{our_cells, rows_of, same, their_cells};
use super::{Found, Postgres, agrees_in_failing};
use crate::support::{Api, Server};

/// Configuration of the server. It does not expect an answer to heartbeats while queries are compared.
const CONFIG: &str = "durability = \"os\"\n[server]\nheartbeat_ms = 600000\nclient_timeout_ms = 3600000\n";

/// A storage state of the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// No row is in a file.
    Hot,
    /// Every other row is in a file, and no change.
    Half,
    /// All rows are in files, and all changes.
    Cold,
}

impl State {
    /// All states, from rows without files to rows in files.
    pub(crate) const ALL: [Self; 3] = [Self::Hot, Self::Half, Self::Cold];
}

/// A form in which KalamDB answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Json,
    Arrow,
}

/// A kind of comparison that the reducer can repeat.
#[derive(Clone, Debug)]
pub(crate) enum Case {
    Query(Form),
    Change,
    /// A live query that is told of this change.
    Live(Node),
    /// A change that this live query is told of.
    LiveChange(Node),
}

/// Both databases.
pub(crate) struct Pair {
    _server: Server,
    root: Api,
    postgres: Postgres,
    /// INSERT statements that fill each table, in two halves.
    pub(crate) rows: Vec<[String; 2]>,
    pub(crate) state: State,
    watcher: Watcher,
    /// Whether the last change left different rows, known or not.
    pub(crate) is_apart: bool,
}

impl Pair {
    /// Starts KalamDB, and creates the tables in both databases.
    pub(crate) async fn begin(mut postgres: Postgres) -> Self {
        let server = Server::start_with(CONFIG).await;
        let root = server.root().await;
        create_tables(&root).await;
        postgres.sql("CREATE SCHEMA g").await.unwrap();
        for table in &TABLES {
            postgres.sql(&format!("CREATE TABLE {} {}", table.name, table.definition())).await.unwrap();
        }
        let watcher = Watcher::begin(&server, &root).await;
        let (rows, state) = (Vec::new(), State::Hot);
        Self { _server: server, root, postgres, rows, state, watcher, is_apart: false }
    }

    /// Gives both databases the rows that they began with, and ends all live queries.
    pub(crate) async fn fill(&mut self) {
        self.watcher.end_all().await;
        fill(&self.root, &self.rows, self.state).await;
        for table in &TABLES {
            self.postgres.sql(&format!("TRUNCATE {}", table.name)).await.unwrap();
        }
        for sql in self.rows.iter().flatten() {
            self.postgres.sql(sql).await.unwrap();
        }
    }

    /// Runs a query on both sides; none where the answers agree.
    pub(crate) async fn compare(&mut self, sql: &str, in_order: bool, form: Form) -> Option<Found> {
        let theirs = self.postgres.sql(sql).await;
        let ours = match form {
            Form::Json => ask(&self.root, sql, &[]).await.map(|it| (it["schema"].clone(), our_cells(&it))),
            Form::Arrow => match self.root.try_arrow(sql).await {
                Ok(bytes) => Ok(arrow_answer(&bytes)),
                Err(answer) => Err(error_of(&answer)),
            },
        };
        if let (Ok((schema, cells)), Ok(rows)) = (&ours, &theirs) {
            if same(cells.clone(), their_cells(schema, rows), in_order) {
                return None;
            }
        } else if agrees_in_failing(&ours, &theirs) {
            return None;
        }
        Found::new(sql, &ours.map(|(_, cells)| rows_of(&cells)), &theirs)
    }

    /// Runs a change on both sides; none where the table has the same rows afterwards.
    pub(crate) async fn change(&mut self, sql: &str) -> Option<Found> {
        let ours = ask(&self.root, sql, &[]).await;
        let theirs = self.postgres.sql(sql).await;
        let table = changed(sql);
        if self.state == State::Cold {
            flush(&self.root, table.name).await;
        }
        let columns: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
        let select = format!("SELECT {} FROM {}", columns.join(", "), table.name);
        let (our_answer, their_rows) = (self.root.sql(&select).await, self.postgres.sql(&select).await);
        let their_cells = their_cells(&our_answer["schema"], their_rows.as_ref().unwrap());
        self.is_apart = !same(our_cells(&our_answer), their_cells, false);
        if self.is_apart {
            let rows = ours.and_then(|_| our_rows(&Ok(our_answer)));
            return Found::new(sql, &rows, &theirs.and(their_rows));
        }
        // Both have what they had, though one side says that the statement is wrong.
        match (&ours, &theirs) {
            (Ok(_), Ok(_)) => None,
            _ if agrees_in_failing(&ours, &theirs) => None,
            _ => Found::new(sql, &our_rows(&ours), &theirs),
        }
    }

    /// Begins a live query; a refusal is an error.
    pub(crate) async fn subscribe(&mut self, node: &Node) -> Result<(), Found> {
        self.watcher.subscribe(&self.root, node).await
    }

    /// Compares live queries with their SELECTs; the first that differs and its statement.
    pub(crate) async fn compare_live(&mut self) -> Option<(Found, Node)> {
        self.watcher.compare_all(&self.root).await
    }

    /// Tells a new live query of a change; none where its result is what its SELECT says.
    async fn watch(&mut self, node: &Node, change: &str) -> Option<Found> {
        self.fill().await;
        if let Err(found) = self.subscribe(node).await {
            return Some(found);
        }
        ask(&self.root, change, &[]).await.ok()?;
        self.compare_live().await.map(|(found, _)| found)
    }

    /// Compares the answers to a statement, over the rows of the beginning unless it is a query.
    pub(crate) async fn differ(&mut self, node: &Node, case: &Case) -> Option<Found> {
        let sql = node.sql();
        match case {
            Case::Query(form) => self.compare(&sql, node.ends_in_order(), *form).await,
            Case::Change => {
                self.fill().await;
                self.change(&sql).await
            }
            Case::Live(change) => self.watch(node, &change.sql()).await,
            Case::LiveChange(live) => self.watch(live, &sql).await,
        }
    }
}

/// Creates the tables in KalamDB.
pub(crate) async fn create_tables(root: &Api) {
    root.sql("CREATE NAMESPACE g").await;
    for table in &TABLES {
        root.sql(&format!("CREATE SHARED TABLE {} {}", table.name, table.definition())).await;
    }
}

/// Empties the tables of KalamDB and fills them.
pub(crate) async fn fill(root: &Api, rows: &[[String; 2]], state: State) {
    for (table, [first, second]) in TABLES.iter().zip(rows) {
        root.sql(&format!("TRUNCATE {}", table.name)).await;
        root.sql(first).await;
        if state == State::Half {
            flush(root, table.name).await;
        }
        root.sql(second).await;
        if state == State::Cold {
            flush(root, table.name).await;
        }
    }
}

/// Moves all hot rows of a table to files.
pub(crate) async fn flush(root: &Api, table: &str) {
    root.sql(&format!("STORAGE FLUSH TABLE {table}")).await;
    let (status, result) = root.last_job("flush_table").await;
    assert_eq!(status, "completed", "{table}: {result}");
}

/// The table that a change names first.
fn changed(sql: &str) -> &'static Table {
    let first = |table: &&Table| sql.find(table.name).unwrap_or(usize::MAX);
    TABLES.iter().min_by_key(first).unwrap()
}
