//! The beginning of a connection: who is it?

use axum::extract::ws::{Message, WebSocket};
use kalamdb_core::role_name;

use super::Wishes;
use crate::app::App;
use crate::auth::Identity;
use crate::refusal::Refusal;
use crate::wire::codec::Codec;
use crate::wire::messages::{ClientMessage, Compression, Protocol, Serialization, ServerMessage};

/// Waits for the client to prove who it is, unless the upgrade did; tells it the outcome. None: the connection is over.
pub(super) async fn authenticate(
    app: &App,
    socket: &mut WebSocket,
    identity: Option<Identity>,
    wishes: Wishes,
) -> Option<(Identity, Codec)> {
    let (identity, asked) = match identity {
        Some(identity) => (identity, None),
        None => {
            let waiting = wait(app, socket);
            match tokio::time::timeout(app.config.auth_deadline(), waiting).await {
                Ok(Ok(found)) => found?,
                Ok(Err(refusal)) => return refuse(app, socket, &refusal.message).await,
                Err(_) => return refuse(app, socket, "the authenticate message did not come in time").await,
            }
        }
    };
    let protocol = wishes.settle(asked);
    let success =
        ServerMessage::AuthSuccess { user: identity.user.as_str(), role: role_name(identity.role), protocol };
    send(app, socket, &success).await?;
    Some((identity, Codec { protocol, message_bytes_max: app.config.message_bytes_max }))
}

/// Until both sides have agreed on something, all is JSON text.
const fn plain(app: &App) -> Codec {
    let protocol = Protocol { serialization: Serialization::Json, compression: Compression::None };
    Codec { protocol, message_bytes_max: app.config.message_bytes_max }
}

async fn send(app: &App, socket: &mut WebSocket, message: &ServerMessage<'_>) -> Option<()> {
    socket.send(plain(app).encode(message).ok()?).await.ok()
}

async fn refuse<T>(app: &App, socket: &mut WebSocket, message: &str) -> Option<T> {
    metrics::counter!("kalamdb_ws_auth_failures_total").increment(1);
    send(app, socket, &ServerMessage::AuthError { message }).await?;
    let farewell = async {
        socket.send(Message::Close(None)).await.ok()?;
        while socket.recv().await?.is_ok() {}
        Some(())
    };
    let _ = tokio::time::timeout(super::connection::FAREWELL, farewell).await;
    None
}

type Found = Option<(Identity, Option<Protocol>)>;

/// Reads until the client has authenticated (or gone: none); whatever else it says is answered.
async fn wait(app: &App, socket: &mut WebSocket) -> Result<Found, Refusal> {
    let codec = plain(app);
    while let Some(Ok(message)) = socket.recv().await {
        let message = match message {
            Message::Text(text) => codec.decode_text(text.as_str()),
            Message::Binary(bytes) => codec.decode_binary(&bytes),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        let refusal = match message {
            Ok(ClientMessage::Authenticate { method, token, protocol }) => {
                if method != "jwt" {
                    return Err(Refusal::new("UNSUPPORTED", "the method is jwt"));
                }
                return Ok(Some((app.tokens.identity(&app.engine, &token)?, protocol)));
            }
            Ok(ClientMessage::Ping) => continue,
            Ok(_) => Refusal::new("AUTH_REQUIRED", "send an authenticate message first"),
            Err(refusal) => refusal,
        };
        if send(app, socket, &ServerMessage::error("", &refusal)).await.is_none() {
            break;
        }
    }
    Ok(None)
}
