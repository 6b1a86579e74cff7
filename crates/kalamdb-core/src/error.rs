//! What the engine refuses or fails at, and the code a client gets for it.

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::Ident;
use log_format::{DataType, Seq};

use crate::live::Ending;

/// The codes of `protocol.md`, as clients see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A request without a statement.
    EmptySql,
    /// SQL that cannot be parsed or planned.
    InvalidSql,
    /// A parameter that is missing, too many, or does not fit.
    InvalidParameter,
    /// One of several statements cannot be parsed.
    BatchParseError,
    /// Parameters with several statements.
    ParamsWithBatch,
    /// Legal SQL that this version does not do.
    Unsupported,
    /// No such table.
    TableNotFound,
    /// No such namespace.
    NamespaceNotFound,
    /// No such thing of another kind.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Not allowed for this role.
    PermissionDenied,
    /// Wrong name or password.
    Unauthorized,
    /// A key, NOT NULL or type constraint.
    ConstraintViolation,
    /// Another instance writes to the storage location.
    LocationOwned,
    /// Too many concurrent changes of the same rows.
    Conflict,
    /// Took too long.
    Timeout,
    /// Would take more memory than allowed.
    MemoryLimit,
    /// The queue of commits is full.
    Overloaded,
    /// Failed while running.
    SqlExecutionError,
    /// The engine takes no more writes.
    ReadOnly,
    /// A resume from where the log no longer, or never, was.
    ResyncRequired,
    /// The table went while it was listened to.
    TableDropped,
    /// The engine is closing.
    ShuttingDown,
    /// A panic in the query engine while a statement ran: a fault of ours, or of a library's.
    StatementPanicked,
    /// A fault of ours.
    InternalError,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::EmptySql,
        Self::InvalidSql,
        Self::InvalidParameter,
        Self::BatchParseError,
        Self::ParamsWithBatch,
        Self::Unsupported,
        Self::TableNotFound,
        Self::NamespaceNotFound,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::Unauthorized,
        Self::ConstraintViolation,
        Self::LocationOwned,
        Self::Conflict,
        Self::Timeout,
        Self::MemoryLimit,
        Self::Overloaded,
        Self::SqlExecutionError,
        Self::ReadOnly,
        Self::ResyncRequired,
        Self::TableDropped,
        Self::ShuttingDown,
        Self::StatementPanicked,
        Self::InternalError,
    ];

    /// The code as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptySql => "EMPTY_SQL",
            Self::InvalidSql => "INVALID_SQL",
            Self::InvalidParameter => "INVALID_PARAMETER",
            Self::BatchParseError => "BATCH_PARSE_ERROR",
            Self::ParamsWithBatch => "PARAMS_WITH_BATCH",
            Self::Unsupported => "UNSUPPORTED",
            Self::TableNotFound => "TABLE_NOT_FOUND",
            Self::NamespaceNotFound => "NAMESPACE_NOT_FOUND",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::ConstraintViolation => "CONSTRAINT_VIOLATION",
            Self::LocationOwned => "LOCATION_OWNED",
            Self::Conflict => "CONFLICT",
            Self::Timeout => "TIMEOUT",
            Self::MemoryLimit => "MEMORY_LIMIT",
            Self::Overloaded => "OVERLOADED",
            Self::SqlExecutionError => "SQL_EXECUTION_ERROR",
            Self::ReadOnly => "READ_ONLY",
            Self::ResyncRequired => "RESYNC_REQUIRED",
            Self::TableDropped => "TABLE_DROPPED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::StatementPanicked => "STATEMENT_PANICKED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

/// A place in a request's text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The character in it.
    pub column: u64,
}

impl Position {
    /// Where a name stands; none where it stands nowhere.
    pub(crate) fn of(ident: &Ident) -> Option<Self> {
        let start = ident.span.start;
        (start.line > 0).then_some(Self { line: start.line, column: start.column })
    }
}

