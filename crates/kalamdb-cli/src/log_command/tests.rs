use kalamdb_core::format::ChangeEvent;
use kalamdb_core::log::list_segments;

use super::dump::dump;
use super::repair::repair;
use super::stat::stat;
use super::*;
use crate::tail::tests::{data_dir, events};

fn output(
    command: impl FnOnce(&Path, &mut Vec<u8>) -> anyhow::Result<ExitCode>,
    dir: &Path,
) -> (String, bool) {
    let mut out = Vec::new();
    let code = command(&dir.join("log"), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS))
}

fn verify(dir: &Path, out: &mut Vec<u8>) -> anyhow::Result<ExitCode> {
    super::verify::verify(dir, false, false, out)
}

fn commits() -> Vec<Vec<ChangeEvent>> {
    events().into_iter().map(|event| vec![event]).collect()
}

#[test]
fn a_log_that_is_right_is_verified() {
    let dir = data_dir(&commits());
    let (text, is_right) = output(verify, dir.path());
    assert!(is_right, "{text}");
    assert!(text.contains("seq 1 to 10, 10 frames, 10 events"), "{text}");
    assert!(text.ends_with("verified\n"), "{text}");
    let with_events = |dir: &Path, out: &mut Vec<u8>| super::verify::verify(dir, true, false, out);
    assert_eq!(output(with_events, dir.path()), (text, true));
}

#[test]
fn damage_is_named_with_its_place() {
    let dir = data_dir(&commits());
    let segments = list_segments(&dir.path().join("log")).unwrap();
    assert!(segments.len() > 2);
    let path = &segments[1].path;
    let mut bytes = std::fs::read(path).unwrap();
    bytes[64 + 50] ^= 1;
    std::fs::write(path, &bytes).unwrap();
    let (text, is_right) = output(verify, dir.path());
    assert!(!is_right, "{text}");
    assert!(text.contains(&format!("damaged: {} at byte 64: ", path.display())), "{text}");

    // A last frame that is torn after a clean shutdown was there once.
    let dir = data_dir(&commits());
    let path = &list_segments(&dir.path().join("log")).unwrap().pop().unwrap().path;
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    let (text, is_right) = output(verify, dir.path());
    assert!(!is_right && text.contains("closed at seq 10, but ends at seq 9"), "{text}");

    // Without one it may be what a crash left.
    std::fs::remove_file(dir.path().join("log/CLEAN")).unwrap();
    let (text, is_right) = output(verify, dir.path());
    assert!(is_right && text.contains("unfinished: "), "{text}");
}

#[test]
fn counts_are_told_by_segment_operation_and_table() {
    let dir = data_dir(&commits());
    let (text, _) = output(stat, dir.path());
    let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |first: &str| {
        words.iter().find(|line| line.first() == Some(&first)).unwrap_or_else(|| panic!("{text}"))
    };
    assert_eq!(line("all")[1..5], ["1", "10", "10", "10"]);
    assert_eq!(line("catalog")[1], "3");
    assert_eq!(line("insert")[1], "2");
    assert_eq!(line("shop.orders")[1], "6");
    assert_eq!(line("00000000000000000001.klog")[1], "1");
}

#[test]
fn a_damaged_log_is_repaired_and_the_loss_is_told() {
    let dir = data_dir(&commits());
    assert!(output(repair, dir.path()).0.starts_with("nothing is damaged"));
    let segments = list_segments(&dir.path().join("log")).unwrap();
    // The last segment but one holds a change of a row.
    let path = &segments[segments.len() - 2].path;
    let mut bytes = std::fs::read(path).unwrap();
    let length = u32::from_le_bytes(bytes[68..72].try_into().unwrap()) as usize;
    bytes[64 + length - 20] ^= 1;
    std::fs::write(path, bytes).unwrap();
    assert!(!output(verify, dir.path()).1);
    let (text, is_right) = output(repair, dir.path());
    assert!(is_right && text.contains("  lost: seq "), "{text}");
    assert!(text.contains("  kept: ") && text.contains(".damaged-"), "{text}");
    let (text, is_right) = output(verify, dir.path());
    assert!(is_right && text.contains("hole: a repair gave up"), "{text}");
}

#[test]
fn every_byte_of_a_frame_is_explained() {
    let dir = data_dir(&commits());
    for seq in 1..=10 {
        let (text, _) = output(|dir, out| dump(dir, Seq::new(seq), out), dir.path());
        let (head, lines) = text.split_once('\n').unwrap();
        let bytes: usize = head.rsplit_once(", ").unwrap().1.strip_suffix(" bytes").unwrap().parse().unwrap();
        let mut at = 0;
        for line in lines.lines() {
            assert_eq!(usize::from_str_radix(&line[..6], 16).unwrap(), at, "{text}");
            at += line[8..line.len().min(55)].split_whitespace().count();
        }
        assert_eq!(at, bytes, "{text}");
        assert!(text.contains(&format!("first seq: {seq}\n")), "{text}");
    }
    let (text, _) = output(|dir, out| dump(dir, Seq::new(9), out), dir.path());
    assert!(text.contains("RowUpdated in shop.orders") && text.contains("new row: cell 0"), "{text}");
    let error = dump(&dir.path().join("log"), Seq::new(11), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("ends at 10"), "{error}");
}

#[test]
fn seqs_that_were_given_out_elsewhere_are_left_out() {
    let dir = data_dir(&commits());
    let (text, is_right) = output(|dir, out| super::skip::skip(dir, 1_000_000, out), dir.path());
    assert!(is_right && text.contains("ended at seq 10; what is written next has seq 1000012"), "{text}");
    let (text, is_right) = output(verify, dir.path());
    assert!(is_right && text.contains("seq 1 to 1000011, 11 frames, 11 events"), "{text}");
}
