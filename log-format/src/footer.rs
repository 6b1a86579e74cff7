//! The footer of a sealed segment: where in it which seq stands, and whose rows it holds.
//!
//! It repeats what the frames say, so that a reader can leave out what it does not want. A segment without one, or with a
//! damaged one, is as good; whoever needs its index reads the frames.

use crate::error::{Error, Result, array, slice};
use crate::ids::{ArchivedPartition, Partition, Seq};

/// Bytes of a footer's end, by which it is found.
pub const FOOTER_TAIL_BYTES: usize = 16;

/// Bytes a whole footer may take.
pub const FOOTER_BYTES_MAX: usize = 4 << 20;

/// Entries of the index a footer may have.
pub const FOOTER_ENTRIES_MAX: usize = 1 << 16;

/// Partitions a footer may list.
pub const FOOTER_PARTITIONS_MAX: usize = 1 << 17;

const WHAT: &str = "segment footer";
const MAGIC: [u8; 8] = *b"KALAMFTR";
const TAIL_MAGIC: [u8; 8] = *b"KALAMEND";
const HEAD_BYTES: usize = 96;
const ENTRY_BYTES: usize = 24;
const HASH_BYTES: usize = 8;
const UNLISTED: u32 = 1;

/// 64 bits that stand for a partition: two partitions may share them, which costs a reader time and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionHash(u64);

impl PartitionHash {
    /// What stands for events that change no rows: tables, accounts, epochs.
    pub const CATALOG: Self = Self::of_parts(0, None);

    /// The hash of a partition.
    pub fn of(partition: &Partition) -> Self {
        Self::of_parts(partition.table.get(), partition.user.as_ref().map(crate::UserId::as_str))
    }

    /// The hash of a partition in an event's archive.
    pub fn of_archived(partition: &ArchivedPartition) -> Self {
        Self::of_parts(partition.table.to_id().get(), partition.owner())
    }

    /// FNV-1a over the table's id, a byte that says whether there is an owner, and the owner.
    const fn of_parts(table: u64, owner: Option<&str>) -> Self {
        let hash = fnv1a(0xcbf2_9ce4_8422_2325, &table.to_le_bytes());
        match owner {
            None => Self(fnv1a(hash, &[0])),
            Some(owner) => Self(fnv1a(fnv1a(hash, &[1]), owner.as_bytes())),
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[expect(clippy::indexing_slicing, reason = "a constant function has no iterators; the loop keeps within")]
const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

/// A place of the sparse index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterEntry {
    /// The first seq of a frame.
    pub first_seq: Seq,
    /// When that was committed.
    pub commit_time: i64,
    /// Where it begins in the segment.
    pub offset: u64,
}

/// What a footer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The segment's first seq.
    pub base_seq: Seq,
    /// Its last seq.
    pub last_seq: Seq,
    /// The epoch of its last frame.
    pub last_epoch: u32,
    /// The checksum its first frame names as its predecessor's.
    pub previous_crc: u32,
    /// The checksum of its last frame.
    pub last_crc: u32,
    /// The commit time of its first frame.
    pub first_time: i64,
    /// The commit time of its last frame.
    pub last_time: i64,
    /// How many frames it holds.
    pub frames: u64,
    /// How many events.
    pub events: u64,
    /// Where its frames end and the footer begins.
    pub end: u64,
    /// Places of frames, in order; the first one is the first frame.
    pub entries: Vec<FooterEntry>,
    /// The partitions its events touch, in order of their hashes; none where they are too many to list.
    pub partitions: Option<Vec<PartitionHash>>,
}

impl SegmentFooter {
    /// Whether the segment may hold events of one of these partitions.
    pub fn may_touch<'a>(&self, wanted: impl IntoIterator<Item = &'a PartitionHash>) -> bool {
        let Some(listed) = &self.partitions else { return true };
        wanted.into_iter().any(|hash| listed.binary_search(hash).is_ok())
    }

