use super::*;
use crate::testing::{
    OTHER_TABLE, TABLE, append, commit, delete, drop_table, evict, insert, keys, open, seq, shared, update,
    user, write,
};
use crate::{Store, stream_key};
use log_format::UserId;

const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

fn row(number: u64) -> StoredRow<'static> {
    StoredRow { seq: seq(number), updated: 10, deleted: false, row: b"row" }
}

/// Fills one keyspace with the keys a to d in two partitions of a table and in another table.
struct Filled {
    _dir: tempfile::TempDir,
    store: Store,
    keyspace: Keyspace,
    mine: Partition,
    theirs: Partition,
    elsewhere: Partition,
}

impl Filled {
    fn new(keyspace: Keyspace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (mine, theirs) = (user("ann"), user("ann\0"));
        let elsewhere = Partition::of_user(OTHER_TABLE, UserId::new("ann"));
        let filled = Self { _dir: dir, store, keyspace, mine, theirs, elsewhere };
        for partition in [&filled.mine, &filled.theirs, &filled.elsewhere] {
            for key in KEYS {
                filled.change(|mut calls| calls.put(partition, key, &row(1)));
            }
        }
        filled
    }

    /// One typed call, through the type of the keyspace.
    fn change(&self, call: impl FnOnce(Calls<'_, '_>)) {
        write(&self.store, |batch| {
            call(match self.keyspace {
                Keyspace::User => Calls::Users(batch.users()),
                Keyspace::Shared => Calls::Shared(batch.shared()),
                Keyspace::Stream => Calls::Streams(batch.streams()),
            });
        });
    }

    fn keys(&self, partition: &Partition) -> Vec<Vec<u8>> {
        keys(&self.store, self.keyspace, partition)
    }

    /// Only my rows are other ones than before.
    #[track_caller]
    fn check(&self, mine: &[&[u8]]) {
        assert_eq!(self.keys(&self.mine), mine, "{:?}", self.keyspace);
        assert_eq!(self.keys(&self.theirs), KEYS, "{:?}: another user's", self.keyspace);
        assert_eq!(self.keys(&self.elsewhere), KEYS, "{:?}: another table's", self.keyspace);
        for other in Keyspace::ALL.into_iter().filter(|other| *other != self.keyspace) {
            assert!(
                keys(&self.store, other, &self.mine).is_empty(),
                "{other:?} has rows of {:?}",
                self.keyspace
            );
        }
    }
}

enum Calls<'b, 's> {
    Users(UserTableStore<'b, 's>),
    Shared(SharedTableStore<'b, 's>),
    Streams(StreamTableStore<'b, 's>),
}

impl Calls<'_, '_> {
    fn put(&mut self, partition: &Partition, key: &[u8], row: &StoredRow<'_>) {
        match self {
            Self::Users(calls) => calls.put(partition, key, row),
            Self::Shared(calls) => calls.put(partition, key, row),
            Self::Streams(calls) => calls.put(partition, key, row),
        }
    }

    fn delete(&mut self, partition: &Partition, key: &[u8]) {
        match self {
            Self::Users(calls) => calls.delete(partition, key),
            Self::Shared(calls) => calls.delete(partition, key),
            Self::Streams(calls) => calls.delete(partition, key),
        }
    }

    fn delete_batch_by_keys(&mut self, partition: &Partition, keys: &[&[u8]]) {
        let keys = keys.iter().copied();
        match self {
            Self::Users(calls) => calls.delete_batch_by_keys(partition, keys),
            Self::Shared(calls) => calls.delete_batch_by_keys(partition, keys),
            Self::Streams(calls) => calls.delete_batch_by_keys(partition, keys),
        }
    }

    fn drop_table(&mut self, table: TableId) {
        match self {
            Self::Users(calls) => calls.drop_table(table),
            Self::Shared(calls) => calls.drop_table(table),
            Self::Streams(calls) => calls.drop_table(table),
        }
    }
}

#[test]
fn put_adds_and_replaces() {
    for keyspace in Keyspace::ALL {
        let filled = Filled::new(keyspace);
        filled.check(&KEYS);
        filled.change(|mut calls| calls.put(&filled.mine, b"b", &row(5)));
        filled.change(|mut calls| calls.put(&filled.mine, b"", &row(6)));
        filled.check(&[b"", b"a", b"b", b"c", b"d"]);
        assert_eq!(filled.store.head(keyspace, &filled.mine, b"b").unwrap(), Some((seq(5), false)));
        assert_eq!(filled.store.head(keyspace, &filled.theirs, b"b").unwrap(), Some((seq(1), false)));
    }
}

#[test]
fn delete_leaves_no_trace() {
    for keyspace in Keyspace::ALL {
        let filled = Filled::new(keyspace);
        filled.change(|mut calls| calls.delete(&filled.mine, b"b"));
        filled.change(|mut calls| calls.delete(&filled.mine, b"never there"));
        filled.check(&[b"a", b"c", b"d"]);
        assert_eq!(filled.store.head(keyspace, &filled.mine, b"b").unwrap(), None);
    }
}

