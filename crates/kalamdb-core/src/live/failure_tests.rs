//! Live queries that fail for some rows: what leaves the result, what the subscriber is told, and that the query lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use futures_util::StreamExt;
use log_format::{Role, Seq};

use crate::testing::{Kept, Random, arrived_frames, arrived_until, handed_out, kinds, root, session, texts};
use crate::tests::{ok, open};
use crate::{
    ChangeFrame, ChangeKind, Engine, ErrorCode, RowFailure, Session, SubscribeRequest, Subscription,
};

const TABLE: &str = "CREATE NAMESPACE app; \
    CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, g TEXT, n INT, big BIGINT, word TEXT)";

/// A live query, and a SELECT over the rows for which it does not fail.
const QUERIES: [(&str, &str); 11] = [
    ("SELECT id, 12 / n AS q FROM app.t", "SELECT id, 12 / n AS q FROM app.t WHERE n IS DISTINCT FROM 0"),
    ("SELECT id, word FROM app.t WHERE 12 / n > 3", "SELECT id, word FROM app.t WHERE n <> 0 AND 12 / n > 3"),
    (
        "SELECT id, n FROM app.t WHERE CAST(word AS INT) > 2",
        "SELECT id, n FROM app.t WHERE word <> 'word' AND CAST(word AS INT) > 2",
    ),
    (
        "SELECT id, big + 9223372036854775800 AS far FROM app.t WHERE n <> 3",
        "SELECT id, big + 9223372036854775800 AS far FROM app.t WHERE n <> 3 AND big < 8",
    ),
    (
        "SELECT CAST(word AS INT) / n AS q, id, g FROM app.t WHERE g = 'a'",
        "SELECT CAST(word AS INT) / n AS q, id, g FROM app.t WHERE g = 'a' \
         AND (n IS DISTINCT FROM 0 OR word IS NULL) AND word IS DISTINCT FROM 'word'",
    ),
    (
        "SELECT id, 12 / n AS q FROM app.t ORDER BY q, id LIMIT 5",
        "SELECT id, 12 / n AS q FROM app.t WHERE n IS DISTINCT FROM 0 ORDER BY q, id LIMIT 5",
    ),
    (
        "SELECT id, n FROM app.t WHERE CAST(word AS INT) > 1 ORDER BY n DESC LIMIT 3 OFFSET 1",
        "SELECT id, n FROM app.t WHERE word <> 'word' AND CAST(word AS INT) > 1 ORDER BY n DESC, id LIMIT 3 OFFSET 1",
    ),
    (
        "SELECT count(*) AS c, sum(12 / n) AS s, max(n) AS m FROM app.t",
        "SELECT count(*) AS c, sum(12 / n) AS s, max(n) AS m FROM app.t WHERE n IS DISTINCT FROM 0",
    ),
    (
        "SELECT 12 / n AS q, count(*), min(id) FROM app.t GROUP BY 12 / n",
        "SELECT 12 / n AS q, count(*), min(id) FROM app.t WHERE n IS DISTINCT FROM 0 GROUP BY 12 / n",
    ),
    (
        "SELECT g, sum(CAST(word AS INT)) FILTER (WHERE n > 1) FROM app.t WHERE 12 / n < 12 GROUP BY g",
        "SELECT g, sum(CAST(word AS INT)) FILTER (WHERE n > 1) FROM app.t \
         WHERE n <> 0 AND word IS DISTINCT FROM 'word' AND 12 / n < 12 GROUP BY g",
    ),
    (
        "SELECT g, 100 / sum(n) AS share FROM app.t GROUP BY g",
        "SELECT g, 100 / sum(n) AS share FROM app.t GROUP BY g HAVING sum(n) <> 0 OR sum(n) IS NULL",
    ),
];

/// Rows as text, and how often each is there.
type Rows = BTreeMap<String, usize>;

/// A subscriber, and what it keeps.
struct Watcher {
    sql: String,
    sink: Arc<Kept>,
    subscription: Subscription,
    rows: Rows,
    last: Seq,
    /// The failures of its snapshot and its frames, with their seqs.
    failures: Vec<(Seq, RowFailure)>,
}

