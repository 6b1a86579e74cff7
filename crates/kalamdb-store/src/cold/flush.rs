//! Writing the file of a flush, and the event that lists it.
//!
//! A flush goes in steps of a bounded number of rows: a step is a file and a commit. Nothing changes before the commit; a
//! file that does not get one is removed, at the next start at the latest.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use log_format::{ColdFile, Flushed, LiveRows, Partition, RowReader, SchemaVersion, SupersededRows};

use super::files::ColdFiles;
use super::merge::rows_of_keys;
use super::paths::TablePath;
use super::writer::{ColdWriter, FileOrigin, WrittenFile};
use crate::cut::{Cut, FirstError, KeyRange, Scanned};
use crate::error::{Error, Result};
use crate::keyspace::{Keyspace, StoredRow};

/// Which rows a flush takes, and where to.
#[derive(Clone, Debug)]
pub struct FlushStep<'a> {
    /// Of which partition and schema version.
    pub origin: FileOrigin,
    /// Where the table's files are.
    pub directory: &'a TablePath,
    /// How many steps from the same cut were before it. Each becomes a commit, so that no other file has its number.
    pub number: u64,
    /// From which key on; empty: the first.
    pub from_key: Vec<u8>,
    /// Tombstones of commits before this time are not kept, microseconds since 1970.
    pub tombstones_from: i64,
    /// So many rows at the most.
    pub rows_max: usize,
    /// About so many bytes of rows at the most.
    pub bytes_max: usize,
}

impl Cut {
    /// The schema versions of a partition's hot rows.
    ///
    /// # Errors
    /// Where RocksDB cannot read, or a record is damaged.
    pub fn hot_versions(&self, partition: &Partition) -> Result<BTreeSet<SchemaVersion>> {
        let (mut found, mut failure) = (BTreeSet::new(), FirstError::none());
        self.scan_hot(keyspace_of(partition), partition, &KeyRange::default(), |_, row| {
            failure.or_stop(version_of(row).map(|version| {
                found.insert(version);
                ControlFlow::Continue(())
            }))
        })?;
        failure.check().map(|()| found)
    }

    /// Gathers the next hot rows of a partition for a file. None where there are no more such rows.
    ///
    /// # Errors
    /// Where a tier cannot be read, or the file not be made.
    pub fn prepare_flush(&self, step: FlushStep<'_>) -> Result<Option<PreparedFlush>> {
        let FlushStep { origin, directory, number, from_key, tombstones_from, rows_max, bytes_max } = step;
        let id = self.seq().get() + number;
        let (partition, version) = (origin.partition.clone(), origin.version);
        let mut taken = Taken {
            keys: KeyList::default(),
            bytes: 0,
            live: LiveRows::default(),
            has_others: false,
            writer: ColdWriter::new(origin),
        };
        let range = KeyRange { from: (!from_key.is_empty()).then(|| from_key.clone()), until: None };
        let mut failure = FirstError::none();
        let scanned = self.scan_hot_once(keyspace_of(&partition), &partition, &range, |key, row| {
            failure.or_stop(taken.take(key, row, version, tombstones_from).map(|()| {
                let has_room = taken.keys.len() < rows_max && taken.bytes < bytes_max;
                if has_room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }))
        })?;
        failure.check()?;
        if taken.keys.is_empty() {
            return Ok(None);
        }
        let until_key = match scanned {
            Scanned::All => Vec::new(),
            Scanned::StoppedAt(mut key) => {
                key.push(0);
                key
            }
        };
        let superseded = self.superseded_by(&partition, &taken.keys)?;
        let live = (!taken.has_others).then_some(taken.live);
        let event = Flushed {
            partition,
            from_key,
            until_key,
            schema_version: version,
            until_seq: self.seq().get(),
            file: None,
            superseded,
            live,
        };
        Ok(Some(PreparedFlush { id, directory: directory.clone(), writer: taken.writer, event }))
    }

