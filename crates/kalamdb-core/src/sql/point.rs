//! Statements about one row that name its whole primary key: the row is read by that key, and nothing is planned.
//!
//! *Invariant*: what is done here gives what the query engine would give. Whatever is not certainly so is left to it.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, GroupByExpr, Ident, SelectItem, SetExpr, TableFactor, UnaryOperator,
    Value as Literal,
};
use log_format::{DataType, Value};
use serde_json::Value as Json;

use crate::error::Result;
use crate::rows::RowHead;
use crate::sql::execute::{StatementResult, require_read};
use crate::sql::literal::{self, parameter_number};
use crate::sql::parse::{identifier, table_name};
use crate::sql::returning::Returning;
use crate::sql::target::{Context, Target};
use crate::table::SystemColumn;

/// A SELECT of columns of one row; none where it is anything else.
pub(crate) fn select(context: Context<'_>, statement: &ast::Statement) -> Result<Option<StatementResult>> {
    let Some((select, table)) = plain_select(statement) else { return Ok(None) };
    let TableFactor::Table { name, alias, .. } = table else { return Ok(None) };
    let Ok(name) = table_name(name) else { return Ok(None) };
    // A table that is not there, or may not be read, is for the query engine to refuse.
    let Ok(info) = context.engine.resolve(context.session, &name) else { return Ok(None) };
    if info.stream().is_some() || require_read(context.session, &info).is_err() {
        return Ok(None);
    }
    let alias = alias.as_ref().map(|alias| &alias.name);
    let target = Target::of_table(context, info).with_alias(alias);
    let Some(key) = select.selection.as_ref().and_then(|selection| key_of(&target, selection)) else {
        return Ok(None);
    };
    let Some(items) = select.projection.iter().map(|item| bare(&target, item)).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    let Ok(shown) = Returning::new(&target, &items) else { return Ok(None) };
    let mut names: Vec<&String> = shown.schema().fields().iter().map(|field| field.name()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        return Ok(None);
    }
    let with_deleted = shown.names(SystemColumn::Deleted);
    let found = target.get(&key, |row| {
        let head = RowHead { seq: row.seq, updated: row.updated, deleted: row.deleted };
        (!row.deleted || with_deleted).then(|| shown.rows(&target.info, &[row.row], |_| head))
    })?;
    let batches = found.flatten().transpose()?.unwrap_or_default();
    Ok(Some(StatementResult {
        schema: Arc::clone(shown.schema()),
        row_count: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
        batches,
        message: None,
        as_user: context.session.user().clone(),
    }))
}

/// `SELECT items FROM table WHERE condition` and nothing else.
fn plain_select(statement: &ast::Statement) -> Option<(&ast::Select, &TableFactor)> {
    let ast::Statement::Query(query) = statement else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let of_query = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty();
    let of_select = select.distinct.is_none()
        && select.select_modifiers.is_none()
        && select.top.is_none()
        && select.exclude.is_none()
        && select.into.is_none()
        && select.lateral_views.is_empty()
        && select.prewhere.is_none()
        && select.connect_by.is_empty()
        && matches!(&select.group_by, GroupByExpr::Expressions(by, with) if by.is_empty() && with.is_empty())
        && select.cluster_by.is_empty()
        && select.distribute_by.is_empty()
        && select.sort_by.is_empty()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.qualify.is_none()
        && select.value_table_mode.is_none();
    let [from] = select.from.as_slice() else { return None };
    let of_table = from.joins.is_empty() && is_plain_table(&from.relation);
    (of_query && of_select && of_table).then_some((select, &from.relation))
}

