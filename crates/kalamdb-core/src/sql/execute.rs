//! Statements in order.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use log_format::{Access, Role, TableKind, UserId};
use serde_json::Value as Json;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::sql::parse::{Statement, parse};
use crate::sql::{ddl, dml, insert, select};
use crate::table::TableInfo;

/// How often a statement is planned anew when others change the same rows meanwhile.
const ATTEMPTS_MAX: u32 = 32;

/// What one statement gave.
#[derive(Clone, Debug)]
pub struct StatementResult {
    /// The columns; none for statements that only do something.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Rows returned, or rows changed.
    pub row_count: u64,
    /// What was done, in words.
    pub message: Option<String>,
    /// Whose rows it saw.
    pub as_user: UserId,
}

impl StatementResult {
    pub(crate) fn done(session: &Session, row_count: u64, message: impl Into<String>) -> Self {
        Self {
            schema: Arc::new(Schema::empty()),
            batches: Vec::new(),
            row_count,
            message: Some(message.into()),
            as_user: session.user().clone(),
        }
    }
}

/// What a request gave: the results of the statements that went through, and why it ended early, if it did.
#[derive(Debug, Default)]
pub struct Executed {
    /// One for each statement done.
    pub results: Vec<StatementResult>,
    /// What the next one failed at; those before it stand.
    pub error: Option<Error>,
}

/// Runs the statements of a request.
pub(crate) async fn execute(engine: &Engine, session: &mut Session, sql: &str, params: &[Json]) -> Executed {
    let mut executed = Executed::default();
    let statements = match parse(sql) {
        Ok(statements) if statements.len() > 1 && !params.is_empty() => {
            executed.error = Some(Error::ParamsWithBatch);
            drop(statements);
            return executed;
        }
        Ok(statements) => statements,
        Err(error) => {
            executed.error = Some(error);
            return executed;
        }
    };
    for statement in statements {
        match statement_with_retries(engine, session, &statement, params).await {
            Ok(result) => executed.results.push(result),
            Err(error) => {
                executed.error = Some(error);
                break;
            }
        }
    }
    executed
}

/// A statement that lost a race is planned anew on what is there now.
async fn statement_with_retries(
    engine: &Engine,
    session: &mut Session,
    statement: &Statement,
    params: &[Json],
) -> Result<StatementResult> {
    for _ in 0..ATTEMPTS_MAX {
        match one(engine, session, statement, params).await {
            Err(Error::Conflict { .. }) => metrics::counter!("kalamdb_conflicts_total").increment(1),
            other => return other,
        }
    }
    Err(Error::Conflict { attempts: ATTEMPTS_MAX })
}

async fn one(
    engine: &Engine,
    session: &mut Session,
    statement: &Statement,
    params: &[Json],
) -> Result<StatementResult> {
    match statement {
        Statement::ExecuteAsUser { user, statement } => {
            session.require(Role::Service, "run a statement as another user")?;
            let mut other = engine.session_of(user, session)?;
            Box::pin(one_of_user(engine, &mut other, statement, params)).await
        }
        Statement::Use(namespace) => {
            let id = log_format::NamespaceId::new(namespace);
            if !engine.has_namespace(&id) {
                return Err(Error::NamespaceNotFound { name: namespace.clone() });
            }
            session.use_namespace(id);
            Ok(StatementResult::done(session, 0, format!("using {namespace}")))
        }
        other => one_of_user(engine, session, other, params).await,
    }
}

async fn one_of_user(
    engine: &Engine,
    session: &mut Session,
    statement: &Statement,
    params: &[Json],
) -> Result<StatementResult> {
    match statement {
        Statement::Query(query) => select::select(engine, session, query.as_ref().clone(), params).await,
        Statement::Insert(statement) => insert::insert(engine, session, statement, params).await,
        Statement::Update(update) => dml::update(engine, session, update, params).await,
        Statement::Delete(delete) => dml::delete(engine, session, delete, params).await,
        Statement::Subscribe(_) => Err(Error::Unsupported {
            what: "SUBSCRIBE TO over HTTP".to_owned(),
            hint: Some("subscribe over the WebSocket at /v1/ws"),
        }),
        Statement::ExecuteAsUser { .. } | Statement::Use(_) => {
            Err(Error::unsupported("this statement inside of EXECUTE AS USER"))
        }
        other => ddl::execute(engine, session, other).await,
    }
}

/// Whether the session may read a table at all. Which rows, its partition says.
pub(crate) fn require_read(session: &Session, info: &TableInfo) -> Result<()> {
    match info.kind() {
        TableKind::Shared(Access::Private) => {
            session.require(Role::Service, &format!("read {}", info.full_name()))
        }
        _ => Ok(()),
    }
}

/// Whether the session may write rows of a table.
pub(crate) fn require_write(session: &Session, info: &TableInfo) -> Result<()> {
    match info.kind() {
        TableKind::Shared(Access::Private | Access::Restricted) => {
            session.require(Role::Service, &format!("write {}", info.full_name()))
        }
        _ => Ok(()),
    }
}
