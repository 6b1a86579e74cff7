//! Brings the projections up to the log, at the start.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use kalamdb_log::{LogDirectory, LogReader, list_segments};
use kalamdb_sql::SystemTables;
use kalamdb_store::Store;
use log_format::{Frame, Seq};

use crate::clock;
use crate::engine::{CATALOG_DIRECTORY, ROWS_DIRECTORY};
use crate::error::{Error, Result};

/// Commits applied at a time.
const COMMITS: usize = 256;
/// How often it says how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// What was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commits that at least one of the projections did not have.
    pub commits: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Applies what the log has and the projections have not.
pub(crate) fn replay(
    reader: &mut LogReader,
    store: &Store,
    system: &SystemTables,
    end: Seq,
) -> Result<Replayed> {
    let (rows_at, catalog_at) = (store.applied_seq()?, system.applied_seq()?);
    for (name, at) in [(ROWS_DIRECTORY, rows_at), (CATALOG_DIRECTORY, catalog_at)] {
        refuse_if_ahead(name, at, end)?;
        refuse_if_behind(name, at, reader)?;
    }
    // What a repair gave up is gone; everything behind it counts.
    reader.over_holes();
    reader.seek(rows_at.min(catalog_at))?;
    let begun = clock::instant();
    let (mut replayed, mut frames) = (Replayed::default(), Vec::with_capacity(COMMITS));
    let mut said = begun;
    loop {
        let next = reader.next()?;
        let is_last = next.is_none();
        frames.extend(next);
        if frames.len() == COMMITS || is_last {
            let after = |at: Seq| {
                let first = frames.iter().position(|frame: &Frame| frame.last_seq() > at);
                first.and_then(|first| frames.get(first..)).unwrap_or_default()
            };
            store.apply(after(rows_at))?;
            system.apply(after(catalog_at))?;
            replayed.commits += frames.len() as u64;
            replayed.bytes += frames.iter().map(|frame| frame.as_bytes().len() as u64).sum::<u64>();
            said = say_progress(said, &replayed, frames.last(), end);
            frames.clear();
        }
        if is_last {
            replayed.took = begun.elapsed();
            return Ok(replayed);
        }
    }
}

fn say_progress(said: Instant, replayed: &Replayed, last: Option<&Frame>, end: Seq) -> Instant {
    if said.elapsed() < PROGRESS_PERIOD {
        return said;
    }
    let at = last.map(Frame::last_seq).unwrap_or_default();
    tracing::info!(commits = replayed.commits, bytes = replayed.bytes, %at, %end, "replaying the log");
    clock::instant()
}

fn refuse_if_ahead(name: &str, at: Seq, end: Seq) -> Result<()> {
    if at <= end {
        return Ok(());
    }
    Err(Error::Inconsistent {
        reason: format!(
            "the directory {name} holds changes up to seq {at}, but the log ends at {end}: part of the log is missing. \
             Put it back, or restore a backup; deleting {name} would accept the loss"
        ),
    })
}

fn refuse_if_behind(name: &str, at: Seq, reader: &LogReader) -> Result<()> {
    let floor = reader.floor()?;
    if at.next() >= floor {
        return Ok(());
    }
    Err(Error::Inconsistent {
        reason: format!(
            "the directory {name} holds changes up to seq {at}, but retention has let the log begin at {floor}: what is \
             between is in neither. Put {name} back, or restore a backup"
        ),
    })
}

/// A log that is not there lists none of the cold files: opening would make a new one, and sweep them all.
pub(crate) fn refuse_files_without_log(log: &LogDirectory, cold: &Path) -> Result<()> {
    if !list_segments(log.clone())?.is_empty() || !has_files(cold)? {
        return Ok(());
    }
    Err(Error::Inconsistent {
        reason: format!(
            "{} holds files, but there is no log in {}: only the log says whose rows they are. Put the log back, or move the \
             files away to begin without them",
            cold.display(),
            log.path().display()
        ),
    })
}

/// Whether there is a file anywhere below a directory.
fn has_files(directory: &Path) -> Result<bool> {
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        let failed = |source| Error::File { path: at.clone(), source };
        let entries = match std::fs::read_dir(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !entry.file_type().map_err(failed)?.is_dir() {
                return Ok(true);
            }
            open.push(entry.path());
        }
    }
    Ok(false)
}
