//! Where cold files can be beside the database's own directory: another directory, or a bucket of S3, GCS or Azure.
//!
//! In the log a file of the place `archive` is called `@archive/…`; no encoded name begins with `@`. In the place everything
//! is below a directory called as the database is, so that two of them can share a bucket.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::error::{Error, Result};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A place for cold files, as an operator describes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// `filesystem`, `s3`, `gcs` or `azure`.
    pub location_type: String,
    /// A directory, or an address such as `s3://bucket/prefix`.
    pub path: String,
    /// What else the place's client is told, credentials among it; none: what the environment says.
    pub options: Option<Vec<(String, String)>>,
    /// The directory in it that is this database's.
    pub directory: String,
    /// How often a request is tried again.
    pub retries_max: usize,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("location_type", &self.location_type)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A place that can be asked for files.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Where it is a directory of this machine: what was written there is synced by hand.
    pub(super) directory: Option<PathBuf>,
}

/// What became of a place: it can be asked, or why not.
type Known = Result<Connected, String>;

/// The places by their names.
#[derive(Debug, Default)]
pub(super) struct Places {
    // Written when a place is registered, changed or dropped.
    known: RwLock<BTreeMap<String, Known>>,
    // What last failed at a place, until something goes through.
    failing: RwLock<BTreeMap<String, String>>,
}

impl Places {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn failing(&self) -> RwLockWriteGuard<'_, BTreeMap<String, String>> {
        self.failing.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, name: &str, place: Option<Result<Connected, String>>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        self.failing().remove(name);
        match place {
            Some(place) => {
                if let Err(reason) = &place {
                    self.failing().insert(name.to_owned(), reason.clone());
                }
                known.insert(name.to_owned(), place);
            }
            None => {
                known.remove(name);
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<Connected> {
        let reason = match self.read().get(name) {
            Some(Ok(place)) => return Ok(place.clone()),
            Some(Err(reason)) => reason.clone(),
            None => "there is no such location".to_owned(),
        };
        Err(Error::Place { name: name.to_owned(), reason })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.read().keys().cloned().collect()
    }

    /// Takes down whether something went through.
    pub(super) fn note<T>(&self, name: &str, done: &Result<T>) {
        let reason = match done {
            Err(Error::ObjectStore(object_store::Error::NotFound { .. })) | Ok(_) => {
                let is_failing =
                    self.failing.read().unwrap_or_else(PoisonError::into_inner).contains_key(name);
                if is_failing {
                    self.failing().remove(name);
                }
                return;
            }
            Err(error) => error.to_string(),
        };
        metrics::counter!("kalamdb_storage_location_errors_total", "location" => name.to_owned())
            .increment(1);
        self.failing().insert(name.to_owned(), reason);
    }

    /// The places at which the last request failed, and how.
    pub(super) fn failures(&self) -> BTreeMap<String, String> {
        self.failing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Place {
    /// Gets ready to ask; asks nothing yet.
    pub(super) fn connect(&self) -> Result<Connected> {
        if self.location_type == "filesystem" {
            return self.in_directory();
        }
        let bad = |source| Error::ObjectStore(source);
        let store: Arc<dyn ObjectStore> = match self.location_type.as_str() {
            "s3" => Arc::new(self.s3().map_err(bad)?),
            "gcs" => Arc::new(self.gcs().map_err(bad)?),
            "azure" => Arc::new(self.azure().map_err(bad)?),
            other => {
                return Err(Error::Place { name: self.path.clone(), reason: format!("no type {other}") });
            }
        };
        // The clients take the bucket from the address; what is behind it is up to us.
        let (_, rest) = self.path.split_once("://").unwrap_or_default();
        let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix).trim_matches('/');
        let prefix =
            if prefix.is_empty() { self.directory.clone() } else { format!("{prefix}/{}", self.directory) };
        Ok(Connected { store: Arc::new(PrefixStore::new(store, prefix)), directory: None })
    }

    fn in_directory(&self) -> Result<Connected> {
        let path = Path::new(self.path.strip_prefix("file://").unwrap_or(&self.path));
        let directory = path.join(&self.directory);
        if !directory.is_absolute() {
            let reason = "a filesystem location is an absolute path".to_owned();
            return Err(Error::Place { name: self.path.clone(), reason });
        }
        let failed = |source| Error::File { path: directory.clone(), source };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        // An entry is durable with the directory it stands in, and any of them may be new.
        for above in directory.ancestors().skip(1) {
            match File::open(above).and_then(|above| above.sync_all()) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(Error::File { path: above.to_owned(), source: error });
                }
                _ => {}
            }
        }
        let store = LocalFileSystem::new_with_prefix(&directory)?.with_automatic_cleanup(true);
        Ok(Connected { store: Arc::new(store), directory: Some(directory) })
    }

    fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig::default();
        RetryConfig { backoff, max_retries: self.retries_max, retry_timeout: REQUEST_TIMEOUT }
    }

    fn client() -> ClientOptions {
        ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT)
    }

    fn options(&self) -> impl Iterator<Item = (&String, &String)> {
        self.options.iter().flatten().map(|(key, value)| (key, value))
    }

    fn s3(&self) -> object_store::Result<impl ObjectStore> {
        let begun = if self.options.is_some() { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() };
        let mut builder =
            begun.with_client_options(Self::client()).with_retry(self.retry()).with_url(&self.path);
        for (key, value) in self.options() {
            builder = builder.with_config(key.parse::<AmazonS3ConfigKey>()?, value);
        }
        builder.build()
    }

    fn gcs(&self) -> object_store::Result<impl ObjectStore> {
        let begun = match self.options {
            Some(_) => GoogleCloudStorageBuilder::new(),
            None => GoogleCloudStorageBuilder::from_env(),
        };
        let mut builder =
            begun.with_client_options(Self::client()).with_retry(self.retry()).with_url(&self.path);
        for (key, value) in self.options() {
            builder = builder.with_config(key.parse::<GoogleConfigKey>()?, value);
        }
        builder.build()
    }

    fn azure(&self) -> object_store::Result<impl ObjectStore> {
        let begun = match self.options {
            Some(_) => MicrosoftAzureBuilder::new(),
            None => MicrosoftAzureBuilder::from_env(),
        };
        let mut builder =
            begun.with_client_options(Self::client()).with_retry(self.retry()).with_url(&self.path);
        for (key, value) in self.options() {
            builder = builder.with_config(key.parse::<AzureConfigKey>()?, value);
        }
        builder.build()
    }
}
