//! What is flushed of tables that say nothing about it.

use std::time::Duration;

use log_format::{FlushPolicy, Role};

use crate::cold_tests::{NOTES, files, flush, stats};
use crate::testing::{all_done, cells, root, session};
use crate::tests::{ok, refused};
use crate::{Engine, EngineOptions, FlushOptions, Session};

async fn hot_rows(engine: &Engine, who: &Session, table: &str, expected: &str) {
    let arrived = tokio::time::timeout(Duration::from_mins(1), async {
        while stats(engine, who, table).await[0] != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(arrived.await.is_ok(), "{:?}", stats(engine, who, table).await);
}

fn open(directory: &std::path::Path, flush: FlushOptions) -> Engine {
    let mut options = EngineOptions::new(directory);
    options.root_password = Some("secret of root".to_owned());
    options.flush = flush;
    Engine::open(options).unwrap().0
}

#[tokio::test]
async fn tables_without_a_policy_have_the_servers_and_a_tables_own_wins() {
    let directory = tempfile::tempdir().unwrap();
    let policy = Some(FlushPolicy { rows: Some(3), interval_ms: None });
    let engine = open(directory.path(), FlushOptions { policy, hot_bytes_max: None });
    let ann = session("ann", Role::User);
    ok(&engine, &root(), NOTES, &[]).await;
    let own = "CREATE USER TABLE app.own (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:100')";
    ok(&engine, &root(), own, &[]).await;
    ok(&engine, &ann, "INSERT INTO app.own VALUES (1), (2), (3), (4)", &[]).await;
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (1, 'a'), (2, 'b')", &[]).await;
    assert_eq!(stats(&engine, &ann, "app.notes").await[0], "2");
    ok(&engine, &ann, "INSERT INTO app.notes VALUES (3, 'c')", &[]).await;
    hot_rows(&engine, &ann, "app.notes", "0").await;
    assert_eq!(stats(&engine, &ann, "app.own").await[0], "4");
    engine.close();
}

#[tokio::test]
async fn a_hot_tier_that_is_too_great_loses_its_greatest_tables() {
    let directory = tempfile::tempdir().unwrap();
    let options = FlushOptions { policy: None, hot_bytes_max: Some(100_000) };
    let engine = open(directory.path(), options);
    let ann = session("ann", Role::User);
    ok(&engine, &root(), NOTES, &[]).await;
    ok(&engine, &root(), "CREATE SHARED TABLE app.small (id BIGINT PRIMARY KEY, body TEXT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO app.small VALUES (1, 'stays hot')", &[]).await;
    let body = "x".repeat(30_000);
    for id in 0..3 {
        ok(&engine, &ann, &format!("INSERT INTO app.notes VALUES ({id}, '{body}')"), &[]).await;
    }
    // Below the limit nothing goes, however long one looks: the fourth row is what it takes.
    assert_eq!(stats(&engine, &ann, "app.notes").await[0], "3");
    ok(&engine, &ann, &format!("INSERT INTO app.notes VALUES (3, '{body}')"), &[]).await;
    hot_rows(&engine, &ann, "app.notes", "0").await;
    assert_eq!(stats(&engine, &root(), "app.small").await[0], "1");
    engine.close();
}

#[tokio::test]
async fn a_tables_files_are_where_it_says_and_go_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), FlushOptions::default());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    for wrong in [
        "",
        "/srv/rows",
        "../rows",
        "a//b",
        "a/${user}/b",
        "a/x${user_id}",
        "${user_id}/${user_id}",
        "s3://b",
    ] {
        let create = format!("CREATE USER TABLE app.w (id BIGINT PRIMARY KEY) LOCATION '{wrong}'");
        let (_, message) = refused(&engine, &root(), &create).await;
        assert!(message.contains("LOCATION"), "{message}");
    }
    let shared = "CREATE SHARED TABLE app.w (id BIGINT PRIMARY KEY) LOCATION 'a/${user_id}'";
    assert!(refused(&engine, &root(), shared).await.1.contains("USER tables"));
    for name in ["kept", "gone"] {
        let create = format!(
            "CREATE USER TABLE app.{name} (id BIGINT PRIMARY KEY) LOCATION 'archive/${{user_id}}/chat'"
        );
        ok(&engine, &root(), &create, &[]).await;
        ok(&engine, &ann, &format!("INSERT INTO app.{name} VALUES (1), (2)"), &[]).await;
        flush(&engine, &format!("app.{name}")).await;
        assert_eq!(stats(&engine, &ann, &format!("app.{name}")).await, ["0", "2", "1"]);
    }
    let of_ann = directory.path().join("cold/archive/ann/chat");
    let tables = || {
        let names =
            std::fs::read_dir(&of_ann).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.map(|it| it.split('-').next().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(tables(), ["gone", "kept"]);
    ok(&engine, &root(), "DROP TABLE app.gone", &[]).await;
    all_done(&engine).await;
    files(directory.path(), 1).await;
    assert_eq!(stats(&engine, &ann, "app.kept").await, ["0", "2", "1"]);
    ok(&engine, &root(), "TRUNCATE TABLE app.kept", &[]).await;
    files(directory.path(), 0).await;
    engine.close();
}

#[tokio::test]
async fn a_dropped_table_leaves_the_files_of_one_whose_location_leads_below_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), FlushOptions::default());
    let ann = session("ann", Role::User);
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    ok(&engine, &root(), "CREATE USER TABLE app.gone (id BIGINT PRIMARY KEY)", &[]).await;
    let of_gone = "SELECT table_id FROM system.tables WHERE table_name = 'gone'";
    let id = cells(&ok(&engine, &root(), of_gone, &[]).await).remove(0).remove(0);
    let below = [("one", format!("app/gone-{id}")), ("two", format!("app/gone-{id}/${{user_id}}"))];
    for (name, location) in &below {
        let create = format!("CREATE USER TABLE app.{name} (id BIGINT PRIMARY KEY) LOCATION '{location}'");
        ok(&engine, &root(), &create, &[]).await;
    }
    for name in ["gone", "one", "two"] {
        ok(&engine, &ann, &format!("INSERT INTO app.{name} VALUES (1), (2)"), &[]).await;
        flush(&engine, &format!("app.{name}")).await;
    }
    files(directory.path(), 3).await;
    ok(&engine, &root(), "DROP TABLE app.gone", &[]).await;
    all_done(&engine).await;
    files(directory.path(), 2).await;
    engine.close();
    let engine = open(directory.path(), FlushOptions::default());
    for (name, _) in &below {
        let all = ok(&engine, &ann, &format!("SELECT id FROM app.{name} ORDER BY id"), &[]).await;
        assert_eq!(cells(&all), [["1"], ["2"]]);
    }
    engine.close();
}
