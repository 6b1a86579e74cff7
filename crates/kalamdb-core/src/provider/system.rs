//! The system tables: which there are, who may read them, and their columns.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result as QueryResult};
use kalamdb_log::segment_overviews;
use log_format::{
    Access, JobId, JobStatus, NamespaceId, Role, StreamScope, Table, TableId, TableKind, TableSchema, UserId,
};
use serde_json::json;

use crate::changes::CHANGES_NAME;
use crate::error::{Error, Result};
use crate::functions::role_name;
use crate::jobs::NODE;
use crate::provider::Scope;
use crate::provider::changes::ChangesTable;
use crate::provider::keyed::{KeyedTable, Read, Wanted, pick};
use crate::settings::Setting;

/// The namespace `system`.
#[derive(Debug)]
pub(crate) struct SystemNamespace {
    pub(crate) scope: Arc<Scope>,
}

/// By name: the least role that may read it, and what reads it, where it is not the log itself.
const TABLES: [(&str, Role, Option<Read>); 11] = [
    ("namespaces", Role::User, Some(namespaces)),
    ("tables", Role::User, Some(tables)),
    ("table_schemas", Role::User, Some(table_schemas)),
    ("users", Role::User, Some(users)),
    ("storage_locations", Role::Service, Some(storage_locations)),
    ("jobs", Role::Service, Some(jobs)),
    ("live_queries", Role::User, Some(live_queries)),
    ("live", Role::User, Some(live_queries)),
    (CHANGES_NAME, Role::User, None),
    ("log_segments", Role::Service, Some(log_segments)),
    ("settings", Role::Service, Some(settings)),
];

