//! Whether the engine takes writes, and why not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kalamdb_store::Store;

use crate::clock;
use crate::error::Error;

/// Time for which the result of an audit of cold files is reused.
const AUDIT_PERIOD: Duration = Duration::from_secs(5);
/// As [`AUDIT_PERIOD`], of files in object stores.
const OBJECTS_AUDIT_PERIOD: Duration = Duration::from_mins(5);

/// Looks for cold files that are gone, in the background, when somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    // When files of this machine, and those in object stores, were last looked for. Held for a look or a change.
    begun: Mutex<[Option<Instant>; 2]>,
    is_running: Arc<AtomicBool>,
}

impl Audit {
    /// Begins to look, where that was not done just now; the thread that does.
    pub(crate) fn begin(&self, store: &Arc<Store>) -> Option<JoinHandle<()>> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |at: Option<Instant>, period| at.is_none_or(|at: Instant| at.elapsed() >= period);
        let [files, objects] = *begun;
        if !is_due(files, AUDIT_PERIOD) || self.is_running.swap(true, Ordering::AcqRel) {
            return None;
        }
        let now = Some(clock::instant());
        let with_objects = is_due(objects, OBJECTS_AUDIT_PERIOD);
        *begun = [now, if with_objects { now } else { objects }];
        let (store, is_running) = (Arc::clone(store), Arc::clone(&self.is_running));
        let look = move || {
            if let Err(error) = store.audit_cold_files(with_objects) {
                tracing::warn!(%error, "cold files could not be looked for");
            }
            is_running.store(false, Ordering::Release);
        };
        std::thread::Builder::new().name("cold-audit".to_owned()).spawn(look).ok()
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Well,
    /// Writes go on once there is space.
    Full { reason: String },
    /// Until a restart.
    Failed { reason: String },
}

/// Set by the sequencer, read by everybody.
#[derive(Debug, Default)]
pub(crate) struct Health {
    // Held to look at it or change it.
    state: Mutex<State>,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing can be written; none where it can.
    pub(crate) fn failure(&self) -> Option<String> {
        match &*self.state() {
            State::Well => None,
            State::Full { reason } | State::Failed { reason } => Some(reason.clone()),
        }
    }

    /// No more writes until a restart. The first reason stays.
    pub(crate) fn fail(&self, error: &Error) {
        let mut state = self.state();
        if matches!(*state, State::Failed { .. }) {
            return;
        }
        let reason = format!("{error}; start it again when the cause is mended");
        tracing::error!(%reason, "a write failed: the database is read-only");
        metrics::gauge!("kalamdb_read_only").set(1.0);
        *state = State::Failed { reason };
    }

    /// No writes until there is space.
    pub(crate) fn wait_for_space(&self, error: &Error) {
        let mut state = self.state();
        if matches!(*state, State::Well) {
            let reason = format!("{error}; it goes on by itself once there is space");
            tracing::error!(%reason, "the disk is full: the database is read-only");
            metrics::gauge!("kalamdb_read_only").set(1.0);
            metrics::counter!("kalamdb_disk_full_total").increment(1);
            *state = State::Full { reason };
        }
    }

    /// There is space again.
    pub(crate) fn go_on(&self) {
        let mut state = self.state();
        if matches!(*state, State::Full { .. }) {
            tracing::info!("there is space again: the database takes writes");
            metrics::gauge!("kalamdb_read_only").set(0.0);
            *state = State::Well;
        }
    }
}
