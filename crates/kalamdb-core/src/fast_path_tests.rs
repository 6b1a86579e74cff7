//! Statements that name one row, and plans that are kept: they give what the query engine gives, only sooner. And where in a
//! statement an error is.

use datafusion::arrow::util::pretty::pretty_format_batches;
use log_format::Role;
use serde_json::{Value as Json, json};

use crate::sql::{Context, PlanKey};
use crate::testing::{cells, root, session};
use crate::tests::{ok, open, refused};
use crate::{Engine, Error, ErrorCode, Position, Session};

const TABLES: &str = "CREATE NAMESPACE app; \
    CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, n INT NOT NULL DEFAULT 0); \
    CREATE SHARED TABLE app.pairs (a TEXT, b INT, c DECIMAL(9, 2), v DOUBLE, PRIMARY KEY (a, b, c)) \
        WITH (ACCESS_LEVEL = 'public'); \
    CREATE SHARED TABLE app.times (u UUID, d DATE, t TIMESTAMP, f BOOLEAN, s SMALLINT, v TEXT, \
        PRIMARY KEY (u, d, t, f, s)) WITH (ACCESS_LEVEL = 'public'); \
    CREATE SHARED TABLE app.hidden (id INT PRIMARY KEY, v TEXT)";

const UUID: &str = "0198a7d2-7b0c-7000-8000-00000000abcd";

async fn app(directory: &tempfile::TempDir) -> (Engine, Session) {
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'one', 1), (-2, 'two', 2), (3, NULL, 3)", &[]).await;
    ok(&engine, &ann, "DELETE FROM app.notes WHERE id = 3", &[]).await;
    ok(
        &engine,
        &ann,
        "INSERT INTO app.pairs VALUES ('x', 1, 1.50, 0.1), ('x', 1, -7, 'NaN'), ('y', -3, 0, NULL)",
        &[],
    )
    .await;
    let times = format!(
        "INSERT INTO app.times VALUES ('{UUID}', '2024-02-29', '2024-02-29T12:00:00.000001', true, -4, 'v')"
    );
    ok(&engine, &ann, &times, &[]).await;
    (engine, ann)
}

/// What a statement gives: columns with their types, rows, or its error's code.
async fn outcome(engine: &Engine, session: &Session, sql: &str, params: &[Json]) -> String {
    let executed = engine.execute(&mut session.clone(), sql, params).await;
    match (executed.error, executed.results.last()) {
        (Some(error), _) => format!("{:?}", error.code()),
        (None, Some(result)) => {
            let rows = pretty_format_batches(&result.batches).unwrap();
            let rows = if result.row_count == 0 { String::new() } else { rows.to_string() };
            format!("{:?}\n{}\n{rows}", result.schema.fields(), result.row_count)
        }
        (None, None) => String::new(),
    }
}

/// Conditions that name a row, or seem to.
fn conditions() -> Vec<(&'static str, String, Vec<Json>)> {
    let mut found = Vec::new();
    let mut add =
        |table, condition: &str, params: Vec<Json>| found.push((table, condition.to_owned(), params));
    for id in [
        "1",
        "-2",
        "3",
        "4",
        "(1)",
        "- 2",
        "'1'",
        "1.0",
        "1.5",
        "NULL",
        "true",
        "9223372036854775807",
        "99999999999999999999",
    ] {
        add("app.notes", &format!("id = {id}"), vec![]);
        add("app.notes", &format!("{id} = id"), vec![]);
    }
    for param in [
        json!(1),
        json!(-2),
        json!("1"),
        json!("x"),
        json!(1.0),
        json!(1.5),
        Json::Null,
        json!(true),
        json!([1]),
    ] {
        add("app.notes", "id = $1", vec![param]);
    }
    for condition in [
        "id = 1 AND id = 1",
        "id = 1 AND id = -2",
        "id = 1 AND n = 1",
        "id = 1 OR id = -2",
        "NOT id = 1",
        "notes.id = 1",
        "app.notes.id = 1",
        "(id) = 1",
        "((id = 1))",
        "id = 1 AND true",
        "\"id\" = 1",
        "ID = 1",
        "id = $2",
        "id = n",
        "id IN (1)",
        "id = 1 AND _seq > 0",
        "x.id = 1",
    ] {
        add("app.notes", condition, vec![]);
    }
    found.extend(conditions_on_other_types());
    found
}

