//! What a segment's footer will say, gathered frame by frame as the segment grows.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use log_format::{
    FOOTER_ENTRIES_MAX, FOOTER_PARTITIONS_MAX, FooterEntry, Frame, FrameHeader, PartitionHash,
    SEGMENT_HEADER_BYTES, SegmentFooter, Seq,
};

/// How far entries of the index stand apart.
const SPACING_BYTES: u64 = 64 << 10;

/// The hashes are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// The segment so far.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    base: Seq,
    first: Option<FrameHeader>,
    last: Option<FrameHeader>,
    frames: u64,
    events: u64,
    end: u64,
    entries: Vec<FooterEntry>,
    spacing: u64,
    /// None once they are too many.
    partitions: Option<HashSet<PartitionHash, BuildHasherDefault<AsItIs>>>,
    /// The one that was added last: it is likely to come again.
    latest: Option<PartitionHash>,
}

impl Summary {
    /// Of a segment without frames.
    pub(crate) fn new(base: Seq) -> Self {
        Self {
            base,
            first: None,
            last: None,
            frames: 0,
            events: 0,
            end: SEGMENT_HEADER_BYTES as u64,
            entries: Vec::new(),
            spacing: SPACING_BYTES,
            partitions: Some(HashSet::default()),
            latest: None,
        }
    }

    /// The next frame.
    pub(crate) fn add(&mut self, header: &FrameHeader) {
        let due = self.entries.last().is_none_or(|last| self.end >= last.offset + self.spacing);
        if due {
            if self.entries.len() >= FOOTER_ENTRIES_MAX {
                let mut keep = false;
                self.entries.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.spacing *= 2;
            }
            let (first_seq, commit_time) = (header.fields.first_seq, header.fields.commit_time);
            self.entries.push(FooterEntry { first_seq, commit_time, offset: self.end });
        }
        self.first.get_or_insert(*header);
        self.last = Some(*header);
        self.frames += 1;
        self.events += u64::from(header.count);
        self.end += u64::from(header.length);
    }

    /// The partition of an event of that frame.
    pub(crate) fn touch(&mut self, partition: PartitionHash) {
        if self.latest == Some(partition) {
            return;
        }
        self.latest = Some(partition);
        if let Some(partitions) = &mut self.partitions {
            partitions.insert(partition);
            if partitions.len() > FOOTER_PARTITIONS_MAX {
                self.partitions = None;
            }
        }
    }

    /// The next frame, with the partitions of its events; an event that cannot be read could touch any.
    pub(crate) fn add_frame(&mut self, frame: &Frame) {
        self.add(frame.header());
        for (_, event) in frame.events() {
            match event {
                Ok(event) => {
                    self.touch(event.partition().map_or(PartitionHash::CATALOG, PartitionHash::of_archived));
                }
                Err(_) => self.partitions = None,
            }
        }
    }

    /// How many frames there are.
    pub(crate) const fn frames(&self) -> u64 {
        self.frames
    }

    /// The footer of the segment as it is; none without frames.
    pub(crate) fn footer(&self) -> Option<SegmentFooter> {
        let (first, last) = (self.first?, self.last?);
        let partitions = self.partitions.as_ref().map(|partitions| {
            let mut listed: Vec<_> = partitions.iter().copied().collect();
            listed.sort_unstable();
            listed
        });
        Some(SegmentFooter {
            base_seq: self.base,
            last_seq: last.last_seq(),
            last_epoch: last.fields.epoch,
            previous_crc: first.fields.previous_crc,
            last_crc: last.crc,
            first_time: first.fields.commit_time,
            last_time: last.fields.commit_time,
            frames: self.frames,
            events: self.events,
            end: self.end,
            entries: self.entries.clone(),
            partitions,
        })
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
