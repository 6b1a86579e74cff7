//! The log of a server: a subscription to `system.changes`, over a WebSocket.
//!
//! It shows what is published, from the seq that is asked for, each event once and in order: the subscription resumes by
//! seq, and each frame names the one before it, which is checked. It ends with an error when the connection does; the
//! message names the seq to go on from.

use std::io::Write;
use std::sync::mpsc::Receiver;

use anyhow::{Context, bail, ensure};
use futures_util::{FutureExt, SinkExt, StreamExt};
use kalamdb_core::ChangeRecord;
use kalamdb_core::format::{Operation, Seq};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::filter::Filter;
use super::start::{From, Since};
use super::{Output, TailArgs, instant};
use crate::client::{Client, Statement, Token, quote_literal};
use crate::connection::{Refused, Server, Socket, connect, received};

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ServerMessage {
    SubscriptionAck {
        #[serde(default)]
        snapshot_seq: Option<Json>,
    },
    Change {
        prev_seq: u64,
        seq: u64,
        #[serde(default)]
        rows: Vec<Row>,
    },
    AuthError {
        message: String,
    },
    Error {
        code: String,
        message: String,
    },
    #[serde(other)]
    Other,
}

/// A row of `system.changes`. 64-bit integers travel as strings.
#[derive(Deserialize)]
struct Row {
    seq: String,
    commit_time: String,
    namespace_id: Option<String>,
    table_name: Option<String>,
    user_id: Option<String>,
    op: String,
    event: String,
    schema_version: Option<String>,
    key: Option<String>,
    before: Option<String>,
    after: Option<String>,
    details: Option<String>,
}

impl Row {
    fn into_record(self) -> anyhow::Result<ChangeRecord> {
        let bytes = |json: Option<String>| json.unwrap_or_default().into_bytes();
        Ok(ChangeRecord {
            seq: Seq::new(self.seq.parse()?),
            commit_time: self.commit_time.parse()?,
            operation: Operation::from_name(&self.op)
                .with_context(|| format!("the server tells of an operation {}", self.op))?,
            event: self.event,
            namespace: self.namespace_id.unwrap_or_default(),
            table: self.table_name.unwrap_or_default(),
            user: self.user_id.unwrap_or_default(),
            schema_version: self.schema_version.map_or(Ok(0), |version| version.parse())?,
            key: bytes(self.key),
            before: bytes(self.before),
            after: bytes(self.after),
            details: bytes(self.details),
            ..ChangeRecord::default()
        })
    }
}

/// Shows a server's events until it is told to stop; with `--no-follow`, those there are.
pub(super) fn follow<W: Write>(
    server: &Server<'_>,
    args: &TailArgs,
    filter: &Filter,
    out: &mut Output<W>,
    stop: Receiver<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(async {
        let stopped = tokio::task::spawn_blocking(move || stop.recv());
        tokio::select! {
            done = converse(server, args, filter, out) => done,
            _ = stopped => Ok(()),
        }
    });
    // Whoever waits for a signal that did not come must not keep the process.
    runtime.shutdown_background();
    out.flush()?;
    done
}

async fn converse<W: Write>(
    server: &Server<'_>,
    args: &TailArgs,
    filter: &Filter,
    out: &mut Output<W>,
) -> anyhow::Result<()> {
    let client = Client::new(server.url, None)?;
    let token = client.login(server.user, server.password).await?;
    let from = find_start(&client, &token, args).await?;
    let mut socket = connect(server, &token).await?;
    if !args.no_follow {
        socket.send(subscribe("tail", &filter.condition(), from)).await?;
        return Tail { filter, out, last: from, end: None }.read(&mut socket).await;
    }
    // Where it stands now: a subscription without `from` begins there.
    socket.send(subscribe("end", "", None)).await?;
    let end = loop {
        match receive(socket.next().await, from)? {
            Some(ServerMessage::SubscriptionAck { snapshot_seq }) => {
                break snapshot_seq.as_ref().and_then(number).context("the server does not tell its seq")?;
            }
            Some(ServerMessage::Error { code, message }) => return Err(Refused { code, message }.into()),
            _ => {}
        }
    };
    if from.is_none_or(|from| from >= end) {
        return Ok(());
    }
    let unsubscribe = json!({"type": "unsubscribe", "subscription_id": "end"});
    socket.send(Message::text(unsubscribe.to_string())).await?;
    // To end at the end, every event has to be seen: the last one may not match.
    socket.send(subscribe("tail", "", from)).await?;
    Tail { filter, out, last: from, end: Some(end) }.read(&mut socket).await
}

