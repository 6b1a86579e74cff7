//! Who gets what, as commits are published.
//!
//! One thread reads the feed. For each commit it looks up the partitions it touches, in each the live queries routed by
//! the changed rows' values and those that cannot be routed, and hands each its frames. It never waits for a subscriber:
//! one whose queue is full is taken out and reads the log from where it stands.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;
use kalamdb_log::{LogDirectory, LogIndex, LogReader};
use kalamdb_sql::{LiveProgress, LiveState};
use log_format::{
    ArchivedChangeEvent as Event, ArchivedFlushed, Frame, KeyBuilder, Partition, SchemaVersion, Seq, TableId,
};

use crate::catalog::Catalog;
use crate::changes::{ChangeRows, changes_partition};
use crate::clock;
use crate::error::{Error, Result};
use crate::table::TableInfo;

// By their place beside this file: a test has a second copy of feed and router that meets at other locks.
use super::change::{ChangeBatches, PartitionChanges, chain_end, changes_by_partition, ends_with};
use super::feed::{After, Feed};
use super::ids::Ids;
use super::projection::Projections;
use super::query::{LiveQuery, Route};
use super::result::{LiveResult, SharedResult};
use super::sink::{FlushNotice, Sink, SubscriptionId};
use super::sync::{Mutex, MutexGuard, PoisonError};

/// How many events behind the last one the first subscriber to become live may be: the rest it reads by itself.
const ATTACH_EVENTS_MAX: u64 = 256;

/// Rows of a commit that are judged one by one while others wait: of more, the subscriber finds out by itself.
const JUDGED_MAX: usize = 64;

/// Where a subscriber stands: shared by the router, while it is live, and the subscription, while it catches up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Everything up to here has been given to it.
    pub(crate) cursor: Seq,
    /// The seq of its last frame.
    pub(crate) prev_seq: Seq,
}

/// A subscriber, as the router knows it.
pub(crate) struct Subscriber {
    pub(crate) id: SubscriptionId,
    pub(crate) query: LiveQuery,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) position: Mutex<Position>,
    pub(crate) progress: Arc<LiveProgress>,
    /// Whether it is told of flushes.
    pub(crate) notify_flush: bool,
    /// Whether it is told of rows that go by themselves.
    pub(crate) notify_evicted: bool,
    /// What its query makes of the rows that match, where it makes something of them: as of its position.
    pub(crate) result: Option<SharedResult>,
}

impl Subscriber {
    /// The same one, with another query.
    pub(crate) fn with_query(&self, query: LiveQuery) -> Self {
        Self {
            id: self.id,
            query,
            sink: Arc::clone(&self.sink),
            position: Mutex::new(*self.position()),
            progress: Arc::clone(&self.progress),
            notify_flush: self.notify_flush,
            notify_evicted: self.notify_evicted,
            result: self.result.clone(),
        }
    }

    pub(crate) fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The live subscribers of one partition.
#[derive(Default)]
struct PartitionRoutes {
    /// Those whose filter says nothing about a constant.
    unrouted: Ids<SubscriptionId>,
    /// Of one schema version by column: while an ALTER is handed out there are subscribers of both.
    by_column: HashMap<(SchemaVersion, usize), ColumnRoutes>,
    /// Those that are told of flushes.
    of_flushes: Ids<SubscriptionId>,
    /// Those that are told of rows that go by themselves.
    of_evictions: Ids<SubscriptionId>,
}

/// Those whose filter asks for a constant in one column.
struct ColumnRoutes {
    /// The table as they know it.
    info: Arc<TableInfo>,
    by_value: HashMap<Arc<[u8]>, Ids<SubscriptionId>>,
}

struct Routes {
    /// What listeners to `system.changes` get.
    change_rows: ChangeRows,
    /// Every commit up to here has been handed out, or concerned nobody.
    position: Seq,
    partitions: HashMap<Partition, PartitionRoutes, RandomState>,
    subscribers: HashMap<SubscriptionId, Arc<Subscriber>, RandomState>,
    /// How many subscribers each partition has, live or catching up.
    listeners: HashMap<Partition, usize, RandomState>,
}

/// The router.
pub(crate) struct Router {
    // Held while one commit is handed out, and for map operations when somebody joins or leaves.
    routes: Mutex<Routes>,
    feed: Arc<Feed>,
    catalog: Arc<Catalog>,
    log_dir: LogDirectory,
    log_index: Arc<LogIndex>,
    projections: Projections,
}

impl Router {
    pub(crate) fn new(
        feed: Arc<Feed>,
        catalog: Arc<Catalog>,
        log_dir: LogDirectory,
        log_index: Arc<LogIndex>,
    ) -> Self {
        let routes = Routes {
            change_rows: ChangeRows::new(&catalog, None),
            position: feed.published(),
            partitions: HashMap::default(),
            subscribers: HashMap::default(),
            listeners: HashMap::default(),
        };
        Self {
            routes: Mutex::new(routes),
            feed,
            catalog,
            log_dir,
            log_index,
            projections: Projections::default(),
        }
    }

