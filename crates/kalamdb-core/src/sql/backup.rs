//! BACKUP, RESTORE and what shows backups. The work is done by jobs ([`crate::jobs`]); what can be refused at once is refused here.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use log_format::{DataType, Job, JobStatus, NamespaceId, Role, Value};
use serde_json::Value as Json;

use crate::backup::{BackupList, Part, Until, file_of, make_directory};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{
    BACKUP_DATABASE, RESTORE_DATABASE, RestoreRequest, backup_database_job, job_id, plan_restore,
};
use crate::requests::Planning;
use crate::session::Session;
use crate::sql::ddl::{check_namespace_name, one_batch};
use crate::sql::execute::StatementResult;
use crate::sql::parse::{Statement, identifier};
use crate::values;

/// A statement about backups.
#[derive(Clone, Debug)]
pub(crate) enum BackupStatement {
    /// BACKUP DATABASE.
    Backup { namespace: String, path: PathBuf },
    /// RESTORE DATABASE.
    Restore { namespace: String, path: PathBuf, renamed: Option<String>, until: Until },
    /// SHOW BACKUP FROM.
    Show(PathBuf),
    /// SHOW BACKUPS.
    ShowAll,
}

/// `BACKUP DATABASE ns TO 'path'`, `RESTORE DATABASE ns FROM 'path' [AS other] [UNTIL SEQ n | UNTIL 'time']`, `SHOW BACKUP FROM 'path'`,
/// `SHOW BACKUPS`: the parser stands at the first of these words.
pub(super) fn parse(parser: &mut Parser<'_>, words: [&str; 2]) -> Result<Statement> {
    parser.advance_token();
    Ok(Statement::Backup(Box::new(match words {
        ["SHOW", "BACKUPS"] => {
            parser.advance_token();
            BackupStatement::ShowAll
        }
        ["SHOW", _] => {
            parser.advance_token();
            parser.expect_keyword_is(Keyword::FROM)?;
            BackupStatement::Show(parser.parse_literal_string()?.into())
        }
        ["BACKUP", _] => {
            let namespace = namespace(parser)?;
            parser.expect_keyword_is(Keyword::TO)?;
            BackupStatement::Backup { namespace, path: parser.parse_literal_string()?.into() }
        }
        _ => {
            let namespace = namespace(parser)?;
            parser.expect_keyword_is(Keyword::FROM)?;
            let path = parser.parse_literal_string()?.into();
            let renamed = parser.parse_keyword(Keyword::AS).then(|| parser.parse_identifier()).transpose()?;
            let until = until(parser)?;
            BackupStatement::Restore { namespace, path, renamed: renamed.as_ref().map(identifier), until }
        }
    })))
}

/// `DATABASE name`, or `NAMESPACE name`, which is the same.
fn namespace(parser: &mut Parser<'_>) -> Result<String> {
    let word = parser.next_token();
    match &word.token {
        Token::Word(kind)
            if ["DATABASE", "NAMESPACE"].iter().any(|it| kind.value.eq_ignore_ascii_case(it)) =>
        {
            Ok(identifier(&parser.parse_identifier()?))
        }
        other => {
            Err(Error::Syntax { message: format!("expected DATABASE, found {other} at {}", word.span.start) })
        }
    }
}

fn until(parser: &mut Parser<'_>) -> Result<Until> {
    let is =
        |token: &Token, word: &str| matches!(token, Token::Word(it) if it.value.eq_ignore_ascii_case(word));
    if !is(&parser.peek_token().token, "UNTIL") {
        return Ok(Until::End);
    }
    parser.advance_token();
    if is(&parser.peek_token().token, "SEQ") {
        parser.advance_token();
        return Ok(Until::Seq(parser.parse_literal_uint()?));
    }
    let text = parser.parse_literal_string()?;
    match values::from_text(&text, DataType::DateTime)? {
        Value::DateTime(micros) => Ok(Until::Time(micros)),
        _ => Err(Error::Value { text, data_type: DataType::DateTime }),
    }
}

