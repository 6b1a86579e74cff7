//! The floor: KalamDB beside plain RocksDB, and beside itself, in one run on one machine.
//!
//! Subjects take turns, round after round, and each figure is the median of its rounds, so that a machine that is busy
//! for a while is busy for all of them. `cargo bench --workspace --bench floor -- [commit] [sync] [notify]
//! [recover] [log]`.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kalamdb_benches::change_log::{append, check, checksum, read_records, write_plainly};
use kalamdb_benches::report::{ROUNDS, Report, median, verdict};
use kalamdb_benches::{Database, Listened, ROW_BYTES, Subject, directory, is_wanted, memory_kib, replay};
use kalamdb_core::clock;
use kalamdb_core::log::Durability;
use rocksdb::{BlockBasedOptions, DB, DBCompressionType, Options, WriteOptions};
use tempfile::TempDir;

const WRITERS: usize = 32;
const ROUND: Duration = Duration::from_millis(1500);
const LOG_BYTES: usize = 384 << 20;
/// What fits into one segment of the default size.
const SEGMENT_BYTES: usize = 120 << 20;
const SEGMENT_MEBIBYTES: f64 = 120.0;
const LOG_MEBIBYTES: f64 = 384.0;
const NOTIFY_SAMPLES: usize = 300;
const NOTIFY_COMMITS: usize = 20_000;
const RECOVERIES: usize = 3;

fn main() {
    let mut report = Report::default();
    if is_wanted("commit") {
        commit_path(&mut report);
    }
    if is_wanted("sync") {
        group_commit(&mut report);
    }
    if is_wanted("notify") {
        point_subscriptions(&mut report);
    }
    if is_wanted("owners") {
        owners(&mut report);
    }
    if is_wanted("recover") {
        recovery(&mut report);
    }
    if is_wanted("log") {
        change_log(&mut report);
    }
    report.print();
}

/// Single commits where nothing waits for the disk.
fn commit_path(report: &mut Report) {
    let database = Database::open(Durability::Os);
    let plain = Rocks::open(false);
    let [mut ours, mut ours_alone, mut theirs, mut theirs_many] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        ours.push(commits_per_second(&database, WRITERS));
        theirs.push(plain.puts_per_second(1));
        theirs_many.push(plain.puts_per_second(WRITERS));
        ours_alone.push(commits_per_second(&database, 1));
    }
    report.rate("os: KalamDB, 32 writers, 1 row a commit", &ours);
    report.rate("os: KalamDB, 1 writer", &ours_alone);
    report.rate("os: RocksDB with its WAL, no sync, 1 thread", &theirs);
    report.rate("os: RocksDB with its WAL, no sync, 32 threads", &theirs_many);
    report.ratio("os: KalamDB 32 writers / RocksDB 1 thread", &ours, &theirs, 0.7..f64::INFINITY);
    report.ratio("os: KalamDB 32 writers / RocksDB 32 threads", &ours, &theirs_many, 0.0..f64::INFINITY);
}

/// Single commits that each wait for the disk.
fn group_commit(report: &mut Report) {
    let database = Database::open(Durability::Always);
    let plain = Rocks::open(true);
    let [mut many, mut one, mut theirs] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        many.push(commits_per_second(&database, WRITERS));
        theirs.push(plain.puts_per_second(WRITERS));
        one.push(commits_per_second(&database, 1));
    }
    report.rate("always: KalamDB, 32 writers", &many);
    report.rate("always: KalamDB, 1 writer", &one);
    report.rate("always: RocksDB with its WAL synced, 32 threads", &theirs);
    report.ratio("always: KalamDB 32 writers / 1 writer", &many, &one, 10.0..f64::INFINITY);
    report.ratio("always: KalamDB 32 writers / RocksDB 32 threads", &many, &theirs, 1.0..f64::INFINITY);
}

/// What a write costs those who do not listen to it.
fn point_subscriptions(report: &mut Report) {
    let (few, many) = (Listened::by(100, Subject::Points), Listened::by(10_000, Subject::Points));
    notifications(report, (&few, &many), ["100", "10,000"], "point subscriptions");
}

/// The same of users, each with a subscription to their own rows, and what memory they take.
fn owners(report: &mut Report) {
    let few = Listened::by(100, Subject::Owners);
    let before = memory_kib(std::process::id());
    let many = Listened::by(100_000, Subject::Owners);
    let each = (memory_kib(std::process::id()) - before) / 100_000.0;
    report.add("notify: KiB of a user with a subscription", &[each], |it| format!("{it:.2}"), String::new());
    notifications(report, (&few, &many), ["100", "100,000"], "users with a subscription");
}

fn notifications(report: &mut Report, (few, many): (&Listened, &Listened), counts: [&str; 2], what: &str) {
    let [mut few_micros, mut many_micros, mut few_p50, mut many_p50] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let micros = |listened: &Listened| {
            let commits = u32::try_from(NOTIFY_COMMITS).expect("a round is short");
            listened.notify_many(NOTIFY_COMMITS).as_secs_f64() * 1e6 / f64::from(commits)
        };
        few_micros.push(micros(few));
        many_micros.push(micros(many));
        let p50 = |listened: &Listened| {
            let samples = (0..NOTIFY_SAMPLES).map(|_| listened.notify().as_secs_f64() * 1e6);
            median(&samples.collect::<Vec<_>>())
        };
        few_p50.push(p50(few));
        many_p50.push(p50(many));
    }
    let [few, many] = counts;
    report.micros(&format!("notify: {few} {what}, 32 writers, per row"), &few_micros);
    report.micros(&format!("notify: {many} {what}, 32 writers, per row"), &many_micros);
    report.ratio(&format!("notify: {many} / {few} {what}, per row"), &many_micros, &few_micros, 0.0..1.2);
    report.micros(&format!("notify: {few} {what}, one at a time, p50"), &few_p50);
    report.micros(&format!("notify: {many} {what}, one at a time, p50"), &many_p50);
    report.ratio(&format!("notify: {many} / {few} {what}, p50"), &many_p50, &few_p50, 0.0..1.2);
}

