//! What grows with the number of tables and of users: 100 tables beside 10,000 over 100 namespaces; 100,000 owners of rows;
//! the Parquet files of 10,000 owners.
//!
//! `cargo bench --workspace --bench scale -- [tables] [users] [files]`. Figures are for one table, or one statement, in mode `os`.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::path::Path;
use std::time::{Duration, Instant};

use kalamdb_benches::{directory, is_wanted, session};
use kalamdb_core::format::{Role, Value};
use kalamdb_core::log::Durability;
use kalamdb_core::{Engine, EngineOptions, Session, StatementResult, clock};
use tokio::runtime::Runtime;

const FEW: usize = 100;
const MANY: usize = 10_000;
const NAMESPACES: usize = 100;
const USERS: usize = 100_000;
/// Statements that a median is taken of.
const SAMPLES: usize = 51;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    if is_wanted("tables") {
        tables(&runtime, FEW);
        tables(&runtime, MANY);
    }
    if is_wanted("users") {
        users(&runtime);
    }
    if is_wanted("files") {
        files(&runtime);
    }
}

fn open(directory: &Path) -> (Engine, Duration) {
    let mut options = EngineOptions::new(directory);
    options.durability = Durability::Os;
    options.root_password = Some("bench".to_owned());
    let begun = clock::instant();
    let (engine, _) = Engine::open(options).expect("a database opens");
    (engine, begun.elapsed())
}

fn run(runtime: &Runtime, engine: &Engine, who: &Session, sql: &str) -> Vec<StatementResult> {
    let executed = runtime.block_on(engine.execute(&mut who.clone(), sql, &[]));
    assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    executed.results
}

fn median(mut sample: impl FnMut() -> Duration) -> Duration {
    let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| sample()).collect();
    samples.sort_unstable();
    samples.into_iter().nth(SAMPLES / 2).unwrap_or_default()
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun: Instant = clock::instant();
    work();
    begun.elapsed()
}

fn say(what: &str, took: Duration) {
    println!("{what:<64} {:>12.1} µs", took.as_secs_f64() * 1e6);
}

fn each(took: Duration, count: usize) -> Duration {
    took / u32::try_from(count).unwrap_or(u32::MAX)
}

