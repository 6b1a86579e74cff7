//! Rows of STREAM tables that go by themselves, and those who want to be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Int64Type;
use log_format::Seq;

use crate::live::ChangeKind;
use crate::testing::{Kept, root};
use crate::tests::{ok, open};
use crate::{ChangeFrame, Engine, Error, SubscribeRequest, Subscription};

/// One who keeps what it is told.
struct Listener {
    subscription: Subscription,
    sink: Arc<Kept>,
    is_live: bool,
    last: Seq,
    rows: BTreeMap<i64, i64>,
    deletes: usize,
}

impl Listener {
    async fn begin(engine: &Engine, from: Option<Seq>) -> Result<Self, Error> {
        let sink = Kept::with_room(2);
        let request = SubscribeRequest {
            sql: "SELECT n, m FROM s WHERE m < 5".to_owned(),
            from,
            notify_evicted: true,
            ..SubscribeRequest::default()
        };
        let subscription = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await?;
        let last = subscription.start_seq();
        Ok(Self { subscription, sink, is_live: false, last, rows: BTreeMap::new(), deletes: 0 })
    }

    fn take(&mut self, frames: &[ChangeFrame]) {
        for frame in frames {
            assert_eq!(frame.prev_seq, self.last, "the chain is broken");
            self.last = frame.payload.seq;
            let batch = frame.payload.rows.as_ref().or(frame.payload.old_rows.as_ref()).unwrap();
            let of = |name: &str| batch.column_by_name(name).unwrap();
            let numbers = of("n").as_primitive::<Int64Type>().values();
            let others = of("m").as_primitive::<Int64Type>().values();
            for (n, m) in numbers.iter().zip(others) {
                assert!(*m < 5, "a row that does not match");
                if frame.payload.kind == ChangeKind::Delete {
                    self.deletes += 1;
                    assert_eq!(self.rows.remove(n), Some(*m), "{n} went twice, or was never told");
                } else {
                    assert_eq!(self.rows.insert(*n, *m), None, "{n} came twice");
                }
            }
            let seqs = of("_seq").as_primitive::<Int64Type>();
            assert_eq!(seqs.null_count() > 0, frame.more && frame.payload.kind == ChangeKind::Delete);
        }
    }

    fn look(&mut self) {
        let frames = self.sink.take();
        self.take(&frames);
        if self.sink.take_lagging() {
            // What came before it was set aside.
            let frames = self.sink.take();
            self.take(&frames);
            self.is_live = false;
        }
        if !self.is_live {
            let caught_up = self.subscription.catch_up(3).unwrap();
            self.take(&caught_up.frames);
            self.is_live = caught_up.live;
        }
    }

    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let arrive = async {
            while !is_so(self) {
                self.look();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(2), arrive).await.unwrap();
    }
}

async fn append(engine: &Engine, numbers: std::ops::Range<i64>) {
    let rows: Vec<String> = numbers.map(|n| format!("({n}, {})", n % 10)).collect();
    ok(engine, &root(), &format!("INSERT INTO s VALUES {}", rows.join(", ")), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_go_by_themselves_are_told_to_those_who_ask() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE STREAM TABLE s (n BIGINT, m BIGINT) MAX_BUFFER 20", &[]).await;
    let mut listener = Listener::begin(&engine, None).await.unwrap();
    for step in 0..8 {
        append(&engine, step * 25..(step + 1) * 25).await;
    }
    let newest = |listener: &Listener| listener.rows.keys().copied().eq((180..200).filter(|n| n % 10 < 5));
    listener.until(newest).await;
    // Away for a while: of what came and went meanwhile both is told.
    let (last, rows) = (listener.last, listener.rows.clone());
    drop(listener);
    for step in 8..12 {
        append(&engine, step * 25..(step + 1) * 25).await;
    }
    let evicted = async {
        while engine.published() < Seq::new(last.get() + 101) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), evicted).await.unwrap();
    let mut resumed = Listener::begin(&engine, Some(last)).await.unwrap();
    resumed.rows = rows;
    resumed.until(|it| it.rows.keys().copied().eq((280..300).filter(|n| n % 10 < 5))).await;
    assert_eq!(resumed.deletes, 50, "what it had, and what it missed");
    drop(resumed);
    engine.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_that_go_at_once_are_one_change() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE STREAM TABLE s (n BIGINT, m BIGINT) TTL '1s'", &[]).await;
    let mut listener = Listener::begin(&engine, None).await.unwrap();
    append(&engine, 0..5000).await;
    listener.until(|it| it.deletes == 2500 && it.rows.is_empty()).await;
    assert_eq!(listener.last, engine.published(), "the last frame has the seq of the eviction");
    drop(listener);
    engine.close();
}
