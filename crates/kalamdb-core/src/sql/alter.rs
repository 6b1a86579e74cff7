//! ALTER TABLE and ALTER NAMESPACE: checked and planned on the sequencer, appended as events.
//!
//! *Invariants*: a schema version is never changed, the next one is added; a column's id is greater than every id the table
//! ever gave, so what a dropped column held never comes back. Nothing of what is stored is touched: whoever reads a row of an
//! older version makes a row of now of it ([`crate::table::TableInfo::targets`]).

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Expr, Ident};
use kalamdb_sql::LiveQueries;
use log_format::{
    ChangeEvent, Column, ColumnDefault, ColumnId, NamespaceId, Role, SchemaVersion, Table, TableId,
    TableKind, TableSchema, UserId,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::alteration::{Alteration, TableChange, words};
use crate::sql::ddl::tolerate;
use crate::sql::definition::{
    COLUMNS_MAX, access, check_column_name, column_default, duration_ms, parse_flush_policy,
};
use crate::sql::execute::StatementResult;
use crate::sql::target::column_position;
use crate::table::{SystemColumn, TableInfo, constant_default};
use crate::widening::{Widening, widens, wider_types};

pub(crate) async fn alter_table(
    engine: &Engine,
    session: &Session,
    alteration: &Alteration,
) -> Result<StatementResult> {
    session.require(Role::Service, "alter a table")?;
    let Some(info) = tolerate(alteration.if_exists, engine.resolve(session, &alteration.table))? else {
        return Ok(StatementResult::done(
            session,
            0,
            format!("table {} was not there", alteration.table.name),
        ));
    };
    check_kind(&info, alteration.kind)?;
    if Altered::of(&info, &alteration.changes)?.changes_nothing(&info) {
        return Ok(StatementResult::done(session, 0, format!("table {} is so already", info.full_name())));
    }
    let (id, name, changes) = (info.id(), info.full_name(), alteration.changes.clone());
    let (live_queries, by) = (Arc::clone(engine.live_queries()), session.user().clone());
    let plan = move |planning: &Planning<'_>| plan(planning, id, &changes, by, &live_queries);
    engine.commits().catalog(plan).await?;
    let version = engine.catalog().by_id(id).map_or(info.version(), |info| info.version());
    Ok(StatementResult::done(session, 0, format!("table {name} altered, schema version {version}")))
}

pub(crate) async fn alter_namespace(
    engine: &Engine,
    session: &Session,
    name: &str,
    options: &[(String, String)],
) -> Result<StatementResult> {
    session.require(Role::Service, "alter a namespace")?;
    let (id, options) = (NamespaceId::new(name), options.to_vec());
    let plan = move |planning: &Planning<'_>| {
        planning.catalog.require_namespace(&id)?;
        let Some(mut namespace) = planning.system.get_namespace(&id)? else {
            return Err(Error::NamespaceNotFound { name: id.to_string(), nearest: None });
        };
        for (name, value) in options {
            match namespace.options.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => namespace.options.push((name, value)),
            }
        }
        namespace.updated_at = planning.now;
        Ok(vec![ChangeEvent::NamespaceAltered(Box::new(namespace))])
    };
    engine.commits().catalog(plan).await?;
    Ok(StatementResult::done(session, 0, format!("namespace {name} altered")))
}

fn check_kind(info: &TableInfo, kind: Option<&'static str>) -> Result<()> {
    if let Some(kind) = kind.filter(|kind| *kind != info.kind_name()) {
        let (name, own) = (info.full_name(), info.kind_name());
        return Err(Error::definition(format!("{name} is a {own} table, not a {kind} table")));
    }
    if info.stream().is_some() {
        return Err(Error::Unsupported {
            what: format!("altering the stream table {}", info.full_name()),
            hint: Some("its rows go by themselves: drop it and create it anew"),
        });
    }
    Ok(())
}

fn plan(
    planning: &Planning<'_>,
    id: TableId,
    changes: &[TableChange],
    created_by: UserId,
    live_queries: &LiveQueries,
) -> Result<Vec<ChangeEvent>> {
    let info = planning.catalog.by_id(id).ok_or(Error::TableDropped)?;
    let mut altered = Altered::of(&info, changes)?;
    altered.refuse_what_is_watched(&info, live_queries)?;
    altered.refuse_what_rows_cannot_hold(&info, planning)?;
    altered.table.updated_at = planning.now;
    if altered.columns == info.columns() {
        return Ok(vec![ChangeEvent::TableAltered(Box::new(altered.table))]);
    }
    let version = SchemaVersion::new(info.version().get() + 1);
    altered.table.current_version = version;
    let schema = TableSchema {
        table: id,
        version,
        columns: altered.columns,
        primary_key: altered.primary_key,
        change: words(changes),
        created_at: planning.now,
        created_by,
    };
    Ok(vec![
        ChangeEvent::TableAltered(Box::new(altered.table)),
        ChangeEvent::SchemaVersionAdded(Box::new(schema)),
    ])
}

