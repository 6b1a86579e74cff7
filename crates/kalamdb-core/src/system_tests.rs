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
        cold_as_of: log_format::Seq::ZERO,
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
        connection_id: "c9".into(),
        query_id: "mine".into(),
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

#[tokio::test]
async fn system_tables_are_joined_and_read_by_key_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let columns_of = "SELECT t.table_name, s.version, n.namespace_id FROM system.tables t \
                      JOIN system.table_schemas s ON s.table_id = t.table_id \
                      JOIN system.namespaces n ON n.namespace_id = t.namespace_id \
                      WHERE t.namespace_id = 'chat' AND t.table_name IN ('board', 'notes', 'nothing') ORDER BY 1";
    let joined = cells(&ok(&engine, &root(), columns_of, &[]).await);
    assert_eq!(joined, [["board", "1", "chat"], ["notes", "1", "chat"]]);
    let by_id = "SELECT table_name FROM system.tables WHERE table_id = \
                 (SELECT table_id FROM system.tables WHERE table_name = 'secret')";
    assert_eq!(cells(&ok(&engine, &root(), by_id, &[]).await), [["secret"]]);
    let users = "SELECT username, role FROM system.users WHERE username = $1";
    assert_eq!(cells(&ok(&engine, &root(), users, &[json!("root")]).await), [["root", "dba"]]);
    assert_eq!(ok(&engine, &root(), users, &[json!("nobody")]).await, "");
    let none = "SELECT u.username FROM system.users u JOIN system.live l ON l.user_id = u.user_id";
    assert_eq!(ok(&engine, &root(), none, &[]).await, "");
    ok(&engine, &root(), "DROP TABLE chat.secret", &[]).await;
    let jobs = "SELECT count(*) AS n FROM system.jobs WHERE table_name = 'secret'";
    assert_eq!(cells(&ok(&engine, &root(), jobs, &[]).await), [["1"]]);
    // Every table is there, with the columns that it has when nothing is in it.
    let shown = ok(&engine, &root(), "SELECT * FROM system.settings WHERE name = 'durability'", &[]).await;
    assert_eq!(cells(&shown)[0][..3], ["durability", "os", "set"]);
    let settings = ok(&engine, &root(), "SELECT * FROM system.settings", &[]).await;
    assert!(!settings.contains("password"), "{settings}");
    let ann = session("ann", Role::User);
    assert_eq!(refused(&engine, &ann, "SELECT * FROM system.settings").await.0, ErrorCode::PermissionDenied);
    assert_eq!(refused(&engine, &ann, "SELECT * FROM system.nothing").await.0, ErrorCode::InvalidSql);
    engine.close();
}

#[tokio::test]
async fn information_schema_lists_what_the_session_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'chat' ORDER BY 1";
    assert_eq!(cells(&ok(&engine, &ann, tables, &[]).await), [["board"], ["notes"], ["typing"]]);
    assert_eq!(
        cells(&ok(&engine, &root(), tables, &[]).await),
        [["board"], ["notes"], ["secret"], ["typing"]]
    );
    let columns = "SELECT column_name, ordinal_position, is_nullable FROM information_schema.columns \
                   WHERE table_schema = 'chat' AND table_name = 'notes' ORDER BY 2";
    let columns = cells(&ok(&engine, &ann, columns, &[]).await);
    assert_eq!(columns.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["id", "body"]);
    let of_secret = "SELECT column_name FROM information_schema.columns WHERE table_name = 'secret'";
    assert_eq!(ok(&engine, &ann, of_secret, &[]).await, "");
    let schemata = "SELECT schema_name FROM information_schema.schemata ORDER BY 1";
    let schemata = cells(&ok(&engine, &ann, schemata, &[]).await);
    for namespace in ["chat", "default", "system"] {
        assert!(schemata.contains(&vec![namespace.to_owned()]), "{schemata:?}");
    }
    let system = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'system'";
    let system = cells(&ok(&engine, &ann, system, &[]).await);
    assert!(!system.iter().any(|row| row[0] == "jobs" || row[0] == "settings"), "{system:?}");
    engine.close();
}

