//! Clients that misbehave by seed: messages of the protocol with anything in their fields, SQL that is nearly right, types swapped,
//! deep nesting, huge numbers, broken JSON, `MessagePack` and gzip, bombs, fragments with control frames between them, frames that
//! break the rules, connections that go in the middle of a frame.
//!
//! All the while, the server lives and a healthy subscriber gets exactly its changes; each message that is certainly wrong gets one
//! error, each subscription an answer, each broken frame a close with the code that fits; memory stays bounded; and when the clients are
//! gone, so are their live queries.
//!
//! Some rounds in the suite; `cargo test --test fuzzing -- --rounds 100 [--seed N]` for more.

mod client;
mod messages;
mod sql;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use self::client::{Client, Totals};
use crate::support::{Api, Random, Server, Socket};

/// Clients at a time.
const CLIENTS: u64 = 4;
/// Connections of a client in a round, one after the other.
const SESSIONS: u64 = 8;
/// In every row of the healthy user; in nothing the fuzzer may see.
const SECRET: &str = "only for the healthy";
/// What the process may ever take: a few times what it takes when all goes well.
const MEMORY_MIB_MAX: u64 = 1_024;
/// How long live queries may outlive their connections.
const AFTERLIFE: Duration = Duration::from_secs(5);

/// A user with a subscription that must get each of its changes, once, in order, whatever others do.
struct Healthy {
    api: Api,
    socket: Socket,
    last_seq: u64,
    random: Random,
}

impl Healthy {
    async fn begin(server: &Server, root: &Api, seed: u64) -> Self {
        let api = server.user(root, "healthy").await;
        let mut socket = Socket::connect(server, &api.token).await;
        let (ack, _) = socket.snapshot("s", "SELECT id, body FROM fuzz.notes", json!({})).await;
        let last_seq = ack["snapshot_seq"].as_u64().unwrap();
        Self { api, socket, last_seq, random: Random(seed) }
    }

    async fn expect(&mut self, kind: &str, body: &str) {
        let change = self.socket.change("s").await;
        assert_eq!(
            (&change["change_type"], &change["prev_seq"]),
            (&json!(kind), &json!(self.last_seq)),
            "{change}"
        );
        let row = if kind == "delete" { &change["old_values"][0] } else { &change["rows"][0] };
        assert_eq!(row["body"], body, "{change}");
        self.last_seq = change["seq"].as_u64().unwrap();
    }

    /// Writes, and sees what it wrote, until the others are done.
    async fn live(mut self, done: Arc<AtomicBool>) -> (Self, u64) {
        let mut changes = 0;
        while !done.load(Ordering::SeqCst) {
            let (id, body) = (self.random.below(1 << 40), format!("{SECRET} {:x}", self.random.next()));
            let insert = "INSERT INTO fuzz.notes (id, n, body) VALUES ($1, 1, $2)";
            self.api.sql_with(insert, &[json!(id), json!(body)]).await;
            self.expect("insert", &body).await;
            let body = format!("{body}!");
            self.api
                .sql_with("UPDATE fuzz.notes SET body = $2 WHERE id = $1", &[json!(id), json!(body)])
                .await;
            self.expect("update", &body).await;
            self.api.sql_with("DELETE FROM fuzz.notes WHERE id = $1", &[json!(id)]).await;
            self.expect("delete", &body).await;
            changes += 3;
        }
        (self, changes)
    }
}

/// Changes rows that the fuzzer's subscriptions are about, and flushes them now and then.
async fn change_rows(api: Api, root: Api, mut random: Random, done: Arc<AtomicBool>) {
    while !done.load(Ordering::SeqCst) {
        let (id, n) = (random.below(100), random.below(20));
        let upsert = "INSERT INTO fuzz.notes (id, n, body) VALUES ($1, $2, $3) \
                      ON CONFLICT DO UPDATE SET n = excluded.n, body = excluded.body";
        api.sql_with(upsert, &[json!(id), json!(n), json!(format!("m{n}"))]).await;
        api.sql("INSERT INTO fuzz.typing (who) VALUES ('mallory')").await;
        root.sql_with("UPDATE fuzz.rooms SET name = $1 WHERE id = 1", &[json!(format!("room {n}"))]).await;
        if random.one_in(50) {
            root.sql("STORAGE FLUSH TABLE fuzz.notes").await;
        }
    }
}

