//! Statements that change rows: as SQL, and what they do to the model.

use std::collections::{BTreeMap, BTreeSet};

use kalamdb_log::simulation::Random;
use log_format::{DataType, Role};
use serde_json::Value as Json;

use super::condition::Condition;
use super::query::Query;
use super::schema::{Column, Default, Key, Refused, Row, Rows, Table};
use super::values::{Cell, as_parameter, name, written};
use crate::{ErrorCode, Session};

/// A table's namespace and name.
pub(super) type Name = (String, String);
pub(super) type Tables = BTreeMap<Name, Table>;

/// What becomes of rows: by key, the cells, or none for one that goes.
type Puts = Vec<(Key, Option<BTreeMap<u32, Cell>>)>;

/// As SQL names it.
pub(super) fn full((namespace, table): &Name) -> String {
    format!("{}.{}", name(namespace), name(table))
}

/// What a statement is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// Its rows; none where it only says how many.
    pub(super) rows: Option<Vec<Vec<Cell>>>,
    pub(super) in_order: bool,
    pub(super) count: u64,
}

/// A value that INSERT gives.
#[derive(Clone, Debug)]
pub(super) enum Given {
    Cell(Cell),
    Default,
}

/// A value that SET gives.
#[derive(Clone, Debug)]
pub(super) enum Assigned {
    Constant(Cell),
    Default,
    /// That of another column of the row.
    Column(String),
    PlusOne,
    /// That of the row that could not be inserted.
    Excluded(String),
}

