//! The cold tier: rows in Parquet files, and the manifest that says which files a partition has.
//!
//! A partition's files are sorted by key and are never changed. Which of their rows newer ones stand in the place of is in
//! the manifest, so that each key lives in one file at the most; a key that the hot tier has, deleted or not, hides that
//! one. A cut has the manifest as of its own seq.
//!
//! A file describes itself: it is read back into the very bytes that the hot tier had, whatever became of its table.

mod apply;
mod audit;
mod batches;
mod check;
mod columns;
mod compact;
mod files;
mod filter;
mod flush;
mod manifest;
mod merge;
mod open;
mod owner;
mod paths;
mod places;
mod writer;

pub(crate) use self::apply::changes_files;
pub use self::batches::{FileBatches, FileScan, Hidden};
pub use self::check::FilesChecked;
pub use self::columns::{CellBuilder, ColdColumn, arrow_type};
pub use self::compact::CompactStep;
pub use self::files::ColdFiles;
pub use self::flush::{FlushStep, PreparedFlush};
pub(crate) use self::manifest::{
    ColdTables, Look, MANIFESTS_FAMILY, Now, Visit, below, cold_partitions, each_file, each_state,
    find_cold_tables, manifest, state as cold_state,
};
pub use self::manifest::{Manifest, ManifestFile};
pub use self::merge::{ColdScan, Prune};
pub(crate) use self::merge::{cold_key_before_end, each_live_cold_row, get_cold, scan_both};
pub use self::open::{OpenFile, Pages};
pub use self::owner::{Claim, Owner, instance_of};
pub use self::paths::{TablePath, USER_IN_PATH};
pub use self::places::Place;
pub use self::writer::{ColdWriter, FileOrigin, WrittenFile};

#[cfg(test)]
mod tests;
