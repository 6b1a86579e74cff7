//! The mark of a clean shutdown: its presence proves that nothing beyond the end it names was ever handed out, so that
//! the next writer may go on without a gap.
//!
//! It is removed, durably, before the next writer appends anything.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use log_format::Seq;

use crate::error::{At, Result};
use crate::lock::sync_directory;

const FILE_NAME: &str = "CLEAN";
const MAGIC: &[u8; 8] = b"KALAMCLN";
const BYTES: usize = 24;

/// The end of the log as it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CleanMarker {
    /// The last seq.
    pub(crate) end: Seq,
    /// The checksum of the last frame.
    pub(crate) crc: u32,
}

impl CleanMarker {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.end.get().to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// `None` where the bytes are no marker; the log is then taken as not closed, which costs a gap.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = Seq::new(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?));
        let crc = u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?);
        let marker = Self { end, crc };
        (marker.encode() == bytes).then_some(marker)
    }

    /// The marker in `dir`, if there is one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Puts the marker into `dir`.
    pub(crate) fn write(self, dir: &Path) -> Result<()> {
        let (path, new) = (dir.join(FILE_NAME), dir.join("CLEAN.new"));
        File::create(&new)
            .and_then(|mut file| file.write_all(&self.encode()).and_then(|()| file.sync_all()))
            .at("write", &new)?;
        fs::rename(&new, &path).at("write", &path)?;
        sync_directory(dir)
    }

    /// Takes the marker out of `dir`.
    pub(crate) fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(dir),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).at("remove", &path),
        }
    }
}

/// The last seq of the log in `dir`, if it was closed and not opened for writing since.
pub fn closed_at(dir: &Path) -> Result<Option<Seq>> {
    Ok(CleanMarker::read(dir)?.map(|marker| marker.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_disk_and_no_flipped_bit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(CleanMarker::read(dir.path()).unwrap(), None);
        let marker = CleanMarker { end: Seq::new(77), crc: 0xdead_beef };
        marker.write(dir.path()).unwrap();
        assert_eq!(CleanMarker::read(dir.path()).unwrap(), Some(marker));
        CleanMarker::remove(dir.path()).unwrap();
        assert_eq!(CleanMarker::read(dir.path()).unwrap(), None);

        let bytes = marker.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CleanMarker::parse(&flipped), None, "bit {bit}");
        }
        assert_eq!(CleanMarker::parse(&bytes[..20]), None);
    }
}
