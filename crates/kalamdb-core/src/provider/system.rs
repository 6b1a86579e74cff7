//! The system tables as `DataFusion` sees them: read from the catalog when a statement names them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result as QueryResult};
use kalamdb_log::segment_overviews;
use log_format::{Access, JobStatus, Role, StreamScope, TableKind, TableSchema};
use serde_json::json;

use crate::changes::CHANGES_NAME;
use crate::error::{Error, Result};
use crate::functions::role_name;
use crate::provider::Scope;
use crate::provider::changes::ChangesTable;

/// The namespace `system`.
#[derive(Debug)]
pub(crate) struct SystemNamespace {
    pub(crate) scope: Arc<Scope>,
}

/// By name, with the least role that may read it.
const TABLES: [(&str, Role); 10] = [
    ("namespaces", Role::User),
    ("tables", Role::User),
    ("table_schemas", Role::User),
    ("users", Role::User),
    ("storage_locations", Role::Service),
    ("jobs", Role::Service),
    ("live_queries", Role::User),
    ("live", Role::User),
    (CHANGES_NAME, Role::Dba),
    ("log_segments", Role::Service),
];

#[async_trait]
impl SchemaProvider for SystemNamespace {
    fn table_names(&self) -> Vec<String> {
        // What the session may not read is not listed: `information_schema` looks up every name that is.
        let role = self.scope.session.role();
        TABLES.iter().filter(|(_, least)| role >= *least).map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let batch = match name {
            CHANGES_NAME => {
                self.scope.session.require(Role::Dba, "read system.changes").map_err(external)?;
                let info = Arc::clone(self.scope.engine.catalog().changes());
                return Ok(Some(Arc::new(ChangesTable::new(Arc::clone(&self.scope), info))));
            }
            "namespaces" => self.namespaces(),
            "tables" => self.tables(),
            "table_schemas" => self.table_schemas(),
            "users" => self.users(),
            "storage_locations" => self.storage_locations(),
            "jobs" => self.jobs(),
            "live_queries" | "live" => self.live_queries(),
            "log_segments" => self.log_segments(),
            _ => return Ok(None),
        };
        let batch = batch.map_err(external)?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.iter().any(|(known, _)| *known == name)
    }
}

