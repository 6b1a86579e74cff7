//! Subscribers that are behind and may be told less.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::pretty::pretty_format_batches;
use log_format::{Role, Seq};

use crate::live::ChangeKind;
use crate::testing::{Kept, Random, cells, handed_out, kinds, materialise, root, session, take_over};
use crate::tests::{ok, open};
use crate::{ChangeFrame, Engine, Session, SubscribeRequest, Subscription};

async fn behind(engine: &Engine, who: &Session, from: Option<Seq>, coalesce: bool) -> Subscription {
    let sql = "SELECT id FROM app.t WHERE n < 5".to_owned();
    let request = SubscribeRequest { sql, from, coalesce, ..SubscribeRequest::default() };
    engine.subscribe(who, request, Kept::with_room(0) as _).await.unwrap()
}

/// One who gets everything as it is published: the router is at the end, not where the last one fell behind.
async fn live(engine: &Engine, who: &Session) -> Subscription {
    let request = SubscribeRequest { sql: "SELECT id FROM app.t".to_owned(), ..SubscribeRequest::default() };
    let mut live = engine.subscribe(who, request, Kept::with_room(usize::MAX) as _).await.unwrap();
    assert!(live.catch_up(1).unwrap().live);
    live
}

/// Everything that it missed.
async fn caught_up(engine: &Engine, subscription: &mut Subscription) -> Vec<ChangeFrame> {
    handed_out(engine).await;
    let mut frames = Vec::new();
    loop {
        let caught_up = subscription.catch_up(1000).unwrap();
        frames.extend(caught_up.frames);
        if caught_up.live {
            return frames;
        }
    }
}

#[tokio::test]
async fn one_who_coalesces_gets_of_each_row_what_came_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    ok(&engine, &ann, "INSERT INTO app.t VALUES (1, 1), (2, 2), (3, 3)", &[]).await;
    let other = live(&engine, &ann).await;
    let mut subscription = behind(&engine, &ann, None, true).await;
    let mut rows = BTreeMap::new();
    let mut last = materialise(&mut subscription, &mut rows).await;
    for sql in [
        "UPDATE app.t SET n = 3 WHERE id = 1",
        "UPDATE app.t SET n = 4 WHERE id = 1",
        "DELETE FROM app.t WHERE id = 2",
        "DELETE FROM app.t WHERE id = 3",
        "INSERT INTO app.t VALUES (3, 1)",
        "INSERT INTO app.t VALUES (4, 1)",
        "DELETE FROM app.t WHERE id = 4",
        "INSERT INTO app.t VALUES (5, 9)",
        "UPDATE app.t SET n = 0 WHERE id = 5",
    ] {
        ok(&engine, &ann, sql, &[]).await;
    }
    let frames = caught_up(&engine, &mut subscription).await;
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.payload.kind, frame.more)).collect();
    let expected = [
        (ChangeKind::Update, true),
        (ChangeKind::Delete, true),
        (ChangeKind::Update, true),
        (ChangeKind::Insert, false),
    ];
    assert_eq!(kinds, expected);
    take_over(&frames, &mut last, &mut rows);
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [1, 3, 5]);
    assert!(caught_up(&engine, &mut subscription).await.is_empty());
    drop((subscription, other));
    engine.close();
}