fn conditions_on_other_types() -> Vec<(&'static str, String, Vec<Json>)> {
    let mut found = Vec::new();
    let mut add =
        |table, condition: &str, params: Vec<Json>| found.push((table, condition.to_owned(), params));
    for condition in [
        "a = 'x' AND b = 1 AND c = 1.5",
        "b = 1 AND c = 1.50 AND a = 'x'",
        "(a = 'x' AND c = -7) AND b = 1",
        "a = 'x' AND b = 1 AND c = 1.505",
        "a = 'x' AND b = 1 AND c = '1.5'",
        "a = 'x' AND b = 1",
        "a = 'x' AND b = 1 AND c = 1.5e0",
        "a = 'y' AND b = -3 AND c = 0",
        "a = 'y' AND b = -3 AND c = 0.00",
        "a = 'y' AND b = -3 AND c = -0",
        "a = 1 AND b = 1 AND c = 1",
    ] {
        add("app.pairs", condition, vec![]);
    }
    for (u, d, t, f, s) in [
        (UUID, "2024-02-29", "2024-02-29T12:00:00.000001", "true", "-4"),
        (UUID, "2024-02-29", "2024-02-29 12:00:00.000001", "true", "-4"),
        (UUID, "2024-02-29", "2024-02-29 12:00:00.0000015", "true", "-4"),
        (UUID, "2024-02-29", "2024-02-29", "true", "-4"),
        (UUID, "2024-02-30", "2024-02-29 12:00:00.000001", "true", "-4"),
        ("0198A7D2-7B0C-7000-8000-00000000ABCD", "2024-02-29", "2024-02-29 12:00:00.000001", "true", "-4"),
        (UUID, "2024-02-29", "2024-02-29 12:00:00.000001", "false", "-4"),
        (UUID, "2024-02-29", "2024-02-29 12:00:00.000001", "true", "40000"),
    ] {
        add("app.times", &format!("u = '{u}' AND d = '{d}' AND t = '{t}' AND f = {f} AND s = {s}"), vec![]);
    }
    add("app.hidden", "id = 1", vec![]);
    add("app.nowhere", "id = 1", vec![]);
    found
}

#[tokio::test]
async fn a_row_by_its_key_is_what_a_plan_would_find() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    for (table, condition, params) in conditions() {
        let columns: &[&str] = match table {
            "app.notes" => &[
                "*",
                "id, body",
                "body AS b, n",
                "n, n AS m",
                "n, n",
                "notes.n",
                "_seq, id",
                "*, _deleted",
                "nothing",
                "n + 1",
            ],
            _ => &["*", "v", "v AS \"V\""],
        };
        for columns in columns {
            let point = format!("SELECT {columns} FROM {table} WHERE {condition}");
            // Says the same, and more than a key.
            let planned = format!("SELECT {columns} FROM {table} WHERE ({condition}) AND 1 = 1");
            let (left, right) = (
                outcome(&engine, &ann, &point, &params).await,
                outcome(&engine, &ann, &planned, &params).await,
            );
            assert_eq!(left, right, "{point} {params:?}");
        }
    }
    engine.close();
}