fn tables(runtime: &Runtime, count: usize) {
    let (directory, root) = (directory(), session("root", Role::Dba));
    let (engine, _) = open(directory.path());
    for namespace in 0..NAMESPACES {
        run(runtime, &engine, &root, &format!("CREATE NAMESPACE n{namespace}"));
    }
    let name = |at: usize| format!("n{}.t{at}", at % NAMESPACES);
    let created = timed(|| {
        for at in 0..count {
            let columns = "id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), body TEXT NOT NULL, at TIMESTAMP DEFAULT NOW()";
            run(runtime, &engine, &root, &format!("CREATE USER TABLE {} ({columns})", name(at)));
        }
    });
    say(&format!("{count} tables: CREATE, each"), each(created, count));
    let mut shown = 0;
    let show = median(|| {
        timed(|| {
            shown = run(runtime, &engine, &root, "SHOW TABLES").iter().map(|result| result.row_count).sum();
        })
    });
    assert_eq!(shown, count as u64);
    say(&format!("{count} tables: SHOW TABLES"), show);
    let insert = median(|| {
        timed(|| drop(run(runtime, &engine, &root, &format!("INSERT INTO {} (body) VALUES ('x')", name(7)))))
    });
    say(&format!("{count} tables: INSERT into one"), insert);
    engine.close();
    let (engine, took) = open(directory.path());
    say(&format!("{count} tables: start"), took);
    let dropped = timed(|| {
        for at in 0..count {
            run(runtime, &engine, &root, &format!("DROP TABLE {}", name(at)));
        }
    });
    say(&format!("{count} tables: DROP, each"), each(dropped, count));
    let freed = timed(|| {
        while unfinished_jobs(runtime, &engine, &root) > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    say(&format!("{count} tables: freeing what DROP left to jobs, each"), each(freed, count));
    engine.close();
    let (engine, took) = open(directory.path());
    say(&format!("{count} tables dropped: start"), took);
    engine.close();
}

/// Owners of cold rows, rows that each writes between two flushes, flushes.
const OWNERS: usize = 10_000;
const ROWS_EACH: i64 = 100;
const FLUSHES: i64 = 5;

fn files(runtime: &Runtime) {
    let (directory, root) = (directory(), session("root", Role::Dba));
    let (engine, _) = open(directory.path());
    let table = "CREATE NAMESPACE n; CREATE USER TABLE n.notes (id BIGINT PRIMARY KEY, body TEXT)";
    run(runtime, &engine, &root, table);
    let who = |number: usize| session(&format!("user{number}"), Role::User);
    let is_quiet = |engine: &Engine| unfinished_jobs(runtime, engine, &root) == 0;
    for flush in 0..FLUSHES {
        for number in 0..OWNERS {
            let ids = flush * ROWS_EACH..(flush + 1) * ROWS_EACH;
            let rows: Vec<_> = ids
                .map(|id| vec![Value::BigInt(id), Value::Text(format!("a note of some words, {id}"))])
                .collect();
            runtime.block_on(engine.insert_rows(&who(number), "n.notes", &rows)).expect("rows are inserted");
        }
        let flushed = timed(|| {
            run(runtime, &engine, &root, "STORAGE FLUSH TABLE n.notes");
            while !is_quiet(&engine) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        say(
            &format!("{OWNERS} owners: flush of {ROWS_EACH} rows and what compaction follows, each"),
            each(flushed, OWNERS),
        );
        let stats = run(runtime, &engine, &root, "SHOW STATS FOR TABLE n.notes");
        let shown = stats.first().and_then(|result| result.batches.first()).map(|batch| {
            let text =
                |at: usize| kalamdb_core::arrow::util::display::array_value_to_string(batch.column(at), 0);
            (text(6).unwrap_or_default(), text(5).unwrap_or_default())
        });
        println!("  files and their bytes: {:?}", shown.unwrap_or_default());
    }
    engine.close();
    let (engine, took) = open(directory.path());
    say(&format!("{OWNERS} owners with cold rows: start"), took);
    let middle = who(OWNERS / 2);
    for (what, sql) in [
        ("one's row by its key", "SELECT body FROM n.notes WHERE id = 77"),
        ("count and max of one's rows", "SELECT count(*), max(body) FROM n.notes"),
    ] {
        let took = median(|| timed(|| drop(run(runtime, &engine, &middle, sql))));
        say(&format!("{OWNERS} owners with cold rows: {what}"), took);
    }
    engine.close();
}

fn unfinished_jobs(runtime: &Runtime, engine: &Engine, who: &Session) -> u64 {
    let sql = "SELECT job_id FROM system.jobs WHERE finished_at IS NULL";
    run(runtime, engine, who, sql).iter().map(|result| result.row_count).sum()
}

fn users(runtime: &Runtime) {
    let (directory, root) = (directory(), session("root", Role::Dba));
    let (engine, _) = open(directory.path());
    let table = "CREATE NAMESPACE n; CREATE USER TABLE n.notes (id BIGINT PRIMARY KEY, body TEXT)";
    run(runtime, &engine, &root, table);
    let who = |number: usize| session(&format!("user{number}"), Role::User);
    let row = |id: i64| vec![Value::BigInt(id), Value::Text("a note".to_owned())];
    let written = timed(|| {
        for number in 0..USERS {
            let rows = [row(1), row(2)];
            runtime.block_on(engine.insert_rows(&who(number), "n.notes", &rows)).expect("rows are inserted");
        }
    });
    say(&format!("{USERS} users: commit of 2 rows, each"), each(written, USERS));
    engine.close();
    let (engine, took) = open(directory.path());
    say(&format!("{USERS} users: start"), took);
    let middle = who(USERS / 2);
    let point = "SELECT body FROM n.notes WHERE id = 2";
    say(
        &format!("{USERS} users: one's row by its key"),
        median(|| timed(|| drop(run(runtime, &engine, &middle, point)))),
    );
    let count = "SELECT count(*) FROM n.notes";
    say(
        &format!("{USERS} users: count of one's rows"),
        median(|| timed(|| drop(run(runtime, &engine, &middle, count)))),
    );
    let stats = "SHOW STATS FOR TABLE n.notes";
    say(
        &format!("{USERS} users: SHOW STATS of all"),
        median(|| timed(|| drop(run(runtime, &engine, &root, stats)))),
    );
    engine.close();
}