#[tokio::test]
async fn coalesced_or_not_the_rows_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    let other = live(&engine, &ann).await;
    let mut told_all = Told::begin(behind(&engine, &ann, None, false).await);
    let mut told_less = Told::begin(behind(&engine, &ann, None, true).await);
    let mut cut_off = 0;
    let mut random = Random(7);
    for step in 0..400 {
        let (id, n) = (random.below(12), random.below(8));
        let sql = match random.below(3) {
            0 => format!("DELETE FROM app.t WHERE id = {id}"),
            1 => format!("UPDATE app.t SET n = {n} WHERE id = {id}"),
            _ => format!("INSERT INTO app.t VALUES ({id}, {n}) ON CONFLICT (id) DO UPDATE SET n = {n}"),
        };
        ok(&engine, &ann, &sql, &[]).await;
        if random.below(9) > 0 && step != 399 {
            continue;
        }
        let table = cells(&ok(&engine, &ann, "SELECT id FROM app.t WHERE n < 5", &[]).await);
        let expected: BTreeSet<i64> = table.iter().map(|row| row[0].parse().unwrap()).collect();
        let frames = caught_up(&engine, &mut told_all.subscription).await;
        told_all.take(&frames);
        let frames = caught_up(&engine, &mut told_less.subscription).await;
        let seen = usize::try_from(random.below(frames.len() as u64 + 1)).unwrap();
        told_less.take(&frames[..seen]);
        if seen < frames.len() {
            // The connection breaks: what it has seen is where it goes on.
            cut_off += 1;
            told_less.subscription = behind(&engine, &ann, Some(told_less.last), true).await;
            let frames = caught_up(&engine, &mut told_less.subscription).await;
            told_less.take(&frames);
        }
        for told in [&told_all, &told_less] {
            assert_eq!(told.rows, expected, "step {step}: {sql}");
            // Behind again.
            engine.router().detach(told.subscription.id());
        }
    }
    assert!(told_less.frames < told_all.frames && cut_off > 5, "{} {}", told_less.frames, told_all.frames);
    drop((told_all, told_less, other));
    engine.close();
}

/// What a subscriber was told of the ids of its rows.
struct Told {
    subscription: Subscription,
    last: Seq,
    rows: BTreeSet<i64>,
    frames: usize,
}

impl Told {
    fn begin(subscription: Subscription) -> Self {
        Self { last: subscription.start_seq(), subscription, rows: BTreeSet::new(), frames: 0 }
    }

    fn take(&mut self, frames: &[ChangeFrame]) {
        self.frames += frames.len();
        for frame in frames {
            assert_eq!(frame.prev_seq, self.last, "the chain is broken");
            self.last = frame.payload.seq;
            let batch = frame.payload.rows.as_ref().or(frame.payload.old_rows.as_ref()).unwrap();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            match frame.payload.kind {
                // Who was cut off is told all of it again.
                ChangeKind::Delete => self.rows.retain(|id| !ids.values().contains(id)),
                _ => self.rows.extend(ids.values()),
            }
        }
    }
}

#[tokio::test]
async fn one_whose_expression_fails_is_set_aside_alone() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    let mut begun = Vec::new();
    for sql in ["SELECT id FROM app.t WHERE 6 / n > 2", "SELECT id FROM app.t"] {
        let sink = Kept::with_room(usize::MAX);
        let request = SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
        let mut subscription = engine.subscribe(&ann, request, Arc::clone(&sink) as _).await.unwrap();
        assert!(subscription.catch_up(1).unwrap().live);
        begun.push((subscription, sink));
    }
    // A few rows that fail the router sorts out, of many their subscriber does.
    ok(&engine, &ann, "INSERT INTO app.t VALUES (1, 0)", &[]).await;
    handed_out(&engine).await;
    assert_eq!(kinds(&begun[0].1.take()), ["Failure"]);
    assert_eq!(kinds(&begun[1].1.take()), ["Insert"]);
    ok(&engine, &ann, "INSERT INTO app.t SELECT value, 0 FROM range(2, 1000)", &[]).await;
    handed_out(&engine).await;
    assert!(begun[0].1.take_lagging() && !begun[1].1.take_lagging());
    assert_eq!(kinds(&begun[0].0.catch_up(1).unwrap().frames), ["Failure"]);
    assert_eq!(kinds(&begun[1].1.take()), ["Insert"]);
    drop(begun);
    engine.close();
}

/// A frame with all that is sent of it.
fn described(frame: &ChangeFrame) -> String {
    let shown = |rows: &Option<RecordBatch>| {
        rows.as_ref().map(|rows| pretty_format_batches(std::slice::from_ref(rows)).unwrap().to_string())
    };
    let payload = &frame.payload;
    format!(
        "{:?} {} after {}, more: {}, at {}: {:?} instead of {:?}",
        payload.kind,
        payload.seq,
        frame.prev_seq,
        frame.more,
        payload.commit_time,
        shown(&payload.rows),
        shown(&payload.old_rows)
    )
}

