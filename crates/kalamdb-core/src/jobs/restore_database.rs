//! The job that makes a namespace from a backup.
//!
//! What the backup tells is replayed into a store beside the database, as a start replays the log, and what is there at the end
//! is inserted into new tables: by commits like any others, so that whoever reads the log sees where the rows came from. Until all of
//! it is there the namespace says by whom it is being restored, and nobody can read it or write to it: see
//! [`crate::catalog::Catalog`]. A job that dies begins anew, with what it left dropped; one that fails drops what it made. The commit
//! that takes the mark away, with the namespace or from it, is the one that says how the job ended.
//!
//! New tables have new ids, above all seqs that anybody may have seen of the old ones, in this database or in the one that the
//! backup is of: who resumes a subscription from before gets `RESYNC_REQUIRED`, never somebody else's history.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kalamdb_store::{Store, StoreOptions};
use log_format::{ChangeEvent, Frame, Job, JobId, Namespace, NamespaceId, Partition, Seq, TableId, UserId};
use serde_json::{Value as Json, json};

use super::backup_database::{Batch, each_row, namespace_of, row_inserted};
use super::drop_table::push_drop;
use super::{JobRunner, Pace, Parameters, Progress, completed_with, job_ended, job_id, new_job_of_namespace};
use crate::backup::{BackupList, PartKind, PartReader, Until};
use crate::catalog::{Catalog, RESTORING};
use crate::error::{Error, Result};
use crate::fail_points::FailPoint;
use crate::places::LOCAL;
use crate::requests::{Expected, Planning, RowCommit, RowWrite};
use crate::table::TableInfo;

/// The job's type.
pub(crate) const RESTORE_DATABASE: &str = "restore_database";

/// How far behind the seqs of another database ours go on: it may have given out more since the backup was made.
const FOREIGN_SEQ_GAP: u64 = 1 << 32;

/// Commits that are replayed at a time, …
const COMMITS_MAX: usize = 64;
/// … and about how many bytes of them.
const COMMITS_BYTES_MAX: usize = 8 << 20;

/// No log gets to such a seq: it would soon have no others to give.
const SEQ_MAX: Seq = Seq::new(1 << 60);

/// Bytes of memory for the store that is replayed into.
const SCRATCH_BYTES: usize = 64 << 20;

/// What a restore is asked for.
#[derive(Clone, Debug)]
pub(crate) struct RestoreRequest {
    pub(crate) path: PathBuf,
    pub(crate) until: Until,
    /// What the namespace is to be called.
    pub(crate) namespace: NamespaceId,
}

/// The events that begin a restore: the namespace, which is nobody's until it is done, and the job.
pub(crate) fn plan_restore(
    planning: &Planning<'_>,
    request: &RestoreRequest,
    user: &UserId,
) -> Result<Vec<ChangeEvent>> {
    let id = &request.namespace;
    let found = if planning.catalog.has_namespace(id) {
        planning.catalog.require_namespace(id)?;
        planning.system.get_namespace(id)?
    } else {
        None
    };
    let tables = planning.catalog.tables_in(id).len();
    if tables > 0 {
        return Err(Error::InUse {
            what: format!("namespace {id}"),
            action: "restored",
            reason: format!("it holds {tables} tables; drop them, or restore it AS another one"),
        });
    }
    let job = job_id(RESTORE_DATABASE, planning.next_seq.next());
    let is_new = found.is_none();
    let mut namespace = found.unwrap_or_else(|| Namespace {
        id: id.clone(),
        options: Vec::new(),
        created_at: planning.now,
        updated_at: planning.now,
    });
    namespace.options.push((RESTORING.to_owned(), job.to_string()));
    let (seq, time) = match request.until {
        Until::End => (None, None),
        Until::Seq(seq) => (Some(seq), None),
        Until::Time(time) => (None, Some(time)),
    };
    let parameters = json!({"path": request.path, "until_seq": seq, "until_time": time, "is_new": is_new});
    let namespace = Box::new(namespace);
    let marked = if is_new {
        ChangeEvent::NamespaceCreated(namespace)
    } else {
        ChangeEvent::NamespaceAltered(namespace)
    };
    Ok(vec![marked, new_job_of_namespace(planning, 1, RESTORE_DATABASE, id, user, &parameters)])
}

impl Parameters {
    fn until(&self) -> Until {
        let seq = self.0.get("until_seq").and_then(Json::as_u64).map(Until::Seq);
        let time = self.0.get("until_time").and_then(Json::as_i64).map(Until::Time);
        seq.or(time).unwrap_or(Until::End)
    }
}

