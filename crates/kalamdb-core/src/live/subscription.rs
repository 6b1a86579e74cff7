//! One subscriber's way: snapshot, then the log from there, then live.

mod beginning;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures_util::FutureExt;
use kalamdb_log::LogReader;
use kalamdb_sql::{LiveProgress, LiveQueries, LiveState};
use log_format::{DataType, Frame, PartitionHash, SchemaVersion, Seq};

use serde_json::Value as Json;

use crate::changes::{CHANGES, ChangeRows};
use crate::clock;
use crate::engine::WeakEngine;
use crate::error::{Error, Result};
use crate::live::change::{
    ChangeBatches, ChangeFrame, PartitionChanges, as_one, chain_end, changes_by_partition, ends_with,
};
use crate::live::endings::Endings;
use crate::live::evictions::{Evictions, Told};
use crate::live::failure::RowFailure;
use crate::live::feed::After;
use crate::live::query::LiveQuery;
use crate::live::result::{LiveResult, Moment, make};
use crate::live::router::{Position, Router, Subscriber};
use crate::live::sink::SubscriptionId;
use crate::session::Session;
use crate::sql::{LivePlan, live_plan};
use crate::table::sql_type;

pub(crate) use beginning::subscribe;

/// About how many bytes of commits are read at a time.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// The same of who is told what came of them together.
const COALESCED_BYTES: usize = 4 << 20;
/// About how many bytes of frames [`Subscription::catch_up`] gives at a time.
const FRAMES_BYTES: usize = 1 << 20;

/// What to do when changes since the asked seq are no longer in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// Refuse with `RESYNC_REQUIRED`.
    #[default]
    Error,
    /// Begin with a snapshot.
    Snapshot,
}

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct SubscribeRequest {
    /// The connection.
    pub connection_id: Arc<str>,
    /// The client's name for it.
    pub query_id: Arc<str>,
    /// `SELECT …` or `SUBSCRIBE TO SELECT …`.
    pub sql: String,
    /// The values of `$1`, `$2`, …
    pub params: Arc<[Json]>,
    /// Only that many of the newest rows in the snapshot.
    pub last_rows: Option<u32>,
    /// No snapshot: what came after this seq.
    pub from: Option<Seq>,
    /// What to do when that is not possible.
    pub on_gap: OnGap,
    /// Whether it may be told less: of rows that changed more than once while it was behind, what came of it.
    pub coalesce: bool,
    /// Whether to be told when rows move to the cold tier ([`crate::Sink::flushed`]).
    pub notify_flush: bool,
    /// Whether rows of a STREAM table that go by themselves, after their time or beyond its buffer, come as deletes.
    pub notify_evicted: bool,
    /// What the client asked for, as JSON, for `system.live_queries`.
    pub options_json: Option<Box<str>>,
}

/// The rows that match at one seq.
pub struct Snapshot {
    /// Every commit up to here is in it, none after.
    pub seq: Seq,
    /// How many rows it has.
    pub total_rows: u64,
    /// The rows, read as they are pulled; what is selected, and `_seq`.
    pub stream: SendableRecordBatchStream,
    /// Whether the rows are a result, which a client has as a whole or not at all: it cannot resume from some of them.
    pub is_result: bool,
    /// The rows that are left out because the query fails for them, to be told after the last row.
    pub failure: Option<RowFailure>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("seq", &self.seq)
            .field("rows", &self.total_rows)
            .finish_non_exhaustive()
    }
}

/// What rows have from here on: the table was altered, and what is selected is not what it was.
#[derive(Clone, Debug)]
pub struct SchemaFrame {
    /// The columns; `_seq` is among them.
    pub schema: SchemaRef,
    /// The table's schema version.
    pub version: SchemaVersion,
    /// The seq of the change before it on this subscription. It has none of its own: it is no part of the chain.
    pub prev_seq: Seq,
}

/// What [`Subscription::catch_up`] found.
#[derive(Debug)]
pub struct CaughtUp {
    /// To be told before the frames.
    pub schema: Option<SchemaFrame>,
    /// Frames to send before anything that is delivered live.
    pub frames: Vec<ChangeFrame>,
    /// Whether the sink gets frames from here on. If not, call again.
    pub live: bool,
    /// Whether its result is to be made anew first: call [`Subscription::make_anew`].
    pub to_make: bool,
}

