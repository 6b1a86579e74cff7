use super::*;
use crate::tail::tests::{data_dir, events};

fn output(command: fn(&Path, &mut Vec<u8>) -> anyhow::Result<ExitCode>, dir: &Path) -> (String, bool) {
    let mut out = Vec::new();
    let code = command(&dir.join("log"), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS))
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
    assert!(text.contains(&format!("damaged: {} is damaged at byte 64", path.display())), "{text}");

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
    assert_eq!(line("all")[1..3], ["10", "10"]);
    assert_eq!(line("catalog")[1], "3");
    assert_eq!(line("insert")[1], "2");
    assert_eq!(line("shop.orders")[1], "6");
    assert_eq!(line("00000000000000000001.klog")[1], "1");
}
