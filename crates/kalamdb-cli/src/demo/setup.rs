//! Before and after the stream: the namespace, the table, the users, and what the tables hold in the end.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize as _;

use super::counters::Account;
use super::data::Inbox;
use super::progress::Bar;
use super::wire::Integer;
use crate::client::{Client, Statement, Token, quote_literal};

/// Requests in flight at a time; hashing passwords keeps the server's cores busy.
const CONCURRENCY: usize = 8;

const CREATE_TABLE: &str = "CREATE USER TABLE chat.messages (id BIGINT PRIMARY KEY, conversation BIGINT NOT NULL, \
     sender TEXT NOT NULL, body TEXT NOT NULL, sent_at TIMESTAMP NOT NULL)";

/// Creates namespace and table, and a user with a token for each inbox.
pub(super) async fn prepare(
    client: &Client,
    root_password: &str,
    inboxes: Vec<Inbox>,
    bar: &Bar,
) -> anyhow::Result<Vec<Arc<Account>>> {
    let root = client.login("root", root_password).await.context("logging in as root")?;
    for sql in ["CREATE NAMESPACE chat", CREATE_TABLE] {
        client.sql(&root, Statement::text(sql)).await.with_context(|| sql.to_owned())?;
    }
    let root = &root;
    stream::iter(inboxes)
        .map(|inbox| async move {
            let token = create_user(client, root, &inbox.user, root_password)
                .await
                .with_context(|| format!("creating user {}", inbox.user))?;
            bar.advance(1);
            Ok(Arc::new(Account::new(inbox, token)))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}

async fn create_user(client: &Client, root: &Token, user: &str, secret: &str) -> anyhow::Result<Token> {
    let password = format!("{secret}-{user}");
    let sql =
        format!("CREATE USER {} WITH PASSWORD {} ROLE user", quote_literal(user), quote_literal(&password));
    client.sql(root, Statement::text(&sql)).await?;
    Ok(client.login(user, &password).await?)
}

/// Asks every user for all they see, and names those who do not see exactly theirs.
pub(super) async fn wrong_tables(client: &Client, accounts: &[Arc<Account>]) -> anyhow::Result<Vec<String>> {
    let wrong: Vec<Option<String>> = stream::iter(accounts.iter().map(Arc::clone))
        .map(|account| async move {
            let user = &account.inbox.user;
            let found =
                rows_of(client, &account.token).await.with_context(|| format!("reading as {user}"))?;
            anyhow::Ok(difference(&account.inbox, found).map(|what| format!("{user} {what}")))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    Ok(wrong.into_iter().flatten().collect())
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    conversation: i64,
    sender: String,
    body: String,
}

/// How what a user sees differs from what it should be, if it does.
fn difference(inbox: &Inbox, found: Vec<(i64, Row)>) -> Option<String> {
    let (count, expected) = (found.len(), inbox.messages.len());
    if count != expected {
        return Some(format!("sees {count} rows instead of {expected}"));
    }
    let found: HashMap<i64, Row> = found.into_iter().collect();
    let wrong = inbox.messages.iter().find(|message| {
        let row = Row {
            conversation: message.conversation,
            sender: message.sender.clone(),
            body: message.text.clone(),
        };
        found.get(&message.id) != Some(&row)
    });
    wrong.map(|message| format!("does not see row {} as it was written", message.id))
}

async fn rows_of(client: &Client, token: &Token) -> anyhow::Result<Vec<(i64, Row)>> {
    let sql = "SELECT id, conversation, sender, body FROM chat.messages";
    let answer = client.sql(token, Statement::text(sql)).await?;
    let rows = answer.results.into_iter().next().and_then(|result| result.rows).unwrap_or_default();
    let row = |cells: Vec<serde_json::Value>| -> anyhow::Result<(i64, Row)> {
        let [id, conversation, sender, body] = <[serde_json::Value; 4]>::try_from(cells)
            .map_err(|_| anyhow::anyhow!("a row has other columns than it was asked for"))?;
        let (Integer(id), Integer(conversation)) =
            (Integer::deserialize(&id)?, Integer::deserialize(&conversation)?);
        Ok((id, Row { conversation, sender: String::deserialize(sender)?, body: String::deserialize(body)? }))
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::data::Message;

    #[test]
    fn a_table_is_wrong_by_a_row_too_many_too_few_or_another() {
        let message = |id| {
            let (sent_at, sender) = (String::new(), "bob".to_owned());
            Arc::new(Message { id, sent_at, conversation: 7, sender, text: format!("text {id}"), ordinal: 0 })
        };
        let inbox = Inbox { user: "ann".to_owned(), messages: vec![message(1), message(2)] };
        let row =
            |id, body: &str| (id, Row { conversation: 7, sender: "bob".to_owned(), body: body.to_owned() });
        assert_eq!(difference(&inbox, vec![row(2, "text 2"), row(1, "text 1")]), None);
        for wrong in [
            vec![row(1, "text 1")],
            vec![row(1, "text 1"), row(2, "text 1")],
            vec![row(1, "text 1"), row(1, "text 1")],
            vec![row(1, "text 1"), row(2, "text 2"), row(3, "text 3")],
        ] {
            assert!(difference(&inbox, wrong).is_some());
        }
    }
}
