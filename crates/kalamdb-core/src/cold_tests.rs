//! The cold tier from the outside: a table that is flushed again and again beside one that never is, in one engine.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log_format::{ChangeEvent, JobStatus, NamespaceId, Partition, Role, RowInserted, UserId};

use crate::requests::{Expected, RowCommit, RowWrite};
use crate::testing::{
    Fuse, Kept, Random, all_done, arrived, arrived_frames, cells, kinds, materialise, root, session, until,
};
use crate::tests::{ok, open, refused};
use crate::{Engine, ErrorCode, Session, SubscribeRequest};

pub(crate) async fn flush(engine: &Engine, table: &str) {
    ok(engine, &root(), &format!("STORAGE FLUSH TABLE {table}"), &[]).await;
    let jobs = all_done(engine).await;
    assert!(jobs.iter().all(|job| job.status == JobStatus::Completed), "{jobs:?}");
}

pub(crate) async fn compact(engine: &Engine, table: &str) {
    ok(engine, &root(), &format!("STORAGE COMPACT TABLE {table}"), &[]).await;
    let jobs = all_done(engine).await;
    assert!(jobs.iter().all(|job| job.status == JobStatus::Completed), "{jobs:?}");
}

/// Counts the cold files of a database that runs: a directory goes with its last file, also between being found and being read.
pub(crate) fn cold_files(directory: &Path) -> usize {
    let mut open = vec![directory.join(crate::COLD_DIRECTORY)];
    let mut files = 0;
    while let Some(at) = open.pop() {
        let entries = match std::fs::read_dir(at) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.unwrap(),
        };
        for entry in entries.map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() { open.push(entry.path()) } else { files += 1 }
        }
    }
    files
}

/// Waits until there are so many files: those that are no longer listed go after the job.
pub(crate) async fn files(directory: &Path, count: usize) {
    until(&format!("there are {count} files"), || cold_files(directory) == count).await;
}

/// What SHOW STATS says: hot rows, cold rows, files.
pub(crate) async fn stats(engine: &Engine, who: &Session, table: &str) -> [String; 3] {
    let told = cells(&ok(engine, who, &format!("SHOW STATS FOR TABLE {table}"), &[]).await).remove(0);
    [told[2].clone(), told[4].clone(), told[6].clone()]
}

/// A random statement; `{t}` stands for the table.
fn statement(random: &mut Random) -> String {
    let (key, n) = (random.below(50), random.below(1000));
    match random.below(14) {
        0..4 => {
            let rows: Vec<_> = (0..=random.below(5))
                .map(|at| format!("({}, 'b{}', {n})", (key + at * 7) % 50, (key + at) % 9))
                .collect();
            format!("INSERT INTO {{t}} (id, body, n) VALUES {}", rows.join(", "))
        }
        4 => format!("INSERT INTO {{t}} (id, body, n) VALUES ({key}, 'c', 1) ON CONFLICT DO NOTHING"),
        5 => format!(
            "INSERT INTO {{t}} (id, body, n) VALUES ({key}, 'd', 1) ON CONFLICT (id) DO UPDATE SET n = {{t}}.n % 7 + 1"
        ),
        6..8 => format!("UPDATE {{t}} SET n = {n}, body = 'u' WHERE id = {key}"),
        8 => format!("UPDATE {{t}} SET n = n % 50 + 1 WHERE id % 6 = {}", key % 6),
        9 => format!("DELETE FROM {{t}} WHERE id = {key}"),
        10 => format!("DELETE FROM {{t}} WHERE n > {}", 500 + n),
        11 => format!(
            "BEGIN; UPDATE {{t}} SET n = 3 WHERE id = {key}; DELETE FROM {{t}} WHERE id = {}; INSERT INTO {{t}} (id, n) VALUES ({}, 9); COMMIT",
            (key + 1) % 50,
            (key + 2) % 50
        ),
        12 => format!("UPDATE {{t}} SET body = NULL WHERE body = 'b{}' RETURNING id, n", key % 9),
        _ => format!("INSERT INTO {{t}} (id, body, n) SELECT id + 1, body, n FROM {{t}} WHERE id = {key}"),
    }
}