#[tokio::test]
async fn a_row_changed_by_its_key_is_what_a_plan_would_change() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    for (table, condition, params) in conditions().into_iter().filter(|(table, ..)| *table == "app.notes") {
        let mut found = Vec::new();
        for condition in [condition.clone(), format!("({condition}) AND 1 = 1")] {
            for change in [
                "SET n = 7, body = 'new'",
                "SET n = n * 2 + 1, body = upper(body)",
                "SET n = (SELECT max(n) FROM app.notes)",
            ] {
                let update = format!(
                    "BEGIN; UPDATE {table} {change} WHERE {condition} RETURNING *; SELECT * FROM {table}; ROLLBACK"
                );
                found.push(in_transaction(&engine, &ann, &update, &params).await);
            }
            let delete = format!(
                "BEGIN; DELETE FROM {table} WHERE {condition} RETURNING id; SELECT *, _deleted FROM {table}; ROLLBACK"
            );
            found.push(in_transaction(&engine, &ann, &delete, &params).await);
        }
        let (point, planned) = found.split_at(found.len() / 2);
        assert_eq!(point, planned, "{condition}");
    }
    engine.close();
}

/// What each statement of a transaction gives. It takes no parameters: they are written into the text.
async fn in_transaction(engine: &Engine, session: &Session, sql: &str, params: &[Json]) -> String {
    let literal = params.first().map(|param| match param {
        Json::String(text) => format!("'{text}'"),
        other => other.to_string(),
    });
    let sql = literal.map_or_else(|| sql.to_owned(), |literal| sql.replace("$1", &literal));
    let executed = engine.execute(&mut session.clone(), &sql, &[]).await;
    if let Some(error) = executed.error {
        return format!("{:?}", error.code());
    }
    let shown =
        executed.results.iter().map(|result| pretty_format_batches(&result.batches).unwrap().to_string());
    shown.collect::<Vec<_>>().join("\n")
}

fn is_kept(engine: &Engine, session: &Session, sql: &str, params: &[Json]) -> bool {
    let context = Context { engine, session, params, text: Some(sql), transaction: None };
    let key = PlanKey::new(&context).unwrap();
    engine.plans().find(context, &key).unwrap().is_some()
}

#[tokio::test]
async fn a_kept_plan_reads_what_is_there_now_and_whose_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let bob = session("bob", Role::User);
    let sql = "SELECT count(*) AS c, max(body) AS m FROM app.notes WHERE n > 0";
    assert_eq!(cells(&ok(&engine, &ann, sql, &[]).await), [["2", "two"]]);
    assert!(is_kept(&engine, &ann, sql, &[]));
    assert_eq!(
        cells(&ok(&engine, &bob, sql, &[]).await),
        [["0", ""]],
        "nobody reads another's rows by a kept plan"
    );
    ok(&engine, &bob, "INSERT INTO app.notes VALUES (1, 'of bob', 1)", &[]).await;
    assert_eq!(cells(&ok(&engine, &bob, sql, &[]).await), [["1", "of bob"]]);
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (9, 'zebra', 1)", &[]).await;
    assert_eq!(cells(&ok(&engine, &ann, sql, &[]).await), [["3", "zebra"]]);

    let with_param = "SELECT id FROM app.notes WHERE n >= $1 ORDER BY id DESC LIMIT 1";
    for (param, expected) in [(json!(1), "9"), (json!(2), "-2"), (json!(1), "9")] {
        assert_eq!(cells(&ok(&engine, &ann, with_param, &[param]).await), [[expected]]);
    }
    assert!(is_kept(&engine, &ann, with_param, &[json!(5)]));
    assert!(!is_kept(&engine, &ann, with_param, &[json!("5")]), "another kind of parameter is another plan");
    let joined =
        "SELECT x.id FROM app.notes x JOIN app.notes y ON x.n = y.id WHERE x.id IN (SELECT b FROM app.pairs)";
    assert_eq!(cells(&ok(&engine, &ann, joined, &[]).await), [["1"]]);
    assert_eq!(cells(&ok(&engine, &ann, joined, &[]).await), [["1"]]);
    assert!(is_kept(&engine, &ann, joined, &[]));
    let deleted = "SELECT id, _deleted FROM app.notes WHERE n = 3";
    for _ in 0..2 {
        assert_eq!(cells(&ok(&engine, &ann, deleted, &[]).await), [["3", "true"]]);
    }
    engine.close();
}

