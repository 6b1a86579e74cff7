//! Rows through SQL: what RETURNING and ON CONFLICT give, and what is left where they fail.

use std::sync::Arc;

use log_format::Role;
use serde_json::json;

use crate::testing::{Kept, cells, root, session};
use crate::tests::{ok, open, refused};
use crate::{Engine, ErrorCode, Session, SubscribeRequest};

const NOTES: &str = "CREATE NAMESPACE chat; \
    CREATE USER TABLE chat.notes (id BIGINT PRIMARY KEY, body TEXT, n INT NOT NULL DEFAULT 7, tag UUID)";

/// An engine with that table, and a user.
async fn notes(directory: &tempfile::TempDir) -> (Engine, Session) {
    let engine = open(directory.path());
    ok(&engine, &root(), NOTES, &[]).await;
    (engine, session("ann", Role::User))
}

#[tokio::test]
async fn returning_gives_the_rows_as_they_are_after() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    let insert = "INSERT INTO chat.notes (id, body) VALUES (1, 'a'), (2, 'b') \
                  RETURNING id, upper(body) AS Loud, notes.n + $1 AS \"More\"";
    let table = ok(&engine, &ann, insert, &[json!(10)]).await;
    assert_eq!(cells(&table), [["1", "A", "17"], ["2", "B", "17"]]);
    assert!(table.contains("| id | loud | More |"), "{table}");

    let update = "UPDATE chat.notes AS x SET n = n + 1, body = $1 WHERE id = 2 RETURNING *, x.n * 2 AS twice";
    let table = ok(&engine, &ann, update, &[json!("new")]).await;
    assert_eq!(cells(&table), [["2", "new", "8", "", "16"]]);

    let delete = "DELETE FROM chat.notes WHERE id = 2 RETURNING chat.notes.*, _deleted";
    let table = ok(&engine, &ann, delete, &[]).await;
    assert_eq!(cells(&table), [["2", "new", "8", "", "true"]]);

    let selected =
        "INSERT INTO chat.notes (id, body) SELECT id + 10, body FROM chat.notes RETURNING id, body";
    assert_eq!(cells(&ok(&engine, &ann, selected, &[]).await), [["11", "a"]]);
    engine.close();
}

#[tokio::test]
async fn returning_knows_the_commit_that_made_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    for statement in [
        "INSERT INTO chat.notes (id) VALUES (1), (2), (3) RETURNING id, _seq, _updated, _deleted",
        "UPDATE chat.notes SET n = 0 WHERE id <> 2 RETURNING id, _seq, _updated, _deleted",
        "DELETE FROM chat.notes WHERE id > 1 RETURNING id, _seq, _updated, _deleted",
    ] {
        let returned = cells(&ok(&engine, &ann, statement, &[]).await);
        let stored = "SELECT id, _seq, _updated, _deleted FROM chat.notes ORDER BY id";
        let stored = cells(&ok(&engine, &ann, stored, &[]).await);
        assert!(returned.len() >= 2 && returned.iter().all(|row| stored.contains(row)), "{statement}");
    }
    let seq = engine.published().get();
    let derived = "INSERT INTO chat.notes (id) VALUES (8), (9) RETURNING _seq + 0 AS seq";
    let derived = cells(&ok(&engine, &ann, derived, &[]).await);
    assert_eq!(derived, [[(seq + 1).to_string()], [(seq + 2).to_string()]]);
    engine.close();
}

#[tokio::test]
async fn returning_that_fails_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    let before = engine.published();
    for (returning, code) in [
        ("nothing", ErrorCode::InvalidSql),
        ("other.*", ErrorCode::Unsupported),
        ("excluded.n", ErrorCode::InvalidSql),
        ("count(*)", ErrorCode::Unsupported),
        ("row_number() OVER ()", ErrorCode::Unsupported),
        ("(SELECT 1)", ErrorCode::Unsupported),
        ("id IN (SELECT 1)", ErrorCode::Unsupported),
        ("$1", ErrorCode::InvalidParameter),
        ("id / (n - 7)", ErrorCode::SqlExecutionError),
        ("repeat(body, 2000000000)", ErrorCode::MemoryLimit),
    ] {
        let insert = format!("INSERT INTO chat.notes (id, body) VALUES (1, 'abc') RETURNING {returning}");
        let (found, text) = refused(&engine, &ann, &insert).await;
        assert_eq!(found, code, "{returning}: {text}");
    }
    assert_eq!(engine.published(), before);
    engine.close();
}

