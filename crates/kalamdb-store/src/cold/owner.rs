//! Ownership of the directories that cold files are written to.
//!
//! A storage location outlives a database's directory and may be reached from a copy of it, which has the same database id. So
//! each location has one owner: the instance that its marker `owner.json` names. An instance is one directory of one database.
//! Its token is kept in `instance.json` together with the identity of that very file, which a copy of the directory does not
//! share: a copy gets a token of its own when it is started, meets the marker of the original, and may read but not write or
//! delete there. A directory that is renamed keeps its files, and so its token.
//!
//! The marker of a location that is a directory holds its own identity as well: where the location was copied along with the
//! database, the marker in the copy is void.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::places::Connected;
use crate::error::{Error, Result};

/// The marker's name, in the directory of a location that belongs to one database.
pub(super) const MARKER: &str = "owner.json";
/// The file with the instance's token, in the database's directory.
const INSTANCE: &str = "instance.json";
/// Bytes of a marker at the most: what is larger is none.
const MARKER_BYTES_MAX: u64 = 4096;

/// The instance that writes cold files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The database.
    pub database: String,
    /// The token of its directory.
    pub instance: String,
    /// Locations that it may take over.
    pub claim: Claim,
}

/// Locations that an instance may become the owner of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// A location without an owner.
    #[default]
    Free,
    /// Any location, once, also one that another instance owns.
    Any,
    /// None.
    Never,
}

/// A marker or an instance file, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marker {
    database: String,
    instance: String,
    /// The identity of the file it is in; none in an object store.
    file: Option<String>,
}

impl Marker {
    fn text(&self) -> String {
        let Self { database, instance, file } = self;
        let file = file.as_ref().map(|file| format!(", \"file\": \"{file}\"")).unwrap_or_default();
        format!("{{\"database\": \"{database}\", \"instance\": \"{instance}\"{file}}}\n")
    }

    /// The marker that this text is; none where it is no marker.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\": \""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        Some(Self { database: field("database")?, instance: field("instance")?, file: field("file") })
    }
}

/// The identity of a file: it stays when the file or a directory above it is renamed, and no copy has it.
fn identity(metadata: &Metadata) -> String {
    let born = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    // The number of a device may change with a restart of the machine, so it counts only where nothing else does.
    let more = born.map_or_else(|| format!("d{}", metadata.dev()), |born| format!("b{}", born.as_nanos()));
    format!("i{}-{more}", metadata.ino())
}

/// The token of the instance whose directory this is. It is made where there is none, or where the file is a copy of another's.
///
/// # Errors
/// [`Error::File`] if the directory cannot be read or written.
pub fn instance_of(data_dir: &Path, database: &str, new_token: &str) -> Result<String> {
    let path = data_dir.join(INSTANCE);
    let found = read_marker(&path)?.filter(|marker| marker.database == database);
    if let Some(marker) = found {
        return Ok(marker.instance);
    }
    let marker = Marker { database: database.to_owned(), instance: new_token.to_owned(), file: None };
    write_marker(&path, &marker, true)?;
    Ok(marker.instance)
}

/// The marker in a file; none where there is none, or where it was copied there.
fn read_marker(path: &Path) -> Result<Option<Marker>> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    // Two directories share a file with two links.
    if metadata.nlink() > 1 || metadata.len() > MARKER_BYTES_MAX {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(failed)?;
    let marker = Marker::parse(&String::from_utf8_lossy(&text));
    Ok(marker.filter(|marker| marker.file.as_deref() == Some(identity(&metadata).as_str())))
}

