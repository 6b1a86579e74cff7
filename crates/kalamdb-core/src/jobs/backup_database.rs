//! The job that writes a namespace to a backup.
//!
//! It takes one cut of the rows, on the sequencer, together with the catalog as of the very same seq: cold files that the cut has
//! stay for as long as it is held, whatever flushes and compactions do meanwhile. What is in the backup already is not written
//! again: the log tells what has been committed since. Where it no longer does, or that has come to be more than the rows are,
//! a full part begins anew. The list of parts is replaced last: a job that dies is done again, and finds the parts before it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kalamdb_store::{Cut, FirstError, KeyRange};
use log_format::{
    ArchivedChangeEvent, ChangeEvent, EncodedEvent, Frame, Job, Namespace, NamespaceId, Partition,
    RowInserted, Seq, TableId, UserId,
};
use serde_json::{Value as Json, json};

use super::{JobRunner, Parameters, Progress, new_job_of_namespace};
use crate::backup::{BackupList, Part, PartKind, PartWriter, WrittenPart};
use crate::error::{Error, Result};
use crate::fail_points::FailPoint;
use crate::requests::Planning;
use crate::table::TableInfo;

/// The job's type.
pub(crate) const BACKUP_DATABASE: &str = "backup_database";

/// Events of a commit in a backup, or made by a restore, at the most.
pub(super) const COMMIT_EVENTS_MAX: usize = 1000;
/// Bytes of such a commit's events, about.
pub(super) const COMMIT_BYTES_MAX: usize = 1 << 20;

/// The job that backs up a namespace.
pub(crate) fn backup_database_job(
    planning: &Planning<'_>,
    namespace: &NamespaceId,
    path: &Path,
    user: &UserId,
) -> ChangeEvent {
    let parameters = json!({"path": path});
    new_job_of_namespace(planning, 0, BACKUP_DATABASE, namespace, user, &parameters)
}

/// A namespace as of one seq.
struct NamespaceCut {
    rows: Cut,
    namespace: Namespace,
    tables: Vec<Arc<TableInfo>>,
    /// Nothing of it was committed after this, nothing else before.
    commit_time: i64,
}

impl NamespaceCut {
    const fn seq(&self) -> Seq {
        self.rows.seq()
    }

    /// Ends the file of a part that tells of everything behind a seq up to here.
    fn finish(&self, writer: PartWriter, (kind, from_seq): (PartKind, u64), row_events: u64) -> Result<Part> {
        let file = format!("{}-{:020}.frames.zst", kind.as_str(), self.seq().get());
        let WrittenPart { bytes, frames, events } = writer.finish(&file)?;
        Ok(Part {
            kind,
            file,
            bytes,
            frames,
            events,
            row_events,
            from_seq,
            seq: self.seq().get(),
            commit_time: self.commit_time,
            tables: self.tables.iter().map(|info| info.id().get()).collect(),
        })
    }
}

impl Parameters {
    /// The directory of a backup.
    pub(super) fn path(&self) -> Result<PathBuf> {
        let found = self.0.get("path").and_then(Json::as_str).map(PathBuf::from);
        found.ok_or_else(|| Error::definition("the job's parameters have no path"))
    }
}

/// The namespace that a job works on.
pub(super) fn namespace_of(job: &Job) -> Result<NamespaceId> {
    job.namespace.clone().ok_or_else(|| Error::definition("the job has no namespace"))
}

impl JobRunner {
    /// Adds to a backup what has been committed since its last part. Done again it finds the parts that are there.
    pub(super) fn backup_database(&self, job: &Job) -> Result<Progress> {
        let path = Parameters::of(job)?.path()?;
        let found = BackupList::read(&path)?;
        let cut = self.namespace_cut(job)?;
        self.fail_points.reach(FailPoint::AfterBackupCut);
        let mut list = self.own_list(found, &path, &cut)?;
        let changes = match list.parts.last() {
            Some(before) => self.back_up_changes(before, &path, &cut)?,
            None => None,
        };
        let is_full = match &changes {
            Some(changes) => list.wants_full(changes.bytes),
            None => true,
        };
        let mut written: Vec<Part> = changes.into_iter().collect();
        if is_full {
            written.push(self.back_up_all(job, &path, &cut)?);
        }
        self.fail_points.reach(FailPoint::AfterBackupPart);
        list.parts.extend(written.iter().cloned());
        list.write(&path)?;
        let sum = |of: fn(&Part) -> u64| written.iter().map(of).sum::<u64>();
        metrics::counter!("kalamdb_backup_bytes_total").increment(sum(|part| part.bytes));
        Ok(Progress::Done(json!({
            "seq": cut.seq().get(),
            "parts": written.iter().map(|part| part.kind.as_str()).collect::<Vec<_>>(),
            "tables": cut.tables.len(),
            "row_events": sum(|part| part.row_events),
            "bytes": sum(|part| part.bytes),
        })))
    }

