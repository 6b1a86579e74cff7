//! Aggregates of a live query, by group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, Rows};
use datafusion::common::ScalarValue;
use datafusion::common::utils::normalize_float_zero;
use datafusion::physical_expr::PhysicalExpr;

use super::accumulator::{Accumulator, AggregateCall, Arguments};
use super::{BYTES_MAX, Identity, Output, Shown, too_large};
use crate::error::{Error, Result};
use crate::live::failure::Failures;
use crate::live::projection::Projection;

/// Groups of one live query at the most.
pub(super) const GROUPS_MAX: usize = if cfg!(test) { 64 } else { 10_000 };

/// `SELECT … FROM table GROUP BY …`, compiled.
#[derive(Debug)]
pub(crate) struct AggregatePlan {
    /// What rows are grouped by; nothing: all are one group.
    pub(super) group_by: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) keys: RowConverter,
    pub(super) calls: Vec<AggregateCall>,
    /// What is grouped by, then the aggregates.
    pub(super) schema: SchemaRef,
    pub(super) having: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that all of it needs, by position; others may be anything.
    pub(super) needed: Vec<usize>,
    /// What is shown.
    pub(super) output: Output,
}

/// Rows as the groups take them.
pub(super) struct Evaluated {
    count: usize,
    keys: Option<Rows>,
    arguments: Vec<Arguments>,
}

#[derive(Debug)]
struct Group {
    rows: i64,
    accumulators: Vec<Accumulator>,
    /// What it counts as in [`Groups::bytes`].
    bytes: usize,
}

/// The groups of one live query.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_key: HashMap<Identity, Group>,
    /// Those that changed since [`Groups::take_changed`].
    changed: HashSet<Identity>,
    /// Those that changed since [`Groups::trim`].
    untrimmed: HashSet<Identity>,
    /// Of all groups.
    bytes: usize,
}

impl AggregatePlan {
    /// Whether it keeps values of rows, of which it has not all.
    pub(super) fn keeps_values(&self) -> bool {
        self.calls.iter().any(AggregateCall::is_extreme)
    }

    /// Evaluates what the rows of a batch are grouped by, and the arguments of the aggregates.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated> {
        let count = batch.num_rows();
        if count == 0 {
            return Ok(Evaluated { count, keys: None, arguments: Vec::new() });
        }
        let evaluate =
            |it: &Arc<dyn PhysicalExpr>| -> Result<_> { Ok(it.evaluate(batch)?.into_array(count)?) };
        // 0.0 and -0.0 are one group, as they are for DataFusion.
        let keys = self.group_by.iter().map(|it| Ok(normalize_float_zero(&evaluate(it)?)));
        let keys = keys.collect::<Result<Vec<ArrayRef>>>()?;
        let keys = (!keys.is_empty()).then(|| self.keys.convert_columns(&keys)).transpose()?;
        let arguments = self.calls.iter().map(|call| call.arguments(batch)).collect::<Result<_>>()?;
        Ok(Evaluated { count, keys, arguments })
    }

    /// One without rows.
    fn group(&self) -> Group {
        Group { rows: 0, accumulators: self.calls.iter().map(AggregateCall::accumulator).collect(), bytes: 0 }
    }
}

impl Groups {
    /// Of no rows. Without GROUP BY there is one group all the same.
    pub(super) fn new(plan: &AggregatePlan) -> Self {
        let mut groups = Self::default();
        if plan.group_by.is_empty() {
            groups.by_key.insert(Identity::default(), plan.group());
        }
        groups
    }

    /// Adds (weight 1) or takes out (weight -1) rows.
    pub(super) fn apply(&mut self, plan: &AggregatePlan, rows: &Evaluated, weight: i64) -> Result<()> {
        for row in 0..rows.count {
            let keys = rows.keys.as_ref();
            let key = keys.map_or_else(Identity::default, |keys| keys.row(row).as_ref().into());
            let group = self.by_key.entry(key.clone()).or_insert_with(|| plan.group());
            group.rows += weight;
            for (arguments, accumulator) in rows.arguments.iter().zip(&mut group.accumulators) {
                arguments.apply(accumulator, row, weight);
            }
            self.untrimmed.insert(key.clone());
            self.changed.insert(key);
        }
        if self.by_key.len() > GROUPS_MAX {
            return Err(Error::TooLarge {
                what: "the groups of a live query",
                limit: GROUPS_MAX,
                hint: "group by something with fewer values, or add a narrower WHERE",
            });
        }
        Ok(())
    }

