//! The engine from the outside: statements, live queries, restarts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::util::pretty::pretty_format_batches;
use kalamdb_log::Durability;
use log_format::{Role, Value};
use serde_json::{Value as Json, json};

use crate::engine::Machine;
use crate::testing::{Kept, arrived, materialise, root, session, take_over, until};
use crate::{Engine, EngineOptions, ErrorCode, OnGap, Session, SubscribeRequest};

pub(crate) fn open(directory: &Path) -> Engine {
    let mut options = EngineOptions::new(directory);
    options.durability = Durability::Os;
    options.root_password = Some("root".to_owned());
    Engine::open(options).unwrap().0
}

/// Runs statements that must go through; the last one's rows as a table of text.
pub(crate) async fn ok(engine: &Engine, session: &Session, sql: &str, params: &[Json]) -> String {
    let mut executed = engine.execute(&mut session.clone(), sql, params).await;
    if let Some(error) = executed.error {
        panic!("{sql}: {error}");
    }
    let last = executed.results.pop().unwrap();
    if last.batches.is_empty() {
        String::new()
    } else {
        pretty_format_batches(&last.batches).unwrap().to_string()
    }
}

/// Runs a statement that must be refused.
pub(crate) async fn refused(engine: &Engine, session: &Session, sql: &str) -> (ErrorCode, String) {
    let executed = engine.execute(&mut session.clone(), sql, &[]).await;
    let error = executed.error.unwrap_or_else(|| panic!("{sql}: went through"));
    (error.code(), error.to_string())
}

const MESSAGES: &str =
    "CREATE NAMESPACE chat; CREATE USER TABLE chat.messages (id BIGINT PRIMARY KEY, body TEXT, n INT)";

#[tokio::test]
async fn each_user_sees_and_changes_their_own_rows_only() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let (ann, bob) = (session("ann", Role::User), session("bob", Role::User));
    ok(&engine, &root(), MESSAGES, &[]).await;
    for (user, body) in [(&ann, "from ann"), (&bob, "from bob")] {
        ok(&engine, user, "INSERT INTO chat.messages VALUES ($1, $2, 1)", &[json!(1), json!(body)]).await;
    }
    let all = "SELECT * FROM chat.messages";
    assert!(ok(&engine, &ann, all, &[]).await.contains("from ann"));
    assert!(!ok(&engine, &ann, all, &[]).await.contains("bob"));
    ok(&engine, &ann, "UPDATE chat.messages SET body = upper(body), n = n + 1", &[]).await;
    ok(&engine, &bob, "DELETE FROM chat.messages WHERE id = 1", &[]).await;
    assert!(ok(&engine, &ann, all, &[]).await.contains("FROM ANN | 2"));
    assert_eq!(ok(&engine, &bob, all, &[]).await, "");
    assert!(ok(&engine, &bob, "SELECT *, _deleted FROM chat.messages", &[]).await.contains("true"));
    engine.close();
}

#[tokio::test]
async fn keys_constraints_and_names_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), MESSAGES, &[]).await;
    ok(&engine, &ann, "INSERT INTO chat.messages VALUES (1, 'a', 1), (2, 'b', 2)", &[]).await;
    let code = |sql: &'static str| {
        let (engine, ann) = (engine.clone(), ann.clone());
        async move { refused(&engine, &ann, sql).await.0 }
    };
    assert_eq!(code("INSERT INTO chat.messages VALUES (1, 'c', 3)").await, ErrorCode::ConstraintViolation);
    assert_eq!(
        code("INSERT INTO chat.messages VALUES (9, 'c', 3), (9, 'd', 4)").await,
        ErrorCode::ConstraintViolation
    );
    assert_eq!(code("INSERT INTO chat.messages (body) VALUES ('x')").await, ErrorCode::ConstraintViolation);
    assert_eq!(
        code("INSERT INTO chat.messages VALUES (3, 'x', 'many')").await,
        ErrorCode::ConstraintViolation
    );
    assert_eq!(code("UPDATE chat.messages SET id = 5").await, ErrorCode::Unsupported);
    assert_eq!(code("SELECT nothing FROM chat.messages").await, ErrorCode::InvalidSql);
    assert_eq!(code("SELECT * FROM chat.nowhere").await, ErrorCode::TableNotFound);
    assert_eq!(code("SELECT * FROM nowhere.messages").await, ErrorCode::NamespaceNotFound);
    assert_eq!(code("CREATE NAMESPACE other").await, ErrorCode::PermissionDenied);
    assert_eq!(code("SELEC").await, ErrorCode::InvalidSql);
    let (_, text) = refused(&engine, &ann, "SELECT * FROM chat.mesages").await;
    assert!(text.contains("did you mean chat.messages"), "{text}");
    // A key that was deleted is free again.
    ok(
        &engine,
        &ann,
        "DELETE FROM chat.messages WHERE id = 1; INSERT INTO chat.messages VALUES (1, 'again', 1)",
        &[],
    )
    .await;
    let found =
        ok(&engine, &ann, "SELECT count(*) AS c FROM chat.messages WHERE id >= 1 AND id < 3", &[]).await;
    assert!(found.contains("| 2 |"), "{found}");
    engine.close();
}

