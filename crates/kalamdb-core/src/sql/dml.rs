//! UPDATE and DELETE: from a statement to a commit of rows.
//!
//! They read the rows they change by their key where the statement names it, else through `DataFusion` on one cut, and rely on
//! those rows being unchanged since. Rows are encoded here, on the caller's thread.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::sql::sqlparser::ast::{
    self, Expr, FromTable, Ident, SelectItem, SetExpr, TableFactor, TableWithJoins, UpdateTableFromKind,
};
use datafusion::sql::sqlparser::parser::Parser;
use kalamdb_query::dialect::SqlDialect;
use log_format::Value;

use crate::error::{Error, Result};
use crate::provider::session_state;
use crate::rows::{BatchBuilder, RowHead, Shape};
use crate::sql::change_set::{ChangeSet, Found, refuse_too_many};
use crate::sql::execute::StatementResult;
use crate::sql::expressions::{Compiler, Computed};
use crate::sql::pace::Pace;
use crate::sql::parse::{TableName, table_name};
use crate::sql::point;
use crate::sql::returning::Returning;
use crate::sql::target::{
    Context, Target, assignments, cast_columns, check_value, literal_value, refuse_clauses, value_of,
};
use crate::sql::{select, system_rows};
use crate::table::TableInfo;

/// What an assignment gives a column.
enum Assigned {
    /// The same for every row.
    Constant(Value),
    /// Computed for each: the nth of what is.
    Computed(usize),
}

/// Where the rows to change come from.
enum Source {
    /// The one row of a key; what is computed on it.
    Row { key: Vec<u8>, shape: Shape, computed: Vec<Computed> },
    /// `SELECT key columns, computed FROM table WHERE selection`.
    Query(Box<ast::Statement>),
}

impl Source {
    fn new(
        target: &Target<'_>,
        table: &TableWithJoins,
        others: &[TableWithJoins],
        selection: Option<&Expr>,
        computed: Vec<Expr>,
    ) -> Result<Self> {
        if others.is_empty()
            && let Some(key) = selection.and_then(|selection| point::key_of(target, selection))
        {
            let shape = Shape::of_table(&target.info, target.info.system_columns());
            // What cannot be computed on the row alone, a subquery, takes a query.
            if let Some(computed) = compile(target, &shape, &computed)? {
                return Ok(Self::Row { key, shape, computed });
            }
        }
        let mut query = changed_rows(&key_names(&target.info), table, selection.cloned(), computed)?;
        if !others.is_empty() {
            join_others(&mut query, &target.info, table, others);
        }
        Ok(Self::Query(Box::new(query)))
    }
}

