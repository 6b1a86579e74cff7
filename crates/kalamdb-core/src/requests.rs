//! What writers hand in to the sequencer, and the queue it waits in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kalamdb_log::{CommitReceiver, CommitSender, QueueClosed, commit_queue};
use kalamdb_sql::SystemTables;
use kalamdb_store::{Keyspace, Store};
use log_format::{ChangeEvent, EncodedEvent, Partition, SchemaVersion, Seq, TableId};
use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::reply::{self, Reply};
use crate::table::TableInfo;

/// Requests that wait at the most.
const QUEUE_CAPACITY: usize = 8192;
/// Kibibytes of encoded events that may wait in the queue.
const QUEUE_KIBIBYTES_MAX: u32 = 128 << 10;

/// What a commit got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The seq of its first event.
    pub first_seq: Seq,
    /// The seq of its last event.
    pub last_seq: Seq,
    /// When, microseconds since 1970.
    pub commit_time: i64,
}

/// What must be true of a row for a commit to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// No row of this key, or a deleted one.
    Absent,
    /// The row that this event wrote.
    WrittenBy(Seq),
}

/// One row that a commit writes: which, what it relies on, whether the row is there after.
#[derive(Debug)]
pub(crate) struct RowWrite {
    pub(crate) partition: Arc<Partition>,
    pub(crate) key: Vec<u8>,
    pub(crate) expected: Expected,
    pub(crate) deletes: bool,
}

impl RowWrite {
    /// Where the row is kept.
    pub(crate) fn keyspace(&self) -> Keyspace {
        match self.partition.user {
            Some(_) => Keyspace::User,
            None => Keyspace::Shared,
        }
    }
}

/// A change of rows: the nth write belongs to the nth event. Stream events have no writes and come last.
#[derive(Debug)]
pub(crate) struct RowCommit {
    /// The tables it changes, with the schema version that the rows were made for; a table altered or dropped since refuses
    /// them.
    pub(crate) tables: Vec<(TableId, SchemaVersion)>,
    /// Whether it is of stream events alone, which do not wait for the disk.
    pub(crate) ephemeral: bool,
    pub(crate) events: Vec<EncodedEvent>,
    pub(crate) writes: Vec<RowWrite>,
    /// Rows that are not in the hot tier were looked for in the cold one as of this seq or later: a partition that was flushed
    /// since refuses the commit.
    pub(crate) cold_as_of: Seq,
}

/// What a change of the catalog is made from: the state that nobody else can change meanwhile.
pub(crate) struct Planning<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) system: &'a SystemTables,
    pub(crate) store: &'a Store,
    /// The seq of the first event it will make.
    pub(crate) next_seq: Seq,
    /// Microseconds since 1970.
    pub(crate) now: i64,
}

impl Planning<'_> {
    /// Whether a table has rows that are not deleted, whoever they belong to.
    pub(crate) fn has_rows(&self, info: &TableInfo) -> Result<bool> {
        Ok(self.store.table_counts(info.id())?.rows > 0)
    }
}

/// Makes the events of a change of the catalog, or refuses. Runs on the sequencer.
pub(crate) type CatalogPlan = Box<dyn FnOnce(&Planning<'_>) -> Result<Vec<ChangeEvent>> + Send>;

pub(crate) enum Change {
    Rows(RowCommit),
    Catalog(CatalogPlan),
    /// Leaves out all seqs up to this one, which may have been given out by another log.
    SkipPast(Seq),
}

pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) reply: Reply,
}

/// Where writers hand in their commits.
#[derive(Clone)]
pub(crate) struct Commits {
    sender: CommitSender<Request>,
    room: Arc<Semaphore>,
    /// Set where the projections are to be flushed with the next commit, however little there is.
    flush_asked: Arc<AtomicBool>,
}

