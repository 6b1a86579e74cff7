//! What the benches share: where data goes, what a row looks like, a database with tables, those who listen to it.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a bench that cannot be set up has nothing to measure"
)]

pub mod change_log;
pub mod report;
pub mod sockets;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kalamdb_core::format::{Role, UserId, Value};
use kalamdb_core::log::Durability;
use kalamdb_core::{
    ChangeFrame, Engine, EngineOptions, Error, Replayed, Session, Sink, StatementResult, SubscribeRequest,
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

/// Whether a part of a bench is to run: one that is named behind `--`, or each where none is.
pub fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

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
    next_id: Arc<AtomicI64>,
    dir: TempDir,
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
        Self::over(engine, dir)
    }

    fn over(engine: Engine, dir: TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let database = Self { engine, runtime, next_id: Arc::new(AtomicI64::new(1)), dir };
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

    /// Inserts rows as one commit, and waits until they count as written.
    pub fn insert(&self, session: &Session, table: &str, rows: &[Vec<Value>]) {
        let inserted = self.runtime.block_on(self.engine.insert_rows(session, table, rows));
        inserted.expect("new rows are inserted");
    }

    /// As many writers at once, each a task as a connection of the server is, and each a user: they commit one row after
    /// the other while `goes_on` says so of the number a writer has done. How many commits that were, and how long it took.
    pub fn race(
        &self,
        writers: usize,
        goes_on: impl Fn(u64) -> bool + Clone + Send + 'static,
    ) -> (u64, Duration) {
        let begun = clock::instant();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (engine, ids, goes_on) =
                    (self.engine.clone(), Arc::clone(&self.next_id), goes_on.clone());
                self.runtime.spawn(async move {
                    let session = session(&format!("user_{writer:02}"), Role::User);
                    let mut done = 0;
                    while goes_on(done) {
                        let rows = [row(ids.fetch_add(1, Ordering::Relaxed), 1)];
                        engine.insert_rows(&session, MESSAGES, &rows).await.expect("a new row is inserted");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let commits = self.runtime.block_on(async {
            let mut commits = 0;
            for task in tasks {
                commits += task.await.expect("a writer does not panic");
            }
            commits
        });
        (commits, begun.elapsed())
    }
}

/// How long it takes to replay that much log into projections that have none of it, and how much it was.
pub fn replay(bytes: u64) -> Replayed {
    let (dir, copy) = (directory(), directory());
    let mut options = EngineOptions::new(dir.path());
    options.durability = Durability::Os;
    options.root_password = Some("bench".to_owned());
    options.unflushed_bytes_max = u64::MAX;
    let (engine, _) = Engine::open(options.clone()).expect("a new database opens");
    let database = Database::over(engine, dir);
    let log = database.dir.path().join(kalamdb_core::LOG_DIRECTORY);
    let mut id = 0;
    let written = || {
        let files = std::fs::read_dir(&log).expect("the log is there").flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    while written() < bytes {
        let rows: Vec<_> = (0..1000).map(|at| row(id + at, 1)).collect();
        database.insert(&session(&format!("user_{:02}", id / 1000 % 32), Role::User), MESSAGES, &rows);
        id += 1000;
    }
    // What a crash leaves where nothing was flushed: the log alone.
    let target = copy.path().join(kalamdb_core::LOG_DIRECTORY);
    std::fs::create_dir_all(&target).expect("the copy can be made");
    for file in std::fs::read_dir(&log).expect("the log is there").flatten() {
        std::fs::copy(file.path(), target.join(file.file_name())).expect("the copy can be made");
    }
    copy.path().clone_into(&mut options.data_dir);
    let (engine, opened) = Engine::open(options).expect("the copy opens");
    engine.close();
    opened.replayed
}

/// KiB of memory that a process has.
pub fn memory_kib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size is told");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
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

/// What subscriptions are to.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// To [`POINTS`], each `WHERE id = constant` of its own.
    Points,
    /// To [`MESSAGES`], each of a user of its own.
    Owners,
}

impl Subject {
    fn listener(self, number: usize) -> (Session, String) {
        match self {
            Self::Points => {
                (session("root", Role::Dba), format!("SELECT * FROM {POINTS} WHERE id = {number}"))
            }
            Self::Owners => {
                (session(&format!("user{number}"), Role::User), format!("SELECT * FROM {MESSAGES}"))
            }
        }
    }
}

/// A row that exactly one subscription matches.
#[derive(Clone)]
struct Matching {
    writer: Session,
    table: &'static str,
    row: Vec<Value>,
}

/// A database and those who listen to it.
#[derive(Debug)]
pub struct Listened {
    subject: Subject,
    subscriptions: Vec<Subscription>,
    arrivals: Receiver<Instant>,
    database: Database,
}

impl Listened {
    /// Opens a database and subscribes that many times.
    pub fn by(subscriptions: usize, subject: Subject) -> Self {
        let database = Database::open(Durability::Os);
        let (sender, arrivals) = channel();
        let sink: Arc<dyn Sink> = Arc::new(Arrivals(sender));
        let subscribed = (0..subscriptions).map(|id| {
            let (who, sql) = subject.listener(id);
            let request = SubscribeRequest {
                connection_id: "bench".into(),
                query_id: id.to_string().into(),
                sql,
                from: Some(database.engine().published()),
                ..SubscribeRequest::default()
            };
            let begun = database.engine().subscribe(&who, request, Arc::clone(&sink));
            let mut subscription = database.runtime().block_on(begun).expect("a subscription is accepted");
            assert!(subscription.catch_up(1).expect("it catches up").live, "nothing is written meanwhile");
            subscription
        });
        let subscriptions = subscribed.collect();
        Self { subject, subscriptions, arrivals, database }
    }

    fn matching(&self) -> Matching {
        let number = self.database.next_id();
        let listeners = i64::try_from(self.subscriptions.len()).expect("few enough");
        // A prime step, so that neighbouring samples do not share a neighbourhood in memory.
        let listener = (number * 7919).rem_euclid(listeners);
        let (writer, _) = self.subject.listener(usize::try_from(listener).expect("it is none below zero"));
        let table = match self.subject {
            Subject::Points => POINTS,
            Subject::Owners => MESSAGES,
        };
        Matching { writer, table, row: row(number, listener) }
    }

    /// Commits that many rows, 32 at a time, which one subscription each matches: how long until all of them have theirs.
    pub fn notify_many(&self, commits: usize) -> Duration {
        let rows: Vec<_> = (0..commits).map(|_| self.matching()).collect();
        let begun = clock::instant();
        let tasks: Vec<_> = rows
            .chunks(commits.div_ceil(32))
            .map(|chunk| {
                let (engine, chunk) = (self.database.engine.clone(), chunk.to_vec());
                self.database.runtime.spawn(async move {
                    for Matching { writer, table, row } in chunk {
                        engine.insert_rows(&writer, table, &[row]).await.expect("a new row is inserted");
                    }
                })
            })
            .collect();
        for _ in 0..commits {
            self.arrivals.recv().expect("the subscription gets the row");
        }
        let took = begun.elapsed();
        self.database.runtime.block_on(async {
            for task in tasks {
                task.await.expect("a writer does not panic");
            }
        });
        took
    }

    /// Commits a row that exactly one of the subscriptions matches: how long from the call until that one has it.
    pub fn notify(&self) -> Duration {
        let Matching { writer, table, row } = self.matching();
        let begun = clock::instant();
        self.database.insert(&writer, table, &[row]);
        let arrived = self.arrivals.recv().expect("the subscription gets the row");
        arrived.saturating_duration_since(begun)
    }
}