impl JobRunner {
    /// Makes the namespace that the job names. Done again it begins anew.
    pub(super) fn restore_database(&self, job: &Job) -> Result<Progress> {
        self.refuse_if_stopped(job, &Parameters::of(job)?.path()?)?;
        self.note_if_stopped(job, self.restore(job)).map(|()| Progress::Ended)
    }

    fn restore(&self, job: &Job) -> Result<()> {
        let namespace = &namespace_of(job)?;
        self.drop_restored(job, namespace)?;
        let parameters = Parameters::of(job)?;
        let (path, until) = (parameters.path()?, parameters.until());
        let list = BackupList::read(&path)?.ok_or_else(|| Error::Backup {
            path: path.clone(),
            reason: "there is no backup any more".to_owned(),
        })?;
        let scratch = Scratch::make(&self.scratch)?;
        let replayed = self.replay_backup(job, &path, (&list, until), &scratch)?;
        self.fail_points.reach(FailPoint::AfterBackupReplayed);
        self.leave_out_foreign_seqs(&path, &list)?;
        let done = self.make_tables(job, namespace, &replayed)?;
        self.open_namespace(job, namespace, replayed.options, &done)
    }

    /// Takes away what the job has made before it died.
    fn drop_restored(&self, job: &Job, namespace: &NamespaceId) -> Result<()> {
        if self.catalog.tables_in(namespace).is_empty() {
            return Ok(());
        }
        let (id, job) = (namespace.clone(), job.clone());
        self.commits.catalog_blocking(move |planning| {
            refuse_unless_restoring(planning, &id, &job.id)?;
            drops_of_all(planning, &id, &job)
        })?;
        Ok(())
    }

    /// Ends the job as `outcome` says, and takes away what it has made, with the namespace if that is new.
    pub(super) fn give_up_restore(
        &self,
        job: &Job,
        outcome: impl FnOnce(&mut Job) + Send + 'static,
    ) -> Result<()> {
        let namespace = namespace_of(job)?;
        let is_new = Parameters::of(job)?.0.get("is_new").and_then(Json::as_bool).unwrap_or_default();
        let job = job.clone();
        self.commits.catalog_blocking(move |planning| {
            let mut events = Vec::new();
            if refuse_unless_restoring(planning, &namespace, &job.id).is_ok() {
                events = drops_of_all(planning, &namespace, &job)?;
                match planning.system.get_namespace(&namespace)? {
                    Some(mut found) if !is_new => {
                        found.options.retain(|(name, _)| name != RESTORING);
                        events.push(ChangeEvent::NamespaceAltered(Box::new(found)));
                    }
                    _ => events.push(ChangeEvent::NamespaceDropped(Box::new(namespace))),
                }
            }
            events.push(job_ended(planning, &job.id, outcome)?);
            Ok(events)
        })?;
        metrics::counter!("kalamdb_jobs_ended_total").increment(1);
        Ok(())
    }

    /// Has our seqs go on behind those that another history gave out: of another database, or one that this database has lost.
    fn leave_out_foreign_seqs(&self, path: &Path, list: &BackupList) -> Result<()> {
        let Some(end_part) = list.parts.last() else { return Ok(()) };
        let end = Seq::new(end_part.seq);
        if end > SEQ_MAX {
            let reason = format!("it ends at seq {end}, which no log gets to");
            return Err(Error::Backup { path: path.to_owned(), reason });
        }
        let is_ours =
            list.database == self.database.to_string() && self.log_crc(end) == Some(end_part.log_crc);
        if !is_ours {
            let past = end.max(self.store.applied_seq()?).plus(FOREIGN_SEQ_GAP);
            self.commits.skip_past_blocking(past)?;
        }
        Ok(())
    }

