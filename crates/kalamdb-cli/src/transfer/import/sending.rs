//! Batches to the server, one after the other, and what of the file is in the table when that ends.
//!
//! A batch that is refused because of a row is sent again in parts, the first ones first, until that row stands alone: then every row
//! before it is in the table, and none after it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::batch::{Batch, OnConflict};
use super::source::BadRow;
use crate::account::Account;
use crate::client::{ClientError, Statement};
use crate::transfer::progress::Progress;
use crate::transfer::table::{Table, as_user};
use crate::transfer::{grouped, rows_text};

/// How long the answer to what is under way is waited for after a signal.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Why an import ended before its file did.
#[derive(Debug)]
pub(super) enum Stopped {
    /// A row cannot be read or is refused.
    Row(BadRow),
    /// The server refuses the statement whatever the rows are.
    Refused(ClientError),
    /// Nobody knows whether the rows that were under way are in the table.
    Unknown(ClientError),
    /// A signal.
    Interrupted,
    /// The thread that reads the file.
    Reader,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(bad) => bad.fmt(f),
            Self::Refused(error) | Self::Unknown(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Reader => f.write_str("the file cannot be read: the program that reads it failed"),
        }
    }
}

/// An import under way.
pub(super) struct Sending<'a> {
    account: Account,
    table: &'a Table,
    as_user: Option<&'a str>,
    on_conflict: OnConflict,
    skipped: u64,
    /// The last row of the file that is done.
    done: u64,
    /// Rows that a request tells of whose answer did not come.
    unknown: Option<(u64, u64)>,
    sent: u64,
    changed: u64,
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        account: Account,
        table: &'a Table,
        as_user: Option<&'a str>,
        on_conflict: OnConflict,
        skipped: u64,
    ) -> Self {
        let (done, unknown, sent, changed) = (skipped, None, 0, 0);
        Self { account, table, as_user, on_conflict, skipped, done, unknown, sent, changed }
    }

    /// Sends what comes until it ends.
    pub(super) async fn all(
        &mut self,
        mut batches: mpsc::Receiver<Result<Option<Batch>, BadRow>>,
        mut stopped: watch::Receiver<bool>,
        progress: &mut Progress,
    ) -> Result<(), Stopped> {
        loop {
            let next = tokio::select! {
                biased;
                _ = stopped.wait_for(|is_to_stop| *is_to_stop) => return Err(Stopped::Interrupted),
                next = batches.recv() => next,
            };
            let next = next.ok_or(Stopped::Reader)?.map_err(Stopped::Row)?;
            let Some(batch) = next else { return Ok(()) };
            self.batch(&batch, &mut stopped).await?;
            progress.advance(batch.len() as u64, batch.position);
        }
    }

    /// Sends a batch, in parts where it is refused as a whole.
    async fn batch(&mut self, batch: &Batch, stopped: &mut watch::Receiver<bool>) -> Result<(), Stopped> {
        // What is left to do, the last part first.
        let mut parts = Vec::new();
        parts.push(0..batch.len());
        while let Some(rows) = parts.pop() {
            let answer = tokio::select! {
                biased;
                answer = self.part(batch, &rows) => answer,
                () = long_after(stopped) => {
                    self.unknown = numbers(batch, &rows);
                    return Err(Stopped::Interrupted);
                }
            };
            match answer {
                Ok(changed) => {
                    self.changed += changed;
                    self.sent += rows.len() as u64;
                    self.done = numbers(batch, &rows).map_or(self.done, |(_, last)| last);
                }
                Err(error) => parts.extend(self.after(batch, rows, error)?.into_iter().rev()),
            }
        }
        Ok(())
    }

    async fn part(&mut self, batch: &Batch, rows: &Range<usize>) -> Result<u64, ClientError> {
        let sql = as_user(self.as_user, batch.sql(rows, self.table, self.on_conflict));
        let statement = Statement { sql: &sql, params: batch.params(rows), namespace_id: None };
        let answer = self.account.sql(statement).await?;
        Ok(answer.results.first().map_or(0, |result| result.row_count))
    }

    /// What to send instead of rows that were refused together.
    fn after(
        &mut self,
        batch: &Batch,
        rows: Range<usize>,
        error: ClientError,
    ) -> Result<Vec<Range<usize>>, Stopped> {
        let ClientError::Server { code, message, .. } = &error else {
            self.unknown = numbers(batch, &rows);
            return Err(Stopped::Unknown(error));
        };
        match code.as_str() {
            "INVALID_PARAMETER" => {
                let named = parameter(message).and_then(|(number, problem)| {
                    batch.origin(&rows, number).map(|(row, column)| (row, column, problem))
                });
                match named {
                    Some((row, column, problem)) if row == rows.start => {
                        let column = self.table.columns.get(column).map(|column| column.name.clone());
                        Err(Stopped::Row(bad(batch, row, column, problem.to_owned())))
                    }
                    Some((row, ..)) => Ok(vec![rows.start..row, row..rows.end]),
                    None => Err(Stopped::Refused(error)),
                }
            }
            "CONSTRAINT_VIOLATION" | "MESSAGE_TOO_LARGE" | "MEMORY_LIMIT" if rows.len() > 1 => {
                let middle = rows.start + rows.len() / 2;
                Ok(vec![rows.start..middle, middle..rows.end])
            }
            "CONSTRAINT_VIOLATION" | "MESSAGE_TOO_LARGE" | "MEMORY_LIMIT" => {
                let is_taken = message.contains("primary key") && self.on_conflict == OnConflict::Error;
                let hint = if is_taken { "; see --on-conflict" } else { "" };
                Err(Stopped::Row(bad(batch, rows.start, None, format!("{message}{hint}"))))
            }
            "TIMEOUT" => {
                self.unknown = numbers(batch, &rows);
                Err(Stopped::Unknown(error))
            }
            _ => Err(Stopped::Refused(error)),
        }
    }

    /// What was done, once all of it is.
    pub(super) fn summary(&self) -> String {
        let name = &self.table.name;
        match self.sent - self.changed.min(self.sent) {
            0 => format!("imported {} into {name}", rows_text(self.sent)),
            left => {
                let (changed, left) = (rows_text(self.changed), grouped(left));
                format!("imported {changed} into {name}, {left} were there already,")
            }
        }
    }

    /// What of the file is in the table, and how to go on.
    pub(super) fn standing(&self) -> String {
        let name = &self.table.name;
        let mut text = if self.done <= self.skipped {
            format!("nothing was imported into {name}")
        } else {
            format!("{} in {name}", span(self.skipped + 1, self.done))
        };
        // A string takes everything.
        if let Some((first, last)) = self.unknown {
            let _ = write!(text, "; whether {}, is not known (see --on-conflict)", span(first, last));
        }
        if self.done > 0 {
            let _ = write!(text, "; go on with --skip-rows {}", self.done);
        }
        text
    }
}

