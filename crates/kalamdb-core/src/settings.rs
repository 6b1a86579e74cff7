//! What the engine runs with, as `system.settings` shows it. Never a secret.

use kalamdb_log::Durability;

use crate::engine::EngineOptions;
use crate::sql::flush_policy_text;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// None where there is no limit.
    pub(crate) value: Option<String>,
    pub(crate) is_default: bool,
    pub(crate) description: &'static str,
}

type Value = fn(&EngineOptions) -> Option<String>;

const SETTINGS: [(&str, Value, &str); 15] = [
    ("data_dir", |it| Some(it.data_dir.display().to_string()), "the database's directory"),
    ("durability", |it| Some(durability(it.durability)), "when a write counts as done"),
    ("segment_bytes", |it| Some(it.segment_bytes.to_string()), "bytes of a log segment"),
    (
        "unflushed_bytes_max",
        |it| Some(it.unflushed_bytes_max.to_string()),
        "bytes of log after which rows and catalog are put into files",
    ),
    (
        "feed_bytes_max",
        |it| Some(it.feed_bytes_max.to_string()),
        "bytes of the newest commits kept in memory for live queries",
    ),
    (
        "query_bytes_max",
        |it| Some(it.query_bytes_max.to_string()),
        "bytes that queries take together before they spill",
    ),
    (
        "block_cache_bytes",
        |it| Some(it.store.block_cache_bytes.to_string()),
        "bytes of the cache for rows read from disk",
    ),
    (
        "write_buffer_bytes",
        |it| Some(it.store.write_buffer_bytes.to_string()),
        "bytes of rows in memory at which they are put into files whatever else",
    ),
    (
        "retention_bytes",
        |it| it.retention.bytes.map(|bytes| bytes.to_string()),
        "bytes of log that are kept beyond what is needed; none: all",
    ),
    (
        "retention_age",
        |it| it.retention.age.map(|age| format!("{}s", age.as_secs())),
        "how long the log is kept beyond what is needed; none: for ever",
    ),
    (
        "flush_policy",
        |it| it.flush.policy.as_ref().map(flush_policy_text),
        "when rows of tables without a policy move to the cold tier; none: never",
    ),
    (
        "hot_bytes_max",
        |it| it.flush.hot_bytes_max.map(|bytes| bytes.to_string()),
        "bytes of rows in the hot tier above which the greatest tables are flushed; none: any",
    ),
    (
        "finished_jobs_ms_max",
        |it| Some(it.job_retention.finished_ms_max.to_string()),
        "milliseconds that jobs which ended are remembered",
    ),
    (
        "finished_jobs_max",
        |it| Some(it.job_retention.finished_max.to_string()),
        "jobs which ended that are remembered",
    ),
    ("version", |_| Some(env!("CARGO_PKG_VERSION").to_owned()), "the version of the server"),
];

fn durability(durability: Durability) -> String {
    format!("{durability:?}").to_lowercase()
}

/// What these options are, beside what they would be by default.
pub(crate) fn settings_of(options: &EngineOptions) -> Vec<Setting> {
    let defaults = EngineOptions::new(&options.data_dir);
    let setting = |(name, value, description): (&'static str, Value, &'static str)| {
        let is_default = value(options) == value(&defaults);
        Setting { name, value: value(options), is_default, description }
    };
    SETTINGS.map(setting).to_vec()
}
