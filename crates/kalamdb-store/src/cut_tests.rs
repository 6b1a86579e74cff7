use super::*;
use crate::Store;
use crate::testing::{
    Found, OTHER_TABLE, TABLE, commit, delete, insert, open, shared, table_rows, update, user,
};
use log_format::ChangeEvent;

fn filled() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let letters = [b"a", b"b", b"c", b"d", b"e"];
    let events: Vec<ChangeEvent> = letters.iter().map(|key| insert(&user("ann"), *key, *key)).collect();
    store.apply(&[commit(1, &events)]).unwrap();
    (dir, store)
}

/// The keys in a range, read in pieces of `most`.
fn read(store: &Store, range: KeyRange, most: usize) -> String {
    let cut = store.cut().unwrap();
    let (mut found, mut next) = (String::new(), Some(range));
    while let Some(range) = next {
        let mut room = most;
        let visit = |key: &[u8], row: StoredRow<'_>| {
            assert_eq!(key, row.row, "a key comes without its partition, with its own row");
            found.push_str(std::str::from_utf8(key).unwrap());
            room -= 1;
            if room == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let scanned = cut.scan(Keyspace::User, &user("ann"), &range, visit).unwrap();
        next = scanned.rest(range.until);
    }
    found
}

fn range(from: &[u8], until: &[u8]) -> KeyRange {
    let bound = |key: &[u8]| Some(key.to_vec()).filter(|key| !key.is_empty());
    KeyRange { from: bound(from), until: bound(until) }
}

#[test]
fn scan_takes_the_range_in_pieces_of_any_size() {
    let (_dir, store) = filled();
    for most in 1..7 {
        assert_eq!(read(&store, KeyRange::default(), most), "abcde");
        assert_eq!(read(&store, range(b"b", b"d"), most), "bc");
        assert_eq!(read(&store, range(b"", b"c"), most), "ab");
        assert_eq!(read(&store, range(b"bb", b""), most), "cde");
        assert_eq!(read(&store, KeyRange::with_prefix(b"c"), most), "c");
        assert_eq!(read(&store, KeyRange::with_prefix(b""), most), "abcde");
        assert_eq!(read(&store, range(b"d", b"b"), most), "", "the end stands before the beginning");
        assert_eq!(read(&store, range(b"c", b"c"), most), "");
        assert_eq!(read(&store, range(b"x", b""), most), "", "no other partition's rows follow");
    }
}

#[test]
fn get_reads_one_row_tombstones_included() {
    let (_dir, store) = filled();
    store.apply(&[commit(10, &[delete(&user("ann"), b"b", b"b")])]).unwrap();
    let cut = store.cut().unwrap();
    let get = |partition: &Partition, key: &[u8]| {
        cut.get(Keyspace::User, partition, key, |row| Found::of(key, row)).unwrap()
    };
    assert_eq!(get(&user("ann"), b"b"), Some(Found::tombstone(b"b", 10, b"b")));
    assert_eq!(get(&user("ann"), b"a").map(|found| found.seq), Some(1));
    assert_eq!(get(&user("ann"), b"x"), None);
    assert_eq!(get(&user("ben"), b"a"), None, "another user's");
    assert_eq!(get(&Partition::of_user(OTHER_TABLE, UserId::new("ann")), b"a"), None, "another table's");
    assert_eq!(cut.get(Keyspace::Shared, &user("ann"), b"a", |_| ()).unwrap(), None, "another keyspace's");
}

#[test]
fn scan_user_sees_one_user() {
    let (_dir, store) = filled();
    let others = ["an", "ann\0", "anna", "", "b"];
    let events: Vec<ChangeEvent> =
        others.iter().map(|name| insert(&user(name), b"foreign", b"foreign")).collect();
    store.apply(&[commit(10, &events)]).unwrap();
    store.apply(&[commit(20, &[insert(&shared(), b"foreign", b"foreign")])]).unwrap();
    let cut = store.cut().unwrap();
    let keys_of = |name: &str| {
        let mut found = Vec::new();
        let visit = |key: &[u8], _: StoredRow<'_>| {
            found.push(key.to_vec());
            ControlFlow::Continue(())
        };
        assert_eq!(cut.scan_user(TABLE, &UserId::new(name), visit).unwrap(), Scanned::All);
        found
    };
    assert_eq!(keys_of("ann"), [b"a", b"b", b"c", b"d", b"e"]);
    for name in others {
        assert_eq!(keys_of(name), [b"foreign"], "{name:?}");
    }
    assert!(keys_of("nobody").is_empty());
}

#[test]
fn scan_table_sees_every_partition_of_one_table() {
    let (_dir, store) = filled();
    let elsewhere = Partition::of_user(OTHER_TABLE, UserId::new("ann"));
    store.apply(&[commit(10, &[insert(&user("ben"), b"z", b"z"), insert(&elsewhere, b"y", b"y")])]).unwrap();
    let cut = store.cut().unwrap();
    let found = table_rows(&cut, Keyspace::User, TABLE);
    let names: Vec<u8> = found.iter().filter_map(|found| found.row.first().copied()).collect();
    assert_eq!(names, b"abcdez");
    assert!(found.iter().all(|found| found.key.starts_with(b"ann\0\x01") || found.key == b"ben\0\x01z"));
    assert_eq!(table_rows(&cut, Keyspace::User, OTHER_TABLE).len(), 1);
}

#[test]
fn a_cut_stays_as_it_is_while_later_commits_are_applied() {
    let (_dir, store) = filled();
    let cut = store.cut().unwrap();
    let before = table_rows(&cut, Keyspace::User, TABLE);
    store
        .apply(&[commit(10, &[update(&user("ann"), b"a", b"a", b"new"), insert(&user("ann"), b"f", b"f")])])
        .unwrap();
    store.flush(true).unwrap();
    store.apply(&[commit(20, &[crate::testing::drop_table(TABLE)])]).unwrap();
    assert_eq!(table_rows(&cut, Keyspace::User, TABLE), before);
    assert_eq!(cut.seq().get(), 5);
    assert!(table_rows(&store.cut().unwrap(), Keyspace::User, TABLE).is_empty());
}

/// Each commit writes the same number into two keyspaces: a cut in which they differ, or differ from its seq, is torn.
#[test]
fn cuts_taken_while_another_thread_applies_are_whole() {
    const COMMITS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let both = |number: u64| {
        let row = number.to_le_bytes();
        commit(2 * number - 1, &[insert(&user("ann"), b"k", &row), insert(&shared(), b"k", &row)])
    };
    store.apply(&[both(1)]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (2..=COMMITS).for_each(|number| store.apply(&[both(number)]).unwrap()));
        loop {
            let cut = store.cut().unwrap();
            let number = |keyspace, partition: &Partition| {
                let own = |row: StoredRow<'_>| u64::from_le_bytes(row.row.try_into().unwrap());
                cut.get(keyspace, partition, b"k", own).unwrap().unwrap()
            };
            let (left, right) = (number(Keyspace::User, &user("ann")), number(Keyspace::Shared, &shared()));
            assert_eq!((left, cut.seq().get()), (right, 2 * left));
            if left == COMMITS {
                break;
            }
        }
    });
}

#[test]
fn a_cut_outlives_the_handle_it_came_from() {
    let (dir, store) = filled();
    let cut = store.cut().unwrap();
    store.flush(true).unwrap();
    drop(store);
    assert_eq!(table_rows(&cut, Keyspace::User, TABLE).len(), 5);
    drop(cut);
    assert_eq!(open(dir.path()).applied_seq().unwrap().get(), 5, "the last one closes the database");
}
