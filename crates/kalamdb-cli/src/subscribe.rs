//! `kalamdb subscribe "SELECT …"`: a live query in a terminal or a pipe.
//!
//! First the rows that match, then every change of them, each once and in order; that none is missing is checked by the chain
//! that frames make. When the connection ends so does the command, and its message names the seq to go on from.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::channel;

use anyhow::{Context, bail, ensure};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tokio_tungstenite::tungstenite::Message;

use crate::account::AccountArgs;
use crate::client::{Client, Column};
use crate::connection::{Refused, Server, Socket, connect, received};
use crate::sql::cells;
use crate::sql::render::printable;
use crate::tail::{is_broken_pipe, stop_on_signals};

/// The name of the one subscription.
const ID: &str = "subscribe";
/// The exit code where the log does not reach back to `--from`.
const EXIT_BELOW_FLOOR: u8 = 4;

/// Show the rows of a query, and every change of them as it is committed.
#[derive(clap::Args, Debug)]
pub(crate) struct SubscribeArgs {
    /// SELECT columns FROM one table [WHERE condition]
    sql: String,
    #[command(flatten)]
    account: AccountArgs,
    /// The value of `$1`, the next one of `$2`: JSON, or what is no JSON as text. `--param 5` is a number, `--param ann` and
    /// `--param '"5"'` are texts
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    params: Vec<String>,
    /// No rows to begin with: every change after this seq
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Only that many of the newest rows to begin with
    #[arg(long, value_name = "COUNT", conflicts_with = "from")]
    last_rows: Option<u32>,
    /// One JSON object a line: {op, seq, row, old}, or {op, seq, code, message, rows} of rows that are left out because the query
    /// fails for them
    #[arg(long)]
    json: bool,
    /// Leave after the rows that are there
    #[arg(long, conflicts_with = "from")]
    no_follow: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ServerMessage {
    SubscriptionAck {
        batch_control: BatchControl,
        schema: Vec<Column>,
        snapshot_seq: Option<u64>,
    },
    InitialDataBatch {
        rows: Vec<Map<String, Json>>,
        batch_control: BatchControl,
    },
    Change(Change),
    Schema {
        schema: Vec<Column>,
    },
    Pong,
    AuthError {
        message: String,
    },
    Error {
        code: String,
        message: String,
        /// The seq of the change that rows fail with; the query goes on then.
        seq: Option<u64>,
        /// The number of rows that fail.
        rows: Option<u64>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct BatchControl {
    has_more: bool,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "change_type")]
    op: String,
    #[serde(default)]
    rows: Vec<Map<String, Json>>,
    #[serde(default)]
    old_values: Vec<Map<String, Json>>,
    seq: u64,
    prev_seq: u64,
}

/// Runs the command until it is told to stop.
pub(crate) fn run(args: &SubscribeArgs) -> anyhow::Result<ExitCode> {
    let account = &args.account;
    let password = account.password()?;
    let server = Server { url: &account.url, user: &account.user, password: &password };
    let (sender, stop) = channel();
    stop_on_signals(sender)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut screen = Screen::new(io::stdout().lock(), args);
    let done = runtime.block_on(async {
        let stopped = tokio::task::spawn_blocking(move || stop.recv());
        tokio::select! {
            done = converse(&server, args, &mut screen) => done,
            _ = stopped => Ok(()),
        }
    });
    // Whoever waits for a signal that did not come must not keep the process.
    runtime.shutdown_background();
    match done.and_then(|()| Ok(screen.out.flush()?)) {
        Err(error) if !is_broken_pipe(&error) => {
            eprintln!("Error: {error:?}");
            let refused = error.downcast_ref::<Refused>();
            let is_below_floor = refused.is_some_and(|refused| refused.code == "RESYNC_REQUIRED");
            Ok(if is_below_floor { ExitCode::from(EXIT_BELOW_FLOOR) } else { ExitCode::FAILURE })
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A parameter as it is written on the command line.
fn param(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

async fn converse<W: Write>(
    server: &Server<'_>,
    args: &SubscribeArgs,
    screen: &mut Screen<W>,
) -> anyhow::Result<()> {
    let client = Client::new(server.url, None)?;
    let token = client.login(server.user, server.password).await?;
    let mut socket = connect(server, &token).await?;
    let mut options = Map::new();
    options.extend(args.from.map(|from| ("from".to_owned(), json!(from))));
    options.extend(args.last_rows.map(|rows| ("last_rows".to_owned(), json!(rows))));
    let params: Vec<Json> = args.params.iter().map(|text| param(text)).collect();
    let subscription = json!({"id": ID, "sql": args.sql, "params": params, "options": options});
    send(&mut socket, &json!({"type": "subscribe", "subscription": subscription})).await?;
    let mut last = args.from;
    let mut has_asked = false;
    loop {
        let frame = match socket.next().now_or_never() {
            Some(frame) => frame,
            // Nothing waits while there is nothing to read.
            None => {
                screen.out.flush()?;
                socket.next().await
            }
        };
        let Some(text) = received(frame, || go_on(last))? else { continue };
        let message = serde_json::from_str(&text).context("not a message of this protocol")?;
        let has_more = match message {
            ServerMessage::SubscriptionAck { batch_control, schema, snapshot_seq } => {
                screen.columns = schema;
                last = last.or(snapshot_seq);
                batch_control.has_more
            }
            ServerMessage::InitialDataBatch { rows, batch_control } => {
                for row in &rows {
                    screen.show("row", seq_of(row), row, None)?;
                }
                if batch_control.has_more {
                    send(&mut socket, &json!({"type": "next_batch", "subscription_id": ID})).await?;
                }
                batch_control.has_more
            }
            // It is not among the rows that are there.
            ServerMessage::Change(_) if has_asked => true,
            ServerMessage::Change(change) => {
                ensure!(
                    last.is_none_or(|last| last == change.prev_seq),
                    "changes are missing{}",
                    go_on(last)
                );
                last = Some(change.seq);
                screen.change(&change)?;
                true
            }
            ServerMessage::Schema { schema } => {
                screen.columns = schema;
                true
            }
            ServerMessage::AuthError { message } => bail!("the server refused the token: {message}"),
            ServerMessage::Error { code, message, seq: Some(seq), rows } => {
                screen.failure(&code, &message, seq, rows)?;
                true
            }
            ServerMessage::Error { code, message, .. } => return Err(Refused { code, message }.into()),
            ServerMessage::Pong => return Ok(()),
            ServerMessage::Other => true,
        };
        if args.no_follow && !has_more && !has_asked {
            // What belongs to the rows comes before the answer: that some of them are left out.
            has_asked = true;
            send(&mut socket, &json!({"type": "ping"})).await?;
        }
    }
}

async fn send(socket: &mut Socket, message: &Json) -> anyhow::Result<()> {
    Ok(socket.send(Message::text(message.to_string())).await?)
}

fn seq_of(row: &Map<String, Json>) -> Option<u64> {
    let seq = row.get("_seq")?;
    seq.as_u64().or_else(|| seq.as_str()?.parse().ok())
}

fn go_on(last: Option<u64>) -> String {
    last.map(|last| format!("; go on with --from {last}")).unwrap_or_default()
}

/// Where rows and changes go, a line each.
struct Screen<W> {
    out: W,
    is_json: bool,
    is_coloured: bool,
    /// In the order of the query.
    columns: Vec<Column>,
}

impl<W: Write> Screen<W> {
    fn new(out: W, args: &SubscribeArgs) -> Self {
        let is_coloured =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, is_json: args.json, is_coloured, columns: Vec::new() }
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        let rows = if change.rows.is_empty() { &change.old_values } else { &change.rows };
        for (at, row) in rows.iter().enumerate() {
            let old = if change.rows.is_empty() { None } else { change.old_values.get(at) };
            self.show(&change.op, seq_of(row), row, old)?;
        }
        Ok(())
    }

    /// Shows that rows are out of the result because the query fails for them.
    fn failure(&mut self, code: &str, message: &str, seq: u64, rows: Option<u64>) -> io::Result<()> {
        let rows = rows.unwrap_or(1);
        if self.is_json {
            let (code, message) = (json!(code), json!(message));
            return writeln!(
                self.out,
                "{{\"op\":\"error\",\"seq\":{seq},\"code\":{code},\"message\":{message},\"rows\":{rows}}}"
            );
        }
        let (colour, end) = if self.is_coloured { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let left_out = match rows {
            1 => "a row is left out".to_owned(),
            rows => format!("{rows} rows are left out"),
        };
        writeln!(self.out, "{colour}! {seq:>8}  {left_out}: {}{end}", printable(message))
    }

    fn show(
        &mut self,
        op: &str,
        seq: Option<u64>,
        row: &Map<String, Json>,
        old: Option<&Map<String, Json>>,
    ) -> io::Result<()> {
        let old = old.map(|old| self.object(old));
        let row = self.object(row);
        if self.is_json {
            let old = old.map(|old| format!(",\"old\":{old}")).unwrap_or_default();
            let seq = seq.map_or_else(|| "null".to_owned(), |seq| seq.to_string());
            return writeln!(self.out, "{{\"op\":\"{op}\",\"seq\":{seq},\"row\":{row}{old}}}");
        }
        let (sign, colour) = match op {
            "insert" => ("+", "\x1b[32m"),
            "update" => ("~", "\x1b[33m"),
            "delete" => ("-", "\x1b[31m"),
            _ => (" ", ""),
        };
        let (colour, end) = if self.is_coloured { (colour, "\x1b[0m") } else { ("", "") };
        let seq = seq.map(|seq| seq.to_string()).unwrap_or_default();
        let old = old.map(|old| format!("  was {}", printable(&old))).unwrap_or_default();
        writeln!(self.out, "{colour}{sign} {seq:>8}  {}{old}{end}", printable(&row))
    }

    /// A row as JSON, its columns in the order of the query, dates and times ISO 8601; `_seq` stands before it already.
    fn object(&self, row: &Map<String, Json>) -> String {
        let columns = self.columns.iter().filter(|column| column.name != "_seq");
        let cells = columns.filter_map(|column| {
            let value = row.get(&column.name)?;
            Some(format!("{}:{}", json!(column.name), cells::json(column, value)))
        });
        format!("{{{}}}", cells.collect::<Vec<_>>().join(","))
    }
}
