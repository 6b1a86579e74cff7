use std::fs;

use log_format::SegmentHeader;

use super::*;
use crate::LogReader;
use crate::segment::list_segments;
use crate::simulation::{Fault, Random, SimulatedDisk};
use crate::testing::{GAP, commit, event, open, options, rest, seq};

#[test]
fn a_new_log_begins_with_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, recovery) = open(&dir.path().join("deep/er"));
    assert_eq!((writer.end(), writer.durable(), writer.next_seq()), (seq(1), seq(1), seq(2)));
    assert_eq!((recovery.previous_end, recovery.epoch, recovery.gap), (seq(0), 1, false));
    assert_eq!(writer.last_commit_time(), 1_000);
}

#[test]
fn a_group_is_one_buffer_of_linked_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let heads =
        [writer.stage(&[event(5), event(6)], 5_000).unwrap(), writer.stage(&[event(7)], 4_000).unwrap()];
    assert_eq!((writer.end(), writer.next_seq()), (seq(1), seq(5)), "staged is not written");
    let frames = writer.write().unwrap();
    assert_eq!(frames.iter().map(|frame| *frame.header()).collect::<Vec<_>>(), heads);
    assert_eq!(heads[1].fields.previous_crc, heads[0].crc);
    assert_eq!(heads[1].fields.commit_time, 5_000, "time does not go back");
    assert_eq!((writer.end(), writer.durable()), (seq(4), seq(1)));
    assert_eq!(writer.sync().unwrap(), seq(4));
    assert!(writer.write().unwrap().is_empty());
    for frame in frames {
        let reparsed = Frame::parse(frame.as_bytes()).unwrap();
        assert_eq!(reparsed.header(), frame.header());
    }
}

#[test]
fn goes_on_without_a_gap_after_a_clean_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { preallocate_bytes: 1 << 20, ..options() };
    let (mut writer, _) = LogWriter::open(dir.path(), &options, 9_000).unwrap();
    commit(&mut writer, 3);
    let database = writer.database();
    let path = list_segments(dir.path()).unwrap()[0].path.clone();
    assert!(fs::metadata(&path).unwrap().len() > 1 << 20);
    writer.close().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 4096, "the zeros ahead are cut off");
    assert!(dir.path().join("CLEAN").exists());
    let (writer, recovery) = open(dir.path());
    assert!(!dir.path().join("CLEAN").exists());
    assert_eq!(
        (recovery.previous_end, recovery.end, recovery.gap, recovery.epoch),
        (seq(4), seq(5), false, 2)
    );
    assert_eq!(writer.database(), database);
    assert_eq!(writer.last_commit_time(), 9_000, "nor does time go back across restarts");
    assert_eq!(rest(&mut LogReader::open(dir.path())), [(1, 1), (2, 4), (5, 5)]);
}

#[test]
fn skips_ahead_where_it_was_not_closed() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { preallocate_bytes: 1 << 16, ..options() };
    let (mut writer, _) = LogWriter::open(dir.path(), &options, 0).unwrap();
    commit(&mut writer, 3);
    writer.close().unwrap();
    for restart in 1..=3 {
        let (mut writer, recovery) = LogWriter::open(dir.path(), &options, 0).unwrap();
        let gap = if restart == 1 { 0 } else { GAP };
        assert_eq!(recovery.gap, restart > 1, "the marker of the close before is gone");
        assert_eq!(recovery.end, recovery.previous_end.plus(1 + gap));
        assert_eq!(recovery.cut, None, "zeros ahead are no torn tail");
        commit(&mut writer, 1);
    }
    assert_eq!(rest(&mut LogReader::open(dir.path())).len(), 2 + 3 * 2);
}

#[test]
fn a_marker_of_another_end_does_not_vouch() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    commit(&mut writer, 3);
    writer.close().unwrap();
    let marker = fs::read(dir.path().join("CLEAN")).unwrap();
    let (mut writer, _) = open(dir.path());
    commit(&mut writer, 3);
    drop(writer);
    fs::write(dir.path().join("CLEAN"), marker).unwrap();
    let (_, recovery) = open(dir.path());
    assert!(recovery.gap);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _) = open(dir.path());
    let refused = LogWriter::open(dir.path(), &options(), 0);
    assert!(matches!(&refused, Err(Error::Locked { dir: named }) if named == dir.path()), "{refused:?}");
    drop(writer);
    open(dir.path());
}

