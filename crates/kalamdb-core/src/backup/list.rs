//! The list of a backup's parts, `BACKUP.json`.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use log_format::Seq;
use serde::{Deserialize, Serialize};

use super::part::file_of;
use crate::error::{Error, Result};

/// The name of the list.
const LIST: &str = "BACKUP.json";
/// The list before it takes the other one's place.
const LIST_WRITTEN: &str = "BACKUP.json.tmp";
/// The only version of all this so far.
const FORMAT: u32 = 1;
/// What the names of parts' files end with.
pub(super) const PART_SUFFIX: &str = ".frames.zst";
/// Bytes of a list at the most.
const LIST_BYTES_MAX: u64 = 256 << 20;
/// Bytes of changes that are kept behind a full part, however small that is.
const CHANGES_BYTES_MIN: u64 = 16 << 20;

/// What a part tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartKind {
    /// The namespace as of its seq.
    Full,
    /// What was committed between the seq of the part before and its own.
    Changes,
}

impl Part {
    /// The name of the file of a part that ends at this seq.
    pub(crate) fn file_name(kind: PartKind, seq: Seq) -> String {
        format!("{}-{:020}{PART_SUFFIX}", kind.as_str(), seq.get())
    }
}

impl PartKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Changes => "changes",
        }
    }
}

/// A part of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) kind: PartKind,
    /// Its file, beside the list.
    pub(crate) file: String,
    /// Its file's length.
    pub(crate) bytes: u64,
    /// How many frames the file has.
    pub(crate) frames: u64,
    /// How many events they have.
    pub(crate) events: u64,
    /// How many of them are of rows.
    pub(crate) row_events: u64,
    /// What it tells begins behind this seq; zero for a full part.
    pub(crate) from_seq: u64,
    /// The last seq of which it tells.
    pub(crate) seq: u64,
    /// Nothing of what it tells was committed after this, nothing else before: microseconds since 1970.
    pub(crate) commit_time: i64,
    /// How many tables the namespace had then.
    pub(crate) tables: u64,
    /// The checksum of the log's commit that ends at its seq: whose history it is of.
    pub(crate) log_crc: u32,
}

/// How far a restore is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// As far as the backup does.
    End,
    /// With the commits whose events end at this seq or before.
    Seq(u64),
    /// With the commits of up to this time, microseconds since 1970.
    Time(i64),
}

impl Until {
    /// Whether a commit belongs to what is to be restored.
    pub(crate) const fn includes(self, last_seq: Seq, commit_time: i64) -> bool {
        match self {
            Self::End => true,
            Self::Seq(seq) => last_seq.get() <= seq,
            Self::Time(time) => commit_time <= time,
        }
    }

    /// Whether all of a part does.
    const fn includes_part(self, part: &Part) -> bool {
        self.includes(Seq::new(part.seq), part.commit_time)
    }
}

/// What any version's list begins with.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// What a backup is of, and its parts in the order they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupList {
    format: u32,
    /// The database it is of.
    pub(crate) database: String,
    pub(crate) namespace: String,
    /// The tables that the namespace has at the end, by id.
    pub(crate) tables: Vec<u64>,
    pub(crate) parts: Vec<Part>,
    /// Of all the rest.
    crc32c: u32,
}

impl BackupList {
    /// A list without parts.
    pub(crate) const fn new(database: String, namespace: String) -> Self {
        Self { format: FORMAT, database, namespace, tables: Vec::new(), parts: Vec::new(), crc32c: 0 }
    }

