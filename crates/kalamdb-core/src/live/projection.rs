//! What live queries select, compiled once for all of them that select the same from the same version of a table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use log_format::{SchemaVersion, TableId};

use crate::error::Result;
use crate::live::query::may_fail;

/// The least number of projections at which those that nobody uses any more are looked for.
const PRUNE_AT_MIN: usize = 64;

/// Compiled expressions over a table's rows.
#[derive(Debug)]
pub(crate) struct Projection {
    number: u64,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    /// Their positions, where all of them are columns as they stand.
    columns: Option<Vec<usize>>,
    /// What was planned.
    schema: SchemaRef,
    /// The same, but for NULLs: what is usually sent.
    nullable: SchemaRef,
}

impl Projection {
    fn new(number: u64, expressions: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef) -> Self {
        let position =
            |expression: &Arc<dyn PhysicalExpr>| expression.downcast_ref::<Column>().map(Column::index);
        let columns = expressions.iter().map(position).collect();
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let nullable = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { number, expressions, columns, schema, nullable }
    }

    /// What tells it from all others.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// What subscribers see.
    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The same, but for NULLs.
    pub(crate) const fn nullable(&self) -> &SchemaRef {
        &self.nullable
    }

    /// Whether it may fail for some row, as far as that is known.
    pub(crate) fn may_fail(&self) -> bool {
        self.columns.is_none() && self.expressions.iter().any(may_fail)
    }

    /// What subscribers see of these rows of a batch.
    pub(crate) fn project(&self, batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        if rows.is_empty() {
            // Even an expression of constants alone fails for no row.
            return Ok(RecordBatch::new_empty(Arc::clone(&self.nullable)));
        }
        let is_whole = rows.len() == batch.num_rows();
        let picked = |batch: &RecordBatch| -> Result<RecordBatch> {
            if is_whole {
                return Ok(batch.clone());
            }
            Ok(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?)
        };
        let arrays: Vec<ArrayRef> = match &self.columns {
            Some(columns) => picked(&batch.project(columns)?)?.columns().to_vec(),
            None => {
                let picked = picked(batch)?;
                let evaluate = |expression: &Arc<dyn PhysicalExpr>| {
                    expression.evaluate(&picked)?.into_array(picked.num_rows())
                };
                self.expressions.iter().map(evaluate).collect::<Result<_, _>>()?
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema_of(&arrays), arrays, &options)?)
    }

    /// An expression may come out as another type of text than planned; what is sent is the same.
    fn schema_of(&self, arrays: &[ArrayRef]) -> SchemaRef {
        let mut fields = self.nullable.fields().iter().zip(arrays);
        if fields.all(|(field, array)| field.data_type() == array.data_type()) {
            return Arc::clone(&self.nullable);
        }
        let fields = self.nullable.fields().iter().zip(arrays);
        let fields =
            fields.map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()));
        Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
    }
}

type Key = (TableId, SchemaVersion, String);

#[derive(Debug, Default)]
struct Known {
    projections: HashMap<Key, Weak<Projection>>,
    prune_at: usize,
    made: u64,
}

/// The projections of all live queries.
#[derive(Debug, Default)]
pub(crate) struct Projections {
    // Held to look up or add one.
    known: Mutex<Known>,
}

impl Projections {
    /// The one for these expressions, made by whoever needs it first.
    pub(crate) fn shared(
        &self,
        table: TableId,
        version: SchemaVersion,
        signature: String,
        compile: impl FnOnce() -> Result<(Vec<Arc<dyn PhysicalExpr>>, SchemaRef)>,
    ) -> Result<Arc<Projection>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (table, version, signature);
        if let Some(projection) = known.projections.get(&key).and_then(Weak::upgrade) {
            return Ok(projection);
        }
        if known.projections.len() >= known.prune_at.max(PRUNE_AT_MIN) {
            known.projections.retain(|_, projection| projection.strong_count() > 0);
            known.prune_at = known.projections.len() * 2;
        }
        let (expressions, schema) = compile()?;
        known.made += 1;
        let projection = Arc::new(Projection::new(known.made, expressions, schema));
        known.projections.insert(key, Arc::downgrade(&projection));
        Ok(projection)
    }
}
