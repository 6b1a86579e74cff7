//! `BEGIN; …; COMMIT` in one request: one frame of the log, all or nothing.
//!
//! Its statements read one cut and, over it, what those before them changed. Nothing is written before COMMIT: then each row
//! that changed becomes one event, and the commit relies on every row being as the cut has it. Where one is not, somebody
//! else was quicker, and the whole transaction is run anew.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kalamdb_store::Cut;
use log_format::{EncodedEvent, SchemaVersion, TableId};

use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::requests::{Committed, RowCommit};
use crate::sql::change_set::{Changed, encode_appended, said_early};
use crate::sql::parse::Statement;
use crate::sql::target::Target;
use crate::view::{Overlay, View};

/// Statements of a request that are committed together.
pub(crate) enum Unit {
    /// One, by itself.
    Statement(Statement),
    /// Those after BEGIN, and whether COMMIT ends them or ROLLBACK.
    Transaction { statements: Vec<Statement>, commits: bool },
}

impl Unit {
    /// A request's statements. Where BEGIN and COMMIT are no pairs nothing of the request is run.
    pub(crate) fn of_all(statements: Vec<Statement>) -> Result<Vec<Self>> {
        let mut units = Vec::with_capacity(statements.len());
        let mut open: Option<Vec<Statement>> = None;
        for statement in statements {
            match (statement, open.take()) {
                (Statement::Begin, None) => open = Some(Vec::new()),
                (Statement::Begin, Some(_)) => {
                    return Err(Error::definition("BEGIN inside of a transaction: COMMIT or ROLLBACK first"));
                }
                (end @ (Statement::Commit | Statement::Rollback), Some(statements)) => {
                    let commits = matches!(end, Statement::Commit);
                    units.push(Self::Transaction { statements, commits });
                }
                (Statement::Commit | Statement::Rollback, None) => {
                    return Err(Error::definition("there is no transaction to end: it begins with BEGIN"));
                }
                (statement, Some(mut statements)) => {
                    statements.push(statement);
                    open = Some(statements);
                }
                (statement, None) => units.push(Self::Statement(statement)),
            }
        }
        if open.is_some() {
            return Err(Error::definition(
                "the transaction has no end: write BEGIN; …; COMMIT in one request. Nothing was run",
            ));
        }
        Ok(units)
    }
}

/// A transaction that is not committed yet.
pub(crate) struct Transaction {
    cut: Arc<Cut>,
    begun_at: i64,
    // Its statements run one after the other: nobody waits for it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tables: Vec<(TableId, SchemaVersion)>,
    rows: Arc<Overlay>,
    /// Rows of streams: nobody sees them before the commit, its own statements neither.
    appended: Vec<EncodedEvent>,
}

impl State {
    fn touch(&mut self, target: &Target<'_>) {
        let table = (target.info.id(), target.info.version());
        if !self.tables.contains(&table) {
            self.tables.push(table);
        }
    }
}

impl Transaction {
    pub(crate) fn begin(engine: &Engine) -> Result<Self> {
        let cut = Arc::new(engine.store().cut()?);
        Ok(Self { cut, begun_at: clock::now_micros(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its next statement reads.
    pub(crate) fn view(&self) -> View {
        View::in_transaction(Arc::clone(&self.cut), Arc::clone(&self.state().rows), self.begun_at)
    }

    /// Takes over what a statement changes.
    pub(crate) fn add(&self, target: &Target<'_>, changes: Vec<Changed>) -> Result<()> {
        let view = self.view();
        let (keyspace, partition) = (target.info.keyspace(), &target.partition);
        // What was inserted is checked here, where its statement can be told; the sequencer checks it again.
        let mut inserted = HashSet::new();
        for change in changes.iter().filter(|change| change.base.is_none()) {
            let taken = view.get(keyspace, partition, &change.key, |row| !row.deleted)?.unwrap_or_default();
            if taken || !inserted.insert(&change.key) {
                return Err(target.info.duplicate_key(&change.key));
            }
        }
        drop(view);
        let mut state = self.state();
        state.touch(target);
        let rows = Arc::make_mut(&mut state.rows);
        for Changed { key, base, row } in changes {
            rows.put(partition, key, base, row);
        }
        Ok(())
    }

    /// Takes over rows of a stream.
    pub(crate) fn append(&self, target: &Target<'_>, rows: Vec<Vec<u8>>) -> Result<()> {
        let mut state = self.state();
        state.touch(target);
        for row in rows {
            state.appended.push(encode_appended(&target.partition, row)?);
        }
        Ok(())
    }

    /// Commits it; none where it changes nothing.
    pub(crate) async fn commit(self, engine: &Engine) -> Result<Option<Committed>> {
        let cold_as_of = self.cut.seq();
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let rows = Arc::unwrap_or_clone(state.rows);
        let (mut events, mut writes) = (Vec::new(), Vec::new());
        for (partition, key, change) in rows.into_changes() {
            let change = Changed { key, base: change.base, row: change.row };
            if let Some((event, write)) = change.encode(&partition)? {
                events.push(event);
                writes.push(write);
            }
        }
        events.extend(state.appended);
        if events.is_empty() {
            return Ok(None);
        }
        // The disk is waited for even where only streams change: who sends COMMIT expects to find it all.
        let commit = RowCommit { tables: state.tables, ephemeral: false, events, writes, cold_as_of };
        engine.commits().rows(commit).await.map(Some).map_err(said_early)
    }
}
