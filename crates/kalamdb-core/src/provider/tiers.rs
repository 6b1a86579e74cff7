//! The rows of both tiers without an order: the hot ones first, which say what is hidden of the cold ones, then whole batches
//! of cold files.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{and, filter_record_batch, prep_null_mask_filter};
use datafusion::physical_expr::PhysicalExpr;
use kalamdb_store::{FileBatches, FileScan, FirstError, Hidden, KeyRange, OpenFile};

use crate::error::{Error, Result};
use crate::provider::merged::Reading;
use crate::provider::pruning::StillWanted;
use crate::provider::scan::{Asked, Files, ScanMetrics, Useful};
use crate::rows::{RowHead, ShapeColumn, constant_column};
use crate::table::TableInfo;
use crate::widening::column_of_now;

/// Rows that a step through the hot tier is expected to find.
const ROWS_EXPECTED: usize = 256;

/// The batches of a scan.
pub(super) struct TierBatches {
    asked: Arc<Asked>,
    files: Arc<Files>,
    metrics: ScanMetrics,
    useful: Useful,
    /// The names of the system's columns that are asked for.
    system: Vec<&'static str>,
    hidden: Hidden,
    /// The files that were not read yet, and whether those with most of what there is a use for come first.
    left: VecDeque<usize>,
    is_sorted: bool,
    stage: Stage,
    ready: VecDeque<RecordBatch>,
}

enum Stage {
    /// Through the hot tier, from here on.
    Hot(KeyRange),
    /// To the next of the files.
    Next,
    /// Within one of them.
    Within(Box<FileColumns>),
    Done,
}

impl TierBatches {
    pub(super) fn new(asked: Arc<Asked>, files: Arc<Files>, useful: Useful, metrics: ScanMetrics) -> Self {
        let system = asked.shape.columns().iter().filter_map(|column| match column {
            ShapeColumn::System(system) => Some(system.name()),
            ShapeColumn::Own(_) => None,
        });
        Self {
            system: system.collect(),
            hidden: Hidden::new(&files.manifest, &files.chosen),
            left: files.chosen.iter().copied().collect(),
            is_sorted: false,
            stage: Stage::Hot(files.range.clone()),
            ready: VecDeque::new(),
            useful,
            asked,
            files,
            metrics,
        }
    }

    /// Goes on until there is something to give, or nothing any more.
    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Hot(range) => self.read_hot(range)?,
                Stage::Next => match self.next_file() {
                    Some(file) => Stage::Within(Box::new(self.open(file)?)),
                    None => return Ok(None),
                },
                Stage::Within(mut file) => match file.next(&self.asked, &self.useful)? {
                    Some(batch) => {
                        self.ready.extend(Some(batch).filter(|batch| batch.num_rows() > 0));
                        Stage::Within(file)
                    }
                    None => {
                        self.metrics.rows_shadowed.add(file.batches.shadowed());
                        Stage::Next
                    }
                },
                Stage::Done => return Ok(None),
            };
        }
    }

    /// The next file that has what there is still a use for. Once it is known what that is, those come first that have most of it:
    /// the others are then seldom read at all.
    fn next_file(&mut self) -> Option<usize> {
        let Some(still) = &self.useful.still else { return self.left.pop_front() };
        let wanted = StillWanted::now(&self.asked.info, &self.asked.shape, still);
        let manifest = &self.files.manifest;
        if !self.is_sorted {
            self.is_sorted = wanted.sort(self.left.make_contiguous(), manifest);
        }
        while let Some(file) = self.left.pop_front() {
            if !manifest.files.get(file).is_some_and(|of| wanted.excludes(&of.file)) {
                return Some(file);
            }
            self.metrics.files_skipped.add(1);
        }
        None
    }

    /// Reads the next hot rows of a range, and takes down what they hide.
    fn read_hot(&mut self, range: KeyRange) -> Result<Stage> {
        let Asked { view, info, partition, shape, with_deleted, .. } = self.asked.as_ref();
        let mut reading = Reading::new(info, shape, usize::MAX, ROWS_EXPECTED);
        let mut failure = FirstError::none();
        let cut = view.cut();
        let hidden = &mut self.hidden;
        let scanned = cut.scan_hot(info.keyspace(), partition, &range, |key, row| {
            let mut take = || -> Result<ControlFlow<()>> {
                hidden.hide(cut, key)?;
                if !row.deleted || *with_deleted {
                    let head = RowHead { seq: row.seq, updated: row.updated, deleted: row.deleted };
                    reading.push(head, row.row)?;
                }
                Ok(reading.flow())
            };
            failure.or_stop(take())
        })?;
        failure.check()?;
        let (batches, rows) = reading.finish()?;
        self.metrics.hot_rows.add(rows);
        self.ready.extend(batches.into_iter().filter(|batch| batch.num_rows() > 0));
        Ok(scanned.rest(range.until).map_or(Stage::Next, Stage::Hot))
    }

    fn open(&self, file: usize) -> Result<FileColumns> {
        let Asked { view, info, shape, cold, with_deleted, .. } = self.asked.as_ref();
        let scan = FileScan {
            range: &self.files.range,
            cold: cold.scan(),
            system: &self.system,
            with_deleted: *with_deleted,
        };
        let batches = view.cut().file_batches(&self.hidden, file, scan)?;
        self.metrics.files_read.add(1);
        metrics::counter!("kalamdb_cold_files_scanned_total").increment(1);
        self.metrics.rows_pruned.add(batches.passed_over());
        let columns = shape.columns().iter().map(|column| Source::of(info, batches.file(), *column));
        Ok(FileColumns { columns: columns.collect::<Result<_>>()?, batches })
    }
}

