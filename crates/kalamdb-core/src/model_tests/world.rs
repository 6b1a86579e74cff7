//! One seed's world: the engine, the model beside it, and those who ask both.

use std::collections::BTreeMap;

use kalamdb_log::simulation::Random;
use log_format::{ChangeEvent, DataType, Role, User, UserId};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::any::{self, NAMESPACES};
use super::ddl::{self, Ddl};
use super::query::Query;
use super::running::Running;
use super::schema::{Refused, Table};
use super::statement::{Expected, Name, Statement, Tables, Work, full};
use super::values::{Cell, cell_of, name, quoted};
use crate::engine::{CATALOG_DIRECTORY, ROWS_DIRECTORY};
use crate::testing::session;
use crate::{Executed, Session, StatementResult};

/// Queries that are asked again.
const KEPT_MAX: usize = 12;
/// Where definitions that were shown are run again.
const COPIES: &str = "copies";

/// How much was tried.
#[derive(Debug, Default)]
pub(super) struct Totals {
    statements: u64,
    refused: BTreeMap<&'static str, u64>,
    transactions: u64,
    schema_versions: u64,
    rows_compared: u64,
    closes: u64,
    kills: u64,
    replays: u64,
}

pub(super) struct World {
    seed: u64,
    random: Random,
    runtime: Runtime,
    directory: TempDir,
    running: Option<Running>,
    tables: Tables,
    /// By table, owner and kind: how many changes of rows the log has to tell of.
    changes: BTreeMap<(Name, String, &'static str), i64>,
    kept: Vec<Query>,
    trail: Vec<String>,
    totals: Totals,
}

impl Drop for World {
    /// Says which seed it was, and what led there, when a check fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for statement in self.trail.iter().rev().take(8).rev() {
                eprintln!("  {}", statement.chars().take(400).collect::<String>());
            }
            eprintln!("the seed was {}: KALAMDB_SEED={} runs it alone", self.seed, self.seed);
        }
    }
}

fn root() -> Session {
    session("root", Role::Dba)
}

/// All who ask.
fn everybody() -> [Session; 4] {
    [root(), session("svc", Role::Service), session("ann", Role::User), session("bob", Role::User)]
}

fn rows_of(result: &StatementResult) -> Vec<Vec<Cell>> {
    let batches = result.batches.iter();
    batches
        .flat_map(|batch| {
            (0..batch.num_rows()).map(|row| batch.columns().iter().map(|array| cell_of(array, row)).collect())
        })
        .collect()
}

impl World {
    pub(super) fn run(seed: u64, steps: u64) -> Totals {
        let directory = tempfile::tempdir().unwrap();
        let mut world = Self {
            seed,
            random: Random::new(seed),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
            running: Some(Running::open(directory.path())),
            directory,
            tables: Tables::new(),
            changes: BTreeMap::new(),
            kept: Vec::new(),
            trail: Vec::new(),
            totals: Totals::default(),
        };
        world.begin();
        for _ in 0..steps {
            world.step();
        }
        world.restart();
        world.check_log();
        std::mem::take(&mut world.totals)
    }

    /// Accounts without passwords: hashing one takes longer than a hundred statements.
    fn begin(&mut self) {
        let accounts = everybody().map(|who| {
            let (id, role) = (UserId::new(who.user().as_str()), who.role());
            let user =
                User { id, role, password_hash: String::new(), metadata: None, created_at: 0, updated_at: 0 };
            ChangeEvent::UserCreated(Box::new(user))
        });
        let commits = self.running.as_ref().unwrap().engine.commits();
        commits.catalog_blocking(move |_| Ok(accounts.to_vec())).unwrap();
        for namespace in NAMESPACES.into_iter().chain([COPIES]) {
            self.must(&root(), &format!("CREATE NAMESPACE {}", name(namespace)));
        }
        // Statements without a table would only be refused.
        while self.tables.len() < 3 {
            self.ddl();
        }
    }

    fn step(&mut self) {
        match self.random.below(1000) {
            0..580 => self.statement(),
            580..680 => self.transaction(),
            680..850 => self.ddl(),
            850..930 => self.ask_again(),
            930..960 => self.check_definitions(),
            960..975 => self.check_rows(),
            _ => self.restart(),
        }
    }

    // ── asking the engine ──

    fn execute(&mut self, who: &Session, sql: &str, params: &[Json]) -> Executed {
        let said = format!("{}: {sql} {params:?}", who.user());
        if std::env::var("KALAMDB_TRAIL").is_ok() {
            eprintln!("{}", said.chars().take(600).collect::<String>());
        }
        self.trail.push(said);
        let engine = &self.running.as_ref().unwrap().engine;
        self.runtime.block_on(engine.execute(&mut who.clone(), sql, params))
    }

