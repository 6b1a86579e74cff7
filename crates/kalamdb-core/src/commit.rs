//! The write path. Every change of the database goes through [`Sequencer::commit_run`], and through nothing else.
//!
//! One thread owns the log's writer and both projections' write side. It drains a bounded queue, so that writers who wait at
//! the same time share one append and one sync. After a failed write, sync or apply it commits nothing more: the log then
//! holds exactly what was acknowledged, and a restart replays it. Where the disk is full nothing of a group is written, and
//! it goes on once there is space.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ahash::RandomState;
use kalamdb_log::{CommitReceiver, Durability, Group, LogWriter};
use kalamdb_sql::SystemTables;
use kalamdb_store::Store;
use log_format::{ChangeEvent, EncodedEvent, Frame, Partition, Seq};

use crate::catalog::Catalog;
use crate::clock;
use crate::error::{Error, Result};
use crate::fail_points::{FailPoint, FailPoints};
use crate::health::Health;
use crate::high_keys::HighKeys;
use crate::jobs::JobBell;
use crate::live::Feed;
use crate::places::Places;
use crate::reply::Reply;
use crate::requests::{
    CatalogPlan, Change, Commits, Committed, Expected, Planning, Request, RowCommit, RowWrite,
};

/// How often a full disk is asked for space again while nobody writes.
const SPACE_RETRY: Duration = Duration::from_millis(250);

/// Requests that one group takes at the most.
const GROUP_REQUESTS_MAX: usize = 512;

/// A row that the commits before in this run write.
struct Pending {
    seq: Seq,
    deleted: bool,
}

/// A commit that is in the log's buffer and waits to be acknowledged.
struct Staged {
    committed: Committed,
    reply: Reply,
    /// The catalog's events, to apply to the catalog in memory.
    catalog: Vec<ChangeEvent>,
}

/// The one who writes.
pub(crate) struct Sequencer {
    log: LogWriter,
    store: Arc<Store>,
    places: Places,
    system: Arc<SystemTables>,
    catalog: Arc<Catalog>,
    feed: Arc<Feed>,
    health: Arc<Health>,
    jobs: Arc<JobBell>,
    queue: CommitReceiver<Request>,
    /// Bytes of log whose effect may be in memory only.
    unflushed_bytes: u64,
    unflushed_bytes_max: u64,
    flush_asked: Arc<AtomicBool>,
    /// The last commit, which the system tables may not have been told of.
    last: Option<Frame>,
    pending: HashMap<(Arc<Partition>, Vec<u8>), Pending, RandomState>,
    high_keys: HighKeys,
    fail_points: FailPoints,
}

/// What the sequencer works on.
#[derive(Clone)]
pub(crate) struct Projections {
    pub(crate) store: Arc<Store>,
    pub(crate) system: Arc<SystemTables>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) health: Arc<Health>,
    pub(crate) jobs: Arc<JobBell>,
    pub(crate) places: Places,
}

impl Sequencer {
    /// The sequencer and the way to it.
    pub(crate) fn new(
        log: LogWriter,
        on: Projections,
        unflushed_bytes_max: u64,
        fail_points: FailPoints,
    ) -> (Self, Commits) {
        let (commits, queue) = Commits::new();
        let sequencer = Self {
            log,
            store: on.store,
            places: on.places,
            system: on.system,
            catalog: on.catalog,
            feed: on.feed,
            health: on.health,
            jobs: on.jobs,
            queue,
            unflushed_bytes: 0,
            unflushed_bytes_max,
            flush_asked: commits.flush_asked(),
            last: None,
            pending: HashMap::default(),
            high_keys: HighKeys::default(),
            fail_points,
        };
        (sequencer, commits)
    }

    /// Commits until nobody can hand in commits any more, then closes the log. Where it dies over a commit, those who wait
    /// and those who come after are told so.
    pub(crate) fn run(mut self) {
        let (queue, health) = (self.queue.clone(), Arc::clone(&self.health));
        let committing = AssertUnwindSafe(move || {
            while self.turn(None) {}
            self.finish();
        });
        let Err(panic) = catch_unwind(committing) else { return };
        health.fail(&Error::panicked(panic.as_ref()));
        loop {
            match queue.next_group(GROUP_REQUESTS_MAX, None) {
                Group::Requests(requests) => {
                    let reason = health.failure().unwrap_or_default();
                    for request in requests {
                        request.reply.send(Err(Error::ReadOnly { reason: reason.clone() }));
                    }
                }
                Group::Idle => {}
                Group::Closed => return,
            }
        }
    }

