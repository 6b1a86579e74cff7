//! The job that gives back what a dropped table took.
//!
//! The statement's own commit takes the table's name, its metadata and, as one range, its rows. What is left is space: it
//! is freed once the drop itself cannot be lost any more and the last reader from before it has finished.

use kalamdb_store::Counts;
use log_format::{ChangeEvent, Job, Seq, Table, TableId, UserId};
use serde_json::{Value as Json, json};

use super::{JobRunner, Progress, new_job};
use crate::error::{Error, Result};
use crate::fail_points::FailPoint;
use crate::requests::Planning;

/// The job's type.
pub(crate) const DROP_TABLE: &str = "drop_table";

/// The job of a table that the event `dropped` of the same commit drops; it is the nth event of that commit.
pub(crate) fn drop_table_job(
    planning: &Planning<'_>,
    nth: usize,
    table: &Table,
    dropped: Seq,
    user: &UserId,
) -> Result<ChangeEvent> {
    let Counts { rows, bytes } = planning.store.table_counts(table.id)?;
    let parameters =
        json!({"table_id": table.id.get(), "seq": dropped.get(), "rows": rows, "row_bytes": bytes});
    Ok(new_job(planning, nth, DROP_TABLE, table, user, &parameters))
}

impl JobRunner {
    /// Frees the space of a table whose rows are gone already. May be done again at any point.
    pub(super) fn free_dropped_table(&self, job: &Job) -> Result<Progress> {
        let parameters: Json = serde_json::from_str(job.parameters.as_deref().unwrap_or_default())
            .map_err(|error| Error::definition(format!("the job's parameters are no JSON: {error}")))?;
        let number = |name: &str| {
            let found = parameters.get(name).and_then(Json::as_u64);
            found.ok_or_else(|| Error::definition(format!("the job's parameters have no number {name}")))
        };
        let (table, dropped) = (TableId::new(number("table_id")?), Seq::new(number("seq")?));
        // IMPORTANT: files that are deleted do not come back. The drop must be in the projection's own files, and so in
        // the log for good, before; and nobody may read rows from before it.
        if self.store.persisted_seq()? < dropped {
            return Ok(Progress::NotYet);
        }
        if self.store.oldest_cut().is_some_and(|cut| cut < dropped) {
            return Ok(Progress::NotYet);
        }
        let freed = self.store.reclaim(table)?;
        self.fail_points.reach(FailPoint::AfterSpaceFreed);
        Ok(Progress::Done(json!({
            "rows": number("rows")?,
            "row_bytes": number("row_bytes")?,
            "files": freed.files,
            "bytes": freed.bytes,
        })))
    }
}
