//! The job that puts small cold files of a partition together, and leaves out what nobody can see any more.
//!
//! By itself it follows the tiers: files of about one size, within a factor of four, become one where there are four of them.
//! So a row is written anew once per tier at the most, and a partition has at most three files of each: flushes of a hundred
//! rows leave a dozen files of ten thousand rows, not a hundred. `STORAGE COMPACT TABLE` puts together whatever fits into one file.
//!
//! A step reads one cut, writes a file, and commits the event that lists it in the place of the others. Those go once that event
//! cannot be lost any more and nobody reads a cut from before it; after a crash the next start sweeps them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use kalamdb_store::{CompactStep, Cut, Manifest, ManifestFile};
use log_format::{ChangeEvent, Compacted, Job, Partition, SchemaVersion, Seq, Table, UserId};
use serde_json::{Value as Json, json};

use super::flush_table::{
    FILE_BYTES_MAX, FILE_ROWS_MAX, directory_of, origin_of, refuse_if_changed, tombstones_from,
};
use super::{JobRunner, Lane, Parameters, Progress, new_job};
use crate::error::{Error, Result};
use crate::fail_points::FailPoint;
use crate::places::location_of;
use crate::requests::Planning;
use crate::table::TableInfo;

/// The job's type.
pub(crate) const COMPACT_TABLE: &str = "compact_table";

/// Files of about one size that become one; also by how much the sizes of one tier may differ.
const TIER: usize = 4;

/// How much is to be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thoroughness {
    /// What the tiers ask for.
    Tiers,
    /// Whatever fits together.
    All,
}

/// The job that compacts a table: the files of these owners, or where none are named of all.
pub(crate) fn compact_table_job(
    planning: &Planning<'_>,
    table: &Table,
    owners: Option<&[UserId]>,
    thoroughness: Thoroughness,
    user: &UserId,
) -> ChangeEvent {
    let owners = owners.map(|owners| owners.iter().map(UserId::as_str).collect::<Vec<_>>());
    let all = thoroughness == Thoroughness::All;
    let parameters = json!({"table_id": table.id.get(), "owners": owners, "all": all});
    new_job(planning, 0, COMPACT_TABLE, table, user, &parameters)
}

/// What a compaction has done so far.
#[derive(Debug, Default)]
struct Done {
    partitions: u64,
    files_before: u64,
    files_after: u64,
    bytes_before: u64,
    bytes_after: u64,
    /// Files that this job wrote.
    written: HashSet<u64>,
}

impl JobRunner {
    /// Compacts what the job names. Done again it finds what is still to do.
    pub(super) fn compact_table(&self, job: &Job) -> Result<Progress> {
        let parameters = Parameters::of(job)?;
        let table = parameters.table()?;
        let thoroughness = match parameters.0.get("all") {
            Some(Json::Bool(true)) => Thoroughness::All,
            _ => Thoroughness::Tiers,
        };
        let partitions = match parameters.partitions()? {
            Some(partitions) => partitions,
            None => self.store.cold_partitions(table)?,
        };
        let mut done = Done::default();
        for partition in partitions {
            self.compact_partition(&partition, thoroughness, &mut done)?;
        }
        if self.left_files().values().any(|left| !left.is_empty()) {
            // They wait for the events that took them out to be durable; the commit that follows sees to it.
            self.commits.ask_for_flush();
        }
        let Done { partitions, files_before, files_after, bytes_before, bytes_after, .. } = done;
        Ok(Progress::Done(json!({
            "partitions": partitions,
            "files_before": files_before,
            "files_after": files_after,
            "bytes_before": bytes_before,
            "bytes_after": bytes_after,
        })))
    }

    /// The first step of a partition's compaction alone, and the removal of what earlier ones left.
    #[cfg(test)]
    pub(crate) fn compact_once(&self, partition: &Partition) -> Result<bool> {
        let did = self.compact_step(partition, Thoroughness::All, &mut Done::default())?;
        self.remove_left_files(&None)?;
        Ok(did)
    }

