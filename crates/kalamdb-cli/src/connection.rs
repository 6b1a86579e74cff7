//! A WebSocket to a server, for commands that listen: `tail --url`, `subscribe`.
//!
//! Owns how one is opened and how a refusal is told from an answer. What messages mean is for the commands.

use anyhow::Context;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::Token;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A refusal by the server.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Refused {
    /// Of the protocol.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A server, and who asks it.
pub(crate) struct Server<'a> {
    pub(crate) url: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

/// Opens a connection, authenticated by the token.
pub(crate) async fn connect(server: &Server<'_>, token: &Token) -> anyhow::Result<Socket> {
    let base = server.url.trim_end_matches('/').replacen("http", "ws", 1);
    let url = format!("{base}/v1/ws?compress=false");
    let mut request = url.into_client_request().context("not the URL of a server")?;
    request.headers_mut().insert(AUTHORIZATION, token.header_value().parse()?);
    let (socket, _) = connect_async(request).await.context("no connection to the server")?;
    Ok(socket)
}

/// The text that came, if it is one; `go_on` says how to take up again where it ended.
pub(crate) fn received(
    frame: Option<Result<Message, SocketError>>,
    go_on: impl Fn() -> String,
) -> anyhow::Result<Option<String>> {
    match frame {
        Some(Ok(Message::Text(text))) => Ok(Some(text.to_string())),
        Some(Ok(Message::Close(_))) | None => anyhow::bail!("the server closed the connection{}", go_on()),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(error).with_context(|| format!("the connection was lost{}", go_on())),
    }
}
