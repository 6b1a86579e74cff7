//! What the tests share.

mod api;
mod server;
mod socket;

use std::time::Duration;

pub(crate) use api::{Answer, Api};
pub(crate) use server::{ROOT_PASSWORD, Server};
pub(crate) use socket::Socket;

/// How long anything may take before a test gives up: long enough for a busy machine and an unoptimized build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits, but not for ever.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than {PATIENCE:?}"),
    }
}
