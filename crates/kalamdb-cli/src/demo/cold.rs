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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::demo::data::Message;

    fn inbox(user: &str, ids: std::ops::Range<i64>) -> Inbox {
        let message = |id| Message {
            id,
            sent_at: String::new(),
            conversation: 1,
            sender: user.to_owned(),
            text: String::new(),
            ordinal: 0,
        };
        Inbox { user: user.to_owned(), messages: ids.map(|id| Arc::new(message(id))).collect() }
    }

    fn write(data_dir: &Path, path: &str, user: Option<&str>, ids: std::ops::Range<i64>) {
        let path = data_dir.join("cold").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let about = user.map(|user| vec![KeyValue::new(USER_METADATA.to_owned(), user.to_owned())]);
        let properties = WriterProperties::builder().set_key_value_metadata(about).build();
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
        let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
        let file = File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn files_with_rows_of_somebody_else_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let inboxes = [inbox("ann", 0..10), inbox("bob", 10..20)];
        let examined = || examine(directory.path(), inboxes.iter());
        write(directory.path(), "chat/ann/1.parquet", Some("ann"), 0..6);
        write(directory.path(), "chat/ann/2.parquet", Some("ann"), 6..10);
        write(directory.path(), "chat/bob/1.parquet", Some("bob"), 10..20);
        let found = examined().unwrap();
        assert_eq!((found.files, found.rows, found.wrong.len()), (3, 20, 0));
        assert!(found.bytes > 0);

        // A row too many, a file in another's directory, a file of nobody that is known.
        for (path, user, ids) in [
            ("chat/ann/3.parquet", "ann", 9..11),
            ("chat/bob/2.parquet", "ann", 0..1),
            ("chat/eve/1.parquet", "eve", 0..1),
        ] {
            write(directory.path(), path, Some(user), ids);
            let found = examined().unwrap();
            assert_eq!(found.wrong.len(), 1, "{path}: {:?}", found.wrong);
            std::fs::remove_file(directory.path().join("cold").join(path)).unwrap();
        }
        write(directory.path(), "chat/ann/4.parquet", None, 0..1);
        assert!(examined().unwrap_err().to_string().contains("4.parquet"));
    }
}