pub(super) async fn execute(
    engine: &Engine,
    session: &Session,
    statement: &BackupStatement,
) -> Result<StatementResult> {
    session.require(Role::Dba, "back up, restore or look at backups")?;
    match statement {
        BackupStatement::Backup { namespace, path } => back_up(engine, session, namespace, path).await,
        BackupStatement::Restore { namespace, path, renamed, until } => {
            restore(engine, session, (namespace, path), renamed.as_deref(), *until).await
        }
        BackupStatement::Show(path) => show(session, path).await,
        BackupStatement::ShowAll => show_all(engine, session),
    }
}

async fn back_up(engine: &Engine, session: &Session, name: &str, path: &Path) -> Result<StatementResult> {
    let namespace = NamespaceId::new(name);
    engine.catalog().require_namespace(&namespace)?;
    let (own, at) = (engine.data_dir().to_owned(), path.to_owned());
    let checked = move || {
        check_place(&own, &at)?;
        make_directory(&at)?;
        BackupList::read(&at)
    };
    blocking(checked).await?;
    let (to, user) = (path.to_owned(), session.user().clone());
    let plan = move |planning: &Planning<'_>| {
        planning.catalog.require_namespace(&namespace)?;
        Ok(vec![backup_database_job(planning, &namespace, &to, &user)])
    };
    let done = engine.commits().catalog(plan).await?;
    let job = job_id(BACKUP_DATABASE, done.last_seq);
    Ok(StatementResult::done(
        session,
        0,
        format!("the job {job} backs up namespace {name} to {}", path.display()),
    ))
}

/// The server's own directory is no place for a backup: it goes with it, and starts and jobs sweep parts of it.
fn check_place(data_dir: &Path, path: &Path) -> Result<()> {
    require_plain(path)?;
    let own = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    // As much of it as there is.
    let there = path.ancestors().find_map(|part| part.canonicalize().ok()).unwrap_or_default();
    if there.starts_with(&own) || path.starts_with(data_dir) {
        return Err(Error::definition(format!(
            "{} is in the database's own directory: a backup belongs elsewhere, at best on another disk",
            path.display()
        )));
    }
    Ok(())
}

fn require_plain(path: &Path) -> Result<()> {
    if path.is_absolute() && !path.components().any(|part| part == Component::ParentDir) {
        return Ok(());
    }
    Err(Error::definition(format!(
        "{:?} is no absolute path without ..: a backup is a directory of the server's machine, such as '/var/backups/chat'",
        path.display().to_string()
    )))
}

/// What reads or writes files, away from who answers others meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::ShuttingDown)?
}

/// The list of the backup in a directory.
fn list_in(path: &Path) -> Result<BackupList> {
    require_plain(path)?;
    BackupList::read(path)?
        .ok_or_else(|| Error::NotFound { kind: "backup", name: path.display().to_string() })
}

async fn restore(
    engine: &Engine,
    session: &Session,
    (name, path): (&str, &Path),
    renamed: Option<&str>,
    until: Until,
) -> Result<StatementResult> {
    let target = renamed.unwrap_or(name);
    check_namespace_name(target)?;
    let (own, from) = (engine.data_dir().to_owned(), path.to_owned());
    let list = blocking(move || check_place(&own, &from).and_then(|()| list_in(&from))).await?;
    if list.namespace != name {
        return Err(Error::definition(format!(
            "{} has a backup of namespace {}: write RESTORE DATABASE {} FROM … AS {target}",
            path.display(),
            list.namespace,
            list.namespace
        )));
    }
    list.chain(until)?;
    let request = RestoreRequest { path: path.to_owned(), until, namespace: NamespaceId::new(target) };
    let user = session.user().clone();
    let plan = move |planning: &Planning<'_>| plan_restore(planning, &request, &user);
    let done = engine.commits().catalog(plan).await?;
    let job = job_id(RESTORE_DATABASE, done.last_seq);
    Ok(StatementResult::done(
        session,
        0,
        format!("the job {job} restores namespace {target}; until it is done nobody can use it"),
    ))
}