/// Writes a marker with the identity of its file, durable when this returns. False where a file is there that it may not replace.
fn write_marker(path: &Path, marker: &Marker, replaces: bool) -> Result<bool> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let beside = path.with_extension(format!("{}.new", marker.instance));
    let mut file = File::create(&beside).map_err(failed)?;
    let file_identity = identity(&file.metadata().map_err(failed)?);
    let text = Marker { file: Some(file_identity), ..marker.clone() }.text();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    // A link is made or refused; a rename would replace what another has put there meanwhile.
    let placed = written.and_then(|()| {
        if replaces {
            return std::fs::rename(&beside, path).map(|()| true);
        }
        match std::fs::hard_link(&beside, path) {
            Ok(()) => std::fs::remove_file(&beside).map(|()| true),
            Err(_) if path.exists() => std::fs::remove_file(&beside).map(|()| false),
            // A file system without links.
            Err(_) => std::fs::rename(&beside, path).map(|()| true),
        }
    });
    let placed = placed.map_err(failed)?;
    let above = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(above).and_then(|above| above.sync_all()).map_err(failed)?;
    Ok(placed)
}

/// Whether a directory may be reached from elsewhere than from below the one above it: it is a link or a mount.
pub(super) fn is_shared(directory: &Path) -> bool {
    let (Some(above), Some(name)) = (directory.parent(), directory.file_name()) else { return true };
    let (Ok(there), Ok(above)) = (directory.canonicalize(), above.canonicalize()) else { return true };
    let dev = |path: &Path| path.metadata().map(|it| it.dev()).ok();
    there != above.join(name) || dev(&there) != dev(&above) || is_mounted(&there)
}

/// Whether something is mounted at a directory, also a directory of the same file system.
fn is_mounted(directory: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.into_iter().any(|point| Path::new(point) == directory)
}

/// Rights of an instance at a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// This instance is the owner.
    Owner,
    /// The instance with this token is the owner.
    Of(String),
    /// The location has no owner.
    Free,
}

impl Owner {
    fn marker(&self) -> Marker {
        Marker { database: self.database.clone(), instance: self.instance.clone(), file: None }
    }

    fn standing(&self, marker: Option<&Marker>) -> Standing {
        match marker {
            None => Standing::Free,
            Some(marker) if marker.instance == self.instance => Standing::Owner,
            Some(marker) => Standing::Of(marker.instance.clone()),
        }
    }

    /// The standing at a location that is a directory, once it has been claimed where that is allowed.
    pub(super) fn claim_directory(&self, directory: &Path, claim: Claim) -> Result<Standing> {
        let made = std::fs::create_dir_all(directory);
        made.map_err(|source| Error::File { path: directory.to_owned(), source })?;
        let path = directory.join(MARKER);
        let found = self.standing(read_marker(&path)?.as_ref());
        let replaces = match (&found, claim) {
            (Standing::Owner, _) | (Standing::Of(_), Claim::Free) | (_, Claim::Never) => return Ok(found),
            (Standing::Of(_), Claim::Any) => true,
            // A file that is no marker, or a copied one, makes way.
            (Standing::Free, Claim::Free | Claim::Any) => path.exists(),
        };
        if write_marker(&path, &self.marker(), replaces)? {
            return Ok(Standing::Owner);
        }
        Ok(self.standing(read_marker(&path)?.as_ref()))
    }