#[tokio::test]
async fn what_depends_on_more_than_tables_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    for sql in [
        "SELECT CURRENT_USER() FROM app.notes",
        "SELECT now() FROM app.notes",
        "SELECT id FROM app.notes WHERE body = CURRENT_USER()",
        "SELECT random() FROM app.notes",
        "SELECT user_id FROM system.users",
        "SELECT table_name FROM information_schema.tables",
        "SELECT id FROM app.notes WHERE n > 0 AND id IN (SELECT CAST(count(*) AS BIGINT) FROM system.tables)",
    ] {
        ok(&engine, &ann, sql, &[]).await;
        assert!(!is_kept(&engine, &ann, sql, &[]), "{sql}");
    }
    engine.close();
}

#[tokio::test]
async fn a_kept_plan_goes_with_its_table_and_its_permission() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    let sql = "SELECT * FROM app.hidden WHERE id > 0";
    assert_eq!(ok(&engine, &root(), sql, &[]).await, "");
    assert!(is_kept(&engine, &root(), sql, &[]));
    assert_eq!(refused(&engine, &ann, sql).await.0, ErrorCode::PermissionDenied);
    ok(&engine, &root(), "DROP TABLE app.hidden", &[]).await;
    assert_eq!(refused(&engine, &root(), sql).await.0, ErrorCode::TableNotFound);
    ok(&engine, &root(), "CREATE SHARED TABLE app.hidden (id INT PRIMARY KEY, w INT, x INT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO app.hidden VALUES (1, 2, 3)", &[]).await;
    assert_eq!(cells(&ok(&engine, &root(), sql, &[]).await), [["1", "2", "3"]]);
    // The same text means another table elsewhere.
    let text = "SELECT count(*) AS c FROM hidden WHERE id > 0";
    let mut elsewhere = Session::new(root().user().clone(), Role::Dba, Some("app"));
    assert!(engine.execute(&mut elsewhere, text, &[]).await.error.is_none());
    assert_eq!(refused(&engine, &root(), text).await.0, ErrorCode::TableNotFound);
    engine.close();
}

#[tokio::test]
async fn errors_say_where_they_are_and_what_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, ann) = app(&directory).await;
    for (sql, line, column, says) in [
        ("SELEC 1", 1, 1, "SELEC"),
        ("SELECT 1;\nSELECT (1 +", 2, 12, "EOF"),
        ("SELECT *\n  FROM app.nots", 2, 12, "did you mean app.notes?"),
        ("SELECT * FROM ap.notes", 1, 15, "did you mean app?"),
        ("SELECT bdy\nFROM app.notes", 1, 8, "body"),
        ("INSERT INTO app.notes (id, bdy) VALUES (1, 'x')", 1, 28, "did you mean body?"),
        ("INSERT INTO app.notes (id, id) VALUES (1, 2)", 1, 28, "twice"),
        ("UPDATE app.notes SET n = 1, bdy = 2", 1, 29, "did you mean body?"),
        ("UPDATE app.notes SET id = 1", 1, 22, "primary key"),
        ("UPDATE app.nots SET n = 1", 1, 12, "did you mean app.notes?"),
        ("DELETE FROM app.nots", 1, 17, "did you mean app.notes?"),
        ("DELETE FROM app.notes RETURNING bdy", 1, 33, "did you mean body?"),
        ("INSERT INTO app.nowhere VALUES (1)", 1, 17, "there is no table app.nowhere"),
    ] {
        let error: Error = engine.execute(&mut ann.clone(), sql, &[]).await.error.unwrap();
        assert_eq!(error.position(), Some(Position { line, column }), "{sql}: {error}");
        assert!(error.to_string().contains(says), "{sql}: {error}");
    }
    engine.close();
}
