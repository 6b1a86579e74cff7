//! Whether the server runs, whether it is ready for work, and its numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::app::App;

#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
    api_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Storage locations that fail, and how; rows stay in the hot tier meanwhile.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    storage_failures: BTreeMap<String, String>,
    /// Parquet files that are listed and not there, the first of them: their rows cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_files: Vec<String>,
}

/// Files that are named at the most.
const MISSING_FILES_MAX: usize = 100;

fn report(app: &App) -> Health {
    let reason = app.engine.failure();
    let mut missing_files = app.engine.missing_cold_files();
    let status = if *app.stop.borrow() {
        "shutting_down"
    } else if reason.is_some() {
        "read_only"
    } else if !missing_files.is_empty() {
        "degraded"
    } else {
        "healthy"
    };
    let storage_failures = app.engine.storage_failures();
    missing_files.truncate(MISSING_FILES_MAX);
    let version = env!("CARGO_PKG_VERSION");
    Health { status, version, api_version: "v1", reason, storage_failures, missing_files }
}

/// It runs: reads work even where writes do not.
pub(super) async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    Json(report(&app))
}

/// It takes work, writes included.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let health = report(&app);
    let status = if matches!(health.status, "healthy" | "degraded") {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health)).into_response()
}

/// For Prometheus.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render()).into_response()
}
