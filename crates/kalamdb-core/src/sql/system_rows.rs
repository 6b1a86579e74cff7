//! INSERT, UPDATE and DELETE on system tables: the same checks and the same events as the statements made for them. A
//! statement is one commit.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{self, Assignment, AssignmentTarget, Expr, Ident, TableWithJoins};
use log_format::{ChangeEvent, Role, UserId};

use crate::accounts;
use crate::error::{Error, Result};
use crate::provider::session_state;
use crate::requests::Planning;
use crate::sql::ddl::check_name;
use crate::sql::dml::changed_rows;
use crate::sql::execute::StatementResult;
use crate::sql::locations::{self, LocationEdit, NewLocation};
use crate::sql::parse::{TableName, identifier, refused_as_another_user};
use crate::sql::select;
use crate::sql::target::{Context, refuse_clauses};
use crate::sql::user_changes::{self, NewUser, UserEdit};

/// A system table that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemRows {
    Users,
    StorageLocations,
}

/// What becomes of a text that may be NULL.
#[derive(Clone, Debug, Default)]
pub(super) enum Edit {
    /// It stays.
    #[default]
    Keep,
    /// It becomes this.
    Set(Option<String>),
}

impl Edit {
    pub(super) fn of(self, before: Option<String>) -> Option<String> {
        match self {
            Self::Keep => before,
            Self::Set(after) => after,
        }
    }
}

/// What is written of one row: by column, NULL as none.
type Fields = BTreeMap<String, Option<String>>;

/// Makes a commit's events.
type Plan = Box<dyn FnOnce(&Planning<'_>) -> Result<ChangeEvent> + Send>;

/// The system table of this name; none where it is a table like any other, refused where it is read-only.
pub(super) fn find(context: Context<'_>, name: &TableName) -> Result<Option<SystemRows>> {
    if crate::sql::namespace_of(context.session, name).as_str() != "system" {
        return Ok(None);
    }
    if context.session.acts_for_another() {
        return Err(refused_as_another_user());
    }
    if context.transaction.is_some() {
        return Err(Error::Unsupported {
            what: format!("writing system.{} inside of a transaction", name.name),
            hint: Some("it is a commit of its own: run it before BEGIN or after COMMIT"),
        });
    }
    let hint = match name.name.as_str() {
        "users" => return Ok(Some(SystemRows::Users)),
        "storage_locations" => return Ok(Some(SystemRows::StorageLocations)),
        "namespaces" => "use CREATE NAMESPACE and DROP NAMESPACE",
        "tables" | "table_schemas" => "use CREATE TABLE, ALTER TABLE and DROP TABLE",
        "jobs" => "jobs come from the statements that need them, such as DROP TABLE",
        "live_queries" | "live" => "its rows come and go with subscriptions",
        "changes" | "log_segments" => "it shows the log; write to the tables themselves",
        "settings" => "settings are given when the server starts",
        other => return Err(Error::TableNotFound { name: format!("system.{other}"), nearest: None }),
    };
    Err(Error::Unsupported {
        what: format!("system.{} is READ-ONLY: writing it", name.name),
        hint: Some(hint),
    })
}

impl SystemRows {
    const fn name(self) -> &'static str {
        match self {
            Self::Users => "system.users",
            Self::StorageLocations => "system.storage_locations",
        }
    }

    /// The columns that can be written, the key first.
    const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Users => &["username", "password", "role", "metadata"],
            Self::StorageLocations => &["location_name", "location_type", "path", "credentials_ref"],
        }
    }

    fn column(self, written: &Ident) -> Result<String> {
        let name = identifier(written);
        let name = if self == Self::Users && name == "user_id" { "username".to_owned() } else { name };
        if self.columns().contains(&name.as_str()) {
            return Ok(name);
        }
        Err(Error::definition(format!(
            "{} has no column {name} that can be written; there are {}",
            self.name(),
            self.columns().join(", ")
        )))
    }

    /// The accounts that rows of it are.
    fn users_of(self, rows: &[Fields]) -> Vec<UserId> {
        let is_users = self == Self::Users;
        let names = rows.iter().filter(|_| is_users).filter_map(|row| row.get(self.key())?.as_ref());
        names.map(UserId::new).collect()
    }

    fn key(self) -> &'static str {
        self.columns().first().copied().unwrap_or_default()
    }
}

