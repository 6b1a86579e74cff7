//! One user's conversation with a server.
//!
//! It owns the current namespace: HTTP requests have no session, so `USE ns` is remembered here and sent with each
//! request. It writes nothing.

use serde::Deserialize as _;
use serde_json::Value;

use super::split;
use crate::account::{Account, AccountArgs};
use crate::client::{ClientError, SqlAnswer, Statement};

const TABLE_NAMES: &str = "SELECT table_schema, table_name FROM information_schema.tables LIMIT 2000";
const COLUMN_NAMES: &str = "SELECT DISTINCT column_name FROM information_schema.columns LIMIT 5000";

/// A logged-in user and where their names resolve.
pub(super) struct Session {
    account: Account,
    url: String,
    user: String,
    namespace: Option<String>,
}

impl Session {
    /// Logs in.
    pub(super) async fn open(args: &AccountArgs, password: String) -> Result<Self, ClientError> {
        let account = Account::log_in(args, password).await?;
        Ok(Session { account, url: args.url.clone(), user: args.user.clone(), namespace: None })
    }

    /// The user, server and namespace of the session.
    pub(super) fn description(&self) -> String {
        format!("{} as {}, plain names in namespace {}", self.url, self.user, self.namespace())
    }

    /// The namespace in which plain names resolve.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// Runs one piece of [`split::split`].
    pub(super) async fn run(&mut self, sql: &str) -> Result<SqlAnswer, ClientError> {
        let statement = Statement { sql, params: &[], namespace_id: self.namespace.as_deref() };
        let answer = self.account.sql(statement).await?;
        if let Some(namespace) = namespace_of_use(sql) {
            self.namespace = Some(namespace);
        }
        Ok(answer)
    }

    /// Tables, with and without their namespace, and columns, for completion. What the server does not tell is left
    /// out.
    pub(super) async fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for row in self.text_rows(TABLE_NAMES).await {
            if let [namespace, table] = row.as_slice() {
                names.push(format!("{namespace}.{table}"));
                names.push(table.clone());
                names.push(namespace.clone());
            }
        }
        names.extend(self.text_rows(COLUMN_NAMES).await.into_iter().flatten());
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn text_rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let answer = self.account.sql(Statement::text(sql)).await;
        let results = answer.map_or(Vec::new(), |answer| answer.results);
        let rows = results.into_iter().filter_map(|result| result.rows).flatten();
        rows.filter_map(|row| Vec::<String>::deserialize(Value::from(row)).ok()).collect()
    }
}

/// The namespace that `USE [NAMESPACE] name` names, folded as the server folds it.
fn namespace_of_use(sql: &str) -> Option<String> {
    if !split::first_word(sql).eq_ignore_ascii_case("USE") {
        return None;
    }
    let mut name = split::after_first_word(sql);
    let following = split::after_first_word(name);
    if split::first_word(name).eq_ignore_ascii_case("NAMESPACE") && !split::is_blank(following) {
        name = following;
    }
    let name = name.trim().trim_end_matches(';').trim_end();
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"")),
        None => Some(name.to_lowercase()).filter(|name| !name.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_understood() {
        assert_eq!(namespace_of_use("USE Chat").as_deref(), Some("chat"));
        assert_eq!(namespace_of_use("use namespace \"Chat\" ;").as_deref(), Some("Chat"));
        assert_eq!(namespace_of_use("USE namespace").as_deref(), Some("namespace"));
        assert_eq!(namespace_of_use("SELECT 1"), None);
        assert_eq!(namespace_of_use("USE "), None);
    }
}
