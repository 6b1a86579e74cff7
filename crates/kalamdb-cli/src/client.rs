//! A small HTTP client of the SQL API: login and statements.
//!
//! It owns the shapes of `POST /v1/api/auth/login` and `POST /v1/api/sql`, and turns every failure into a typed
//! error: the server's code and message where the server answered, the transport's error where it did not (then the
//! outcome of a write is unknown, which [`ClientError::is_outcome_unknown`] says). Connections are kept alive and
//! reused. It does not retry, does not hold a session, and knows nothing of live queries.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// What can go wrong with one request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No whole answer arrived: refused, reset, cut off or timed out.
    #[error("no answer from the server: {}", root_cause(.0))]
    Transport(#[source] reqwest::Error),
    /// The server answered with an error.
    #[error("{code}: {message}")]
    Server {
        /// The HTTP status.
        status: u16,
        /// The code of the protocol, such as `TABLE_NOT_FOUND`; `HTTP_…` if the body held none.
        code: String,
        /// For people.
        message: String,
        /// What the server added.
        details: Option<String>,
        /// Where in the SQL: line and column, from 1.
        position: Option<(usize, usize)>,
    },
    /// The answer is not what the protocol promises.
    #[error("the answer is not what was expected (HTTP {status}): {source}")]
    Malformed {
        /// The HTTP status.
        status: u16,
        /// What did not fit.
        #[source]
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether the server may or may not have done what it was asked.
    pub(crate) fn is_outcome_unknown(&self) -> bool {
        matches!(self, ClientError::Transport(_) | ClientError::Malformed { .. })
    }

    /// The server's error code, if it answered with one.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            ClientError::Server { code, .. } => Some(code),
            ClientError::Transport(_) | ClientError::Malformed { .. } => None,
        }
    }
}

/// The innermost reason: "connection refused" says more than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A bearer token, as login handed it out.
#[derive(Debug, Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The value of an `Authorization` header.
    pub(crate) fn header_value(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// `"BigInt"`, `{"Decimal":{"precision":10,"scale":2}}`, …
    #[serde(default)]
    pub(crate) data_type: Value,
    /// The SQL type of what `data_type` has no name for: `"INTERVAL"`.
    #[serde(default)]
    pub(crate) sql_type: Option<String>,
}

/// What one statement answered.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct ResultSet {
    /// The columns; empty for a statement that returns no rows.
    #[serde(default)]
    pub(crate) schema: Vec<Column>,
    /// The rows, each with one value per column.
    #[serde(default)]
    pub(crate) rows: Option<Vec<Vec<Value>>>,
    /// Rows returned or affected.
    #[serde(default)]
    pub(crate) row_count: u64,
    /// What was done, for people.
    #[serde(default)]
    pub(crate) message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct SqlBody {
    #[serde(default)]
    status: String,
    #[serde(default)]
    results: Vec<ResultSet>,
    #[serde(default)]
    took: Option<f64>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

/// The answer to one request: one result per statement.
#[derive(Debug, Clone)]
pub(crate) struct SqlAnswer {
    /// In the order of the statements.
    pub(crate) results: Vec<ResultSet>,
    /// What the server measured, in milliseconds.
    pub(crate) took_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Typed {
        code: String,
        message: String,
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        line: Option<usize>,
        #[serde(default)]
        column: Option<usize>,
    },
    Text(String),
}

/// The two places where an error body keeps its error.
#[derive(Debug, Deserialize)]
struct AnyError {
    error: Option<ErrorBody>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Serialize)]
struct LoginRequest<'a> {
    user: &'a str,
    password: &'a str,
}

#[derive(Deserialize)]
struct LoginAnswer {
    access_token: String,
}

/// A statement and what belongs to it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Statement<'a> {
    /// The text; several statements may stand in it if there are no parameters.
    pub(crate) sql: &'a str,
    /// Values of `$1`, `$2`, …
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) params: &'a [Value],
    /// Where names without a namespace resolve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace_id: Option<&'a str>,
}

impl<'a> Statement<'a> {
    /// A text alone.
    pub(crate) fn text(sql: &'a str) -> Self {
        Statement { sql, params: &[], namespace_id: None }
    }
}

fn is_empty(params: &[Value]) -> bool {
    params.is_empty()
}

/// One server and the connections kept to it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    login_url: String,
    sql_url: String,
}

