use std::collections::BTreeMap;

use super::*;
use crate::testing::{
    Found, TABLE, append, commit, delete, drop_table, evict, insert, open, seq, shared, table_rows, update,
    user,
};
use log_format::ChangeEvent;
use proptest::prelude::*;

/// All a store holds, by keyspace.
fn contents(store: &Store) -> [Vec<Found>; 3] {
    let cut = store.cut().unwrap();
    Keyspace::ALL.map(|keyspace| table_rows(&cut, keyspace, TABLE))
}

fn sample() -> Vec<Frame> {
    let ann = user("ann");
    vec![
        commit(1, &[insert(&ann, b"a", b"1"), insert(&ann, b"b", b"2"), append(&ann, b"s")]),
        commit(4, &[update(&ann, b"a", b"1", b"3"), insert(&shared(), b"c", b"4")]),
        commit(6, &[delete(&ann, b"b", b"2"), append(&ann, b"t"), evict(&ann, 60, 0)]),
    ]
}

#[test]
fn a_new_store_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.applied_seq().unwrap(), Seq::ZERO);
    assert_eq!(store.cut().unwrap().seq(), Seq::ZERO);
    assert_eq!(contents(&store), [const { Vec::new() }; 3]);
    store.apply(&[]).unwrap();
    assert_eq!(store.applied_seq().unwrap(), Seq::ZERO, "no commit, no change");
}

#[test]
fn closing_alone_puts_nothing_onto_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [first, rest @ ..] = &sample()[..] else { panic!("there are several") };
    store.apply(std::slice::from_ref(first)).unwrap();
    store.flush(true).unwrap();
    let flushed = contents(&store);
    store.apply(rest).unwrap();
    assert_eq!((store.persisted_seq().unwrap(), store.applied_seq().unwrap()), (seq(3), seq(8)));
    drop(store);
    let again = open(dir.path());
    assert_eq!((contents(&again), again.applied_seq().unwrap()), (flushed, seq(3)));
}

#[test]
fn the_last_key_of_a_partition_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let last = |of: &log_format::Partition| store.last_key(Keyspace::User, of).unwrap();
    assert_eq!(last(&user("ann")), None);
    let others =
        [insert(&user("an"), b"z", b"1"), insert(&user("anna"), b"z", b"1"), insert(&user("b"), b"z", b"1")];
    store.apply(&[commit(1, &others)]).unwrap();
    assert_eq!(last(&user("ann")), None, "only others have rows");
    let own = [
        insert(&user("ann"), b"b", b"1"),
        insert(&user("ann"), b"a", b"1"),
        delete(&user("ann"), b"b", b"1"),
    ];
    store.apply(&[commit(4, &own)]).unwrap();
    assert_eq!(last(&user("ann")), Some(b"b".to_vec()), "a deleted row counts");
    store.flush(true).unwrap();
    assert_eq!(last(&user("ann")), Some(b"b".to_vec()));
}

#[test]
fn applying_writes_the_rows_and_how_far_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (number, frame) in sample().into_iter().enumerate() {
        store.apply(&[frame]).unwrap();
        assert_eq!(store.applied_seq().unwrap(), seq([3, 5, 8][number]));
        assert_eq!(store.cut().unwrap().seq(), seq([3, 5, 8][number]));
    }
    let [users, shared, streams] = contents(&store);
    let prefixed = |key: &[u8]| [b"ann\0\x01".as_slice(), key].concat();
    assert_eq!(
        users,
        [
            Found { updated: 40, ..Found::put(&prefixed(b"a"), 4, b"3") },
            Found { updated: 60, ..Found::tombstone(&prefixed(b"b"), 6, b"2") },
        ]
    );
    assert_eq!(shared, [Found { updated: 40, ..Found::put(b"\0\x01c", 5, b"4") }]);
    let key = prefixed(&crate::stream_key(60, seq(7)));
    assert_eq!(streams, [Found { updated: 60, ..Found::put(&key, 7, b"t") }], "the older one was evicted");
}