#[tokio::test]
async fn a_subscriber_sees_rows_enter_and_leave_its_filter_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), MESSAGES, &[]).await;
    ok(&engine, &ann, "INSERT INTO chat.messages VALUES (1, 'a', 1), (2, 'b', 20)", &[]).await;
    // Room for a single commit: most of the time the subscriber reads the log.
    let sink = Kept::with_room(1);
    let request = SubscribeRequest {
        sql: "SELECT id, body FROM chat.messages WHERE n >= 10".to_owned(),
        ..SubscribeRequest::default()
    };
    let mut subscription = engine.subscribe(&ann, request, Arc::clone(&sink) as _).await.unwrap();
    let mut rows = BTreeMap::new();
    let mut last = materialise(&mut subscription, &mut rows).await;
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [2]);
    for round in 0..50_i64 {
        let id = [json!(100 + round)];
        ok(&engine, &ann, "INSERT INTO chat.messages VALUES ($1, 'x', 5)", &id).await;
        ok(&engine, &ann, "UPDATE chat.messages SET n = 50 WHERE id = $1", &id).await;
        if round % 3 == 0 {
            ok(&engine, &ann, "DELETE FROM chat.messages WHERE id = $1", &id).await;
        } else if round % 3 == 1 {
            ok(&engine, &ann, "UPDATE chat.messages SET n = 0 WHERE id = $1", &id).await;
        }
        if round % 7 == 0 {
            take_over(&arrived(&sink, &mut subscription), &mut last, &mut rows);
        }
    }
    // The router gives what it has in its own time: the row that comes last tells that all came.
    ok(&engine, &ann, "INSERT INTO chat.messages VALUES (1000, 'end', 50)", &[]).await;
    until("the last row comes", || {
        take_over(&arrived(&sink, &mut subscription), &mut last, &mut rows);
        rows.contains_key(&1000)
    })
    .await;
    let expected: Vec<i64> = [2]
        .into_iter()
        .chain((0..50).filter(|round| round % 3 == 2).map(|r| 100 + r))
        .chain([1000])
        .collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), expected);
    engine.close();
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_from_the_log_alone() {
    let directory = tempfile::tempdir().unwrap();
    let ann = session("ann", Role::User);
    let all = "SELECT id, body, n, _seq, _updated FROM chat.messages ORDER BY id";
    let engine = open(directory.path());
    ok(&engine, &root(), MESSAGES, &[]).await;
    for id in 0..200_i64 {
        let row = vec![Value::BigInt(id), Value::Text(format!("row {id}")), Value::Int(0)];
        engine.insert_rows(&ann, "chat.messages", &[row]).await.unwrap();
    }
    ok(
        &engine,
        &ann,
        "UPDATE chat.messages SET n = 7 WHERE id % 2 = 0; DELETE FROM chat.messages WHERE id > 150",
        &[],
    )
    .await;
    let before = ok(&engine, &ann, all, &[]).await;
    let resume_from = engine.published();
    engine.close();

    let engine = open(directory.path());
    assert_eq!(ok(&engine, &ann, all, &[]).await, before);
    let request = SubscribeRequest {
        sql: "SELECT id FROM chat.messages".to_owned(),
        from: Some(resume_from),
        ..SubscribeRequest::default()
    };
    assert!(engine.subscribe(&ann, request.clone(), Kept::with_room(1)).await.is_ok());
    let beyond = SubscribeRequest { from: Some(resume_from.plus(1 << 40)), ..request };
    let error = engine.subscribe(&ann, beyond, Kept::with_room(1)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ResyncRequired);
    engine.close();

    std::fs::remove_dir_all(directory.path().join(crate::ROWS_DIRECTORY)).unwrap();
    std::fs::remove_dir_all(directory.path().join(crate::CATALOG_DIRECTORY)).unwrap();
    let engine = open(directory.path());
    assert_eq!(ok(&engine, &ann, all, &[]).await, before);
    engine.close();
}

