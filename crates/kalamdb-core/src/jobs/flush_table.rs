//! The job that moves rows from the hot tier into Parquet files.
//!
//! It goes partition by partition, in steps of a bounded number of rows: a step reads one cut, writes a file, and commits the
//! event that lists it; applying that is what takes the hot rows. A step whose table was truncated or dropped meanwhile is
//! refused, and its file removed. A crash leaves a file without an event, which the next start sweeps.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use kalamdb_store::{ColdColumn, Cut, FileOrigin, FlushStep, Keyspace, PreparedFlush, TablePath};
use log_format::{
    ChangeEvent, ColdFile, Column, Job, Partition, SchemaVersion, Seq, Table, TableId, TableSchema, UserId,
};
use serde_json::json;

use super::compact_table::{Thoroughness, compact_table_job};
use super::{JobRunner, OWNERS_MAX, Parameters, Progress, new_job};
use crate::accounts;
use crate::clock;
use crate::error::{Error, Result};
use crate::fail_points::FailPoint;
use crate::places::location_of;
use crate::requests::Planning;
use crate::table::TableInfo;

/// The job's type.
pub(crate) const FLUSH_TABLE: &str = "flush_table";

/// Rows of a file at the most: what a read of it takes into memory, and a commit from the hot tier.
pub(super) const FILE_ROWS_MAX: usize = 1 << 16;
/// Bytes of a file's rows, about, before they are packed.
pub(super) const FILE_BYTES_MAX: usize = 32 << 20;

/// So many rows that are gone from the hot tier should not stay in its memory, where every scan passes over them.
const GONE_ROWS_MAX: u64 = 8192;

/// The job that flushes a table: the rows of these owners, or where none are named of all.
pub(crate) fn flush_table_job(
    planning: &Planning<'_>,
    table: &Table,
    owners: Option<&[UserId]>,
    user: &UserId,
) -> ChangeEvent {
    let owners = owners.map(|owners| owners.iter().map(UserId::as_str).collect::<Vec<_>>());
    let parameters = json!({"table_id": table.id.get(), "owners": owners});
    new_job(planning, 0, FLUSH_TABLE, table, user, &parameters)
}

/// What a flush has moved so far.
#[derive(Debug, Default)]
struct Moved {
    partitions: u64,
    files: u64,
    rows: u64,
    bytes: u64,
}

impl Moved {
    /// Adds what a step moved, if it did; says whether.
    fn add(&mut self, step: Option<&Self>) -> bool {
        if let Some(step) = step {
            metrics::counter!("kalamdb_flushed_rows_total").increment(step.rows);
            metrics::counter!("kalamdb_flushed_bytes_total").increment(step.bytes);
            self.files += step.files;
            self.rows += step.rows;
            self.bytes += step.bytes;
        }
        step.is_some()
    }
}

impl JobRunner {
    /// Flushes what the job names. Done again it finds what is still hot.
    pub(super) fn flush_table(&self, job: &Job) -> Result<Progress> {
        let parameters = Parameters::of(job)?;
        let table = parameters.table()?;
        let mut moved = Moved::default();
        let mut to_compact = Vec::new();
        for partition in self.partitions_to_flush(table, &parameters)? {
            self.flush_partition(&partition, &mut moved)?;
            if self.is_compaction_due(&partition)? {
                to_compact.push(partition);
            }
        }
        self.ask_to_compact(table, &to_compact)?;
        if moved.rows >= GONE_ROWS_MAX {
            self.commits.ask_for_flush();
        }
        let Moved { partitions, files, rows, bytes } = moved;
        Ok(Progress::Done(json!({"partitions": partitions, "files": files, "rows": rows, "bytes": bytes})))
    }

    /// The first step of a partition's flush alone.
    #[cfg(test)]
    pub(crate) fn flush_once(&self, partition: &Partition) -> Result<bool> {
        let mut moved = Moved::default();
        let Some(version) = self.store.cut()?.hot_versions(partition)?.first().copied() else {
            return Ok(false);
        };
        let flush = VersionFlush::new(self, partition, version)?;
        let Some(prepared) = flush.prepare(0, Vec::new())? else { return Ok(false) };
        moved.add(flush.commit(prepared, None)?.as_ref());
        Ok(true)
    }

