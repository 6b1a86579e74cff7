//! Where in which segment a seq stands, roughly: one entry each 64 KiB, so that a seek reads that much and not a whole
//! segment.
//!
//! It holds only places where a valid frame was seen, in memory, and may be incomplete: a reader scans on from the
//! nearest place before. When it is full, every other entry goes and entries are taken half as often.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log_format::{SEGMENT_HEADER_BYTES, Seq};

const SPACING_BYTES: u64 = 64 << 10;
const ENTRIES_MAX: usize = 1 << 16;

/// Shared by a writer and the readers of its process.
#[derive(Debug)]
pub struct LogIndex {
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    places: BTreeMap<Seq, Spot>,
    spacing: u64,
}

#[derive(Clone, Copy, Debug)]
struct Spot {
    base: Seq,
    offset: u64,
}

impl Default for LogIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl LogIndex {
    /// An empty index.
    pub const fn new() -> Self {
        Self { entries: Mutex::new(Entries { places: BTreeMap::new(), spacing: SPACING_BYTES }) }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Entries are hints, each right by itself: a panic between two of them spoils nothing.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame that begins at `seq` stands at `offset` of the segment `base`. Tells from which offset of this segment
    /// on the next one is worth telling.
    pub(crate) fn note(&self, base: Seq, seq: Seq, offset: u64) -> u64 {
        let mut entries = self.lock();
        let before = entries.places.range(..=seq).next_back().map(|(_, spot)| *spot);
        if let Some(before) = before.filter(|before| before.base == base)
            && offset < before.offset.saturating_add(entries.spacing)
        {
            return before.offset.saturating_add(entries.spacing);
        }
        if entries.places.len() >= ENTRIES_MAX {
            let mut keep = false;
            entries.places.retain(|_, _| {
                keep = !keep;
                keep
            });
            entries.spacing = entries.spacing.saturating_mul(2);
        }
        entries.places.insert(seq, Spot { base, offset });
        offset.saturating_add(entries.spacing)
    }

    /// An offset in the segment `base` from which a scan meets `seq`: where a frame begins, at `seq` or before.
    pub(crate) fn offset(&self, base: Seq, seq: Seq) -> u64 {
        let entries = self.lock();
        let before = entries.places.range(..=seq).next_back().map(|(_, spot)| *spot);
        before.filter(|spot| spot.base == base).map_or(SEGMENT_HEADER_BYTES as u64, |spot| spot.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_place_before_and_stays_small() {
        let index = LogIndex::new();
        let base = Seq::new(1);
        let entries = 3 * ENTRIES_MAX as u64;
        for number in 0..entries {
            index.note(base, Seq::new(1 + number), 64 + number * SPACING_BYTES);
        }
        assert!(index.lock().places.len() <= ENTRIES_MAX);
        for number in [0, 1, 77, entries / 2, entries - 1] {
            let offset = index.offset(base, Seq::new(1 + number));
            let exact = 64 + number * SPACING_BYTES;
            assert!(offset <= exact && exact - offset <= 8 * SPACING_BYTES, "{number}: {offset} for {exact}");
        }
        assert_eq!(
            index.offset(Seq::new(9_999_999), Seq::new(10_000_000)),
            64,
            "an unknown segment: from its start"
        );
    }

    #[test]
    fn frames_close_to_each_other_share_an_entry() {
        let index = LogIndex::new();
        let next = index.note(Seq::new(1), Seq::new(1), 64);
        assert_eq!(index.note(Seq::new(1), Seq::new(2), 128), next);
        assert_eq!(index.offset(Seq::new(1), Seq::new(2)), 64);
        index.note(Seq::new(3), Seq::new(3), 64);
        assert_eq!(index.offset(Seq::new(3), Seq::new(4)), 64);
    }
}