/// A table as it will be.
struct Altered {
    table: Table,
    columns: Vec<Column>,
    primary_key: Vec<ColumnId>,
    /// The greatest id that any column of the table ever had.
    last_id: u32,
    /// Columns that are dropped, get another name or another type, by the names they have now.
    touched: Vec<(ColumnId, String)>,
}

impl Altered {
    fn of(info: &TableInfo, changes: &[TableChange]) -> Result<Self> {
        let newest = info.versions().iter().find(|schema| schema.version == info.version());
        let ids = info.versions().iter().flat_map(|schema| &schema.columns).map(|column| column.id.get());
        let mut altered = Self {
            table: info.record().clone(),
            columns: info.columns().to_vec(),
            primary_key: newest.map(|schema| schema.primary_key.clone()).unwrap_or_default(),
            last_id: ids.max().unwrap_or_default(),
            touched: Vec::new(),
        };
        for change in changes {
            altered.apply(info, change)?;
        }
        Ok(altered)
    }

    fn changes_nothing(&self, info: &TableInfo) -> bool {
        self.columns == info.columns() && self.table == *info.record()
    }

    fn apply(&mut self, info: &TableInfo, change: &TableChange) -> Result<()> {
        match change {
            TableChange::AddColumn { column, if_not_exists } => self.add(info, column, *if_not_exists),
            TableChange::DropColumn { name, if_exists } => {
                let is_there = self.columns.iter().any(|column| column.name == *name);
                if *if_exists && !is_there {
                    return Ok(());
                }
                let position = self.free_column(info, name, "dropping")?;
                let column = self.columns.remove(position);
                self.touched.push((column.id, column.name));
                Ok(())
            }
            TableChange::RenameColumn { from, to } => self.rename(info, from, to),
            TableChange::ModifyColumn { name, data_type } => self.widen(info, name, *data_type),
            TableChange::SetDefault { name, expression } => {
                self.set_default(info, name, expression.as_deref())
            }
            TableChange::Set(options) => options.iter().try_for_each(|(name, value)| self.set(name, value)),
        }
    }

    fn add(&mut self, info: &TableInfo, column: &Column, if_not_exists: bool) -> Result<()> {
        if self.columns.iter().any(|other| other.name == column.name) {
            return if if_not_exists { Ok(()) } else { Err(column_exists(info, &column.name)) };
        }
        if self.columns.len() >= COLUMNS_MAX {
            return Err(Error::definition(format!("a table takes {COLUMNS_MAX} columns at the most")));
        }
        self.last_id =
            self.last_id.checked_add(1).ok_or_else(|| Error::definition("the table had too many columns"))?;
        self.columns.push(Column { id: ColumnId::new(self.last_id), ..column.clone() });
        Ok(())
    }

    fn rename(&mut self, info: &TableInfo, from: &str, to: &str) -> Result<()> {
        let position = self.free_column(info, from, "renaming")?;
        check_column_name(to)?;
        if from == to {
            return Ok(());
        }
        if self.columns.iter().any(|other| other.name == to) {
            return Err(column_exists(info, to));
        }
        if let Some(column) = self.columns.get_mut(position) {
            self.touched.push((column.id, from.to_owned()));
            to.clone_into(&mut column.name);
        }
        Ok(())
    }

    fn widen(&mut self, info: &TableInfo, name: &str, to: log_format::DataType) -> Result<()> {
        let position = self.free_column(info, name, "changing the type of")?;
        let Some(column) = self.columns.get_mut(position) else { return Ok(()) };
        let from = column.data_type;
        let Some(widening) = Widening::between(from, to) else { return Ok(()) };
        if !widens(from, to) {
            let possible = wider_types(from)
                .map_or_else(|| "it stays what it is".to_owned(), |types| format!("it can become {types}"));
            return Err(Error::Definition {
                reason: format!(
                    "{name} is {from} and cannot become {to}, which may lose values; {possible}, or add another column"
                ),
            });
        }
        if let Some(ColumnDefault::Constant(_)) = &column.default {
            let value = widening.value(&constant_default(column)?);
            column.default = Some(ColumnDefault::constant(&value)?);
        }
        column.data_type = to;
        self.touched.push((column.id, name.to_owned()));
        Ok(())
    }

