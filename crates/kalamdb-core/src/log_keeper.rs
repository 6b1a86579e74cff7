//! Lets go of the oldest part of the log, where it is told to: never of what the projections' files do not have.

use std::sync::Arc;
use std::time::Duration;

use kalamdb_log::{LogDirectory, Retention, drop_segments};
use kalamdb_sql::SystemTables;
use kalamdb_store::Store;

use crate::clock;
use crate::error::Result;
use crate::streams::Stop;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);

/// What it works on.
pub(crate) struct LogKeeper {
    pub(crate) directory: LogDirectory,
    pub(crate) retention: Retention,
    pub(crate) store: Arc<Store>,
    pub(crate) system: Arc<SystemTables>,
    pub(crate) stop: Arc<Stop>,
}

impl LogKeeper {
    /// Keeps until told to stop; at once where everything is to be kept.
    pub(crate) fn run(&self) {
        if self.retention == Retention::default() {
            return;
        }
        loop {
            if let Err(error) = self.turn() {
                tracing::warn!(%error, "the log's oldest segments cannot be let go");
            }
            if self.stop.waited(PERIOD) {
                return;
            }
        }
    }

    /// Lets go of what may go now.
    pub(crate) fn turn(&self) -> Result<()> {
        // What is in memory only has to be replayed after a crash.
        let persisted = self.store.persisted_seq()?.min(self.system.persisted_seq()?);
        let dropped = drop_segments(&self.directory, &self.retention, persisted.next(), clock::now_micros())?;
        if let Some(last) = dropped.last() {
            metrics::counter!("kalamdb_log_segments_dropped_total").increment(dropped.len() as u64);
            metrics::counter!("kalamdb_log_bytes_dropped_total")
                .increment(dropped.iter().map(|it| it.bytes).sum());
            tracing::info!(segments = dropped.len(), floor = %last.floor, "let go of the log's oldest segments");
        }
        Ok(())
    }
}
