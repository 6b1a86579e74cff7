use std::sync::mpsc;

use super::*;
use crate::segment::list_segments;
use crate::testing::{GAP, PATIENCE, commit, event, open, options, rest, seq};
use crate::{LogOptions, LogWriter};

#[test]
fn reads_what_was_written_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let mut written = vec![(1, 1)];
    for number in 0..60 {
        let frame = commit(&mut writer, 1 + number % 4);
        written.push((frame.first_seq().get(), frame.last_seq().get()));
    }
    assert!(list_segments(dir.path()).unwrap().len() > 3);
    assert_eq!(rest(&mut LogReader::open(dir.path())), written);
    assert_eq!(rest(&mut LogReader::with_index(dir.path(), writer.index())), written);
    let reader = LogReader::open(dir.path());
    assert_eq!(reader.end().unwrap(), writer.end());
    assert_eq!(reader.floor().unwrap(), seq(1));
}

#[test]
fn a_frame_larger_than_the_buffer_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    writer.stage(&[event(3 << 20)], 0).unwrap();
    writer.stage(&[event(10)], 0).unwrap();
    let written = writer.write().unwrap();
    let mut reader = LogReader::open(dir.path());
    reader.seek(seq(1)).unwrap();
    for frame in written {
        assert_eq!(reader.next().unwrap().unwrap().as_bytes(), frame.as_bytes());
    }
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn a_log_that_is_not_there_yet_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut reader = LogReader::open(&log);
    assert!(reader.next().unwrap().is_none());
    reader.seek(Seq::ZERO).unwrap();
    assert!(matches!(reader.seek(seq(1)), Err(Error::NotInLog { .. })));
    let (mut writer, _) = open(&log);
    commit(&mut writer, 2);
    assert_eq!(rest(&mut reader), [(1, 1), (2, 3)]);
}

#[test]
fn follows_a_writer_across_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, ends) = mpsc::channel();
    let path = dir.path().to_owned();
    let writer = std::thread::spawn(move || {
        let options = LogOptions { preallocate_bytes: 2048, ..options() };
        let (mut writer, _) = LogWriter::open(&path, &options, 0).unwrap();
        for number in 0..400 {
            for _ in 0..=number % 3 {
                writer.stage(&[event(number), event(3)], 0).unwrap();
            }
            writer.write().unwrap();
        }
        ready.send(writer.end()).unwrap();
        writer.close().unwrap();
    });
    let mut reader = LogReader::open(dir.path());
    let mut seen = Seq::ZERO;
    let mut end = None;
    while end.is_none_or(|end| seen < end) {
        if let Some(frame) = reader.next().unwrap() {
            assert_eq!(frame.first_seq(), seen.next());
            seen = frame.last_seq();
        } else if end.is_none() {
            end = ends.try_recv().ok();
        }
    }
    writer.join().unwrap();
    assert!(list_segments(dir.path()).unwrap().len() > 10);
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn waits_for_a_frame_that_is_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let path = list_segments(dir.path()).unwrap()[0].path.clone();
    let start = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    let mut reader = LogReader::open(dir.path());
    assert_eq!(reader.next().unwrap().unwrap().last_seq(), seq(1));
    commit(&mut writer, 3);
    let whole = std::fs::read(&path).unwrap();
    for length in start..whole.len() {
        // One half as a file that ends early, the other as one with zeros ahead.
        let mut half = whole[..length].to_vec();
        std::fs::write(&path, &half).unwrap();
        assert!(reader.next().unwrap().is_none(), "{length} bytes");
        if whole[length..].iter().any(|byte| *byte != 0) {
            half.resize(whole.len() + 4096, 0);
            std::fs::write(&path, &half).unwrap();
            assert!(reader.next().unwrap().is_none(), "{length} bytes, then zeros");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(rest(&mut reader), [(2, 4)]);
}

#[test]
fn seeks_to_every_seq() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    for number in 0..30 {
        commit(&mut writer, 1 + number % 5);
    }
    let end = writer.end();
    let index = writer.index();
    drop(writer);
    let (mut writer, recovery) = open(dir.path());
    assert!(recovery.gap);
    commit(&mut writer, 2);
    let frames = rest(&mut LogReader::open(dir.path()));
    for reader in [&mut LogReader::open(dir.path()), &mut LogReader::with_index(dir.path(), index)] {
        for after in 0..=writer.end().get() + 2 {
            let behind: Vec<_> = frames.iter().copied().filter(|(_, last)| *last > after).collect();
            let in_gap = after > end.get() && after <= end.get() + GAP;
            match reader.seek(seq(after)) {
                Ok(()) => {
                    assert!(!in_gap, "{after}");
                    assert_eq!(rest(reader), behind, "after {after}");
                }
                Err(Error::NotInLog { after: named, end }) => {
                    assert!(in_gap || after > writer.end().get(), "{after}");
                    assert_eq!((named, end), (seq(after), writer.end()));
                }
                Err(error) => panic!("after {after}: {error}"),
            }
        }
    }
}