/// The log's files, beside plain ones: within one segment, where neither waits for the disk, and until the disk has it all.
fn change_log(report: &mut Report) {
    let mebibytes = |took: Duration| LOG_MEBIBYTES / took.as_secs_f64();
    let of_segment = |took: Duration| SEGMENT_MEBIBYTES / took.as_secs_f64();
    let [mut appended, mut written, mut checked, mut summed, mut records] = [const { Vec::new() }; 5];
    let [mut in_memory, mut plain_in_memory] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        in_memory.push(of_segment(append(SEGMENT_BYTES).1.to_memory));
        plain_in_memory.push(of_segment(write_plainly(SEGMENT_BYTES).to_memory));
        let (log, took) = append(LOG_BYTES);
        appended.push(mebibytes(took.to_disk));
        written.push(mebibytes(write_plainly(LOG_BYTES).to_disk));
        summed.push(mebibytes(checksum(log.path())));
        checked.push(mebibytes(check(log.path(), 2)));
        let (events, took) = read_records(log.path());
        records.push(f64::from(u32::try_from(events).expect("a log is short")) / took.as_secs_f64());
    }
    report.throughput("log: append to one segment, 64 KiB a commit, os", &in_memory);
    report.throughput("log: plain write, 64 KiB, as much", &plain_in_memory);
    report.ratio("log: append / plain write, in memory", &in_memory, &plain_in_memory, 0.5..f64::INFINITY);
    report.throughput("log: append to three segments, until on disk", &appended);
    report.throughput("log: plain write as much, until on disk", &written);
    report.ratio("log: append / plain write, on disk", &appended, &written, 0.5..f64::INFINITY);
    report.throughput("log: verify, 2 threads", &checked);
    report.throughput("log: crc32c of the files, 1 thread", &summed);
    report.ratio("log: verify / crc32c", &checked, &summed, 0.7..f64::INFINITY);
    report.rate("log: events as records with JSON, 1 thread", &records);
}

/// What a start takes after a crash that left as much unflushed as there may be.
fn recovery(report: &mut Report) {
    let (mut seconds, mut mebibytes) = (Vec::new(), Vec::new());
    for _ in 0..RECOVERIES {
        let replayed = replay(64 << 20);
        seconds.push(replayed.took.as_secs_f64());
        mebibytes.push(f64::from(u32::try_from(replayed.bytes >> 10).expect("some MiB")) / 1024.0);
    }
    report.add("recovery: log to replay", &mebibytes, |value| format!("{value:.1} MiB"), String::new());
    let holds = verdict(median(&seconds) < 2.0);
    report.add("recovery: replay", &seconds, |value| format!("{value:.2} s"), format!("{holds}, under 2 s"));
}

/// Runs `work` on that many threads, again and again, for a round: how often a second.
fn per_second(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let (stop, done, start) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(threads + 1));
    let took = std::thread::scope(|scope| {
        for thread in 0..threads {
            let (stop, done, start, work) = (&stop, &done, &start, &work);
            scope.spawn(move || {
                start.wait();
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(thread);
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            });
        }
        start.wait();
        let begun = clock::instant();
        std::thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        begun.elapsed()
    });
    let done = u32::try_from(done.load(Ordering::Relaxed)).expect("a round is short");
    f64::from(done) / took.as_secs_f64()
}

fn commits_per_second(database: &Database, writers: usize) -> f64 {
    let begun = clock::instant();
    let (commits, took) = database.race(writers, move |_| begun.elapsed() < ROUND);
    f64::from(u32::try_from(commits).expect("a round is short")) / took.as_secs_f64()
}

/// RocksDB as the row store sets it up, but with its write-ahead log and nothing beside it.
struct Rocks {
    database: DB,
    write: WriteOptions,
    next_key: AtomicU64,
    _dir: TempDir,
}

impl Rocks {
    fn open(sync: bool) -> Self {
        let dir = directory();
        let database = DB::open(&rocks_options(), Path::new(dir.path())).expect("RocksDB opens");
        let mut write = WriteOptions::default();
        write.set_sync(sync);
        Self { database, write, next_key: AtomicU64::new(1), _dir: dir }
    }

    /// Single puts of rows like ours, under keys like ours, of as many users.
    fn puts_per_second(&self, threads: usize) -> f64 {
        // What a stored row has before its bytes: seq, time, flags.
        let value = vec![0x5a; 17 + ROW_BYTES];
        per_second(threads, |thread| {
            let number = self.next_key.fetch_add(1, Ordering::Relaxed);
            let user = if threads == 1 { number % WRITERS as u64 } else { thread as u64 };
            let mut key = [0_u8; 26];
            let (table, rest) = key.split_at_mut(8);
            let (name, id) = rest.split_at_mut(10);
            table.copy_from_slice(&7_u64.to_be_bytes());
            name.copy_from_slice(format!("user_{user:02}\0\x01 ").as_bytes());
            id.copy_from_slice(&number.to_be_bytes());
            self.database.put_opt(key, &value, &self.write).expect("RocksDB takes a row");
        })
    }
}

fn rocks_options() -> Options {
    let store = kalamdb_store::StoreOptions::default();
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_max_background_jobs(2);
    options.set_write_buffer_size(store.write_buffer_bytes);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
