//! Both databases, and what comes of an input in them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::documents::{Input, statements};
use crate::kalamdb::{ask, our_rows};
use crate::postgres::{Postgres, Rows};
use crate::stated;
use crate::support::{Api, Server};
use crate::values::{our_cells, same, shown, their_cells};

/// Result of an input.
#[derive(Debug)]
pub(crate) enum Outcome {
    AsExpected,
    /// The answer expected, and KalamDB's.
    Differs(String, String),
    /// The answer expected, and KalamDB's error.
    Refused(String, String),
    /// Why it cannot be compared.
    Skipped(&'static str),
}

/// Both databases; PostgreSQL where it is installed.
pub(crate) struct Sides {
    _server: Server,
    root: Api,
    postgres: Option<Postgres>,
    namespaces: BTreeSet<String>,
}

impl Sides {
    /// Starts both databases.
    pub(crate) async fn begin() -> Self {
        let server = Server::start_with("durability = \"os\"\n").await;
        let root = server.root().await;
        Self { _server: server, root, postgres: Postgres::start().await, namespaces: BTreeSet::new() }
    }

    /// Creates the namespace that a CREATE TABLE names.
    async fn create_namespace(&mut self, sql: &str) {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| word.eq_ignore_ascii_case("TABLE")) else { return };
        let is_create = words[0].eq_ignore_ascii_case("CREATE");
        let name = words.get(at + 1).and_then(|word| word.split_once('.'));
        let Some((namespace, _)) = name.filter(|_| is_create) else { return };
        if self.namespaces.insert(namespace.to_owned()) {
            self.root.sql(&format!("CREATE NAMESPACE IF NOT EXISTS {namespace}")).await;
            if let Some(postgres) = &mut self.postgres {
                postgres.sql(&format!("CREATE SCHEMA {namespace}")).await.unwrap();
            }
        }
    }

    /// Runs statements in KalamDB, the first with the parameters; the answer is that of the last, or the first error.
    async fn ours(&self, statements: &[String], params: &[Value]) -> Result<Value, String> {
        let mut answer = Ok(Value::Null);
        for (number, sql) in statements.iter().enumerate() {
            answer = ask(&self.root, sql, if number == 0 { params } else { &[] }).await;
            if answer.is_err() {
                break;
            }
        }
        answer
    }

    /// Runs statements in PostgreSQL; none where it is not installed.
    async fn theirs(&mut self, statements: &[String]) -> Option<Rows> {
        let postgres = self.postgres.as_mut()?;
        let mut rows = Ok(Vec::new());
        for sql in statements {
            rows = postgres.sql(&for_postgres(sql)).await;
            if rows.is_err() {
                break;
            }
        }
        Some(rows)
    }

    /// Runs an input on both sides, and compares KalamDB's answer with the one that is expected.
    pub(crate) async fn run(&mut self, input: &Input) -> Outcome {
        if !input.is_sql() {
            return Outcome::Skipped("it is not SQL alone");
        }
        let params: Vec<Value> = match input.params.as_deref().map(serde_json::from_str) {
            None => Vec::new(),
            Some(Ok(params)) => params,
            Some(Err(_)) => return Outcome::Skipped("its parameters are not JSON"),
        };
        for sql in &input.statements {
            self.create_namespace(sql).await;
        }
        for sql in &input.reset {
            let _ = ask(&self.root, sql, &[]).await;
        }
        let ours = self.ours(&input.statements, &params).await;
        let _ = self.theirs(&input.reset).await;
        let theirs = self.theirs(&input.statements).await.filter(|_| params.is_empty());
        let stated = input.expected.as_deref().and_then(stated::read);
        match (stated, theirs) {
            // An answer that is not as the file writes it may be as PostgreSQL writes it.
            (Some(stated), theirs) => match (compare(&ours, &stated), theirs) {
                (Outcome::Differs(..), Some(Ok(rows))) => compare(&ours, &Ok(rows)),
                (outcome, _) => outcome,
            },
            (None, Some(Err(_))) if ours.is_err() => Outcome::Skipped("both databases refuse it"),
            (None, Some(theirs)) => compare(&ours, &theirs),
            (None, None) => Outcome::Skipped("there is no answer to compare with"),
        }
    }
}