/// Changes of the schema, in this order.
const ALTERATIONS: [&str; 5] = [
    "ALTER TABLE {t} ADD COLUMN x INT DEFAULT 7",
    "ALTER TABLE {t} MODIFY COLUMN n BIGINT",
    "ALTER TABLE {t} RENAME COLUMN body TO text",
    "ALTER TABLE {t} RENAME COLUMN text TO body",
    "ALTER TABLE {t} DROP COLUMN x",
];

/// Every shape of a query; `{t}` stands for the table, `{k}` for a key.
static QUERIES: [&str; 23] = [
    "SELECT * FROM {t}",
    "SELECT * FROM {t} ORDER BY id DESC",
    "SELECT count(*) FROM {t}",
    "SELECT * FROM {t} WHERE id = {k}",
    "SELECT n FROM {t} WHERE id IN ({k}, 3, 17, 49, 100)",
    "SELECT id FROM {t} WHERE id > {k} AND id <= 40",
    "SELECT id, n FROM {t} WHERE n > 400",
    "SELECT id FROM {t} WHERE body = 'u'",
    "SELECT id FROM {t} WHERE body IS NULL",
    "SELECT body, count(*), sum(n) FROM {t} GROUP BY body ORDER BY body",
    "SELECT id, _deleted FROM {t} ORDER BY id",
    "SELECT count(*) FROM {t} WHERE _deleted",
    "SELECT id FROM {t} WHERE NOT _deleted AND n < 100",
    "SELECT id FROM {t} LIMIT 3",
    "SELECT * FROM {t} ORDER BY id DESC LIMIT 7",
    "SELECT n, id FROM {t} ORDER BY id LIMIT 4 OFFSET 3",
    "SELECT body FROM {t} WHERE id < {k} AND n > 100 ORDER BY id DESC LIMIT 3",
    "SELECT id, _deleted, n FROM {t} WHERE id >= {k} ORDER BY id DESC LIMIT 70",
    "SELECT id + 1, id FROM {t} WHERE body IS NOT NULL ORDER BY id LIMIT 5",
    "SELECT id FROM {t} WHERE n > 100 ORDER BY n, id LIMIT 5",
    "SELECT a.id, b.n FROM {t} a JOIN {t} b ON a.id = b.id + 1 ORDER BY a.id",
    "SELECT max(id), min(n) FROM {t} WHERE id < {k}",
    "SELECT id, row_number() OVER (ORDER BY n, id) FROM {t} WHERE id >= {k} ORDER BY id",
];

/// What a statement answers, or how it is refused. Where it asks for no order, none is compared.
async fn answer(engine: &Engine, who: &Session, sql: &str, table: &str) -> String {
    let sql = sql.replace("{t}", table);
    let executed = engine.execute(&mut who.clone(), &sql, &[]).await;
    let error = executed.error.map(|error| error.code());
    let results = executed.results.iter().map(|result| {
        let rows =
            datafusion::arrow::util::pretty::pretty_format_batches(&result.batches).unwrap().to_string();
        let mut lines: Vec<&str> = rows.lines().collect();
        if !sql.contains("ORDER BY") {
            lines.sort_unstable();
        }
        format!("{} {}", result.row_count, lines.join("\n"))
    });
    format!("{:?} {error:?}", results.collect::<Vec<_>>()).replace(table, "t")
}

pub(crate) async fn both(engine: &Engine, who: &Session, sql: &str, seed: u64) {
    let flushed = answer(engine, who, sql, "app.flushed").await;
    let unmoved = answer(engine, who, sql, "app.unmoved").await;
    assert_eq!(flushed, unmoved, "seed {seed}: {sql}");
}

