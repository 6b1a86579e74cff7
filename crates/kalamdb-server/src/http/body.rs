//! Bodies: reading JSON with the protocol's errors, and the shape of a refusal.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;

/// The error of a failed request.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    /// The same place in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    /// Where in the request's SQL, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
}

impl<'a> From<&'a Refusal> for ErrorBody<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        Self {
            code: refusal.code,
            message: &refusal.message,
            details: refusal.position.map(|at| format!("at line {}, column {}", at.line, at.column)),
            line: refusal.position.map(|position| position.line),
            column: refusal.position.map(|position| position.column),
        }
    }
}

#[derive(Serialize)]
struct Refused<'a> {
    status: &'static str,
    results: [(); 0],
    took: f64,
    error: ErrorBody<'a>,
}

/// A refusal as a response.
pub(crate) fn refuse(refusal: &Refusal) -> Response {
    let body = Json(Refused { status: "error", results: [], took: 0.0, error: refusal.into() });
    let mut response = (status_of(refusal.code), body).into_response();
    let header = match response.status() {
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        // The rest of the body is not read: nothing else can come on this connection.
        StatusCode::PAYLOAD_TOO_LARGE => Some((header::CONNECTION, HeaderValue::from_static("close"))),
        _ => None,
    };
    response.headers_mut().extend(header.into_iter().chain(retry_after(refusal.code)));
    response
}

/// Seconds after which a client may try again what was refused because of too much work.
const RETRY_AFTER_S: &str = "1";

/// When to try again, as a header, where the code says that it is worth it.
pub(super) fn retry_after(code: &str) -> Option<(HeaderName, HeaderValue)> {
    (code == "OVERLOADED").then_some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S)))
}

/// The HTTP status that fits a code.
pub(crate) fn status_of(code: &str) -> StatusCode {
    match code {
        "AUTH_REQUIRED" | "UNAUTHORIZED" | "TOKEN_EXPIRED" => StatusCode::UNAUTHORIZED,
        "PERMISSION_DENIED" => StatusCode::FORBIDDEN,
        "TABLE_NOT_FOUND" | "NAMESPACE_NOT_FOUND" | "NOT_FOUND" => StatusCode::NOT_FOUND,
        "ALREADY_EXISTS" | "CONSTRAINT_VIOLATION" | "CONFLICT" | "LOCATION_OWNED" => StatusCode::CONFLICT,
        "MESSAGE_TOO_LARGE" => StatusCode::PAYLOAD_TOO_LARGE,
        "RATE_LIMIT_EXCEEDED" => StatusCode::TOO_MANY_REQUESTS,
        "INTERNAL_ERROR" | "STATEMENT_PANICKED" | "CONVERSION_ERROR" => StatusCode::INTERNAL_SERVER_ERROR,
        "MEMORY_LIMIT" => StatusCode::INSUFFICIENT_STORAGE,
        "READ_ONLY" | "SHUTTING_DOWN" | "OVERLOADED" => StatusCode::SERVICE_UNAVAILABLE,
        "TIMEOUT" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// A request's JSON.
///
/// # Errors
/// For a body that is too large, breaks off, or is not the JSON that is asked for.
pub(super) fn read_json<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    bytes_max: usize,
) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(bytes_max),
        _ => Refusal::protocol(rejection.body_text()),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::protocol(format!("not the JSON that is asked for: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_of_its_kind() {
        assert_eq!(status_of("TOKEN_EXPIRED"), StatusCode::UNAUTHORIZED);
        assert_eq!(status_of("INVALID_SQL"), StatusCode::BAD_REQUEST);
        assert_eq!(status_of("READ_ONLY"), StatusCode::SERVICE_UNAVAILABLE);
        let refused = refuse(&Refusal::new("OVERLOADED", "too much"));
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(status_of("MEMORY_LIMIT"), StatusCode::INSUFFICIENT_STORAGE);
    }

    #[test]
    fn malformed_json_is_refused_with_its_place() {
        let body = Ok(Bytes::from_static(b"{\"sql\": "));
        let refusal = read_json::<serde_json::Value>(body, 10).unwrap_err();
        assert_eq!(refusal.code, "PROTOCOL");
        assert!(refusal.message.contains("line 1"), "{}", refusal.message);
    }
}
