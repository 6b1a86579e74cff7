//! Where a cold file is. Names in paths are encoded, so that nothing a user types leads anywhere else or means something
//! to a file system.
//!
//! In a place elsewhere all of it is below `@{location}/`. There it is
//! `{namespace}/{table}-{id}/{user}/{file}-v{version}.parquet` for USER tables, `{namespace}/shared/{table}-{id}/…` for
//! SHARED ones. The id keeps a table apart from another of its name that was dropped before. An encoded name has no `-`, so
//! no table's directory is called `shared`.

use log_format::{Partition, SchemaVersion, TableId};

/// Bytes of an encoded name at the most; what is longer ends in a checksum of the whole.
const NAME_BYTES_MAX: usize = 180;

/// The directory of a table's files, without the slash at its end. A location is a place elsewhere.
pub fn table_directory(
    location: Option<&str>,
    namespace: &str,
    table: &str,
    id: TableId,
    is_shared: bool,
) -> String {
    let place = location.map(|name| format!("@{name}/")).unwrap_or_default();
    let between = if is_shared { "/shared/" } else { "/" };
    format!("{place}{}{between}{}-{id}", encoded(namespace), encoded(table))
}

/// The path of a partition's file below its table's directory.
pub fn file_path(directory: &str, partition: &Partition, file: u64, version: SchemaVersion) -> String {
    match &partition.user {
        Some(user) => format!("{directory}/{}/{file:020}-v{version}.parquet", encoded(user.as_str())),
        None => format!("{directory}/{file:020}-v{version}.parquet"),
    }
}

/// Lower-case letters, digits and `_` stand for themselves, every other byte is `=` and two hexadecimal digits: also where
/// a file system takes `A` and `a` for the same. No name is empty.
fn encoded(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len() + 1);
    for byte in name.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' {
            out.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(out, "={byte:02x}");
        }
    }
    if out.is_empty() {
        out.push('=');
    }
    if out.len() > NAME_BYTES_MAX {
        let mut digest = [0_u64; 2];
        for (slot, seed) in digest.iter_mut().zip([0xcbf2_9ce4_8422_2325, 0x9e37_79b9_7f4a_7c15]) {
            *slot = name
                .bytes()
                .fold(seed, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        }
        let [first, second] = digest;
        out.truncate(NAME_BYTES_MAX - 34);
        let _ = write!(out, "=={first:016x}{second:016x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use log_format::UserId;

    fn path_of(user: &str) -> String {
        let partition = Partition::of_user(TableId::new(7), UserId::new(user));
        file_path("chat/notes-7", &partition, 41, SchemaVersion::FIRST)
    }

    #[test]
    fn nothing_that_is_typed_leads_out_of_the_directory() {
        for user in
            ["..", "../..", "/etc/passwd", ".", "", "a/b", "a\\b", "a\0b", "CON", "é", "=2e", "%2e%2e"]
        {
            let path = path_of(user);
            let parts: Vec<&str> = path.split('/').collect();
            assert_eq!(parts.len(), 4, "{path}");
            let plain = |part: &&str| {
                part.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"_=-.".contains(&it))
            };
            assert!(parts.iter().all(plain), "{path}");
            assert!(!parts[2].is_empty() && !parts[2].contains('.'), "{path}");
        }
    }

    #[test]
    fn different_users_have_different_files() {
        let long = "x".repeat(4000);
        let users = ["", "a", "A", "=", "a-b", "a_b", "a=2db", &long, &long[1..]];
        let mut paths: Vec<String> = users.iter().map(|user| path_of(user)).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), users.len());
        assert!(paths.iter().all(|path| path.len() < 255));
    }

    #[test]
    fn a_shared_table_is_never_a_user_of_a_table_called_shared() {
        assert_eq!(table_directory(None, "app", "shared", TableId::new(3), false), "app/shared-3");
        assert_eq!(table_directory(None, "app", "x", TableId::new(4), true), "app/shared/x-4");
    }
}
