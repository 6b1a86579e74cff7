use std::ops::ControlFlow;

use log_format::{ChangeEvent, Frame, Partition, UserId};
use proptest::prelude::*;

use super::*;
use crate::testing::{
    OTHER_TABLE, TABLE, append, commit, delete, drop_table, evict, insert, open, shared, time_of, truncate,
    update, user,
};
use crate::{KeyRange, Store, StoredRow};

/// The live rows that are there, by a scan.
fn scanned(store: &Store, partition: &Partition) -> Counts {
    let mut found = Counts::default();
    let cut = store.cut().unwrap();
    for keyspace in Keyspace::ALL {
        let visit = |_: &[u8], row: StoredRow<'_>| {
            if !row.deleted {
                found = found.with(Delta::of_row(1, row.row));
            }
            ControlFlow::Continue(())
        };
        cut.scan(keyspace, partition, &KeyRange::default(), visit).unwrap();
    }
    found
}

fn partitions(table: TableId) -> [Partition; 3] {
    let of_user = |name| Partition::of_user(table, UserId::new(name));
    [Partition::shared(table), of_user("ann"), of_user("ann\0")]
}

/// Counts are what a scan finds, of every partition and of every table.
fn check(store: &Store) {
    for table in [TABLE, OTHER_TABLE] {
        let mut sum = Counts::default();
        for partition in partitions(table) {
            let counts = store.counts(&partition).unwrap();
            assert_eq!(counts, scanned(store, &partition), "{partition:?}");
            sum =
                Counts { rows: sum.rows + counts.rows, bytes: sum.bytes + counts.bytes, ..Counts::default() };
        }
        assert_eq!(store.table_counts(table).unwrap(), sum, "table {table}");
    }
}

#[test]
fn rows_are_counted_as_they_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ann = user("ann");
    let counts = |partition: &Partition| {
        let counts = store.counts(partition).unwrap();
        (counts.rows, counts.bytes)
    };
    let of_table = || {
        let counts = store.table_counts(TABLE).unwrap();
        (counts.rows, counts.bytes)
    };
    assert_eq!((counts(&ann), of_table()), ((0, 0), (0, 0)));
    let frames = [
        commit(1, &[insert(&ann, b"a", b"12"), insert(&ann, b"b", b"345"), insert(&shared(), b"c", b"6")]),
        commit(4, &[update(&ann, b"a", b"12", b"7"), delete(&shared(), b"c", b"6")]),
    ];
    store.apply(&frames[..1]).unwrap();
    assert_eq!((counts(&ann), counts(&shared()), of_table()), ((2, 5), (1, 1), (3, 6)));
    store.apply(&frames).unwrap();
    store.apply(&frames[1..]).unwrap();
    assert_eq!((counts(&ann), counts(&shared()), of_table()), ((2, 4), (0, 0), (2, 4)));
    // Dropped and written to in one batch: only what came after counts.
    let last = [
        commit(6, &[insert(&ann, b"d", b"8")]),
        commit(7, &[drop_table(TABLE)]),
        commit(8, &[insert(&shared(), b"e", b"90")]),
    ];
    store.apply(&last).unwrap();
    assert_eq!((counts(&ann), counts(&shared()), of_table()), ((0, 0), (1, 2), (1, 2)));
}

#[test]
fn evicted_rows_are_counted_whether_they_are_stored_or_of_the_same_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ann = user("ann");
    store.apply(&[commit(1, &[append(&ann, b"1"), append(&ann, b"22")])]).unwrap();
    let frames = [
        commit(3, &[append(&ann, b"333")]),
        commit(4, &[evict(&ann, time_of(1), 2)]),
        commit(5, &[evict(&ann, time_of(3), 4)]),
        commit(6, &[append(&ann, b"4444")]),
        commit(7, &[evict(&ann, time_of(3), 4)]),
    ];
    store.apply(&frames).unwrap();
    assert_eq!(store.counts(&ann).unwrap(), Counts { rows: 1, bytes: 4, ..Counts::default() });
    check(&store);
}

