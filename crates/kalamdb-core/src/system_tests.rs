//! What tables hold and are: statistics, TRUNCATE, the system tables.

use std::path::Path;

use log_format::Role;
use serde_json::json;

use crate::testing::{Kept, cells, root, session};
use crate::tests::{ok, open, refused};
use crate::{Engine, ErrorCode, OnGap, SubscribeRequest};

const TABLES: &str = "CREATE NAMESPACE chat; \
    CREATE USER TABLE chat.notes (id BIGINT PRIMARY KEY, body TEXT); \
    CREATE SHARED TABLE chat.board (id BIGINT PRIMARY KEY, body TEXT) WITH (ACCESS_LEVEL = 'public'); \
    CREATE SHARED TABLE chat.secret (id BIGINT PRIMARY KEY); \
    CREATE STREAM TABLE chat.typing (who TEXT) RETENTION '1h' SCOPE 'all'";

/// The scope, hot rows and hot bytes that SHOW STATS tells.
async fn stats(engine: &Engine, user: &str, role: Role, table: &str) -> Vec<String> {
    let shown = ok(engine, &session(user, role), &format!("SHOW STATS FOR TABLE {table}"), &[]).await;
    cells(&shown).remove(0).into_iter().skip(1).take(3).collect()
}

async fn all_stats(engine: &Engine) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (user, role) in [("ann", Role::User), ("bob", Role::User), ("root", Role::Dba)] {
        for table in ["chat.notes", "chat.board", "chat.typing"] {
            all.push(stats(engine, user, role, table).await);
        }
    }
    all
}

#[tokio::test]
async fn statistics_are_those_of_the_rows_one_may_see() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let (ann, bob) = (session("ann", Role::User), session("bob", Role::User));
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (1, 'a'), (2, 'b'), (3, 'c')", &[]).await;
    ok(&engine, &ann, "DELETE FROM chat.notes WHERE id = 3; UPDATE chat.notes SET body = 'longer'", &[])
        .await;
    ok(&engine, &bob, "INSERT INTO chat.notes VALUES (1, 'b')", &[]).await;
    ok(
        &engine,
        &bob,
        "INSERT INTO chat.board VALUES (1, 'x'); INSERT INTO chat.typing (who) VALUES ('bob')",
        &[],
    )
    .await;
    let of = async |user, role, table| stats(&engine, user, role, table).await;
    assert_eq!(of("ann", Role::User, "chat.notes").await[..2], ["own rows", "2"]);
    assert_eq!(of("bob", Role::User, "chat.notes").await[..2], ["own rows", "1"]);
    assert_eq!(of("cid", Role::User, "chat.notes").await, ["own rows", "0", "0"]);
    for role in [Role::Service, Role::Dba] {
        assert_eq!(of("root", role, "chat.notes").await[..2], ["table", "3"]);
    }
    assert_eq!(of("ann", Role::User, "chat.board").await[..2], ["table", "1"]);
    assert_eq!(of("ann", Role::User, "chat.typing").await[..2], ["table", "1"]);
    let (code, _) = refused(&engine, &ann, "SHOW STATS FOR TABLE chat.secret").await;
    assert_eq!(code, ErrorCode::PermissionDenied);
    let bytes = |stats: Vec<String>| stats[2].parse::<u64>().unwrap();
    let whole = bytes(of("root", Role::Dba, "chat.notes").await);
    let parts =
        bytes(of("ann", Role::User, "chat.notes").await) + bytes(of("bob", Role::User, "chat.notes").await);
    assert_eq!(whole, parts);

    let before = all_stats(&engine).await;
    engine.close();
    let engine = open(directory.path());
    assert_eq!(all_stats(&engine).await, before);
    engine.close();
    forget_projections(directory.path());
    let engine = open(directory.path());
    assert_eq!(all_stats(&engine).await, before, "the log alone tells them");
    engine.close();
}

/// Leaves nothing of a closed database but its log.
fn forget_projections(directory: &Path) {
    std::fs::remove_dir_all(directory.join(crate::ROWS_DIRECTORY)).unwrap();
    std::fs::remove_dir_all(directory.join(crate::CATALOG_DIRECTORY)).unwrap();
}