    /// What the backup tells up to there.
    fn replay_backup(
        &self,
        job: &Job,
        path: &Path,
        (list, until): (&BackupList, Until),
        scratch: &Scratch,
    ) -> Result<Replayed> {
        let mut replayed = Replayed {
            store: scratch.open()?,
            catalog: Catalog::empty()?,
            source: NamespaceId::new(list.namespace.clone()),
            options: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        let (mut pace, mut events) = (Pace::begin(), 0);
        for part in list.chain(until)? {
            let mut reader = PartReader::open(path, part)?;
            while let Some(frame) = reader.next()? {
                self.go_on(job, &mut pace, ("replayed", events))?;
                events += frame.count() as u64;
                let is_change = part.kind == PartKind::Changes;
                if is_change && !until.includes(frame.last_seq(), frame.header().fields.commit_time) {
                    break;
                }
                replayed.push(frame)?;
            }
            replayed.apply_waiting()?;
        }
        replayed.check(path)?;
        Ok(replayed)
    }

    /// Makes the tables, first all of them, then their rows.
    fn make_tables(&self, job: &Job, namespace: &NamespaceId, replayed: &Replayed) -> Result<Json> {
        let sources = replayed.catalog.tables_in(&replayed.source);
        let mut made = Vec::with_capacity(sources.len());
        for source in sources {
            let id = self.make_table(job, namespace, &source)?;
            let info = self.catalog.by_id(id).ok_or(Error::TableDropped)?;
            made.push((source, info));
        }
        let cut = replayed.store.cut()?;
        let mut rows = RestoredRows::new(self, job);
        for (source, info) in &made {
            each_row(&cut, source, |owner, key, row| rows.push(info, owner, key, row))?;
            rows.commit(info)?;
        }
        metrics::counter!("kalamdb_restored_rows_total").increment(rows.rows);
        Ok(json!({"tables": made.len(), "rows": rows.rows}))
    }

    fn make_table(&self, job: &Job, namespace: &NamespaceId, source: &TableInfo) -> Result<TableId> {
        let (id, namespace) = (job.id.clone(), namespace.clone());
        let (mut table, versions) = (source.record().clone(), source.versions().to_vec());
        let committed = self.commits.catalog_blocking(move |planning| {
            refuse_unless_restoring(planning, &namespace, &id)?;
            if let Some(location) = table.location_reference.as_deref().filter(|name| *name != LOCAL)
                && planning.system.get_storage_location(location)?.is_none()
            {
                return Err(Error::definition(format!(
                    "table {} is kept at the storage location {location}, which this database has not; register one of that \
                     name in system.storage_locations, and restore again",
                    table.name
                )));
            }
            table.id = TableId::new(planning.next_seq.get());
            table.namespace = namespace;
            let versions = versions.into_iter().map(|mut schema| {
                schema.table = table.id;
                ChangeEvent::SchemaVersionAdded(Box::new(schema))
            });
            let versions: Vec<_> = versions.collect();
            let created = ChangeEvent::TableCreated(Box::new(table));
            Ok(std::iter::once(created).chain(versions).collect())
        })?;
        Ok(TableId::new(committed.first_seq.get()))
    }

    /// From here on the namespace is one like any other, and the job is done.
    fn open_namespace(
        &self,
        job: &Job,
        namespace: &NamespaceId,
        options: Vec<(String, String)>,
        done: &Json,
    ) -> Result<()> {
        let (id, job, outcome) = (namespace.clone(), job.id.clone(), completed_with(done));
        self.commits.catalog_blocking(move |planning| {
            refuse_unless_restoring(planning, &id, &job)?;
            let found = planning.system.get_namespace(&id)?;
            let mut namespace =
                found.ok_or_else(|| Error::NamespaceNotFound { name: id.to_string(), nearest: None })?;
            namespace.options = options;
            namespace.updated_at = planning.now;
            let ended = job_ended(planning, &job, outcome)?;
            Ok(vec![ChangeEvent::NamespaceAltered(Box::new(namespace)), ended])
        })?;
        Ok(())
    }
}

/// The events that drop all tables of a namespace.
fn drops_of_all(planning: &Planning<'_>, namespace: &NamespaceId, job: &Job) -> Result<Vec<ChangeEvent>> {
    let user = job.user.clone().unwrap_or_else(|| UserId::new(crate::accounts::ROOT));
    let mut events = Vec::new();
    for info in planning.catalog.tables_in(namespace) {
        push_drop(planning, &mut events, info.record(), &user)?;
    }
    Ok(events)
}

fn refuse_unless_restoring(planning: &Planning<'_>, namespace: &NamespaceId, job: &JobId) -> Result<()> {
    if planning.catalog.restored_by(namespace).as_deref() == Some(job.as_str()) {
        return Ok(());
    }
    let reason = format!("the namespace {namespace} is no longer what {job} restores");
    Err(Error::Inconsistent { reason })
}

/// The directory that a backup is replayed in; gone when it is dropped.
struct Scratch<'a> {
    path: &'a Path,
}

