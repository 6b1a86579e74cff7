//! The engine: opening, replay, and what the server calls.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;

use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use futures_util::FutureExt;
use kalamdb_log::{
    Disk, Durability, LogDirectory, LogOptions, LogReader, LogWriter, RealDisk, Recovery, Retention,
};
use kalamdb_sql::{LiveQueries, SystemTables};
use kalamdb_store::{Claim, Owner, Store, StoreOptions, instance_of};
use log_format::{
    ChangeEvent, DatabaseId, Namespace, NamespaceId, Partition, Role, Seq, User, UserId, Value,
};
use serde_json::Value as Json;
use tokio::runtime::Handle;

use crate::accounts;
use crate::catalog::Catalog;
use crate::clock;
use crate::commit::{Projections, Sequencer};
use crate::error::{Error, Result};
use crate::fail_points::FailPoints;
use crate::flushes::{FlushKeeper, FlushOptions};
use crate::functions::Snowflakes;
use crate::health::{Audit, Health};
use crate::jobs::{JobBell, JobRetention, JobRunner};
use crate::live::{self, Endings, Feed, Router, Sink, SubscribeRequest, Subscription, SubscriptionId};
use crate::log_keeper::LogKeeper;
use crate::places::Places;
use crate::provider::{CATALOG, KeyOrder};
use crate::queries::QueryThreads;
use crate::replay::{Replayed, refuse_files_without_log, replay};
use crate::requests::{Commits, Committed, Planning};
use crate::session::{DEFAULT_NAMESPACE, Session};
use crate::settings::{Setting, settings_of};
use crate::sql::{self, Executed, Plans};
use crate::streams::{Stop, StreamKeeper};
use crate::table::TableInfo;

/// The log's directory, within a database's.
pub const LOG_DIRECTORY: &str = "log";
/// The directory of rows, within a database's.
pub const ROWS_DIRECTORY: &str = "rows";
/// The directory of Parquet files, within a database's.
pub const COLD_DIRECTORY: &str = "cold";
/// The directory of system tables, within a database's.
pub const CATALOG_DIRECTORY: &str = "catalog";

/// How to open a database.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Its directory; made if it is not there.
    pub data_dir: PathBuf,
    /// When a write counts as done.
    pub durability: Durability,
    /// The password of `root`, where the database is new; none: one is made up.
    pub root_password: Option<String>,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of log after which the projections are flushed: what a restart replays at the most.
    pub unflushed_bytes_max: u64,
    /// Bytes of the newest commits kept in memory for live queries.
    pub feed_bytes_max: usize,
    /// Bytes queries may take together before they spill.
    pub query_bytes_max: usize,
    /// Memory of the hot tier.
    pub store: StoreOptions,
    /// How much of the log is kept beyond what is needed.
    pub retention: Retention,
    /// What is flushed of tables that say nothing about it.
    pub flush: FlushOptions,
    /// How long jobs that ended are remembered.
    pub job_retention: JobRetention,
    /// The treatment of storage locations that are not this instance's own.
    pub location_claim: Claim,
    /// What the log is on: the operating system's files, but for tests.
    pub log_disk: Arc<dyn Disk>,
}

impl EngineOptions {
    /// The defaults, for a database in this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Always,
            root_password: None,
            segment_bytes: LogOptions::default().segment_bytes,
            unflushed_bytes_max: 64 << 20,
            feed_bytes_max: 32 << 20,
            query_bytes_max: 1 << 30,
            store: StoreOptions::default(),
            retention: Retention::default(),
            flush: FlushOptions::default(),
            job_retention: JobRetention::default(),
            location_claim: Claim::Free,
            log_disk: Arc::new(RealDisk),
        }
    }
}

/// What a simulation puts in the place of the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Whether a thread syncs the log behind the writer in mode `os`.
    pub(crate) write_behind: bool,
    pub(crate) fail_points: FailPoints,
}