impl Watcher {
    async fn begin(engine: &Engine, who: &Session, request: SubscribeRequest, room: usize) -> Self {
        let sink = Kept::with_room(room);
        let sql = request.sql.clone();
        let begun = engine.subscribe(who, request, Arc::clone(&sink) as _).await;
        let mut subscription = begun.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let (mut rows, mut failures) = (Rows::new(), Vec::new());
        if let Some(mut snapshot) = subscription.take_snapshot() {
            failures.extend(snapshot.failure.take().map(|failure| (snapshot.seq, failure)));
            let mut total = 0;
            while let Some(batch) = snapshot.stream.next().await {
                let batch = batch.unwrap();
                total += batch.num_rows() as u64;
                add(&mut rows, &batch);
            }
            assert_eq!(total, snapshot.total_rows, "{sql}");
        }
        let last = subscription.start_seq();
        Self { sql, sink, subscription, rows, last, failures }
    }

    async fn of(engine: &Engine, who: &Session, sql: &str) -> Self {
        let request = SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
        Self::begin(engine, who, request, usize::MAX).await
    }

    fn take(&mut self, frames: &[ChangeFrame]) {
        let sql = &self.sql;
        for frame in frames {
            assert_eq!(frame.prev_seq, self.last, "{sql}: the chain is broken");
            let payload = &frame.payload;
            if let Some(failure) = &payload.failure {
                assert_eq!(payload.kind, ChangeKind::Failure);
                assert!(failure.rows > 0 && payload.seq >= self.last, "{sql}: {failure:?}");
                self.failures.push((payload.seq, failure.clone()));
                continue;
            }
            assert!(payload.seq > self.last || frame.more, "{sql}: a change came twice");
            self.last = payload.seq;
            for row in payload.old_rows.iter().flat_map(texts) {
                let count = self.rows.get_mut(&row).unwrap_or_else(|| panic!("{sql}: {row} was never there"));
                *count -= 1;
                if *count == 0 {
                    self.rows.remove(&row);
                }
            }
            if let Some(batch) = &payload.rows {
                add(&mut self.rows, batch);
            }
        }
    }

    /// Takes everything that was committed until now.
    async fn arrive(&mut self, engine: &Engine) {
        loop {
            loop {
                let caught_up =
                    self.subscription.catch_up(3).unwrap_or_else(|error| panic!("{}: {error}", self.sql));
                self.take(&caught_up.frames);
                if caught_up.to_make {
                    self.subscription.make_anew().await.unwrap();
                }
                if caught_up.live {
                    break;
                }
            }
            handed_out(engine).await;
            let frames = self.sink.take();
            self.take(&frames);
            if !self.sink.take_lagging() {
                return;
            }
        }
    }

    fn last_failure(&self) -> Option<(Seq, ErrorCode, &str, u64)> {
        let (seq, failure) = self.failures.last()?;
        Some((*seq, failure.code, failure.message.as_str(), failure.rows))
    }
}

fn add(rows: &mut Rows, batch: &RecordBatch) {
    for row in texts(batch) {
        *rows.entry(row).or_default() += 1;
    }
}

/// The rows of a SELECT.
async fn select(engine: &Engine, who: &Session, sql: &str) -> Rows {
    let mut executed = engine.execute(&mut who.clone(), sql, &[]).await;
    assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    let mut rows = Rows::new();
    for batch in &executed.results.remove(0).batches {
        add(&mut rows, batch);
    }
    rows
}

fn rows_of(texts: &[&str]) -> Rows {
    texts.iter().map(|text| ((*text).to_owned(), 1)).collect()
}

/// An engine with the table, and one of its users.
async fn app(directory: &tempfile::TempDir) -> (Engine, Session) {
    let engine = open(directory.path());
    ok(&engine, &root(), TABLE, &[]).await;
    (engine, session("ann", Role::User))
}

async fn set_n(engine: &Engine, who: &Session, id: i64, n: i64) {
    let sql = format!("INSERT INTO app.t (id, n) VALUES ({id}, {n}) ON CONFLICT (id) DO UPDATE SET n = {n}");
    ok(engine, who, &sql, &[]).await;
}

