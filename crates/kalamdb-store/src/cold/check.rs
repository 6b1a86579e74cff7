//! Reads all there is of a partition's cold files and says what is wrong with them.

use std::ops::ControlFlow;

use log_format::Partition;

use super::manifest::{Manifest, ManifestFile};
use super::merge::{ColdRows, ColdScan};
use super::open::OpenFile;
use crate::cut::{Cut, KeyRange};
use crate::error::{Error, Result};

/// What a check found in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesChecked {
    /// Files that are listed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that were read, tombstones included, without those that newer ones stand in the place of.
    pub rows: u64,
    /// Paths of files, and what is wrong with each.
    pub problems: Vec<(String, String)>,
    /// Paths of files that could not be read, since the place they are at cannot be asked, and why: nothing is known of them.
    pub unreachable: Vec<(String, String)>,
}

impl Cut {
    /// Reads all cold files of a partition: each must be what was written, its rows in the order and range that the manifest
    /// says, every key in one file only.
    ///
    /// # Errors
    /// Where RocksDB cannot read. What is wrong with a file is no error.
    pub fn check_files(&self, partition: &Partition) -> Result<FilesChecked> {
        let mut checked = FilesChecked::default();
        let Some(manifest) = self.manifest(partition)? else { return Ok(checked) };
        for of in &manifest.files {
            checked.files += 1;
            checked.bytes += of.file.bytes;
            let found = match self.cold_files().fetch(&of.file) {
                Err(error @ (Error::Place { .. } | Error::ObjectStore(_))) => {
                    checked.unreachable.push((of.file.path.clone(), error.to_string()));
                    continue;
                }
                found => found.map_err(|error| error.to_string()),
            };
            let problem = found.and_then(|file| Self::check_file(&file, of, manifest.flushed_at.get()));
            checked.problems.extend(problem.err().map(|problem| (of.file.path.clone(), problem)));
        }
        if checked.problems.is_empty() && checked.unreachable.is_empty() {
            self.check_rows(&manifest, &mut checked);
        }
        Ok(checked)
    }

    fn check_file(file: &OpenFile, of: &ManifestFile, flushed_at: u64) -> Result<(), String> {
        let listed = &of.file;
        let (rows, keys) = (file.rows(), file.keys().map_err(|error| error.to_string())?);
        let ends = (keys.get(0), keys.get(rows.saturating_sub(1)));
        let is_rising = (1..rows).all(|at| keys.get(at - 1) < keys.get(at));
        let is_in_file = |position: &u32| (*position as usize) < rows;
        if ends != (listed.first_key.as_slice(), listed.last_key.as_slice()) || !is_rising {
            Err("its keys are not those that the manifest says".to_owned())
        } else if !of.superseded.iter().all(is_in_file) {
            Err("the manifest passes over rows that it does not have".to_owned())
        } else if listed.last_seq > flushed_at {
            Err("it has rows from after it was written".to_owned())
        } else {
            Ok(())
        }
    }

    /// Reads every row that counts, of all files in the order of keys.
    fn check_rows(&self, manifest: &Manifest, checked: &mut FilesChecked) {
        let (all, mut last, mut twice) = (KeyRange::default(), None::<Vec<u8>>, false);
        let mut rows = ColdRows::new(self.shared(), manifest, &all, ColdScan::default());
        let read = rows.up_to(None, &mut |key, _| {
            checked.rows += 1;
            twice |= last.as_deref().is_some_and(|last| last >= key);
            last = Some(key.to_vec());
            ControlFlow::Continue(())
        });
        let problem = match read {
            Err(error) => error.to_string(),
            Ok(_) if twice => "a key is in more than one of the partition's files".to_owned(),
            Ok(_) => return,
        };
        let paths = manifest.files.iter().map(|of| of.file.path.clone());
        checked.problems.push((paths.collect::<Vec<_>>().join(", "), problem));
    }
}