#[tokio::test]
async fn users_are_written_through_their_table() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let insert = "INSERT INTO system.users (username, password, role, metadata) \
                  VALUES ('eve', 'secret', 'service', '{\"a\": 1}'), ($1, 'other', NULL, NULL)";
    ok(&engine, &root(), insert, &[json!("fay")]).await;
    let users = "SELECT username, role, metadata FROM system.users WHERE username <> 'root' ORDER BY 1";
    let found = cells(&ok(&engine, &root(), users, &[]).await);
    assert_eq!(found, [["eve", "service", "{\"a\": 1}"], ["fay", "user", ""]]);
    assert!(engine.authenticate("eve", "secret").is_ok() && engine.authenticate("fay", "other").is_ok());
    let update = "UPDATE system.users SET password = 'new', role = 'dba' WHERE username = 'fay'";
    ok(&engine, &root(), update, &[]).await;
    assert!(engine.authenticate("fay", "other").is_err());
    assert_eq!(engine.authenticate("fay", "new").unwrap().role, Role::Dba);
    for (sql, code) in [
        ("INSERT INTO system.users (username, password) VALUES ('eve', 'x')", ErrorCode::AlreadyExists),
        (
            "INSERT INTO system.users (username, password) VALUES ('x', 'x'), ('x', 'y')",
            ErrorCode::InvalidSql,
        ),
        ("INSERT INTO system.users (username) VALUES ('x')", ErrorCode::InvalidSql),
        (
            "INSERT INTO system.users (username, password, role) VALUES ('x', 'x', 'king')",
            ErrorCode::InvalidSql,
        ),
        (
            "INSERT INTO system.users (username, password, metadata) VALUES ('x', 'x', '{')",
            ErrorCode::InvalidSql,
        ),
        ("INSERT INTO system.users (username, password_hash) VALUES ('x', 'x')", ErrorCode::InvalidSql),
        ("UPDATE system.users SET username = 'x' WHERE username = 'eve'", ErrorCode::InvalidSql),
        ("SELECT password FROM system.users", ErrorCode::InvalidSql),
        ("SELECT password_hash FROM system.users", ErrorCode::InvalidSql),
        ("DELETE FROM system.users", ErrorCode::ConstraintViolation),
        ("INSERT INTO system.jobs (job_id) VALUES ('x')", ErrorCode::Unsupported),
        ("UPDATE system.tables SET table_name = 'x'", ErrorCode::Unsupported),
        ("DELETE FROM system.changes", ErrorCode::Unsupported),
        ("DELETE FROM system.nothing", ErrorCode::TableNotFound),
    ] {
        let (found, text) = refused(&engine, &root(), sql).await;
        assert_eq!(found, code, "{sql}: {text}");
    }
    let (_, text) = refused(&engine, &root(), "DELETE FROM system.tables").await;
    assert!(text.contains("READ-ONLY") && text.contains("DROP TABLE"), "{text}");
    let eve = session("eve", Role::Service);
    for sql in ["DELETE FROM system.users WHERE username = 'fay'", "UPDATE system.users SET role = 'dba'"] {
        assert_eq!(refused(&engine, &eve, sql).await.0, ErrorCode::PermissionDenied, "{sql}");
    }
    ok(&engine, &root(), "DELETE FROM system.users WHERE username IN ('eve', 'fay')", &[]).await;
    assert_eq!(ok(&engine, &root(), users, &[]).await, "");
    engine.close();
}

#[tokio::test]
async fn storage_locations_know_who_uses_them_and_hold_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let at = elsewhere.path().display();
    let insert = format!(
        "INSERT INTO system.storage_locations VALUES \
         ('far', 'filesystem', '{at}/far', 'env:AWS_FAR'), ('near', 'filesystem', '{at}/near', NULL)"
    );
    ok(&engine, &root(), &insert, &[]).await;
    let create = "CREATE SHARED TABLE a (id INT PRIMARY KEY) LOCATION REFERENCE 'far'; \
                  CREATE SHARED TABLE b (id INT PRIMARY KEY) LOCATION REFERENCE 'far'";
    ok(&engine, &root(), create, &[]).await;
    let used = "SELECT location_name, usage_count FROM system.storage_locations ORDER BY 1";
    assert_eq!(cells(&ok(&engine, &root(), used, &[]).await), [["far", "2"], ["near", "0"]]);
    for (sql, said) in [
        ("DELETE FROM system.storage_locations WHERE location_name = 'far'", "default.a, default.b"),
        (
            &format!("UPDATE system.storage_locations SET path = '{at}/x' WHERE location_name = 'far'"),
            "cannot be moved",
        ),
        ("UPDATE system.storage_locations SET location_type = 'tape'", "filesystem, s3"),
        ("UPDATE system.storage_locations SET credentials_ref = 'AKIA123'", "env:NAME"),
        ("UPDATE system.storage_locations SET usage_count = 0", "can be written"),
        ("INSERT INTO system.storage_locations VALUES ('x', 's3', 's3://a:b@c', NULL)", "no credentials"),
        (
            "INSERT INTO system.storage_locations VALUES ('x', 's3', 's3://c', 'env:KALAMDB_NONE')",
            "no variable",
        ),
        ("INSERT INTO system.storage_locations VALUES ('x', 'filesystem', 'here', NULL)", "an absolute path"),
        ("INSERT INTO system.storage_locations VALUES ('x', 'filesystem', '/proc/here', NULL)", "/proc/here"),
        ("INSERT INTO system.storage_locations VALUES ('local', 'filesystem', '/tmp', NULL)", "exists"),
    ] {
        let (_, text) = refused(&engine, &root(), sql).await;
        assert!(text.contains(said), "{sql}: {text}");
    }
    let service = session("svc", Role::Service);
    let (code, _) = refused(&engine, &service, "DELETE FROM system.storage_locations").await;
    assert_eq!(code, ErrorCode::PermissionDenied);
    let credentials =
        "UPDATE system.storage_locations SET credentials_ref = NULL WHERE location_name = 'far'";
    ok(&engine, &root(), credentials, &[]).await;
    ok(&engine, &root(), "DROP TABLE a", &[]).await;
    assert_eq!(cells(&ok(&engine, &root(), used, &[]).await), [["far", "1"], ["near", "0"]]);
    engine.close();
    let engine = open(directory.path());
    assert_eq!(cells(&ok(&engine, &root(), used, &[]).await), [["far", "1"], ["near", "0"]]);
    ok(&engine, &root(), "DROP TABLE b", &[]).await;
    ok(&engine, &root(), "DELETE FROM system.storage_locations", &[]).await;
    assert_eq!(ok(&engine, &root(), used, &[]).await, "");
    engine.close();
}

