//! Results that are kept up to date beside the same query run anew, after every statement: through lagging, flushes, ALTERs,
//! restarts and resumes from any seq.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use futures_util::StreamExt;
use log_format::{Role, Seq};

use super::aggregate::GROUPS_MAX;
use crate::testing::{Kept, Random, all_done, arrived_until, handed_out, root, session, texts, until};
use crate::tests::{ok, open};
use crate::{ChangeFrame, Engine, Error, ErrorCode, Session, SubscribeRequest, Subscription};

/// Each with the same, all ties decided by the key, as a SELECT.
const QUERIES: [(&str, &str); 18] = [
    ("SELECT id, n FROM app.t ORDER BY n LIMIT 5", "SELECT id, n FROM app.t ORDER BY n, id LIMIT 5"),
    (
        "SELECT id, g FROM app.t WHERE n > 3 ORDER BY g DESC, n LIMIT 4 OFFSET 2",
        "SELECT id, g FROM app.t WHERE n > 3 ORDER BY g DESC, n, id LIMIT 4 OFFSET 2",
    ),
    (
        "SELECT id, n + 1 AS m FROM app.t ORDER BY m DESC NULLS LAST LIMIT 3",
        "SELECT id, n + 1 AS m FROM app.t ORDER BY m DESC NULLS LAST, id LIMIT 3",
    ),
    (
        "SELECT upper(g) AS h FROM app.t ORDER BY x NULLS FIRST LIMIT 70",
        "SELECT upper(g) AS h FROM app.t ORDER BY x NULLS FIRST, id LIMIT 70",
    ),
    ("SELECT id FROM app.t ORDER BY _seq DESC LIMIT 5", "SELECT id FROM app.t ORDER BY _seq DESC LIMIT 5"),
    (
        "SELECT id, d FROM app.t WHERE g = 'b' ORDER BY 2, 1 DESC LIMIT 2",
        "SELECT id, d FROM app.t WHERE g = 'b' ORDER BY 2, 1 DESC LIMIT 2",
    ),
    ("SELECT count(*) FROM app.t", ""),
    ("SELECT count(n), sum(n), min(n), max(n), avg(n) FROM app.t", ""),
    ("SELECT sum(x), avg(x), min(x), max(x) FROM app.t WHERE n < 7", ""),
    ("SELECT g, count(*) AS c, sum(d), avg(d) FROM app.t GROUP BY g", ""),
    ("SELECT g, count(*) FROM app.t GROUP BY g HAVING count(*) > 2 AND max(n) > 4", ""),
    ("SELECT g, min(x), max(g || 'x'), sum(x) FILTER (WHERE n > 2) FROM app.t GROUP BY g", ""),
    ("SELECT n % 3 AS r, max(id) - min(id) AS spread, max(d) FROM app.t GROUP BY n % 3", ""),
    ("SELECT count(*) AS c, max(t.id) FROM app.t AS t WHERE t.g = 'a'", ""),
    ("SELECT count(*) FROM app.t WHERE g LIKE 'b%' OR n IS NULL", ""),
    ("SELECT g, n, count(*) FROM app.t GROUP BY g, n", ""),
    ("SELECT min(g), max(g), min(d), sum(n + 1) * 2 FROM app.t", ""),
    ("SELECT sum(id), min(id) FROM app.t WHERE id > 10", ""),
];

/// The query whose order is none of the rows' own.
const BY_SEQ: usize = 4;

/// Rows as text, and how often each is there.
type Rows = BTreeMap<String, usize>;

fn seqs(batch: &RecordBatch) -> Vec<Option<i64>> {
    batch.column_by_name("_seq").unwrap().as_primitive::<Int64Type>().iter().collect()
}

/// A subscriber of one of the queries, and what it has.
struct Watcher {
    query: usize,
    sink: Arc<Kept>,
    subscription: Subscription,
    rows: Rows,
    last: Seq,
    is_live: bool,
}