    /// The list in a directory; none where there is none.
    ///
    /// # Errors
    /// Where it cannot be read, or is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(LIST);
        let failed = |source| Error::BackupFile { path: path.clone(), source };
        let damaged = |reason: String| Error::Backup { path: path.clone(), reason };
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Ok(found) if !found.is_file() => return Err(damaged("it is no file".to_owned())),
            found => {
                found.map_err(failed)?;
            }
        }
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LIST_BYTES_MAX + 1).read_to_end(&mut text))
            .map_err(failed)?;
        if text.len() as u64 > LIST_BYTES_MAX {
            return Err(damaged(format!(
                "it has more than {LIST_BYTES_MAX} bytes, more than any list of parts"
            )));
        }
        let no_list = |error| damaged(format!("it is no list of a backup's parts: {error}"));
        let Head { format } = serde_json::from_slice(&text).map_err(no_list)?;
        if format != FORMAT {
            return Err(damaged(format!(
                "its format is {format}, this version reads {FORMAT}: restore with the version that wrote it"
            )));
        }
        let list: Self = serde_json::from_slice(&text).map_err(no_list)?;
        if list.crc32c != list.checksum(&path)? || !list.is_in_order() {
            return Err(damaged("it is not as it was written; bring it back from a copy".to_owned()));
        }
        Ok(Some(list))
    }

    fn checksum(&self, path: &Path) -> Result<u32> {
        let Self { format, database, namespace, tables, parts, .. } = self;
        let text = serde_json::to_vec(&(format, database, namespace, tables, parts));
        let text =
            text.map_err(|error| Error::Backup { path: path.to_owned(), reason: error.to_string() })?;
        Ok(crc32c::crc32c(&text))
    }

    /// Whether it begins with a full part, and each of changes goes on where the one before it ends.
    fn is_in_order(&self) -> bool {
        let follows = |(before, part): (&Part, &Part)| {
            before.seq <= part.seq
                && before.commit_time <= part.commit_time
                && (part.kind == PartKind::Full || part.from_seq == before.seq)
        };
        self.parts.first().is_none_or(|first| first.kind == PartKind::Full)
            && self.parts.iter().zip(self.parts.iter().skip(1)).all(follows)
    }

    /// Puts it in the place of the list that a directory has, durably.
    ///
    /// # Errors
    /// Where it cannot be written; the one before it is there then.
    pub(crate) fn write(&mut self, directory: &Path) -> Result<()> {
        let written = directory.join(LIST_WRITTEN);
        let failed = |source| Error::BackupFile { path: written.clone(), source };
        if !self.is_in_order() {
            let reason = "a part does not follow those before it; back up to another directory".to_owned();
            return Err(Error::Backup { path: directory.to_owned(), reason });
        }
        self.crc32c = self.checksum(&written)?;
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::Backup { path: written.clone(), reason: error.to_string() })?;
        if text.len() as u64 > LIST_BYTES_MAX {
            let reason = "it has too many parts; back up to another directory".to_owned();
            return Err(Error::Backup { path: directory.join(LIST), reason });
        }
        let mut file = File::create(&written).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        put_in_place(&written, &directory.join(LIST))
    }

    /// Whether the files are there from the last full part on: without them, changes that follow would be of no use.
    pub(crate) fn is_there(&self, directory: &Path) -> bool {
        let full = self.parts.iter().rposition(|part| part.kind == PartKind::Full);
        let is_there = |part: &Part| {
            let found = file_of(directory, part).map(std::fs::metadata);
            matches!(found, Ok(Ok(found)) if found.len() == part.bytes)
        };
        full.is_some_and(|full| self.parts.iter().skip(full).all(is_there))
    }

    /// The files of parts that it does not name: of BACKUPs that did not end.
    pub(crate) fn left_files(&self, directory: &Path) -> Vec<PathBuf> {
        let is_left = |name: &str| {
            let is_part =
                [PartKind::Full, PartKind::Changes].iter().any(|kind| name.starts_with(kind.as_str()));
            is_part && name.ends_with(PART_SUFFIX) && !self.parts.iter().any(|part| part.file == name)
        };
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let left = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_left));
        left.map(|entry| entry.path()).collect()
    }

    /// Removes them.
    pub(crate) fn sweep(&self, directory: &Path) {
        for path in self.left_files(directory) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "what a backup left could not be removed");
            }
        }
    }

    /// The parts to restore from, a full one and those of changes that belong to it, where all of what `until` asks for is in
    /// them.
    ///
    /// # Errors
    /// Where it is not, with how far the backup goes.
    pub(crate) fn chain(&self, until: Until) -> Result<Vec<&Part>> {
        let refused = |reason: String| Error::definition(format!("the backup {reason}"));
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else {
            return Err(refused("has no parts: its first BACKUP did not end".to_owned()));
        };
        let beyond = match until {
            Until::End => false,
            Until::Seq(seq) => seq > last.seq,
            Until::Time(time) => time > last.commit_time,
        };
        let full = |part: &&Part| part.kind == PartKind::Full && until.includes_part(part);
        let begin = self.parts.iter().rposition(|part| full(&part)).filter(|_| !beyond).ok_or_else(|| {
            refused(format!(
                "goes from seq {} ({}) to {} ({}): UNTIL must stand between",
                first.seq,
                text_of_time(first.commit_time),
                last.seq,
                text_of_time(last.commit_time)
            ))
        })?;
        let mut chain: Vec<&Part> = Vec::new();
        for part in self.parts.iter().skip(begin) {
            if !chain.is_empty() && part.kind == PartKind::Full {
                break;
            }
            chain.push(part);
            if !until.includes_part(part) {
                return Ok(chain);
            }
        }
        // What follows, if anything does, is a full part that has more than is asked for: what came between is told nowhere.
        let (end, time) = chain.last().map_or((0, 0), |part| (part.seq, part.commit_time));
        let is_told = match until {
            Until::End => true,
            Until::Seq(seq) => seq <= end,
            Until::Time(asked) => asked <= time,
        };
        if is_told {
            return Ok(chain);
        }
        Err(refused(format!(
            "does not tell what was committed behind seq {end} ({}), up to its next full part: the log no longer had it",
            text_of_time(time)
        )))
    }

    /// Whether the parts of changes since the last full one, with another one of so many bytes, take more than it does.
    pub(crate) fn wants_full(&self, more_bytes: u64) -> bool {
        let Some(full) = self.parts.iter().rposition(|part| part.kind == PartKind::Full) else { return true };
        let of_changes: u64 = self.parts.iter().skip(full + 1).map(|part| part.bytes).sum();
        let full_bytes = self.parts.get(full).map_or(0, |part| part.bytes);
        of_changes.saturating_add(more_bytes) > full_bytes.max(CHANGES_BYTES_MIN)
    }
}

