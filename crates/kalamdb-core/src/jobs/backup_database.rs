//! The job that writes a namespace to a backup.
//!
//! It takes one cut of the rows, on the sequencer, together with the catalog as of the very same seq: cold files that the cut has
//! stay for as long as it is held, whatever flushes and compactions do meanwhile. What is in the backup already is not written
//! again: the log tells what has been committed since. Where it no longer does, or its history is another one, or a part is
//! missing, or what was committed has come to be more than the rows are, a full part begins anew. The list of parts is replaced last: a job that dies is done again, and finds the parts before it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kalamdb_store::{Cut, FirstError, KeyRange};
use log_format::{
    ChangeEvent, EncodedEvent, Frame, Job, Namespace, NamespaceId, Operation, Partition, RowInserted, Seq,
    TableId, UserId,
};
use serde_json::{Value as Json, json};

use super::{JobRunner, Pace, Parameters, Progress, job_updated, new_job_of_namespace};
use crate::backup::{BackupList, Part, PartKind, PartWriter, WrittenPart};
use crate::error::{Error, Result};
use crate::fail_points::FailPoint;
use crate::requests::Planning;
use crate::table::TableInfo;

/// The job's type.
pub(crate) const BACKUP_DATABASE: &str = "backup_database";

/// Events of a commit in a backup, or made by a restore, at the most.
const COMMIT_EVENTS_MAX: usize = 1000;
/// Bytes of such a commit's events, about.
const COMMIT_BYTES_MAX: usize = 1 << 20;

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
    /// The checksum of the log's last commit that it has.
    log_crc: u32,
}

impl NamespaceCut {
    const fn seq(&self) -> Seq {
        self.rows.seq()
    }

    /// Ends the file of a part that tells of everything behind a seq up to here.
    fn finish(&self, writer: PartWriter, (kind, from_seq): (PartKind, u64), row_events: u64) -> Result<Part> {
        let file = Part::file_name(kind, self.seq());
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
            tables: self.tables.len() as u64,
            log_crc: self.log_crc,
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
        self.refuse_if_stopped(job, &path)?;
        self.note_if_stopped(job, self.add_to_backup(job, &path))
    }

