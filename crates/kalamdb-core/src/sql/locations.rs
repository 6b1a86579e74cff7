//! Storage locations: what one may be, and what may become of it. Written through `system.storage_locations`.
//!
//! A location holds no secret, only where one is found. How many tables use it is counted from the tables, so it cannot be
//! wrong.

use std::path::Path;

use log_format::{ChangeEvent, StorageLocation};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::overlap::{refuse_overlap, refuse_overlap_with};
use crate::places::LOCAL;
use crate::requests::Planning;
use crate::sql::system_rows::Edit;

const TYPES: [&str; 4] = ["filesystem", "s3", "gcs", "azure"];
const PATH_BYTES_MAX: usize = 1024;

/// A location as a statement describes it.
#[derive(Clone, Debug)]
pub(super) struct NewLocation {
    pub(super) name: String,
    pub(super) location_type: String,
    pub(super) path: String,
    pub(super) credentials_ref: Option<String>,
}

/// What changes of a location; none stays as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct LocationEdit {
    pub(super) location_type: Option<String>,
    pub(super) path: Option<String>,
    pub(super) credentials_ref: Edit,
}

pub(super) fn check_type(location_type: &str) -> Result<()> {
    if TYPES.contains(&location_type) {
        return Ok(());
    }
    Err(Error::definition(format!(
        "there is no type of storage location {location_type:?}; there are {}",
        TYPES.join(", ")
    )))
}

pub(super) fn check_path(path: &str) -> Result<()> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains(char::is_control) {
        return Err(Error::definition(format!(
            "a location's path has 1 to {PATH_BYTES_MAX} bytes and no control characters"
        )));
    }
    let authority = path.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(Error::definition(
            "a location's path holds no credentials; say where they are found with credentials_ref, such as env:NAME",
        ));
    }
    Ok(())
}

/// A reference says where credentials are found. What is refused is not repeated: it may be one.
pub(super) fn check_credentials_ref(reference: &str) -> Result<()> {
    let legal = |name: &str, more: &str| {
        let is_legal = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
        !name.is_empty() && name.len() <= 256 && name.chars().all(is_legal)
    };
    let is_reference = match reference.split_once(':') {
        Some(("env", name)) => legal(name, "_") && !name.starts_with(|first: char| first.is_ascii_digit()),
        Some(("file", path)) => legal(path, "_-./"),
        Some(("profile", name)) => legal(name, "_-."),
        _ => false,
    };
    if is_reference {
        return Ok(());
    }
    Err(Error::definition(
        "credentials_ref says where credentials are found, and is none itself: write env:NAME, file:PATH or profile:NAME",
    ))
}

/// Whether a location can be used, before it is registered.
pub(super) async fn probe_new(engine: &Engine, new: &NewLocation) -> Result<()> {
    if new.name == LOCAL {
        return Err(Error::AlreadyExists { kind: "storage location", name: new.name.clone() });
    }
    let (location_type, path) = (new.location_type.clone(), new.path.clone());
    probe(engine, &new.name, location_type, path, new.credentials_ref.clone()).await
}

/// Whether a location can be used as it will be.
pub(super) async fn probe_edited(engine: &Engine, name: &str, edit: &LocationEdit) -> Result<()> {
    // One that is not there is refused where the edit is planned.
    let Some(known) = engine.system().get_storage_location(name)? else { return Ok(()) };
    if edit.location_type.is_none() && edit.path.is_none() {
        let credentials_ref = edit.credentials_ref.clone().of(known.credentials_ref);
        return probe_at(engine, known.location_type, known.path, credentials_ref).await;
    }
    let location_type = edit.location_type.clone().unwrap_or(known.location_type);
    let path = edit.path.clone().unwrap_or(known.path);
    probe(engine, name, location_type, path, edit.credentials_ref.clone().of(known.credentials_ref)).await
}

async fn probe(
    engine: &Engine,
    name: &str,
    location_type: String,
    path: String,
    credentials_ref: Option<String>,
) -> Result<()> {
    let others = engine.system().scan_all_storage_locations()?;
    // IMPORTANT: before anything is written there.
    refuse_overlap(engine.data_dir(), (name, &location_type, &path), &others)?;
    probe_at(engine, location_type, path, credentials_ref).await
}

async fn probe_at(
    engine: &Engine,
    location_type: String,
    path: String,
    credentials_ref: Option<String>,
) -> Result<()> {
    let places = engine.places().clone();
    let probe = move || places.probe(&location_type, &path, credentials_ref.as_deref());
    let probed = tokio::task::spawn_blocking(probe).await;
    probed.map_err(|_| Error::ShuttingDown)?
}

