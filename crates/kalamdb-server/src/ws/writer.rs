//! The half of a connection that is written to.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use serde::Serialize;
use tokio::time::Instant;

use super::liveness::Liveness;
use crate::wire::codec::Codec;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody is there any more.
    Gone,
    /// The client has been told, with a close frame.
    Told,
}

/// Whether the connection goes on.
pub(super) type Step = Result<(), Ended>;

/// Writes frames, and waits for a slow client as long as it gives signs of being there.
pub(super) struct Writer<'a> {
    pub(super) codec: Codec,
    pub(super) sink: SplitSink<WebSocket, Message>,
    pub(super) liveness: &'a Liveness,
    pub(super) client_timeout: Duration,
    // Found once, not for each frame.
    frames_total: metrics::Counter,
    bytes_total: metrics::Counter,
    /// Bytes of all messages so far.
    pub(super) sent_bytes: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        codec: Codec,
        sink: SplitSink<WebSocket, Message>,
        liveness: &'a Liveness,
        client_timeout: Duration,
    ) -> Self {
        Self {
            codec,
            sink,
            liveness,
            client_timeout,
            frames_total: metrics::counter!("kalamdb_ws_frames_sent_total"),
            bytes_total: metrics::counter!("kalamdb_ws_bytes_sent_total"),
            sent_bytes: 0,
        }
    }

    /// Sends a message at once.
    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> Step {
        self.put_message(message).await?;
        self.flush().await
    }

    /// Adds a message to what is sent; it may wait for [`Writer::flush`].
    pub(super) async fn put_message<T: Serialize>(&mut self, message: &T) -> Step {
        match self.codec.encode(message) {
            Ok(frame) => self.put(frame).await,
            Err(refusal) => {
                tracing::error!(code = refusal.code, reason = refusal.message, "a message is lost");
                Ok(())
            }
        }
    }

    /// Adds a frame to what is sent; it may wait for [`Writer::flush`].
    pub(super) async fn put(&mut self, frame: Message) -> Step {
        let bytes = match &frame {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        self.frames_total.increment(1);
        self.bytes_total.increment(bytes as u64);
        self.sent_bytes += bytes as u64;
        patiently(self.liveness, self.client_timeout, self.sink.feed(frame)).await
    }

    pub(super) async fn flush(&mut self) -> Step {
        patiently(self.liveness, self.client_timeout, self.sink.flush()).await
    }

    /// Says goodbye; the connection does not go on.
    pub(super) async fn close(&mut self, code: u16, reason: &'static str) -> Step {
        self.put(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
        self.flush().await?;
        Err(Ended::Told)
    }
}

/// That the client takes something after making us wait is a sign of it, too.
async fn patiently<E>(
    liveness: &Liveness,
    timeout: Duration,
    sending: impl Future<Output = Result<(), E>>,
) -> Step {
    let mut sending = std::pin::pin!(sending);
    if let std::task::Poll::Ready(sent) = futures_util::poll!(&mut sending) {
        return sent.map_err(|_| Ended::Gone);
    }
    loop {
        let deadline = Instant::from_std(kalamdb_core::clock::instant() + timeout);
        match tokio::time::timeout_at(deadline, &mut sending).await {
            Ok(Ok(())) => {
                liveness.touch();
                return Ok(());
            }
            Err(_) if liveness.silent_for() < timeout => {}
            Ok(Err(_)) | Err(_) => return Err(Ended::Gone),
        }
    }
}