#[test]
fn what_does_not_fit_leaves_the_group_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    writer.stage(&[event(1)], 0).unwrap();
    let before = writer.next_seq();
    let huge: Vec<_> = (0..5).map(|_| event(15 << 20)).collect();
    assert!(matches!(writer.stage(&huge, 0), Err(Error::Encode(_))));
    assert!(matches!(writer.stage(&[], 0), Err(Error::Encode(_))));
    assert_eq!(writer.next_seq(), before);
    writer.stage(&[event(1)], 0).unwrap();
    assert_eq!(writer.write().unwrap().len(), 2);
    assert_eq!(rest(&mut LogReader::open(dir.path())), [(1, 1), (2, 2), (3, 3)]);
}

/// A disk that fails when it is told to, and the log's directory on it.
fn failing() -> (SimulatedDisk, LogDirectory) {
    let disk = SimulatedDisk::new(1);
    (disk.clone(), LogDirectory::new(Arc::new(disk), "/log"))
}

#[test]
fn a_failed_write_poisons() {
    let (disk, dir) = failing();
    let (mut writer, _) = open(&dir);
    commit(&mut writer, 1);
    // The first call makes room, the second writes.
    disk.fail_at(disk.calls() + 1, Fault::InputOutput);
    writer.stage(&[event(1)], 0).unwrap();
    for _ in 0..2 {
        let failed = writer.write().unwrap_err();
        let Error::Poisoned { cause } = &failed else { panic!("{failed:?}") };
        assert!(matches!(&**cause, Error::Io { action: "write", .. }), "{cause:?}");
    }
    assert!(matches!(writer.stage(&[event(1)], 0), Err(Error::Poisoned { .. })));
    assert!(matches!(writer.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(writer.close(), Err(Error::Poisoned { .. })));
    let (_, recovery) = open(&dir);
    assert_eq!((recovery.previous_end, recovery.gap), (seq(2), true));
}

#[test]
fn a_failed_sync_poisons() {
    let (disk, dir) = failing();
    let (mut writer, _) = open(&dir);
    writer.stage(&[event(1)], 0).unwrap();
    writer.write().unwrap();
    disk.fail_at(disk.calls(), Fault::InputOutput);
    for _ in 0..2 {
        let failed = writer.sync().unwrap_err();
        let Error::Poisoned { cause } = &failed else { panic!("{failed:?}") };
        assert!(matches!(&**cause, Error::Io { action: "sync", .. }), "{cause:?}");
    }
    assert_eq!(writer.durable(), seq(1));
    assert!(matches!(writer.write(), Err(Error::Poisoned { .. })));
}

#[test]
fn a_full_disk_refuses_one_group_and_goes_on_once_there_is_space() {
    let (disk, dir) = failing();
    for preallocate_bytes in [0, 2048] {
        let options = LogOptions { preallocate_bytes, ..options() };
        let (mut writer, _) = LogWriter::open(&dir, &options, 0).unwrap();
        let mut refusals = 0;
        for _ in 0..30 {
            let before = writer.next_seq();
            writer.stage(&[event(100)], 0).unwrap();
            writer.write().unwrap();
            disk.set_capacity(Some(disk.used()));
            let refused = loop {
                let next = writer.next_seq();
                writer.stage(&[event(400), event(400)], 9_000).unwrap();
                match writer.write() {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(writer.next_seq(), next, "its seqs are free again");
                        break error;
                    }
                }
            };
            assert!(matches!(&refused, Error::Full { cause } if cause.is_no_space()), "{refused:?}");
            refusals += 1;
            assert!(writer.is_full() && writer.last_commit_time() < 9_000 || writer.end() > before);
            assert!(matches!(writer.stage(&[event(1)], 0), Err(Error::Full { .. })));
            assert!(matches!(writer.write(), Err(Error::Full { .. })));
            assert_eq!(writer.sync().unwrap(), writer.end(), "what was written can still be made durable");
            assert!(matches!(writer.try_recover(), Err(Error::Full { .. })));
            disk.set_capacity(None);
            writer.try_recover().unwrap();
            commit(&mut writer, 1);
        }
        assert_eq!(refusals, 30);
        let mut reader = LogReader::open(&dir);
        let mut last = Seq::ZERO;
        while let Some(frame) = reader.next().unwrap() {
            assert_eq!(frame.first_seq(), last.next(), "no gap, nothing lost");
            last = frame.last_seq();
        }
        assert_eq!(last, writer.end());
        assert_eq!(reader.unfinished().unwrap(), None);
        assert!(list_segments(&dir).unwrap().len() > 3);
        writer.close().unwrap();
    }
}

