//! Stream rows go by themselves: after their time, beyond a table's buffer, or when nobody listens any more.
//!
//! One thread reads the feed and counts what each stream partition holds. What has to go, goes as an event like every other
//! change. Reads hide rows past their time anyway, so being late here costs memory, never a wrong answer.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use kalamdb_store::{Keyspace, Store};
use log_format::{
    ArchivedChangeEvent as Event, ChangeEvent, Partition, Seq, StreamEvicted, StreamScope, TableId, UserId,
    unescape_bytes,
};

use crate::catalog::Catalog;
use crate::clock;
use crate::error::Result;
use crate::live::{Feed, FeedAfter, Router};
use crate::requests::{Commits, RowCommit};
use crate::table::TableInfo;

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What the keeper works on.
pub(crate) struct StreamKeeper {
    pub(crate) feed: Arc<Feed>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) store: Arc<Store>,
    pub(crate) router: Arc<Router>,
    pub(crate) commits: Commits,
    pub(crate) stop: Arc<Stop>,
}

/// Tells the keepers to stop.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.bell.notify_all();
    }

    /// Whether to stop, after waiting that long.
    pub(crate) fn waited(&self, period: Duration) -> bool {
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.stopped.load(Ordering::Acquire) {
            drop(self.bell.wait_timeout(held, period).unwrap_or_else(PoisonError::into_inner));
        }
        self.stopped.load(Ordering::Acquire)
    }
}

/// The rows of one stream partition: when and by which event each came, oldest first.
type Rows = VecDeque<(i64, Seq)>;

impl StreamKeeper {
    /// Keeps until told to stop.
    pub(crate) fn run(self) {
        let mut position = self.feed.published();
        let mut held: HashMap<Partition, Rows> = HashMap::new();
        if let Err(error) = self.count_all(&mut held) {
            tracing::error!(%error, "stream rows cannot be counted: they stay until the next start");
            return;
        }
        while !self.stop.waited(TICK) {
            if let Err(error) = self.read_along(&mut position, &mut held).and_then(|()| self.evict(&mut held))
            {
                // The engine is closing or read-only: rows stay, reads hide those past their time.
                tracing::debug!(%error, "stream rows were not evicted");
            }
        }
    }

    /// Takes over what arrived since.
    fn read_along(&self, position: &mut Seq, held: &mut HashMap<Partition, Rows>) -> Result<()> {
        let frames = match self.feed.after(*position) {
            FeedAfter::Frames(frames) => frames,
            FeedAfter::Closed => return Ok(()),
            FeedAfter::TooFarBack => {
                // More arrived in a tick than the feed holds: count what is there.
                *position = self.feed.published();
                held.clear();
                return self.count_all(held);
            }
        };
        for frame in frames {
            for (seq, event) in frame.events() {
                match event? {
                    Event::StreamAppended(event) => {
                        let rows = held.entry(event.partition.to_partition()).or_default();
                        rows.push_back((frame.header().fields.commit_time, seq));
                    }
                    Event::TableTruncated(event) => {
                        held.retain(|partition, _| partition.table != event.table.to_id());
                    }
                    _ => {}
                }
            }
            *position = frame.last_seq();
        }
        Ok(())
    }

    /// Counts what the store holds.
    fn count_all(&self, held: &mut HashMap<Partition, Rows>) -> Result<()> {
        let cut = self.store.cut()?;
        for namespace in self.catalog.namespaces() {
            for info in self.catalog.tables_in(&namespace) {
                let Some(options) = info.stream() else { continue };
                let (table, scope) = (info.id(), options.scope);
                cut.scan_table(Keyspace::Stream, table, |key, row| {
                    if let Some(partition) = partition_of(table, scope, key) {
                        held.entry(partition).or_default().push_back((row.updated, row.seq));
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(())
    }

    fn evict(&self, held: &mut HashMap<Partition, Rows>) -> Result<()> {
        let now = clock::now_micros();
        let mut failure = Ok(());
        held.retain(|partition, rows| {
            let Some(info) = self.catalog.by_id(partition.table) else { return false };
            let is_unheard = self.is_unheard(&info, partition);
            let gone = if is_unheard { rows.len() } else { rows_to_go(&info, rows, now) };
            if gone > 0 && failure.is_ok() {
                failure = self.evict_oldest(&info, partition, rows, gone);
                if failure.is_ok() {
                    let name = if is_unheard {
                        "kalamdb_stream_discarded_total"
                    } else {
                        "kalamdb_stream_evicted_total"
                    };
                    metrics::counter!(name).increment(gone as u64);
                }
            }
            !rows.is_empty()
        });
        failure
    }

    /// Whether its rows are for those who listen, and nobody does.
    fn is_unheard(&self, info: &TableInfo, partition: &Partition) -> bool {
        info.stream().is_some_and(|options| options.ephemeral) && !self.router.listens(partition)
    }

    fn evict_oldest(
        &self,
        info: &TableInfo,
        partition: &Partition,
        rows: &mut Rows,
        gone: usize,
    ) -> Result<()> {
        let (before_time, before_seq) =
            match (rows.get(gone), gone.checked_sub(1).and_then(|at| rows.get(at))) {
                (Some((time, seq)), _) => (*time, *seq),
                (None, Some((time, seq))) => (*time, seq.next()),
                (None, None) => return Ok(()),
            };
        let event = StreamEvicted { partition: partition.clone(), before_time, before_seq: before_seq.get() };
        self.commits.rows_blocking(RowCommit {
            tables: vec![(info.id(), info.version())],
            ephemeral: true,
            events: vec![ChangeEvent::StreamEvicted(Box::new(event)).encode()?],
            writes: Vec::new(),
            cold_as_of: Seq::ZERO,
        })?;
        rows.drain(..gone);
        Ok(())
    }
}

/// How many of the oldest rows have to go.
fn rows_to_go(info: &TableInfo, rows: &Rows, now: i64) -> usize {
    let Some(options) = info.stream() else { return 0 };
    let expired = options.ttl_ms.map_or(0, |ttl| {
        let oldest = now.saturating_sub(i64::try_from(ttl).unwrap_or(i64::MAX).saturating_mul(1000));
        rows.partition_point(|(time, _)| *time < oldest)
    });
    let buffer = options.max_buffer.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(usize::MAX);
    expired.max(rows.len().saturating_sub(buffer))
}

/// Whose rows a key of a stream table belongs to; the key begins with the user.
fn partition_of(table: TableId, scope: StreamScope, key: &[u8]) -> Option<Partition> {
    let (user, _) = unescape_bytes(key).ok()?;
    let user = String::from_utf8(user).ok()?;
    Some(match scope {
        StreamScope::User => Partition::of_user(table, UserId::new(user)),
        StreamScope::All => Partition::shared(table),
    })
}