    /// One cut of the job's namespace: its rows and its tables.
    fn namespace_cut(&self, job: &Job) -> Result<NamespaceCut> {
        let (id, namespace) = (job.id.clone(), namespace_of(job)?);
        let slot = Arc::new(Mutex::new(None));
        let taken = Arc::clone(&slot);
        // IMPORTANT: on the sequencer, in a commit of its own: all that comes before is applied to rows and catalog, nothing else is.
        let committed = self.commits.catalog_blocking(move |planning| {
            planning.catalog.require_namespace(&namespace)?;
            let found = planning.system.get_namespace(&namespace)?;
            let found = found
                .ok_or_else(|| Error::NamespaceNotFound { name: namespace.to_string(), nearest: None })?;
            let mut job = planning
                .system
                .get_job(&id)?
                .ok_or_else(|| Error::NotFound { kind: "job", name: id.to_string() })?;
            let cut = planning.store.cut()?;
            job.result = Some(json!({"seq": cut.seq().get()}).to_string());
            let tables = planning.catalog.tables_in(&namespace);
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((cut, found, tables));
            Ok(vec![ChangeEvent::JobUpdated(Box::new(job))])
        })?;
        let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (rows, namespace, tables) = taken.ok_or(Error::ShuttingDown)?;
        Ok(NamespaceCut { rows, namespace, tables, commit_time: committed.commit_time })
    }

    /// The list that is there, if it is of this namespace, or a new one.
    fn own_list(&self, found: Option<BackupList>, path: &Path, cut: &NamespaceCut) -> Result<BackupList> {
        let (database, namespace) = (self.database.to_string(), cut.namespace.id.to_string());
        let Some(list) = found else { return Ok(BackupList::new(database, namespace)) };
        let is_ahead = list.seq().is_some_and(|seq| seq > cut.seq());
        if list.database != database || list.namespace != namespace || is_ahead {
            let of = if is_ahead {
                "has commits that this database has not"
            } else {
                "is of another namespace or database"
            };
            let reason = format!("the backup here {of}; back up to another directory");
            return Err(Error::Backup { path: path.to_owned(), reason });
        }
        Ok(list)
    }

    /// Writes a part with all of the namespace.
    fn back_up_all(&self, job: &Job, path: &Path, cut: &NamespaceCut) -> Result<Part> {
        let mut part = FullPart {
            runner: self,
            job,
            writer: PartWriter::begin(path)?,
            commit_time: cut.commit_time,
            events: Vec::new(),
            bytes: 0,
            rows: 0,
            progress: super::Pace::begin(),
        };
        part.push(&[ChangeEvent::NamespaceCreated(Box::new(cut.namespace.clone()))])?;
        for info in &cut.tables {
            // A table and its schema versions are one commit, as the catalog wants them.
            part.end_commit()?;
            part.push(&[ChangeEvent::TableCreated(Box::new(info.record().clone()))])?;
            for schema in info.versions() {
                part.push(&[ChangeEvent::SchemaVersionAdded(Box::new(schema.clone()))])?;
            }
        }
        part.end_commit()?;
        for info in cut.tables.iter().filter(|info| info.stream().is_none()) {
            for partition in cut.rows.partitions(info.keyspace(), info.id())? {
                part.push_rows(&cut.rows, info, &partition)?;
            }
        }
        part.end_commit()?;
        if part.writer.next_seq() > cut.seq().next() {
            let reason = "a namespace has more rows than events made them".to_owned();
            return Err(Error::Inconsistent { reason });
        }
        let rows = part.rows;
        metrics::counter!("kalamdb_backup_rows_total").increment(rows);
        cut.finish(part.writer, (PartKind::Full, 0), rows)
    }

