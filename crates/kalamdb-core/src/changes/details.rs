//! What there is to say of an event that is not a row: by name, in an order that reads well. Never a password's hash.

use log_format::{
    ChangeEvent, ColdFile, Column, ColumnDefault, Compacted, Flushed, Job, Namespace, StorageLocation, Table,
    TableKind, TableSchema,
};
use serde_json::{Value as Json, json};

use crate::changes::json::{instant, write_value};

type Details = Vec<(&'static str, Json)>;

/// What an event of this epoch says, as a JSON object; nothing where it says nothing.
pub(super) fn write(out: &mut Vec<u8>, event: &ChangeEvent, epoch: u32) {
    let details = details(event, epoch);
    for (index, (name, value)) in details.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        write_value(out, name);
        out.push(b':');
        write_value(out, value);
    }
    if !details.is_empty() {
        out.push(b'}');
    }
}

fn details(event: &ChangeEvent, epoch: u32) -> Details {
    match event {
        ChangeEvent::EpochStarted(event) => {
            vec![("epoch", json!(epoch)), ("previous_end", json!(event.previous_end))]
        }
        ChangeEvent::StreamEvicted(event) => {
            let before_time = json!(instant(event.before_time));
            vec![("before_time", before_time), ("before_seq", json!(event.before_seq))]
        }
        ChangeEvent::NamespaceCreated(namespace) | ChangeEvent::NamespaceAltered(namespace) => {
            of_namespace(namespace)
        }
        ChangeEvent::NamespaceDropped(id) => vec![("namespace", json!(id.as_str()))],
        ChangeEvent::TableCreated(table) | ChangeEvent::TableAltered(table) => of_table(table),
        ChangeEvent::TableDropped(table) => vec![("table_id", json!(table.table.get()))],
        ChangeEvent::TableTruncated(table) => vec![("table_id", json!(table.table.get()))],
        ChangeEvent::SchemaVersionAdded(schema) => of_schema(schema),
        ChangeEvent::UserCreated(user) | ChangeEvent::UserAltered(user) => {
            vec![("role", json!(format!("{:?}", user.role).to_lowercase()))]
        }
        ChangeEvent::StorageLocationCreated(location) | ChangeEvent::StorageLocationAltered(location) => {
            of_location(location)
        }
        ChangeEvent::StorageLocationDropped(name) => vec![("location", json!(**name))],
        ChangeEvent::JobCreated(job) | ChangeEvent::JobUpdated(job) => of_job(job),
        ChangeEvent::JobDropped(id) => vec![("job", json!(id.as_str()))],
        ChangeEvent::Flushed(flushed) => of_flush(flushed),
        ChangeEvent::Compacted(compacted) => of_compaction(compacted),
        ChangeEvent::RowInserted(_)
        | ChangeEvent::RowUpdated(_)
        | ChangeEvent::RowDeleted(_)
        | ChangeEvent::StreamAppended(_)
        | ChangeEvent::UserDropped(_) => Vec::new(),
    }
}

fn of_flush(flushed: &Flushed) -> Details {
    let superseded: usize = flushed.superseded.iter().map(|rows| rows.positions.len()).sum();
    let mut details = vec![("until_seq", json!(flushed.until_seq)), ("superseded", json!(superseded))];
    details.extend(flushed.file.iter().flat_map(of_file));
    details
}

fn of_compaction(compacted: &Compacted) -> Details {
    let mut details = vec![("removed", json!(compacted.removed))];
    details.extend(compacted.file.iter().flat_map(of_file));
    details
}

fn of_file(file: &ColdFile) -> Details {
    vec![("file", json!(file.path)), ("rows", json!(file.rows)), ("bytes", json!(file.bytes))]
}

fn of_namespace(namespace: &Namespace) -> Details {
    let options: serde_json::Map<_, _> =
        namespace.options.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    vec![("namespace", json!(namespace.id.as_str())), ("options", Json::Object(options))]
}

fn of_table(table: &Table) -> Details {
    let mut details =
        vec![("table_id", json!(table.id.get())), ("current_version", json!(table.current_version.get()))];
    match &table.kind {
        TableKind::User => details.push(("kind", json!("user"))),
        TableKind::Shared(access) => {
            details.push(("kind", json!("shared")));
            details.push(("access", json!(format!("{access:?}").to_lowercase())));
        }
        TableKind::Stream(options) => {
            details.push(("kind", json!("stream")));
            details.push(("scope", json!(format!("{:?}", options.scope).to_lowercase())));
            details.push(("ttl_ms", json!(options.ttl_ms)));
            details.push(("max_buffer", json!(options.max_buffer)));
            details.push(("ephemeral", json!(options.ephemeral)));
        }
    }
    if let Some(policy) = &table.flush_policy {
        details.push(("flush_rows", json!(policy.rows)));
        details.push(("flush_interval_ms", json!(policy.interval_ms)));
    }
    details
}

fn of_schema(schema: &TableSchema) -> Details {
    let name = |column: &Column| json!(column.name);
    let key = schema.primary_key.iter();
    let key = key.filter_map(|id| schema.columns.iter().find(|column| column.id == *id)).map(name);
    vec![
        ("version", json!(schema.version.get())),
        ("change", json!(schema.change)),
        ("columns", schema.columns.iter().map(|column| json!(column_text(column))).collect()),
        ("primary_key", key.collect()),
        ("created_by", json!(schema.created_by.as_str())),
    ]
}

/// A column as a CREATE TABLE would have it.
fn column_text(column: &Column) -> String {
    let mut text = format!("{} {}", column.name, column.data_type);
    if !column.nullable {
        text.push_str(" NOT NULL");
    }
    text.push_str(match column.default {
        None => "",
        Some(ColumnDefault::Constant(_)) => " DEFAULT …",
        Some(ColumnDefault::SnowflakeId) => " DEFAULT SNOWFLAKE_ID()",
        Some(ColumnDefault::UuidV7) => " DEFAULT UUID_V7()",
        Some(ColumnDefault::Ulid) => " DEFAULT ULID()",
        Some(ColumnDefault::Now) => " DEFAULT NOW()",
        Some(ColumnDefault::CurrentUser) => " DEFAULT CURRENT_USER()",
        Some(ColumnDefault::CurrentRole) => " DEFAULT CURRENT_ROLE()",
    });
    text
}

fn of_location(location: &StorageLocation) -> Details {
    vec![
        ("location", json!(location.name)),
        ("location_type", json!(location.location_type)),
        ("path", json!(location.path)),
        ("usage_count", json!(location.usage_count)),
    ]
}

fn of_job(job: &Job) -> Details {
    let mut details = vec![
        ("job", json!(job.id.as_str())),
        ("job_type", json!(job.job_type)),
        ("status", json!(format!("{:?}", job.status).to_lowercase())),
    ];
    if let Some(message) = &job.error_message {
        details.push(("error_message", json!(message)));
    }
    details
}
