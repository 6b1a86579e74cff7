//! The scan of a table as a node of a plan: which of its rows are read, and by which of two ways.
//!
//! [`MergedBatches`] goes through both tiers in the order of keys, row by row: it can stop wherever it is told to, and sees
//! what a transaction has changed. [`TierBatches`] takes whole batches out of cold files as they are.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use kalamdb_store::{KeyRange, Manifest};
use log_format::Partition;

use crate::error::Result;
use crate::provider::access::Access;
use crate::provider::merged::MergedBatches;
use crate::provider::pruning::ColdQuery;
use crate::provider::tiers::TierBatches;
use crate::rows::Shape;
use crate::table::TableInfo;
use crate::view::View;

/// What is asked of a table.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) view: View,
    pub(crate) info: Arc<TableInfo>,
    pub(crate) partition: Partition,
    pub(crate) shape: Shape,
    pub(crate) access: Access,
    pub(crate) cold: ColdQuery,
    pub(crate) with_deleted: bool,
    pub(crate) limit: Option<usize>,
}

/// The cold files that a scan reads.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) range: KeyRange,
    pub(crate) manifest: Arc<Manifest>,
    /// Which of the manifest's, by position.
    pub(crate) chosen: Vec<usize>,
}

/// A scan that is about to run.
#[derive(Debug)]
pub(crate) struct TableScan {
    asked: Arc<Asked>,
    /// What is read of the cold tier; none where nothing can be there.
    files: Option<Arc<Files>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What one run of a scan counts.
#[derive(Clone, Debug)]
pub(crate) struct ScanMetrics {
    baseline: BaselineMetrics,
    pub(crate) hot_rows: Count,
    pub(crate) files_read: Count,
    pub(crate) rows_pruned: Count,
    pub(crate) rows_shadowed: Count,
}

impl ScanMetrics {
    fn new(metrics: &ExecutionPlanMetricsSet) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, 0);
        Self {
            baseline: BaselineMetrics::new(metrics, 0),
            hot_rows: count("hot_rows"),
            files_read: count("files_read"),
            rows_pruned: count("rows_pruned"),
            rows_shadowed: count("rows_shadowed"),
        }
    }
}

impl TableScan {
    pub(crate) fn new(asked: Asked) -> Result<Self> {
        let files = match &asked.access {
            Access::Range(range) => asked.view.manifest(&asked.partition)?.map(|manifest| {
                let is_chosen = |at: &usize| {
                    manifest.files.get(*at).is_some_and(|of| of.is_in(range, asked.cold.scan().prune))
                };
                let chosen = (0..manifest.files.len()).filter(is_chosen).collect();
                Arc::new(Files { range: range.clone(), chosen, manifest })
            }),
            Access::Points(_) => None,
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(asked.shape.schema())),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            asked: Arc::new(asked),
            files,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    fn batches(&self, metrics: ScanMetrics) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        let asked = Arc::clone(&self.asked);
        // Who wants the first few rows, or what a transaction has changed, goes by the order of keys.
        let is_merged = asked.limit.is_some() || asked.view.has_changes(&asked.partition);
        match &self.files {
            Some(files) if !is_merged => Box::new(TierBatches::new(asked, Arc::clone(files), metrics)),
            _ => Box::new(MergedBatches::new(asked)),
        }
    }
}

impl DisplayAs for TableScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableScan: {}", self.asked.info.full_name())?;
        match &self.asked.access {
            Access::Points(points) => write!(f, ", keys={}", points.len())?,
            Access::Range(range) if *range == KeyRange::default() => f.write_str(", keys=all")?,
            Access::Range(_) => f.write_str(", keys=a range")?,
        }
        if let Some(Files { manifest, chosen, .. }) = self.files.as_deref() {
            let of = |at: &usize| manifest.files.get(*at);
            let rows: u64 = chosen.iter().filter_map(of).map(|of| of.file.rows).sum();
            let superseded: usize = chosen.iter().filter_map(of).map(|of| of.superseded.len()).sum();
            let (read, all) = (chosen.len(), manifest.files.len());
            write!(f, ", files={read} of {all}, files_pruned={}, cold_rows={rows}", all - read)?;
            write!(f, ", rows_superseded={superseded}")?;
        }
        match self.asked.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for TableScan {
    fn name(&self) -> &'static str {
        "TableScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> QueryResult<TreeNodeRecursion>,
    ) -> QueryResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> QueryResult<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a scan of a table has one partition");
        }
        let metrics = ScanMetrics::new(&self.metrics);
        let baseline = metrics.baseline.clone();
        let mut batches = self.batches(metrics);
        let next = move || {
            let timer = baseline.elapsed_compute().timer();
            let batch = batches.next();
            drop(timer);
            if let Some(Ok(batch)) = &batch {
                baseline.record_output(batch.num_rows());
            }
            batch.map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error))))
        };
        let stream = futures_util::stream::iter(std::iter::from_fn(next));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.asked.shape.schema()), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
