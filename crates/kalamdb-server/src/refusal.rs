//! What a client is told when it does not get what it asked for: a code of the protocol, and words for people.

use kalamdb_core::{Error as EngineError, ErrorCode, Position};

/// A code and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Where in a statement's text.
    pub(crate) position: Option<Position>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), position: None }
    }

    /// The message cannot be understood.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new("PROTOCOL", message)
    }

    /// More bytes than one message may have.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new("MESSAGE_TOO_LARGE", format!("a message may have {limit} bytes at the most"))
    }

    /// The server goes.
    pub(crate) fn shutting_down() -> Self {
        Self::new("SHUTTING_DOWN", "the server is shutting down; resume when it is back")
    }

    /// What the engine says about a statement.
    pub(crate) fn of_statement(error: &EngineError) -> Self {
        Self { position: error.position(), ..Self::new(error.code().as_str(), error.to_string()) }
    }

    /// What the engine says about a subscription.
    pub(crate) fn of_subscription(error: &EngineError) -> Self {
        let code = match error.code() {
            ErrorCode::EmptySql | ErrorCode::InvalidSql | ErrorCode::BatchParseError => "INVALID_SQL",
            ErrorCode::SqlExecutionError | ErrorCode::StatementPanicked | ErrorCode::InternalError => {
                "SUBSCRIPTION_FAILED"
            }
            other => other.as_str(),
        };
        Self::new(code, error.to_string())
    }
}
