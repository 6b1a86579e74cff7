//! STORAGE …: what concerns where rows are, not what they hold.

use datafusion::sql::sqlparser::parser::Parser;
use log_format::Role;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{FLUSH_TABLE, flush_table_job, job_id};
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::execute::StatementResult;
use crate::sql::parse::{Statement, TableName, table_after_keyword};

/// What comes after STORAGE and the word after it.
pub(super) fn parse(parser: &mut Parser<'_>, action: &str) -> Result<Statement> {
    match action {
        "FLUSH" => Ok(Statement::StorageFlush(table_after_keyword(parser)?)),
        _ => Err(Error::Unsupported {
            what: format!("STORAGE {action}"),
            hint: Some("write STORAGE FLUSH TABLE t"),
        }),
    }
}

/// STORAGE FLUSH TABLE: a job moves the table's hot rows, of every owner, into Parquet files.
pub(super) async fn flush_table(
    engine: &Engine,
    session: &Session,
    name: &TableName,
) -> Result<StatementResult> {
    session.require(Role::Service, "flush a table")?;
    let info = engine.resolve(session, name)?;
    if info.stream().is_some() {
        return Err(Error::Unsupported {
            what: format!("flushing the stream table {}", info.full_name()),
            hint: Some("stream rows are never kept in files; they go by themselves"),
        });
    }
    let (id, full_name, user) = (info.id(), info.full_name(), session.user().clone());
    let plan = move |planning: &Planning<'_>| {
        let info = planning.catalog.by_id(id).ok_or(Error::TableDropped)?;
        Ok(vec![flush_table_job(planning, info.record(), None, &user)])
    };
    let done = engine.commits().catalog(plan).await?;
    let job = job_id(FLUSH_TABLE, done.last_seq);
    Ok(StatementResult::done(session, 0, format!("the job {job} flushes table {full_name}")))
}