#[test]
fn no_space_where_room_was_made_poisons() {
    let (disk, dir) = failing();
    let (mut writer, _) = open(&dir);
    writer.stage(&[event(1)], 0).unwrap();
    // The reservation first, then the write itself: there the disk broke its word.
    disk.fail_at(disk.calls() + 1, Fault::NoSpace);
    assert!(matches!(writer.write(), Err(Error::Poisoned { .. })));
    assert!(matches!(writer.try_recover(), Err(Error::Poisoned { .. })));
}

/// What failed was a sync of pages that the system then holds as clean: the next sync must not take them for durable.
#[test]
fn what_a_failed_sync_dropped_is_written_again() {
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let dir = LogDirectory::new(Arc::new(disk.clone()), "/log");
        let (mut writer, _) = open(&dir);
        writer.stage(&[event(1500)], 0).unwrap();
        writer.write().unwrap();
        disk.fail_at(disk.calls(), Fault::InputOutput);
        assert!(writer.sync().is_err());
        drop(writer);
        let (mut writer, recovery) = open(&dir);
        assert_eq!(recovery.previous_end, seq(2), "the page cache still shows it");
        commit(&mut writer, 1);
        let acknowledged = writer.end();
        let after = disk.crash(&mut Random::new(seed));
        let (_, recovery) = open(LogDirectory::new(Arc::new(after), "/log"));
        assert_eq!(recovery.previous_end, acknowledged, "seed {seed}");
    }
}

#[test]
fn syncs_when_it_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let interval = Duration::from_millis(100);
    let at = |durability| LogOptions { durability, ..options() };
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
    let start = Instant::now();

    let (mut writer, _) = LogWriter::open(dir.path(), &at(Durability::Interval(interval)), 0).unwrap();
    assert_eq!(writer.sync_if_due(start).unwrap(), seq(1));
    writer.stage(&[event(1)], 0).unwrap();
    writer.write().unwrap();
    assert_eq!(writer.sync_due_in(start + interval / 2), Some(interval / 2));
    assert_eq!(writer.sync_if_due(start + interval / 2).unwrap(), seq(1));
    assert_eq!(writer.sync_if_due(start + interval).unwrap(), seq(2));
    assert_eq!(writer.sync_due_in(start + interval), None);
    drop(writer);

    let (mut writer, _) = LogWriter::open(dir.path(), &at(Durability::Os), 0).unwrap();
    writer.stage(&[event(1)], 0).unwrap();
    writer.write().unwrap();
    assert_eq!(writer.sync_due_in(start), None);
    assert!(writer.sync_if_due(start).unwrap() < writer.end());
    drop(writer);

    let (mut writer, _) = LogWriter::open(dir.path(), &at(Durability::Always), 0).unwrap();
    writer.stage(&[event(1)], 0).unwrap();
    writer.write().unwrap();
    assert_eq!(writer.sync_if_due(start).unwrap(), writer.end());
}

#[test]
fn a_segment_is_sealed_at_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { preallocate_bytes: 2048, ..options() };
    let (mut writer, _) = LogWriter::open(dir.path(), &options, 0).unwrap();
    for _ in 0..40 {
        commit(&mut writer, 2);
    }
    let segments = list_segments(dir.path()).unwrap();
    assert!(segments.len() > 2);
    for segment in &segments[..segments.len() - 1] {
        // The footer comes on top.
        assert!(fs::metadata(&segment.path).unwrap().len() <= options.segment_bytes + 256);
    }
    assert_eq!(rest(&mut LogReader::open(dir.path())).len(), 41);
}

