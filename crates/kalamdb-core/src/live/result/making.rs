//! A result as of now, from the table; and as of then, with what the log says came since.

use std::collections::HashSet;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use futures_util::TryStreamExt;
use log_format::{Frame, PartitionHash, Seq};

use super::aggregate::{AggregatePlan, Groups};
use super::top::{self, Placed, TopPlan, TopRows};
use super::{BYTES_MAX, Contents, Identity, ResultPlan, Shown, apply_to_groups, picked, too_large};
use crate::error::{Error, Result, from_query};
use crate::live::change::{ChangeBatches, changes_by_partition, ends_with};
use crate::live::failure::{Failures, sift};
use crate::live::query::LiveQuery;
use crate::live::router::Router;
use crate::live::subscription::{READ_BYTES, seek};
use crate::queries;
use crate::sql::LivePlan;

/// Rows whose past is looked up, at the most.
const PAST_ROWS_MAX: usize = 1 << 16;

/// A result as of a cut.
#[derive(Debug)]
pub(crate) struct Made {
    pub(super) contents: Contents,
    pub(super) shown: Shown,
    /// What is shown, in order, as bytes.
    rows: Vec<Vec<u8>>,
    /// What was shown at the seq that was asked for.
    pub(crate) then: Option<Shown>,
    /// The rows of the table that fail, of those that were written after the seq from which they are to be told.
    pub(crate) failures: Failures,
}

/// A way of reading the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// By a plan of the whole query, which ends at the first row that fails.
    Planned,
    /// All rows, each judged.
    RowByRow,
}

/// A result that is to be computed, and all that it is computed from.
struct Request<'a> {
    router: &'a Router,
    plan: &'a LivePlan,
    query: &'a LiveQuery,
    reading: Reading,
    /// The seq as of which the result is asked for, too.
    from: Option<Seq>,
    /// Rows that were written up to here and fail were told of.
    told: Seq,
}

impl Made {
    /// The rows in order, with the cut's seq: what came before it is all in them, also what left no row behind.
    pub(crate) fn rows(&self, plan: &ResultPlan, cut_seq: Seq) -> Result<RecordBatch> {
        plan.output().decode_change(&self.rows, Some(cut_seq))
    }
}

/// Makes a result as of the plan's cut, and what was shown at `from`, where that is asked. Of rows that fail it has those that were
/// written after `told`.
pub(crate) async fn make(
    router: &Router,
    plan: &LivePlan,
    query: &LiveQuery,
    result: &ResultPlan,
    (from, told): (Option<Seq>, Seq),
) -> Result<Made> {
    let since = from.filter(|from| *from < plan.cut_seq);
    let request = Request { router, plan, query, reading: Reading::Planned, from: since, told };
    let mut made = match make_by(&request, result).await {
        Err(Error::Query(_)) => make_by(&Request { reading: Reading::RowByRow, ..request }, result).await?,
        made => made?,
    };
    if made.shown.values().map(Vec::len).sum::<usize>() > BYTES_MAX {
        return Err(too_large());
    }
    if from.is_some() && since.is_none() {
        made.then = Some(made.shown.clone());
    }
    Ok(made)
}

async fn make_by(request: &Request<'_>, result: &ResultPlan) -> Result<Made> {
    match result {
        ResultPlan::Top(top) => make_top(request, top).await,
        ResultPlan::Aggregate(aggregate) => make_groups(request, aggregate).await,
    }
}

/// Rows that were changed after a seq, as they were then.
#[derive(Default)]
struct PastRows {
    changed: HashSet<Identity>,
    then: Vec<Placed>,
    /// Bytes of memory, about.
    bytes: usize,
}

