//! Namespaces, tables, accounts; and the statements that show them. What takes tables and rows away stands in `removal`.
//!
//! Each change is planned on the sequencer ([`crate::requests::Planning`]): what it checks cannot change before it is
//! committed.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use log_format::{
    ChangeEvent, Namespace, NamespaceId, Role, SchemaVersion, Table, TableId, TableSchema, UserId,
};

use crate::accounts;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::live::Endings;
use crate::places::LOCAL;
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::definition::TableDefinition;
use crate::sql::execute::StatementResult;
use crate::sql::parse::{Statement, TableName, UserChange};
use crate::sql::system_rows::Edit;
use crate::sql::user_changes::{self, NewUser, UserEdit};
use crate::sql::{alter, backup, describe, removal, stats, storage};

/// Bytes of a namespace's, table's or user's name.
const NAME_BYTES_MAX: usize = 128;

pub(crate) async fn execute(
    engine: &Engine,
    session: &Session,
    statement: &Statement,
) -> Result<StatementResult> {
    match statement {
        Statement::CreateNamespace { name, if_not_exists, options } => {
            create_namespace(engine, session, name, *if_not_exists, options).await
        }
        Statement::DropNamespace { name, if_exists, cascade } => {
            removal::drop_namespace(engine, session, name, *if_exists, *cascade).await
        }
        Statement::CreateTable(definition) => create_table(engine, session, definition).await,
        Statement::DropTable { name, if_exists, kind } => {
            removal::drop_table(engine, session, name, *if_exists, *kind).await
        }
        Statement::CreateUser { name, if_not_exists, password, role } => {
            create_user(engine, session, name, *if_not_exists, password, *role).await
        }
        Statement::AlterUser { name, change } => alter_user(engine, session, name, change.clone()).await,
        Statement::DropUser { name, if_exists } => drop_user(engine, session, name, *if_exists).await,
        Statement::KillLiveQuery(id) => kill_live_query(engine, session, id),
        Statement::ShowNamespaces => {
            let names = engine.catalog().namespaces();
            rows(session, [("namespace", names.iter().map(|id| Some(id.to_string())).collect())])
        }
        Statement::ShowTables { namespace } => show_tables(engine, session, namespace.as_deref()),
        Statement::Truncate(name) => removal::truncate(engine, session, name).await,
        Statement::StorageFlush(name) => storage::flush_table(engine, session, name).await,
        Statement::StorageCompact(name) => storage::compact_table(engine, session, name).await,
        Statement::ShowStats(name) => stats::show(engine, session, name),
        Statement::AlterTable(alteration) => alter::alter_table(engine, session, alteration).await,
        Statement::AlterNamespace { name, options } => {
            alter::alter_namespace(engine, session, name, options).await
        }
        Statement::Describe(name) => describe::describe(engine, session, name),
        Statement::DescribeHistory(name) => describe::history(engine, session, name),
        Statement::Backup(statement) => backup::execute(engine, session, statement).await,
        Statement::ShowCreateTable(name) => describe::show_create(engine, session, name),
        _ => Err(Error::unsupported("this statement")),
    }
}

pub(super) fn check_name(kind: &'static str, name: &str) -> Result<()> {
    let legal = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(|character: char| character.is_control() || matches!(character, '/' | '\\' | '.'));
    if legal {
        return Ok(());
    }
    Err(Error::definition(format!(
        "{name:?} is no name for a {kind}: it has 1 to {NAME_BYTES_MAX} bytes and no control characters, dots or slashes"
    )))
}

pub(super) fn check_namespace_name(name: &str) -> Result<()> {
    check_name("namespace", name)?;
    if matches!(name, "system" | "information_schema") {
        return Err(Error::definition(format!("the namespace {name} belongs to the system")));
    }
    Ok(())
}

/// `IF [NOT] EXISTS`: what it tolerates is not an error.
pub(crate) fn tolerate<T>(tolerated: bool, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(
            Error::AlreadyExists { .. }
            | Error::NotFound { .. }
            | Error::TableNotFound { .. }
            | Error::NamespaceNotFound { .. },
        ) if tolerated => Ok(None),
        Err(error) => Err(error),
    }
}

