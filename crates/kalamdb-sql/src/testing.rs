//! What the tests of this crate share.

use std::path::Path;

use log_format::{
    Access, ChangeEvent, Column, ColumnId, DataType, FlushPolicy, Frame, FrameEncoder, FrameFields, Job,
    JobId, JobStatus, Namespace, NamespaceId, Partition, Role, RowInserted, SchemaVersion, Seq,
    StorageLocation, Table, TableId, TableKind, TableSchema, User, UserId,
};

use crate::SystemTables;
use crate::batch::Batch;

pub(crate) fn open(dir: &Path) -> SystemTables {
    SystemTables::open(dir).unwrap()
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number)
}

/// A commit as the log hands it over.
pub(crate) fn commit(first_seq: u64, events: &[ChangeEvent]) -> Frame {
    let mut encoder = FrameEncoder::new();
    let archives: Vec<_> = events.iter().map(|event| event.encode().unwrap()).collect();
    let fields = FrameFields {
        first_seq: seq(first_seq),
        epoch: 1,
        previous_crc: 0,
        commit_time: 5,
        durable_seq: Seq::ZERO,
    };
    encoder.push(&fields, &archives).unwrap();
    encoder.take_frames().remove(0)
}

/// What the typed calls do, without an event.
pub(crate) fn write(system: &SystemTables, fill: impl FnOnce(&mut Batch<'_>) -> crate::Result<()>) {
    system.write(fill).unwrap();
}

pub(crate) fn namespace(name: &str, updated_at: i64) -> Namespace {
    let options = vec![("retention".to_owned(), "7 days".to_owned())];
    Namespace { id: NamespaceId::new(name), options, created_at: 1, updated_at }
}

pub(crate) fn table(id: u64, version: u32) -> Table {
    Table {
        id: TableId::new(id),
        namespace: NamespaceId::new("app"),
        name: format!("table_{id}"),
        kind: TableKind::Shared(Access::Public),
        current_version: SchemaVersion::new(version),
        location_path: None,
        location_reference: Some("local".to_owned()),
        flush_policy: Some(FlushPolicy { rows: Some(10), interval_ms: None }),
        deleted_retention_ms: Some(3),
        created_at: 1,
        updated_at: i64::from(version),
    }
}

pub(crate) fn schema(table: u64, version: u32) -> TableSchema {
    let column = |id: u32| Column {
        id: ColumnId::new(id),
        name: format!("column_{id}"),
        data_type: DataType::BigInt,
        nullable: id > 1,
        default: None,
    };
    TableSchema {
        table: TableId::new(table),
        version: SchemaVersion::new(version),
        columns: (1..=version).map(column).collect(),
        primary_key: vec![ColumnId::new(1)],
        change: format!("version {version}"),
        created_at: 1,
        created_by: UserId::new("root"),
    }
}

pub(crate) fn user(name: &str, role: Role) -> User {
    User {
        id: UserId::new(name),
        role,
        password_hash: "$argon2id$…".to_owned(),
        metadata: Some("{}".to_owned()),
        created_at: 1,
        updated_at: 2,
    }
}

pub(crate) fn storage_location(name: &str, usage_count: u64) -> StorageLocation {
    StorageLocation {
        name: name.to_owned(),
        location_type: "filesystem".to_owned(),
        path: "/srv/cold".to_owned(),
        credentials_ref: None,
        usage_count,
        created_at: 1,
        updated_at: 2,
    }
}

pub(crate) fn job(id: &str, status: JobStatus) -> Job {
    Job {
        id: JobId::new(id),
        job_type: "drop_table".to_owned(),
        namespace: Some(NamespaceId::new("app")),
        table_name: Some("messages".to_owned()),
        user: None,
        status,
        parameters: Some("{}".to_owned()),
        result: None,
        error_message: None,
        trace: None,
        memory_used: None,
        cpu_used: Some(9),
        node: "here".to_owned(),
        created_at: 1,
        started_at: None,
        finished_at: None,
    }
}

/// An event that is none of the catalog's business.
pub(crate) fn row() -> ChangeEvent {
    let partition = Partition::of_user(TableId::new(1), UserId::new("ann"));
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key: vec![1], row: vec![2] }))
}