#[test]
fn an_event_that_cannot_be_read_is_named_and_nothing_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let good = commit(1, &[insert(&user("ann"), b"a", b"1")]);
    // An archive of all ones, under a checksum that says it is right: an attacker's frame.
    let mut bytes =
        log_format::Bytes::copy_from_slice(commit(2, &[append(&shared(), b"x")]).as_bytes()).to_vec();
    bytes[64..].fill(0xff);
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    let mut buffer = log_format::FrameBuffer::new();
    buffer.extend_from_slice(&bytes);
    let bad = Frame::parse(&log_format::Bytes::from_owner(buffer)).unwrap();
    let error = store.apply(&[good, bad]).unwrap_err();
    assert!(matches!(error, Error::Event { seq: found, .. } if found == seq(2)), "{error}");
    assert_eq!(store.applied_seq().unwrap(), Seq::ZERO);
    assert_eq!(contents(&store), [const { Vec::new() }; 3]);
}

/// Bit by bit, so that the crate needs no dependency for one test.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[test]
fn a_flushed_store_has_everything_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.apply(&sample()).unwrap();
    store.flush(true).unwrap();
    let before = contents(&store);
    drop(store);
    let again = open(dir.path());
    assert_eq!(contents(&again), before);
    assert_eq!(again.applied_seq().unwrap(), seq(8));
}

#[test]
fn a_store_that_is_open_is_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(Store::open(dir.path(), &crate::testing::options()), Err(Error::Open { .. })));
    drop(store);
    open(dir.path());
}

#[test]
fn what_is_not_a_row_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .write(0, |batch| {
            let mut key = crate::keyspace::partition_prefix(&user("ann"));
            key.push(b'k');
            batch.writes.put_cf(&store.shared.family(Keyspace::User)?, key, b"too short");
            Ok(())
        })
        .unwrap();
    assert!(matches!(store.head(Keyspace::User, &user("ann"), b"k"), Err(Error::Damaged { what: "row" })));
    let read = store.cut().unwrap().get(Keyspace::User, &user("ann"), b"k", |_| ());
    assert!(matches!(read, Err(Error::Damaged { what: "row" })));
    store
        .write(0, |batch| {
            batch.writes.put(APPLIED_SEQ_KEY, b"short");
            Ok(())
        })
        .unwrap();
    assert!(matches!(store.applied_seq(), Err(Error::Damaged { what: "applied_seq" })));
    assert!(store.cut().is_err());
}

// ── what a killed process leaves ──

const CRASH_DIRECTORY: &str = "KALAMDB_STORE_TEST_CRASH_DIRECTORY";
const CRASH_COMMITS: u64 = 6000;

/// One row in each of two keyspaces per commit, in memory that is full again and again: RocksDB flushes by itself,
/// mostly the one keyspace that got the large rows.
fn crash_commit(number: u64) -> Frame {
    let key = number.to_be_bytes();
    let large = [0x5a; 400];
    commit(2 * number - 1, &[insert(&user("ann"), &key, &large), insert(&shared(), &key, b"small")])
}

fn write_until_killed(path: &Path) -> ! {
    let options =
        StoreOptions { block_cache_bytes: 1 << 20, write_buffer_bytes: 256 << 10, ..StoreOptions::default() };
    let store = Store::open(path, &options).unwrap();
    for number in 1..=CRASH_COMMITS {
        store.apply(&[crash_commit(number)]).unwrap();
    }
    // No destructor runs: what is in memory only is lost.
    std::process::abort()
}

#[test]
fn a_killed_process_leaves_rows_and_applied_seq_in_agreement() {
    if let Some(path) = std::env::var_os(CRASH_DIRECTORY) {
        write_until_killed(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let this = std::thread::current().name().unwrap().to_owned();
    let killed = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &this])
        .env(CRASH_DIRECTORY, dir.path())
        .output()
        .unwrap();
    assert!(!killed.status.success(), "the other process was to abort: {killed:?}");

    let store = open(dir.path());
    let applied = store.applied_seq().unwrap().get();
    assert!(0 < applied && applied < 2 * CRASH_COMMITS, "some was on disk and some was not: {applied}");
    let [users, shared, _] = contents(&store);
    let seqs = |rows: &[Found]| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&users), (1..=applied).step_by(2).collect::<Vec<_>>());
    assert_eq!(seqs(&shared), (2..=applied).step_by(2).collect::<Vec<_>>());

    // Replay from there: the same as if nothing had happened.
    let (first, last) = (applied / 2 + 1, CRASH_COMMITS);
    let rest: Vec<Frame> = (first..=last).map(crash_commit).collect();
    store.apply(&rest).unwrap();
    let [users, shared, _] = contents(&store);
    assert_eq!((users.len() as u64, shared.len() as u64), (CRASH_COMMITS, CRASH_COMMITS));
}