impl<'a> Scratch<'a> {
    fn make(path: &'a Path) -> Result<Self> {
        remove(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(Self { path })
    }

    fn open(&self) -> Result<Store> {
        let options = StoreOptions {
            block_cache_bytes: SCRATCH_BYTES,
            write_buffer_bytes: SCRATCH_BYTES,
            cold_cache_bytes: 0,
            cold_directory: None,
            owner: None,
        };
        Ok(Store::open(self.path, &options)?)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(self.path) {
            tracing::warn!(path = %self.path.display(), %error, "what a restore left could not be removed");
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A backup's namespace, as far as it has been replayed.
struct Replayed {
    store: Store,
    catalog: Catalog,
    /// What it is called in the backup.
    source: NamespaceId,
    options: Vec<(String, String)>,
    /// Commits that the store has not got yet, and their bytes.
    waiting: Vec<Frame>,
    waiting_bytes: usize,
}

impl Replayed {
    fn push(&mut self, frame: Frame) -> Result<()> {
        let mut of_catalog = Vec::new();
        for (_, event) in frame.events() {
            let event = event?;
            if !event.writes_row() {
                of_catalog.push(event.to_event()?);
            }
        }
        for event in &of_catalog {
            if let ChangeEvent::NamespaceCreated(namespace) | ChangeEvent::NamespaceAltered(namespace) = event
            {
                self.options.clone_from(&namespace.options);
            }
        }
        self.catalog.apply(&of_catalog)?;
        self.waiting_bytes += frame.as_bytes().len();
        self.waiting.push(frame);
        let is_enough = self.waiting.len() == COMMITS_MAX || self.waiting_bytes >= COMMITS_BYTES_MAX;
        if is_enough { self.apply_waiting() } else { Ok(()) }
    }

    fn apply_waiting(&mut self) -> Result<()> {
        self.store.apply(&self.waiting)?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Refuses a point at which the namespace was not there, or not whole.
    fn check(&self, path: &Path) -> Result<()> {
        let refused = |what: &str| {
            let reason =
                format!("at that point the namespace {} {what}: restore it UNTIL another one", self.source);
            Err(Error::Backup { path: path.to_owned(), reason })
        };
        if self.catalog.restored_by(&self.source).is_some() {
            return refused("was being restored itself");
        }
        if !self.catalog.has_namespace(&self.source) {
            return refused("was not there");
        }
        Ok(())
    }
}

/// Rows on their way into a restored table.
struct RestoredRows<'r> {
    runner: &'r JobRunner,
    job: &'r Job,
    /// Whose rows come now.
    partition: Arc<Partition>,
    batch: Batch,
    writes: Vec<RowWrite>,
    rows: u64,
    pace: Pace,
}

impl<'r> RestoredRows<'r> {
    fn new(runner: &'r JobRunner, job: &'r Job) -> Self {
        Self {
            runner,
            job,
            partition: Arc::new(Partition::shared(TableId::new(0))),
            batch: Batch::default(),
            writes: Vec::new(),
            rows: 0,
            pace: Pace::begin(),
        }
    }

    fn push(&mut self, info: &TableInfo, owner: &Partition, key: &[u8], row: &[u8]) -> Result<()> {
        if self.partition.table != info.id() || self.partition.user != owner.user {
            self.partition = Arc::new(Partition { table: info.id(), user: owner.user.clone() });
        }
        let event = row_inserted(&self.partition, key, row).encode()?;
        if !self.batch.has_room_for(&event) {
            self.commit(info)?;
        }
        self.batch.push(event);
        let (partition, key) = (Arc::clone(&self.partition), key.to_vec());
        self.writes.push(RowWrite { partition, key, expected: Expected::Absent, deletes: false });
        Ok(())
    }

    fn commit(&mut self, info: &TableInfo) -> Result<()> {
        let (events, writes) = (self.batch.take(), std::mem::take(&mut self.writes));
        if events.is_empty() {
            return Ok(());
        }
        self.rows += events.len() as u64;
        self.runner.commits.rows_blocking(RowCommit {
            tables: vec![(info.id(), info.version())],
            ephemeral: false,
            events,
            writes,
            // Each key comes once, and nobody else can write to the table: what has been flushed of it cannot have this one.
            cold_as_of: Seq::new(u64::MAX),
        })?;
        self.runner.fail_points.reach(FailPoint::AfterRestoredRows);
        self.runner.go_on(self.job, &mut self.pace, ("rows", self.rows))
    }
}