/// A subscription. Dropping it ends it.
pub struct Subscription {
    router: Arc<Router>,
    endings: Arc<Endings>,
    live_queries: Arc<LiveQueries>,
    subscriber: Arc<Subscriber>,
    live_id: Arc<str>,
    /// What it is compiled from, once more whenever the table is altered.
    source: Source,
    start_seq: Seq,
    snapshot: Option<Box<Snapshot>>,
    /// Where it reads the log's files, once it is further back than the feed reaches.
    reader: Option<Box<LogReader>>,
    /// Commits read and not yet matched.
    unread: VecDeque<Frame>,
    /// What makes rows of the log's events, if it listens to those.
    change_rows: Option<Box<ChangeRows>>,
    /// Whether what it missed of a row comes as one change.
    coalesce: bool,
    /// What it was told of rows that went by themselves, if it is told.
    evictions: Option<Box<Evictions>>,
}

/// A query as it was asked.
struct Source {
    /// Weak: a subscription that is kept for longer must not keep the database open.
    engine: WeakEngine,
    session: Session,
    sql: Arc<str>,
    params: Arc<[Json]>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("live_id", &self.live_id).finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.router.leave(self.subscriber.id, &self.subscriber.query.partition);
        self.live_queries.delete_live_query(&self.live_id, &self.subscriber.progress);
        self.endings.forget(self.subscriber.id);
    }
}

impl Subscription {
    /// Its id, as the sink sees it.
    pub fn id(&self) -> SubscriptionId {
        self.subscriber.id
    }

    /// What its rows have; `_seq` always.
    pub fn schema(&self) -> &SchemaRef {
        self.subscriber.query.projection.schema()
    }

    /// Where changes begin: every one after this seq comes, none before. The first frame's `prev_seq`.
    pub const fn start_seq(&self) -> Seq {
        self.start_seq
    }

    /// How far it is, as `system.live_queries` tells it.
    pub fn progress(&self) -> &Arc<LiveProgress> {
        &self.subscriber.progress
    }

