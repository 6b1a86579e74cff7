//! The rows that a statement changes, until they are committed as one, or become part of a transaction.
//!
//! The nth event belongs to the nth row it returns, so the seq of each is known from the first one's.

use std::sync::Arc;

use log_format::{
    ChangeEvent, EncodedEvent, FRAME_HEADER_BYTES, FRAME_LENGTH_MAX, Partition, RowDeleted, RowInserted,
    RowUpdated, Seq, StreamAppended,
};

use crate::clock;
use crate::error::{Error, Result};
use crate::requests::{Committed, Expected, RowCommit, RowWrite};
use crate::rows::RowHead;
use crate::sql::execute::StatementResult;
use crate::sql::pace::Pace;
use crate::sql::returning::Returning;
use crate::sql::target::Target;
use crate::view::Base;

/// Bytes of a commit's events at the most: a commit is one frame of the log.
const COMMIT_BYTES_MAX: usize = FRAME_LENGTH_MAX - FRAME_HEADER_BYTES;
/// Bytes of an event at the least, beside its key and rows: its place in the frame's table, its partition, its archive.
const EVENT_BYTES_MIN: usize = 48;

/// The error of a statement that changes more than a commit holds.
fn too_large() -> Error {
    Error::TooLarge {
        what: "what the statement writes, which is one commit,",
        limit: COMMIT_BYTES_MAX,
        hint: "nothing was written: do it in pieces, a statement each, such as WHERE id >= $1 AND id < $2 on the primary key",
    }
}

/// Refuses a statement that changes so many rows that no commit holds them, however small they are.
pub(crate) fn refuse_too_many(rows: usize) -> Result<()> {
    if rows > COMMIT_BYTES_MAX / EVENT_BYTES_MIN { Err(too_large()) } else { Ok(()) }
}

/// The log's error of a commit that is too large, in the words of a statement.
pub(crate) fn said_early(error: Error) -> Error {
    match error {
        Error::Log(kalamdb_log::Error::Encode(log_format::Error::TooLarge { .. }))
        | Error::Format(log_format::Error::TooLarge { .. }) => too_large(),
        other => other,
    }
}

/// A row to change: its key, the event that wrote it, its bytes.
pub(crate) struct Found {
    pub(crate) key: Vec<u8>,
    pub(crate) seq: Seq,
    pub(crate) row: Vec<u8>,
}

/// What becomes of a row: the one before, if there is one, and the one after, if there is to be one.
pub(crate) struct Changed {
    pub(crate) key: Vec<u8>,
    pub(crate) base: Option<Base>,
    pub(crate) row: Option<Vec<u8>>,
}

impl Changed {
    /// The row that is returned of it: the one after, or where it goes the one before.
    fn returned(&self) -> &[u8] {
        match (&self.row, &self.base) {
            (Some(row), _) => row,
            (None, Some(base)) => &base.row,
            (None, None) => &[],
        }
    }

    /// The event, and what it relies on; none where nothing changed: a row that came and went again.
    pub(crate) fn encode(self, partition: &Arc<Partition>) -> Result<Option<(EncodedEvent, RowWrite)>> {
        let Self { key, base, row } = self;
        let of = partition.as_ref().clone();
        let expected = base.as_ref().map_or(Expected::Absent, |base| Expected::WrittenBy(base.seq));
        let deletes = row.is_none();
        let write = RowWrite { partition: Arc::clone(partition), key: key.clone(), expected, deletes };
        let event = match (base, row) {
            (None, Some(row)) => ChangeEvent::RowInserted(Box::new(RowInserted { partition: of, key, row })),
            (Some(base), Some(new)) => {
                ChangeEvent::RowUpdated(Box::new(RowUpdated { partition: of, key, old: base.row, new }))
            }
            (Some(base), None) => {
                ChangeEvent::RowDeleted(Box::new(RowDeleted { partition: of, key, old: base.row }))
            }
            (None, None) => return Ok(None),
        };
        Ok(Some((event.encode()?, write)))
    }
}

/// The event of a row of a stream.
pub(crate) fn encode_appended(partition: &Partition, row: Vec<u8>) -> Result<EncodedEvent> {
    let event = StreamAppended { partition: partition.clone(), row };
    Ok(ChangeEvent::StreamAppended(Box::new(event)).encode()?)
}

/// Changes of one statement.
pub(crate) struct ChangeSet<'t> {
    target: &'t Target<'t>,
    returning: Option<Returning>,
    changes: Vec<Changed>,
    /// Rows of a stream.
    appended: Vec<Vec<u8>>,
    /// Bytes that the events take at the least.
    bytes: usize,
}

impl<'t> ChangeSet<'t> {
    /// No changes yet.
    pub(crate) const fn new(target: &'t Target<'t>, returning: Option<Returning>) -> Self {
        Self { target, returning, changes: Vec::new(), appended: Vec::new(), bytes: 0 }
    }