impl Default for Machine {
    fn default() -> Self {
        Self { write_behind: true, fail_points: FailPoints::default() }
    }
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The password made up for `root`, where the database is new and none was given. Nobody else knows it.
    pub root_password: Option<String>,
    /// What the log's recovery found.
    pub recovery: Recovery,
    /// What was replayed into the projections.
    pub replayed: Replayed,
}

struct Shared {
    data_dir: PathBuf,
    store: Arc<Store>,
    system: Arc<SystemTables>,
    catalog: Arc<Catalog>,
    live_queries: Arc<LiveQueries>,
    endings: Arc<Endings>,
    router: Arc<Router>,
    health: Arc<Health>,
    audit: Audit,
    snowflakes: Arc<Snowflakes>,
    session_state: SessionState,
    plans: Plans,
    query_threads: QueryThreads,
    next_subscription: AtomicU64,
    stop: Arc<Stop>,
    jobs: Arc<JobBell>,
    places: Places,
    settings: Vec<Setting>,
    /// None once the engine is closed: nobody can hand in commits then, and the sequencer ends.
    commits: RwLock<Option<Commits>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the engine's threads run.
pub(crate) struct Workers {
    pub(crate) sequencer: Sequencer,
    pub(crate) router: Arc<Router>,
    pub(crate) keeper: StreamKeeper,
    pub(crate) flush_keeper: FlushKeeper,
    pub(crate) log_keeper: LogKeeper,
    pub(crate) jobs: JobRunner,
}

impl Workers {
    fn start(self) -> Result<Vec<JoinHandle<()>>> {
        let Self { sequencer, router, keeper, flush_keeper, log_keeper, jobs } = self;
        Ok(vec![
            spawn("sequencer", move || sequencer.run())?,
            spawn("live-router", move || router.run())?,
            spawn("stream-keeper", move || keeper.run())?,
            spawn("flush-keeper", move || flush_keeper.run())?,
            spawn("log-keeper", move || log_keeper.run())?,
            spawn("job-runner", move || jobs.run())?,
        ])
    }
}

/// A database that is open. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// The way back to an engine, for those who must not keep it open.
pub(crate) struct WeakEngine {
    shared: Weak<Shared>,
}

impl WeakEngine {
    /// The engine, if anybody else still has it.
    pub(crate) fn upgrade(&self) -> Option<Engine> {
        self.shared.upgrade().map(|shared| Engine { shared })
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_dir", &self.shared.data_dir).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a database: recovers the log, replays it into the projections, starts the engine's threads.
    ///
    /// # Errors
    /// Where the directory cannot be used, is in use, or contradicts itself.
    pub fn open(options: EngineOptions) -> Result<(Self, Opened)> {
        Self::open_on(options, Machine::default())
    }

    pub(crate) fn open_on(options: EngineOptions, machine: Machine) -> Result<(Self, Opened)> {
        let root_password = options.root_password.clone();
        let (engine, workers, mut opened) = Self::assemble(options, machine)?;
        *engine.shared.threads.lock().unwrap_or_else(PoisonError::into_inner) = workers.start()?;
        opened.root_password = engine.begin(root_password)?;
        Ok((engine, opened))
    }

    /// Opens a database whose threads have not begun yet: nothing is committed before they do.
    pub(crate) fn assemble(options: EngineOptions, machine: Machine) -> Result<(Self, Workers, Opened)> {
        let settings = settings_of(&options);
        let log_dir = log_directory(&options)?;
        let log_options = log_options(&options, &machine);
        let (log, recovery) = LogWriter::open(&log_dir, &log_options, clock::now_micros())?;
        let store = Arc::new(open_store(&options, log.database())?);
        let system = Arc::new(SystemTables::open(&options.data_dir.join(CATALOG_DIRECTORY))?);
        let index = log.index();
        let mut reader = LogReader::with_index(&log_dir, Arc::clone(&index));
        let replayed = replay(&mut reader, &store, &system, log.end())?;

        let places = Places::open(&store, &system, log.database(), &options.data_dir)?;
        places.sweep_own()?;
        let catalog = Arc::new(Catalog::load(&system)?);
        let feed = Arc::new(Feed::new(log.end(), options.feed_bytes_max));
        let health = Arc::new(Health::default());
        let router = Arc::new(Router::new(Arc::clone(&feed), Arc::clone(&catalog), log_dir.clone(), index));
        let projections = Projections {
            store: Arc::clone(&store),
            system: Arc::clone(&system),
            catalog: Arc::clone(&catalog),
            feed: Arc::clone(&feed),
            health: Arc::clone(&health),
            jobs: Arc::default(),
            places,
        };
        let (on, fail_points) = (projections.clone(), machine.fail_points);
        let (sequencer, commits) =
            Sequencer::new(log, projections, options.unflushed_bytes_max, fail_points.clone());
        let stop = Arc::new(Stop::default());
        let flush_keeper = FlushKeeper::new(&on, options.flush.clone(), commits.clone(), Arc::clone(&stop));
        let keeper = StreamKeeper {
            feed,
            catalog: Arc::clone(&catalog),
            store: Arc::clone(&store),
            router: Arc::clone(&router),
            commits: commits.clone(),
            stop: Arc::clone(&stop),
        };
        let log_keeper = LogKeeper {
            directory: log_dir,
            retention: options.retention,
            store: Arc::clone(&store),
            system: Arc::clone(&system),
            stop: Arc::clone(&stop),
        };
        let jobs = JobRunner::new(&on, commits.clone(), &router, &options, fail_points);
        let workers =
            Workers { sequencer, router: Arc::clone(&router), keeper, flush_keeper, log_keeper, jobs };
        let shared = Shared {
            data_dir: options.data_dir,
            store,
            system,
            catalog,
            live_queries: Arc::new(LiveQueries::new()),
            endings: Arc::default(),
            router,
            health,
            audit: Audit::default(),
            snowflakes: Arc::new(Snowflakes::default()),
            session_state: query_state(options.query_bytes_max)?,
            plans: Plans::default(),
            query_threads: QueryThreads::start()?,
            next_subscription: AtomicU64::new(1),
            stop,
            jobs: on.jobs,
            places: on.places,
            settings,
            commits: RwLock::new(Some(commits)),
            threads: Mutex::new(Vec::new()),
        };
        Ok((Self { shared: Arc::new(shared) }, workers, Opened { root_password: None, recovery, replayed }))
    }

    /// What every database begins with: the namespace `default` and the user `root`.
    fn begin(&self, root_password: Option<String>) -> Result<Option<String>> {
        let root = UserId::new(accounts::ROOT);
        if self.user(&root)?.is_some() {
            return Ok(None);
        }
        let (password, generated) = match root_password {
            Some(password) => (password, None),
            None => {
                let password = accounts::generate_password()?;
                (password.clone(), Some(password))
            }
        };
        let password_hash = accounts::hash_password_blocking(&password)?;
        self.commits().catalog_blocking(move |planning: &Planning<'_>| {
            let (created_at, updated_at) = (planning.now, planning.now);
            let namespace = Namespace {
                id: NamespaceId::new(DEFAULT_NAMESPACE),
                options: Vec::new(),
                created_at,
                updated_at,
            };
            let user =
                User { id: root, role: Role::Dba, password_hash, metadata: None, created_at, updated_at };
            Ok(vec![
                ChangeEvent::NamespaceCreated(Box::new(namespace)),
                ChangeEvent::UserCreated(Box::new(user)),
            ])
        })?;
        Ok(generated)
    }

