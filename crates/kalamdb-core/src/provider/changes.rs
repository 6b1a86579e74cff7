//! `system.changes` read by a SELECT: the log's files, from the first seq that can match to the last.
//!
//! Conditions on `seq` bound what is read, a LIMIT ends it; whatever else is asked is the filter's above. It reads up to the
//! statement's cut, so it shows what the tables of the same statement show.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as QuerySession, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use kalamdb_log::{Error as LogError, LogReader};
use log_format::{NamespaceId, PartitionHash, Seq};

use crate::changes::{ChangeRows, Sight};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::provider::Scope;
use crate::rows::{BatchBuilder, RowHead, Shape};
use crate::sql::require_read;
use crate::table::{SystemColumn, TableInfo};

/// Rows of one batch, about.
const BATCH_ROWS: usize = 1024;
/// Bytes of events in one batch, about.
const BATCH_BYTES: usize = 4 << 20;

/// The log as a table, for one statement.
#[derive(Debug)]
pub(crate) struct ChangesTable {
    scope: Arc<Scope>,
    info: Arc<TableInfo>,
    shape: Shape,
    sight: Arc<Sight>,
    range: SeqRange,
}

impl ChangesTable {
    /// `system.changes`: whatever the session may see.
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        let sight = Sight::of_session(&scope.session, Arc::clone(scope.engine.catalog()));
        Self::with(scope, sight, SeqRange { first: 0, last: u64::MAX })
    }

    fn with(scope: Arc<Scope>, sight: Sight, range: SeqRange) -> Self {
        let info = Arc::clone(scope.engine.catalog().changes());
        let with_seq = scope.system_columns.contains(&SystemColumn::Seq);
        let shape = Shape::of_table(&info, if with_seq { info.system_columns() } else { &[] });
        Self { scope, info, shape, sight: Arc::new(sight), range }
    }
}

/// `changes('namespace.table', from_seq [, to_seq])`: what a session may see of one table's changes, both seqs included.
#[derive(Debug)]
pub(crate) struct ChangesFunction {
    scope: Arc<Scope>,
}

impl ChangesFunction {
    pub(crate) const NAME: &str = "changes";

    pub(crate) const fn new(scope: Arc<Scope>) -> Self {
        Self { scope }
    }

    fn table(&self, arguments: &[Expr]) -> Result<ChangesTable> {
        let wrong = || {
            Error::definition(
                "changes takes constants: changes('namespace.table', from_seq [, to_seq])".to_owned(),
            )
        };
        let (name, from, to) = match arguments {
            [name, from] => (name, from, None),
            [name, from, to] => (name, from, Some(to)),
            _ => return Err(wrong()),
        };
        let Expr::Literal(name, _) = name else { return Err(wrong()) };
        let name = name.try_as_str().flatten().ok_or_else(wrong)?;
        let seq = |argument: &Expr| match argument {
            Expr::Literal(ScalarValue::Int64(Some(seq)), _) => Ok(u64::try_from(*seq).unwrap_or(0)),
            _ => Err(wrong()),
        };
        let range = SeqRange { first: seq(from)?, last: to.map_or(Ok(u64::MAX), seq)? };
        let session = &self.scope.session;
        let (namespace, name) = match name.split_once('.') {
            Some((namespace, name)) => (NamespaceId::new(namespace), name),
            None => (session.namespace().clone(), name),
        };
        let catalog = Arc::clone(self.scope.engine.catalog());
        let info = catalog.table(&namespace, name)?;
        require_read(session, &info)?;
        let sight = Sight::of_table(session, catalog, &info);
        Ok(ChangesTable::with(Arc::clone(&self.scope), sight, range))
    }
}

impl TableFunctionImpl for ChangesFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> QueryResult<Arc<dyn TableProvider>> {
        let table = self.table(args.exprs());
        Ok(Arc::new(table.map_err(|error| DataFusionError::External(Box::new(error)))?))
    }
}

#[async_trait]
impl TableProvider for ChangesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.shape.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> QueryResult<Vec<TableProviderFilterPushDown>> {
        // Seqs narrow what is read; the filter above still decides.
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
        let scan = ChangesScan {
            engine: self.scope.engine.clone(),
            info: Arc::clone(&self.info),
            shape,
            range: SeqRange::of_filters(filters, self.scope.cut_seq()).within(self.range),
            sight: Arc::clone(&self.sight),
            room: limit.unwrap_or(usize::MAX),
        };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, limit)?))
    }
}

/// The seqs a statement asks for, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeqRange {
    first: u64,
    last: u64,
}

impl SeqRange {
    /// The narrowest range that these conditions, which must all hold, allow.
    fn of_filters(filters: &[Expr], end: Seq) -> Self {
        let mut range = Self { first: 0, last: end.get() };
        for condition in filters.iter().flat_map(split_conjunction) {
            range.narrow(condition);
        }
        range
    }

