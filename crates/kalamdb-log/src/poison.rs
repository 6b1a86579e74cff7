//! After a failed write or sync nobody knows what the disk holds: a later sync may succeed without the bytes that
//! the failed one dropped. So the first failure is kept, and everything after it is refused with it.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The first failure, if there was one.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    cause: Option<Arc<Error>>,
}

impl Poison {
    /// Refuses where something failed before.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.cause {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: Arc::clone(cause) }),
        }
    }

    /// Keeps the first failure.
    pub(crate) fn guard<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.keep(error))
    }

    /// Keeps a failure, if it is the first; gives the one that is kept.
    pub(crate) fn keep(&mut self, error: Error) -> Error {
        tracing::error!(%error, "the log takes no more writes");
        let cause = Arc::clone(self.cause.get_or_insert_with(|| Arc::new(error)));
        Error::Poisoned { cause }
    }
}
