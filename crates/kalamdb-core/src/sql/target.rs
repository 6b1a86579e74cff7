//! The table that a statement changes, and the values that go into its columns.
//!
//! *Invariant*: the partition is that of the session, and the session may write the table.

use std::ops::Deref;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
};
use kalamdb_store::StoredRow;
use log_format::{ColumnDefault, Partition, RowReader, Seq, Value};
use serde_json::Value as Json;

use crate::catalog::nearest_name;
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::functions::Niladic;
use crate::provider::Scope;
use crate::session::Session;
use crate::sql::execute::require_write;
use crate::sql::literal;
use crate::sql::parse::{TableName, identifier};
use crate::sql::transaction::Transaction;
use crate::table::{SystemColumn, TableInfo};
use crate::values;
use crate::view::View;

/// What a statement runs with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) session: &'e Session,
    pub(crate) params: &'e [Json],
    /// The request's text, where this is all it is.
    pub(crate) text: Option<&'e str>,
    /// The transaction it is a part of; none where it is a commit of its own.
    pub(crate) transaction: Option<&'e Transaction>,
}

impl Context<'_> {
    /// What it reads.
    pub(crate) fn view(&self) -> Result<View> {
        match self.transaction {
            Some(transaction) => Ok(transaction.view()),
            None => Ok(View::of_cut(Arc::new(self.engine.store().cut()?))),
        }
    }

    /// The same for the query engine.
    pub(crate) fn scope(&self, system_columns: Vec<SystemColumn>) -> Result<Scope> {
        Ok(Scope::new(self.engine, self.session, self.view()?, system_columns))
    }
}

/// What a statement's rows are written with.
pub(crate) struct Target<'e> {
    pub(crate) context: Context<'e>,
    pub(crate) info: Arc<TableInfo>,
    /// What the statement calls the table instead of its name.
    pub(crate) alias: Option<String>,
    pub(crate) partition: Arc<Partition>,
    /// From before anything of the table was read: a flush since then moved rows that were looked for elsewhere.
    pub(crate) cold_as_of: Seq,
}

impl<'e> Deref for Target<'e> {
    type Target = Context<'e>;

    fn deref(&self) -> &Context<'e> {
        &self.context
    }
}

impl<'e> Target<'e> {
    pub(crate) fn new(context: Context<'e>, name: &TableName) -> Result<Self> {
        let info = context.engine.resolve(context.session, name)?;
        require_write(context.session, &info)?;
        Ok(Self::of_table(context, info))
    }

    /// The session's rows of a table that is only read, by a session that may.
    pub(crate) fn of_table(context: Context<'e>, info: Arc<TableInfo>) -> Self {
        let partition = Arc::new(context.session.partition(&info));
        let store = context.engine.store();
        // Where it cannot be told, or the first flush comes only now, the commit is tried anew.
        let as_of = store.has_cold_rows(info.id()).then(|| store.applied_seq().ok()).flatten();
        Self { context, info, alias: None, partition, cold_as_of: as_of.unwrap_or(Seq::ZERO) }
    }

    /// Refuses keys of new rows that the cold tier has. Of hot rows the sequencer knows.
    pub(crate) fn refuse_cold_duplicates<'k>(&self, keys: impl Iterator<Item = &'k Vec<u8>>) -> Result<()> {
        if !self.engine.store().has_cold_rows(self.info.id()) {
            return Ok(());
        }
        let cut = self.engine.store().cut()?;
        for key in keys {
            let is_live = |row: StoredRow<'_>| !row.deleted;
            if cut.get(self.info.keyspace(), &self.partition, key, is_live)?.unwrap_or_default() {
                return Err(self.info.duplicate_key(key));
            }
        }
        Ok(())
    }

    /// The row of this key, tombstones included, handed to `read`.
    pub(crate) fn get<T>(&self, key: &[u8], read: impl FnOnce(StoredRow<'_>) -> T) -> Result<Option<T>> {
        let keyspace = self.info.keyspace();
        match self.transaction {
            Some(transaction) => transaction.view().get(keyspace, &self.partition, key, read),
            // One row is a cut of its own.
            None => Ok(self.engine.store().get(keyspace, &self.partition, key, read)?),
        }
    }

    /// The same table under the name the statement gives it.
    pub(crate) fn with_alias(self, alias: Option<&Ident>) -> Self {
        Self { alias: alias.map(identifier), ..self }
    }

    pub(crate) fn refuse_stream(&self, verb: &str) -> Result<()> {
        if self.info.stream().is_none() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!("{verb} on the stream table {}", self.info.full_name()),
            hint: Some("stream rows are only appended, and go by themselves"),
        })
    }

    /// The value of a column that an INSERT does not name.
    pub(crate) fn default(&self, position: usize) -> Result<Value> {
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

/// The position of a column that a statement writes.
pub(crate) fn column_position(info: &TableInfo, ident: &Ident) -> Result<usize> {
    let name = identifier(ident);
    if SystemColumn::ALL.iter().any(|system| system.name() == name) {
        return Err(
            Error::definition(format!("{name} is filled by the system and cannot be written")).at(ident)
        );
    }
    info.column_position(&name).ok_or_else(|| {
        let columns: Vec<&str> = info.columns().iter().map(|column| column.name.as_str()).collect();
        let instead = nearest_name(&name, columns.iter().copied())
            .map_or_else(|| format!("it has {}", columns.join(", ")), |near| format!("did you mean {near}?"));
        Error::definition(format!("{} has no column {name}; {instead}", info.full_name())).at(ident)
    })
}

/// The columns that assignments change, each once, with what they become. One that gives a column of the key its own value changes
/// nothing.
pub(crate) fn assignments<'a>(info: &TableInfo, list: &'a [Assignment]) -> Result<Vec<(usize, &'a Expr)>> {
    let mut assigned: Vec<(usize, &Expr)> = Vec::with_capacity(list.len());
    for assignment in list {
        for (name, value) in assigned_values(assignment)? {
            let position = column_position(info, name)?;
            if info.key_columns().contains(&position) {
                if is_own_value(name, value) {
                    continue;
                }
                let refused = Error::Unsupported {
                    what: format!("changing {name}, which is part of the primary key"),
                    hint: Some("delete the row and insert another"),
                };
                return Err(refused.at(name));
            }
            if assigned.iter().any(|(other, _)| *other == position) {
                let name =
                    info.columns().get(position).map(|column| column.name.as_str()).unwrap_or_default();
                return Err(Error::definition(format!("the column {name} is assigned to twice"))
                    .at(assigned_values(assignment)?.first().map_or(&Ident::new(""), |(name, _)| *name)));
            }
            assigned.push((position, value));
        }
    }
    Ok(assigned)
}

