//! ON CONFLICT: what an INSERT does where a row of the same primary key is there.
//!
//! Which keys are taken is read on one cut. The commit relies on that: a key that was free must still be, a row that is
//! updated must still be the one that was read. Where it is not, somebody else was quicker, and the statement is planned anew.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{self, ConflictTarget, OnConflictAction, OnInsert};
use log_format::{Seq, Value};

use crate::error::{Error, Result};
use crate::rows::{BatchBuilder, RowHead, Shape};
use crate::sql::change_set::{ChangeSet, Found};
use crate::sql::expressions::{Compiler, Computed, excluded_name};
use crate::sql::pace::Pace;
use crate::sql::parse::identifier;
use crate::sql::select;
use crate::sql::target::{Target, assignments, cast_columns, check_value, literal_value, value_of};
use crate::table::{SystemColumn, TableInfo};
use crate::values;

/// Rows whose expressions are evaluated at a time.
const BATCH_ROWS: usize = 8192;

/// What becomes of a row whose key is taken.
pub(crate) enum OnConflict {
    DoNothing,
    DoUpdate(DoUpdate),
}

/// How the row that is there changes.
pub(crate) struct DoUpdate {
    assigned: Vec<(usize, Assigned)>,
    condition: Option<Computed>,
    /// Columns of the row that is there.
    shape: Shape,
    /// Those, then the columns of the row that could not be inserted.
    columns: SchemaRef,
}

enum Assigned {
    Constant(Value),
    Computed(Computed),
}

/// A row of the statement, and what is to be done with it.
enum Step {
    Insert { key: Vec<u8>, row: Vec<u8> },
    Update(Taken),
}

/// A key that is taken: the row that is there, and the one that could not be inserted.
struct Taken {
    found: Found,
    updated: i64,
    excluded: Vec<u8>,
}

impl OnConflict {
    pub(crate) fn new(target: &Target<'_>, clause: &OnInsert) -> Result<Self> {
        target.refuse_stream("ON CONFLICT")?;
        let OnInsert::OnConflict(clause) = clause else {
            return Err(Error::Unsupported {
                what: "ON DUPLICATE KEY UPDATE".to_owned(),
                hint: Some("write ON CONFLICT DO UPDATE SET …"),
            });
        };
        if let Some(given) = &clause.conflict_target {
            check_conflict_target(&target.info, given)?;
        }
        match &clause.action {
            OnConflictAction::DoNothing => Ok(Self::DoNothing),
            OnConflictAction::DoUpdate(update) => DoUpdate::new(target, update).map(Self::DoUpdate),
        }
    }

    /// What was done, for the answer.
    pub(crate) const fn verb(&self) -> &'static str {
        match self {
            Self::DoNothing => "inserted",
            Self::DoUpdate(_) => "inserted or updated",
        }
    }

    /// Adds what these rows change.
    pub(crate) async fn apply<'t>(
        &self,
        target: &Target<'_>,
        mut changes: ChangeSet<'t>,
        rows: &[Vec<Value>],
    ) -> Result<ChangeSet<'t>> {
        let steps = self.steps(target, rows).await?;
        let Self::DoUpdate(update) = self else {
            for step in steps {
                if let Step::Insert { key, row } = step {
                    changes.insert(key, row)?;
                }
            }
            return Ok(changes);
        };
        let taken: Vec<&Taken> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Update(taken) => Some(taken),
                Step::Insert { .. } => None,
            })
            .collect();
        let mut updated = update.rows(target, &taken)?.into_iter();
        for step in steps {
            match step {
                Step::Insert { key, row } => changes.insert(key, row)?,
                Step::Update(taken) => {
                    if let Some(row) = updated.next().flatten() {
                        changes.update(taken.found, row)?;
                    }
                }
            }
        }
        Ok(changes)
    }

    async fn steps(&self, target: &Target<'_>, rows: &[Vec<Value>]) -> Result<Vec<Step>> {
        let view = target.view()?;
        let mut seen = HashSet::with_capacity(rows.len());
        let mut steps = Vec::with_capacity(rows.len());
        let mut pace = Pace::default();
        for values in rows {
            pace.row().await;
            let key = target.info.encode_key(values)?;
            if !seen.insert(key.clone()) {
                match self {
                    Self::DoNothing => continue,
                    Self::DoUpdate(_) => return Err(key_twice(&target.info, values)),
                }
            }
            let stored = view.get(target.info.keyspace(), &target.partition, &key, |stored| {
                (!stored.deleted).then(|| (stored.seq, stored.updated, stored.row.to_vec()))
            })?;
            let row = target.info.encode_row(values)?;
            match (stored.flatten(), self) {
                (None, _) => steps.push(Step::Insert { key, row }),
                (Some(_), Self::DoNothing) => {}
                (Some((seq, updated, stored)), Self::DoUpdate(_)) => {
                    let found = Found { key, seq, row: stored };
                    steps.push(Step::Update(Taken { found, updated, excluded: row }));
                }
            }
        }
        Ok(steps)
    }
}

