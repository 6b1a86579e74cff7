//! Before and after the stream: the namespace, the table, the users, and counting what the tables hold in the end.

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

/// Asks as every user how many rows they see, and names those who do not see exactly theirs.
pub(super) async fn wrong_counts(client: &Client, accounts: &[Arc<Account>]) -> anyhow::Result<Vec<String>> {
    let wrong: Vec<Option<String>> = stream::iter(accounts.iter().map(Arc::clone))
        .map(|account| async move {
            let user = &account.inbox.user;
            let found =
                count_rows(client, &account.token).await.with_context(|| format!("counting as {user}"))?;
            let expected = account.inbox.messages.len() as u64;
            let verdict =
                (found != expected).then(|| format!("{user} sees {found} rows instead of {expected}"));
            anyhow::Ok(verdict)
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    Ok(wrong.into_iter().flatten().collect())
}

async fn count_rows(client: &Client, token: &Token) -> anyhow::Result<u64> {
    let answer = client.sql(token, Statement::text("SELECT COUNT(*) FROM chat.messages")).await?;
    let value = answer
        .results
        .first()
        .and_then(|result| result.rows.as_ref()?.first()?.first())
        .context("COUNT(*) returned no row")?;
    let Integer(count) = Integer::deserialize(value)?;
    Ok(u64::try_from(count)?)
}