/// A refusal or failure of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No statement.
    #[error("there is no statement in the request")]
    EmptySql,
    /// The text is not SQL.
    #[error("{message}")]
    Syntax {
        /// What was expected, and where.
        message: String,
    },
    /// One of several statements is not SQL: none of them was run.
    #[error("{message}; no statement of the request was run")]
    BatchSyntax {
        /// What was expected, and where.
        message: String,
    },
    /// What is wrong with a statement at one place of its text.
    #[error("{source}")]
    At {
        /// The place.
        position: Position,
        /// What is wrong there.
        source: Box<Error>,
    },
    /// Not done by this version.
    #[error("{what} is not supported{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default())]
    Unsupported {
        /// What was asked.
        what: String,
        /// What to do instead.
        hint: Option<&'static str>,
    },
    /// A parameter.
    #[error("parameter ${number}: {problem}")]
    Parameter {
        /// Its number, from 1.
        number: usize,
        /// What is wrong.
        problem: String,
    },
    /// Parameters with several statements.
    #[error("parameters go with a single statement; send the statements one by one")]
    ParamsWithBatch,
    /// No such table.
    #[error("there is no table {name}{}", nearest.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    TableNotFound {
        /// As asked.
        name: String,
        /// One that is there.
        nearest: Option<String>,
    },
    /// No such namespace.
    #[error("there is no namespace {name}; {}", instead(name, nearest.as_deref()))]
    NamespaceNotFound {
        /// As asked.
        name: String,
        /// One that is there.
        nearest: Option<String>,
    },
    /// No such thing.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// As asked.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} {name} exists already")]
    AlreadyExists {
        /// What kind of thing.
        kind: &'static str,
        /// As asked.
        name: String,
    },
    /// It is in use.
    #[error("{what} cannot be {action}: {reason}")]
    InUse {
        /// The thing.
        what: String,
        /// What cannot be done to it.
        action: &'static str,
        /// Who uses it.
        reason: String,
    },
    /// Live queries watch it.
    #[error("{what} cannot be {action}: {} watch it: {ids}; end them first", queries(*.count))]
    Watched {
        /// The table or column.
        what: String,
        /// What cannot be done to it.
        action: &'static str,
        /// How many.
        count: usize,
        /// Some of them, by their ids in `system.live_queries`.
        ids: String,
    },
    /// Not allowed.
    #[error("{user} may not {action}; it takes the role {needed}")]
    PermissionDenied {
        /// Who.
        user: String,
        /// What they tried.
        action: String,
        /// Who may.
        needed: &'static str,
    },
    /// Wrong name or password.
    #[error("wrong user name or password")]
    Unauthorized,
    /// A definition that makes no sense.
    #[error("{reason}")]
    Definition {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A row with this key is there.
    #[error("{table} has a row with the primary key {key} already")]
    DuplicateKey {
        /// The table.
        table: String,
        /// The key's values.
        key: String,
    },
    /// A statement that would change a row twice.
    #[error(
        "the primary key {key} of {table} comes twice in the statement; ON CONFLICT DO UPDATE changes a row once"
    )]
    KeyTwice {
        /// The table.
        table: String,
        /// The key's values.
        key: String,
    },
    /// A row that breaks a constraint.
    #[error("{table}.{column}: {problem}")]
    Constraint {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that is not one of its type.
    #[error("{text:?} is not a value of type {data_type}")]
    Value {
        /// The value.
        text: String,
        /// The type it should have.
        data_type: DataType,
    },
    /// Somebody else changed the same rows, again and again.
    #[error("the rows were changed by others {attempts} times in a row; try again")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// A resume that cannot be exact.
    #[error(
        "changes after seq {from} are not all in the log (it holds {floor} to {end}); subscribe without `from` to start with a snapshot"
    )]
    ResyncRequired {
        /// What the client asked for.
        from: Seq,
        /// The first seq that can still be read.
        floor: Seq,
        /// The last one.
        end: Seq,
    },
    /// A live query's table was dropped.
    #[error("the table was dropped")]
    TableDropped,
    /// A subscription that was ended from outside.
    #[error("the live query is over: {ending}")]
    Ended {
        /// Why.
        ending: Ending,
    },
    /// A result or statement that is too large.
    #[error("{what} takes more than {limit} bytes; {hint}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// What to do.
        hint: &'static str,
    },
    /// More commits wait than may.
    #[error("the server is overloaded: {waiting} commits wait for the disk; try again in a moment")]
    Overloaded {
        /// Number of commits in the queue.
        waiting: usize,
    },
    /// The engine takes no more writes.
    #[error("the database is read-only: {reason}")]
    ReadOnly {
        /// What failed, and what ends it.
        reason: String,
    },
    /// The engine is closing.
    #[error("the database is shutting down")]
    ShuttingDown,
    /// What the directory holds contradicts itself.
    #[error("{reason}")]
    Inconsistent {
        /// What was found, and what to do.
        reason: String,
    },
    /// Planning or running a query.
    #[error("{}", first_line(.0))]
    Query(#[from] DataFusionError),
    /// The log.
    #[error("log: {0}")]
    Log(#[from] kalamdb_log::Error),
    /// The hot tier.
    #[error(transparent)]
    Store(#[from] kalamdb_store::Error),
    /// The system tables.
    #[error(transparent)]
    System(#[from] kalamdb_sql::Error),
    /// Bytes.
    #[error(transparent)]
    Format(#[from] log_format::Error),
    /// A fault of ours, or of the query engine's.
    #[error(
        "the statement met a fault in the query engine and was ended: {message}; write it otherwise, and report it"
    )]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// A password cannot be hashed.
    #[error("the password cannot be hashed: {reason}")]
    PasswordHash {
        /// What the library says.
        reason: String,
    },
    /// A backup that cannot be read, or cannot be added to.
    #[error("{path}: {reason}")]
    Backup {
        /// Which directory or file.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A directory or file of a backup that the system refuses.
    #[error("{path}: {source}")]
    BackupFile {
        /// Which.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A namespace that is being restored.
    #[error("namespace {namespace} is being restored by the job {job}; system.jobs tells how far it is")]
    Restoring {
        /// The namespace.
        namespace: String,
        /// The job.
        job: String,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        Self::Query(error.into())
    }
}

impl Error {
    /// A definition that makes no sense.
    pub(crate) fn definition(reason: impl Into<String>) -> Self {
        Self::Definition { reason: reason.into() }
    }

    /// What a panic that was caught said. Nothing is half done: a commit is the sequencer's, and that is another thread.
    pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        metrics::counter!("kalamdb_statement_panics_total").increment(1);
        tracing::error!(%message, "caught a panic");
        Self::Panicked { message }
    }

    /// Something this version does not do.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), hint: None }
    }

    /// The same, with the place of a name it is about.
    pub(crate) fn at(self, ident: &Ident) -> Self {
        match Position::of(ident) {
            Some(position) => Self::At { position, source: Box::new(self) },
            None => self,
        }
    }

    /// Where in the request's text it is, as far as that is known.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::At { position, .. } => Some(*position),
            Self::Syntax { message } | Self::BatchSyntax { message } => position_in(message),
            Self::Query(error) => {
                let start = error.diagnostic()?.span?.start;
                (start.line > 0).then_some(Position { line: start.line, column: start.column })
            }
            _ => None,
        }
    }

    /// The code a client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::At { source, .. } => source.code(),
            Self::EmptySql => ErrorCode::EmptySql,
            Self::Syntax { .. } | Self::Definition { .. } => ErrorCode::InvalidSql,
            Self::BatchSyntax { .. } => ErrorCode::BatchParseError,
            Self::Unsupported { .. } => ErrorCode::Unsupported,
            Self::Parameter { .. } => ErrorCode::InvalidParameter,
            Self::ParamsWithBatch => ErrorCode::ParamsWithBatch,
            Self::TableNotFound { .. } => ErrorCode::TableNotFound,
            Self::NamespaceNotFound { .. } => ErrorCode::NamespaceNotFound,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::AlreadyExists { .. } => ErrorCode::AlreadyExists,
            Self::PermissionDenied { .. } => ErrorCode::PermissionDenied,
            Self::InUse { .. }
            | Self::Watched { .. }
            | Self::DuplicateKey { .. }
            | Self::KeyTwice { .. }
            | Self::Constraint { .. }
            | Self::Value { .. } => ErrorCode::ConstraintViolation,
            Self::Store(kalamdb_store::Error::Owned { .. }) => ErrorCode::LocationOwned,
            Self::Conflict { .. } | Self::Restoring { .. } => ErrorCode::Conflict,
            Self::ResyncRequired { .. } => ErrorCode::ResyncRequired,
            Self::TableDropped => ErrorCode::TableDropped,
            Self::Ended { ending: Ending::Killed(_) }
            | Self::Backup { .. }
            | Self::BackupFile { .. }
            | Self::Store(kalamdb_store::Error::Place { .. } | kalamdb_store::Error::ObjectStore(_)) => {
                ErrorCode::SqlExecutionError
            }
            Self::Unauthorized | Self::Ended { .. } => ErrorCode::Unauthorized,
            Self::TooLarge { .. } => ErrorCode::MemoryLimit,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::ReadOnly { .. } => ErrorCode::ReadOnly,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::Panicked { .. } => ErrorCode::StatementPanicked,
            Self::Query(error) => query_code(error),
            Self::Format(log_format::Error::TooLarge { .. })
            | Self::Log(kalamdb_log::Error::Encode(log_format::Error::TooLarge { .. })) => {
                ErrorCode::MemoryLimit
            }
            Self::Inconsistent { .. }
            | Self::Log(_)
            | Self::Store(_)
            | Self::System(_)
            | Self::Format(_)
            | Self::PasswordHash { .. }
            | Self::File { .. } => ErrorCode::InternalError,
        }
    }
}

