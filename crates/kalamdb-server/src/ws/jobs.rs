//! What takes time, beside the connection's own task: beginning a subscription, pulling a batch of its snapshot, reading
//! on in the log. A job owns the subscription it works on and gives it back.

use std::sync::Arc;

use futures_util::StreamExt;
use kalamdb_core::arrow::array::{AsArray, RecordBatch};
use kalamdb_core::arrow::compute::max;
use kalamdb_core::arrow::datatypes::Int64Type;
use kalamdb_core::{
    CaughtUp, Error as EngineError, RowFailure, Session, Sink, Snapshot, SubscribeRequest, Subscription,
    without_seq,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::app::App;
use crate::refusal::Refusal;

/// Changes taken from the log at a time.
const CATCH_UP_CHANGES: usize = 256;
/// About how many bytes of rows go into one message of a snapshot.
const BATCH_BYTES: usize = 512 << 10;

/// A snapshot on its way to the client.
pub(super) struct Cursor {
    snapshot: Snapshot,
    /// What was pulled and not yet sent.
    rest: Option<RecordBatch>,
    rows_max: usize,
    next_batch: u32,
}

/// One batch of a snapshot.
pub(super) struct Batch {
    pub(super) number: u32,
    pub(super) rows: RecordBatch,
    pub(super) has_more: bool,
    /// The greatest seq in it; of the last batch, the snapshot's own.
    pub(super) last_seq: Option<u64>,
}

impl Cursor {
    pub(super) fn new(snapshot: Snapshot, rows_max: usize) -> Self {
        Self { snapshot, rest: None, rows_max: rows_max.max(1), next_batch: 0 }
    }

    /// The rows that are not in the snapshot because the query fails for them, and its seq.
    pub(super) fn failure(&self) -> Option<(&RowFailure, u64)> {
        self.snapshot.failure.as_ref().map(|failure| (failure, self.snapshot.seq.get()))
    }

    /// Makes `rest` hold rows, if there are any.
    async fn fill(&mut self) -> Result<(), EngineError> {
        while self.rest.as_ref().is_none_or(|rest| rest.num_rows() == 0) {
            match self.snapshot.stream.next().await {
                Some(batch) => self.rest = Some(batch?),
                None => break,
            }
        }
        Ok(())
    }

    async fn pull(&mut self) -> Result<Batch, EngineError> {
        self.fill().await?;
        let schema = self.snapshot.stream.schema();
        let batch = self.rest.take().unwrap_or_else(|| RecordBatch::new_empty(schema));
        let total = batch.num_rows();
        let row_bytes = batch.get_array_memory_size().checked_div(total).unwrap_or(0).max(1);
        let count = total.min(self.rows_max).min((BATCH_BYTES / row_bytes).max(1));
        let rows = batch.slice(0, count);
        self.rest = Some(batch.slice(count, total - count));
        self.fill().await?;
        let has_more = self.rest.as_ref().is_some_and(|rest| rest.num_rows() > 0);
        // Some rows of a result are nothing to resume from.
        let rows = if has_more && self.snapshot.is_result { without_seq(&rows)? } else { rows };
        let number = self.next_batch;
        self.next_batch = number.saturating_add(1);
        let last_seq = if has_more { greatest_seq(&rows) } else { Some(self.snapshot.seq.get()) };
        Ok(Batch { number, rows, has_more, last_seq })
    }
}

fn greatest_seq(rows: &RecordBatch) -> Option<u64> {
    let column = rows.column_by_name("_seq")?;
    max(column.as_primitive_opt::<Int64Type>()?).and_then(|seq| u64::try_from(seq).ok())
}

/// What a job came to.
pub(super) enum Outcome {
    Subscribed(Result<Box<Subscription>, EngineError>),
    Batch(Box<Subscription>, Box<Cursor>, Batch),
    /// It is over.
    Refused(Refusal),
    CaughtUp(Box<Subscription>, Result<CaughtUp, EngineError>),
}

/// A job that is done, and which subscription of the connection it was for.
pub(super) struct Done {
    pub(super) number: u64,
    pub(super) outcome: Outcome,
    /// What holds back other jobs of the connection until this one's changes are sent.
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

impl Done {
    const fn new(number: u64, outcome: Outcome) -> Self {
        Self { number, outcome, turn: None }
    }
}

pub(super) async fn subscribe(
    number: u64,
    app: Arc<App>,
    session: Session,
    request: SubscribeRequest,
    sink: Arc<dyn Sink>,
) -> Done {
    let Some(_turn) = turn(&app.snapshots).await else { return Done::new(number, shutting_down()) };
    let subscribing = app.engine.subscribe(&session, request, sink);
    let outcome = match tokio::time::timeout(app.config.statement_timeout(), subscribing).await {
        Ok(subscribed) => Outcome::Subscribed(subscribed.map(Box::new)),
        Err(_) => Outcome::Refused(Refusal::new("TIMEOUT", "the subscription took too long to begin")),
    };
    Done::new(number, outcome)
}

pub(super) async fn pull_batch(
    number: u64,
    app: Arc<App>,
    subscription: Box<Subscription>,
    mut cursor: Box<Cursor>,
) -> Done {
    let Some(_turn) = turn(&app.snapshots).await else { return Done::new(number, shutting_down()) };
    let failed = |message: String| Outcome::Refused(Refusal::new("BATCH_FETCH_FAILED", message));
    let outcome = match tokio::time::timeout(app.config.statement_timeout(), cursor.pull()).await {
        Ok(Ok(batch)) => Outcome::Batch(subscription, cursor, batch),
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed("the batch took too long".to_owned()),
    };
    Done::new(number, outcome)
}

/// Makes the result of a subscription anew: a query as any other.
pub(super) async fn make_anew(number: u64, app: Arc<App>, mut subscription: Box<Subscription>) -> Done {
    let Some(_turn) = turn(&app.snapshots).await else { return Done::new(number, shutting_down()) };
    let made = tokio::time::timeout(app.config.statement_timeout(), subscription.make_anew()).await;
    let outcome = match made {
        Ok(made) => Outcome::CaughtUp(subscription, made),
        Err(_) => {
            let message = "the result took too long to make anew; add a narrower WHERE, and subscribe again";
            Outcome::Refused(Refusal::new("TIMEOUT", message))
        }
    };
    Done::new(number, outcome)
}

/// Reads files, on a thread that may wait. `of_connection` are the places of those of one connection: what they read stays in memory
/// until it is sent.
pub(super) async fn catch_up(
    number: u64,
    app: Arc<App>,
    of_connection: Arc<Semaphore>,
    mut subscription: Box<Subscription>,
) -> Done {
    let Ok(unsent) = of_connection.acquire_owned().await else { return Done::new(number, shutting_down()) };
    let Some(_turn) = turn(&app.catch_ups).await else { return Done::new(number, shutting_down()) };
    let reading = tokio::task::spawn_blocking(move || {
        let caught_up = subscription.catch_up(CATCH_UP_CHANGES);
        Outcome::CaughtUp(subscription, caught_up)
    });
    match reading.await {
        Ok(outcome) => Done { number, outcome, turn: Some(unsent) },
        Err(error) => match error.try_into_panic() {
            // The connection ends with it, as it does where any other job of it fails.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Done::new(number, shutting_down()),
        },
    }
}

/// One of the places of those who read at a time: many who come at once wait for their turn, and writers do not wait for them.
async fn turn(places: &Semaphore) -> Option<SemaphorePermit<'_>> {
    places.acquire().await.ok()
}

fn shutting_down() -> Outcome {
    Outcome::Refused(Refusal::shutting_down())
}