#[test]
fn what_was_not_written_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ann = user("ann");
    let failed = store.write(0, |batch| {
        let frame = commit(1, &[insert(&ann, b"a", b"1")]);
        for (seq, event) in frame.events() {
            batch.apply(seq, 0, event.unwrap())?;
        }
        Err(Error::Damaged { what: "test" })
    });
    assert!(failed.is_err());
    store.apply(&[commit(1, &[insert(&ann, b"a", b"1")])]).unwrap();
    assert_eq!(store.counts(&ann).unwrap(), Counts { rows: 1, bytes: 1, ..Counts::default() });
}

#[test]
fn files_whose_counts_are_of_another_event_are_counted_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [one, two, three] = partitions(TABLE);
    store.apply(&[commit(1, &[insert(&one, b"a", b"1"), truncate(OTHER_TABLE)])]).unwrap();
    store.flush(true).unwrap();
    let events = [insert(&two, b"a", b"22"), append(&three, b"333")];
    store.apply(&[commit(3, &events), commit(5, &[delete(&one, b"a", b"1")])]).unwrap();
    store.flush_files(true).unwrap();
    drop(store);
    let again = open(dir.path());
    check(&again);
    assert_eq!(again.table_counts(TABLE).unwrap(), Counts { rows: 2, bytes: 5, ..Counts::default() });
    assert_eq!(again.truncated_at(OTHER_TABLE).unwrap(), Seq::new(2), "that is no count");
}

#[test]
fn counts_that_no_flush_wrote_come_back_by_replay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [one, two, _] = partitions(TABLE);
    let frames = [
        commit(1, &[insert(&one, b"a", b"1"), insert(&two, b"a", b"22")]),
        commit(3, &[insert(&one, b"b", b"333"), delete(&two, b"a", b"22")]),
    ];
    store.apply(&frames[..1]).unwrap();
    store.flush(true).unwrap();
    store.apply(&frames[1..]).unwrap();
    check(&store);
    // No write-ahead log: what was not flushed is gone, rows and counts alike.
    drop(store);
    let again = open(dir.path());
    assert_eq!(again.table_counts(TABLE).unwrap(), Counts { rows: 2, bytes: 3, ..Counts::default() });
    check(&again);
    again.apply(&frames).unwrap();
    assert_eq!(again.table_counts(TABLE).unwrap(), Counts { rows: 2, bytes: 4, ..Counts::default() });
    check(&again);
}

// ── against a scan ──

#[derive(Clone, Debug)]
enum Change {
    Write { table: u8, owner: u8, key: u8, bytes: u8 },
    Delete { table: u8, owner: u8, key: u8 },
    Append { table: u8, owner: u8, bytes: u8 },
    Evict { table: u8, owner: u8, back: u8 },
    Drop { table: u8 },
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Vec<Change>>),
    Flush,
    /// What is in memory only is lost, and replayed.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        8 => (0_u8..2, 0_u8..3, 0_u8..5, 0_u8..9)
            .prop_map(|(table, owner, key, bytes)| Change::Write { table, owner, key, bytes }),
        4 => (0_u8..2, 0_u8..3, 0_u8..5).prop_map(|(table, owner, key)| Change::Delete { table, owner, key }),
        6 => (0_u8..2, 0_u8..3, 0_u8..9)
            .prop_map(|(table, owner, bytes)| Change::Append { table, owner, bytes }),
        3 => (0_u8..2, 0_u8..3, any::<u8>())
            .prop_map(|(table, owner, back)| Change::Evict { table, owner, back }),
        1 => (0_u8..2).prop_map(|table| Change::Drop { table }),
    ];
    let commits = prop::collection::vec(prop::collection::vec(change, 1..6), 1..5);
    let step =
        prop_oneof![6 => commits.prop_map(Step::Apply), 1 => Just(Step::Flush), 1 => Just(Step::Restart)];
    prop::collection::vec(step, 1..10)
}

type Rows = std::collections::HashMap<(u8, u8, u8), Vec<u8>>;

