//! What is told of tables: DESCRIBE, their history, and the statement that makes them again.

use datafusion::arrow::array::AsArray;
use log_format::Role;
use serde_json::json;

use crate::Engine;
use crate::alter_tests::{cells, run};
use crate::testing::{root, session};
use crate::tests::{ok, open};

#[tokio::test]
async fn what_was_altered_is_told_by_whom_and_when() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let service = session("deploy", Role::Service);
    run(&engine, &root(), &[
        "CREATE NAMESPACE n WITH OPTIONS (owner = 'a', tier = 'gold')",
        "CREATE USER TABLE n.t (id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), a INT, b TEXT DEFAULT 'it''s') \
         FLUSH POLICY ROWS 10000 INTERVAL '5m'",
    ])
    .await;
    run(
        &engine,
        &service,
        &[
            "ALTER TABLE n.t SET (FLUSH_POLICY = 'rows:5', DELETED_RETENTION = '7d')",
            "alter table n.t add \"Mixed Case\" int not null default 3, drop b",
            "ALTER TABLE n.t ALTER COLUMN a SET DATA TYPE BIGINT",
            "ALTER NAMESPACE n SET OPTIONS (tier = 'iron', region = 'eu')",
        ],
    )
    .await;
    let history = "DESCRIBE TABLE n.t HISTORY";
    let told = cells(&ok(&engine, &root(), history, &[]).await);
    let without_time: Vec<_> =
        told.iter().map(|row| [row[0].as_str(), row[1].as_str(), row[3].as_str()]).collect();
    assert_eq!(
        without_time,
        [
            ["1", "CREATE TABLE", "root"],
            ["2", "ADD COLUMN \"Mixed Case\" INT NOT NULL DEFAULT 3, DROP COLUMN b", "deploy"],
            ["3", "MODIFY COLUMN a BIGINT", "deploy"],
        ]
    );
    assert!(told.iter().all(|row| row[2].ends_with('Z')), "{told:?}");
    let to_users = cells(&ok(&engine, &session("ann", Role::User), history, &[]).await);
    assert!(to_users.iter().all(|row| row[3].is_empty()), "{to_users:?}");

    let executed = engine.execute(&mut root(), "DESC n.t", &[]).await;
    let described = ok(&engine, &root(), "DESCRIBE n.t", &[]).await;
    assert_eq!(
        cells(&described),
        [
            ["id", "BIGINT", "false", "1", "SNOWFLAKE_ID()", "false"],
            ["a", "BIGINT", "true", "", "", "false"],
            ["Mixed Case", "INT", "false", "", "3", "false"],
            ["_seq", "BIGINT", "false", "", "", "true"],
            ["_updated", "DATETIME", "false", "", "", "true"],
            ["_deleted", "BOOLEAN", "false", "", "", "true"],
        ]
    );
    let message = executed.results[0].message.clone().unwrap();
    for part in [
        "n.t is a user table",
        "FLUSH_POLICY rows:5",
        "DELETED_RETENTION 7d",
        "schema version 3",
        "created 20",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let options = "SELECT options FROM system.namespaces WHERE namespace_id = 'n'";
    let options = cells(&ok(&engine, &root(), options, &[]).await);
    let options: serde_json::Value = serde_json::from_str(&options[0][0]).unwrap();
    assert_eq!(options, json!({"OWNER": "a", "TIER": "iron", "REGION": "eu"}));
    let changes = "SELECT event, details FROM system.changes WHERE event = 'SchemaVersionAdded'";
    assert!(ok(&engine, &root(), changes, &[]).await.contains("MODIFY COLUMN a BIGINT"));
    engine.close();
}

/// The statement that SHOW CREATE TABLE gives.
async fn shown(engine: &Engine, name: &str) -> String {
    let mut executed = engine.execute(&mut root(), &format!("SHOW CREATE TABLE {name}"), &[]).await;
    assert!(executed.error.is_none(), "{name}: {:?}", executed.error);
    let result = executed.results.pop().unwrap();
    result.batches[0].column_by_name("create_table").unwrap().as_string::<i32>().value(0).to_owned()
}