/// Columns of a system table, in the order they are added.
struct Columns<'r, R> {
    records: &'r [R],
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl<'r, R> Columns<'r, R> {
    const fn of(records: &'r [R]) -> Self {
        Self { records, fields: Vec::new(), arrays: Vec::new() }
    }

    fn add(mut self, name: &str, array: ArrayRef) -> Self {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
        self
    }

    fn text(self, name: &str, read: impl Fn(&'r R) -> Option<String>) -> Self {
        let array: StringArray = self.records.iter().map(read).collect();
        self.add(name, Arc::new(array))
    }

    fn integer(self, name: &str, read: impl Fn(&'r R) -> Option<u64>) -> Self {
        let array: Int64Array =
            self.records.iter().map(|record| read(record).and_then(|it| i64::try_from(it).ok())).collect();
        self.add(name, Arc::new(array))
    }

    fn time(self, name: &str, read: impl Fn(&'r R) -> Option<i64>) -> Self {
        let array: TimestampMicrosecondArray = self.records.iter().map(read).collect();
        self.add(name, Arc::new(array.with_timezone("+00:00")))
    }

    fn finish(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays)?)
    }
}

impl SystemNamespace {
    fn namespaces(&self) -> Result<RecordBatch> {
        let records = self.scope.engine.system().scan_all_namespaces()?;
        Columns::of(&records)
            .text("namespace_id", |it| Some(it.id.to_string()))
            .text("options", |it| {
                let options = it.options.iter().map(|(name, value)| (name.clone(), json!(value)));
                Some(serde_json::Value::Object(options.collect()).to_string())
            })
            .time("created_at", |it| Some(it.created_at))
            .time("updated_at", |it| Some(it.updated_at))
            .finish()
    }

    fn tables(&self) -> Result<RecordBatch> {
        let records = self.scope.engine.system().scan_all_tables()?;
        Columns::of(&records)
            .integer("table_id", |it| Some(it.id.get()))
            .text("namespace_id", |it| Some(it.namespace.to_string()))
            .text("table_name", |it| Some(it.name.clone()))
            .text("table_type", |it| Some(kind_name(&it.kind).to_owned()))
            .integer("current_schema_version", |it| Some(u64::from(it.current_version.get())))
            .text("storage_location", |it| it.location_reference.clone().or_else(|| it.location_path.clone()))
            .text("flush_policy", |it| {
                let policy = it.flush_policy.as_ref()?;
                Some(json!({"rows": policy.rows, "interval_ms": policy.interval_ms}).to_string())
            })
            .integer("deleted_retention_ms", |it| it.deleted_retention_ms)
            .text("stream_config", |it| stream_config(&it.kind))
            .text("access", |it| access_name(&it.kind).map(ToOwned::to_owned))
            .time("created_at", |it| Some(it.created_at))
            .time("updated_at", |it| Some(it.updated_at))
            .time("last_flushed_at", |_| None)
            .finish()
    }

    fn table_schemas(&self) -> Result<RecordBatch> {
        let records = self.scope.engine.system().scan_all_table_schemas()?;
        let versions: UInt32Array = records.iter().map(|it| Some(it.version.get())).collect();
        Columns::of(&records)
            .integer("table_id", |it| Some(it.table.get()))
            .add("version", Arc::new(versions))
            .text("arrow_schema", |it| Some(schema_json(it)))
            .text("change", |it| Some(it.change.clone()))
            .time("created_at", |it| Some(it.created_at))
            .text("created_by", |it| self.visible_name(it.created_by.as_str()))
            .finish()
    }

    /// Names of users are for those who run the database; everyone sees their own.
    fn visible_name(&self, user: &str) -> Option<String> {
        let session = &self.scope.session;
        (session.role() >= Role::Service || session.user().as_str() == user).then(|| user.to_owned())
    }

    fn users(&self) -> Result<RecordBatch> {
        let (engine, session) = (&self.scope.engine, &self.scope.session);
        let records = if session.role() >= Role::Service {
            engine.system().scan_all_users()?
        } else {
            engine.system().get_user(session.user())?.into_iter().collect()
        };
        Columns::of(&records)
            .text("user_id", |it| Some(it.id.to_string()))
            .text("username", |it| Some(it.id.to_string()))
            .text("role", |it| Some(role_name(it.role).to_owned()))
            .text("metadata", |it| it.metadata.clone())
            .time("created_at", |it| Some(it.created_at))
            .time("updated_at", |it| Some(it.updated_at))
            .finish()
    }

    fn storage_locations(&self) -> Result<RecordBatch> {
        self.scope.session.require(Role::Service, "read system.storage_locations")?;
        let records = self.scope.engine.system().scan_all_storage_locations()?;
        Columns::of(&records)
            .text("location_name", |it| Some(it.name.clone()))
            .text("location_type", |it| Some(it.location_type.clone()))
            .text("path", |it| Some(it.path.clone()))
            .text("credentials_ref", |it| it.credentials_ref.clone())
            .integer("usage_count", |it| Some(it.usage_count))
            .time("created_at", |it| Some(it.created_at))
            .time("updated_at", |it| Some(it.updated_at))
            .finish()
    }

    fn jobs(&self) -> Result<RecordBatch> {
        self.scope.session.require(Role::Service, "read system.jobs")?;
        let records = self.scope.engine.system().scan_all_jobs()?;
        Columns::of(&records)
            .text("job_id", |it| Some(it.id.to_string()))
            .text("job_type", |it| Some(it.job_type.clone()))
            .text("namespace_id", |it| it.namespace.as_ref().map(ToString::to_string))
            .text("table_name", |it| it.table_name.clone())
            .text("user_id", |it| it.user.as_ref().map(ToString::to_string))
            .text("status", |it| Some(status_name(it.status).to_owned()))
            .text("parameters", |it| it.parameters.clone())
            .text("result", |it| it.result.clone())
            .text("error_message", |it| it.error_message.clone())
            .text("trace", |it| it.trace.clone())
            .integer("memory_used", |it| it.memory_used)
            .integer("cpu_used", |it| it.cpu_used)
            .text("node", |it| Some(it.node.clone()))
            .time("created_at", |it| Some(it.created_at))
            .time("started_at", |it| it.started_at)
            .time("finished_at", |it| it.finished_at)
            .finish()
    }

    fn log_segments(&self) -> Result<RecordBatch> {
        self.scope.session.require(Role::Service, "read system.log_segments")?;
        let records = segment_overviews(self.scope.engine.router().log_directory())?;
        Columns::of(&records)
            .text("file", |it| it.path.file_name().map(|name| name.to_string_lossy().into_owned()))
            .integer("base_seq", |it| Some(it.base_seq.get()))
            .integer("last_seq", |it| it.content.as_ref().map(|content| content.last_seq.get()))
            .integer("commits", |it| it.content.as_ref().map(|content| content.frames))
            .integer("events", |it| it.content.as_ref().map(|content| content.events))
            .integer("bytes", |it| Some(it.bytes))
            .time("first_commit_at", |it| it.content.as_ref().map(|content| content.first_time))
            .time("last_commit_at", |it| it.content.as_ref().map(|content| content.last_time))
            .integer("partitions", |it| {
                let listed = it.content.as_ref().and_then(|content| content.partitions.as_ref());
                listed.map(|partitions| partitions.len() as u64)
            })
            .text("state", |it| Some(if it.is_sealed { "sealed" } else { "active" }.to_owned()))
            .text("indexed", |it| Some(if it.has_footer { "footer" } else { "scan" }.to_owned()))
            .finish()
    }

    fn live_queries(&self) -> Result<RecordBatch> {
        let session = &self.scope.session;
        let mut records = self.scope.engine.live_queries().scan_all_live_queries();
        records.retain(|query| session.role() >= Role::Service || query.user == *session.user());
        let end = self.scope.cut_seq().get();
        Columns::of(&records)
            .text("live_id", |it| Some(it.live_id.clone()))
            .text("connection_id", |it| Some(it.connection_id.clone()))
            .text("query_id", |it| Some(it.query_id.clone()))
            .text("user_id", |it| Some(it.user.to_string()))
            .integer("table_id", |it| Some(it.table.get()))
            .text("query", |it| Some(it.query.clone()))
            .text("options", |it| it.options.clone())
            .text("state", |it| Some(it.progress.state().as_str().to_owned()))
            .integer("seq", |it| Some(it.progress.seq().get()))
            .integer("lag", |it| match it.progress.state() {
                kalamdb_sql::LiveState::Live => Some(0),
                _ => Some(end.saturating_sub(it.progress.seq().get())),
            })
            .integer("changes", |it| Some(it.progress.changes()))
            .time("created_at", |it| Some(it.created_at))
            .time("updated_at", |it| Some(it.progress.updated_at()).filter(|at| *at > 0))
            .finish()
    }
}

const fn kind_name(kind: &TableKind) -> &'static str {
    match kind {
        TableKind::User => "user",
        TableKind::Shared(_) => "shared",
        TableKind::Stream(_) => "stream",
    }
}