    /// Rows that are there keep what they have: only those that come get it.
    fn set_default(&mut self, info: &TableInfo, name: &str, expression: Option<&Expr>) -> Result<()> {
        let position = self.own_column(info, name, "changing the default of")?;
        if let Some(column) = self.columns.get_mut(position) {
            column.default = expression.map(|expression| column_default(column, expression)).transpose()?;
        }
        Ok(())
    }

    /// Where a column stands that is neither the system's nor part of the key.
    fn free_column(&self, info: &TableInfo, name: &str, verb: &str) -> Result<usize> {
        let position = self.own_column(info, name, verb)?;
        let id = self.columns.get(position).map(|column| column.id);
        if id.is_some_and(|id| self.primary_key.contains(&id)) {
            return Err(Error::Unsupported {
                what: format!("{verb} {name}, which is part of the primary key"),
                hint: Some(
                    "a table's key is that of its CREATE TABLE; create another table and copy the rows",
                ),
            });
        }
        Ok(position)
    }

    /// Where a column stands that is not the system's.
    fn own_column(&self, info: &TableInfo, name: &str, verb: &str) -> Result<usize> {
        if SystemColumn::ALL.iter().any(|system| system.name() == name) {
            return Err(Error::Unsupported {
                what: format!("{verb} {name}"),
                hint: Some("it is one of the system's own columns"),
            });
        }
        let position = self.columns.iter().position(|column| column.name == name);
        let Some(position) = position else {
            // Says which columns there are, unless an earlier change of the statement took this one.
            column_position(info, &Ident::with_quote('"', name))?;
            return Err(Error::definition(format!("{} has no column {name} any more", info.full_name())));
        };
        Ok(position)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let is_none = value.eq_ignore_ascii_case("none");
        match (name, &mut self.table.kind) {
            ("FLUSH_POLICY", _) => {
                self.table.flush_policy = if is_none { None } else { Some(parse_flush_policy(value)?) };
            }
            ("DELETED_RETENTION", _) => {
                self.table.deleted_retention_ms =
                    if is_none { None } else { Some(duration_ms(name, value)?) };
            }
            ("ACCESS_LEVEL", TableKind::Shared(level)) => *level = access(Some(value))?,
            ("LOCATION" | "LOCATION_REFERENCE" | "TYPE", _) => {
                return Err(Error::Unsupported {
                    what: format!("changing {name}"),
                    hint: Some("a table's rows and files stay where they are; create another table"),
                });
            }
            _ => {
                return Err(Error::definition(format!(
                    "there is no option {name} to set; there are FLUSH_POLICY, DELETED_RETENTION and, for a shared table, \
                     ACCESS_LEVEL"
                )));
            }
        }
        Ok(())
    }

    /// Those who watch a column keep it.
    fn refuse_what_is_watched(&self, info: &TableInfo, live_queries: &LiveQueries) -> Result<()> {
        let listening = live_queries.live_queries_on(info.id());
        for (id, name) in &self.touched {
            let mut watching: Vec<&str> = listening
                .iter()
                .filter(|query| query.columns.contains(id))
                .map(|query| &*query.live_id)
                .collect();
            if !watching.is_empty() {
                let count = watching.len();
                watching.truncate(10);
                return Err(Error::Watched {
                    what: format!("the column {}.{name}", info.full_name()),
                    action: "changed",
                    count,
                    ids: watching.join(", "),
                });
            }
        }
        Ok(())
    }

    /// Rows that are there have nothing in a new column but NULL or a constant.
    fn refuse_what_rows_cannot_hold(&self, info: &TableInfo, planning: &Planning<'_>) -> Result<()> {
        let is_new = |column: &&Column| !info.columns().iter().any(|old| old.id == column.id);
        for column in self.columns.iter().filter(is_new).filter(|column| !column.nullable) {
            if constant_default(column)?.is_null() && planning.has_rows(info)? {
                let why = match &column.default {
                    None | Some(ColumnDefault::Constant(_)) => "it has no default",
                    Some(_) => "its default is a function, which fills new rows only",
                };
                return Err(Error::Constraint {
                    table: info.full_name(),
                    column: column.name.clone(),
                    problem: format!(
                        "it cannot be NOT NULL: the table has rows, and {why}; add DEFAULT and a constant, or leave out \
                         NOT NULL"
                    ),
                });
            }
        }
        Ok(())
    }
}

fn column_exists(info: &TableInfo, name: &str) -> Error {
    Error::AlreadyExists { kind: "column", name: format!("{}.{name}", info.full_name()) }
}
