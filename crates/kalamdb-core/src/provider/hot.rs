//! One table's rows in both tiers: pushdown of keys, columns and limits into the scan.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as QuerySession, TableProvider};
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use kalamdb_store::{KeyRange, StoredRow, stream_key};
use log_format::{Column, KeyBuilder, Partition, Seq};

use crate::clock;
use crate::error::Result;
use crate::live::{column_equals, lossless};
use crate::provider::Scope;
use crate::provider::pruning::ColdQuery;
use crate::rows::{BatchBuilder, RowHead, Shape};
use crate::table::TableInfo;
use crate::values;
use crate::view::View;

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;
/// Batches that one scan fills at the most, …
const BATCHES_MAX: usize = 32;
/// … and bytes of rows.
const BYTES_MAX: usize = 32 << 20;
/// Rows that a range is expected to have; columns grow beyond.
const ROWS_EXPECTED: usize = 256;
/// Keys that are looked up one by one at the most; more are scanned for.
const POINTS_MAX: usize = 1024;

/// A table of one session, at one cut.
#[derive(Debug)]
pub(crate) struct HotTable {
    scope: Arc<Scope>,
    info: Arc<TableInfo>,
    shape: Shape,
}

impl HotTable {
    pub(crate) fn new(scope: Arc<Scope>, info: Arc<TableInfo>) -> Self {
        let of_table = info.system_columns();
        let system: Vec<_> =
            scope.system_columns.iter().copied().filter(|column| of_table.contains(column)).collect();
        let shape = Shape::of_table(&info, &system);
        Self { scope, info, shape }
    }

    pub(crate) const fn info(&self) -> &Arc<TableInfo> {
        &self.info
    }

    fn access(&self, filters: &[Expr]) -> Access {
        if let Some(stream) = self.info.stream() {
            // Rows past their time are gone, whether or not they have been evicted yet.
            let from = stream.ttl_ms.and_then(|ttl| i64::try_from(ttl).ok()).map(|ttl| {
                let oldest = clock::now_micros().saturating_sub(ttl.saturating_mul(1000));
                stream_key(oldest, Seq::ZERO).to_vec()
            });
            return Access::Range(KeyRange { from, until: None });
        }
        Access::of_filters(&self.info, filters)
    }
}

#[async_trait]
impl TableProvider for HotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.shape.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> QueryResult<Vec<TableProviderFilterPushDown>> {
        // Keys narrow the scan; the filter above still decides.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn QuerySession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let shape = self.shape.of_scan(projection)?;
        let schema = Arc::clone(shape.schema());
        let scan = HotScan {
            view: self.scope.view.clone(),
            partition: self.scope.session.partition(&self.info),
            info: Arc::clone(&self.info),
            access: self.access(filters),
            cold: ColdQuery::new(&self.info, &shape, filters),
            with_deleted: self.scope.with_deleted,
            limit,
            shape,
        };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, limit)?))
    }
}

/// Which keys a scan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// These, one by one, in order.
    Points(Vec<Vec<u8>>),
    /// Those in a range.
    Range(KeyRange),
}

impl Access {
    /// Rows that it may find.
    const fn expected(&self) -> usize {
        match self {
            Self::Points(points) => points.len(),
            Self::Range(_) => ROWS_EXPECTED,
        }
    }

    /// The end of its range.
    fn until(&self) -> Option<Vec<u8>> {
        match self {
            Self::Points(_) => None,
            Self::Range(range) => range.until.clone(),
        }
    }