const fn access_name(kind: &TableKind) -> Option<&'static str> {
    match kind {
        TableKind::Shared(Access::Public) => Some("public"),
        TableKind::Shared(Access::Restricted) => Some("restricted"),
        TableKind::Shared(Access::Private) => Some("private"),
        _ => None,
    }
}

fn stream_config(kind: &TableKind) -> Option<String> {
    let TableKind::Stream(options) = kind else { return None };
    let scope = match options.scope {
        StreamScope::User => "user",
        StreamScope::All => "all",
    };
    let config = json!({
        "scope": scope,
        "ttl_ms": options.ttl_ms,
        "max_buffer": options.max_buffer,
        "ephemeral": options.ephemeral,
    });
    Some(config.to_string())
}

const fn status_name(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Queued => "queued",
        JobStatus::Running => "running",
        JobStatus::Completed => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    }
}

/// A schema version's columns as JSON, with the Arrow type each is read as.
fn schema_json(schema: &TableSchema) -> String {
    let fields = schema.columns.iter().map(|column| {
        let arrow: DataType = crate::table::arrow_type(column.data_type);
        json!({
            "id": column.id.get(),
            "name": column.name,
            "sql_type": column.data_type.to_string(),
            "arrow_type": arrow.to_string(),
            "nullable": column.nullable,
            "primary_key": schema.primary_key.contains(&column.id),
        })
    });
    json!({ "fields": fields.collect::<Vec<_>>() }).to_string()
}
