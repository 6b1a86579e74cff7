use std::fs;

use super::*;
use crate::testing::{GAP, commit, event, open, options, rest, seq};
use crate::{LogReader, LogWriter, list_segments};

/// A log of some commits that was not closed: its directory, its only segment, and where each frame begins.
fn log(commits: usize) -> (tempfile::TempDir, PathBuf, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    for _ in 0..commits {
        commit(&mut writer, 1);
    }
    drop(writer);
    let path = list_segments(dir.path()).unwrap()[0].path.clone();
    let mut reader = LogReader::open(dir.path());
    let mut starts = Vec::new();
    while reader.next().unwrap().is_some() {
        starts.push(usize::try_from(reader.place().unwrap().offset).unwrap());
    }
    (dir, path, starts)
}

fn refused(dir: &Path) -> Error {
    let before: Vec<_> = list_segments(dir).unwrap().iter().map(|s| fs::read(&s.path).unwrap()).collect();
    let error = LogWriter::open(dir, &options(), 0).expect_err("it must not open");
    let after: Vec<_> = list_segments(dir).unwrap().iter().map(|s| fs::read(&s.path).unwrap()).collect();
    assert!(before == after, "nothing may be changed where opening is refused");
    error
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let (dir, path, starts) = log(3);
    let whole = fs::read(&path).unwrap();
    let tail = starts[3];
    for length in tail..whole.len() {
        for zeros in [0, 5000] {
            let mut torn = whole[..length].to_vec();
            torn.resize(length + zeros, 0);
            if zeros > 0 && whole[length..].iter().all(|byte| *byte == 0) {
                continue;
            }
            fs::write(&path, &torn).unwrap();
            let (writer, recovery) = open(dir.path());
            assert_eq!((recovery.previous_end, recovery.gap), (seq(3), true), "torn at {length}");
            let is_torn = whole[tail..length].iter().any(|byte| *byte != 0);
            assert_eq!(recovery.cut.is_some(), is_torn, "torn at {length}, {zeros} zeros behind");
            if let Some(cut) = recovery.cut {
                assert_eq!(
                    (cut.offset, cut.bytes, cut.kept),
                    (tail as u64, (torn.len() - tail) as u64, None)
                );
            }
            drop(writer);
            let epoch = seq(3).plus(1 + GAP).get();
            assert_eq!(rest(&mut LogReader::open(dir.path())), [(1, 1), (2, 2), (3, 3), (epoch, epoch)]);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_durable_frame_is_rot() {
    let (dir, path, starts) = log(4);
    let whole = fs::read(&path).unwrap();
    // The frame at starts[2] was durable when the one at starts[3] was written.
    for at in starts[2]..starts[3] {
        let mut rotten = whole.clone();
        rotten[at] ^= 1 << (at % 8);
        fs::write(&path, &rotten).unwrap();
        let error = refused(dir.path());
        let Error::Rot { segment, offset, .. } = &error else { panic!("byte {at}: {error:?}") };
        assert_eq!((segment, *offset), (&path, starts[2] as u64));
        assert!(error.to_string().contains("restore from a backup"), "{error}");
    }
    fs::write(&path, &whole).unwrap();
    open(dir.path());
}

#[test]
fn a_durable_tail_that_is_gone_is_not_taken_for_torn() {
    let (dir, path, starts) = log(3);
    let (writer, _) = open(dir.path());
    writer.close().unwrap();
    let whole = fs::read(&path).unwrap();
    // The close vouches for everything: a torn last frame is rot, a missing one is a loss.
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(refused(dir.path()), Error::Rot { .. }));
    fs::write(&path, &whole[..starts[3]]).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, Error::Lost { end, .. } if end == seq(3)), "{error:?}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(refused(dir.path()), Error::Lost { .. }));
}

/// A group of frames that were never synced, in one write: where they begin, and the file.
fn unsynced_group() -> (tempfile::TempDir, PathBuf, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) =
        LogWriter::open(dir.path(), &crate::LogOptions { segment_bytes: 1 << 20, ..options() }, 0).unwrap();
    let path = list_segments(dir.path()).unwrap()[0].path.clone();
    let mut at = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(at);
        at += writer.stage(&[event(3000)], 0).unwrap().length as usize;
    }
    writer.write().unwrap();
    (dir, path, starts)
}

