//! One subscriber's way: snapshot, then the log from there, then live.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::memory::MemoryStream;
use futures_util::FutureExt;
use kalamdb_log::LogReader;
use kalamdb_sql::{LiveProgress, LiveQueries, LiveQuery as LiveQueryRecord, LiveState};
use log_format::{DataType, Frame, PartitionHash, SchemaVersion, Seq, TableId};

use crate::changes::{CHANGES, ChangeRows};
use crate::clock;
use crate::engine::{Engine, WeakEngine};
use crate::error::{Error, Result, from_query};
use crate::live::change::{
    ChangeBatches, ChangeFrame, PartitionChanges, as_one, changes_by_partition, ends_with,
};
use crate::live::endings::{Ending, Endings};
use crate::live::evictions::{Evictions, Told};
use crate::live::feed::After;
use crate::live::query::LiveQuery;
use crate::live::result::{LiveResult, Moment, ResultPlan, make};
use crate::live::router::{Position, Router, Sink, Subscriber, SubscriptionId};
use crate::session::Session;
use crate::sql::{LivePlan, live_plan};
use crate::table::sql_type;

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
    /// Only that many of the newest rows in the snapshot.
    pub last_rows: Option<u32>,
    /// No snapshot: what came after this seq.
    pub from: Option<Seq>,
    /// What to do when that is not possible.
    pub on_gap: OnGap,
    /// Whether it may be told less: of rows that changed more than once while it was behind, what came of it.
    pub coalesce: bool,
    /// Whether to be told when rows move to the cold tier ([`Sink::flushed`]).
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
                Some(commit) => self.match_commit(&commit, &mut frames)?,
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
                self.subscriber.progress.reach(self.subscriber.position().cursor);
                return Ok(CaughtUp { schema, frames, live: false, to_make: false });
            }
        }
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
        let plan = live_plan(&engine, &self.source.session, &self.source.sql).await?;
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
        let made = make(&self.router, plan, query, result_plan, from).await?;
        metrics::counter!("kalamdb_live_results_remade_total").increment(1);
        let mut position = self.subscriber.position();
        let (prev_seq, seq) = (position.prev_seq, plan.cut_seq);
        let mut result = LiveResult::locked(result);
        let moment = Moment { prev_seq, seq, commit_time: clock::now_micros() };
        let frames = result.replace(result_plan, made, moment)?;
        *position = Position { cursor: seq, prev_seq: if frames.is_empty() { prev_seq } else { seq } };
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
        let mut frames = ChangeBatches::new(&query.info, &changes)?.frames(query, position.prev_seq)?;
        as_one(&mut frames, position.prev_seq)?;
        if let Some(frame) = frames.last() {
            position.prev_seq = frame.payload.seq;
            progress.give(frame.payload.seq);
        }
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
                    match result.go_on(query, plan, &batches, position.prev_seq) {
                        Ok(Some(frames)) => frames,
                        // It is to be made anew, which tells what is wrong if that lasts.
                        Ok(None) | Err(_) => return Ok(()),
                    }
                }
                _ => batches.frames(query, position.prev_seq)?,
            };
            if let Some(last) = frames.last() {
                position.prev_seq = last.payload.seq;
                progress.give(last.payload.seq);
            }
            out.extend(frames);
        }
        position.cursor = commit.last_seq().max(position.cursor);
        Ok(())
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

