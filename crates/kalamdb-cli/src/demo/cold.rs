//! The Parquet files that a run left, read without the server: whose rows each has, and how many bytes they take.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::data::Inbox;

/// What a file says of whose rows it has.
const USER_METADATA: &str = "kalamdb.user";

/// All files of a run.
#[derive(Debug, Default)]
pub(super) struct ColdFiles {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// Files with rows of somebody else, in words.
    pub(super) wrong: Vec<String>,
}

/// Reads every file below the directory of cold files, which belongs to a server that has ended.
pub(super) fn examine<'a>(
    data_dir: &Path,
    inboxes: impl Iterator<Item = &'a Inbox>,
) -> anyhow::Result<ColdFiles> {
    let ids: HashMap<&str, HashSet<i64>> = inboxes
        .map(|inbox| (inbox.user.as_str(), inbox.messages.iter().map(|message| message.id).collect()))
        .collect();
    let mut found = ColdFiles::default();
    let mut owners: HashMap<PathBuf, String> = HashMap::new();
    for path in files_below(&data_dir.join("cold"))? {
        let (user, file_ids) = read(&path).with_context(|| path.display().to_string())?;
        let directory = path.parent().unwrap_or(&path).to_owned();
        let owner = owners.entry(directory).or_insert_with(|| user.clone());
        let is_foreign = |id: &i64| ids.get(user.as_str()).is_none_or(|own| !own.contains(id));
        if *owner != user || file_ids.iter().any(is_foreign) {
            found.wrong.push(format!("{} has rows of somebody else", path.display()));
        }
        found.files += 1;
        found.bytes += std::fs::metadata(&path)?.len();
        found.rows += file_ids.len() as u64;
    }
    Ok(found)
}

fn files_below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).with_context(|| format!("can't list {}", at.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Whose file it says it is, and the ids of its rows.
fn read(path: &Path) -> anyhow::Result<(String, Vec<i64>)> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let about = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let user = about.into_iter().find(|it| it.key == USER_METADATA).and_then(|it| it.value);
    let user = user.context("it does not say whose it is")?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["id"]);
    let mut ids = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let column = batch.column_by_name("id").and_then(|it| it.as_primitive_opt::<Int64Type>().cloned());
        ids.extend(column.context("it has no column id")?.values().iter().copied());
    }
    Ok((user, ids))
}
