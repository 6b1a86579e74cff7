//! Restores from the outside: nobody uses what is not whole, whenever the process dies, and nobody who listened takes restored rows for those
//! they knew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kalamdb_log::simulation::SimulatedDisk;
use kalamdb_log::{Durability, LogDirectory, LogOptions, LogWriter};
use log_format::{JobStatus, Role, Seq};

use crate::backup_tests::{
    TABLES, back_up, completed, content, fill, fill_with, last_job, reached, restore, stopping_at,
};
use crate::cold_tests::flush;
use crate::engine::Machine;
use crate::fail_points::FailPoint;
use crate::testing::{Fuse, Kept, Random, all_done, arrived, materialise, root, session, take_over, until};
use crate::tests::{ok, open, refused};
use crate::{Engine, EngineOptions, ErrorCode, OnGap, SubscribeRequest, Subscription};

#[tokio::test]
async fn nobody_uses_a_namespace_before_it_is_restored() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (engine, at_place, go_on) = stopping_at(directory.path(), FailPoint::AfterRestoredRows);
    fill(&engine).await;
    back_up(&engine, "chat", backup.path()).await;
    let from = format!("FROM '{}'", backup.path().display());
    ok(&engine, &root(), &format!("RESTORE DATABASE chat {from} AS copy"), &[]).await;
    reached(at_place).await;
    for statement in [
        "SELECT * FROM copy.notes",
        "SELECT * FROM copy.notes WHERE id = 1",
        "SELECT * FROM changes('copy.notes', 0)",
        "INSERT INTO copy.notes (id) VALUES (1)",
        "DROP TABLE copy.notes",
        "ALTER TABLE copy.notes ADD COLUMN c INT",
        "TRUNCATE TABLE copy.rooms",
        "STORAGE FLUSH TABLE copy.notes",
        "CREATE USER TABLE copy.other (id INT PRIMARY KEY)",
        "DROP NAMESPACE copy CASCADE",
        "ALTER NAMESPACE copy SET OPTIONS (A = 1)",
        "SHOW TABLES IN copy",
        "USE copy",
        "BACKUP DATABASE copy TO '/tmp/nowhere-at-all'",
        &format!("RESTORE DATABASE chat {from} AS copy"),
    ] {
        let (code, text) = refused(&engine, &root(), statement).await;
        assert_eq!(code, ErrorCode::Conflict, "{statement}: {text}");
        assert!(text.contains("being restored by the job restore_database-"), "{statement}: {text}");
    }
    let request =
        SubscribeRequest { sql: "SELECT * FROM copy.notes".to_owned(), ..SubscribeRequest::default() };
    let refused = engine.subscribe(&root(), request, Kept::with_room(1)).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::Conflict, "{refused}");
    // Everything else goes on.
    let shown = ok(&engine, &root(), "SHOW TABLES", &[]).await;
    assert!(shown.contains("| chat ") && !shown.contains("| copy "), "{shown}");
    let schemas = "SELECT count(*) FROM information_schema.tables WHERE table_schema IN ('chat', 'copy')";
    assert!(ok(&engine, &root(), schemas, &[]).await.contains("| 3 "));
    ok(&engine, &session("ann", Role::User), "DELETE FROM chat.notes WHERE id = 1", &[]).await;
    go_on.send(()).unwrap();
    assert_eq!(last_job(&engine, "restore_database").await.status, JobStatus::Completed);
    let count = "SELECT count(*) FROM copy.notes";
    assert!(ok(&engine, &session("ann", Role::User), count, &[]).await.contains("2500"));
    engine.close();
}

#[tokio::test]
async fn a_restore_that_fails_and_dies_meanwhile_says_so_all_the_same() {
    let backup = tempfile::tempdir().unwrap();
    let template = tempfile::tempdir().unwrap();
    let engine = open(template.path());
    fill_with(&engine, 700).await;
    back_up(&engine, "chat", backup.path()).await;
    ok(&engine, &session("ann", Role::User), "UPDATE chat.notes SET n = 1", &[]).await;
    let done = back_up(&engine, "chat", backup.path()).await;
    engine.close();
    // The first part can be read, the second one not.
    let file = backup.path().join(format!("changes-{:020}.frames.zst", done["seq"].as_u64().unwrap()));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let restore = format!("RESTORE DATABASE chat FROM '{}'", backup.path().display());
    for places in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let (engine, fuse) = Fuse::open(directory.path());
        fuse.light(places);
        engine.execute(&mut root(), &restore, &[]).await;
        let survived = fuse.survives(&engine, 1).await;
        engine.close();
        let engine = open(directory.path());
        let jobs = all_done(&engine).await;
        assert!(
            jobs.iter().all(|job| job.status == JobStatus::Failed),
            "dead after {places} places: {jobs:?}"
        );
        let (code, _) = refused(&engine, &root(), "SHOW TABLES IN chat").await;
        assert_eq!(code, ErrorCode::NamespaceNotFound, "dead after {places} places");
        engine.close();
        if survived {
            assert!(places >= 15, "only {places} places");
            break;
        }
    }
}