async fn subscribe(
    engine: &Engine,
    who: &Session,
    query: usize,
    room: usize,
    from: Option<(Seq, Rows)>,
) -> Result<Watcher, ErrorCode> {
    let sink = Kept::with_room(room);
    let request = SubscribeRequest {
        sql: QUERIES[query].0.to_owned(),
        from: from.as_ref().map(|(seq, _)| *seq),
        ..SubscribeRequest::default()
    };
    let begun = engine.subscribe(who, request, Arc::clone(&sink) as _).await;
    let mut subscription = begun.map_err(|error| error.code())?;
    let (mut rows, last) = (from.map(|(_, rows)| rows).unwrap_or_default(), subscription.start_seq());
    if let Some(mut snapshot) = subscription.take_snapshot() {
        let mut total = 0;
        while let Some(batch) = snapshot.stream.next().await {
            let batch = batch.unwrap();
            total += batch.num_rows() as u64;
            for row in texts(&batch) {
                *rows.entry(row).or_default() += 1;
            }
            let sent = snapshot.seq.get().cast_signed();
            assert!(seqs(&batch).iter().all(|seq| seq.is_some_and(|seq| seq <= sent)));
        }
        assert_eq!(total, snapshot.total_rows);
    }
    Ok(Watcher { query, sink, subscription, rows, last, is_live: false })
}

impl Watcher {
    fn take(&mut self, frames: &[ChangeFrame]) {
        let mut is_open = false;
        for frame in frames {
            let (payload, sql) = (&frame.payload, QUERIES[self.query].0);
            assert_eq!(frame.prev_seq, self.last, "{sql}: the chain is broken");
            if frame.more {
                assert_eq!(payload.seq, self.last, "{sql}: cut off here one would lose the rest");
            } else {
                assert!(payload.seq > self.last, "{sql}: a change came twice");
            }
            let seq = (!frame.more).then(|| payload.seq.get().cast_signed());
            for batch in [&payload.rows, &payload.old_rows].into_iter().flatten() {
                assert!(seqs(batch).iter().all(|it| *it == seq), "{sql}");
            }
            for row in payload.old_rows.iter().flat_map(texts) {
                let count = self.rows.get_mut(&row).unwrap_or_else(|| panic!("{sql}: {row} was never there"));
                *count -= 1;
                if *count == 0 {
                    self.rows.remove(&row);
                }
            }
            for row in payload.rows.iter().flat_map(texts) {
                *self.rows.entry(row).or_default() += 1;
            }
            (self.last, is_open) = (payload.seq, frame.more);
        }
        assert!(!is_open, "half a commit came");
    }

    /// Takes everything that was committed until now.
    async fn arrive(&mut self, engine: &Engine) {
        loop {
            while !self.is_live {
                let caught_up = self.subscription.catch_up(3).unwrap();
                self.take(&caught_up.frames);
                self.is_live = caught_up.live;
                if caught_up.to_make {
                    self.subscription.make_anew().await.unwrap();
                }
            }
            handed_out(engine).await;
            let frames = self.sink.take();
            self.take(&frames);
            if !self.sink.take_lagging() {
                return;
            }
            self.is_live = false;
        }
    }
}

/// What the query says when it is run.
async fn run(engine: &Engine, who: &Session, query: usize) -> Rows {
    let (live, select) = QUERIES[query];
    let sql = if select.is_empty() { live } else { select };
    let mut executed = engine.execute(&mut who.clone(), sql, &[]).await;
    assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    let mut rows = Rows::new();
    for row in executed.results.remove(0).batches.iter().flat_map(texts) {
        *rows.entry(row).or_default() += 1;
    }
    rows
}

