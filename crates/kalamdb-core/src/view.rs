//! What a statement reads: one cut of all rows and, inside of a transaction, what that has changed so far over it.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use kalamdb_store::{ColdScan, Cut, KeyRange, Keyspace, Manifest, Scanned, StoredRow};
use log_format::{Partition, Seq};

use crate::error::Result;

/// A row of the cut that a transaction changes: the event that wrote it, its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) seq: Seq,
    pub(crate) row: Vec<u8>,
}

/// A row as a transaction has it, not yet committed.
#[derive(Clone, Debug)]
pub(crate) struct Uncommitted {
    /// What the cut has; none: no row, or a deleted one.
    pub(crate) base: Option<Base>,
    /// What is there now; none: no row.
    pub(crate) row: Option<Vec<u8>>,
    /// Its place among the transaction's changes.
    pub(crate) number: usize,
}

/// The rows that a transaction has changed, by partition and key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    partitions: HashMap<Arc<Partition>, BTreeMap<Vec<u8>, Uncommitted>>,
    count: usize,
}

impl Overlay {
    pub(crate) fn get(&self, partition: &Partition, key: &[u8]) -> Option<&Uncommitted> {
        self.partitions.get(partition)?.get(key)
    }

    /// Takes over what one statement makes of a row; what the cut has of it is what the first one found.
    pub(crate) fn put(
        &mut self,
        partition: &Arc<Partition>,
        key: Vec<u8>,
        base: Option<Base>,
        row: Option<Vec<u8>>,
    ) {
        let number = self.count;
        let rows = self.partitions.entry(Arc::clone(partition)).or_default();
        match rows.get_mut(&key) {
            Some(known) => known.row = row,
            None => {
                rows.insert(key, Uncommitted { base, row, number });
                self.count += 1;
            }
        }
    }

    /// All of it, in the order in which the rows were first changed.
    pub(crate) fn into_changes(self) -> Vec<(Arc<Partition>, Vec<u8>, Uncommitted)> {
        let mut changes = Vec::with_capacity(self.count);
        for (partition, rows) in self.partitions {
            changes.extend(rows.into_iter().map(|(key, row)| (Arc::clone(&partition), key, row)));
        }
        changes.sort_unstable_by_key(|(_, _, row)| row.number);
        changes
    }
}

/// Rows as of one seq, with what a transaction has changed since.
#[derive(Clone, Debug)]
pub(crate) struct View {
    cut: Arc<Cut>,
    over: Option<OwnChanges>,
}

#[derive(Clone, Debug)]
struct OwnChanges {
    rows: Arc<Overlay>,
    /// When the transaction began, microseconds since 1970: what its rows have for `_updated` until it is committed.
    begun_at: i64,
}

impl OwnChanges {
    /// What a view shows of such a row; none where it shows what the cut has.
    fn stored<'r>(&self, cut: Seq, row: &'r Uncommitted) -> Option<StoredRow<'r>> {
        let (bytes, deleted) = match (&row.row, &row.base) {
            (Some(row), _) => (row, false),
            (None, Some(base)) => (&base.row, true),
            (None, None) => return None,
        };
        // As if it were the next commit.
        let seq = cut.plus(row.number as u64 + 1);
        Some(StoredRow { seq, updated: self.begun_at, deleted, row: bytes })
    }
}

impl View {
    pub(crate) const fn of_cut(cut: Arc<Cut>) -> Self {
        Self { cut, over: None }
    }

    pub(crate) const fn in_transaction(cut: Arc<Cut>, rows: Arc<Overlay>, begun_at: i64) -> Self {
        Self { cut, over: Some(OwnChanges { rows, begun_at }) }
    }

    /// The last event it contains.
    pub(crate) fn seq(&self) -> Seq {
        self.cut.seq()
    }

    /// Whether a transaction has changed rows of a partition over the cut.
    pub(crate) fn has_changes(&self, partition: &Partition) -> bool {
        self.over.as_ref().is_some_and(|over| over.rows.partitions.contains_key(partition))
    }

    /// The cut, without what a transaction has changed.
    pub(crate) const fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// The cold files of a partition; none where it has no cold rows.
    pub(crate) fn manifest(&self, partition: &Partition) -> Result<Option<Arc<Manifest>>> {
        Ok(self.cut.manifest(partition)?)
    }

    /// A key of a range from which on it has about so many rows, tombstones and hidden ones among them; none where it has no
    /// more than that.
    pub(crate) fn key_before_end(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        rows: usize,
    ) -> Result<Option<Vec<u8>>> {
        let of_cut = self.cut.key_before_end(keyspace, partition, range, rows)?;
        let changed = self.over.as_ref().and_then(|over| over.rows.partitions.get(partition));
        let from = range.from.as_ref().map_or(Bound::Unbounded, Bound::Included);
        let until = range.until.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let is_empty = matches!((&range.from, &range.until), (Some(from), Some(until)) if from >= until);
        let changed = changed.filter(|_| !is_empty);
        let own = changed
            .and_then(|keys| keys.range::<Vec<u8>, _>((from, until)).rev().nth(rows.saturating_sub(1)));
        Ok(of_cut.max(own.map(|(key, _)| key.clone())))
    }

    /// The row of this key, tombstones included, handed to `read`.
    pub(crate) fn get<T>(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        key: &[u8],
        read: impl FnOnce(StoredRow<'_>) -> T,
    ) -> Result<Option<T>> {
        let own = self.over.as_ref().and_then(|over| over.stored(self.seq(), over.rows.get(partition, key)?));
        match own {
            Some(own) => Ok(Some(read(own))),
            None => Ok(self.cut.get(keyspace, partition, key, read)?),
        }
    }

    /// Hands the rows of a partition to `visit` in key order, tombstones included, until it breaks. Cold rows may lack what
    /// `cold` does not ask for.
    pub(crate) fn scan(
        &self,
        keyspace: Keyspace,
        partition: &Partition,
        range: &KeyRange,
        cold: ColdScan<'_>,
        mut visit: impl FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        let own = self.over.as_ref().and_then(|over| Some((over, over.rows.partitions.get(partition)?)));
        let Some((over, rows)) = own else {
            return Ok(self.cut.scan_with(keyspace, partition, range, cold, visit)?);
        };
        let from = range.from.as_ref().map_or(Bound::Unbounded, Bound::Included);
        let until = range.until.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let is_empty = matches!((&range.from, &range.until), (Some(from), Some(until)) if from >= until);
        if is_empty {
            return Ok(Scanned::All);
        }
        let shown = |(key, row)| Some((key, over.stored(self.seq(), row)?));
        let mut own = rows.range::<Vec<u8>, _>((from, until)).filter_map(shown).peekable();
        let mut stopped_at = None;
        let mut give = |key: &[u8], row: StoredRow<'_>| {
            let flow = visit(key, row);
            if flow.is_break() {
                stopped_at = Some(key.to_vec());
            }
            flow
        };
        let scanned = self.cut.scan_with(keyspace, partition, range, cold, |key, row| {
            while let Some((own_key, own_row)) = own.next_if(|(own_key, _)| own_key.as_slice() < key) {
                give(own_key, own_row)?;
            }
            match own.next_if(|(own_key, _)| own_key.as_slice() == key) {
                Some((_, own_row)) => give(key, own_row),
                None => give(key, row),
            }
        })?;
        if scanned == Scanned::All {
            let _ = own.try_for_each(|(own_key, own_row)| give(own_key, own_row));
        }
        Ok(stopped_at.map_or(Scanned::All, Scanned::StoppedAt))
    }
}
