use std::path::Path;
use std::sync::Arc;

use log_format::{
    ChangeEvent, EncodedEvent, Partition, PartitionHash, RowInserted, SegmentFooter, Seq, TableId, UserId,
};

use crate::segment::SegmentReader;
use crate::simulation::{Fault, SimulatedDisk};
use crate::testing::{open, options, rest, seq};
use crate::{LogDirectory, LogReader, LogWriter, list_segments};

fn partition(user: usize) -> Partition {
    Partition::of_user(TableId::new(7), UserId::new(format!("user_{user}")))
}

fn event(user: usize) -> EncodedEvent {
    let row = RowInserted { partition: partition(user), key: vec![1], row: vec![0xab; 300] };
    ChangeEvent::RowInserted(Box::new(row)).encode().unwrap()
}

/// A log of 100 commits, one microsecond apart; each run of 20 is of one user.
fn log() -> (SimulatedDisk, LogDirectory, LogWriter) {
    let disk = SimulatedDisk::new(1);
    let dir = LogDirectory::new(Arc::new(disk.clone()), "/log");
    let (mut writer, _) = LogWriter::open(&dir, &options(), 0).unwrap();
    for number in 0..100 {
        writer.stage(&[event(number / 20)], i64::try_from(number).unwrap()).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    (disk, dir, writer)
}

fn footer(dir: &LogDirectory, index: usize) -> Option<SegmentFooter> {
    let segment = list_segments(dir).unwrap().swap_remove(index);
    SegmentReader::open(dir, segment).unwrap().footer().unwrap()
}

#[test]
fn a_sealed_segment_says_what_is_in_it() {
    let (_, dir, writer) = log();
    let segments = list_segments(&dir).unwrap();
    let mut next = seq(1);
    for index in 0..segments.len() - 1 {
        let footer = footer(&dir, index).unwrap();
        assert_eq!((footer.base_seq, footer.base_seq), (segments[index].base_seq, next));
        assert_eq!(footer.last_seq.next(), segments[index + 1].base_seq);
        assert_eq!(footer.events, footer.last_seq.get() - footer.base_seq.get() + 1);
        assert_eq!(footer.entries[0].first_seq, footer.base_seq);
        assert!(footer.may_touch(&[PartitionHash::CATALOG]) == (index == 0));
        let owners = |seq: Seq| usize::try_from(seq.get().max(2) - 2).unwrap() / 20;
        for user in 0..5 {
            let is_there = (owners(footer.base_seq)..=owners(footer.last_seq)).contains(&user);
            assert_eq!(footer.may_touch(&[PartitionHash::of(&partition(user))]), is_there, "{index}, {user}");
        }
        next = footer.last_seq.next();
    }
    assert_eq!(footer(&dir, segments.len() - 1), None, "the one that is written to has none");
    assert_eq!(writer.end(), seq(101));
}

#[test]
fn a_segment_that_goes_on_after_a_restart_has_the_same_footer() {
    let (_, dir, _) = log();
    let disk = SimulatedDisk::new(1);
    let other = LogDirectory::new(Arc::new(disk), "/log");
    let (mut writer, _) = open(&other);
    writer.stage(&[event(9), event(8)], 5).unwrap();
    writer.write().unwrap();
    writer.close().unwrap();
    let (mut writer, _) = open(&other);
    while list_segments(&other).unwrap().len() == 1 {
        writer.stage(&[event(7)], 6).unwrap();
        writer.write().unwrap();
    }
    let found = footer(&other, 0).unwrap();
    let hash = |user| PartitionHash::of(&partition(user));
    assert!([7, 8, 9].iter().all(|user| found.may_touch(&[hash(*user)])) && !found.may_touch(&[hash(1)]));
    assert_eq!(found.events, found.last_seq.get());
    assert_eq!(found.frames, found.last_seq.get() - 1);
    drop(dir);
}

/// First and last seqs of frames with an event of the user.
fn of_user(reader: &mut LogReader, user: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        let is_wanted = |event: &log_format::ArchivedChangeEvent| {
            event.partition().is_some_and(|it| it.to_partition() == partition(user))
        };
        if frame.events().any(|(_, event)| is_wanted(event.unwrap())) {
            found.push(frame.first_seq().get());
        }
    }
    found
}