#[tokio::test]
async fn a_namespace_cannot_be_brought_back_as_it_was_amid_its_own_restore_or_while_it_was_gone() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    fill_with(&engine, 1100).await;
    let before = content(&engine, "chat").await;
    back_up(&engine, "chat", backup.path()).await;
    ok(&engine, &root(), "DROP NAMESPACE chat CASCADE", &[]).await;
    let dropped = engine.published();
    all_done(&engine).await;
    restore(&engine, backup.path(), "").await;
    let restored = engine.published();
    back_up(&engine, "chat", backup.path()).await;
    let amid = Seq::new(restored.get() - 1000);
    for (until, said) in [(dropped, "was not there"), (amid, "was being restored itself")] {
        let sql =
            format!("RESTORE DATABASE chat FROM '{}' AS other UNTIL SEQ {until}", backup.path().display());
        ok(&engine, &root(), &sql, &[]).await;
        let job = last_job(&engine, "restore_database").await;
        assert_eq!(job.status, JobStatus::Failed);
        assert!(job.error_message.as_deref().unwrap().contains(said), "{until}: {job:?}");
        assert_eq!(refused(&engine, &root(), "USE other").await.0, ErrorCode::NamespaceNotFound);
    }
    restore(&engine, backup.path(), "AS other").await;
    assert_eq!(content(&engine, "other").await, before);
    engine.close();
}

