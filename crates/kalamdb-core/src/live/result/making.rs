//! A result as of now, from the table; and as of then, with what the log says came since.

use std::collections::HashSet;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use futures_util::TryStreamExt;
use log_format::{Frame, PartitionHash, Seq};

use super::aggregate::{AggregatePlan, Groups};
use super::top::{self, Placed, TopPlan, TopRows};
use super::{BYTES_MAX, Contents, Identity, ResultPlan, Shown, apply_to_groups, matching_rows, too_large};
use crate::error::{Error, Result, from_query};
use crate::live::change::{ChangeBatches, changes_by_partition, ends_with};
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
}

impl Made {
    /// The rows in order, with the cut's seq: what came before it is all in them, also what left no row behind.
    pub(crate) fn rows(&self, plan: &ResultPlan, cut_seq: Seq) -> Result<RecordBatch> {
        plan.output().decode_change(&self.rows, Some(cut_seq))
    }
}

/// Makes a result as of the plan's cut, and what was shown at `from`, where that is asked.
pub(crate) async fn make(
    router: &Router,
    plan: &LivePlan,
    query: &LiveQuery,
    result: &ResultPlan,
    from: Option<Seq>,
) -> Result<Made> {
    let since = from.filter(|from| *from < plan.cut_seq);
    let mut made = match result {
        ResultPlan::Top(top) => make_top(router, plan, query, top, since).await?,
        ResultPlan::Aggregate(aggregate) => make_groups(router, plan, query, aggregate, since).await?,
    };
    if made.shown.values().map(Vec::len).sum::<usize>() > BYTES_MAX {
        return Err(too_large());
    }
    if from.is_some() && since.is_none() {
        made.then = Some(made.shown.clone());
    }
    Ok(made)
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
        let matching = changes.old_rows().map_or_else(|| Ok(Vec::new()), |old| query.matching(old))?;
        let mut first = Vec::new();
        for (in_new, in_old) in changes.places() {
            let identity = super::nth(&old, *in_old).or_else(|| super::nth(&new, *in_new));
            let is_first = identity.is_some_and(|identity| self.changed.insert(identity.clone()));
            self.bytes += identity.filter(|_| is_first).map_or(0, |identity| identity.len());
            let matched = |row: &u32| matching.get(*row as usize) == Some(&true);
            first.extend(in_old.filter(|row| is_first && matched(row)));
        }
        if let Some(old) = changes.old_rows().filter(|_| !first.is_empty()) {
            let placed = Placed::of(plan, &query.projection, old, &first)?;
            self.bytes += placed.bytes();
            self.then.push(placed);
        }
        Ok(())
    }
}

async fn make_top(
    router: &Router,
    plan: &LivePlan,
    query: &LiveQuery,
    top: &TopPlan,
    from: Option<Seq>,
) -> Result<Made> {
    let mut past = PastRows::default();
    if let Some(from) = from {
        let visit = |changes: &ChangeBatches| {
            past.add(top, query, changes)?;
            let is_too_much = top.has_no_past || past.changed.len() > PAST_ROWS_MAX || past.bytes > BYTES_MAX;
            if is_too_much { Err(too_far_back(from, plan.cut_seq)) } else { Ok(()) }
        };
        read_past(router, plan, query, from, visit).await?;
    }
    let kept = top.kept(past.changed.len());
    let select = LogicalPlanBuilder::from(matching_plan(&plan.select)?)
        .sort(top.sort.iter().cloned())
        .and_then(|rows| rows.limit(0, Some(kept)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(from_query)?;
    let mut rows = TopRows::default();
    let mut count = 0;
    let mut stream = queries::stream(&plan.state, &select).await?;
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        let all: Vec<u32> = (0_u32..).take(batch.num_rows()).collect();
        rows.insert(Placed::of(top, &query.projection, &batch, &all)?);
        rows.settle(top, past.changed.len())?;
        count += batch.num_rows();
    }
    if count >= kept {
        rows.end_here();
    }
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
    Ok(Made { contents: Contents::Top(rows), shown, rows: in_order, then })
}

async fn make_groups(
    router: &Router,
    plan: &LivePlan,
    query: &LiveQuery,
    aggregate: &AggregatePlan,
    from: Option<Seq>,
) -> Result<Made> {
    // What came since is taken out of the groups of then before it is in them: they may be of less than nothing for a while.
    let (mut now, mut then, mut spare) = (Groups::new(aggregate), Groups::new(aggregate), 0);
    if let Some(from) = from {
        let visit = |changes: &ChangeBatches| {
            spare += changes.places().len();
            let applied = apply_to_groups(&mut then, aggregate, query, changes, -1)
                .and_then(|()| then.trim(spare).map(drop));
            match applied {
                Ok(()) if !aggregate.keeps_values() || spare <= PAST_ROWS_MAX => Ok(()),
                Ok(()) | Err(Error::TooLarge { .. }) => Err(too_far_back(from, plan.cut_seq)),
                Err(error) => Err(error),
            }
        };
        read_past(router, plan, query, from, visit).await?;
    }
    let select = matching_plan(&plan.select)?;
    let select = needed_only(select, &aggregate.needed)?;
    let mut stream = queries::stream(&plan.state, &select).await?;
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        let all: Vec<u32> = (0_u32..).take(batch.num_rows()).collect();
        now.apply(aggregate, &batch, &all, 1)?;
        now.trim(0)?;
        if from.is_some() {
            then.apply(aggregate, &batch, &all, 1)?;
            then.trim(spare)?;
        }
    }
    let then = match from {
        Some(_) => {
            then.settle(aggregate);
            Some(then.shown(aggregate, &query.projection)?)
        }
        None => None,
    };
    now.settle(aggregate);
    let shown = now.shown(aggregate, &query.projection)?;
    let rows = shown.values().cloned().collect();
    Ok(Made { contents: Contents::Groups(now), shown, rows, then })
}

/// The rows that match, with all columns of the table: what the query selects from.
fn matching_plan(select: &LogicalPlan) -> Result<LogicalPlan> {
    super::compile::shape_of(select).map(|shape| shape.input.clone())
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
    router: &Router,
    plan: &LivePlan,
    query: &LiveQuery,
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
            let of = |batch: Option<&RecordBatch>| -> Result<bool> {
                Ok(batch
                    .map(|batch| matching_rows(query, batch))
                    .transpose()?
                    .is_some_and(|it| !it.is_empty()))
            };
            if of(changes.new_rows())? || of(changes.old_rows())? {
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