const EVERY_TYPE: &str = r#"CREATE USER TABLE here.every (
    zz SMALLINT DEFAULT -32768, "Quoted ""name""" INT, big BIGINT NOT NULL DEFAULT -9223372036854775808,
    single FLOAT DEFAULT 0.1, "double" DOUBLE DEFAULT -1e300, money DECIMAL(10, 2) DEFAULT -0.05,
    flag BOOLEAN DEFAULT true, words TEXT DEFAULT 'it''s \x41 ü', at TIMESTAMP DEFAULT '2026-01-02 03:04:05.000006',
    zoned DATETIME DEFAULT NOW(), moment DATETIME DEFAULT '2026-01-02T03:04:05Z', day DATE DEFAULT '1969-12-31',
    clock TIME DEFAULT '23:59:59.999999', doc JSON DEFAULT '{"a": "it''s"}', raw BYTES DEFAULT '\x00ff27',
    one UUID DEFAULT '0198c6e2-0000-7000-8000-0000000000ab', other UUID DEFAULT UUID_V7(), sorted TEXT DEFAULT ULID(),
    who TEXT DEFAULT CURRENT_USER(), role TEXT DEFAULT CURRENT_ROLE(), nothing TEXT DEFAULT NULL,
    near EMBEDDING(2) DEFAULT '[0.5, -1]', PRIMARY KEY (words, big)
) LOCATION 'cold/${user_id}/it''s' FLUSH POLICY ROWS 10 INTERVAL '90s' DELETED_RETENTION '36h'"#;

#[tokio::test]
async fn a_table_can_be_made_again_from_what_is_shown_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let mut tables = vec![EVERY_TYPE.to_owned()];
    tables.extend(
        [
            "CREATE USER TABLE here.bare (x INT)",
            "CREATE SHARED TABLE here.open (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public', FLUSH_POLICY = 'interval:1ms')",
            "CREATE SHARED TABLE here.closed (id INT PRIMARY KEY) LOCATION REFERENCE 'local'",
            "CREATE STREAM TABLE here.flow (x INT) TTL '1500ms' MAX_BUFFER 7 SCOPE 'all'",
            "CREATE STREAM TABLE here.\"select\" (x INT) EPHEMERAL true",
        ]
        .map(ToOwned::to_owned),
    );
    run(&engine, &root(), &["CREATE NAMESPACE here; CREATE NAMESPACE there"]).await;
    for create in &tables {
        ok(&engine, &root(), create, &[]).await;
    }
    ok(&engine, &root(), "ALTER TABLE here.every DROP COLUMN zz, ADD COLUMN late INT DEFAULT 5", &[]).await;
    ok(&engine, &root(), "ALTER TABLE here.every MODIFY money DECIMAL(12, 3), RENAME flag TO \"Flag\"", &[])
        .await;
    let described = |name: String| {
        let engine = engine.clone();
        async move {
            let mut executed = engine.execute(&mut root(), &format!("DESCRIBE {name}"), &[]).await;
            let message = executed.results[0].message.take().unwrap();
            let options =
                message.split_once("; ").unwrap().1.split("schema version").next().unwrap().to_owned();
            (ok(&engine, &root(), &format!("DESCRIBE {name}"), &[]).await, options)
        }
    };
    for table in ["every", "bare", "open", "closed", "flow", "\"select\""] {
        let (here, there) = (format!("here.{table}"), format!("there.{table}"));
        let before = described(here.clone()).await;
        // In another namespace …
        let short = {
            let mut executed =
                engine.execute(&mut root(), &format!("USE here; SHOW CREATE TABLE {table}"), &[]).await;
            let result = executed.results.pop().unwrap();
            result.batches[0].column_by_name("create_table").unwrap().as_string::<i32>().value(0).to_owned()
        };
        ok(&engine, &root(), &format!("USE there; {short}"), &[]).await;
        assert_eq!(described(there).await, before, "{short}");
        // … and after a DROP.
        let full = shown(&engine, &here).await;
        ok(&engine, &root(), &format!("DROP TABLE {here}; {full}"), &[]).await;
        assert_eq!(described(here.clone()).await, before, "{full}");
        assert_eq!(shown(&engine, &here).await, full);
    }
    engine.close();
}
