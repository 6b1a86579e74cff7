//! A log directory: whatever its mark of a clean end and its only segment hold, reading and opening it end in frames or in
//! an error, and a log that was opened is read to its end and opened again.
//!
//! The first 24 bytes are the mark, the rest is the segment; their checksums are made right, as are those of the frames.

#![no_main]

use std::path::Path;

use kalamdb_log::{Durability, Error, LogOptions, LogReader, LogWriter};
use libfuzzer_sys::fuzz_target;

const MARK_BYTES: usize = 24;
const HEAD_BYTES: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Some((mark, segment)) = bytes.split_at_checked(MARK_BYTES) else { return };
    let shared_memory = Path::new("/dev/shm");
    let parent = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(parent).unwrap();
    let mut mark = mark.to_vec();
    seal(&mut mark, 0..20, 20);
    std::fs::write(dir.path().join("CLEAN"), mark).unwrap();
    let mut segment = segment.to_vec();
    repair(&mut segment);
    std::fs::write(dir.path().join(format!("{:020}.klog", base_seq(&segment))), segment).unwrap();
    let _ = read(dir.path());
    let options = LogOptions { durability: Durability::Os, seq_gap: 16, ..LogOptions::default() };
    if let Ok((writer, _)) = LogWriter::open(dir.path(), &options, 1) {
        writer.close().unwrap();
        read(dir.path()).unwrap();
        match LogWriter::open(dir.path(), &options, 1) {
            // The last epoch there can be has its turn, too.
            Ok(_) | Err(Error::Exhausted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
});

/// All frames there are.
fn read(dir: &Path) -> Result<usize, Error> {
    let mut reader = LogReader::open(dir);
    let mut frames = 0;
    while let Some(frame) = reader.next()? {
        frames += frame.events().filter(|(_, event)| event.is_ok()).count();
    }
    let _ = reader.unfinished()?;
    let _ = reader.end()?;
    Ok(frames)
}

fn base_seq(segment: &[u8]) -> u64 {
    segment.get(40..48).map_or(1, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

/// Makes checksums right, so that what stands behind them is reached; every eighth frame is left as it is.
fn repair(segment: &mut [u8]) {
    seal(segment, 0..60, 60);
    let (mut at, mut previous) = (HEAD_BYTES, 0_u32);
    for number in 0..64 {
        let Some(head) = segment.get_mut(at..at + 48) else { return };
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if number % 8 != 7 && number > 0 && head[24] != 0xee {
            head[24..28].copy_from_slice(&previous.to_le_bytes());
        }
        let end = at.saturating_add(length);
        if length < 64 || end > segment.len() {
            return;
        }
        if number % 8 != 7 {
            seal(segment, at + 4..end, at);
        }
        previous = u32::from_le_bytes(segment[at..at + 4].try_into().unwrap());
        at = end;
    }
}

/// Writes the checksum of `of` at `at`.
fn seal(bytes: &mut [u8], of: std::ops::Range<usize>, at: usize) {
    let Some(crc) = bytes.get(of).map(crc32c::crc32c) else { return };
    if let Some(slot) = bytes.get_mut(at..at + 4) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
}