fn subscribe(id: &str, condition: &str, from: Option<u64>) -> Message {
    let sql = format!("SELECT * FROM system.changes{condition}");
    let options = from.map_or_else(|| json!({}), |from| json!({ "from": from }));
    let subscription = json!({"id": id, "sql": sql, "options": options});
    Message::text(json!({"type": "subscribe", "subscription": subscription}).to_string())
}

/// What came, if it is a message; `last` is the last seq that was shown.
fn receive(
    frame: Option<Result<Message, SocketError>>,
    last: Option<u64>,
) -> anyhow::Result<Option<ServerMessage>> {
    let text = received(frame, || go_on(last))?;
    text.map(|text| serde_json::from_str(&text).context("not a message of this protocol")).transpose()
}

/// A subscription that is being read.
struct Tail<'a, W> {
    filter: &'a Filter,
    out: &'a mut Output<W>,
    /// The seq of the last frame, or where it began.
    last: Option<u64>,
    /// Where to stop.
    end: Option<u64>,
}

impl<W: Write> Tail<'_, W> {
    async fn read(mut self, socket: &mut Socket) -> anyhow::Result<()> {
        loop {
            let frame = match socket.next().now_or_never() {
                Some(frame) => frame,
                // Nothing waits while there is nothing to read.
                None => {
                    self.out.flush()?;
                    socket.next().await
                }
            };
            let Some(message) = receive(frame, self.last)? else { continue };
            self.take(message)?;
            if self.end.is_some_and(|end| self.last.is_some_and(|last| last >= end)) {
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: ServerMessage) -> anyhow::Result<()> {
        match message {
            ServerMessage::SubscriptionAck { snapshot_seq } => {
                self.last = self.last.or(snapshot_seq.as_ref().and_then(number));
            }
            ServerMessage::Change { prev_seq, seq, rows } => {
                ensure!(
                    self.last.is_none_or(|last| last == prev_seq),
                    "events are missing{}",
                    go_on(self.last)
                );
                for row in rows {
                    let record = row.into_record()?;
                    let is_wanted = self.end.is_none_or(|end| record.seq.get() <= end);
                    if is_wanted && self.filter.matches(&record) {
                        self.out.show(&record)?;
                    }
                }
                self.last = Some(seq);
            }
            ServerMessage::AuthError { message } => bail!("the server refused the token: {message}"),
            ServerMessage::Error { code, message } => return Err(Refused { code, message }.into()),
            ServerMessage::Other => {}
        }
        Ok(())
    }
}

fn go_on(last: Option<u64>) -> String {
    last.map(|last| format!("; go on with --from {}", last.saturating_add(1))).unwrap_or_default()
}

/// The seq after which to begin; none for the end.
async fn find_start(client: &Client, token: &Token, args: &TailArgs) -> anyhow::Result<Option<u64>> {
    let default = if args.no_follow { From::Start } else { From::End };
    let condition = match (args.since.map(Since::micros), args.from.unwrap_or(default)) {
        (Some(micros), _) => format!("WHERE commit_time >= {} ORDER BY seq", quote_literal(&instant(micros))),
        (None, From::Start) => String::new(),
        (None, From::End) => return Ok(None),
        (None, From::Seq(seq)) => return Ok(Some(seq.previous().get())),
    };
    let sql = format!("SELECT seq, details FROM system.changes {condition} LIMIT 1");
    let answer = client.sql(token, Statement::text(&sql)).await?;
    let first = answer.results.into_iter().next().and_then(|result| result.rows?.into_iter().next());
    let Some([seq, details]) = first.as_deref() else { return Ok(None) };
    // Before the first event of an epoch there may be a gap: what comes after it comes after the seq before the gap.
    let details = details.as_str().and_then(|details| serde_json::from_str::<Json>(details).ok());
    let previous_end = details.as_ref().and_then(|details| details.get("previous_end")).and_then(number);
    let seq = number(seq).context("the server does not tell the first seq")?;
    Ok(Some(previous_end.unwrap_or_else(|| seq.saturating_sub(1))))
}

fn number(json: &Json) -> Option<u64> {
    json.as_u64().or_else(|| json.as_str()?.parse().ok())
}
