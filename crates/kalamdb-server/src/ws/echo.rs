//! Answers each message with itself: what conformance suites ask of a server (docs/websocket-conformance.md). Limits, reader,
//! writer, close codes and the way a connection ends are those of every other connection; what is left out is KalamDB's own
//! protocol.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::liveness::Liveness;
use super::reader::{self, COMMANDS_MAX, Command};
use super::writer::{Ended, Writer};
use super::{close, connection, limited};
use crate::config::ServerConfig;
use crate::error::{Error, Result};
use crate::refusal::Refusal;
use crate::wire::codec::Codec;
use crate::wire::messages::Protocol;

/// A server of `WebSocket`s at `/` that answer each message with itself, with the limits of `config`. It knows no database and asks
/// nobody who they are: it is there to be tested.
///
/// # Errors
/// Where the listener fails.
pub async fn echo(listener: TcpListener, config: ServerConfig) -> Result<Infallible> {
    let router = Router::new().route("/", get(upgrade)).with_state(Arc::new(config));
    match axum::serve(listener, router).await {
        Ok(()) => Err(Error::Serve(std::io::ErrorKind::ConnectionAborted.into())),
        Err(error) => Err(Error::Serve(error)),
    }
}

async fn upgrade(State(config): State<Arc<ServerConfig>>, upgrade: WebSocketUpgrade) -> Response {
    limited(upgrade, &config).on_upgrade(move |socket| async move { serve(&config, socket).await })
}

async fn serve(config: &ServerConfig, socket: WebSocket) {
    let limit = config.message_bytes_max;
    let codec = Codec { protocol: Protocol::default(), message_bytes_max: limit };
    let (sink, stream) = socket.split();
    let liveness = Liveness::new();
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let writer = Writer::new(codec, sink, &liveness, config.client_timeout());
    let reading = reader::read(stream, limit, |message| same(message, limit), &liveness, sender);
    connection::both(reading, answer(writer, commands)).await;
}

fn same(message: Message, limit: usize) -> Option<Result<Message, Refusal>> {
    let bytes = match &message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
    };
    Some(if bytes > limit { Err(Refusal::too_large(limit)) } else { Ok(message) })
}

async fn answer(mut writer: Writer<'_>, mut commands: mpsc::Receiver<Command<Message>>) -> Ended {
    while let Some(command) = commands.recv().await {
        let step = match command {
            Command::Obey(message) => match writer.put(message).await {
                Ok(()) => writer.flush().await,
                gone => gone,
            },
            Command::Complain(refusal) | Command::End(refusal) => {
                writer.close(close::code_of(&refusal), refusal.code).await
            }
        };
        if let Err(ended) = step {
            return ended;
        }
    }
    Ended::Gone
}
