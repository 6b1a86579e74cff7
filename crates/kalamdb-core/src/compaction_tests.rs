//! Compaction from the outside: what is asked for, what follows by itself, who still reads, whenever the process dies.

use std::time::Duration;

use kalamdb_log::Durability;
use log_format::{Role, Seq};
use serde_json::Value as Json;

use crate::clock;
use crate::cold_tests::{NOTES, cold_files, compact, dies_anywhere_in, files, flush, stats};
use crate::engine::Machine;
use crate::testing::{cells, root, session};
use crate::tests::{ok, open, refused};
use crate::{Engine, EngineOptions, ErrorCode};

/// Waits until an event is in the projection's files.
async fn durable(engine: &Engine, event: Seq) {
    let persisted = tokio::time::timeout(Duration::from_mins(1), async {
        while engine.store().persisted_seq().unwrap() < event {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    persisted.await.unwrap();
}

async fn notes(engine: &Engine, user: &str) -> Vec<Vec<String>> {
    let all = "SELECT id, body FROM app.notes ORDER BY id";
    cells(&ok(engine, &session(user, Role::User), all, &[]).await)
}

#[tokio::test]
async fn what_is_flushed_bit_by_bit_becomes_one_file_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    for id in 0..15 {
        for user in ["ann", "bob"] {
            let insert = format!("INSERT INTO app.notes VALUES ({id}, '{user} {id}')");
            ok(&engine, &session(user, Role::User), &insert, &[]).await;
        }
        flush(&engine, "app.notes").await;
        let told = stats(&engine, &session("ann", Role::User), "app.notes").await;
        assert!(told[2].parse::<u32>().unwrap() <= 6, "{id}: {told:?}");
    }
    // Fifteen rows of each: three files of four rows and three of one.
    assert_eq!(stats(&engine, &session("ann", Role::User), "app.notes").await, ["0", "15", "6"]);
    files(directory.path(), 12).await;
    compact(&engine, "app.notes").await;
    files(directory.path(), 2).await;
    for user in ["ann", "bob"] {
        let expected: Vec<_> = (0..15).map(|id| vec![id.to_string(), format!("{user} {id}")]).collect();
        assert_eq!(notes(&engine, user).await, expected);
    }
    let jobs = engine.system().scan_all_jobs().unwrap();
    let last =
        jobs.iter().filter(|job| job.job_type == "compact_table").max_by_key(|job| job.created_at).unwrap();
    let result: Json = serde_json::from_str(last.result.as_deref().unwrap()).unwrap();
    assert_eq!(
        (&result["partitions"], &result["files_before"], &result["files_after"]),
        (&2.into(), &12.into(), &2.into())
    );
    let changes = "SELECT count(*) FROM system.changes WHERE op = 'compact' AND table_name = 'notes'";
    assert_ne!(cells(&ok(&engine, &root(), changes, &[]).await), [["0"]]);
    compact(&engine, "app.notes").await;
    assert_eq!(cold_files(directory.path()), 2, "there is nothing left to do");
    engine.close();
    let engine = open(directory.path());
    assert_eq!(notes(&engine, "bob").await.len(), 15);
    engine.close();
}

#[tokio::test]
async fn who_reads_an_older_cut_keeps_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    let ann = session("ann", Role::User);
    for id in 0..2 {
        ok(&engine, &ann, &format!("INSERT INTO app.notes VALUES ({id}, 'a')"), &[]).await;
        flush(&engine, "app.notes").await;
    }
    let info = engine.catalog().find(&log_format::NamespaceId::new("app"), "notes").unwrap();
    let partition = ann.partition(&info);
    let cut = engine.store().cut().unwrap();
    compact(&engine, "app.notes").await;
    let compacted = engine.store().flushed_at(&partition).unwrap().unwrap();
    durable(&engine, compacted).await;
    // What may go goes after each turn of jobs: once the second one is done, the first one's turn has ended.
    flush(&engine, "app.notes").await;
    flush(&engine, "app.notes").await;
    assert_eq!(cold_files(directory.path()), 3);
    let listed = cut.manifest(&partition).unwrap().unwrap();
    assert_eq!(listed.files.len(), 2);
    assert!(listed.files.iter().all(|of| cut.open_file(&of.file).is_ok()));
    drop(cut);
    files(directory.path(), 1).await;
    assert_eq!(notes(&engine, "ann").await.len(), 2);
    engine.close();
}

#[tokio::test]
async fn replaced_files_stay_until_a_loss_of_power_cannot_bring_them_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = EngineOptions::new(directory.path());
    options.durability = Durability::Os;
    // Nobody does jobs by himself.
    let (engine, workers, _) = Engine::assemble(options, Machine::default()).unwrap();
    drop((workers.keeper, workers.flush_keeper));
    let (sequencer, jobs) = (workers.sequencer, workers.jobs);
    let sequencing = std::thread::spawn(move || sequencer.run());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), NOTES, &[]).await;
    let info = engine.catalog().find(&log_format::NamespaceId::new("app"), "notes").unwrap();
    let partition = ann.partition(&info);
    for id in 0..2 {
        ok(&engine, &ann, &format!("INSERT INTO app.notes VALUES ({id}, 'a')"), &[]).await;
        assert!(jobs.flush_once(&partition).unwrap());
    }
    assert!(jobs.compact_once(&partition).unwrap());
    let compacted = engine.store().flushed_at(&partition).unwrap().unwrap();
    assert!(engine.store().persisted_seq().unwrap() < compacted);
    assert_eq!(cold_files(directory.path()), 3, "the log may still lose the event that replaced them");
    engine.commits().ask_for_flush();
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (2, 'a')", &[]).await;
    durable(&engine, compacted).await;
    assert!(!jobs.compact_once(&partition).unwrap());
    assert_eq!(cold_files(directory.path()), 1);
    assert_eq!(notes(&engine, "ann").await.len(), 3);
    drop(jobs);
    engine.close();
    sequencing.join().unwrap();
}