    /// Commits what waits, or what comes first within the time; syncs when it is due. False once nothing can come.
    pub(crate) fn turn(&mut self, wait_max: Option<Duration>) -> bool {
        let due = self.log.sync_due_in(clock::instant());
        let retry = self.log.is_full().then_some(SPACE_RETRY);
        match self.queue.next_group(GROUP_REQUESTS_MAX, due.into_iter().chain(retry).chain(wait_max).min()) {
            Group::Requests(requests) => self.commit_group(requests),
            Group::Idle => {
                self.sync_if_due();
                self.take_up_again();
            }
            Group::Closed => return false,
        }
        true
    }

    /// Closes the log, with everything in the projections' files.
    pub(crate) fn finish(mut self) {
        self.feed.close();
        if self.health.failure().is_none() {
            let closed = self.flush_projections(true).and_then(|()| Ok(self.log.close()?));
            if let Err(error) = closed {
                tracing::error!(%error, "the log could not be closed; the next start replays it");
            }
        }
    }

    /// The last seq that is known to be durable.
    #[cfg(test)]
    pub(crate) const fn durable(&self) -> Seq {
        self.log.durable()
    }

    fn sync_if_due(&mut self) {
        if let Err(error) = self.log.sync_if_due(clock::instant()) {
            self.health.fail(&error.into());
        }
    }

    /// Commits a group in runs: what is no change of rows stands alone, since what follows may rely on it.
    fn commit_group(&mut self, requests: Vec<Request>) {
        metrics::histogram!("kalamdb_commit_group_requests").record(small(requests.len()));
        let mut run = Vec::with_capacity(requests.len());
        for request in requests {
            if matches!(request.change, Change::Rows(_)) {
                run.push(request);
            } else {
                self.commit_run(std::mem::take(&mut run));
                self.commit_run(vec![request]);
            }
        }
        self.commit_run(run);
        self.sync_if_due();
    }

    /// The write path, top to bottom.
    fn commit_run(&mut self, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        self.take_up_again();
        if let Some(reason) = self.health.failure() {
            for request in requests {
                request.reply.send(Err(Error::ReadOnly { reason: reason.clone() }));
            }
            return;
        }
        self.high_keys.begin_run();
        let is_synced = self.must_sync(&requests);
        // Validate, assign seqs, encode. Streams come first: they do not wait for the disk.
        let (streams, others): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.change.is_ephemeral());
        let streams = self.stage_all(streams);
        let others = self.stage_all(others);
        self.pending.clear();
        let first_durable = streams.len();
        let mut staged = streams;
        staged.extend(others);

        // Append.
        self.fail_points.reach(FailPoint::BeforeAppend);
        let frames = match self.log.write() {
            Ok(frames) => frames,
            Err(error) => return self.fail(&error.into(), staged),
        };
        self.fail_points.reach(FailPoint::AfterAppend);
        let (ephemeral, durable) = frames.split_at(first_durable.min(frames.len()));
        let waiting = staged.split_off(first_durable.min(staged.len()));
        if let Err(error) = self.apply_and_publish(ephemeral, &staged) {
            staged.extend(waiting);
            return self.fail(&error, staged);
        }
        acknowledge(staged);
        if durable.is_empty() {
            return;
        }

        // Sync by policy, apply, publish, acknowledge.
        if is_synced && let Err(error) = self.log.sync() {
            return self.fail(&error.into(), waiting);
        }
        self.fail_points.reach(FailPoint::AfterSync);
        if let Err(error) = self.apply_and_publish(durable, &waiting) {
            return self.fail(&error, waiting);
        }
        acknowledge(waiting);

