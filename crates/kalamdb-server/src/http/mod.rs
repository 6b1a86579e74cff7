//! The routes, and how refusals and answers look.

mod auth_routes;
mod body;
mod health;
mod sql;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::app::App;
use crate::refusal::Refusal;
use crate::ws;

pub(crate) use body::refuse;
#[cfg(test)]
pub(crate) use body::status_of;

/// Every route. Those below `/v1/api` are the protocol's; health and metrics also stand where tools look for them.
pub(crate) fn router(app: Arc<App>) -> Router {
    let observed = Router::new()
        .route("/healthcheck", get(health::health))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics));
    let api = Router::new()
        .route("/auth/login", post(auth_routes::login))
        .route("/auth/refresh", post(auth_routes::refresh))
        .route("/auth/logout", post(auth_routes::logout))
        .route("/auth/me", get(auth_routes::me))
        .route("/auth/status", get(auth_routes::status))
        .route("/sql", post(sql::run))
        .merge(observed.clone());
    Router::new()
        .nest("/v1/api", api)
        .route("/v1/ws", get(ws::upgrade))
        .merge(observed)
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(app.config.body_bytes_max))
        .layer(middleware::from_fn(count))
        .with_state(app)
}

async fn no_route() -> Response {
    refuse(&Refusal::new("NOT_FOUND", "there is no such route"))
}

async fn wrong_method() -> Response {
    let body = refuse(&Refusal::protocol("the route takes another method"));
    (StatusCode::METHOD_NOT_ALLOWED, body).into_response()
}

/// Counts a request by route and status; the routes are known, so that nobody can make up new time series.
async fn count(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let route = match path.strip_prefix("/v1/api").unwrap_or(path) {
        "/sql" => "sql",
        "/auth/login" => "login",
        "/auth/refresh" => "refresh",
        "/auth/logout" => "logout",
        "/auth/me" => "me",
        "/v1/ws" => "ws",
        "/health" | "/healthcheck" | "/ready" | "/metrics" | "/auth/status" => "health",
        _ => "other",
    };
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    metrics::counter!("kalamdb_http_requests_total", "route" => route, "status" => status).increment(1);
    response
}

/// The bearer token of a request, if it has an `Authorization` header.
///
/// # Errors
/// Where the header is something else.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let invalid =
        || Refusal::new("UNAUTHORIZED", "the Authorization header is `Bearer`, a space, and a token");
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim())) } else { Err(invalid()) }
}

/// The bearer token of a request that needs one.
pub(crate) fn required_bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    bearer(headers)?.ok_or_else(|| {
        Refusal::new("AUTH_REQUIRED", "log in and send the token as `Authorization: Bearer …`")
    })
}