    /// Keeps no more of the groups that changed than is needed, and so many values to spare. False where an aggregate does not know
    /// its value any more.
    pub(super) fn trim(&mut self, spare: usize) -> Result<bool> {
        let mut knows_all = true;
        for key in self.untrimmed.drain() {
            let Some(group) = self.by_key.get_mut(&key) else { continue };
            for accumulator in &mut group.accumulators {
                knows_all &= accumulator.trim(spare);
            }
            let bytes = 2 * key.len() + group.accumulators.iter().map(Accumulator::bytes).sum::<usize>();
            self.bytes = self.bytes - group.bytes + bytes;
            group.bytes = bytes;
        }
        if self.bytes > BYTES_MAX { Err(too_large()) } else { Ok(knows_all) }
    }

    /// Whole rows are in or out: lets groups go that have none.
    pub(super) fn settle(&mut self, plan: &AggregatePlan) {
        if !plan.group_by.is_empty() {
            for key in &self.changed {
                if self.by_key.get(key).is_some_and(|group| group.rows == 0) {
                    self.bytes -= self.by_key.remove(key).map_or(0, |group| group.bytes);
                }
            }
        }
    }

    /// The groups that changed since the last time, and what is shown of each now.
    pub(super) fn take_changed(
        &mut self,
        plan: &AggregatePlan,
        projection: &Projection,
        failures: &mut Failures,
    ) -> Result<Vec<(Identity, Option<Vec<u8>>)>> {
        let changed: Vec<Identity> = std::mem::take(&mut self.changed).into_iter().collect();
        let mut found: Vec<(Identity, Option<Vec<u8>>)> = Vec::with_capacity(changed.len());
        let (there, gone): (Vec<Identity>, Vec<Identity>) =
            changed.into_iter().partition(|key| self.by_key.contains_key(key));
        found.extend(gone.into_iter().map(|key| (key, None)));
        let shown = self.rows_of(plan, projection, &there, failures)?;
        found.extend(there.into_iter().zip(shown));
        Ok(found)
    }

    /// All that is shown.
    pub(super) fn shown(
        &mut self,
        plan: &AggregatePlan,
        projection: &Projection,
        failures: &mut Failures,
    ) -> Result<Shown> {
        self.changed.clear();
        let keys: Vec<Identity> = self.by_key.keys().cloned().collect();
        let rows = self.rows_of(plan, projection, &keys, failures)?;
        Ok(keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect())
    }

    /// Gives the rows that groups are shown as, each in its place; none for those that HAVING leaves out, or for which the query fails.
    fn rows_of(
        &mut self,
        plan: &AggregatePlan,
        projection: &Projection,
        keys: &[Identity],
        failures: &mut Failures,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self.rows_at_once(plan, projection, keys) {
            Err(error @ Error::Query(_)) if keys.len() == 1 => {
                failures.add(1, Some(error));
                Ok(vec![None])
            }
            Err(Error::Query(_)) => {
                let (first, second) = keys.split_at(keys.len() / 2);
                let mut rows = self.rows_of(plan, projection, first, failures)?;
                rows.extend(self.rows_of(plan, projection, second, failures)?);
                Ok(rows)
            }
            found => found,
        }
    }

    fn rows_at_once(
        &mut self,
        plan: &AggregatePlan,
        projection: &Projection,
        keys: &[Identity],
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let mut arrays = Vec::with_capacity(plan.schema.fields().len());
        if !plan.group_by.is_empty() {
            let parser = plan.keys.parser();
            arrays.extend(plan.keys.convert_rows(keys.iter().map(|key| parser.parse(key)))?);
        }
        let mut values: Vec<Vec<ScalarValue>> = plan.calls.iter().map(|_| Vec::new()).collect();
        for key in keys {
            let Some(group) = self.by_key.get_mut(key) else { continue };
            for ((call, accumulator), values) in
                plan.calls.iter().zip(&mut group.accumulators).zip(&mut values)
            {
                values.push(call.value(accumulator)?);
            }
        }
        for values in values {
            arrays.push(ScalarValue::iter_to_array(values)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), arrays, &options)?;
        let mut chosen: Vec<u32> = (0_u32..).take(keys.len()).collect();
        if let Some(having) = &plan.having {
            let mask = having.evaluate(&batch)?.into_array(keys.len())?;
            let mask = mask.as_boolean_opt();
            let has =
                |row: &u32| mask.is_some_and(|it| it.is_valid(*row as usize) && it.value(*row as usize));
            chosen.retain(has);
        }
        // IMPORTANT: of those alone: what is selected may fail for groups that HAVING leaves out.
        let shown = plan.output.encode(&projection.project(&batch, &chosen)?)?;
        let mut rows = vec![None; keys.len()];
        for (at, row) in chosen.into_iter().zip(shown) {
            if let Some(place) = rows.get_mut(at as usize) {
                *place = Some(row);
            }
        }
        Ok(rows)
    }
}