/// A key that was free when it was looked up, and is no longer: the statement lost a race.
pub(crate) fn lost_race(error: Error) -> Error {
    match error {
        Error::DuplicateKey { .. } => Error::Conflict { attempts: 1 },
        other => other,
    }
}

fn key_twice(info: &TableInfo, values: &[Value]) -> Error {
    let key = info.key_columns().iter().filter_map(|at| values.get(*at)).map(values::to_text);
    Error::KeyTwice { table: info.full_name(), key: key.collect::<Vec<_>>().join(", ") }
}

fn check_conflict_target(info: &TableInfo, given: &ConflictTarget) -> Result<()> {
    let ConflictTarget::Columns(given) = given else {
        return Err(Error::Unsupported {
            what: "ON CONFLICT ON CONSTRAINT".to_owned(),
            hint: Some("write ON CONFLICT (columns of the primary key)"),
        });
    };
    let key = info.key_columns().iter().filter_map(|at| info.columns().get(*at));
    let mut key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
    let written = key.join(", ");
    let mut given: Vec<String> = given.iter().map(identifier).collect();
    key.sort_unstable();
    given.sort_unstable();
    if given == key {
        return Ok(());
    }
    Err(Error::definition(format!(
        "only the primary key can be in conflict: write ON CONFLICT ({written}) for {}",
        info.full_name()
    )))
}

impl DoUpdate {
    fn new(target: &Target<'_>, update: &ast::DoUpdate) -> Result<Self> {
        let named: Vec<SystemColumn> = update
            .assignments
            .iter()
            .flat_map(select::named_system_columns)
            .chain(update.selection.iter().flat_map(select::named_system_columns))
            .collect();
        let system: Vec<SystemColumn> =
            target.info.system_columns().iter().copied().filter(|column| named.contains(column)).collect();
        let shape = Shape::of_table(&target.info, &system);
        let there = shape.schema().fields().iter().map(|field| field.as_ref().clone());
        let excluded = target.info.arrow().fields().iter();
        let excluded = excluded.map(|field| field.as_ref().clone().with_name(excluded_name(field.name())));
        let columns = Arc::new(Schema::new(there.chain(excluded).collect::<Vec<Field>>()));
        let scope = target.scope(Vec::new())?;
        let compiler = Compiler::new(target, scope, Arc::clone(&columns))?;
        let mut assigned = Vec::with_capacity(update.assignments.len());
        for (position, expression) in assignments(&target.info, &update.assignments)? {
            let value = match literal_value(target, position, expression)? {
                Some(value) => {
                    check_value(&target.info, position, &value)?;
                    Assigned::Constant(value)
                }
                None => Assigned::Computed(compiler.compile(expression.clone())?),
            };
            assigned.push((position, value));
        }
        let condition = update.selection.clone().map(|condition| compiler.compile(condition)).transpose()?;
        if condition
            .as_ref()
            .is_some_and(|found| !matches!(found.field.data_type(), ArrowType::Boolean | ArrowType::Null))
        {
            return Err(Error::definition("the WHERE of ON CONFLICT DO UPDATE is no condition"));
        }
        Ok(Self { assigned, condition, shape, columns })
    }

