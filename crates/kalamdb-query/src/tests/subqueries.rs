//! Subqueries in every place, against answers that PostgreSQL 15 gave.
use std::sync::Arc;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::Analyzer;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::UnnestSubqueries;

const TABLES: &str = "
CREATE TABLE rooms (room INT, topic INT, grp INT) AS VALUES (10,1,7),(20,2,7),(NULL,3,8),(40,4,8),(50,NULL,7),(NULL,NULL,8);
CREATE TABLE bans (room INT, topic INT, grp INT) AS VALUES (10,5,7),(NULL,50,7),(40,NULL,8),(NULL,NULL,8),(20,3,9);
CREATE TABLE members (id INT, room INT, who TEXT) AS VALUES (1,10,'ana'),(2,20,'bo'),(3,NULL,'cy'),(4,40,'di');
CREATE TABLE banned (id INT, room INT, who TEXT) AS VALUES (1,10,'bo'),(2,NULL,'zed');
CREATE TABLE usr (id INT, n TEXT) AS VALUES (1,'ana'),(2,'bo'),(3,'cy');
CREATE TABLE rm (id INT, rn TEXT) AS VALUES (1,'r1'),(2,'r2');
CREATE TABLE mem (uid INT, rid INT) AS VALUES (1,1),(1,2),(2,1);
CREATE TABLE ch (id INT, name TEXT) AS VALUES (1,'general'),(2,'random'),(3,'quiet');
CREATE TABLE msg (id INT, ch INT, body TEXT, at INT) AS VALUES (1,1,'hi',1000),(2,1,'yo',1005),(3,2,'oh',900);
";

fn context() -> SessionContext {
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(UnnestSubqueries));
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_target_partitions(1))
        .with_default_features()
        .with_analyzer_rules(rules)
        .build();
    SessionContext::new_with_state(state)
}

async fn rows(context: &SessionContext, sql: &str) -> String {
    let batches = match context.sql(sql).await {
        Ok(frame) => frame.collect().await,
        Err(error) => Err(error),
    };
    let batches = match batches {
        Ok(batches) => batches,
        Err(error) => return format!("error: {error}"),
    };
    let mut rows: Vec<String> = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| {
                if datafusion::arrow::array::Array::is_null(column, row) {
                    return "-".to_owned();
                }
                datafusion::arrow::util::display::array_value_to_string(column, row).unwrap()
            });
            rows.push(cells.collect::<Vec<_>>().join(","));
        }
    }
    rows.sort();
    rows.join(" ")
}

#[tokio::test]
async fn subqueries_answer_as_postgresql() {
    let context = context();
    for statement in TABLES.split(';').filter(|text| !text.trim().is_empty()) {
        // `CREATE TABLE … AS VALUES` with typed columns is DataFusion's own.
        context.sql(statement).await.unwrap().collect().await.unwrap();
    }
    let mut wrong = Vec::new();
    for (sql, expected) in include!("subqueries.in") {
        let answered = rows(&context, sql).await;
        if answered != *expected {
            wrong.push(format!("{sql}\n  expected {expected}\n  answered {answered}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
