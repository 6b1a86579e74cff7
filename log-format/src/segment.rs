//! The head of a segment file.

use crate::error::{Error, Result, array, slice};
use crate::ids::{DatabaseId, Seq};

/// The version this program writes.
pub const FORMAT_VERSION: u16 = 1;

/// Bytes of a segment's head; the first frame follows.
pub const SEGMENT_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"KALAMLOG";
const WHAT: &str = "segment header";
const CRC_AT: usize = 60;
const AFTER_HOLE: u32 = 2;

/// The name of the segment whose first frame begins at `base_seq`.
pub fn segment_file_name(base_seq: Seq) -> String {
    format!("{:020}.klog", base_seq.get())
}

/// What the head of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which database it belongs to.
    pub database: DatabaseId,
    /// The writer's epoch when it was begun.
    pub epoch: u32,
    /// The seq of its first event; also its file's name.
    pub base_seq: Seq,
    /// Whether events are missing between the segment before and this one: a repair gave them up.
    pub after_hole: bool,
}

impl SegmentHeader {
    /// The head's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0_u8; SEGMENT_HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(slot) = bytes.get_mut(at..at + field.len()) {
                slot.copy_from_slice(field);
            }
        };
        put(0, &MAGIC);
        put(8, &FORMAT_VERSION.to_le_bytes());
        put(10, &FORMAT_VERSION.to_le_bytes());
        put(12, &(if self.after_hole { AFTER_HOLE } else { 0 }).to_le_bytes());
        put(16, self.database.as_bytes());
        put(32, &self.epoch.to_le_bytes());
        put(40, &self.base_seq.get().to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(..CRC_AT).unwrap_or_default());
        if let Some(slot) = bytes.get_mut(CRC_AT..) {
            slot.copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Magic`], [`Error::Checksum`], [`Error::Version`], [`Error::Flags`], in this order.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        slice(WHAT, bytes, 0, SEGMENT_HEADER_BYTES)?;
        let found: [u8; 8] = array(WHAT, bytes, 0)?;
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        let stored = u32::from_le_bytes(array(WHAT, bytes, CRC_AT)?);
        let computed = crc32c::crc32c(slice(WHAT, bytes, 0, CRC_AT)?);
        if stored != computed {
            return Err(Error::Checksum { what: WHAT, stored, computed });
        }
        let version = u16::from_le_bytes(array(WHAT, bytes, 8)?);
        let readable_from = u16::from_le_bytes(array(WHAT, bytes, 10)?);
        if readable_from > FORMAT_VERSION || version == 0 {
            return Err(Error::Version { found: version, readable_from, supported: FORMAT_VERSION });
        }
        let flags = u32::from_le_bytes(array(WHAT, bytes, 12)?);
        if flags & !AFTER_HOLE != 0 {
            return Err(Error::Flags { what: WHAT, flags });
        }
        Ok(Self {
            database: DatabaseId::new(array(WHAT, bytes, 16)?),
            epoch: u32::from_le_bytes(array(WHAT, bytes, 32)?),
            base_seq: Seq::new(u64::from_le_bytes(array(WHAT, bytes, 40)?)),
            after_hole: flags & AFTER_HOLE != 0,
        })
    }
}