    /// The rows to begin with; none where it resumes.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        self.snapshot.take().map(|snapshot| *snapshot)
    }

    /// Whether it may go on: refused where it was ended from outside.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn check(&self) -> Result<()> {
        self.endings.check(self.subscriber.id)
    }

    /// Reads on from where the subscriber stands, up to about `frames_max` frames, or fewer that are large, and makes it live
    /// when there is no more. Reads files: not for a thread that must not wait.
    ///
    /// # Errors
    /// [`Error::Ended`] where it was ended from outside, [`Error::ResyncRequired`] where the log has been deleted under it, [`Error::ShuttingDown`], or what is wrong
    /// with the log.
    pub fn catch_up(&mut self, frames_max: usize) -> Result<CaughtUp> {
        let (mut schema, mut frames) = (None, Vec::new());
        let mut bytes = 0;
        loop {
            self.check()?;
            frames.extend(self.take_undelivered());
            // Whatever is unread was published before this look, so no row of it is of a newer version than the query.
            if self.router.is_outdated(&self.subscriber.query) || self.is_unknown() {
                let to_make = self.subscriber.result.is_some();
                if to_make || !frames.is_empty() {
                    return Ok(CaughtUp { schema, frames, live: false, to_make });
                }
                // Planning looks tables up in memory: nothing in it waits for anything.
                let compiled = self.compile_anew().now_or_never();
                let waited = || Error::Inconsistent { reason: "planning had to wait".to_owned() };
                schema = compiled.ok_or_else(waited)??.or(schema);
                continue;
            }
            if self.coalesce && !self.unread.is_empty() {
                self.match_coalesced(&mut frames)?;
            }
            let before = frames.len();
            let is_underway = self.evictions.as_ref().is_some_and(|evictions| evictions.is_underway());
            let next = if is_underway { None } else { self.unread.pop_front() };
            match next {
                _ if is_underway => self.tell_of_evicted(&mut frames)?,
                Some(commit) if self.takes_several() => {
                    let found = self.match_several(commit, frames_max, &mut frames)?;
                    bytes += found.unwrap_or_default();
                    if found.is_none() || frames.len() >= frames_max || bytes >= FRAMES_BYTES {
                        return Ok(self.not_yet_live(schema, frames));
                    }
                    continue;
                }
                Some(commit) => match self.match_commit(&commit, &mut frames) {
                    Err(_) if !frames.is_empty() => {
                        self.unread.push_front(commit);
                        return Ok(self.not_yet_live(schema, frames));
                    }
                    matched => matched?,
                },
                None if self.router.attach(&self.subscriber) => {
                    (self.reader, self.unread, self.change_rows) = (None, VecDeque::new(), None);
                    // Who was ended before could not be taken out, since it was not yet in.
                    self.check().inspect_err(|_| self.router.detach(self.subscriber.id))?;
                    return Ok(CaughtUp { schema, frames, live: true, to_make: false });
                }
                None => self.read_on()?,
            }
            bytes += frames.iter().skip(before).map(ChangeFrame::bytes).sum::<usize>();
            if frames.len() >= frames_max || bytes >= FRAMES_BYTES {
                return Ok(self.not_yet_live(schema, frames));
            }
        }
    }

    fn not_yet_live(&self, schema: Option<SchemaFrame>, frames: Vec<ChangeFrame>) -> CaughtUp {
        self.subscriber.progress.reach(self.subscriber.position().cursor);
        CaughtUp { schema, frames, live: false, to_make: false }
    }

    /// Makes the result of a query that has one anew, as of now, after [`CaughtUp::to_make`]. Reads the table: it may take as long as
    /// the query does. What that changes comes with the next [`Subscription::catch_up`].
    ///
    /// # Errors
    /// As [`Subscription::catch_up`], and what the query itself fails with.
    pub async fn make_anew(&mut self) -> Result<CaughtUp> {
        self.check()?;
        let schema = self.compile_anew().await?;
        Ok(CaughtUp { schema, frames: Vec::new(), live: false, to_make: false })
    }

    /// Takes the table as it is now. Gives what rows have from here on, where that is something else.
    async fn compile_anew(&mut self) -> Result<Option<SchemaFrame>> {
        let engine = self.source.engine.upgrade().ok_or(Error::ShuttingDown)?;
        let old = &self.subscriber.query;
        if engine.catalog().by_id(old.partition.table).is_none() {
            return Err(Error::TableDropped);
        }
        let plan = live_plan(&engine, &self.source.session, &self.source.sql, &self.source.params).await?;
        let new = plan.compile(self.router.projections())?;
        let shown = |query: &LiveQuery| -> Vec<(String, DataType)> {
            let fields = query.projection.schema().fields().iter();
            fields.map(|field| (field.name().clone(), sql_type(field))).collect()
        };
        let is_other = shown(old) != shown(&new);
        self.router.detach(self.subscriber.id);
        self.make_result(&plan, &new, is_other).await?;
        let columns = new.columns.clone();
        self.live_queries.update_live_query_columns(&self.live_id, &self.subscriber.progress, columns);
        // Nobody else has the old one any more: it was detached.
        self.subscriber = Arc::new(self.subscriber.with_query(new));
        Ok(is_other.then(|| SchemaFrame {
            schema: Arc::clone(self.schema()),
            version: self.subscriber.query.info.version(),
            prev_seq: self.subscriber.position().prev_seq,
        }))
    }

    /// Makes the result of a query that has one as of the plan's cut: from there it goes on. What that changes is put among what is
    /// yet to be delivered.
    async fn make_result(&mut self, plan: &LivePlan, query: &LiveQuery, is_other: bool) -> Result<()> {
        let (Some(result), Some(result_plan)) = (&self.subscriber.result, &query.result) else {
            return Ok(());
        };
        // Nobody else moves it: the router does not have it.
        let cursor = self.subscriber.position().cursor;
        // Where rows have other columns now, a subscriber has what the new query would have shown it then.
        let from = is_other.then_some(cursor);
        let made = make(&self.router, plan, query, result_plan, (from, cursor)).await?;
        metrics::counter!("kalamdb_live_results_remade_total").increment(1);
        let mut position = self.subscriber.position();
        let (prev_seq, seq) = (position.prev_seq, plan.cut_seq);
        let mut result = LiveResult::locked(result);
        let moment = Moment { prev_seq, seq, commit_time: clock::now_micros() };
        let frames = result.replace(result_plan, made, moment)?;
        *position = Position { cursor: seq, prev_seq: chain_end(&frames).unwrap_or(prev_seq) };
        result.put_back(frames);
        Ok(())
    }

    fn is_unknown(&self) -> bool {
        self.subscriber.result.as_ref().is_some_and(|result| LiveResult::locked(result).is_unknown())
    }

    fn take_undelivered(&self) -> Vec<ChangeFrame> {
        let result = self.subscriber.result.as_ref();
        result.map(|result| LiveResult::locked(result).take_undelivered()).unwrap_or_default()
    }

    /// Fills `unread` with the commits after the cursor.
    fn read_on(&mut self) -> Result<()> {
        let cursor = self.subscriber.position().cursor;
        if self.subscriber.progress.state() == LiveState::Snapshot {
            self.subscriber.progress.enter(LiveState::CatchingUp, clock::now_micros());
        }
        let bytes_max = if self.coalesce { COALESCED_BYTES } else { READ_BYTES };
        match self.router.feed().first_after(cursor, bytes_max) {
            After::Frames(found) => {
                self.reader = None;
                self.unread.extend(found);
                Ok(())
            }
            After::Closed => Err(Error::ShuttingDown),
            After::TooFarBack => self.read_log(cursor, bytes_max),
        }
    }

    fn read_log(&mut self, cursor: Seq, bytes_max: usize) -> Result<()> {
        let published = self.router.feed().published();
        let reader = match self.reader.as_mut() {
            Some(reader) => reader,
            None => {
                let mut reader = self.router.log_reader();
                seek(&mut reader, cursor)?;
                let partition = &self.subscriber.query.partition;
                if partition.table != CHANGES {
                    // The segment that is written to is never left out, so the cursor comes to the log's end.
                    // What ends it is one of the catalog's events.
                    reader.only([PartitionHash::of(partition), PartitionHash::CATALOG]);
                }
                self.reader.insert(Box::new(reader))
            }
        };
        let mut bytes = 0;
        while bytes < bytes_max {
            match reader.next()? {
                Some(frame) if frame.last_seq() <= published => {
                    bytes += frame.as_bytes().len();
                    self.unread.push_back(frame);
                }
                // Written but not yet published: it comes through the feed.
                _ => {
                    self.reader = None;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Everything that is unread, of each row what came of it: one change, whole or not at all, since what came of one row may have
    /// begun before what came of another ended.
    fn match_coalesced(&mut self, out: &mut Vec<ChangeFrame>) -> Result<()> {
        let unread = std::mem::take(&mut self.unread);
        let Subscriber { query, progress, .. } = &*self.subscriber;
        let mut position = self.subscriber.position();
        let (mut commits, mut last) = (Vec::new(), position.cursor);
        for commit in unread.iter().filter(|commit| commit.last_seq() > position.cursor) {
            if let Some(error) = ends_with(commit, query.partition.table, position.cursor)? {
                return Err(error);
            }
            let found = changes_by_partition(commit, |partition| *partition == query.partition)?;
            commits.extend(found.into_iter().map(|(_, changes)| changes.after(position.cursor)));
            last = commit.last_seq();
        }
        let changes = PartitionChanges::coalesced(commits);
        let mut batches = ChangeBatches::new(&query.info, &changes)?;
        let mut frames = batches.frames(query, position.prev_seq, usize::MAX)?;
        as_one(&mut frames, position.prev_seq)?;
        give(&frames, &mut position, progress);
        position.cursor = last;
        out.extend(frames);
        Ok(())
    }

    /// Some more of the rows that went with the eviction that is underway.
    fn tell_of_evicted(&mut self, out: &mut Vec<ChangeFrame>) -> Result<()> {
        let Some(evictions) = &mut self.evictions else { return Ok(()) };
        let Subscriber { query, progress, .. } = &*self.subscriber;
        let mut position = self.subscriber.position();
        if let Told::All { last, commit_end } = evictions.tell_some(query, position.prev_seq, out)? {
            if let Some(frame) = &last {
                position.prev_seq = frame.payload.seq;
                progress.give(frame.payload.seq);
            }
            position.cursor = commit_end;
            out.extend(last);
        }
        Ok(())
    }

    /// Whether several commits are matched at once: whether nothing but rows comes of them.
    fn takes_several(&self) -> bool {
        let is_plain = self.subscriber.result.is_none() && self.evictions.is_none();
        is_plain && self.subscriber.query.partition.table != CHANGES
    }

    /// Matches a commit and those after it, about as many as make so many frames. Gives the bytes that they keep in memory; none
    /// where a commit fails: it is unread again, and what is before it goes out first.
    fn match_several(
        &mut self,
        first: Frame,
        frames_max: usize,
        out: &mut Vec<ChangeFrame>,
    ) -> Result<Option<usize>> {
        let (mut count, mut commits) = (first.count(), vec![first]);
        while count + out.len() < frames_max
            && let Some(next) = self.unread.pop_front()
        {
            count += next.count();
            commits.push(next);
        }
        if let Ok(Some(bytes)) = self.match_all(&commits, out) {
            return Ok(Some(bytes));
        }
        // Something ends it, or an expression fails: which commit it is, each by itself tells.
        let before = out.len();
        let mut commits = commits.into_iter();
        while let Some(commit) = commits.next() {
            if let Err(error) = self.match_commit(&commit, out) {
                if out.is_empty() {
                    return Err(error);
                }
                for unread in std::iter::once(commit).chain(commits).rev() {
                    self.unread.push_front(unread);
                }
                return Ok(None);
            }
        }
        Ok(Some(out.iter().skip(before).map(ChangeFrame::bytes).sum()))
    }

    /// Matches commits, one after another. None where one of them ends the subscription: then nothing is done.
    fn match_all(&self, commits: &[Frame], out: &mut Vec<ChangeFrame>) -> Result<Option<usize>> {
        let Subscriber { query, progress, .. } = &*self.subscriber;
        let mut position = self.subscriber.position();
        let cursor = position.cursor;
        let mut found = Vec::new();
        for commit in commits.iter().filter(|commit| commit.last_seq() > cursor) {
            if ends_with(commit, query.partition.table, cursor)?.is_some() {
                return Ok(None);
            }
            let changes = changes_by_partition(commit, |partition| *partition == query.partition)?;
            found.extend(changes.into_iter().map(|(_, changes)| changes.after(cursor)));
        }
        let mut bytes = 0;
        if !found.is_empty() {
            let mut batches = ChangeBatches::of_commits(&query.info, &found)?;
            let frames = batches.frames(query, position.prev_seq, usize::MAX)?;
            bytes = batches.bytes();
            give(&frames, &mut position, progress);
            out.extend(frames);
        }
        position.cursor = commits.last().map_or(cursor, |last| last.last_seq().max(cursor));
        Ok(Some(bytes))
    }

    fn match_commit(&mut self, commit: &Frame, out: &mut Vec<ChangeFrame>) -> Result<()> {
        let Subscriber { query, progress, .. } = &*self.subscriber;
        let mut position = self.subscriber.position();
        if commit.last_seq() <= position.cursor {
            return Ok(());
        }
        if let Some(error) = ends_with(commit, query.partition.table, position.cursor)? {
            return Err(error);
        }
        if let Some(evictions) = &mut self.evictions
            && evictions.take_up(&self.router, &query.partition, commit)?
        {
            return Ok(());
        }
        let of_log = match query.partition.table {
            CHANGES => {
                let rows = self.change_rows.get_or_insert_with(|| Box::new(self.router.change_rows()));
                rows.of_commit(commit, position.cursor)?
            }
            _ => None,
        };
        let found = match &of_log {
            Some(rows) => vec![PartitionChanges::of_rows(commit.header().fields.commit_time, rows)],
            None => {
                let found = changes_by_partition(commit, |partition| *partition == query.partition)?;
                found.into_iter().map(|(_, changes)| changes.after(position.cursor)).collect()
            }
        };
        for changes in found {
            let mut batches = ChangeBatches::new(&query.info, &changes)?;
            let frames = match (&self.subscriber.result, &query.result) {
                (Some(result), Some(plan)) => {
                    let mut result = LiveResult::locked(result);
                    match result.go_on(query, plan, &batches, (position.prev_seq, usize::MAX)) {
                        Ok(Some(frames)) => frames,
                        // It is to be made anew, which tells what is wrong if that lasts.
                        Ok(None) | Err(_) => return Ok(()),
                    }
                }
                _ => batches.frames(query, position.prev_seq, usize::MAX)?,
            };
            give(&frames, &mut position, progress);
            out.extend(frames);
        }
        position.cursor = commit.last_seq().max(position.cursor);
        Ok(())
    }
}

/// Notes that a subscriber is given frames.
fn give(frames: &[ChangeFrame], position: &mut Position, progress: &LiveProgress) {
    position.prev_seq = chain_end(frames).unwrap_or(position.prev_seq);
    if let Some(last) = frames.last() {
        progress.give(last.payload.seq);
    }
}

/// Goes to the first commit after `from`, or says why that cannot be exact.
pub(crate) fn seek(reader: &mut LogReader, from: Seq) -> Result<()> {
    match reader.seek(from) {
        Ok(()) => Ok(()),
        Err(kalamdb_log::Error::BelowFloor { .. } | kalamdb_log::Error::NotInLog { .. }) => {
            Err(Error::ResyncRequired { from, floor: reader.floor()?, end: reader.end()? })
        }
        Err(error) => Err(error.into()),
    }
}