    /// Takes no more writes, ends all subscriptions, flushes the projections, closes the log. Blocks until that is done.
    pub fn close(self) {
        self.shared.stop.stop();
        self.shared.jobs.stop();
        drop(self.shared.commits.write().unwrap_or_else(PoisonError::into_inner).take());
        let threads =
            std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
            // The first is the sequencer: a dead one has told nobody that it ended.
            self.shared.router.feed().close();
        }
    }

    /// The database's directory.
    pub fn data_dir(&self) -> &Path {
        &self.shared.data_dir
    }

    /// The account of this name, if the password is right. Takes some 20 ms of one core.
    ///
    /// # Errors
    /// [`Error::Unauthorized`].
    pub fn authenticate(&self, user: &str, password: &str) -> Result<User> {
        accounts::authenticate(&self.shared.system, user, password)
    }

    /// The account of this name.
    ///
    /// # Errors
    /// Where the catalog cannot be read.
    pub fn user(&self, id: &UserId) -> Result<Option<User>> {
        Ok(self.shared.system.get_user(id)?)
    }

    /// All accounts.
    ///
    /// # Errors
    /// [`Error::System`] if the catalog cannot be read.
    pub fn users(&self) -> Result<Vec<User>> {
        Ok(self.shared.system.scan_all_users()?)
    }