    /// The rows of one that must go through.
    fn must(&mut self, who: &Session, sql: &str) -> Vec<Vec<Cell>> {
        let executed = self.execute(who, sql, &[]);
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
        executed.results.last().map(rows_of).unwrap_or_default()
    }

    fn anybody(&mut self) -> Session {
        everybody()[self.random.below(4)].clone()
    }

    /// Who runs a statement: whose it is, or one who may act for them.
    fn by(&mut self, sql: String, who: &Session) -> (String, Session) {
        if who.role() > Role::User || self.random.per_mille(750) {
            return (sql, who.clone());
        }
        (
            format!("EXECUTE AS USER {} ({sql})", quoted(who.user().as_str())),
            everybody()[self.random.below(2)].clone(),
        )
    }

    // ── steps ──

    fn statement(&mut self) {
        let statement = any::statement(&mut self.random, &self.tables, false);
        if let Statement::Select(query) = &statement
            && query.has_params
        {
            self.kept.truncate(KEPT_MAX - 1);
            self.kept.insert(0, query.clone());
        }
        let who = self.anybody();
        self.one(&statement, &who);
    }

    /// The text of a query from before, with other values, perhaps by somebody else.
    fn ask_again(&mut self) {
        if self.kept.is_empty() {
            return self.statement();
        }
        let at = self.random.below(self.kept.len());
        if let Some(table) = self.tables.get(&self.kept[at].table) {
            self.kept[at].renew(&mut self.random, table);
        }
        let (query, who) = (self.kept[at].clone(), self.anybody());
        self.one(&Statement::Select(query), &who);
    }

    fn one(&mut self, statement: &Statement, who: &Session) {
        let has_params = match statement {
            Statement::Select(query) => query.has_params,
            Statement::Change(_) => self.random.per_mille(350),
            Statement::Stats(_) => false,
        };
        let mut params = has_params.then(Vec::new);
        let sql = statement.sql(&mut self.random, &self.tables, &mut params);
        // Nobody is shown statistics for another.
        let is_shown = matches!(statement, Statement::Stats(_));
        let (sql, by) = if is_shown { (sql, who.clone()) } else { self.by(sql, who) };
        let executed = self.execute(&by, &sql, &params.unwrap_or_default());
        let result = executed.results.last();
        let answer = result.map(rows_of);
        let before = std::mem::take(&mut self.tables);
        let mut work = Work::on(&before);
        let expected = work.run(statement, who, answer.as_deref());
        let (tables, touched) = (work.tables, work.touched);
        self.check(&sql, statement, &expected, result, &executed);
        self.tables = if expected.is_ok() { tables } else { before.clone() };
        self.count_changes(&before, &touched);
    }

    fn transaction(&mut self) {
        let mut parts: Vec<(Statement, Session, String)> = Vec::new();
        let outer = everybody()[self.random.below(4)].clone();
        for _ in 0..=self.random.below(5) {
            let statement = any::statement(&mut self.random, &self.tables, true);
            let sql = statement.sql(&mut self.random, &self.tables, &mut None);
            let is_of_rows = !matches!(statement, Statement::Stats(_));
            let may_act = is_of_rows && outer.role() > Role::User && self.random.per_mille(300);
            if may_act {
                let other = everybody()[2 + self.random.below(2)].clone();
                let sql = format!("EXECUTE AS USER {} ({sql})", quoted(other.user().as_str()));
                parts.push((statement, other, sql));
            } else {
                parts.push((statement, outer.clone(), sql));
            }
        }
        let commits = self.random.per_mille(750);
        let texts: Vec<&str> = parts.iter().map(|(_, _, sql)| sql.as_str()).collect();
        let sql = format!("BEGIN; {}; {}", texts.join("; "), if commits { "COMMIT" } else { "ROLLBACK" });
        let executed = self.execute(&outer, &sql, &[]);
        self.totals.transactions += 1;
        let before = std::mem::take(&mut self.tables);
        let mut work = Work::on(&before);
        for (at, (statement, who, sql)) in parts.iter().enumerate() {
            let result = executed.results.get(at + 1);
            let answer = result.map(rows_of);
            let expected = work.run(statement, who, answer.as_deref());
            if expected.is_err() || result.is_some() {
                self.check(sql, statement, &expected, result, &executed);
            }
            if expected.is_err() {
                assert!(executed.results.is_empty(), "{sql}: what was refused left results");
                self.tables = before;
                return;
            }
        }
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
        let (tables, touched) = (work.tables, work.touched);
        if commits {
            self.tables = tables;
            self.count_changes(&before, &touched);
        } else {
            self.tables = before;
        }
    }

