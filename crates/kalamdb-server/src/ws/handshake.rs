//! The beginning of a connection: who is it?

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use kalamdb_core::role_name;

use super::connection::stopped;
use super::{Wishes, close};
use crate::app::App;
use crate::auth::Identity;
use crate::refusal::Refusal;
use crate::wire::codec::Codec;
use crate::wire::messages::{
    ClientMessage, Compression, Protocol, ProtocolRequest, Serialization, ServerMessage,
};

/// Waits for the client to prove who it is, unless the upgrade did; tells it the outcome. None: the connection is over.
pub(super) async fn authenticate(
    app: &App,
    socket: &mut WebSocket,
    identity: Option<Identity>,
    wishes: Wishes,
) -> Option<(Identity, Codec)> {
    let (identity, asked, warnings) = match identity {
        Some(identity) => (identity, None, Vec::new()),
        None => {
            let mut stop = app.stop.clone();
            let waiting = async {
                tokio::select! {
                    found = wait(app, socket) => found,
                    () = stopped(&mut stop) => Err(Failure::Unreadable(Refusal::shutting_down())),
                }
            };
            match tokio::time::timeout(app.config.auth_deadline(), waiting).await {
                Ok(Ok(found)) => found,
                Ok(Err(failure)) => return refuse(app, socket, failure).await,
                Err(_) => {
                    let late = Refusal::new("AUTH_REQUIRED", "the authenticate message did not come in time");
                    return refuse(app, socket, Failure::NotAuthenticated(late)).await;
                }
            }
        }
    };
    let protocol = wishes.settle(asked);
    let (user, role) = (identity.user.as_str(), role_name(identity.role));
    let success = ServerMessage::AuthSuccess { user, role, protocol, warnings: &warnings };
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

/// Why nobody has authenticated.
enum Failure {
    /// Nobody is there any more.
    Gone,
    /// They are not who they say, or say nothing.
    NotAuthenticated(Refusal),
    /// The rest of the stream cannot be read, or will not be.
    Unreadable(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::NotAuthenticated(refusal)
    }
}

async fn refuse<T>(app: &App, socket: &mut WebSocket, failure: Failure) -> Option<T> {
    metrics::counter!("kalamdb_ws_auth_failures_total").increment(1);
    let refusal = match failure {
        Failure::Gone => return None,
        Failure::NotAuthenticated(refusal) => {
            send(app, socket, &ServerMessage::AuthError { message: &refusal.message }).await?;
            refusal
        }
        Failure::Unreadable(refusal) => {
            send(app, socket, &ServerMessage::error("", &refusal)).await?;
            refusal
        }
    };
    let farewell = async {
        let frame = CloseFrame { code: close::code_of(&refusal), reason: refusal.code.into() };
        socket.send(Message::Close(Some(frame))).await.ok()?;
        while socket.recv().await?.is_ok() {}
        Some(())
    };
    let _ = tokio::time::timeout(super::connection::FAREWELL, farewell).await;
    None
}

/// The client's user, the protocol it asks for, and warnings of fields that are not known.
type Greeting = (Identity, Option<Protocol>, Vec<String>);

/// Reads until the client has authenticated; whatever else it says is answered.
async fn wait(app: &App, socket: &mut WebSocket) -> Result<Greeting, Failure> {
    let codec = plain(app);
    while let Some(message) = socket.recv().await {
        let message = message.map_err(|error| {
            close::unreadable(error, codec.message_bytes_max).map_or(Failure::Gone, Failure::Unreadable)
        })?;
        let decoded = codec.decode(message);
        let warnings =
            decoded.as_ref().and_then(|it| it.as_ref().ok()).map(ClientMessage::warnings).unwrap_or_default();
        let refusal = match decoded {
            Some(Ok(ClientMessage::Authenticate { method, token, protocol, .. })) => {
                if method != "jwt" {
                    return Err(Refusal::new("UNSUPPORTED", "the method is jwt").into());
                }
                let protocol = protocol.as_ref().map(ProtocolRequest::protocol);
                return Ok((app.tokens.identity(&app.engine, &token)?, protocol, warnings));
            }
            // Nobody is told anything before it is known who they are.
            None | Some(Ok(ClientMessage::Ping { .. })) => continue,
            Some(Ok(_)) => Refusal::new("AUTH_REQUIRED", "send an authenticate message first"),
            Some(Err(refusal)) => refusal,
        };
        if send(app, socket, &ServerMessage::error("", &refusal)).await.is_none() {
            break;
        }
    }
    Err(Failure::Gone)
}
