//! Reads: one row by its key, all rows of a user; through SQL to Arrow and straight from the row store.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::ops::ControlFlow;

use criterion::{Criterion, Throughput};
use kalamdb_benches::{Database, MESSAGES, directory, encoded_row, row, session};
use kalamdb_core::format::Role;
use kalamdb_core::log::Durability;
use kalamdb_store::{Keyspace, Store, StoreOptions};
use log_format::{
    ChangeEvent, FrameEncoder, FrameFields, KeyBuilder, Partition, RowInserted, RowReader, Seq, TableId,
    UserId, Value,
};

const ROWS: i64 = 10_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    sql(&mut criterion);
    store(&mut criterion);
    criterion.final_summary();
}

fn sql(criterion: &mut Criterion) {
    let database = Database::open(Durability::Os);
    let reader = session("user_00", Role::User);
    for user in ["user_00", "user_01"] {
        let rows: Vec<_> = (0..ROWS).map(|id| row(id, id % 10)).collect();
        database.insert(&session(user, Role::User), MESSAGES, &rows);
    }
    let mut group = criterion.benchmark_group("sql");
    let mut id = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("point", |bencher| {
        bencher.iter(|| {
            id = (id + 7919) % ROWS;
            let found = database.execute(&reader, "SELECT * FROM bench.messages WHERE id = $1", &[id.into()]);
            assert_eq!(found.first().map(|result| result.row_count), Some(1));
        });
    });
    group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
    for (name, statement) in [
        ("user_scan", "SELECT * FROM bench.messages"),
        ("user_scan_one_column", "SELECT id FROM bench.messages"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let found = database.execute(&reader, statement, &[]);
                assert_eq!(found.first().map(|result| result.row_count), Some(ROWS.unsigned_abs()));
            });
        });
    }
    group.finish();
}

fn key(id: i64) -> Vec<u8> {
    let mut key = KeyBuilder::new();
    key.push(&Value::BigInt(id)).unwrap();
    key.finish()
}

fn store(criterion: &mut Criterion) {
    let dir = directory();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let (table, user) = (TableId::new(7), UserId::new("user_00"));
    let partition = Partition::of_user(table, user.clone());
    let events: Vec<_> = (0..ROWS)
        .map(|id| {
            let event = RowInserted { partition: partition.clone(), key: key(id), row: encoded_row(id, 1) };
            ChangeEvent::RowInserted(Box::new(event)).encode().unwrap()
        })
        .collect();
    let fields = FrameFields {
        first_seq: Seq::new(1),
        epoch: 1,
        previous_crc: 0,
        commit_time: 0,
        durable_seq: Seq::ZERO,
    };
    let mut encoder = FrameEncoder::new();
    encoder.push(&fields, &events).unwrap();
    store.apply(&encoder.take_frames()).unwrap();
    store.flush(true).unwrap();

    let mut group = criterion.benchmark_group("store");
    let cut = store.cut().unwrap();
    let mut id = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("cut", |bencher| bencher.iter(|| store.cut().unwrap().seq()));
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            id = (id + 7919) % ROWS;
            cut.get(Keyspace::User, &partition, &key(id), |row| row.row.len()).unwrap().unwrap()
        });
    });
    group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
    group.bench_function("scan_user", |bencher| {
        bencher.iter(|| {
            let mut cells = 0;
            let count = |_: &[u8], row: kalamdb_store::StoredRow<'_>| {
                cells += RowReader::new(row.row).unwrap().cells().flatten().count();
                ControlFlow::Continue(())
            };
            cut.scan_user(table, &user, count).unwrap();
            cells
        });
    });
    group.finish();
}
