//! `kalamdb export table FILE` and `kalamdb export --query "SELECT …" FILE`: rows into a file.
//!
//! A table is read in pages along its primary key ([`pages`]), so neither side ever holds more than a page of it; a query's result is
//! one page. The file has its name only once it is whole and on the disk ([`target`]).

mod jsonl;
mod pages;
mod plain;
mod target;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arrow::datatypes::SchemaRef;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use tokio::sync::watch;

use super::format::{self, Format};
use super::import::delimiter;
use super::progress::Progress;
use super::{rows_text, run_until_stopped, unless_stopped};
use crate::account::{Account, AccountArgs};
use pages::Pages;
use target::Target;
use writer::{CsvForm, Writer};

/// Write the rows of a table or of a query into a CSV, JSON lines or Parquet file
///
/// A table is read in pages in the order of its primary key, each as it is at that moment; one that fits into a page, and a query,
/// are read at one point. The file has its name only once it is whole.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "kalamdb export [OPTIONS] <TABLE> <FILE>\n       kalamdb export [OPTIONS] --query <SELECT> <FILE>"
)]
pub(crate) struct ExportArgs {
    /// The table, as SQL names it (namespace.table), unless there is a --query; then the file: .csv, .jsonl or .ndjson (each also
    /// with .zst or .gz), .parquet; `-` is standard output
    #[arg(value_name = "TABLE> <FILE", required = true, num_args = 1..=2)]
    words: Vec<String>,
    /// The rows of this SELECT instead of a table's
    #[arg(long, value_name = "SELECT")]
    query: Option<String>,
    #[command(flatten)]
    account: AccountArgs,
    /// What this user sees; for the roles service and dba
    #[arg(long, value_name = "USER")]
    as_user: Option<String>,
    /// What the file is to hold, whatever its name says
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// Rows that are read at once at the most; as many as fit into some 64 MiB if not told otherwise
    #[arg(long, value_name = "COUNT", conflicts_with = "query", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    page_rows: Option<u32>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// No progress, no summary
    #[arg(long, short)]
    quiet: bool,
    /// CSV: what stands between fields, one character; \t for a tab
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter, help_heading = "CSV")]
    delimiter: u8,
    /// CSV: no header line
    #[arg(long, help_heading = "CSV")]
    no_header: bool,
    /// CSV: what NULL is written as, unquoted; a text that is the same is quoted, and so is an empty one
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "CSV")]
    null: String,
}

/// Runs the command until the file is whole.
pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let (table, file) = match (args.words.as_slice(), &args.query) {
        ([file], Some(_)) => (None, file),
        ([table, file], None) => (Some(table.as_str()), file),
        _ => misused(),
    };
    // The terminal is asked while a signal still ends the process at once.
    let password = args.account.password()?;
    run_until_stopped(|stopped| export(args, table, Path::new(file), password, stopped))
}

/// Ends the process as any wrong use does.
fn misused() -> ! {
    let message = "export either a table or a query:\n\n  kalamdb export namespace.table FILE\n  \
                   kalamdb export --query \"SELECT …\" FILE";
    crate::Command::command().error(ErrorKind::WrongNumberOfValues, message).exit()
}

async fn export(
    args: &ExportArgs,
    table: Option<&str>,
    file: &Path,
    password: String,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (format, compression) = format::of_file(file, args.format)?;
    let name = table.map(str::parse).transpose()?;
    let target = Target::new(file, format, args.force)?;
    let opened = async {
        let account = Account::log_in(&args.account, password).await?;
        let mut pages = match (name, &args.query) {
            (Some(name), _) => Pages::of_table(account, &name, args.as_user.clone(), args.page_rows).await?,
            (None, query) => {
                Pages::of_query(account, query.clone().unwrap_or_default(), args.as_user.clone())
            }
        };
        let total = if Progress::is_shown(args.quiet) { pages.count().await? } else { None };
        Ok((pages, total))
    };
    let (mut pages, total) = unless_stopped(&mut stopped, opened).await?;
    let mut progress = Progress::new(total, args.quiet);
    let csv =
        CsvForm { delimiter: args.delimiter, null_text: args.null.clone(), has_header: !args.no_header };
    let begin = |schema: &SchemaRef| Writer::new(&target, format, compression, schema, &csv);
    let rows = match write(&mut pages, begin, &mut progress, &mut stopped).await {
        // Who reads the output has gone, as in `kalamdb export … - | head`: no error.
        Err(error) if target.is_pipe() && is_broken_pipe(&error) => return Ok(()),
        rows => rows.inspect_err(|_| progress.clear())?,
    };
    target.complete()?;
    progress.finish(&format!("exported {}{}", rows_text(rows), written_to(table, file)));
    Ok(())
}

/// Writes all pages, and counts their rows.
async fn write(
    pages: &mut Pages,
    begin: impl Fn(&SchemaRef) -> anyhow::Result<Writer>,
    progress: &mut Progress,
    stopped: &mut watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let mut writer: Option<Writer> = None;
    let mut rows = 0;
    while let Some(page) = unless_stopped(stopped, pages.next()).await? {
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(begin(&page.schema)?),
        };
        for batch in &page.batches {
            writer.write(batch)?;
            rows += batch.num_rows() as u64;
            progress.advance(batch.num_rows() as u64, rows);
        }
    }
    writer.map_or(Ok(()), Writer::finish)?;
    Ok(rows)
}

/// Only of what is written: a connection to the server breaks in another way.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// ` of app.messages to messages.csv`.
fn written_to(table: Option<&str>, file: &Path) -> String {
    let of = table.map(|table| format!(" of {table}")).unwrap_or_default();
    let to = if file == Path::new("-") { PathBuf::from("standard output") } else { file.to_owned() };
    format!("{of} to {}", to.display())
}