/// The event of a change; an insert or an update as the rows demand. None where it would change nothing.
fn event(change: &Change, rows: &mut Rows, first_seq: u64) -> Option<ChangeEvent> {
    let id = |table: u8| [TABLE, OTHER_TABLE][usize::from(table)];
    let place = |table: u8, owner: u8| partitions(id(table))[usize::from(owner)].clone();
    match *change {
        Change::Write { table, owner, key, bytes } => {
            let row = vec![b'x'; usize::from(bytes)];
            let at = place(table, owner);
            Some(match rows.insert((table, owner, key), row.clone()) {
                Some(old) => update(&at, &[key], &old, &row),
                None => insert(&at, &[key], &row),
            })
        }
        Change::Delete { table, owner, key } => {
            let old = rows.remove(&(table, owner, key))?;
            Some(delete(&place(table, owner), &[key], &old))
        }
        Change::Append { table, owner, bytes } => {
            Some(append(&place(table, owner), &vec![b'y'; usize::from(bytes)]))
        }
        Change::Evict { table, owner, back } => {
            // Before now, at this very time, or in a future that rows may yet come before.
            let at = (first_seq + 8).saturating_sub(u64::from(back) % 40);
            Some(evict(&place(table, owner), time_of(at), at + u64::from(back % 3)))
        }
        Change::Drop { table } => {
            rows.retain(|(of, ..), _| *of != table);
            Some(drop_table(id(table)))
        }
    }
}

fn frames(commits: &[Vec<Change>], rows: &mut Rows, next_seq: &mut u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    for changes in commits {
        let events: Vec<_> = changes.iter().filter_map(|change| event(change, rows, *next_seq)).collect();
        if !events.is_empty() {
            let frame = commit(*next_seq, &events);
            *next_seq = frame.last_seq().next().get();
            frames.push(frame);
        }
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counts_are_what_a_scan_finds_after_any_commits_restarts_and_replays(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir.path().join("live"));
        let (mut rows, mut next_seq, mut log) = (Rows::new(), 1, Vec::new());
        for step in &steps {
            match step {
                Step::Apply(commits) => {
                    let frames = frames(commits, &mut rows, &mut next_seq);
                    store.apply(&frames).unwrap();
                    log.extend(frames);
                }
                Step::Flush => store.flush(true).unwrap(),
                Step::Restart => {
                    drop(store);
                    store = open(&dir.path().join("live"));
                    check(&store);
                    store.apply(&log).unwrap();
                }
            }
            check(&store);
        }
        let rebuilt = open(&dir.path().join("rebuilt"));
        rebuilt.apply(&log).unwrap();
        check(&rebuilt);
        prop_assert_eq!(rebuilt.table_counts(TABLE).unwrap(), store.table_counts(TABLE).unwrap());
    }
}

#[test]
fn who_was_written_is_told_exactly_until_too_many_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut counters = Counters::new(Seq::new(5));
    let asked = |counters: &Counters, partition: &[u8]| {
        (0..100).find(|seq| !counters.may_be_written_since(partition, Seq::new(*seq))).unwrap()
    };
    let wrote = |counters: &mut Counters, partition: &[u8], seq| {
        counters.write_row(store.shared(), partition, Seq::new(seq), Delta::of_row(1, b"row")).unwrap();
        counters.finish(store.shared(), &mut WriteBatch::default()).unwrap();
    };
    assert_eq!(asked(&counters, b"a"), 5, "what was before is not known");
    wrote(&mut counters, b"00000001a", 9);
    counters.add(store.shared(), b"00000001b", Delta::of_row(1, b"row")).unwrap();
    assert_eq!(asked(&counters, b"00000001a"), 9);
    assert_eq!(asked(&counters, b"00000001b"), 5, "moving rows does not write them");
    counters.clear(TABLE, Seq::new(11));
    assert_eq!(asked(&counters, b"00000001a"), 9);
    assert_eq!(asked(&counters, &table_prefix(TABLE)), 11);
    for partition in 0..=SLOTS_MAX {
        let partition = [b"00000002", partition.to_be_bytes().as_slice()].concat();
        counters.write_row(store.shared(), &partition, Seq::new(20), Delta::of_row(1, b"row")).unwrap();
    }
    wrote(&mut counters, b"00000002", 21);
    assert_eq!(asked(&counters, b"00000001a"), 21, "all were forgotten");
}
