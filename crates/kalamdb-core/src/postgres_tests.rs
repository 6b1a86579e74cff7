//! Statements with the answers that PostgreSQL 15 gave to them: rows in hot files, then the same rows in cold ones.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::DataType as ArrowType;

use crate::engine::Engine;
use crate::sql::StatementResult;
use crate::table::TYPE_METADATA;
use crate::testing::root;
use crate::tests::open;

/// Statements in their order, each with PostgreSQL's answer: its rows, `done` or `error`.
const STATEMENTS: &[(&str, &str)] = &include!("postgres_tests.in");
/// Statements without tables, about functions and literals, with PostgreSQL's answers.
const FUNCTIONS: &[(&str, &str)] = &include!("postgres_functions.in");

/// A result as PostgreSQL writes it: cells with `|` between them, rows in the order of their text.
fn text_of(result: &StatementResult) -> String {
    let mut rows = Vec::new();
    for batch in &result.batches {
        let fields = result.schema.fields().iter();
        let columns = batch.columns().iter().zip(fields).map(|(column, field)| {
            let is_json = field.metadata().get(TYPE_METADATA).is_some_and(|name| name == "JSON");
            (kalamdb_query::cast_array(column, &ArrowType::Utf8).unwrap(), is_json)
        });
        let columns: Vec<_> = columns.collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|(column, is_json)| {
                let texts = column.as_string::<i32>();
                let text = if texts.is_null(row) { "-" } else { texts.value(row) };
                plain(text, *is_json)
            });
            rows.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    rows.sort();
    rows.join(" ; ")
}

/// Numbers without zeros at the end, documents without blanks.
fn plain(text: &str, is_json: bool) -> String {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.split_once('.').is_some_and(|(whole, fraction)| {
        let all = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        all(whole) && all(fraction)
    });
    if is_number {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if is_json { text.split_whitespace().collect() } else { text.to_owned() }
}

async fn answer(engine: &Engine, sql: &str) -> Result<String, String> {
    let mut executed = engine.execute(&mut root(), sql, &[]).await;
    if let Some(error) = executed.error {
        return Err(error.to_string());
    }
    let result = executed.results.pop().unwrap();
    if result.message.is_some() && result.schema.fields().is_empty() {
        return Ok("done".to_owned());
    }
    Ok(text_of(&result))
}

#[tokio::test]
async fn statements_are_answered_as_postgresql_answers_them() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    answer(&engine, "CREATE NAMESPACE b").await.unwrap();
    let mut wrong = Vec::new();
    for &(sql, expected) in STATEMENTS.iter().chain(FUNCTIONS) {
        let answered = answer(&engine, sql).await;
        let is_right = match &answered {
            Ok(text) => *text == expected || expected == "done",
            Err(_) => expected == "error",
        };
        if !is_right {
            wrong.push(format!("{sql}\n  PostgreSQL {expected}\n  answered   {answered:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    engine.close();
}