pub(super) async fn insert(
    context: Context<'_>,
    table: SystemRows,
    insert: &ast::Insert,
) -> Result<StatementResult> {
    context.session.require(Role::Dba, &format!("write {}", table.name()))?;
    refuse_clauses(&[
        ("ON CONFLICT on a system table", insert.on.is_some()),
        ("RETURNING on a system table", insert.returning.is_some()),
    ])?;
    let columns: Vec<String> = if insert.columns.is_empty() {
        table.columns().iter().map(|name| (*name).to_owned()).collect()
    } else {
        let written = insert.columns.iter().map(|name| name.0.last().and_then(|part| part.as_ident()));
        let written = written.map(|ident| table.column(ident.unwrap_or(&Ident::new(""))));
        written.collect::<Result<_>>()?
    };
    let source =
        insert.source.as_ref().ok_or_else(|| Error::definition("INSERT needs VALUES or a SELECT"))?;
    let query = ast::Statement::Query(Box::new(source.as_ref().clone()));
    let rows = rows_of(context, query, &columns).await?;
    let mut plans: Vec<Plan> = Vec::with_capacity(rows.len());
    for row in rows {
        plans.push(match table {
            SystemRows::Users => new_user(row).await?,
            SystemRows::StorageLocations => new_location(context, row).await?,
        });
    }
    commit(context, plans, "inserted").await
}

pub(super) async fn update(
    context: Context<'_>,
    table: SystemRows,
    update: &ast::Update,
) -> Result<StatementResult> {
    context.session.require(Role::Dba, &format!("write {}", table.name()))?;
    refuse_clauses(&[("RETURNING on a system table", update.returning.is_some())])?;
    let mut columns = vec![table.key().to_owned()];
    let mut computed: Vec<Expr> = Vec::new();
    for Assignment { target, value } in &update.assignments {
        let AssignmentTarget::ColumnName(name) = target else {
            return Err(Error::unsupported("assigning to several columns at once"));
        };
        let ident = name.0.last().and_then(|part| part.as_ident()).cloned();
        let name = table.column(&ident.unwrap_or_else(|| Ident::new("")))?;
        if columns.contains(&name) {
            return Err(Error::definition(format!("{name} is the key, or is assigned to twice")));
        }
        columns.push(name);
        computed.push(value.clone());
    }
    let query = changed_rows(&[table.key()], &update.table, update.selection.clone(), computed)?;
    let mut plans: Vec<Plan> = Vec::new();
    let rows = rows_of(context, query, &columns).await?;
    let users = table.users_of(&rows);
    for row in rows {
        plans.push(match table {
            SystemRows::Users => user_edit(context, row).await?,
            SystemRows::StorageLocations => location_edit(context, row).await?,
        });
    }
    let done = commit(context, plans, "updated").await?;
    users.iter().try_for_each(|user| user_changes::end_what_is_open(context.engine, user))?;
    Ok(done)
}

pub(super) async fn delete(
    context: Context<'_>,
    table: SystemRows,
    from: &TableWithJoins,
    delete: &ast::Delete,
) -> Result<StatementResult> {
    context.session.require(Role::Dba, &format!("write {}", table.name()))?;
    refuse_clauses(&[("RETURNING on a system table", delete.returning.is_some())])?;
    let query = changed_rows(&[table.key()], from, delete.selection.clone(), Vec::new())?;
    let columns = [table.key().to_owned()];
    let mut plans: Vec<Plan> = Vec::new();
    let rows = rows_of(context, query, &columns).await?;
    let users = table.users_of(&rows);
    for mut row in rows {
        let name = required(&mut row, table.key())?;
        plans.push(match table {
            SystemRows::Users => {
                user_changes::check_drop(context.session, &name)?;
                Box::new(move |planning| user_changes::plan_drop(planning, UserId::new(name)))
            }
            SystemRows::StorageLocations => Box::new(move |planning| locations::plan_drop(planning, name)),
        });
    }
    let done = commit(context, plans, "deleted").await?;
    users.iter().try_for_each(|user| user_changes::end_what_is_open(context.engine, user))?;
    Ok(done)
}

/// All of a statement's rows are one commit, or none of them is.
async fn commit(context: Context<'_>, plans: Vec<Plan>, verb: &str) -> Result<StatementResult> {
    let count = plans.len();
    if count > 0 {
        context
            .engine
            .commits()
            .catalog(move |planning| {
                let events: Vec<_> = plans.into_iter().map(|plan| plan(planning)).collect::<Result<_>>()?;
                user_changes::require_dba_left(planning, &events)?;
                locations::refuse_overlaps_among(&events)?;
                Ok(events)
            })
            .await?;
    }
    let noun = if count == 1 { "row" } else { "rows" };
    Ok(StatementResult::done(context.session, count as u64, format!("{count} {noun} {verb}")))
}