/// Begins a subscription: compiles it, takes its snapshot or finds its place in the log. It is not live yet.
pub(crate) async fn subscribe(
    engine: &Engine,
    session: &Session,
    request: SubscribeRequest,
    sink: Arc<dyn Sink>,
) -> Result<Subscription> {
    // IMPORTANT: before the plan's cut is taken, which then has all that was published up to here.
    let published = engine.published();
    let plan = live_plan(engine, session, &request.sql).await?;
    let query = plan.compile(engine.router().projections())?;
    let Beginning { start_seq, position, snapshot, result } =
        begin(engine, &plan, &query, (&request, published)).await?;
    let evictions = request.notify_evicted && query.info.stream().is_some();
    let resumed = snapshot.is_none().then_some(start_seq);
    let begin_evictions = || Evictions::begin(engine, &query.partition, resumed).map(Box::new);
    let evictions = evictions.then(begin_evictions).transpose()?;
    let now = clock::now_micros();
    let progress = Arc::new(LiveProgress::default());
    progress.give(start_seq);
    progress.advance(start_seq, 0, now);
    if snapshot.is_none() {
        progress.enter(LiveState::CatchingUp, now);
    }
    let subscriber = Arc::new(Subscriber {
        id: engine.next_subscription_id(),
        query,
        sink,
        position: Mutex::new(position),
        progress,
        notify_flush: request.notify_flush,
        notify_evicted: evictions.is_some(),
        result: result.map(LiveResult::shared),
    });
    // A result changes as a whole, and of the log's events and of a STREAM table's rows each is another one.
    let has_keys = subscriber.query.partition.table != CHANGES && subscriber.query.info.stream().is_none();
    let coalesce = request.coalesce && subscriber.result.is_none() && has_keys;
    let record = Arc::new(record(session, request, &subscriber, now));
    let (live_id, sql) = (Arc::clone(&record.live_id), Arc::clone(&record.query));
    let source = Source { engine: engine.downgrade(), session: session.clone(), sql };
    engine.endings().begin(subscriber.id, &record, session.role(), &subscriber.sink);
    engine.live_queries().insert_live_query(record);
    engine.router().join(&subscriber.query.partition);
    let table = subscriber.query.partition.table;
    metrics::counter!("kalamdb_subscriptions_total").increment(1);
    let subscription = Subscription {
        router: Arc::clone(engine.router()),
        endings: Arc::clone(engine.endings()),
        live_queries: Arc::clone(engine.live_queries()),
        subscriber,
        live_id,
        source,
        start_seq,
        snapshot: snapshot.map(Box::new),
        reader: None,
        unread: VecDeque::new(),
        change_rows: None,
        coalesce,
        evictions,
    };
    // IMPORTANT: after it is listed. Who drops the table from here on is refused, or its event comes after the cut.
    if table != CHANGES && engine.catalog().by_id(table).is_none() {
        return Err(Error::TableDropped);
    }
    // The same of who gives its user another role.
    if engine.user(session.user())?.is_some_and(|user| user.role != session.role()) {
        return Err(Error::Ended { ending: Ending::RoleChanged });
    }
    Ok(subscription)
}

/// What a subscription begins with.
struct Beginning {
    start_seq: Seq,
    position: Position,
    snapshot: Option<Snapshot>,
    result: Option<LiveResult>,
}

async fn begin(
    engine: &Engine,
    plan: &LivePlan,
    query: &LiveQuery,
    (request, published): (&SubscribeRequest, Seq),
) -> Result<Beginning> {
    let resumed = resumed_from(engine, query.partition.table, request, published)?;
    if let Some(result_plan) = query.result.as_deref() {
        return begin_result(engine, plan, query, result_plan, (resumed, request)).await;
    }
    // The log has no state to begin with: who wants what is in it says from where, or how much of it.
    let of_log = query.partition.table == CHANGES;
    let last_rows = request.last_rows.or(of_log.then_some(0));
    let snapshot = match resumed {
        Some(_) => None,
        None => {
            let rows = plan.snapshot.rows(last_rows)?;
            let total_rows = count(plan.snapshot.count(last_rows)?.execute_stream().await?).await?;
            let stream = rows.execute_stream().await?;
            Some(Snapshot { seq: plan.cut_seq, total_rows, stream, is_result: false })
        }
    };
    let start_seq = resumed.unwrap_or(plan.cut_seq);
    let position = Position { cursor: start_seq, prev_seq: start_seq };
    Ok(Beginning { start_seq, position, snapshot, result: None })
}