    /// As [`Owner::claim_directory`], at a location that is no directory of this machine.
    pub(super) async fn claim_objects(&self, place: &Connected, claim: Claim) -> Result<Standing> {
        let at = ObjectPath::from(MARKER);
        let found = self.standing(read_object(place, &at).await?.as_ref());
        let mode = match (&found, claim) {
            (Standing::Owner, _) | (Standing::Of(_), Claim::Free) | (_, Claim::Never) => return Ok(found),
            (Standing::Of(_), Claim::Any) => PutMode::Overwrite,
            (Standing::Free, Claim::Free | Claim::Any) => PutMode::Create,
        };
        let payload = PutPayload::from_bytes(Bytes::from(self.marker().text()));
        let put = place.store.put_opts(&at, payload, PutOptions::from(mode)).await;
        match put {
            Ok(_) => Ok(Standing::Owner),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.standing(read_object(place, &at).await?.as_ref()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn read_object(place: &Connected, at: &ObjectPath) -> Result<Option<Marker>> {
    let found = match place.store.get(at).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        found => found?,
    };
    if found.meta.size > MARKER_BYTES_MAX {
        return Ok(None);
    }
    Ok(Marker::parse(&String::from_utf8_lossy(&found.bytes().await?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(instance: &str) -> Owner {
        Owner { database: "d".to_owned(), instance: instance.to_owned(), claim: Claim::Free }
    }

    /// Copies the files of a directory, as `cp -r` does.
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    #[test]
    fn a_renamed_directory_keeps_its_token_and_a_copy_gets_another() {
        let above = tempfile::tempdir().unwrap();
        let (first, copied) = (above.path().join("first"), above.path().join("copied"));
        std::fs::create_dir(&first).unwrap();
        assert_eq!(instance_of(&first, "d", "one").unwrap(), "one");
        assert_eq!(instance_of(&first, "d", "two").unwrap(), "one");
        copy(&first, &copied);
        assert_eq!(instance_of(&copied, "d", "three").unwrap(), "three");
        let moved = above.path().join("moved");
        std::fs::rename(&first, &moved).unwrap();
        assert_eq!(instance_of(&moved, "d", "four").unwrap(), "one");
        assert_eq!(instance_of(&moved, "another database", "five").unwrap(), "five");
        assert_eq!(std::fs::read_dir(&moved).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_copy_of_links_does_not_share_the_token() {
        let above = tempfile::tempdir().unwrap();
        let (first, linked) = (above.path().join("first"), above.path().join("linked"));
        std::fs::create_dir(&first).unwrap();
        std::fs::create_dir(&linked).unwrap();
        assert_eq!(instance_of(&first, "d", "one").unwrap(), "one");
        std::fs::hard_link(first.join(INSTANCE), linked.join(INSTANCE)).unwrap();
        assert_eq!(instance_of(&linked, "d", "two").unwrap(), "two");
        assert_eq!(instance_of(&first, "d", "three").unwrap(), "one");
    }

    #[test]
    fn a_location_has_one_owner_until_another_takes_it() {
        let place = tempfile::tempdir().unwrap();
        let (one, two) = (owner("one"), owner("two"));
        assert_eq!(one.claim_directory(place.path(), Claim::Never).unwrap(), Standing::Free);
        assert_eq!(one.claim_directory(place.path(), Claim::Free).unwrap(), Standing::Owner);
        let of_one = Standing::Of("one".to_owned());
        assert_eq!(two.claim_directory(place.path(), Claim::Free).unwrap(), of_one);
        assert_eq!(two.claim_directory(place.path(), Claim::Any).unwrap(), Standing::Owner);
        assert_eq!(one.claim_directory(place.path(), Claim::Free).unwrap(), Standing::Of("two".to_owned()));
        let copied = tempfile::tempdir().unwrap();
        copy(place.path(), copied.path());
        assert_eq!(one.claim_directory(copied.path(), Claim::Free).unwrap(), Standing::Owner);
    }

    #[test]
    fn bytes_that_are_no_marker_make_way() {
        let place = tempfile::tempdir().unwrap();
        for bytes in ["", "{}", "\u{0}\u{1}", "{\"database\": \"d\"}"] {
            std::fs::write(place.path().join(MARKER), bytes).unwrap();
            assert_eq!(owner("one").claim_directory(place.path(), Claim::Free).unwrap(), Standing::Owner);
            std::fs::remove_file(place.path().join(MARKER)).unwrap();
        }
    }

    #[test]
    fn a_directory_behind_a_link_is_shared() {
        let above = tempfile::tempdir().unwrap();
        let (own, elsewhere) = (above.path().join("cold"), above.path().join("elsewhere"));
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::create_dir(&own).unwrap();
        assert!(!is_shared(&own));
        std::fs::remove_dir(&own).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
        assert!(is_shared(&own));
    }
}