    fn count_changes(
        &mut self,
        before: &Tables,
        touched: &std::collections::BTreeSet<(Name, String, Vec<Cell>)>,
    ) {
        for (at, owner, key) in touched {
            let is_live = |tables: &Tables| {
                let row = tables[at].rows.get(owner).and_then(|rows| rows.get(key));
                row.is_some_and(|row| !row.deleted)
            };
            let kind = match (is_live(before), is_live(&self.tables)) {
                (false, true) => "insert",
                (true, true) => "update",
                (true, false) => "delete",
                (false, false) => continue,
            };
            *self.changes.entry((at.clone(), owner.clone(), kind)).or_default() += 1;
        }
    }

    fn ddl(&mut self) {
        let (ddl, sql) = ddl::any(&mut self.random, &self.tables);
        let who = match self.random.below(20) {
            0 => everybody()[2].clone(),
            1..8 => everybody()[1].clone(),
            _ => root(),
        };
        let executed = self.execute(&who, &sql, &[]);
        let expected = ddl.apply(&mut self.tables, &who);
        let found = executed.error.as_ref().map_or(Ok(()), |error| Err(error.code()));
        assert_eq!(found, expected, "{sql}: {:?}", executed.error);
        self.totals.statements += 1;
        if let Err(code) = expected {
            *self.totals.refused.entry(code.as_str()).or_default() += 1;
        }
        let at = ddl.table();
        match ddl {
            // Another key orders rows another way.
            Ddl::Create { .. } | Ddl::Drop { .. } => self.kept.retain(|query| query.table != *at),
            Ddl::Alter { .. } => self.kept.retain(|query| query.table != *at || query.is_of_any_type()),
            Ddl::Truncate(_) => {}
        }
    }

    // ── checking ──

    fn check(
        &mut self,
        sql: &str,
        statement: &Statement,
        expected: &Refused<Expected>,
        result: Option<&StatementResult>,
        executed: &Executed,
    ) {
        self.totals.statements += 1;
        let expected = match expected {
            Ok(expected) => expected,
            Err(code) => {
                *self.totals.refused.entry(code.as_str()).or_default() += 1;
                let found = executed.error.as_ref().map(crate::Error::code);
                assert_eq!(found, Some(*code), "{sql}: {:?}", executed.error);
                return;
            }
        };
        let result = result.unwrap_or_else(|| panic!("{sql}: {:?}", executed.error));
        assert_eq!(result.row_count, expected.count, "{sql}: how many rows");
        let Some(rows) = &expected.rows else { return };
        let mut found = rows_of(result);
        if matches!(statement, Statement::Stats(_)) {
            let at = result.schema.index_of("hot_rows").unwrap();
            found = found.into_iter().map(|row| vec![row[at].clone()]).collect();
        }
        let mut rows = rows.clone();
        if !expected.in_order {
            rows.sort();
            found.sort();
        }
        self.totals.rows_compared += rows.len() as u64;
        assert_eq!(found, rows, "{sql}");
    }

    /// Everybody sees the rows they should, the deleted ones too.
    fn check_rows(&mut self) {
        for at in self.tables.keys().cloned().collect::<Vec<_>>() {
            for who in everybody() {
                let query = Statement::Select(Query::everything(&at));
                self.one(&query, &who);
                self.one(&Statement::Stats(at.clone()), &who);
            }
        }
    }

    /// The catalog says of every table what it should, and a definition that it shows makes the same table.
    fn check_definitions(&mut self) {
        let mut names = self.must(&root(), "SHOW TABLES");
        names.retain(|row| row[0] != Cell::Text(COPIES.to_owned()));
        let known = self.tables.keys().map(|(namespace, table)| [namespace, table]);
        let known: Vec<_> = known.map(|names| names.map(|name| Cell::Text(name.clone())).to_vec()).collect();
        assert_eq!(names.iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>(), known);
        for (at, table) in self.tables.clone() {
            let described = self.must(&root(), &format!("DESCRIBE TABLE {}", full(&at)));
            check_columns(&table, &described);
            let history = self.must(&root(), &format!("DESCRIBE TABLE {} HISTORY", full(&at)));
            check_history(&table, &history);
            self.check_definition(&at, &described);
        }
    }

    fn check_definition(&mut self, at: &Name, described: &[Vec<Cell>]) {
        let within = |namespace: &str| Session::new(UserId::new("root"), Role::Dba, Some(namespace));
        let (here, there) = (within(&at.0), within(COPIES));
        let show = format!("SHOW CREATE TABLE {}", name(&at.1));
        let shown = self.must(&here, &show);
        let Cell::Text(text) = &shown[0][1] else { panic!("{shown:?}") };
        self.must(&there, text);
        assert_eq!(self.must(&there, &format!("DESCRIBE {}", name(&at.1))), described, "{text}");
        assert_eq!(self.must(&there, &show)[0][1], shown[0][1]);
        self.must(&there, &format!("DROP TABLE {}", name(&at.1)));
    }