impl Iterator for TierBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// What a condition says of each row; none: it cannot be told, as where it fails for a row that does not count.
fn rows_of(condition: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Option<BooleanArray> {
    let mask = condition.evaluate(batch).ok()?.into_array(batch.num_rows()).ok()?;
    mask.as_boolean_opt().cloned()
}

/// What two masks let through; one that is not there lets through all.
fn both(left: Option<BooleanArray>, right: Option<BooleanArray>) -> Result<Option<BooleanArray>> {
    Ok(match (left, right) {
        (Some(left), Some(right)) => Some(and(&left, &right)?),
        (left, right) => left.or(right),
    })
}

/// The rows of one file, and how they become rows of now.
struct FileColumns {
    batches: FileBatches,
    columns: Vec<Source>,
}

/// Where a column of a batch comes from.
enum Source {
    /// A column that the system fills, of this name.
    System(&'static str),
    /// This column of the file, the table's column at the position now.
    File(usize, usize),
    /// The file is older than the table's column at this position.
    Missing(usize),
}

impl Source {
    fn of(info: &TableInfo, file: &OpenFile, column: ShapeColumn) -> Result<Self> {
        let position = match column {
            ShapeColumn::System(system) => return Ok(Self::System(system.name())),
            ShapeColumn::Own(position) => position,
        };
        let targets = info.targets(file.version())?;
        let at = targets.iter().position(|target| target.column == Some(position));
        Ok(at.map_or(Self::Missing(position), |at| Self::File(at, position)))
    }

    fn array(&self, info: &TableInfo, file: &OpenFile, batch: &RecordBatch) -> Result<ArrayRef> {
        let damaged = || Error::Inconsistent { reason: "a cold file lacks a column of its rows".to_owned() };
        let named = |name: &str| batch.column_by_name(name).ok_or_else(damaged);
        match self {
            Self::System(name) => named(name).map(Arc::clone),
            Self::File(at, position) => {
                let written = file.columns().get(*at).ok_or_else(damaged)?;
                let now = info.columns().get(*position).ok_or_else(damaged)?;
                column_of_now(named(&written.name)?, written.data_type, now.data_type)
            }
            Self::Missing(position) => constant_column(info, *position, batch.num_rows()),
        }
    }
}

impl FileColumns {
    fn next(&mut self, asked: &Asked, useful: &Useful) -> Result<Option<RecordBatch>> {
        let Some((batch, counting)) = self.batches.next().transpose()? else { return Ok(None) };
        let file = self.batches.file();
        let arrays = self.columns.iter().map(|source| source.array(&asked.info, file, &batch));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = Arc::clone(asked.shape.schema());
        let batch = RecordBatch::try_new_with_options(schema, arrays.collect::<Result<_>>()?, &options)?;
        // Rows are copied once, and only those that all let through.
        let still = useful.still.as_ref().and_then(|still| rows_of(still, &batch));
        // What is neither true nor false is nothing to go by: it stays.
        let still = still.filter(|mask| mask.null_count() == 0);
        let mut mask = both(counting, still)?;
        if let (Some(_), Some(filter)) = (&mask, &useful.filter) {
            // Here it is as good as false.
            let known = |mask: BooleanArray| {
                if mask.null_count() == 0 { mask } else { prep_null_mask_filter(&mask) }
            };
            mask = both(mask, rows_of(filter, &batch).map(known))?;
        }
        Ok(Some(match mask {
            Some(mask) => filter_record_batch(&batch, &mask)?,
            None => batch,
        }))
    }
}