    /// Makes a job of what the files of these partitions ask for.
    fn ask_to_compact(&self, table: TableId, partitions: &[Partition]) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let few = partitions.len() <= OWNERS_MAX;
        let owners = few.then(|| partitions.iter().map(|it| it.user.clone()).collect::<Option<Vec<_>>>());
        self.commits.catalog_blocking(move |planning| {
            let info = planning.catalog.by_id(table).ok_or(Error::TableDropped)?;
            let (owners, user) = (owners.flatten(), UserId::new(accounts::ROOT));
            let tiers = Thoroughness::Tiers;
            Ok(vec![compact_table_job(planning, info.record(), owners.as_deref(), tiers, &user)])
        })?;
        Ok(())
    }

    fn table_to_flush(&self, table: TableId) -> Result<Arc<TableInfo>> {
        self.catalog.by_id(table).ok_or(Error::TableDropped)
    }

    fn partitions_to_flush(&self, table: TableId, parameters: &Parameters) -> Result<Vec<Partition>> {
        let keyspace = self.table_to_flush(table)?.keyspace();
        match parameters.partitions()? {
            Some(partitions) => Ok(partitions),
            None if keyspace == Keyspace::Shared => Ok(vec![Partition::shared(table)]),
            None => Ok(self.store.cut()?.hot_partitions(keyspace, table)?),
        }
    }

    fn flush_partition(&self, partition: &Partition, moved: &mut Moved) -> Result<()> {
        let before = moved.files;
        for version in self.hot_versions(partition)? {
            VersionFlush::new(self, partition, version)?.run(moved)?;
        }
        moved.partitions += u64::from(moved.files > before);
        Ok(())
    }

    /// The schema versions that hot rows of a partition may have.
    fn hot_versions(&self, partition: &Partition) -> Result<BTreeSet<SchemaVersion>> {
        // IMPORTANT: the cut first: the table then knows every version of its rows.
        let cut = self.store.cut()?;
        match self.table_to_flush(partition.table)?.versions() {
            [only] => Ok(BTreeSet::from([only.version])),
            _ => Ok(cut.hot_versions(partition)?),
        }
    }

    /// A file's commit failed: it goes. Fine where its rows went meanwhile.
    pub(super) fn take_back(&self, file: Option<&ColdFile>, error: Error) -> Result<()> {
        // Whether it was committed is not known then: the next start looks.
        if matches!(error, Error::ShuttingDown | Error::ReadOnly { .. }) {
            return Err(error);
        }
        if let Some(file) = file {
            self.store.cold_files().remove(&file.path)?;
        }
        match error {
            Error::Conflict { .. } => Ok(()),
            error => Err(error),
        }
    }
}

/// The flush of a partition's rows of one schema version, as of one cut, in steps: each is a file and a commit.
struct VersionFlush<'r> {
    runner: &'r JobRunner,
    cut: Cut,
    origin: FileOrigin,
    directory: TablePath,
    tombstones_from: i64,
}

impl<'r> VersionFlush<'r> {
    fn new(runner: &'r JobRunner, partition: &Partition, version: SchemaVersion) -> Result<Self> {
        // IMPORTANT: the cut first: the table then knows every version of its rows.
        let cut = runner.store.cut()?;
        let info = runner.table_to_flush(partition.table)?;
        Ok(Self {
            runner,
            cut,
            origin: origin_of(&info, partition, version)?,
            directory: directory_of(&info),
            tombstones_from: tombstones_from(&info),
        })
    }

    /// All steps. While one's file is ended, written and committed by a thread beside, the next one's rows are gathered.
    fn run(&self, moved: &mut Moved) -> Result<()> {
        std::thread::scope(|scope| {
            let (mut number, mut from_key) = (0, Vec::new());
            let mut behind: Option<ScopedJoinHandle<'_, Result<Option<Moved>>>> = None;
            // What the step before it committed, if there was one.
            let mut own = None;
            loop {
                let prepared = self.prepare(number, from_key)?;
                if let Some(step) = behind.take() {
                    let done = step.join().unwrap_or_else(|panic| resume_unwind(panic))?;
                    if !moved.add(done.as_ref()) {
                        return Ok(());
                    }
                    own = self.runner.store.flushed_at(&self.origin.partition)?;
                }
                let Some(prepared) = prepared else { return Ok(()) };
                from_key = prepared.until_key().to_vec();
                if from_key.is_empty() {
                    moved.add(self.commit(prepared, own)?.as_ref());
                    return Ok(());
                }
                behind = Some(scope.spawn(move || self.commit(prepared, own)));
                number += 1;
            }
        })
    }