fn statement(random: &mut Random, step: u64) -> String {
    let id = random.below(40);
    let group = ["'a'", "'b'", "'bb'", "NULL"][random.index(4)];
    let n = if random.below(6) == 0 { "NULL".to_owned() } else { random.below(10).to_string() };
    // Sixteenths: what DataFusion adds up has no rounding either.
    let x = f64::from(u16::try_from(random.below(4000)).unwrap()) / 16.0;
    match random.below(20) {
        0..=8 => format!(
            "INSERT INTO app.t (id, g, n, d, x) VALUES ({id}, {group}, {n}, {}.{:02}, {x}) ON CONFLICT (id) DO UPDATE SET n = {n}, x = {x}",
            random.below(100),
            random.below(100)
        ),
        9..=11 => format!("UPDATE app.t SET g = {group}, n = {n} WHERE id = {id}"),
        12 => format!("UPDATE app.t SET d = d + 1.5, x = NULL WHERE n = {}", random.below(10)),
        13..=15 => format!("DELETE FROM app.t WHERE id = {id}"),
        16 => format!("DELETE FROM app.t WHERE n > {}", 5 + random.below(5)),
        17 => "STORAGE FLUSH TABLE app.t".to_owned(),
        18 => format!("ALTER TABLE app.t ADD COLUMN c{step} INT DEFAULT 7"),
        _ => format!(
            "BEGIN; DELETE FROM app.t WHERE id = {id}; INSERT INTO app.t (id, g, n, x) VALUES ({id}, {group}, {n}, {x}); UPDATE app.t SET n = 1 WHERE id < 3; COMMIT"
        ),
    }
}

async fn follow(seed: u64, steps: u64, kind: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = open(directory.path());
    let ann = session("ann", Role::User);
    let who = if kind == "SHARED" { root() } else { ann.clone() };
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    let create = format!(
        "CREATE {kind} TABLE app.t (id BIGINT PRIMARY KEY, g TEXT, n INT, d DECIMAL(10, 2), x DOUBLE)"
    );
    ok(&engine, &root(), &create, &[]).await;
    let mut random = Random(seed * 2 + 1);
    let mut watchers = Vec::new();
    for query in 0..QUERIES.len() {
        for room in [usize::MAX, 1, 0] {
            watchers.push(subscribe(&engine, &who, query, room, None).await.unwrap());
        }
    }
    let mut history: Vec<Vec<(Seq, Rows)>> = vec![Vec::new(); QUERIES.len()];
    for step in 0..steps {
        let sql = statement(&mut random, step);
        let actor = if sql.starts_with("STORAGE") || sql.starts_with("ALTER") { root() } else { who.clone() };
        ok(&engine, &actor, &sql, &[]).await;
        if sql.starts_with("STORAGE") {
            all_done(&engine).await;
        }
        if step % 97 == 96 {
            drop(watchers);
            engine.close();
            engine = open(directory.path());
            watchers = Vec::new();
            for (query, past) in history.iter().enumerate() {
                for room in [usize::MAX, 1, 0] {
                    // Where in this order a row was then, nobody knows.
                    let from = past.last().cloned().filter(|_| query != BY_SEQ);
                    watchers.push(subscribe(&engine, &who, query, room, from).await.unwrap());
                }
            }
        }
        let is_looked_at = random.below(3) > 0;
        for query in 0..QUERIES.len() {
            let expected = run(&engine, &who, query).await;
            for watcher in watchers.iter_mut().filter(|it| it.query == query) {
                if watcher.sink.room() == 1 && !is_looked_at {
                    continue;
                }
                watcher.arrive(&engine).await;
                assert_eq!(watcher.rows, expected, "seed {seed}, step {step}: {sql}: {}", QUERIES[query].0);
                if watcher.sink.room() == usize::MAX {
                    history[query].push((watcher.last, expected.clone()));
                }
            }
            let resumed = random.index(history[query].len());
            let from = history[query][resumed].clone();
            if random.below(4) == 0 {
                match subscribe(&engine, &who, query, 0, Some(from)).await {
                    Ok(mut watcher) => {
                        watcher.arrive(&engine).await;
                        assert_eq!(watcher.rows, expected, "seed {seed}, step {step}: {}", QUERIES[query].0);
                    }
                    Err(code) => assert_eq!((code, query), (ErrorCode::ResyncRequired, BY_SEQ)),
                }
            }
        }
    }
    drop(watchers);
    engine.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_what_the_query_says_after_every_statement() {
    let seeds = std::env::var("KALAMDB_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        Box::pin(follow(seed, 120, if seed % 2 == 0 { "SHARED" } else { "USER" })).await;
    }
}

async fn begin(engine: &Engine, who: &Session, sql: &str) -> Result<(Subscription, Arc<Kept>), Error> {
    let sink = Kept::with_room(0);
    let request = SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
    Ok((engine.subscribe(who, request, Arc::clone(&sink) as _).await?, sink))
}

#[tokio::test]
async fn what_cannot_be_kept_up_to_date_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    ok(&engine, &root(), "CREATE STREAM TABLE app.s (n INT) TTL '1h'", &[]).await;
    for (sql, expected) in [
        ("SELECT id FROM app.t ORDER BY n", "ORDER BY without LIMIT"),
        ("SELECT id FROM app.t LIMIT 3", "LIMIT without ORDER BY"),
        ("SELECT id FROM app.t ORDER BY n LIMIT 1001", "lower LIMIT"),
        ("SELECT id FROM app.t ORDER BY n LIMIT 10 OFFSET 1000", "lower LIMIT"),
        ("SELECT id FROM app.t ORDER BY random() LIMIT 3", "another one each time"),
        ("SELECT n, count(*) FROM app.t GROUP BY n ORDER BY 2 LIMIT 3", "order them where they are shown"),
        ("SELECT count(DISTINCT n) FROM app.t", "without DISTINCT"),
        ("SELECT stddev(n) FROM app.t", "COUNT, SUM, MIN, MAX and AVG are"),
        ("SELECT max(_seq) FROM app.t", "_seq or _updated"),
        ("SELECT count(*) FROM app.t WHERE _updated > now()", "another one each time"),
        ("SELECT count(*) FROM app.t WHERE _seq > 3", "_seq or _updated"),
        ("SELECT DISTINCT n FROM app.t", "Distinct"),
        ("SELECT n, sum(n) OVER () FROM app.t", "WindowAggr"),
        ("SELECT n, count(*) FROM app.t GROUP BY ROLLUP (n)", "ROLLUP"),
        ("SELECT count(*) FROM app.s", "STREAM"),
        ("SELECT n FROM app.s ORDER BY n LIMIT 3", "STREAM"),
        ("SELECT count(*) FROM system.changes", "STREAM"),
        ("SELECT count(*) FROM app.t WHERE n > (SELECT 1)", "subquery"),
        ("SELECT count(*) FROM app.t UNION SELECT 1", "one table"),
    ] {
        let error = begin(&engine, &root(), sql).await.err().unwrap_or_else(|| panic!("{sql}"));
        let is_known = matches!(error.code(), ErrorCode::Unsupported | ErrorCode::InvalidSql);
        assert!(is_known && error.to_string().contains(expected), "{sql}: {error}");
    }
    engine.close();
}