#[tokio::test]
async fn returning_of_no_rows_still_has_its_columns() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    let update = "UPDATE chat.notes SET n = 1 RETURNING id, _seq, length(body) AS len";
    let executed = engine.execute(&mut ann.clone(), update, &[]).await;
    let [result] = executed.results.as_slice() else { panic!("{:?}", executed.error) };
    let names: Vec<&str> = result.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!((names, result.row_count), (vec!["id", "_seq", "len"], 0));
    assert!(result.batches.is_empty() && result.message.is_none());
    engine.close();
}

#[tokio::test]
async fn streams_return_what_was_appended_and_nothing_where_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE STREAM TABLE typing (who TEXT) EPHEMERAL true", &[]).await;
    let insert = "INSERT INTO typing (who) VALUES ('a'), ('b') RETURNING who, _seq";
    assert_eq!(ok(&engine, &root(), insert, &[]).await, "");
    let request = SubscribeRequest { sql: "SELECT * FROM typing".to_owned(), ..SubscribeRequest::default() };
    let _listening = engine.subscribe(&root(), request, Kept::with_room(9)).await.unwrap();
    let seq = engine.published().get();
    let returned = cells(&ok(&engine, &root(), insert, &[]).await);
    assert_eq!(returned, [["a".to_owned(), (seq + 1).to_string()], ["b".to_owned(), (seq + 2).to_string()]]);
    let unknown = "INSERT INTO typing (who) VALUES ('a') RETURNING _deleted";
    assert_eq!(refused(&engine, &root(), unknown).await.0, ErrorCode::InvalidSql);
    engine.close();
}

const ALL_NOTES: &str = "SELECT id, body, n FROM chat.notes ORDER BY id";

#[tokio::test]
async fn a_conflict_that_does_nothing_inserts_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    ok(&engine, &ann, "INSERT INTO chat.notes (id, body) VALUES (1, 'old'), (2, 'gone')", &[]).await;
    ok(&engine, &ann, "DELETE FROM chat.notes WHERE id = 2", &[]).await;
    let insert = "INSERT INTO chat.notes (id, body) VALUES (1, 'x'), (2, 'new'), (3, 'first'), (3, 'second') \
                  ON CONFLICT DO NOTHING RETURNING id, body";
    let inserted = cells(&ok(&engine, &ann, insert, &[]).await);
    assert_eq!(inserted, [["2", "new"], ["3", "first"]]);
    assert_eq!(
        cells(&ok(&engine, &ann, ALL_NOTES, &[]).await),
        [["1", "old", "7"], ["2", "new", "7"], ["3", "first", "7"]]
    );
    let before = engine.published();
    let again = "INSERT INTO chat.notes (id) VALUES (1), (2) ON CONFLICT (id) DO NOTHING";
    let executed = engine.execute(&mut ann.clone(), again, &[]).await;
    let counted: Vec<_> = executed.results.iter().map(|result| result.row_count).collect();
    assert_eq!((counted, engine.published()), (vec![0], before));
    engine.close();
}

#[tokio::test]
async fn a_conflict_updates_from_both_rows() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    ok(&engine, &ann, "INSERT INTO chat.notes (id, body, n) VALUES (1, 'a', 1), (2, 'b', 2)", &[]).await;
    let upsert = "INSERT INTO chat.notes (id, body, n) VALUES (3, 'c', 30), (2, 'B', 20), (1, 'A', 10) \
                  ON CONFLICT (id) DO UPDATE SET body = notes.body || excluded.body || $1, n = n + excluded.n \
                  WHERE chat.notes.n > 1 RETURNING id, body, n, _seq";
    let before = engine.published().get();
    let changed = cells(&ok(&engine, &ann, upsert, &[json!("!")]).await);
    let seq = |after: u64| (before + after).to_string();
    assert_eq!(changed, [["3", "c", "30", &seq(1)], ["2", "bB!", "22", &seq(2)]]);
    assert_eq!(
        cells(&ok(&engine, &ann, ALL_NOTES, &[]).await),
        [["1", "a", "1"], ["2", "bB!", "22"], ["3", "c", "30"]]
    );
    // A user's key is in conflict with their own rows only.
    let bob = session("bob", Role::User);
    let other = "INSERT INTO chat.notes (id, body) VALUES (1, 'bob') ON CONFLICT DO UPDATE SET body = 'taken' \
                 RETURNING body";
    assert_eq!(cells(&ok(&engine, &bob, other, &[]).await), [["bob"]]);
    // What would fail is not evaluated where the condition does not hold.
    let guarded = "INSERT INTO chat.notes (id, n) VALUES (1, 0) \
                   ON CONFLICT DO UPDATE SET n = notes.n / excluded.n, body = NULL WHERE excluded.n <> 0";
    ok(&engine, &ann, guarded, &[]).await;
    let constant = "INSERT INTO chat.notes (id, n) SELECT id, 5 FROM chat.notes WHERE id = 1 \
                    ON CONFLICT DO UPDATE SET tag = $1, n = DEFAULT, body = excluded.body RETURNING body, n, tag";
    let tag = "0198c6e2-0000-7000-8000-000000000000";
    assert_eq!(cells(&ok(&engine, &ann, constant, &[json!(tag)]).await), [["", "7", tag]]);
    engine.close();
}