#[tokio::test]
async fn a_restore_or_a_backup_that_dies_anywhere_is_done_at_the_next_start() {
    let backup = tempfile::tempdir().unwrap();
    let template = tempfile::tempdir().unwrap();
    let engine = open(template.path());
    fill_with(&engine, 400).await;
    flush(&engine, "chat.notes").await;
    ok(&engine, &session("ann", Role::User), "UPDATE chat.notes SET n = 1 WHERE id % 3 = 0", &[]).await;
    let before = content(&engine, "chat").await;
    back_up(&engine, "chat", backup.path()).await;
    engine.close();
    let (mut died, mut places, mut random) = (0, 1, Random(4711));
    loop {
        let (directory, other_backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (engine, fuse) = Fuse::open(directory.path());
        fill_with(&engine, 400).await;
        all_done(&engine).await;
        let backed_up = content(&engine, "chat").await;
        let restore = format!("RESTORE DATABASE chat FROM '{}' AS copy", backup.path().display());
        let save = format!("BACKUP DATABASE chat TO '{}'", other_backup.path().display());
        ok(&engine, &root(), &format!("{restore}; {save}"), &[]).await;
        fuse.light(places);
        let survived = fuse.survives(&engine, 2).await;
        engine.close();
        let engine = open(directory.path());
        for job in all_done(&engine).await {
            assert_eq!(job.status, JobStatus::Completed, "dead after {places} places: {job:?}");
        }
        assert_eq!(content(&engine, "copy").await, before, "dead after {places} places");
        assert!(!directory.path().join("restore").exists());
        let records = "SELECT count(*) FROM system.tables WHERE namespace_id = 'copy'";
        let records = ok(&engine, &root(), records, &[]).await;
        assert!(records.contains("| 3 "), "dead after {places} places: {records}");
        let again = format!("RESTORE DATABASE chat FROM '{}' AS again", other_backup.path().display());
        completed(&engine, &again, "restore_database").await;
        assert_eq!(content(&engine, "again").await, backed_up, "dead after {places} places");
        engine.close();
        if survived {
            break;
        }
        died += 1;
        places += 2 + random.below(8);
    }
    assert!(died >= 8, "only {died} deaths");
}

/// Takes over what arrives until the rows are these.
async fn follow(
    sink: &Kept,
    listening: &mut Subscription,
    last: &mut Seq,
    rows: &mut BTreeMap<i64, i64>,
    expected: &[i64],
) {
    until(&format!("the rows are {expected:?}"), || {
        take_over(&arrived(sink, listening), last, rows);
        rows.keys().eq(expected)
    })
    .await;
}

#[tokio::test]
async fn who_listened_before_is_told_and_never_takes_restored_rows_for_those_they_knew() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (1, 'a', 1), (2, 'b', 2)", &[]).await;
    let request =
        SubscribeRequest { sql: "SELECT id, _seq FROM chat.notes".to_owned(), ..SubscribeRequest::default() };
    let sink = Kept::with_room(10);
    let mut listening = engine.subscribe(&ann, request.clone(), Arc::clone(&sink) as _).await.unwrap();
    let mut rows = BTreeMap::new();
    let mut last = materialise(&mut listening, &mut rows).await;
    back_up(&engine, "chat", backup.path()).await;
    // A restore beside it is nothing to who listens here.
    restore(&engine, backup.path(), "AS copy").await;
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (3, 'c', 3); DELETE FROM chat.notes WHERE id = 1", &[])
        .await;
    follow(&sink, &mut listening, &mut last, &mut rows, &[2, 3]).await;

    // The namespace is in the way of its own restore, and who listens in the way of its drop.
    let here = format!("RESTORE DATABASE chat FROM '{}'", backup.path().display());
    let (code, text) = refused(&engine, &root(), &here).await;
    assert_eq!(code, ErrorCode::ConstraintViolation);
    assert!(text.contains("holds 3 tables; drop them, or restore it AS another"), "{text}");
    assert!(refused(&engine, &root(), "DROP NAMESPACE chat CASCADE").await.1.contains("1 live query"));
    drop(listening);
    let known = last;
    ok(&engine, &root(), "DROP NAMESPACE chat CASCADE", &[]).await;
    completed(&engine, &here, "restore_database").await;
    let resumed = |from: Seq, on_gap| SubscribeRequest { from: Some(from), on_gap, ..request.clone() };
    for from in [known, known.next(), Seq::new(2)] {
        let gone =
            engine.subscribe(&ann, resumed(from, OnGap::Error), Kept::with_room(1)).await.err().unwrap();
        assert_eq!(gone.code(), ErrorCode::ResyncRequired, "from {from}: {gone}");
    }
    let sink = Kept::with_room(10);
    let mut listening =
        engine.subscribe(&ann, resumed(known, OnGap::Snapshot), Arc::clone(&sink) as _).await.unwrap();
    let mut rows = BTreeMap::new();
    let mut last = materialise(&mut listening, &mut rows).await;
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [1, 2]);
    ok(
        &engine,
        &ann,
        "UPDATE chat.notes SET n = 5 WHERE id = 1; INSERT INTO chat.notes (id) VALUES (7)",
        &[],
    )
    .await;
    follow(&sink, &mut listening, &mut last, &mut rows, &[1, 2, 7]).await;
    engine.close();
}

#[tokio::test]
async fn another_database_goes_on_behind_all_that_the_first_one_can_have_given_out() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = tempfile::tempdir().unwrap();
    let engine = open(first.path());
    fill(&engine).await;
    // It will be flushed while it is restored.
    ok(&engine, &root(), "ALTER TABLE chat.notes SET (FLUSH_POLICY = 'rows:300')", &[]).await;
    let before = content(&engine, "chat").await;
    back_up(&engine, "chat", backup.path()).await;
    // It goes on after its backup, and then is lost.
    for _ in 0..3 {
        ok(&engine, &session("ann", Role::User), "UPDATE chat.notes SET n = n + 1", &[]).await;
    }
    let lost = engine.published();
    engine.close();

    let engine = open(second.path());
    restore(&engine, backup.path(), "").await;
    assert_eq!(content(&engine, "chat").await, before);
    assert!(engine.system().scan_all_jobs().unwrap().iter().any(|job| job.job_type == "flush_table"));
    let ann = session("ann", Role::User);
    ok(&engine, &ann, "UPDATE chat.notes SET n = 77", &[]).await;
    assert!(engine.published() > lost.plus(1 << 31), "{} and {lost}", engine.published());
    for from in (1..=lost.get()).step_by(97).chain([lost.get()]) {
        let request = SubscribeRequest {
            sql: "SELECT id FROM chat.notes".to_owned(),
            from: Some(Seq::new(from)),
            ..SubscribeRequest::default()
        };
        let gone = engine.subscribe(&ann, request, Kept::with_room(1)).await.err().unwrap();
        assert_eq!(gone.code(), ErrorCode::ResyncRequired, "from {from}: {gone}");
    }
    // It is another database: the backup of the first one is not added to.
    let sql = format!("BACKUP DATABASE chat TO '{}'", backup.path().display());
    ok(&engine, &root(), &sql, &[]).await;
    let job = last_job(&engine, "backup_database").await;
    assert_eq!(job.status, JobStatus::Failed);
    assert!(
        job.error_message.unwrap().contains("another namespace or database; back up to another directory")
    );
    engine.close();
    // The gap is in the log like any other.
    let engine = open(second.path());
    assert_eq!(
        ok(&engine, &ann, "SELECT count(*) FROM chat.notes WHERE n = 77", &[]).await,
        ok(&engine, &ann, "SELECT count(*) FROM chat.notes", &[]).await
    );
    engine.close();
}