    /// The narrowest access that these conditions, which must all hold, allow.
    pub(crate) fn of_filters(info: &TableInfo, filters: &[Expr]) -> Self {
        let mut prefix = KeyBuilder::new();
        let keys: Vec<&Column> = info.key_columns().iter().filter_map(|at| info.columns().get(*at)).collect();
        let conditions: Vec<&Expr> =
            filters.iter().flat_map(datafusion::logical_expr::utils::split_conjunction).collect();
        let mut equal = 0;
        for column in &keys {
            let value = conditions.iter().find_map(|condition| {
                let (name, literal) = column_equals(condition)?;
                let value = values::from_scalar(literal, column.data_type).ok()?;
                (name == column.name && lossless(literal, &value)).then_some(value)
            });
            match value {
                Some(value) if prefix.push(&value).is_ok() => equal += 1,
                _ => break,
            }
        }
        let prefix = prefix.finish();
        if equal == keys.len() {
            return Self::Points(vec![prefix]);
        }
        if let (0, [column]) = (equal, keys.as_slice())
            && let Some(points) = conditions.iter().find_map(|condition| in_list(column, condition))
        {
            return Self::Points(points);
        }
        let mut range = if equal > 0 { KeyRange::with_prefix(&prefix) } else { KeyRange::default() };
        if let Some(column) = keys.get(equal) {
            for condition in conditions {
                narrow(&mut range, &prefix, column, condition);
            }
        }
        Self::Range(range)
    }
}

/// The keys of `column IN (constants)`.
fn in_list(column: &Column, condition: &Expr) -> Option<Vec<Vec<u8>>> {
    let Expr::InList(InList { expr, list, negated: false }) = condition else { return None };
    let Expr::Column(found) = expr.as_ref() else { return None };
    if found.name != column.name || list.len() > POINTS_MAX {
        return None;
    }
    let mut points = list
        .iter()
        .map(|item| {
            let Expr::Literal(literal, _) = item else { return None };
            let value = values::from_scalar(literal, column.data_type).ok()?;
            let mut key = KeyBuilder::new();
            (lossless(literal, &value) && key.push(&value).is_ok()).then(|| key.finish())
        })
        .collect::<Option<Vec<_>>>()?;
    points.sort_unstable();
    points.dedup();
    Some(points)
}

/// Takes in a comparison of the key's next column with a constant.
fn narrow(range: &mut KeyRange, prefix: &[u8], column: &Column, condition: &Expr) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return };
    let (name, op, literal) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(found), Expr::Literal(literal, _)) => (&found.name, Some(*op), literal),
        (Expr::Literal(literal, _), Expr::Column(found)) => (&found.name, op.swap(), literal),
        _ => return,
    };
    if *name != column.name {
        return;
    }
    let Ok(value) = values::from_scalar(literal, column.data_type) else { return };
    let mut key = KeyBuilder::new();
    if !lossless(literal, &value) || key.push(&value).is_err() {
        return;
    }
    let exact = KeyRange::with_prefix(&[prefix, &key.finish()].concat());
    let raise = |bound: &mut Option<Vec<u8>>, to: Option<Vec<u8>>| {
        if to.is_some() && (bound.is_none() || *bound < to) {
            *bound = to;
        }
    };
    let lower = |bound: &mut Option<Vec<u8>>, to: Option<Vec<u8>>| {
        if to.is_some() && (bound.is_none() || *bound > to) {
            *bound = to;
        }
    };
    match op {
        Some(Operator::Gt) => raise(&mut range.from, exact.until),
        Some(Operator::GtEq) => raise(&mut range.from, exact.from),
        Some(Operator::Lt) => lower(&mut range.until, exact.from),
        Some(Operator::LtEq) => lower(&mut range.until, exact.until),
        _ => {}
    }
}

/// A scan that is about to run.
#[derive(Debug)]
struct HotScan {
    view: View,
    info: Arc<TableInfo>,
    partition: Partition,
    shape: Shape,
    access: Access,
    cold: ColdQuery,
    with_deleted: bool,
    limit: Option<usize>,
}

impl PartitionStream for HotScan {
    fn schema(&self) -> &SchemaRef {
        self.shape.schema()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = HotBatches {
            view: self.view.clone(),
            info: Arc::clone(&self.info),
            partition: self.partition.clone(),
            shape: self.shape.clone(),
            with_deleted: self.with_deleted,
            cold: self.cold.clone(),
            next: Some(self.access.clone()),
            room: self.limit.unwrap_or(usize::MAX),
            ready: VecDeque::new(),
        };
        let stream = futures_util::stream::iter(
            batches.map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error)))),
        );
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.shape.schema()), stream))
    }
}