        if let Err(error) = self.flush_if_due() {
            self.fail(&error, Vec::new());
        }
    }

    /// Whether a run is to be durable before anybody hears of it. Seqs that were left out are, whatever the durability: they
    /// would be given out again after a power loss.
    fn must_sync(&self, requests: &[Request]) -> bool {
        let skips = |request: &Request| matches!(request.change, Change::SkipPast(_));
        self.log.durability() == Durability::Always || requests.iter().any(skips)
    }

    /// Checks each commit against everything before it and puts those that hold into the log's buffer. The others are
    /// answered here.
    fn stage_all(&mut self, requests: Vec<Request>) -> Vec<Staged> {
        let mut staged = Vec::with_capacity(requests.len());
        for Request { change, reply } in requests {
            match self.stage(change) {
                Ok((committed, catalog)) => staged.push(Staged { committed, reply, catalog }),
                Err(error) => reply.send(Err(error)),
            }
        }
        staged
    }

    fn stage(&mut self, change: Change) -> Result<(Committed, Vec<ChangeEvent>)> {
        match change {
            Change::Rows(rows) => Ok((self.stage_rows(rows)?, Vec::new())),
            Change::Catalog(plan) => self.stage_catalog(plan),
            Change::SkipPast(seq) => {
                let header = self.log.stage_epoch(seq, clock::now_micros())?;
                Ok((committed(&header), Vec::new()))
            }
        }
    }

    fn stage_catalog(&mut self, plan: CatalogPlan) -> Result<(Committed, Vec<ChangeEvent>)> {
        let now = clock::now_micros();
        let next_seq = self.log.next_seq();
        let Self { catalog, system, store, .. } = self;
        let events = plan(&Planning { catalog, system, store, next_seq, now })?;
        let encoded: Vec<EncodedEvent> = events.iter().map(ChangeEvent::encode).collect::<Result<_, _>>()?;
        let header = self.log.stage(&encoded, now)?;
        Ok((committed(&header), events))
    }

    fn stage_rows(&mut self, rows: RowCommit) -> Result<Committed> {
        let now = clock::now_micros();
        self.check(&rows)?;
        let header = self.log.stage(&rows.events, now)?;
        for (index, write) in rows.writes.into_iter().enumerate() {
            let seq = header.fields.first_seq.plus(index as u64);
            self.pending.insert((write.partition, write.key), Pending { seq, deleted: write.deletes });
        }
        Ok(committed(&header))
    }

    /// Whether everything the commit relies on still holds.
    fn check(&mut self, rows: &RowCommit) -> Result<()> {
        for (table, version) in &rows.tables {
            let info = self.catalog.by_id(*table).ok_or(Error::TableDropped)?;
            if info.version() != *version {
                return Err(Error::Conflict { attempts: 1 });
            }
        }
        let mut seen = HashSet::with_hasher(RandomState::new());
        for write in &rows.writes {
            let keyspace = write.keyspace();
            let twice = rows.writes.len() > 1 && !seen.insert((&write.partition, &write.key));
            if write.expected == Expected::Absent
                && self.high_keys.is_above(&self.store, keyspace, &write.partition, &write.key)?
            {
                continue;
            }
            let found = match self.pending_row(write) {
                Some(pending) => Some((pending.seq, pending.deleted)),
                None => self.store.head(keyspace, &write.partition, &write.key)?,
            };
            if found.is_none() && !twice && self.was_looked_for(write, rows.cold_as_of)? {
                continue;
            }
            match (write.expected, found) {
                (Expected::Absent, None | Some((_, true))) if !twice => {}
                (Expected::Absent, _) => {
                    let info = self.catalog.by_id(write.partition.table).ok_or(Error::TableDropped)?;
                    return Err(info.duplicate_key(&write.key));
                }
                (Expected::WrittenBy(seq), Some((found, false))) if seq == found && !twice => {}
                (Expected::WrittenBy(_), _) => return Err(Error::Conflict { attempts: 1 }),
            }
        }
        Ok(())
    }

    /// Whether the one who writes has looked for a row that the hot tier does not have: in the cold tier, which is still as it
    /// was then.
    fn was_looked_for(&self, write: &RowWrite, as_of: Seq) -> Result<bool> {
        match self.store.flushed_at(&write.partition)? {
            None => Ok(false),
            Some(flushed_at) if flushed_at <= as_of => Ok(true),
            Some(_) => Err(Error::Conflict { attempts: 1 }),
        }
    }

    fn pending_row(&self, write: &RowWrite) -> Option<&Pending> {
        if self.pending.is_empty() {
            return None;
        }
        self.pending.get(&(Arc::clone(&write.partition), write.key.clone()))
    }

    /// From here on the commits can be read, and are on their way to those who listen.
    fn apply_and_publish(&mut self, frames: &[Frame], staged: &[Staged]) -> Result<()> {
        let Some(last) = frames.last() else { return Ok(()) };
        // IMPORTANT: the catalog comes first, in memory before all. Who takes a cut of the rows that has the commit then finds the
        // table altered or gone: no live query begins on what it does not know of.
        let changes_catalog = |staged: &&Staged| !staged.catalog.is_empty();
        for commit in staged.iter().filter(changes_catalog) {
            self.catalog.apply(&commit.catalog)?;
            self.places.apply(&commit.catalog);
        }
        if staged.iter().any(|staged| changes_catalog(&staged)) {
            self.system.apply(frames)?;
            self.fail_points.reach(FailPoint::AfterApplyingCatalog);
        }
        self.store.apply(frames)?;
        self.fail_points.reach(FailPoint::AfterApplyingRows);
        self.last = Some(last.clone());
        self.unflushed_bytes += frames.iter().map(|frame| frame.as_bytes().len() as u64).sum::<u64>();
        let events: usize = frames.iter().map(Frame::count).sum();
        metrics::counter!("kalamdb_commits_total").increment(frames.len() as u64);
        metrics::counter!("kalamdb_events_total").increment(events as u64);
        self.fail_points.reach(FailPoint::BeforePublish);
        self.feed.publish(frames);
        self.fail_points.reach(FailPoint::AfterPublish);
        let mut events = staged.iter().flat_map(|commit| &commit.catalog);
        if events.any(|event| matches!(event, ChangeEvent::JobCreated(_))) {
            self.jobs.ring();
        }
        Ok(())
    }

    /// Bounds what a restart has to replay.
    fn flush_if_due(&mut self) -> Result<()> {
        let is_asked = self.flush_asked.swap(false, Ordering::AcqRel);
        if self.unflushed_bytes < self.unflushed_bytes_max && !is_asked {
            return Ok(());
        }
        self.flush_projections(false)
    }

    /// IMPORTANT: the log is synced before the projections are flushed, and this thread is the only one that writes
    /// either, so what reaches the projections' files is never ahead of the log.
    fn flush_projections(&mut self, wait: bool) -> Result<()> {
        self.log.sync()?;
        self.fail_points.reach(FailPoint::BeforeFlush);
        if let Some(last) = self.last.take() {
            self.system.apply(std::slice::from_ref(&last))?;
        }
        self.store.flush(wait)?;
        self.fail_points.reach(FailPoint::BetweenFlushes);
        self.system.flush(wait)?;
        self.fail_points.reach(FailPoint::AfterFlush);
        self.unflushed_bytes = 0;
        metrics::counter!("kalamdb_projection_flushes_total").increment(1);
        Ok(())
    }

    /// Nothing of what is staged is written, or nobody can tell; nothing more is.
    fn fail(&self, error: &Error, staged: Vec<Staged>) {
        if self.log.is_full() {
            self.health.wait_for_space(error);
        } else {
            self.health.fail(error);
        }
        let reason = self.health.failure().unwrap_or_default();
        for staged in staged {
            staged.reply.send(Err(Error::ReadOnly { reason: reason.clone() }));
        }
    }

    /// Goes on where the disk was full and no longer is: nothing was lost meanwhile.
    fn take_up_again(&mut self) {
        if !self.log.is_full() {
            return;
        }
        match self.log.try_recover() {
            Ok(()) => self.health.go_on(),
            Err(_) if self.log.is_full() => {}
            Err(error) => self.health.fail(&error.into()),
        }
    }
}

const fn committed(header: &log_format::FrameHeader) -> Committed {
    Committed {
        first_seq: header.fields.first_seq,
        last_seq: header.last_seq(),
        commit_time: header.fields.commit_time,
    }
}

fn acknowledge(staged: Vec<Staged>) {
    for staged in staged {
        staged.reply.send(Ok(staged.committed));
    }
}

fn small(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
