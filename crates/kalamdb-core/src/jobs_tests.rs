//! Jobs: a dropped table's space, whoever still reads it and whenever the process dies; and how long jobs are remembered.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kalamdb_log::Durability;
use kalamdb_store::Keyspace;
use log_format::{JobStatus, NamespaceId, Role, Seq};
use serde_json::Value as Json;

use crate::testing::{Fuse, Kept, all_done, materialise, root, session, until};
use crate::tests::{ok, open, refused};
use crate::{Engine, EngineOptions, ErrorCode, JobRetention, SubscribeRequest};

const NOTES: &str = "CREATE NAMESPACE chat; CREATE USER TABLE chat.notes (id BIGINT PRIMARY KEY, body TEXT)";

async fn fill(engine: &Engine) {
    for user in ["ann", "bob"] {
        let insert = "INSERT INTO chat.notes VALUES (1, 'first'), (2, 'second')";
        ok(engine, &session(user, Role::User), insert, &[]).await;
    }
}

fn options(directory: &Path) -> EngineOptions {
    let mut options = EngineOptions::new(directory);
    options.durability = Durability::Os;
    options.root_password = Some("root".to_owned());
    options
}

#[tokio::test]
async fn a_dropped_table_is_gone_at_once_and_a_job_tells_what_it_freed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    fill(&engine).await;
    // Who listens to another table keeps no cut for as long as they listen.
    ok(&engine, &root(), "CREATE SHARED TABLE chat.other (id BIGINT PRIMARY KEY)", &[]).await;
    let request =
        SubscribeRequest { sql: "SELECT id FROM chat.other".to_owned(), ..SubscribeRequest::default() };
    let mut listening = engine.subscribe(&root(), request, Kept::with_room(1)).await.unwrap();
    materialise(&mut listening, &mut BTreeMap::new()).await;
    assert!(listening.catch_up(1).unwrap().live);
    let info = engine.catalog().find(&NamespaceId::new("chat"), "notes").unwrap();
    let dropped = engine.execute(&mut root(), "DROP TABLE chat.notes", &[]).await;
    let message = dropped.results[0].message.clone().unwrap();
    assert!(message.contains("job drop_table-"), "{message}");
    assert_eq!(refused(&engine, &root(), "SELECT 1 FROM chat.notes").await.0, ErrorCode::TableNotFound);
    assert!(engine.system().get_table(info.id()).unwrap().is_none());
    assert!(engine.system().get_table_schemas_for_table(info.id()).unwrap().is_empty());
    assert_eq!(engine.store().table_counts(info.id()).unwrap().rows, 0);
    // The name is free at once.
    ok(&engine, &root(), "CREATE USER TABLE chat.notes (id BIGINT PRIMARY KEY)", &[]).await;

    let [job] = &all_done(&engine).await[..] else { panic!("there is one job") };
    assert!(message.contains(job.id.as_str()), "{message}: {}", job.id);
    assert_eq!((job.status, job.job_type.as_str()), (JobStatus::Completed, "drop_table"), "{job:?}");
    assert_eq!(job.table_name.as_deref(), Some("notes"));
    assert_eq!(job.user.as_ref().map(log_format::UserId::as_str), Some("root"));
    let result: Json = serde_json::from_str(job.result.as_deref().unwrap()).unwrap();
    assert_eq!(result["rows"], 4);
    assert!(result["row_bytes"].as_u64().unwrap() > 0 && result["bytes"].is_u64(), "{result}");
    assert!(job.created_at <= job.started_at.unwrap() && job.started_at <= job.finished_at);
    let shown = ok(&engine, &root(), "SELECT job_id, status, result FROM system.jobs", &[]).await;
    assert!(shown.contains("completed") && shown.contains("files"), "{shown}");

    let jobs = engine.system().scan_all_jobs().unwrap();
    drop(listening);
    engine.close();
    std::fs::remove_dir_all(directory.path().join(crate::ROWS_DIRECTORY)).unwrap();
    std::fs::remove_dir_all(directory.path().join(crate::CATALOG_DIRECTORY)).unwrap();
    let engine = open(directory.path());
    assert_eq!(engine.system().scan_all_jobs().unwrap(), jobs, "the log alone tells the same jobs");
    engine.close();
}