/// Compares KalamDB's answer with the one that is expected.
fn compare(ours: &Result<Value, String>, expected: &Rows) -> Outcome {
    let (wanted, got) = (shown(expected), shown(&our_rows(ours)));
    match (ours, expected) {
        (Err(_), Err(_)) => Outcome::AsExpected,
        (Err(_), Ok(_)) => Outcome::Refused(wanted, got),
        // A statement without rows has no schema.
        (Ok(answer), Ok(rows)) if answer["schema"].is_null() && rows.is_empty() => Outcome::AsExpected,
        (Ok(answer), Ok(rows)) if is_same(answer, rows) => Outcome::AsExpected,
        _ => Outcome::Differs(wanted, got),
    }
}

/// Whether the rows are alike, in any order.
fn is_same(answer: &Value, rows: &[Vec<Option<String>>]) -> bool {
    let as_cells = same(our_cells(answer), their_cells(&answer["schema"], rows), false);
    as_cells || documents(our_rows(&Ok(answer.clone())).unwrap_or_default()) == documents(rows.to_vec())
}

/// Rows in one order, with texts that are documents or arrays read as such.
fn documents(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let cell = |cell: Option<String>| cell.map_or(Value::Null, |text| document(&text)).to_string();
    let row = |row: Vec<Option<String>>| row.into_iter().map(cell).collect::<Vec<_>>().join("\n");
    let mut rows: Vec<String> = rows.into_iter().map(row).collect();
    rows.sort();
    rows
}

/// A text as a JSON document or as an array of PostgreSQL; numbers in it are texts.
fn document(text: &str) -> Value {
    let document = serde_json::from_str(text).ok().or_else(|| array(text));
    with_texts(document.unwrap_or_else(|| Value::String(text.to_owned())))
}

/// A document with texts in the place of numbers.
fn with_texts(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Array(items) => items.into_iter().map(with_texts).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, with_texts(value))).collect()
        }
        other => other,
    }
}

/// An array of PostgreSQL whose values are not quoted.
fn array(text: &str) -> Option<Value> {
    let items = text.strip_prefix('{')?.strip_suffix('}')?;
    if items.contains(['"', '{']) {
        return None;
    }
    let item = |item: &str| if item == "NULL" { Value::Null } else { Value::String(item.to_owned()) };
    let items = items.split(',').filter(|item| !item.is_empty());
    Some(items.map(item).collect())
}

/// A statement in PostgreSQL's words: types have other names, and tables no kind.
fn for_postgres(sql: &str) -> String {
    let mut sql = sql.replace(" SHARED TABLE ", " TABLE ").replace(" USER TABLE ", " TABLE ");
    if sql.starts_with("CREATE") {
        if let Some((table, _)) = sql.split_once(" WITH (") {
            sql = table.to_owned();
        }
        for (ours, theirs) in [(" JSON", " JSONB"), (" BYTES", " BYTEA"), (" DATETIME", " TIMESTAMPTZ")] {
            for end in [",", ")", " "] {
                sql = sql.replace(&format!("{ours}{end}"), &format!("{theirs}{end}"));
            }
        }
    }
    sql
}

/// Checks itself.
pub(crate) fn check() {
    assert_eq!(for_postgres("CREATE SHARED TABLE b.t (j JSON) WITH (a='b')"), "CREATE TABLE b.t (j JSONB)");
    let answer = serde_json::json!({ "schema": [{ "data_type": "BigInt" }], "rows": [["2"], ["1"]] });
    let rows = |values: &[&str]| Ok(values.iter().map(|it| vec![Some((*it).to_owned())]).collect());
    assert!(matches!(compare(&Ok(answer.clone()), &rows(&["1", "2"])), Outcome::AsExpected));
    assert!(matches!(compare(&Ok(answer.clone()), &rows(&["1", "3"])), Outcome::Differs(..)));
    assert!(matches!(compare(&Ok(answer), &Err(String::new())), Outcome::Differs(..)));
    assert!(matches!(compare(&Err(String::new()), &rows(&[])), Outcome::Refused(..)));
    assert_eq!(statements("a;;b"), ["a", "b"]);
    assert_eq!(document("{1,NULL}"), document("[1, null]"));
}