#[tokio::test]
async fn a_row_that_fails_is_deleted_and_comes_back_repaired() {
    for sql in ["SELECT id, 12 / n AS q FROM app.t", "SELECT id FROM app.t WHERE 12 / n > 1"] {
        let directory = tempfile::tempdir().unwrap();
        let (engine, ann) = app(&directory).await;
        set_n(&engine, &ann, 1, 2).await;
        let mut watcher = Watcher::of(&engine, &ann, sql).await;
        for n in [0, 0, 3] {
            set_n(&engine, &ann, 1, n).await;
        }
        set_n(&engine, &ann, 2, 0).await;
        ok(&engine, &ann, "DELETE FROM app.t WHERE id = 2", &[]).await;
        set_n(&engine, &ann, 3, 4).await;
        let frames = arrived_frames(&watcher.sink, &mut watcher.subscription, 6).await;
        assert_eq!(kinds(&frames), ["Delete", "Failure", "Failure", "Insert", "Failure", "Insert"], "{sql}");
        assert_eq!(frames[0].payload.seq, frames[1].payload.seq, "the error has the seq of the change");
        let failure = frames[1].payload.failure.as_ref().unwrap();
        assert_eq!(failure.code, ErrorCode::SqlExecutionError);
        assert!(failure.message.contains("zero"), "{failure:?}");
        watcher.take(&frames);
        assert_eq!(watcher.rows.len(), 2, "{:?}", watcher.rows);
        drop(watcher);
        engine.close();
    }
}

#[tokio::test]
async fn a_failure_has_the_code_and_words_of_the_select() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let sql = "SELECT id, CAST(word AS INT) AS number FROM app.t";
    let mut watcher = Watcher::of(&engine, &ann, sql).await;
    ok(&engine, &ann, "INSERT INTO app.t (id, word) VALUES (1, 'one')", &[]).await;
    watcher.arrive(&engine).await;
    let error = engine.execute(&mut ann.clone(), sql, &[]).await.error.unwrap();
    let (seq, code, message, rows) = watcher.last_failure().unwrap();
    assert_eq!((seq, code, rows), (engine.published(), error.code(), 1));
    assert_eq!(message, error.to_string());
    drop(watcher);
    engine.close();
}

#[tokio::test]
async fn rows_of_one_commit_that_fail_are_told_of_once() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.t (id, n) VALUES (1, 1), (2, 2), (3, 3), (4, 4)", &[]).await;
    let mut watcher = Watcher::of(&engine, &ann, "SELECT id, 12 / n AS q FROM app.t").await;
    let changes = "BEGIN; UPDATE app.t SET n = 0 WHERE id = 1; INSERT INTO app.t (id, n) VALUES (5, 0), (6, 6); \
                   UPDATE app.t SET n = 0 WHERE id = 2; DELETE FROM app.t WHERE id = 3; \
                   UPDATE app.t SET n = 2 WHERE id = 4; COMMIT";
    let before = engine.published();
    ok(&engine, &ann, changes, &[]).await;
    let is_all =
        |frames: &[ChangeFrame]| frames.last().is_some_and(|last| last.payload.seq == engine.published());
    let (_, frames) = arrived_until(&watcher.sink, &mut watcher.subscription, is_all).await;
    let failures: Vec<_> = frames.iter().filter_map(|frame| frame.payload.failure.as_ref()).collect();
    assert_eq!(failures.iter().map(|failure| failure.rows).collect::<Vec<_>>(), [3]);
    assert!(frames.is_sorted_by_key(|frame| frame.payload.seq), "{:?}", kinds(&frames));
    assert!(frames.iter().rev().skip(1).all(|frame| frame.more) && !frames.last().unwrap().more);
    watcher.take(&frames);
    assert_eq!(watcher.rows, rows_of(&["4|6", "6|2"]));
    // From between the frames it goes on with what is left of the commit.
    for (at, frame) in frames.iter().enumerate() {
        let from = Some(frame.payload.seq.max(before));
        let request = SubscribeRequest { sql: watcher.sql.clone(), from, ..SubscribeRequest::default() };
        let mut resumed = Watcher::begin(&engine, &ann, request, usize::MAX).await;
        let rest = resumed.subscription.catch_up(100).unwrap().frames;
        let later = frames.iter().skip(at + 1).filter(|later| later.payload.seq > frame.payload.seq);
        let later: Vec<_> = later.map(|later| (later.payload.kind, later.payload.seq)).collect();
        assert_eq!(rest.iter().map(|it| (it.payload.kind, it.payload.seq)).collect::<Vec<_>>(), later);
    }
    drop(watcher);
    engine.close();
}

