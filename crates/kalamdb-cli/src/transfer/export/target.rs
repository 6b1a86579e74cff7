//! The file that is written: beside its place under a name of its own until it is whole and synced, then renamed.
//!
//! *Invariant*: what has the file's name is either what was there before or all of the export. Whatever ends the command before that
//! leaves the place as it was.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::NamedTempFile;

use crate::transfer::format::Format;

/// Where rows go.
pub(super) struct Target {
    /// None for standard output.
    file: Option<Unfinished>,
}

struct Unfinished {
    written: NamedTempFile,
    place: PathBuf,
    replaces: bool,
}

impl Target {
    /// Makes sure that the place is free, or may be replaced, and begins a file beside it.
    pub(super) fn new(file: &Path, format: Format, replaces: bool) -> anyhow::Result<Self> {
        if file == Path::new("-") {
            if format == Format::Parquet {
                bail!("Parquet is not written to standard output: give a file");
            }
            return Ok(Self { file: None });
        }
        // A link stays one: what it points at is replaced.
        let place = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        match std::fs::symlink_metadata(&place) {
            Ok(metadata) if !metadata.is_file() => bail!("{} is not an ordinary file", file.display()),
            Ok(_) if !replaces => bail!("{} is there already; --force replaces it", file.display()),
            _ => {}
        }
        let name = place.file_name().with_context(|| format!("{} is no file", file.display()))?;
        let written = tempfile::Builder::new()
            .prefix(&format!(".{}.", name.to_string_lossy()))
            .suffix(".unfinished")
            // As any program makes files: the process's mask decides.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory(&place))
            .with_context(|| format!("can't write {}", file.display()))?;
        Ok(Self { file: Some(Unfinished { written, place, replaces }) })
    }

    /// Whether it is standard output.
    pub(super) fn is_pipe(&self) -> bool {
        self.file.is_none()
    }

    /// What to write to.
    pub(super) fn output(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match &self.file {
            Some(unfinished) => Box::new(unfinished.written.as_file().try_clone()?),
            None => Box::new(io::stdout()),
        })
    }

    /// All is written: gives the file its name.
    pub(super) fn complete(self) -> anyhow::Result<()> {
        let Some(Unfinished { written, place, replaces }) = self.file else { return Ok(()) };
        let unwritable = || format!("can't write {}", place.display());
        written.as_file().sync_all().with_context(unwritable)?;
        if replaces {
            written.persist(&place).map_err(|error| error.error).with_context(unwritable)?;
        } else {
            written.persist_noclobber(&place).map_err(|error| error.error).with_context(unwritable)?;
        }
        // The name is on the disk once its directory is.
        File::open(directory(&place)).and_then(|directory| directory.sync_all()).with_context(unwritable)
    }
}

fn directory(place: &Path) -> &Path {
    let parent = place.parent().unwrap_or(Path::new("."));
    if parent == Path::new("") { Path::new(".") } else { parent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_has_its_name_only_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.csv");
        let begun = Target::new(&place, Format::Csv, false).unwrap();
        begun.output().unwrap().write_all(b"half").unwrap();
        assert!(!place.exists());
        drop(begun);
        assert_eq!(names(directory.path()), Vec::<String>::new());

        let whole = Target::new(&place, Format::Csv, false).unwrap();
        whole.output().unwrap().write_all(b"whole").unwrap();
        whole.complete().unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"whole");
        assert!(Target::new(&place, Format::Csv, false).is_err());

        let other = Target::new(&place, Format::Csv, true).unwrap();
        other.output().unwrap().write_all(b"other").unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"whole");
        other.complete().unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"other");
        assert_eq!(names(directory.path()), ["a.csv"]);
    }

    #[test]
    fn what_came_meanwhile_and_what_is_no_file_stay() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.csv");
        let begun = Target::new(&place, Format::Csv, false).unwrap();
        std::fs::write(&place, "of somebody else").unwrap();
        assert!(begun.complete().is_err());
        assert_eq!(std::fs::read(&place).unwrap(), b"of somebody else");
        assert_eq!(names(directory.path()), ["a.csv"]);
        assert!(Target::new(directory.path(), Format::Csv, true).is_err());
        assert!(Target::new(Path::new("/dev/null"), Format::Csv, true).is_err());
        assert!(Target::new(Path::new("-"), Format::Parquet, true).is_err());
    }
}