    /// Takes a row, or refuses it where a commit would not hold it any more: before the rest of the work is done.
    fn take(&mut self, change: Changed) -> Result<()> {
        let before = change.base.as_ref().map_or(0, |base| base.row.len());
        self.count_bytes(change.key.len() + before + change.row.as_ref().map_or(0, Vec::len))?;
        self.changes.push(change);
        Ok(())
    }

    fn count_bytes(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(EVENT_BYTES_MIN);
        if self.bytes > COMMIT_BYTES_MAX { Err(too_large()) } else { Ok(()) }
    }

    /// A new row.
    pub(crate) fn insert(&mut self, key: Vec<u8>, row: Vec<u8>) -> Result<()> {
        self.take(Changed { key, base: None, row: Some(row) })
    }

    /// A row in the place of another.
    pub(crate) fn update(&mut self, found: Found, row: Vec<u8>) -> Result<()> {
        let Found { key, seq, row: before } = found;
        self.take(Changed { key, base: Some(Base { seq, row: before }), row: Some(row) })
    }

    /// A row that goes.
    pub(crate) fn delete(&mut self, found: Found) -> Result<()> {
        let Found { key, seq, row } = found;
        self.take(Changed { key, base: Some(Base { seq, row }), row: None })
    }

    /// A row of a stream.
    pub(crate) fn append(&mut self, row: Vec<u8>) -> Result<()> {
        self.count_bytes(row.len())?;
        self.appended.push(row);
        Ok(())
    }

    /// How many rows change.
    const fn count(&self) -> usize {
        self.changes.len() + self.appended.len()
    }

    /// Commits what there is, and answers.
    pub(crate) async fn finish(mut self, verb: &str) -> Result<StatementResult> {
        let (target, count) = (self.target, self.count());
        let Some(returning) = self.returning.take() else {
            if count > 0 {
                self.settle().await?;
            }
            let noun = if count == 1 { "row" } else { "rows" };
            return Ok(StatementResult::done(target.session, count as u64, format!("{count} {noun} {verb}")));
        };
        if returning.names_commit() && target.transaction.is_some() {
            return Err(Error::Unsupported {
                what: "RETURNING _seq or _updated inside of a transaction".to_owned(),
                hint: Some("they are known only once it is committed: read them after COMMIT"),
            });
        }
        let deleted = self.changes.iter().any(|change| change.row.is_none());
        let head = |first: Seq, updated: i64| {
            move |at: usize| RowHead { seq: first.plus(at as u64), updated, deleted }
        };
        // As if it were the next commit: what fails on these rows fails before anything is written.
        let next = head(target.engine.published().plus(1), clock::now_micros());
        let mut batches = returning.rows(&target.info, &self.returned(), next)?;
        if returning.names_commit() && count > 0 {
            let rows: Vec<Vec<u8>> = self.returned().into_iter().map(<[u8]>::to_vec).collect();
            let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let committed = self.commit().await?;
            let committed = head(committed.first_seq, committed.commit_time);
            batches = returning.rows(&target.info, &rows, committed)?;
        } else if count > 0 {
            self.settle().await?;
        }
        Ok(StatementResult {
            schema: Arc::clone(returning.schema()),
            batches,
            row_count: count as u64,
            message: None,
            as_user: target.session.user().clone(),
        })
    }

    /// The rows that are returned: as they are after, or were before a DELETE.
    fn returned(&self) -> Vec<&[u8]> {
        let changed = self.changes.iter().map(Changed::returned);
        changed.chain(self.appended.iter().map(Vec::as_slice)).collect()
    }

    /// Makes what there is a part of the transaction, or commits it where there is none.
    async fn settle(self) -> Result<()> {
        let Some(transaction) = self.target.transaction else {
            self.commit().await?;
            return Ok(());
        };
        transaction.add(self.target, self.changes)?;
        transaction.append(self.target, self.appended)
    }

    /// Commits what there is, which is something.
    pub(crate) async fn commit(self) -> Result<Committed> {
        let Self { target, changes, appended, .. } = self;
        target.refuse_cold_duplicates(
            changes.iter().filter(|change| change.base.is_none()).map(|it| &it.key),
        )?;
        let (mut events, mut writes) = (Vec::with_capacity(changes.len() + appended.len()), Vec::new());
        writes.reserve_exact(changes.len());
        let (mut pace, mut bytes) = (Pace::default(), 0);
        for change in changes {
            pace.row().await;
            if let Some((event, write)) = change.encode(&target.partition)? {
                bytes += event.as_bytes().len();
                if bytes > COMMIT_BYTES_MAX {
                    return Err(too_large());
                }
                events.push(event);
                writes.push(write);
            }
        }
        let ephemeral = !appended.is_empty();
        for row in appended {
            events.push(encode_appended(&target.partition, row)?);
        }
        let tables = vec![(target.info.id(), target.info.version())];
        let cold_as_of = target.cold_as_of;
        let commit = RowCommit { tables, ephemeral, events, writes, cold_as_of };
        target.engine.commits().rows(commit).await.map_err(said_early)
    }
}
