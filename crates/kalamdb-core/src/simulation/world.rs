//! One seed's world: a disk, an engine on it that comes and goes, those who use it, and what was published so far.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::array_value_to_string;
use futures_util::future::join_all;
use kalamdb_log::simulation::{Fault, Random, SimulatedDisk};
use kalamdb_log::{Durability, LogDirectory, LogReader};
use log_format::{Frame, Role, Seq};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::check;
use super::totals::Totals;
use super::watcher::Watcher;
use super::work::{self, SCHEMA, Work};
use crate::commit::Sequencer;
use crate::engine::{LOG_DIRECTORY, Machine};
use crate::fail_points::FailPoints;
use crate::jobs::JobRunner;
use crate::live::{FeedAfter, Router};
use crate::log_keeper::LogKeeper;
use crate::testing::{root, session};
use crate::{Engine, EngineOptions, Error, ErrorCode, Session};

/// Subscribers at the most.
const WATCHERS_MAX: usize = 6;

/// What a fail point throws: the process is dead.
struct Died;

/// An engine that runs.
struct Running {
    engine: Engine,
    router: Arc<Router>,
    /// None once it died.
    sequencer: Option<Sequencer>,
    log_keeper: LogKeeper,
    jobs: JobRunner,
}

/// What the disk goes through when the engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
    PowerLost,
}

pub(super) struct World {
    random: Random,
    runtime: Runtime,
    directory: TempDir,
    disk: SimulatedDisk,
    /// The call at which the disk breaks next, if it was told to.
    breaks_at: Option<u64>,
    /// Whether the disk has little or no space left.
    is_full: bool,
    durability: Durability,
    /// How much of the log is kept; none for all of it.
    retention_bytes: Option<u64>,
    running: Option<Running>,
    /// How many more places of the write path are passed before the process dies; 0 for never.
    fuse: Arc<AtomicU64>,
    watchers: Vec<Watcher>,
    /// Every commit that was published and is not known to be lost, in order.
    published: Vec<Frame>,
    /// The greatest seq that anybody ever saw.
    seen: Seq,
    /// Up to here nothing may be lost, even to a loss of power.
    durable: Seq,
    /// Up to here the next start must find everything.
    required: Seq,
    /// By tag: what became of the statement.
    fates: BTreeMap<u64, Fate>,
    extra: u64,
    pub(super) totals: Totals,
}

/// What became of a statement that writes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It wrote that many rows, at this seq at the latest.
    Acknowledged(u64, Seq),
    Refused,
    /// The engine died over it.
    Unknown,
}

