//! INSERT, UPDATE, DELETE: from a statement to a commit of rows.
//!
//! Rows are encoded here, on the caller's thread; the sequencer only checks what they rely on. UPDATE and DELETE read the
//! rows they change through `DataFusion` on one cut, and rely on those rows being unchanged since.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, Expr, FromTable, Ident, SelectItem, SetExpr, TableFactor,
    TableObject, TableWithJoins,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use log_format::{
    ChangeEvent, ColumnDefault, EncodedEvent, Partition, RowDeleted, RowInserted, RowReader, RowUpdated, Seq,
    StreamAppended, Value,
};
use serde_json::Value as Json;

use crate::clock;
use crate::requests::{Committed, Expected, RowCommit, RowWrite};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::functions::Niladic;
use crate::provider::{Scope, session_state};
use crate::session::Session;
use crate::sql::execute::{StatementResult, require_write};
use crate::sql::parse::{TableName, identifier, table_name};
use crate::sql::{literal, select};
use crate::table::{SystemColumn, TableInfo};
use crate::values;

/// What a statement's rows are written with.
struct Target<'e> {
    engine: &'e Engine,
    session: &'e Session,
    info: Arc<TableInfo>,
    partition: Arc<Partition>,
    params: &'e [Json],
}

impl<'e> Target<'e> {
    fn new(engine: &'e Engine, session: &'e Session, name: &TableName, params: &'e [Json]) -> Result<Self> {
        let info = engine.resolve(session, name)?;
        require_write(session, &info)?;
        let partition = Arc::new(session.partition(&info));
        Ok(Self { engine, session, info, partition, params })
    }

    fn commit(&self, events: Vec<EncodedEvent>, writes: Vec<RowWrite>) -> RowCommit {
        RowCommit {
            table: self.info.id(),
            version: self.info.version(),
            keyspace: self.info.keyspace(),
            events,
            writes,
        }
    }

    async fn finish(
        &self,
        events: Vec<EncodedEvent>,
        writes: Vec<RowWrite>,
        verb: &str,
    ) -> Result<StatementResult> {
        let count = events.len();
        if count > 0 {
            self.engine.commits().rows(self.commit(events, writes)).await?;
        }
        let noun = if count == 1 { "row" } else { "rows" };
        Ok(StatementResult::done(self.session, count as u64, format!("{count} {noun} {verb}")))
    }

    /// The events of new rows, and what they rely on.
    fn inserts(&self, rows: &[Vec<Value>]) -> Result<(Vec<EncodedEvent>, Vec<RowWrite>)> {
        let (mut events, mut writes) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for values in rows {
            let key = self.info.encode_key(values)?;
            let row = self.info.encode_row(values)?;
            let event = RowInserted { partition: self.partition.as_ref().clone(), key: key.clone(), row };
            events.push(ChangeEvent::RowInserted(Box::new(event)).encode()?);
            writes.push(RowWrite {
                partition: Arc::clone(&self.partition),
                key,
                expected: Expected::Absent,
                deletes: false,
            });
        }
        Ok((events, writes))
    }

    fn refuse_stream(&self, verb: &str) -> Result<()> {
        if self.info.stream().is_none() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!("{verb} on the stream table {}", self.info.full_name()),
            hint: Some("stream rows are only appended, and go by themselves"),
        })
    }

    /// The value of a column that an INSERT does not name.
    fn default(&self, position: usize) -> Result<Value> {
        let Some(column) = self.info.columns().get(position) else { return Ok(Value::Null) };
        let function = match &column.default {
            None => return Ok(Value::Null),
            Some(ColumnDefault::Constant(cell)) => {
                return Ok(RowReader::new(cell)?.values()?.into_iter().next().unwrap_or(Value::Null));
            }
            Some(ColumnDefault::Now) => return now(column.data_type),
            Some(ColumnDefault::SnowflakeId) => Niladic::SnowflakeId,
            Some(ColumnDefault::UuidV7) => Niladic::UuidV7,
            Some(ColumnDefault::Ulid) => Niladic::Ulid,
            Some(ColumnDefault::CurrentUser) => Niladic::CurrentUser,
            Some(ColumnDefault::CurrentRole) => Niladic::CurrentRole,
        };
        self.function(&function, column.data_type)
    }

    fn function(&self, function: &Niladic, data_type: log_format::DataType) -> Result<Value> {
        use log_format::DataType;
        let value = function.value(self.session, self.engine.snowflakes());
        match (&value, data_type) {
            (Value::BigInt(_), DataType::BigInt)
            | (Value::Uuid(_), DataType::Uuid)
            | (Value::Text(_), DataType::Text) => Ok(value),
            (Value::BigInt(id), _) => values::from_text(&id.to_string(), data_type),
            (Value::Uuid(id), _) => values::from_text(&uuid::Uuid::from_bytes(*id).to_string(), data_type),
            (Value::Text(text), _) => values::from_text(text, data_type),
            _ => Ok(value),
        }
    }
}

