//! The rows of a table, page after page along its key, or of a query, all at once.
//!
//! A page is one SELECT and so one cut of the database; the next begins after the last key of the one before. Keys do not change, so
//! no row comes twice and none that stays is missed, but rows that are written meanwhile are as they are when their page is
//! read. How many rows a page has follows from how many bytes the last one had.

use anyhow::{Context as _, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Field, SchemaRef, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::ipc::reader::StreamReader;

use super::plain;
use crate::account::Account;
use crate::client::{ClientError, Statement, quote_literal};
use crate::transfer::table::{Table, TableName, as_user, quoted};
use crate::transfer::values::{hex, text_of};

const ROWS_FIRST: usize = 1 << 16;
const ROWS_MAX: usize = 1 << 20;
/// A page of more bytes is followed by a smaller one.
const BYTES_MAX: usize = 64 << 20;
/// A page of fewer bytes is followed by a greater one.
const BYTES_MIN: usize = 16 << 20;
/// What rows of a STREAM table are told apart by.
const SEQ: &str = "_seq";

/// Some rows.
pub(super) struct Page {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
}

/// Where rows come from.
pub(super) struct Pages {
    account: Account,
    as_user: Option<String>,
    source: Source,
    schema: Option<SchemaRef>,
    is_over: bool,
}

enum Source {
    Query(String),
    Table(Box<Walk>),
}

/// A table, and how far it has been read.
struct Walk {
    table: Table,
    /// The columns rows are in the order of; for a STREAM table the seq, which is the last column of a page.
    key: Vec<Field>,
    rows: usize,
    /// Rows of a page at the most.
    rows_max: usize,
    /// The key of the last row that was read.
    last: Vec<String>,
}

impl Pages {
    pub(super) async fn of_table(
        mut account: Account,
        name: &TableName,
        as_user: Option<String>,
        rows_max: Option<u32>,
    ) -> anyhow::Result<Self> {
        ensure!(
            !name.is_of_system(),
            "{name} is no table of rows: export it with --query \"SELECT * FROM {name}\""
        );
        let rows_max = rows_max.map_or(ROWS_MAX, |rows| rows as usize);
        let table = Table::describe(&mut account, name).await?;
        let key = table.key.iter().map(|at| Ok(table.column(*at)?.field.clone()));
        let mut key = key.collect::<anyhow::Result<Vec<_>>>()?;
        if table.is_stream {
            key.clear();
            key.push(Field::new(SEQ, ArrowType::Int64, false));
        }
        let walk = Walk { table, key, rows: ROWS_FIRST.min(rows_max), rows_max, last: Vec::new() };
        Ok(Self { account, as_user, source: Source::Table(Box::new(walk)), schema: None, is_over: false })
    }

    pub(super) const fn of_query(account: Account, query: String, as_user: Option<String>) -> Self {
        Self { account, as_user, source: Source::Query(query), schema: None, is_over: false }
    }

    /// How many rows there are; none where that is not asked.
    pub(super) async fn count(&mut self) -> anyhow::Result<Option<u64>> {
        let Source::Table(walk) = &self.source else { return Ok(None) };
        let sql = as_user(self.as_user.as_deref(), format!("SELECT COUNT(*) FROM {}", walk.table.name.sql()));
        let answer = self.account.sql(Statement::text(&sql)).await?;
        let rows = answer.results.first().and_then(|result| result.rows.as_ref());
        let count = rows.and_then(|rows| rows.first()?.first()?.as_str());
        Ok(count.map(str::parse).transpose()?)
    }

    /// The next page, at the first call even if it has no rows; none at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Page>> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            let sql = match &self.source {
                Source::Query(query) => query.trim().trim_end_matches(';').to_owned(),
                Source::Table(walk) => walk.statement(),
            };
            let sql = as_user(self.as_user.as_deref(), sql);
            match (self.account.arrow(Statement::text(&sql)).await, &mut self.source) {
                (Ok(stream), _) => return self.page(&stream).map(Some),
                (Err(error), Source::Table(walk)) if is_too_much(&error) && walk.rows > 1 => walk.rows /= 2,
                (Err(error), _) => return Err(error.into()),
            }
        }
    }

    fn page(&mut self, stream: &[u8]) -> anyhow::Result<Page> {
        let unexpected = "the server's answer is no Arrow stream";
        let reader = StreamReader::try_new(stream, None).context(unexpected)?;
        ensure!(!reader.schema().fields().is_empty(), "the statement gives no rows");
        let schema = plain::schema(&reader.schema());
        ensure!(
            self.schema.as_ref().is_none_or(|known| *known == schema),
            "the table was altered meanwhile: export it again"
        );
        let mut batches = Vec::new();
        for batch in reader {
            batches.push(plain::batch(&schema, &batch.context(unexpected)?)?);
        }
        self.schema = Some(SchemaRef::clone(&schema));
        match &mut self.source {
            Source::Query(_) => self.is_over = true,
            Source::Table(walk) => {
                self.is_over = walk.after(&batches, stream.len())?;
                // The seq that pages go by is none of the table's columns.
                let own: Vec<usize> = (0..walk.table.columns.len()).collect();
                if own.len() < schema.fields().len() {
                    let batches =
                        batches.iter().map(|batch| batch.project(&own)).collect::<Result<_, _>>()?;
                    return Ok(Page { schema: schema.project(&own)?.into(), batches });
                }
            }
        }
        Ok(Page { schema, batches })
    }
}