pub(super) fn plan_create(planning: &Planning<'_>, data_dir: &Path, new: NewLocation) -> Result<ChangeEvent> {
    let NewLocation { name, location_type, path, credentials_ref } = new;
    if planning.system.get_storage_location(&name)?.is_some() {
        return Err(Error::AlreadyExists { kind: "storage location", name });
    }
    let others = planning.system.scan_all_storage_locations()?;
    refuse_overlap(data_dir, (&name, &location_type, &path), &others)?;
    let (created_at, updated_at) = (planning.now, planning.now);
    Ok(ChangeEvent::StorageLocationCreated(Box::new(StorageLocation {
        usage_count: planning.catalog.tables_at(&name).len() as u64,
        name,
        location_type,
        path,
        credentials_ref,
        created_at,
        updated_at,
    })))
}

pub(super) fn plan_alter(
    planning: &Planning<'_>,
    data_dir: &Path,
    name: &str,
    edit: LocationEdit,
) -> Result<ChangeEvent> {
    let mut location = existing(planning, name)?;
    let (location_type, path) = (
        edit.location_type.unwrap_or_else(|| location.location_type.clone()),
        edit.path.unwrap_or_else(|| location.path.clone()),
    );
    let usage_count = if (&location_type, &path) == (&location.location_type, &location.path) {
        planning.catalog.tables_at(name).len()
    } else {
        let others = planning.system.scan_all_storage_locations()?;
        refuse_overlap(data_dir, (name, &location_type, &path), &others)?;
        refuse_while_used(planning, name, "moved")?
    };
    (location.location_type, location.path) = (location_type, path);
    location.credentials_ref = edit.credentials_ref.of(location.credentials_ref);
    location.usage_count = usage_count as u64;
    location.updated_at = planning.now;
    Ok(ChangeEvent::StorageLocationAltered(Box::new(location)))
}

/// Refuses locations of one statement that overlap each other.
pub(super) fn refuse_overlaps_among(events: &[ChangeEvent]) -> Result<()> {
    let mut seen: Vec<StorageLocation> = Vec::new();
    for event in events {
        let (ChangeEvent::StorageLocationCreated(of) | ChangeEvent::StorageLocationAltered(of)) = event
        else {
            continue;
        };
        refuse_overlap_with(&of.name, &of.location_type, &of.path, &seen)?;
        seen.push(of.as_ref().clone());
    }
    Ok(())
}

pub(super) fn plan_drop(planning: &Planning<'_>, name: String) -> Result<ChangeEvent> {
    existing(planning, &name)?;
    refuse_while_used(planning, &name, "dropped")?;
    Ok(ChangeEvent::StorageLocationDropped(Box::new(name)))
}

fn existing(planning: &Planning<'_>, name: &str) -> Result<StorageLocation> {
    let found = planning.system.get_storage_location(name)?;
    found.ok_or_else(|| Error::NotFound { kind: "storage location", name: name.to_owned() })
}

/// How many tables use it where it may go: none.
fn refuse_while_used(planning: &Planning<'_>, name: &str, action: &'static str) -> Result<usize> {
    let tables = planning.catalog.tables_at(name);
    if tables.is_empty() {
        return Ok(0);
    }
    let named: Vec<&str> = tables.iter().take(10).map(String::as_str).collect();
    let count =
        if tables.len() == 1 { "1 table uses".to_owned() } else { format!("{} tables use", tables.len()) };
    Err(Error::InUse {
        what: format!("storage location {name}"),
        action,
        reason: format!("{count} it: {}", named.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_no_reference() {
        for legal in ["env:AWS_KEY", "file:/run/secrets/s3.json", "profile:backup-1"] {
            assert!(check_credentials_ref(legal).is_ok(), "{legal}");
        }
        for refused in [
            "",
            "AKIAIOSFODNN7EXAMPLE",
            "env:",
            "env:1X",
            "env:a b",
            "AWS:abc",
            "wJalr/K7MDENG+b=",
            "file:a\nb",
        ] {
            let error = check_credentials_ref(refused).unwrap_err().to_string();
            assert!(!error.contains("AKIA") && !error.contains("wJalr"), "{error}");
        }
    }

    #[test]
    fn a_path_holds_no_credentials() {
        assert!(check_path("s3://bucket/a@b").is_ok());
        assert!(check_path("/srv/cold").is_ok());
        assert!(check_path("s3://key:secret@bucket/x").is_err());
        assert!(check_path("").is_err());
        assert!(check_path("a\0").is_err());
    }
}