/// A table by its name, perhaps under another.
fn is_plain_table(table: &TableFactor) -> bool {
    let TableFactor::Table {
        name: _,
        alias,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = table
    else {
        return false;
    };
    let renames = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
    with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() && !renames
}

/// An item of a SELECT that is a column or all of them, with the column's table left out.
fn bare(target: &Target<'_>, item: &SelectItem) -> Option<SelectItem> {
    match item {
        SelectItem::Wildcard(_) => Some(item.clone()),
        SelectItem::UnnamedExpr(expression) => {
            column(target, expression).map(|column| SelectItem::UnnamedExpr(Expr::Identifier(column.clone())))
        }
        SelectItem::ExprWithAlias { expr, alias } => column(target, expr).map(|column| {
            SelectItem::ExprWithAlias { expr: Expr::Identifier(column.clone()), alias: alias.clone() }
        }),
        _ => None,
    }
}

/// The column an expression names, if that is all it does.
fn column<'e>(target: &Target<'_>, expression: &'e Expr) -> Option<&'e Ident> {
    let column = match expression {
        Expr::Identifier(column) => column,
        Expr::CompoundIdentifier(parts) => {
            let (column, table) = parts.split_last()?;
            let table: Vec<String> = table.iter().map(identifier).collect();
            target.is_named(&table).then_some(column)?
        }
        _ => return None,
    };
    let name = identifier(column);
    let is_system = target.info.system_columns().iter().any(|system| system.name() == name);
    (is_system || target.info.column_position(&name).is_some()).then_some(column)
}

/// The key of the one row that a condition is about; none where it says more, or less.
pub(crate) fn key_of(target: &Target<'_>, condition: &Expr) -> Option<Vec<u8>> {
    let mut values: Vec<Option<Value>> = vec![None; target.info.columns().len()];
    let mut open = vec![condition];
    let mut count = 0;
    while let Some(part) = open.pop() {
        match part {
            Expr::Nested(inner) => open.push(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.extend([left.as_ref(), right.as_ref()]);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let (column, literal) = match column(target, left) {
                    Some(column) => (column, right),
                    None => (column(target, right)?, left),
                };
                let position = target.info.column_position(&identifier(column))?;
                let data_type = target.info.columns().get(position)?.data_type;
                let slot = values.get_mut(position)?;
                // Two conditions on a column may contradict each other.
                if slot.is_some() || !target.info.key_columns().contains(&position) {
                    return None;
                }
                *slot = Some(exact(literal, data_type, target.params)?);
                count += 1;
            }
            _ => return None,
        }
    }
    if count < target.info.key_columns().len() {
        return None;
    }
    let values: Vec<Value> = values.into_iter().map(|value| value.unwrap_or(Value::Null)).collect();
    target.info.encode_key(&values).ok()
}

/// The value of a literal or parameter of the very kind that a column of this type is compared with; none where the query
/// engine would have to convert one into the other.
fn exact(expression: &Expr, data_type: DataType, params: &[Json]) -> Option<Value> {
    let kind = kind_of(expression, params)?;
    let fits = match (data_type, &kind) {
        (DataType::SmallInt | DataType::Int | DataType::BigInt, Kind::Number(text)) => {
            !text.contains(['.', 'e', 'E'])
        }
        (DataType::Decimal { scale, .. }, Kind::Number(text)) => {
            let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            !text.contains(['e', 'E']) && decimals <= usize::from(scale)
        }
        (DataType::Text | DataType::Date, Kind::Text(_)) | (DataType::Boolean, Kind::Boolean) => true,
        // Finer than microseconds is rounded by one and cut off by another.
        (DataType::Timestamp, Kind::Text(text)) => text.len() <= "2000-01-01T00:00:00.000000".len(),
        // UUIDs are compared as their text.
        (DataType::Uuid, Kind::Text(text)) => {
            uuid::Uuid::parse_str(text).is_ok_and(|id| id.hyphenated().to_string() == *text)
        }
        _ => false,
    };
    if !fits {
        return None;
    }
    literal::value(expression, data_type, params).ok()?.filter(|value| !value.is_null())
}

/// What kind of literal it is.
enum Kind {
    Number(String),
    Text(String),
    Boolean,
}

fn kind_of(expression: &Expr, params: &[Json]) -> Option<Kind> {
    match expression {
        Expr::Nested(inner) => kind_of(inner, params),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            kind_of(expr, &[]).filter(|kind| matches!(kind, Kind::Number(_)))
        }
        Expr::Value(literal) => match &literal.value {
            Literal::Number(text, _) => Some(Kind::Number(text.clone())),
            Literal::SingleQuotedString(text) => Some(Kind::Text(text.clone())),
            Literal::Boolean(_) => Some(Kind::Boolean),
            Literal::Placeholder(name) => match params.get(parameter_number(name)?.checked_sub(1)?)? {
                Json::Number(number) => Some(Kind::Number(number.to_string())),
                Json::String(text) => Some(Kind::Text(text.clone())),
                Json::Bool(_) => Some(Kind::Boolean),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
