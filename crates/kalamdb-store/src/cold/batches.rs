//! The cold rows of a partition as Arrow: whole batches, file by file, as they were written.
//!
//! Nothing is put together row by row here, so this is the way to read much. Which rows newer ones stand in the place of is
//! known before a file is read: the manifest says it of other files' rows, [`Hidden`] of hot ones.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::and_not;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::manifest::{Manifest, ManifestFile};
use super::merge::{ColdScan, without};
use super::open::{Keys, OpenFile};
use super::writer::{DELETED_COLUMN, SYSTEM_COLUMNS};
use crate::cut::{Cut, KeyRange};
use crate::error::{Error, Result};

/// Rows of one batch at the most.
const BATCH_ROWS: usize = 8192;
const DAMAGED: Error = Error::Damaged { what: "cold file" };

/// The cold rows of a partition that hot ones hide, tombstones among those: found key by key, in rising order.
#[derive(Debug)]
pub struct Hidden {
    manifest: Arc<Manifest>,
    /// Which of the manifest's files are looked at, by their least key.
    files: Vec<usize>,
    /// By file of the manifest: the positions of its rows, rising.
    positions: Vec<Vec<u32>>,
    /// The first of `files` whose least key was not reached yet.
    closed: usize,
    open: Vec<Reached>,
}

/// A file whose least key was reached.
#[derive(Debug)]
struct Reached {
    file: usize,
    keys: Keys,
    /// Where the last key was found, and how far from the one before.
    at: usize,
    stride: usize,
}

impl Hidden {
    /// Nothing yet, in these files of a manifest, by position.
    pub fn new(manifest: &Arc<Manifest>, files: &[usize]) -> Self {
        let positions = vec![Vec::new(); manifest.files.len()];
        Self { manifest: Arc::clone(manifest), files: files.to_vec(), positions, closed: 0, open: Vec::new() }
    }

    /// Hides the rows of a hot key, greater than all before.
    ///
    /// # Errors
    /// Where a file that may have it cannot be read.
    pub fn hide(&mut self, cut: &Cut, key: &[u8]) -> Result<()> {
        while let Some(&file) = self.files.get(self.closed) {
            let of = self.manifest.files.get(file).ok_or(Error::Damaged { what: "manifest" })?;
            if of.file.first_key.as_slice() > key {
                break;
            }
            if of.file.last_key.as_slice() >= key {
                let keys = cut.open_file(&of.file)?.keys()?.clone();
                self.open.push(Reached { file, keys, at: 0, stride: 0 });
            }
            self.closed += 1;
        }
        let positions = &mut self.positions;
        self.open.retain_mut(|Reached { file, keys, at, stride }| {
            let found = keys.search_from(key, *at, stride);
            let (Ok(next) | Err(next)) = found;
            if found.is_ok()
                && let Some(positions) = positions.get_mut(*file)
            {
                positions.extend(u32::try_from(next));
            }
            *at = next;
            // A greater key is not in it either where this one is above all.
            *at < keys.len()
        });
        Ok(())
    }

    /// The rows of one of the manifest's files.
    fn of_file(&self, file: usize) -> &[u32] {
        self.positions.get(file).map_or(&[], Vec::as_slice)
    }
}

/// The rows of one file that a query goes through, batch by batch.
pub struct FileBatches {
    file: Arc<OpenFile>,
    reader: ParquetRecordBatchReader,
    /// The rows that are still read, in order.
    ranges: std::vec::IntoIter<Range<usize>>,
    now: Range<usize>,
    /// Those of them that count no longer, rising.
    gone: std::iter::Peekable<std::vec::IntoIter<u32>>,
    /// Whether deleted ones are among them that do not count either.
    without_deleted: bool,
    passed_over: usize,
    shadowed: usize,
}

impl std::fmt::Debug for FileBatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBatches").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What a query asks of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileScan<'a> {
    /// Rows of which keys.
    pub range: &'a KeyRange,
    /// Which columns of its own, and which rows not.
    pub cold: ColdScan<'a>,
    /// Which of `_seq`, `_updated` and `_deleted`.
    pub system: &'a [&'a str],
    /// Whether deleted rows are asked for, too.
    pub with_deleted: bool,
}