#[tokio::test]
async fn stream_rows_go_beyond_their_buffer_and_when_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    let create = "CREATE STREAM TABLE default.typing (who TEXT) MAX_BUFFER 3 SCOPE 'all'; \
                  CREATE STREAM TABLE default.seen (who TEXT) WITH (TTL_SECONDS = '1ms'); \
                  CREATE STREAM TABLE default.gone (who TEXT) EPHEMERAL true";
    ok(&engine, &root(), create, &[]).await;
    for who in ["a", "b", "c", "d", "e"] {
        ok(&engine, &ann, "INSERT INTO typing (who) VALUES ($1)", &[json!(who)]).await;
    }
    ok(&engine, &ann, "INSERT INTO gone (who) VALUES ('x'); INSERT INTO seen (who) VALUES ('y')", &[]).await;
    assert_eq!(ok(&engine, &ann, "SELECT who FROM gone", &[]).await, "");
    let wanted = |text: &str| !text.contains("| a ") && !text.contains("| b ") && text.contains("| e ");
    let deadline = crate::clock::instant() + std::time::Duration::from_mins(1);
    loop {
        let kept = ok(&engine, &ann, "SELECT who FROM typing", &[]).await;
        let expired = ok(&engine, &ann, "SELECT who FROM seen", &[]).await;
        if wanted(&kept) && expired.is_empty() {
            break;
        }
        assert!(crate::clock::instant() < deadline, "{kept}\n{expired}");
        tokio::task::yield_now().await;
    }
    assert_eq!(refused(&engine, &ann, "DELETE FROM typing").await.0, ErrorCode::Unsupported);
    engine.close();
}

#[tokio::test]
async fn a_table_that_is_listened_to_is_not_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), MESSAGES, &[]).await;
    let request = SubscribeRequest {
        connection_id: "c9".into(),
        query_id: "mine".into(),
        sql: "SUBSCRIBE TO SELECT * FROM chat.messages".to_owned(),
        ..SubscribeRequest::default()
    };
    let subscription = engine.subscribe(&root(), request, Kept::with_room(1)).await.unwrap();
    let (code, text) = refused(&engine, &root(), "DROP TABLE chat.messages").await;
    assert_eq!(code, ErrorCode::ConstraintViolation);
    assert!(text.contains("c9-mine"), "{text}");
    assert!(ok(&engine, &root(), "SELECT live_id, state FROM system.live", &[]).await.contains("c9-mine"));
    drop(subscription);
    ok(&engine, &root(), "DROP TABLE chat.messages", &[]).await;
    assert_eq!(refused(&engine, &root(), "SELECT 1 FROM chat.messages").await.0, ErrorCode::TableNotFound);
    assert!(ok(&engine, &root(), "SELECT now() IS NOT NULL AS is_set", &[]).await.contains("true"));
    ok(&engine, &root(), "CREATE SHARED TABLE x (id INT PRIMARY KEY, at TIMESTAMP)", &[]).await;
    for unsupported in [
        "SELECT count(*) FROM system.tables",
        "SELECT 1",
        "DELETE FROM x",
        "SELECT * FROM x WHERE at > now()",
        "SELECT * FROM x WHERE random() > 0.5",
        "SELECT * FROM x WHERE id IN (SELECT 1)",
        "SELECT * FROM x ORDER BY id",
    ] {
        let request = SubscribeRequest { sql: unsupported.to_owned(), ..SubscribeRequest::default() };
        assert!(engine.subscribe(&root(), request, Kept::with_room(1)).await.is_err(), "{unsupported}");
    }
    engine.close();
}

#[tokio::test]
async fn rising_keys_are_new_and_others_are_still_looked_up() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), MESSAGES, &[]).await;
    let insert = async |ids: &[i64]| {
        let row = |id: &i64| vec![Value::BigInt(*id), Value::Text(String::new()), Value::Int(0)];
        let rows: Vec<_> = ids.iter().map(row).collect();
        engine.insert_rows(&ann, "chat.messages", &rows).await.map_err(|error| error.code())
    };
    // The third insert is the first that is compared with the highest key.
    for ids in [&[10][..], &[11], &[12, 13], &[5], &[20, 14]] {
        insert(ids).await.unwrap();
    }
    for ids in [&[10][..], &[5], &[13], &[20], &[14], &[21, 21], &[30, 12]] {
        assert_eq!(insert(ids).await, Err(ErrorCode::ConstraintViolation), "{ids:?}");
    }
    // What was refused left nothing, though its keys were above all others.
    insert(&[21]).await.unwrap();
    insert(&[30]).await.unwrap();
    ok(&engine, &ann, "DELETE FROM chat.messages WHERE id = 30", &[]).await;
    insert(&[30]).await.unwrap();
    let found = ok(&engine, &ann, "SELECT count(*) AS rows, sum(id) AS ids FROM chat.messages", &[]).await;
    let ids: i64 = [5, 10, 11, 12, 13, 14, 20, 21, 30].iter().sum();
    assert!(found.contains(&format!("| 9    | {ids} |")), "{found}");
    engine.close();
}

