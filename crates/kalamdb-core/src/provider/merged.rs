//! The rows of both tiers in the order of their keys, put into batches one by one.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::physical_plan::metrics::Count;
use kalamdb_store::{FirstError, KeyRange, StoredRow};

use crate::error::Result;
use crate::provider::access::Access;
use crate::provider::scan::Asked;
use crate::rows::{BatchBuilder, RowHead, Shape};
use crate::table::TableInfo;

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;
/// Batches that one scan fills at the most, …
const BATCHES_MAX: usize = 32;
/// Rows that are read at first for one who takes a few.
const STEP_ROWS_MIN: usize = 64;
/// … and bytes of rows.
const BYTES_MAX: usize = 32 << 20;

/// The batches of a scan, a few read at a time when one is asked for.
///
/// IMPORTANT: not one by one. A scan that is taken up again passes over what it finds deleted once more, and where rows have just
/// been flushed that is all of them.
pub(super) struct MergedBatches {
    asked: Arc<Asked>,
    next: Option<Access>,
    /// Rows that may still come.
    room: usize,
    /// Rows that are read at a time at the most.
    step: usize,
    ready: VecDeque<RecordBatch>,
    /// Counts the rows, all of which are hot where this is told of.
    hot_rows: Count,
}

impl Iterator for MergedBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.ready.pop_front() {
            return Some(Ok(batch));
        }
        if self.room == 0 {
            return None;
        }
        let access = self.next.take()?;
        if let Err(error) = self.read(access) {
            self.next = None;
            self.ready.clear();
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}

impl MergedBatches {
    pub(super) fn new(asked: Arc<Asked>, hot_rows: Count) -> Self {
        let (next, room) = (Some(asked.access.clone()), asked.limit.unwrap_or(usize::MAX));
        Self { asked, next, room, step: usize::MAX, ready: VecDeque::new(), hot_rows }
    }

    /// Of a range, whatever was asked for.
    pub(super) fn of_range(asked: Arc<Asked>, range: KeyRange, hot_rows: Count) -> Self {
        Self { next: Some(Access::Range(range)), room: usize::MAX, ..Self::new(asked, hot_rows) }
    }

    /// For one who takes about so many rows: few are read at first, then more and more.
    pub(super) const fn by_steps(mut self, fetch: usize) -> Self {
        self.step = if fetch < STEP_ROWS_MIN { STEP_ROWS_MIN } else { fetch };
        self
    }

    fn read(&mut self, access: Access) -> Result<()> {
        let Asked { view, info, partition, shape, cold, with_deleted, .. } = self.asked.as_ref();
        let (keyspace, until) = (info.keyspace(), access.until());
        let mut reading = Reading::new(info, shape, self.room.min(self.step), access.expected());
        self.step = self.step.saturating_mul(2);
        let mut add = |row: StoredRow<'_>| -> Result<ControlFlow<()>> {
            if !row.deleted || *with_deleted {
                let head = RowHead { seq: row.seq, updated: row.updated, deleted: row.deleted };
                reading.push(head, row.row)?;
            }
            Ok(reading.flow())
        };
        match access {
            Access::Points(points) => {
                for key in points {
                    view.get(keyspace, partition, &key, &mut add)?.transpose()?;
                }
            }
            Access::Range(range) => {
                let mut failure = FirstError::none();
                let visit = |_: &[u8], row: StoredRow<'_>| failure.or_stop(add(row));
                let scanned = view.scan(keyspace, partition, &range, cold.scan(), visit)?;
                failure.check()?;
                self.next = scanned.rest(until).map(Access::Range);
            }
        }
        let (batches, rows) = reading.finish()?;
        self.hot_rows.add(rows);
        self.room -= rows.min(self.room);
        self.ready = batches;
        Ok(())
    }
}

/// Batches that are being filled.
pub(super) struct Reading<'t> {
    info: &'t TableInfo,
    shape: &'t Shape,
    builder: BatchBuilder<'t>,
    batches: VecDeque<RecordBatch>,
    rows: usize,
    rows_max: usize,
    bytes: usize,
}

impl<'t> Reading<'t> {
    pub(super) fn new(info: &'t TableInfo, shape: &'t Shape, room: usize, expected: usize) -> Self {
        let rows_max = room.min(BATCH_ROWS * BATCHES_MAX);
        let builder = BatchBuilder::new(info, shape, expected.min(rows_max).min(BATCH_ROWS));
        Self { info, shape, builder, batches: VecDeque::new(), rows: 0, rows_max, bytes: 0 }
    }

    pub(super) fn push(&mut self, head: RowHead, row: &[u8]) -> Result<()> {
        if self.builder.rows() == BATCH_ROWS {
            let next = BatchBuilder::new(self.info, self.shape, BATCH_ROWS);
            self.batches.push_back(std::mem::replace(&mut self.builder, next).finish()?);
        }
        self.rows += 1;
        self.bytes += row.len();
        self.builder.push(head, row)
    }

    /// Whether there is room for more.
    pub(super) const fn flow(&self) -> ControlFlow<()> {
        if self.rows >= self.rows_max || self.bytes >= BYTES_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub(super) fn finish(mut self) -> Result<(VecDeque<RecordBatch>, usize)> {
        // One at least: it says that nothing was found.
        self.batches.push_back(self.builder.finish()?);
        Ok((self.batches, self.rows))
    }
}