#[async_trait]
impl SchemaProvider for SystemNamespace {
    fn table_names(&self) -> Vec<String> {
        // What the session may not read is not listed: `information_schema` looks up every name that is.
        let role = self.scope.session.role();
        TABLES.iter().filter(|(_, least, _)| role >= *least).map(|(name, ..)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let Some((_, least, read)) = TABLES.iter().find(|(known, ..)| *known == name) else {
            return Ok(None);
        };
        self.scope.session.require(*least, &format!("read system.{name}")).map_err(external)?;
        match read {
            Some(read) => {
                let table = KeyedTable::new(Arc::clone(&self.scope), *read).map_err(external)?;
                Ok(Some(Arc::new(table)))
            }
            None => Ok(Some(Arc::new(ChangesTable::new(Arc::clone(&self.scope))))),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.iter().any(|(known, ..)| *known == name)
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

fn namespaces(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let system = scope.engine.system();
    let records = pick(
        wanted.texts("namespace_id"),
        |name| Ok(system.get_namespace(&NamespaceId::new(name))?),
        || Ok(system.scan_all_namespaces()?),
    )?;
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

fn tables(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let records = wanted_tables(scope, wanted)?;
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
        .time("last_flushed_at", |it| scope.engine.store().table_cold_totals(it.id).ok()?.last_flush)
        .finish()
}

fn table_schemas(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let system = scope.engine.system();
    let records: Vec<TableSchema> = match wanted.numbers("table_id") {
        None => system.scan_all_table_schemas()?,
        Some(ids) => {
            let of_table = |id: &u64| system.get_table_schemas_for_table(TableId::new(*id));
            ids.iter().map(of_table).collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    let versions: UInt32Array = records.iter().map(|it| Some(it.version.get())).collect();
    Columns::of(&records)
        .integer("table_id", |it| Some(it.table.get()))
        .add("version", Arc::new(versions))
        .text("arrow_schema", |it| Some(schema_json(it)))
        .text("change", |it| Some(it.change.clone()))
        .time("created_at", |it| Some(it.created_at))
        .text("created_by", |it| visible_name(scope, it.created_by.as_str()))
        .finish()
}

/// Names of users are for those who run the database; everyone sees their own.
fn visible_name(scope: &Scope, user: &str) -> Option<String> {
    let session = &scope.session;
    (session.role() >= Role::Service || session.user().as_str() == user).then(|| user.to_owned())
}

fn users(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let (engine, session) = (&scope.engine, &scope.session);
    let system = engine.system();
    let records = if session.role() >= Role::Service {
        pick(
            wanted.texts("user_id").or_else(|| wanted.texts("username")),
            |name| Ok(system.get_user(&UserId::new(name))?),
            || Ok(system.scan_all_users()?),
        )?
    } else {
        system.get_user(session.user())?.into_iter().collect()
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

fn storage_locations(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let system = scope.engine.system();
    let records = pick(
        wanted.texts("location_name"),
        |name| Ok(system.get_storage_location(name)?),
        || Ok(system.scan_all_storage_locations()?),
    )?;
    Columns::of(&records)
        .text("location_name", |it| Some(it.name.clone()))
        .text("location_type", |it| Some(it.location_type.clone()))
        .text("path", |it| Some(it.path.clone()))
        .text("credentials_ref", |it| it.credentials_ref.clone())
        .integer("usage_count", |it| Some(scope.engine.catalog().tables_at(&it.name).len() as u64))
        .time("created_at", |it| Some(it.created_at))
        .time("updated_at", |it| Some(it.updated_at))
        .finish()
}

fn jobs(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let system = scope.engine.system();
    let records = pick(
        wanted.texts("job_id"),
        |id| Ok(system.get_job(&JobId::new(id))?),
        || Ok(system.scan_all_jobs()?),
    )?;
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

fn log_segments(scope: &Scope, _: &Wanted) -> Result<RecordBatch> {
    let records = segment_overviews(scope.engine.router().log_directory())?;
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

fn live_queries(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let session = &scope.session;
    let mut records = scope.engine.live_queries().scan_all_live_queries();
    let ids = wanted.texts("live_id");
    records.retain(|query| ids.is_none_or(|ids| ids.iter().any(|id| **id == *query.live_id)));
    records.retain(|query| session.role() >= Role::Service || *query.user == *session.user());
    let end = scope.cut_seq();
    Columns::of(&records)
        .text("live_id", |it| Some(it.live_id.to_string()))
        .text("connection_id", |it| Some(it.connection_id.to_string()))
        .text("query_id", |it| Some(it.query_id.to_string()))
        .text("user_id", |it| Some(it.user.to_string()))
        .integer("table_id", |it| Some(it.table.get()))
        .text("query", |it| Some(it.query.to_string()))
        .text("options", |it| it.options.as_deref().map(str::to_owned))
        .text("state", |it| Some(it.progress.state().as_str().to_owned()))
        .integer("seq", |it| Some(it.progress.seq().get()))
        .integer("lag", |it| Some(it.progress.lag(end)))
        .integer("changes", |it| Some(it.progress.changes()))
        .integer("bytes", |it| Some(it.progress.bytes()))
        .text("node", |_| Some(NODE.to_owned()))
        .time("created_at", |it| Some(it.created_at))
        .time("updated_at", |it| Some(it.progress.updated_at()).filter(|at| *at > 0))
        .finish()
}

fn settings(scope: &Scope, wanted: &Wanted) -> Result<RecordBatch> {
    let names = wanted.texts("name");
    let all = scope.engine.settings().iter();
    let records: Vec<Setting> = all
        .filter(|setting| names.is_none_or(|names| names.iter().any(|it| it == setting.name)))
        .cloned()
        .collect();
    Columns::of(&records)
        .text("name", |it| Some(it.name.to_owned()))
        .text("value", |it| it.value.clone())
        .text("origin", |it| Some(if it.is_default { "default" } else { "set" }.to_owned()))
        .text("description", |it| Some(it.description.to_owned()))
        .finish()
}

/// The tables of these ids, or of this name, or all.
fn wanted_tables(scope: &Scope, wanted: &Wanted) -> Result<Vec<Table>> {
    let (system, catalog) = (scope.engine.system(), scope.engine.catalog());
    if let Some(ids) = wanted.numbers("table_id") {
        let found = ids.iter().map(|id| system.get_table(TableId::new(*id)));
        return Ok(found.filter_map(Result::transpose).collect::<Result<_, _>>()?);
    }
    match (wanted.texts("namespace_id"), wanted.texts("table_name")) {
        (Some(namespaces), Some(names)) => {
            let pairs =
                namespaces.iter().flat_map(|namespace| names.iter().map(move |name| (namespace, name)));
            let found =
                pairs.filter_map(|(namespace, name)| catalog.find(&NamespaceId::new(namespace), name));
            Ok(found.map(|info| info.record().clone()).collect())
        }
        _ => Ok(system.scan_all_tables()?),
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