/// What a backup has, a row for each of its parts.
async fn show(session: &Session, path: &Path) -> Result<StatementResult> {
    let from = path.to_owned();
    let look = move || {
        let list = list_in(&from)?;
        let states: Vec<String> = list.parts.iter().map(|part| state_of(&from, part)).collect();
        Ok((list, states))
    };
    let (list, states) = blocking(look).await?;
    let parts = &list.parts;
    let text =
        |of: fn(&Part) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(parts.iter().map(of))) };
    let number = |of: fn(&Part) -> u64| numbers(parts.iter().map(|part| Some(of(part))));
    let batch = RecordBatch::try_from_iter([
        ("namespace", Arc::new(StringArray::from(vec![list.namespace.as_str(); parts.len()])) as ArrayRef),
        ("kind", text(|part| part.kind.as_str())),
        ("from_seq", number(|part| part.from_seq)),
        ("seq", number(|part| part.seq)),
        ("commit_time", times(parts.iter().map(|part| Some(part.commit_time)))),
        ("tables", number(|part| part.tables)),
        ("row_events", number(|part| part.row_events)),
        ("bytes", number(|part| part.bytes)),
        ("file", text(|part| part.file.as_str())),
        ("state", Arc::new(StringArray::from(states))),
    ])?;
    Ok(one_batch(session, batch, None))
}

/// Whether a part's file is there.
fn state_of(path: &Path, part: &Part) -> String {
    match file_of(path, part).map(std::fs::metadata) {
        Ok(Ok(found)) if found.len() == part.bytes => "there".to_owned(),
        Ok(Ok(found)) => format!("{} bytes instead of {}", found.len(), part.bytes),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

fn numbers(of: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(of.map(|number| number.and_then(|it| i64::try_from(it).ok())).collect::<Int64Array>())
}

fn times(of: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(of.collect::<TimestampMicrosecondArray>().with_timezone("+00:00"))
}

/// The backups that jobs of this database have made, the newest first.
fn show_all(engine: &Engine, session: &Session) -> Result<StatementResult> {
    let is_backup = |job: &Job| job.job_type == BACKUP_DATABASE && job.status == JobStatus::Completed;
    let mut jobs: Vec<Job> = engine.system().scan_all_jobs()?.into_iter().filter(is_backup).collect();
    jobs.sort_by(|left, right| right.finished_at.cmp(&left.finished_at).then(right.id.cmp(&left.id)));
    let json = |text: &Option<String>| {
        serde_json::from_str::<Json>(text.as_deref().unwrap_or_default()).unwrap_or_default()
    };
    let (told, done): (Vec<Json>, Vec<Json>) =
        jobs.iter().map(|job| (json(&job.parameters), json(&job.result))).unzip();
    let number = |name: &str| numbers(done.iter().map(|it| it.get(name).and_then(Json::as_u64)));
    let namespaces = jobs.iter().map(|job| job.namespace.as_ref().map(NamespaceId::as_str));
    let batch = RecordBatch::try_from_iter([
        (
            "job_id",
            Arc::new(StringArray::from_iter_values(jobs.iter().map(|job| job.id.as_str()))) as ArrayRef,
        ),
        ("namespace", Arc::new(namespaces.collect::<StringArray>())),
        (
            "path",
            Arc::new(told.iter().map(|it| it.get("path").and_then(Json::as_str)).collect::<StringArray>()),
        ),
        ("seq", number("seq")),
        ("row_events", number("row_events")),
        ("bytes", number("bytes")),
        ("finished_at", times(jobs.iter().map(|job| job.finished_at))),
    ])?;
    Ok(one_batch(session, batch, None))
}
