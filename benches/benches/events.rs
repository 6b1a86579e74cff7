//! One event: into its archive, into a frame, back out, checked.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use kalamdb_benches::{ROW_BYTES, encoded_row, row};
use log_format::{
    ArchivedChangeEvent, ChangeEvent, EncodedEvent, Frame, FrameBuffer, FrameEncoder, FrameFields,
    KeyBuilder, Partition, RowInserted, RowReader, Seq, TableId, UserId, Value,
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    rows(&mut criterion);
    events(&mut criterion);
    frames(&mut criterion);
    criterion.final_summary();
}

fn inserted() -> ChangeEvent {
    let partition = Partition::of_user(TableId::new(7), UserId::new("user_01"));
    let mut key = KeyBuilder::new();
    key.push(&Value::BigInt(42)).unwrap();
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key: key.finish(), row: encoded_row(42, 1) }))
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("row");
    group.throughput(Throughput::Bytes(ROW_BYTES as u64));
    let values = row(42, 1);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| kalamdb_benches::encode(black_box(&values)));
    });
    let bytes = encoded_row(42, 1);
    group.bench_function("walk", |bencher| {
        bencher.iter(|| RowReader::new(black_box(&bytes)).unwrap().cells().flatten().count());
    });
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    let event = inserted();
    let encoded = event.encode().unwrap();
    group.throughput(Throughput::Bytes(encoded.as_bytes().len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&event).encode().unwrap()));
    group.bench_function("validate", |bencher| {
        bencher.iter(|| ArchivedChangeEvent::access(black_box(encoded.as_bytes())).unwrap().operation());
    });
    group.bench_function("decode", |bencher| {
        bencher
            .iter(|| ArchivedChangeEvent::access(black_box(encoded.as_bytes())).unwrap().to_event().unwrap());
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for count in [1_usize, 100] {
        let events: Vec<EncodedEvent> = (0..count).map(|_| inserted().encode().unwrap()).collect();
        let fields = FrameFields {
            first_seq: Seq::new(1),
            epoch: 1,
            previous_crc: 0,
            commit_time: 0,
            durable_seq: Seq::ZERO,
        };
        let mut encoder = FrameEncoder::new();
        encoder.push(&fields, &events).unwrap();
        let mut buffer = FrameBuffer::new();
        buffer.extend_from_slice(encoder.as_bytes());
        let bytes = log_format::Bytes::from_owner(buffer);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("encode/{count}"), |bencher| {
            let encode = |mut encoder: FrameEncoder| {
                encoder.push(&fields, black_box(&events)).unwrap();
                encoder
            };
            bencher.iter_batched(FrameEncoder::new, encode, BatchSize::SmallInput);
        });
        group.bench_function(format!("parse/{count}"), |bencher| {
            bencher.iter(|| Frame::parse(black_box(&bytes)).unwrap());
        });
        let frame = Frame::parse(&bytes).unwrap();
        group.bench_function(format!("validate/{count}"), |bencher| {
            bencher.iter(|| black_box(&frame).events().filter(|(_, event)| event.is_ok()).count());
        });
    }
    group.finish();
}
