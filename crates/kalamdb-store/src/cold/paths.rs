//! Where a cold file is. Names in paths are encoded, so that nothing a user types leads anywhere else or means something
//! to a file system.
//!
//! In a place elsewhere all of it is below `@{location}/`. There it is
//! `{namespace}/{table}-{id}/{user}/{file}-v{version}.parquet` for USER tables, `{namespace}/shared/{table}-{id}/…` for
//! SHARED ones; where a table was given a path, `{path}/{table}-{id}/…` with the user where the path says `${user_id}`, or at its
//! end. The id keeps a table apart from another of its name that was dropped before. An encoded name has no `-`, so no table's
//! directory is called `shared`.

use log_format::{Partition, SchemaVersion, TableId};

/// Bytes of an encoded name at the most; what is longer ends in a checksum of the whole.
const NAME_BYTES_MAX: usize = 180;

/// What stands for the user in a table's path.
pub const USER_IN_PATH: &str = "${user_id}";

/// Where the files of a table are: `{above}/{user}{below}/{file}`, without the user for SHARED tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePath {
    above: String,
    below: String,
}

impl TablePath {
    /// Of a table without a path of its own. A location is a place elsewhere.
    pub fn new(location: Option<&str>, namespace: &str, table: &str, id: TableId, is_shared: bool) -> Self {
        let place = location.map(|name| format!("@{name}/")).unwrap_or_default();
        let between = if is_shared { "/shared/" } else { "/" };
        let above = format!("{place}{}{between}{}-{id}", encoded(namespace), encoded(table));
        Self { above, below: String::new() }
    }

    /// Of a table that was given a path. What is in it that a name in a path cannot be is encoded.
    pub fn in_path(location: Option<&str>, path: &str, table: &str, id: TableId) -> Self {
        let own = format!("{}-{id}", encoded(table));
        let (above, below) = path.split_once(USER_IN_PATH).unwrap_or((path, ""));
        let joined = |text: &str| text.split('/').filter(|it| !it.is_empty()).map(plain).collect::<Vec<_>>();
        let (mut above, mut below) = (joined(above), joined(below));
        let last = if path.contains(USER_IN_PATH) { &mut below } else { &mut above };
        last.push(own);
        // It follows the user, who is no part of it.
        below.insert(0, String::new());
        if let Some(name) = location {
            above.insert(0, format!("@{name}"));
        }
        Self { above: above.join("/"), below: below.join("/") }
    }

    /// Below where they are, others' files perhaps among them.
    pub fn above(&self) -> &str {
        &self.above
    }

    /// Whether a file is one of the table's: it stands exactly where those do. Another table's path may lead further down.
    pub fn has(&self, file: &str) -> bool {
        let below_above = match self.above.as_str() {
            "" => Some(file),
            above => file.strip_prefix(above).and_then(|rest| rest.strip_prefix('/')),
        };
        let Some(rest) = below_above else { return false };
        let Some((directory, _)) = rest.rsplit_once('/') else { return self.below.is_empty() };
        let is_encoded =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_=".contains(&byte);
        let user = directory.strip_suffix(self.below.as_str());
        user.is_some_and(|user| !user.is_empty() && user.bytes().all(is_encoded))
    }

    /// A partition's file.
    pub fn file(&self, partition: &Partition, file: u64, version: SchemaVersion) -> String {
        let Self { above, below } = self;
        // Where the path begins with the user nothing is above.
        let above = if above.is_empty() { String::new() } else { format!("{above}/") };
        let user = partition.user.as_ref().map(|user| format!("{}{below}/", encoded(user.as_str())));
        format!("{above}{}{file:020}-v{version}.parquet", user.unwrap_or_default())
    }
}

/// A segment of a path as it is, where that is no trouble to anyone.
fn plain(segment: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    let fits = segment.len() <= NAME_BYTES_MAX && !segment.starts_with('.') && segment.bytes().all(is_plain);
    if fits { segment.to_owned() } else { encoded(segment) }
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
        TablePath::new(None, "chat", "notes", TableId::new(7), false).file(
            &partition,
            41,
            SchemaVersion::FIRST,
        )
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
        let at = |table: &str, id, is_shared| {
            TablePath::new(None, "app", table, TableId::new(id), is_shared).above
        };
        assert_eq!(at("shared", 3, false), "app/shared-3");
        assert_eq!(at("x", 4, true), "app/shared/x-4");
    }

    #[test]
    fn a_tables_own_path_has_the_user_where_it_says_and_leads_nowhere_else() {
        let ann = Partition::of_user(TableId::new(7), UserId::new("Ann"));
        let all = Partition::shared(TableId::new(7));
        let at = |path: &str| TablePath::in_path(None, path, "notes", TableId::new(7));
        let file = "00000000000000000041-v1.parquet";
        for (path, partition, expected) in [
            ("archive/${user_id}/chat", &ann, "archive/=41nn/chat/notes-7/"),
            ("${user_id}", &ann, "=41nn/notes-7/"),
            ("archive", &ann, "archive/notes-7/=41nn/"),
            ("archive/2026-q1", &all, "archive/2026-q1/notes-7/"),
            ("../It's/./${user_id}/..", &ann, "=2e=2e/=49t=27s/=2e/=41nn/=2e=2e/notes-7/"),
        ] {
            let found = at(path).file(partition, 41, SchemaVersion::FIRST);
            assert_eq!(found, format!("{expected}{file}"), "{path}");
            assert!(at(path).has(&found), "{path}");
        }
        let with_user = at("archive/${user_id}/chat");
        assert!(!with_user.has("archive/=41nn/chat/notes-8/x.parquet"));
        assert!(!with_user.has("archive/=41nn/chat/notes-70/x.parquet"));
        assert!(!with_user.has("archive/notes-7/x.parquet"));
        // Tables whose paths lead below this one's directory.
        let default = TablePath::new(None, "app", "messages", TableId::new(7), false);
        assert!(default.has("app/messages-7/ann/x.parquet"));
        for (path, partition) in [
            ("app/messages-7", &ann),
            ("app/messages-7", &all),
            ("app/messages-7/${user_id}", &ann),
            ("app/messages-7/ann", &ann),
            ("app/messages-7/ann", &all),
        ] {
            let other = TablePath::in_path(None, path, "notes", TableId::new(9));
            let file = other.file(partition, 41, SchemaVersion::FIRST);
            assert!(other.has(&file) && !default.has(&file), "{file}");
        }
        let far = TablePath::in_path(Some("s3"), "a/${user_id}", "notes", TableId::new(7));
        assert_eq!(far.file(&ann, 41, SchemaVersion::FIRST), format!("@s3/a/=41nn/notes-7/{file}"));
    }
}
