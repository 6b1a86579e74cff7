//! Statements in order.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Ident, Visit, visit_relations};
use log_format::{Access, Role, TableKind, UserId};
use serde_json::Value as Json;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::sql::parse::{Statement, identifier, parse, refused_as_another_user};
use crate::sql::plans::PlanKey;
use crate::sql::target::Context;
use crate::sql::transaction::{Transaction, Unit};
use crate::sql::{ddl, dml, insert, select};
use crate::table::TableInfo;

/// How often a statement or transaction is run anew when others change the same rows meanwhile.
pub(crate) const ATTEMPTS_MAX: u32 = 32;

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
    match again(engine, session, sql, params).await {
        Ok(None) => {}
        Ok(Some(result)) => {
            executed.results.push(result);
            return executed;
        }
        Err(error) => {
            executed.error = Some(error);
            return executed;
        }
    }
    let units = match units(sql, params) {
        Ok(units) => units,
        Err(error) => {
            executed.error = Some(error);
            return executed;
        }
    };
    let text = (units.len() == 1).then_some(sql);
    for unit in &units {
        match unit_with_retries(engine, session, unit, params, text).await {
            Ok(results) => executed.results.extend(results),
            Err(error) => {
                executed.error = Some(error);
                break;
            }
        }
    }
    executed
}

/// What a text gives whose plan is kept.
async fn again(
    engine: &Engine,
    session: &Session,
    sql: &str,
    params: &[Json],
) -> Result<Option<StatementResult>> {
    let context = Context { engine, session, params, text: Some(sql), transaction: None };
    let Some(key) = PlanKey::new(&context) else { return Ok(None) };
    let Some(plan) = engine.plans().find(context, &key)? else { return Ok(None) };
    match Box::pin(select::again(context, plan)).await {
        // Its table was altered meanwhile: it is planned anew.
        Err(Error::Conflict { .. }) => Ok(None),
        done => done.map(Some),
    }
}

fn units(sql: &str, params: &[Json]) -> Result<Vec<Unit>> {
    let statements = parse(sql)?;
    if statements.len() > 1 && !params.is_empty() {
        return Err(Error::ParamsWithBatch);
    }
    Unit::of_all(statements)
}

/// What lost a race is run anew on what is there now.
async fn unit_with_retries(
    engine: &Engine,
    session: &mut Session,
    unit: &Unit,
    params: &[Json],
    text: Option<&str>,
) -> Result<Vec<StatementResult>> {
    for _ in 0..ATTEMPTS_MAX {
        let attempt = match unit {
            Unit::Statement(statement) => {
                one(engine, session, statement, params, text, None).await.map(|result| vec![result])
            }
            Unit::Transaction { statements, commits } => {
                transaction(engine, session, statements, *commits).await
            }
        };
        match attempt {
            Err(Error::Conflict { .. }) => metrics::counter!("kalamdb_conflicts_total").increment(1),
            other => return other,
        }
    }
    Err(Error::Conflict { attempts: ATTEMPTS_MAX })
}

/// All statements between BEGIN and COMMIT, as one commit; or none, where one fails or ROLLBACK ends them.
async fn transaction(
    engine: &Engine,
    session: &mut Session,
    statements: &[Statement],
    commits: bool,
) -> Result<Vec<StatementResult>> {
    let begun = Transaction::begin(engine)?;
    let mut inside = session.clone();
    let mut results = vec![StatementResult::done(session, 0, "transaction begun")];
    for statement in statements {
        let done = one(engine, &mut inside, statement, &[], None, Some(&begun)).await?;
        results.push(done);
    }
    if !commits {
        results.push(StatementResult::done(session, 0, "rolled back: nothing was written"));
        return Ok(results);
    }
    let message = match begun.commit(engine).await? {
        Some(done) => format!("committed as seq {} to {}", done.first_seq, done.last_seq),
        None => "committed: nothing changed".to_owned(),
    };
    *session = inside;
    results.push(StatementResult::done(session, 0, message));
    Ok(results)
}

async fn one(
    engine: &Engine,
    session: &mut Session,
    statement: &Statement,
    params: &[Json],
    text: Option<&str>,
    transaction: Option<&Transaction>,
) -> Result<StatementResult> {
    match statement {
        Statement::ExecuteAsUser { user, statement } => {
            session.require(Role::Service, "run a statement as another user")?;
            let other = engine.session_of(user, session)?;
            let context = Context { engine, session: &other, params, text: None, transaction };
            Box::pin(one_of_user(context, statement)).await
        }
        Statement::Use(namespace) => {
            let id = log_format::NamespaceId::new(namespace);
            engine.catalog().require_namespace(&id)?;
            session.use_namespace(id);
            Ok(StatementResult::done(session, 0, format!("using {namespace}")))
        }
        other => one_of_user(Context { engine, session, params, text, transaction }, other).await,
    }
}

async fn one_of_user(context: Context<'_>, statement: &Statement) -> Result<StatementResult> {
    match statement {
        Statement::Query(query) => select::select(context, query).await.map_err(located(query.as_ref())),
        Statement::Insert(statement) => {
            insert::insert(context, statement).await.map_err(located(statement.as_ref()))
        }
        Statement::Update(update) => dml::update(context, update).await.map_err(located(update.as_ref())),
        Statement::Delete(delete) => dml::delete(context, delete).await.map_err(located(delete.as_ref())),
        Statement::Subscribe(_) => Err(Error::Unsupported {
            what: "SUBSCRIBE TO over HTTP".to_owned(),
            hint: Some("subscribe over the WebSocket at /v1/ws"),
        }),
        Statement::ExecuteAsUser { .. } | Statement::Use(_) => Err(refused_as_another_user()),
        _ if context.session.acts_for_another() => Err(refused_as_another_user()),
        other if context.transaction.is_some() && other.changes_catalog() => Err(Error::Unsupported {
            what: "a statement that changes the catalog inside of a transaction".to_owned(),
            hint: Some("run it before BEGIN or after COMMIT: it is a commit of its own"),
        }),
        other => ddl::execute(context.engine, context.session, other).await,
    }
}

/// Adds to what is said of a table that is not there where the statement names it.
fn located<V: Visit>(statement: &V) -> impl FnOnce(Error) -> Error {
    move |error| {
        let missing = match &error {
            Error::TableNotFound { name, .. } => name.rsplit('.').next().unwrap_or_default().to_owned(),
            Error::NamespaceNotFound { name, .. } => name.clone(),
            _ => return error,
        };
        let mut place = None;
        let _ = visit_relations(statement, |relation| {
            let named = |ident: &&Ident| identifier(ident) == missing;
            place = relation.0.iter().filter_map(|part| part.as_ident()).find(named).cloned();
            if place.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match place {
            Some(ident) => error.at(&ident),
            None => error,
        }
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
