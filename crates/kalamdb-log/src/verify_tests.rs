use std::sync::Arc;

use super::*;
use crate::simulation::SimulatedDisk;
use crate::testing::{event, open, options, seq};
use crate::{LogOptions, LogWriter, list_segments, repair};

struct Partitions;

impl Inspector for Partitions {
    fn reads_events(&self) -> bool {
        true
    }
}

fn log() -> (SimulatedDisk, LogDirectory) {
    let disk = SimulatedDisk::new(1);
    let dir = LogDirectory::new(Arc::new(disk.clone()), "/log");
    let options = LogOptions { segment_bytes: 600, ..options() };
    let (mut writer, _) = LogWriter::open(&dir, &options, 0).unwrap();
    for number in 0..12 {
        writer.stage(&[event(20), event(3)], number).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    writer.close().unwrap();
    (disk, dir)
}

#[test]
fn a_log_that_is_right_has_no_problems() {
    let (_, dir) = log();
    let segments = list_segments(&dir).unwrap().len() as u64;
    for threads in [1, 4] {
        for verified in [verify(&dir, threads, &FramesAlone), verify(&dir, threads, &Partitions)] {
            let verified = verified.unwrap();
            assert_eq!(verified.problems, []);
            assert_eq!((verified.segments, verified.footers), (segments, segments - 1));
            assert_eq!((verified.frames, verified.events), (13, 25));
            assert_eq!((verified.first_seq, verified.last_seq), (Some(seq(1)), seq(25)));
            assert_eq!(verified.unfinished, None);
        }
    }
    let (_writer, _) = open(&dir);
    assert_eq!(verify(&dir, 2, &FramesAlone).unwrap().problems, [], "nor while somebody writes");
}

#[test]
fn every_flipped_byte_is_a_problem() {
    let (disk, dir) = log();
    for segment in list_segments(&dir).unwrap() {
        let bytes = disk.content(&segment.path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            disk.put(&segment.path, flipped);
            let verified = verify(&dir, 1, &FramesAlone).unwrap();
            assert!(
                verified.problems.iter().any(|problem| problem.segment == segment.path),
                "{} at {at}: {verified:?}",
                segment.path.display()
            );
        }
        disk.put(&segment.path, bytes);
    }
}

#[test]
fn a_footer_that_lies_is_found() {
    let (disk, dir) = log();
    let segment = list_segments(&dir).unwrap().swap_remove(1);
    let footer = SegmentReader::open(&dir, segment.clone()).unwrap().footer().unwrap().unwrap();
    let frames = disk.content(&segment.path).unwrap()[..usize::try_from(footer.end).unwrap()].to_vec();
    let lies = [
        (SegmentFooter { events: footer.events + 1, ..footer.clone() }, true),
        (SegmentFooter { partitions: Some(Vec::new()), ..footer.clone() }, false),
    ];
    for (lie, is_always_found) in lies {
        disk.put(&segment.path, [frames.clone(), lie.encode().unwrap()].concat());
        assert_eq!(verify(&dir, 1, &FramesAlone).unwrap().problems.len(), usize::from(is_always_found));
        assert_eq!(verify(&dir, 1, &Partitions).unwrap().problems.len(), 1);
    }
}

#[test]
fn a_hole_is_told_and_no_problem() {
    let (disk, dir) = log();
    let segment = list_segments(&dir).unwrap().swap_remove(1);
    let mut bytes = disk.content(&segment.path).unwrap();
    bytes[100] ^= 1;
    disk.put(&segment.path, bytes);
    let before = verify(&dir, 1, &FramesAlone).unwrap();
    assert_eq!((before.problems[0].offset, before.problems.len()), (64, 1), "{before:?}");
    repair(&dir, 0).unwrap();
    let after = verify(&dir, 1, &FramesAlone).unwrap();
    assert_eq!(after.problems, []);
    assert_eq!(after.holes.len(), 1);
    assert_eq!(after.frames, 12);
}

#[test]
fn a_missing_segment_is_a_problem() {
    let (_, dir) = log();
    let segments = list_segments(&dir).unwrap();
    dir.remove(&segments[1].path).unwrap();
    let verified = verify(&dir, 2, &FramesAlone).unwrap();
    assert_eq!(verified.problems[0].segment, segments[2].path);
}
