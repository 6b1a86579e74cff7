//! The rows that a subscription without a maintained result begins with.
//!
//! A plan reads them. Where it fails, all rows of the table are read in its place, and those for which the query fails are left
//! out. Whether it fails is known before the first row is sent: a query that may fail is run once to count its rows, and where they
//! are few they are kept.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::TryStreamExt;

use super::Snapshot;
use crate::error::{Error, Result, from_query};
use crate::live::failure::{Failures, Judged, sift};
use crate::live::projection::Projections;
use crate::live::query::LiveQuery;
use crate::live::result::table_plan;
use crate::queries;
use crate::sql::LivePlan;
use crate::table::SystemColumn;

/// Bytes of rows that are kept from counting them.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Takes the snapshot of a query that gives the rows themselves, with `last_rows` the newest ones only.
pub(super) async fn take(
    plan: &LivePlan,
    query: &LiveQuery,
    projections: &Projections,
    last_rows: Option<u32>,
) -> Result<Snapshot> {
    match take_planned(plan, query, last_rows).await {
        Err(Error::Query(_)) if last_rows != Some(0) => {
            take_row_by_row(plan, query, projections, last_rows).await
        }
        taken => taken,
    }
}

async fn take_planned(plan: &LivePlan, query: &LiveQuery, last_rows: Option<u32>) -> Result<Snapshot> {
    let rows = plan.rows(last_rows)?;
    let (total_rows, stream) = if query.may_fail() {
        count_and_keep(queries::stream(&plan.state, &rows).await?).await?
    } else {
        (count(queries::stream(&plan.state, &plan.count(last_rows)?).await?).await?, None)
    };
    let stream = match stream {
        Some(stream) => stream,
        None => queries::stream(&plan.state, &rows).await?,
    };
    Ok(Snapshot { seq: plan.cut_seq, total_rows, stream, is_result: false, failure: None })
}

async fn count(mut stream: SendableRecordBatchStream) -> Result<u64> {
    let mut total = 0;
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        total += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    Ok(u64::try_from(total).unwrap_or(0))
}

/// Counts rows, and keeps them where they are few.
async fn count_and_keep(
    mut stream: SendableRecordBatchStream,
) -> Result<(u64, Option<SendableRecordBatchStream>)> {
    let schema = stream.schema();
    let (mut total, mut bytes, mut kept) = (0, 0_usize, Vec::new());
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        total += batch.num_rows() as u64;
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        if bytes <= KEPT_BYTES_MAX {
            kept.push(batch);
        } else {
            kept.clear();
        }
    }
    if bytes > KEPT_BYTES_MAX {
        return Ok((total, None));
    }
    let stream = MemoryStream::try_new(kept, schema, None).map_err(from_query)?;
    Ok((total, Some(Box::pin(stream))))
}

async fn take_row_by_row(
    plan: &LivePlan,
    query: &LiveQuery,
    projections: &Projections,
    last_rows: Option<u32>,
) -> Result<Snapshot> {
    let Tally { rows: total_rows, oldest, failures } = tally(plan, query, last_rows).await?;
    let rows = by_seq(plan, true, oldest)?;
    let rows = queries::stream(&plan.state, &rows).await?;
    // It outlives the subscriber's own.
    let own = plan.compile(projections)?;
    let schema = Arc::clone(own.projection.schema());
    let selected = rows.map_err(from_query).and_then(move |batch| {
        let selected = selected(&own, &batch).map(|(selected, _)| selected);
        std::future::ready(selected)
    });
    let selected = selected.map_err(|error| DataFusionError::External(Box::new(error)));
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, selected));
    let failure = failures.described();
    Ok(Snapshot { seq: plan.cut_seq, total_rows, stream, is_result: false, failure })
}

fn selected(query: &LiveQuery, batch: &RecordBatch) -> Result<(RecordBatch, Judged)> {
    sift(query, batch, usize::MAX, |batch, rows| query.projection.project(batch, rows))
}

/// All rows of the table from a seq on, in the order of their seqs.
fn by_seq(plan: &LivePlan, is_ascending: bool, oldest: Option<i64>) -> Result<LogicalPlan> {
    let seq = || col(SystemColumn::Seq.name());
    let mut rows = LogicalPlanBuilder::from(table_plan(&plan.select)?);
    if let Some(oldest) = oldest {
        rows = rows.filter(seq().gt_eq(lit(oldest))).map_err(from_query)?;
    }
    rows.sort([seq().sort(is_ascending, false)]).and_then(LogicalPlanBuilder::build).map_err(from_query)
}

/// A count of the rows that a snapshot has, and of those that it leaves out.
#[derive(Default)]
struct Tally {
    rows: u64,
    /// The seq of the oldest row, where it has the newest rows only.
    oldest: Option<i64>,
    failures: Failures,
}

async fn tally(plan: &LivePlan, query: &LiveQuery, last_rows: Option<u32>) -> Result<Tally> {
    let rows = match last_rows {
        Some(_) => by_seq(plan, false, None)?,
        None => table_plan(&plan.select)?,
    };
    let mut tally = Tally::default();
    let mut stream = queries::stream(&plan.state, &rows).await?;
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        let (_, mut judged) = selected(query, &batch)?;
        let room = last_rows.map(|last_rows| u64::from(last_rows).saturating_sub(tally.rows));
        let last =
            room.and_then(|room| judged.rows.get(usize::try_from(room).ok()?.checked_sub(1)?)).copied();
        if let (Some(last), Some(room)) = (last, room) {
            judged.failed.retain(|row| *row < last);
            judged.error = judged.error.filter(|_| !judged.failed.is_empty());
            tally.rows += room;
            tally.failures.add_judged(judged);
            let seqs = batch.column_by_name(SystemColumn::Seq.name());
            let seqs = seqs.and_then(|column| column.as_primitive_opt::<Int64Type>());
            tally.oldest = seqs.and_then(|seqs| seqs.values().get(last as usize)).copied();
            break;
        }
        tally.rows += judged.rows.len() as u64;
        tally.failures.add_judged(judged);
    }
    Ok(tally)
}