#[tokio::test]
async fn a_snapshot_leaves_out_rows_that_fail_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let fill = "INSERT INTO app.t (id, n, word) SELECT value, value % 5, CASE WHEN value % 5 = 4 THEN 'word' ELSE '7' END FROM range(0, 9000)";
    ok(&engine, &ann, fill, &[]).await;
    for (sql, last_rows, rows, failed) in [
        ("SELECT id, 12 / n AS q FROM app.t", None, 7200, 1800),
        ("SELECT id FROM app.t WHERE CAST(word AS INT) = 7", None, 7200, 1800),
        ("SELECT 12 / n AS q, CAST(word AS INT) AS w FROM app.t WHERE id >= 8990", None, 6, 4),
        // Of the newest rows those that fail are skipped: 8999 and 8994, not 8989.
        ("SELECT id FROM app.t WHERE CAST(word AS INT) = 7", Some(8), 8, 2),
        ("SELECT id FROM app.t WHERE CAST(word AS INT) = 7", Some(10_000), 7200, 1800),
        ("SELECT id FROM app.t WHERE CAST(word AS INT) = 7", Some(0), 0, 0),
        ("SELECT id, 12 / n AS q FROM app.t WHERE n <> 0", None, 7200, 0),
        ("SELECT count(*) AS c, sum(12 / n) AS s FROM app.t", None, 1, 1800),
        ("SELECT id, 12 / n AS q FROM app.t ORDER BY q DESC LIMIT 7", None, 7, 1800),
    ] {
        let request = SubscribeRequest { sql: sql.to_owned(), last_rows, ..SubscribeRequest::default() };
        let mut watcher = Watcher::begin(&engine, &ann, request, usize::MAX).await;
        assert_eq!(watcher.rows.values().sum::<usize>(), rows, "{sql} {last_rows:?}");
        let failure = watcher.last_failure().map(|(seq, _, _, rows)| (seq, rows));
        let expected = (failed > 0).then(|| (engine.published(), failed));
        assert_eq!(failure, expected, "{sql} {last_rows:?}");
        // It goes on.
        assert!(watcher.subscription.catch_up(10).unwrap().live, "{sql}");
    }
    engine.close();
}

#[tokio::test]
async fn a_failure_of_one_user_is_told_to_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let bob = session("bob", Role::User);
    let sql = "SELECT id, CAST(word AS INT) AS number FROM app.t";
    let insert = "INSERT INTO app.t (id, word) VALUES (1, 'of ann')";
    let mut of_bob = Watcher::of(&engine, &bob, sql).await;
    let mut of_ann = Watcher::of(&engine, &ann, sql).await;
    of_bob.arrive(&engine).await;
    of_ann.arrive(&engine).await;
    ok(&engine, &ann, insert, &[]).await;
    of_bob.arrive(&engine).await;
    of_ann.arrive(&engine).await;
    assert!(of_ann.last_failure().unwrap().2.contains("of ann"));
    assert!(of_bob.failures.is_empty() && of_bob.rows.is_empty());
    let later = Watcher::of(&engine, &bob, sql).await;
    assert!(later.failures.is_empty(), "{:?}", later.failures);
    let from = Some(of_bob.last);
    let request = SubscribeRequest { sql: sql.to_owned(), from, ..SubscribeRequest::default() };
    let mut resumed = Watcher::begin(&engine, &bob, request, 0).await;
    assert!(resumed.subscription.catch_up(10).unwrap().frames.is_empty());
    drop((of_ann, of_bob, later, resumed));
    engine.close();
}