/// The time of the statement, in a column of this type.
fn now(data_type: log_format::DataType) -> Result<Value> {
    let micros = clock::now_micros();
    match data_type {
        log_format::DataType::Timestamp => Ok(Value::Timestamp(micros)),
        log_format::DataType::DateTime => Ok(Value::DateTime(micros)),
        other => values::from_scalar(
            &datafusion::common::ScalarValue::TimestampMicrosecond(Some(micros), None),
            other,
        ),
    }
}

// ── INSERT ──────────────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) async fn insert(
    engine: &Engine,
    session: &Session,
    insert: &ast::Insert,
    params: &[Json],
) -> Result<StatementResult> {
    refuse_clauses(&[
        ("ON CONFLICT", insert.on.is_some()),
        ("RETURNING", insert.returning.is_some()),
        ("INSERT OR …", insert.or.is_some()),
        ("INSERT OVERWRITE", insert.overwrite),
        ("REPLACE", insert.replace_into),
        ("INSERT … SET", !insert.assignments.is_empty()),
    ])?;
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into anything but a table"));
    };
    let target = Target::new(engine, session, &table_name(name)?, params)?;
    let columns = insert_columns(&target.info, insert)?;
    let source =
        insert.source.as_ref().ok_or_else(|| Error::definition("INSERT needs VALUES or a SELECT"))?;
    let rows = match literal_rows(&target, &columns, source)? {
        Some(rows) => rows,
        None => queried_rows(&target, &columns, source).await?,
    };
    if let Some(options) = target.info.stream() {
        return append(&target, options.ephemeral, rows).await;
    }
    let (events, writes) = target.inserts(&rows)?;
    target.finish(events, writes, "inserted").await
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
    let target = Target::new(engine, session, &name, &[])?;
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
    let (events, writes) = target.inserts(rows)?;
    engine.commits().rows(target.commit(events, writes)).await
}

async fn append(target: &Target<'_>, ephemeral: bool, rows: Vec<Vec<Value>>) -> Result<StatementResult> {
    if ephemeral && !target.engine.is_listened_to(&target.partition) {
        metrics::counter!("kalamdb_stream_discarded_total").increment(rows.len() as u64);
        return Ok(StatementResult::done(target.session, 0, "nobody listens: 0 rows inserted"));
    }
    let events = rows.iter().map(|values| {
        let event = StreamAppended {
            partition: target.partition.as_ref().clone(),
            row: target.info.encode_row(values)?,
        };
        Ok(ChangeEvent::StreamAppended(Box::new(event)).encode()?)
    });
    target.finish(events.collect::<Result<_>>()?, Vec::new(), "inserted").await
}

/// Positions of the columns an INSERT gives values for.
fn insert_columns(info: &TableInfo, insert: &ast::Insert) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        // A generated key takes no part where the columns are not named.
        let generated = |at: &usize| info.columns().get(*at).is_none_or(|column| column.name != "_id");
        return Ok((0..info.columns().len()).filter(generated).collect());
    }
    let mut positions = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let name = name.0.last().and_then(|part| part.as_ident()).map(identifier).unwrap_or_default();
        let position = column_position(info, &name)?;
        if positions.contains(&position) {
            return Err(Error::definition(format!("the column {name} is named twice")));
        }
        positions.push(position);
    }
    Ok(positions)
}

fn column_position(info: &TableInfo, name: &str) -> Result<usize> {
    if SystemColumn::ALL.iter().any(|system| system.name() == name) {
        return Err(Error::definition(format!("{name} is filled by the system and cannot be written")));
    }
    info.column_position(name).ok_or_else(|| {
        let columns: Vec<&str> = info.columns().iter().map(|column| column.name.as_str()).collect();
        Error::definition(format!("{} has no column {name}; it has {}", info.full_name(), columns.join(", ")))
    })
}

