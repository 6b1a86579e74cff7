//! What a client sends, as commands.

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;

use super::liveness::Liveness;
use crate::refusal::Refusal;
use crate::wire::codec::Codec;
use crate::wire::messages::ClientMessage;

/// Commands that may wait; then the client's own sending stalls.
pub(super) const COMMANDS_MAX: usize = 16;

/// What the connection is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// What the client says.
    Obey(ClientMessage),
    /// Say what was wrong and go on.
    Complain(Refusal),
    /// Say what was wrong and end: the rest of the stream cannot be read.
    End(Refusal),
}

/// Reads until the client or the network ends it.
pub(super) async fn read(
    mut stream: SplitStream<WebSocket>,
    codec: Codec,
    liveness: &Liveness,
    commands: mpsc::Sender<Command>,
) {
    while let Some(message) = stream.next().await {
        liveness.touch();
        let command = match message {
            Ok(Message::Text(text)) => obey(codec.decode_text(text.as_str())),
            Ok(Message::Binary(bytes)) => obey(codec.decode_binary(&bytes)),
            // Pings are answered, and a close is confirmed, while the stream is read.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => continue,
            Err(error) => match unreadable(error, codec.message_bytes_max) {
                Some(refusal) => Command::End(refusal),
                None => return,
            },
        };
        let last = matches!(command, Command::End(_));
        if commands.send(command).await.is_err() || last {
            break;
        }
    }
}

fn obey(message: Result<ClientMessage, Refusal>) -> Command {
    message.map_or_else(Command::Complain, Command::Obey)
}

/// What to say about a stream that cannot be read on; nothing where nobody listens any more.
fn unreadable(error: axum::Error, limit: usize) -> Option<Refusal> {
    match error.into_inner().downcast::<tungstenite::Error>().map(|error| *error) {
        Ok(tungstenite::Error::Capacity(_)) => Some(Refusal::too_large(limit)),
        Ok(tungstenite::Error::Utf8(_)) => Some(Refusal::new("UNSUPPORTED_DATA", "text frames are UTF-8")),
        Ok(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
            None
        }
        Ok(tungstenite::Error::Protocol(error)) => Some(Refusal::protocol(error.to_string())),
        _ => None,
    }
}