    /// All that a restart must leave as it is.
    fn everything(&mut self) -> BTreeMap<String, Vec<Vec<Cell>>> {
        let mut all = BTreeMap::new();
        for at in self.tables.keys().cloned().collect::<Vec<_>>() {
            let readers = everybody().into_iter().filter(|who| self.tables[&at].may_read(who));
            for who in readers.collect::<Vec<_>>() {
                let sql = format!("SELECT *, _seq, _updated, _deleted FROM {}", full(&at));
                all.insert(format!("{sql} of {}", who.user()), self.must(&who, &sql));
            }
            let history = format!("DESCRIBE TABLE {} HISTORY", full(&at));
            all.insert(history.clone(), self.must(&root(), &history));
        }
        for sql in ["SHOW TABLES", "SELECT * FROM system.tables", "SELECT * FROM system.table_schemas"] {
            all.insert(sql.to_owned(), self.must(&root(), sql));
        }
        all
    }

    fn restart(&mut self) {
        let before = self.everything();
        let (kill, replay) = (self.random.per_mille(500), self.random.below(6));
        self.trail.push(format!("-- restart: kill {kill}, replay {replay}"));
        self.running.take().unwrap().end(kill);
        let gone: &[&str] = match replay {
            0 => &[ROWS_DIRECTORY],
            1 => &[CATALOG_DIRECTORY],
            2 => &[ROWS_DIRECTORY, CATALOG_DIRECTORY],
            _ => &[],
        };
        for directory in gone {
            std::fs::remove_dir_all(self.directory.path().join(directory)).unwrap();
        }
        self.totals.closes += u64::from(!kill);
        self.totals.kills += u64::from(kill);
        self.totals.replays += u64::from(!gone.is_empty());
        self.running = Some(Running::open(self.directory.path()));
        let after = self.everything();
        for (what, rows) in &before {
            assert_eq!(after.get(what), Some(rows), "{what}");
        }
        assert_eq!(after.len(), before.len());
        self.check_rows();
        self.check_definitions();
    }

    /// The log tells of every change of a row, and of no other.
    fn check_log(&mut self) {
        let sql = "SELECT namespace_id, table_name, user_id, op, count(*) FROM system.changes
                   WHERE op IN ('insert', 'update', 'delete') GROUP BY namespace_id, table_name, user_id, op";
        let mut found = self.must(&root(), sql);
        let text = |text: &str| Cell::Text(text.to_owned());
        let mut expected: Vec<Vec<Cell>> = self
            .changes
            .iter()
            .map(|(((namespace, table), owner, kind), count)| {
                let owner = if owner.is_empty() { Cell::Null } else { text(owner) };
                vec![text(namespace), text(table), owner, text(kind), Cell::Whole(*count)]
            })
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        let versions = self.tables.values().map(|table| table.history.len() as u64);
        self.totals.schema_versions = versions.sum();
    }
}

fn check_columns(table: &Table, described: &[Vec<Cell>]) {
    let text = |text: String| Cell::Text(text);
    let own = table.columns.iter().map(|column| {
        let key = table.key.iter().position(|id| *id == column.id);
        vec![
            text(column.name.clone()),
            text(column.data_type.to_string()),
            Cell::Flag(column.nullable),
            key.map_or(Cell::Null, |at| text((at + 1).to_string())),
            Cell::Flag(column.default.is_some()),
            Cell::Flag(false),
        ]
    });
    let system =
        [("_seq", DataType::BigInt), ("_updated", DataType::DateTime), ("_deleted", DataType::Boolean)];
    let system = system.map(|(name, data_type)| {
        let (name, data_type) = (text(name.to_owned()), text(data_type.to_string()));
        vec![name, data_type, Cell::Flag(false), Cell::Null, Cell::Flag(false), Cell::Flag(true)]
    });
    let mut described = described.to_vec();
    for row in &mut described {
        row[4] = Cell::Flag(!row[4].is_null());
    }
    assert_eq!(described, own.chain(system).collect::<Vec<_>>());
}

/// Numbered from 1; each says what made it, without the quotes of names, and who.
fn check_history(table: &Table, history: &[Vec<Cell>]) {
    assert_eq!(history.len(), table.history.len(), "{history:?} {:?}", table.history);
    for (number, (row, version)) in (1..).zip(history.iter().zip(&table.history)) {
        let Cell::Text(change) = &row[1] else { panic!("{row:?}") };
        let begins: String =
            version.change.split(", ").next().unwrap().chars().filter(|it| *it != '"').collect();
        let change: String = change.chars().filter(|it| *it != '"').collect();
        assert!(change.starts_with(&begins), "{change} instead of {begins}");
        assert_eq!(row[3], Cell::Text(version.by.clone()));
        assert_eq!(row[0], Cell::Whole(number));
    }
}
