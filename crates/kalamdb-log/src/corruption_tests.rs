//! Every byte of every file of a small log flipped, every file cut everywhere: the log is as it was, or ends before a torn
//! tail, or is refused with the place named. Never another frame, never a panic.

use std::path::PathBuf;
use std::sync::Arc;

use crate::simulation::SimulatedDisk;
use crate::testing::{event, options};
use crate::{Error, LogDirectory, LogOptions, LogReader, LogWriter, list_segments};

/// A log of a few segments: its files, its frames, and how many of these are known to be durable.
struct Log {
    files: Vec<(PathBuf, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
    durable: usize,
    /// How many stand in the segments before the last.
    before_last: usize,
    is_closed: bool,
}

fn small() -> LogOptions {
    LogOptions { segment_bytes: 450, ..options() }
}

fn log(is_closed: bool) -> Log {
    let disk = SimulatedDisk::new(1);
    let dir = directory(&disk);
    let (mut writer, _) = LogWriter::open(&dir, &small(), 0).unwrap();
    for number in 0..7 {
        writer.stage(&(0..=number % 2).map(|_| event(4)).collect::<Vec<_>>(), 0).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    if is_closed {
        writer.close().unwrap();
    } else {
        drop(writer);
    }
    assert!(list_segments(&dir).unwrap().len() > 3);
    let frames = read(&dir).unwrap();
    let files = disk.paths().into_iter().map(|path| (path.clone(), disk.content(&path).unwrap())).collect();
    let durable = if is_closed { frames.len() } else { frames.len() - 1 };
    let last = list_segments(&dir).unwrap().pop().unwrap().base_seq;
    let mut reader = LogReader::open(&dir);
    reader.seek_from(last).unwrap();
    let mut in_last = 0;
    while reader.next().unwrap().is_some() {
        in_last += 1;
    }
    let before_last = frames.len() - in_last;
    Log { files, frames, durable, before_last, is_closed }
}

fn directory(disk: &SimulatedDisk) -> LogDirectory {
    LogDirectory::new(Arc::new(disk.clone()), "/log")
}

fn read(dir: &LogDirectory) -> Result<Vec<Vec<u8>>, Error> {
    let mut reader = LogReader::open(dir);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next()? {
        frames.push(frame.as_bytes().to_vec());
    }
    Ok(frames)
}

/// A refusal that says where.
fn names_its_place(error: &Error) -> bool {
    match error {
        Error::Rot { segment, offset, .. } => {
            error.to_string().contains(&format!("at byte {offset}")) && segment.exists_in_name()
        }
        Error::Head { segment, .. }
        | Error::RenamedSegment { segment, .. }
        | Error::ForeignSegment { segment, .. } => segment.exists_in_name(),
        Error::Lost { .. } => true,
        _ => false,
    }
}

trait Named {
    fn exists_in_name(&self) -> bool;
}

impl Named for PathBuf {
    fn exists_in_name(&self) -> bool {
        self.extension().is_some_and(|extension| extension == "klog")
    }
}

impl Log {
    fn last_segment(&self) -> &PathBuf {
        &self.files.iter().rfind(|(path, _)| path.exists_in_name()).unwrap().0
    }

    /// Reads and opens the log with one file changed.
    fn check(&self, path: &PathBuf, changed: &[u8], least: usize, what: &str) -> &'static str {
        let disk = SimulatedDisk::new(1);
        for (name, bytes) in &self.files {
            disk.put(name, if name == path { changed.to_vec() } else { bytes.clone() });
        }
        let dir = directory(&disk);
        let is_flipped = what.contains("flipped");
        let what = format!("{} {what}", path.display());
        match read(&dir) {
            // What is not vouched for may be missing at the end: a reader takes it for not written yet.
            Ok(frames) => assert!(frames == self.frames[..frames.len()], "{what}: other frames"),
            Err(error) => assert!(names_its_place(&error), "{what}: {error}"),
        }
        let (writer, recovery) = match LogWriter::open(&dir, &small(), 0) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(names_its_place(&error), "{what}: {error}");
                return "refused";
            }
        };
        drop(writer);
        match read(&dir) {
            // The epoch that opening began comes last.
            Ok(mut frames) => {
                frames.pop();
                assert!(frames.len() >= least, "{what}: {} of {} frames", frames.len(), self.frames.len());
                assert!(frames == self.frames[..frames.len()], "{what}: other frames");
                if frames.len() == self.frames.len() {
                    return "identical";
                }
                assert!(recovery.cut.is_some() || !is_flipped, "{what}: cut without a word");
                "cut"
            }
            Err(error) => {
                assert!(names_its_place(&error), "{what}: {error}");
                "refused by the reader"
            }
        }
    }
}

#[test]
fn every_byte_flipped() {
    for is_closed in [true, false] {
        let log = log(is_closed);
        let mut outcomes = std::collections::BTreeMap::new();
        for (path, bytes) in &log.files {
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                *outcomes
                    .entry(log.check(path, &changed, log.durable, &format!("flipped at {at}")))
                    .or_insert(0) += 1;
            }
        }
        assert!(outcomes["refused"] > 100 && outcomes["refused by the reader"] > 300, "{outcomes:?}");
        assert!(outcomes["identical"] > 200, "footers and the mark: {outcomes:?}");
        assert_eq!(outcomes.contains_key("cut"), !log.is_closed, "{outcomes:?}");
    }
}

#[test]
fn every_file_cut_everywhere() {
    for is_closed in [true, false] {
        let log = log(is_closed);
        for (path, bytes) in &log.files {
            // What is cut off the end of a log that was not closed took the proof with it that it was durable.
            let is_end = !is_closed && path.to_str() == log.last_segment().to_str();
            let least = if is_end { log.before_last } else { log.durable };
            for length in 0..bytes.len() {
                log.check(path, &bytes[..length], least, &format!("cut to {length}"));
            }
        }
    }
}
