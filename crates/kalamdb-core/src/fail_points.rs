//! Places in the write path where a test may step in: to stop as a process that dies there does.
//!
//! Each engine has its own, so that tests beside each other do not meet. Without one a place costs a look at a `None`.

use std::fmt;
use std::sync::Arc;

/// A place in the write path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FailPoint {
    BeforeAppend,
    AfterAppend,
    AfterSync,
    AfterApplyingRows,
    AfterApplyingCatalog,
    BeforePublish,
    AfterPublish,
    BeforeFlush,
    BetweenFlushes,
    AfterFlush,
    BeforeJobWorks,
    AfterSpaceFreed,
    AfterJobWorked,
    BeforeColdFile,
    AfterColdFile,
    AfterBackupCut,
    AfterBackupPart,
    AfterBackupReplayed,
    AfterRestoredRows,
}

/// Who steps in, if somebody does.
#[derive(Clone, Default)]
pub(crate) struct FailPoints {
    hook: Option<Arc<dyn Fn(FailPoint) + Send + Sync>>,
}

impl fmt::Debug for FailPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailPoints").field("hooked", &self.hook.is_some()).finish()
    }
}

impl FailPoints {
    #[cfg(test)]
    pub(crate) fn new(hook: impl Fn(FailPoint) + Send + Sync + 'static) -> Self {
        Self { hook: Some(Arc::new(hook)) }
    }

    pub(crate) fn reach(&self, point: FailPoint) {
        if let Some(hook) = &self.hook {
            hook(point);
        }
    }
}
