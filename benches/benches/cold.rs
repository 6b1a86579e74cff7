//! Queries of a table whose rows are all in Parquet files, beside DataFusion alone on the very same files; then with one key in
//! twenty updated and still hot. How fast rows are flushed, beside the Parquet writer alone.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures, and has nothing to do if it cannot"
)]

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::schema::types::ColumnPath;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use kalamdb_benches::report::{ROUNDS, Report};
use kalamdb_benches::{directory, session};
use kalamdb_core::format::{Role, Value};
use kalamdb_core::log::Durability;
use kalamdb_core::{COLD_DIRECTORY, Engine, EngineOptions, ErrorCode, clock};
use tokio::runtime::Runtime;

const ROWS: i64 = 500_000;
const BATCH: i64 = 2000;
/// Rounds of each query: one of them takes a hundredth of a second, and what else the machine does is to tell nothing.
const QUERY_ROUNDS: usize = 5 * ROUNDS;
/// Rows of a file at the most, as a flush writes them.
const FILE_ROWS: usize = 1 << 16;
const FLUSHES: usize = 3;
/// Changes of each kind.
const CHANGES: i64 = 300;

/// What is asked; `{t}` stands for the table.
const QUERIES: [(&str, &str); 6] = [
    ("full scan, aggregate", "SELECT count(*), sum(score), max(room) FROM {t}"),
    ("full scan, grouped", "SELECT room, count(*), avg(score) FROM {t} GROUP BY room"),
    ("filter and project", "SELECT id, content FROM {t} WHERE room = 7 AND score > 0.5"),
    ("top ten", "SELECT id, score, author FROM {t} ORDER BY score DESC LIMIT 10"),
    ("newest fifty", "SELECT id, author, content FROM {t} ORDER BY _seq DESC LIMIT 50"),
    ("last fifty by key", "SELECT id, author, content FROM {t} ORDER BY id DESC LIMIT 50"),
];

struct Bench {
    runtime: Runtime,
    engine: Engine,
    alone: SessionContext,
}

fn main() {
    let directory = directory();
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut options = EngineOptions::new(directory.path());
    options.durability = Durability::Os;
    options.root_password = Some("bench".to_owned());
    let (engine, _) = Engine::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let alone = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(cores));
    let bench = Bench { runtime, engine, alone };
    let mut report = Report::default();
    bench.run("CREATE NAMESPACE bench");
    bench.fill("bench.facts");
    bench.flush("bench.facts");
    let files = parquet_files(&directory.path().join(COLD_DIRECTORY));
    let at = files.first().and_then(|file| file.parent()).unwrap().display().to_string();
    bench
        .runtime
        .block_on(bench.alone.register_parquet("files", &at, ParquetReadOptions::default()))
        .unwrap();
    bench.compare(&mut report, "cold", 1.15);
    for from in (0..ROWS).step_by(50_000) {
        let until = from + 50_000;
        bench.run(&format!(
            "UPDATE bench.facts SET score = score + 1 WHERE id >= {from} AND id < {until} AND id % 20 = 0"
        ));
    }
    bench.compare(&mut report, "5 % hot", 1.5);
    bench.writing(&mut report, directory.path());
    bench.changing(&mut report, "bench.flushed0");
    report.print();
    println!("\n{ROWS} rows in {} files; {cores} partitions of a plan on both sides", files.len());
    bench.engine.close();
}

impl Bench {
    fn run(&self, sql: &str) -> u64 {
        let mut root = session("root", Role::Dba);
        let executed = self.runtime.block_on(self.engine.execute(&mut root, sql, &[]));
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
        executed.results.iter().map(|result| result.row_count).sum()
    }

    fn fill(&self, table: &str) {
        self.run(&format!(
            "CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY, room INT, author TEXT, content TEXT, at TIMESTAMP, \
             score DOUBLE)"
        ));
        let root = session("root", Role::Dba);
        for from in (0..ROWS).step_by(usize::try_from(BATCH).unwrap()) {
            let rows: Vec<Vec<Value>> = (from..from + BATCH).map(fact).collect();
            self.runtime.block_on(self.engine.insert_rows(&root, table, &rows)).unwrap();
        }
    }

    /// Flushes everything; how long the job took. Jobs are looked at only after something was committed: to ask all the time would
    /// take from a core what the flush could use.
    fn flush(&self, table: &str) -> Duration {
        let begun = clock::instant();
        self.run(&format!("STORAGE FLUSH TABLE {table}"));
        let mut seen = None;
        loop {
            let (published, took) = (self.engine.published(), begun.elapsed());
            if seen.replace(published) == Some(published) {
                std::thread::sleep(Duration::from_millis(1));
            } else if self.run("SELECT job_id FROM system.jobs WHERE finished_at IS NULL") == 0 {
                return took;
            }
        }
    }