/// Found by fuzzing: an epoch that does not grow would leave a log that no reader reads on.
#[test]
fn a_log_without_another_epoch_or_seq_is_refused_and_left_as_it_is() {
    for (first_seq, epoch) in [(1, u32::MAX), (u64::MAX - 5, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let base_seq = seq(first_seq);
        let head =
            SegmentHeader { database: DatabaseId::new([7; 16]), epoch, base_seq, after_hole: false }.encode();
        let mut encoder = FrameEncoder::new();
        let fields = FrameFields {
            first_seq: base_seq,
            epoch,
            previous_crc: 0,
            commit_time: 5,
            durable_seq: Seq::ZERO,
        };
        encoder.push(&fields, &[event(10)]).unwrap();
        let bytes = [head.as_slice(), encoder.as_bytes()].concat();
        let path = dir.path().join(log_format::segment_file_name(base_seq));
        fs::write(&path, &bytes).unwrap();
        let refused = LogWriter::open(dir.path(), &options(), 1).unwrap_err();
        assert!(matches!(refused, Error::Exhausted { end, .. } if end == base_seq), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_new_epoch_leaves_out_seqs_that_another_log_gave_out() {
    for segment_bytes in [1 << 20, 256] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_bytes, ..options() };
        let (mut writer, _) = LogWriter::open(dir.path(), &options, 1_000).unwrap();
        commit(&mut writer, 3);
        let begun = writer.stage_epoch(seq(1_000), 2_000).unwrap();
        assert_eq!((begun.fields.first_seq, begun.fields.epoch), (seq(1_001), 3));
        writer.write().unwrap();
        commit(&mut writer, 2);
        // What stands before the next seq anyway is no way back.
        writer.stage_epoch(seq(7), 2_000).unwrap();
        writer.write().unwrap();
        assert_eq!((writer.epoch(), writer.end()), (5, seq(1_005)));
        let exhausted = writer.stage_epoch(seq(u64::MAX), 0);
        assert!(matches!(exhausted, Err(Error::Exhausted { .. })), "{exhausted:?}");
        commit(&mut writer, 1);
        writer.close().unwrap();

        assert_eq!(list_segments(dir.path()).unwrap().len() > 2, segment_bytes == 256);
        let read = rest(&mut LogReader::open(dir.path()));
        let begins = [(1, 1), (2, 4), (5, 5), (1_001, 1_001), (1_002, 1_003)];
        assert_eq!(read, [&begins[..], &[(1_004, 1_004), (1_005, 1_005), (1_006, 1_006)]].concat());
        for unknown in [6, 999, 1_000] {
            let sought = LogReader::open(dir.path()).seek(seq(unknown));
            assert!(matches!(sought, Err(Error::NotInLog { .. })), "{unknown}: {sought:?}");
        }
        for known in [4, 5, 1_001] {
            LogReader::open(dir.path()).seek(seq(known)).unwrap();
        }
        assert!(crate::verify(dir.path(), 1, &crate::FramesAlone).unwrap().problems.is_empty());
        let (writer, recovery) = LogWriter::open(dir.path(), &options, 0).unwrap();
        assert_eq!((recovery.previous_end, recovery.epoch, writer.end()), (seq(1_006), 6, seq(1_007)));
    }
}

#[test]
fn an_epoch_may_begin_where_there_was_no_space_for_it_at_first() {
    for room in (0..2_000).step_by(100) {
        let (disk, dir) = failing();
        let options = LogOptions { segment_bytes: 256, preallocate_bytes: 1 << 10, ..options() };
        let (mut writer, _) = LogWriter::open(&dir, &options, 0).unwrap();
        commit(&mut writer, 3);
        let (end, epoch) = (writer.end(), writer.epoch());
        disk.set_capacity(Some(disk.used() + room));
        // What is refused first may have left an empty segment with a name.
        for of_rows in [true, false] {
            if writer.is_full() {
                break;
            }
            if of_rows {
                writer.stage(&[event(400), event(400)], 0).unwrap();
            } else {
                writer.stage_epoch(seq(1_000), 0).unwrap();
            }
            if let Err(error) = writer.write() {
                assert!(matches!(error, Error::Full { .. }), "{error:?}");
            }
        }
        if writer.end() == end {
            assert_eq!((writer.epoch(), writer.next_seq()), (epoch, end.next()), "it has not begun");
        }
        disk.set_capacity(None);
        writer.try_recover().unwrap();
        writer.stage_epoch(seq(2_000), 0).unwrap();
        writer.write().unwrap();
        commit(&mut writer, 1);
        let end = writer.end();
        assert!(crate::verify(dir.clone(), 1, &crate::FramesAlone).unwrap().problems.is_empty(), "{room}");
        drop(writer);
        assert_eq!(rest(&mut LogReader::open(&dir)).last().unwrap().1, end.get(), "{room}");
        let (_, recovery) = LogWriter::open(&dir, &options, 0).unwrap();
        assert_eq!(recovery.previous_end, end, "{room}");
    }
}
