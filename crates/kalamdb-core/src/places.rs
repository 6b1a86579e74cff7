//! Storage locations, as the cold tier is told of them.
//!
//! `system.storage_locations` says where a place is and where its credentials are found; they are looked up here, whenever the
//! database is opened or a location changes, and given to nobody but the place's client.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kalamdb_sql::SystemTables;
use kalamdb_store::{Place, Store};
use log_format::{ChangeEvent, DatabaseId, Seq, StorageLocation, Table};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::overlap::overlapping;

/// The location that is the database's own directory.
pub(crate) const LOCAL: &str = "local";

/// Bytes of a file with credentials at the most.
const CREDENTIALS_BYTES_MAX: u64 = 64 << 10;
/// How often a request is tried again, with pauses that grow.
const RETRIES_MAX: usize = 5;
/// The same while an operator waits for the answer.
const PROBE_RETRIES_MAX: usize = 1;

/// Where a table's cold files are; none: below the database's own directory.
pub(crate) fn location_of(table: &Table) -> Option<&str> {
    table.location_reference.as_deref().filter(|name| *name != LOCAL)
}

/// Keeps the cold tier told of the storage locations.
#[derive(Clone)]
pub(crate) struct Places {
    store: Arc<Store>,
    database: DatabaseId,
    /// The locations whose directories others use as well, as the database was opened.
    overlapping: Arc<BTreeSet<String>>,
    /// Whether one of them is the database's own directory.
    own_overlaps: bool,
    /// The last event that was applied before this process makes any.
    opened_at: Seq,
}

impl Places {
    /// Tells the cold tier of all locations.
    pub(crate) fn open(
        store: &Arc<Store>,
        system: &SystemTables,
        database: DatabaseId,
        data_dir: &Path,
    ) -> Result<Self> {
        let locations = system.scan_all_storage_locations()?;
        let (overlapping, own_overlaps) = overlapping(data_dir, &locations);
        for name in &overlapping {
            tracing::warn!(
                location = name,
                "it overlaps another location or the database's own directory, and is not swept"
            );
        }
        let overlapping = Arc::new(overlapping.into_iter().collect());
        let opened_at = store.applied_seq()?;
        let places = Self { store: Arc::clone(store), database, overlapping, own_overlaps, opened_at };
        for location in locations {
            places.register(&location);
        }
        Ok(places)
    }

    /// Removes what a crash left among the database's own cold files, unless others' files are among them.
    pub(crate) fn sweep_own(&self) -> Result<()> {
        if !self.own_overlaps {
            self.store.sweep_cold_files()?;
        }
        Ok(())
    }

    /// The locations that a crash may have left files at which nobody else can have written, and the last event that such a file can be
    /// of.
    pub(crate) fn to_sweep(&self) -> (BTreeSet<String>, Seq) {
        let names = self.store.cold_files().place_names().into_iter();
        (names.filter(|name| !self.overlapping.contains(name)).collect(), self.opened_at)
    }

    /// Which database it is.
    pub(crate) const fn database(&self) -> DatabaseId {
        self.database
    }

    /// Takes over what a commit says of locations.
    pub(crate) fn apply(&self, events: &[ChangeEvent]) {
        for event in events {
            match event {
                ChangeEvent::StorageLocationCreated(location)
                | ChangeEvent::StorageLocationAltered(location) => self.register(location),
                ChangeEvent::StorageLocationDropped(name) => self.store.cold_files().set_place(name, None),
                _ => {}
            }
        }
    }

    fn register(&self, location: &StorageLocation) {
        let StorageLocation { name, location_type, path, credentials_ref, .. } = location;
        let place = self.place(location_type, path, credentials_ref.as_deref(), RETRIES_MAX);
        if let Err(reason) = &place {
            tracing::warn!(location = name, reason, "a storage location cannot be used");
        }
        self.store.cold_files().set_place(name, Some(place));
    }

    fn place(
        &self,
        location_type: &str,
        path: &str,
        credentials_ref: Option<&str>,
        retries_max: usize,
    ) -> Result<Place, String> {
        let reference = credentials_ref.filter(|_| location_type != "filesystem");
        let options = reference.map(|reference| credentials(reference, location_type)).transpose()?;
        let (location_type, path) = (location_type.to_owned(), path.to_owned());
        Ok(Place { location_type, path, options, directory: self.database.to_string(), retries_max })
    }

