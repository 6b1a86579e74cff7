//! Checks the cold tier: every file that a manifest lists is there and is what was written.

use kalamdb_store::{FilesChecked, Keyspace};

use crate::engine::Engine;
use crate::error::Result;

/// A cold file that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Below the directory of cold files, or at a storage location (`@name/…`).
    pub path: String,
    /// Whose rows it has: namespace and table.
    pub table: String,
    /// The user whose rows it has; none for those of a SHARED table.
    pub owner: Option<String>,
    /// What is wrong.
    pub problem: String,
}

/// What a check of all cold files found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColdChecked {
    /// Partitions with cold files.
    pub partitions: u64,
    /// Files that are listed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that were read, tombstones included.
    pub rows: u64,
    /// What is wrong.
    pub problems: Vec<FileProblem>,
    /// Files that could not be read, since their storage location cannot be asked, and why.
    pub unreachable: Vec<FileProblem>,
}

impl Engine {
    /// How many cold files all tables list.
    ///
    /// # Errors
    /// Where RocksDB cannot read.
    pub fn cold_file_count(&self) -> Result<u64> {
        let mut files = 0;
        for namespace in self.catalog().namespaces() {
            for info in self.catalog().tables_in(&namespace) {
                files += self.store().table_cold_totals(info.id())?.files;
            }
        }
        Ok(files)
    }

    /// Reads every cold file of every table. `advanced` is told of each partition how many files it had.
    ///
    /// # Errors
    /// Where RocksDB cannot read. What is wrong with a file is no error.
    pub fn check_files(&self, mut advanced: impl FnMut(u64)) -> Result<ColdChecked> {
        let mut checked = ColdChecked::default();
        for namespace in self.catalog().namespaces() {
            for info in self.catalog().tables_in(&namespace) {
                if info.keyspace() == Keyspace::Stream {
                    continue;
                }
                for partition in self.store().cold_partitions(info.id())? {
                    let found = self.store().cut()?.check_files(&partition)?;
                    let FilesChecked { files, bytes, rows, problems, unreachable } = found;
                    checked.partitions += u64::from(files > 0);
                    checked.files += files;
                    checked.bytes += bytes;
                    checked.rows += rows;
                    let owner = partition.user.as_ref().map(|user| user.as_str().to_owned());
                    let named = |(path, problem)| FileProblem {
                        path,
                        table: info.full_name(),
                        owner: owner.clone(),
                        problem,
                    };
                    checked.problems.extend(problems.into_iter().map(named));
                    checked.unreachable.extend(unreachable.into_iter().map(named));
                    advanced(files);
                }
            }
        }
        Ok(checked)
    }
}