#[derive(Clone, Debug)]
pub(super) enum Conflict {
    Nothing,
    /// With a column for `WHERE table.column IS DISTINCT FROM excluded.column`.
    Update {
        set: Vec<(String, Assigned)>,
        distinct: Option<String>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Verb {
    Insert {
        columns: Option<Vec<String>>,
        rows: Vec<Vec<Given>>,
        conflict: Option<Conflict>,
    },
    /// INSERT … SELECT; pairs of the column written and the one read.
    Copy {
        from: Name,
        columns: Vec<(String, String)>,
        condition: Condition,
    },
    Update {
        set: Vec<(String, Assigned)>,
        condition: Condition,
    },
    Delete {
        condition: Condition,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) table: Name,
    pub(super) verb: Verb,
    /// Whether it ends with RETURNING *.
    pub(super) returns: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Statement {
    Change(Change),
    Select(Query),
    Stats(Name),
}

/// Statements between BEGIN and COMMIT, or one: what they found, what they make of it.
pub(super) struct Work<'m> {
    pub(super) before: &'m Tables,
    pub(super) tables: Tables,
    /// Rows that were changed, by table, owner and key.
    pub(super) touched: BTreeSet<(Name, String, Key)>,
    /// Stands for what an engine that refuses would have made up: like nothing else.
    made_up: i64,
}

impl<'m> Work<'m> {
    pub(super) fn on(before: &'m Tables) -> Self {
        Self { before, tables: before.clone(), touched: BTreeSet::new(), made_up: 1 << 60 }
    }

    /// Does it; `answer` tells what the engine made up.
    pub(super) fn run(
        &mut self,
        statement: &Statement,
        who: &Session,
        answer: Option<&[Vec<Cell>]>,
    ) -> Refused<Expected> {
        match statement {
            Statement::Select(query) => query.answer(&self.tables, who),
            Statement::Stats(at) => self.stats(at, who),
            Statement::Change(change) => {
                let table = self.tables.get(&change.table).ok_or(ErrorCode::TableNotFound)?;
                if !table.may_write(who) {
                    return Err(ErrorCode::PermissionDenied);
                }
                let changed = self.change(change, who, answer)?;
                let columns = &self.tables[&change.table].columns;
                let row = |cells: &BTreeMap<u32, Cell>| -> Vec<Cell> {
                    columns.iter().map(|column| cells[&column.id].clone()).collect()
                };
                let rows = change.returns.then(|| changed.iter().map(row).collect());
                Ok(Expected { rows, in_order: false, count: changed.len() as u64 })
            }
        }
    }

    /// Counters tell of what is committed; a transaction's own changes are not in them yet.
    fn stats(&self, at: &Name, who: &Session) -> Refused<Expected> {
        let table = self.before.get(at).ok_or(ErrorCode::TableNotFound)?;
        if !table.may_read(who) {
            return Err(ErrorCode::PermissionDenied);
        }
        let owner = (who.role() < Role::Service).then(|| table.owner(who));
        let count = i64::try_from(table.live_count(owner.as_deref())).unwrap();
        Ok(Expected { rows: Some(vec![vec![Cell::Whole(count)]]), in_order: true, count: 1 })
    }

    /// The rows it returns.
    fn change(
        &mut self,
        change: &Change,
        who: &Session,
        answer: Option<&[Vec<Cell>]>,
    ) -> Refused<Vec<BTreeMap<u32, Cell>>> {
        let table = self.tables[&change.table].clone();
        let owner = table.owner(who);
        let own = table.rows.get(&owner).cloned().unwrap_or_default();
        let live = || own.iter().filter(|(_, row)| !row.deleted);
        let mut puts: Puts = Vec::new();
        let mut returned = Vec::new();
        match &change.verb {
            Verb::Insert { columns, rows, conflict } => {
                check_set(&table, conflict.as_ref())?;
                let rows = self.complete(&table, columns.as_deref(), rows, who, answer)?;
                puts = inserts(&table, &own, rows, conflict.as_ref(), who)?;
            }
            Verb::Copy { from, columns, condition } => {
                let source = self.tables.get(from).ok_or(ErrorCode::TableNotFound)?;
                if !source.may_read(who) {
                    return Err(ErrorCode::PermissionDenied);
                }
                let found =
                    source.rows_of(who).filter(|row| !row.deleted && condition.holds(source, &row.cells));
                let id = |column: &str| source.column(column).unwrap().id;
                let given = found.map(|row| {
                    columns.iter().map(|(_, read)| Given::Cell(row.cells[&id(read)].clone())).collect()
                });
                let given: Vec<Vec<Given>> = given.collect();
                let names: Vec<String> = columns.iter().map(|(write, _)| write.clone()).collect();
                let rows = self.complete(&table, Some(&names), &given, who, answer)?;
                puts = inserts(&table, &own, rows, None, who)?;
            }
            Verb::Update { set, condition } => {
                check_assigned(&table, set)?;
                for (key, row) in live().filter(|(_, row)| condition.holds(&table, &row.cells)) {
                    puts.push((key.clone(), Some(assigned(&table, set, &row.cells, &row.cells, who)?)));
                }
            }
            Verb::Delete { condition } => {
                for (key, row) in live().filter(|(_, row)| condition.holds(&table, &row.cells)) {
                    puts.push((key.clone(), None));
                    returned.push(row.cells.clone());
                }
            }
        }
        returned.extend(puts.iter().filter_map(|(_, cells)| cells.clone()));
        for (key, cells) in puts {
            self.put(&change.table, &owner, key, cells);
        }
        Ok(returned)
    }

    /// What a row becomes. One that goes leaves a tombstone with what was there before all of this.
    fn put(&mut self, at: &Name, owner: &str, key: Key, cells: Option<BTreeMap<u32, Cell>>) {
        self.touched.insert((at.clone(), owner.to_owned(), key.clone()));
        let row = match cells {
            Some(cells) => Some(Row { cells, deleted: false }),
            None => {
                let before = self.before[at].rows.get(owner).and_then(|rows| rows.get(&key));
                before.map(|row| Row { cells: row.cells.clone(), deleted: true })
            }
        };
        let rows = self.tables.get_mut(at).unwrap().rows.entry(owner.to_owned()).or_default();
        match row {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }

    /// Rows with a value in every column.
    fn complete(
        &mut self,
        table: &Table,
        columns: Option<&[String]>,
        rows: &[Vec<Given>],
        who: &Session,
        answer: Option<&[Vec<Cell>]>,
    ) -> Refused<Vec<BTreeMap<u32, Cell>>> {
        let named: Vec<&Column> = match columns {
            Some(names) => names
                .iter()
                .map(|name| table.column(name).ok_or(ErrorCode::InvalidSql))
                .collect::<Refused<_>>()?,
            None => table.columns.iter().filter(|column| column.name != "_id").collect(),
        };
        let mut complete = Vec::new();
        for (nth, row) in rows.iter().enumerate() {
            let mut cells = BTreeMap::new();
            for (position, column) in table.columns.iter().enumerate() {
                let given = named.iter().position(|named| named.id == column.id).map(|at| &row[at]);
                let cell = match given {
                    Some(Given::Cell(cell)) => cell.clone(),
                    _ => match by_default(column, who) {
                        Some(cell) => cell,
                        None => match answer.and_then(|rows| rows.get(nth)) {
                            Some(row) => row[position].clone(),
                            None => {
                                self.made_up += 1;
                                Cell::Whole(self.made_up)
                            }
                        },
                    },
                };
                if cell.is_null() && !column.nullable {
                    return Err(ErrorCode::ConstraintViolation);
                }
                cells.insert(column.id, cell);
            }
            complete.push(cells);
        }
        Ok(complete)
    }
}

/// The value of a column that is not given; none where the engine makes it up.
fn by_default(column: &Column, who: &Session) -> Option<Cell> {
    match &column.default {
        None => Some(Cell::Null),
        Some(Default::Constant(cell)) => Some(cell.clone()),
        Some(Default::CurrentUser) => Some(Cell::Text(who.user().to_string())),
        Some(Default::CurrentRole) => Some(Cell::Text(crate::role_name(who.role()).to_owned())),
        Some(Default::Snowflake | Default::Now) => None,
    }
}

fn inserts(
    table: &Table,
    own: &Rows,
    rows: Vec<BTreeMap<u32, Cell>>,
    conflict: Option<&Conflict>,
    who: &Session,
) -> Refused<Puts> {
    let mut puts: Puts = Vec::new();
    let mut seen = BTreeSet::new();
    for cells in rows {
        let key = table.key_of(&cells);
        let is_first = seen.insert(key.clone());
        let there = own.get(&key).filter(|row| !row.deleted);
        match (conflict, there) {
            (Some(Conflict::Nothing), _) if !is_first => {}
            (_, _) if !is_first => return Err(ErrorCode::ConstraintViolation),
            (_, None) => puts.push((key, Some(cells))),
            (None, Some(_)) => return Err(ErrorCode::ConstraintViolation),
            (Some(Conflict::Nothing), Some(_)) => {}
            (Some(Conflict::Update { set, distinct }), Some(row)) => {
                let is_distinct = distinct.as_ref().is_none_or(|column| {
                    let id = table.column(column).unwrap().id;
                    row.cells[&id] != cells[&id]
                });
                if is_distinct {
                    puts.push((key, Some(assigned(table, set, &row.cells, &cells, who)?)));
                }
            }
        }
    }
    Ok(puts)
}

fn check_set(table: &Table, conflict: Option<&Conflict>) -> Refused<()> {
    match conflict {
        Some(Conflict::Update { set, .. }) => check_assigned(table, set),
        _ => Ok(()),
    }
}

/// What is refused whatever rows there are.
fn check_assigned(table: &Table, set: &[(String, Assigned)]) -> Refused<()> {
    for (name, _) in set {
        let column = table.column(name).ok_or(ErrorCode::InvalidSql)?;
        if table.is_key(column) {
            return Err(ErrorCode::Unsupported);
        }
    }
    for (name, value) in set {
        let column = table.column(name).unwrap();
        let is_null = match value {
            Assigned::Constant(cell) => cell.is_null(),
            Assigned::Default => {
                column.default.as_ref().is_none_or(|default| *default == Default::Constant(Cell::Null))
            }
            _ => false,
        };
        if is_null && !column.nullable {
            return Err(ErrorCode::ConstraintViolation);
        }
    }
    Ok(())
}

fn assigned(
    table: &Table,
    set: &[(String, Assigned)],
    row: &BTreeMap<u32, Cell>,
    excluded: &BTreeMap<u32, Cell>,
    who: &Session,
) -> Refused<BTreeMap<u32, Cell>> {
    let id = |name: &str| table.column(name).unwrap().id;
    let mut cells = row.clone();
    for (name, value) in set {
        let column = table.column(name).unwrap();
        let cell = match value {
            Assigned::Constant(cell) => cell.clone(),
            Assigned::Default => by_default(column, who).unwrap(),
            Assigned::Column(other) => row[&id(other)].clone(),
            Assigned::Excluded(other) => excluded[&id(other)].clone(),
            Assigned::PlusOne => match &row[&column.id] {
                Cell::Whole(value) => {
                    let most = match column.data_type {
                        DataType::SmallInt => i16::MAX.into(),
                        DataType::Int => i32::MAX.into(),
                        _ => i64::MAX,
                    };
                    if *value == most {
                        return Err(ErrorCode::ConstraintViolation);
                    }
                    Cell::Whole(value + 1)
                }
                _ => Cell::Null,
            },
        };
        if cell.is_null() && !column.nullable {
            return Err(ErrorCode::ConstraintViolation);
        }
        cells.insert(column.id, cell);
    }
    Ok(cells)
}

// ── as SQL ──

impl Statement {
    /// Its text; with `params` there, values go into them.
    pub(super) fn sql(&self, random: &mut Random, tables: &Tables, params: &mut Option<Vec<Json>>) -> String {
        match self {
            Self::Select(query) => query.sql(tables.get(&query.table), params),
            Self::Stats(at) => format!("SHOW STATS FOR TABLE {}", full(at)),
            Self::Change(change) => {
                let returning = if change.returns { " RETURNING *" } else { "" };
                format!("{}{returning}", change.sql(random, tables, params))
            }
        }
    }
}

impl Change {
    fn sql(&self, random: &mut Random, tables: &Tables, params: &mut Option<Vec<Json>>) -> String {
        let at = full(&self.table);
        let Some(table) = tables.get(&self.table) else { return format!("DELETE FROM {at}") };
        match &self.verb {
            Verb::Insert { columns, rows, conflict } => {
                let types: Vec<DataType> = match columns {
                    Some(names) => names.iter().map(|name| type_of(table, name)).collect(),
                    None => {
                        let own = table.columns.iter().filter(|column| column.name != "_id");
                        own.map(|column| column.data_type).collect()
                    }
                };
                let columns = columns.as_ref().map(|names| format!(" ({})", list(names))).unwrap_or_default();
                let rows: Vec<String> = rows
                    .iter()
                    .map(|row| {
                        let values = row.iter().zip(&types).map(|(given, data_type)| match given {
                            Given::Cell(cell) => value(random, cell, *data_type, params),
                            Given::Default => "DEFAULT".to_owned(),
                        });
                        format!("({})", values.collect::<Vec<_>>().join(", "))
                    })
                    .collect();
                let conflict = conflict
                    .as_ref()
                    .map(|conflict| conflict_sql(random, table, &self.table.1, conflict, params));
                format!(
                    "INSERT INTO {at}{columns} VALUES {}{}",
                    rows.join(", "),
                    conflict.unwrap_or_default()
                )
            }
            Verb::Copy { from, columns, condition } => {
                let (write, read): (Vec<String>, Vec<String>) = columns.iter().cloned().unzip();
                let condition =
                    tables.get(from).map_or_else(|| "true".to_owned(), |from| condition.sql(from, params));
                let (write, read, from) = (list(&write), list(&read), full(from));
                format!("INSERT INTO {at} ({write}) SELECT {read} FROM {from} WHERE {condition}")
            }
            Verb::Update { set, condition } => {
                let set = set_sql(random, table, set, params);
                format!("UPDATE {at} SET {set}{}", where_sql(table, condition, params))
            }
            Verb::Delete { condition } => format!("DELETE FROM {at}{}", where_sql(table, condition, params)),
        }
    }
}

fn where_sql(table: &Table, condition: &Condition, params: &mut Option<Vec<Json>>) -> String {
    match condition {
        Condition::All => String::new(),
        other => format!(" WHERE {}", other.sql(table, params)),
    }
}

fn type_of(table: &Table, name: &str) -> DataType {
    table.column(name).map_or(DataType::Text, |column| column.data_type)
}

fn list(names: &[String]) -> String {
    names.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ")
}

fn value(random: &mut Random, cell: &Cell, data_type: DataType, params: &mut Option<Vec<Json>>) -> String {
    match params {
        Some(params) => {
            params.push(as_parameter(cell, data_type));
            format!("${}", params.len())
        }
        // What takes the query engine to know it; so does the rest of its statement then.
        None if random.per_mille(30) => match (cell, data_type) {
            (Cell::Whole(0..4), DataType::SmallInt | DataType::Int | DataType::BigInt) => {
                format!("{} + 0", written(&mut Random::new(1), cell, data_type))
            }
            (Cell::Text(_), DataType::Text) => format!("{} || ''", written(random, cell, data_type)),
            _ => written(random, cell, data_type),
        },
        None => written(random, cell, data_type),
    }
}

fn set_sql(
    random: &mut Random,
    table: &Table,
    set: &[(String, Assigned)],
    params: &mut Option<Vec<Json>>,
) -> String {
    let one = |(column, assigned): &(String, Assigned)| {
        let value = match assigned {
            Assigned::Constant(cell) => value(random, cell, type_of(table, column), params),
            Assigned::Default => "DEFAULT".to_owned(),
            Assigned::Column(other) => name(other),
            Assigned::PlusOne => format!("{} + 1", name(column)),
            Assigned::Excluded(other) => format!("excluded.{}", name(other)),
        };
        format!("{} = {value}", name(column))
    };
    set.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn conflict_sql(
    random: &mut Random,
    table: &Table,
    called: &str,
    conflict: &Conflict,
    params: &mut Option<Vec<Json>>,
) -> String {
    let key: Vec<String> = table.key_columns().map(|column| column.name.clone()).collect();
    match conflict {
        Conflict::Nothing => " ON CONFLICT DO NOTHING".to_owned(),
        Conflict::Update { set, distinct } => {
            let set = set_sql(random, table, set, params);
            let distinct = distinct.as_ref().map(|column| {
                let column = name(column);
                format!(" WHERE {}.{column} IS DISTINCT FROM excluded.{column}", name(called))
            });
            format!(" ON CONFLICT ({}) DO UPDATE SET {set}{}", list(&key), distinct.unwrap_or_default())
        }
    }
}
