//! The rows that a statement changes, until they are committed as one.
//!
//! The nth event belongs to the nth row it returns, so the seq of each is known from the first one's.

use std::sync::Arc;

use log_format::{ChangeEvent, EncodedEvent, RowDeleted, RowInserted, RowUpdated, Seq, StreamAppended};

use crate::clock;
use crate::error::Result;
use crate::requests::{Committed, Expected, RowCommit, RowWrite};
use crate::rows::RowHead;
use crate::sql::execute::StatementResult;
use crate::sql::returning::Returning;
use crate::sql::target::Target;

/// A row to change: its key, the event that wrote it, its bytes.
pub(crate) struct Found {
    pub(crate) key: Vec<u8>,
    pub(crate) seq: Seq,
    pub(crate) row: Vec<u8>,
}

/// Changes of one statement.
pub(crate) struct ChangeSet<'t> {
    target: &'t Target<'t>,
    returning: Option<Returning>,
    events: Vec<EncodedEvent>,
    /// None for streams.
    writes: Vec<RowWrite>,
    /// What is returned of: the rows as they are after, or were before a DELETE.
    rows: Vec<Vec<u8>>,
    /// Whether the statement is a DELETE.
    deletes: bool,
}

impl<'t> ChangeSet<'t> {
    /// No changes yet.
    pub(crate) const fn new(target: &'t Target<'t>, returning: Option<Returning>) -> Self {
        Self { target, returning, events: Vec::new(), writes: Vec::new(), rows: Vec::new(), deletes: false }
    }

    /// A new row.
    pub(crate) fn insert(&mut self, key: Vec<u8>, row: Vec<u8>) -> Result<()> {
        self.keep(&row);
        let event = RowInserted { partition: self.target.partition.as_ref().clone(), key: key.clone(), row };
        self.events.push(ChangeEvent::RowInserted(Box::new(event)).encode()?);
        self.write(key, Expected::Absent, false);
        Ok(())
    }

    /// A row in the place of another.
    pub(crate) fn update(&mut self, found: Found, row: Vec<u8>) -> Result<()> {
        self.keep(&row);
        let event = RowUpdated {
            partition: self.target.partition.as_ref().clone(),
            key: found.key.clone(),
            old: found.row,
            new: row,
        };
        self.events.push(ChangeEvent::RowUpdated(Box::new(event)).encode()?);
        self.write(found.key, Expected::WrittenBy(found.seq), false);
        Ok(())
    }

    /// A row that goes.
    pub(crate) fn delete(&mut self, found: Found) -> Result<()> {
        self.keep(&found.row);
        self.deletes = true;
        let event = RowDeleted {
            partition: self.target.partition.as_ref().clone(),
            key: found.key.clone(),
            old: found.row,
        };
        self.events.push(ChangeEvent::RowDeleted(Box::new(event)).encode()?);
        self.write(found.key, Expected::WrittenBy(found.seq), true);
        Ok(())
    }

    /// A row of a stream.
    pub(crate) fn append(&mut self, row: Vec<u8>) -> Result<()> {
        self.keep(&row);
        let event = StreamAppended { partition: self.target.partition.as_ref().clone(), row };
        self.events.push(ChangeEvent::StreamAppended(Box::new(event)).encode()?);
        Ok(())
    }

    fn keep(&mut self, row: &[u8]) {
        if self.returning.is_some() {
            self.rows.push(row.to_vec());
        }
    }

    fn write(&mut self, key: Vec<u8>, expected: Expected, deletes: bool) {
        let partition = Arc::clone(&self.target.partition);
        self.writes.push(RowWrite { partition, key, expected, deletes });
    }

    /// How many rows change.
    pub(crate) const fn count(&self) -> usize {
        self.events.len()
    }

    /// Commits what there is, and answers.
    pub(crate) async fn finish(mut self, verb: &str) -> Result<StatementResult> {
        let (target, count) = (self.target, self.count());
        let Some(returning) = self.returning.take() else {
            if count > 0 {
                self.commit().await?;
            }
            let noun = if count == 1 { "row" } else { "rows" };
            return Ok(StatementResult::done(target.session, count as u64, format!("{count} {noun} {verb}")));
        };
        let rows = std::mem::take(&mut self.rows);
        let deleted = self.deletes;
        let made = |first: Seq, updated: i64| {
            returning.rows(&target.info, &rows, |at| RowHead { seq: first.plus(at as u64), updated, deleted })
        };
        // As if it were the next commit: what fails on these rows fails before anything is written.
        let mut batches = made(target.engine.published().plus(1), clock::now_micros())?;
        if count > 0 {
            let committed = self.commit().await?;
            if returning.names_commit() {
                batches = made(committed.first_seq, committed.commit_time)?;
            }
        }
        Ok(StatementResult {
            schema: Arc::clone(returning.schema()),
            batches,
            row_count: count as u64,
            message: None,
            as_user: target.session.user().clone(),
        })
    }

    /// Commits what there is, which is something.
    pub(crate) async fn commit(self) -> Result<Committed> {
        let commit = RowCommit {
            table: self.target.info.id(),
            version: self.target.info.version(),
            keyspace: self.target.info.keyspace(),
            events: self.events,
            writes: self.writes,
        };
        self.target.engine.commits().rows(commit).await
    }
}
