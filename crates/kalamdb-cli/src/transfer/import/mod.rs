//! `kalamdb import FILE INTO table`: the rows of a file as rows of a table.
//!
//! One thread reads the file and makes batches while the batch before is with the server ([`sending`]): a batch is one INSERT,
//! its values are parameters. What is in the table is therefore always the file's first rows, however it ends, and the message
//! says how many.

mod batch;
mod csv;
mod jsonl;
#[cfg(test)]
mod nested_tests;
mod numbers;
mod parquet;
mod sending;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use tokio::sync::{mpsc, watch};

use super::format::{self, Format};
use super::progress::{Position, Progress};
use super::table::{Table, TableName};
use super::{run_until_stopped, unless_stopped};
use crate::account::{Account, AccountArgs};
use batch::{Batch, OnConflict};
use numbers::TimestampUnit;
use sending::{Sending, Stopped};
use source::{BadRow, Input, Rows};

/// Batches that are ready before the one ahead of them is done.
const BATCHES_AHEAD: usize = 2;

/// Insert the rows of a CSV, JSON lines or Parquet file into a table
///
/// Columns are matched by name (CSV header, JSON keys, Parquet fields). Those the file does not have get the table's defaults.
/// Rows are sent in batches, each one commit; where a row is refused, the rows before it are in the table, the rest is not.
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "kalamdb import [OPTIONS] <FILE> INTO <TABLE>")]
pub(crate) struct ImportArgs {
    /// The file: .csv, .jsonl or .ndjson (each also with .zst or .gz), .parquet; `-` is standard input
    file: PathBuf,
    /// The word INTO
    #[arg(value_name = "INTO")]
    into: String,
    /// The table, as SQL names it: namespace.table
    #[arg(value_name = "TABLE")]
    table: Option<String>,
    #[command(flatten)]
    account: AccountArgs,
    /// Insert as this user, into their rows of a USER table; for the roles service and dba
    #[arg(long, value_name = "USER")]
    as_user: Option<String>,
    /// What the file holds, whatever its name says
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// What becomes of a row whose primary key is taken
    #[arg(long, value_enum, default_value_t = OnConflict::Error)]
    on_conflict: OnConflict,
    /// Pass over columns that the table does not have, instead of refusing the file
    #[arg(long)]
    skip_unknown: bool,
    /// Unit of bare numbers in TIMESTAMP and DATETIME columns; without it they are microseconds, and those that would be a time of
    /// early 1970 are refused
    #[arg(long, value_name = "UNIT", value_enum)]
    timestamp_unit: Option<TimestampUnit>,
    /// Begin after that many rows of the file
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    skip_rows: u64,
    /// Rows of one INSERT at the most
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_rows: u32,
    /// No progress, no summary
    #[arg(long, short)]
    quiet: bool,
    /// CSV: what stands between fields, one character; \t for a tab. [default: what a first line `sep=;` names, else a comma]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter, help_heading = "CSV")]
    delimiter: Option<u8>,
    /// CSV: no header line; fields belong to the table's columns in their order
    #[arg(long, help_heading = "CSV")]
    no_header: bool,
    /// CSV: an unquoted field with this text is NULL, a quoted one never; nothing in a TEXT column that is NOT NULL is an empty text
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "CSV")]
    null: String,
}

/// One character of ASCII that means nothing else in CSV.
pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("one ASCII character, no quote and no line break".to_owned()),
    }
}

/// Runs the command to the end of its file.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let table = match (&args.table, args.into.eq_ignore_ascii_case("into")) {
        (Some(table), true) => table,
        (table, _) => misused(args, table.as_deref()),
    };
    let name: TableName = table.parse()?;
    // The terminal is asked while a signal still ends the process at once.
    let password = args.account.password()?;
    run_until_stopped(|stopped| import(args, name, password, stopped))
}

/// Says how it is to be written, and ends the process as any wrong use does.
fn misused(args: &ImportArgs, table: Option<&str>) -> ! {
    let table = match table {
        Some(table) => table,
        None if args.into.eq_ignore_ascii_case("into") => "<TABLE>",
        None => &args.into,
    };
    let message = format!(
        "the word INTO stands between the file and the table:\n\n  kalamdb import {} INTO {table}",
        args.file.display()
    );
    crate::Command::command().error(ErrorKind::MissingRequiredArgument, message).exit()
}

async fn import(
    args: &ImportArgs,
    name: TableName,
    password: String,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (format, compression) = format::of_file(&args.file, args.format)?;
    let position = Position::default();
    let (input, bytes) = source::open(&args.file, format, compression, &position)?;
    let described = async {
        let mut account = Account::log_in(&args.account, password).await?;
        let table = Table::describe(&mut account, &name).await?;
        Ok((account, table))
    };
    let (account, table) = unless_stopped(&mut stopped, described).await?;
    ensure!(!table.columns.is_empty(), "{name} has no columns");
    let file = source::name_of(&args.file);
    let (rows, count) = unless_stopped(&mut stopped, begin(args, &table, &file, input, &position)).await?;
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let batching = Batching { args: args.clone(), rows, position };
    std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || batching.run(&sender))
        .context("no thread to read the file")?;
    let mut progress = Progress::new(bytes.or(count), args.quiet);
    let mut sending =
        Sending::new(account, &table, args.as_user.as_deref(), args.on_conflict, args.skip_rows);
    let ended = sending.all(batches, stopped, &mut progress).await;
    progress.clear();
    match ended {
        Ok(()) => {
            progress.finish(&sending.summary());
            Ok(())
        }
        Err(stopped) => {
            let why = match &stopped {
                Stopped::Row(bad) => format!("{file}, {bad}"),
                other => other.to_string(),
            };
            Err(anyhow::anyhow!("{why}\n{}", sending.standing()))
        }
    }
}

/// Reads what stands before the first row. A pipe may take its time for that.
async fn begin(
    args: &ImportArgs,
    table: &Table,
    file: &str,
    input: Input,
    position: &Position,
) -> anyhow::Result<(Box<dyn Rows>, Option<u64>)> {
    let (args, table, file, position) = (args.clone(), table.clone(), file.to_owned(), position.clone());
    let begun = tokio::task::spawn_blocking(move || {
        source::Reader { args: &args, table: &table, file: &file, position }.rows(input)
    });
    begun.await?
}

/// Makes batches of rows.
struct Batching {
    args: ImportArgs,
    rows: Box<dyn Rows>,
    position: Position,
}

impl Batching {
    /// Goes on until rows end or one is bad. The last thing sent says which; where it does not come, this has failed.
    fn run(mut self, sender: &mpsc::Sender<Result<Option<Batch>, BadRow>>) {
        let skip = self.args.skip_rows;
        let mut batch = Batch::default();
        let ended = loop {
            let row = match self.rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break Ok(()),
                // What is passed over need not be right.
                Err(bad) if bad.number <= skip && !bad.ends_file => continue,
                Err(bad) => break Err(bad),
            };
            if row.number <= skip {
                continue;
            }
            if batch.is_full(&row, self.args.batch_rows as usize, self.args.on_conflict) {
                batch.position = self.position.get();
                // Nobody receives any more once the command has ended.
                if sender.blocking_send(Ok(Some(std::mem::take(&mut batch)))).is_err() {
                    return;
                }
            }
            batch.push(row);
        };
        batch.position = self.position.get();
        if !batch.is_empty() && sender.blocking_send(Ok(Some(batch))).is_err() {
            return;
        }
        let _ = sender.blocking_send(ended.map(|()| None));
    }
}
