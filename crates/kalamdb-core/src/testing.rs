//! What the tests from the outside and the simulation share: sinks, sessions, subscribers' rows, deaths at a place.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures_util::StreamExt;
use kalamdb_log::Durability;
use log_format::{Job, Role, Seq, UserId};

use crate::engine::Machine;
use crate::fail_points::FailPoints;
use crate::{
    ChangeFrame, Engine, EngineOptions, Error, SchemaFrame, Session, Sink, Subscription, SubscriptionId,
};

/// A sink that keeps everything, with room for so many commits at a time.
pub(crate) struct Kept {
    frames: Mutex<Vec<ChangeFrame>>,
    room: usize,
    lagging: Mutex<bool>,
    is_ended: Mutex<bool>,
}

impl Kept {
    pub(crate) fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self {
            frames: Mutex::new(Vec::new()),
            room,
            lagging: Mutex::new(false),
            is_ended: Mutex::new(false),
        })
    }

    pub(crate) fn is_ended(&self) -> bool {
        *self.is_ended.lock().unwrap()
    }

    pub(crate) const fn room(&self) -> usize {
        self.room
    }

    /// Whether it was told that it lags since the last time.
    pub(crate) fn take_lagging(&self) -> bool {
        std::mem::take(&mut self.lagging.lock().unwrap())
    }

    pub(crate) fn take(&self) -> Vec<ChangeFrame> {
        std::mem::take(&mut self.frames.lock().unwrap())
    }
}

impl Sink for Kept {
    fn deliver(&self, _: SubscriptionId, frames: Vec<ChangeFrame>) -> bool {
        let mut kept = self.frames.lock().unwrap();
        if kept.len() >= self.room {
            return false;
        }
        kept.extend(frames);
        true
    }

    fn lagging(&self, _: SubscriptionId) {
        *self.lagging.lock().unwrap() = true;
    }

    fn ended(&self, _: SubscriptionId, _: Error) {
        *self.is_ended.lock().unwrap() = true;
    }
}

pub(crate) fn session(user: &str, role: Role) -> Session {
    Session::new(UserId::new(user), role, None)
}

pub(crate) fn root() -> Session {
    session("root", Role::Dba)
}

/// A live query's rows, by id, after its snapshot and these frames; checks the chain on the way.
pub(crate) async fn materialise(subscription: &mut Subscription, rows: &mut BTreeMap<i64, i64>) -> Seq {
    if let Some(mut snapshot) = subscription.take_snapshot() {
        let mut total = 0;
        while let Some(batch) = snapshot.stream.next().await {
            let batch = batch.unwrap();
            total += batch.num_rows() as u64;
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let seqs = batch.column_by_name("_seq").unwrap().as_primitive::<Int64Type>();
            rows.extend(ids.values().iter().copied().zip(seqs.values().iter().copied()));
        }
        assert_eq!(total, snapshot.total_rows);
    }
    subscription.start_seq()
}

pub(crate) fn take_over(frames: &[ChangeFrame], last: &mut Seq, rows: &mut BTreeMap<i64, i64>) {
    for frame in frames {
        assert_eq!(frame.prev_seq, *last, "the chain is broken");
        if frame.payload.failure.is_some() {
            continue;
        }
        // Where several frames are one change, only the last moves on.
        assert!(frame.payload.seq > *last || frame.more, "a change came twice");
        *last = frame.payload.seq;
        let batch = frame.payload.rows.as_ref().or(frame.payload.old_rows.as_ref()).unwrap();
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        let seqs = batch.column_by_name("_seq").unwrap().as_primitive::<Int64Type>();
        for (id, seq) in ids.values().iter().zip(seqs.values()) {
            if frame.payload.rows.is_some() {
                rows.insert(*id, *seq);
            } else {
                rows.remove(id).expect("a delete of a row that was never there");
            }
        }
    }
}

/// What the router gave and what the subscriber read by itself, which take turns at any moment.
pub(crate) fn arrived(sink: &Kept, subscription: &mut Subscription) -> Vec<ChangeFrame> {
    let mut frames = subscription.catch_up(10).unwrap().frames;
    frames.extend(sink.take());
    frames.sort_by_key(|frame| frame.payload.seq);
    frames
}