fn queries(count: usize) -> String {
    if count == 1 { "1 live query".to_owned() } else { format!("{count} live queries") }
}

fn instead(name: &str, nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || format!("create it with CREATE NAMESPACE {name}"),
        |near| format!("did you mean {near}?"),
    )
}

fn query_code(error: &DataFusionError) -> ErrorCode {
    match error.find_root() {
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Collection(_)
        | DataFusionError::Diagnostic(..) => ErrorCode::InvalidSql,
        DataFusionError::NotImplemented(_) => ErrorCode::Unsupported,
        DataFusionError::ResourcesExhausted(_) => ErrorCode::MemoryLimit,
        _ => ErrorCode::SqlExecutionError,
    }
}

/// The place that the parser names at the end of what it says.
fn position_in(message: &str) -> Option<Position> {
    let (_, place) = message.rsplit_once("Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = column.find(|character: char| !character.is_ascii_digit()).unwrap_or(column.len());
    Some(Position { line: line.parse().ok()?, column: column.get(..digits)?.parse().ok()? })
}

/// The engine's own errors travel through `DataFusion` inside of its; this is the way back.
pub(crate) fn from_query(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::Query(DataFusionError::External(other)),
        },
        other => Error::Query(other),
    }
}

/// What went wrong at the bottom, without the steps that led there.
fn first_line(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let root = text.rsplit("caused by\n").next().unwrap_or_default();
    root.lines().next().unwrap_or_default().to_owned()
}
