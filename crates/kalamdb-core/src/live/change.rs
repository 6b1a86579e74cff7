//! What one commit changes for one live query.

mod row_by_row;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::{FieldRef, Schema};
use log_format::{ArchivedChangeEvent as Event, ArchivedPartition, Frame, Partition, Seq, TableId};

use crate::error::{Error, Result};
use crate::live::failure::RowFailure;
use crate::live::query::LiveQuery;
use crate::rows::{BatchBuilder, RowHead};
use crate::table::{SystemColumn, TableInfo};

/// Rows in one frame at the most.
const FRAME_ROWS_MAX: usize = 1000;
/// About how many bytes of rows go into one frame; one row goes into it in any case.
const FRAME_BYTES: usize = 512 << 10;

/// How many of so many rows, which take so many bytes together, go into one frame.
pub(crate) fn rows_per_frame(bytes: usize, rows: usize) -> usize {
    let of_row = bytes.checked_div(rows).unwrap_or(0).max(1);
    (FRAME_BYTES / of_row).clamp(1, FRAME_ROWS_MAX)
}

/// What happened to rows, as a live query sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// They match now and did not before.
    Insert,
    /// They matched before and do now.
    Update,
    /// They matched before and do not now.
    Delete,
    /// The query fails for them: they are not in the result. No part of the chain.
    Failure,
}

impl ChangeKind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Failure => "error",
        }
    }
}

/// The part of a change that is the same for everyone who selects the same columns.
#[derive(Debug)]
pub struct ChangePayload {
    /// What happened.
    pub kind: ChangeKind,
    /// The seq of the last row's change.
    pub seq: Seq,
    /// When it was committed, microseconds since 1970.
    pub commit_time: i64,
    /// The rows after; none for deletes. `_seq` is each row's own change.
    pub rows: Option<RecordBatch>,
    /// The rows before; none for inserts. `_seq` is the change here too.
    pub old_rows: Option<RecordBatch>,
    /// The error, where the rows fail.
    pub failure: Option<RowFailure>,
    /// What the wire made of it, once per encoding, shared by every connection.
    encoded: [OnceLock<Bytes>; 2],
}

impl ChangePayload {
    pub(crate) const fn new(
        kind: ChangeKind,
        seq: Seq,
        commit_time: i64,
        rows: Option<RecordBatch>,
        old_rows: Option<RecordBatch>,
    ) -> Self {
        Self {
            kind,
            seq,
            commit_time,
            rows,
            old_rows,
            failure: None,
            encoded: [const { OnceLock::new() }; 2],
        }
    }

    /// The payload in the wire's encoding number `slot` (0 or 1), made by whoever needs it first.
    pub fn encoded(&self, slot: usize, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        match self.encoded.get(slot) {
            Some(cell) => cell.get_or_init(|| encode(self)).clone(),
            None => encode(self),
        }
    }
}

/// A change on its way to one subscriber.
#[derive(Clone, Debug)]
pub struct ChangeFrame {
    /// What happened.
    pub payload: Arc<ChangePayload>,
    /// The seq of the frame before it on this subscription.
    pub prev_seq: Seq,
    /// Whether further frames of the same commit follow.
    pub more: bool,
}

impl ChangeFrame {
    /// How many rows changed.
    pub fn rows(&self) -> u64 {
        let rows = self.payload.rows.as_ref().or(self.payload.old_rows.as_ref());
        rows.map_or(0, |rows| rows.num_rows() as u64)
    }

    /// Bytes that it keeps in memory, at the most: others may share them.
    pub fn bytes(&self) -> usize {
        let of = |batch: &Option<RecordBatch>| batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        of(&self.payload.rows).saturating_add(of(&self.payload.old_rows))
    }
}

/// The seq of the last frame that is part of the chain.
pub(crate) fn chain_end(frames: &[ChangeFrame]) -> Option<Seq> {
    frames.iter().rev().find(|frame| frame.payload.kind != ChangeKind::Failure).map(|frame| frame.payload.seq)
}

/// Frames that are one change, whole or not at all: but for the last, they have the seq of the frame before and rows without one, so
/// that who is cut off between them resumes before all of it. What fails is told after it, with its seq.
pub(crate) fn as_one(frames: &mut Vec<ChangeFrame>, prev_seq: Seq) -> Result<()> {
    let failures = frames.extract_if(.., |frame| frame.payload.kind == ChangeKind::Failure);
    let failures: Vec<ChangeFrame> = failures.collect();
    if let Some((last, others)) = frames.split_last_mut() {
        last.prev_seq = prev_seq;
        last.more = false;
        for frame in others {
            *frame = not_the_last(frame, prev_seq)?;
        }
    }
    let told = frames.last().map(|last| last.payload.seq);
    for failed in failures {
        let Some(failure) = failed.payload.failure.clone() else { continue };
        let seq = told.unwrap_or_default().max(failed.payload.seq);
        let moment = (told.unwrap_or(prev_seq), seq, failed.payload.commit_time);
        frames.push(ChangeFrame::of_failure(failure, moment, false));
    }
    Ok(())
}