async fn sessions(address: String, token: String, mut random: Random) -> Totals {
    let mut totals = Totals::default();
    for _ in 0..SESSIONS {
        Client::session(&mut random, &mut totals, &address, &token).await;
    }
    totals
}

/// The live queries of all who are gone are gone, too: the healthy user's is left.
async fn check_afterlife(root: &Api) {
    let gone =
        async { while root.rows("SELECT count(*) FROM system.live_queries").await != [json!(["1"])] {} };
    let ended = tokio::time::timeout(AFTERLIFE, gone).await;
    if ended.is_err() {
        let left = root.rows("SELECT * FROM system.live_queries").await;
        panic!("live queries outlive their connections: {left:?}");
    }
}

/// Runs so many rounds. The seed decides what each client sends.
pub(crate) async fn run(rounds: u64, seed: u64) {
    println!("fuzzing: {rounds} rounds, seed {seed}");
    // Whoever says nothing for long is another test's.
    let config = "durability = \"os\"\n[server]\nclient_timeout_ms = 600000\nauth_deadline_ms = 600000\n";
    let server = Server::start_with(config).await;
    let root = server.root().await;
    for sql in [
        "CREATE NAMESPACE fuzz",
        "CREATE USER TABLE fuzz.notes (id BIGINT PRIMARY KEY, n INT, body TEXT)",
        "CREATE SHARED TABLE fuzz.rooms (id INT PRIMARY KEY, name TEXT, open BOOLEAN) WITH (ACCESS_LEVEL = 'public')",
        "CREATE STREAM TABLE fuzz.typing (who TEXT) RETENTION '1s' MAX_BUFFER 100",
        "INSERT INTO fuzz.rooms VALUES (1, 'room', true), (2, 'cellar', false)",
    ] {
        root.sql(sql).await;
    }
    let mallory = server.user(&root, "mallory").await;
    let mut healthy = Healthy::begin(&server, &root, seed).await;
    let (mut totals, mut changes) = (Totals::default(), 0);
    for round in 1..=rounds {
        let done = Arc::new(AtomicBool::new(false));
        let living = tokio::spawn(healthy.live(Arc::clone(&done)));
        let random = Random(seed ^ round << 32);
        let changing = tokio::spawn(change_rows(mallory.clone(), root.clone(), random, Arc::clone(&done)));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|client| Random(seed ^ round << 32 ^ client << 56))
            .map(|random| tokio::spawn(sessions(server.address().to_owned(), mallory.token.clone(), random)))
            .collect();
        for client in clients {
            totals.add(client.await.unwrap());
        }
        check_afterlife(&root).await;
        done.store(true, Ordering::SeqCst);
        changing.await.unwrap();
        let (survivor, more) = living.await.unwrap();
        (healthy, changes) = (survivor, changes + more);
        let (now, most) = (server.memory_mib("VmRSS"), server.memory_mib("VmHWM"));
        assert!(most < MEMORY_MIB_MAX, "the server took {most} MiB in round {round}");
        if round % 10 == 0 || round == rounds {
            println!(
                "round {round}: {now} MiB now, {most} at the most, {changes} changes of the healthy user; {totals}"
            );
        }
    }
    assert!(!server.log().contains("panicked"), "something panicked");
    for what in [
        "PROTOCOL",
        "UNSUPPORTED_DATA",
        "MESSAGE_TOO_LARGE",
        "INVALID_SQL",
        "NOT_FOUND",
        "subscription_ack",
        "change",
    ] {
        assert!(totals.of(what) > 0, "the fuzzer never saw {what}: {totals}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_suffers_from_clients_that_misbehave() {
    run(1, u64::from(std::process::id())).await;
}