/// Fewer rows may go where so many do not.
fn is_too_much(error: &ClientError) -> bool {
    matches!(error.code(), Some("MEMORY_LIMIT" | "TIMEOUT"))
}

impl Walk {
    /// `SELECT … WHERE a > x OR (a = x AND b > y) ORDER BY a, b LIMIT n`.
    fn statement(&self) -> String {
        let mut columns: Vec<String> = self.table.columns.iter().map(|column| quoted(&column.name)).collect();
        let key: Vec<String> = self.key.iter().map(|field| quoted(field.name())).collect();
        if self.table.is_stream {
            columns.push(quoted(SEQ));
        }
        let after = match self.last.as_slice() {
            [] => String::new(),
            last => format!(" WHERE {}", condition(&self.key, last)),
        };
        format!(
            "SELECT {} FROM {}{after} ORDER BY {} LIMIT {}",
            columns.join(", "),
            self.table.name.sql(),
            key.join(", "),
            self.rows
        )
    }

    /// Remembers where a page ended and decides how many rows the next has; true where there is none.
    fn after(&mut self, batches: &[RecordBatch], bytes: usize) -> anyhow::Result<bool> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows < self.rows {
            return Ok(true);
        }
        let last = batches.iter().rfind(|batch| batch.num_rows() > 0).context("a page without rows")?;
        let key = self.key.iter().map(|field| {
            let array = last.column_by_name(field.name()).context("a page without its key")?;
            key_text(array, last.num_rows() - 1).context("a row without a key")
        });
        self.last = key.collect::<anyhow::Result<_>>()?;
        if bytes > BYTES_MAX {
            self.rows = (self.rows / 2).max(1);
        } else if bytes < BYTES_MIN {
            self.rows = (self.rows * 2).min(self.rows_max);
        }
        Ok(false)
    }
}

/// What the keys after this one have in common.
fn condition(key: &[Field], last: &[String]) -> String {
    let named: Vec<(String, String)> =
        key.iter().zip(last).map(|(field, text)| (quoted(field.name()), literal(field, text))).collect();
    let parts = (0..named.len()).map(|at| {
        let same = named.iter().take(at).map(|(name, literal)| format!("{name} = {literal}"));
        let beyond = named.iter().skip(at).take(1).map(|(name, literal)| format!("{name} > {literal}"));
        format!("({})", same.chain(beyond).collect::<Vec<_>>().join(" AND "))
    });
    parts.collect::<Vec<_>>().join(" OR ")
}

/// A key's value as text: dates and times as counts, bytes as hexadecimal digits.
fn key_text(array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        ArrowType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        ArrowType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        ArrowType::Time64(_) => array.as_primitive::<Time64MicrosecondType>().value(row).to_string(),
        ArrowType::Binary => hex(array.as_binary::<i32>().value(row)),
        _ => text_of(array, row)?,
    })
}

/// A key's value as SQL of exactly the type of its column: any other comparison could be one of texts.
fn literal(field: &Field, text: &str) -> String {
    let cast =
        |inner: &str, to: &ArrowType| format!("arrow_cast({inner}, {})", quote_literal(&to.to_string()));
    let quoted = quote_literal(text);
    match field.data_type() {
        ArrowType::Utf8 => quoted,
        ArrowType::Binary => format!("X'{text}'"),
        counted @ (ArrowType::Timestamp(..) | ArrowType::Time64(_)) => {
            cast(&cast(&quoted, &ArrowType::Int64), counted)
        }
        ArrowType::Date32 => cast(&cast(&quoted, &ArrowType::Int32), &ArrowType::Date32),
        other => cast(&quoted, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_along_the_whole_key() {
        let text = |name: &str, data_type| Field::new(name, data_type, false);
        let key = vec![text("a", ArrowType::Utf8), text("b", ArrowType::Int32), text("c", ArrowType::Binary)];
        let last = ["it's".to_owned(), "-5".to_owned(), "00ff".to_owned()];
        assert_eq!(
            condition(&key, &last),
            "(\"a\" > 'it''s') OR (\"a\" = 'it''s' AND \"b\" > arrow_cast('-5', 'Int32')) OR \
             (\"a\" = 'it''s' AND \"b\" = arrow_cast('-5', 'Int32') AND \"c\" > X'00ff')"
        );
    }
}