/// A frame of a change that is whole or not at all, which is not the last of it; see [`as_one`].
pub(crate) fn not_the_last(frame: &ChangeFrame, prev_seq: Seq) -> Result<ChangeFrame> {
    let ChangePayload { kind, commit_time, rows, old_rows, .. } = frame.payload.as_ref();
    let untold = |batch: &Option<RecordBatch>| batch.as_ref().map(without_seq).transpose();
    let payload = ChangePayload::new(*kind, prev_seq, *commit_time, untold(rows)?, untold(old_rows)?);
    Ok(ChangeFrame { payload: Arc::new(payload), prev_seq, more: true })
}

/// The rows, NULL in the place of each one's `_seq`: there is nothing to resume from.
///
/// # Errors
/// Where memory does not hold them.
pub fn without_seq(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let is_seq = |field: &FieldRef| field.name() == SystemColumn::Seq.name();
    let fields = schema.fields().iter().map(|field| {
        if is_seq(field) { Arc::new(field.as_ref().clone().with_nullable(true)) } else { Arc::clone(field) }
    });
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if is_seq(field) { new_null_array(column.data_type(), column.len()) } else { Arc::clone(column) }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok(RecordBatch::try_new_with_options(schema, columns.collect(), &options)?)
}

/// One row's change, as the log tells it.
#[derive(Clone, Copy)]
struct RowChange<'f> {
    seq: Seq,
    /// What it is the same row by; none where each is another one.
    key: Option<&'f [u8]>,
    old: Option<&'f [u8]>,
    new: Option<&'f [u8]>,
}

