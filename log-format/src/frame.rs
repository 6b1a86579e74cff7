//! A frame is a commit: its events, all or nothing.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use crate::error::{Error, Result, array, slice};
use crate::event::{ArchivedChangeEvent, EncodedEvent};
use crate::ids::Seq;

/// Bytes of a frame's fixed head.
pub const FRAME_HEADER_BYTES: usize = 48;

/// Bytes a whole frame may take. A length is checked against it before anything is allocated.
pub const FRAME_LENGTH_MAX: usize = 64 << 20;

const WHAT: &str = "frame";
const ALIGNMENT: usize = 16;
const TABLE_ENTRY_BYTES: usize = 8;

/// What a frame's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The checksum of all bytes after it; also what the next frame names as its predecessor.
    pub crc: u32,
    /// Bytes of the whole frame.
    pub length: u32,
    /// How many events.
    pub count: u32,
    /// The rest, as the writer gave it.
    pub fields: FrameFields,
}

impl FrameHeader {
    /// The seq of the last event.
    pub const fn last_seq(&self) -> Seq {
        self.fields.first_seq.plus(self.count as u64).previous()
    }
}

/// What the writer of a frame decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFields {
    /// The seq of the first event; the others follow without a gap.
    pub first_seq: Seq,
    /// The epoch of the writer: one more each time the log is opened for writing.
    pub epoch: u32,
    /// The checksum of the frame before, 0 for the first of a log.
    pub previous_crc: u32,
    /// When it was committed, microseconds since 1970; never before an earlier frame's.
    pub commit_time: i64,
    /// The last seq the writer knew to be durable when it wrote this.
    pub durable_seq: Seq,
}

/// Memory aligned as a frame's events want it; [`Frame::parse`] takes it as `Bytes::from_owner(buffer)`.
pub type FrameBuffer = AlignedVec<ALIGNMENT>;

/// Puts events into frames, in a buffer of its own.
#[derive(Debug, Default)]
pub struct FrameEncoder {
    buffer: FrameBuffer,
    headers: Vec<FrameHeader>,
}

impl FrameEncoder {
    /// An encoder with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one frame behind those already in the buffer and tells its head.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`FRAME_LENGTH_MAX`] (the buffer is then as before), [`Error::Encode`] without events.
    pub fn push(&mut self, fields: &FrameFields, events: &[EncodedEvent]) -> Result<FrameHeader> {
        let table_end = FRAME_HEADER_BYTES + events.len() * TABLE_ENTRY_BYTES;
        let size = events
            .iter()
            .fold(align(table_end), |at, event| at.saturating_add(align(event.as_bytes().len())));
        if size > FRAME_LENGTH_MAX {
            return Err(Error::TooLarge { what: WHAT, size, limit: FRAME_LENGTH_MAX });
        }
        if events.is_empty() {
            return Err(Error::Encode { reason: "a frame without events".to_owned() });
        }
        let too_large = |_| Error::TooLarge { what: WHAT, size, limit: FRAME_LENGTH_MAX };
        let length = u32::try_from(size).map_err(too_large)?;
        let count = u32::try_from(events.len()).map_err(too_large)?;

        let start = self.buffer.len();
        self.buffer.reserve(size);
        let mut head = [0_u8; FRAME_HEADER_BYTES];
        put(&mut head, 4, &length.to_le_bytes());
        put(&mut head, 8, &fields.first_seq.get().to_le_bytes());
        put(&mut head, 16, &count.to_le_bytes());
        put(&mut head, 20, &fields.epoch.to_le_bytes());
        put(&mut head, 24, &fields.previous_crc.to_le_bytes());
        // Bytes 28..32 are the flags: none are defined.
        put(&mut head, 32, &fields.commit_time.to_le_bytes());
        put(&mut head, 40, &fields.durable_seq.get().to_le_bytes());
        self.buffer.extend_from_slice(&head);
        let mut at = align(table_end);
        for event in events {
            let bytes = event.as_bytes().len();
            self.buffer.extend_from_slice(&u32::try_from(at).map_err(too_large)?.to_le_bytes());
            self.buffer.extend_from_slice(&u32::try_from(bytes).map_err(too_large)?.to_le_bytes());
            at += align(bytes);
        }
        self.pad();
        for event in events {
            self.buffer.extend_from_slice(event.as_bytes());
            self.pad();
        }
        let crc = crc32c::crc32c(self.buffer.get(start + 4..).unwrap_or_default());
        if let Some(slot) = self.buffer.get_mut(start..start + 4) {
            slot.copy_from_slice(&crc.to_le_bytes());
        }
        let header = FrameHeader { crc, length, count, fields: *fields };
        self.headers.push(header);
        Ok(header)
    }