async fn flushed_equals_unmoved(seed: u64, kind: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = open(directory.path());
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    for table in ["flushed", "unmoved"] {
        let sql = format!("CREATE {kind} TABLE app.{table} (id BIGINT PRIMARY KEY, body TEXT, n INT)");
        ok(&engine, &root(), &sql, &[]).await;
    }
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut alterations = ALTERATIONS.iter();
    let users = if kind == "USER" { ["ann", "bob"] } else { ["root", "root"] };
    for _ in 0..60 {
        let name = users[random.index(users.len())];
        let who = if name == "root" { root() } else { session(name, Role::User) };
        match random.below(20) {
            0..3 => flush(&engine, "app.flushed").await,
            3 => {
                engine.close();
                engine = open(directory.path());
            }
            4 => compact(&engine, "app.flushed").await,
            5 => {
                if let Some(alteration) = alterations.next() {
                    both(&engine, &root(), alteration, seed).await;
                }
            }
            _ => both(&engine, &who, &statement(&mut random), seed).await,
        }
        let query = QUERIES[random.index(QUERIES.len())];
        both(&engine, &who, &query.replace("{k}", &random.below(50).to_string()), seed).await;
    }
    for query in &QUERIES {
        for name in users {
            let who = if name == "root" { root() } else { session(name, Role::User) };
            both(&engine, &who, &query.replace("{k}", "20"), seed).await;
        }
    }
    engine.close();
}

#[tokio::test]
async fn a_flushed_table_answers_as_one_that_never_was() {
    let seeds = std::env::var("KALAMDB_SEEDS").map_or(2, |text| text.parse().unwrap());
    for seed in 1..=seeds {
        flushed_equals_unmoved(seed, "USER").await;
        flushed_equals_unmoved(seed + 100, "SHARED").await;
    }
}

pub(crate) const NOTES: &str =
    "CREATE NAMESPACE app; CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT)";

#[tokio::test]
async fn keys_in_files_are_taken_and_their_rows_can_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let (ann, bob) = (session("ann", Role::User), session("bob", Role::User));
    ok(&engine, &root(), NOTES, &[]).await;
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a'), (2, 'b'), (3, 'c')", &[]).await;
    flush(&engine, "app.notes").await;
    assert_eq!(stats(&engine, &ann, "app.notes").await, ["0", "3", "1"]);
    assert_eq!(stats(&engine, &bob, "app.notes").await, ["0", "0", "0"]);
    let (code, _) = refused(&engine, &ann, "INSERT INTO app.notes VALUES (9, 'x'), (2, 'x')").await;
    assert_eq!(code, ErrorCode::ConstraintViolation);
    ok(&engine, &bob, "INSERT INTO app.notes VALUES (2, 'of bob')", &[]).await;
    ok(&engine, &ann, "UPDATE app.notes SET body = 'b2' WHERE id = 2", &[]).await;
    ok(&engine, &ann, "DELETE FROM app.notes WHERE body = 'c'", &[]).await;
    assert_eq!(stats(&engine, &ann, "app.notes").await, ["1", "1", "1"]);
    let found = ok(&engine, &ann, "SELECT * FROM app.notes ORDER BY id", &[]).await;
    assert_eq!(cells(&found), [["1", "a"], ["2", "b2"]].map(|row| row.map(str::to_owned).to_vec()));
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (3, 'again')", &[]).await;
    flush(&engine, "app.notes").await;
    assert_eq!(stats(&engine, &root(), "app.notes").await, ["0", "4", "3"]);
    engine.close();
}