#[tokio::test]
async fn who_began_to_read_before_the_drop_reads_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    fill(&engine).await;
    let info = engine.catalog().find(&NamespaceId::new("chat"), "notes").unwrap();
    let cut = engine.store().cut().unwrap();
    ok(&engine, &root(), "DROP TABLE chat.notes", &[]).await;
    // Jobs come one after the other: one that follows has its turn, the first is still waiting for the reader.
    ok(&engine, &root(), "CREATE SHARED TABLE other (id INT PRIMARY KEY)", &[]).await;
    let job = engine.system().scan_all_jobs().unwrap().remove(0);
    let is_persisted = || engine.store().persisted_seq().unwrap() > cut.seq();
    let is_running = || engine.system().get_job(&job.id).unwrap().unwrap().status == JobStatus::Running;
    until("the job is running", || is_persisted() && is_running()).await;
    let mut rows = 0;
    cut.scan_table(Keyspace::User, info.id(), |_, _| {
        rows += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(rows, 4);
    assert_eq!(engine.system().get_job(&job.id).unwrap().unwrap().status, JobStatus::Running);
    drop(cut);
    assert_eq!(all_done(&engine).await[0].status, JobStatus::Completed);
    engine.close();
}

#[tokio::test]
async fn a_job_that_is_waiting_does_not_keep_the_engine_from_closing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    fill(&engine).await;
    let cut = engine.store().cut().unwrap();
    ok(&engine, &root(), "DROP NAMESPACE chat CASCADE", &[]).await;
    engine.close();
    drop(cut);
    let engine = open(directory.path());
    let jobs = all_done(&engine).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].status, JobStatus::Completed, "{:?}", jobs[0]);
    engine.close();
}

#[tokio::test]
async fn a_drop_that_a_crash_interrupts_anywhere_is_finished_at_the_next_start() {
    let mut died = 0;
    for passed in 0_u64.. {
        let directory = tempfile::tempdir().unwrap();
        let (engine, fuse) = Fuse::open(directory.path());
        ok(&engine, &root(), NOTES, &[]).await;
        fill(&engine).await;
        let info = engine.catalog().find(&NamespaceId::new("chat"), "notes").unwrap();
        fuse.light(passed);
        let dropped = engine.execute(&mut root(), "DROP TABLE chat.notes", &[]).await;
        let is_acknowledged = dropped.error.is_none();
        let survived = fuse.survives(&engine, 1).await;
        engine.close();

        let engine = open(directory.path());
        let jobs = all_done(&engine).await;
        let is_gone = engine.catalog().by_id(info.id()).is_none();
        assert!(is_gone || !is_acknowledged, "{passed}: the table is there again");
        assert_eq!(jobs.len(), usize::from(is_gone), "{passed}");
        assert!(jobs.iter().all(|job| job.status == JobStatus::Completed), "{passed}: {jobs:?}");
        let rows = engine.store().table_counts(info.id()).unwrap().rows;
        assert_eq!(rows, if is_gone { 0 } else { 4 }, "{passed}");
        engine.close();
        if survived {
            break;
        }
        died += 1;
    }
    assert!(died >= 15, "only {died} places");
}

