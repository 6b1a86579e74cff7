//! Writers: insert each user's messages into that user's table, in order, as fast as the server takes them.
//!
//! It owns the client's half of "what was acknowledged survives": a batch is one INSERT and so one commit; a request
//! that died is sent again until the server answers, and if the answer is that the keys are there already, the first
//! attempt had been committed. A user is always handled by the same writer, one request at a time, so that their rows
//! are written in the order of the data.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::backoff::Backoff;
use super::counters::{Account, Counters, add};
use super::data::Message;
use crate::client::{Client, ClientError, Statement};

const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
const COLUMNS: usize = 5;

/// What one writer did, or several together.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Written {
    /// Rows acknowledged.
    pub(super) rows: u64,
    /// Requests.
    pub(super) batches: u64,
    /// Requests that were sent again because the answer to the first attempt never came.
    pub(super) resent: u64,
    /// Of those, the ones whose first attempt had been committed.
    pub(super) found_committed: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.batches += other.batches;
        self.resent += other.resent;
        self.found_committed += other.found_committed;
    }
}

/// Divides the users among `writers` so that each has about as many rows to write.
pub(super) fn assign(accounts: &[Arc<Account>], writers: usize) -> Vec<Vec<Arc<Account>>> {
    let mut by_size: Vec<&Arc<Account>> = accounts.iter().collect();
    by_size.sort_by_key(|account| Reverse(account.inbox.messages.len()));
    let mut shares: Vec<(usize, Vec<Arc<Account>>)> = vec![(0, Vec::new()); writers.max(1)];
    for account in by_size {
        if let Some((rows, share)) = shares.iter_mut().min_by_key(|(rows, _)| *rows) {
            *rows += account.inbox.messages.len();
            share.push(Arc::clone(account));
        }
    }
    shares.into_iter().map(|(_, share)| share).filter(|share| !share.is_empty()).collect()
}

/// Writes everything these accounts must receive, whoever has the oldest message first.
pub(super) async fn write_all(
    accounts: Vec<Arc<Account>>,
    counters: Arc<Counters>,
    url: String,
    batch_rows: usize,
) -> anyhow::Result<Written> {
    let client = Client::new(&url, Some(REQUEST_TIMEOUT))?;
    let mut written = Written::default();
    let mut due: BinaryHeap<Reverse<(usize, usize, usize)>> = accounts
        .iter()
        .enumerate()
        .filter_map(|(index, account)| Some(Reverse((account.inbox.messages.first()?.ordinal, index, 0))))
        .collect();
    while let Some(Reverse((_, index, start))) = due.pop() {
        let Some(account) = accounts.get(index) else { continue };
        let messages = &account.inbox.messages;
        let end = messages.len().min(start + batch_rows);
        let batch = messages.get(start..end).unwrap_or_default();
        account.mark_sent(start..end, counters.now_us());
        insert(&client, account, batch, &mut written)
            .await
            .with_context(|| format!("rows {start}..{end} of {}", account.inbox.user))?;
        written.rows += batch.len() as u64;
        written.batches += 1;
        add(&counters.acknowledged, batch.len() as u64);
        if let Some(next) = messages.get(end) {
            due.push(Reverse((next.ordinal, index, end)));
        }
    }
    Ok(written)
}

/// One INSERT, until it is known to be committed.
async fn insert(
    client: &Client,
    account: &Account,
    batch: &[Arc<Message>],
    written: &mut Written,
) -> anyhow::Result<()> {
    let sql = insert_sql(batch.len());
    let params: Vec<Value> = batch.iter().flat_map(|message| params_of(message)).collect();
    let mut backoff = Backoff::default();
    let mut is_outcome_unknown = false;
    loop {
        let statement = Statement { sql: &sql, params: &params, namespace_id: None };
        let Err(error) = client.sql(&account.token, statement).await else { return Ok(()) };
        if is_outcome_unknown && error.code() == Some("CONSTRAINT_VIOLATION") {
            written.found_committed += 1;
            return Ok(());
        }
        if !is_worth_repeating(&error) || !backoff.pause().await {
            return Err(error.into());
        }
        if !is_outcome_unknown {
            written.resent += 1;
        }
        is_outcome_unknown = true;
    }
}

fn is_worth_repeating(error: &ClientError) -> bool {
    let passes =
        matches!(error.code(), Some("SHUTTING_DOWN" | "TIMEOUT" | "CONFLICT" | "RATE_LIMIT_EXCEEDED"));
    passes || error.is_outcome_unknown() || matches!(error, ClientError::Server { status: 502..=504, .. })
}

fn insert_sql(rows: usize) -> String {
    let mut sql = String::from("INSERT INTO chat.messages (id, conversation, sender, body, sent_at) VALUES ");
    for row in 0..rows {
        let first = row * COLUMNS;
        let separator = if row == 0 { "" } else { ", " };
        // Writing to a String can't fail.
        let _ = write!(
            sql,
            "{separator}(${}, ${}, ${}, ${}, ${})",
            first + 1,
            first + 2,
            first + 3,
            first + 4,
            first + 5
        );
    }
    sql
}

fn params_of(message: &Message) -> [Value; COLUMNS] {
    [
        message.id.into(),
        message.conversation.into(),
        message.sender.as_str().into(),
        message.text.as_str().into(),
        message.sent_at.as_str().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_through() {
        let sql = insert_sql(2);
        assert!(sql.ends_with("VALUES ($1, $2, $3, $4, $5), ($6, $7, $8, $9, $10)"), "{sql}");
    }
}