#[test]
fn seeks_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    for _ in 0..20 {
        commit(&mut writer, 3);
    }
    let end = writer.end();
    drop(writer);
    let (mut writer, _) = open(dir.path());
    let begun = writer.end();
    let mut reader = LogReader::open(dir.path());
    for from in 0..=begun.get() + 1 {
        reader.seek_from(seq(from)).unwrap();
        let first = if from > end.get() && from < begun.get() { begun.get() } else { from.max(1) };
        match reader.next().unwrap() {
            Some(frame) => {
                assert!(frame.first_seq().get() <= first && frame.last_seq().get() >= first, "{from}");
            }
            None => assert!(from > begun.get()),
        }
    }
    commit(&mut writer, 1);
    assert_eq!(reader.next().unwrap().unwrap().first_seq(), begun.next());
    assert_eq!(reader.unfinished().unwrap(), None);
}

#[test]
fn says_where_the_log_begins_once_segments_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let mut slow = LogReader::open(dir.path());
    slow.next().unwrap().unwrap();
    for _ in 0..60 {
        commit(&mut writer, 2);
    }
    let segments = list_segments(dir.path()).unwrap();
    let floor = segments[2].base_seq;
    for segment in &segments[..2] {
        std::fs::remove_file(&segment.path).unwrap();
    }
    let mut reader = LogReader::open(dir.path());
    assert_eq!(reader.floor().unwrap(), floor);
    let below = reader.seek(floor.previous().previous());
    assert!(matches!(below, Err(Error::BelowFloor { floor: named }) if named == floor), "{below:?}");
    reader.seek(floor.previous()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().first_seq(), floor);

    // The slow one still reads the file it has open, then learns that the next one is gone.
    let overtaken = loop {
        match slow.next() {
            Ok(frame) => assert!(frame.is_some(), "it must not think that it is at the end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(overtaken, Error::BelowFloor { floor: named } if named == floor), "{overtaken:?}");
}

#[test]
fn goes_on_where_a_segment_it_is_in_was_removed() {
    for gap in [0, GAP] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path());
        commit(&mut writer, 1);
        let next = writer.next_seq();
        drop(writer);
        // A crash between making the next segment and writing into it.
        let head = std::fs::read(&list_segments(dir.path()).unwrap()[0].path).unwrap();
        let header = log_format::SegmentHeader::parse(&head).unwrap();
        let begun = log_format::SegmentHeader { base_seq: next, ..header };
        std::fs::write(dir.path().join(log_format::segment_file_name(next)), begun.encode()).unwrap();
        let mut reader = LogReader::open(dir.path());
        assert_eq!(rest(&mut reader), [(1, 1), (2, 2)]);
        let mut sought = LogReader::open(dir.path());
        sought.seek(seq(2)).unwrap();
        let options = LogOptions { seq_gap: gap, ..options() };
        let (mut writer, _) = LogWriter::open(dir.path(), &options, 0).unwrap();
        commit(&mut writer, 1);
        let begun = next.plus(gap).get();
        assert_eq!(rest(&mut reader), [(begun, begun), (begun + 1, begun + 1)]);
        assert_eq!(rest(&mut sought), [(begun, begun), (begun + 1, begun + 1)]);
    }
}

#[test]
fn rot_in_the_middle_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let second = LogReader::open(dir.path());
    for _ in 0..5 {
        commit(&mut writer, 1);
    }
    let mut reader = second;
    reader.next().unwrap();
    reader.next().unwrap();
    let place = reader.place().unwrap();
    let mut bytes = std::fs::read(&place.segment).unwrap();
    bytes[usize::try_from(place.offset).unwrap() + 70] ^= 1;
    std::fs::write(&place.segment, bytes).unwrap();
    let mut reader = LogReader::open(dir.path());
    reader.next().unwrap().unwrap();
    for _ in 0..2 {
        let error = reader.next().unwrap_err();
        assert!(
            matches!(&error, Error::Rot { segment, offset, .. } if *segment == place.segment && *offset == place.offset),
            "{error:?}"
        );
    }
}

#[test]
fn a_frame_outlives_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let written = commit(&mut writer, 3);
    let mut reader = LogReader::open(dir.path());
    reader.seek(seq(1)).unwrap();
    let frame = reader.next().unwrap().unwrap();
    drop(reader);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(frame.events().all(|(_, event)| event.is_ok())).unwrap());
    assert!(receiver.recv_timeout(PATIENCE).unwrap());
    assert_eq!(written.count(), 3);
}