impl World {
    /// Runs a seed to its end; panics where something does not hold.
    pub(super) fn run(seed: u64, steps: u64) -> Totals {
        let mut random = Random::new(seed);
        let durability = if random.per_mille(700) { Durability::Always } else { Durability::Os };
        let mut world = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            directory: tempfile::tempdir().unwrap(),
            disk: SimulatedDisk::new(seed),
            breaks_at: None,
            is_full: false,
            retention_bytes: random.per_mille(300).then_some(60 << 10),
            durability,
            running: None,
            fuse: Arc::new(AtomicU64::new(0)),
            watchers: Vec::new(),
            published: Vec::new(),
            seen: Seq::ZERO,
            durable: Seq::ZERO,
            required: Seq::ZERO,
            fates: BTreeMap::new(),
            extra: 0,
            totals: Totals::default(),
            random,
        };
        world.start();
        world.execute(&[Work { who: root(), sql: SCHEMA.to_owned(), tag: None }]);
        // So that no loss of power takes it back.
        world.restart(End::Closed);
        for _ in 0..steps {
            world.step();
        }
        world.check_watchers();
        world.restart(End::Closed);
        check::rebuilt_equals_live(world.engine(), &world.published);
        world.check_columns();
        world.totals.steps = steps;
        world.totals
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..66 => {
                let works: Vec<Work> = match self.random.below(10) {
                    0 => {
                        let tags = [self.new_tag(), self.new_tag(), self.new_tag()];
                        work::rush(&mut self.random, tags.into_iter())
                    }
                    1..4 => (0..4).map(|_| self.any_work()).collect(),
                    _ => vec![self.any_work()],
                };
                self.execute(&works);
            }
            66..76 => self.look(),
            76..82 => self.flush(),
            82..85 => {
                let at = self.random.below(self.watchers.len());
                self.watchers.get_mut(at).into_iter().for_each(Watcher::disconnect);
            }
            85..88 => self.running().router.turn(),
            88..90 => self.check_watchers(),
            90 => self.running().log_keeper.turn().unwrap(),
            91..93 => self.restart(End::Closed),
            93..95 => self.restart(End::Killed),
            95..97 => self.restart(End::PowerLost),
            97 => self.fill_disk(),
            98 => self.fuse.store(1 + self.random.below(40) as u64, Ordering::Relaxed),
            _ => {
                self.break_disk(40);
                let works: Vec<Work> = (0..3).map(|_| self.any_work()).collect();
                works.chunks(1).for_each(|work| self.execute(work));
                // What reads the log from here on is not the engine.
                self.disk.mend();
            }
        }
        self.bury();
    }

    /// Flushes some of every table or compacts it, of every owner, the sequencer taking its turns meanwhile.
    fn flush(&mut self) {
        let compacts = self.random.below(2) == 0;
        // A full disk is asked for space again in every turn.
        if self.is_full {
            return;
        }
        let Some(Running { engine, sequencer, jobs, .. }) = &mut self.running else { return };
        let (jobs, partitions) = (&*jobs, work::partitions(engine, compacts));
        let flushed = std::thread::scope(|scope| {
            let flushing = scope.spawn(move || {
                catch_unwind(AssertUnwindSafe(|| {
                    let once = |partition| {
                        if compacts { jobs.compact_once(partition) } else { jobs.flush_once(partition) }
                    };
                    partitions.iter().try_fold(false, |any, partition| once(partition).map(|did| any | did))
                }))
            });
            while !flushing.is_finished() {
                turn(sequencer);
                std::thread::yield_now();
            }
            flushing.join().unwrap()
        });
        match flushed {
            Err(panic) if panic.is::<Died>() => *sequencer = None,
            Err(panic) => resume_unwind(panic),
            Ok(Ok(something)) if compacts => self.totals.compactions += u64::from(something),
            Ok(Ok(something)) => self.totals.flushes += u64::from(something),
            Ok(Err(error)) => assert!(self.is_broken(), "{error}"),
        }
        self.observe();
    }

    fn new_tag(&mut self) -> u64 {
        let tag = self.fates.len() as u64 + 1;
        self.fates.insert(tag, Fate::Unknown);
        tag
    }

    fn any_work(&mut self) -> Work {
        let tag = self.new_tag();
        work::any(&mut self.random, tag, &mut self.extra)
    }

    fn engine(&self) -> &Engine {
        &self.running.as_ref().unwrap().engine
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    // ── working ──

    /// Runs statements at the same time, the sequencer taking its turns between them.
    fn execute(&mut self, works: &[Work]) {
        let Some(Running { engine, sequencer, .. }) = &mut self.running else { return };
        let engine = &*engine;
        let all = join_all(works.iter().map(|work| {
            let mut session = work.who.clone();
            async move { engine.execute(&mut session, &work.sql, &[]).await }
        }));
        let outcomes = self.runtime.block_on(async {
            let mut all = std::pin::pin!(all);
            loop {
                tokio::select! {
                    biased;
                    outcomes = &mut all => break outcomes,
                    () = tokio::task::yield_now() => {}
                }
                turn(sequencer);
            }
        });
        self.observe();
        let at = self.published_to();
        for (work, outcome) in works.iter().zip(outcomes) {
            let fate = match &outcome.error {
                None => Fate::Acknowledged(outcome.results.last().map_or(0, |result| result.row_count), at),
                Some(error) => self.fate_of(work, error),
            };
            self.fates.extend(work.tag.map(|tag| (tag, fate)));
            self.totals.commits += u64::from(outcome.error.is_none());
            self.totals.refused += u64::from(fate == Fate::Refused);
        }
    }

    fn fate_of(&self, work: &Work, error: &Error) -> Fate {
        match error.code() {
            ErrorCode::ReadOnly | ErrorCode::ShuttingDown => {
                assert!(self.is_broken(), "{}: {error}", work.sql);
                Fate::Unknown
            }
            ErrorCode::ConstraintViolation | ErrorCode::Conflict => Fate::Refused,
            ErrorCode::InvalidSql | ErrorCode::AlreadyExists if work.sql.starts_with("ALTER") => {
                Fate::Refused
            }
            _ => panic!("{}: {error}", work.sql),
        }
    }

    /// Whether the engine has a reason to take no more writes.
    fn is_broken(&self) -> bool {
        let has_died = self.running.as_ref().is_none_or(|running| running.sequencer.is_none());
        has_died || self.has_disk_broken() || self.is_full
    }

    fn has_disk_broken(&self) -> bool {
        self.breaks_at.is_some_and(|call| self.disk.calls() > call)
    }

    /// Takes over what was published since.
    fn observe(&mut self) {
        let running = self.running.as_ref().unwrap();
        let found = match running.router.feed().after(self.published_to()) {
            FeedAfter::Frames(frames) => frames,
            FeedAfter::TooFarBack => {
                let mut reader = running.router.log_reader();
                reader.seek(self.published_to()).unwrap();
                let until = running.router.feed().published();
                check::frames(&mut reader).into_iter().filter(|frame| frame.last_seq() <= until).collect()
            }
            FeedAfter::Closed => Vec::new(),
        };
        for frame in &found {
            assert!(frame.first_seq() > self.seen, "the seq {} comes twice", frame.first_seq());
            self.seen = frame.last_seq();
            if self.durability == Durability::Always && !check::is_stream(frame) {
                self.durable = frame.last_seq();
            }
        }
        if let Some(sequencer) = &running.sequencer {
            self.durable = self.durable.max(sequencer.durable().min(self.seen));
        }
        self.published.extend(found);
    }

    // ── watching ──

    /// Whether what a subscriber saw, or has yet to see, may be gone.
    fn may_resync(&self) -> bool {
        self.durability != Durability::Always || self.retention_bytes.is_some()
    }

    fn look(&mut self) {
        if self.watchers.len() < WATCHERS_MAX && self.random.per_mille(300) {
            let sql = work::query(&mut self.random);
            self.watchers.push(Watcher::new(work::anybody(&mut self.random), sql));
        }
        let at = self.random.below(self.watchers.len());
        let may_resync = self.may_resync();
        let Running { engine, .. } = self.running.as_ref().unwrap();
        if let Some(watcher) = self.watchers.get_mut(at) {
            self.runtime.block_on(watcher.look(engine, may_resync));
            self.totals.looks += 1;
        }
    }

    /// Everybody takes all there is, and then has what their query answers.
    fn check_watchers(&mut self) {
        let may_resync = self.may_resync();
        let Running { engine, router, .. } = self.running.as_ref().unwrap();
        for watcher in &mut self.watchers {
            let expected = self.runtime.block_on(async {
                watcher.catch_up(engine, router, may_resync).await;
                rows(engine, &watcher.who, &watcher.sql).await
            });
            assert_eq!(watcher.rows, expected, "{} of {:?}", watcher.sql, watcher.who.user());
            self.totals.rows_checked += expected.len() as u64;
        }
    }

    /// Everybody reads every row as one of the newest schema version, whichever wrote it.
    fn check_columns(&mut self) {
        for (table, user) in work::readers() {
            let who = session(user, Role::User);
            let found = self.runtime.block_on(columns(self.engine(), &who, table));
            let expected = check::columns_of_log(&self.published, table, user);
            assert_eq!(found, expected, "{table} of {user}");
        }
        self.totals.schema_versions += check::schema_versions(&self.published);
    }

    // ── breaking ──

    fn break_disk(&mut self, calls: usize) {
        let fault = [Fault::InputOutput, Fault::NoSpace, Fault::Short, Fault::Halt][self.random.below(4)];
        let call = self.disk.calls() + self.random.below(calls) as u64;
        self.disk.fail_at(call, fault);
        self.breaks_at = Some(self.breaks_at.map_or(call, |earlier| earlier.min(call)));
    }

    /// A full disk refuses writes, answers reads, loses nothing, and is forgotten once it has space.
    fn fill_disk(&mut self) {
        self.disk.set_capacity(Some(self.disk.used() + self.random.below(4096)));
        self.is_full = true;
        for _ in 0..6 {
            let work = self.any_work();
            self.execute(&[work]);
        }
        // One that died between applying and publishing shows rows that nobody was told of.
        if self.running().sequencer.is_some() {
            self.check_watchers();
        }
        self.disk.set_capacity(None);
        self.is_full = false;
        let tag = self.new_tag();
        let sql = format!("INSERT INTO sim.stream VALUES (1, {tag}, '')");
        self.execute(&[Work { who: session("ann", Role::User), sql, tag: Some(tag) }]);
        let fate = self.fates.get(&tag);
        // The process may be about to die of something else.
        let is_well = matches!(fate, Some(Fate::Acknowledged(1, _)));
        assert!(
            is_well || self.running.as_ref().unwrap().sequencer.is_none(),
            "there is space again: {fate:?}"
        );
        self.totals.full_disks += 1;
    }

    /// Starts again where the process has died or takes no more writes; before that it still answers.
    fn bury(&mut self) {
        let running = self.running.as_ref().unwrap();
        let is_dead = running.sequencer.is_none();
        if !is_dead && running.engine.failure().is_none() {
            return;
        }
        self.totals.deaths += u64::from(is_dead);
        self.totals.disk_faults += u64::from(!is_dead);
        if !is_dead {
            assert!(self.has_disk_broken(), "{:?}", running.engine.failure());
            let reader = session("ann", Role::User);
            self.runtime.block_on(rows(&running.engine, &reader, "SELECT id, _seq FROM sim.own"));
        }
        let end = if self.random.per_mille(500) { End::Killed } else { End::PowerLost };
        self.restart(end);
    }

    fn restart(&mut self, end: End) {
        self.end(end);
        self.start();
    }

    // ── ending and starting ──

    fn end(&mut self, end: End) {
        self.observe();
        self.watchers.iter_mut().for_each(Watcher::disconnect);
        let Some(Running { engine, router, sequencer, log_keeper, jobs }) = self.running.take() else {
            return;
        };
        self.fuse.store(0, Ordering::Relaxed);
        self.required = self.published_to();
        drop((engine, router, log_keeper, jobs));
        match end {
            End::Closed => {
                self.totals.closes += 1;
                let is_sound = !self.has_disk_broken();
                sequencer.into_iter().for_each(Sequencer::finish);
                // A clean end leaves nothing to lose.
                if is_sound && !self.has_disk_broken() && self.random.per_mille(300) {
                    self.disk = self.disk.crash(&mut self.random);
                } else {
                    self.disk = self.disk.kill();
                }
            }
            End::Killed => {
                self.totals.kills += 1;
                self.disk = self.disk.kill();
            }
            End::PowerLost => {
                self.totals.power_losses += 1;
                self.lose_power();
            }
        }
    }

    fn lose_power(&mut self) {
        self.required = self.required.min(self.durable);
        self.disk = self.disk.crash(&mut self.random);
    }

    /// Starts the engine, however often the disk breaks meanwhile, and checks what it found.
    fn start(&mut self) {
        let (engine, workers) = loop {
            self.disk.mend();
            self.breaks_at = None;
            if self.random.per_mille(150) {
                self.break_disk(40);
            }
            match Engine::assemble(self.options(), self.machine()) {
                Ok((engine, workers, _)) => break (engine, workers),
                Err(error) => {
                    assert!(self.has_disk_broken(), "it does not start: {error}");
                    self.totals.disk_faults += 1;
                    if self.random.per_mille(500) {
                        self.lose_power();
                    } else {
                        self.disk = self.disk.kill();
                    }
                }
            }
        };
        self.disk.mend();
        self.breaks_at = None;
        drop((workers.keeper, workers.flush_keeper));
        self.running = Some(Running {
            engine,
            router: workers.router,
            sequencer: Some(workers.sequencer),
            log_keeper: workers.log_keeper,
            jobs: workers.jobs,
        });
        self.check_start();
    }

    fn options(&self) -> EngineOptions {
        let mut options = EngineOptions::new(self.directory.path());
        options.durability = self.durability;
        options.log_disk = Arc::new(self.disk.clone());
        // Small, so that segments rotate and projections are flushed all the time.
        options.segment_bytes = 24 << 10;
        options.unflushed_bytes_max = 16 << 10;
        options.feed_bytes_max = 256 << 10;
        options.retention.bytes = self.retention_bytes;
        options
    }

    fn machine(&self) -> Machine {
        let fuse = Arc::clone(&self.fuse);
        let fail_points = FailPoints::new(move |_| {
            if fuse.load(Ordering::Relaxed) > 0 && fuse.fetch_sub(1, Ordering::Relaxed) == 1 {
                resume_unwind(Box::new(Died));
            }
        });
        Machine { write_behind: false, fail_points }
    }

    fn published_to(&self) -> Seq {
        self.published.last().map_or(Seq::ZERO, Frame::last_seq)
    }

    /// What a start found is what had to be there, and the projections are what the log says.
    fn check_start(&mut self) {
        let disk: Arc<SimulatedDisk> = Arc::new(self.disk.clone());
        let directory = LogDirectory::new(disk, self.directory.path().join(LOG_DIRECTORY));
        let kept = check::frames(&mut LogReader::open(directory));
        let floor = kept.first().map(Frame::first_seq).unwrap_or_default();
        let (gone, published): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.published).into_iter().partition(|frame| frame.last_seq() < floor);
        assert!(gone.is_empty() || self.retention_bytes.is_some(), "the log begins at {floor}");
        check::is_prefix(&kept, &published, self.required);
        let found: Vec<Frame> = gone.into_iter().chain(kept).collect();
        let rows = check::rows_of_log(&found);
        let of_store = check::rows_of_store(self.engine());
        assert_eq!(rows, of_store, "the rows are not what the log says");
        check::counts_are_those_of(&rows, self.engine().store(), self.engine().system());
        self.totals.rows_checked += rows.len() as u64;
        let tags = check::tags(&found);
        for (tag, fate) in &self.fates {
            let (rows, frames) = tags.get(tag).copied().unwrap_or_default();
            let holds = match fate {
                Fate::Refused => rows == 0,
                Fate::Unknown => frames <= 1,
                Fate::Acknowledged(wrote, at) => {
                    (rows == *wrote && frames <= 1) || (rows == 0 && *at > self.required)
                }
            };
            assert!(holds, "statement {tag}, {fate:?}: {rows} rows in {frames} commits");
        }
        let lost: Vec<u64> = self.fates.keys().copied().filter(|tag| !tags.contains_key(tag)).collect();
        for tag in lost {
            self.fates.insert(tag, Fate::Refused);
        }
        self.published = found;
        self.durable = self.published_to();
        self.seen = self.seen.max(self.durable);
    }
}