    fn pad(&mut self) {
        let padded = align(self.buffer.len());
        self.buffer.resize(padded, 0);
    }

    /// The frames put in so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether no frame was put in since the last [`FrameEncoder::take`].
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// The frames put in so far, to share; the encoder is empty after.
    pub fn take(&mut self) -> Bytes {
        self.headers.clear();
        Bytes::from_owner(std::mem::take(&mut self.buffer))
    }

    /// The frames put in so far, sharing one buffer; the encoder is empty after. Nothing is checked again: these
    /// bytes were made here.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        let headers = std::mem::take(&mut self.headers);
        let bytes = self.take();
        let mut start = 0;
        let frame = |header: FrameHeader| {
            let end = start + header.length as usize;
            let frame = Frame { header, bytes: bytes.slice(start..end) };
            start = end;
            frame
        };
        headers.into_iter().map(frame).collect()
    }
}

const fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

fn put(head: &mut [u8; FRAME_HEADER_BYTES], at: usize, bytes: &[u8]) {
    if let Some(slot) = head.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

impl FrameHeader {
    /// Reads a head, checks its length and flags, not its checksum.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Length`], [`Error::Flags`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        slice(WHAT, bytes, 0, FRAME_HEADER_BYTES)?;
        let length = u32::from_le_bytes(array(WHAT, bytes, 4)?);
        let count = u32::from_le_bytes(array(WHAT, bytes, 16)?);
        let least = align(FRAME_HEADER_BYTES + TABLE_ENTRY_BYTES) as u64;
        let legal = least..=FRAME_LENGTH_MAX as u64;
        if !legal.contains(&u64::from(length)) || !(length as usize).is_multiple_of(ALIGNMENT) {
            return Err(Error::Length {
                what: WHAT,
                length: u64::from(length),
                min: least,
                max: FRAME_LENGTH_MAX as u64,
            });
        }
        let flags = u32::from_le_bytes(array(WHAT, bytes, 28)?);
        if flags != 0 {
            return Err(Error::Flags { what: WHAT, flags });
        }
        Ok(Self {
            crc: u32::from_le_bytes(array(WHAT, bytes, 0)?),
            length,
            count,
            fields: FrameFields {
                first_seq: Seq::new(u64::from_le_bytes(array(WHAT, bytes, 8)?)),
                epoch: u32::from_le_bytes(array(WHAT, bytes, 20)?),
                previous_crc: u32::from_le_bytes(array(WHAT, bytes, 24)?),
                commit_time: i64::from_le_bytes(array(WHAT, bytes, 32)?),
                durable_seq: Seq::new(u64::from_le_bytes(array(WHAT, bytes, 40)?)),
            },
        })
    }
}

/// A frame whose checksum and offset table are right. Cheap to clone; its bytes are shared.
#[derive(Clone, Debug)]
pub struct Frame {
    header: FrameHeader,
    bytes: Bytes,
}