/// Whether a value is that of the column itself: `id`, `t.id`, `excluded.id`.
fn is_own_value(column: &Ident, value: &Expr) -> bool {
    let last = match value {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    last.is_some_and(|ident| identifier(ident) == identifier(column))
}

/// The columns of one assignment, with their values: `a = x`, `(a, b) = (x, y)`, `(a, b) = ROW(x, y)`.
fn assigned_values(assignment: &Assignment) -> Result<Vec<(&Ident, &Expr)>> {
    let names = match &assignment.target {
        AssignmentTarget::ColumnName(name) => return Ok(vec![(column_name(name)?, &assignment.value)]),
        AssignmentTarget::Tuple(names) => names.iter().map(column_name).collect::<Result<Vec<_>>>()?,
    };
    let values: Option<Vec<&Expr>> = match &assignment.value {
        Expr::Tuple(values) => Some(values.iter().collect()),
        Expr::Nested(value) => Some(vec![value.as_ref()]),
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("row") => match &call.args {
            FunctionArguments::List(list) => list.args.iter().map(argument).collect(),
            _ => None,
        },
        _ => None,
    };
    match values {
        Some(values) if values.len() == names.len() => Ok(names.into_iter().zip(values).collect()),
        _ => Err(Error::Unsupported {
            what: format!("assigning {} to several columns", assignment.value),
            hint: Some("write (a, b) = (x, y), with as many values as columns, or an assignment for each"),
        }),
    }
}

fn argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The column that a name ends with.
pub(crate) fn column_name(name: &ObjectName) -> Result<&Ident> {
    let column = name.0.last().and_then(|part| part.as_ident());
    column.ok_or_else(|| Error::definition(format!("{name} is no name of a column")))
}

/// The value an expression writes for a column, where it takes no query engine to know it.
pub(crate) fn literal_value(
    target: &Target<'_>,
    position: usize,
    expression: &Expr,
) -> Result<Option<Value>> {
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

/// Checks NOT NULL.
pub(crate) fn check_value(info: &TableInfo, position: usize, value: &Value) -> Result<()> {
    let nullable = info.columns().get(position).is_none_or(|column| column.nullable);
    if value.is_null() && !nullable {
        return Err(info.constraint(position, "a value is required (NOT NULL)"));
    }
    Ok(())
}

/// Arrays as ones of these columns' types.
pub(crate) fn cast_columns(
    info: &TableInfo,
    columns: &[usize],
    arrays: &[ArrayRef],
) -> Result<Vec<ArrayRef>> {
    let pairs = columns.iter().zip(arrays);
    pairs
        .map(|(position, array)| {
            let Some(column) = info.columns().get(*position) else { return Ok(Arc::clone(array)) };
            values::cast_to(array, column.data_type)
                .map_err(|error| info.constraint(*position, error.to_string()))
        })
        .collect()
}

/// The value at `row` of an array of a column's type.
pub(crate) fn value_of(info: &TableInfo, position: usize, array: &dyn Array, row: usize) -> Result<Value> {
    let Some(column) = info.columns().get(position) else { return Ok(Value::Null) };
    values::value_at(array, row, column.data_type)
}

/// Refuses the first clause that is there.
pub(crate) fn refuse_clauses(clauses: &[(&str, bool)]) -> Result<()> {
    match clauses.iter().find(|(_, present)| *present) {
        None => Ok(()),
        Some((clause, _)) => Err(Error::unsupported(*clause)),
    }
}
