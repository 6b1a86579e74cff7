//! INSERT: from a statement to new rows.
//!
//! Rows are encoded here, on the caller's thread; the sequencer only checks that their keys are free.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{self, Expr, SetExpr, TableObject};
use log_format::Value;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::provider::session_state;
use crate::requests::Committed;
use crate::session::Session;
use crate::sql::change_set::{ChangeSet, refuse_too_many};
use crate::sql::conflict::{OnConflict, lost_race};
use crate::sql::execute::{ATTEMPTS_MAX, StatementResult};
use crate::sql::pace::Pace;
use crate::sql::parse::{TableName, table_name};
use crate::sql::returning::Returning;
use crate::sql::target::{
    Context, Target, cast_columns, check_value, column_name, column_position, literal_value, refuse_clauses,
    value_of,
};
use crate::sql::{select, system_rows};
use crate::table::{GENERATED_KEY, TableInfo};
use crate::values;

pub(crate) async fn insert(context: Context<'_>, insert: &ast::Insert) -> Result<StatementResult> {
    refuse_clauses(&[
        ("INSERT OR …", insert.or.is_some()),
        ("INSERT IGNORE", insert.ignore),
        ("INSERT OVERWRITE", insert.overwrite),
        ("REPLACE", insert.replace_into),
        ("INSERT … SET", !insert.assignments.is_empty()),
        ("OUTPUT", insert.output.is_some()),
        ("PARTITION", insert.partitioned.is_some()),
        ("VALUES … AS", insert.insert_alias.is_some()),
    ])?;
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into anything but a table"));
    };
    let name = table_name(name)?;
    if let Some(table) = system_rows::find(context, &name)? {
        return Box::pin(system_rows::insert(context, table, insert)).await;
    }
    let alias = insert.table_alias.as_ref().map(|alias| &alias.alias);
    let target = Target::new(context, &name)?.with_alias(alias);
    let columns = insert_columns(&target.info, insert)?;
    let returning = insert.returning.as_deref().map(|list| Returning::new(&target, list)).transpose()?;
    let conflict = insert.on.as_ref().map(|clause| OnConflict::new(&target, clause)).transpose()?;
    let source =
        insert.source.as_ref().ok_or_else(|| Error::definition("INSERT needs VALUES or a SELECT"))?;
    let rows = match written_rows(&target, &columns, source).await? {
        Some(rows) => rows,
        None => Box::pin(queried_rows(&target, &columns, source)).await?,
    };
    let changes = ChangeSet::new(&target, returning);
    if let Some(conflict) = conflict {
        let changes = conflict.apply(&target, changes, &rows).await?;
        return changes.finish(conflict.verb()).await.map_err(lost_race);
    }
    if let Some(options) = target.info.stream() {
        return append(&target, options.ephemeral, changes, &rows).await;
    }
    inserted(&target, changes, &rows).await?.finish("inserted").await
}

/// With these rows as new ones.
async fn inserted<'t>(
    target: &Target<'_>,
    mut changes: ChangeSet<'t>,
    rows: &[Vec<Value>],
) -> Result<ChangeSet<'t>> {
    let mut pace = Pace::default();
    for values in rows {
        pace.row().await;
        changes.insert(target.info.encode_key(values)?, target.info.encode_row(values)?)?;
    }
    Ok(changes)
}

/// An INSERT from a program instead of from a text.
pub(crate) async fn insert_rows(
    engine: &Engine,
    session: &Session,
    table: &str,
    rows: &[Vec<Value>],
) -> Result<Committed> {
    let (namespace, name) =
        table.split_once('.').map_or((None, table), |(namespace, name)| (Some(namespace), name));
    let name = TableName { namespace: namespace.map(ToOwned::to_owned), name: name.to_owned() };
    let context = Context { engine, session, params: &[], text: None, transaction: None };
    let target = Target::new(context, &name)?;
    target.refuse_stream("a direct insert")?;
    let all: Vec<usize> = (0..target.info.columns().len()).collect();
    for row in rows {
        check_width(&target, &all, row.len())?;
        for (position, value) in row.iter().enumerate() {
            check_value(&target.info, position, value)?;
            let data_type = target.info.columns().get(position).map(|column| column.data_type);
            if data_type.is_some_and(|data_type| !values::fits(value, data_type)) {
                return Err(target
                    .info
                    .constraint(position, format!("{} is of another type", values::to_text(value))));
            }
        }
    }
    if rows.is_empty() {
        return Err(Error::definition("there are no rows to insert"));
    }
    // A flush that comes between the look for a key and the commit refuses it: it is looked for anew.
    for _ in 0..ATTEMPTS_MAX {
        let target = Target::new(context, &name)?;
        match inserted(&target, ChangeSet::new(&target, None), rows).await?.commit().await {
            Err(Error::Conflict { .. }) => {}
            done => return done,
        }
    }
    Err(Error::Conflict { attempts: ATTEMPTS_MAX })
}

async fn append(
    target: &Target<'_>,
    ephemeral: bool,
    mut changes: ChangeSet<'_>,
    rows: &[Vec<Value>],
) -> Result<StatementResult> {
    if ephemeral && !target.engine.is_listened_to(&target.partition) {
        metrics::counter!("kalamdb_stream_discarded_total").increment(rows.len() as u64);
        return changes.finish("inserted: nobody listens").await;
    }
    for values in rows {
        changes.append(target.info.encode_row(values)?)?;
    }
    changes.finish("inserted").await
}