    fn add_to_backup(&self, job: &Job, path: &Path) -> Result<Progress> {
        let found = BackupList::read(path)?;
        let cut = self.namespace_cut(job)?;
        self.fail_points.reach(FailPoint::AfterBackupCut);
        let mut list = self.own_list(found, path, &cut)?;
        let changes = if list.is_there(path) { self.back_up_changes(job, &list, path, &cut)? } else { None };
        let is_full = match &changes {
            Some(changes) => list.wants_full(changes.bytes),
            None => true,
        };
        let mut written: Vec<Part> = changes.into_iter().collect();
        if is_full {
            written.push(self.back_up_all(job, path, &cut)?);
        }
        self.fail_points.reach(FailPoint::AfterBackupPart);
        list.parts.extend(written.iter().cloned());
        list.tables = cut.tables.iter().map(|info| info.id().get()).collect();
        list.write(path)?;
        list.sweep(path);
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
            let cut = planning.store.cut()?;
            let progress = json!({"seq": cut.seq().get()}).to_string();
            let tables = planning.catalog.tables_in(&namespace);
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((cut, found, tables));
            Ok(vec![job_updated(planning, &id, |job| job.result = Some(progress))?])
        })?;
        let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (rows, namespace, tables) = taken.ok_or(Error::ShuttingDown)?;
        let log_crc = self.log_crc(rows.seq()).ok_or_else(|| Error::Inconsistent {
            reason: format!("the log cannot be read at its end, behind seq {}", rows.seq()),
        })?;
        Ok(NamespaceCut { rows, namespace, tables, commit_time: committed.commit_time, log_crc })
    }

    /// The checksum of the log's commit that ends at a seq, as the one behind it names it; none where the log has not got both, or
    /// cannot be read there: whose history it is cannot be told then.
    pub(super) fn log_crc(&self, seq: Seq) -> Option<u32> {
        let mut reader = self.router.log_reader();
        match reader.seek(seq).and_then(|()| reader.next()) {
            Ok(frame) => frame.map(|frame| frame.header().fields.previous_crc),
            Err(error) => {
                tracing::info!(%seq, %error, "the log does not tell what it had there");
                None
            }
        }
    }

    /// The list that is there, if it is of this namespace, or a new one.
    fn own_list(&self, found: Option<BackupList>, path: &Path, cut: &NamespaceCut) -> Result<BackupList> {
        let (database, namespace) = (self.database.to_string(), cut.namespace.id.to_string());
        let Some(list) = found else {
            let mut list = BackupList::new(database, namespace);
            if !list.left_files(path).is_empty() {
                let reason = "it has parts of a backup, but not their list: bring BACKUP.json back, or back up to another \
                              directory"
                    .to_owned();
                return Err(Error::Backup { path: path.to_owned(), reason });
            }
            // Whose parts these are is known before there is one.
            list.write(path)?;
            return Ok(list);
        };
        let is_ahead = list
            .parts
            .last()
            .is_some_and(|last| last.seq > cut.seq().get() || last.commit_time > cut.commit_time);
        if list.database != database || list.namespace != namespace || is_ahead {
            let of = if is_ahead {
                "has later commits than this database"
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
            writer: PartWriter::begin(path)?,
            commit_time: cut.commit_time,
            batch: Batch::default(),
            rows: 0,
        };
        part.push(&ChangeEvent::NamespaceCreated(Box::new(cut.namespace.clone())))?;
        for info in &cut.tables {
            // A table and its schema versions are one commit, as the catalog wants them.
            part.end_commit()?;
            part.push(&ChangeEvent::TableCreated(Box::new(info.record().clone())))?;
            for schema in info.versions() {
                part.push(&ChangeEvent::SchemaVersionAdded(Box::new(schema.clone())))?;
            }
        }
        part.end_commit()?;
        let mut pace = Pace::begin();
        for info in &cut.tables {
            each_row(&cut.rows, info, |partition, key, row| {
                if part.push_row(partition, key, row)? {
                    self.go_on(job, &mut pace, ("rows", part.rows))?;
                }
                Ok(())
            })?;
        }
        part.end_commit()?;
        if part.writer.next_seq() > cut.seq().next() {
            let reason = "a namespace has more rows than events made them".to_owned();
            return Err(Error::Inconsistent { reason });
        }
        metrics::counter!("kalamdb_backup_rows_total").increment(part.rows);
        cut.finish(part.writer, (PartKind::Full, 0), part.rows)
    }

    /// Between two steps of a long job: how far it has come, by which count.
    pub(super) fn go_on(&self, job: &Job, pace: &mut Pace, (count, so_far): (&str, u64)) -> Result<()> {
        if self.bell.is_stopped() {
            return Err(Error::ShuttingDown);
        }
        self.tell_progress(job, pace, || json!({count: so_far}))
    }

    /// Writes a part with what was committed to the namespace since its last part; none where the log does not reach back.
    fn back_up_changes(
        &self,
        job: &Job,
        list: &BackupList,
        path: &Path,
        cut: &NamespaceCut,
    ) -> Result<Option<Part>> {
        let Some(before) = list.parts.last() else { return Ok(None) };
        if self.log_crc(Seq::new(before.seq)) != Some(before.log_crc) {
            tracing::info!("the log does not go on where the backup ends: it begins anew");
            return Ok(None);
        }
        match self.changes_since(job, (before, &list.tables), path, cut) {
            Ok(part) => Ok(Some(part)),
            Err(Error::Log(error)) => {
                tracing::warn!(%error, "the log cannot be read where the backup lacks it: it begins anew");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn changes_since(
        &self,
        job: &Job,
        (last, tables): (&Part, &[u64]),
        path: &Path,
        cut: &NamespaceCut,
    ) -> Result<Part> {
        let mut reader = self.router.log_reader();
        reader.seek(Seq::new(last.seq))?;
        let mut writer = PartWriter::begin(path)?;
        let mut concern = Concern {
            namespace: &cut.namespace.id,
            tables: tables.iter().copied().map(TableId::new).collect(),
        };
        let (mut row_events, mut read_to) = (0, Seq::new(last.seq));
        let mut pace = Pace::begin();
        while read_to < cut.seq() {
            self.go_on(job, &mut pace, ("row_events", row_events))?;
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
        let mut found = Vec::new();
        for (_, event) in frame.events() {
            let event = event?;
            let is_row = event.writes_row();
            if is_row && !event.partition().is_some_and(|it| self.tables.contains(&it.table.to_id()))
                || !is_row && event.operation() != Operation::Catalog
            {
                continue;
            }
            let event = event.to_event()?;
            if is_row || self.is_of_catalog(&event) {
                found.push((event.encode()?, is_row));
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
struct FullPart {
    writer: PartWriter,
    commit_time: i64,
    /// The commit that is being put together.
    batch: Batch,
    rows: u64,
}

impl FullPart {
    fn push(&mut self, event: &ChangeEvent) -> Result<()> {
        self.batch.push(event.encode()?);
        Ok(())
    }

    /// Adds a row; whether a commit was ended before.
    fn push_row(&mut self, partition: &Partition, key: &[u8], row: &[u8]) -> Result<bool> {
        let event = row_inserted(partition, key, row).encode()?;
        let is_full = !self.batch.has_room_for(&event);
        if is_full {
            self.end_commit()?;
        }
        self.batch.push(event);
        self.rows += 1;
        Ok(is_full)
    }

    fn end_commit(&mut self) -> Result<()> {
        let events = self.batch.take();
        if events.is_empty() {
            return Ok(());
        }
        let last = Seq::new(self.writer.next_seq().get() + events.len() as u64 - 1);
        self.writer.push(last, self.commit_time, &events)
    }
}

/// Events on their way into a commit of a bounded size.
#[derive(Default)]
pub(super) struct Batch {
    events: Vec<EncodedEvent>,
    bytes: usize,
}

impl Batch {
    /// Whether another event fits: one always does, however large.
    pub(super) fn has_room_for(&self, event: &EncodedEvent) -> bool {
        self.events.is_empty()
            || self.events.len() < COMMIT_EVENTS_MAX
                && self.bytes + event.as_bytes().len() <= COMMIT_BYTES_MAX
    }

    pub(super) fn push(&mut self, event: EncodedEvent) {
        self.bytes += event.as_bytes().len();
        self.events.push(event);
    }

    /// What is in it, which it has no longer.
    pub(super) fn take(&mut self) -> Vec<EncodedEvent> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }
}

pub(super) fn row_inserted(partition: &Partition, key: &[u8], row: &[u8]) -> ChangeEvent {
    let (partition, key, row) = (partition.clone(), key.to_vec(), row.to_vec());
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key, row }))
}

/// Hands the rows of a table that are not deleted to `visit`, owner by owner: none of a stream, whose rows go by themselves.
pub(super) fn each_row(
    cut: &Cut,
    info: &TableInfo,
    mut visit: impl FnMut(&Partition, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    if info.stream().is_some() {
        return Ok(());
    }
    for partition in cut.partitions(info.keyspace(), info.id())? {
        let mut failed = FirstError::none();
        cut.scan(info.keyspace(), &partition, &KeyRange::default(), |key, row| {
            let visited = if row.deleted { Ok(()) } else { visit(&partition, key, row.row) };
            failed.or_stop(visited.map(ControlFlow::Continue))
        })?;
        failed.check()?;
    }
    Ok(())
}
