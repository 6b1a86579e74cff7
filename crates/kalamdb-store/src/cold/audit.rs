//! Looks whether the files that manifests list are there, without reading them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{MutexGuard, PoisonError};

use super::files::ColdFiles;

/// Missing files that are remembered at the most.
const MISSING_MAX: usize = 1000;

impl ColdFiles {
    fn missing(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listed files that were not there when they were last looked for or read, in the order of their paths.
    pub fn missing_files(&self) -> Vec<String> {
        self.missing().iter().cloned().collect()
    }

    /// Remembers whether a file was there.
    pub(super) fn note_missing(&self, path: &str, is_missing: bool) {
        let mut missing = self.missing();
        if !is_missing {
            missing.remove(path);
        } else if missing.len() < MISSING_MAX {
            missing.insert(path.to_owned());
        }
    }

    /// Looks for these files: each in a directory of this machine; those in object stores, which takes a request for each
    /// thousand, where `with_objects`. A place that cannot be asked is left as it is: its failure is told already.
    pub(crate) fn audit(&self, listed: &HashSet<String>, with_objects: bool) {
        let mut by_place: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in listed {
            let place = path.strip_prefix('@').and_then(|rest| rest.split_once('/')).map_or("", |it| it.0);
            by_place.entry(place).or_default().push(path);
        }
        // A file that is no longer listed is missed no longer.
        self.missing().retain(|path| listed.contains(path));
        for (place, paths) in by_place {
            match self.directory_of_place(place) {
                Ok(Some(directory)) => {
                    for path in paths {
                        let below = path.strip_prefix('@').and_then(|rest| rest.split_once('/'));
                        let at = directory.join(below.map_or(path, |(_, below)| below));
                        self.note_missing(path, at.try_exists().is_ok_and(|exists| !exists));
                    }
                }
                Ok(None) if with_objects => {
                    let Ok(found) = self.list(&format!("@{place}/")) else { continue };
                    let found: HashSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
                    for path in paths {
                        self.note_missing(path, !found.contains(path));
                    }
                }
                Ok(None) | Err(_) => {}
            }
        }
    }
}
