//! UPDATE and DELETE: from a statement to a commit of rows.
//!
//! They read the rows they change through `DataFusion` on one cut, and rely on those rows being unchanged since. Rows are
//! encoded here, on the caller's thread.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FromTable, Ident, SelectItem, SetExpr, TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use log_format::Value;
use serde_json::Value as Json;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::provider::{Scope, session_state};
use crate::session::Session;
use crate::sql::change_set::{ChangeSet, Found};
use crate::sql::execute::StatementResult;
use crate::sql::parse::{TableName, table_name};
use crate::sql::returning::Returning;
use crate::sql::target::{
    Target, assignments, cast_columns, check_value, literal_value, refuse_clauses, value_of,
};
use crate::sql::{select, system_rows};
use crate::table::TableInfo;

/// What an assignment gives a column.
enum Assigned {
    /// The same for every row.
    Constant(Value),
    /// Computed: which column of the query.
    Computed(usize),
}

pub(crate) async fn update(
    engine: &Engine,
    session: &Session,
    update: &ast::Update,
    params: &[Json],
) -> Result<StatementResult> {
    refuse_clauses(&[
        ("UPDATE … FROM", update.from.is_some()),
        ("OUTPUT", update.output.is_some()),
        ("UPDATE OR …", update.or.is_some()),
        ("ORDER BY in UPDATE", !update.order_by.is_empty()),
        ("LIMIT in UPDATE", update.limit.is_some()),
    ])?;
    let (name, alias) = single_table(&update.table)?;
    if let Some(table) = system_rows::find(session, &name)? {
        return system_rows::update(engine, session, table, update, params).await;
    }
    let target = Target::new(engine, session, &name, params)?.with_alias(alias);
    target.refuse_stream("UPDATE")?;
    let returning = update.returning.as_deref().map(|list| Returning::new(&target, list)).transpose()?;
    let key_columns = target.info.key_columns().len();
    let (mut assigned, mut computed) = (Vec::new(), Vec::new());
    for (position, expression) in assignments(&target.info, &update.assignments)? {
        let value = match literal_value(&target, position, expression)? {
            Some(value) => {
                check_value(&target.info, position, &value)?;
                Assigned::Constant(value)
            }
            None => {
                computed.push(expression.clone());
                Assigned::Computed(key_columns + computed.len() - 1)
            }
        };
        assigned.push((position, value));
    }
    let query = changed_rows(&key_names(&target.info), &update.table, update.selection.clone(), computed)?;
    let mut changes = ChangeSet::new(&target, returning);
    for_each_found(&target, query, |batch, row, found| {
        let mut values = target.info.values(&found.row)?;
        for (position, assigned) in &assigned {
            let value = match assigned {
                Assigned::Constant(value) => value.clone(),
                Assigned::Computed(column) => computed_value(&target.info, *position, batch, *column, row)?,
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

pub(crate) async fn delete(
    engine: &Engine,
    session: &Session,
    delete: &ast::Delete,
    params: &[Json],
) -> Result<StatementResult> {
    refuse_clauses(&[
        ("DELETE of several tables", !delete.tables.is_empty()),
        ("USING", delete.using.is_some()),
        ("OUTPUT", delete.output.is_some()),
        ("ORDER BY in DELETE", !delete.order_by.is_empty()),
        ("LIMIT in DELETE", delete.limit.is_some()),
    ])?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    let [table] = tables.as_slice() else { return Err(Error::unsupported("DELETE of several tables")) };
    let (name, alias) = single_table(table)?;
    if let Some(rows) = system_rows::find(session, &name)? {
        return system_rows::delete(engine, session, rows, table, delete, params).await;
    }
    let target = Target::new(engine, session, &name, params)?.with_alias(alias);
    target.refuse_stream("DELETE")?;
    let returning = delete.returning.as_deref().map(|list| Returning::new(&target, list)).transpose()?;
    let query = changed_rows(&key_names(&target.info), table, delete.selection.clone(), Vec::new())?;
    let mut changes = ChangeSet::new(&target, returning);
    for_each_found(&target, query, |_, _, found| changes.delete(found)).await?;
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
    batch: &RecordBatch,
    column: usize,
    row: usize,
) -> Result<Value> {
    let array = batch.columns().get(column).cloned().into_iter().collect::<Vec<_>>();
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
    let mut template = Parser::new(&GenericDialect {}).try_with_sql("SELECT 1")?.parse_statement()?;
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

/// Runs such a query and hands each row it finds, with its stored bytes of the same cut, to `change`.
async fn for_each_found(
    target: &Target<'_>,
    query: ast::Statement,
    mut change: impl FnMut(&RecordBatch, usize, Found) -> Result<()> + Send,
) -> Result<()> {
    let scope = Scope::new(target.engine, target.session, select::named_system_columns(&query))?;
    let cut = Arc::clone(scope.cut());
    let state = session_state(target.engine, target.session, scope);
    let plan = select::plan(&state, query, target.params).await?;
    let (_, batches) = select::collect(state, plan).await?;
    let key_columns = target.info.key_columns();
    for batch in &batches {
        let arrays = cast_columns(&target.info, key_columns, batch.columns())?;
        for row in 0..batch.num_rows() {
            let mut values = vec![Value::Null; target.info.columns().len()];
            for (position, array) in key_columns.iter().zip(&arrays) {
                if let Some(slot) = values.get_mut(*position) {
                    *slot = value_of(&target.info, *position, array, row)?;
                }
            }
            let key = target.info.encode_key(&values)?;
            let stored = cut.get(target.info.keyspace(), &target.partition, &key, |stored| {
                (!stored.deleted).then(|| (stored.seq, stored.row.to_vec()))
            })?;
            // A tombstone that the statement found by naming `_deleted` is not changed.
            if let Some((seq, bytes)) = stored.flatten() {
                change(batch, row, Found { key, seq, row: bytes })?;
            }
        }
    }
    Ok(())
}
