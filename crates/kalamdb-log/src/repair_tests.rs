use std::collections::BTreeSet;
use std::sync::Arc;

use log_format::{Partition, RowInserted};

use super::*;
use crate::simulation::{Fault, Random, SimulatedDisk};
use crate::testing::{open, options, rest};
use crate::{Error, LogOptions, LogReader, LogWriter, list_segments};

fn small() -> LogOptions {
    LogOptions { segment_bytes: 700, ..options() }
}

fn directory(disk: &SimulatedDisk) -> LogDirectory {
    LogDirectory::new(Arc::new(disk.clone()), "/log")
}

/// A closed log of 16 frames over some segments.
fn log() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let (mut writer, _) = LogWriter::open(directory(&disk), &small(), 0).unwrap();
    for number in 0..15_u64 {
        let partition = Partition::shared(TableId::new(100 + number));
        let row = RowInserted { partition, key: vec![1], row: vec![0xab; 20] };
        writer.stage(&[ChangeEvent::RowInserted(Box::new(row)).encode().unwrap()], 7).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    writer.close().unwrap();
    disk
}

/// The bytes of all frames that can be read over holes.
fn frames(dir: &LogDirectory) -> Result<Vec<Vec<u8>>> {
    let mut reader = LogReader::open(dir);
    reader.over_holes();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next()? {
        frames.push(frame.as_bytes().to_vec());
    }
    Ok(frames)
}

fn contents(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.content(&path).unwrap())).collect()
}

#[test]
fn a_log_that_is_right_is_left_alone() {
    let disk = log();
    let before = contents(&disk);
    assert_eq!(repair(directory(&disk), 0).unwrap(), []);
    let after: Vec<_> = contents(&disk);
    assert_eq!(before.len(), after.len());
    assert!(before == after);
    let (_writer, _) = open(directory(&disk));
    assert!(matches!(repair(directory(&disk), 0), Err(Error::Locked { .. })));
}

#[test]
fn a_flipped_bit_costs_its_frame_and_says_whose_it_was() {
    let disk = log();
    let dir = directory(&disk);
    let whole = frames(&dir).unwrap();
    let segments = list_segments(&dir).unwrap();
    let path = &segments[1].path;
    let mut bytes = disk.content(path).unwrap();
    let first = u64::from_le_bytes(bytes[72..80].try_into().unwrap());
    // In the row of the second frame of the second segment.
    let second = 64 + u32::from_le_bytes(bytes[68..72].try_into().unwrap()) as usize;
    bytes[second + 75] ^= 1;
    disk.put(path, bytes.clone());
    let mended = repair(&dir, 0).unwrap();
    assert_eq!(mended.len(), 1);
    let lost = Seq::new(first + 1);
    let one = &mended[0];
    assert_eq!((&one.segment, one.offset), (path, second as u64));
    assert_eq!((one.lost_from, one.lost_to), (Some(lost), Some(lost)));
    assert_eq!(one.tables, BTreeMap::from([(TableId::new(100 + first + 1 - 2), 1)]));
    assert!(!one.has_unreadable && one.problem.contains("crc32c"), "{one:?}");
    let kept = disk.content(&one.kept[0]).unwrap();
    assert!(kept == bytes[second..second + kept.len()]);
    // Everything else is there, and whoever reads on is told.
    let left = frames(&dir).unwrap();
    assert_eq!(left.len(), whole.len() - 1);
    assert!(left.iter().all(|frame| whole.contains(frame)));
    let mut reader = LogReader::open(&dir);
    let told = std::iter::from_fn(|| reader.next().transpose()).find_map(Result::err).unwrap();
    assert!(matches!(told, Error::BelowFloor { floor } if floor == lost.next()), "{told:?}");
    reader.seek(lost).unwrap();
    assert!(matches!(reader.seek(lost.previous()), Ok(())) && reader.next().is_err());
    let (writer, recovery) = open(&dir);
    assert!(!recovery.gap && writer.end() == recovery.previous_end.next(), "its end is as it was closed");
}

