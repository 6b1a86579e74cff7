//! The metrics recorder: one per process, whoever comes first installs it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// How often histograms are folded, so that they do not grow while nobody scrapes.
pub(crate) const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// For durations: from 50 microseconds, about what a statement about one row takes, to a minute.
const SECONDS: [f64; 16] =
    [5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0];
/// For counts and sizes.
const COUNTS: [f64; 10] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5, 1e6];

/// The process's recorder. Where something else installed its own before, `/metrics` of this one stays empty.
pub(crate) fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        // Neither list is empty, which is all that can be wrong with one.
        let builder = PrometheusBuilder::new()
            .set_buckets(&COUNTS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            })
            .unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics has nothing to show");
        }
        handle
    });
    handle.clone()
}