    /// The footer's bytes, a multiple of 16.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where it has more entries or partitions than a footer may.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let listed = self.partitions.as_deref().unwrap_or_default();
        let count = |count: usize, limit: usize| {
            let number = u32::try_from(count).ok().filter(|_| count <= limit);
            number.ok_or(Error::TooLarge { what: WHAT, size: count, limit })
        };
        let entries = count(self.entries.len(), FOOTER_ENTRIES_MAX)?;
        let partitions = count(listed.len(), FOOTER_PARTITIONS_MAX)?;
        let flags = if self.partitions.is_none() { UNLISTED } else { 0 };
        let mut bytes = Vec::with_capacity(length_of(self.entries.len(), listed.len()));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&self.last_epoch.to_le_bytes());
        bytes.extend_from_slice(&self.base_seq.get().to_le_bytes());
        bytes.extend_from_slice(&self.last_seq.get().to_le_bytes());
        bytes.extend_from_slice(&self.first_time.to_le_bytes());
        bytes.extend_from_slice(&self.last_time.to_le_bytes());
        bytes.extend_from_slice(&self.frames.to_le_bytes());
        bytes.extend_from_slice(&self.events.to_le_bytes());
        bytes.extend_from_slice(&self.end.to_le_bytes());
        bytes.extend_from_slice(&self.previous_crc.to_le_bytes());
        bytes.extend_from_slice(&self.last_crc.to_le_bytes());
        bytes.extend_from_slice(&entries.to_le_bytes());
        bytes.extend_from_slice(&partitions.to_le_bytes());
        bytes.resize(HEAD_BYTES, 0);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.first_seq.get().to_le_bytes());
            bytes.extend_from_slice(&entry.commit_time.to_le_bytes());
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
        }
        for hash in listed {
            bytes.extend_from_slice(&hash.get().to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(FOOTER_TAIL_BYTES), 0);
        let crc = crc32c::crc32c(&bytes);
        let length = bytes.len() + FOOTER_TAIL_BYTES;
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes());
        bytes.extend_from_slice(&TAIL_MAGIC);
        Ok(bytes)
    }

    /// Whether bytes where a frame could stand are the beginning of a footer instead. No frame begins so: its length
    /// would be above the greatest.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// How long the footer is that ends with these 16 bytes; none where they end no footer.
    pub fn length(tail: &[u8]) -> Option<usize> {
        let length = u32::from_le_bytes(array(WHAT, tail, 4).ok()?) as usize;
        let is_legal = (HEAD_BYTES + FOOTER_TAIL_BYTES..=FOOTER_BYTES_MAX).contains(&length);
        let is_tail = tail.get(8..) == Some(&TAIL_MAGIC) && length.is_multiple_of(FOOTER_TAIL_BYTES);
        (is_tail && is_legal).then_some(length)
    }

    /// Reads a whole footer.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Footer`], [`Error::Checksum`], [`Error::Flags`], in this order.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let least = HEAD_BYTES + FOOTER_TAIL_BYTES;
        let (body, tail) = bytes
            .split_last_chunk::<FOOTER_TAIL_BYTES>()
            .filter(|_| bytes.len() >= least)
            .ok_or(Error::Truncated { what: WHAT, needed: least, available: bytes.len() })?;
        if Self::length(tail) != Some(bytes.len()) || !Self::begins(body) {
            return Err(Error::Footer { problem: "it does not begin and end as one" });
        }
        let (stored, computed) = (u32::from_le_bytes(array(WHAT, tail, 0)?), crc32c::crc32c(body));
        if stored != computed {
            return Err(Error::Checksum { what: WHAT, stored, computed });
        }
        let word = |at| Ok::<_, Error>(u32::from_le_bytes(array(WHAT, body, at)?));
        let long = |at| Ok::<_, Error>(u64::from_le_bytes(array(WHAT, body, at)?));
        let time = |at| Ok::<_, Error>(i64::from_le_bytes(array(WHAT, body, at)?));
        let flags = word(8)?;
        if flags & !UNLISTED != 0 {
            return Err(Error::Flags { what: WHAT, flags });
        }
        let (entries, partitions) = (word(80)? as usize, word(84)? as usize);
        let footer = Self {
            last_epoch: word(12)?,
            base_seq: Seq::new(long(16)?),
            last_seq: Seq::new(long(24)?),
            first_time: time(32)?,
            last_time: time(40)?,
            frames: long(48)?,
            events: long(56)?,
            end: long(64)?,
            previous_crc: word(72)?,
            last_crc: word(76)?,
            entries: Vec::new(),
            partitions: None,
        };
        if entries > FOOTER_ENTRIES_MAX
            || partitions > FOOTER_PARTITIONS_MAX
            || length_of(entries, partitions) != bytes.len()
            || flags == UNLISTED && partitions > 0
        {
            return Err(Error::Footer { problem: "its counts do not fit its length" });
        }
        footer.with_lists(body, entries, (flags == 0).then_some(partitions))
    }

    /// Takes over entries and partitions, checked to be in order.
    fn with_lists(mut self, body: &[u8], entries: usize, partitions: Option<usize>) -> Result<Self> {
        let entry = |raw: &[u8]| {
            Ok::<_, Error>(FooterEntry {
                first_seq: Seq::new(u64::from_le_bytes(array(WHAT, raw, 0)?)),
                commit_time: i64::from_le_bytes(array(WHAT, raw, 8)?),
                offset: u64::from_le_bytes(array(WHAT, raw, 16)?),
            })
        };
        let raw = slice(WHAT, body, HEAD_BYTES, entries * ENTRY_BYTES)?;
        self.entries = raw.chunks_exact(ENTRY_BYTES).map(entry).collect::<Result<_>>()?;
        if !self.entries.is_sorted_by(|one, next| one.offset < next.offset && one.first_seq < next.first_seq)
            || self.entries.last().is_some_and(|last| last.offset >= self.end)
        {
            return Err(Error::Footer { problem: "its entries are not in order" });
        }
        if let Some(count) = partitions {
            let raw = slice(WHAT, body, HEAD_BYTES + entries * ENTRY_BYTES, count * HASH_BYTES)?;
            let hash = |raw: &[u8]| Ok(PartitionHash(u64::from_le_bytes(array(WHAT, raw, 0)?)));
            let listed = raw.chunks_exact(HASH_BYTES).map(hash).collect::<Result<Vec<_>>>()?;
            if !listed.is_sorted_by(|one, next| one < next) {
                return Err(Error::Footer { problem: "its partitions are not in order" });
            }
            self.partitions = Some(listed);
        }
        Ok(self)
    }
}

