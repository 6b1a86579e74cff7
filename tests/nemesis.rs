//! Everything goes wrong at once: writers, subscribers with filters, orders and aggregates over several users and tables, who
//! disconnect, resume and stop reading at any moment, while the server is killed, flushes, alters and truncates its tables, drops
//! all of them and restores them. What each subscriber had at each seq is compared with what the log says was there, by a second
//! evaluator that knows nothing of the server's; every chain is unbroken, and no row of somebody else ever comes.
//!
//! A minute in the suite; `KALAMDB_NEMESIS_MINUTES=30 KALAMDB_SEED=7 cargo test --test main -- nemesis` for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kalamdb_core::clock::instant;
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use self::oracle::{Events, QUERIES, TABLES, TAGS};
use self::subscriber::Subscriber;
use crate::support::{Api, Random, Server, in_time};

/// What the queries mean, said once more.
mod oracle;
/// A subscriber through all of its connections.
mod subscriber;

const WRITERS: usize = 4;
const SUBSCRIBERS: usize = 24;

/// Up to so many milliseconds: how often something happens, not what is waited for.
async fn pause(random: &mut Random, milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(random.below(milliseconds))).await;
}

fn user(number: usize) -> String {
    format!("user{}", number % WRITERS)
}

/// Rows that their writer owns and is named in.
fn statement(random: &mut Random, owner: &str) -> String {
    let table = random.pick(&TABLES);
    let row = |random: &mut Random| {
        let n = if random.below(8) == 0 { "NULL".to_owned() } else { random.below(50).to_string() };
        format!("({}, {n}, '{}', '{owner}')", random.below(40), random.pick(&TAGS))
    };
    let (id, tag) = (random.below(40), random.pick(&TAGS));
    match random.below(10) {
        0..=3 => format!(
            "INSERT INTO nem.{table} (id, n, tag, owner) VALUES {} ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n, tag = EXCLUDED.tag, owner = EXCLUDED.owner",
            row(random)
        ),
        4 => {
            let mut rows: Vec<String> = (0..=random.below(5)).map(|_| row(random)).collect();
            rows.sort_by_key(|row| row.split(',').next().map(str::to_owned));
            rows.dedup_by_key(|row| row.split(',').next().map(str::to_owned));
            format!(
                "INSERT INTO nem.{table} (id, n, tag, owner) VALUES {} ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n",
                rows.join(", ")
            )
        }
        5 | 6 => format!("UPDATE nem.{table} SET n = {}, tag = '{tag}' WHERE id = {id}", random.below(50)),
        7 => format!("UPDATE nem.{table} SET n = n + 1 WHERE tag = '{tag}'"),
        8 => format!("DELETE FROM nem.{table} WHERE id = {id} OR n = {}", random.below(50)),
        _ => format!(
            "BEGIN; DELETE FROM nem.{table} WHERE id = {id}; UPDATE nem.{table} SET tag = '{tag}' WHERE id = {}; COMMIT",
            random.below(40)
        ),
    }
}

/// What is counted while it goes on.
#[derive(Default)]
struct Totals {
    written: AtomicU64,
    refused: AtomicU64,
}

async fn write(api: Api, owner: String, mut random: Random, is_over: Arc<AtomicBool>, totals: Arc<Totals>) {
    while !is_over.load(Ordering::SeqCst) {
        let sql = statement(&mut random, &owner);
        match api.sql_of_unknown_fate(&sql, &[]).await {
            // The server is away.
            None => pause(&mut random, 50).await,
            Some(answer) if answer.body["status"] == "success" => {
                totals.written.fetch_add(1, Ordering::SeqCst);
            }
            Some(answer) => {
                let code = answer.body["error"]["code"].as_str().unwrap_or_default().to_owned();
                let is_away =
                    ["NAMESPACE_NOT_FOUND", "TABLE_NOT_FOUND", "TABLE_DROPPED"].contains(&code.as_str());
                assert!(is_away || code == "CONFLICT", "{sql}: {answer:?}");
                totals.refused.fetch_add(1, Ordering::SeqCst);
            }
        }
        pause(&mut random, 12).await;
    }
}