    fn compact_partition(
        &self,
        partition: &Partition,
        thoroughness: Thoroughness,
        done: &mut Done,
    ) -> Result<()> {
        let before = done.files_before;
        done.written.clear();
        while self.compact_step(partition, thoroughness, done)? {}
        done.partitions += u64::from(done.files_before > before);
        Ok(())
    }

    /// One new file and its commit; false where there is nothing to do.
    fn compact_step(
        &self,
        partition: &Partition,
        thoroughness: Thoroughness,
        done: &mut Done,
    ) -> Result<bool> {
        if self.bell.is_stopped() {
            return Err(Error::ShuttingDown);
        }
        // IMPORTANT: the cut first: the table then knows every version of its rows.
        let cut = self.store.cut()?;
        let info = self.catalog.by_id(partition.table).ok_or(Error::TableDropped)?;
        let Some(manifest) = cut.manifest(partition)? else { return Ok(false) };
        let chosen = match thoroughness {
            Thoroughness::Tiers => by_tiers(&manifest),
            Thoroughness::All => whatever_fits(&manifest),
        };
        let chosen = match chosen {
            None if thoroughness == Thoroughness::All => with_old_tombstones(&cut, &info, &manifest, done)?,
            chosen => chosen,
        };
        let Some((version, files)) = chosen else { return Ok(false) };
        let directory = directory_of(&info);
        let step = CompactStep {
            origin: origin_of(&info, partition, version)?,
            directory: &directory,
            files: &files,
            tombstones_from: tombstones_from(&info),
        };
        self.fail_points.reach(FailPoint::BeforeColdFile);
        let compacted = cut.write_compacted(step)?;
        self.fail_points.reach(FailPoint::AfterColdFile);
        let gone = self.commit_compaction(&cut, &manifest, compacted, done)?;
        let is_done = !gone.is_empty();
        let lane = location_of(info.record()).map(ToOwned::to_owned);
        self.left_files().entry(lane).or_default().extend(gone);
        Ok(is_done)
    }

    /// The files that it took out; none where the rows have changed.
    fn commit_compaction(
        &self,
        cut: &Cut,
        manifest: &Manifest,
        compacted: Compacted,
        done: &mut Done,
    ) -> Result<Vec<LeftFile>> {
        let gone = |of: &&ManifestFile| compacted.removed.contains(&of.file.id);
        let gone: Vec<_> = manifest.files.iter().filter(gone).map(|of| of.file.clone()).collect();
        let (file, read_at) = (compacted.file.clone(), cut.seq());
        let committed = self.commits.catalog_blocking(move |planning| {
            refuse_if_changed(planning, &compacted.partition, read_at, None)?;
            Ok(vec![ChangeEvent::Compacted(Box::new(compacted))])
        });
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => return self.take_back(file.as_ref(), error).map(|()| Vec::new()),
        };
        done.files_before += gone.len() as u64;
        done.bytes_before += gone.iter().map(|file| file.bytes).sum::<u64>();
        if let Some(file) = file {
            done.files_after += 1;
            done.bytes_after += file.bytes;
            done.written.insert(file.id);
        }
        Ok(gone.into_iter().map(|file| (committed.last_seq, file.path)).collect())
    }

    /// Removes the files of a lane that compactions took the place of, as far as nobody needs them; false where some have to wait.
    pub(super) fn remove_left_files(&self, lane: &Lane) -> Result<bool> {
        let mut ready = Vec::new();
        let mut lanes = self.left_files();
        let Some(left) = lanes.get_mut(lane) else { return Ok(true) };
        while let Some((seq, _)) = left.front() {
            // They left in the order of the events.
            if !self.may_delete_before(*seq)? {
                break;
            }
            ready.extend(left.pop_front());
        }
        let is_done = left.is_empty();
        drop(lanes);
        for (_, path) in ready {
            // Asking again and again would keep others waiting: the next start sweeps it.
            if let Err(error) = self.store.cold_files().remove(&path) {
                tracing::warn!(path, %error, "a file that was compacted could not be removed");
            }
        }
        Ok(is_done)
    }

    /// Whether a partition has files that its tiers want to be one.
    pub(super) fn is_compaction_due(&self, partition: &Partition) -> Result<bool> {
        Ok(self.store.cut()?.manifest(partition)?.is_some_and(|manifest| by_tiers(&manifest).is_some()))
    }
}

