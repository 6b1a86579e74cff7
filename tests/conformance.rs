//! What SQL means, as text: the files of `tests/sql`, in the form of sqllogictest.
//!
//! The same statements over HTTP, through the published SDK and through `kalamdb sql`: each file gives the same answers by each
//! way. A statement that begins with `/* name */` is that user's, any other root's. Every file has namespaces of its own.

mod http;
mod sdk;
mod shell;

use std::path::PathBuf;

use serde_json::Value;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, MakeConnection, Normalizer, Record, Runner};

use crate::support::Server;

/// Statements the files hold at the least.
const STATEMENTS_MIN: usize = 500;
/// Whoever a statement may belong to, beside root.
const USERS: [&str; 3] = ["ann", "bob", "svc"];

type Output = Result<DBOutput<DefaultColumnType>, Refused>;

/// What a statement was refused with: a file names its code.
#[derive(Debug, thiserror::Error)]
#[error("[{code}] {message}")]
struct Refused {
    code: String,
    message: String,
}

fn password(user: &str) -> String {
    match user {
        "root" => crate::support::ROOT_PASSWORD.to_owned(),
        user => format!("password of {user}"),
    }
}

/// A server with the users that the files know.
async fn server() -> Server {
    let server = Server::start().await;
    let root = server.root().await;
    for user in USERS {
        let role = if user == "svc" { "service" } else { "user" };
        root.sql(&format!("CREATE USER {user} WITH PASSWORD '{}' ROLE {role}", password(user))).await;
    }
    server
}

/// Whose statement it is, and what it says.
fn whose(sql: &str) -> (&str, &str) {
    let named = sql.trim_start().strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
    match named {
        Some((user, rest)) if USERS.contains(&user.trim()) => (user.trim(), rest),
        _ => ("root", sql),
    }
}

/// A cell as the files write it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) if text.is_empty() => "(empty)".to_owned(),
        // A line of a file is a row.
        Value::String(text) => text.replace('\\', "\\\\").replace('\n', "\\n").replace('\0', "\\0"),
        other => other.to_string(),
    }
}

/// What the last result of a request is to a file.
fn output(columns: usize, rows: &[Vec<Value>], row_count: u64) -> DBOutput<DefaultColumnType> {
    if columns == 0 {
        return DBOutput::StatementComplete(row_count);
    }
    let rows = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows }
}

fn files() -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/sql");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    files
}

/// Runs every file, comparing what the normalizer makes of results; tells all that is wrong, not only what is first.
async fn run<D, M>(make_connection: M, normalizer: Normalizer)
where
    D: AsyncDB<ColumnType = DefaultColumnType>,
    M: MakeConnection<Conn = D> + Clone,
{
    let mut wrong = Vec::new();
    for file in files() {
        let mut runner = Runner::new(make_connection.clone());
        runner.with_normalizer(normalizer);
        let records = sqllogictest::parse_file::<DefaultColumnType>(&file).unwrap();
        for record in records {
            let is_end = matches!(record, Record::Halt { .. });
            if let Err(error) = runner.run_async(record).await {
                wrong.push(error.display(false).to_string());
            }
            if is_end {
                break;
            }
        }
        runner.shutdown_async().await;
    }
    assert!(wrong.is_empty(), "{} records:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn the_files_hold_enough() {
    let count = |path: &PathBuf| {
        let records = sqllogictest::parse_file::<DefaultColumnType>(path).unwrap();
        records.iter().filter(|it| matches!(it, Record::Statement { .. } | Record::Query { .. })).count()
    };
    let statements: usize = files().iter().map(count).sum();
    assert!(statements >= STATEMENTS_MIN, "{statements} statements");
}