    fn within(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    fn narrow(&mut self, condition: &Expr) {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return };
        let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(literal, _)) => (column, Some(*op), literal),
            (Expr::Literal(literal, _), Expr::Column(column)) => (column, op.swap(), literal),
            _ => return,
        };
        let ScalarValue::Int64(Some(number)) = literal else { return };
        if column.name != "seq" && column.name != SystemColumn::Seq.name() {
            return;
        }
        // Below zero there is nothing: 0 stands for it, as the first seq is 1.
        let number = u64::try_from(*number).unwrap_or(0);
        match op {
            Some(Operator::Eq) => {
                self.first = self.first.max(number);
                self.last = self.last.min(number);
            }
            Some(Operator::Gt) => self.first = self.first.max(number.saturating_add(1)),
            Some(Operator::GtEq) => self.first = self.first.max(number),
            Some(Operator::Lt) => self.last = self.last.min(number.saturating_sub(1)),
            Some(Operator::LtEq) => self.last = self.last.min(number),
            _ => {}
        }
    }
}

/// A scan that is about to run.
struct ChangesScan {
    engine: Engine,
    info: Arc<TableInfo>,
    shape: Shape,
    range: SeqRange,
    sight: Arc<Sight>,
    room: usize,
}

impl std::fmt::Debug for ChangesScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangesScan")
            .field("range", &self.range)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for ChangesScan {
    fn schema(&self) -> &SchemaRef {
        self.shape.schema()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let router = self.engine.router();
        let batches = ChangesBatches {
            rows: router.change_rows(),
            reader: router.log_reader(),
            sight: Arc::clone(&self.sight),
            info: Arc::clone(&self.info),
            shape: self.shape.clone(),
            range: self.range,
            room: self.room,
            is_at_place: false,
        };
        let stream = futures_util::stream::iter(
            batches.map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error)))),
        );
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.shape.schema()), stream))
    }
}

/// The batches of a scan, each read when it is asked for.
struct ChangesBatches {
    rows: ChangeRows,
    reader: LogReader,
    sight: Arc<Sight>,
    info: Arc<TableInfo>,
    shape: Shape,
    /// What is still to be read.
    range: SeqRange,
    /// Rows that may still come.
    room: usize,
    is_at_place: bool,
}

impl Iterator for ChangesBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.room == 0 || self.range.first > self.range.last {
            return None;
        }
        let batch = self.read();
        if batch.is_err() {
            self.room = 0;
        }
        Some(batch)
    }
}

impl ChangesBatches {
    fn read(&mut self) -> Result<RecordBatch> {
        if !std::mem::replace(&mut self.is_at_place, true) {
            self.go_to_first()?;
        }
        let (info, sight) = (Arc::clone(&self.info), Arc::clone(&self.sight));
        let mut builder = BatchBuilder::new(&info, &self.shape, BATCH_ROWS.min(self.room));
        let mut bytes = 0;
        while builder.rows() < BATCH_ROWS && bytes < BATCH_BYTES && self.range.first <= self.range.last {
            let Some(commit) = self.reader.next()? else {
                self.range.last = 0;
                self.range.first = 1;
                break;
            };
            bytes += commit.as_bytes().len();
            let after = Seq::new(self.range.first).previous();
            for (seq, row) in
                self.rows.of_commit_seen(&commit, after, |event| sight.sees(event))?.unwrap_or_default()
            {
                if seq.get() <= self.range.last && self.room > 0 {
                    let updated = commit.header().fields.commit_time;
                    builder.push(RowHead { seq, updated, deleted: false }, &row)?;
                    self.room -= 1;
                }
            }
            self.range.first = commit.last_seq().next().get();
            if self.room == 0 {
                break;
            }
        }
        builder.finish()
    }

    /// Where retention has taken what was asked for, what is left is shown.
    fn go_to_first(&mut self) -> Result<()> {
        if let Some(partition) = self.sight.partition() {
            // The catalog's events tell names.
            self.reader.only([PartitionHash::of(partition), PartitionHash::CATALOG]);
        }
        let first = Seq::new(self.range.first.max(1));
        match self.reader.seek_from(first) {
            Err(LogError::BelowFloor { floor }) => Ok(self.reader.seek_from(floor)?),
            sought => sought.map_err(Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    #[test]
    fn conditions_on_the_seq_bound_what_is_read() {
        let cases = [
            (vec![], (0, 100)),
            (vec![col("seq").gt(lit(5_i64))], (6, 100)),
            (vec![col("seq").gt_eq(lit(5_i64)).and(col("_seq").lt(lit(9_i64)))], (5, 8)),
            (vec![lit(7_i64).lt_eq(col("seq")), col("seq").lt_eq(lit(8_i64))], (7, 8)),
            (vec![col("seq").eq(lit(42_i64))], (42, 42)),
            (vec![col("seq").lt(lit(-3_i64))], (0, 0)),
            (vec![col("op").eq(lit("insert")), col("seq").not_eq(lit(5_i64))], (0, 100)),
            (vec![col("seq").gt(lit(5_i64)).or(col("op").eq(lit("x")))], (0, 100)),
            (vec![col("seq").gt(lit(500_i64))], (501, 100)),
        ];
        for (filters, (first, last)) in cases {
            assert_eq!(
                SeqRange::of_filters(&filters, Seq::new(100)),
                SeqRange { first, last },
                "{filters:?}"
            );
        }
    }
}
