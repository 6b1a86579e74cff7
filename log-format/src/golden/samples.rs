//! One event of each type, some twice, so that every variant and both sides of every option occur.

use crate::{
    Access, ChangeEvent, ColdFile, Column, ColumnBounds, ColumnDefault, ColumnId, Compacted, DataType,
    EpochStarted, FlushPolicy, Flushed, Job, JobId, JobStatus, KeyBuilder, LiveRows, Namespace, NamespaceId,
    Partition, Role, RowBuilder, RowDeleted, RowInserted, RowUpdated, SchemaVersion, StorageLocation,
    StreamAppended, StreamEvicted, StreamOptions, StreamScope, SupersededRows, Table, TableDropped, TableId,
    TableKind, TableSchema, TableTruncated, User, UserId, Value,
};

const CREATED: i64 = 1_790_000_000_000_000;
const UPDATED: i64 = 1_790_000_000_123_456;

pub(super) fn row(values: &[Value]) -> Vec<u8> {
    let mut row = RowBuilder::new(SchemaVersion::FIRST);
    for value in values {
        row.push(value);
    }
    row.finish().unwrap()
}

pub(super) fn key(values: &[Value]) -> Vec<u8> {
    let mut key = KeyBuilder::new();
    for value in values {
        key.push(value).unwrap();
    }
    key.finish()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn mine() -> Partition {
    Partition::of_user(TableId::new(7), UserId::new("ada"))
}

fn message(body: &str) -> Vec<u8> {
    row(&[Value::BigInt(1001), Value::Text(text(body)), Value::Null])
}

fn rows() -> Vec<ChangeEvent> {
    let key = key(&[Value::BigInt(1001)]);
    vec![
        ChangeEvent::EpochStarted(Box::new(EpochStarted { previous_end: 41 })),
        ChangeEvent::RowInserted(Box::new(RowInserted {
            partition: mine(),
            key: key.clone(),
            row: message("hello"),
        })),
        ChangeEvent::RowUpdated(Box::new(RowUpdated {
            partition: mine(),
            key: key.clone(),
            old: message("hello"),
            new: message("hello, world"),
        })),
        ChangeEvent::RowDeleted(Box::new(RowDeleted {
            partition: Partition::shared(TableId::new(8)),
            key,
            old: message("bye"),
        })),
        ChangeEvent::StreamAppended(Box::new(StreamAppended {
            partition: Partition::of_user(TableId::new(9), UserId::new("a-user-with-a-long-name")),
            row: row(&[Value::Text(text("typing"))]),
        })),
        ChangeEvent::StreamEvicted(Box::new(StreamEvicted {
            partition: mine(),
            before_time: CREATED,
            before_seq: 40,
        })),
    ]
}

fn table(kind: TableKind) -> Table {
    Table {
        id: TableId::new(7),
        namespace: NamespaceId::new("chat"),
        name: text("messages"),
        kind,
        current_version: SchemaVersion::FIRST,
        location_path: None,
        location_reference: None,
        flush_policy: None,
        deleted_retention_ms: None,
        created_at: CREATED,
        updated_at: CREATED,
    }
}

fn stream_table() -> Table {
    let options =
        StreamOptions { scope: StreamScope::All, ttl_ms: Some(30_000), max_buffer: None, ephemeral: true };
    Table {
        location_path: Some(text("/data/${user_id}")),
        flush_policy: Some(FlushPolicy { rows: Some(1000), interval_ms: None }),
        deleted_retention_ms: Some(86_400_000),
        ..table(TableKind::Stream(options))
    }
}

fn shared_table() -> Table {
    Table {
        location_reference: Some(text("archive")),
        flush_policy: Some(FlushPolicy { rows: None, interval_ms: Some(60_000) }),
        current_version: SchemaVersion::new(2),
        updated_at: UPDATED,
        ..table(TableKind::Shared(Access::Restricted))
    }
}

fn schema() -> TableSchema {
    let types = [
        DataType::BigInt,
        DataType::Boolean,
        DataType::SmallInt,
        DataType::Int,
        DataType::Float,
        DataType::Double,
        DataType::Decimal { precision: 12, scale: 2 },
        DataType::Text,
        DataType::Timestamp,
        DataType::DateTime,
        DataType::Date,
        DataType::Time,
        DataType::Json,
        DataType::Bytes,
        DataType::Uuid,
        DataType::Embedding(384),
    ];
    let default = |number| match number {
        1 => Some(ColumnDefault::SnowflakeId),
        2 => Some(ColumnDefault::constant(&Value::Boolean(true)).unwrap()),
        8 => Some(ColumnDefault::CurrentUser),
        9 => Some(ColumnDefault::Now),
        15 => Some(ColumnDefault::UuidV7),
        _ => None,
    };
    let column = |(number, data_type)| Column {
        id: ColumnId::new(number),
        name: format!("column_{number}"),
        data_type,
        nullable: number > 1,
        default: default(number),
    };
    TableSchema {
        table: TableId::new(7),
        version: SchemaVersion::FIRST,
        columns: (1..).zip(types).map(column).collect(),
        primary_key: vec![ColumnId::new(1), ColumnId::new(2)],
        change: text("CREATE"),
        created_at: CREATED,
        created_by: UserId::new("root"),
    }
}

fn catalog() -> Vec<ChangeEvent> {
    let namespace = Namespace {
        id: NamespaceId::new("chat"),
        options: vec![(text("region"), text("eu-central-1"))],
        created_at: CREATED,
        updated_at: UPDATED,
    };
    let plain = Namespace { options: Vec::new(), ..namespace.clone() };
    let dropped =
        TableDropped { table: TableId::new(7), namespace: NamespaceId::new("chat"), name: text("messages") };
    vec![
        ChangeEvent::NamespaceCreated(Box::new(plain)),
        ChangeEvent::NamespaceAltered(Box::new(namespace)),
        ChangeEvent::NamespaceDropped(Box::new(NamespaceId::new("chat"))),
        ChangeEvent::TableCreated(Box::new(stream_table())),
        ChangeEvent::TableAltered(Box::new(shared_table())),
        ChangeEvent::TableDropped(Box::new(dropped)),
        ChangeEvent::SchemaVersionAdded(Box::new(schema())),
    ]
}

fn operations() -> Vec<ChangeEvent> {
    let user = User {
        id: UserId::new("ada"),
        role: Role::Service,
        password_hash: text("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"),
        metadata: None,
        created_at: CREATED,
        updated_at: CREATED,
    };
    let altered =
        User { role: Role::Dba, metadata: Some(text("{\"mail\":\"ada@example.org\"}")), ..user.clone() };
    let location = StorageLocation {
        name: text("archive"),
        location_type: text("s3"),
        path: text("s3://bucket/archive"),
        credentials_ref: None,
        usage_count: 0,
        created_at: CREATED,
        updated_at: CREATED,
    };
    let in_use =
        StorageLocation { credentials_ref: Some(text("env:AWS")), usage_count: 3, ..location.clone() };
    vec![
        ChangeEvent::UserCreated(Box::new(user)),
        ChangeEvent::UserAltered(Box::new(altered)),
        ChangeEvent::UserDropped(Box::new(UserId::new("a-user-with-a-long-name"))),
        ChangeEvent::StorageLocationCreated(Box::new(location)),
        ChangeEvent::StorageLocationAltered(Box::new(in_use)),
        ChangeEvent::StorageLocationDropped(Box::new(text("archive"))),
        ChangeEvent::JobCreated(Box::new(queued_job())),
        ChangeEvent::JobUpdated(Box::new(failed_job())),
    ]
}

fn queued_job() -> Job {
    Job {
        id: JobId::new("job-1"),
        job_type: text("drop_table"),
        namespace: None,
        table_name: None,
        user: None,
        status: JobStatus::Queued,
        parameters: None,
        result: None,
        error_message: None,
        trace: None,
        memory_used: None,
        cpu_used: None,
        node: text("local"),
        created_at: CREATED,
        started_at: None,
        finished_at: None,
    }
}

fn failed_job() -> Job {
    Job {
        namespace: Some(NamespaceId::new("chat")),
        table_name: Some(text("messages")),
        user: Some(UserId::new("ada")),
        status: JobStatus::Failed,
        parameters: Some(text("{\"table\":7}")),
        result: Some(text("{}")),
        error_message: Some(text("disk full")),
        trace: Some(text("kalamdb_core::jobs")),
        memory_used: Some(4096),
        cpu_used: Some(1500),
        started_at: Some(CREATED),
        finished_at: Some(UPDATED),
        ..queued_job()
    }
}

/// Those that came after the others.
fn later() -> Vec<ChangeEvent> {
    let (namespace, name) = (NamespaceId::new("chat"), text("messages"));
    let truncated = TableTruncated { table: TableId::new(7), namespace, name };
    vec![
        ChangeEvent::TableTruncated(Box::new(truncated)),
        ChangeEvent::JobDropped(Box::new(JobId::new("drop_table-41"))),
        ChangeEvent::Flushed(Box::new(flushed())),
        ChangeEvent::Compacted(Box::new(compacted())),
    ]
}

fn flushed() -> Flushed {
    Flushed {
        partition: Partition::of_user(TableId::new(7), UserId::new("ada")),
        from_key: vec![0x80, 0, 0, 1],
        until_key: vec![0x80, 0, 0, 9],
        schema_version: SchemaVersion::FIRST,
        until_seq: 41,
        file: Some(ColdFile {
            id: 41,
            path: text("chat/messages-7/ada/41.parquet"),
            rows: 2,
            bytes: 1234,
            crc32c: 0x1234_5678,
            schema_version: SchemaVersion::FIRST,
            first_seq: 12,
            last_seq: 40,
            first_key: vec![0x80, 0, 0, 1],
            last_key: vec![0x80, 0, 0, 8],
            first_updated: 1_750_000_000_000_000,
            last_updated: 1_750_000_001_000_000,
            bounds: vec![ColumnBounds {
                column: ColumnId::new(1),
                least: vec![0x80, 0, 0, 1],
                greatest: vec![0x80, 0, 0, 8],
            }],
        }),
        superseded: vec![SupersededRows { file: 11, positions: vec![0, 5] }],
        live: Some(LiveRows { rows: 1, bytes: 77 }),
    }
}

fn compacted() -> Compacted {
    let Flushed { partition, file, .. } = flushed();
    let file = file.map(|file| ColdFile { id: 43, path: text("chat/messages-7/ada/43.parquet"), ..file });
    Compacted { partition, removed: vec![11, 41], file }
}

/// One event of each type, in the order of their tags.
pub(super) fn events() -> Vec<ChangeEvent> {
    [rows(), catalog(), operations(), later()].concat()
}

/// One value of each type, with the greatest and the smallest where that is worth seeing.
pub(super) fn values() -> Vec<Value> {
    vec![
        Value::Null,
        Value::Boolean(false),
        Value::Boolean(true),
        Value::SmallInt(-2),
        Value::Int(1_000_000),
        Value::BigInt(i64::MIN),
        Value::Float(1.5),
        Value::Double(-0.1),
        Value::Decimal(-12_345),
        Value::Text(text("grüße")),
        Value::Timestamp(CREATED),
        Value::DateTime(UPDATED),
        Value::Date(20_717),
        Value::Time(86_399_999_999),
        Value::Json(text("{\"a\":[1,null]}")),
        Value::Bytes(vec![0, 0xff, 0]),
        Value::Uuid([0x11; 16]),
        Value::Embedding(vec![0.0, -1.0]),
    ]
}
