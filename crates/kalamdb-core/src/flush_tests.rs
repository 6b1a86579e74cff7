//! What is flushed of tables that say nothing about it.

use std::time::Duration;

use log_format::{FlushPolicy, Role};

use crate::cold_tests::{NOTES, stats};
use crate::testing::{root, session};
use crate::tests::ok;
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