#[tokio::test]
async fn a_restore_that_does_not_fit_is_given_up_once_there_is_space() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = tempfile::tempdir().unwrap();
    let engine = open(first.path());
    fill_with(&engine, 20).await;
    // More than the log reserves ahead.
    let large =
        "INSERT INTO chat.notes SELECT value + 100, repeat('x', 100000), 1 FROM generate_series(1, 50)";
    ok(&engine, &session("ann", Role::User), large, &[]).await;
    back_up(&engine, "chat", backup.path()).await;
    engine.close();

    let disk = SimulatedDisk::new(1);
    let mut options = EngineOptions::new(second.path());
    options.durability = Durability::Always;
    options.root_password = Some("root".to_owned());
    options.log_disk = Arc::new(disk.clone());
    let engine = Engine::open_on(options, Machine { write_behind: false, ..Machine::default() }).unwrap().0;
    let restore = format!("RESTORE DATABASE chat FROM '{}'", backup.path().display());
    // Enough for the statement, and not for the rows.
    disk.set_capacity(Some(disk.used() + (64 << 10)));
    ok(&engine, &root(), &restore, &[]).await;
    let stopped = tokio::time::timeout(Duration::from_mins(1), async {
        let is_done = || engine.system().scan_all_jobs().unwrap().iter().all(|job| job.finished_at.is_some());
        while engine.failure().is_none() && !is_done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    stopped.await.unwrap();
    disk.set_capacity(None);
    let job = last_job(&engine, "restore_database").await;
    assert_eq!(job.status, JobStatus::Failed, "{job:?}");
    assert!(job.error_message.as_deref().unwrap().contains("make room"), "{job:?}");
    assert_eq!(refused(&engine, &root(), "USE chat").await.0, ErrorCode::NamespaceNotFound);
    completed(&engine, &restore, "restore_database").await;
    let count = "SELECT count(*) FROM chat.notes";
    assert!(ok(&engine, &session("ann", Role::User), count, &[]).await.contains("70"));
    engine.close();
}

#[tokio::test]
async fn seqs_that_were_left_out_stay_so_after_a_power_loss() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = tempfile::tempdir().unwrap();
    let engine = open(first.path());
    fill_with(&engine, 20).await;
    back_up(&engine, "chat", backup.path()).await;
    engine.close();
    let disk = SimulatedDisk::new(1);
    let mut options = EngineOptions::new(second.path());
    options.durability = Durability::Os;
    options.log_disk = Arc::new(disk.clone());
    let engine = Engine::open_on(options, Machine { write_behind: false, ..Machine::default() }).unwrap().0;
    let restore = format!("RESTORE DATABASE chat FROM '{}'", backup.path().display());
    completed(&engine, &restore, "restore_database").await;
    for seed in 1..20 {
        let crashed = disk.crash(&mut kalamdb_log::simulation::Random::new(seed));
        let log = LogDirectory::new(Arc::new(crashed), second.path().join(crate::LOG_DIRECTORY));
        let (_, recovery) = LogWriter::open(log, &LogOptions::default(), 0).unwrap();
        assert!(recovery.previous_end > Seq::new(1 << 32), "seed {seed}: {}", recovery.previous_end);
    }
    engine.close();
}