/// A time as results show it.
pub(crate) fn text_of_time(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

/// Makes a directory, durably.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let failed = |source| Error::BackupFile { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    // An entry is durable with the directory it stands in, and any of them may be new.
    for above in path.ancestors().skip(1) {
        match File::open(above).and_then(|above| above.sync_all()) {
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Gives a file that is durable its name, durably.
pub(super) fn put_in_place(written: &Path, path: &Path) -> Result<()> {
    let failed = |source| Error::BackupFile { path: path.to_owned(), source };
    std::fs::rename(written, path).map_err(failed)?;
    let directory = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: PartKind, from_seq: u64, seq: u64) -> Part {
        let file = format!("{}-{seq}", kind.as_str());
        let commit_time = i64::try_from(seq).unwrap() * 10;
        Part {
            kind,
            file,
            bytes: 1,
            frames: 0,
            events: 0,
            row_events: 0,
            from_seq,
            seq,
            commit_time,
            tables: 0,
            log_crc: 0,
        }
    }

    fn list(parts: &[(PartKind, u64, u64)]) -> BackupList {
        let mut list = BackupList::new("db".to_owned(), "chat".to_owned());
        list.parts = parts.iter().map(|(kind, from, seq)| part(*kind, *from, *seq)).collect();
        list
    }

    fn files(list: &BackupList, until: Until) -> Result<Vec<&str>, String> {
        let chain = list.chain(until).map_err(|error| error.to_string())?;
        Ok(chain.into_iter().map(|part| part.file.as_str()).collect())
    }

    #[test]
    fn a_restore_takes_the_last_full_part_before_and_the_changes_up_to_there() {
        use PartKind::{Changes, Full};
        let list = list(&[
            (Full, 0, 10),
            (Changes, 10, 20),
            (Changes, 20, 30),
            (Full, 0, 30),
            (Changes, 30, 40),
            // The log no longer reached back to 40.
            (Full, 0, 60),
        ]);
        assert_eq!(files(&list, Until::End).unwrap(), ["full-60"]);
        assert_eq!(files(&list, Until::Seq(60)).unwrap(), ["full-60"]);
        assert_eq!(files(&list, Until::Seq(10)).unwrap(), ["full-10", "changes-20"]);
        assert_eq!(files(&list, Until::Seq(25)).unwrap(), ["full-10", "changes-20", "changes-30"]);
        assert_eq!(files(&list, Until::Time(255)).unwrap(), ["full-10", "changes-20", "changes-30"]);
        assert_eq!(files(&list, Until::Seq(30)).unwrap(), ["full-30", "changes-40"]);
        assert_eq!(files(&list, Until::Time(400)).unwrap(), ["full-30", "changes-40"]);
        for until in [Until::Seq(9), Until::Seq(61), Until::Time(99), Until::Time(601)] {
            let refused = files(&list, until).unwrap_err();
            assert!(
                refused.contains("from seq 10 (1970-01-01T00:00:00.000100Z) to 60"),
                "{until:?}: {refused}"
            );
        }
        for until in [Until::Seq(41), Until::Seq(59), Until::Time(599)] {
            let refused = files(&list, until).unwrap_err();
            assert!(refused.contains("behind seq 40"), "{until:?}: {refused}");
        }
        assert!(files(&super::tests::list(&[]), Until::End).unwrap_err().contains("no parts"));
    }

    #[test]
    fn a_full_part_is_wanted_once_the_changes_take_more() {
        use PartKind::{Changes, Full};
        assert!(list(&[]).wants_full(0));
        let mut list = list(&[(Full, 0, 10), (Changes, 10, 20)]);
        assert!(!list.wants_full(CHANGES_BYTES_MIN - 1) && list.wants_full(CHANGES_BYTES_MIN));
        list.parts[0].bytes = CHANGES_BYTES_MIN * 3;
        assert!(!list.wants_full(CHANGES_BYTES_MIN * 2));
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_nothing_else_is_one() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(BackupList::read(directory.path()).unwrap(), None);
        let mut list = list(&[(PartKind::Full, 0, 10)]);
        list.write(directory.path()).unwrap();
        assert_eq!(BackupList::read(directory.path()).unwrap(), Some(list));
        let path = directory.path().join(LIST);
        let text = std::fs::read_to_string(&path).unwrap();
        for (wrong, said) in [
            (text.replace("\"format\":1", "\"format\":2"), "its format is 2"),
            (text.replace("\"seq\":10", "\"seq\":11"), "not as it was written"),
            (text.replace("\"namespace\":\"chat\"", "\"namespace\":\"chas\""), "not as it was written"),
            (text.replace("\"full\"", "\"half\""), "no list of a backup's parts"),
            (String::new(), "no list of a backup's parts"),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let refused = BackupList::read(directory.path()).unwrap_err().to_string();
            assert!(refused.contains(said) && refused.contains("BACKUP.json"), "{refused}");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(BackupList::read(directory.path()).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn parts_that_do_not_follow_each_other_are_no_backup() {
        use PartKind::{Changes, Full};
        let directory = tempfile::tempdir().unwrap();
        for wrong in [
            &[(Changes, 0, 10)][..],
            &[(Full, 0, 10), (Changes, 11, 20)],
            &[(Full, 0, 10), (Changes, 10, 20), (Changes, 10, 20)],
            &[(Full, 0, 10), (Full, 0, 9)],
        ] {
            let mut wrong_list = list(wrong);
            assert!(wrong_list.write(directory.path()).is_err(), "{wrong:?}");
            wrong_list.crc32c = wrong_list.checksum(directory.path()).unwrap();
            std::fs::write(directory.path().join(LIST), serde_json::to_vec(&wrong_list).unwrap()).unwrap();
            let refused = BackupList::read(directory.path()).unwrap_err().to_string();
            assert!(refused.contains("not as it was written"), "{wrong:?}: {refused}");
        }
    }

    #[test]
    fn files_that_the_list_does_not_name_go_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut list = list(&[(PartKind::Full, 0, 10)]);
        let named = Part::file_name(PartKind::Full, Seq::new(10));
        list.parts[0].file.clone_from(&named);
        let left = Part::file_name(PartKind::Changes, Seq::new(20));
        for name in [named.as_str(), &left, "full-of-notes.txt", "other.frames.zst"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        assert!(list.is_there(directory.path()));
        list.sweep(directory.path());
        let mut kept: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        kept.sort_unstable();
        assert_eq!(kept, [named.as_str(), "full-of-notes.txt", "other.frames.zst"]);
        std::fs::write(directory.path().join(&named), "xx").unwrap();
        assert!(!list.is_there(directory.path()), "it has another length");
    }
}