impl Commits {
    /// A queue: the way in, and the end that the sequencer takes from.
    pub(crate) fn new() -> (Self, CommitReceiver<Request>) {
        let (sender, queue) = commit_queue(QUEUE_CAPACITY);
        let room = Arc::new(Semaphore::new(QUEUE_KIBIBYTES_MAX as usize));
        (Self { sender, room, flush_asked: Arc::default() }, queue)
    }

    /// Has the projections put into files with the next commit: in the background, as always.
    pub(crate) fn ask_for_flush(&self) {
        self.flush_asked.store(true, Ordering::Release);
    }

    /// What [`Commits::ask_for_flush`] sets.
    pub(crate) fn flush_asked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flush_asked)
    }

    /// Commits rows and waits until they count as written.
    pub(crate) async fn rows(&self, commit: RowCommit) -> Result<Committed> {
        let bytes: usize = commit.events.iter().map(|event| event.as_bytes().len()).sum();
        let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, QUEUE_KIBIBYTES_MAX);
        let _room = self.room.acquire_many(kibibytes).await.map_err(|_| Error::ShuttingDown)?;
        self.submit_and_await(Change::Rows(commit)).await
    }

    /// Changes the catalog and waits until that counts as written.
    pub(crate) async fn catalog(
        &self,
        plan: impl FnOnce(&Planning<'_>) -> Result<Vec<ChangeEvent>> + Send + 'static,
    ) -> Result<Committed> {
        let _room = self.room.acquire().await.map_err(|_| Error::ShuttingDown)?;
        self.submit_and_await(Change::Catalog(Box::new(plan))).await
    }

    /// Commits rows from a plain thread.
    pub(crate) fn rows_blocking(&self, commit: RowCommit) -> Result<Committed> {
        self.submit_and_block(Change::Rows(commit))
    }

    /// Changes the catalog from a plain thread.
    pub(crate) fn catalog_blocking(
        &self,
        plan: impl FnOnce(&Planning<'_>) -> Result<Vec<ChangeEvent>> + Send + 'static,
    ) -> Result<Committed> {
        self.submit_and_block(Change::Catalog(Box::new(plan)))
    }

    /// Leaves out all seqs up to this one; it, too, is never given to an event from then on.
    pub(crate) fn skip_past_blocking(&self, seq: Seq) -> Result<Committed> {
        self.submit_and_block(Change::SkipPast(seq))
    }

    /// A way to nobody.
    pub(crate) fn closed() -> Self {
        Self::new().0
    }

    async fn submit_and_await(&self, change: Change) -> Result<Committed> {
        let (reply, answer) = reply::to_task();
        self.submit(Request { change, reply })?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }

    fn submit_and_block(&self, change: Change) -> Result<Committed> {
        let (reply, answer) = reply::to_thread();
        // A thread of its own can wait for its turn, however many others do.
        self.sender.send(Request { change, reply }).map_err(|_| Error::ShuttingDown)?;
        answer.wait()
    }

    fn submit(&self, request: Request) -> Result<()> {
        match self.sender.try_send(request) {
            Ok(()) => Ok(()),
            Err(QueueClosed::Closed(_)) => Err(Error::ShuttingDown),
            Err(QueueClosed::Full(_)) => Err(Error::Overloaded { waiting: QUEUE_CAPACITY }),
        }
    }
}

impl Change {
    pub(crate) const fn is_ephemeral(&self) -> bool {
        match self {
            Self::Rows(rows) => rows.ephemeral,
            Self::Catalog(_) | Self::SkipPast(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[tokio::test]
    async fn a_full_queue_is_told_as_too_much_work() {
        let (commits, _receiver) = Commits::new();
        for _ in 0..QUEUE_CAPACITY {
            let (reply, _) = reply::to_task();
            commits.submit(Request { change: Change::SkipPast(Seq::ZERO), reply }).unwrap();
        }
        let refused = commits.catalog(|_| Ok(Vec::new())).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded);
        assert!(!refused.to_string().contains("bytes"), "{refused}");
    }
}
