//! Passwords for tokens, tokens for newer ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use kalamdb_core::format::{Role, User};
use kalamdb_core::role_name;
use serde::{Deserialize, Serialize};

use super::body::{read_json, refuse};
use super::required_bearer;
use crate::app::App;
use crate::auth::TokenKind;
use crate::refusal::Refusal;

#[derive(Deserialize)]
struct LoginRequest {
    #[serde(alias = "username")]
    user: String,
    password: String,
}

#[derive(Serialize)]
struct UserBody {
    id: String,
    role: &'static str,
    name: Option<String>,
    email: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct LoginAnswer {
    user: UserBody,
    admin_ui_access: bool,
    expires_at: String,
    access_token: String,
    refresh_token: String,
    refresh_expires_at: String,
}

pub(super) async fn login(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Response {
    answer(check_password(&app, body).await.and_then(|user| admit(&app, &user)))
}

/// A refresh token, as the bearer, for a new pair.
pub(super) async fn refresh(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let account = required_bearer(&headers)
        .and_then(|token| app.tokens.account(&app.engine, token, TokenKind::Refresh));
    answer(account.and_then(|(user, _)| admit(&app, &user)))
}

/// Tokens are not kept here: the client forgets its own.
pub(super) async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let identity = required_bearer(&headers).and_then(|token| app.tokens.identity(&app.engine, token));
    answer(identity.map(|_| serde_json::json!({ "message": "logged out; forget the tokens" })))
}

pub(super) async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let account =
        required_bearer(&headers).and_then(|token| app.tokens.account(&app.engine, token, TokenKind::Access));
    answer(account.map(|(user, _)| user_body(&user)))
}

/// Some clients ask whether the server still has to be set up: it never has to, `root` is there from the first start.
pub(super) async fn status() -> Response {
    answer(Ok(serde_json::json!({ "needs_setup": false, "message": "the server is set up" })))
}

fn answer<T: Serialize>(result: Result<T, Refusal>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

/// Checking takes the same time whether the user exists or not (the engine sees to that), and a place in the queue.
async fn check_password(app: &App, body: Result<Bytes, BytesRejection>) -> Result<User, Refusal> {
    let LoginRequest { user, password } = read_json(body, app.config.body_bytes_max)?;
    let busy = |_| Refusal::new("RATE_LIMIT_EXCEEDED", "too many logins at a time; try again");
    let _waiting = app.login_queue.try_acquire().map_err(busy)?;
    let closed = |_| Refusal::new("SHUTTING_DOWN", "the server is shutting down");
    let _checking = app.logins.acquire().await.map_err(closed)?;
    let engine = app.engine.clone();
    let checked = tokio::task::spawn_blocking(move || engine.authenticate(&user, &password)).await;
    match checked {
        Ok(Ok(user)) => Ok(user),
        Ok(Err(error)) => {
            metrics::counter!("kalamdb_login_failures_total").increment(1);
            Err(Refusal::of_statement(&error))
        }
        Err(error) => Err(Refusal::new("INTERNAL_ERROR", format!("the password cannot be checked: {error}"))),
    }
}

fn admit(app: &App, user: &User) -> Result<LoginAnswer, Refusal> {
    let access = app.tokens.issue(user, TokenKind::Access)?;
    let refresh = app.tokens.issue(user, TokenKind::Refresh)?;
    Ok(LoginAnswer {
        user: user_body(user),
        admin_ui_access: user.role == Role::Dba,
        expires_at: rfc3339(access.expires_at.saturating_mul(1_000_000)),
        access_token: access.token,
        refresh_token: refresh.token,
        refresh_expires_at: rfc3339(refresh.expires_at.saturating_mul(1_000_000)),
    })
}

fn user_body(user: &User) -> UserBody {
    let metadata: Option<serde_json::Value> =
        user.metadata.as_deref().and_then(|metadata| serde_json::from_str(metadata).ok());
    let of_metadata = |key| Some(metadata.as_ref()?.get(key)?.as_str()?.to_owned());
    UserBody {
        id: user.id.to_string(),
        role: role_name(user.role),
        name: of_metadata("name"),
        email: of_metadata("email"),
        created_at: rfc3339(user.created_at),
        updated_at: rfc3339(user.updated_at),
    }
}

fn rfc3339(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros)
        .unwrap_or(DateTime::UNIX_EPOCH)
        .to_rfc3339_opts(SecondsFormat::Micros, true)
}
