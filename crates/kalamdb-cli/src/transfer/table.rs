//! A table as the server describes it: its name, its columns and their types, its primary key.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use arrow::datatypes::Field;
use arrow::ipc::reader::StreamReader;
use kalamdb_core::format::DataType;
use serde::Deserialize as _;
use serde_json::Value as Json;

use crate::account::Account;
use crate::client::Statement;

/// A name with or without its namespace, folded as the server folds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName(Vec<String>);

/// One column that rows have values for.
#[derive(Debug, Clone)]
pub(super) struct TableColumn {
    pub(super) name: String,
    /// As it comes in results.
    pub(super) field: Field,
    pub(super) data_type: DataType,
}

/// A table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: TableName,
    /// Its own columns, in their order.
    pub(super) columns: Vec<TableColumn>,
    /// Places in `columns`, in the order of the key.
    pub(super) key: Vec<usize>,
    /// Whether rows are only appended, and may have the same key.
    pub(super) is_stream: bool,
}

impl std::str::FromStr for TableName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text.trim();
        loop {
            let (part, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted_part(quoted).context("a quoted name does not end")?,
                None => {
                    let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                    let is_name = part.chars().all(|it| it.is_alphanumeric() || it == '_' || it == '$');
                    ensure!(
                        is_name,
                        "{part:?} is no name: a name of other characters stands in double quotes"
                    );
                    (part.to_lowercase(), after)
                }
            };
            ensure!(!part.is_empty(), "{text:?} is no name of a table");
            parts.push(part);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => bail!("{text:?} is no name of a table"),
            }
        }
        ensure!(parts.len() <= 2, "{text:?} has more parts than a namespace and a table");
        Ok(Self(parts))
    }
}

/// What stands before the closing quote, and after it.
fn quoted_part(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        part.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                part.push('"');
                rest = more;
            }
            None => return Some((part, after)),
        }
    }
}

impl TableName {
    /// Whether it is one of those that the server makes up, which have no key and are not described.
    pub(super) fn is_of_system(&self) -> bool {
        let namespace = self.0.first().filter(|_| self.0.len() > 1);
        namespace.is_some_and(|namespace| matches!(namespace.as_str(), "system" | "information_schema"))
    }

    /// As SQL, whatever characters are in it.
    pub(super) fn sql(&self) -> String {
        self.0.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A name as SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A statement as this user, or as another one for whom it is run.
pub(super) fn as_user(user: Option<&str>, sql: String) -> String {
    match user {
        Some(user) => format!("EXECUTE AS USER {} ({sql})", crate::client::quote_literal(user)),
        None => sql,
    }
}

impl Table {
    /// Asks the server.
    pub(super) async fn describe(account: &mut Account, name: &TableName) -> anyhow::Result<Self> {
        let described = account.sql(Statement::text(&format!("DESCRIBE TABLE {}", name.sql()))).await?;
        let result = described.results.into_iter().next().context("DESCRIBE TABLE gave no result")?;
        let at = |wanted: &str| {
            let place = result.schema.iter().position(|column| column.name == wanted);
            place.with_context(|| format!("DESCRIBE TABLE tells no {wanted}"))
        };
        let (name_at, key_at, system_at) = (at("column")?, at("key")?, at("system")?);
        // An Arrow stream without rows tells the types exactly.
        let empty = format!("SELECT * FROM {} LIMIT 0", name.sql());
        let stream = account.arrow(Statement::text(&empty)).await?;
        let schema = StreamReader::try_new(stream.as_slice(), None)?.schema();
        let (mut columns, mut key, mut is_stream) = (Vec::new(), Vec::new(), true);
        for row in result.rows.unwrap_or_default() {
            let column = row.get(name_at).map(String::deserialize).context("a column without a name")??;
            if row.get(system_at).and_then(Json::as_bool) == Some(true) {
                // What is never deleted has no mark of it.
                is_stream &= column != "_deleted";
                continue;
            }
            let field = schema.field_with_name(&column)?.clone();
            if let Some(place) = row.get(key_at).and_then(Json::as_str) {
                key.push((place.parse::<usize>()?, columns.len()));
            }
            columns.push(TableColumn { name: column, data_type: kalamdb_core::sql_type(&field), field });
        }
        key.sort_unstable();
        let key = key.into_iter().map(|(_, at)| at).collect();
        Ok(Self { name: name.clone(), columns, key, is_stream })
    }

    /// The column of this name in a file: as it is, or folded as SQL folds names.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let exactly = |name: &str| self.columns.iter().position(|column| column.name == name);
        exactly(name).or_else(|| exactly(&name.trim().to_lowercase()))
    }

    /// The column at a place.
    pub(super) fn column(&self, at: usize) -> anyhow::Result<&TableColumn> {
        self.columns.get(at).with_context(|| format!("{} has no column {at}", self.name))
    }

    /// Its columns' names, for a message.
    pub(super) fn names(&self) -> String {
        self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let sql = |text: &str| text.parse::<TableName>().map(|name| name.sql()).ok();
        assert_eq!(sql("App.Messages").as_deref(), Some("\"app\".\"messages\""));
        assert_eq!(sql("messages").as_deref(), Some("\"messages\""));
        assert_eq!(sql("\"A.b\".\"say \"\"x\"\"\"").as_deref(), Some("\"A.b\".\"say \"\"x\"\"\""));
        for none in ["", ".", "a.", "a.b.c", "a b", "\"a", "\"a\"b", "a;b", "a.\"\""] {
            assert_eq!(sql(none), None, "{none}");
        }
    }
}