async fn create_namespace(
    engine: &Engine,
    session: &Session,
    name: &str,
    if_not_exists: bool,
    options: &[(String, String)],
) -> Result<StatementResult> {
    session.require(Role::Service, "create a namespace")?;
    check_namespace_name(name)?;
    let (id, options) = (NamespaceId::new(name), options.to_vec());
    let plan = move |planning: &Planning<'_>| {
        if planning.catalog.has_namespace(&id) {
            return Err(Error::AlreadyExists { kind: "namespace", name: id.to_string() });
        }
        let (created_at, updated_at) = (planning.now, planning.now);
        let namespace = Namespace { id, options, created_at, updated_at };
        Ok(vec![ChangeEvent::NamespaceCreated(Box::new(namespace))])
    };
    let done = tolerate(if_not_exists, engine.commits().catalog(plan).await)?;
    let message = if done.is_some() { "created" } else { "exists already" };
    Ok(StatementResult::done(session, 0, format!("namespace {name} {message}")))
}

async fn create_table(
    engine: &Engine,
    session: &Session,
    definition: &TableDefinition,
) -> Result<StatementResult> {
    session.require(Role::Service, "create a table")?;
    check_name("table", &definition.name.name)?;
    let namespace = namespace_of(session, &definition.name);
    check_namespace_name(namespace.as_str())?;
    let full_name = format!("{namespace}.{}", definition.name.name);
    let (definition, user) = (definition.clone(), session.user().clone());
    let if_not_exists = definition.if_not_exists;
    let plan = move |planning: &Planning<'_>| plan_table(planning, namespace, definition, user);
    let done = tolerate(if_not_exists, engine.commits().catalog(plan).await)?;
    let message = if done.is_some() { "created" } else { "exists already" };
    Ok(StatementResult::done(session, 0, format!("table {full_name} {message}")))
}

fn plan_table(
    planning: &Planning<'_>,
    namespace: NamespaceId,
    definition: TableDefinition,
    created_by: UserId,
) -> Result<Vec<ChangeEvent>> {
    planning.catalog.require_namespace(&namespace)?;
    let name = definition.name.name;
    if planning.catalog.find(&namespace, &name).is_some() {
        return Err(Error::AlreadyExists { kind: "table", name: format!("{namespace}.{name}") });
    }
    if let Some(location) = &definition.location_reference
        && planning.system.get_storage_location(location)?.is_none()
        && location != LOCAL
    {
        return Err(Error::NotFound { kind: "storage location", name: location.clone() });
    }
    // The seq of the event that creates it: never used before, never used again.
    let id = TableId::new(planning.next_seq.get());
    let table = Table {
        id,
        namespace,
        name,
        kind: definition.kind,
        current_version: SchemaVersion::FIRST,
        location_path: definition.location_path,
        location_reference: definition.location_reference,
        flush_policy: definition.flush_policy,
        deleted_retention_ms: definition.deleted_retention_ms,
        created_at: planning.now,
        updated_at: planning.now,
    };
    let schema = TableSchema {
        table: id,
        version: SchemaVersion::FIRST,
        columns: definition.columns,
        primary_key: definition.primary_key,
        change: "CREATE TABLE".to_owned(),
        created_at: planning.now,
        created_by,
    };
    Ok(vec![ChangeEvent::TableCreated(Box::new(table)), ChangeEvent::SchemaVersionAdded(Box::new(schema))])
}

async fn create_user(
    engine: &Engine,
    session: &Session,
    name: &str,
    if_not_exists: bool,
    password: &str,
    role: Role,
) -> Result<StatementResult> {
    session.require(Role::Dba, "create a user")?;
    check_name("user", name)?;
    let password_hash = accounts::hash_password(password).await?;
    let id = UserId::new(name);
    let new = NewUser { id, role, password_hash, metadata: None };
    let plan = move |planning: &Planning<'_>| Ok(vec![user_changes::plan_create(planning, new)?]);
    let done = tolerate(if_not_exists, engine.commits().catalog(plan).await)?;
    let message = if done.is_some() { "created" } else { "exists already" };
    Ok(StatementResult::done(session, 0, format!("user {name} {message}")))
}