    /// Writes a part with what was committed to the namespace since its last part; none where the log does not reach back.
    fn back_up_changes(&self, last: &Part, path: &Path, cut: &NamespaceCut) -> Result<Option<Part>> {
        match self.changes_since(last, path, cut) {
            Ok(part) => Ok(Some(part)),
            Err(Error::Log(
                error @ (kalamdb_log::Error::BelowFloor { .. } | kalamdb_log::Error::NotInLog { .. }),
            )) => {
                tracing::info!(%error, "the log no longer has what the backup lacks: it begins anew");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn changes_since(&self, last: &Part, path: &Path, cut: &NamespaceCut) -> Result<Part> {
        let mut reader = self.router.log_reader();
        reader.seek(Seq::new(last.seq))?;
        let mut writer = PartWriter::begin(path)?;
        let mut concern = Concern {
            namespace: &cut.namespace.id,
            tables: last.tables.iter().copied().map(TableId::new).collect(),
        };
        let (mut row_events, mut read_to) = (0, Seq::new(last.seq));
        while read_to < cut.seq() {
            if self.bell.is_stopped() {
                return Err(Error::ShuttingDown);
            }
            let Some(frame) = reader.next()? else {
                let reason = format!("the log ends at seq {read_to}, before {} that was applied", cut.seq());
                return Err(Error::Inconsistent { reason });
            };
            read_to = frame.last_seq();
            let events = concern.of(&frame)?;
            if !events.is_empty() {
                row_events += events.iter().filter(|(_, is_row)| *is_row).count() as u64;
                let events: Vec<EncodedEvent> = events.into_iter().map(|(event, _)| event).collect();
                writer.push(frame.last_seq(), frame.header().fields.commit_time, &events)?;
            }
        }
        cut.finish(writer, (PartKind::Changes, last.seq), row_events)
    }
}

/// Which events are of a namespace.
struct Concern<'a> {
    namespace: &'a NamespaceId,
    /// Its tables, as of the last event that was looked at.
    tables: BTreeSet<TableId>,
}

impl Concern<'_> {
    /// The events of a commit that are of the namespace, and whether each is of a row. What moves rows between tiers changes none, and
    /// what streams hold goes by itself.
    fn of(&mut self, frame: &Frame) -> Result<Vec<(EncodedEvent, bool)>> {
        use ArchivedChangeEvent as Event;
        let mut found = Vec::new();
        for (_, event) in frame.events() {
            let event = event?;
            let is_row = matches!(event, Event::RowInserted(_) | Event::RowUpdated(_) | Event::RowDeleted(_));
            let is_ours = match event {
                _ if is_row => event.partition().is_some_and(|it| self.tables.contains(&it.table.to_id())),
                Event::NamespaceCreated(_)
                | Event::NamespaceAltered(_)
                | Event::NamespaceDropped(_)
                | Event::TableCreated(_)
                | Event::TableAltered(_)
                | Event::TableDropped(_)
                | Event::SchemaVersionAdded(_)
                | Event::TableTruncated(_) => self.is_of_catalog(&event.to_event()?),
                _ => false,
            };
            if is_ours {
                found.push((event.to_event()?.encode()?, is_row));
            }
        }
        Ok(found)
    }

    fn is_of_catalog(&mut self, event: &ChangeEvent) -> bool {
        match event {
            ChangeEvent::NamespaceCreated(namespace) | ChangeEvent::NamespaceAltered(namespace) => {
                namespace.id == *self.namespace
            }
            ChangeEvent::NamespaceDropped(id) => **id == *self.namespace,
            ChangeEvent::TableCreated(table) if table.namespace == *self.namespace => {
                self.tables.insert(table.id);
                true
            }
            ChangeEvent::TableAltered(table) => self.tables.contains(&table.id),
            ChangeEvent::SchemaVersionAdded(schema) => self.tables.contains(&schema.table),
            ChangeEvent::TableTruncated(truncated) => self.tables.contains(&truncated.table),
            ChangeEvent::TableDropped(dropped) => self.tables.remove(&dropped.table),
            _ => false,
        }
    }
}

/// A full part on its way.
struct FullPart<'r> {
    runner: &'r JobRunner,
    job: &'r Job,
    writer: PartWriter,
    commit_time: i64,
    /// Those of the commit that is being put together, and their bytes.
    events: Vec<EncodedEvent>,
    bytes: usize,
    rows: u64,
    progress: super::Pace,
}

impl FullPart<'_> {
    fn push(&mut self, events: &[ChangeEvent]) -> Result<()> {
        for event in events {
            let event = event.encode()?;
            self.bytes += event.as_bytes().len();
            self.events.push(event);
        }
        Ok(())
    }

    /// The rows of a partition that are not deleted.
    fn push_rows(&mut self, cut: &Cut, info: &TableInfo, partition: &Partition) -> Result<()> {
        let mut failed = FirstError::none();
        cut.scan(info.keyspace(), partition, &KeyRange::default(), |key, row| {
            if row.deleted {
                return ControlFlow::Continue(());
            }
            let inserted =
                RowInserted { partition: partition.clone(), key: key.to_vec(), row: row.row.to_vec() };
            let pushed = self.push_row(inserted);
            failed.or_stop(pushed.map(|()| ControlFlow::Continue(())))
        })?;
        failed.check()
    }

    fn push_row(&mut self, row: RowInserted) -> Result<()> {
        self.push(&[ChangeEvent::RowInserted(Box::new(row))])?;
        self.rows += 1;
        if self.events.len() < COMMIT_EVENTS_MAX && self.bytes < COMMIT_BYTES_MAX {
            return Ok(());
        }
        if self.runner.bell.is_stopped() {
            return Err(Error::ShuttingDown);
        }
        self.end_commit()?;
        let rows = self.rows;
        self.runner.tell_progress(self.job, &mut self.progress, || json!({"rows": rows}))
    }

    fn end_commit(&mut self) -> Result<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        let last = Seq::new(self.writer.next_seq().get() + self.events.len() as u64 - 1);
        self.writer.push(last, self.commit_time, &self.events)?;
        self.events.clear();
        self.bytes = 0;
        Ok(())
    }
}
