//! SHOW STATS FOR TABLE: what a table holds, told by counters that events keep, not by reading its rows.
//!
//! Isolation holds for numbers too: who sees only their own rows of a table is told how many those are.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use log_format::Role;

use crate::engine::Engine;
use crate::error::Result;
use crate::session::Session;
use crate::sql::ddl::one_batch;
use crate::sql::execute::{StatementResult, require_read};
use crate::sql::parse::TableName;

pub(crate) fn show(engine: &Engine, session: &Session, name: &TableName) -> Result<StatementResult> {
    let info = engine.resolve(session, name)?;
    require_read(session, &info)?;
    let partition = session.partition(&info);
    let is_whole = partition.user.is_none() || session.role() >= Role::Service;
    let store = engine.store();
    let (counts, cold) = if is_whole {
        (store.table_counts(info.id())?, store.table_cold_totals(info.id())?)
    } else {
        (store.counts(&partition)?, store.cold_totals(&partition)?)
    };
    let text = |value: String| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let number =
        |value: u64| Arc::new(Int64Array::from(vec![i64::try_from(value).unwrap_or(i64::MAX)])) as ArrayRef;
    let last_flush = TimestampMicrosecondArray::from(vec![cold.last_flush]).with_timezone("+00:00");
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("table", text(info.full_name()), false),
        ("scope", text(if is_whole { "table" } else { "own rows" }.to_owned()), false),
        ("hot_rows", number(counts.rows.saturating_sub(counts.cold_rows)), false),
        ("hot_bytes", number(counts.bytes.saturating_sub(counts.cold_bytes)), false),
        ("cold_rows", number(counts.cold_rows), false),
        ("cold_bytes", number(cold.file_bytes), false),
        ("files", number(cold.files), false),
        ("last_flush", Arc::new(last_flush) as ArrayRef, true),
    ])?;
    Ok(one_batch(session, batch, None))
}
