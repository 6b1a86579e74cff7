//! Live queries whose result is not just rows of the table: `ORDER BY … LIMIT n`, and aggregates.
//!
//! Each keeps what it needs to go on from commit to commit ([`LiveResult`]): the first rows of the order and some to spare, or the
//! groups. What it keeps is as of the subscriber's cursor, always. Where that is not enough to say what the result is now (too
//! many of the first rows went), it is made anew from the table, as of now, and the subscriber goes on from there.
//!
//! A result of the past, for one who resumes, is the result of now without what the log says came since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{cast, take_record_batch};
use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::arrow::row::{RowConverter, SortField};
use log_format::Seq;

use crate::error::{Error, Result};
use crate::live::change::{ChangeBatches, ChangeFrame, ChangeKind, ChangePayload, chain_end, rows_per_frame};
use crate::live::failure::{Failures, sift};
use crate::live::projection::Projection;
use crate::live::query::LiveQuery;
use crate::table::SystemColumn;

mod accumulator;
mod aggregate;
mod compile;
mod making;
#[cfg(test)]
mod tests;
mod top;
mod window;

pub(crate) use aggregate::AggregatePlan;
pub(crate) use compile::{computes_from_system_column, filter_of, result_plan, shape_error, shape_of};
pub(crate) use making::{Made, make, table_plan};
pub(crate) use top::TopPlan;

use aggregate::Groups;
use top::{Placed, TopRows};

/// Bytes that one live query keeps, at the most.
const BYTES_MAX: usize = 16 << 20;

/// What makes a row of a result the same row as before: its primary key, or what its group is of.
pub(crate) type Identity = Box<[u8]>;

/// What a subscriber has: rows as bytes.
pub(crate) type Shown = BTreeMap<Identity, Vec<u8>>;

/// How a result follows from the rows that match.
#[derive(Debug)]
pub(crate) enum ResultPlan {
    Top(TopPlan),
    Aggregate(AggregatePlan),
}

impl ResultPlan {
    const fn output(&self) -> &Output {
        match self {
            Self::Top(plan) => &plan.output,
            Self::Aggregate(plan) => &plan.output,
        }
    }
}

#[derive(Debug)]
enum Contents {
    Top(TopRows),
    Groups(Groups),
}

/// The result of one subscriber's live query.
#[derive(Debug)]
pub(crate) struct LiveResult {
    /// None: to be made anew.
    contents: Option<Contents>,
    shown: Shown,
    shown_bytes: usize,
    /// What was not taken when there was no room.
    undelivered: Vec<ChangeFrame>,
}

/// A result, as its subscription and the router share it. Locked after the subscriber's position.
pub(crate) type SharedResult = Arc<Mutex<LiveResult>>;

/// Where a change stands among those of its subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The seq of the frame before.
    pub(crate) prev_seq: Seq,
    pub(crate) seq: Seq,
    pub(crate) commit_time: i64,
}

/// Rows of a result that are not what they were.
#[derive(Debug, Default)]
struct Difference {
    gone: Vec<Vec<u8>>,
    changed: Vec<(Vec<u8>, Vec<u8>)>,
    new: Vec<Vec<u8>>,
}

fn too_large() -> Error {
    Error::TooLarge {
        what: "what a live query has to keep",
        limit: BYTES_MAX,
        hint: "ask for fewer columns or rows, or add a narrower WHERE",
    }
}

/// Rows of a result as bytes, and back.
#[derive(Debug)]
pub(crate) struct Output {
    converter: RowConverter,
    schema: SchemaRef,
}

