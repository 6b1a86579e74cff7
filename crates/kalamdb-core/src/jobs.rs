//! Work that goes on after the statement that asked for it: one job after the other, at each storage location by itself.
//!
//! A job is a record in `system.jobs`, made in the very commit that makes it necessary, and every step of its way is an event
//! like any other. What a job does can be done again: one that a crash interrupted is taken up at the next start. A job that
//! cannot go on yet, because somebody still reads what it is to take away, lets others go first and is asked again.
//!
//! Jobs that ended are remembered for a while; then events take their records away.

mod backup_database;
mod compact_table;
mod drop_table;
mod flush_table;
mod lanes;
mod restore_database;

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kalamdb_sql::SystemTables;
use kalamdb_store::Store;
use log_format::{
    ChangeEvent, DatabaseId, Job, JobId, JobStatus, NamespaceId, Partition, Seq, Table, TableId, UserId,
};
use serde_json::Value as Json;

use self::compact_table::LeftFiles;
use self::lanes::{Lane, Lanes};
use crate::catalog::Catalog;
use crate::clock;
use crate::commit::Projections;
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::fail_points::{FailPoint, FailPoints};
use crate::live::Router;
use crate::requests::{Commits, Planning};

pub(crate) use self::backup_database::{BACKUP_DATABASE, backup_database_job};
pub(crate) use self::compact_table::{COMPACT_TABLE, Thoroughness, compact_table_job};
pub(crate) use self::drop_table::{DROP_TABLE, REMOVE_FILES, push_drop, remove_files_job};
pub(crate) use self::flush_table::{FLUSH_TABLE, flush_table_job};
pub(crate) use self::restore_database::{RESTORE_DATABASE, RestoreRequest, plan_restore};

/// How soon a job that cannot go on yet is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How soon after a failure of the database itself.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How often jobs that ended are looked at when there is nothing to do.
const IDLE: Duration = Duration::from_mins(1);
/// Jobs that one commit forgets at the most.
const FORGOTTEN_MAX: usize = 500;
/// Partitions that one job names; where there are more it goes over the whole table.
pub(crate) const OWNERS_MAX: usize = 1000;
/// How often a long job tells how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// Where a restore replays a backup, within the database's directory; removed when it ends.
const RESTORE_DIRECTORY: &str = "restore";
/// The node that jobs run on: there is one.
pub(crate) const NODE: &str = "local";

/// How long jobs that ended are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobRetention {
    /// Milliseconds after their end.
    pub finished_ms_max: u64,
    /// How many, the newest.
    pub finished_max: usize,
}

impl Default for JobRetention {
    fn default() -> Self {
        Self { finished_ms_max: 7 * 24 * 3_600_000, finished_max: 10_000 }
    }
}

/// Wakes the one who does the jobs.
#[derive(Debug, Default)]
pub(crate) struct JobBell {
    // Held for a look or a change.
    state: Mutex<Rung>,
    news: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    is_rung: bool,
    is_stopped: bool,
}

