//! Files of a partition become one: the rows that still count, in key order, in a new file.

use std::ops::{ControlFlow, Range};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use log_format::Compacted;

use super::flush::finish_file;
use super::manifest::{Manifest, ManifestFile};
use super::merge::{ColdRows, ColdScan};
use super::open::OpenFile;
use super::paths::TablePath;
use super::writer::{ColdWriter, FileOrigin};
use crate::cut::{Cut, FirstError, KeyRange};
use crate::error::{Error, Result};

/// Which files a compaction puts together, and where.
#[derive(Clone, Debug)]
pub struct CompactStep<'a> {
    /// Of which partition; the schema version of all these files.
    pub origin: FileOrigin,
    /// Where the table's files are.
    pub directory: &'a TablePath,
    /// Their ids.
    pub files: &'a [u64],
    /// Tombstones of commits before this time are not kept, microseconds since 1970.
    pub tombstones_from: i64,
}

impl Cut {
    /// Writes the rows of files of a partition that still count to a new file, durable when this returns; the event makes
    /// it count instead of them. A tombstone may be left out: each key is in one file only, so it hides nothing.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the partition does not list one of the files. Where a file cannot be read or written.
    pub fn write_compacted(&self, step: CompactStep<'_>) -> Result<Compacted> {
        let CompactStep { origin, directory, files, tombstones_from } = step;
        let partition = origin.partition.clone();
        let manifest = self.manifest(&partition)?;
        let of = |id: &u64| manifest.as_ref()?.files.iter().find(|of| of.file.id == *id).cloned();
        let mut chosen: Vec<ManifestFile> = files.iter().filter_map(of).collect();
        if chosen.len() != files.len() {
            return Err(Error::Damaged { what: "list of files to compact" });
        }
        chosen.sort_by(|left, right| left.file.first_key.cmp(&right.file.first_key));
        let chosen = Manifest { flushed_at: self.seq(), files: chosen };
        let mut writer = ColdWriter::new(origin);
        let (all, mut failure) = (KeyRange::default(), FirstError::none());
        let mut rows = ColdRows::new(self.shared(), &chosen, &all, ColdScan::default());
        let _ = rows.up_to(None, &mut |key, row| {
            if row.deleted && row.updated < tombstones_from {
                return ControlFlow::Continue(());
            }
            failure.or_stop(writer.push(key, &row).map(ControlFlow::Continue))
        })?;
        failure.check()?;
        let file = match finish_file(self.cold_files(), self.seq().get(), directory, writer)? {
            Some((file, bytes)) => {
                self.cold_files().put(&file.path, bytes)?;
                Some(file)
            }
            None => None,
        };
        let mut removed = files.to_vec();
        removed.sort_unstable();
        Ok(Compacted { partition, removed, file })
    }
}

impl OpenFile {
    /// Whether it may hold tombstones of commits before a time, microseconds since 1970, as far as its pages tell.
    pub fn may_have_tombstones_before(&self, time: i64) -> bool {
        let (Some(deleted), Some(updated)) = (self.pages("_deleted"), self.pages("_updated")) else {
            return true;
        };
        let (Some(any), Some(least)) =
            (deleted.greatest.as_boolean_opt(), updated.least.as_primitive_opt::<TimestampMicrosecondType>())
        else {
            return true;
        };
        let rows = |bounds: &[usize], at: usize| -> Range<usize> {
            bounds.get(at).copied().unwrap_or_default()..bounds.get(at + 1).copied().unwrap_or(usize::MAX)
        };
        any.iter().enumerate().filter(|(_, any)| any.unwrap_or(true)).any(|(at, _)| {
            let with_tombstones = rows(&deleted.bounds, at);
            least.iter().enumerate().any(|(at, least)| {
                let page = rows(&updated.bounds, at);
                let overlap = page.start < with_tombstones.end && with_tombstones.start < page.end;
                overlap && least.is_none_or(|least| least < time)
            })
        })
    }
}
