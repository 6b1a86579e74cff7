//! Whether the engine takes writes, and why not.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;

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
