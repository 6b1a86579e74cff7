use super::*;
use crate::testing::{commit, job, namespace, open, row, schema, seq, storage_location, table, user, write};
use log_format::{ChangeEvent as Change, JobStatus, Role, TableDropped};

/// Everything the tables hold, as text.
fn contents(system: &SystemTables) -> Vec<String> {
    vec![
        format!("{:?}", system.scan_all_namespaces().unwrap()),
        format!("{:?}", system.scan_all_tables().unwrap()),
        format!("{:?}", system.scan_all_table_schemas().unwrap()),
        format!("{:?}", system.scan_all_users().unwrap()),
        format!("{:?}", system.scan_all_storage_locations().unwrap()),
        format!("{:?}", system.scan_all_jobs().unwrap()),
    ]
}

fn created(id: u64) -> Vec<Change> {
    vec![Change::TableCreated(Box::new(table(id, 1))), Change::SchemaVersionAdded(Box::new(schema(id, 1)))]
}

fn dropped(id: u64) -> Change {
    let Table { id, namespace, name, .. } = table(id, 1);
    Change::TableDropped(Box::new(TableDropped { table: id, namespace, name }))
}

/// Every event of the catalog, each at least once; seqs 1 to 20.
fn history() -> Vec<Frame> {
    let frames = [
        vec![
            Change::NamespaceCreated(Box::new(namespace("app", 1))),
            Change::NamespaceCreated(Box::new(namespace("old", 1))),
            Change::UserCreated(Box::new(user("root", Role::Dba))),
            Change::UserCreated(Box::new(user("gone", Role::User))),
        ],
        [created(5), created(6)].concat(),
        vec![row(), Change::NamespaceAltered(Box::new(namespace("app", 2)))],
        vec![
            Change::SchemaVersionAdded(Box::new(schema(5, 2))),
            Change::TableAltered(Box::new(table(5, 2))),
            Change::NamespaceDropped(Box::new(NamespaceId::new("old"))),
            Change::UserDropped(Box::new(UserId::new("gone"))),
            Change::UserAltered(Box::new(user("root", Role::Service))),
        ],
        vec![
            Change::StorageLocationCreated(Box::new(storage_location("local", 0))),
            Change::StorageLocationAltered(Box::new(storage_location("local", 1))),
        ],
        vec![Change::JobCreated(Box::new(job("j", JobStatus::Queued))), dropped(6)],
        vec![Change::JobUpdated(Box::new(job("j", JobStatus::Completed)))],
    ];
    let mut next = 1;
    let commits = frames.iter().map(|events| {
        let frame = commit(next, events);
        next = frame.last_seq().next().get();
        frame
    });
    commits.collect()
}

#[test]
fn each_event_changes_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    assert_eq!(system.applied_seq().unwrap(), Seq::ZERO);
    for frame in history() {
        system.apply(std::slice::from_ref(&frame)).unwrap();
        assert_eq!(system.applied_seq().unwrap(), frame.last_seq());
    }
    assert_eq!(system.scan_all_namespaces().unwrap(), [namespace("app", 2)]);
    assert_eq!(system.scan_all_tables().unwrap(), [table(5, 2)]);
    assert_eq!(system.scan_all_table_schemas().unwrap(), [schema(5, 1), schema(5, 2)]);
    assert_eq!(system.scan_all_users().unwrap(), [user("root", Role::Service)]);
    assert_eq!(system.scan_all_storage_locations().unwrap(), [storage_location("local", 1)]);
    assert_eq!(system.scan_all_jobs().unwrap(), [job("j", JobStatus::Completed)]);

    let last = commit(40, &[Change::StorageLocationDropped(Box::new("local".to_owned()))]);
    system.apply(&[last]).unwrap();
    assert_eq!(system.scan_all_storage_locations().unwrap(), []);
}

#[test]
fn applying_twice_or_as_one_group_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(&dir.path().join("alone"));
    for frame in history() {
        let frame = std::slice::from_ref(&frame);
        system.apply(frame).unwrap();
        let once = contents(&system);
        system.apply(frame).unwrap();
        assert_eq!(contents(&system), once);
    }
    let expected = contents(&system);
    system.apply(&history()).unwrap();
    assert_eq!(contents(&system), expected, "all of it again, over what is there");

    let grouped = open(&dir.path().join("grouped"));
    grouped.apply(&history()).unwrap();
    assert_eq!(contents(&grouped), expected);
    assert_eq!(grouped.applied_seq().unwrap(), seq(20));
}

