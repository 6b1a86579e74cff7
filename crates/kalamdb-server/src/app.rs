//! What every request and connection of one server has in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kalamdb_core::Engine;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::auth::Tokens;
use crate::config::ServerConfig;

/// One server.
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) config: ServerConfig,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: PrometheusHandle,
    /// Bounds password checks at a time.
    pub(crate) logins: Semaphore,
    /// Bounds logins that are checked or wait.
    pub(crate) login_queue: Semaphore,
    /// Bounds subscriptions that begin or read a batch of their snapshot at a time.
    pub(crate) snapshots: Semaphore,
    /// Bounds subscriptions that read on in the log at a time.
    pub(crate) catch_ups: Semaphore,
    /// Turns true when the server is to stop.
    pub(crate) stop: watch::Receiver<bool>,
    /// WebSocket connections now.
    connections: AtomicUsize,
    /// Held by each connection: the server waits until all are gone.
    alive: mpsc::Sender<()>,
}

impl App {
    pub(crate) fn new(
        engine: Engine,
        config: ServerConfig,
        tokens: Tokens,
        metrics: PrometheusHandle,
        stop: watch::Receiver<bool>,
        alive: mpsc::Sender<()>,
    ) -> Self {
        let logins = Semaphore::new(config.logins_max.max(1));
        let login_queue = Semaphore::new(config.logins_max.max(1).saturating_add(config.logins_waiting_max));
        let (snapshots, catch_ups) = (config.snapshots_max.max(1), config.catch_ups_max.max(1));
        Self {
            snapshots: Semaphore::new(snapshots),
            catch_ups: Semaphore::new(catch_ups),
            engine,
            config,
            tokens,
            metrics,
            logins,
            login_queue,
            stop,
            connections: AtomicUsize::new(0),
            alive,
        }
    }

    /// When a client is to come back after the server went: at random, in as much time as all of them take to be served.
    pub(crate) fn retry_after_ms(&self) -> u64 {
        let spread = (self.connections.load(Ordering::Relaxed) as u64).clamp(250, 30_000);
        100 + getrandom::u64().map_or(spread, |number| number % spread)
    }

    /// Counts a connection in, unless there are as many as allowed.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let max = self.config.connections_max;
        let admit = |count| (count < max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).ok()?;
        metrics::gauge!("kalamdb_ws_connections").increment(1.0);
        Some(Admitted { app: Arc::clone(self), _alive: self.alive.clone() })
    }
}

/// A connection's place; dropping it gives it back.
pub(crate) struct Admitted {
    app: Arc<App>,
    _alive: mpsc::Sender<()>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.app.connections.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("kalamdb_ws_connections").decrement(1.0);
    }
}