    /// What the rows that are there become; none where the condition does not hold.
    fn rows(&self, target: &Target<'_>, taken: &[&Taken]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut rows = Vec::with_capacity(taken.len());
        for chunk in taken.chunks(BATCH_ROWS) {
            let batch = self.batch(target, chunk)?;
            let holds = self.holding(&batch)?;
            let batch = match &holds {
                // What is assigned is not evaluated where the condition does not hold: it may fail there.
                Some(holds) => datafusion::arrow::compute::filter_record_batch(&batch, holds.as_boolean())?,
                None => batch,
            };
            let assigned = self.assigned_arrays(target, &batch)?;
            let mut at = 0;
            for (row, taken) in chunk.iter().enumerate() {
                let held = holds.as_ref().is_none_or(|holds| {
                    let holds = holds.as_boolean();
                    !holds.is_null(row) && holds.value(row)
                });
                if !held {
                    rows.push(None);
                    continue;
                }
                rows.push(Some(self.row(target, taken, &assigned, at)?));
                at += 1;
            }
        }
        Ok(rows)
    }

    fn batch(&self, target: &Target<'_>, taken: &[&Taken]) -> Result<RecordBatch> {
        let own = Shape::of_table(&target.info, &[]);
        let mut there = BatchBuilder::new(&target.info, &self.shape, taken.len());
        let mut excluded = BatchBuilder::new(&target.info, &own, taken.len());
        for taken in taken {
            let head = RowHead { seq: taken.found.seq, updated: taken.updated, deleted: false };
            there.push(head, &taken.found.row)?;
            excluded.push(RowHead { seq: Seq::ZERO, updated: 0, deleted: false }, &taken.excluded)?;
        }
        let (there, excluded) = (there.finish()?, excluded.finish()?);
        let arrays = there.columns().iter().chain(excluded.columns()).cloned().collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.columns), arrays)?)
    }

    fn holding(&self, batch: &RecordBatch) -> Result<Option<ArrayRef>> {
        let Some(condition) = &self.condition else { return Ok(None) };
        let holds = condition.evaluate(batch)?;
        values::cast_to(&holds, log_format::DataType::Boolean).map(Some)
    }

    /// By assignment: its values, or none where they are all the same.
    fn assigned_arrays(&self, target: &Target<'_>, batch: &RecordBatch) -> Result<Vec<Option<ArrayRef>>> {
        let arrays = self.assigned.iter().map(|(position, assigned)| match assigned {
            Assigned::Constant(_) => Ok(None),
            Assigned::Computed(computed) => {
                let array = [computed.evaluate(batch)?];
                Ok(cast_columns(&target.info, &[*position], &array)?.into_iter().next())
            }
        });
        arrays.collect()
    }

    fn row(
        &self,
        target: &Target<'_>,
        taken: &Taken,
        assigned: &[Option<ArrayRef>],
        at: usize,
    ) -> Result<Vec<u8>> {
        let mut values = target.info.values(&taken.found.row)?;
        for ((position, constant), array) in self.assigned.iter().zip(assigned) {
            let value = match (constant, array) {
                (Assigned::Constant(value), _) => value.clone(),
                (Assigned::Computed(_), Some(array)) => value_of(&target.info, *position, array, at)?,
                (Assigned::Computed(_), None) => Value::Null,
            };
            check_value(&target.info, *position, &value)?;
            if let Some(slot) = values.get_mut(*position) {
                *slot = value;
            }
        }
        target.info.encode_row(&values)
    }
}