/// Positions of the columns an INSERT gives values for.
fn insert_columns(info: &TableInfo, insert: &ast::Insert) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        // A generated key takes no part where the columns are not named.
        let generated =
            |at: &usize| info.columns().get(*at).is_none_or(|column| column.name != GENERATED_KEY);
        let mut all: Vec<usize> = (0..info.columns().len()).filter(generated).collect();
        // Columns that VALUES has nothing for get their defaults, from the end on.
        if let Some(source) = &insert.source
            && let SetExpr::Values(values) = source.body.as_ref()
            && let Some(first) = values.rows.first()
        {
            all.truncate(first.content.len().max(1));
        }
        return Ok(all);
    }
    let mut positions = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let name = column_name(name)?;
        let position = column_position(info, name)?;
        if positions.contains(&position) {
            return Err(Error::definition(format!("the column {name} is named twice")).at(name));
        }
        positions.push(position);
    }
    Ok(positions)
}

/// The rows of `VALUES`. A literal, parameter or function without arguments is what it is in its column; the rest is computed
/// by the query engine. None where the source is anything else.
async fn written_rows(
    target: &Target<'_>,
    columns: &[usize],
    source: &ast::Query,
) -> Result<Option<Vec<Vec<Value>>>> {
    let SetExpr::Values(given) = source.body.as_ref() else { return Ok(None) };
    if source.order_by.is_some() || source.limit_clause.is_some() || source.with.is_some() {
        return Ok(None);
    }
    let mut rows = Vec::with_capacity(given.rows.len());
    let mut is_computed = vec![false; columns.len()];
    for expressions in &given.rows {
        let expressions: &[Expr] = &expressions.content;
        check_width(target, columns, expressions.len())?;
        let mut row = vec![None; target.info.columns().len()];
        for ((position, expression), is_computed) in columns.iter().zip(expressions).zip(&mut is_computed) {
            let value = literal_value(target, *position, expression)?;
            *is_computed |= value.is_none();
            if let Some(slot) = row.get_mut(*position) {
                *slot = value;
            }
        }
        rows.push(row);
    }
    if is_computed.contains(&true) {
        Box::pin(compute(target, columns, &is_computed, source, &mut rows)).await?;
    }
    rows.into_iter().map(|row| complete(target, row)).collect::<Result<_>>().map(Some)
}

/// Fills in what is no literal in some columns of `VALUES`. What is one takes no part: it would get the type of the others.
async fn compute(
    target: &Target<'_>,
    columns: &[usize],
    is_computed: &[bool],
    source: &ast::Query,
    rows: &mut [Vec<Option<Value>>],
) -> Result<()> {
    let computed: Vec<(usize, usize)> =
        columns.iter().copied().enumerate().filter(|(at, _)| is_computed.get(*at) == Some(&true)).collect();
    let mut open = source.clone();
    if let SetExpr::Values(values) = open.body.as_mut() {
        for (expressions, row) in values.rows.iter_mut().zip(rows.iter()) {
            let open = computed.iter().filter_map(|(at, position)| {
                let is_known = row.get(*position).is_some_and(Option::is_some);
                let null = || Expr::value(ast::Value::Null);
                if is_known { Some(null()) } else { expressions.content.get(*at).cloned() }
            });
            expressions.content = open.collect();
        }
    }
    let (_, batches) = queried(target, &open).await?;
    let positions: Vec<usize> = computed.into_iter().map(|(_, position)| position).collect();
    let mut rows = rows.iter_mut();
    for batch in &batches {
        let arrays = cast_columns(&target.info, &positions, batch.columns())?;
        for (number, row) in (0..batch.num_rows()).zip(&mut rows) {
            for (position, array) in positions.iter().zip(&arrays) {
                if let Some(slot) = row.get_mut(*position).filter(|slot| slot.is_none()) {
                    *slot = Some(value_of(&target.info, *position, array, number)?);
                }
            }
        }
    }
    Ok(())
}

fn check_width(target: &Target<'_>, columns: &[usize], given: usize) -> Result<()> {
    if given == columns.len() {
        return Ok(());
    }
    Err(Error::definition(format!(
        "{given} values for {} columns of {}",
        columns.len(),
        target.info.full_name()
    )))
}

/// Fills in defaults and checks NOT NULL.
fn complete(target: &Target<'_>, row: Vec<Option<Value>>) -> Result<Vec<Value>> {
    let values = row.into_iter().enumerate().map(|(position, value)| {
        let value = value.map_or_else(|| target.default(position), Ok)?;
        check_value(&target.info, position, &value)?;
        Ok(value)
    });
    values.collect()
}

/// The rows of any other source, by way of the query engine.
async fn queried_rows(
    target: &Target<'_>,
    columns: &[usize],
    source: &ast::Query,
) -> Result<Vec<Vec<Value>>> {
    let (schema, batches) = queried(target, source).await?;
    check_width(target, columns, schema.fields().len())?;
    refuse_too_many(batches.iter().map(RecordBatch::num_rows).sum())?;
    let (mut rows, mut pace) = (Vec::new(), Pace::default());
    for batch in &batches {
        let arrays = cast_columns(&target.info, columns, batch.columns())?;
        for row in 0..batch.num_rows() {
            pace.row().await;
            let mut values = vec![None; target.info.columns().len()];
            for (position, array) in columns.iter().zip(&arrays) {
                if let Some(slot) = values.get_mut(*position) {
                    *slot = Some(value_of(&target.info, *position, array, row)?);
                }
            }
            rows.push(complete(target, values)?);
        }
    }
    Ok(rows)
}

/// What a query gives.
async fn queried(target: &Target<'_>, source: &ast::Query) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut statement = ast::Statement::Query(Box::new(source.clone()));
    let named = select::named_system_columns(&statement);
    select::hide_system_columns(&mut statement, &named);
    let scope = target.scope(named)?;
    let state = session_state(target.engine, target.session, scope);
    let plan = select::plan(target.context, &state, statement).await?;
    select::collect(target.engine, &state, &plan).await
}