impl PastRows {
    fn add(&mut self, plan: &TopPlan, query: &LiveQuery, changes: &ChangeBatches) -> Result<()> {
        let (new, old) =
            (top::identities(plan, changes.new_rows())?, top::identities(plan, changes.old_rows())?);
        let mut first = Vec::new();
        for (in_new, in_old) in changes.places() {
            let identity = super::nth(&old, *in_old).or_else(|| super::nth(&new, *in_new));
            let is_first = identity.is_some_and(|identity| self.changed.insert(identity.clone()));
            self.bytes += identity.filter(|_| is_first).map_or(0, |identity| identity.len());
            first.extend(in_old.filter(|_| is_first));
        }
        if let Some(old) = changes.old_rows().filter(|_| !first.is_empty()) {
            let place = |batch: &RecordBatch, rows: &[u32]| Placed::of(plan, &query.projection, batch, rows);
            let (placed, _) = sift(query, &picked(old, &first)?, usize::MAX, place)?;
            self.bytes += placed.bytes();
            self.then.push(placed);
        }
        Ok(())
    }
}

async fn make_top(request: &Request<'_>, top: &TopPlan) -> Result<Made> {
    let Request { plan, query, from, .. } = *request;
    let mut past = PastRows::default();
    if let Some(from) = from {
        let visit = |changes: &ChangeBatches| {
            past.add(top, query, changes)?;
            let is_too_much = top.has_no_past || past.changed.len() > PAST_ROWS_MAX || past.bytes > BYTES_MAX;
            if is_too_much { Err(too_far_back(from, plan.cut_seq)) } else { Ok(()) }
        };
        read_past(request, from, visit).await?;
    }
    let mut failures = Failures::default();
    let mut rows = read_top(request, top, past.changed.len(), &mut failures).await?;
    let then = from.map(|_| {
        let mut then = rows.clone();
        for identity in &past.changed {
            then.remove(identity);
        }
        for placed in past.then {
            then.insert(placed);
        }
        then.shown(top)
    });
    rows.settle(top, 0)?;
    rows.take_changed();
    let (shown, in_order) = (rows.shown(top), rows.rows(top));
    Ok(Made { contents: Contents::Top(rows), shown, rows: in_order, then, failures })
}

/// Reads the first rows of an order, and so many to spare.
async fn read_top(
    request: &Request<'_>,
    top: &TopPlan,
    spare: usize,
    failures: &mut Failures,
) -> Result<TopRows> {
    let kept = top.kept(spare);
    let select = match request.reading {
        Reading::Planned => LogicalPlanBuilder::from(matching_plan(&request.plan.select)?)
            .sort(top.sort.iter().cloned())
            .and_then(|rows| rows.limit(0, Some(kept)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(from_query)?,
        Reading::RowByRow => table_plan(&request.plan.select)?,
    };
    let place = |batch: &RecordBatch, rows: &[u32]| Placed::of(top, &request.query.projection, batch, rows);
    let mut rows = TopRows::default();
    let mut count = 0;
    let mut stream = queries::stream(&request.plan.state, &select).await?;
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        let placed = match request.reading {
            Reading::Planned => place(&batch, &all_of(&batch))?,
            Reading::RowByRow => {
                let (placed, judged) = sift(request.query, &batch, usize::MAX, place)?;
                failures.add_written_after(request.told, &batch, judged);
                placed
            }
        };
        rows.insert(placed);
        rows.settle(top, spare)?;
        count += batch.num_rows();
    }
    if request.reading == Reading::Planned && count >= kept {
        rows.end_here();
    }
    Ok(rows)
}

async fn make_groups(request: &Request<'_>, aggregate: &AggregatePlan) -> Result<Made> {
    let Request { plan, query, from, .. } = *request;
    // What came since is taken out of the groups of then before it is in them: they may be of less than nothing for a while.
    let (mut now, mut then, mut spare) = (Groups::new(aggregate), Groups::new(aggregate), 0);
    if let Some(from) = from {
        let visit = |changes: &ChangeBatches| {
            spare += changes.places().len();
            let applied = apply_to_groups(&mut then, aggregate, (query, usize::MAX), changes, -1)
                .and_then(|_| then.trim(spare).map(drop));
            match applied {
                Ok(()) if !aggregate.keeps_values() || spare <= PAST_ROWS_MAX => Ok(()),
                Ok(()) | Err(Error::TooLarge { .. }) => Err(too_far_back(from, plan.cut_seq)),
                Err(error) => Err(error),
            }
        };
        read_past(request, from, visit).await?;
    }
    let mut failures = Failures::default();
    let select = match request.reading {
        Reading::Planned => needed_only(matching_plan(&plan.select)?, &aggregate.needed)?,
        Reading::RowByRow => table_plan(&plan.select)?,
    };
    let evaluate = |batch: &RecordBatch, rows: &[u32]| aggregate.evaluate(&picked(batch, rows)?);
    let mut stream = queries::stream(&plan.state, &select).await?;
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        let rows = match request.reading {
            Reading::Planned => aggregate.evaluate(&batch)?,
            Reading::RowByRow => {
                let (rows, judged) = sift(query, &batch, usize::MAX, evaluate)?;
                failures.add_written_after(request.told, &batch, judged);
                rows
            }
        };
        now.apply(aggregate, &rows, 1)?;
        now.trim(0)?;
        if from.is_some() {
            then.apply(aggregate, &rows, 1)?;
            then.trim(spare)?;
        }
    }
    let then = match from {
        Some(_) => {
            then.settle(aggregate);
            Some(then.shown(aggregate, &query.projection, &mut Failures::default())?)
        }
        None => None,
    };
    now.settle(aggregate);
    let shown = now.shown(aggregate, &query.projection, &mut failures)?;
    let rows = shown.values().cloned().collect();
    Ok(Made { contents: Contents::Groups(now), shown, rows, then, failures })
}