#[tokio::test]
async fn one_who_reads_many_commits_at_once_gets_what_one_who_is_live_gets() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT, body TEXT)", &[]).await;
    let queries = [
        "SELECT * FROM app.t",
        "SELECT id, upper(body) AS loud, n * 2 AS twice FROM app.t WHERE n % 3 <> 1",
        "SELECT body FROM app.t WHERE n = 2",
    ];
    let mut pairs = Vec::new();
    for sql in queries {
        let request = || SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
        let sink = Kept::with_room(usize::MAX);
        let mut live = engine.subscribe(&ann, request(), Arc::clone(&sink) as _).await.unwrap();
        assert!(live.catch_up(1).unwrap().live);
        let behind = engine.subscribe(&ann, request(), Kept::with_room(0) as _).await.unwrap();
        pairs.push((live, sink, behind));
    }
    let mut random = Random(11);
    for _ in 0..300 {
        let (from, n) = (random.below(30), random.below(6));
        let sql = match random.below(5) {
            0 => format!("DELETE FROM app.t WHERE id BETWEEN {from} AND {from} + 3"),
            1 => format!("UPDATE app.t SET n = n + {n} WHERE id < {from}"),
            2 => format!(
                "BEGIN; DELETE FROM app.t WHERE id = {from}; UPDATE app.t SET body = 'w{n}' WHERE n = {n}; COMMIT"
            ),
            _ => format!(
                "INSERT INTO app.t SELECT value, value % 7, 'b{n}' FROM range({from}, {from} + {n} + 1) ON CONFLICT (id) DO UPDATE SET n = {n}"
            ),
        };
        ok(&engine, &ann, &sql, &[]).await;
    }
    for (_, sink, behind) in &mut pairs {
        let frames = caught_up(&engine, behind).await;
        let caught_up: Vec<String> = frames.iter().map(described).collect();
        let delivered: Vec<String> = sink.take().iter().map(described).collect();
        assert!(caught_up.len() > 50 && !sink.take_lagging(), "{}", caught_up.len());
        assert_eq!(caught_up, delivered);
        assert!(frames.iter().any(|frame| frame.more), "no commit had several frames");
    }
    drop(pairs);
    engine.close();
}

#[tokio::test]
async fn what_comes_before_a_commit_that_fails_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    let other = live(&engine, &ann).await;
    let mut begun = Vec::new();
    for sql in
        ["SELECT id FROM app.t WHERE n <> 0 AND 6 / n > 1", "SELECT id, 6 / (_seq - _seq + n) FROM app.t"]
    {
        let sql = sql.to_owned();
        let request = SubscribeRequest { sql, ..SubscribeRequest::default() };
        begun.push(engine.subscribe(&ann, request, Kept::with_room(0) as _).await.unwrap());
    }
    for (id, n) in [(1, 2), (2, 1), (3, 0), (4, 3), (5, 0)] {
        ok(&engine, &ann, &format!("INSERT INTO app.t VALUES ({id}, {n})"), &[]).await;
    }
    ok(&engine, &ann, "UPDATE app.t SET n = 9 WHERE id = 3", &[]).await;
    handed_out(&engine).await;
    // No row fails the first. The second cannot tell whether the row that is updated was in its result.
    for (subscription, expected) in begun.iter_mut().zip([&[1, 2, 4][..], &[1, 2, 4]]) {
        let (mut told, mut last) = (BTreeMap::new(), subscription.start_seq());
        let is_live = loop {
            match subscription.catch_up(100) {
                Ok(caught_up) => {
                    take_over(&caught_up.frames, &mut last, &mut told);
                    if caught_up.live {
                        break true;
                    }
                }
                Err(error) => {
                    assert!(error.to_string().contains("zero"), "{error}");
                    break false;
                }
            }
        };
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), expected);
        assert_eq!(is_live, subscription.schema().fields().len() == 2);
    }
    drop((begun, other));
    engine.close();
}