#[test]
fn segments_of_others_are_left_out() {
    let (disk, dir, mut writer) = log();
    let bytes_read = |only: bool| {
        let before = disk.calls();
        let mut reader = LogReader::open(&dir);
        if only {
            reader.only([PartitionHash::of(&partition(2))]);
        }
        let mut frames = 0;
        while reader.next().unwrap().is_some() {
            frames += 1;
        }
        (frames, disk.calls() - before)
    };
    let (all, _) = bytes_read(false);
    let (few, _) = bytes_read(true);
    assert!(all == 101 && few < 45, "{few} of {all} frames read");
    for user in 0..5 {
        let mut reader = LogReader::open(&dir);
        reader.only([PartitionHash::of(&partition(user))]);
        let first = 2 + 20 * user as u64;
        assert_eq!(of_user(&mut reader, user), (first..first + 20).collect::<Vec<_>>());
        // It follows as well.
        writer.stage(&[event(user)], 200).unwrap();
        let written = writer.write().unwrap().remove(0);
        assert_eq!(of_user(&mut reader, user), [written.first_seq().get()]);
        reader.seek(seq(first + 5)).unwrap();
        let mut behind = of_user(&mut reader, user);
        behind.truncate(14);
        assert_eq!(
            behind,
            (first + 6..first + 20).collect::<Vec<_>>(),
            "a seek leaves nothing out on its way"
        );
    }
}

#[test]
fn a_time_is_found() {
    let (disk, dir, mut writer) = log();
    let mut reader = LogReader::open(&dir);
    for time in -1..100_i64 {
        reader.seek_time(time).unwrap();
        let expected = if time <= 0 { 1 } else { u64::try_from(time).unwrap() + 2 };
        assert_eq!(reader.next().unwrap().unwrap().first_seq().get(), expected, "{time}");
    }
    reader.seek_time(100).unwrap();
    assert!(reader.next().unwrap().is_none());
    writer.stage(&[event(1)], 150).unwrap();
    writer.write().unwrap();
    assert_eq!(reader.next().unwrap().unwrap().first_seq(), seq(102), "what is written next");
    assert!(!disk.is_halted());
}

fn last_bytes(disk: &SimulatedDisk, path: &Path, footer: &SegmentFooter) -> (Vec<u8>, usize) {
    (disk.content(path).unwrap(), usize::try_from(footer.end).unwrap())
}

#[test]
fn a_damaged_or_missing_footer_changes_nothing() {
    let (disk, dir, writer) = log();
    let whole = rest(&mut LogReader::open(&dir));
    let segments = list_segments(&dir).unwrap();
    let index = segments.len() - 2;
    let found = footer(&dir, index).unwrap();
    let path = &segments[index].path;
    let (bytes, end) = last_bytes(&disk, path, &found);
    let check = |damaged: Vec<u8>, what: &str| {
        disk.put(path, damaged);
        let mut reader = LogReader::open(&dir);
        assert_eq!(rest(&mut reader), whole, "{what}");
        reader.only([PartitionHash::of(&partition(0))]);
        reader.seek(Seq::ZERO).unwrap();
        assert_eq!(of_user(&mut reader, 0).len(), 20, "{what}");
        reader.seek_time(97).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().first_seq(), seq(99), "{what}");
    };
    for at in end..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        check(damaged, &format!("byte {at} is flipped"));
        check(bytes[..at].to_vec(), &format!("cut at {at}"));
    }
    drop(writer);
    let (_, recovery) = open(&dir);
    assert_eq!((recovery.previous_end, recovery.cut), (seq(101), None));
}

#[test]
fn a_crash_while_a_segment_is_sealed_loses_nothing() {
    // All calls of a rotation halt in turn: making room for the footer, writing it, syncing, making the next segment.
    for call in 0..14 {
        for seed in 0..8 {
            let (disk, _, mut writer) = log();
            let segments = list_segments(LogDirectory::new(Arc::new(disk.clone()), "/log")).unwrap().len();
            writer.stage(&(0..12).map(event).collect::<Vec<_>>(), 300).unwrap();
            disk.fail_at(disk.calls() + call, Fault::Halt);
            let written = writer.write();
            let mut random = crate::simulation::Random::new(seed);
            let after = if seed % 2 == 0 { disk.kill() } else { disk.crash(&mut random) };
            let dir = LogDirectory::new(Arc::new(after), "/log");
            let (_, recovery) = open(&dir);
            let expected: &[u64] = if written.is_ok() { &[101, 113] } else { &[101] };
            let whole = recovery.previous_end == seq(113);
            assert!(whole || expected.contains(&recovery.previous_end.get()), "call {call}, seed {seed}");
            assert!(list_segments(&dir).unwrap().len() >= segments);
        }
    }
}

#[test]
fn a_segment_without_space_for_its_footer_is_sealed_without() {
    let (disk, dir, mut writer) = log();
    let segments = list_segments(&dir).unwrap().len();
    writer.stage(&(0..12).map(event).collect::<Vec<_>>(), 300).unwrap();
    // The first call looks how long the file is, the second makes room for the footer.
    disk.fail_at(disk.calls() + 1, Fault::NoSpace);
    writer.write().unwrap();
    assert_eq!(list_segments(&dir).unwrap().len(), segments + 1);
    assert_eq!(footer(&dir, segments - 1), None);
    assert_eq!(rest(&mut LogReader::open(&dir)).len(), 102);
}
