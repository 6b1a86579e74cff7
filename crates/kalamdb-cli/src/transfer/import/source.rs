//! Where rows come from: a file or a pipe, decompressed, as rows with their numbers.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value as Json;

use super::ImportArgs;
use super::csv::CsvRows;
use super::jsonl::JsonRows;
use super::numbers::Numbered;
use super::parquet::ParquetRows;
use crate::sql::render::printable;
use crate::transfer::format::{Compression, Format};
use crate::transfer::grouped;
use crate::transfer::progress::Position;
use crate::transfer::table::Table;

/// A row of a file, its values as parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Its place among the file's rows, from 1.
    pub(super) number: u64,
    /// The line it begins in, from 1, in a file of lines.
    pub(super) line: Option<u64>,
    /// Which columns of the table `values` are for.
    pub(super) columns: Arc<[usize]>,
    pub(super) values: Vec<Json>,
}

/// A row that cannot be read or is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadRow {
    pub(super) number: u64,
    pub(super) line: Option<u64>,
    pub(super) column: Option<String>,
    pub(super) problem: String,
    /// Whether nothing behind it can be read either.
    pub(super) ends_file: bool,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", grouped(self.number))?;
        if let Some(line) = self.line {
            write!(f, " (line {})", grouped(line))?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {}", printable(column))?;
        }
        write!(f, ": {}", printable(&self.problem))
    }
}

/// Rows in the order of the file.
pub(super) trait Rows: Send {
    /// The next one; none at the end.
    fn next(&mut self) -> Result<Option<Row>, BadRow>;
}

/// An opened file.
pub(super) enum Input {
    Csv(Box<dyn BufRead + Send>),
    Jsonl(Box<dyn BufRead + Send>),
    Parquet(File),
}

/// Counts the bytes that are read of a file.
struct Counted<R> {
    inner: R,
    position: Position,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position.advance(read as u64);
        Ok(read)
    }
}

/// What a file is called in messages.
pub(super) fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Opens a file, and tells how far `position` will go, where that is known.
pub(super) fn open(
    file: &Path,
    format: Format,
    compression: Compression,
    position: &Position,
) -> anyhow::Result<(Input, Option<u64>)> {
    let text = |input| match format {
        Format::Csv => Input::Csv(input),
        Format::Jsonl | Format::Parquet => Input::Jsonl(input),
    };
    if file == Path::new("-") {
        if format == Format::Parquet {
            bail!("Parquet is read from its end, which a pipe does not have: give a file");
        }
        let counted = Counted { inner: io::stdin(), position: position.clone() };
        return Ok((text(Box::new(BufReader::with_capacity(BUFFER_BYTES, counted))), None));
    }
    let unreadable = || format!("can't read {}", file.display());
    let opened = File::open(file).with_context(unreadable)?;
    let metadata = opened.metadata().with_context(unreadable)?;
    if metadata.is_dir() {
        bail!("{} is a directory", file.display());
    }
    if format == Format::Parquet {
        return Ok((Input::Parquet(opened), None));
    }
    let counted = Counted { inner: opened, position: position.clone() };
    let total = metadata.is_file().then_some(metadata.len());
    Ok((text(decompressed(counted, compression)?), total))
}

const BUFFER_BYTES: usize = 128 << 10;

fn decompressed(
    input: impl Read + Send + 'static,
    compression: Compression,
) -> anyhow::Result<Box<dyn BufRead + Send>> {
    Ok(match compression {
        Compression::None => Box::new(BufReader::with_capacity(BUFFER_BYTES, input)),
        Compression::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd::Decoder::new(input)?)),
        Compression::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::read::MultiGzDecoder::new(input)))
        }
    })
}

/// What rows are read with.
pub(super) struct Reader<'a> {
    pub(super) args: &'a ImportArgs,
    pub(super) table: &'a Table,
    /// The file's name, for messages.
    pub(super) file: &'a str,
    pub(super) position: Position,
}

impl Reader<'_> {
    /// The rows of an opened file, once its columns have been matched with the table's, and how many there are, where that is
    /// known.
    pub(super) fn rows(&self, input: Input) -> anyhow::Result<(Box<dyn Rows>, Option<u64>)> {
        let (rows, count): (Box<dyn Rows>, _) = match input {
            Input::Csv(input) => (Box::new(CsvRows::new(input, self)?), None),
            Input::Jsonl(input) => (Box::new(JsonRows::new(input, self.table, self.args.skip_unknown)), None),
            Input::Parquet(file) => {
                let (rows, count) = ParquetRows::new(file, self)?;
                (Box::new(rows), Some(count))
            }
        };
        Ok((Box::new(Numbered::new(rows, self.table, self.args.timestamp_unit)), count))
    }

    /// For each of a file's columns, in its order, the column of the table; none for one that is passed over.
    pub(super) fn matched(&self, names: &[&str]) -> anyhow::Result<Vec<Option<usize>>> {
        let table = self.table;
        let positions: Vec<Option<usize>> = names.iter().map(|name| table.position(name)).collect();
        let unknown: Vec<String> = names
            .iter()
            .zip(&positions)
            .filter(|(_, position)| position.is_none())
            .map(|(name, _)| format!("{:?}", excerpt(name)))
            .collect();
        if !unknown.is_empty() && !self.args.skip_unknown {
            bail!(
                "{}: {} has no column {} (it has {}); --skip-unknown passes over such columns",
                self.file,
                table.name,
                unknown.join(", "),
                table.names()
            );
        }
        for (at, position) in positions.iter().enumerate() {
            if let Some(column) = position.filter(|_| positions.iter().take(at).any(|it| it == position)) {
                bail!("{}: the column {} is there twice", self.file, table.column(column)?.name);
            }
        }
        if positions.iter().all(Option::is_none) {
            bail!("{}: none of its columns is one of {} ({})", self.file, table.name, table.names());
        }
        Ok(positions)
    }
}

/// Enough of a text to know it again.
pub(super) fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