/// Files that are to become one, with the schema version of their rows.
type Chosen = (SchemaVersion, Vec<u64>);

/// How many rows of a file still count.
fn rows(of: &ManifestFile) -> usize {
    usize::try_from(of.file.rows).unwrap_or(usize::MAX).saturating_sub(of.superseded.len())
}

/// As many of these files as fit into one, from the first on.
fn fitting<'a>(files: impl IntoIterator<Item = &'a ManifestFile>) -> Vec<u64> {
    let (mut chosen, mut all_rows, mut bytes) = (Vec::new(), 0_usize, 0_u64);
    for of in files {
        all_rows = all_rows.saturating_add(rows(of));
        bytes = bytes.saturating_add(of.file.bytes);
        if all_rows > FILE_ROWS_MAX || bytes > FILE_BYTES_MAX as u64 {
            break;
        }
        chosen.push(of.file.id);
    }
    chosen
}

/// Files of one size, enough of them; or one of which half is superseded.
fn by_tiers(manifest: &Manifest) -> Option<Chosen> {
    let mut tiers: BTreeMap<(SchemaVersion, u32), Vec<&ManifestFile>> = BTreeMap::new();
    for of in &manifest.files {
        let tier = rows(of).max(1).ilog(TIER);
        tiers.entry((of.file.schema_version, tier)).or_default().push(of);
    }
    let several =
        tiers.into_iter().filter(|(_, files)| files.len() >= TIER).find_map(|((version, _), mut files)| {
            // The smallest first: a great one among them keeps the others from nothing.
            files.sort_by_key(|of| rows(of));
            let mut chosen = fitting(files);
            chosen.sort_unstable();
            (chosen.len() > 1).then_some((version, chosen))
        });
    several.or_else(|| {
        let half_gone = |of: &&ManifestFile| of.superseded.len() as u64 * 2 >= of.file.rows;
        let of = manifest.files.iter().find(half_gone)?;
        Some((of.file.schema_version, vec![of.file.id]))
    })
}

/// Neighbours that fit into one file; or one of which anything is superseded.
fn whatever_fits(manifest: &Manifest) -> Option<Chosen> {
    let versions: BTreeSet<_> = manifest.files.iter().map(|of| of.file.schema_version).collect();
    let several = versions.into_iter().find_map(|version| {
        let files: Vec<_> = manifest.files.iter().filter(|of| of.file.schema_version == version).collect();
        let chosen = (0..files.len()).map(|at| fitting(files.iter().skip(at).copied()));
        chosen.max_by_key(Vec::len).filter(|chosen| chosen.len() > 1).map(|chosen| (version, chosen))
    });
    several.or_else(|| {
        let of = manifest.files.iter().find(|of| !of.superseded.is_empty())?;
        Some((of.file.schema_version, vec![of.file.id]))
    })
}

/// A file that may have tombstones which need not be kept, unless this job has been at it.
fn with_old_tombstones(
    cut: &Cut,
    info: &TableInfo,
    manifest: &Manifest,
    done: &Done,
) -> Result<Option<Chosen>> {
    let before = tombstones_from(info);
    if before == i64::MIN {
        return Ok(None);
    }
    for of in manifest.files.iter().filter(|of| !done.written.contains(&of.file.id)) {
        if cut.open_file(&of.file)?.may_have_tombstones_before(before) {
            return Ok(Some((of.file.schema_version, vec![of.file.id])));
        }
    }
    Ok(None)
}

