//! The scan of a table as a node of a plan: which of its rows are read, and by which of two ways.
//!
//! [`MergedBatches`] goes through both tiers in the order of keys, row by row: it can stop wherever it is told to, and sees
//! what a transaction has changed. [`TierBatches`] takes whole batches out of cold files as they are.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr, conjunction};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use kalamdb_store::{KeyRange, Manifest, ManifestFile};
use log_format::{DataType, Partition};

use crate::error::Result;
use crate::provider::access::Access;
use crate::provider::merged::MergedBatches;
use crate::provider::pruning::ColdQuery;
use crate::provider::reversed::ReversedBatches;
use crate::provider::tiers::TierBatches;
use crate::rows::{Shape, ShapeColumn};
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
    /// How many of the key's first columns conditions leave one value.
    pub(crate) fixed: usize,
    pub(crate) cold: ColdQuery,
    pub(crate) with_deleted: bool,
    pub(crate) limit: Option<usize>,
}

/// The cold files that a scan, or one of its partitions, reads.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Of which keys it has the rows, hot ones among them.
    pub(crate) range: KeyRange,
    pub(crate) manifest: Arc<Manifest>,
    /// Which of the manifest's, by position.
    pub(crate) chosen: Vec<usize>,
}

impl Files {
    /// Those that may have rows in a range which conditions let through.
    fn choose(manifest: Arc<Manifest>, range: &KeyRange, cold: &ColdQuery) -> Self {
        let is_chosen =
            |at: &usize| manifest.files.get(*at).is_some_and(|of| of.is_in(range, cold.scan().prune));
        let chosen: Vec<usize> = (0..manifest.files.len()).filter(is_chosen).collect();
        let pruned = manifest.files.len() - chosen.len();
        metrics::counter!("kalamdb_cold_files_pruned_total").increment(pruned as u64);
        Self { range: range.clone(), chosen, manifest }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &ManifestFile)> {
        self.chosen.iter().filter_map(|at| Some((*at, self.manifest.files.get(*at)?)))
    }

    fn rows(&self) -> u64 {
        self.each().map(|(_, of)| of.file.rows).sum()
    }

    /// As so many parts at the most, of about as many rows and of keys that the others do not have.
    fn split(&self, parts: usize) -> Vec<Self> {
        let enough = self.rows() / parts.max(1) as u64;
        let mut split = Vec::with_capacity(parts);
        let mut part = Self { chosen: Vec::new(), ..self.clone() };
        let (mut rows, mut greatest) = (0, None::<&Vec<u8>>);
        for (at, of) in self.each() {
            let is_apart = greatest.is_some_and(|greatest| *greatest < of.file.first_key);
            if rows >= enough && is_apart && split.len() + 1 < parts {
                let until = Some(of.file.first_key.clone());
                let next = KeyRange { from: until.clone(), until: part.range.until.clone() };
                part.range.until = until;
                let next = Self { range: next, chosen: Vec::new(), ..self.clone() };
                split.push(std::mem::replace(&mut part, next));
                rows = 0;
            }
            part.chosen.push(at);
            rows += of.file.rows;
            greatest = greatest.max(Some(&of.file.last_key));
        }
        split.push(part);
        split
    }
}

/// That rows come in the order of keys, for one who takes about so many.
#[derive(Clone, Copy, Debug)]
struct Ordered {
    descending: bool,
    fetch: usize,
}

/// A scan that is about to run.
#[derive(Debug)]
pub(crate) struct TableScan {
    asked: Arc<Asked>,
    ordered: Option<Ordered>,
    /// What is read of the cold tier; none where nothing can be there.
    files: Option<Files>,
    /// What each partition reads of both tiers; none: there is one, which goes by the order of keys.
    parts: Vec<Arc<Files>>,
    useful: Useful,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// Which rows those above have a use for: the others may be left out, but need not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Useful {
    /// What they still look for, which gets less while they run.
    pub(crate) still: Option<Arc<dyn PhysicalExpr>>,
    /// What they filter by. They do so again: it is worth it where rows are copied anyway.
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
}

/// What one run of a scan counts.
#[derive(Clone, Debug)]
pub(crate) struct ScanMetrics {
    baseline: BaselineMetrics,
    pub(crate) hot_rows: Count,
    pub(crate) files_read: Count,
    pub(crate) files_skipped: Count,
    pub(crate) rows_pruned: Count,
    pub(crate) rows_shadowed: Count,
}