#[test]
fn delete_batch_by_keys_takes_the_named_ones() {
    for keyspace in Keyspace::ALL {
        let filled = Filled::new(keyspace);
        filled.change(|mut calls| calls.delete_batch_by_keys(&filled.mine, &[]));
        filled.check(&KEYS);
        filled.change(|mut calls| calls.delete_batch_by_keys(&filled.mine, &[b"d", b"a", b"x"]));
        filled.check(&[b"b", b"c"]);
    }
}

#[test]
fn drop_table_takes_every_partition_of_one_table() {
    for keyspace in Keyspace::ALL {
        let filled = Filled::new(keyspace);
        filled.change(|mut calls| calls.drop_table(TABLE));
        assert!(filled.keys(&filled.mine).is_empty(), "{keyspace:?}");
        assert!(filled.keys(&filled.theirs).is_empty(), "{keyspace:?}");
        assert_eq!(filled.keys(&filled.elsewhere), KEYS, "{keyspace:?}: another table's");
        filled.change(|mut calls| calls.put(&filled.mine, b"new", &row(9)));
        assert_eq!(filled.keys(&filled.mine), [b"new"], "what comes after is not dropped");
    }
}

#[test]
fn evict_older_than_goes_by_time_then_seq() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let places = [(-10, 1), (10, 2), (20, 3), (20, 4), (30, 5)];
    let (mine, theirs) = (user("ann"), user("ben"));
    for partition in [&mine, &theirs, &shared()] {
        for (time, number) in places {
            let key = stream_key(time, seq(number));
            write(&store, |batch| batch.streams().put(partition, &key, &row(number)));
        }
    }
    let left = |partition: &Partition| {
        let rows = keys(&store, Keyspace::Stream, partition);
        places
            .into_iter()
            .filter(|place| rows.contains(&stream_key(place.0, seq(place.1)).to_vec()))
            .collect()
    };
    let evict = |time: i64, number: u64| {
        write(&store, |batch| batch.streams().evict_older_than(&mine, time, seq(number)));
        let found: Vec<(i64, u64)> = left(&mine);
        found
    };
    assert_eq!(evict(-11, 9), places, "nothing is that old");
    assert_eq!(evict(0, 0), places[1..]);
    assert_eq!(evict(20, 4), places[3..], "of one time, those before the seq");
    assert_eq!(evict(31, 0), []);
    assert_eq!(left(&theirs), places, "another user's stay");
    assert_eq!(left(&shared()), places, "nobody's stay");
}

#[test]
fn each_event_changes_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ann = user("ann");
    let inserted = [
        insert(&ann, b"a", b"1"),
        insert(&ann, b"b", b"2"),
        insert(&shared(), b"s", b"3"),
        append(&ann, b"4"),
    ];
    store.apply(&[commit(10, &inserted)]).unwrap();
    assert_eq!(store.applied_seq().unwrap(), seq(13));
    assert_eq!(keys(&store, Keyspace::User, &ann), [b"a", b"b"]);
    assert_eq!(keys(&store, Keyspace::Shared, &shared()), [b"s"]);
    assert_eq!(keys(&store, Keyspace::Stream, &ann), [stream_key(100, seq(13))]);

    let changed = [update(&ann, b"a", b"1", b"5"), delete(&shared(), b"s", b"3"), evict(&ann, 100, 14)];
    store.apply(&[commit(20, &changed)]).unwrap();
    let cut = store.cut().unwrap();
    let read = |keyspace, partition: &Partition, key: &[u8]| {
        let own = |row: StoredRow<'_>| (row.seq.get(), row.updated, row.deleted, row.row.to_vec());
        cut.get(keyspace, partition, key, own).unwrap()
    };
    assert_eq!(read(Keyspace::User, &ann, b"a"), Some((20, 200, false, b"5".to_vec())));
    assert_eq!(read(Keyspace::User, &ann, b"b"), Some((11, 100, false, b"2".to_vec())));
    let tombstone = Some((21, 200, true, b"3".to_vec()));
    assert_eq!(read(Keyspace::Shared, &shared(), b"s"), tombstone, "a deleted row leaves a tombstone");
    assert!(keys(&store, Keyspace::Stream, &ann).is_empty());

    store.apply(&[commit(30, &[append(&ann, b"6")])]).unwrap();
    store.apply(&[commit(40, &[drop_table(TABLE)])]).unwrap();
    for keyspace in Keyspace::ALL {
        assert!(keys(&store, keyspace, &ann).is_empty(), "{keyspace:?}");
        assert!(keys(&store, keyspace, &shared()).is_empty(), "{keyspace:?}");
    }
    assert_eq!(store.applied_seq().unwrap(), seq(40));
}