#[tokio::test]
async fn what_was_looked_for_before_a_flush_is_not_written_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    let ann = session("ann", Role::User);
    let looked_at = engine.published();
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a')", &[]).await;
    flush(&engine, "app.notes").await;
    let info = engine.catalog().find(&NamespaceId::new("app"), "notes").unwrap();
    let partition = Partition::of_user(info.id(), UserId::new("ann"));
    let event = RowInserted { partition: partition.clone(), key: vec![1], row: vec![0] };
    let write =
        RowWrite { partition: Arc::new(partition), key: vec![1], expected: Expected::Absent, deletes: false };
    let commit = RowCommit {
        tables: vec![(info.id(), info.version())],
        ephemeral: false,
        events: vec![ChangeEvent::RowInserted(Box::new(event)).encode().unwrap()],
        writes: vec![write],
        cold_as_of: looked_at,
    };
    // The key is in no tier now: only that nobody looked since the flush speaks against it.
    let error = engine.commits().rows(commit).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_flushes_beside_each_other_lose_and_double_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let sql = "CREATE NAMESPACE app; CREATE SHARED TABLE app.sums (id BIGINT PRIMARY KEY, n BIGINT) WITH (ACCESS_LEVEL = 'public')";
    ok(&engine, &root(), sql, &[]).await;
    let mut writers = Vec::new();
    for writer in 0..3_u64 {
        let engine = engine.clone();
        writers.push(tokio::spawn(async move {
            let mut random = Random(writer + 77);
            let mut added = 0;
            for _ in 0..150 {
                let key = random.below(20);
                let sql = match random.below(3) {
                    0 => format!("INSERT INTO app.sums VALUES ({key}, 1)"),
                    1 => format!("UPDATE app.sums SET n = n + 1 WHERE id = {key}"),
                    _ => format!(
                        "INSERT INTO app.sums VALUES ({key}, 1) ON CONFLICT DO UPDATE SET n = sums.n + 1"
                    ),
                };
                let executed = engine.execute(&mut root(), &sql, &[]).await;
                match executed.error {
                    None => added += executed.results[0].row_count,
                    Some(error) => assert_eq!(error.code(), ErrorCode::ConstraintViolation, "{sql}: {error}"),
                }
            }
            added
        }));
    }
    let mut added = 0;
    for writer in writers {
        while !writer.is_finished() {
            flush(&engine, "app.sums").await;
        }
        added += writer.await.unwrap();
    }
    let found =
        cells(&ok(&engine, &root(), "SELECT count(*), count(DISTINCT id), sum(n) FROM app.sums", &[]).await);
    assert_eq!(found[0][0], found[0][1]);
    assert_eq!(found[0][2], added.to_string());
    engine.close();
}

#[tokio::test]
async fn a_live_query_is_told_nothing_of_a_flush_and_resumes_across_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), NOTES, &[]).await;
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a'), (2, 'b')", &[]).await;
    flush(&engine, "app.notes").await;
    let request =
        || SubscribeRequest { sql: "SELECT * FROM app.notes".to_owned(), ..SubscribeRequest::default() };
    let sink = Kept::with_room(100);
    let mut live = engine.subscribe(&ann, request(), Arc::clone(&sink) as _).await.unwrap();
    let mut rows = std::collections::BTreeMap::new();
    let start = materialise(&mut live, &mut rows).await;
    assert_eq!(rows.len(), 2, "the snapshot has both tiers");
    assert_eq!(arrived(&sink, &mut live).len(), 0);
    ok(&engine, &ann, "UPDATE app.notes SET body = 'c' WHERE id = 1", &[]).await;
    flush(&engine, "app.notes").await;
    ok(&engine, &ann, "DELETE FROM app.notes WHERE id = 1", &[]).await;
    let told = arrived_frames(&sink, &mut live, 2).await;
    assert_eq!(kinds(&told), ["Update", "Delete"]);
    assert_eq!(told[0].prev_seq, start);
    drop(live);
    let sink = Kept::with_room(100);
    let resumed = SubscribeRequest { from: Some(start), ..request() };
    let mut live = engine.subscribe(&ann, resumed, Arc::clone(&sink) as _).await.unwrap();
    assert_eq!(kinds(&arrived(&sink, &mut live)), kinds(&told));
    drop(live);
    engine.close();
}

#[tokio::test]
async fn what_is_dropped_or_truncated_takes_its_files_along() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), NOTES, &[]).await;
    ok(
        &engine,
        &root(),
        "CREATE SHARED TABLE app.other (id INT PRIMARY KEY); INSERT INTO app.other VALUES (1)",
        &[],
    )
    .await;
    for round in 0..2 {
        ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a'), (2, 'b')", &[]).await;
        flush(&engine, "app.notes").await;
        flush(&engine, "app.other").await;
        assert_eq!(cold_files(directory.path()), 2, "{round}");
        let end = ["TRUNCATE TABLE app.notes", "DROP TABLE app.notes"][round];
        ok(&engine, &root(), end, &[]).await;
        all_done(&engine).await;
        assert_eq!(cold_files(directory.path()), 1, "{end}");
        if round == 0 {
            assert_eq!(ok(&engine, &ann, "SELECT * FROM app.notes", &[]).await, "");
            assert_eq!(stats(&engine, &ann, "app.notes").await, ["0", "0", "0"]);
        }
    }
    assert!(ok(&engine, &root(), "SELECT * FROM app.other", &[]).await.contains('1'));
    engine.close();
}

