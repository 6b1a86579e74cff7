//! Rows for which a live query fails: which ones they are, and what its subscriber is told of them.
//!
//! A row for which the condition or a selected expression fails is not in the result, like a row that does not match. Rows are
//! evaluated together. Where that fails they are halved until each row that fails is alone. *Invariant*: only an error of
//! evaluation belongs to a row; any other error is the caller's.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use log_format::Seq;

use crate::error::{Error, ErrorCode, Result};
use crate::live::query::LiveQuery;
use crate::table::SystemColumn;

/// Bytes of a message at the most: errors quote the values that they are about.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Rows that left a result, or did not get into it, because the query fails for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFailure {
    /// The code of the last row's error.
    pub code: ErrorCode,
    /// The last row's error.
    pub message: String,
    /// The number of rows.
    pub rows: u64,
}

/// Counts rows that fail, and keeps the error of the last one.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    rows: u64,
    last: Option<Error>,
}

impl Failures {
    /// Adds rows that fail.
    pub(crate) fn add(&mut self, rows: u64, error: Option<Error>) {
        self.rows += rows;
        self.last = error.or(self.last.take());
    }

    /// Adds the rows of a batch that fail.
    pub(crate) fn add_judged(&mut self, judged: Judged) {
        self.add(judged.failed.len() as u64, judged.error);
    }

    /// Adds the rows of a table's batch that fail and were written after a seq: those before it were told of.
    pub(crate) fn add_written_after(&mut self, since: Seq, batch: &RecordBatch, judged: Judged) {
        let seqs = batch.column_by_name(SystemColumn::Seq.name());
        let seqs = seqs.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let is_after = |row: &&u32| {
            let seq = seqs.and_then(|seqs| seqs.values().get(**row as usize));
            seq.is_none_or(|seq| seq.cast_unsigned() > since.get())
        };
        let rows = judged.failed.iter().filter(is_after).count() as u64;
        self.add(rows, judged.error.filter(|_| rows > 0));
    }

    /// Adds failures that come after these.
    pub(crate) fn extend(&mut self, later: Self) {
        self.add(later.rows, later.last);
    }

    /// Describes the failures for a subscriber; none where no row failed.
    pub(crate) fn described(&self) -> Option<RowFailure> {
        let last = self.last.as_ref().filter(|_| self.rows > 0)?;
        metrics::counter!("kalamdb_live_row_failures_total").increment(self.rows);
        Some(RowFailure { code: last.code(), message: shortened(last.to_string()), rows: self.rows })
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}

/// The rows of a batch that are in a result, and those that fail.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// The rows that match and do not fail, in order.
    pub(crate) rows: Vec<u32>,
    /// The rows that fail, in order.
    pub(crate) failed: Vec<u32>,
    /// The error of the last row that fails.
    pub(crate) error: Option<Error>,
}

/// Evaluates the condition on a batch and `compute` on the rows that match, with each row that fails left out. Of no rows `compute`
/// must not fail.
///
/// # Errors
/// An error of evaluation where the batch has more than `rows_max` rows, and any other error.
pub(crate) fn sift<T>(
    query: &LiveQuery,
    batch: &RecordBatch,
    rows_max: usize,
    compute: impl Fn(&RecordBatch, &[u32]) -> Result<T>,
) -> Result<(T, Judged)> {
    if batch.num_rows() == 0 {
        return Ok((compute(batch, &[])?, Judged::default()));
    }
    let at_once = query.matching_rows(batch).and_then(|rows| Ok((compute(batch, &rows)?, rows)));
    match at_once {
        Ok((computed, rows)) => Ok((computed, Judged { rows, ..Judged::default() })),
        Err(Error::Query(_)) if batch.num_rows() <= rows_max => {
            let judged = judge(query, batch, &|part, rows| compute(part, rows).map(drop))?;
            Ok((compute(batch, &judged.rows)?, judged))
        }
        Err(error) => Err(error),
    }
}

/// Finds the rows of a batch for which the condition or `compute` fails.
///
/// # Errors
/// Any error but one of evaluation.
pub(crate) fn judge(
    query: &LiveQuery,
    batch: &RecordBatch,
    compute: &dyn Fn(&RecordBatch, &[u32]) -> Result<()>,
) -> Result<Judged> {
    let mut judged = Judged::default();
    let count = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
    judge_part(query, batch, (0, count), compute, &mut judged)?;
    Ok(judged)
}

/// Judges `count` rows from the row `first` on.
fn judge_part(
    query: &LiveQuery,
    batch: &RecordBatch,
    (first, count): (u32, u32),
    compute: &dyn Fn(&RecordBatch, &[u32]) -> Result<()>,
    judged: &mut Judged,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let part = batch.slice(first as usize, count as usize);
    match query.matching_rows(&part).and_then(|rows| compute(&part, &rows).map(|()| rows)) {
        Ok(rows) => judged.rows.extend(rows.into_iter().map(|row| first + row)),
        Err(error @ Error::Query(_)) if count <= 1 => {
            judged.failed.push(first);
            judged.error = Some(error);
        }
        Err(Error::Query(_)) => {
            let half = count / 2;
            judge_part(query, batch, (first, half), compute, judged)?;
            judge_part(query, batch, (first + half, count - half), compute, judged)?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("é".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with("é…")), (513, true));
        assert_eq!(shortened(format!("x{}", "é".repeat(1000))).len(), 1023 + "…".len());
    }
}
