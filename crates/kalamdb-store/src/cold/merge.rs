//! Both tiers as one: rows in key order, each key once, the newest.

use std::ops::{ControlFlow, Range};

use log_format::ColumnId;

use super::manifest::{Manifest, ManifestFile, Now, manifest};
use super::open::{Keys, OpenFile, Rows};
use crate::cut::{FirstError, KeyRange, Scanned};
use crate::error::{Error, Result};
use crate::keyspace::{Keyspace, StoredRow, partition_of};
use crate::store::Shared;

/// Says which rows of a file a scan need not read, since no condition lets them through.
pub trait Prune {
    /// Whether the file may be passed over without opening it.
    fn passes_over(&self, file: &log_format::ColdFile) -> bool;
    /// The rows that may be let through, in order; none: any.
    fn rows(&self, file: &OpenFile) -> Option<Vec<Range<usize>>>;
}

/// What a scan asks of cold files beside the keys.
#[derive(Clone, Copy, Default)]
pub struct ColdScan<'a> {
    /// The columns it looks at; none: all. In the others its rows hold nothing.
    pub columns: Option<&'a [ColumnId]>,
    /// What it need not see. Never for hot rows: one that does not count hides a cold one all the same.
    pub prune: Option<&'a dyn Prune>,
}

impl std::fmt::Debug for ColdScan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdScan").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl ManifestFile {
    /// Whether it may have rows that a scan goes through.
    pub fn is_in(&self, range: &KeyRange, prune: Option<&dyn Prune>) -> bool {
        range.from.as_ref().is_none_or(|from| self.file.last_key >= *from)
            && range.until.as_ref().is_none_or(|until| self.file.first_key < *until)
            && !prune.is_some_and(|prune| prune.passes_over(&self.file))
    }
}

/// The rows of one file that a scan goes through.
struct FileRows {
    keys: Keys,
    rows: Rows,
    ranges: std::vec::IntoIter<Range<usize>>,
    now: Range<usize>,
}

impl FileRows {
    fn open(
        shared: &Shared,
        of: &ManifestFile,
        range: &KeyRange,
        scan: ColdScan<'_>,
    ) -> Result<Option<Self>> {
        let file = shared.cold_files.file(&of.file)?;
        let keys = file.keys()?.rows_in(range);
        let wanted = scan.prune.and_then(|prune| prune.rows(&file));
        let wanted = wanted.unwrap_or_else(|| std::iter::once(0..file.rows()).collect());
        let ranges = without(&keys, &wanted, &of.superseded);
        if ranges.is_empty() {
            return Ok(None);
        }
        let rows = file.read(ranges.clone(), scan.columns)?;
        let mut ranges = ranges.into_iter();
        let now = ranges.next().unwrap_or_default();
        Ok(Some(Self { keys: file.keys()?.clone(), rows, ranges, now }))
    }

    fn key(&self) -> &[u8] {
        self.keys.get(self.now.start)
    }

    /// Goes on; false where that was the last row. The row must have been taken.
    fn advance(&mut self) -> bool {
        self.now.start += 1;
        while self.now.is_empty() {
            match self.ranges.next() {
                Some(next) => self.now = next,
                None => return false,
            }
        }
        true
    }
}

/// The rows in `keys` and in one of `wanted` that are not superseded.
pub(super) fn without(keys: &Range<usize>, wanted: &[Range<usize>], superseded: &[u32]) -> Vec<Range<usize>> {
    let mut left = Vec::with_capacity(wanted.len());
    for range in wanted {
        let (mut from, until) = (range.start.max(keys.start), range.end.min(keys.end));
        let first = superseded.partition_point(|position| (*position as usize) < from);
        for position in superseded.iter().skip(first).map(|position| *position as usize) {
            if position >= until {
                break;
            }
            if from < position {
                left.push(from..position);
            }
            from = position + 1;
        }
        if from < until {
            left.push(from..until);
        }
    }
    left
}

/// The cold rows of a partition in key order. A file is opened when its least key is reached.
pub(super) struct ColdRows<'a> {
    shared: &'a Shared,
    range: &'a KeyRange,
    scan: ColdScan<'a>,
    /// Those not opened yet, the least key last.
    closed: Vec<&'a ManifestFile>,
    open: Vec<FileRows>,
}

