//! How a subscription begins: with a snapshot, or where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use datafusion::physical_plan::memory::MemoryStream;
use kalamdb_sql::{LiveProgress, LiveQuery as LiveQueryRecord, LiveState};
use log_format::{Seq, TableId};

use super::{OnGap, Snapshot, Source, SubscribeRequest, Subscription, seek, snapshot};
use crate::changes::CHANGES;
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, Result, from_query};
use crate::live::endings::Ending;
use crate::live::evictions::Evictions;
use crate::live::query::LiveQuery;
use crate::live::result::{LiveResult, Moment, ResultPlan, make};
use crate::live::router::{Position, Subscriber};
use crate::live::sink::Sink;
use crate::session::Session;
use crate::sql::{LivePlan, live_plan};

/// Begins a subscription: compiles it, takes its snapshot or finds its place in the log. It is not live yet.
pub(crate) async fn subscribe(
    engine: &Engine,
    session: &Session,
    request: SubscribeRequest,
    sink: Arc<dyn Sink>,
) -> Result<Subscription> {
    // IMPORTANT: before the plan's cut is taken, which then has all that was published up to here.
    let published = engine.published();
    let plan = live_plan(engine, session, &request.sql, &request.params).await?;
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
    let params = Arc::clone(&request.params);
    let record = Arc::new(record(session, request, &subscriber, now));
    let (live_id, sql) = (Arc::clone(&record.live_id), Arc::clone(&record.query));
    let source = Source { engine: engine.downgrade(), session: session.clone(), sql, params };
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
        None => Some(snapshot::take(plan, query, engine.router().projections(), last_rows).await?),
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
        match make(engine.router(), plan, query, result_plan, (Some(from), from)).await {
            Err(Error::ResyncRequired { .. }) if request.on_gap == OnGap::Snapshot => {}
            made => {
                let moment = Moment { prev_seq: from, seq, commit_time: clock::now_micros() };
                let result = LiveResult::resumed(result_plan, made?, moment)?;
                let prev_seq = result.undelivered_end().unwrap_or(from);
                let position = Position { cursor: seq.max(from), prev_seq };
                return Ok(Beginning { start_seq: from, position, snapshot: None, result: Some(result) });
            }
        }
    }
    let made = make(engine.router(), plan, query, result_plan, (None, Seq::ZERO)).await?;
    let rows = made.rows(result_plan, seq)?;
    // All of it, or nothing but what changes: the newest rows of an order are what its LIMIT says.
    let rows = if request.last_rows == Some(0) { rows.slice(0, 0) } else { rows };
    // Who wants no rows is not told of those that fail either.
    let failure = if request.last_rows == Some(0) { None } else { made.failures.described() };
    let (schema, total_rows) = (rows.schema(), rows.num_rows() as u64);
    let stream = Box::pin(MemoryStream::try_new(vec![rows], schema, None).map_err(from_query)?);
    let snapshot = Some(Snapshot { seq, total_rows, stream, is_result: true, failure });
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
