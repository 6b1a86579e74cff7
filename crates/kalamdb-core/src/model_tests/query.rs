//! SELECTs: of rows, of totals, of groups.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kalamdb_log::simulation::Random;
use log_format::DataType;
use serde_json::Value as Json;

use super::condition::{Condition, is_comparable};
use super::schema::{Column, Refused, Table};
use super::statement::{Expected, Name, Tables, full};
use super::values::{Cell, name};
use crate::{ErrorCode, Session};

#[derive(Clone, Debug)]
enum Shape {
    /// Every column, or these; with `_deleted`, and so with what is deleted.
    Rows { columns: Option<Vec<String>>, with_deleted: bool },
    /// `function(column)` of all rows; `rows` for `count(*)`.
    Totals(Vec<(&'static str, String)>),
    /// How many rows have each value.
    Groups(String),
}

#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) table: Name,
    shape: Shape,
    condition: Condition,
    /// By these, the first before the others; true for falling.
    order: Vec<(String, bool)>,
    limit: Option<(usize, usize)>,
    pub(super) has_params: bool,
}

impl Query {
    pub(super) fn any(random: &mut Random, at: &Name, table: &Table, in_transaction: bool) -> Self {
        let condition = Condition::any(random, table, 2);
        let shape = any_shape(random, table);
        let (mut order, mut limit) = (Vec::new(), None);
        if let Shape::Rows { .. } = shape
            && random.per_mille(400)
        {
            let free = table
                .columns
                .iter()
                .filter(|column| !table.is_key(column) && is_comparable(column.data_type));
            let free: Vec<&Column> = free.collect();
            let first = free.get(random.below(free.len() + 1));
            let by = first.into_iter().copied().chain(table.key_columns());
            order = by.map(|column| (column.name.clone(), random.per_mille(400))).collect();
            limit = random.per_mille(600).then(|| (random.below(6), random.below(3)));
        }
        let has_params = !in_transaction && random.per_mille(500);
        Self { table: at.clone(), shape, condition, order, limit, has_params }
    }

    /// All there is, deleted rows too.
    pub(super) fn everything(at: &Name) -> Self {
        Self {
            table: at.clone(),
            shape: Shape::Rows { columns: None, with_deleted: true },
            condition: Condition::All,
            order: Vec::new(),
            limit: None,
            has_params: false,
        }
    }

    /// The same text with other values.
    pub(super) fn renew(&mut self, random: &mut Random, table: &Table) {
        self.condition.renew(random, table);
    }

    pub(super) fn sql(&self, table: Option<&Table>, params: &mut Option<Vec<Json>>) -> String {
        let items = match &self.shape {
            Shape::Rows { columns, with_deleted } => {
                let columns = columns.as_ref().map_or_else(|| "*".to_owned(), |columns| names(columns));
                if *with_deleted { format!("{columns}, _deleted") } else { columns }
            }
            Shape::Totals(totals) => {
                let total = |(function, column): &(&str, String)| match (*function, column.as_str()) {
                    ("distinct", column) => format!("count(DISTINCT {})", name(column)),
                    ("rows", _) => "count(*)".to_owned(),
                    (function, column) => format!("{function}({})", name(column)),
                };
                totals.iter().map(total).collect::<Vec<_>>().join(", ")
            }
            Shape::Groups(column) => format!("{}, count(*)", name(column)),
        };
        let mut sql = format!("SELECT {items} FROM {}", full(&self.table));
        if let (Some(table), false) = (table, matches!(self.condition, Condition::All)) {
            write!(sql, " WHERE {}", self.condition.sql(table, params)).unwrap();
        }
        if let Shape::Groups(column) = &self.shape {
            write!(sql, " GROUP BY {}", name(column)).unwrap();
        }
        if !self.order.is_empty() {
            let by = |(column, falls): &(String, bool)| {
                format!("{}{}", name(column), if *falls { " DESC" } else { "" })
            };
            write!(sql, " ORDER BY {}", self.order.iter().map(by).collect::<Vec<_>>().join(", ")).unwrap();
        }
        if let Some((limit, offset)) = self.limit {
            write!(sql, " LIMIT {limit} OFFSET {offset}").unwrap();
        }
        sql
    }

    /// Whether it means the same once a column of its table has another type.
    pub(super) const fn is_of_any_type(&self) -> bool {
        matches!(self.shape, Shape::Rows { .. })
    }

    /// Whether every column that it names is there.
    fn is_known(&self, table: &Table) -> bool {
        let named: Vec<&String> = match &self.shape {
            Shape::Rows { columns, .. } => columns.iter().flatten().collect(),
            Shape::Totals(totals) => totals.iter().map(|(_, column)| column).collect(),
            Shape::Groups(column) => vec![column],
        };
        let by = self.order.iter().map(|(column, _)| column);
        let mut all = named.into_iter().chain(by).filter(|column| !column.is_empty());
        // Nothing is drawn where only names are looked for.
        let condition = self.condition.clone().renew(&mut Random::new(0), table);
        condition && all.all(|column| table.column(column).is_some())
    }