#[tokio::test]
async fn only_those_who_may_flush_do_and_streams_never_are() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    ok(&engine, &root(), "CREATE STREAM TABLE app.typing (id INT) RETENTION '10s'", &[]).await;
    let (code, _) = refused(&engine, &session("ann", Role::User), "STORAGE FLUSH TABLE app.notes").await;
    assert_eq!(code, ErrorCode::PermissionDenied);
    assert_eq!(refused(&engine, &root(), "STORAGE FLUSH TABLE app.typing").await.0, ErrorCode::Unsupported);
    assert_eq!(refused(&engine, &root(), "STORAGE FLUSH TABLE app.none").await.0, ErrorCode::TableNotFound);
    assert_eq!(refused(&engine, &root(), "STORAGE MELT TABLE app.notes").await.0, ErrorCode::Unsupported);
    flush(&engine, "app.notes").await;
    assert_eq!(cold_files(directory.path()), 0, "nothing to flush makes no file");
    engine.close();
}

/// Dies at every place of the write path that `STORAGE {action} TABLE` comes by, each in a database of its own that then is
/// opened again. No row is lost, and in the end there are so many files. How many places there were.
pub(crate) async fn dies_anywhere_in(action: &str, files_left: usize) -> usize {
    let storage = format!("STORAGE {action} TABLE app.notes");
    for passed in 0_usize.. {
        let directory = tempfile::tempdir().unwrap();
        let (engine, fuse) = Fuse::open(directory.path());
        let ann = session("ann", Role::User);
        ok(&engine, &root(), NOTES, &[]).await;
        ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a'), (2, 'b'), (3, 'c')", &[]).await;
        flush(&engine, "app.notes").await;
        let changes = "DELETE FROM app.notes WHERE id = 2; UPDATE app.notes SET body = 'd' WHERE id = 3";
        ok(&engine, &ann, changes, &[]).await;
        if action == "COMPACT" {
            flush(&engine, "app.notes").await;
        }
        let jobs = all_done(&engine).await.len();
        fuse.light(passed as u64);
        engine.execute(&mut root(), &storage, &[]).await;
        let survived = fuse.survives(&engine, jobs + 1).await;
        engine.close();
        let engine = open(directory.path());
        let all = async |engine: &Engine| {
            cells(&ok(engine, &ann, "SELECT * FROM app.notes ORDER BY id", &[]).await)
        };
        let expected = [["1", "a"], ["3", "d"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(all(&engine).await, expected, "{passed}");
        let jobs = all_done(&engine).await;
        assert!(jobs.iter().all(|job| job.status == JobStatus::Completed), "{passed}: {jobs:?}");
        assert_eq!(all(&engine).await, expected, "{passed}");
        ok(&engine, &root(), &storage, &[]).await;
        all_done(&engine).await;
        assert_eq!(all(&engine).await, expected, "{passed}");
        assert_eq!(
            stats(&engine, &root(), "app.notes").await,
            ["0", "2", files_left.to_string().as_str()],
            "{passed}"
        );
        // Every file is listed, once those are gone that compactions took the place of.
        files(directory.path(), files_left).await;
        engine.close();
        if survived {
            return passed;
        }
    }
    unreachable!("it ends where the engine survives")
}

#[tokio::test]
async fn a_flush_that_a_crash_interrupts_anywhere_loses_nothing_and_leaves_no_file() {
    let died = dies_anywhere_in("FLUSH", 2).await;
    assert!(died >= 15, "only {died} places");
}

/// Waits until a table has no hot rows and so many cold ones.
async fn cold_rows(engine: &Engine, table: &str, rows: u64) {
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while stats(engine, &root(), table).await[..2] != ["0".to_owned(), rows.to_string()] {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn rows_are_flushed_when_there_are_as_many_as_the_policy_says() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(
        &engine,
        &root(),
        "CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, n INT) FLUSH POLICY ROWS 10",
        &[],
    )
    .await;
    let (ann, bob) = (session("ann", Role::User), session("bob", Role::User));
    ok(&engine, &bob, "INSERT INTO app.t VALUES (1, 1)", &[]).await;
    for id in 0..9 {
        ok(&engine, &ann, &format!("INSERT INTO app.t VALUES ({id}, 1)"), &[]).await;
    }
    // The same row over and over is one row.
    for _ in 0..20 {
        ok(&engine, &ann, "UPDATE app.t SET n = n + 1 WHERE id = 3", &[]).await;
    }
    assert_eq!(stats(&engine, &ann, "app.t").await, ["9", "0", "0"]);
    ok(&engine, &ann, "INSERT INTO app.t VALUES (10, 1)", &[]).await;
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while stats(&engine, &ann, "app.t").await != ["0", "10", "1"] {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap();
    assert_eq!(stats(&engine, &bob, "app.t").await, ["1", "0", "0"], "rows are counted for each user");
    engine.close();
}

#[tokio::test]
async fn rows_are_flushed_when_they_are_as_old_as_the_policy_says() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let shared = "CREATE NAMESPACE app; CREATE SHARED TABLE app.t (id BIGINT PRIMARY KEY, n INT)";
    ok(&engine, &root(), shared, &[]).await;
    ok(&engine, &root(), "INSERT INTO app.t VALUES (1, 1)", &[]).await;
    engine.close();
    let engine = open(directory.path());
    // What is there when a table gets a policy, or was there at the start, counts as well.
    ok(&engine, &root(), "ALTER TABLE app.t SET (FLUSH_POLICY = 'rows:1000,interval:1')", &[]).await;
    cold_rows(&engine, "app.t", 1).await;
    ok(&engine, &root(), "INSERT INTO app.t VALUES (2, 1)", &[]).await;
    engine.close();
    let engine = open(directory.path());
    cold_rows(&engine, "app.t", 2).await;
    engine.close();
}

#[tokio::test]
async fn pages_that_no_condition_lets_through_are_not_read_and_changed_rows_do_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(
        &engine,
        &root(),
        "CREATE NAMESPACE app; CREATE SHARED TABLE app.t (id BIGINT PRIMARY KEY, n BIGINT, body TEXT)",
        &[],
    )
    .await;
    let rows: Vec<_> = (0..5000).map(|id| format!("({id}, {}, 'b{:04}')", id * 2, id)).collect();
    ok(&engine, &root(), &format!("INSERT INTO app.t VALUES {}", rows.join(", ")), &[]).await;
    flush(&engine, "app.t").await;
    ok(&engine, &root(), "UPDATE app.t SET n = 0 WHERE id = 4000; DELETE FROM app.t WHERE id = 4001", &[])
        .await;
    let info = engine.catalog().find(&log_format::NamespaceId::new("app"), "t").unwrap();
    let cut = engine.store().cut().unwrap();
    let partition = log_format::Partition::shared(info.id());
    let file = cut.open_file(&cut.manifest(&partition).unwrap().unwrap().files[0].file).unwrap();
    let pages = file.pages("n").unwrap();
    assert_eq!(pages.bounds.len(), 6, "{pages:?}");
    // Each condition holds for rows of one page only, and for none that was changed.
    for (sql, expected) in [
        ("SELECT id FROM app.t WHERE n = 7998", "3999"),
        ("SELECT count(*) FROM app.t WHERE n = 8000 OR n = 8002", "0"),
        ("SELECT count(*) FROM app.t WHERE n = 8000", "0"),
        ("SELECT count(*) FROM app.t WHERE n >= 8002 AND n <= 8004", "1"),
        ("SELECT count(*) FROM app.t WHERE body > 'b3999' AND body < 'b4003'", "2"),
        ("SELECT count(*) FROM app.t WHERE n = 0", "2"),
        ("SELECT count(*) FROM app.t WHERE n < 3 AND body = 'b0001'", "1"),
        ("SELECT count(*) FROM app.t WHERE _seq > 1000000", "0"),
        ("SELECT count(*) FROM app.t WHERE _updated > '2000-01-01T00:00:00Z'", "4999"),
        ("SELECT count(*) FROM app.t WHERE n = 8002 AND _deleted", "1"),
    ] {
        assert_eq!(cells(&ok(&engine, &root(), sql, &[]).await), [[expected.to_owned()]], "{sql}");
    }
    engine.close();
}