    /// Each query on the table and on the files, by turns.
    fn compare(&self, report: &mut Report, state: &str, most: f64) {
        for (name, sql) in QUERIES {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=QUERY_ROUNDS {
                let begun = clock::instant();
                self.run(&sql.replace("{t}", "bench.facts"));
                let took = begun.elapsed();
                let begun = clock::instant();
                let sql = sql.replace("{t}", "files");
                let found =
                    self.runtime.block_on(async { self.alone.sql(&sql).await.unwrap().collect().await });
                found.unwrap();
                // The first one warms both.
                if round > 0 {
                    ours.push(took.as_secs_f64() * 1e6);
                    theirs.push(begun.elapsed().as_secs_f64() * 1e6);
                }
            }
            report.micros(&format!("{state}: {name}"), &ours);
            report.micros(&format!("{state}: {name}, DataFusion on the files"), &theirs);
            report.ratio(&format!("{state}: {name}, ratio"), &ours, &theirs, 0.0..most);
        }
    }

    /// Flushing beside the same rows, from Arrow in memory, through the Parquet writer alone, as many files of the same kind;
    /// by turns.
    fn writing(&self, report: &mut Report, directory: &Path) {
        let all = async { self.alone.sql("SELECT * FROM files ORDER BY id").await.unwrap().collect().await };
        let batches = self.runtime.block_on(all).unwrap();
        let rows = concat_batches(&batches.first().unwrap().schema(), &batches).unwrap();
        let count = u32::try_from(ROWS).map_or(0.0, f64::from);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..FLUSHES {
            let table = format!("bench.flushed{round}");
            self.fill(&table);
            ours.push(count / self.flush(&table).as_secs_f64());
            let begun = clock::instant();
            for file in 0..rows.num_rows().div_ceil(FILE_ROWS) {
                let from = file * FILE_ROWS;
                let part = rows.slice(from, FILE_ROWS.min(rows.num_rows() - from));
                write_alone(&part, &directory.join(format!("alone{file}.parquet")));
            }
            theirs.push(count / begun.elapsed().as_secs_f64());
        }
        report.rate("rows flushed", &ours);
        report.rate("rows through the Parquet writer alone", &theirs);
        report.ratio("flush / writer alone", &ours, &theirs, 0.7..f64::INFINITY);
    }
}

impl Bench {
    /// Writes beside rows that only files have.
    fn changing(&self, report: &mut Report, table: &str) {
        let mut root = session("root", Role::Dba);
        let (mut taken, mut free, mut updated) = (Vec::new(), Vec::new(), Vec::new());
        let micros = |begun: Instant| begun.elapsed().as_secs_f64() * 1e6;
        for number in 0..CHANGES {
            let id = number.wrapping_mul(0x9e37_79b9) % ROWS;
            let insert = format!("INSERT INTO {table} (id) VALUES ({id})");
            let begun = clock::instant();
            let executed = self.runtime.block_on(self.engine.execute(&mut root, &insert, &[]));
            taken.push(micros(begun));
            assert!(executed.error.is_some_and(|error| error.code() == ErrorCode::ConstraintViolation));
            let begun = clock::instant();
            self.run(&format!("INSERT INTO {table} (id) VALUES ({})", ROWS + number));
            free.push(micros(begun));
            let begun = clock::instant();
            self.run(&format!("UPDATE {table} SET room = 1 WHERE id = {id}"));
            updated.push(micros(begun));
        }
        report.micros("INSERT of a key that only a file has: refused", &taken);
        report.micros("INSERT of a key above those of the files", &free);
        report.micros("UPDATE by key of a row that only a file has", &updated);
        let rows: Vec<String> = (0..1000).map(|id| format!("({})", id * 7 + 3)).collect();
        let upsert = format!(
            "INSERT INTO {table} (id) VALUES {} ON CONFLICT (id) DO UPDATE SET room = {table}.room + 1",
            rows.join(", ")
        );
        let begun = clock::instant();
        self.run(&upsert);
        report.rate(
            "rows that only files have, by ON CONFLICT in one statement",
            &[1000.0 / begun.elapsed().as_secs_f64()],
        );
    }
}

/// Writes a file as a flush does.
fn write_alone(rows: &RecordBatch, path: &Path) {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_row_count_limit(1024)
        .set_write_batch_size(1024)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_page_size_limit(1 << 15);
    for column in ["id", "_updated"] {
        properties = properties
            .set_column_bloom_filter_enabled(ColumnPath::from(column), true)
            .set_column_bloom_filter_max_ndv(ColumnPath::from(column), 1 << 16);
    }
    for column in ["_seq", "_updated", "id"] {
        properties = properties.set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    for column in ["_key", "_seq", "_updated", "id", "score"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    let out = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).unwrap();
    writer.write(rows).unwrap();
    let mut out = std::io::BufWriter::new(out);
    out.write_all(&writer.into_inner().unwrap()).unwrap();
    out.into_inner().unwrap().sync_all().unwrap();
}

fn fact(id: i64) -> Vec<Value> {
    let mixed = id.wrapping_mul(0x9e37_79b9) & 0xffff_ffff;
    vec![
        Value::BigInt(id),
        Value::Int(i32::try_from(mixed % 100).unwrap()),
        Value::Text(format!("author{}", mixed % 1000)),
        Value::Text(format!(
            "{mixed:x} is what somebody said to somebody else about something, {id} times over, and more"
        )),
        Value::Timestamp(1_750_000_000_000_000 + id * 1_000_000),
        Value::Double(f64::from(u32::try_from(mixed).unwrap()) / f64::from(u32::MAX)),
    ]
}

fn parquet_files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}
