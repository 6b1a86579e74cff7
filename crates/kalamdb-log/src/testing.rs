//! What the tests of this crate share.

use std::time::Duration;

use log_format::{ChangeEvent, EncodedEvent, Frame, Partition, RowInserted, Seq, TableId, UserId};

use crate::{Durability, LogDirectory, LogOptions, LogReader, LogWriter, Recovery};

pub(crate) const GAP: u64 = 1000;

/// Small segments, no zeros ahead.
pub(crate) fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        durability: Durability::Always,
        seq_gap: GAP,
        skips_always: false,
        preallocate_bytes: 0,
        write_behind: true,
    }
}

pub(crate) fn open(dir: impl Into<LogDirectory>) -> (LogWriter, Recovery) {
    LogWriter::open(dir, &options(), 1_000).unwrap()
}

/// An event with a row of that many bytes.
pub(crate) fn event(bytes: usize) -> EncodedEvent {
    let partition = Partition::of_user(TableId::new(7), UserId::new("ada"));
    let row = vec![0xab; bytes];
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key: vec![1, 2, 3], row })).encode().unwrap()
}

/// Stages, writes and syncs one commit of that many events.
pub(crate) fn commit(writer: &mut LogWriter, events: usize) -> Frame {
    let events: Vec<_> = (0..events).map(|_| event(100)).collect();
    writer.stage(&events, 2_000).unwrap();
    let mut frames = writer.write().unwrap();
    writer.sync().unwrap();
    assert_eq!(frames.len(), 1);
    frames.pop().unwrap()
}

/// First and last seq of every frame from where the reader stands.
pub(crate) fn rest(reader: &mut LogReader) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        for (_, event) in frame.events() {
            event.unwrap();
        }
        ranges.push((frame.first_seq().get(), frame.last_seq().get()));
    }
    ranges
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number)
}

/// How long a test waits for another thread before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