async fn alter_user(
    engine: &Engine,
    session: &Session,
    name: &str,
    change: UserChange,
) -> Result<StatementResult> {
    let own_password = matches!(change, UserChange::Password(_)) && session.user().as_str() == name;
    if !own_password {
        session.require(Role::Dba, "change a user")?;
    }
    let mut edit = UserEdit::default();
    match change {
        UserChange::Password(password) => {
            edit.password_hash = Some(accounts::hash_password(&password).await?);
        }
        UserChange::Role(role) => {
            user_changes::check_role(session, name, role)?;
            edit.role = Some(role);
        }
        UserChange::Metadata(metadata) => {
            user_changes::check_metadata(Some(&metadata))?;
            edit.metadata = Edit::Set(Some(metadata));
        }
    }
    let id = UserId::new(name);
    let plan = move |planning: &Planning<'_>| {
        let events = vec![user_changes::plan_alter(planning, &id, edit)?];
        user_changes::require_dba_left(planning, &events)?;
        Ok(events)
    };
    engine.commits().catalog(plan).await?;
    user_changes::end_what_is_open(engine, &UserId::new(name))?;
    Ok(StatementResult::done(session, 0, format!("user {name} changed")))
}

async fn drop_user(
    engine: &Engine,
    session: &Session,
    name: &str,
    if_exists: bool,
) -> Result<StatementResult> {
    session.require(Role::Dba, "drop a user")?;
    user_changes::check_drop(session, name)?;
    let id = UserId::new(name);
    let plan = move |planning: &Planning<'_>| {
        let events = vec![user_changes::plan_drop(planning, id)?];
        user_changes::require_dba_left(planning, &events)?;
        Ok(events)
    };
    let done = tolerate(if_exists, engine.commits().catalog(plan).await)?;
    user_changes::end_what_is_open(engine, &UserId::new(name))?;
    let message = if done.is_some() { "dropped" } else { "was not there" };
    Ok(StatementResult::done(session, 0, format!("user {name} {message}")))
}

pub(crate) fn namespace_of(session: &Session, name: &TableName) -> NamespaceId {
    name.namespace.as_ref().map_or_else(|| session.namespace().clone(), NamespaceId::new)
}

fn show_tables(engine: &Engine, session: &Session, namespace: Option<&str>) -> Result<StatementResult> {
    let namespaces = match namespace {
        Some(name) => {
            let id = NamespaceId::new(name);
            engine.catalog().require_namespace(&id)?;
            vec![id]
        }
        None => engine.catalog().namespaces(),
    };
    let is_whole = |id: &&NamespaceId| engine.catalog().restored_by(id).is_none();
    let tables: Vec<_> =
        namespaces.iter().filter(is_whole).flat_map(|id| engine.catalog().tables_in(id)).collect();
    let column = |read: fn(&crate::table::TableInfo) -> String| {
        tables.iter().map(|info| Some(read(info))).collect::<Vec<_>>()
    };
    rows(
        session,
        [
            ("namespace", column(|info| info.record().namespace.to_string())),
            ("table", column(|info| info.record().name.clone())),
            ("type", column(|info| info.kind_name().to_owned())),
        ],
    )
}

/// Columns of text as a result.
pub(crate) fn rows<const N: usize>(
    session: &Session,
    columns: [(&str, Vec<Option<String>>); N],
) -> Result<StatementResult> {
    let arrays = columns.map(|(name, values)| (name, Arc::new(StringArray::from(values)) as ArrayRef));
    Ok(one_batch(session, RecordBatch::try_from_iter(arrays)?, None))
}

pub(crate) fn one_batch(session: &Session, batch: RecordBatch, message: Option<String>) -> StatementResult {
    StatementResult {
        schema: batch.schema(),
        row_count: batch.num_rows() as u64,
        batches: vec![batch],
        message,
        as_user: session.user().clone(),
    }
}

/// Ends a live query of one's own, or for service and dba of anybody.
fn kill_live_query(engine: &Engine, session: &Session, id: &str) -> Result<StatementResult> {
    let found = engine.live_queries().get_live_query(id);
    let may = |user: &UserId| session.role() >= Role::Service || user == session.user();
    let ended = match found.filter(|query| may(&query.user)) {
        Some(_) => Endings::kill(engine, id, session.user()),
        None => 0,
    };
    if ended == 0 {
        // Whether somebody else has one of this id is nobody's business.
        return Err(Error::NotFound { kind: "live query", name: id.to_owned() });
    }
    Ok(StatementResult::done(session, ended as u64, format!("live query {id} ended")))
}