    /// Whether a place can be written, read and deleted from. Blocks.
    pub(crate) fn probe(&self, location_type: &str, path: &str, credentials_ref: Option<&str>) -> Result<()> {
        let refused = |reason: String| {
            Error::definition(format!("a file cannot be written, read and deleted at {path}: {reason}"))
        };
        let place = self.place(location_type, path, credentials_ref, PROBE_RETRIES_MAX).map_err(refused)?;
        self.store.cold_files().probe(&place).map_err(|error| match error {
            owned @ kalamdb_store::Error::Owned { .. } => owned.into(),
            error => refused(error.to_string()),
        })
    }
}

/// What stands where a reference says. What is wrong is told without what stands there.
fn credentials(reference: &str, location_type: &str) -> Result<Vec<(String, String)>, String> {
    let (kind, at) = reference.split_once(':').unwrap_or_default();
    match kind {
        "env" => {
            let found = std::env::var(at);
            let text = found.map_err(|_| format!("the server's environment has no variable {at}"))?;
            of_json(&text, location_type).map_err(|problem| format!("the variable {at} {problem}"))
        }
        "file" => {
            let text = read(Path::new(at))?;
            of_json(&text, location_type).map_err(|problem| format!("the file {at} {problem}"))
        }
        "profile" if location_type == "s3" => of_profile(&read(&profiles())?, at)
            .ok_or_else(|| format!("{} has no profile {at}", profiles().display())),
        "profile" => Err("profiles are of S3 only; write env:NAME or file:PATH".to_owned()),
        _ => Err("credentials_ref is env:NAME, file:PATH or profile:NAME".to_owned()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("the file {} cannot be read: {error}", path.display()))?;
    Ok(text)
}

/// An object of options, such as `{"access_key_id": "…", "secret_access_key": "…", "region": "…"}`; for GCS also the key of a
/// service account as it is downloaded.
fn of_json(text: &str, location_type: &str) -> Result<Vec<(String, String)>, &'static str> {
    let Ok(Json::Object(options)) = serde_json::from_str(text) else {
        return Err("does not hold a JSON object of options, such as {\"access_key_id\": \"…\"}");
    };
    if location_type == "gcs" && options.contains_key("private_key") {
        return Ok(vec![("google_service_account_key".to_owned(), text.to_owned())]);
    }
    let option = |(key, value): (String, Json)| match value {
        Json::String(value) => Some((key, value)),
        Json::Bool(value) => Some((key, value.to_string())),
        Json::Number(value) => Some((key, value.to_string())),
        _ => None,
    };
    let options: Option<Vec<_>> = options.into_iter().map(option).collect();
    options.ok_or("holds an option that is neither text, number nor boolean")
}

/// Where the tools of AWS keep profiles.
fn profiles() -> PathBuf {
    let told = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    told.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".aws").join("credentials")
    })
}

/// The lines of one section.
fn of_profile(text: &str, profile: &str) -> Option<Vec<(String, String)>> {
    let head = format!("[{profile}]");
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != head);
    lines.next()?;
    let section = lines.take_while(|line| !line.starts_with('['));
    let option = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    };
    Some(section.filter(|line| !line.starts_with(['#', ';'])).filter_map(option).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_json_a_service_account_or_a_profile() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let json = r#"{"access_key_id": "a", "allow_http": true}"#;
        assert_eq!(of_json(json, "s3").unwrap(), [pair("access_key_id", "a"), pair("allow_http", "true")]);
        let account = r#"{"type": "service_account", "private_key": "k"}"#;
        assert_eq!(of_json(account, "gcs").unwrap(), [pair("google_service_account_key", account)]);
        for wrong in ["", "secret", "[1]", r#"{"a": {}}"#] {
            let problem = of_json(wrong, "s3").unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
        let profiles =
            "[default]\naws_access_key_id = d\n\n[far]\n# ours\naws_access_key_id = f\nregion=eu\n[x]\n";
        assert_eq!(
            of_profile(profiles, "far").unwrap(),
            [pair("aws_access_key_id", "f"), pair("region", "eu")]
        );
        assert_eq!(of_profile(profiles, "near"), None);
    }

    #[test]
    fn what_cannot_be_found_is_told_without_what_was_found() {
        let missing = credentials("env:KALAMDB_NO_SUCH_VARIABLE", "s3").unwrap_err();
        assert!(missing.contains("no variable KALAMDB_NO_SUCH_VARIABLE"), "{missing}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "wJalrXUtnFEMI").unwrap();
        let problem = credentials(&format!("file:{}", path.display()), "s3").unwrap_err();
        assert!(problem.contains("JSON object") && !problem.contains("wJalr"), "{problem}");
        assert!(credentials("profile:x", "gcs").unwrap_err().contains("S3 only"));
    }
}
