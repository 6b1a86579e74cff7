use std::sync::Arc;

use log_format::SegmentFooter;

use super::*;
use crate::simulation::{Fault, Random, SimulatedDisk};
use crate::testing::{event, open, options, rest, seq};
use crate::{Error, LogReader, LogWriter, SegmentOverview, list_segments, segment_overviews};

/// A log of 60 commits, one second apart, and what its segments hold.
fn log() -> (SimulatedDisk, LogDirectory, LogWriter, Vec<SegmentOverview>) {
    let disk = SimulatedDisk::new(1);
    let dir = LogDirectory::new(Arc::new(disk.clone()), "/log");
    let (mut writer, _) = LogWriter::open(&dir, &options(), 0).unwrap();
    for number in 0..60 {
        writer.stage(&[event(400)], number * 1_000_000).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    let segments = segment_overviews(&dir).unwrap();
    assert!(segments.len() > 6);
    (disk, dir, writer, segments)
}

const ALL: Seq = Seq::new(u64::MAX);

#[test]
fn segments_are_told_with_and_without_footers() {
    let (disk, dir, writer, segments) = log();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        assert_eq!((segment.is_sealed, segment.has_footer), (!is_last, !is_last));
        let content = segment.content.as_ref().unwrap();
        assert_eq!(content.base_seq, segment.base_seq);
        if !is_last {
            let bytes = disk.content(&segment.path).unwrap();
            disk.put(&segment.path, bytes[..bytes.len() - 1].to_vec());
            let told = segment_overviews(&dir).unwrap().swap_remove(index);
            assert!(!told.has_footer);
            let read = told.content.unwrap();
            let expected = SegmentFooter { partitions: None, ..content.clone() };
            assert_eq!(read, expected, "frames say the same");
            disk.put(&segment.path, bytes);
        }
    }
    assert_eq!(segments.last().unwrap().content.as_ref().unwrap().last_seq, writer.end());
}

#[test]
fn the_oldest_segments_go_by_size() {
    let (_, dir, writer, segments) = log();
    let all: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let limit = Retention { bytes: Some(all - 1), age: None };
    let dropped = drop_segments(&dir, &limit, ALL, 0).unwrap();
    assert_eq!(dropped.len(), 1);
    assert_eq!((dropped[0].segment.base_seq, dropped[0].floor), (seq(1), segments[1].base_seq));
    assert_eq!(drop_segments(&dir, &limit, ALL, 0).unwrap(), [], "once is enough");
    let limit = Retention { bytes: Some(0), age: None };
    assert_eq!(drop_segments(&dir, &limit, ALL, 0).unwrap().len(), segments.len() - 2);
    let left = list_segments(&dir).unwrap();
    assert_eq!(left.len(), 1, "the last one stays");
    assert_eq!(drop_segments(&dir, &Retention::default(), ALL, i64::MAX).unwrap(), []);
    drop(writer);
    let (_, recovery) = open(&dir);
    assert_eq!(recovery.previous_end, seq(61));
}

#[test]
fn old_segments_go_by_age_with_and_without_footers() {
    for has_footers in [true, false] {
        let (disk, dir, _writer, segments) = log();
        if !has_footers {
            for segment in &segments[..segments.len() - 1] {
                let bytes = disk.content(&segment.path).unwrap();
                disk.put(&segment.path, bytes[..bytes.len() - 1].to_vec());
            }
        }
        let old = segments[2].content.as_ref().unwrap().last_time;
        let limit = Retention { bytes: None, age: Some(Duration::from_secs(100)) };
        // Without a footer, the next segment's first commit counts: one second later.
        let grace = if has_footers { 1 } else { 1_000_001 };
        assert_eq!(drop_segments(&dir, &limit, ALL, old + 100_000_000).unwrap().len(), 2);
        assert_eq!(drop_segments(&dir, &limit, ALL, old + 100_000_000 + grace).unwrap().len(), 1);
    }
}

#[test]
fn what_must_stay_stays() {
    let (_, dir, _writer, segments) = log();
    let limit = Retention { bytes: Some(0), age: Some(Duration::ZERO) };
    let floor = segments[3].base_seq;
    for keep_from in [floor, floor.next()] {
        drop_segments(&dir, &limit, keep_from, i64::MAX).unwrap();
        assert_eq!(list_segments(&dir).unwrap()[0].base_seq, floor, "kept from {keep_from}");
    }
    assert_eq!(drop_segments(&dir, &limit, Seq::ZERO, i64::MAX).unwrap(), []);
}

#[test]
fn a_reader_below_the_floor_is_told() {
    let (_, dir, _writer, segments) = log();
    let limit = Retention { bytes: Some(0), age: None };
    let (mut at_start, mut in_next) = (LogReader::open(&dir), LogReader::open(&dir));
    at_start.next().unwrap();
    in_next.seek(segments[3].base_seq).unwrap();
    in_next.next().unwrap().unwrap();
    drop_segments(&dir, &limit, segments[4].base_seq, 0).unwrap();
    let below = LogReader::open(&dir).seek(seq(5));
    assert!(matches!(below, Err(Error::BelowFloor { floor }) if floor == segments[4].base_seq), "{below:?}");
    let overtaken = loop {
        match at_start.next() {
            Ok(frame) => assert!(frame.is_some(), "it must not think that it is at the end"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(overtaken, Error::BelowFloor { floor } if floor == segments[4].base_seq),
        "{overtaken:?}"
    );
    // A reader of the last segment that went still has it open, and goes on into the next one.
    assert!(rest(&mut in_next).last().unwrap().1 == 61);
}

#[test]
fn a_crash_in_between_leaves_no_hole() {
    for call in 0..40 {
        let (disk, dir, writer, segments) = log();
        disk.fail_at(disk.calls() + call, Fault::Halt);
        let limit = Retention { bytes: Some(9000), age: None };
        let dropped = drop_segments(&dir, &limit, ALL, 0);
        drop(writer);
        let after = LogDirectory::new(Arc::new(disk.crash(&mut Random::new(call))), "/log");
        let (_, recovery) = open(&after);
        assert_eq!(recovery.previous_end, seq(61), "call {call}");
        let mut reader = LogReader::open(&after);
        let floor = reader.floor().unwrap();
        assert!(segments.iter().any(|segment| segment.base_seq == floor));
        let read = rest(&mut reader);
        assert_eq!(read[0].0, floor.get());
        assert_eq!(read.len() as u64, 61 - floor.get() + 2, "call {call}: no hole");
        if let Ok(dropped) = dropped {
            assert!(floor >= dropped.last().unwrap().floor, "what is told to be gone is gone");
        }
    }
}