#[tokio::test]
async fn truncating_takes_every_row_of_every_owner() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let (ann, bob) = (session("ann", Role::User), session("bob", Role::User));
    for user in [&ann, &bob] {
        ok(&engine, user, "INSERT INTO chat.notes VALUES (1, 'a'), (2, 'b'), (9, 'c')", &[]).await;
        ok(&engine, user, "INSERT INTO chat.typing (who) VALUES ('x')", &[]).await;
    }
    assert_eq!(refused(&engine, &ann, "TRUNCATE TABLE chat.notes").await.0, ErrorCode::PermissionDenied);
    let truncated = engine.execute(&mut root(), "TRUNCATE TABLE chat.notes", &[]).await;
    assert_eq!(truncated.results[0].message.as_deref(), Some("table chat.notes truncated: 6 rows went"));
    ok(&engine, &root(), "TRUNCATE chat.typing", &[]).await;
    let all = "SELECT id FROM chat.notes WHERE _deleted IS NOT NULL ORDER BY id";
    assert_eq!(ok(&engine, &ann, all, &[]).await, "", "no tombstone is left either");
    assert_eq!(ok(&engine, &ann, "SELECT who FROM chat.typing", &[]).await, "");
    assert_eq!(stats(&engine, "root", Role::Dba, "chat.notes").await, ["table", "0", "0"]);
    // Keys are free again, whether above, at or below the highest that ever was.
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (1, 'new'), (9, 'new'), (10, 'new')", &[]).await;
    let again = refused(&engine, &ann, "INSERT INTO chat.notes VALUES (9, 'twice')").await;
    assert_eq!(again.0, ErrorCode::ConstraintViolation);
    let select = "SELECT id, body FROM chat.notes ORDER BY id";
    let expected = [["1", "new"], ["9", "new"], ["10", "new"]];
    assert_eq!(cells(&ok(&engine, &ann, select, &[]).await), expected);
    assert_eq!(ok(&engine, &bob, select, &[]).await, "");
    engine.close();
    forget_projections(directory.path());
    let engine = open(directory.path());
    assert_eq!(cells(&ok(&engine, &ann, select, &[]).await), expected);
    assert_eq!(stats(&engine, "root", Role::Dba, "chat.notes").await[..2], ["table", "3"]);
    engine.close();
}

#[tokio::test]
async fn what_was_planned_before_a_truncation_brings_nothing_back() {
    use std::sync::Arc;

    use log_format::{ChangeEvent, Partition, RowUpdated, UserId};

    use crate::requests::{Expected, RowCommit, RowWrite};

    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (1, 'a')", &[]).await;
    let info = engine.catalog().find(&log_format::NamespaceId::new("chat"), "notes").unwrap();
    let partition = Arc::new(Partition::of_user(info.id(), UserId::new("ann")));
    let written_by = engine.published();
    ok(&engine, &root(), "TRUNCATE TABLE chat.notes", &[]).await;
    let event =
        RowUpdated { partition: partition.as_ref().clone(), key: vec![1], old: vec![0], new: vec![0] };
    let commit = RowCommit {
        tables: vec![(info.id(), info.version())],
        ephemeral: false,
        events: vec![ChangeEvent::RowUpdated(Box::new(event)).encode().unwrap()],
        writes: vec![RowWrite {
            partition,
            key: vec![1],
            expected: Expected::WrittenBy(written_by),
            deletes: false,
        }],
    };
    let error = engine.commits().rows(commit).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    engine.close();
}

#[tokio::test]
async fn who_watches_a_table_keeps_it_from_being_truncated_and_nobody_resumes_across_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (1, 'a')", &[]).await;
    let request = SubscribeRequest {
        connection_id: "c9".to_owned(),
        query_id: "mine".to_owned(),
        sql: "SELECT id FROM chat.notes".to_owned(),
        ..SubscribeRequest::default()
    };
    let watching = engine.subscribe(&ann, request.clone(), Kept::with_room(1)).await.unwrap();
    let (code, text) = refused(&engine, &root(), "TRUNCATE TABLE chat.notes").await;
    assert_eq!(code, ErrorCode::ConstraintViolation);
    assert!(text.contains("c9-mine") && text.contains("truncated"), "{text}");
    drop(watching);
    let before = engine.published();
    ok(&engine, &root(), "TRUNCATE TABLE chat.notes", &[]).await;
    let after = engine.published();
    let resume = |from| SubscribeRequest { from: Some(from), ..request.clone() };
    for _ in 0..2 {
        let late = engine.subscribe(&ann, resume(before), Kept::with_room(1)).await.unwrap_err();
        assert_eq!(late.code(), ErrorCode::ResyncRequired, "{late}");
        assert!(engine.subscribe(&ann, resume(after), Kept::with_room(1)).await.is_ok());
    }
    let on_gap = SubscribeRequest { on_gap: OnGap::Snapshot, ..resume(before) };
    let mut fresh = engine.subscribe(&ann, on_gap, Kept::with_room(1)).await.unwrap();
    assert_eq!(fresh.take_snapshot().unwrap().total_rows, 0);
    drop(fresh);
    engine.close();
    let engine = open(directory.path());
    let late = engine.subscribe(&ann, resume(before), Kept::with_room(1)).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::ResyncRequired, "after a restart too");
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES ($1, 'b')", &[json!(5)]).await;
    engine.close();
}
