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

/// One row of `system.live_queries`. There may be very many: texts are shared with whoever else has them.
#[derive(Clone, Debug)]
pub struct LiveQuery {
    /// `{connection_id}-{query_id}`.
    pub live_id: Arc<str>,
    /// The connection.
    pub connection_id: Arc<str>,
    /// The client's name for it.
    pub query_id: Arc<str>,
    /// Who listens.
    pub user: Arc<UserId>,
    /// The table.
    pub table: TableId,
    /// The columns it selects or compares, by id: they stay as they are while it lives.
    pub columns: Box<[ColumnId]>,
    /// The SQL text.
    pub query: Arc<str>,
    /// What the client asked for, as JSON.
    pub options: Option<Box<str>>,
    /// How far it is.
    pub progress: Arc<LiveProgress>,
    /// When it began, microseconds since 1970.
    pub created_at: i64,
}

impl LiveQuery {
    fn is(&self, progress: &Arc<LiveProgress>) -> bool {
        Arc::ptr_eq(&self.progress, progress)
    }
}

/// How far a live query is: written by whoever feeds it, without going through the table.
#[derive(Debug, Default)]
pub struct LiveProgress {
    state: AtomicU8,
    given: AtomicU64,
    reached: AtomicU64,
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

    /// How many events it is behind, of a log that ends at `end`.
    pub fn lag(&self, end: Seq) -> u64 {
        let of = |place: &AtomicU64| place.load(Ordering::Relaxed);
        let (given, reached, seq) = (of(&self.given), of(&self.reached), of(&self.seq));
        match self.state() {
            _ if given > seq => end.get().saturating_sub(seq),
            LiveState::Live => 0,
            _ => end.get().saturating_sub(seq.max(reached)),
        }
    }

    /// The last change that was passed on to it.
    pub fn seq(&self) -> Seq {
        Seq::new(self.seq.load(Ordering::Relaxed))
    }

    /// Changed rows that were passed on to it.
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

    /// A change is on its way to it.
    pub fn give(&self, seq: Seq) {
        self.given.store(seq.get(), Ordering::Relaxed);
    }

    /// All up to `seq` was read for it, while it catches up.
    pub fn reach(&self, seq: Seq) {
        self.reached.store(seq.get(), Ordering::Relaxed);
    }

    /// Changed rows up to `seq`, committed at `now`, were passed on to it. Said by whoever does that.
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
    queries: Mutex<BTreeMap<Arc<str>, Arc<LiveQuery>>>,
}

impl LiveQueries {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Arc<LiveQuery>>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a live query.
    pub fn insert_live_query(&self, query: Arc<LiveQuery>) {
        self.locked().insert(Arc::clone(&query.live_id), query);
    }

    /// The live query of this id and progress selects or compares these columns now.
    pub fn update_live_query_columns(
        &self,
        live_id: &str,
        progress: &Arc<LiveProgress>,
        columns: Box<[ColumnId]>,
    ) {
        let mut queries = self.locked();
        if let Some(query) = queries.get_mut(live_id).filter(|query| query.is(progress)) {
            Arc::make_mut(query).columns = columns;
        }
    }

    /// Removes the live query of this id and progress: a client may have given the id to another one since.
    pub fn delete_live_query(&self, live_id: &str, progress: &Arc<LiveProgress>) -> Option<Arc<LiveQuery>> {
        let mut queries = self.locked();
        let is_it = queries.get(live_id).is_some_and(|query| query.is(progress));
        if is_it { queries.remove(live_id) } else { None }
    }

    /// The live queries on a table.
    pub fn live_queries_on(&self, table: TableId) -> Vec<Arc<LiveQuery>> {
        self.locked().values().filter(|query| query.table == table).cloned().collect()
    }

    /// The live query of this id.
    pub fn get_live_query(&self, live_id: &str) -> Option<Arc<LiveQuery>> {
        self.locked().get(live_id).cloned()
    }

    /// All live queries, by id.
    pub fn scan_all_live_queries(&self) -> Vec<Arc<LiveQuery>> {
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
        table.insert_live_query(Arc::new(LiveQuery {
            live_id: "c1-q1".into(),
            connection_id: "c1".into(),
            query_id: "q1".into(),
            user: Arc::new(UserId::new("ann")),
            table: TableId::new(4),
            columns: [ColumnId::new(1)].into(),
            query: "SELECT 1".into(),
            options: None,
            progress: Arc::clone(&progress),
            created_at: 1,
        }));
        assert_eq!(progress.state(), LiveState::Snapshot);
        progress.enter(LiveState::Live, 5);
        progress.advance(Seq::new(9), 3, 6);
        assert_eq!(progress.lag(Seq::new(20)), 0);
        progress.give(Seq::new(12));
        assert_eq!(progress.lag(Seq::new(20)), 11, "a change is on its way");
        progress.advance(Seq::new(12), 0, 6);
        progress.enter(LiveState::CatchingUp, 6);
        progress.reach(Seq::new(15));
        assert_eq!(progress.lag(Seq::new(20)), 5, "nothing of it between");
        progress.enter(LiveState::Live, 6);
        let found = &table.get_live_query("c1-q1").unwrap().progress;
        assert_eq!((found.state(), found.seq(), found.changes()), (LiveState::Live, Seq::new(12), 3));
        assert_eq!(found.updated_at(), 6);
        assert!(table.live_queries_on(TableId::new(5)).is_empty());
        let columns = || [ColumnId::new(1), ColumnId::new(3)].into();
        table.update_live_query_columns("c1-q1", &progress, columns());
        table.update_live_query_columns("c1-q2", &progress, Box::default());
        let of_another = Arc::new(LiveProgress::default());
        table.update_live_query_columns("c1-q1", &of_another, Box::default());
        let found = table.live_queries_on(TableId::new(4)).remove(0);
        assert_eq!(*found.columns, [ColumnId::new(1), ColumnId::new(3)]);
        assert!(table.delete_live_query("c1-q1", &of_another).is_none());
        assert!(table.delete_live_query("c1-q1", &progress).is_some());
        assert!(table.scan_all_live_queries().is_empty());
    }
}