#[tokio::test]
async fn a_result_that_grows_too_large_ends_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE SHARED TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    let sql = "SELECT n, count(*) FROM app.t GROUP BY n";
    let rows: Vec<String> = (0..GROUPS_MAX).map(|n| format!("({n}, {n})")).collect();
    ok(&engine, &root(), &format!("INSERT INTO app.t VALUES {}", rows.join(", ")), &[]).await;
    let (mut subscription, sink) = begin(&engine, &root(), sql).await.unwrap();
    assert!(subscription.catch_up(10).unwrap().live);
    ok(&engine, &root(), "INSERT INTO app.t VALUES (-1, -1)", &[]).await;
    until("it lags", || sink.take_lagging()).await;
    assert!(subscription.catch_up(10).unwrap().to_make);
    assert_eq!(subscription.make_anew().await.unwrap_err().code(), ErrorCode::MemoryLimit);
    assert_eq!(begin(&engine, &root(), sql).await.err().unwrap().code(), ErrorCode::MemoryLimit);
    // Nobody else minds.
    let (mut other, _) = begin(&engine, &root(), "SELECT count(*) FROM app.t").await.unwrap();
    assert!(other.catch_up(10).unwrap().live);
    engine.close();
}

#[tokio::test]
async fn an_order_with_all_columns_goes_on_through_an_alter() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    ok(&engine, &ann, "INSERT INTO app.t VALUES (1, 1), (2, 2), (3, 3)", &[]).await;
    let (mut subscription, sink) =
        begin(&engine, &ann, "SELECT * FROM app.t ORDER BY n LIMIT 2").await.unwrap();
    assert!(subscription.catch_up(10).unwrap().live);
    ok(&engine, &root(), "ALTER TABLE app.t ADD COLUMN c TEXT DEFAULT 'x'", &[]).await;
    ok(&engine, &ann, "DELETE FROM app.t WHERE id = 1", &[]).await;
    let (schema, frames) = arrived_until(&sink, &mut subscription, |frames| frames.len() >= 2).await;
    assert_eq!(schema.unwrap().schema.fields().len(), 4);
    let shown = |rows: &Option<RecordBatch>| rows.as_ref().map(texts);
    let of = |at: usize| (shown(&frames[at].payload.old_rows), shown(&frames[at].payload.rows));
    assert_eq!(of(0), (Some(vec!["1|1|x".to_owned()]), None));
    assert_eq!(of(1), (None, Some(vec!["3|3|x".to_owned()])));
    assert!(frames[0].more && !frames[1].more);
    engine.close();
}