impl Output {
    /// Of rows that a projection makes.
    fn new(projection: &Projection) -> Result<Self> {
        let schema = Arc::clone(projection.nullable());
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Self { converter: RowConverter::new(fields.collect())?, schema })
    }

    fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns = rows.columns().iter().zip(self.schema.fields());
        let columns =
            columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<Vec<_>, _>>()?;
        Ok(self.converter.convert_columns(&columns)?.iter().map(|row| row.as_ref().to_vec()).collect())
    }

    fn decode(&self, rows: &[Vec<u8>]) -> Result<RecordBatch> {
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Rows of a change, `_seq` its seq.
    fn decode_change(&self, rows: &[Vec<u8>], seq: Option<Seq>) -> Result<RecordBatch> {
        let batch = self.decode(rows)?;
        let is_seq = |field: &FieldRef| field.name() == SystemColumn::Seq.name();
        let columns = self.schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            if !is_seq(field) {
                return Ok(Arc::clone(column));
            }
            let seqs = vec![seq.map(|seq| seq.get().cast_signed()); rows.len()];
            cast(&Int64Array::from(seqs), column.data_type())
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

impl LiveResult {
    /// What it shows is what its subscriber has.
    pub(crate) fn new(made: Made) -> Self {
        let shown_bytes = made.shown.values().map(Vec::len).sum();
        Self { contents: Some(made.contents), shown: made.shown, shown_bytes, undelivered: Vec::new() }
    }

    /// Of a subscriber that has what was shown at a seq; with the frames that bring it up to now.
    pub(crate) fn resumed(plan: &ResultPlan, made: Made, moment: Moment) -> Result<Self> {
        let mut result =
            Self { contents: None, shown: Shown::new(), shown_bytes: 0, undelivered: Vec::new() };
        result.undelivered = result.replace(plan, made, moment)?;
        Ok(result)
    }

    pub(crate) fn shared(self) -> SharedResult {
        Arc::new(Mutex::new(self))
    }

    pub(crate) fn locked(this: &SharedResult) -> MutexGuard<'_, Self> {
        this.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it must be made anew before it can go on.
    pub(crate) const fn is_unknown(&self) -> bool {
        self.contents.is_none()
    }

    /// The seq at the end of the chain of what its subscriber has yet to be given.
    pub(crate) fn undelivered_end(&self) -> Option<Seq> {
        chain_end(&self.undelivered)
    }

    /// Keeps frames for which there was no room.
    pub(crate) fn put_back(&mut self, frames: Vec<ChangeFrame>) {
        self.undelivered = frames;
    }

    /// What was put back.
    pub(crate) fn take_undelivered(&mut self) -> Vec<ChangeFrame> {
        std::mem::take(&mut self.undelivered)
    }

    /// Goes on by one commit. None where it cannot: it is to be made anew, and has shown nothing of the commit. Where more rows than
    /// `judged_max` are to be judged one by one, that is an error of evaluation.
    pub(crate) fn go_on(
        &mut self,
        query: &LiveQuery,
        plan: &ResultPlan,
        changes: &ChangeBatches,
        (prev_seq, judged_max): (Seq, usize),
    ) -> Result<Option<Vec<ChangeFrame>>> {
        // Whatever stops it half way leaves nothing that is half done.
        let Some(mut contents) = self.contents.take() else { return Ok(None) };
        let mut failures = Failures::default();
        let difference = match (&mut contents, plan) {
            (Contents::Top(rows), ResultPlan::Top(plan)) => {
                apply_to_top(rows, plan, (query, judged_max), changes, &mut failures)?;
                if !rows.settle(plan, 0)? {
                    return Ok(None);
                }
                if rows.take_changed() { self.shown_now(rows.shown(plan)) } else { Difference::default() }
            }
            (Contents::Groups(groups), ResultPlan::Aggregate(plan)) => {
                failures.extend(apply_to_groups(groups, plan, (query, judged_max), changes, 1)?);
                groups.settle(plan);
                if !groups.trim(0)? {
                    return Ok(None);
                }
                let now = groups.take_changed(plan, &query.projection, &mut failures)?;
                self.difference(now)
            }
            _ => return Ok(None),
        };
        // Of one that shows too much this is the last change: when it is made anew, it is refused.
        self.contents = Some(contents).filter(|_| self.shown_bytes <= BYTES_MAX);
        let seq = changes.last_seq();
        let moment = Moment { prev_seq, seq, commit_time: changes.commit_time() };
        frames(plan.output(), difference, &failures, moment).map(Some)
    }

    /// Takes what was made anew, and tells how it differs from what was shown: if it was asked what that was, from that.
    pub(crate) fn replace(
        &mut self,
        plan: &ResultPlan,
        made: Made,
        moment: Moment,
    ) -> Result<Vec<ChangeFrame>> {
        self.contents = Some(made.contents);
        if let Some(then) = made.then {
            self.shown_bytes = then.values().map(Vec::len).sum();
            self.shown = then;
        }
        let difference = self.shown_now(made.shown);
        frames(plan.output(), difference, &made.failures, moment)
    }

    fn shown_now(&mut self, shown: Shown) -> Difference {
        let gone: Vec<_> = self.shown.keys().filter(|it| !shown.contains_key(*it)).cloned().collect();
        let gone = gone.into_iter().map(|identity| (identity, None));
        self.difference(gone.chain(shown.into_iter().map(|(identity, row)| (identity, Some(row)))))
    }

    /// Takes what is shown of some rows from now on.
    fn difference(&mut self, now: impl IntoIterator<Item = (Identity, Option<Vec<u8>>)>) -> Difference {
        let mut found = Difference::default();
        for (identity, now) in now {
            let before = self.shown.remove(&identity);
            self.shown_bytes -= before.as_ref().map_or(0, Vec::len);
            self.shown_bytes += now.as_ref().map_or(0, Vec::len);
            match (before, now) {
                (None, None) => {}
                (Some(before), None) => found.gone.push(before),
                (before, Some(now)) => {
                    match before {
                        None => found.new.push(now.clone()),
                        Some(before) if before != now => found.changed.push((before, now.clone())),
                        Some(_) => {}
                    }
                    self.shown.insert(identity, now);
                }
            }
        }
        found
    }
}

fn apply_to_top(
    rows: &mut TopRows,
    plan: &TopPlan,
    (query, judged_max): (&LiveQuery, usize),
    changes: &ChangeBatches,
    failures: &mut Failures,
) -> Result<()> {
    let (new, old) = (top::identities(plan, changes.new_rows())?, top::identities(plan, changes.old_rows())?);
    // Of a row that a commit changes more than once the last state counts.
    let mut last: BTreeMap<&Identity, Option<u32>> = BTreeMap::new();
    for (in_new, in_old) in changes.places() {
        if let Some(identity) = nth(&new, *in_new).or_else(|| nth(&old, *in_old)) {
            last.insert(identity, *in_new);
        }
    }
    for identity in last.keys() {
        rows.remove(identity);
    }
    if let Some(batch) = changes.new_rows() {
        let mut last: Vec<u32> = last.into_values().flatten().collect();
        last.sort_unstable();
        let batch = picked(batch, &last)?;
        let place = |batch: &RecordBatch, rows: &[u32]| Placed::of(plan, &query.projection, batch, rows);
        let (placed, judged) = sift(query, &batch, judged_max, place)?;
        failures.add_judged(judged);
        rows.insert(placed);
    }
    Ok(())
}

/// Takes rows of a batch.
fn picked(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    if rows.len() == batch.num_rows() {
        return Ok(batch.clone());
    }
    Ok(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?)
}

/// Adds what a commit adds to the rows and takes out what it takes (weight 1), or the other way round (weight -1). A row that fails
/// counts for nothing, neither when it comes nor when it goes. Gives those that fail from now on.
fn apply_to_groups(
    groups: &mut Groups,
    plan: &AggregatePlan,
    (query, judged_max): (&LiveQuery, usize),
    changes: &ChangeBatches,
    weight: i64,
) -> Result<Failures> {
    let mut failures = Failures::default();
    let evaluate = |batch: &RecordBatch, rows: &[u32]| plan.evaluate(&picked(batch, rows)?);
    if let Some(old) = changes.old_rows() {
        let (evaluated, _) = sift(query, old, judged_max, evaluate)?;
        groups.apply(plan, &evaluated, -weight)?;
    }
    if let Some(new) = changes.new_rows() {
        let (evaluated, judged) = sift(query, new, judged_max, evaluate)?;
        groups.apply(plan, &evaluated, weight)?;
        failures.add_judged(judged);
    }
    Ok(failures)
}

fn nth(identities: &[Identity], at: Option<u32>) -> Option<&Identity> {
    identities.get(at? as usize)
}

/// A change of a result as frames.
///
/// All of them but the last say `more`, have the seq of the frame before and `_seq` NULL: who is cut off between them resumes before
/// the whole of it. What fails is told behind the last of them.
fn frames(
    output: &Output,
    difference: Difference,
    failures: &Failures,
    moment: Moment,
) -> Result<Vec<ChangeFrame>> {
    let Difference { gone, changed, new } = difference;
    let (before, after): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
    let none: &[Vec<u8>] = &[];
    let per_frame = |rows: &[Vec<u8>]| rows_per_frame(rows.iter().map(Vec::len).sum(), rows.len());
    let gone = gone.chunks(per_frame(&gone)).map(|gone| (ChangeKind::Delete, none, gone));
    let per_update = per_frame(&after).min(per_frame(&before));
    let updates = after.chunks(per_update).zip(before.chunks(per_update));
    let updates = updates.map(|(after, before)| (ChangeKind::Update, after, before));
    let new = new.chunks(per_frame(&new)).map(|new| (ChangeKind::Insert, new, none));
    let parts: Vec<_> = gone.chain(updates).chain(new).collect();
    let count = parts.len();
    let frame = |(index, (kind, rows, old_rows))| {
        let more = index + 1 < count;
        let row_seq = (!more).then_some(moment.seq);
        let decode =
            |rows: &[Vec<u8>]| (!rows.is_empty()).then(|| output.decode_change(rows, row_seq)).transpose();
        let seq = if more { moment.prev_seq } else { moment.seq };
        let payload = ChangePayload::new(kind, seq, moment.commit_time, decode(rows)?, decode(old_rows)?);
        Ok(ChangeFrame { payload: Arc::new(payload), prev_seq: moment.prev_seq, more })
    };
    let mut frames: Vec<_> = parts.into_iter().enumerate().map(frame).collect::<Result<_>>()?;
    if let Some(failure) = failures.described() {
        let prev_seq = if frames.is_empty() { moment.prev_seq } else { moment.seq };
        frames.push(ChangeFrame::of_failure(failure, (prev_seq, moment.seq, moment.commit_time), false));
    }
    Ok(frames)
}