/// Frames of a live query, once at least so many have arrived.
pub(crate) async fn arrived_frames(
    sink: &Kept,
    subscription: &mut Subscription,
    count: usize,
) -> Vec<ChangeFrame> {
    arrived_until(sink, subscription, |frames| frames.len() >= count).await.1
}

/// Columns that were announced, and frames that arrived, once these are enough. A result that is unknown is computed anew.
pub(crate) async fn arrived_until(
    sink: &Kept,
    subscription: &mut Subscription,
    is_enough: impl Fn(&[ChangeFrame]) -> bool,
) -> (Option<SchemaFrame>, Vec<ChangeFrame>) {
    let (mut schema, mut frames) = (None, Vec::new());
    let arriving = tokio::time::timeout(Duration::from_mins(1), async {
        while !is_enough(&frames) {
            let mut caught_up = subscription.catch_up(10).unwrap();
            frames.append(&mut caught_up.frames);
            frames.extend(sink.take());
            // The router and the subscriber itself take turns at any moment.
            frames.sort_by_key(|frame| frame.payload.seq);
            schema = caught_up.schema.or(schema.take());
            if caught_up.to_make {
                schema = subscription.make_anew().await.unwrap().schema.or(schema.take());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(arriving.await.is_ok(), "waited a minute, with {} frames", frames.len());
    (schema, frames)
}

/// Kinds of frames, as text.
pub(crate) fn kinds(frames: &[ChangeFrame]) -> Vec<String> {
    frames.iter().map(|frame| format!("{:?}", frame.payload.kind)).collect()
}

/// Waits until the router has handed out everything that was published.
pub(crate) async fn handed_out(engine: &Engine) {
    until("all is handed out", || engine.router().is_at(engine.router().feed().published())).await;
}

/// Waits until a condition holds, and fails after a minute.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited a minute until {what}");
}

/// The cells of a table of text, row by row, without its head.
pub(crate) fn cells(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Waits until no job is left to be done.
pub(crate) async fn all_done(engine: &Engine) -> Vec<Job> {
    let done = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let jobs = engine.system().scan_all_jobs().unwrap();
            if jobs.iter().all(|job| job.finished_at.is_some()) {
                break jobs;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    done.await.unwrap()
}

/// Kills every thread of an engine once so many fail points were passed.
pub(crate) struct Fuse(Arc<AtomicU64>);

impl Fuse {
    /// An engine with a fuse that does not burn yet.
    pub(crate) fn open(directory: &Path) -> (Engine, Self) {
        let fuse = Arc::new(AtomicU64::new(u64::MAX));
        let burning = Arc::clone(&fuse);
        let fail_points = FailPoints::new(move |_| {
            // Once it is dead, every thread of it is.
            let left = burning.load(Ordering::SeqCst);
            if left == 0 || left != u64::MAX && burning.fetch_sub(1, Ordering::SeqCst) == 1 {
                resume_unwind(Box::new("died"));
            }
        });
        let mut options = EngineOptions::new(directory);
        options.durability = Durability::Os;
        options.root_password = Some("root".to_owned());
        let machine = Machine { write_behind: false, fail_points };
        (Engine::open_on(options, machine).unwrap().0, Self(fuse))
    }

    /// The engine dies after so many places from now on.
    pub(crate) fn light(&self, places: u64) {
        self.0.store(places, Ordering::SeqCst);
    }

    /// Waits until the engine is dead, or all of its jobs are done, of which there must be so many; whether it survived.
    pub(crate) async fn survives(&self, engine: &Engine, jobs: usize) -> bool {
        let survived = tokio::time::timeout(Duration::from_mins(1), async {
            loop {
                if self.0.load(Ordering::SeqCst) == 0 {
                    break false;
                }
                let all = engine.system().scan_all_jobs().unwrap();
                if all.len() >= jobs && all.iter().all(|job| job.finished_at.is_some()) {
                    break true;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        survived.await.unwrap()
    }
}

/// Numbers by seed, which must not be 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// An index of something of this length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

/// Rows as texts, without their `_seq`.
pub(crate) fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let schema = batch.schema();
    let shown = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != "_seq");
    let columns: Vec<_> =
        shown.map(|(_, column)| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let text = |row| columns.iter().map(|it| it.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(text).collect()
}