    pub(crate) const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(crate) const fn projections(&self) -> &Projections {
        &self.projections
    }

    /// Where the log is.
    pub(crate) const fn log_directory(&self) -> &LogDirectory {
        &self.log_dir
    }

    /// A reader of the log's files.
    pub(crate) fn log_reader(&self) -> LogReader {
        LogReader::with_index(&self.log_dir, Arc::clone(&self.log_index))
    }

    /// What makes rows of `system.changes`, for one who may wait for the log's files.
    pub(crate) fn change_rows(&self) -> ChangeRows {
        ChangeRows::new(&self.catalog, Some(&self.log_dir))
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out commits until there will be no more.
    pub(crate) fn run(&self) {
        while self.feed.wait_awaited() {
            let position = self.routes().position;
            if !self.hand_out_all(position, self.feed.wait_after(position)) {
                break;
            }
        }
        let mut routes = self.routes();
        routes.partitions.clear();
        for (id, subscriber) in routes.subscribers.drain() {
            subscriber.sink.ended(id, Error::ShuttingDown);
        }
    }

    /// Whether everything up to a seq has been handed out to those who are live.
    #[cfg(test)]
    pub(crate) fn is_at(&self, seq: Seq) -> bool {
        let routes = self.routes();
        routes.subscribers.is_empty() || routes.position >= seq
    }

    /// Hands out what is there, without waiting for more.
    #[cfg(test)]
    pub(crate) fn turn(&self) {
        let position = self.routes().position;
        self.hand_out_all(position, self.feed.after(position));
    }

    /// Hands out what came after `position`; false where there is no going on.
    fn hand_out_all(&self, position: Seq, after: After) -> bool {
        match after {
            After::Frames(frames) => frames.iter().for_each(|frame| self.hand_out(frame)),
            After::TooFarBack => {
                if let Err(error) = self.hand_out_from_log(position) {
                    tracing::error!(%error, "live queries cannot read the log: they end");
                    return false;
                }
            }
            After::Closed => return false,
        }
        true
    }

    /// The router itself fell behind the feed: it reads the log like any slow reader.
    fn hand_out_from_log(&self, after: Seq) -> Result<()> {
        metrics::counter!("kalamdb_live_router_behind_total").increment(1);
        let until = self.feed.published();
        let mut reader = self.log_reader();
        reader.seek(after)?;
        while let Some(frame) = reader.next()? {
            if frame.last_seq() > until {
                break;
            }
            self.hand_out(&frame);
        }
        Ok(())
    }

    /// Gives one commit to everyone it concerns.
    fn hand_out(&self, frame: &Frame) {
        let mut routes = self.routes();
        if let Err(error) = routes.hand_out(frame) {
            let is_newer = matches!(error, Error::Conflict { .. });
            debug_assert!(!is_newer, "{} has rows that are newer than a live query", frame.first_seq());
            // Nobody may miss it: all read the log themselves, and are told what is wrong when they come to it.
            tracing::error!(%error, seq = %frame.first_seq(), "a commit cannot be handed out");
            routes.set_aside_where(frame, |_| true);
        }
        if routes.subscribers.is_empty() {
            self.feed.set_awaited(false);
        }
        routes.position = routes.position.max(frame.last_seq());
    }

    /// Whether the table was altered since the query was compiled: then it is to be compiled anew.
    pub(crate) fn is_outdated(&self, query: &LiveQuery) -> bool {
        !self.catalog.is_newest(&query.info)
    }

    /// Makes a subscriber live if it has seen everything that was handed out.
    pub(crate) fn attach(&self, subscriber: &Arc<Subscriber>) -> bool {
        let mut routes = self.routes();
        let cursor = subscriber.position().cursor;
        if routes.subscribers.is_empty() && routes.position <= cursor {
            // Commits that concerned nobody were not handed out: begin where this one stands, unless that is far back, or its
            // snapshot has what is yet to be published, which others must not wait for.
            let published = self.feed.published();
            let is_far_back = published.get().saturating_sub(cursor.get()) > ATTACH_EVENTS_MAX;
            routes.position = if is_far_back { published } else { cursor.min(published) };
        }
        if cursor < routes.position {
            return false;
        }
        let partition = routes.partitions.entry(subscriber.query.partition.clone()).or_default();
        partition.slot(&subscriber.query).insert(subscriber.id);
        if subscriber.notify_flush {
            partition.of_flushes.insert(subscriber.id);
        }
        if subscriber.notify_evicted {
            partition.of_evictions.insert(subscriber.id);
        }
        routes.subscribers.insert(subscriber.id, Arc::clone(subscriber));
        self.feed.set_awaited(true);
        subscriber.progress.enter(LiveState::Live, clock::now_micros());
        metrics::gauge!("kalamdb_live_subscribers").set(small(routes.subscribers.len()));
        true
    }

    /// Whether somebody gets the changes of a partition, or will once caught up.
    pub(crate) fn listens(&self, partition: &Partition) -> bool {
        self.routes().listeners.contains_key(partition)
    }

    /// Counts a subscriber of a partition, live or not.
    pub(crate) fn join(&self, partition: &Partition) {
        *self.routes().listeners.entry(partition.clone()).or_default() += 1;
    }

    /// Takes a subscriber out for good.
    pub(crate) fn leave(&self, id: SubscriptionId, partition: &Partition) {
        self.detach(id);
        let mut routes = self.routes();
        if let Some(count) = routes.listeners.get_mut(partition) {
            *count -= 1;
            if *count == 0 {
                routes.listeners.remove(partition);
            }
        }
    }

    /// Takes a subscriber out, if it is live.
    pub(crate) fn detach(&self, id: SubscriptionId) {
        let mut routes = self.routes();
        routes.remove(id);
        if routes.subscribers.is_empty() {
            self.feed.set_awaited(false);
        }
        metrics::gauge!("kalamdb_live_subscribers").set(small(routes.subscribers.len()));
    }
}

impl PartitionRoutes {
    fn slot(&mut self, query: &LiveQuery) -> &mut Ids<SubscriptionId> {
        let Some(Route { column, value }) = &query.route else { return &mut self.unrouted };
        let of_column = self.by_column.entry((query.info.version(), *column));
        let routes = of_column
            .or_insert_with(|| ColumnRoutes { info: Arc::clone(&query.info), by_value: HashMap::new() });
        routes.by_value.entry(Arc::clone(value)).or_default()
    }