/// The rows that a query gives, each by these columns' names. A key comes once.
async fn rows_of(context: Context<'_>, query: ast::Statement, columns: &[String]) -> Result<Vec<Fields>> {
    let scope = context.scope(select::named_system_columns(&query))?;
    let state = session_state(context.engine, context.session, scope);
    let plan = select::plan(context, &state, query).await?;
    let (schema, batches) = select::collect(context.engine, &state, &plan).await?;
    if schema.fields().len() != columns.len() {
        let given = schema.fields().len();
        return Err(Error::definition(format!("{given} values for {} columns", columns.len())));
    }
    let mut rows = Vec::new();
    let mut keys = BTreeSet::new();
    for batch in &batches {
        let texts: Vec<_> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let fields = columns.iter().zip(&texts).map(|(name, texts)| {
                let texts = texts.as_string::<i32>();
                (name.clone(), (!texts.is_null(row)).then(|| texts.value(row).to_owned()))
            });
            let fields: Fields = fields.collect();
            let key = columns.first().and_then(|key| fields.get(key)).cloned().flatten();
            if let Some(key) = key.filter(|key| !keys.insert(key.clone())) {
                return Err(Error::definition(format!("{key} comes twice in the statement")));
            }
            rows.push(fields);
        }
    }
    Ok(rows)
}

fn required(row: &mut Fields, column: &str) -> Result<String> {
    let value = row.remove(column).flatten();
    value.ok_or_else(|| Error::definition(format!("{column} is required")))
}

async fn new_user(mut row: Fields) -> Result<Plan> {
    let name = required(&mut row, "username")?;
    check_name("user", &name)?;
    let role = row.remove("role").flatten().map_or(Ok(Role::User), |role| user_changes::role_of(&role))?;
    let metadata = row.remove("metadata").flatten();
    user_changes::check_metadata(metadata.as_deref())?;
    let password_hash = accounts::hash_password(&required(&mut row, "password")?).await?;
    let new = NewUser { id: UserId::new(name), role, password_hash, metadata };
    Ok(Box::new(move |planning| user_changes::plan_create(planning, new)))
}

async fn user_edit(context: Context<'_>, mut row: Fields) -> Result<Plan> {
    let id = UserId::new(required(&mut row, "username")?);
    let mut edit = UserEdit::default();
    for (column, value) in row {
        match (column.as_str(), value) {
            ("password", Some(password)) => {
                edit.password_hash = Some(accounts::hash_password(&password).await?);
            }
            ("role", Some(role)) => {
                let role = user_changes::role_of(&role)?;
                user_changes::check_role(context.session, id.as_str(), role)?;
                edit.role = Some(role);
            }
            ("metadata", metadata) => {
                user_changes::check_metadata(metadata.as_deref())?;
                edit.metadata = Edit::Set(metadata);
            }
            (column, _) => return Err(Error::definition(format!("{column} cannot be NULL"))),
        }
    }
    Ok(Box::new(move |planning| user_changes::plan_alter(planning, &id, edit)))
}

async fn new_location(context: Context<'_>, mut row: Fields) -> Result<Plan> {
    let name = required(&mut row, "location_name")?;
    check_name("storage location", &name)?;
    let location_type = required(&mut row, "location_type")?;
    locations::check_type(&location_type)?;
    let path = required(&mut row, "path")?;
    locations::check_path(&path)?;
    let credentials_ref = row.remove("credentials_ref").flatten();
    credentials_ref.as_deref().map_or(Ok(()), locations::check_credentials_ref)?;
    let new = NewLocation { name, location_type, path, credentials_ref };
    locations::probe_new(context.engine, &new).await?;
    let data_dir = context.engine.data_dir().to_owned();
    Ok(Box::new(move |planning| locations::plan_create(planning, &data_dir, new)))
}

async fn location_edit(context: Context<'_>, mut row: Fields) -> Result<Plan> {
    let name = required(&mut row, "location_name")?;
    let mut edit = LocationEdit::default();
    for (column, value) in row {
        match (column.as_str(), value) {
            ("location_type", Some(location_type)) => {
                locations::check_type(&location_type)?;
                edit.location_type = Some(location_type);
            }
            ("path", Some(path)) => {
                locations::check_path(&path)?;
                edit.path = Some(path);
            }
            ("credentials_ref", reference) => {
                reference.as_deref().map_or(Ok(()), locations::check_credentials_ref)?;
                edit.credentials_ref = Edit::Set(reference);
            }
            (column, _) => return Err(Error::definition(format!("{column} cannot be NULL"))),
        }
    }
    locations::probe_edited(context.engine, &name, &edit).await?;
    let data_dir = context.engine.data_dir().to_owned();
    Ok(Box::new(move |planning| locations::plan_alter(planning, &data_dir, &name, edit)))
}
