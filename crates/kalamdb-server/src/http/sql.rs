//! `POST /sql`.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kalamdb_core::arrow::error::ArrowError;
use kalamdb_core::arrow::ipc::writer::StreamWriter;
use kalamdb_core::{Executed, Session, StatementResult, clock};
use serde::{Deserialize, Serialize};

use super::body::{ErrorBody, read_json, refuse, retry_after, status_of};
use super::required_bearer;
use crate::app::App;
use crate::refusal::Refusal;
use crate::wire::cells::{PositionalRows, Rows};
use crate::wire::schema::WireSchema;
use crate::wire::unknown::UnknownFields;

const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
const JSON: &str = "application/json";

#[derive(Deserialize)]
struct SqlRequest {
    sql: String,
    #[serde(default)]
    params: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    namespace_id: Option<String>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize)]
struct SqlAnswer<'a> {
    status: &'static str,
    results: Vec<ResultBody<'a>>,
    /// Milliseconds.
    took: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
    /// Warnings of fields of the request that are not known.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct ResultBody<'a> {
    schema: WireSchema<'a>,
    rows: PositionalRows<'a>,
    row_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    as_user: &'a str,
}

pub(super) async fn run(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let started = clock::instant();
    let took = || clock::instant().saturating_duration_since(started).as_secs_f64();
    let (executed, warnings) = match execute(&app, &headers, body).await {
        Ok(executed) => executed,
        Err(refusal) => return refuse(&refusal),
    };
    metrics::histogram!("kalamdb_sql_seconds").record(took());
    let response = if accepts_arrow(&headers) && executed.error.is_none() {
        executed.results.last().map_or_else(|| answer_json(&executed, took(), &warnings), answer_arrow)
    } else {
        answer_json(&executed, took(), &warnings)
    };
    response.unwrap_or_else(|error| refuse(&Refusal::new("CONVERSION_ERROR", error.to_string())))
}

/// Whether the type is among those that are asked for, whatever stands beside it.
fn accepts_arrow(headers: &HeaderMap) -> bool {
    let types = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    types
        .flat_map(|accept| accept.split(','))
        .filter_map(|wanted| wanted.split(';').next())
        .any(|name| name.trim().eq_ignore_ascii_case(ARROW_STREAM))
}

async fn execute(
    app: &App,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Executed, Vec<String>), Refusal> {
    let identity = app.tokens.identity(&app.engine, required_bearer(headers)?)?;
    let SqlRequest { sql, params, namespace_id, unknown } = read_json(body, app.config.body_bytes_max)?;
    let params = params.unwrap_or_default();
    let mut warnings = Vec::new();
    unknown.warn("the request", &["sql", "params", "namespace_id"], &mut warnings);
    let mut session = Session::new(identity.user, identity.role, namespace_id.as_deref());
    let execution = app.engine.execute(&mut session, &sql, &params);
    let executed = tokio::time::timeout(app.config.statement_timeout(), execution).await.map_err(|_| {
        let limit_ms = app.config.statement_timeout_ms;
        let message = format!("not done within {limit_ms} ms; a write may or may not have been committed");
        Refusal::new("TIMEOUT", message)
    })?;
    Ok((executed, warnings))
}

fn answer_json(executed: &Executed, took_s: f64, warnings: &[String]) -> Result<Response, ArrowError> {
    let rows: Vec<Vec<Rows>> = executed
        .results
        .iter()
        .map(|result| result.batches.iter().map(Rows::new).collect())
        .collect::<Result<_, ArrowError>>()?;
    let results = executed.results.iter().zip(&rows).map(|(result, rows)| ResultBody {
        schema: WireSchema(&result.schema),
        rows: PositionalRows(rows),
        row_count: result.row_count,
        message: result.message.as_deref(),
        as_user: result.as_user.as_str(),
    });
    let refusal = executed.error.as_ref().map(Refusal::of_statement);
    let answer = SqlAnswer {
        status: if refusal.is_none() { "success" } else { "error" },
        results: results.collect(),
        took: took_s * 1e3,
        error: refusal.as_ref().map(ErrorBody::from),
        warnings,
    };
    let status = refusal.as_ref().map_or(StatusCode::OK, |refusal| status_of(refusal.code));
    let body = serde_json::to_vec(&answer).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    let mut response =
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(JSON))], body).into_response();
    response.headers_mut().extend(refusal.as_ref().and_then(|refusal| retry_after(refusal.code)));
    Ok(response)
}

/// The last statement's rows as an Arrow IPC stream.
fn answer_arrow(result: &StatementResult) -> Result<Response, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &result.schema)?;
    for batch in &result.batches {
        writer.write(batch)?;
    }
    let body = writer.into_inner()?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(ARROW_STREAM))], body).into_response())
}
