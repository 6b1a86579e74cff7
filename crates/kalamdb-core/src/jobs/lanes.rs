//! Which thread does which job.
//!
//! A storage location that does not answer keeps whoever asks it for as long as a request may take. So the jobs of each have a
//! thread of their own while there are any, and those of the database's own directory never wait for them. The jobs of one
//! table are always done one after the other: all of them are at one location.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use log_format::{Job, JobId};
use serde_json::Value as Json;

use super::{BACKUP_DATABASE, DROP_TABLE, JobRunner, Parameters, REMOVE_FILES, RESTORE_DATABASE};
use crate::error::{Error, Result};
use crate::places::location_of;

/// The storage location that jobs are done at; none: the database's own directory.
pub(super) type Lane = Option<String>;

/// Where backups are made and restored, one after the other: they take long, and nobody waits for them. No storage location can have
/// this name.
const BACKUPS: &str = "/backups";

/// Hands out jobs.
pub(super) struct Lanes {
    runner: Arc<JobRunner>,
    /// Jobs that this process has begun or taken up again, and where they are done, whatever becomes of their tables.
    begun: HashMap<JobId, Lane>,
    /// Locations that a crash may have left files at. IMPORTANT: they are swept before the first job there, since nobody else
    /// writes files: what no manifest lists until then is what a crash left.
    unswept: BTreeSet<String>,
    /// Who is at work away from the own directory.
    away: BTreeMap<String, JoinHandle<()>>,
    back: (Sender<Back>, Receiver<Back>),
}

/// What came of the work at a location: whether nothing has to wait.
type Back = (String, Result<bool>);

impl Drop for Lanes {
    fn drop(&mut self) {
        for thread in std::mem::take(&mut self.away).into_values() {
            // It has told of a panic.
            let _ = thread.join();
        }
    }
}

impl Lanes {
    pub(super) fn new(runner: Arc<JobRunner>) -> Self {
        let unswept = runner.to_sweep.0.clone();
        Self { runner, begun: HashMap::new(), unswept, away: BTreeMap::new(), back: channel() }
    }

    /// Does what there is to do in the own directory, and sees to it that others do the rest; false where something has to wait.
    pub(super) fn turn(&mut self) -> Result<bool> {
        // IMPORTANT: before jobs are looked for: what they have done is then not found again.
        let waiting = self.take_back()?;
        let jobs = self.runner.unfinished()?;
        self.begin_new(&jobs)?;
        let mut lanes: BTreeMap<Lane, Vec<Job>> = BTreeMap::new();
        for (lane, _) in self.runner.left_files().iter().filter(|(_, left)| !left.is_empty()) {
            lanes.entry(lane.clone()).or_default();
        }
        for location in &self.unswept {
            lanes.entry(Some(location.clone())).or_default();
        }
        for job in jobs {
            let lane = self.begun.get(&job.id).cloned().unwrap_or_default();
            lanes.entry(lane).or_default().push(job);
        }
        let own = lanes.remove(&None).unwrap_or_default();
        for (location, jobs) in lanes.into_iter().filter_map(|(lane, jobs)| Some((lane?, jobs))) {
            if !self.away.contains_key(&location) && !waiting.contains(&location) {
                self.send(location, jobs)?;
            }
        }
        let all_done = self.runner.work_through(&None, &own)?;
        self.runner.forget_old()?;
        Ok(all_done && waiting.is_empty())
    }

    /// Those that came back; the locations at which something has to wait.
    fn take_back(&mut self) -> Result<HashSet<String>> {
        let (mut waiting, mut failure) = (HashSet::new(), None);
        while let Ok((location, done)) = self.back.1.try_recv() {
            if self.away.remove(&location).is_some() {
                metrics::gauge!("kalamdb_job_locations_busy").decrement(1.0);
            }
            match done {
                Ok(true) => {}
                Ok(false) => drop(waiting.insert(location)),
                Err(error) => {
                    tracing::warn!(at = location, %error, "jobs cannot go on");
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(waiting), Err)
    }

    /// Begins a thread that does these jobs, one after the other.
    fn send(&mut self, location: String, jobs: Vec<Job>) -> Result<()> {
        let (runner, back) = (Arc::clone(&self.runner), self.back.0.clone());
        let (is_unswept, name) = (self.unswept.remove(&location), location.clone());
        let work = move || {
            let worked = catch_unwind(AssertUnwindSafe(|| {
                if is_unswept
                    && let Err(error) = runner.store.sweep_storage_location(&name, runner.to_sweep.1)
                {
                    tracing::warn!(location = name, %error, "a storage location was not swept");
                }
                runner.work_through(&Some(name.clone()), &jobs)
            }));
            let done = worked.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())));
            // Nobody listens where the database closes.
            let _ = back.send((name, done));
            runner.bell.ring();
        };
        let thread = std::thread::Builder::new().name(format!("jobs at {location}")).spawn(work);
        let thread = thread.map_err(|source| Error::File { path: PathBuf::from(&location), source })?;
        self.away.insert(location, thread);
        metrics::gauge!("kalamdb_job_locations_busy").increment(1.0);
        Ok(())
    }

    /// Begins those that are new, all of them before the first is worked on: one flush is enough for what they wait for.
    fn begin_new(&mut self, jobs: &[Job]) -> Result<()> {
        let unfinished: HashSet<&JobId> = jobs.iter().map(|job| &job.id).collect();
        self.begun.retain(|id, _| unfinished.contains(id));
        let new: Vec<&Job> = jobs.iter().filter(|job| !self.begun.contains_key(&job.id)).collect();
        let last_freeing =
            new.iter().rposition(|job| matches!(job.job_type.as_str(), DROP_TABLE | REMOVE_FILES));
        for (at, job) in new.into_iter().enumerate() {
            if self.runner.bell.is_stopped() {
                return Ok(());
            }
            if Some(at) == last_freeing {
                // What they wait for may as well come at once; the commit that follows sees to it.
                self.runner.commits.ask_for_flush();
            }
            self.runner.begin(job)?;
            self.begun.insert(job.id.clone(), self.runner.lane_of(job));
        }
        Ok(())
    }
}

impl JobRunner {
    /// Where a job is to be done. One that finds nothing of its table has nothing to do elsewhere.
    fn lane_of(&self, job: &Job) -> Lane {
        if matches!(job.job_type.as_str(), BACKUP_DATABASE | RESTORE_DATABASE) {
            return Some(BACKUPS.to_owned());
        }
        let parameters = Parameters::of(job).ok()?;
        if matches!(job.job_type.as_str(), DROP_TABLE | REMOVE_FILES) {
            return parameters.0.get("location").and_then(Json::as_str).map(ToOwned::to_owned);
        }
        let table = self.catalog.by_id(parameters.table().ok()?)?;
        location_of(table.record()).map(ToOwned::to_owned)
    }
}
