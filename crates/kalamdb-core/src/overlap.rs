//! Whether two places for files are, or contain, one another, however their paths are written.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use log_format::StorageLocation;

use crate::engine::{CATALOG_DIRECTORY, COLD_DIRECTORY, LOG_DIRECTORY, ROWS_DIRECTORY};
use crate::error::{Error, Result};

/// Links that are followed from one to the next at the most.
const LINKS_MAX: usize = 40;

/// A directory of this machine, or a prefix in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    Directory {
        /// Without links and `..`.
        path: PathBuf,
        /// Device and inode of the directory and of those above it, as far as they exist, from below.
        ids: Vec<(u64, u64)>,
        /// Whether the directory itself exists.
        exists: bool,
    },
    Objects {
        location_type: String,
        bucket: String,
        segments: Vec<String>,
    },
}

impl Area {
    /// The area of a storage location.
    pub(crate) fn new(location_type: &str, path: &str) -> Result<Self> {
        if location_type == "filesystem" {
            let path = Path::new(path.strip_prefix("file://").unwrap_or(path));
            if !path.is_absolute() {
                return Err(Error::definition(
                    "a filesystem location is an absolute path, such as /srv/cold",
                ));
            }
            return Ok(Self::directory(path));
        }
        let (_, rest) = path.split_once("://").unwrap_or(("", path));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let segments = prefix.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
        Ok(Self::Objects {
            location_type: location_type.to_owned(),
            bucket: bucket.to_lowercase(),
            segments: segments.map(ToOwned::to_owned).collect(),
        })
    }

    fn directory(path: &Path) -> Self {
        let path = resolved(path, LINKS_MAX);
        let id = |path: &Path| path.metadata().ok().map(|it| (it.dev(), it.ino()));
        let exists = path.exists();
        let ids = path.ancestors().filter_map(id).collect();
        Self::Directory { path, ids, exists }
    }

    /// The areas of a database itself: its directory, and those of its parts, which may be links to elsewhere.
    pub(crate) fn of_database(data_dir: &Path) -> Vec<Self> {
        let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let parts = [COLD_DIRECTORY, LOG_DIRECTORY, ROWS_DIRECTORY, CATALOG_DIRECTORY];
        let parts = parts.iter().map(|part| absolute.join(part));
        std::iter::once(absolute.clone()).chain(parts).map(|path| Self::directory(&path)).collect()
    }

    /// The directory of a database that it lies in.
    fn other_database(&self) -> Option<&Path> {
        let Self::Directory { path, .. } = self else { return None };
        let is_database =
            |at: &&Path| at.join(LOG_DIRECTORY).join("LOCK").exists() && at.join(ROWS_DIRECTORY).exists();
        path.ancestors().find(is_database)
    }

    /// Whether they are the same, or one contains the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Directory { path, ids, exists },
                Self::Directory { path: other_path, ids: other_ids, exists: other_exists },
            ) => {
                // By their ids, too: a directory may be mounted at several places.
                let contains = |exists: &bool, ids: &[(u64, u64)], others: &[(u64, u64)]| -> bool {
                    *exists && ids.first().is_some_and(|id| others.contains(id))
                };
                path.starts_with(other_path)
                    || other_path.starts_with(path)
                    || contains(exists, ids, other_ids)
                    || contains(other_exists, other_ids, ids)
            }
            (
                Self::Objects { location_type, bucket, segments },
                Self::Objects { location_type: other_type, bucket: other_bucket, segments: others },
            ) => {
                location_type == other_type
                    && bucket == other_bucket
                    && segments.iter().zip(others).all(|(left, right)| left == right)
            }
            _ => false,
        }
    }
}

/// A path without links and `..`; what does not exist stays as it is written.
fn resolved(path: &Path, links: usize) -> PathBuf {
    let mut at = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                at.pop();
            }
            Component::Normal(name) => {
                let next = at.join(name);
                at = match (next.canonicalize(), next.read_link()) {
                    (Ok(there), _) => there,
                    // A link to what does not exist yet.
                    (Err(_), Ok(target)) if links > 0 => resolved(&at.join(target), links - 1),
                    _ => next,
                };
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    at
}