/// The batches of a scan, a few read at a time when one is asked for.
///
/// IMPORTANT: not one by one. A scan that is taken up again passes over what it finds deleted once more, and where rows have just
/// been flushed that is all of them.
struct HotBatches {
    view: View,
    info: Arc<TableInfo>,
    partition: Partition,
    shape: Shape,
    with_deleted: bool,
    cold: ColdQuery,
    next: Option<Access>,
    /// Rows that may still come.
    room: usize,
    ready: VecDeque<RecordBatch>,
}

impl Iterator for HotBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.ready.pop_front() {
            return Some(Ok(batch));
        }
        if self.room == 0 {
            return None;
        }
        let access = self.next.take()?;
        if let Err(error) = self.read(access) {
            self.next = None;
            self.ready.clear();
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}

impl HotBatches {
    fn read(&mut self, access: Access) -> Result<()> {
        let (keyspace, until) = (self.info.keyspace(), access.until());
        let mut reading = Reading::new(&self.info, &self.shape, self.room, access.expected());
        let with_deleted = self.with_deleted;
        let mut add = |row: StoredRow<'_>| -> Result<bool> {
            if !row.deleted || with_deleted {
                let head = RowHead { seq: row.seq, updated: row.updated, deleted: row.deleted };
                reading.push(head, row.row)?;
            }
            Ok(!reading.is_full())
        };
        match access {
            Access::Points(points) => {
                for key in points {
                    self.view.get(keyspace, &self.partition, &key, &mut add)?.transpose()?;
                }
            }
            Access::Range(range) => {
                let mut failure = None;
                let scan = self.cold.scan();
                let scanned =
                    self.view.scan(keyspace, &self.partition, &range, scan, |_, row| match add(row) {
                        Ok(true) => ControlFlow::Continue(()),
                        Ok(false) => ControlFlow::Break(()),
                        Err(error) => {
                            failure = Some(error);
                            ControlFlow::Break(())
                        }
                    })?;
                if let Some(error) = failure {
                    return Err(error);
                }
                self.next = scanned.rest(until).map(Access::Range);
            }
        }
        let (batches, rows) = reading.finish()?;
        self.room -= rows.min(self.room);
        self.ready = batches;
        Ok(())
    }
}

/// Batches that are being filled.
struct Reading<'t> {
    info: &'t TableInfo,
    shape: &'t Shape,
    builder: BatchBuilder<'t>,
    batches: VecDeque<RecordBatch>,
    rows: usize,
    rows_max: usize,
    bytes: usize,
}

impl<'t> Reading<'t> {
    fn new(info: &'t TableInfo, shape: &'t Shape, room: usize, expected: usize) -> Self {
        let rows_max = room.min(BATCH_ROWS * BATCHES_MAX);
        let builder = BatchBuilder::new(info, shape, expected.min(rows_max).min(BATCH_ROWS));
        Self { info, shape, builder, batches: VecDeque::new(), rows: 0, rows_max, bytes: 0 }
    }

    fn push(&mut self, head: RowHead, row: &[u8]) -> Result<()> {
        if self.builder.rows() == BATCH_ROWS {
            let next = BatchBuilder::new(self.info, self.shape, BATCH_ROWS);
            self.batches.push_back(std::mem::replace(&mut self.builder, next).finish()?);
        }
        self.rows += 1;
        self.bytes += row.len();
        self.builder.push(head, row)
    }

    const fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.bytes >= BYTES_MAX
    }

    fn finish(mut self) -> Result<(VecDeque<RecordBatch>, usize)> {
        // One at least: it says that nothing was found.
        self.batches.push_back(self.builder.finish()?);
        Ok((self.batches, self.rows))
    }
}
