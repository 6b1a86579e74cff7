//! `system.live_queries`: who listens to what, right now. In memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use log_format::{ColumnId, Seq, TableId, UserId};

/// Where a live query stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveState {
    /// Its first rows are being sent.
    Snapshot,
    /// It gets each commit as it is published.
    Live,
    /// It reads the log from where it stands.
    CatchingUp,
}

impl LiveState {
    /// The word in `system.live_queries`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Live => "live",
            Self::CatchingUp => "catching_up",
        }
    }
}

/// One row of `system.live_queries`.
#[derive(Clone, Debug)]
pub struct LiveQuery {
    /// `{connection_id}-{query_id}`.
    pub live_id: String,
    /// The connection.
    pub connection_id: String,
    /// The client's name for it.
    pub query_id: String,
    /// Who listens.
    pub user: UserId,
    /// The table.
    pub table: TableId,
    /// The columns it selects or compares, by id: they stay as they are while it lives.
    pub columns: Vec<ColumnId>,
    /// The SQL text.
    pub query: String,
    /// What the client asked for, as JSON.
    pub options: Option<String>,
    /// How far it is.
    pub progress: Arc<LiveProgress>,
    /// When it began, microseconds since 1970.
    pub created_at: i64,
}

/// How far a live query is: written by whoever feeds it, without going through the table.
#[derive(Debug, Default)]
pub struct LiveProgress {
    state: AtomicU8,
    seq: AtomicU64,
    changes: AtomicU64,
    bytes: AtomicU64,
    updated_at: AtomicI64,
}

impl LiveProgress {
    /// Where it stands.
    pub fn state(&self) -> LiveState {
        match self.state.load(Ordering::Relaxed) {
            0 => LiveState::Snapshot,
            1 => LiveState::Live,
            _ => LiveState::CatchingUp,
        }
    }

    /// The last commit it was given.
    pub fn seq(&self) -> Seq {
        Seq::new(self.seq.load(Ordering::Relaxed))
    }

    /// Changed rows it was given.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Bytes that were sent for it, as they went over the wire.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many more were sent.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When it last changed, microseconds since 1970; 0 if never.
    pub fn updated_at(&self) -> i64 {
        self.updated_at.load(Ordering::Relaxed)
    }

    /// It stands elsewhere now.
    pub fn enter(&self, state: LiveState, now: i64) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.updated_at.store(now, Ordering::Relaxed);
    }

    /// It was given changed rows up to `seq`, committed at `now`.
    pub fn advance(&self, seq: Seq, rows: u64, now: i64) {
        self.seq.store(seq.get(), Ordering::Relaxed);
        self.changes.fetch_add(rows, Ordering::Relaxed);
        self.updated_at.store(now, Ordering::Relaxed);
    }
}

/// All live queries of this process.
#[derive(Debug, Default)]
pub struct LiveQueries {
    // A plain mutex: held for a map operation at a time, never across anything that waits.
    queries: Mutex<BTreeMap<String, LiveQuery>>,
}

impl LiveQueries {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, LiveQuery>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a live query.
    pub fn insert_live_query(&self, query: LiveQuery) {
        self.locked().insert(query.live_id.clone(), query);
    }

    /// It selects or compares these columns now.
    pub fn update_live_query_columns(&self, live_id: &str, columns: Vec<ColumnId>) {
        if let Some(query) = self.locked().get_mut(live_id) {
            query.columns = columns;
        }
    }

    /// Removes a live query.
    pub fn delete_live_query(&self, live_id: &str) -> Option<LiveQuery> {
        self.locked().remove(live_id)
    }

    /// The live queries on a table.
    pub fn live_queries_on(&self, table: TableId) -> Vec<LiveQuery> {
        self.locked().values().filter(|query| query.table == table).cloned().collect()
    }

    /// All live queries, by id.
    pub fn scan_all_live_queries(&self) -> Vec<LiveQuery> {
        self.locked().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_queries_come_advance_and_go() {
        let table = LiveQueries::new();
        let progress = Arc::new(LiveProgress::default());
        table.insert_live_query(LiveQuery {
            live_id: "c1-q1".to_owned(),
            connection_id: "c1".to_owned(),
            query_id: "q1".to_owned(),
            user: UserId::new("ann"),
            table: TableId::new(4),
            columns: vec![ColumnId::new(1)],
            query: "SELECT 1".to_owned(),
            options: None,
            progress: Arc::clone(&progress),
            created_at: 1,
        });
        assert_eq!(progress.state(), LiveState::Snapshot);
        progress.enter(LiveState::Live, 5);
        progress.advance(Seq::new(9), 3, 6);
        let found = table.live_queries_on(TableId::new(4)).remove(0).progress;
        assert_eq!((found.state(), found.seq(), found.changes()), (LiveState::Live, Seq::new(9), 3));
        assert_eq!(found.updated_at(), 6);
        assert!(table.live_queries_on(TableId::new(5)).is_empty());
        table.update_live_query_columns("c1-q1", vec![ColumnId::new(1), ColumnId::new(3)]);
        table.update_live_query_columns("c1-q2", Vec::new());
        let columns = table.live_queries_on(TableId::new(4)).remove(0).columns;
        assert_eq!(columns, [ColumnId::new(1), ColumnId::new(3)]);
        assert!(table.delete_live_query("c1-q1").is_some());
        assert!(table.scan_all_live_queries().is_empty());
    }
}