#[test]
fn rows_change_nothing_but_how_far_the_tables_are() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    system.apply(&history()).unwrap();
    let before = contents(&system);
    system.apply(&[]).unwrap();
    assert_eq!(system.applied_seq().unwrap(), seq(20));
    system.apply(&[commit(50, &[row(), row()])]).unwrap();
    assert_eq!(contents(&system), before);
    assert_eq!(system.applied_seq().unwrap(), seq(51));
}

#[test]
fn flushed_tables_have_everything_when_they_are_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    system.apply(&history()).unwrap();
    system.flush(true).unwrap();
    let before = contents(&system);
    assert!(matches!(SystemTables::open(dir.path()), Err(Error::Open { .. })), "one opener at a time");
    drop(system);
    let again = open(dir.path());
    assert_eq!(contents(&again), before);
    assert_eq!(again.applied_seq().unwrap(), seq(20));
}

#[test]
fn closing_alone_puts_nothing_onto_disk() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    let history = history();
    system.apply(&history[..2]).unwrap();
    let before = (contents(&system), system.applied_seq().unwrap());
    system.flush(true).unwrap();
    system.apply(&history[2..]).unwrap();
    assert_eq!((system.persisted_seq().unwrap(), system.applied_seq().unwrap()), (before.1, seq(20)));
    drop(system);
    let again = open(dir.path());
    assert_eq!((contents(&again), again.applied_seq().unwrap()), before);
}

#[test]
fn a_second_process_reads_what_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    let history = history();
    system.apply(&history[..2]).unwrap();
    system.flush(true).unwrap();
    let flushed = contents(&system);
    system.apply(&history[2..]).unwrap();
    let reader = SystemTables::open_read_only(dir.path()).unwrap();
    assert_eq!(contents(&reader), flushed);
    assert_eq!(reader.applied_seq().unwrap(), history[1].last_seq());
    assert!(reader.apply(&history[2..]).is_err(), "it cannot write");
    assert!(matches!(SystemTables::open_read_only(&dir.path().join("nowhere")), Err(Error::Open { .. })));
}

#[test]
fn what_is_not_a_record_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let system = open(dir.path());
    write(&system, |batch| {
        batch.writes.put_cf(&SystemTable::Users.family(&system.database)?, b"ann", b"nonsense");
        Ok(())
    });
    let damaged = |error: Error| matches!(error, Error::Damaged { table: "users", source: Some(_) });
    assert!(damaged(system.get_user(&UserId::new("ann")).unwrap_err()));
    assert!(damaged(system.scan_all_users().unwrap_err()));
    write(&system, |batch| {
        batch.writes.put(APPLIED_SEQ_KEY, b"short");
        Ok(())
    });
    assert!(matches!(system.applied_seq(), Err(Error::Damaged { table: "applied_seq", source: None })));
}

// ── what a killed process leaves ──

const CRASH_DIRECTORY: &str = "KALAMDB_SQL_TEST_CRASH_DIRECTORY";
const FLUSHED: u64 = 40;

fn write_until_killed(path: &Path) -> ! {
    let system = open(path);
    for number in 1..=2 * FLUSHED {
        system.apply(&[commit(2 * number - 1, &created(number))]).unwrap();
        if number == FLUSHED {
            system.flush(true).unwrap();
        }
    }
    // No destructor runs: what is in memory only is lost.
    std::process::abort()
}

#[test]
fn a_killed_process_leaves_records_and_applied_seq_in_agreement() {
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

    let system = open(dir.path());
    assert_eq!(system.applied_seq().unwrap(), seq(2 * FLUSHED), "what was flushed, and no more");
    let ids = |system: &SystemTables| -> Vec<u64> {
        let tables = system.scan_all_tables().unwrap();
        let schemas = system.scan_all_table_schemas().unwrap();
        let ids: Vec<u64> = tables.iter().map(|table| table.id.get()).collect();
        assert_eq!(schemas.iter().map(|schema| schema.table.get()).collect::<Vec<_>>(), ids);
        ids
    };
    assert_eq!(ids(&system), (1..=FLUSHED).collect::<Vec<_>>());

    // Replay from there: the same as if nothing had happened.
    for number in FLUSHED + 1..=2 * FLUSHED {
        system.apply(&[commit(2 * number - 1, &created(number))]).unwrap();
    }
    assert_eq!(ids(&system), (1..=2 * FLUSHED).collect::<Vec<_>>());
}
