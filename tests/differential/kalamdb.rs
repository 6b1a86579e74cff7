//! KalamDB's answers, as the comparisons read them.

use serde_json::Value;

use super::postgres::Rows;
use crate::support::{Answer, Api};

/// The rows of our answer as texts.
pub(crate) fn our_rows(answer: &Result<Value, String>) -> Rows {
    let empty = Vec::new();
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let answer = answer.as_ref().map_err(Clone::clone)?;
    let rows = answer["rows"].as_array().unwrap_or(&empty).iter();
    Ok(rows.map(|row| row.as_array().unwrap().iter().map(text).collect()).collect())
}

/// Runs one statement in KalamDB.
pub(crate) async fn ask(api: &Api, sql: &str, params: &[Value]) -> Result<Value, String> {
    let answer = api.try_sql(sql, params).await;
    if answer.body["status"] == "success" {
        Ok(answer.body["results"].as_array().unwrap().last().cloned().unwrap_or_default())
    } else {
        Err(error_of(&answer))
    }
}

/// The code and the message of a refusal.
pub(crate) fn error_of(answer: &Answer) -> String {
    format!("{} {}", answer.code(), answer.body["error"]["message"])
}
