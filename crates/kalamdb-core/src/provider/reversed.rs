//! The rows of both tiers from the greatest key down.
//!
//! Both tiers are read upwards, so this goes from the end of the range in pieces: each begins at a key from which on there are
//! a few rows, is read upwards, and turned round.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::physical_plan::metrics::Count;
use kalamdb_store::KeyRange;

use crate::error::Result;
use crate::provider::merged::MergedBatches;
use crate::provider::scan::Asked;

/// Rows of a piece at the most, …
const PIECE_ROWS_MAX: usize = 8192;
/// … and at the least.
const PIECE_ROWS_MIN: usize = 64;

/// The batches of such a scan.
pub(super) struct ReversedBatches {
    asked: Arc<Asked>,
    /// What is left of the range.
    left: Option<KeyRange>,
    /// Rows of the next piece.
    rows: usize,
    ready: VecDeque<RecordBatch>,
    hot_rows: Count,
}

impl ReversedBatches {
    /// For one who takes about so many rows.
    pub(super) fn new(asked: Arc<Asked>, range: KeyRange, fetch: usize, hot_rows: Count) -> Self {
        let rows = fetch.clamp(PIECE_ROWS_MIN, PIECE_ROWS_MAX);
        Self { asked, left: Some(range), rows, ready: VecDeque::new(), hot_rows }
    }

    /// Reads the last piece of what is left.
    fn read(&mut self, left: KeyRange) -> Result<()> {
        let Asked { view, info, partition, .. } = self.asked.as_ref();
        let from = view.key_before_end(info.keyspace(), partition, &left, self.rows)?;
        let piece = KeyRange { from: from.clone().or_else(|| left.from.clone()), until: left.until };
        self.left = from.map(|from| KeyRange { from: left.from, until: Some(from) });
        self.rows = (self.rows * 2).min(PIECE_ROWS_MAX);
        let batches = MergedBatches::of_range(Arc::clone(&self.asked), piece, self.hot_rows.clone())
            .collect::<Result<Vec<_>>>()?;
        let all = concat_batches(self.asked.shape.schema(), &batches)?;
        let downwards: UInt32Array = (0..u32::try_from(all.num_rows()).unwrap_or(u32::MAX)).rev().collect();
        if all.num_rows() > 0 {
            self.ready.push_back(take_record_batch(&all, &downwards)?);
        }
        Ok(())
    }
}

impl Iterator for ReversedBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(batch));
            }
            let left = self.left.take()?;
            if let Err(error) = self.read(left) {
                self.left = None;
                return Some(Err(error));
            }
        }
    }
}