impl JobBell {
    fn state(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a job.
    pub(crate) fn ring(&self) {
        self.state().is_rung = true;
        self.news.notify_all();
    }

    /// There is to be no more work.
    pub(crate) fn stop(&self) {
        self.state().is_stopped = true;
        self.news.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    /// Waits for a job, for that long at the most. True where there is to be no more work.
    fn wait(&self, period: Duration) -> bool {
        let idle = |state: &mut Rung| !state.is_rung && !state.is_stopped;
        let waited = self.news.wait_timeout_while(self.state(), period, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_rung = false;
        state.is_stopped
    }
}

/// The id of a job that the event `created` makes: a seq is never used twice, and rises.
pub(crate) fn job_id(job_type: &str, created: Seq) -> JobId {
    JobId::new(format!("{job_type}-{created}"))
}

/// A job's record as it begins, the nth event of a commit that is being planned.
pub(crate) fn new_job(
    planning: &Planning<'_>,
    nth: usize,
    job_type: &str,
    table: &Table,
    user: &UserId,
    parameters: &Json,
) -> ChangeEvent {
    let on = (&table.namespace, Some(table.name.clone()));
    job_created(planning, nth, job_type, on, user, parameters)
}

/// The same of one that works on all of a namespace.
pub(crate) fn new_job_of_namespace(
    planning: &Planning<'_>,
    nth: usize,
    job_type: &str,
    namespace: &NamespaceId,
    user: &UserId,
    parameters: &Json,
) -> ChangeEvent {
    job_created(planning, nth, job_type, (namespace, None), user, parameters)
}

fn job_created(
    planning: &Planning<'_>,
    nth: usize,
    job_type: &str,
    (namespace, table_name): (&NamespaceId, Option<String>),
    user: &UserId,
    parameters: &Json,
) -> ChangeEvent {
    ChangeEvent::JobCreated(Box::new(Job {
        id: job_id(job_type, planning.next_seq.plus(nth as u64)),
        job_type: job_type.to_owned(),
        namespace: Some(namespace.clone()),
        table_name,
        user: Some(user.clone()),
        status: JobStatus::Queued,
        parameters: Some(parameters.to_string()),
        result: None,
        error_message: None,
        trace: None,
        memory_used: None,
        cpu_used: None,
        node: NODE.to_owned(),
        created_at: planning.now,
        started_at: None,
        finished_at: None,
    }))
}

/// What a job was told to do.
struct Parameters(Json);

impl Parameters {
    fn of(job: &Job) -> Result<Self> {
        serde_json::from_str(job.parameters.as_deref().unwrap_or_default())
            .map(Self)
            .map_err(|error| Error::definition(format!("the job's parameters are no JSON: {error}")))
    }

    fn number(&self, name: &str) -> Result<u64> {
        let found = self.0.get(name).and_then(Json::as_u64);
        found.ok_or_else(|| Error::definition(format!("the job's parameters have no number {name}")))
    }

    fn table(&self) -> Result<TableId> {
        Ok(TableId::new(self.number("table_id")?))
    }

    /// The partitions of the owners that are named; none where none are.
    fn partitions(&self) -> Result<Option<Vec<Partition>>> {
        let table = self.table()?;
        let Some(Json::Array(owners)) = self.0.get("owners") else { return Ok(None) };
        let owners = owners.iter().filter_map(Json::as_str);
        Ok(Some(owners.map(|owner| Partition::of_user(table, UserId::new(owner))).collect()))
    }
}

/// How far a job got.
enum Progress {
    /// Done, with this to tell.
    Done(Json),
    /// Done, and its record says so already.
    Ended,
    /// It has to wait for something.
    NotYet,
}

/// When a job last told how far it is.
struct Pace {
    told: Instant,
}

impl Pace {
    fn begin() -> Self {
        Self { told: clock::instant() }
    }
}

/// Does jobs; several threads may, at storage locations of their own.
pub(crate) struct JobRunner {
    store: Arc<Store>,
    system: Arc<SystemTables>,
    catalog: Arc<Catalog>,
    commits: Commits,
    bell: Arc<JobBell>,
    router: Arc<Router>,
    database: DatabaseId,
    /// Locations that a crash may have left files at, with the last event before this process.
    to_sweep: (BTreeSet<String>, Seq),
    /// Where a restore may replay a backup.
    scratch: PathBuf,
    /// Backups and restores that had to stop since the database took no writes. Held for a look or a change.
    stopped: Mutex<HashSet<JobId>>,
    retention: JobRetention,
    fail_points: FailPoints,
    // Held for a look or a change.
    left: Mutex<LeftFiles>,
}

impl JobRunner {
    /// One who does the jobs of these projections.
    pub(crate) fn new(
        on: &Projections,
        commits: Commits,
        router: &Arc<Router>,
        options: &EngineOptions,
        fail_points: FailPoints,
    ) -> Self {
        let (store, system, bell) = (Arc::clone(&on.store), Arc::clone(&on.system), Arc::clone(&on.jobs));
        let catalog = Arc::clone(&on.catalog);
        Self {
            store,
            system,
            catalog,
            commits,
            bell,
            router: Arc::clone(router),
            database: on.places.database(),
            to_sweep: on.places.to_sweep(),
            scratch: options.data_dir.join(RESTORE_DIRECTORY),
            stopped: Mutex::default(),
            retention: options.job_retention,
            fail_points,
            left: Mutex::default(),
        }
    }

    /// Does jobs until told to stop.
    pub(crate) fn run(self) {
        let bell = Arc::clone(&self.bell);
        let mut lanes = Lanes::new(Arc::new(self));
        loop {
            let pause = match lanes.turn() {
                Ok(true) => IDLE,
                Ok(false) => AGAIN_AFTER,
                Err(error) => {
                    // The database is closing or takes no writes: the jobs stay as they are.
                    tracing::debug!(%error, "jobs cannot go on");
                    FAILURE_PAUSE
                }
            };
            if bell.wait(pause) {
                return;
            }
        }
    }

    /// Those that are not done, the oldest first.
    fn unfinished(&self) -> Result<Vec<Job>> {
        let mut jobs: Vec<Job> = self.system.scan_all_jobs()?.into_iter().filter(is_unfinished).collect();
        jobs.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        Ok(jobs)
    }

    /// Does what there is to do in a lane; false where something has to wait.
    fn work_through(&self, lane: &Lane, jobs: &[Job]) -> Result<bool> {
        let mut all_done = true;
        for job in jobs {
            if self.bell.is_stopped() {
                return Ok(true);
            }
            all_done &= self.work_on(job)?;
        }
        Ok(self.remove_left_files(lane)? && all_done)
    }

    fn work_on(&self, job: &Job) -> Result<bool> {
        self.fail_points.reach(FailPoint::BeforeJobWorks);
        let worked = catch_unwind(AssertUnwindSafe(|| self.perform(job)));
        let worked = worked.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())));
        self.fail_points.reach(FailPoint::AfterJobWorked);
        match worked {
            Ok(Progress::NotYet) => return Ok(false),
            Ok(Progress::Ended) => metrics::counter!("kalamdb_jobs_ended_total").increment(1),
            Ok(Progress::Done(result)) => self.end(job, completed_with(&result))?,
            Err(error @ (Error::ShuttingDown | Error::ReadOnly { .. })) => return Err(error),
            Err(error) => {
                tracing::error!(job = %job.id, %error, "a job failed");
                if job.job_type == RESTORE_DATABASE {
                    let given_up = self.give_up_restore(job, failed_with(&error));
                    self.note_if_stopped(job, given_up)?;
                } else {
                    self.end(job, failed_with(&error))?;
                }
            }
        }
        Ok(true)
    }