impl<'a> ColdRows<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        manifest: &'a Manifest,
        range: &'a KeyRange,
        scan: ColdScan<'a>,
    ) -> Self {
        let closed = manifest.files.iter().rev().filter(|of| of.is_in(range, scan.prune)).collect();
        Self { shared, range, scan, closed, open: Vec::new() }
    }

    /// Which of the open files has the next row.
    fn next(&mut self) -> Result<Option<usize>> {
        loop {
            let open =
                self.open.iter().enumerate().min_by(|(_, left), (_, right)| left.key().cmp(right.key()));
            match (open, self.closed.last()) {
                (Some((at, rows)), Some(closed)) if rows.key() < closed.file.first_key.as_slice() => {
                    return Ok(Some(at));
                }
                (Some((at, _)), None) => return Ok(Some(at)),
                (None, None) => return Ok(None),
                (_, Some(closed)) => {
                    self.open.extend(FileRows::open(self.shared, closed, self.range, self.scan)?);
                    self.closed.pop();
                }
            }
        }
    }

    /// Hands every row before a key to `visit` and passes over the one of that very key; none: every row.
    pub(super) fn up_to(
        &mut self,
        key: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        while let Some(at) = self.next()? {
            let Some(of) = self.open.get_mut(at) else { break };
            if key.is_some_and(|key| of.key() > key) {
                break;
            }
            let is_hidden = key.is_some_and(|key| of.key() == key);
            let row = of.rows.next()?;
            let flow =
                if is_hidden { ControlFlow::Continue(()) } else { visit(of.keys.get(of.now.start), row) };
            if !of.advance() {
                self.open.swap_remove(at);
            }
            if flow.is_break() || is_hidden {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Hands the rows of both tiers to `visit` in key order until it breaks. `hot` scans the hot tier.
pub(crate) fn scan_both(
    shared: &Shared,
    manifest: &Manifest,
    range: &KeyRange,
    scan: ColdScan<'_>,
    hot: impl FnOnce(&mut dyn FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>) -> Result<Scanned>,
    visit: &mut dyn FnMut(&[u8], StoredRow<'_>) -> ControlFlow<()>,
) -> Result<Scanned> {
    let mut cold = ColdRows::new(shared, manifest, range, scan);
    let (mut stopped_at, mut failure) = (None, FirstError::none());
    let mut give = |key: &[u8], row: StoredRow<'_>| {
        let flow = visit(key, row);
        if flow.is_break() {
            stopped_at = Some(key.to_vec());
        }
        flow
    };
    let scanned = hot(&mut |key, row| {
        failure.or_stop(cold.up_to(Some(key), &mut give))?;
        give(key, row)
    })?;
    failure.check()?;
    if scanned == Scanned::All {
        let _ = cold.up_to(None, &mut give)?;
    }
    Ok(stopped_at.map_or(Scanned::All, Scanned::StoppedAt))
}

/// The positions of the rows of these keys, which rise, in a file, without those that are superseded already.
pub(super) fn rows_of_keys<'a>(
    file: &OpenFile,
    keys: impl Iterator<Item = &'a [u8]>,
    superseded: &[u32],
) -> Result<Vec<u32>> {
    let (of_file, mut at, mut stride) = (file.keys()?, 0, 0);
    let mut found = Vec::new();
    for key in keys {
        let searched = of_file.search_from(key, at, &mut stride);
        let (Ok(next) | Err(next)) = searched;
        at = next;
        let position = u32::try_from(at).map_err(|_| Error::Damaged { what: "cold file" })?;
        if searched.is_ok() && superseded.binary_search(&position).is_err() {
            found.push(position);
        }
    }
    Ok(found)
}

/// The cold row of a key, handed to `read`.
pub(crate) fn get_cold<T>(
    shared: &Shared,
    manifest: &Manifest,
    key: &[u8],
    read: impl FnOnce(StoredRow<'_>) -> T,
) -> Result<Option<T>> {
    for of in &manifest.files {
        if of.file.first_key.as_slice() > key {
            break;
        }
        if of.file.last_key.as_slice() < key || !shared.cold_files.may_have(&of.file, key) {
            continue;
        }
        let file = shared.cold_files.file(&of.file)?;
        let Some(at) = file.keys()?.position_of(key) else { continue };
        if u32::try_from(at).is_ok_and(|at| of.superseded.binary_search(&at).is_ok()) {
            continue;
        }
        return file.row(at, read).map(Some);
    }
    Ok(None)
}

/// The greatest key from which on one of the files has so many rows of a range, or `least` where that is greater. Files that
/// end before it are not opened.
pub(crate) fn cold_key_before_end(
    shared: &Shared,
    manifest: &Manifest,
    range: &KeyRange,
    rows: usize,
    least: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let mut files: Vec<&ManifestFile> = manifest.files.iter().filter(|of| of.is_in(range, None)).collect();
    files.sort_unstable_by(|left, right| right.file.last_key.cmp(&left.file.last_key));
    let mut found = least;
    for of in files {
        if found.as_ref().is_some_and(|found| of.file.last_key < *found) {
            break;
        }
        let file = shared.cold_files.file(&of.file)?;
        let keys = file.keys()?;
        let within = keys.rows_in(range);
        let at = within.end.checked_sub(rows).filter(|at| *at >= within.start);
        found = found.max(at.map(|at| keys.get(at).to_vec()));
    }
    Ok(found)
}

/// Hands the live rows that the cold tier has of a partition to `visit`: those that are not deleted and that no hot row hides.
/// Reads its files.
pub(crate) fn each_live_cold_row(
    shared: &Shared,
    prefix: &[u8],
    mut visit: impl FnMut(&StoredRow<'_>),
) -> Result<()> {
    let Some(manifest) = manifest(shared, &Now, prefix)? else { return Ok(()) };
    let keyspace = if partition_of(prefix)?.user.is_some() { Keyspace::User } else { Keyspace::Shared };
    let family = shared.family(keyspace)?;
    for of in &manifest.files {
        let file = shared.cold_files.file(&of.file)?;
        let all = 0..file.rows();
        let ranges = without(&all, std::slice::from_ref(&all), &of.superseded);
        let positions = ranges.clone().into_iter().flatten();
        let (mut rows, keys) = (file.read(ranges, None)?, file.keys()?);
        for position in positions {
            let row = rows.next()?;
            let hot = shared.database.get_pinned_cf(&family, [prefix, keys.get(position)].concat());
            let is_hidden = hot.map_err(|source| Error::Engine { action: "count rows", source })?.is_some();
            if !row.deleted && !is_hidden {
                visit(&row);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_superseded_is_left_out_of_every_range() {
        let keys = 2..20;
        let wanted = [0..5, 7..12, 15..30];
        assert_eq!(without(&keys, &wanted, &[]), [2..5, 7..12, 15..20]);
        assert_eq!(without(&keys, &wanted, &[0, 2, 4, 7, 8, 11, 16, 19, 25]), [3..4, 9..11, 15..16, 17..19]);
        assert_eq!(without(&keys, &wanted, &(0..40).collect::<Vec<_>>()), Vec::<Range<usize>>::new());
    }
}