#[tokio::test]
async fn retention_lets_go_of_what_the_files_have_and_tells_who_comes_too_late() {
    let directory = tempfile::tempdir().unwrap();
    let options = |retention_bytes| {
        let mut options = EngineOptions::new(directory.path());
        options.root_password = Some("root".to_owned());
        options.segment_bytes = 16 << 10;
        options.retention.bytes = retention_bytes;
        options
    };
    let engine = Engine::open(options(None)).unwrap().0;
    let ann = session("ann", Role::User);
    ok(&engine, &root(), MESSAGES, &[]).await;
    let begun = engine.published();
    for id in 0..100_i64 {
        let row = vec![Value::BigInt(id), Value::Text("x".repeat(1000)), Value::Int(0)];
        engine.insert_rows(&ann, "chat.messages", &[row]).await.unwrap();
    }
    let segments = "SELECT count(*) AS n, min(base_seq) AS floor FROM system.log_segments";
    let all = ok(&engine, &root(), segments, &[]).await;
    assert!(all.contains("| 1     |"), "{all}");
    let (code, _) = refused(&engine, &ann, segments).await;
    assert_eq!(code, ErrorCode::PermissionDenied);
    engine.close();

    // What was in memory only was kept until now; closing put it into the files.
    let engine = Engine::open(options(Some(40 << 10))).unwrap().0;
    let some_went = tokio::time::timeout(Duration::from_mins(1), async {
        while ok(&engine, &root(), segments, &[]).await == all {
            tokio::task::yield_now().await;
        }
    });
    some_went.await.unwrap();
    let rows = ok(&engine, &ann, "SELECT count(*) AS n FROM chat.messages", &[]).await;
    assert!(rows.contains("| 100 |"), "{rows}");
    let request = SubscribeRequest {
        sql: "SELECT id FROM chat.messages".to_owned(),
        from: Some(begun),
        ..SubscribeRequest::default()
    };
    let late = engine.subscribe(&ann, request.clone(), Kept::with_room(1) as _).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::ResyncRequired, "{late}");
    let snapshot = SubscribeRequest { on_gap: OnGap::Snapshot, ..request };
    let mut subscription = engine.subscribe(&ann, snapshot, Kept::with_room(1) as _).await.unwrap();
    let mut rows = BTreeMap::new();
    materialise(&mut subscription, &mut rows).await;
    assert_eq!(rows.len(), 100);
    drop(subscription);
    engine.close();

    let again = Engine::open(options(None)).unwrap().0;
    again.close();
    std::fs::remove_dir_all(directory.path().join(crate::ROWS_DIRECTORY)).unwrap();
    let error = Engine::open(options(None)).unwrap_err();
    assert!(error.to_string().contains("Put rows back"), "{error}");
}

#[tokio::test]
async fn of_inserts_of_one_key_in_one_group_one_goes_through() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, workers, _) =
        Engine::assemble(EngineOptions::new(directory.path()), Machine::default()).unwrap();
    let mut sequencer = workers.sequencer;
    let mut execute = async |statements: &[(&Session, &str)]| {
        let all = statements.iter().map(|(who, sql)| {
            let (mut who, engine) = ((*who).clone(), &engine);
            async move { engine.execute(&mut who, sql, &[]).await.error.map(|error| error.code()) }
        });
        let mut all = std::pin::pin!(futures_util::future::join_all(all));
        loop {
            // All of them are handed in before the sequencer has its turn: they are one group.
            tokio::select! {
                biased;
                errors = &mut all => break errors,
                () = tokio::task::yield_now() => {}
            }
            sequencer.turn(Some(Duration::ZERO));
        }
    };
    let dba = root();
    assert_eq!(execute(&[(&dba, "CREATE NAMESPACE n")]).await, [None]);
    assert_eq!(execute(&[(&dba, "CREATE USER TABLE n.t (id BIGINT PRIMARY KEY)")]).await, [None]);
    let duplicate = Some(ErrorCode::ConstraintViolation);
    // A partition that was never written to, then one that was, and keys that rise and fall.
    for id in [5, 9, 7, 10, 11, 1] {
        for user in ["ann", "bob"] {
            let who = session(user, Role::User);
            let sql = format!("INSERT INTO n.t VALUES ({id})");
            let insert = (&who, sql.as_str());
            assert_eq!(execute(&[insert, insert, insert]).await, [None, duplicate, duplicate], "{user} {id}");
            assert_eq!(execute(&[insert]).await, [duplicate], "{user} {id}");
        }
    }
}