/// The rows of `VALUES` where every value is a literal, a parameter or a function without arguments.
fn literal_rows(
    target: &Target<'_>,
    columns: &[usize],
    source: &ast::Query,
) -> Result<Option<Vec<Vec<Value>>>> {
    let SetExpr::Values(given) = source.body.as_ref() else { return Ok(None) };
    if source.order_by.is_some() || source.limit_clause.is_some() || source.with.is_some() {
        return Ok(None);
    }
    let mut rows = Vec::with_capacity(given.rows.len());
    for expressions in &given.rows {
        let expressions: &[Expr] = &expressions.content;
        check_width(target, columns, expressions.len())?;
        let mut row = vec![None; target.info.columns().len()];
        for (position, expression) in columns.iter().zip(expressions) {
            let Some(value) = literal_value(target, *position, expression)? else { return Ok(None) };
            if let Some(slot) = row.get_mut(*position) {
                *slot = Some(value);
            }
        }
        rows.push(complete(target, row)?);
    }
    Ok(Some(rows))
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

fn literal_value(target: &Target<'_>, position: usize, expression: &Expr) -> Result<Option<Value>> {
    let Some(column) = target.info.columns().get(position) else { return Ok(None) };
    if matches!(expression, Expr::Identifier(ident) if ident.value.eq_ignore_ascii_case("default")) {
        return target.default(position).map(Some);
    }
    if let Some(name) = literal::function_name(expression) {
        if matches!(name.as_str(), "now" | "current_timestamp") {
            return now(column.data_type).map(Some);
        }
        let function = Niladic::ALL.into_iter().find(|function| function.name() == name);
        return function.map(|function| target.function(&function, column.data_type)).transpose();
    }
    let value = literal::value(expression, column.data_type, target.params);
    value.map_err(|error| match error {
        Error::Value { .. } => target.info.constraint(position, error.to_string()),
        other => other,
    })
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

fn check_value(info: &TableInfo, position: usize, value: &Value) -> Result<()> {
    let nullable = info.columns().get(position).is_none_or(|column| column.nullable);
    if value.is_null() && !nullable {
        return Err(info.constraint(position, "a value is required (NOT NULL)"));
    }
    Ok(())
}

/// The rows of any other source, by way of the query engine.
async fn queried_rows(
    target: &Target<'_>,
    columns: &[usize],
    source: &ast::Query,
) -> Result<Vec<Vec<Value>>> {
    let mut statement = ast::Statement::Query(Box::new(source.clone()));
    let named = select::named_system_columns(&statement);
    select::hide_system_columns(&mut statement, &named);
    let scope = Scope::new(target.engine, target.session, named)?;
    let state = session_state(target.engine, target.session, scope);
    let plan = select::plan(&state, statement, target.params).await?;
    let (schema, batches) = select::collect(state, plan).await?;
    check_width(target, columns, schema.fields().len())?;
    let mut rows = Vec::new();
    for batch in &batches {
        let arrays = cast_columns(&target.info, columns, batch.columns())?;
        for row in 0..batch.num_rows() {
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

fn cast_columns(info: &TableInfo, columns: &[usize], arrays: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let pairs = columns.iter().zip(arrays);
    pairs
        .map(|(position, array)| {
            let Some(column) = info.columns().get(*position) else { return Ok(Arc::clone(array)) };
            values::cast_to(array, column.data_type)
                .map_err(|error| info.constraint(*position, error.to_string()))
        })
        .collect()
}

fn value_of(info: &TableInfo, position: usize, array: &dyn Array, row: usize) -> Result<Value> {
    let Some(column) = info.columns().get(position) else { return Ok(Value::Null) };
    values::value_at(array, row, column.data_type)
}

// ── UPDATE and DELETE ───────────────────────────────────────────────────────────────────────────────────────────────

/// A row to change: its key, the event that wrote it, its bytes.
struct Found {
    key: Vec<u8>,
    seq: Seq,
    row: Vec<u8>,
}

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
        ("RETURNING", update.returning.is_some()),
        ("UPDATE OR …", update.or.is_some()),
        ("ORDER BY in UPDATE", !update.order_by.is_empty()),
        ("LIMIT in UPDATE", update.limit.is_some()),
    ])?;
    let target = Target::new(engine, session, &single_table(&update.table)?, params)?;
    target.refuse_stream("UPDATE")?;
    let key_columns = target.info.key_columns().len();
    let (mut assigned, mut computed) = (Vec::new(), Vec::new());
    for assignment in &update.assignments {
        let position = assigned_column(&target.info, assignment)?;
        let value = match literal_value(&target, position, &assignment.value)? {
            Some(value) => {
                check_value(&target.info, position, &value)?;
                Assigned::Constant(value)
            }
            None => {
                computed.push(assignment.value.clone());
                Assigned::Computed(key_columns + computed.len() - 1)
            }
        };
        assigned.push((position, value));
    }
    let query = changed_rows(&target.info, &update.table, update.selection.clone(), computed)?;
    let (mut events, mut writes) = (Vec::new(), Vec::new());
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
        let event = RowUpdated {
            partition: target.partition.as_ref().clone(),
            key: found.key.clone(),
            old: found.row,
            new: target.info.encode_row(&values)?,
        };
        events.push(ChangeEvent::RowUpdated(Box::new(event)).encode()?);
        writes.push(rely_on(&target, found.key, found.seq, false));
        Ok(())
    })
    .await?;
    target.finish(events, writes, "updated").await
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
        ("RETURNING", delete.returning.is_some()),
        ("ORDER BY in DELETE", !delete.order_by.is_empty()),
        ("LIMIT in DELETE", delete.limit.is_some()),
    ])?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    let [table] = tables.as_slice() else { return Err(Error::unsupported("DELETE of several tables")) };
    let target = Target::new(engine, session, &single_table(table)?, params)?;
    target.refuse_stream("DELETE")?;
    let query = changed_rows(&target.info, table, delete.selection.clone(), Vec::new())?;
    let (mut events, mut writes) = (Vec::new(), Vec::new());
    for_each_found(&target, query, |_, _, found| {
        let event = RowDeleted {
            partition: target.partition.as_ref().clone(),
            key: found.key.clone(),
            old: found.row,
        };
        events.push(ChangeEvent::RowDeleted(Box::new(event)).encode()?);
        writes.push(rely_on(&target, found.key, found.seq, true));
        Ok(())
    })
    .await?;
    target.finish(events, writes, "deleted").await
}

