//! Rows through SQL: what RETURNING gives, and what is left where it fails.

use log_format::Role;
use serde_json::json;

use crate::testing::{Kept, root, session};
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

/// The cells of a table of text, row by row, without its head.
fn cells(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
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
        ("repeat(body, 2000000000)", ErrorCode::SqlExecutionError),
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