    /// The next step's rows, on their way into its file.
    fn prepare(&self, number: u64, from_key: Vec<u8>) -> Result<Option<PreparedFlush>> {
        if self.runner.bell.is_stopped() {
            return Err(Error::ShuttingDown);
        }
        let step = FlushStep {
            origin: self.origin.clone(),
            directory: &self.directory,
            number,
            from_key,
            tombstones_from: self.tombstones_from,
            rows_max: FILE_ROWS_MAX,
            bytes_max: FILE_BYTES_MAX,
        };
        Ok(self.cut.prepare_flush(step)?)
    }

    /// Ends a step's file, writes it and commits it. `own` is this flush's commit before. None where the rows have changed: what is
    /// there now is for another flush.
    fn commit(&self, prepared: PreparedFlush, own: Option<Seq>) -> Result<Option<Moved>> {
        let runner = self.runner;
        runner.fail_points.reach(FailPoint::BeforeColdFile);
        let flushed = prepared.put(runner.store.cold_files())?;
        runner.fail_points.reach(FailPoint::AfterColdFile);
        let (file, read_at) = (flushed.file.clone(), self.cut.seq());
        let committed = runner.commits.catalog_blocking(move |planning| {
            refuse_if_changed(planning, &flushed.partition, read_at, own)?;
            Ok(vec![ChangeEvent::Flushed(Box::new(flushed))])
        });
        match committed {
            Ok(_) => Ok(Some(file.map_or_else(Moved::default, |file| Moved {
                partitions: 0,
                files: 1,
                rows: file.rows,
                bytes: file.bytes,
            }))),
            Err(error) => runner.take_back(file.as_ref(), error).map(|()| None),
        }
    }
}

/// What was read must still be what is there. `own` is a flush that who read has made since.
pub(super) fn refuse_if_changed(
    planning: &Planning<'_>,
    partition: &Partition,
    read_at: Seq,
    own: Option<Seq>,
) -> Result<()> {
    let table = partition.table;
    planning.catalog.by_id(table).ok_or(Error::TableDropped)?;
    let is_other = |at: Seq| at > read_at && Some(at) != own;
    let is_flushed_since = planning.store.flushed_at(partition)?.is_some_and(is_other);
    if planning.store.truncated_at(table)? > read_at || is_flushed_since {
        return Err(Error::Conflict { attempts: 1 });
    }
    Ok(())
}

/// Where a table's files are.
pub(super) fn directory_of(info: &TableInfo) -> TablePath {
    let Table { namespace, name, location_path, .. } = info.record();
    let location = location_of(info.record());
    match location_path {
        Some(path) => TablePath::in_path(location, path, name, info.id()),
        None => {
            let is_shared = info.keyspace() == Keyspace::Shared;
            TablePath::new(location, namespace.as_str(), name, info.id(), is_shared)
        }
    }
}

/// What a file is of that has a partition's rows of this version.
pub(super) fn origin_of(
    info: &TableInfo,
    partition: &Partition,
    version: SchemaVersion,
) -> Result<FileOrigin> {
    let schema = info.versions().iter().find(|schema| schema.version == version);
    let schema = schema.ok_or_else(|| Error::Inconsistent {
        reason: format!("rows of {} have the unknown schema version {version}", info.full_name()),
    })?;
    Ok(FileOrigin { partition: partition.clone(), version, columns: columns_of(schema) })
}

fn columns_of(schema: &TableSchema) -> Vec<ColdColumn> {
    let keys: BTreeSet<_> = schema.primary_key.iter().collect();
    let column = |Column { id, name, data_type, .. }: &Column| ColdColumn {
        id: *id,
        name: name.clone(),
        data_type: *data_type,
        is_key: keys.contains(id),
    };
    schema.columns.iter().map(column).collect()
}

/// Tombstones of before are not kept any longer; a table that says nothing keeps all.
pub(super) fn tombstones_from(info: &TableInfo) -> i64 {
    let kept = info.record().deleted_retention_ms;
    let kept = kept.and_then(|kept| i64::try_from(kept).ok()).map(|kept| kept.saturating_mul(1000));
    kept.map_or(i64::MIN, |kept| clock::now_micros().saturating_sub(kept))
}