const fn length_of(entries: usize, partitions: usize) -> usize {
    (HEAD_BYTES + entries * ENTRY_BYTES + partitions * HASH_BYTES).next_multiple_of(FOOTER_TAIL_BYTES)
        + FOOTER_TAIL_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TableId, UserId};

    #[test]
    fn hashes_are_those_of_fnv_1a() {
        assert_eq!(fnv1a(0xcbf2_9ce4_8422_2325, b"foobar"), 0x8594_4171_f739_67e8);
        let shared = PartitionHash::of(&Partition::shared(TableId::new(7)));
        let owned = PartitionHash::of(&Partition::of_user(TableId::new(7), UserId::new("ada")));
        assert!(shared != owned && shared != PartitionHash::CATALOG);
    }

    #[test]
    fn no_flipped_bit_gets_through() {
        let footer = SegmentFooter {
            base_seq: Seq::new(1),
            last_seq: Seq::new(9),
            last_epoch: 1,
            previous_crc: 0,
            last_crc: 5,
            first_time: 1,
            last_time: 2,
            frames: 3,
            events: 9,
            end: 1000,
            entries: vec![FooterEntry { first_seq: Seq::new(1), commit_time: 1, offset: 64 }],
            partitions: Some(vec![PartitionHash(1), PartitionHash(2)]),
        };
        let bytes = footer.encode().unwrap();
        assert_eq!(SegmentFooter::parse(&bytes).unwrap(), footer);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentFooter::parse(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(SegmentFooter::parse(&bytes[..length]).is_err());
        }
        let unlisted = SegmentFooter { partitions: None, ..footer };
        let read = SegmentFooter::parse(&unlisted.encode().unwrap()).unwrap();
        assert!(read.may_touch(&[PartitionHash(7)]) && read == unlisted);
    }
}