#[test]
fn an_unsynced_tail_written_out_of_order_is_cut_and_kept() {
    for sector in [1, 2, 6, 7, 12] {
        let (dir, path, starts) = unsynced_group();
        let whole = fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn[sector * 512..(sector + 1) * 512].fill(0);
        fs::write(&path, &torn).unwrap();
        let bad = *starts.iter().rfind(|start| **start <= sector * 512).unwrap();
        let (_, recovery) = open(dir.path());
        let cut = recovery.cut.unwrap();
        assert_eq!(cut.offset, bad as u64, "sector {sector}");
        assert_eq!(fs::read(cut.kept.unwrap()).unwrap(), torn[bad..]);
    }
}

#[test]
fn a_wrong_bit_with_frames_behind_is_rot_even_if_unsynced() {
    let (dir, path, starts) = unsynced_group();
    let mut rotten = fs::read(&path).unwrap();
    rotten[starts[1] + 100] ^= 4;
    fs::write(&path, &rotten).unwrap();
    assert!(matches!(refused(dir.path()), Error::Rot { offset, .. } if offset == starts[1] as u64));
}

#[test]
fn a_segment_that_was_just_begun_is_no_loss() {
    for (name, head_bytes, zeros) in [("whole", 64, 0), ("torn", 17, 0), ("zeros", 0, 64), ("empty", 0, 0)] {
        let (dir, path, _) = log(2);
        let mut begun = fs::read(&path).unwrap();
        let header = log_format::SegmentHeader::parse(&begun).unwrap();
        begun = log_format::SegmentHeader { base_seq: seq(4), ..header }.encode()[..head_bytes].to_vec();
        begun.resize(head_bytes + zeros, 0);
        fs::write(dir.path().join(log_format::segment_file_name(seq(4))), begun).unwrap();
        let (mut writer, recovery) = open(dir.path());
        assert_eq!((recovery.previous_end, recovery.cut), (seq(3), None), "{name}");
        commit(&mut writer, 1);
        let segments = list_segments(dir.path()).unwrap();
        assert_eq!(segments.iter().map(|s| s.base_seq).collect::<Vec<_>>(), [seq(1), recovery.end], "{name}");
    }
}

#[test]
fn a_crash_while_the_log_was_made_is_no_loss() {
    for length in 0..=200 {
        let (dir, path, _) = log(0);
        let whole = fs::read(&path).unwrap();
        let kept = length.min(whole.len() - 1);
        fs::write(&path, &whole[..kept]).unwrap();
        let (writer, recovery) = open(dir.path());
        assert_eq!((recovery.previous_end, recovery.gap), (seq(0), true), "{length}");
        drop(writer);
        let mut reader = LogReader::open(dir.path());
        reader.seek(seq(0)).unwrap();
        assert_eq!(rest(&mut reader).len(), 1);
    }
}

#[test]
fn segments_of_another_database_or_name_are_refused() {
    let (dir, path, _) = log(1);
    let (_other, other_path, _) = log(1);
    let renamed = dir.path().join(log_format::segment_file_name(seq(50)));
    fs::copy(&path, &renamed).unwrap();
    assert!(matches!(refused(dir.path()), Error::RenamedSegment { base_seq, .. } if base_seq == seq(1)));
    fs::copy(&other_path, &renamed).unwrap();
    assert!(matches!(refused(dir.path()), Error::RenamedSegment { .. }));
    let mut bytes = fs::read(&other_path).unwrap();
    let header = log_format::SegmentHeader::parse(&bytes).unwrap();
    bytes[..64].copy_from_slice(&log_format::SegmentHeader { base_seq: seq(50), ..header }.encode());
    fs::write(&renamed, &bytes).unwrap();
    assert!(matches!(refused(dir.path()), Error::ForeignSegment { .. }));
    bytes[0] = b'X';
    fs::write(&renamed, &bytes).unwrap();
    assert!(matches!(refused(dir.path()), Error::Head { .. }), "a bad head over frames is damage");
}

#[test]
fn a_frame_that_does_not_follow_is_rot() {
    let (dir, path, starts) = log(4);
    let whole = fs::read(&path).unwrap();
    let without = [&whole[..starts[2]], &whole[starts[3]..]].concat();
    fs::write(&path, without).unwrap();
    assert!(matches!(refused(dir.path()), Error::Rot { flaw: Flaw::Seq { .. }, .. }));
    let twice = [&whole[..starts[3]], &whole[starts[2]..]].concat();
    fs::write(&path, twice).unwrap();
    assert!(matches!(refused(dir.path()), Error::Rot { flaw: Flaw::Seq { .. }, .. }));
}