    fn left_files(&self) -> MutexGuard<'_, LeftFiles> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a job of each type does.
    fn perform(&self, job: &Job) -> Result<Progress> {
        match job.job_type.as_str() {
            DROP_TABLE => self.free_dropped_table(job),
            REMOVE_FILES => self.remove_files(job),
            FLUSH_TABLE => self.flush_table(job),
            COMPACT_TABLE => self.compact_table(job),
            BACKUP_DATABASE => self.backup_database(job),
            RESTORE_DATABASE => self.restore_database(job),
            other => Err(Error::unsupported(format!("a job of type {other}"))),
        }
    }

    fn stopped(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a job of which this came, where that is that the database takes no writes.
    fn note_if_stopped<T>(&self, job: &Job, done: Result<T>) -> Result<T> {
        if matches!(done, Err(Error::ReadOnly { .. })) {
            self.stopped().insert(job.id.clone());
        }
        done
    }

    /// Refuses a job that was stopped so: again and again it would fill the disk with what it removes then.
    fn refuse_if_stopped(&self, job: &Job, path: &Path) -> Result<()> {
        if !self.stopped().contains(&job.id) {
            return Ok(());
        }
        let reason = "the database took no writes meanwhile: make room, and try again".to_owned();
        Err(Error::Backup { path: path.to_owned(), reason })
    }

    fn begin(&self, job: &Job) -> Result<()> {
        self.update(job, |job, now| {
            job.status = JobStatus::Running;
            job.started_at = job.started_at.or(Some(now));
        })
    }

    fn end(&self, job: &Job, outcome: impl FnOnce(&mut Job) + Send + 'static) -> Result<()> {
        metrics::counter!("kalamdb_jobs_ended_total").increment(1);
        let id = job.id.clone();
        self.commits.catalog_blocking(move |planning| Ok(vec![job_ended(planning, &id, outcome)?]))?;
        Ok(())
    }

    fn update(&self, job: &Job, change: impl FnOnce(&mut Job, i64) + Send + 'static) -> Result<()> {
        let id = job.id.clone();
        self.commits.catalog_blocking(move |planning| {
            Ok(vec![job_updated(planning, &id, |job| change(job, planning.now))?])
        })?;
        Ok(())
    }

    /// Has the job's record tell how far it is, now and then.
    fn tell_progress(&self, job: &Job, pace: &mut Pace, progress: impl FnOnce() -> Json) -> Result<()> {
        if pace.told.elapsed() < PROGRESS_PERIOD {
            return Ok(());
        }
        let progress = progress().to_string();
        self.update(job, |job, _| job.result = Some(progress))?;
        *pace = Pace::begin();
        Ok(())
    }

    /// Lets go of the records of jobs that ended long ago, or before too many others.
    fn forget_old(&self) -> Result<()> {
        let mut ended: Vec<Job> = self.system.scan_all_jobs()?;
        ended.retain(|job| !is_unfinished(job));
        ended.sort_by(|left, right| right.finished_at.cmp(&left.finished_at).then(right.id.cmp(&left.id)));
        // The last backup to each directory is remembered for good: what SHOW BACKUPS tells.
        let mut directories = HashSet::new();
        ended.retain(|job| {
            let is_backup = job.job_type == BACKUP_DATABASE && job.status == JobStatus::Completed;
            !is_backup || !directories.insert(job.parameters.clone())
        });
        let kept_ms = i64::try_from(self.retention.finished_ms_max).unwrap_or(i64::MAX);
        let oldest = clock::now_micros().saturating_sub(kept_ms.saturating_mul(1000));
        let is_old = |(at, job): &(usize, Job)| {
            *at >= self.retention.finished_max || job.finished_at.is_some_and(|ended| ended < oldest)
        };
        let old: Vec<JobId> = ended.into_iter().enumerate().filter(is_old).map(|(_, job)| job.id).collect();
        for ids in old.chunks(FORGOTTEN_MAX) {
            let events = ids.iter().map(|id| ChangeEvent::JobDropped(Box::new(id.clone()))).collect();
            self.commits.catalog_blocking(move |_| Ok(events))?;
        }
        Ok(())
    }
}

/// A job's record as a change leaves it.
fn job_updated(planning: &Planning<'_>, id: &JobId, change: impl FnOnce(&mut Job)) -> Result<ChangeEvent> {
    let found = planning.system.get_job(id)?;
    let mut job = found.ok_or_else(|| Error::NotFound { kind: "job", name: id.to_string() })?;
    change(&mut job);
    Ok(ChangeEvent::JobUpdated(Box::new(job)))
}

/// A job's record as its end leaves it.
fn job_ended(planning: &Planning<'_>, id: &JobId, outcome: impl FnOnce(&mut Job)) -> Result<ChangeEvent> {
    job_updated(planning, id, |job| {
        job.finished_at = Some(planning.now);
        outcome(job);
    })
}

/// What becomes of the record of a job that is done.
fn completed_with(result: &Json) -> impl FnOnce(&mut Job) + Send + 'static {
    let result = result.to_string();
    move |job| {
        job.status = JobStatus::Completed;
        job.result = Some(result);
    }
}

/// What becomes of the record of a job that is given up.
fn failed_with(error: &Error) -> impl FnOnce(&mut Job) + Send + 'static {
    let (message, trace) = (error.to_string(), trace(error));
    move |job| {
        job.status = JobStatus::Failed;
        job.error_message = Some(message);
        job.trace = Some(trace);
    }
}

const fn is_unfinished(job: &Job) -> bool {
    matches!(job.status, JobStatus::Queued | JobStatus::Running)
}

/// What an error came from, one cause a line.
fn trace(error: &Error) -> String {
    let mut lines = vec![format!("{error:?}")];
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        lines.push(source.to_string());
        cause = source.source();
    }
    lines.join("\n")
}