/// The sequencer commits what waits, unless it dies over it.
fn turn(sequencer: &mut Option<Sequencer>) {
    let Some(alive) = sequencer else { return };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| alive.turn(Some(Duration::ZERO)))) {
        if !panic.is::<Died>() {
            resume_unwind(panic);
        }
        *sequencer = None;
    }
}

/// Every row of a table, by id: its values by column.
async fn columns(engine: &Engine, who: &Session, table: &str) -> check::Columns {
    let executed = engine.execute(&mut who.clone(), &format!("SELECT * FROM {table}"), &[]).await;
    let mut rows = check::Columns::new();
    for batch in executed.results.iter().flat_map(|result| &result.batches) {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        for (at, id) in ids.values().iter().enumerate() {
            let fields = batch.schema_ref().fields().iter().zip(batch.columns());
            let values = fields
                .map(|(field, array)| (field.name().clone(), array_value_to_string(array, at).unwrap()));
            rows.insert(*id, values.collect());
        }
    }
    rows
}

/// A query's rows, by id: their seqs.
async fn rows(engine: &Engine, who: &Session, sql: &str) -> BTreeMap<i64, i64> {
    let executed = engine.execute(&mut who.clone(), sql, &[]).await;
    if let Some(error) = executed.error {
        panic!("{sql}: {error}");
    }
    let mut rows = BTreeMap::new();
    for batch in executed.results.iter().flat_map(|result| &result.batches) {
        let column =
            |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().iter().copied();
        rows.extend(column("id").zip(column("_seq")));
    }
    rows
}