impl Client {
    /// A client of the server at `base_url` (`http://host:port`); `timeout` bounds each request, none waits for ever
    /// for a connection.
    pub(crate) fn new(base_url: &str, timeout: Option<Duration>) -> Result<Self, ClientError> {
        let mut builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).no_proxy();
        if let Some(timeout) = timeout {
            builder = builder.timeout(timeout);
        }
        let base = base_url.trim_end_matches('/');
        Ok(Client {
            http: builder.build().map_err(ClientError::Transport)?,
            login_url: format!("{base}/v1/api/auth/login"),
            sql_url: format!("{base}/v1/api/sql"),
        })
    }

    /// Exchanges a password for a token.
    pub(crate) async fn login(&self, user: &str, password: &str) -> Result<Token, ClientError> {
        let request = self.http.post(&self.login_url).json(&LoginRequest { user, password });
        let (status, body) = answer(request).await?;
        if !(200..300).contains(&status) {
            return Err(error_of(status, &body));
        }
        let answer: LoginAnswer = parse(status, &body)?;
        Ok(Token(answer.access_token))
    }

    /// Runs a request's statements in order.
    pub(crate) async fn sql(
        &self,
        token: &Token,
        statement: Statement<'_>,
    ) -> Result<SqlAnswer, ClientError> {
        let request = self.http.post(&self.sql_url).bearer_auth(&token.0).json(&statement);
        let (status, body) = answer(request).await?;
        if !(200..300).contains(&status) {
            return Err(error_of(status, &body));
        }
        let answer: SqlBody = parse(status, &body)?;
        if answer.error.is_some() || answer.status == "error" {
            return Err(error_of(status, &body));
        }
        Ok(SqlAnswer { results: answer.results, took_ms: answer.took })
    }

    /// The rows of a query as an Arrow IPC stream.
    pub(crate) async fn arrow(
        &self,
        token: &Token,
        statement: Statement<'_>,
    ) -> Result<Vec<u8>, ClientError> {
        let request = self.http.post(&self.sql_url).bearer_auth(&token.0).json(&statement);
        let (status, body) = answer(request.header(reqwest::header::ACCEPT, ARROW_STREAM)).await?;
        if (200..300).contains(&status) { Ok(body) } else { Err(error_of(status, &body)) }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), ClientError> {
    let response = request.send().await.map_err(ClientError::Transport)?;
    let status = response.status().as_u16();
    let body = response.bytes().await.map_err(ClientError::Transport)?;
    Ok((status, body.to_vec()))
}

fn parse<'a, T: Deserialize<'a>>(status: u16, body: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|source| ClientError::Malformed { status, source })
}

fn error_of(status: u16, body: &[u8]) -> ClientError {
    let fallback_code = || format!("HTTP_{status}");
    let (mut details, mut position) = (None, None);
    let (code, message) = match serde_json::from_slice::<AnyError>(body) {
        Ok(AnyError {
            error: Some(ErrorBody::Typed { code, message, details: more, line, column }), ..
        }) => {
            details = more;
            position = line.zip(column);
            (code, message)
        }
        Ok(AnyError { error: Some(ErrorBody::Text(text)), code, message }) => {
            (code.unwrap_or_else(fallback_code), message.unwrap_or(text))
        }
        Ok(AnyError { error: None, code, message: Some(message) }) => {
            (code.unwrap_or_else(fallback_code), message)
        }
        _ => (fallback_code(), String::from_utf8_lossy(body).trim().chars().take(500).collect()),
    };
    ClientError::Server { status, code, message, details, position }
}

/// `text` as an SQL string literal.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(status: u16, body: &str, expected: (&str, &str)) {
        match error_of(status, body.as_bytes()) {
            ClientError::Server { status: got, code, message, .. } => {
                assert_eq!((got, code.as_str(), message.as_str()), (status, expected.0, expected.1));
            }
            other => panic!("not a server error: {other}"),
        }
    }

    #[test]
    fn errors_keep_the_servers_code_and_message() {
        check_error(
            404,
            r#"{"status":"error","results":[],"took":0.1,"error":{"code":"TABLE_NOT_FOUND","message":"no a.b"}}"#,
            ("TABLE_NOT_FOUND", "no a.b"),
        );
        check_error(
            401,
            r#"{"code":"UNAUTHORIZED","message":"bad password"}"#,
            ("UNAUTHORIZED", "bad password"),
        );
        check_error(
            401,
            r#"{"error":"UNAUTHORIZED","message":"bad password"}"#,
            ("HTTP_401", "bad password"),
        );
        check_error(502, "<html>bad gateway", ("HTTP_502", "<html>bad gateway"));
    }

    #[test]
    fn a_request_leaves_out_what_it_does_not_say() {
        let text = serde_json::to_string(&Statement::text("SELECT 1")).unwrap();
        assert_eq!(text, r#"{"sql":"SELECT 1"}"#);
        let params = [Value::from(1)];
        let full = Statement { sql: "SELECT $1", params: &params, namespace_id: Some("chat") };
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(text, r#"{"sql":"SELECT $1","params":[1],"namespace_id":"chat"}"#);
    }

    #[test]
    fn literals_double_their_quotes() {
        assert_eq!(quote_literal("o'brien"), "'o''brien'");
    }
}
