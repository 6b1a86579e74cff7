//! A WebSocket connection, from the upgrade to the end.
//!
//! - `handshake`: who is it, and how do they want to be written to.
//! - `reader`: frames into commands.
//! - `connection`: the one task of a connection; commands, jobs and live changes become frames here.
//! - `subscriptions`: where each subscription is on its way from snapshot to live.
//! - `jobs`: what takes time and must not hold up the connection.
//! - `writer`: frames onto the network, patiently.
//! - `outbox`: where the engine leaves live changes; bounded.
//! - `close`: why a connection ends, as a close code.
//! - `echo`: the same connection without a database, for conformance suites.
//!
//! A slow client costs a cursor, not memory: what waits for it is bounded, and when that is full its subscriptions read on
//! from the log once it has taken what there was.

mod close;
mod connection;
mod echo;
mod handshake;
mod jobs;
mod liveness;
mod outbox;
mod reader;
mod subscriptions;
mod writer;

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;

use crate::app::App;
use crate::config::ServerConfig;
use crate::http::{bearer, refuse};
use crate::refusal::Refusal;
use crate::wire::messages::{Compression, Protocol, Serialization};

pub use echo::echo;

/// Frames beyond the message limit are still read up to this factor, so that they can be answered on a connection that
/// goes on; beyond, the connection ends.
const READ_FACTOR: usize = 4;
/// Ten thousand idle connections should not take a gigabyte.
const BUFFER_BYTES: usize = 8 << 10;

/// `GET /v1/ws`.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match prepare(&app, &headers, &uri, upgrade) {
        Ok(response) => response,
        Err(refusal) => refuse(&refusal),
    }
}

fn prepare(
    app: &Arc<App>,
    headers: &HeaderMap,
    uri: &Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|rejection| Refusal::protocol(rejection.to_string()))?;
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("?"));
    if !app.config.allows_origin(origin) {
        return Err(Refusal::new("PERMISSION_DENIED", "this origin may not connect"));
    }
    let wishes = Wishes::from_query(uri.query().unwrap_or_default())?;
    let identity = match bearer(headers)? {
        Some(token) => Some(app.tokens.identity(&app.engine, token)?),
        None => None,
    };
    let admitted =
        app.admit().ok_or_else(|| Refusal::new("RATE_LIMIT_EXCEEDED", "there are too many connections"))?;
    let app = Arc::clone(app);
    Ok(limited(upgrade, &app.config).on_upgrade(move |socket| async move {
        connection::serve(app, socket, identity, wishes).await;
        drop(admitted);
    }))
}

/// With the limits of every WebSocket of this server.
fn limited(upgrade: WebSocketUpgrade, config: &ServerConfig) -> WebSocketUpgrade {
    let limit = config.message_bytes_max.saturating_mul(READ_FACTOR);
    upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
}

/// What the URL says about how to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wishes {
    protocol: Protocol,
    /// Whatever is asked for later.
    never_compress: bool,
}

impl Wishes {
    fn from_query(query: &str) -> Result<Self, Refusal> {
        let mut wishes = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("compress", "false" | "0")) => wishes.never_compress = true,
                Some(("compress", _)) => wishes.never_compress = false,
                Some(("serialization", value)) => wishes.protocol.serialization = serialization(value)?,
                Some(("compression", value)) => wishes.protocol.compression = compression(value)?,
                _ => {}
            }
        }
        Ok(wishes)
    }

    /// What holds, given what the client asked for in a message.
    fn settle(self, asked: Option<Protocol>) -> Protocol {
        let protocol = asked.unwrap_or(self.protocol);
        if self.never_compress { Protocol { compression: Compression::None, ..protocol } } else { protocol }
    }
}

fn serialization(name: &str) -> Result<Serialization, Refusal> {
    match name {
        "json" => Ok(Serialization::Json),
        "msgpack" | "messagepack" => Ok(Serialization::MessagePack),
        _ => Err(Refusal::protocol("serialization is json or msgpack")),
    }
}

fn compression(name: &str) -> Result<Compression, Refusal> {
    match name {
        "gzip" => Ok(Compression::Gzip),
        "none" => Ok(Compression::None),
        _ => Err(Refusal::protocol("compression is gzip or none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_says_how_to_write() {
        let plain = Wishes::from_query("compress=false").unwrap();
        assert_eq!(plain.settle(None).compression, Compression::None);
        assert_eq!(plain.settle(Some(Protocol::default())).compression, Compression::None);
        let packed = Wishes::from_query("serialization=msgpack&compression=none").unwrap();
        let expected = Protocol { serialization: Serialization::MessagePack, compression: Compression::None };
        assert_eq!(packed.settle(None), expected);
        assert_eq!(Wishes::from_query("").unwrap(), Wishes::default());
        assert!(Wishes::from_query("serialization=xml").is_err());
    }
}
