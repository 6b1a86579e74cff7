//! Subscribers that are behind and may be told less.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log_format::Role;

use crate::live::ChangeKind;
use crate::testing::{Kept, cells, materialise, root, session, take_over};
use crate::tests::{ok, open};
use crate::{ChangeFrame, Engine, Session, SubscribeRequest, Subscription};

async fn behind(engine: &Engine, who: &Session, coalesce: bool) -> Subscription {
    let sql = "SELECT id FROM app.t WHERE n < 5".to_owned();
    let request = SubscribeRequest { sql, coalesce, ..SubscribeRequest::default() };
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
    let handed_out = async {
        while !engine.router().is_at(engine.router().feed().published()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), handed_out).await.unwrap();
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
    let mut subscription = behind(&engine, &ann, true).await;
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
    let mut watchers = Vec::new();
    for coalesce in [false, true] {
        let subscription = behind(&engine, &ann, coalesce).await;
        let last = subscription.start_seq();
        watchers.push((subscription, last, BTreeMap::new(), 0));
    }
    let mut state = 7_u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    for step in 0..400 {
        let (id, n) = (below(12), below(8));
        let sql = match below(3) {
            0 => format!("DELETE FROM app.t WHERE id = {id}"),
            1 => format!("UPDATE app.t SET n = {n} WHERE id = {id}"),
            _ => format!("INSERT INTO app.t VALUES ({id}, {n}) ON CONFLICT (id) DO UPDATE SET n = {n}"),
        };
        ok(&engine, &ann, &sql, &[]).await;
        if below(9) > 0 && step != 399 {
            continue;
        }
        let select = "SELECT id, _seq FROM app.t WHERE n < 5 ORDER BY id";
        let number = |text: &str| text.parse::<i64>().unwrap();
        let table = cells(&ok(&engine, &ann, select, &[]).await);
        let expected: BTreeMap<i64, i64> =
            table.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
        for (subscription, last, rows, frames) in &mut watchers {
            let caught_up = caught_up(&engine, subscription).await;
            *frames += caught_up.len();
            take_over(&caught_up, last, rows);
            assert_eq!(*rows, expected, "step {step}: {sql}");
            // Behind again.
            engine.router().detach(subscription.id());
        }
    }
    let frames: Vec<usize> = watchers.iter().map(|watcher| watcher.3).collect();
    assert!(frames[1] < frames[0], "{frames:?}");
    drop((watchers, other));
    engine.close();
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
    ok(&engine, &ann, "INSERT INTO app.t VALUES (1, 0)", &[]).await;
    let handed_out = async {
        while !engine.router().is_at(engine.router().feed().published()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), handed_out).await.unwrap();
    assert!(begun[0].1.take_lagging() && begun[0].0.catch_up(1).is_err());
    assert!(!begun[1].1.take_lagging() && begun[1].1.take().len() == 1);
    drop(begun);
    engine.close();
}
