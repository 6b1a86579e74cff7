//! What one commit changes for one live query.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::{FieldRef, Schema};
use log_format::{ArchivedChangeEvent as Event, ArchivedPartition, Frame, Partition, Seq, TableId};

use crate::error::{Error, Result};
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
}

impl ChangeKind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
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
        Self { kind, seq, commit_time, rows, old_rows, encoded: [const { OnceLock::new() }; 2] }
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

/// Frames that are one change, whole or not at all: but for the last, they have the seq of the frame before and rows without one, so
/// that who is cut off between them resumes before all of it.
pub(crate) fn as_one(frames: &mut [ChangeFrame], prev_seq: Seq) -> Result<()> {
    let Some((last, others)) = frames.split_last_mut() else { return Ok(()) };
    last.prev_seq = prev_seq;
    for frame in others {
        *frame = not_the_last(frame, prev_seq)?;
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
    commit_time: i64,
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

impl ChangeBatches {
    pub(crate) fn new<'t>(info: &'t TableInfo, changes: &PartitionChanges<'_>) -> Result<Self> {
        let (mut new, mut old) = (None, None);
        let mut places = Vec::with_capacity(changes.changes.len());
        for change in &changes.changes {
            let head = RowHead { seq: change.seq, updated: changes.commit_time, deleted: false };
            let add = |builder: &mut Option<BatchBuilder<'t>>, row: Option<&[u8]>| -> Result<_> {
                let Some(row) = row else { return Ok(None) };
                let builder = match builder {
                    Some(builder) => builder,
                    None => builder.insert(BatchBuilder::new(info, info.shape(), changes.changes.len())),
                };
                builder.push(head, row)?;
                Ok(u32::try_from(builder.rows() - 1).ok())
            };
            places.push((add(&mut new, change.new)?, add(&mut old, change.old)?));
        }
        let finish = |builder: Option<BatchBuilder<'_>>| builder.map(|mut rows| rows.finish()).transpose();
        let (new, old) = (finish(new)?, finish(old)?);
        let bytes = [&new, &old].into_iter().flatten().map(RecordBatch::get_array_memory_size).sum();
        Ok(Self {
            rows_per_frame: rows_per_frame(bytes, changes.changes.len()),
            commit_time: changes.commit_time,
            seqs: changes.changes.iter().map(|change| change.seq).collect(),
            places,
            new,
            old,
            made: HashMap::new(),
        })
    }

    /// When all of it was committed.
    pub(crate) const fn commit_time(&self) -> i64 {
        self.commit_time
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

    /// The frames this commit makes for a live query whose last frame had the seq `prev_seq`.
    pub(crate) fn frames(&mut self, query: &LiveQuery, prev_seq: Seq) -> Result<Vec<ChangeFrame>> {
        let matches = |batch: &Option<RecordBatch>| {
            batch.as_ref().map_or(Ok(Vec::new()), |batch| query.matching(batch))
        };
        let (matches_new, matches_old) = (matches(&self.new)?, matches(&self.old)?);
        let is = |mask: &[bool], row: Option<u32>| {
            row.and_then(|row| mask.get(row as usize)).copied().unwrap_or_default()
        };
        let mut runs: Vec<(ChangeKind, Vec<u32>)> = Vec::new();
        for (index, (new, old)) in (0_u32..).zip(&self.places) {
            let kind = match (is(&matches_old, *old), is(&matches_new, *new)) {
                (false, true) => ChangeKind::Insert,
                (true, true) => ChangeKind::Update,
                (true, false) => ChangeKind::Delete,
                (false, false) => continue,
            };
            match runs.last_mut() {
                Some((last, run)) if *last == kind && run.len() < self.rows_per_frame => run.push(index),
                _ => runs.push((kind, vec![index])),
            }
        }
        let mut prev_seq = prev_seq;
        let count = runs.len();
        let frames = runs.into_iter().enumerate().map(|(index, (kind, run))| {
            let payload = self.payload(query, kind, run)?;
            let frame = ChangeFrame { prev_seq, more: index + 1 < count, payload };
            prev_seq = frame.payload.seq;
            Ok(frame)
        });
        frames.collect()
    }

    fn payload(&mut self, query: &LiveQuery, kind: ChangeKind, run: Vec<u32>) -> Result<Arc<ChangePayload>> {
        let key = (query.projection.number(), kind, run);
        if let Some(made) = self.made.get(&key) {
            return Ok(Arc::clone(made));
        }
        let places = key.2.iter().filter_map(|index| self.places.get(*index as usize));
        let (new, old): (Vec<_>, Vec<_>) = places.copied().unzip();
        let pick = |batch: &Option<RecordBatch>, rows: Vec<Option<u32>>| {
            let rows: Vec<u32> = rows.into_iter().flatten().collect();
            batch.as_ref().map(|batch| query.projection.project(batch, &rows)).transpose()
        };
        let seq = key.2.last().and_then(|index| self.seqs.get(*index as usize)).copied().unwrap_or_default();
        let rows = if kind == ChangeKind::Delete { None } else { pick(&self.new, new)? };
        let old_rows = if kind == ChangeKind::Insert { None } else { pick(&self.old, old)? };
        let payload = Arc::new(ChangePayload::new(kind, seq, self.commit_time, rows, old_rows));
        self.made.insert(key, Arc::clone(&payload));
        Ok(payload)
    }
}
