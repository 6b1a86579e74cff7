//! KalamDB over HTTP and WebSocket.
//!
//! [`serve`] is all there is to call ([`echo`] is for conformance suites). This crate owns the wire: routes, messages, how values look in JSON and
//! `MessagePack`, who may connect, and every limit on what a client can make the server do. It is the only crate that knows
//! any of that, and it knows nothing of storage: rows come as Arrow batches from [`kalamdb_core`] and leave as bytes.
//!
//! - `http`: the routes; `ws`: one connection each; `wire`: shapes and encodings both use.
//! - `auth`: tokens; `config`: limits; `refusal`: what a client is told.
//!
//! Invariants: no input panics or grows memory without bound; every refusal has a code of the protocol; a connection's
//! memory is bounded whatever it subscribes to and however slowly it reads.

mod app;
mod auth;
mod config;
mod error;
mod http;
mod observe;
mod refusal;
mod wire;
mod ws;

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use kalamdb_core::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::app::App;
use crate::auth::Tokens;

pub use crate::config::ServerConfig;
pub use crate::error::{Error, Result};
pub use crate::ws::echo;

/// Serves until `shutdown` completes; then takes no more connections, tells subscribers, and lets what is under way
/// finish within the grace of `config`. The engine stays open: closing it is up to the caller.
///
/// # Errors
/// Where the token key cannot be read or made, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let tokens = Tokens::open(engine.data_dir(), &config)?;
    let (stop, stopped) = watch::channel(false);
    let (alive, mut gone) = mpsc::channel(1);
    let grace = config.shutdown_grace();
    let metrics = observe::recorder();
    let app = Arc::new(App::new(engine, config, tokens, metrics.clone(), stopped.clone(), alive));

    let upkeep = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(observe::UPKEEP_PERIOD);
        loop {
            ticks.tick().await;
            metrics.run_upkeep();
        }
    });
    let server = axum::serve(InTurn(listener), http::router(app)).with_graceful_shutdown(async move {
        let mut stopped = stopped;
        // An error means that the sender is gone, which is a stop too.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let mut server = Box::pin(server.into_future());
    let outcome = tokio::select! {
        outcome = &mut server => outcome,
        () = shutdown => {
            tracing::info!("shutting down");
            let _ = stop.send(true);
            let finished = tokio::time::timeout(grace, async {
                let outcome = server.await;
                gone.recv().await;
                outcome
            });
            finished.await.unwrap_or_else(|_| {
                tracing::warn!("some requests were not done in time and are cut off");
                Ok(())
            })
        }
    };
    upkeep.abort();
    outcome.map_err(Error::Serve)
}

/// Takes a connection in once all that was ready before it has had its turn: however many come at once, those that are there do not
/// wait for all of them.
struct InTurn(TcpListener);

impl Listener for InTurn {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        tokio::task::yield_now().await;
        let (stream, address) = Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
