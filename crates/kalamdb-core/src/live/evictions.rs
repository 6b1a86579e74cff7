//! Rows of STREAM tables that went by themselves, told as deletes to those who ask for it.
//!
//! The event of an eviction says up to where rows went, not which. Which those are the log knows: they are read again, from where the
//! eviction before it ended.

use std::ops::ControlFlow;

use kalamdb_log::LogReader;
use kalamdb_store::{KeyRange, Keyspace};
use log_format::{ArchivedChangeEvent as Event, Frame, Partition, PartitionHash, Seq};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::change::{ChangeBatches, ChangeFrame, PartitionChanges, appended, not_the_last};
use crate::live::query::LiveQuery;
use crate::live::router::Router;
use crate::live::subscription::READ_BYTES;

/// What a subscriber has been told of rows that went.
pub(super) struct Evictions {
    /// All rows below this seq have gone, and that was told.
    gone_below: Seq,
    underway: Option<Underway>,
}

/// An eviction that is being told.
struct Underway {
    /// Its event.
    at: Seq,
    commit_time: i64,
    /// Rows below this seq went.
    before: Seq,
    /// Where its commit ends.
    commit_end: Seq,
    reader: LogReader,
    /// What is told next, once it is known whether it is the last.
    held: Option<ChangeFrame>,
}

/// What came of telling some of an eviction.
pub(super) enum Told {
    /// There is more of it.
    Part,
    /// That was all.
    All {
        /// The last frame, which has the eviction's seq; none where no row that went was one of the query's.
        last: Option<ChangeFrame>,
        /// The last seq of its commit.
        commit_end: Seq,
    },
}

impl Evictions {
    /// Of a subscriber that has seen everything up to `from`; none: that begins with what is there.
    pub(super) fn begin(engine: &Engine, partition: &Partition, from: Option<Seq>) -> Result<Self> {
        let gone_below = match from {
            Some(from) => gone_below_at(engine.router(), partition, from)?,
            None => oldest_row(engine, partition)?,
        };
        Ok(Self { gone_below, underway: None })
    }

    pub(super) const fn is_underway(&self) -> bool {
        self.underway.is_some()
    }

    /// Begins to tell what a commit evicts, if it does.
    pub(super) fn take_up(&mut self, router: &Router, partition: &Partition, commit: &Frame) -> Result<bool> {
        let Some((at, before)) = evicted_by(commit, partition)? else { return Ok(false) };
        let mut reader = router.log_reader();
        seek_from(&mut reader, self.gone_below)?;
        reader.only([PartitionHash::of(partition)]);
        let commit_time = commit.header().fields.commit_time;
        let commit_end = commit.last_seq();
        self.underway = Some(Underway { at, commit_time, before, commit_end, reader, held: None });
        Ok(true)
    }

    /// Tells some more of the eviction that is underway: frames that are one change, whole or not at all.
    pub(super) fn tell_some(
        &mut self,
        query: &LiveQuery,
        prev_seq: Seq,
        out: &mut Vec<ChangeFrame>,
    ) -> Result<Told> {
        let Some(underway) = &mut self.underway else { return Ok(Told::Part) };
        let (mut commits, mut bytes, mut is_all) = (Vec::new(), 0, false);
        while bytes < READ_BYTES {
            match underway.reader.next()?.filter(|commit| commit.first_seq() < underway.before) {
                Some(commit) => {
                    bytes += commit.as_bytes().len();
                    commits.push(commit);
                }
                None => {
                    is_all = true;
                    break;
                }
            }
        }
        let went = self.gone_below..underway.before;
        let rows = commits.iter().map(|commit| appended(commit, &query.partition, &went));
        let rows = rows.collect::<Result<Vec<_>>>()?.concat();
        let changes = PartitionChanges::of_gone(underway.commit_time, underway.at, &rows);
        let frames = ChangeBatches::new(&query.info, &changes)?.frames(query, prev_seq, usize::MAX)?;
        for frame in frames {
            if let Some(held) = underway.held.replace(frame) {
                out.push(not_the_last(&held, prev_seq)?);
            }
        }
        if !is_all {
            return Ok(Told::Part);
        }
        let last = underway.held.take().map(|frame| ChangeFrame { prev_seq, more: false, ..frame });
        self.gone_below = self.gone_below.max(underway.before);
        let commit_end = underway.commit_end;
        self.underway = None;
        Ok(Told::All { last, commit_end })
    }
}

/// The event of a commit that evicts rows of a partition, and below which seq.
fn evicted_by(commit: &Frame, partition: &Partition) -> Result<Option<(Seq, Seq)>> {
    let mut found = None;
    for (seq, event) in commit.events() {
        if let Event::StreamEvicted(event) = event?
            && event.partition.to_partition() == *partition
        {
            found = Some((seq, Seq::new(event.before_seq.to_native())));
        }
    }
    Ok(found)
}

fn seek_from(reader: &mut LogReader, from: Seq) -> Result<()> {
    match reader.seek_from(from.max(Seq::new(1))) {
        Err(kalamdb_log::Error::BelowFloor { .. }) => {
            Err(Error::ResyncRequired { from, floor: reader.floor()?, end: reader.end()? })
        }
        sought => Ok(sought?),
    }
}

/// Below which seq all rows had gone when `from` was the last event: what the last eviction before it says.
fn gone_below_at(router: &Router, partition: &Partition, from: Seq) -> Result<Seq> {
    let mut reader = router.log_reader();
    let floor = reader.floor()?;
    let created_at = Seq::new(partition.table.get());
    let begin = floor.max(created_at);
    seek_from(&mut reader, begin)?;
    reader.only([PartitionHash::of(partition)]);
    let mut found = None;
    while let Some(commit) = reader.next()?.filter(|commit| commit.first_seq() <= from) {
        found = evicted_by(&commit, partition)?.map(|(_, before)| before).or(found);
    }
    match found {
        Some(before) => Ok(before),
        None if created_at >= floor => Ok(created_at),
        // Of rows from before the floor it is not known when they went.
        None => Err(Error::ResyncRequired { from, floor, end: reader.end()? }),
    }
}

/// The seq of the oldest row that is there.
fn oldest_row(engine: &Engine, partition: &Partition) -> Result<Seq> {
    let cut = engine.store().cut()?;
    let mut oldest = cut.seq().next();
    cut.scan(Keyspace::Stream, partition, &KeyRange::default(), |_, row| {
        oldest = row.seq;
        ControlFlow::Break(())
    })?;
    Ok(oldest)
}