fn rely_on(target: &Target<'_>, key: Vec<u8>, seq: Seq, deletes: bool) -> RowWrite {
    RowWrite { partition: Arc::clone(&target.partition), key, expected: Expected::WrittenBy(seq), deletes }
}

fn refuse_clauses(clauses: &[(&str, bool)]) -> Result<()> {
    match clauses.iter().find(|(_, present)| *present) {
        None => Ok(()),
        Some((clause, _)) => Err(Error::unsupported(*clause)),
    }
}

fn single_table(table: &TableWithJoins) -> Result<TableName> {
    match &table.relation {
        TableFactor::Table { name, args: None, .. } if table.joins.is_empty() => table_name(name),
        _ => Err(Error::unsupported("changing anything but one table")),
    }
}

fn assigned_column(info: &TableInfo, assignment: &Assignment) -> Result<usize> {
    let AssignmentTarget::ColumnName(name) = &assignment.target else {
        return Err(Error::unsupported("assigning to several columns at once"));
    };
    let name = name.0.last().and_then(|part| part.as_ident()).map(identifier).unwrap_or_default();
    let position = column_position(info, &name)?;
    if info.key_columns().contains(&position) {
        return Err(Error::Unsupported {
            what: format!("changing {name}, which is part of the primary key"),
            hint: Some("delete the row and insert another"),
        });
    }
    Ok(position)
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

/// `SELECT key columns, computed FROM table WHERE selection`.
fn changed_rows(
    info: &TableInfo,
    table: &TableWithJoins,
    selection: Option<Expr>,
    computed: Vec<Expr>,
) -> Result<ast::Statement> {
    let mut template = Parser::new(&GenericDialect {}).try_with_sql("SELECT 1")?.parse_statement()?;
    if let ast::Statement::Query(query) = &mut template
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        let keys = info.key_columns().iter().filter_map(|at| info.columns().get(*at));
        let keys = keys
            .map(|column| SelectItem::UnnamedExpr(Expr::Identifier(Ident::with_quote('"', &column.name))));
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
