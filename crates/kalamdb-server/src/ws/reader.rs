//! What a client sends, as commands.

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::sync::mpsc;

use super::close;
use super::liveness::Liveness;
use crate::refusal::Refusal;

/// Commands that may wait; then the client's own sending stalls.
pub(super) const COMMANDS_MAX: usize = 16;

/// What the connection is to do.
#[derive(Debug)]
pub(super) enum Command<T> {
    /// What the client says.
    Obey(T),
    /// Say what was wrong and go on.
    Complain(Refusal),
    /// Say what was wrong and end: the rest of the stream cannot be read.
    End(Refusal),
}

/// Reads until the client or the network ends it. `understand` makes something of messages, and nothing of control frames.
pub(super) async fn read<T>(
    mut stream: SplitStream<WebSocket>,
    message_bytes_max: usize,
    understand: impl Fn(Message) -> Option<Result<T, Refusal>>,
    liveness: &Liveness,
    commands: mpsc::Sender<Command<T>>,
) {
    while let Some(message) = stream.next().await {
        liveness.touch();
        let command = match message {
            // Pings are answered, and a close is confirmed, while the stream is read.
            Ok(message) => match understand(message) {
                Some(understood) => understood.map_or_else(Command::Complain, Command::Obey),
                None => continue,
            },
            Err(error) => match close::unreadable(error, message_bytes_max) {
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