fn all_of(batch: &RecordBatch) -> Vec<u32> {
    (0_u32..).take(batch.num_rows()).collect()
}

/// The rows that match, with all columns of the table: what the query selects from.
fn matching_plan(select: &LogicalPlan) -> Result<LogicalPlan> {
    super::compile::shape_of(select).map(|shape| shape.input.clone())
}

/// Plans all rows of the table, with all of its columns: also those that do not match.
pub(crate) fn table_plan(select: &LogicalPlan) -> Result<LogicalPlan> {
    let matching = matching_plan(select)?;
    Ok(match matching {
        LogicalPlan::Filter(filter) => filter.input.as_ref().clone(),
        unfiltered => unfiltered,
    })
}

/// The same, with NULL in every column but those that are needed, so that no file is read for it.
fn needed_only(input: LogicalPlan, needed: &[usize]) -> Result<LogicalPlan> {
    let columns = input.schema().iter().enumerate().map(|(at, (qualifier, field))| {
        if needed.contains(&at) {
            return Ok(Expr::Column(Column::from((qualifier, field))));
        }
        Ok(lit(ScalarValue::try_from(field.data_type())?).alias(field.name()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(input).project(columns).and_then(LogicalPlanBuilder::build).map_err(from_query)
}

/// Visits what came after a seq, up to the plan's cut, commit by commit. Lets others go on in between.
async fn read_past(
    &Request { router, plan, query, .. }: &Request<'_>,
    from: Seq,
    mut visit: impl FnMut(&ChangeBatches) -> Result<()>,
) -> Result<()> {
    let mut reader = router.log_reader();
    seek(&mut reader, from)?;
    reader.only([PartitionHash::of(&query.partition), PartitionHash::CATALOG]);
    let mut visit_commit = |commit: &Frame| -> Result<()> {
        if let Some(error) = ends_with(commit, query.partition.table, from)? {
            return Err(error);
        }
        for (_, changes) in changes_by_partition(commit, |partition| *partition == query.partition)? {
            let changes = ChangeBatches::new(&query.info, &changes.after(from))?;
            // Where the condition fails for some rows, others may match.
            let may_match =
                |batch: &RecordBatch| query.matching_rows(batch).map_or(true, |it| !it.is_empty());
            if [changes.new_rows(), changes.old_rows()].into_iter().flatten().any(may_match) {
                visit(&changes)?;
            }
        }
        Ok(())
    };
    let mut bytes = 0;
    while let Some(commit) = reader.next()?.filter(|commit| commit.last_seq() <= plan.cut_seq) {
        visit_commit(&commit)?;
        bytes += commit.as_bytes().len();
        if bytes > READ_BYTES {
            bytes = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// What was shown at `from` cannot be told.
fn too_far_back(from: Seq, now: Seq) -> Error {
    Error::ResyncRequired { from, floor: now, end: now }
}