/// `row 7 is`, `rows 1 to 2,000 are`.
fn span(first: u64, last: u64) -> String {
    if first == last {
        return format!("row {} is", grouped(first));
    }
    format!("rows {} to {} are", grouped(first), grouped(last))
}

/// Ends some time after a signal has come: as long as the answer to a request may be on its way.
async fn long_after(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|is_to_stop| *is_to_stop).await;
    tokio::time::sleep(ANSWER_WAIT).await;
}

/// The numbers of the first and the last of some rows.
fn numbers(batch: &Batch, rows: &Range<usize>) -> Option<(u64, u64)> {
    let number = |at: usize| batch.place(at).map(|place| place.number);
    number(rows.start).zip(number(rows.end.checked_sub(1)?))
}

fn bad(batch: &Batch, row: usize, column: Option<String>, problem: String) -> BadRow {
    let place = batch.place(row);
    BadRow {
        number: place.map_or(0, |place| place.number),
        line: place.and_then(|place| place.line),
        column,
        problem,
        ends_file: false,
    }
}

/// The number that `parameter $12: what is wrong` names, and what is wrong.
fn parameter(message: &str) -> Option<(usize, &str)> {
    let (number, problem) = message.strip_prefix("parameter $")?.split_once(": ")?;
    Some((number.parse().ok()?, problem))
}
