//! The mark of a clean shutdown: its presence proves that nothing beyond the end it names was ever handed out, so that
//! the next writer may go on without a gap.
//!
//! It is removed, durably, before the next writer appends anything.

use log_format::Seq;

use crate::disk::LogDirectory;
use crate::error::{At, Result};

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
    pub(crate) fn read(dir: &LogDirectory) -> Result<Option<Self>> {
        Ok(dir.read(&dir.path().join(FILE_NAME))?.and_then(|bytes| Self::parse(&bytes)))
    }

    /// Puts the marker into `dir`.
    pub(crate) fn write(self, dir: &LogDirectory) -> Result<()> {
        let (path, new) = (dir.path().join(FILE_NAME), dir.path().join("CLEAN.new"));
        dir.write(&new, &self.encode())?;
        dir.disk().rename(&new, &path).at("write", &path)?;
        dir.sync()
    }

    /// Takes the marker out of `dir`.
    pub(crate) fn remove(dir: &LogDirectory) -> Result<()> {
        // A removal that never reaches the disk does no harm: the next epoch's event, synced before anybody is given a
        // seq, makes the log longer than the mark says.
        if dir.remove(&dir.path().join(FILE_NAME))? { dir.sync() } else { Ok(()) }
    }
}

/// The last seq of the log in `dir`, if it was closed and not opened for writing since.
pub fn closed_at(dir: impl Into<LogDirectory>) -> Result<Option<Seq>> {
    Ok(CleanMarker::read(&dir.into())?.map(|marker| marker.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_disk_and_no_flipped_bit() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = LogDirectory::from(temporary.path());
        assert_eq!(CleanMarker::read(&dir).unwrap(), None);
        let marker = CleanMarker { end: Seq::new(77), crc: 0xdead_beef };
        marker.write(&dir).unwrap();
        assert_eq!(CleanMarker::read(&dir).unwrap(), Some(marker));
        CleanMarker::remove(&dir).unwrap();
        assert_eq!(CleanMarker::read(&dir).unwrap(), None);

        let bytes = marker.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CleanMarker::parse(&flipped), None, "bit {bit}");
        }
        assert_eq!(CleanMarker::parse(&bytes[..20]), None);
    }
}
