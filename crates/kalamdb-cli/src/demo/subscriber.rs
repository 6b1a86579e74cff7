//! One live subscriber: watches its inbox over a WebSocket, through as many connections as it takes.
//!
//! It owns the client's half of the promise "each change exactly once, in order": it remembers the last seq it has
//! seen, resumes from there, and checks that each frame names the frame before it. It records what arrives and does
//! not judge it, and it does not know that the server is going to be killed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::backoff::Backoff;
use super::counters::{Account, Counters, add};
use super::wire::{ChangeType, ClientMessage, Row, ServerMessage};

const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A row as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The message's id.
    pub(super) id: i64,
    /// Whether it came as an insert with exactly what was written.
    pub(super) intact: bool,
}

/// From write to notification, in microseconds of the run's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// When the row's request was sent.
    pub(super) sent_us: u64,
    /// When the row arrived.
    pub(super) received_us: u64,
}

/// What one subscriber has seen.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// Every row, in order of arrival.
    pub(super) deliveries: Vec<Delivery>,
    /// The first arrival of every row.
    pub(super) timings: Vec<Timing>,
    /// Frames whose `prev_seq` is not the frame before.
    pub(super) chain_breaks: u64,
    /// When each of its subscriptions was acknowledged.
    pub(super) subscribed_us: Vec<u64>,
    /// Why it gave up.
    pub(super) failure: Option<String>,
}

/// Watches until told to stop, then drains what the server has already sent.
pub(super) async fn watch_inbox(
    account: Arc<Account>,
    counters: Arc<Counters>,
    url: String,
    mut stop: watch::Receiver<bool>,
) -> Sightings {
    let mut subscriber = Subscriber::new(account, counters, url);
    let mut backoff = Backoff::default();
    loop {
        let connections = subscriber.sightings.subscribed_us.len();
        let reason = match subscriber.converse(&mut stop).await {
            End::Stopped => return subscriber.sightings,
            End::Refused(reason) => return subscriber.give_up(&reason),
            End::Lost(reason) => reason,
        };
        if subscriber.sightings.subscribed_us.len() > connections {
            backoff.reset();
        }
        if !backoff.pause().await {
            return subscriber.give_up(&reason);
        }
    }
}

/// How a connection ended.
enum End {
    /// As asked.
    Stopped,
    /// Try again.
    Lost(String),
    /// Trying again would not help.
    Refused(String),
}

struct Subscriber {
    account: Arc<Account>,
    counters: Arc<Counters>,
    url: String,
    /// The place of each message in the inbox.
    positions: HashMap<i64, usize>,
    seen: Vec<bool>,
    missing: usize,
    /// The seq of the last frame, or of the snapshot as long as there was none.
    last_seq: Option<i64>,
    sightings: Sightings,
}

impl Subscriber {
    fn new(account: Arc<Account>, counters: Arc<Counters>, url: String) -> Self {
        let messages = &account.inbox.messages;
        let positions =
            messages.iter().enumerate().map(|(position, message)| (message.id, position)).collect();
        let (seen, missing) = (vec![false; messages.len()], messages.len());
        let sightings = Sightings::default();
        Subscriber { account, counters, url, positions, seen, missing, last_seq: None, sightings }
    }

    fn give_up(mut self, reason: &str) -> Sightings {
        let reason = format!("{}: {reason}", self.account.inbox.user);
        self.counters.fail(&reason);
        self.sightings.failure = Some(reason);
        if self.sightings.subscribed_us.is_empty() {
            add(&self.counters.subscribed, 1);
        }
        if self.missing > 0 {
            add(&self.counters.complete, 1);
        }
        self.sightings
    }

    async fn converse(&mut self, stop: &mut watch::Receiver<bool>) -> End {
        let mut socket = match self.connect().await {
            Ok(socket) => socket,
            Err(end) => return end,
        };
        if let Err(error) = send(&mut socket, &ClientMessage::subscribe(self.last_seq)).await {
            return End::Lost(error.to_string());
        }
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                _ = stop.changed() => return self.drain(socket).await,
            };
            let outcome = match frame {
                Some(Ok(Frame::Text(text))) => self.receive(&text, &mut socket).await,
                Some(Ok(Frame::Close(_))) | None => Err(End::Lost("the connection was closed".to_owned())),
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(End::Lost(error.to_string())),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn connect(&self) -> Result<Socket, End> {
        let refused = |error: &dyn std::error::Error| End::Refused(error.to_string());
        let mut request = self.url.as_str().into_client_request().map_err(|error| refused(&error))?;
        let token = self.account.token.header_value().parse().map_err(|error| refused(&error))?;
        request.headers_mut().insert(AUTHORIZATION, token);
        match tokio::time::timeout(CONNECT_TIMEOUT, tokio_tungstenite::connect_async(request)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(SocketError::Http(answer))) if answer.status().is_client_error() => {
                Err(End::Refused(format!("the upgrade was refused with HTTP {}", answer.status())))
            }
            Ok(Err(error)) => Err(End::Lost(error.to_string())),
            Err(_) => Err(End::Lost("connecting took too long".to_owned())),
        }
    }