/// Why a subscription to a table, which has seen everything up to `cursor`, ends with a commit, if it does: what the log
/// does not tell row by row, nobody can follow.
pub(crate) fn ends_with(commit: &Frame, table: TableId, cursor: Seq) -> Result<Option<Error>> {
    for (seq, event) in commit.events() {
        match event? {
            Event::TableDropped(event) if event.table.to_id() == table => {
                return Ok(Some(Error::TableDropped));
            }
            Event::TableTruncated(event) if event.table.to_id() == table && seq > cursor => {
                return Ok(Some(Error::ResyncRequired { from: cursor, floor: seq, end: commit.last_seq() }));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What one commit does to one partition.
pub(crate) struct PartitionChanges<'f> {
    commit_time: i64,
    changes: Vec<RowChange<'f>>,
}

/// What a commit does, by partition, for those that `wanted` says somebody listens to.
pub(crate) fn changes_by_partition<'f>(
    frame: &'f Frame,
    wanted: impl Fn(&Partition) -> bool,
) -> Result<Vec<(Partition, PartitionChanges<'f>)>> {
    let commit_time = frame.header().fields.commit_time;
    let mut found: Vec<(Partition, PartitionChanges<'f>)> = Vec::new();
    let mut last: Option<(&'f ArchivedPartition, Option<usize>)> = None;
    for (seq, event) in frame.events() {
        let event = event?;
        let Some(archived) = event.partition() else { continue };
        let change = match event {
            Event::RowInserted(event) => {
                RowChange { seq, key: Some(&event.key), old: None, new: Some(&event.row) }
            }
            Event::RowUpdated(event) => {
                RowChange { seq, key: Some(&event.key), old: Some(&event.old), new: Some(&event.new) }
            }
            Event::RowDeleted(event) => {
                RowChange { seq, key: Some(&event.key), old: Some(&event.old), new: None }
            }
            Event::StreamAppended(event) => RowChange { seq, key: None, old: None, new: Some(&event.row) },
            // Stream rows go silently.
            _ => continue,
        };
        // Most commits write one partition: look it up once.
        let same = last.filter(|(partition, _)| same_partition(partition, archived));
        let at = same.map_or_else(
            || {
                let partition = archived.to_partition();
                if !wanted(&partition) {
                    return None;
                }
                Some(found.iter().position(|(known, _)| *known == partition).unwrap_or_else(|| {
                    found.push((partition, PartitionChanges { commit_time, changes: Vec::new() }));
                    found.len() - 1
                }))
            },
            |(_, at)| at,
        );
        last = Some((archived, at));
        if let Some((_, changes)) = at.and_then(|at| found.get_mut(at)) {
            changes.changes.push(change);
        }
    }
    Ok(found)
}

/// The rows that a commit appended to a STREAM table's partition, of these seqs.
pub(crate) fn appended<'f>(
    commit: &'f Frame,
    partition: &Partition,
    seqs: &Range<Seq>,
) -> Result<Vec<&'f [u8]>> {
    let mut found: Vec<&[u8]> = Vec::new();
    for (seq, event) in commit.events() {
        if let Event::StreamAppended(event) = event?
            && seqs.contains(&seq)
            && event.partition.to_partition() == *partition
        {
            found.push(&event.row);
        }
    }
    Ok(found)
}

fn same_partition(left: &ArchivedPartition, right: &ArchivedPartition) -> bool {
    left.table.to_id() == right.table.to_id() && left.owner() == right.owner()
}

impl<'f> PartitionChanges<'f> {
    /// Rows that came to be with these seqs.
    pub(crate) fn of_rows(commit_time: i64, rows: &'f [(Seq, Vec<u8>)]) -> Self {
        let change =
            |(seq, row): &'f (Seq, Vec<u8>)| RowChange { seq: *seq, key: None, old: None, new: Some(row) };
        Self { commit_time, changes: rows.iter().map(change).collect() }
    }

    /// Rows that went with an event.
    pub(crate) fn of_gone(commit_time: i64, seq: Seq, rows: &[&'f [u8]]) -> Self {
        let change = |row: &&'f [u8]| RowChange { seq, key: None, old: Some(row), new: None };
        Self { commit_time, changes: rows.iter().map(change).collect() }
    }

    /// Every row before or after a change.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'f [u8]> + '_ {
        self.changes.iter().flat_map(|change| [change.old, change.new].into_iter().flatten())
    }

    /// What came of several commits' changes, one after another: of each row its last change, from what it was before the first.
    pub(crate) fn coalesced(commits: Vec<Self>) -> Self {
        let commit_time = commits.last().map_or(0, |last| last.commit_time);
        let mut changes: Vec<Option<RowChange<'f>>> = Vec::new();
        let mut of_key: HashMap<&'f [u8], usize> = HashMap::new();
        for change in commits.into_iter().flat_map(|commit| commit.changes) {
            let known = change.key.and_then(|key| of_key.insert(key, changes.len()));
            let before = known.and_then(|at| changes.get_mut(at)?.take());
            let old = before.map_or(change.old, |before| before.old);
            changes.push(Some(RowChange { old, ..change }));
        }
        // Of a row that came and went there is nothing to tell.
        let is_there = |change: &RowChange<'_>| change.old.is_some() || change.new.is_some();
        Self { commit_time, changes: changes.into_iter().flatten().filter(is_there).collect() }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes after a seq: a subscriber may resume in the middle of a commit.
    pub(crate) fn after(mut self, seq: Seq) -> Self {
        self.changes.retain(|change| change.seq > seq);
        self
    }
}

/// The number of a projection, and of which changes.
type PayloadKey = (u64, ChangeKind, Vec<u32>);

/// The rows of one partition's changes in Arrow, made once for all live queries that may match.
pub(crate) struct ChangeBatches {
    /// When each commit was made, and where in `places` its changes end. There is at least one.
    commits: Vec<(i64, usize)>,
    seqs: Vec<Seq>,
    /// By change: its row in `new`, in `old`.
    places: Vec<(Option<u32>, Option<u32>)>,
    new: Option<RecordBatch>,
    old: Option<RecordBatch>,
    /// How many of them go into one frame: found once for all who get them.
    rows_per_frame: usize,
    /// Payloads that others may share.
    made: HashMap<PayloadKey, Arc<ChangePayload>>,
}

/// Marks of the rows that are in the result, after the changes and before them.
struct Matches {
    new: Vec<bool>,
    old: Vec<bool>,
}

/// Changes of one kind, of one commit, that go into one frame: which commit, and which they are.
struct Run {
    commit: usize,
    kind: ChangeKind,
    changes: Vec<u32>,
}

impl ChangeBatches {
    pub(crate) fn new(info: &TableInfo, changes: &PartitionChanges<'_>) -> Result<Self> {
        Self::of_commits(info, std::slice::from_ref(changes))
    }

    /// The same of several commits, one after another: what there is to do once for each is done once for all of them.
    pub(crate) fn of_commits<'t>(info: &'t TableInfo, commits: &[PartitionChanges<'_>]) -> Result<Self> {
        let (mut new, mut old) = (None, None);
        let count = commits.iter().map(PartitionChanges::len).sum();
        let (mut places, mut seqs) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut ends = Vec::with_capacity(commits.len());
        for commit in commits {
            for change in &commit.changes {
                let head = RowHead { seq: change.seq, updated: commit.commit_time, deleted: false };
                let add = |builder: &mut Option<BatchBuilder<'t>>, row: Option<&[u8]>| -> Result<_> {
                    let Some(row) = row else { return Ok(None) };
                    let builder = builder.get_or_insert_with(|| BatchBuilder::new(info, info.shape(), count));
                    builder.push(head, row)?;
                    Ok(u32::try_from(builder.rows() - 1).ok())
                };
                places.push((add(&mut new, change.new)?, add(&mut old, change.old)?));
                seqs.push(change.seq);
            }
            ends.push((commit.commit_time, places.len()));
        }
        let finish = |builder: Option<BatchBuilder<'_>>| builder.map(|mut rows| rows.finish()).transpose();
        let (new, old) = (finish(new)?, finish(old)?);
        let rows_per_frame = rows_per_frame(memory_of([&new, &old]), count);
        Ok(Self { commits: ends, seqs, places, new, old, rows_per_frame, made: HashMap::new() })
    }

    /// When the last of it was committed.
    pub(crate) fn commit_time(&self) -> i64 {
        self.commits.last().map_or(0, |(commit_time, _)| *commit_time)
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> usize {
        memory_of([&self.new, &self.old])
    }

    /// The seq of the last change.
    pub(crate) fn last_seq(&self) -> Seq {
        self.seqs.last().copied().unwrap_or_default()
    }

    /// By change, in order: its row in [`Self::new_rows`], in [`Self::old_rows`].
    pub(crate) fn places(&self) -> &[(Option<u32>, Option<u32>)] {
        &self.places
    }

    /// The rows after, all columns of the table's.
    pub(crate) const fn new_rows(&self) -> Option<&RecordBatch> {
        self.new.as_ref()
    }

    /// The rows before. Of their system columns nothing is known.
    pub(crate) const fn old_rows(&self) -> Option<&RecordBatch> {
        self.old.as_ref()
    }

    /// The frames this makes for a live query whose last frame had the seq `prev_seq`.
    ///
    /// # Errors
    /// An error of evaluation where there is more than one commit, or more than `judged_max` changes; and any other error.
    pub(crate) fn frames(
        &mut self,
        query: &LiveQuery,
        prev_seq: Seq,
        judged_max: usize,
    ) -> Result<Vec<ChangeFrame>> {
        match self.frames_at_once(query, prev_seq) {
            Err(Error::Query(_)) if self.commits.len() == 1 && self.places.len() <= judged_max => {
                self.frames_row_by_row(query, prev_seq)
            }
            found => found,
        }
    }

    fn frames_at_once(&mut self, query: &LiveQuery, prev_seq: Seq) -> Result<Vec<ChangeFrame>> {
        let matches = |batch: &Option<RecordBatch>| {
            batch.as_ref().map_or(Ok(Vec::new()), |batch| query.matching(batch))
        };
        let matches = Matches { new: matches(&self.new)?, old: matches(&self.old)? };
        let runs = self.runs(&matches, None);
        self.chained(query, prev_seq, runs)
    }

    /// The frames of runs, each with the seq of the one before.
    fn chained(&mut self, query: &LiveQuery, prev_seq: Seq, runs: Vec<Run>) -> Result<Vec<ChangeFrame>> {
        let commit_of: Vec<usize> = runs.iter().map(|run| run.commit).collect();
        // One commit's are shared with others; of several commits there is nobody else who would get the same.
        let payloads = match self.commits.as_slice() {
            [_] => runs.into_iter().map(|run| self.payload(query, run)).collect::<Result<Vec<_>>>()?,
            _ => self.payloads(query, &runs)?,
        };
        let mut prev_seq = prev_seq;
        let frames = payloads.into_iter().enumerate().map(|(at, payload)| {
            let more = commit_of.get(at) == commit_of.get(at + 1);
            let seq = payload.seq;
            ChangeFrame { payload, prev_seq: std::mem::replace(&mut prev_seq, seq), more }
        });
        Ok(frames.collect())
    }

    /// Cuts what matches into frames; none of them has changes both up to `cut_after` and behind it.
    fn runs(&self, matches: &Matches, cut_after: Option<u32>) -> Vec<Run> {
        let is_cut = |run: &Run, index: u32| {
            cut_after.is_some_and(|cut| index > cut && run.changes.last().is_some_and(|last| *last <= cut))
        };
        let is = |mask: &[bool], row: Option<u32>| {
            row.and_then(|row| mask.get(row as usize)).copied().unwrap_or_default()
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut changes = (0_u32..).zip(&self.places);
        let mut begin = 0;
        for (commit, (_, end)) in self.commits.iter().enumerate() {
            for (index, (new, old)) in changes.by_ref().take(end - begin) {
                let kind = match (is(&matches.old, *old), is(&matches.new, *new)) {
                    (false, true) => ChangeKind::Insert,
                    (true, true) => ChangeKind::Update,
                    (true, false) => ChangeKind::Delete,
                    (false, false) => continue,
                };
                match runs.last_mut() {
                    Some(run)
                        if run.commit == commit
                            && run.kind == kind
                            && !is_cut(run, index)
                            && run.changes.len() < self.rows_per_frame =>
                    {
                        run.changes.push(index);
                    }
                    _ => runs.push(Run { commit, kind, changes: vec![index] }),
                }
            }
            begin = *end;
        }
        runs
    }

    /// The rows after and before of some changes.
    fn rows_of(&self, changes: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let places = changes.iter().filter_map(|index| self.places.get(*index as usize));
        let (new, old): (Vec<_>, Vec<_>) = places.copied().unzip();
        (new.into_iter().flatten().collect(), old.into_iter().flatten().collect())
    }

    /// The payloads of frames of several commits: what is selected is computed once, each has a slice of it.
    fn payloads(&self, query: &LiveQuery, runs: &[Run]) -> Result<Vec<Arc<ChangePayload>>> {
        let (mut all_new, mut all_old) = (Vec::new(), Vec::new());
        let mut parts = Vec::with_capacity(runs.len());
        for run in runs {
            let (new, old) = self.rows_of(&run.changes);
            let of_new = (run.kind != ChangeKind::Delete).then_some((all_new.len(), new.len()));
            let of_old = (run.kind != ChangeKind::Insert).then_some((all_old.len(), old.len()));
            all_new.extend(of_new.map(|_| new).unwrap_or_default());
            all_old.extend(of_old.map(|_| old).unwrap_or_default());
            parts.push((of_new, of_old));
        }
        let project = |batch: &Option<RecordBatch>, rows: &[u32]| {
            let batch = batch.as_ref().filter(|_| !rows.is_empty());
            batch.map(|batch| query.projection.project(batch, rows)).transpose()
        };
        let (new, old) = (project(&self.new, &all_new)?, project(&self.old, &all_old)?);
        let slice = |batch: &Option<RecordBatch>, part: Option<(usize, usize)>| {
            part.zip(batch.as_ref()).map(|((offset, length), batch)| batch.slice(offset, length))
        };
        let payloads = runs.iter().zip(parts).map(|(run, (of_new, of_old))| {
            Arc::new(self.payload_of(run, slice(&new, of_new), slice(&old, of_old)))
        });
        Ok(payloads.collect())
    }

    fn payload_of(
        &self,
        run: &Run,
        rows: Option<RecordBatch>,
        old_rows: Option<RecordBatch>,
    ) -> ChangePayload {
        let last = run.changes.last().and_then(|index| self.seqs.get(*index as usize));
        let commit_time = self.commits.get(run.commit).map_or(0, |(commit_time, _)| *commit_time);
        ChangePayload::new(run.kind, last.copied().unwrap_or_default(), commit_time, rows, old_rows)
    }

    /// The payload of a frame, which others may have made already.
    fn payload(&mut self, query: &LiveQuery, run: Run) -> Result<Arc<ChangePayload>> {
        let key = (query.projection.number(), run.kind, run.changes);
        if let Some(made) = self.made.get(&key) {
            return Ok(Arc::clone(made));
        }
        let run = Run { changes: key.2, ..run };
        let (new, old) = self.rows_of(&run.changes);
        let pick = |batch: &Option<RecordBatch>, rows: &[u32]| {
            batch.as_ref().map(|batch| query.projection.project(batch, rows)).transpose()
        };
        let rows = if run.kind == ChangeKind::Delete { None } else { pick(&self.new, &new)? };
        let old_rows = if run.kind == ChangeKind::Insert { None } else { pick(&self.old, &old)? };
        let payload = Arc::new(self.payload_of(&run, rows, old_rows));
        self.made.insert((key.0, key.1, run.changes), Arc::clone(&payload));
        Ok(payload)
    }
}

fn memory_of(batches: [&Option<RecordBatch>; 2]) -> usize {
    batches.into_iter().flatten().map(RecordBatch::get_array_memory_size).sum()
}