    pub(super) fn answer(&self, tables: &Tables, who: &Session) -> Refused<Expected> {
        let table = tables.get(&self.table).ok_or(ErrorCode::TableNotFound)?;
        if !table.may_read(who) {
            return Err(ErrorCode::PermissionDenied);
        }
        if !self.is_known(table) {
            return Err(ErrorCode::InvalidSql);
        }
        let with_deleted = matches!(self.shape, Shape::Rows { with_deleted: true, .. });
        let found = table.rows_of(who).filter(|row| with_deleted || !row.deleted);
        let mut found: Vec<_> = found.filter(|row| self.condition.holds(table, &row.cells)).collect();
        let id = |column: &str| table.column(column).unwrap().id;
        let rows = match &self.shape {
            Shape::Rows { columns, .. } => {
                let by: Vec<(u32, bool)> =
                    self.order.iter().map(|(name, falls)| (id(name), *falls)).collect();
                found.sort_by(|left, right| ordered(&by, &left.cells, &right.cells));
                let (limit, offset) = self.limit.unwrap_or((usize::MAX, 0));
                let ids: Vec<u32> = match columns {
                    Some(columns) => columns.iter().map(|column| id(column)).collect(),
                    // A key that the table makes by itself is not shown, where there is something else.
                    None => {
                        let is_shown = |column: &&Column| column.name != "_id" || table.columns.len() == 1;
                        table.columns.iter().filter(is_shown).map(|column| column.id).collect()
                    }
                };
                let deleted = |flag: bool| with_deleted.then_some(Cell::Flag(flag));
                let row = |row: &&super::schema::Row| -> Vec<Cell> {
                    ids.iter().map(|id| row.cells[id].clone()).chain(deleted(row.deleted)).collect()
                };
                found.iter().skip(offset).take(limit).map(row).collect()
            }
            Shape::Totals(totals) => {
                let total = |(function, column): &(&'static str, String)| {
                    let id = table.column(column).map(|column| column.id);
                    let cells = found.iter().filter_map(|row| id.map(|id| &row.cells[&id]));
                    total(function, found.len(), cells.filter(|cell| !cell.is_null()))
                };
                vec![totals.iter().map(total).collect()]
            }
            Shape::Groups(column) => {
                let mut groups: BTreeMap<&Cell, i64> = BTreeMap::new();
                for row in &found {
                    *groups.entry(&row.cells[&id(column)]).or_default() += 1;
                }
                groups.into_iter().map(|(cell, count)| vec![cell.clone(), Cell::Whole(count)]).collect()
            }
        };
        let count = rows.len() as u64;
        Ok(Expected { rows: Some(rows), in_order: !self.order.is_empty(), count })
    }
}

fn any_shape(random: &mut Random, table: &Table) -> Shape {
    let mut columns = table.columns.clone();
    let first = columns.remove(random.below(columns.len()));
    // DataFusion groups and compares floats its own way here: by bits, and NaN apart.
    let is_simple = !matches!(
        first.data_type,
        DataType::Float | DataType::Double | DataType::Embedding(_) | DataType::Bytes
    );
    match random.below(10) {
        0..3 => Shape::Rows { columns: None, with_deleted: random.per_mille(300) },
        3..6 => {
            let more = columns.into_iter().filter(|_| random.per_mille(300)).map(|column| column.name);
            let columns: Vec<String> = [first.name].into_iter().chain(more).collect();
            Shape::Rows { columns: Some(columns), with_deleted: random.per_mille(200) }
        }
        6 | 7 if is_simple => {
            let mut totals = vec![("rows", String::new()), ("count", first.name.clone())];
            totals.extend(["distinct", "min", "max"].map(|function| (function, first.name.clone())));
            if matches!(first.data_type, DataType::SmallInt | DataType::Int) {
                totals.push(("sum", first.name.clone()));
            }
            Shape::Totals(totals)
        }
        8 if is_simple => Shape::Groups(first.name),
        _ => Shape::Totals(vec![("rows", String::new()), ("count", first.name)]),
    }
}

/// NULL comes last, and first where the order falls.
fn ordered(by: &[(u32, bool)], left: &BTreeMap<u32, Cell>, right: &BTreeMap<u32, Cell>) -> Ordering {
    let one = |(id, falls): &(u32, bool)| {
        let (left, right) = (&left[id], &right[id]);
        let order = left.is_null().cmp(&right.is_null()).then_with(|| left.cmp(right));
        if *falls { order.reverse() } else { order }
    };
    by.iter().map(one).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn total<'c>(function: &str, rows: usize, cells: impl Iterator<Item = &'c Cell>) -> Cell {
    let cells: Vec<&Cell> = cells.collect();
    let whole = |number: usize| Cell::Whole(i64::try_from(number).unwrap());
    match function {
        "rows" => whole(rows),
        "count" => whole(cells.len()),
        "distinct" => whole(cells.iter().collect::<BTreeSet<_>>().len()),
        "min" => cells.into_iter().min().cloned().unwrap_or(Cell::Null),
        "max" => cells.into_iter().max().cloned().unwrap_or(Cell::Null),
        _ => cells.iter().fold(Cell::Null, |sum, cell| match (sum, cell) {
            (Cell::Whole(sum), Cell::Whole(more)) => Cell::Whole(sum.wrapping_add(*more)),
            (_, more) => (*more).clone(),
        }),
    }
}

fn names(columns: &[String]) -> String {
    columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ")
}
