//! The commit path, end to end: from values or SQL to the acknowledgement.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use kalamdb_benches::{Database, MESSAGES, body, row, session};
use kalamdb_core::format::Role;
use kalamdb_core::log::Durability;

const MODES: [(&str, Durability); 3] = [
    ("always", Durability::Always),
    ("interval_10ms", Durability::Interval(Duration::from_millis(10))),
    ("os", Durability::Os),
];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (mode, durability) in MODES {
        let database = Database::open(durability);
        for batch in [1, 100] {
            one_writer(&mut criterion, &database, mode, batch);
        }
        writers(&mut criterion, &database, mode, 32);
        sql(&mut criterion, &database, mode);
    }
    criterion.final_summary();
}

fn one_writer(criterion: &mut Criterion, database: &Database, mode: &str, batch: usize) {
    let writer = session("user_00", Role::User);
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(format!("{mode}/rows_{batch}"), |bencher| {
        bencher.iter(|| {
            let rows: Vec<_> = (0..batch).map(|_| row(database.next_id(), 1)).collect();
            database.insert(&writer, MESSAGES, &rows);
        });
    });
    group.finish();
}

fn writers(criterion: &mut Criterion, database: &Database, mode: &str, writers: usize) {
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{mode}/writers_{writers}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let each = iterations.div_ceil(writers as u64);
            let (commits, took) = database.race(writers, move |done| done < each);
            // Rounding up must not make each commit look dearer than it was.
            took.mul_f64(ratio(iterations, commits))
        });
    });
    group.finish();
}

fn ratio(asked: u64, done: u64) -> f64 {
    let float = |count: u64| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    float(asked) / float(done)
}

fn sql(criterion: &mut Criterion, database: &Database, mode: &str) {
    let writer = session("user_00", Role::User);
    let text = body();
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{mode}/sql"), |bencher| {
        bencher.iter(|| {
            let params = [database.next_id().into(), 1.into(), text.as_str().into()];
            database.execute(
                &writer,
                "INSERT INTO bench.messages (id, room, body) VALUES ($1, $2, $3)",
                &params,
            )
        });
    });
    group.finish();
}