#[tokio::test]
async fn rows_and_groups_that_fail_count_for_nothing_in_aggregates() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.t (id, g, n) VALUES (1, 'a', 2), (2, 'a', 3), (3, 'b', 4)", &[]).await;
    let mut sums = Watcher::of(&engine, &ann, "SELECT count(*) AS c, sum(12 / n) AS s FROM app.t").await;
    let mut shares = Watcher::of(&engine, &ann, "SELECT g, 12 / sum(n) AS share FROM app.t GROUP BY g").await;
    for (change, sum, share, failed) in [
        ("UPDATE app.t SET n = 0 WHERE id = 3", "2|10", &["a|2"][..], (1, 1)),
        ("INSERT INTO app.t (id, g, n) VALUES (4, 'b', 6)", "3|12", &["a|2", "b|2"], (1, 1)),
        ("DELETE FROM app.t WHERE id = 3", "3|12", &["a|2", "b|2"], (1, 1)),
        ("UPDATE app.t SET n = n - 6 WHERE g = 'b'", "2|10", &["a|2"], (2, 2)),
    ] {
        ok(&engine, &ann, change, &[]).await;
        sums.arrive(&engine).await;
        shares.arrive(&engine).await;
        assert_eq!((&sums.rows, &shares.rows), (&rows_of(&[sum]), &rows_of(share)), "{change}");
        assert_eq!((sums.failures.len(), shares.failures.len()), failed, "{change}");
    }
    drop((sums, shares));
    engine.close();
}

#[tokio::test]
async fn what_is_told_together_tells_of_failures_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.t (id, n) VALUES (1, 1), (2, 2)", &[]).await;
    let sql = "SELECT id, 12 / n AS q FROM app.t".to_owned();
    let request = SubscribeRequest { sql, coalesce: true, ..SubscribeRequest::default() };
    // The router is at the end: who was here first and behind would be where it begins.
    let mut other = Watcher::of(&engine, &ann, "SELECT id FROM app.t").await;
    other.arrive(&engine).await;
    let mut watcher = Watcher::begin(&engine, &ann, request, 0).await;
    for (id, n) in [(1, 0), (2, 0), (3, 3), (2, 4), (4, 4)] {
        set_n(&engine, &ann, id, n).await;
    }
    handed_out(&engine).await;
    let frames = watcher.subscription.catch_up(100).unwrap().frames;
    assert_eq!(kinds(&frames), ["Delete", "Insert", "Update", "Insert", "Failure"]);
    assert_eq!(frames.iter().map(|frame| frame.more).collect::<Vec<_>>(), [true, true, true, false, false]);
    assert_eq!(frames.last().unwrap().payload.seq, engine.published());
    watcher.take(&frames);
    assert_eq!(watcher.rows, rows_of(&["2|3", "3|4", "4|3"]));
    assert_eq!(watcher.last_failure().unwrap().3, 1, "row 2 was repaired before it was told");
    drop((watcher, other));
    engine.close();
}

#[tokio::test]
async fn a_result_computed_anew_tells_only_of_new_failures() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    ok(&engine, &ann, "INSERT INTO app.t (id, n) SELECT value, value FROM range(0, 30)", &[]).await;
    let sql = "SELECT id, 60 / n AS q FROM app.t ORDER BY n LIMIT 3";
    let mut watcher = Watcher::of(&engine, &ann, sql).await;
    assert_eq!(watcher.last_failure().unwrap().3, 1);
    assert_eq!(watcher.rows, rows_of(&["1|60", "2|30", "3|20"]));
    watcher.arrive(&engine).await;
    // More of the first rows go than are kept to spare.
    ok(&engine, &ann, "DELETE FROM app.t WHERE n BETWEEN 1 AND 10", &[]).await;
    watcher.arrive(&engine).await;
    assert_eq!(watcher.rows, rows_of(&["11|5", "12|5", "13|4"]));
    assert_eq!(watcher.failures.len(), 1, "the row that fails was told of");
    // A resume is told of what fails since.
    let (from, rows) = (watcher.last, watcher.rows.clone());
    drop(watcher);
    set_n(&engine, &ann, 12, 0).await;
    let request = SubscribeRequest { sql: sql.to_owned(), from: Some(from), ..SubscribeRequest::default() };
    let mut resumed = Watcher::begin(&engine, &ann, request, usize::MAX).await;
    resumed.rows = rows;
    resumed.arrive(&engine).await;
    assert_eq!(resumed.rows, rows_of(&["11|5", "13|4", "14|4"]));
    assert_eq!(resumed.last_failure().map(|it| (it.0, it.3)), Some((engine.published(), 1)));
    drop(resumed);
    engine.close();
}

