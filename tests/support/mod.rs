//! What the tests share.

#![allow(
    dead_code,
    unused_imports,
    reason = "it is compiled into several test binaries, and not each uses all of it"
)]

mod api;
mod copying;
mod follower;
mod frames;
mod random;
mod server;
mod socket;

use std::time::Duration;

pub(crate) use api::{Answer, Api};
pub(crate) use copying::copy_directory;
pub(crate) use follower::Follower;
pub(crate) use frames::{Raw, Seen, frame};
pub(crate) use random::{Random, seed};
pub(crate) use server::{ROOT_PASSWORD, Server};
pub(crate) use socket::Socket;

/// How long anything may take before a test gives up: long enough for a busy machine and an unoptimized build.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Waits, but not for ever.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let value = tokio::time::timeout(PATIENCE, future).await;
    value.unwrap_or_else(|_| panic!("{what} took more than {PATIENCE:?}"))
}
