//! Copies of directories.

use std::fs;
use std::path::Path;

/// Copies a directory with all that is in it; how many bytes that was.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> u64 {
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_directory(&entry.path(), &to)
            } else {
                fs::copy(entry.path(), to).unwrap()
            }
        })
        .sum()
}