#[tokio::test]
async fn many_rows_that_fail_are_sorted_out_behind_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let mut watcher = Watcher::of(&engine, &ann, "SELECT id, 12 / n AS q FROM app.t").await;
    let mut sums = Watcher::of(&engine, &ann, "SELECT count(12 / n) AS c FROM app.t").await;
    watcher.arrive(&engine).await;
    sums.arrive(&engine).await;
    ok(&engine, &ann, "INSERT INTO app.t (id, n) SELECT value, value % 3 FROM range(0, 3000)", &[]).await;
    handed_out(&engine).await;
    assert!(watcher.sink.take().is_empty(), "the router judges no such number of rows one by one");
    watcher.arrive(&engine).await;
    sums.arrive(&engine).await;
    assert_eq!(watcher.rows.len(), 2000);
    assert_eq!(sums.rows, rows_of(&["2000"]));
    for watcher in [&watcher, &sums] {
        assert_eq!(watcher.failures.iter().map(|(_, failure)| failure.rows).collect::<Vec<_>>(), [1000]);
    }
    drop((watcher, sums));
    engine.close();
}

#[tokio::test]
async fn a_query_that_fails_for_no_reason_of_a_row_ends() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let mut watcher = Watcher::of(&engine, &ann, "SELECT id, 12 / (_seq - _seq + n) AS q FROM app.t").await;
    set_n(&engine, &ann, 1, 0).await;
    watcher.arrive(&engine).await;
    assert_eq!(watcher.failures.len(), 1);
    set_n(&engine, &ann, 1, 3).await;
    handed_out(&engine).await;
    // The log does not have the `_seq` of the row before: whether it was in the result cannot be told.
    assert!(watcher.sink.take_lagging());
    let error = watcher.subscription.catch_up(10).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SqlExecutionError);
    drop(watcher);
    engine.close();
}

/// A frame with all that is sent of it.
fn described(frame: &ChangeFrame) -> String {
    let payload = &frame.payload;
    let shown = |rows: &Option<RecordBatch>| rows.as_ref().map(texts);
    format!(
        "{:?} {} after {}, more: {}: {:?} instead of {:?}, {:?}",
        payload.kind,
        payload.seq,
        frame.prev_seq,
        frame.more,
        shown(&payload.rows),
        shown(&payload.old_rows),
        payload.failure
    )
}

fn statement(random: &mut Random, step: u64) -> String {
    let (id, n, big) = (random.below(25), random.below(6), random.below(10));
    let group = ["'a'", "'b'", "NULL"][random.index(3)];
    let word = ["'word'", "'1'", "'2'", "'3'", "'4'", "NULL"][random.index(6)];
    let n = if random.below(9) == 0 { "NULL".to_owned() } else { n.to_string() };
    match random.below(12) {
        0..=5 => format!(
            "INSERT INTO app.t VALUES ({id}, {group}, {n}, {big}, {word}) \
             ON CONFLICT (id) DO UPDATE SET g = {group}, n = {n}, big = {big}, word = {word}"
        ),
        6 => format!("UPDATE app.t SET n = {n} WHERE id BETWEEN {id} AND {id} + 4"),
        7 => format!("UPDATE app.t SET word = {word}, big = {big} WHERE g = {group}"),
        8 => format!("DELETE FROM app.t WHERE id = {id}"),
        9 => format!(
            "BEGIN; DELETE FROM app.t WHERE id = {id}; UPDATE app.t SET n = 0 WHERE n = {n}; \
             UPDATE app.t SET word = 'word' WHERE big = {big}; COMMIT"
        ),
        10 if step.is_multiple_of(40) => "DELETE FROM app.t WHERE id % 2 = 0".to_owned(),
        _ => format!("UPDATE app.t SET n = {n}, word = '2' WHERE n = 0"),
    }
}

