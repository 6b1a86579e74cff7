//! A table of one session, at one cut, as `DataFusion` plans over it: keys, columns, conditions and limits go into the scan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as QuerySession, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::ExecutionPlan;
use kalamdb_store::{KeyRange, stream_key};
use log_format::Seq;

use crate::clock;
use crate::error::Result;
use crate::provider::Scope;
use crate::provider::access::Access;
use crate::provider::pruning::ColdQuery;
use crate::provider::scan::{Asked, TableScan};
use crate::rows::Shape;
use crate::table::TableInfo;

/// A table of one session, at one cut.
#[derive(Debug)]
pub(crate) struct StoredTable {
    scope: Arc<Scope>,
    info: Arc<TableInfo>,
    shape: Shape,
}

impl StoredTable {
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

    fn access(&self, filters: &[Expr]) -> (Access, usize) {
        if let Some(stream) = self.info.stream() {
            // Rows past their time are gone, whether or not they have been evicted yet.
            let from = stream.ttl_ms.and_then(|ttl| i64::try_from(ttl).ok()).map(|ttl| {
                let oldest = clock::now_micros().saturating_sub(ttl.saturating_mul(1000));
                stream_key(oldest, Seq::ZERO).to_vec()
            });
            return (Access::Range(KeyRange { from, until: None }), 0);
        }
        Access::of_filters(&self.info, filters)
    }

    fn plan(
        &self,
        shape: Shape,
        filters: &[Expr],
        limit: Option<usize>,
        partitions: usize,
    ) -> Result<TableScan> {
        let (access, fixed) = self.access(filters);
        let asked = Asked {
            view: self.scope.view.clone(),
            partition: self.scope.session.partition(&self.info),
            access,
            fixed,
            cold: ColdQuery::new(&self.info, &shape, filters),
            info: Arc::clone(&self.info),
            with_deleted: self.scope.with_deleted,
            limit,
            shape,
        };
        TableScan::new(asked, partitions)
    }

    /// Rows that it has in cold files, as far as the manifest tells.
    pub(crate) fn cold_rows(&self) -> Result<u64> {
        let manifest = self.scope.view.manifest(&self.scope.session.partition(&self.info))?;
        Ok(manifest.map_or(0, |manifest| manifest.files.iter().map(|of| of.file.rows).sum()))
    }
}

#[async_trait]
impl TableProvider for StoredTable {
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
        state: &dyn QuerySession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let shape = self.shape.of_scan(projection)?;
        let of_rows = physical_filter(state, &shape, filters)?;
        let plan = self.plan(shape, filters, limit, state.config().target_partitions());
        let plan = plan.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Arc::new(plan.with_filter(of_rows)))
    }
}

/// The conditions as they are evaluated on the rows of a scan, as far as they can be.
///
/// `DataFusion` would hand them down plan by plan as well, but finds their columns by name on the way (as of 55.0.0): of two columns of
/// one name that a join has, it takes the first for both.
fn physical_filter(
    state: &dyn QuerySession,
    shape: &Shape,
    filters: &[Expr],
) -> QueryResult<Option<Arc<dyn PhysicalExpr>>> {
    let schema = DFSchema::try_from(Arc::clone(shape.schema()))?;
    let filters =
        filters.iter().filter_map(|filter| state.create_physical_expr(filter.clone(), &schema).ok());
    let filters: Vec<_> = filters.collect();
    Ok((!filters.is_empty()).then(|| conjunction(filters)))
}
