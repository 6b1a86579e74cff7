//! One file: what processes see, what the platter holds, and what has yet to get from the one to the other.

use std::collections::BTreeMap;
use std::mem;

use super::random::Random;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// A file's bytes.
#[derive(Clone, Debug)]
pub(super) struct SimulatedFile {
    /// What reads see.
    content: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// What changed since the last sync, in order.
    pending: Vec<Change>,
    /// How many names it has.
    pub(super) names: u32,
}

impl SimulatedFile {
    /// A file of one name that is all on the platter.
    pub(super) fn named(bytes: Vec<u8>) -> Self {
        Self { content: bytes.clone(), durable: bytes, pending: Vec::new(), names: 1 }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        overwrite(&mut self.content, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.content.resize(length, 0);
        self.pending.push(Change::Truncate(length));
    }

    pub(super) fn sync(&mut self) {
        for change in mem::take(&mut self.pending) {
            match change {
                Change::Write { offset, bytes } => overwrite(&mut self.durable, offset, &bytes),
                Change::Truncate(length) => self.durable.resize(length, 0),
            }
        }
    }

    /// Some of what changed reaches the platter, the rest is forgotten.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.durable = self.after_power_loss(random);
        self.pending.clear();
    }

    /// What the platter may hold if the power goes now.
    ///
    /// Lengths change in order, as file systems that keep a journal do it: what a truncation freed does not come back
    /// behind it. Sectors are written in any order, each as it was after any of the writes into it.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        let lengths = match random.below(4) {
            0 => 0,
            1 => self.pending.len(),
            _ => random.below(self.pending.len() + 1),
        };
        let is_barrier = |(index, change): (usize, &Change)| {
            (index >= lengths && matches!(change, Change::Truncate(_))).then_some(index)
        };
        let limit = self.pending.iter().enumerate().find_map(is_barrier).unwrap_or(self.pending.len());
        let mut sectors = Sectors { limit, habit: random.below(4), reached: BTreeMap::new() };
        let mut bytes = self.durable.clone();
        let mut length = bytes.len();
        for (index, change) in self.pending.iter().enumerate().take(limit) {
            match change {
                Change::Write { offset, bytes: written } => {
                    for (at, piece) in by_sector(*offset, written) {
                        if index < sectors.reached(at / SECTOR_BYTES, random) {
                            overwrite(&mut bytes, at, piece);
                        }
                    }
                    if index < lengths {
                        length = length.max(offset + written.len());
                    }
                }
                Change::Truncate(to) => {
                    bytes.resize(*to, 0);
                    length = *to;
                }
            }
        }
        bytes.resize(length, 0);
        bytes
    }
}

/// Up to which change each sector got to the platter.
struct Sectors {
    limit: usize,
    /// 0: nothing was written, 1: everything was, else each sector for itself.
    habit: usize,
    reached: BTreeMap<usize, usize>,
}

impl Sectors {
    fn reached(&mut self, sector: usize, random: &mut Random) -> usize {
        let (limit, habit) = (self.limit, self.habit);
        *self.reached.entry(sector).or_insert_with(|| match (habit, random.below(4)) {
            (0, _) | (2.., 0) => 0,
            (1, _) | (2.., 1 | 2) => limit,
            _ => random.below(limit + 1),
        })
    }
}

/// The pieces of a write, each within one sector.
fn by_sector(offset: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
        pieces.push((at, piece));
        at += piece.len();
        rest = behind;
    }
    pieces
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(slot) = content.get_mut(offset..end) {
        slot.copy_from_slice(bytes);
    }
}
