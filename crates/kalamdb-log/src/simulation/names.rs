//! The names of files: as processes see them, as the platter has them, and what changed since directories were synced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::random::Random;

/// Tells one file from another, whatever its name.
pub(super) type FileId = u64;

#[derive(Clone, Debug)]
enum Change {
    Named(PathBuf, FileId),
    Renamed(PathBuf, PathBuf, FileId),
    Removed(PathBuf),
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        let (Self::Named(path, _) | Self::Renamed(_, path, _) | Self::Removed(path)) = self;
        path.parent()
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Named(path, file) => drop(names.insert(path, file)),
            Self::Renamed(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
            Self::Removed(path) => drop(names.remove(&path)),
        }
    }
}

/// Which file has which name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    seen: BTreeMap<PathBuf, FileId>,
    durable: BTreeMap<PathBuf, FileId>,
    pending: Vec<Change>,
    directories: BTreeSet<PathBuf>,
}

impl Names {
    pub(super) fn make_directories(&mut self, dir: &Path) {
        self.directories.extend(dir.ancestors().map(Path::to_owned));
    }

    pub(super) fn has_directory(&self, dir: &Path) -> bool {
        self.directories.contains(dir)
    }

    pub(super) fn file(&self, path: &Path) -> Option<FileId> {
        self.seen.get(path).copied()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, FileId)> {
        self.seen.iter().map(|(path, file)| (path, *file))
    }

    pub(super) fn name(&mut self, path: &Path, file: FileId) {
        self.change(Change::Named(path.to_owned(), file));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, file: FileId) {
        self.change(Change::Renamed(from.to_owned(), to.to_owned(), file));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Removed(path.to_owned()));
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.seen);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self, dir: &Path) {
        let (synced, others) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.dir() == Some(dir));
        self.pending = others;
        Vec::into_iter(synced).for_each(|change| change.apply(&mut self.durable));
    }

    /// The names after the power went: each change that was not synced happened or did not.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut names = self.durable.clone();
        let habit = random.below(4);
        for change in &self.pending {
            if habit == 1 || habit > 1 && random.per_mille(500) {
                change.clone().apply(&mut names);
            }
        }
        let directories = self.directories.clone();
        Self { seen: names.clone(), durable: names, pending: Vec::new(), directories }
    }
}