struct Nemesis {
    server: Server,
    root: Api,
    random: Random,
    kills: u64,
    flushes: u64,
    alterations: u64,
    truncations: u64,
    restores: u64,
    backup: tempfile::TempDir,
    /// Counts twice what takes all rows of a table: before and after. Who began before it may be told to begin anew.
    emptied: Arc<AtomicU64>,
}

impl Nemesis {
    async fn begin(seed: u64) -> Self {
        // Queues with little room: whoever does not read gets behind.
        let server = Server::start_with("[server]\nqueue_changes_max = 32\n").await;
        let root = server.root().await;
        root.sql("CREATE NAMESPACE nem").await;
        let columns = "(id BIGINT PRIMARY KEY, n INT, tag TEXT NOT NULL, owner TEXT NOT NULL)";
        root.sql(&format!("CREATE USER TABLE nem.a {columns}")).await;
        root.sql(&format!("CREATE USER TABLE nem.b {columns} FLUSH POLICY ROWS 20")).await;
        root.sql(&format!("CREATE TABLE nem.s {columns} WITH (TYPE = 'SHARED', ACCESS_LEVEL = 'public')"))
            .await;
        Self {
            server,
            root,
            random: Random(seed),
            kills: 0,
            flushes: 0,
            alterations: 0,
            truncations: 0,
            restores: 0,
            backup: tempfile::tempdir().unwrap(),
            emptied: Arc::default(),
        }
    }

    async fn act(&mut self) {
        match self.random.below(12) {
            0 => self.kill().await,
            1 if self.alterations < 30 => {
                let (table, number) = (self.random.pick(&TABLES), self.alterations);
                self.root.sql(&format!("ALTER TABLE nem.{table} ADD COLUMN x{number} INT DEFAULT 5")).await;
                self.alterations += 1;
            }
            2..=4 => {
                let table = self.random.pick(&TABLES);
                self.root.sql(&format!("STORAGE FLUSH TABLE nem.{table}")).await;
                self.flushes += 1;
            }
            5 if self.random.below(3) == 0 => self.empty().await,
            _ => {}
        }
        pause(&mut self.random, 400).await;
    }

    async fn kill(&mut self) {
        self.server.kill().await;
        pause(&mut self.random, 100).await;
        self.server.start_again().await;
        self.kills += 1;
    }

    /// All rows of a table go, or all tables, which come back as they were a moment before. Nobody may listen when they go.
    async fn empty(&mut self) {
        self.emptied.fetch_add(1, Ordering::SeqCst);
        let backup = format!("'{}'", self.backup.path().display());
        let restores = self.random.below(2) == 0;
        let statement = if restores {
            self.root.sql(&format!("BACKUP DATABASE nem TO {backup}")).await;
            assert_eq!(self.root.last_job("backup_database").await.0, "completed");
            "DROP NAMESPACE nem CASCADE".to_owned()
        } else {
            format!("TRUNCATE TABLE nem.{}", self.random.pick(&TABLES))
        };
        in_time(&statement, self.despite_listeners(&statement)).await;
        self.emptied.fetch_add(1, Ordering::SeqCst);
        if !restores {
            self.truncations += 1;
            return;
        }
        self.root.sql(&format!("RESTORE DATABASE nem FROM {backup}")).await;
        if self.random.below(2) == 0 {
            pause(&mut self.random, 30).await;
            self.kill().await;
        }
        assert_eq!(self.root.last_job("restore_database").await.0, "completed");
        self.restores += 1;
    }

    /// Sends away all who listen, until nobody has come back before the statement.
    async fn despite_listeners(&self, statement: &str) {
        loop {
            let listeners = self.root.rows("SELECT live_id FROM system.live_queries").await;
            let kill = |row: &Json| format!("KILL LIVE QUERY '{}'; ", row[0].as_str().unwrap());
            let kills: String = listeners.iter().map(kill).collect();
            let answer = self.root.try_sql(&format!("{kills}{statement}"), &[]).await;
            if answer.body["status"] == "success" {
                return;
            }
            // Somebody left meanwhile, or came.
            assert!(["NOT_FOUND", "CONSTRAINT_VIOLATION"].contains(&answer.code()), "{answer:?}");
        }
    }