#[tokio::test]
async fn old_tombstones_go_where_the_table_keeps_them_for_a_while_only() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    let create =
        "CREATE USER TABLE app.short (id BIGINT PRIMARY KEY, body TEXT) WITH (DELETED_RETENTION = '1ms')";
    ok(&engine, &root(), create, &[]).await;
    let ann = session("ann", Role::User);
    for (table, kept) in [("app.notes", "1"), ("app.short", "0")] {
        ok(&engine, &ann, &format!("INSERT INTO {table} VALUES (1, 'a'), (2, 'b')"), &[]).await;
        flush(&engine, table).await;
        ok(&engine, &ann, &format!("DELETE FROM {table} WHERE id = 1"), &[]).await;
        flush(&engine, table).await;
        let deleted_by = clock::now_micros();
        while clock::now_micros() <= deleted_by + 1000 {
            tokio::task::yield_now().await;
        }
        compact(&engine, table).await;
        let deleted = format!("SELECT count(*) FROM {table} WHERE _deleted");
        assert_eq!(cells(&ok(&engine, &ann, &deleted, &[]).await), [[kept]], "{table}");
        assert_eq!(cells(&ok(&engine, &ann, &format!("SELECT id FROM {table}"), &[]).await), [["2"]]);
    }
    engine.close();
}

#[tokio::test]
async fn only_those_who_may_compact_do_and_streams_never_are() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    ok(&engine, &root(), "CREATE STREAM TABLE app.events (body TEXT) WITH (TTL_SECONDS = 60)", &[]).await;
    let compact = "STORAGE COMPACT TABLE app.notes";
    assert_eq!(refused(&engine, &session("ann", Role::User), compact).await.0, ErrorCode::PermissionDenied);
    let (code, said) = refused(&engine, &root(), "STORAGE COMPACT TABLE app.events").await;
    assert!(code == ErrorCode::Unsupported && said.contains("compacting the stream table"), "{said}");
    assert_eq!(refused(&engine, &root(), "STORAGE COMPACT TABLE app.none").await.0, ErrorCode::TableNotFound);
    engine.close();
}

#[tokio::test]
async fn a_compaction_that_a_crash_interrupts_anywhere_loses_nothing_and_leaves_no_file() {
    let died = dies_anywhere_in("COMPACT", 1).await;
    assert!(died >= 10, "only {died} places");
}

#[tokio::test]
async fn cold_files_without_their_log_are_not_opened_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    ok(&engine, &session("ann", Role::User), "INSERT INTO app.notes VALUES (1, 'a')", &[]).await;
    flush(&engine, "app.notes").await;
    engine.close();
    let log = directory.path().join(crate::LOG_DIRECTORY);
    let away = tempfile::tempdir().unwrap();
    std::fs::rename(&log, away.path().join("log")).unwrap();
    for name in [crate::ROWS_DIRECTORY, crate::CATALOG_DIRECTORY] {
        std::fs::remove_dir_all(directory.path().join(name)).unwrap();
    }
    for _ in 0..2 {
        let refused = Engine::open(EngineOptions::new(directory.path())).unwrap_err().to_string();
        assert!(refused.contains("there is no log in") && refused.contains("Put the log back"), "{refused}");
    }
    assert_eq!(cold_files(directory.path()), 1);
    std::fs::remove_dir_all(&log).or_else(|error| if log.exists() { Err(error) } else { Ok(()) }).unwrap();
    std::fs::rename(away.path().join("log"), &log).unwrap();
    let engine = open(directory.path());
    assert_eq!(notes(&engine, "ann").await, [["1", "a"]]);
    engine.close();
}
