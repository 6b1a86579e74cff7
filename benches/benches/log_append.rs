//! The log alone: one commit at a time, until it counts as written; then checked and read.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::time::Duration;

use criterion::{Criterion, Throughput};
use kalamdb_benches::{change_log, directory, encoded_row};
use kalamdb_core::clock;
use kalamdb_log::{Durability, LogOptions, LogWriter};
use log_format::{ChangeEvent, EncodedEvent, Partition, RowInserted, TableId, UserId};

const MODES: [(&str, Durability); 3] = [
    ("always", Durability::Always),
    ("interval_10ms", Durability::Interval(Duration::from_millis(10))),
    ("os", Durability::Os),
];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (mode, durability) in MODES {
        for batch in [1, 100] {
            append(&mut criterion, mode, durability, batch);
        }
    }
    append_batches(&mut criterion);
    read(&mut criterion);
    criterion.final_summary();
}

/// Commits of 64 KiB that wait for nothing.
fn append_batches(criterion: &mut Criterion) {
    let dir = directory();
    let options = LogOptions { durability: Durability::Os, ..LogOptions::default() };
    let (mut log, _) = LogWriter::open(dir.path(), &options, clock::now_micros()).unwrap();
    let events = change_log::batch();
    let mut group = criterion.benchmark_group("log_append");
    group.throughput(Throughput::Bytes(change_log::BATCH_BYTES as u64));
    group.bench_function("os/64KiB", |bencher| {
        bencher.iter(|| {
            log.stage(&events, clock::now_micros()).unwrap();
            log.write().unwrap()
        });
    });
    group.finish();
}

/// A log of 16 MiB: checked as `log verify` does, made records of as `tail` does.
fn read(criterion: &mut Criterion) {
    const BYTES: usize = 16 << 20;
    let (log, _) = change_log::append(BYTES);
    let mut group = criterion.benchmark_group("log_read");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(20);
    group.bench_function("verify", |bencher| bencher.iter(|| change_log::check(log.path(), 1)));
    group.bench_function("records", |bencher| bencher.iter(|| change_log::read_records(log.path())));
    group.finish();
}

fn append(criterion: &mut Criterion, mode: &str, durability: Durability, batch: usize) {
    let dir = directory();
    let options = LogOptions { durability, ..LogOptions::default() };
    let (mut log, _) = LogWriter::open(dir.path(), &options, clock::now_micros()).unwrap();
    let events: Vec<EncodedEvent> = (0..batch).map(|_| event().encode().unwrap()).collect();
    let mut group = criterion.benchmark_group("log_append");
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(format!("{mode}/{batch}"), |bencher| {
        bencher.iter(|| {
            log.stage(&events, clock::now_micros()).unwrap();
            log.write().unwrap();
            log.sync_if_due(clock::instant()).unwrap()
        });
    });
    group.finish();
}

fn event() -> ChangeEvent {
    let partition = Partition::of_user(TableId::new(7), UserId::new("user_01"));
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key: vec![0; 8], row: encoded_row(42, 1) }))
}