    async fn receive(&mut self, text: &str, socket: &mut Socket) -> Result<(), End> {
        let message = serde_json::from_str(text)
            .map_err(|error| End::Refused(format!("a message can't be read: {error}: {text}")))?;
        match message {
            ServerMessage::SubscriptionAck { snapshot_seq } => {
                if self.last_seq.is_none() {
                    self.last_seq = snapshot_seq.map(|seq| seq.0);
                }
                if self.sightings.subscribed_us.is_empty() {
                    add(&self.counters.subscribed, 1);
                }
                self.sightings.subscribed_us.push(self.counters.now_us());
            }
            ServerMessage::InitialDataBatch { rows, batch_control } => {
                self.accept(&rows, true);
                if batch_control.has_more {
                    let last_seq_id = batch_control.last_seq_id.map(|seq| seq.0);
                    let next = ClientMessage::NextBatch {
                        subscription_id: super::wire::SUBSCRIPTION_ID,
                        last_seq_id,
                    };
                    send(socket, &next).await.map_err(|error| End::Lost(error.to_string()))?;
                }
            }
            ServerMessage::Change { change_type, rows, seq, prev_seq } => {
                if self.last_seq != Some(prev_seq.0) {
                    self.sightings.chain_breaks += 1;
                }
                self.last_seq = Some(seq.0);
                self.accept(&rows, change_type == ChangeType::Insert);
            }
            ServerMessage::AuthError { message } => return Err(End::Refused(message)),
            ServerMessage::Error { code, message, seq: None } => {
                let reason = format!("{code}: {message}");
                let passes = matches!(code.as_str(), "SHUTTING_DOWN" | "RATE_LIMIT_EXCEEDED");
                return Err(if passes { End::Lost(reason) } else { End::Refused(reason) });
            }
            // With a seq an error is about rows, and the subscription goes on.
            ServerMessage::Error { seq: Some(_), .. } | ServerMessage::Other => {}
        }
        Ok(())
    }

    fn accept(&mut self, rows: &[Row], is_insert: bool) {
        let received_us = self.counters.now_us();
        for row in rows {
            let position = self.positions.get(&row.id.0).copied();
            let intact = is_insert && position.is_some_and(|position| self.is_intact(row, position));
            self.sightings.deliveries.push(Delivery { id: row.id.0, intact });
            if let Some(position) = position {
                self.first_sight(position, received_us);
            }
        }
        add(&self.counters.delivered, rows.len() as u64);
    }

    fn first_sight(&mut self, position: usize, received_us: u64) {
        if self.seen.get_mut(position).is_none_or(|seen| std::mem::replace(seen, true)) {
            return;
        }
        if let Some(sent_us) = self.account.sent_us(position) {
            self.sightings.timings.push(Timing { sent_us, received_us });
        }
        self.missing -= 1;
        if self.missing == 0 {
            add(&self.counters.complete, 1);
        }
    }

    fn is_intact(&self, row: &Row, position: usize) -> bool {
        self.account.inbox.messages.get(position).is_some_and(|message| {
            row.conversation.map(|conversation| conversation.0) == Some(message.conversation)
                && row.sender.as_deref() == Some(&message.sender)
                && row.body.as_deref() == Some(&message.text)
        })
    }

    /// Says goodbye and reads on until the server has said so too: whatever it had already sent counts.
    async fn drain(&mut self, mut socket: Socket) -> End {
        let rest = async {
            socket.close(None).await.ok()?;
            while let Some(Ok(frame)) = socket.next().await {
                if let Frame::Text(text) = frame
                    && let Err(end) = self.receive(&text, &mut socket).await
                {
                    return Some(end);
                }
            }
            None
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, rest).await {
            Ok(Some(End::Refused(reason))) => End::Refused(reason),
            _ => End::Stopped,
        }
    }
}

async fn send(socket: &mut Socket, message: &ClientMessage) -> anyhow::Result<()> {
    let text = serde_json::to_string(message)?;
    Ok(socket.send(Frame::text(text)).await?)
}