#[tokio::test]
async fn who_has_the_greatest_seq_of_a_snapshot_has_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, n INT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)", &[]).await;
    // It leaves no row behind that has its seq.
    ok(&engine, &root(), "DELETE FROM t WHERE id = 1", &[]).await;
    let sql = "SELECT id FROM t ORDER BY n LIMIT 2";
    let (mut subscription, _) = begin(&engine, &root(), sql).await.unwrap();
    let mut snapshot = subscription.take_snapshot().unwrap();
    assert!(snapshot.is_result);
    let rows = snapshot.stream.next().await.unwrap().unwrap();
    assert_eq!(texts(&rows), ["2", "3"]);
    let greatest = seqs(&rows).into_iter().flatten().max().unwrap().cast_unsigned();
    assert_eq!(greatest, engine.published().get());
    drop((snapshot, subscription));
    ok(&engine, &root(), "INSERT INTO t VALUES (4, 1)", &[]).await;
    let request = SubscribeRequest {
        sql: sql.to_owned(),
        from: Some(Seq::new(greatest)),
        ..SubscribeRequest::default()
    };
    let mut resumed = engine.subscribe(&root(), request, Kept::with_room(9) as _).await.unwrap();
    let frames = resumed.catch_up(10).unwrap().frames;
    let told: Vec<_> = frames
        .iter()
        .flat_map(|frame| [&frame.payload.old_rows, &frame.payload.rows])
        .map(|rows| rows.as_ref().map(texts))
        .collect();
    assert_eq!(told, [Some(vec!["3".to_owned()]), None, None, Some(vec!["4".to_owned()])]);
    engine.close();
}

#[tokio::test]
async fn groups_are_those_of_the_query_and_only_those_that_are_shown_are_computed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, x DOUBLE, n INT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO t VALUES (1, 0.0, 5), (2, -0.0, 5), (3, 1.5, 4)", &[]).await;
    let mut begun = Vec::new();
    for sql in [
        "SELECT x, count(*) AS n FROM t GROUP BY x",
        "SELECT x, 100 / sum(n) AS share FROM t GROUP BY x HAVING sum(n) <> 0",
    ] {
        let sink = Kept::with_room(usize::MAX);
        let request = SubscribeRequest { sql: sql.to_owned(), ..SubscribeRequest::default() };
        let mut subscription = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await.unwrap();
        let mut snapshot = subscription.take_snapshot().unwrap();
        let mut rows = texts(&snapshot.stream.next().await.unwrap().unwrap());
        rows.sort();
        assert!(subscription.catch_up(1).unwrap().live);
        begun.push((subscription, sink, rows));
    }
    assert_eq!(begun[0].2, ["0.0|2", "1.5|1"]);
    assert_eq!(begun[1].2, ["0.0|10", "1.5|25"]);
    ok(&engine, &root(), "UPDATE t SET n = 0 WHERE id = 3", &[]).await;
    handed_out(&engine).await;
    let gone = begun[1].1.take().remove(0);
    assert_eq!(gone.payload.old_rows.as_ref().map(texts), Some(vec!["1.5|25".to_owned()]));
    assert!(!begun[1].1.take_lagging(), "nothing failed");
    drop(begun);
    engine.close();
}