// ── against a model ──

#[derive(Clone, Debug)]
enum Change {
    Put { owner: u8, key: u8, row: u8 },
    Delete { owner: u8, key: u8 },
    DropTable,
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        8 => (0_u8..3, 0_u8..6, any::<u8>()).prop_map(|(owner, key, row)| Change::Put { owner, key, row }),
        4 => (0_u8..3, 0_u8..6).prop_map(|(owner, key)| Change::Delete { owner, key }),
        1 => Just(Change::DropTable),
    ];
    prop::collection::vec(prop::collection::vec(change, 1..6), 1..8)
}

fn owner(number: u8) -> Partition {
    match number {
        0 => shared(),
        1 => user("ann"),
        _ => user("ann\0"),
    }
}

fn event(change: &Change) -> ChangeEvent {
    match *change {
        Change::Put { owner: number, key, row } => insert(&owner(number), &[key], &[row]),
        Change::Delete { owner: number, key } => delete(&owner(number), &[key], b"old"),
        Change::DropTable => drop_table(TABLE),
    }
}

/// What the store should hold: by owner and key, the seq, whether deleted, the row.
type Model = BTreeMap<(u8, u8), (u64, bool, Vec<u8>)>;

fn model(commits: &[Vec<Change>]) -> Model {
    let mut model = Model::new();
    for (seq, change) in (1..).zip(commits.iter().flatten()) {
        match *change {
            Change::Put { owner, key, row } => drop(model.insert((owner, key), (seq, false, vec![row]))),
            Change::Delete { owner, key } => drop(model.insert((owner, key), (seq, true, b"old".to_vec()))),
            Change::DropTable => model.clear(),
        }
    }
    model
}

fn stored(store: &Store) -> Model {
    let cut = store.cut().unwrap();
    let mut found = Model::new();
    for (number, keyspace) in [(0, Keyspace::Shared), (1, Keyspace::User), (2, Keyspace::User)] {
        let visit = |key: &[u8], row: StoredRow<'_>| {
            found.insert((number, key[0]), (row.seq.get(), row.deleted, row.row.to_vec()));
            std::ops::ControlFlow::Continue(())
        };
        cut.scan(keyspace, &owner(number), &crate::KeyRange::default(), visit).unwrap();
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_commits_give_what_they_say_once_or_twice_in_groups_or_alone(commits in changes(), flush_after in 0_usize..8) {
        let mut first_seq = 1;
        let frames: Vec<Frame> = commits.iter().map(|changes| {
            let frame = commit(first_seq, &changes.iter().map(event).collect::<Vec<_>>());
            first_seq = frame.last_seq().next().get();
            frame
        }).collect();
        let expected = model(&commits);
        let last = frames.last().map(Frame::last_seq).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let alone = open(&dir.path().join("alone"));
        for (number, frame) in frames.iter().enumerate() {
            alone.apply(std::slice::from_ref(frame)).unwrap();
            // What a crash after the log's write and before the acknowledgement leads to.
            alone.apply(std::slice::from_ref(frame)).unwrap();
            if number == flush_after {
                alone.flush(true).unwrap();
            }
        }
        prop_assert_eq!(&stored(&alone), &expected);
        prop_assert_eq!(alone.applied_seq().unwrap(), last);

        // A replay from the start, over what is there already.
        alone.apply(&frames).unwrap();
        prop_assert_eq!(&stored(&alone), &expected);
        prop_assert_eq!(alone.applied_seq().unwrap(), last);

        let grouped = open(&dir.path().join("grouped"));
        grouped.apply(&frames).unwrap();
        prop_assert_eq!(&stored(&grouped), &expected);
    }
}
