//! What the benches share: where data goes, what a row looks like, a database with tables, those who listen to it.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a bench that cannot be set up has nothing to measure"
)]

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kalamdb_core::format::{Role, UserId, Value};
use kalamdb_core::log::Durability;
use kalamdb_core::{
    ChangeFrame, Engine, EngineOptions, Error, Session, Sink, StatementResult, SubscribeRequest,
    Subscription, SubscriptionId, clock,
};
use log_format::{RowBuilder, SchemaVersion};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Bytes of a row, encoded: what a chat message takes.
pub const ROW_BYTES: usize = 224;

/// The USER table of [`Database`]: `id BIGINT PRIMARY KEY, room BIGINT, body TEXT`.
pub const MESSAGES: &str = "bench.messages";

/// The SHARED table of [`Database`]: `number BIGINT PRIMARY KEY, id BIGINT, body TEXT`.
pub const POINTS: &str = "bench.points";

/// Bytes of a row that are not `body`'s: its head, two integers, the head of the text.
const ROW_BYTES_BESIDE_BODY: usize = 6 + 9 + 9 + 5;

/// A directory on the disk that holds the build, not in memory.
pub fn directory() -> TempDir {
    let program = std::env::current_exe().expect("the bench has a path");
    let beside = program.parent().expect("the bench stands in a directory");
    tempfile::Builder::new()
        .prefix("kalamdb-bench-")
        .tempdir_in(beside)
        .expect("a directory beside the bench")
}

/// A text that makes a row of either table [`ROW_BYTES`] long.
pub fn body() -> String {
    static BODY: LazyLock<String> = LazyLock::new(|| {
        let text = "the quick brown fox jumps over the lazy dog. ";
        text.chars().cycle().take(ROW_BYTES - ROW_BYTES_BESIDE_BODY).collect()
    });
    BODY.clone()
}

/// A row of either table.
pub fn row(id: i64, other: i64) -> Vec<Value> {
    vec![Value::BigInt(id), Value::BigInt(other), Value::Text(body())]
}

/// A row's bytes.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut row = RowBuilder::new(SchemaVersion::FIRST);
    for value in values {
        row.push(value);
    }
    row.finish().expect("a small row is encoded")
}

/// The bytes of [`row`].
pub fn encoded_row(id: i64, other: i64) -> Vec<u8> {
    let bytes = encode(&row(id, other));
    assert_eq!(bytes.len(), ROW_BYTES, "the figures name this size");
    bytes
}

/// A database in a directory of its own, with both tables; closed and removed when dropped.
#[derive(Debug)]
pub struct Database {
    engine: Engine,
    runtime: Runtime,
    next_id: AtomicI64,
    _dir: TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.engine.clone().close();
    }
}

impl Database {
    /// Opens one.
    pub fn open(durability: Durability) -> Self {
        let dir = directory();
        let mut options = EngineOptions::new(dir.path());
        options.durability = durability;
        options.root_password = Some("bench".to_owned());
        let (engine, _) = Engine::open(options).expect("a new database opens");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let database = Self { engine, runtime, next_id: AtomicI64::new(1), _dir: dir };
        for statement in [
            "CREATE NAMESPACE bench",
            "CREATE USER TABLE bench.messages (id BIGINT PRIMARY KEY, room BIGINT, body TEXT)",
            "CREATE SHARED TABLE bench.points (number BIGINT PRIMARY KEY, id BIGINT, body TEXT)",
        ] {
            database.execute(&session("root", Role::Dba), statement, &[]);
        }
        database
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The runtime that statements run on.
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// An id that no row has yet.
    pub fn next_id(&self) -> i64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs one statement.
    pub fn execute(&self, session: &Session, sql: &str, params: &[Json]) -> Vec<StatementResult> {
        let mut session = session.clone();
        let executed = self.runtime.block_on(self.engine.execute(&mut session, sql, params));
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
        executed.results
    }

    /// Commits one row of [`MESSAGES`] and waits until it counts as written.
    pub fn insert_message(&self, session: &Session) {
        let rows = vec![row(self.next_id(), 1)];
        self.engine.insert_rows(session, MESSAGES, &rows).expect("a new row is inserted");
    }
}

/// Somebody.
pub fn session(user: &str, role: Role) -> Session {
    Session::new(UserId::new(user), role, None)
}

/// Tells when a frame arrived.
struct Arrivals(Sender<Instant>);

impl Sink for Arrivals {
    fn deliver(&self, _: SubscriptionId, _: Vec<ChangeFrame>) -> bool {
        self.0.send(clock::instant()).is_ok()
    }

    fn lagging(&self, _: SubscriptionId) {}

    fn ended(&self, _: SubscriptionId, _: Error) {}
}

/// A database and subscriptions to [`POINTS`], each `WHERE id = constant` of its own.
#[derive(Debug)]
pub struct Listened {
    subscriptions: Vec<Subscription>,
    arrivals: Receiver<Instant>,
    writer: Session,
    database: Database,
}

impl Listened {
    /// Opens a database and subscribes that many times.
    pub fn by(subscriptions: usize) -> Self {
        let database = Database::open(Durability::Os);
        let (sender, arrivals) = channel();
        let sink: Arc<dyn Sink> = Arc::new(Arrivals(sender));
        let writer = session("root", Role::Dba);
        let subscribed = (0..subscriptions).map(|id| {
            let request = SubscribeRequest {
                connection_id: "bench".to_owned(),
                query_id: id.to_string(),
                sql: format!("SELECT * FROM {POINTS} WHERE id = {id}"),
                from: Some(database.engine().published()),
                ..SubscribeRequest::default()
            };
            let begun = database.engine().subscribe(&writer, request, Arc::clone(&sink));
            let mut subscription =
                database.runtime().block_on(begun).expect("a point subscription is accepted");
            assert!(subscription.catch_up(1).expect("it catches up").live, "nothing is written meanwhile");
            subscription
        });
        let subscriptions = subscribed.collect();
        Self { subscriptions, arrivals, writer, database }
    }

    /// Commits a row that exactly one of the subscriptions matches: how long from the call until that one has it.
    pub fn notify(&self) -> Duration {
        let number = self.database.next_id();
        let listeners = i64::try_from(self.subscriptions.len()).expect("few enough");
        // A prime step, so that neighbouring samples do not share a neighbourhood in memory.
        let id = (number * 7919).rem_euclid(listeners);
        let rows = vec![row(number, id)];
        let begun = clock::instant();
        self.database.engine().insert_rows(&self.writer, POINTS, &rows).expect("a new row is inserted");
        let arrived = self.arrivals.recv().expect("the subscription gets the row");
        arrived.saturating_duration_since(begun)
    }
}