    /// Every row event of the log, as its files tell it.
    async fn log(&self) -> Events {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kalamdb"))
            .args(["tail", "--from", "start", "--no-follow", "--format", "json", "--data-dir"])
            .arg(self.server.data_dir())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut events = Events::default();
        while let Some(line) = in_time("an event", lines.next_line()).await.unwrap() {
            events.take(&serde_json::from_str::<Json>(&line).unwrap());
        }
        assert!(in_time("the end", child.wait()).await.unwrap().success());
        events
    }
}

async fn run(time: Duration, seed: u64) {
    println!("nemesis: {time:?}, seed {seed}");
    let mut nemesis = Nemesis::begin(seed).await;
    let (is_over, totals) = (Arc::new(AtomicBool::new(false)), Arc::new(Totals::default()));
    let (mut tokens, mut writing, mut listening) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WRITERS {
        let api = nemesis.server.user(&nemesis.root, &user(number)).await;
        tokens.push(api.token.clone());
        let random = Random(seed.wrapping_mul(31).wrapping_add(number as u64));
        writing.push(tokio::spawn(write(
            api,
            user(number),
            random,
            Arc::clone(&is_over),
            Arc::clone(&totals),
        )));
    }
    let url = nemesis.server.socket_url("compress=false");
    for number in 0..SUBSCRIBERS {
        let random = Random(seed.wrapping_mul(97).wrapping_add(number as u64));
        let table = TABLES[number % TABLES.len()];
        let query = &QUERIES[number % QUERIES.len()];
        let emptied = Arc::clone(&nemesis.emptied);
        let subscriber = Subscriber::new(user(number / 3), table, query, random, emptied);
        let (url, token, is_over) =
            (url.clone(), tokens[(number / 3) % WRITERS].clone(), Arc::clone(&is_over));
        listening.push(tokio::spawn(subscriber.live(url, token, is_over)));
    }
    let ends = instant() + time;
    while instant() < ends {
        nemesis.act().await;
    }
    is_over.store(true, Ordering::SeqCst);
    for writer in writing {
        in_time("a writer", writer).await.unwrap();
    }
    let events = nemesis.log().await;
    let (mut frames, mut checked, mut sessions, mut resumed) = (0, 0, 0, 0);
    for (subscriber, number) in listening.into_iter().zip(0..) {
        let mut subscriber = in_time("a subscriber", subscriber).await.unwrap();
        let token = &tokens[(number / 3) % WRITERS];
        // Whatever it went through, in the end it has what is there.
        let what = format!("{} to have what is there", subscriber.name());
        in_time(&what, Box::pin(subscriber.finish(&url, token, &events))).await;
        checked += subscriber.check(&events);
        frames += subscriber.frames;
        sessions += subscriber.sessions;
        resumed += subscriber.resumed;
    }
    println!(
        "nemesis: {} commits ({} refused as conflicts), {} kills, {} flushes, {} ALTERs, {} truncations, {} restores; {SUBSCRIBERS} subscribers, {sessions} connections, {resumed} resumed, {frames} frames; {checked} results compared, all equal",
        totals.written.load(Ordering::SeqCst),
        totals.refused.load(Ordering::SeqCst),
        nemesis.kills,
        nemesis.flushes,
        nemesis.alterations,
        nemesis.truncations,
        nemesis.restores,
    );
    assert!(checked > 20 && resumed > 3, "too little happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_subscribed_to_is_what_is_seen_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let time = number("KALAMDB_NEMESIS_MINUTES").map_or(Duration::from_secs(45), Duration::from_mins);
    let seed = number("KALAMDB_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    Box::pin(run(time, seed)).await;
}
