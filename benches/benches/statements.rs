//! Statements by their fast path beside the same by their slow one; and over HTTP, as the server measures them.
//!
//! `statements` runs all of it, `statements -- engine` or `-- http` a part.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures, and has nothing to do if it cannot"
)]

use std::time::Duration;

use kalamdb_benches::report::{ROUNDS, Report, median, verdict};
use kalamdb_benches::{Database, MESSAGES, body, is_wanted, row, session};
use kalamdb_core::format::Role;
use kalamdb_core::log::Durability;
use kalamdb_core::{Session, clock};
use kalamdb_server::{ServerConfig, serve};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

const ROWS: i64 = 10_000;
/// Statements of one round.
const COUNT: i64 = 1000;
/// What a statement over HTTP may take inside of the server.
const HTTP_MICROS_MAX: f64 = 150.0;

fn main() {
    let mut report = Report::default();
    let database = Database::open(Durability::Os);
    let user = session("user_00", Role::User);
    database.insert(&user, MESSAGES, &(0..ROWS).map(|id| row(id, id % 10)).collect::<Vec<_>>());
    if is_wanted("engine") {
        engine(&database, &user, &mut report);
    }
    if is_wanted("http") {
        http(&database, &mut report);
    }
    report.print();
    println!("\na row is 224 bytes; durability `os`; statements one after another");
}

/// A statement by its ways, the fastest first. `{id}` is one of the rows, `{new}` a number that never came before: a text with
/// it is planned anew. A condition beside the key makes a statement that needs a plan.
const WAYS: [(&str, &[(&str, &str)]); 4] = [
    (
        "SELECT one row",
        &[
            ("by its key", "SELECT * FROM bench.messages WHERE id = $1"),
            ("with a kept plan", "SELECT * FROM bench.messages WHERE id = $1 AND 1 = 1"),
            ("planned", "SELECT * FROM bench.messages WHERE id = $1 AND 1 = 1 /* {new} */"),
        ],
    ),
    (
        "SELECT an aggregate of ten rows",
        &[
            ("with a kept plan", "SELECT count(*), sum(room) FROM bench.messages WHERE id < 10"),
            ("planned", "SELECT count(*), sum(room) FROM bench.messages WHERE id < 10 /* {new} */"),
        ],
    ),
    (
        "UPDATE one row",
        &[
            ("by its key", "UPDATE bench.messages SET room = 5 WHERE id = $1"),
            ("by its key, computed", "UPDATE bench.messages SET room = room + 1 WHERE id = $1"),
            ("planned", "UPDATE bench.messages SET room = 5 WHERE id = $1 AND 1 = 1"),
        ],
    ),
    (
        "DELETE and INSERT one row",
        &[
            (
                "by its key",
                "DELETE FROM bench.messages WHERE id = {id}; INSERT INTO bench.messages VALUES ({id}, 1, 'x')",
            ),
            (
                "planned",
                "DELETE FROM bench.messages WHERE id = {id} AND 1 = 1; INSERT INTO bench.messages SELECT {id}, 1, 'x'",
            ),
        ],
    ),
];

/// The nth statement of a round.
fn statement(database: &Database, text: &str, number: i64) -> (String, Vec<Json>) {
    let id = (number * 7919) % ROWS;
    let sql = text.replace("{id}", &id.to_string()).replace("{new}", &database.next_id().to_string());
    let params = if sql.contains("$1") { vec![json!(id)] } else { Vec::new() };
    (sql, params)
}

/// Microseconds that one of these statements takes, on average of a round.
fn micros(database: &Database, user: &Session, text: &str) -> f64 {
    let statements: Vec<_> = (0..COUNT).map(|number| statement(database, text, number)).collect();
    let begun = clock::instant();
    for (sql, params) in &statements {
        database.execute(user, sql, params);
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(COUNT).unwrap())
}

fn engine(database: &Database, user: &Session, report: &mut Report) {
    for (what, ways) in WAYS {
        let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS {
            for ((_, text), rounds) in ways.iter().zip(&mut rounds) {
                rounds.push(micros(database, user, text));
            }
        }
        for ((how, _), rounds) in ways.iter().zip(&rounds) {
            report.micros(&format!("{what}, {how}"), rounds);
        }
        if let (Some(fast), Some(slow)) = (rounds.first(), rounds.last()) {
            report.ratio(&format!("{what}: slowest / fastest"), slow, fast, 0.0..f64::INFINITY);
        }
    }
}

/// One keep-alive connection; what the server says it took, in `took`.
fn http(database: &Database, report: &mut Report) {
    database.runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/api", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let engine = database.engine().clone();
        let server = tokio::spawn(serve(listener, engine, ServerConfig::default(), async {
            drop(stopped.await);
        }));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let login =
            http.post(format!("{url}/auth/login")).json(&json!({"user": "root", "password": "bench"}));
        let answer: Json = login.send().await.unwrap().json().await.unwrap();
        let token = answer.get("access_token").and_then(Json::as_str).unwrap().to_owned();
        let run = async |sql: &str, params: Vec<Json>| {
            let request = http.post(format!("{url}/sql")).bearer_auth(&token);
            let begun = clock::instant();
            let answer = request.json(&json!({"sql": sql, "params": params})).send().await.unwrap();
            let answer: Json = answer.json().await.unwrap();
            assert_eq!(answer.get("status"), Some(&json!("success")), "{answer}");
            (answer.get("took").and_then(Json::as_f64).unwrap() * 1e3, begun.elapsed())
        };
        for (what, sql) in [
            ("INSERT over HTTP", "INSERT INTO bench.messages VALUES ($1, 1, $2)"),
            ("SELECT by key over HTTP", "SELECT * FROM bench.messages WHERE id = $1"),
        ] {
            let (mut inside, mut outside) = (Vec::new(), Vec::new());
            for round in (0_i64..).take(ROUNDS) {
                let (mut took, mut waited): (Vec<f64>, Vec<Duration>) = (Vec::new(), Vec::new());
                for number in 0..COUNT {
                    let id = json!(ROWS + round * COUNT + number);
                    let inserts = sql.starts_with("INSERT");
                    let params = if inserts { vec![id, json!(body())] } else { vec![id] };
                    let (micros, whole) = run(sql, params).await;
                    took.push(micros);
                    waited.push(whole);
                }
                inside.push(median(&took));
                outside.push(median(&waited.iter().map(|it| it.as_secs_f64() * 1e6).collect::<Vec<_>>()));
            }
            let holds = verdict(median(&inside) < HTTP_MICROS_MAX);
            let show = |value: f64| format!("{value:.1} µs");
            report.add(
                &format!("{what}, p50 inside the server"),
                &inside,
                show,
                format!("{holds}, under {HTTP_MICROS_MAX} µs"),
            );
            report.micros(&format!("{what}, p50 for the client"), &outside);
        }
        drop(stop);
        server.await.unwrap().unwrap();
    });
}