    /// Why the database is read-only, if it is.
    pub fn failure(&self) -> Option<String> {
        self.shared.health.failure()
    }

    /// Runs the statements of a request in order, up to the first that fails. Each is a commit of its own.
    ///
    /// A thread that polls this needs a stack of 16 MiB for the deepest statement that is let through.
    pub async fn execute(&self, session: &mut Session, sql: &str, params: &[Json]) -> Executed {
        let executing = AssertUnwindSafe(sql::execute(self, session, sql, params));
        executing.catch_unwind().await.unwrap_or_else(|panic| Executed {
            results: Vec::new(),
            error: Some(Error::panicked(panic.as_ref())),
        })
    }

    /// Begins a live query. It is not live until [`Subscription::catch_up`] says so.
    ///
    /// # Errors
    /// Where the SQL cannot be a live query, the table may not be read, or the log does not reach back to `from`.
    pub async fn subscribe(
        &self,
        session: &Session,
        request: SubscribeRequest,
        sink: Arc<dyn Sink>,
    ) -> Result<Subscription> {
        let subscribing = AssertUnwindSafe(live::subscribe(self, session, request, sink));
        subscribing.catch_unwind().await.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())))
    }

    /// Inserts rows into a table, as one commit, and waits until they count as written: the way in for a program that
    /// embeds the engine. A row has a value for each of the table's columns, in their order.
    ///
    /// # Errors
    /// As an INSERT statement's.
    pub async fn insert_rows(
        &self,
        session: &Session,
        table: &str,
        rows: &[Vec<Value>],
    ) -> Result<Committed> {
        sql::insert_rows(self, session, table, rows).await
    }

    /// The last seq that is published.
    pub fn published(&self) -> Seq {
        self.shared.router.feed().published()
    }

    /// Where to run what reads much: a subscription that begins, a batch of its snapshot, a result that is made anew. What
    /// keeps a core there holds up nobody's messages. Statements go there by themselves.
    pub fn query_threads(&self) -> &Handle {
        self.shared.query_threads.handle()
    }

    // ── for the engine's own modules ──

    pub(crate) fn downgrade(&self) -> WeakEngine {
        WeakEngine { shared: Arc::downgrade(&self.shared) }
    }

    pub(crate) fn places(&self) -> &Places {
        &self.shared.places
    }

    /// Cold files that are listed and were not there when they were last looked for, which this has done again every few seconds
    /// in the background.
    pub fn missing_cold_files(&self) -> Vec<String> {
        let begun = self.shared.audit.begin(&self.shared.store);
        self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner).extend(begun);
        self.shared.store.cold_files().missing_files()
    }

    /// The storage locations at which the last request failed, and how. Rows stay hot meanwhile.
    pub fn storage_failures(&self) -> BTreeMap<String, String> {
        self.shared.store.cold_files().failures()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(crate) fn system(&self) -> &SystemTables {
        &self.shared.system
    }

    /// What it runs with.
    pub(crate) fn settings(&self) -> &[Setting] {
        &self.shared.settings
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.shared.catalog
    }

    pub(crate) fn endings(&self) -> &Arc<Endings> {
        &self.shared.endings
    }

    pub(crate) fn live_queries(&self) -> &Arc<LiveQueries> {
        &self.shared.live_queries
    }

    pub(crate) fn router(&self) -> &Arc<Router> {
        &self.shared.router
    }

    pub(crate) fn snowflakes(&self) -> &Arc<Snowflakes> {
        &self.shared.snowflakes
    }

    pub(crate) fn plans(&self) -> &Plans {
        &self.shared.plans
    }

    pub(crate) fn session_state(&self) -> &SessionState {
        &self.shared.session_state
    }

    /// The way to the sequencer; one that is closed once the engine is.
    pub(crate) fn commits(&self) -> Commits {
        let commits = self.shared.commits.read().unwrap_or_else(PoisonError::into_inner);
        commits.clone().unwrap_or_else(Commits::closed)
    }

    pub(crate) fn next_subscription_id(&self) -> SubscriptionId {
        SubscriptionId::new(self.shared.next_subscription.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn is_listened_to(&self, partition: &Partition) -> bool {
        self.shared.router.listens(partition)
    }

    /// The table a statement names.
    pub(crate) fn resolve(&self, session: &Session, name: &sql::TableName) -> Result<Arc<TableInfo>> {
        self.shared.catalog.table(&sql::namespace_of(session, name), &name.name)
    }

    /// A session of another user, for one who may act for them.
    pub(crate) fn session_of(&self, user: &str, by: &Session) -> Result<Session> {
        let id = UserId::new(user);
        let found = self.user(&id)?.ok_or_else(|| Error::NotFound { kind: "user", name: user.to_owned() })?;
        by.require(found.role, "act for a user of a higher role")?;
        Ok(Session::new(id, found.role, Some(by.namespace().as_str())).for_another())
    }
}

fn log_options(options: &EngineOptions, machine: &Machine) -> LogOptions {
    LogOptions {
        segment_bytes: options.segment_bytes,
        durability: options.durability,
        write_behind: machine.write_behind,
        ..LogOptions::default()
    }
}

fn log_directory(options: &EngineOptions) -> Result<LogDirectory> {
    let directory = LogDirectory::new(options.log_disk.clone(), options.data_dir.join(LOG_DIRECTORY));
    refuse_files_without_log(&directory, &options.data_dir.join(COLD_DIRECTORY))?;
    Ok(directory)
}

fn open_store(options: &EngineOptions, database: DatabaseId) -> Result<Store> {
    let (data_dir, database) = (&options.data_dir, database.to_string());
    let instance = instance_of(data_dir, &database, &accounts::generate_token()?)?;
    let owner = Some(Owner { database, instance, claim: options.location_claim });
    let cold_directory = Some(data_dir.join(COLD_DIRECTORY));
    let options = StoreOptions { cold_directory, owner, ..options.store.clone() };
    Ok(Store::open(&data_dir.join(ROWS_DIRECTORY), &options)?)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| Error::File { path: PathBuf::from(name), source })
}

/// What every session's state is made from.
fn query_state(query_bytes_max: usize) -> Result<SessionState> {
    let config = kalamdb_query::config()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_NAMESPACE)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(1);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(query_bytes_max)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory))
        .build_arc()
        .map_err(crate::error::from_query)?;
    let builder =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let mut state =
        kalamdb_query::with_rules(builder).with_physical_optimizer_rule(Arc::new(KeyOrder)).build();
    kalamdb_query::register(&mut state).map_err(crate::error::from_query)?;
    Ok(state)
}