#[tokio::test]
async fn results_are_the_select_over_rows_that_do_not_fail() {
    const STEPS: u64 = 120;
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let bob = session("bob", Role::User);
    let mut random = Random(29);
    let (mut watchers, mut states, mut failed) = (Vec::new(), Vec::new(), 0);
    for (sql, oracle) in QUERIES {
        let request = || SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
        watchers.push([
            Watcher::begin(&engine, &ann, request(), usize::MAX).await,
            Watcher::begin(&engine, &ann, request(), 1).await,
        ]);
        states.push(vec![(engine.published(), select(&engine, &ann, oracle).await)]);
    }
    for step in 0..STEPS {
        let sql = statement(&mut random, step);
        ok(&engine, &ann, &sql, &[]).await;
        // Somebody else's rows fail, too.
        ok(&engine, &bob, &statement(&mut random, step), &[]).await;
        for (at, (live, oracle)) in QUERIES.into_iter().enumerate() {
            let expected = select(&engine, &ann, oracle).await;
            for watcher in &mut watchers[at] {
                watcher.arrive(&engine).await;
                assert_eq!(watcher.rows, expected, "step {step}: {live} after {sql}");
            }
            states[at].push((engine.published(), expected.clone()));
            if random.below(5) == 0 {
                // A connection breaks, and goes on from what it has seen: of now, or of long ago.
                let back = random.index(states[at].len().min(20));
                let (from, rows) = states[at][states[at].len() - 1 - back].clone();
                let request = SubscribeRequest {
                    sql: live.to_owned(),
                    from: Some(from),
                    ..SubscribeRequest::default()
                };
                let mut resumed = Watcher::begin(&engine, &ann, request, usize::MAX).await;
                resumed.rows = rows;
                resumed.arrive(&engine).await;
                assert_eq!(resumed.rows, expected, "step {step}: {live} from {from}");
                failed += watchers[at][0].failures.len();
                watchers[at][0] = resumed;
            }
            if random.below(20) == 0 {
                let fresh = Watcher::of(&engine, &ann, live).await;
                assert_eq!(fresh.rows, expected, "step {step}: the snapshot of {live}");
            }
        }
    }
    failed += watchers.iter().map(|pair| pair[1].failures.len()).sum::<usize>();
    assert!(failed > 100, "only {failed} failures");
    drop(watchers);
    engine.close();
}

#[tokio::test]
async fn who_reads_the_log_is_told_of_failures_as_who_is_live() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let mut pairs = Vec::new();
    for (sql, _) in &QUERIES[..5] {
        let mut live = Watcher::of(&engine, &ann, sql).await;
        live.arrive(&engine).await;
        let request = SubscribeRequest { sql: (*sql).to_owned(), ..SubscribeRequest::default() };
        pairs.push((live, Watcher::begin(&engine, &ann, request, 0).await));
    }
    let mut random = Random(31);
    for step in 0..200 {
        ok(&engine, &ann, &statement(&mut random, step), &[]).await;
    }
    handed_out(&engine).await;
    for (live, behind) in &mut pairs {
        let delivered: Vec<String> = live.sink.take().iter().map(described).collect();
        let mut read = Vec::new();
        loop {
            let caught_up = behind.subscription.catch_up(50).unwrap();
            read.extend(caught_up.frames.iter().map(described));
            if caught_up.live {
                break;
            }
        }
        assert!(!live.sink.take_lagging() && delivered.iter().any(|it| it.starts_with("Failure")));
        assert_eq!(read, delivered, "{}", live.sql);
    }
    drop(pairs);
    engine.close();
}