impl Cut {
    /// Reads the rows of a file of `hidden`'s manifest: those of keys in the range that no other row stands in the place of.
    /// The batches have at least the columns that are asked for, under the names that the file has for them.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not what was written.
    pub fn file_batches(&self, hidden: &Hidden, file: usize, scan: FileScan<'_>) -> Result<FileBatches> {
        let FileScan { range, cold, system, with_deleted } = scan;
        let of = hidden.manifest.files.get(file).ok_or(Error::Damaged { what: "manifest" })?;
        let open = self.open_file(&of.file)?;
        // No key is looked at where all are in the range.
        let keys = if has_all(range, of) { 0..open.rows() } else { open.keys()?.rows_in(range) };
        let wanted = cold.prune.and_then(|prune| prune.rows(&open));
        let wanted = wanted.unwrap_or_else(|| std::iter::once(0..open.rows()).collect());
        let ranges = without(&keys, &wanted, &[]);
        let gone = merged(&of.superseded, hidden.of_file(file));
        let read: usize = ranges.iter().map(Range::len).sum();
        let columns = open.columns().iter().enumerate();
        let own = columns.filter(|(_, column)| cold.columns.is_none_or(|ids| ids.contains(&column.id)));
        let own = own.map(|(at, _)| at + SYSTEM_COLUMNS.len());
        let without_deleted = !with_deleted && open.may_have_deleted();
        let is_read = |name: &str| system.contains(&name) || without_deleted && name == DELETED_COLUMN;
        let system = SYSTEM_COLUMNS.iter().enumerate().filter(|(_, name)| is_read(name)).map(|(at, _)| at);
        let reader = open.reader(ranges.clone(), system.chain(own), BATCH_ROWS)?;
        Ok(FileBatches {
            passed_over: open.rows() - read,
            shadowed: 0,
            without_deleted,
            reader,
            ranges: ranges.into_iter(),
            now: 0..0,
            gone: gone.into_iter().peekable(),
            file: open,
        })
    }
}

/// Whether all of a file's keys are in a range.
fn has_all(range: &KeyRange, of: &ManifestFile) -> bool {
    range.from.as_ref().is_none_or(|from| *from <= of.file.first_key)
        && range.until.as_ref().is_none_or(|until| *until > of.file.last_key)
}

/// What is in either of two rising lists.
fn merged(left: &[u32], right: &[u32]) -> Vec<u32> {
    let mut all = [left, right].concat();
    all.sort_unstable();
    all.dedup();
    all
}

impl FileBatches {
    /// The file.
    pub fn file(&self) -> &OpenFile {
        &self.file
    }

    /// Rows of it that no condition let through, which were not read.
    pub const fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// Rows so far that others stand in the place of.
    pub const fn shadowed(&self) -> usize {
        self.shadowed
    }

    /// Which of the next rows still count; none: all.
    fn counting(&mut self, rows: usize) -> Result<Option<BooleanArray>> {
        let mut mask = None::<BooleanBufferBuilder>;
        let mut done = 0;
        while done < rows {
            if self.now.is_empty() {
                self.now = self.ranges.next().ok_or(DAMAGED)?;
                continue;
            }
            let until = self.now.end.min(self.now.start + (rows - done));
            while let Some(position) = self.gone.next_if(|position| (*position as usize) < until) {
                let Some(at) = (position as usize).checked_sub(self.now.start) else { continue };
                let mask = mask.get_or_insert_with(|| all_set(rows));
                mask.set_bit(done + at, false);
                self.shadowed += 1;
            }
            done += until - self.now.start;
            self.now.start = until;
        }
        Ok(mask.map(|mut mask| BooleanArray::new(mask.finish(), None)))
    }

    /// Which rows of a batch still count; none: all.
    fn counting_of(&mut self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let mut counting = self.counting(batch.num_rows())?;
        if self.without_deleted {
            let deleted = batch.column_by_name(DELETED_COLUMN).and_then(|it| it.as_boolean_opt().cloned());
            let deleted = deleted.ok_or(DAMAGED)?;
            if deleted.has_true() {
                let all =
                    counting.unwrap_or_else(|| BooleanArray::new(all_set(batch.num_rows()).finish(), None));
                counting = Some(and_not(&all, &deleted)?);
            }
        }
        Ok(counting)
    }
}

fn all_set(rows: usize) -> BooleanBufferBuilder {
    let mut mask = BooleanBufferBuilder::new(rows);
    mask.append_n(rows, true);
    mask
}

impl Iterator for FileBatches {
    /// A batch, and which of its rows still count; none: all of them.
    type Item = Result<(RecordBatch, Option<BooleanArray>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        let counted = |batch: RecordBatch| self.counting_of(&batch).map(|counting| (batch, counting));
        Some(batch.map_err(Error::from).and_then(counted))
    }
}
