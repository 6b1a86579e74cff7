//! STORAGE …: what concerns where rows are, not what they hold.

use std::sync::Arc;

use datafusion::sql::sqlparser::parser::Parser;
use log_format::Role;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{COMPACT_TABLE, FLUSH_TABLE, Thoroughness, compact_table_job, flush_table_job, job_id};
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::execute::StatementResult;
use crate::sql::parse::{Statement, TableName, table_after_keyword};
use crate::table::TableInfo;

/// What comes after STORAGE and the word after it.
pub(super) fn parse(parser: &mut Parser<'_>, action: &str) -> Result<Statement> {
    match action {
        "FLUSH" => Ok(Statement::StorageFlush(table_after_keyword(parser)?)),
        "COMPACT" => Ok(Statement::StorageCompact(table_after_keyword(parser)?)),
        _ => Err(Error::Unsupported {
            what: format!("STORAGE {action}"),
            hint: Some("write STORAGE FLUSH TABLE t or STORAGE COMPACT TABLE t"),
        }),
    }
}

/// STORAGE FLUSH TABLE: a job moves the table's hot rows, of every owner, into Parquet files.
pub(super) async fn flush_table(
    engine: &Engine,
    session: &Session,
    name: &TableName,
) -> Result<StatementResult> {
    let info = table_with_files(engine, session, name, ["flush", "flushing"])?;
    let (id, full_name, user) = (info.id(), info.full_name(), session.user().clone());
    let plan = move |planning: &Planning<'_>| {
        let info = planning.catalog.by_id(id).ok_or(Error::TableDropped)?;
        Ok(vec![flush_table_job(planning, info.record(), None, &user)])
    };
    let done = engine.commits().catalog(plan).await?;
    let job = job_id(FLUSH_TABLE, done.last_seq);
    Ok(StatementResult::done(session, 0, format!("the job {job} flushes table {full_name}")))
}

/// STORAGE COMPACT TABLE: a job puts the table's Parquet files, of every owner, together.
pub(super) async fn compact_table(
    engine: &Engine,
    session: &Session,
    name: &TableName,
) -> Result<StatementResult> {
    let info = table_with_files(engine, session, name, ["compact", "compacting"])?;
    let (id, full_name, user) = (info.id(), info.full_name(), session.user().clone());
    let plan = move |planning: &Planning<'_>| {
        let info = planning.catalog.by_id(id).ok_or(Error::TableDropped)?;
        Ok(vec![compact_table_job(planning, info.record(), None, Thoroughness::All, &user)])
    };
    let done = engine.commits().catalog(plan).await?;
    let job = job_id(COMPACT_TABLE, done.last_seq);
    Ok(StatementResult::done(session, 0, format!("the job {job} compacts table {full_name}")))
}

/// A table that may have cold files, for a session that may see to them.
fn table_with_files(
    engine: &Engine,
    session: &Session,
    name: &TableName,
    [verb, doing]: [&str; 2],
) -> Result<Arc<TableInfo>> {
    session.require(Role::Service, &format!("{verb} a table"))?;
    let info = engine.resolve(session, name)?;
    if info.stream().is_some() {
        return Err(Error::Unsupported {
            what: format!("{doing} the stream table {}", info.full_name()),
            hint: Some("stream rows are never kept in files; they go by themselves"),
        });
    }
    Ok(info)
}