impl ScanMetrics {
    /// Rows read of the hot tier. Where the tiers are read as one, which of them a row is from is not known: then nothing is said of hot rows.
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize, tells_hot: bool) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            baseline: BaselineMetrics::new(metrics, partition),
            hot_rows: if tells_hot { count("hot_rows") } else { Count::new() },
            files_read: count("files_read"),
            files_skipped: count("files_skipped"),
            rows_pruned: count("rows_pruned"),
            rows_shadowed: count("rows_shadowed"),
        }
    }
}

impl TableScan {
    /// With so many partitions at the most.
    pub(crate) fn new(asked: Asked, partitions: usize) -> Result<Self> {
        let files = match &asked.access {
            Access::Range(range) => {
                let manifest = asked.view.manifest(&asked.partition)?;
                manifest.map(|manifest| Files::choose(manifest, range, &asked.cold))
            }
            Access::Points(_) => None,
        };
        // Who wants the first few rows, or what a transaction has changed, goes by the order of keys.
        let is_merged = asked.limit.is_some() || asked.view.has_changes(&asked.partition);
        let parts = match &files {
            Some(files) if !is_merged => files.split(partitions).into_iter().map(Arc::new).collect(),
            _ => Vec::new(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(asked.shape.schema())),
            Partitioning::UnknownPartitioning(parts.len().max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            asked: Arc::new(asked),
            ordered: None,
            files,
            parts,
            useful: Useful::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Sets the filter that rows of cold files are checked with.
    pub(super) fn with_filter(self, filter: Option<Arc<dyn PhysicalExpr>>) -> Self {
        Self { useful: Useful { filter, still: None }, ..self }
    }

    /// The same rows in the order of these of its columns, by position, each downwards or not; none where keys have another
    /// order. Whoever asks takes about so many.
    pub(super) fn in_order(&self, order: &[(usize, bool)], fetch: usize) -> Option<Self> {
        let Asked { info, shape, fixed, access, .. } = self.asked.as_ref();
        let descending = order.first()?.1;
        let positions = order.iter().map(|(at, down)| match shape.columns().get(*at)? {
            ShapeColumn::Own(position) if *down == descending => Some(*position),
            _ => None,
        });
        let positions = positions.collect::<Option<Vec<usize>>>()?;
        // Columns that have one value do not count.
        let keys = info.key_columns();
        let is_key =
            (0..=*fixed).any(|skipped| keys.get(skipped..).is_some_and(|keys| keys.starts_with(&positions)));
        // Keys of floats order zeros and what is no number in a way of their own.
        let is_float = |at: &usize| {
            let data_type = info.columns().get(*at).map(|column| column.data_type);
            matches!(data_type, None | Some(DataType::Float | DataType::Double))
        };
        let is_range = matches!(access, Access::Range(_)) && info.stream().is_none();
        if !is_key || !is_range || positions.iter().any(is_float) || self.asked.limit.is_some() {
            return None;
        }
        let schema = shape.schema();
        let sorted = order.iter().map(|(at, _)| {
            let column = Column::new(schema.field(*at).name(), *at);
            PhysicalSortExpr::new(Arc::new(column), SortOptions { descending, nulls_first: descending })
        });
        let orderings = [sorted.collect::<Vec<_>>()];
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(Arc::clone(schema), orderings),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Some(Self {
            asked: Arc::clone(&self.asked),
            ordered: Some(Ordered { descending, fetch }),
            files: self.files.clone(),
            parts: Vec::new(),
            useful: Useful::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Whether it is known of each row that it is hot, or not: they are read tier by tier, or all of them are.
    fn tells_hot(&self) -> bool {
        let reads_tiers = self.ordered.is_none() && !self.parts.is_empty();
        let has_files = || !matches!(self.asked.view.manifest(&self.asked.partition), Ok(None));
        reads_tiers || self.files.is_none() && !has_files()
    }

    fn batches(
        &self,
        partition: usize,
        metrics: ScanMetrics,
    ) -> Option<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        let asked = Arc::clone(&self.asked);
        if let Some(Ordered { descending, fetch }) = self.ordered {
            return match &asked.access {
                Access::Range(range) if descending => {
                    let range = range.clone();
                    Some(Box::new(ReversedBatches::new(asked, range, fetch, metrics.hot_rows)))
                }
                _ => Some(Box::new(MergedBatches::new(asked, metrics.hot_rows).by_steps(fetch))),
            };
        }
        if self.parts.is_empty() {
            return (partition == 0).then(|| Box::new(MergedBatches::new(asked, metrics.hot_rows)) as _);
        }
        let part = Arc::clone(self.parts.get(partition)?);
        Some(Box::new(TierBatches::new(asked, part, self.useful.clone(), metrics)))
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
        if let Some(files) = &self.files {
            let superseded: usize = files.each().map(|(_, of)| of.superseded.len()).sum();
            let (read, all) = (files.chosen.len(), files.manifest.files.len());
            write!(f, ", files={read} of {all}, files_pruned={}", all - read)?;
            write!(f, ", cold_rows={}, rows_superseded={superseded}", files.rows())?;
        }
        if self.parts.len() > 1 {
            write!(f, ", partitions={}", self.parts.len())?;
        }
        if let Some(Ordered { descending, .. }) = self.ordered {
            write!(f, ", order=key{}", if descending { " downwards" } else { "" })?;
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

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> QueryResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        // Conditions that do not change while a plan runs are known since the scan was made.
        let filters = pushed.parent_filters.iter().map(|pushed| &pushed.filter);
        let told: Vec<_> = filters.filter(|it| it.is::<DynamicFilterPhysicalExpr>()).cloned().collect();
        if !matches!(phase, FilterPushdownPhase::Post) || self.parts.is_empty() || told.is_empty() {
            return Ok(FilterPushdownPropagation::if_all(pushed));
        }
        let useful = Useful { still: Some(conjunction(told)), ..self.useful.clone() };
        let scan = Self {
            asked: Arc::clone(&self.asked),
            ordered: self.ordered,
            files: self.files.clone(),
            parts: self.parts.clone(),
            useful,
            properties: Arc::clone(&self.properties),
            metrics: self.metrics.clone(),
        };
        let none = vec![PushedDown::No; pushed.parent_filters.len()];
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(none).with_updated_node(Arc::new(scan)))
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> QueryResult<SendableRecordBatchStream> {
        let metrics = ScanMetrics::new(&self.metrics, partition, self.tells_hot());
        let baseline = metrics.baseline.clone();
        let Some(mut batches) = self.batches(partition, metrics) else {
            return internal_err!("a scan of a table has no partition {partition}");
        };
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

#[cfg(test)]
mod tests {
    use kalamdb_store::ManifestFile;
    use log_format::{ColdFile, SchemaVersion, Seq};

    use super::*;

    fn file(first: u8, last: u8, rows: u64) -> ManifestFile {
        let file = ColdFile {
            id: u64::from(first),
            path: String::new(),
            rows,
            bytes: rows,
            crc32c: 0,
            schema_version: SchemaVersion::FIRST,
            first_seq: 0,
            last_seq: 0,
            first_key: vec![first],
            last_key: vec![last],
            first_updated: 0,
            last_updated: 0,
            bounds: Vec::new(),
        };
        ManifestFile { file, superseded: Vec::new() }
    }

    fn split(files: &[(u8, u8, u64)], range: &KeyRange, parts: usize) -> Vec<(KeyRange, Vec<usize>)> {
        let files = files.iter().map(|(first, last, rows)| file(*first, *last, *rows)).collect();
        let manifest = Arc::new(Manifest { flushed_at: Seq::ZERO, files });
        let split = Files::choose(manifest, range, &ColdQuery::default()).split(parts);
        split.into_iter().map(|part| (part.range, part.chosen)).collect()
    }

    fn range(from: Option<u8>, until: Option<u8>) -> KeyRange {
        KeyRange { from: from.map(|key| vec![key]), until: until.map(|key| vec![key]) }
    }

    #[test]
    fn parts_have_all_keys_between_them_and_no_key_twice() {
        let all = range(None, None);
        let apart = [(0, 9, 10), (10, 19, 10), (20, 29, 10), (30, 39, 10)];
        assert_eq!(split(&apart, &all, 1), [(range(None, None), vec![0, 1, 2, 3])]);
        assert_eq!(
            split(&apart, &all, 2),
            [(range(None, Some(20)), vec![0, 1]), (range(Some(20), None), vec![2, 3])]
        );
        assert_eq!(
            split(&apart, &range(Some(12), Some(35)), 3),
            [
                (range(Some(12), Some(20)), vec![1]),
                (range(Some(20), Some(30)), vec![2]),
                (range(Some(30), Some(35)), vec![3])
            ]
        );
        // Files that share keys stay together.
        assert_eq!(
            split(&[(0, 25, 10), (10, 19, 10), (20, 29, 10), (30, 39, 10)], &all, 4),
            [(range(None, Some(30)), vec![0, 1, 2]), (range(Some(30), None), vec![3])]
        );
        assert_eq!(split(&[(0, 99, 10), (10, 19, 10)], &all, 2), [(range(None, None), vec![0, 1])]);
        assert_eq!(split(&apart, &range(Some(50), None), 2), [(range(Some(50), None), vec![])]);
    }
}