/// Adds the other tables of `UPDATE … FROM` or `DELETE … USING`, beside which the key is that of the table that changes.
fn join_others(
    query: &mut ast::Statement,
    info: &TableInfo,
    table: &TableWithJoins,
    others: &[TableWithJoins],
) {
    let own = match &table.relation {
        TableFactor::Table { alias: Some(alias), .. } => alias.name.clone(),
        _ => Ident::with_quote('"', info.record().name.clone()),
    };
    let ast::Statement::Query(query) = query else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for item in select.projection.iter_mut().take(info.key_columns().len()) {
        if let SelectItem::UnnamedExpr(Expr::Identifier(column)) = item {
            let alias = column.clone();
            let expr = Expr::CompoundIdentifier(vec![own.clone(), alias.clone()]);
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    select.from.extend(others.iter().cloned());
}

fn compile(target: &Target<'_>, shape: &Shape, expressions: &[Expr]) -> Result<Option<Vec<Computed>>> {
    if expressions.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let compiler = Compiler::new(target, target.scope(Vec::new())?, Arc::clone(shape.schema()))?;
    Ok(expressions.iter().map(|expression| compiler.compile(expression.clone()).ok()).collect())
}

pub(crate) async fn update(context: Context<'_>, update: &ast::Update) -> Result<StatementResult> {
    refuse_clauses(&[
        ("OUTPUT", update.output.is_some()),
        ("UPDATE OR …", update.or.is_some()),
        ("ORDER BY in UPDATE", !update.order_by.is_empty()),
        ("LIMIT in UPDATE", update.limit.is_some()),
    ])?;
    let (name, alias) = single_table(&update.table)?;
    if let Some(rows) = system_rows::find(context, &name)? {
        return Box::pin(system_rows::update(context, rows, update)).await;
    }
    let target = Target::new(context, &name)?.with_alias(alias);
    target.refuse_stream("UPDATE")?;
    let returning = update.returning.as_deref().map(|list| Returning::new(&target, list)).transpose()?;
    let (mut assigned, mut computed) = (Vec::new(), Vec::new());
    for (position, expression) in assignments(&target.info, &update.assignments)? {
        let value = match literal_value(&target, position, expression)? {
            Some(value) => {
                check_value(&target.info, position, &value)?;
                Assigned::Constant(value)
            }
            None => {
                computed.push(expression.clone());
                Assigned::Computed(computed.len() - 1)
            }
        };
        assigned.push((position, value));
    }
    let others = match &update.from {
        Some(UpdateTableFromKind::BeforeSet(tables) | UpdateTableFromKind::AfterSet(tables)) => {
            tables.as_slice()
        }
        None => &[],
    };
    let source = Source::new(&target, &update.table, others, update.selection.as_ref(), computed)?;
    let mut changes = ChangeSet::new(&target, returning);
    for_each_found(&target, source, |computed, row, found| {
        let mut values = target.info.values(&found.row)?;
        for (position, assigned) in &assigned {
            let value = match assigned {
                Assigned::Constant(value) => value.clone(),
                Assigned::Computed(nth) => computed_value(&target.info, *position, computed.get(*nth), row)?,
            };
            check_value(&target.info, *position, &value)?;
            if let Some(slot) = values.get_mut(*position) {
                *slot = value;
            }
        }
        changes.update(found, target.info.encode_row(&values)?)
    })
    .await?;
    changes.finish("updated").await
}

pub(crate) async fn delete(context: Context<'_>, delete: &ast::Delete) -> Result<StatementResult> {
    refuse_clauses(&[
        ("DELETE of several tables", !delete.tables.is_empty()),
        ("OUTPUT", delete.output.is_some()),
        ("ORDER BY in DELETE", !delete.order_by.is_empty()),
        ("LIMIT in DELETE", delete.limit.is_some()),
    ])?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    let [table] = tables.as_slice() else { return Err(Error::unsupported("DELETE of several tables")) };
    let (name, alias) = single_table(table)?;
    if let Some(rows) = system_rows::find(context, &name)? {
        return Box::pin(system_rows::delete(context, rows, table, delete)).await;
    }
    let target = Target::new(context, &name)?.with_alias(alias);
    target.refuse_stream("DELETE")?;
    let returning = delete.returning.as_deref().map(|list| Returning::new(&target, list)).transpose()?;
    let others = delete.using.as_deref().unwrap_or_default();
    let source = Source::new(&target, table, others, delete.selection.as_ref(), Vec::new())?;
    let mut changes = ChangeSet::new(&target, returning);
    for_each_found(&target, source, |_, _, found| changes.delete(found)).await?;
    changes.finish("deleted").await
}

/// The one table a statement changes, and what it calls it.
fn single_table(table: &TableWithJoins) -> Result<(TableName, Option<&Ident>)> {
    match &table.relation {
        TableFactor::Table { name, alias, args: None, .. } if table.joins.is_empty() => {
            Ok((table_name(name)?, alias.as_ref().map(|alias| &alias.name)))
        }
        _ => Err(Error::unsupported("changing anything but one table")),
    }
}

fn computed_value(
    info: &TableInfo,
    position: usize,
    computed: Option<&ArrayRef>,
    row: usize,
) -> Result<Value> {
    let array = computed.cloned().into_iter().collect::<Vec<_>>();
    let array = cast_columns(info, &[position], &array)?;
    array.first().map_or(Ok(Value::Null), |array| value_of(info, position, array, row))
}

fn key_names(info: &TableInfo) -> Vec<&str> {
    let columns = info.key_columns().iter().filter_map(|at| info.columns().get(*at));
    columns.map(|column| column.name.as_str()).collect()
}

/// `SELECT key columns, computed FROM table WHERE selection`.
pub(super) fn changed_rows(
    keys: &[&str],
    table: &TableWithJoins,
    selection: Option<Expr>,
    computed: Vec<Expr>,
) -> Result<ast::Statement> {
    let mut template =
        Parser::new(&SqlDialect::of_text("SELECT 1")).try_with_sql("SELECT 1")?.parse_statement()?;
    if let ast::Statement::Query(query) = &mut template
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        let keys =
            keys.iter().map(|name| SelectItem::UnnamedExpr(Expr::Identifier(Ident::with_quote('"', *name))));
        let computed = computed.into_iter().enumerate().map(|(number, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: Ident::with_quote('"', format!("\u{1}{number}")),
        });
        select.projection = keys.chain(computed).collect();
        select.from = vec![table.clone()];
        select.selection = selection;
    }
    Ok(template)
}

/// Hands each row that is to change to `change`: what is computed for the rows at hand, which of them it is, its stored
/// bytes.
async fn for_each_found(
    target: &Target<'_>,
    source: Source,
    mut change: impl FnMut(&[ArrayRef], usize, Found) -> Result<()> + Send,
) -> Result<()> {
    match source {
        Source::Row { key, shape, computed } => {
            let stored = target.get(&key, |row| {
                let head = RowHead { seq: row.seq, updated: row.updated, deleted: row.deleted };
                (!row.deleted).then(|| (head, row.row.to_vec()))
            })?;
            let Some((head, row)) = stored.flatten() else { return Ok(()) };
            let mut arrays = Vec::with_capacity(computed.len());
            if !computed.is_empty() {
                let mut builder = BatchBuilder::new(&target.info, &shape, 1);
                builder.push(head, &row)?;
                let batch = builder.finish()?;
                for computed in &computed {
                    arrays.push(computed.evaluate(&batch)?);
                }
            }
            change(&arrays, 0, Found { key, seq: head.seq, row })
        }
        Source::Query(query) => Box::pin(for_each_queried(target, *query, change)).await,
    }
}

async fn for_each_queried(
    target: &Target<'_>,
    query: ast::Statement,
    mut change: impl FnMut(&[ArrayRef], usize, Found) -> Result<()> + Send,
) -> Result<()> {
    let joins_others = match &query {
        ast::Statement::Query(query) => {
            matches!(query.body.as_ref(), SetExpr::Select(select) if select.from.len() > 1)
        }
        _ => false,
    };
    let scope = target.scope(select::named_system_columns(&query))?;
    let view = scope.view().clone();
    let state = session_state(target.engine, target.session, scope);
    let plan = select::plan(target.context, &state, query).await?;
    let (_, batches) = select::collect(target.engine, &state, &plan).await?;
    refuse_too_many(batches.iter().map(RecordBatch::num_rows).sum())?;
    let mut pace = Pace::default();
    let key_columns = target.info.key_columns();
    // A row that several rows of another table match is changed once.
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    for batch in &batches {
        let arrays = cast_columns(&target.info, key_columns, batch.columns())?;
        let computed = batch.columns().get(key_columns.len()..).unwrap_or_default();
        for row in 0..batch.num_rows() {
            pace.row().await;
            let mut values = vec![Value::Null; target.info.columns().len()];
            for (position, array) in key_columns.iter().zip(&arrays) {
                if let Some(slot) = values.get_mut(*position) {
                    *slot = value_of(&target.info, *position, array, row)?;
                }
            }
            let key = target.info.encode_key(&values)?;
            if joins_others && !seen.insert(key.clone()) {
                continue;
            }
            let stored = view.get(target.info.keyspace(), &target.partition, &key, |stored| {
                (!stored.deleted).then(|| (stored.seq, stored.row.to_vec()))
            })?;
            // A tombstone that the statement found by naming `_deleted` is not changed.
            if let Some((seq, bytes)) = stored.flatten() {
                change(computed, row, Found { key, seq, row: bytes })?;
            }
        }
    }
    Ok(())
}