    /// The rows of older files that rows of these keys stand in the place of.
    fn superseded_by(&self, partition: &Partition, keys: &KeyList) -> Result<Vec<SupersededRows>> {
        let Some(manifest) = self.manifest(partition)? else { return Ok(Vec::new()) };
        let mut superseded = Vec::new();
        for of in &manifest.files {
            let mut keys = keys.between(&of.file.first_key, &of.file.last_key).peekable();
            if keys.peek().is_none() {
                continue;
            }
            let file = self.open_file(&of.file)?;
            let positions = rows_of_keys(&file, keys, &of.superseded)?;
            if !positions.is_empty() {
                superseded.push(SupersededRows { file: of.file.id, positions });
            }
        }
        Ok(superseded)
    }
}

/// The rows of a flush's file, which may still be on their way into it, and the event that makes it count.
#[derive(Debug)]
pub struct PreparedFlush {
    id: u64,
    directory: TablePath,
    writer: ColdWriter,
    /// Without the file.
    event: Flushed,
}

impl PreparedFlush {
    /// From which key on there is more; empty: there is no more.
    pub fn until_key(&self) -> &[u8] {
        &self.event.until_key
    }

    /// Ends the file and puts it to where it belongs, durable when this returns.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn put(self, files: &ColdFiles) -> Result<Flushed> {
        let Self { id, directory, writer, mut event } = self;
        if let Some((file, bytes)) = finish_file(files, id, &directory, writer)? {
            files.put(&file.path, bytes)?;
            event.file = Some(file);
        }
        Ok(event)
    }
}

/// Makes a file of what was written; none where that is nothing.
pub(super) fn finish_file(
    files: &ColdFiles,
    id: u64,
    directory: &TablePath,
    writer: ColdWriter,
) -> Result<Option<(ColdFile, Bytes)>> {
    if writer.rows() == 0 {
        return Ok(None);
    }
    let FileOrigin { partition, version, .. } = writer.origin().clone();
    let path = files.signed(directory.file(&partition, id, version));
    let written = writer.finish()?;
    let file = listed(id, path, version, &written);
    Ok(Some((file, written.bytes)))
}

/// What a step has taken so far.
struct Taken {
    /// The keys of all rows that go, those that are not kept among them.
    keys: KeyList,
    bytes: usize,
    /// Those of them that are not deleted.
    live: LiveRows,
    /// Whether rows of other schema versions stand between them.
    has_others: bool,
    writer: ColdWriter,
}

/// Rising keys, one behind the other.
#[derive(Default)]
struct KeyList {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl KeyList {
    const fn len(&self) -> usize {
        self.ends.len()
    }

    const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
    }

    /// Those from one key to another, both inclusive.
    fn between<'a>(&'a self, first: &'a [u8], last: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().skip_while(move |key| *key < first).take_while(move |key| *key <= last)
    }
}

impl Taken {
    fn take(
        &mut self,
        key: &[u8],
        row: StoredRow<'_>,
        version: SchemaVersion,
        tombstones_from: i64,
    ) -> Result<()> {
        if version_of(row)? != version {
            self.has_others = true;
            return Ok(());
        }
        if !row.deleted {
            self.live.add(row.row);
        }
        if !row.deleted || row.updated >= tombstones_from {
            self.writer.push(key, &row)?;
        }
        self.bytes += key.len() + row.row.len();
        self.keys.push(key);
        Ok(())
    }
}

fn version_of(row: StoredRow<'_>) -> Result<SchemaVersion> {
    Ok(RowReader::new(row.row).map_err(|_| Error::Damaged { what: "row" })?.version())
}

fn keyspace_of(partition: &Partition) -> Keyspace {
    if partition.user.is_some() { Keyspace::User } else { Keyspace::Shared }
}

fn listed(id: u64, path: String, schema_version: SchemaVersion, written: &WrittenFile) -> ColdFile {
    let (first_key, last_key) = written.keys.clone();
    let ((first_seq, last_seq), (first_updated, last_updated)) = (written.seqs, written.updated);
    let (rows, bytes, crc32c) = (written.rows, written.bytes.len() as u64, written.crc32c);
    let bounds = written.bounds.clone();
    ColdFile {
        id,
        path,
        rows,
        bytes,
        crc32c,
        schema_version,
        first_seq,
        last_seq,
        first_key,
        last_key,
        first_updated,
        last_updated,
        bounds,
    }
}
