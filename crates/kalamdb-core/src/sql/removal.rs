//! What takes tables and rows away: DROP TABLE, DROP NAMESPACE, TRUNCATE.
//!
//! Refused while live queries watch a table. That is asked on the sequencer, and a live query is listed before it looks
//! whether its table is still there: one of the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kalamdb_sql::LiveQueries;
use log_format::{ChangeEvent, NamespaceId, Role, Table, TableTruncated};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{DROP_TABLE, job_id, push_drop, remove_files_job};
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::ddl::tolerate;
use crate::sql::execute::StatementResult;
use crate::sql::parse::TableName;
use crate::table::TableInfo;

/// Live queries that are named at the most.
const NAMED_MAX: usize = 10;

pub(crate) async fn drop_namespace(
    engine: &Engine,
    session: &Session,
    name: &str,
    if_exists: bool,
    cascade: bool,
) -> Result<StatementResult> {
    session.require(Role::Dba, "drop a namespace")?;
    if name == crate::session::DEFAULT_NAMESPACE {
        return Err(Error::InUse {
            what: format!("namespace {name}"),
            action: "dropped",
            reason: "every session begins in it".to_owned(),
        });
    }
    let (id, user) = (NamespaceId::new(name), session.user().clone());
    let live_queries = Arc::clone(engine.live_queries());
    let plan = move |planning: &Planning<'_>| {
        planning.catalog.require_namespace(&id)?;
        let tables = planning.catalog.tables_in(&id);
        if !tables.is_empty() && !cascade {
            return Err(Error::InUse {
                what: format!("namespace {id}"),
                action: "dropped",
                reason: format!("it holds {} tables; drop them or add CASCADE", tables.len()),
            });
        }
        for info in &tables {
            refuse_while_watched(&live_queries, info, "dropped")?;
        }
        let mut events = Vec::with_capacity(tables.len() * 2 + 1);
        for info in &tables {
            push_drop(planning, &mut events, info.record(), &user)?;
        }
        events.push(ChangeEvent::NamespaceDropped(Box::new(id)));
        Ok(events)
    };
    let done = tolerate(if_exists, engine.commits().catalog(plan).await)?;
    let message = match done.map(|done| done.last_seq.get() - done.first_seq.get()) {
        None => "was not there",
        Some(0) => "dropped",
        Some(_) => "dropped with its tables; their space is freed by jobs (system.jobs)",
    };
    Ok(StatementResult::done(session, 0, format!("namespace {name} {message}")))
}

pub(crate) async fn drop_table(
    engine: &Engine,
    session: &Session,
    name: &TableName,
    if_exists: bool,
    kind: Option<&'static str>,
) -> Result<StatementResult> {
    session.require(Role::Service, "drop a table")?;
    let Some(info) = tolerate(if_exists, engine.resolve(session, name))? else {
        return Ok(StatementResult::done(session, 0, format!("table {} was not there", name.name)));
    };
    if let Some(kind) = kind.filter(|kind| *kind != info.kind_name()) {
        return Err(Error::definition(format!(
            "{} is a {} table, not a {kind} table",
            info.full_name(),
            info.kind_name()
        )));
    }
    let (id, full_name, user) = (info.id(), info.full_name(), session.user().clone());
    let live_queries = Arc::clone(engine.live_queries());
    let plan = move |planning: &Planning<'_>| {
        let Some(info) = planning.catalog.by_id(id) else {
            return Err(Error::TableNotFound { name: info.full_name(), nearest: None });
        };
        refuse_while_watched(&live_queries, &info, "dropped")?;
        let mut events = Vec::with_capacity(2);
        push_drop(planning, &mut events, info.record(), &user)?;
        Ok(events)
    };
    let done = tolerate(if_exists, engine.commits().catalog(plan).await)?;
    let message = match done {
        // The job's event is the last of the commit.
        Some(done) => format!(
            "table {full_name} dropped; the job {} frees its space",
            job_id(DROP_TABLE, done.last_seq)
        ),
        None => format!("table {full_name} was not there"),
    };
    Ok(StatementResult::done(session, 0, message))
}

/// TRUNCATE: every row of every owner goes, at once and for good.
pub(crate) async fn truncate(
    engine: &Engine,
    session: &Session,
    name: &TableName,
) -> Result<StatementResult> {
    session.require(Role::Service, "truncate a table")?;
    let info = engine.resolve(session, name)?;
    let (id, full_name, user) = (info.id(), info.full_name(), session.user().clone());
    let live_queries = Arc::clone(engine.live_queries());
    let rows = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&rows);
    let plan = move |planning: &Planning<'_>| {
        let Some(info) = planning.catalog.by_id(id) else {
            return Err(Error::TableNotFound { name: info.full_name(), nearest: None });
        };
        refuse_while_watched(&live_queries, &info, "truncated")?;
        counted.store(planning.store.table_counts(id)?.rows, Ordering::Relaxed);
        let Table { namespace, name, .. } = info.record().clone();
        let truncated = TableTruncated { table: id, namespace, name };
        let mut events = vec![ChangeEvent::TableTruncated(Box::new(truncated))];
        if planning.store.has_cold_rows(id) {
            events.push(remove_files_job(planning, info.record(), planning.next_seq, &user));
        }
        Ok(events)
    };
    engine.commits().catalog(plan).await?;
    let rows = rows.load(Ordering::Relaxed);
    Ok(StatementResult::done(session, rows, format!("table {full_name} truncated: {rows} rows went")))
}

/// Names the live queries on a table that stand in the way.
fn refuse_while_watched(live_queries: &LiveQueries, info: &TableInfo, action: &'static str) -> Result<()> {
    let watching = live_queries.live_queries_on(info.id());
    if watching.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = watching.iter().take(NAMED_MAX).map(|query| &*query.live_id).collect();
    Err(Error::Watched {
        what: format!("table {}", info.full_name()),
        action,
        count: watching.len(),
        ids: ids.join(", "),
    })
}