impl Frame {
    /// The frame at the beginning of `bytes`, which must be aligned to 16 bytes in memory for its events to be read.
    ///
    /// # Errors
    /// Everything that can be wrong with a frame's bytes, except the archives themselves: see [`Frame::event`].
    pub fn parse(bytes: &Bytes) -> Result<Self> {
        let header = Self::check(bytes)?;
        Ok(Self { header, bytes: bytes.slice(..header.length as usize) })
    }

    /// What [`Frame::parse`] checks, for whoever wants no more of the frame than its head.
    pub fn check(bytes: &[u8]) -> Result<FrameHeader> {
        let header = FrameHeader::parse(bytes)?;
        let whole = slice(WHAT, bytes, 0, header.length as usize)?;
        let computed = crc32c::crc32c(whole.get(4..).unwrap_or_default());
        if computed != header.crc {
            return Err(Error::Checksum { what: WHAT, stored: header.crc, computed });
        }
        check_table(&header, whole)?;
        Ok(header)
    }

    /// The frame at the beginning of `bytes` whatever its checksum says, as far as its offset table makes sense. Events of
    /// it may be others than were written: only to tell what was lost.
    pub fn salvage(bytes: &Bytes) -> Result<Self> {
        let header = FrameHeader::parse(bytes)?;
        let whole = slice(WHAT, bytes, 0, header.length as usize)?;
        check_table(&header, whole)?;
        Ok(Self { header, bytes: bytes.slice(..whole.len()) })
    }

    fn entry(&self, index: usize) -> Result<(usize, usize)> {
        let at = FRAME_HEADER_BYTES + index * TABLE_ENTRY_BYTES;
        let offset = u32::from_le_bytes(array(WHAT, &self.bytes, at)?) as usize;
        let length = u32::from_le_bytes(array(WHAT, &self.bytes, at + 4)?) as usize;
        Ok((offset, length))
    }

    /// What its head says.
    pub const fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The seq of its first event.
    pub const fn first_seq(&self) -> Seq {
        self.header.fields.first_seq
    }

    /// The seq of its last event.
    pub const fn last_seq(&self) -> Seq {
        self.header.last_seq()
    }

    /// How many events it has.
    pub const fn count(&self) -> usize {
        self.header.count as usize
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The event at `index`, validated.
    ///
    /// # Errors
    /// [`Error::Archive`] where the bytes are no event.
    pub fn event(&self, index: usize) -> Result<&ArchivedChangeEvent> {
        let invalid = Error::Archive { seq: self.first_seq().get(), index };
        if index >= self.count() {
            return Err(invalid);
        }
        let (at, length) = self.entry(index)?;
        ArchivedChangeEvent::access(slice(WHAT, &self.bytes, at, length)?).ok_or(invalid)
    }

    /// All events with their seqs.
    pub fn events(&self) -> impl Iterator<Item = (Seq, Result<&ArchivedChangeEvent>)> {
        (0..self.count()).map(|index| (self.first_seq().plus(index as u64), self.event(index)))
    }
}

/// Every entry stands behind the one before, aligned, within the frame; at least one.
fn check_table(header: &FrameHeader, whole: &[u8]) -> Result<()> {
    let seq = header.fields.first_seq.get();
    let count = header.count as usize;
    let table = count
        .checked_mul(TABLE_ENTRY_BYTES)
        .filter(|bytes| *bytes > 0)
        .and_then(|bytes| whole.get(FRAME_HEADER_BYTES..)?.get(..bytes))
        .ok_or(Error::OffsetTable { seq, index: 0 })?;
    let mut free_from = align(FRAME_HEADER_BYTES + table.len());
    for (index, entry) in table.chunks_exact(TABLE_ENTRY_BYTES).enumerate() {
        let at = u32::from_le_bytes(array(WHAT, entry, 0)?) as usize;
        let end = at.saturating_add(u32::from_le_bytes(array(WHAT, entry, 4)?) as usize);
        if at < free_from || !at.is_multiple_of(ALIGNMENT) || end > whole.len() {
            return Err(Error::OffsetTable { seq, index });
        }
        free_from = align(end);
    }
    Ok(())
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