/// The same of a query that makes something of its rows: its result is made as of now, also for who resumes.
async fn begin_result(
    engine: &Engine,
    plan: &LivePlan,
    query: &LiveQuery,
    result_plan: &ResultPlan,
    (resumed, request): (Option<Seq>, &SubscribeRequest),
) -> Result<Beginning> {
    let seq = plan.cut_seq;
    if let Some(from) = resumed {
        match make(engine.router(), plan, query, result_plan, Some(from)).await {
            Err(Error::ResyncRequired { .. }) if request.on_gap == OnGap::Snapshot => {}
            made => {
                let moment = Moment { prev_seq: from, seq, commit_time: clock::now_micros() };
                let result = LiveResult::resumed(result_plan, made?, moment)?;
                let prev_seq = if result.is_delivered() { from } else { seq };
                let position = Position { cursor: seq.max(from), prev_seq };
                return Ok(Beginning { start_seq: from, position, snapshot: None, result: Some(result) });
            }
        }
    }
    let made = make(engine.router(), plan, query, result_plan, None).await?;
    let rows = made.rows(result_plan, seq)?;
    // All of it, or nothing but what changes: the newest rows of an order are what its LIMIT says.
    let rows = if request.last_rows == Some(0) { rows.slice(0, 0) } else { rows };
    let (schema, total_rows) = (rows.schema(), rows.num_rows() as u64);
    let stream = Box::pin(MemoryStream::try_new(vec![rows], schema, None).map_err(from_query)?);
    let snapshot = Some(Snapshot { seq, total_rows, stream, is_result: true });
    let position = Position { cursor: seq, prev_seq: seq };
    Ok(Beginning { start_seq: seq, position, snapshot, result: Some(LiveResult::new(made)) })
}

/// Where it goes on, if it does not begin with a snapshot.
fn resumed_from(
    engine: &Engine,
    table: TableId,
    request: &SubscribeRequest,
    published: Seq,
) -> Result<Option<Seq>> {
    let Some(from) = request.from else { return Ok(None) };
    match check_resume(engine, table, from, published) {
        Ok(()) => Ok(Some(from)),
        Err(Error::ResyncRequired { .. }) if request.on_gap == OnGap::Snapshot => Ok(None),
        Err(error) => Err(error),
    }
}

/// A subscription, as `system.live_queries` lists it.
fn record(
    session: &Session,
    request: SubscribeRequest,
    subscriber: &Subscriber,
    now: i64,
) -> LiveQueryRecord {
    LiveQueryRecord {
        live_id: format!("{}-{}", request.connection_id, request.query_id).into(),
        connection_id: request.connection_id,
        query_id: request.query_id,
        user: Arc::clone(session.shared_user()),
        table: subscriber.query.partition.table,
        columns: subscriber.query.columns.clone(),
        query: request.sql.into(),
        options: request.options_json,
        progress: Arc::clone(&subscriber.progress),
        created_at: now,
    }
}

/// Whether every change of a table after `from` can still be read, and `from` is a seq that was given out.
fn check_resume(engine: &Engine, table: TableId, from: Seq, published: Seq) -> Result<()> {
    let router = engine.router();
    // A table's id is the seq of the event that created it: who saw anything before saw another one of its name.
    let created_at = Seq::new(table.get());
    let truncated_at = engine.store().truncated_at(table)?;
    if from < truncated_at || from > Seq::ZERO && from < created_at {
        let floor = truncated_at.max(created_at);
        return Err(Error::ResyncRequired { from, floor, end: published.max(floor) });
    }
    if from == published {
        return Ok(());
    }
    let mut reader = router.log_reader();
    if from > published {
        return Err(Error::ResyncRequired { from, floor: reader.floor()?, end: published });
    }
    seek(&mut reader, from)
}

async fn count(mut stream: SendableRecordBatchStream) -> Result<u64> {
    use futures_util::StreamExt;
    let mut total = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(crate::error::from_query)?;
        total += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    Ok(u64::try_from(total).unwrap_or(0))
}