#[tokio::test]
async fn who_saw_a_table_that_was_dropped_resumes_on_no_other_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    fill(&engine).await;
    let seen = engine.published();
    ok(&engine, &root(), "DROP TABLE chat.notes", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE chat.notes (id BIGINT PRIMARY KEY, body TEXT)", &[]).await;
    let created = engine.published();
    fill(&engine).await;
    let ann = session("ann", Role::User);
    let resume = |from| SubscribeRequest {
        sql: "SELECT id FROM chat.notes".to_owned(),
        from: Some(from),
        ..SubscribeRequest::default()
    };
    let refused = engine.subscribe(&ann, resume(seen), Kept::with_room(1)).await;
    assert_eq!(refused.err().map(|error| error.code()), Some(ErrorCode::ResyncRequired));
    for from in [Seq::ZERO, created] {
        let mut resumed = engine.subscribe(&ann, resume(from), Kept::with_room(1)).await.unwrap();
        assert_eq!(resumed.catch_up(10).unwrap().frames.len(), 1, "{from}");
    }
    // Nor across a truncation, from wherever.
    ok(&engine, &root(), "TRUNCATE TABLE chat.notes", &[]).await;
    let refused = engine.subscribe(&ann, resume(Seq::ZERO), Kept::with_room(1)).await;
    assert_eq!(refused.err().map(|error| error.code()), Some(ErrorCode::ResyncRequired));
    engine.close();
}

#[tokio::test]
async fn jobs_that_ended_are_remembered_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let opened = |finished_ms_max, finished_max| {
        let mut options = options(directory.path());
        options.job_retention = JobRetention { finished_ms_max, finished_max };
        Engine::open(options).unwrap().0
    };
    let engine = opened(1_000_000, 2);
    ok(&engine, &root(), "CREATE NAMESPACE chat", &[]).await;
    for number in 0..4 {
        let table = format!("chat.t{number}");
        let sql = format!("CREATE SHARED TABLE {table} (id INT PRIMARY KEY); DROP TABLE {table}");
        ok(&engine, &root(), &sql, &[]).await;
        all_done(&engine).await;
    }
    let remembered = async |engine: &Engine, count: usize| {
        let seen = tokio::time::timeout(Duration::from_mins(1), async {
            while engine.system().scan_all_jobs().unwrap().len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        seen.await.unwrap();
    };
    remembered(&engine, 2).await;
    let names: Vec<_> =
        engine.system().scan_all_jobs().unwrap().into_iter().map(|job| job.table_name.unwrap()).collect();
    assert_eq!(names, ["t2", "t3"], "the newest stay");
    engine.close();
    let engine = opened(0, 100);
    remembered(&engine, 0).await;
    engine.close();
    std::fs::remove_dir_all(directory.path().join(crate::CATALOG_DIRECTORY)).unwrap();
    let engine = opened(1_000_000, 100);
    assert!(engine.system().scan_all_jobs().unwrap().is_empty());
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_meets_a_drop_is_told_or_refuses_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE NAMESPACE chat", &[]).await;
    for _ in 0..40 {
        ok(&engine, &root(), "CREATE SHARED TABLE chat.t (id INT PRIMARY KEY)", &[]).await;
        let dropping = tokio::spawn({
            let engine = engine.clone();
            async move { engine.execute(&mut root(), "DROP TABLE chat.t", &[]).await.error }
        });
        let sink = Kept::with_room(10);
        let request =
            SubscribeRequest { sql: "SELECT * FROM chat.t".to_owned(), ..SubscribeRequest::default() };
        let subscribed = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await;
        let refused = dropping.await.unwrap();
        match subscribed {
            Ok(mut subscription) if refused.is_none() => {
                let told = tokio::time::timeout(Duration::from_mins(1), async {
                    loop {
                        if sink.is_ended() {
                            break ErrorCode::TableDropped;
                        }
                        if let Err(error) = subscription.catch_up(10) {
                            break error.code();
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
                assert_eq!(told.await.unwrap(), ErrorCode::TableDropped);
            }
            Ok(subscription) => {
                assert_eq!(refused.unwrap().code(), ErrorCode::ConstraintViolation);
                drop(subscription);
                ok(&engine, &root(), "DROP TABLE chat.t", &[]).await;
            }
            Err(error) => {
                let gone = [ErrorCode::TableNotFound, ErrorCode::TableDropped];
                assert!(gone.contains(&error.code()), "{error}");
                if refused.is_some() {
                    ok(&engine, &root(), "DROP TABLE chat.t", &[]).await;
                }
            }
        }
    }
    engine.close();
}
