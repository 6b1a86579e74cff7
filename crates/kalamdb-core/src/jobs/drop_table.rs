//! The job that gives back what a dropped table took.
//!
//! The statement's own commit takes the table's name, its metadata and, as one range, its rows, and the manifests of its cold
//! files. What is left is space and those files: they go once the drop itself cannot be lost any more and the last reader
//! from before it has finished. The same goes for the files of a truncated table.

use kalamdb_store::{Counts, Reclaimed, TablePath};
use log_format::{ChangeEvent, Job, Seq, Table, TableDropped, UserId};
use serde_json::{Value as Json, json};

use super::{JobRunner, Parameters, Progress, new_job};
use crate::error::Result;
use crate::fail_points::FailPoint;
use crate::places::location_of;
use crate::requests::Planning;

/// The job's type.
pub(crate) const DROP_TABLE: &str = "drop_table";

/// The type of the job that removes the cold files of a truncated table.
pub(crate) const REMOVE_FILES: &str = "remove_files";

/// The job that removes the cold files of a table which the event before it, `truncated`, truncates.
pub(crate) fn remove_files_job(
    planning: &Planning<'_>,
    table: &Table,
    truncated: Seq,
    user: &UserId,
) -> ChangeEvent {
    let parameters = json!({
        "table_id": table.id.get(),
        "seq": truncated.get(),
        "location": location_of(table),
        "path": table.location_path,
    });
    new_job(planning, 1, REMOVE_FILES, table, user, &parameters)
}

/// Adds what drops a table: its name, metadata and rows go with the commit, its space with the job.
pub(crate) fn push_drop(
    planning: &Planning<'_>,
    events: &mut Vec<ChangeEvent>,
    table: &Table,
    user: &UserId,
) -> Result<()> {
    let dropped = planning.next_seq.plus(events.len() as u64);
    events.push(table_dropped(table));
    events.push(drop_table_job(planning, events.len(), table, dropped, user)?);
    Ok(())
}

fn table_dropped(table: &Table) -> ChangeEvent {
    ChangeEvent::TableDropped(Box::new(TableDropped {
        table: table.id,
        namespace: table.namespace.clone(),
        name: table.name.clone(),
    }))
}

/// The job of a table that the event `dropped` of the same commit drops; it is the nth event of that commit.
fn drop_table_job(
    planning: &Planning<'_>,
    nth: usize,
    table: &Table,
    dropped: Seq,
    user: &UserId,
) -> Result<ChangeEvent> {
    let Counts { rows, bytes, .. } = planning.store.table_counts(table.id)?;
    let parameters = json!({
        "table_id": table.id.get(),
        "seq": dropped.get(),
        "rows": rows,
        "row_bytes": bytes,
        "location": location_of(table),
        "path": table.location_path,
    });
    Ok(new_job(planning, nth, DROP_TABLE, table, user, &parameters))
}

impl JobRunner {
    /// Frees the space of a table whose rows are gone already. May be done again at any point.
    pub(super) fn free_dropped_table(&self, job: &Job) -> Result<Progress> {
        let parameters = Parameters::of(job)?;
        let (table, dropped) = (parameters.table()?, Seq::new(parameters.number("seq")?));
        if !self.may_delete_before(dropped)? {
            return Ok(Progress::NotYet);
        }
        let freed = self.store.reclaim(table, parameters.number("row_bytes")?)?;
        let cold = self.remove_unlisted_files(job, &parameters)?;
        self.fail_points.reach(FailPoint::AfterSpaceFreed);
        Ok(Progress::Done(json!({
            "rows": parameters.number("rows")?,
            "row_bytes": parameters.number("row_bytes")?,
            "files": freed.files + cold.files,
            "bytes": freed.bytes + cold.bytes,
        })))
    }

    /// Removes the cold files of a table that has lost its rows. May be done again at any point.
    pub(super) fn remove_files(&self, job: &Job) -> Result<Progress> {
        let parameters = Parameters::of(job)?;
        if !self.may_delete_before(Seq::new(parameters.number("seq")?))? {
            return Ok(Progress::NotYet);
        }
        let removed = self.remove_unlisted_files(job, &parameters)?;
        Ok(Progress::Done(json!({"files": removed.files, "bytes": removed.bytes})))
    }

    /// Whether what an event takes away may be deleted for good.
    ///
    /// IMPORTANT: files that are deleted do not come back. The event must be in the projection's own files, and so in the log
    /// for good, before; and nobody may read rows from before it.
    pub(super) fn may_delete_before(&self, event: Seq) -> Result<bool> {
        let is_read = self.store.oldest_cut().is_some_and(|cut| cut < event);
        Ok(!is_read && self.store.persisted_seq()? >= event)
    }

    /// Removes the cold files of a table that no manifest lists. Flushes are jobs too, so none is on its way.
    fn remove_unlisted_files(&self, job: &Job, parameters: &Parameters) -> Result<Reclaimed> {
        let text = |name: &str| parameters.0.get(name).and_then(Json::as_str);
        let (table, location) = (parameters.table()?, text("location"));
        let (namespace, name) = (job.namespace.as_ref(), job.table_name.as_deref().unwrap_or_default());
        let namespace = namespace.map_or("", |namespace| namespace.as_str());
        let (listed, files) = (self.store.listed_files(table)?, self.store.cold_files());
        let mut removed = Reclaimed::default();
        let paths = match text("path") {
            Some(path) => vec![TablePath::in_path(location, path, name, table)],
            None => [false, true]
                .map(|is_shared| TablePath::new(location, namespace, name, table, is_shared))
                .to_vec(),
        };
        for of_table in paths {
            for (path, bytes) in files.list(of_table.above())? {
                if of_table.has(&path) && !listed.contains(&path) {
                    files.remove(&path)?;
                    removed.files += 1;
                    removed.bytes += bytes;
                }
            }
        }
        Ok(removed)
    }
}