#[tokio::test]
async fn changes_are_those_of_rows_one_may_see() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let (ann, bob, svc) =
        (session("ann", Role::User), session("bob", Role::User), session("svc", Role::Service));
    for (user, body) in [(&ann, "of ann"), (&bob, "of bob")] {
        ok(&engine, user, "INSERT INTO chat.notes VALUES (1, $1)", &[json!(body)]).await;
        ok(&engine, user, "UPDATE chat.notes SET body = upper(body)", &[]).await;
        ok(&engine, user, "DELETE FROM chat.notes", &[]).await;
        ok(
            &engine,
            user,
            "INSERT INTO chat.board VALUES ($1, 'x')",
            &[json!(body.len() + body.matches('a').count())],
        )
        .await;
    }
    ok(&engine, &root(), "INSERT INTO chat.secret VALUES (77)", &[]).await;
    ok(&engine, &root(), "CREATE USER eve WITH PASSWORD 'x'", &[]).await;

    let own =
        "SELECT op, key, before, after, schema_version, user_id FROM changes('chat.notes', 0) ORDER BY seq";
    let seen = cells(&ok(&engine, &ann, own, &[]).await);
    assert_eq!(seen.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["insert", "update", "delete"]);
    assert!(seen.iter().all(|row| row[4] == "1" && row[5] == "ann"), "{seen:?}");
    assert!(seen[1][2].contains("of ann") && seen[1][3].contains("OF ANN"), "{seen:?}");
    for everything in ["SELECT * FROM system.changes", "SELECT * FROM changes('chat.notes', 0)"] {
        let text = ok(&engine, &ann, everything, &[]).await;
        assert!(text.contains("of ann") && !text.contains("bob") && !text.contains("BOB"), "{text}");
        assert!(!text.contains("UserCreated") && !text.contains(r#""id":"77""#), "{text}");
        let text = ok(&engine, &svc, everything, &[]).await;
        assert!(!text.contains("ann") && !text.contains("bob"), "{text}");
    }
    let board = "SELECT count(*) AS n FROM changes('chat.board', 0)";
    assert_eq!(cells(&ok(&engine, &ann, board, &[]).await), [["2"]]);
    assert_eq!(
        refused(&engine, &ann, "SELECT * FROM changes('chat.secret', 0)").await.0,
        ErrorCode::PermissionDenied
    );
    assert!(ok(&engine, &svc, "SELECT * FROM changes('chat.secret', 0)", &[]).await.contains(r#""id":"77""#));
    let all = ok(&engine, &root(), "SELECT * FROM changes('chat.notes', 0)", &[]).await;
    assert!(all.contains("of ann") && all.contains("of bob") && all.contains("TableCreated"), "{all}");
    assert!(ok(&engine, &root(), "SELECT * FROM system.changes", &[]).await.contains("eve"));

    let series = "SELECT sum(value) AS n FROM generate_series(1, 4)";
    assert_eq!(cells(&ok(&engine, &ann, series, &[]).await), [["10"]]);

    // Both ends count, and a condition narrows further.
    let seqs = cells(&ok(&engine, &ann, "SELECT seq FROM changes('chat.notes', 0) ORDER BY seq", &[]).await);
    let (first, second) = (&seqs[0][0], &seqs[1][0]);
    let part = format!("SELECT seq FROM changes('chat.notes', {first}, {second}) ORDER BY seq");
    assert_eq!(cells(&ok(&engine, &ann, &part, &[]).await), seqs[..2]);
    let part = format!("SELECT seq FROM changes('chat.notes', {second}) WHERE op = 'delete'");
    assert_eq!(cells(&ok(&engine, &ann, &part, &[]).await), seqs[2..]);
    for wrong in ["changes('chat.notes')", "changes(1, 2)", "changes('chat.notes', id)"] {
        let (code, text) = refused(&engine, &ann, &format!("SELECT * FROM {wrong}")).await;
        assert_eq!(code, ErrorCode::InvalidSql, "{wrong}: {text}");
    }
    assert_eq!(
        refused(&engine, &ann, "SELECT * FROM changes('chat.no', 1)").await.0,
        ErrorCode::TableNotFound
    );

    ok(&engine, &root(), "DROP TABLE chat.notes; DROP TABLE chat.board", &[]).await;
    let text = ok(&engine, &ann, "SELECT * FROM system.changes", &[]).await;
    assert!(text.contains("of ann") && !text.contains("bob") && !text.contains("board"), "{text}");
    engine.close();
}
