//! TPC-H against DataFusion alone: `cargo test --test tpch -- --dir DIR [--flush rows:10000]`.
//!
//! DIR has the eight tables as Parquet, as `tpchgen-cli parquet -s 0.1 --output-dir DIR` makes them; it is on `PyPI`. They are imported into a
//! server and read by DataFusion from the files; each of the 22 queries must have the same rows from both.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::support::{Follower, Server};

const TABLES: [&str; 8] =
    ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"];
const QUERIES: usize = 22;
/// Largest relative difference of two floating-point numbers or averages.
const TOLERANCE: f64 = 1e-6;

/// The text after a flag.
fn option(flag: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != flag).nth(1)
}

/// The statements of a text, comments aside.
fn statements(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let text = lines.join("\n");
    let statements = text.split(';').map(|sql| sql.trim().to_owned());
    statements.filter(|sql| !sql.is_empty()).collect()
}

/// The rows of batches as texts, in an order that is theirs alone; numbers apart from texts.
fn rows(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|array| ArrayFormatter::try_new(array.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<String>>());
        }
    }
    rows.sort();
    rows
}

/// Whether two values are the same, or are numbers that are the same but for their last digits.
fn is_same(one: &str, other: &str) -> bool {
    let close = |one: f64, other: f64| (one - other).abs() <= TOLERANCE * one.abs().max(other.abs());
    one == other || one.parse().ok().zip(other.parse().ok()).is_some_and(|(one, other)| close(one, other))
}

fn is_same_row((one, other): (&Vec<String>, &Vec<String>)) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
}

/// A server with the tables of these files.
async fn server(directory: &Path) -> Server {
    let policy = option("--flush").map(|policy| format!("flush_policy = \"{policy}\"\n"));
    let server = Server::start_with(&policy.unwrap_or_default()).await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE tpch").await;
    for sql in statements(include_str!("tpch/tables.sql")) {
        root.sql(&sql).await;
    }
    for table in TABLES {
        let (file, name) = (path(directory, table).display().to_string(), format!("tpch.{table}"));
        let import = ["import", "--quiet", "--url", &server.url(), &file, "INTO", &name];
        let (_, code, said) = Follower::start(&import).end().await;
        assert_eq!(code, 0, "{table}: {said}");
    }
    server
}

fn path(directory: &Path, table: &str) -> PathBuf {
    directory.join(format!("{table}.parquet"))
}

#[expect(clippy::disallowed_methods, reason = "the times are for people")]
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (work.await, begun.elapsed())
}

async fn run() {
    let Some(directory) = option("--dir").map(PathBuf::from) else {
        println!("cargo test --test tpch -- --dir DIR: a directory with TPC-H's tables as Parquet files");
        return;
    };
    let context = SessionContext::new();
    for table in TABLES {
        let file = path(&directory, table).display().to_string();
        context.register_parquet(table, file, ParquetReadOptions::default()).await.unwrap();
    }
    let server = server(&directory).await;
    let root = server.root().await;
    let queries = statements(include_str!("tpch/queries.sql"));
    assert_eq!(queries.len(), QUERIES);
    let mut wrong = Vec::new();
    for (at, sql) in queries.iter().enumerate() {
        let alone = async { context.sql(sql).await.unwrap().collect().await.unwrap() };
        let (alone, alone_took) = timed(alone).await;
        let (stream, took) = timed(root.arrow(&format!("USE tpch; {sql}"))).await;
        let reader = StreamReader::try_new(stream.as_slice(), None).unwrap();
        let ours: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let (ours, alone) = (rows(&ours), rows(&alone));
        let is_right = ours.len() == alone.len() && ours.iter().zip(&alone).all(is_same_row);
        let (ours_ms, alone_ms) = (took.as_secs_f64() * 1e3, alone_took.as_secs_f64() * 1e3);
        let verdict = if is_right { "right" } else { "WRONG" };
        println!(
            "Q{:<2} {verdict} {:>5} rows {ours_ms:>8.1} ms, DataFusion alone {alone_ms:>8.1} ms",
            at + 1,
            ours.len()
        );
        if !is_right {
            let differing = ours.iter().zip(&alone).find(|pair| !is_same_row(*pair));
            wrong.push(format!("Q{}: {} rows, {} expected; {differing:?}", at + 1, ours.len(), alone.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("test result: ok. {QUERIES} queries");
}

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}