/// Refuses a location that overlaps the database's own directory or another location.
pub(crate) fn refuse_overlap(
    data_dir: &Path,
    new: (&str, &str, &str),
    others: &[StorageLocation],
) -> Result<()> {
    let (name, location_type, path) = new;
    let area = Area::new(location_type, path)?;
    if Area::of_database(data_dir).iter().any(|own| area.overlaps(own)) {
        return Err(Error::definition(format!(
            "the storage location {name} at {path} overlaps the database's own directory {}: files that are moved there would be \
             among the database's own; choose a directory outside of it",
            data_dir.display()
        )));
    }
    if let Some(other) = area.other_database() {
        return Err(Error::definition(format!(
            "the storage location {name} at {path} overlaps another database's directory {}, whose start would take its files for \
             leftovers; choose a directory outside of it",
            other.display()
        )));
    }
    refuse_overlap_with(name, location_type, path, others)
}

/// Refuses a location that overlaps one of these others.
pub(crate) fn refuse_overlap_with(
    name: &str,
    location_type: &str,
    path: &str,
    others: &[StorageLocation],
) -> Result<()> {
    let area = Area::new(location_type, path)?;
    for other in others.iter().filter(|other| other.name != name) {
        // One that cannot be understood is used by nobody.
        let Ok(of_other) = Area::new(&other.location_type, &other.path) else { continue };
        if area.overlaps(&of_other) {
            return Err(Error::definition(format!(
                "the storage location {name} at {path} overlaps the location {} at {}: one is, or contains, the other; choose a \
                 path beside it",
                other.name, other.path
            )));
        }
    }
    Ok(())
}

/// The locations that overlap another one or the database's directory, and whether one overlaps the latter.
pub(crate) fn overlapping(data_dir: &Path, locations: &[StorageLocation]) -> (Vec<String>, bool) {
    let own = Area::of_database(data_dir);
    let areas = locations
        .iter()
        .filter_map(|it| Some((it.name.as_str(), Area::new(&it.location_type, &it.path).ok()?)));
    let areas: Vec<_> = areas.collect();
    let with_own = |area: &Area| own.iter().any(|own| own.overlaps(area));
    let with_another = |name: &str, area: &Area| {
        areas.iter().any(|(other, of_other)| *other != name && of_other.overlaps(area))
    };
    let found = areas.iter().filter(|(name, area)| with_own(area) || with_another(name, area));
    let names = found.map(|(name, _)| (*name).to_owned()).collect();
    (names, areas.iter().any(|(_, area)| with_own(area)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Area {
        Area::new("filesystem", path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn directories_overlap_however_they_are_written() {
        let above = tempfile::tempdir().unwrap();
        let own = above.path().join("data");
        std::fs::create_dir_all(own.join("cold")).unwrap();
        std::os::unix::fs::symlink(own.join("cold"), above.path().join("link")).unwrap();
        std::os::unix::fs::symlink(own.join("not yet"), above.path().join("dangling")).unwrap();
        for overlapping in [
            "data",
            "data/",
            "data/.",
            "data/cold",
            "data/cold/not/yet",
            "data/x/../cold",
            "not/yet/../../data",
            "link",
            "link/deeper",
            "dangling",
            "link/../x",
            ".",
            "/",
        ] {
            assert!(at(&above.path().join(overlapping)).overlaps(&at(&own)), "{overlapping}");
            assert!(at(&own).overlaps(&at(&above.path().join(overlapping))), "{overlapping}");
        }
        for beside in ["data2", "dat", "data/../other", "other/data"] {
            assert!(!at(&above.path().join(beside)).overlaps(&at(&own)), "{beside}");
        }
    }

    #[test]
    fn prefixes_overlap_by_whole_segments_of_one_bucket() {
        let of = |location_type: &str, path: &str| Area::new(location_type, path).unwrap();
        for (left, right, expected) in [
            ("s3://b/cold", "s3://b/cold/", true),
            ("s3://b/cold", "s3://b//cold/x", true),
            ("s3://b", "s3://b/cold", true),
            ("s3://b/cold", "s3://b/cold2", false),
            ("s3://b/cold", "s3://c/cold", false),
            ("s3a://b/cold", "s3://B/cold", true),
        ] {
            assert_eq!(of("s3", left).overlaps(&of("s3", right)), expected, "{left} {right}");
            assert_eq!(of("s3", right).overlaps(&of("s3", left)), expected, "{left} {right}");
        }
        assert!(!of("s3", "s3://b/cold").overlaps(&of("gcs", "gs://b/cold")));
    }
}