#[tokio::test]
async fn a_conflict_clause_that_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    ok(&engine, &root(), "CREATE STREAM TABLE chat.typing (who TEXT) MAX_BUFFER 3", &[]).await;
    ok(&engine, &ann, "INSERT INTO chat.notes (id, body) VALUES (1, 'a')", &[]).await;
    let before = engine.published();
    for (clause, code, said) in [
        ("(body) DO NOTHING", ErrorCode::InvalidSql, "ON CONFLICT (id)"),
        ("(id, body) DO NOTHING", ErrorCode::InvalidSql, "ON CONFLICT (id)"),
        ("ON CONSTRAINT c DO NOTHING", ErrorCode::Unsupported, "primary key"),
        ("DO UPDATE SET id = 2", ErrorCode::Unsupported, "part of the primary key"),
        ("DO UPDATE SET n = NULL", ErrorCode::ConstraintViolation, "NOT NULL"),
        ("DO UPDATE SET n = excluded.n - NULL", ErrorCode::ConstraintViolation, "NOT NULL"),
        ("DO UPDATE SET n = 1, n = 2", ErrorCode::InvalidSql, "twice"),
        ("DO UPDATE SET _seq = 1", ErrorCode::InvalidSql, "filled by the system"),
        ("DO UPDATE SET n = excluded.nothing", ErrorCode::InvalidSql, "no column excluded.nothing"),
        ("DO UPDATE SET n = excluded._seq", ErrorCode::InvalidSql, "no column excluded._seq"),
        ("DO UPDATE SET n = (SELECT 1)", ErrorCode::Unsupported, "subquery"),
        ("DO UPDATE SET n = 1 WHERE n + 1", ErrorCode::InvalidSql, "no condition"),
    ] {
        let insert = format!("INSERT INTO chat.notes (id, body) VALUES (1, 'b') ON CONFLICT {clause}");
        let (found, text) = refused(&engine, &ann, &insert).await;
        assert_eq!(found, code, "{clause}: {text}");
        assert!(text.contains(said), "{clause}: {text}");
    }
    let twice = "INSERT INTO chat.notes (id) VALUES (5), (5) ON CONFLICT DO UPDATE SET n = 1";
    let (code, text) = refused(&engine, &ann, twice).await;
    assert_eq!(code, ErrorCode::ConstraintViolation);
    assert!(text.contains("the primary key 5 of chat.notes comes twice"), "{text}");
    let update = "UPDATE chat.notes SET n = 1, body = 'x', n = 2";
    assert_eq!(refused(&engine, &ann, update).await.0, ErrorCode::InvalidSql);
    let stream = "INSERT INTO chat.typing (who) VALUES ('a') ON CONFLICT DO NOTHING";
    assert_eq!(refused(&engine, &ann, stream).await.0, ErrorCode::Unsupported);
    assert_eq!(engine.published(), before);
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_meet_at_an_absent_key_both_count() {
    const KEYS: i64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = notes(&directory).await;
    let together = Arc::new(tokio::sync::Barrier::new(2));
    let writer = || {
        let (engine, ann, together) = (engine.clone(), ann.clone(), Arc::clone(&together));
        tokio::spawn(async move {
            let upsert = "INSERT INTO chat.notes (id, n) VALUES ($1, 1) \
                          ON CONFLICT DO UPDATE SET n = notes.n + excluded.n";
            for id in 0..KEYS {
                together.wait().await;
                ok(&engine, &ann, upsert, &[json!(id)]).await;
            }
        })
    };
    // One that fails must not leave the other waiting for it.
    tokio::try_join!(writer(), writer()).unwrap();
    let counted = "SELECT count(*) AS keys, min(n) AS least, max(n) AS most FROM chat.notes";
    assert_eq!(cells(&ok(&engine, &ann, counted, &[]).await), [["200", "2", "2"]]);
    engine.close();
}