    fn remove(&mut self, query: &LiveQuery, id: SubscriptionId) {
        self.of_flushes.remove(id);
        self.of_evictions.remove(id);
        let slot = self.slot(query);
        slot.remove(id);
        let was_last = slot.is_empty();
        let Some(Route { column, value }) = query.route.as_ref().filter(|_| was_last) else { return };
        let of_column = (query.info.version(), *column);
        if let Some(routes) = self.by_column.get_mut(&of_column) {
            routes.by_value.remove(value);
            if routes.by_value.is_empty() {
                self.by_column.remove(&of_column);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.unrouted.is_empty() && self.by_column.is_empty()
    }

    /// Everyone whom these changes may concern.
    fn candidates(&self, changes: &PartitionChanges<'_>) -> Result<Vec<SubscriptionId>> {
        let mut found = self.unrouted.as_slice().to_vec();
        for ((_, column), routes) in &self.by_column {
            let values = changes.rows().map(|row| key_of_cell(&routes.info, row, *column));
            // Each once: many rows may have the value that many ask for.
            let values = values.filter_map(Result::transpose).collect::<Result<HashSet<_>>>()?;
            let ids = values.iter().filter_map(|value| routes.by_value.get(value.as_slice()));
            found.extend(ids.flat_map(Ids::as_slice));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// The value a row has in a column, as a key; none for NULL.
fn key_of_cell(info: &TableInfo, row: &[u8], column: usize) -> Result<Option<Vec<u8>>> {
    let mut key = KeyBuilder::new();
    Ok(key.push(&info.value_in(row, column)?).is_ok().then(|| key.finish()))
}

impl Routes {
    fn remove(&mut self, id: SubscriptionId) -> Option<Arc<Subscriber>> {
        let subscriber = self.subscribers.remove(&id)?;
        if let Some(partition) = self.partitions.get_mut(&subscriber.query.partition) {
            partition.remove(&subscriber.query, id);
            if partition.is_empty() {
                self.partitions.remove(&subscriber.query.partition);
            }
        }
        Some(subscriber)
    }

    fn hand_out(&mut self, frame: &Frame) -> Result<()> {
        if self.subscribers.is_empty() {
            return Ok(());
        }
        for (seq, event) in frame.events() {
            match event? {
                Event::Flushed(event) => self.tell_of_flush(event, seq),
                Event::StreamEvicted(event) => {
                    // Which rows went, the log knows: who wants to be told reads it.
                    let partition = event.partition.to_partition();
                    let listening = self.partitions.get(&partition);
                    if listening.is_some_and(|routes| !routes.of_evictions.is_empty()) {
                        self.set_aside_where(frame, |it| {
                            it.notify_evicted && it.query.partition == partition
                        });
                    }
                }
                Event::TableDropped(event) => self.end_all_of(event.table.to_id(), frame)?,
                Event::TableTruncated(event) => self.end_all_of(event.table.to_id(), frame)?,
                Event::TableAltered(table) => {
                    // Those who watch it have their queries compiled anew.
                    let table = table.id.to_id();
                    self.set_aside_where(frame, |it| it.query.partition.table == table);
                }
                _ => {}
            }
        }
        for (partition, changes) in changes_by_partition(frame, |it| self.partitions.contains_key(it))? {
            self.hand_out_to(&partition, &changes, frame)?;
        }
        self.hand_out_log(frame)
    }

    fn tell_of_flush(&self, event: &ArchivedFlushed, seq: Seq) {
        let Some(routes) = self.partitions.get(&event.partition.to_partition()) else { return };
        for subscriber in routes.of_flushes.as_slice().iter().filter_map(|id| self.subscribers.get(id)) {
            let file = event.file.as_ref();
            let rows = file.map_or(0, |file| file.rows.to_native());
            let file = file.map(|file| file.path.as_str().to_owned());
            subscriber.sink.flushed(subscriber.id, FlushNotice { rows, file, seq });
        }
    }

    /// Gives a commit to those who listen to the log itself.
    fn hand_out_log(&mut self, frame: &Frame) -> Result<()> {
        let partition = changes_partition();
        if !self.partitions.contains_key(&partition) {
            return Ok(());
        }
        let Some(rows) = self.change_rows.of_commit(frame, Seq::ZERO)? else {
            // A table was dropped before its rows came by: the log knows its name, and is not read under the lock.
            self.set_aside_where(frame, |it| it.query.partition == partition);
            return Ok(());
        };
        let changes = PartitionChanges::of_rows(frame.header().fields.commit_time, &rows);
        self.hand_out_to(&partition, &changes, frame)
    }

    fn hand_out_to(
        &mut self,
        partition: &Partition,
        changes: &PartitionChanges<'_>,
        frame: &Frame,
    ) -> Result<()> {
        let Some(routes) = self.partitions.get(partition) else { return Ok(()) };
        // By schema version: each query sees the rows as the table was when it was compiled.
        let mut batches: HashMap<SchemaVersion, ChangeBatches> = HashMap::new();
        for id in routes.candidates(changes)? {
            let Some(subscriber) = self.subscribers.get(&id) else { continue };
            let info = Arc::clone(&subscriber.query.info);
            match batches.entry(info.version()) {
                Entry::Occupied(mut made) => self.give(id, frame, made.get_mut()),
                Entry::Vacant(place) => {
                    let made = place.insert(ChangeBatches::new(&info, changes)?);
                    self.give(id, frame, made);
                }
            }
        }
        Ok(())
    }

    fn give(&mut self, id: SubscriptionId, frame: &Frame, batches: &mut ChangeBatches) {
        let Some(subscriber) = self.subscribers.get(&id) else { return };
        let mut position = subscriber.position();
        if frame.last_seq() <= position.cursor {
            return;
        }
        if frame.first_seq() <= position.cursor {
            // It resumed in the middle of this commit: only the log's reader takes a commit apart.
            drop(position);
            self.set_aside(id);
            return;
        }
        let mut result = subscriber.result.as_ref().map(LiveResult::locked);
        let made = match (&mut result, &subscriber.query.result) {
            (Some(result), Some(plan)) => {
                result.go_on(&subscriber.query, plan, batches, (position.prev_seq, JUDGED_MAX)).transpose()
            }
            _ => Some(batches.frames(&subscriber.query, position.prev_seq, JUDGED_MAX)),
        };
        let before = frame.first_seq().previous();
        let Some(Ok(frames)) = made else {
            // Its expressions fail on some of many rows, which it sorts out when it comes to them; or its result is to be made anew.
            position.cursor = before;
            drop((position, result));
            self.set_aside(id);
            return;
        };
        let last_seq = frames.last().map(|last| last.payload.seq);
        let Some(last_seq) = last_seq else {
            if result.is_some() {
                position.cursor = frame.last_seq();
            }
            return;
        };
        let prev_seq = chain_end(&frames).unwrap_or(position.prev_seq);
        let kept = result.is_some().then(|| frames.clone());
        // Before it is there: who passes it on may be quicker than this thread.
        subscriber.progress.give(last_seq);
        let has_room = subscriber.sink.deliver(id, frames);
        if has_room || result.is_some() {
            *position = Position { cursor: frame.last_seq(), prev_seq };
        } else {
            // All before this commit has been given to it: whatever it missed since was none of its own.
            position.cursor = before;
        }
        if has_room {
            return;
        }
        if let (Some(result), Some(frames)) = (&mut result, kept) {
            // The result has gone on already.
            result.put_back(frames);
        }
        drop((position, result));
        metrics::counter!("kalamdb_live_lagging_total").increment(1);
        self.set_aside(id);
    }

    /// From here on the subscriber reads the log, until it has caught up.
    fn set_aside(&mut self, id: SubscriptionId) {
        if let Some(subscriber) = self.remove(id) {
            subscriber.progress.enter(LiveState::CatchingUp, clock::now_micros());
            subscriber.sink.lagging(id);
        }
    }

    /// These subscribers read on by themselves from before this commit: what came earlier they have been given, or it was none of
    /// theirs.
    fn set_aside_where(&mut self, frame: &Frame, is_meant: impl Fn(&Subscriber) -> bool) {
        for id in self.ids_where(is_meant) {
            if let Some(subscriber) = self.subscribers.get(&id) {
                let mut position = subscriber.position();
                position.cursor = position.cursor.max(frame.first_seq().previous());
            }
            self.set_aside(id);
        }
    }

    fn ids_where(&self, is_meant: impl Fn(&Subscriber) -> bool) -> Vec<SubscriptionId> {
        let meant = self.subscribers.values().filter(|subscriber| is_meant(subscriber));
        meant.map(|subscriber| subscriber.id).collect()
    }

    /// A table went, or its rows did without being told one by one.
    fn end_all_of(&mut self, table: TableId, frame: &Frame) -> Result<()> {
        let ids = self.ids_where(|it| it.query.partition.table == table);
        tracing::debug!(%table, seq = %frame.first_seq(), subscribers = ids.len(), "a table that is listened to went");
        for id in ids {
            let Some(subscriber) = self.subscribers.get(&id) else { continue };
            let cursor = subscriber.position().cursor;
            if let Some(error) = ends_with(frame, table, cursor)?
                && let Some(subscriber) = self.remove(id)
            {
                subscriber.sink.ended(id, error);
            }
        }
        Ok(())
    }
}

fn small(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
