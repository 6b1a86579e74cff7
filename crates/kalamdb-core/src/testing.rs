//! What the tests from the outside and the simulation share: sinks, sessions, subscribers' rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use futures_util::StreamExt;
use log_format::{Role, Seq, UserId};

use crate::{ChangeFrame, Error, Session, Sink, Subscription, SubscriptionId};

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
        assert!(frame.payload.seq > *last, "a change came twice");
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

/// The cells of a table of text, row by row, without its head.
pub(crate) fn cells(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}