/// The path of a file that left its manifest, and the event that took it out: those from before may still be read.
type LeftFile = (Seq, String);

/// Such files, by where they are.
pub(super) type LeftFiles = BTreeMap<Lane, VecDeque<LeftFile>>;

#[cfg(test)]
mod tests {
    use log_format::ColdFile;

    use super::*;

    fn manifest(files: &[(u64, usize)]) -> Manifest {
        let file = |(at, (rows, superseded)): (usize, &(u64, usize))| ManifestFile {
            file: ColdFile {
                id: at as u64,
                path: String::new(),
                rows: *rows,
                bytes: *rows,
                crc32c: 0,
                schema_version: SchemaVersion::FIRST,
                first_seq: 0,
                last_seq: 0,
                first_key: at.to_be_bytes().to_vec(),
                last_key: at.to_be_bytes().to_vec(),
                first_updated: 0,
                last_updated: 0,
                bounds: Vec::new(),
            },
            superseded: (0..u32::try_from(*superseded).unwrap()).collect(),
        };
        Manifest { flushed_at: Seq::new(1), files: files.iter().enumerate().map(file).collect() }
    }

    #[test]
    fn four_files_of_one_size_become_one_and_no_others() {
        let chosen = |files: &[(u64, usize)]| by_tiers(&manifest(files)).map(|(_, files)| files);
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[(100, 0), (100, 0), (100, 0), (5000, 0)]), None);
        assert_eq!(chosen(&[(100, 0), (5000, 0), (120, 0), (90, 0), (70, 0)]), Some(vec![0, 2, 3, 4]));
        assert_eq!(chosen(&[(100, 49), (5000, 100)]), None);
        assert_eq!(chosen(&[(100, 49), (5000, 2500)]), Some(vec![1]));
        assert_eq!(chosen(&[(60_000, 0), (17_000, 0), (17_000, 0), (17_000, 0)]), Some(vec![1, 2, 3]));
        let full = FILE_ROWS_MAX as u64;
        assert_eq!(chosen(&[(full, 0); 9]), None);
    }

    #[test]
    fn a_thorough_compaction_ends_with_as_few_files_as_rows_fit_into() {
        let mut files = vec![(40_000, 0), (100, 0), (100, 3), (60_000, 0), (5000, 0), (65_536, 0)];
        let mut steps = 0;
        while let Some((_, chosen)) = whatever_fits(&manifest(&files)) {
            let gone: Vec<_> = chosen.iter().map(|id| files[usize::try_from(*id).unwrap()]).collect();
            let left: u64 = gone.iter().map(|(rows, superseded)| rows - *superseded as u64).sum();
            let mut at = 0..;
            files.retain(|_| !chosen.contains(&at.next().unwrap()));
            files.push((left, 0));
            steps += 1;
            assert!(steps < 10, "{files:?}");
        }
        assert!(files.len() <= 4 && files.iter().all(|(rows, _)| *rows <= FILE_ROWS_MAX as u64), "{files:?}");
    }

    #[test]
    fn flushes_of_a_hundred_rows_leave_few_files_and_write_each_row_a_few_times() {
        let (mut files, mut written): (Vec<(u64, usize)>, u64) = (Vec::new(), 0);
        for _ in 0..400 {
            files.push((100, 0));
            while let Some((_, chosen)) = by_tiers(&manifest(&files)) {
                let all: u64 = chosen.iter().map(|id| files[usize::try_from(*id).unwrap()].0).sum();
                let mut at = 0..;
                files.retain(|_| !chosen.contains(&at.next().unwrap()));
                files.push((all, 0));
                written += all;
            }
            assert!(files.len() <= 15, "{files:?}");
        }
        assert!(written <= 40_000 * 5, "{written}");
    }
}
