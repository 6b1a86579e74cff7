//! Frames of a commit in which the query fails for some rows.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;

use super::{ChangeBatches, ChangeFrame, ChangeKind, ChangePayload, Matches};
use crate::error::Result;
use crate::live::failure::{Failures, Judged, RowFailure, judge};
use crate::live::query::LiveQuery;
use log_format::Seq;

impl ChangeFrame {
    /// A frame about rows that fail, which is no part of the chain.
    pub(crate) fn of_failure(
        failure: RowFailure,
        (prev_seq, seq, commit_time): (Seq, Seq, i64),
        more: bool,
    ) -> Self {
        let mut payload = ChangePayload::new(ChangeKind::Failure, seq, commit_time, None, None);
        payload.failure = Some(failure);
        Self { payload: Arc::new(payload), prev_seq, more }
    }
}

impl ChangeBatches {
    /// Frames of the one commit there is, its rows judged one by one: a row that fails is out of the result.
    ///
    /// One frame tells of all rows that fail. It comes after the last of them has left the result, and has the seq of that change,
    /// so that the frames of a commit stay in the order of their seqs.
    pub(super) fn frames_row_by_row(&mut self, query: &LiveQuery, prev_seq: Seq) -> Result<Vec<ChangeFrame>> {
        let select = |batch: &RecordBatch, rows: &[u32]| query.projection.project(batch, rows).map(drop);
        let judged = |batch: &Option<RecordBatch>| {
            batch.as_ref().map_or_else(|| Ok(Judged::default()), |batch| judge(query, batch, &select))
        };
        let (new, old) = (judged(&self.new)?, judged(&self.old)?);
        if let Some(error) = old.error.filter(|_| query.selects_of_system) {
            // Whether the row was in the result cannot be told.
            return Err(error);
        }
        let matches = Matches { new: self.mask(&new.rows, true), old: self.mask(&old.rows, false) };
        let last = new.failed.last().and_then(|failed| {
            (0_u32..).zip(&self.places).find(|(_, (in_new, _))| in_new.as_ref() == Some(failed))
        });
        let last = last.map(|(change, _)| change);
        let runs = self.runs(&matches, last);
        let before = last.map(|last| {
            runs.iter().take_while(|run| run.changes.first().is_some_and(|first| *first <= last)).count()
        });
        let mut frames = self.chained(query, prev_seq, runs)?;
        let mut failures = Failures::default();
        failures.add_judged(new);
        if let (Some(failure), Some(at)) = (failures.described(), before) {
            let seq = last.and_then(|last| self.seqs.get(last as usize)).copied().unwrap_or_default();
            let chain = at.checked_sub(1).and_then(|at| frames.get(at)).map_or(prev_seq, |it| it.payload.seq);
            let more = at < frames.len();
            frames.insert(at, ChangeFrame::of_failure(failure, (chain, seq, self.commit_time()), more));
        }
        Ok(frames)
    }

    /// Marks these rows among all rows after the changes, or before them.
    fn mask(&self, rows: &[u32], is_new: bool) -> Vec<bool> {
        let batch = if is_new { &self.new } else { &self.old };
        let mut mask = vec![false; batch.as_ref().map_or(0, RecordBatch::num_rows)];
        for row in rows {
            if let Some(is_in) = mask.get_mut(*row as usize) {
                *is_in = true;
            }
        }
        mask
    }
}