#[test]
fn a_lost_end_is_given_up_with_room_for_what_was_there() {
    let disk = log();
    let dir = directory(&disk);
    let whole = frames(&dir).unwrap();
    let path = list_segments(&dir).unwrap().pop().unwrap().path;
    let bytes = disk.content(&path).unwrap();
    disk.put(&path, bytes[..bytes.len() - 3].to_vec());
    assert!(LogWriter::open(&dir, &small(), 0).is_err());
    let mended = repair(&dir, 9).unwrap();
    assert_eq!((mended[0].lost_from, mended[0].lost_to), (Some(Seq::new(16)), Some(Seq::new(16))));
    assert!(mended[0].has_unreadable);
    let left = frames(&dir).unwrap();
    assert!(left[..15] == whole[..15] && left.len() == 16, "one frame says what is lost");
    let (writer, recovery) = open(&dir);
    assert!(writer.end().get() > LOST_END_SEQS && recovery.gap);
    // Whoever had applied the lost event goes on behind it.
    for applied in [15, 16, 20] {
        let mut reader = LogReader::open(&dir);
        reader.over_holes();
        reader.seek(Seq::new(applied)).unwrap();
        assert_eq!(rest(&mut reader).len(), 2, "{applied}");
        let strict = LogReader::open(&dir).seek(Seq::new(applied));
        assert_eq!(strict.is_err(), applied > 15, "{applied}");
    }
}

#[test]
fn a_missing_segment_is_a_hole() {
    let disk = log();
    let dir = directory(&disk);
    let segments = list_segments(&dir).unwrap();
    dir.remove(&segments[1].path).unwrap();
    let mended = repair(&dir, 0).unwrap();
    assert_eq!(mended.len(), 1);
    assert_eq!(mended[0].lost_from, Some(segments[1].base_seq));
    assert_eq!(mended[0].lost_to, Some(segments[2].base_seq.previous()));
    frames(&dir).unwrap();
    open(&dir);
}

/// Whatever byte is flipped: after the repair the log opens, and lost at most the frame it was in.
#[test]
fn any_flipped_byte_is_mended() {
    let whole = frames(&directory(&log())).unwrap();
    let files = contents(&log());
    for (path, bytes) in files.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "klog")) {
        for at in 0..bytes.len() {
            let disk = SimulatedDisk::new(1);
            for (name, content) in &files {
                disk.put(name, content.clone());
            }
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            disk.put(path, flipped);
            let what = format!("{} at {at}", path.display());
            let dir = directory(&disk);
            let mended = repair(&dir, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
            let lost = usize::from(mended.iter().any(|one| one.lost_from.is_some()));
            assert!(mended.len() <= 1, "{what}: {mended:?}");
            let left = frames(&dir).unwrap_or_else(|error| panic!("{what}: {error}"));
            let there = left.iter().filter(|frame| whole.contains(frame)).count();
            assert!(there + lost >= whole.len(), "{what}: {there} of {}", whole.len());
            assert_eq!(repair(&dir, 0).unwrap(), [], "{what}: once is enough");
            LogWriter::open(&dir, &small(), 0).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn a_repair_that_was_interrupted_is_run_again() {
    let whole: BTreeSet<_> = frames(&directory(&log())).unwrap().into_iter().collect();
    for call in 0..400 {
        let disk = log();
        let segments = list_segments(directory(&disk)).unwrap();
        for segment in [&segments[1], &segments[2]] {
            let mut bytes = disk.content(&segment.path).unwrap();
            bytes[150] ^= 1;
            disk.put(&segment.path, bytes);
        }
        disk.fail_at(disk.calls() + call, Fault::Halt);
        let done = repair(directory(&disk), 0).is_ok();
        let after = if call % 2 == 0 { disk.kill() } else { disk.crash(&mut Random::new(call)) };
        let dir = directory(&after);
        repair(&dir, 0).unwrap_or_else(|error| panic!("call {call}: {error}"));
        let left: BTreeSet<_> = frames(&dir).unwrap().into_iter().collect();
        assert!(left.intersection(&whole).count() >= whole.len() - 2, "call {call}");
        open(&dir);
        if done {
            return;
        }
    }
    panic!("the repair never came to its end");
}
