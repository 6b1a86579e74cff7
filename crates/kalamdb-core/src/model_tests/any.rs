//! What is tried next: statements that mostly go through, and some that must be refused.

use kalamdb_log::simulation::Random;
use log_format::DataType;

use super::condition::{Condition, is_comparable};
use super::query::Query;
use super::schema::{Column, Default, Table};
use super::statement::{Assigned, Change, Conflict, Given, Name, Statement, Tables, Verb};
use super::values::{Cell, any_cell};

pub(super) const NAMESPACES: [&str; 2] = ["n1", "Other space"];
const TABLES: [&str; 4] = ["t1", "t2", "select", "Mixed name"];
/// Rows of one owner beyond which no more are added.
const ROWS_MAX: usize = 60;

/// A name that a table has or could have.
pub(super) fn any_name(random: &mut Random) -> Name {
    let pick = |random: &mut Random, from: &[&str]| from[random.below(from.len())].to_owned();
    (pick(random, &NAMESPACES), pick(random, &TABLES))
}

/// A table that is there; once in a while one that is not.
pub(super) fn known_name(random: &mut Random, tables: &Tables) -> Name {
    if tables.is_empty() || random.per_mille(15) {
        return any_name(random);
    }
    tables.keys().nth(random.below(tables.len())).unwrap().clone()
}

fn cell_for(random: &mut Random, column: &Column) -> Cell {
    // Once in a while also where there must be a value.
    let is_null = random.per_mille(if column.nullable { 150 } else { 10 });
    if is_null { Cell::Null } else { any_cell(random, column.data_type) }
}

pub(super) fn statement(random: &mut Random, tables: &Tables, in_transaction: bool) -> Statement {
    let at = known_name(random, tables);
    let Some(table) = tables.get(&at) else {
        return match random.below(3) {
            0 => Statement::Select(Query::everything(&at)),
            1 => Statement::Stats(at),
            _ => Statement::Change(Change {
                table: at,
                verb: Verb::Delete { condition: Condition::All },
                returns: false,
            }),
        };
    };
    let is_full = table.rows.values().any(|rows| rows.len() > ROWS_MAX);
    match random.below(100) {
        0..40 => {
            Statement::Change(if is_full { delete(random, &at, table) } else { insert(random, &at, table) })
        }
        40..46 if !is_full => copy(random, &at, table, tables)
            .map_or_else(|| Statement::Change(insert(random, &at, table)), Statement::Change),
        40..58 => Statement::Change(update(random, &at, table)),
        58..66 => Statement::Change(delete(random, &at, table)),
        66..70 => Statement::Stats(at),
        _ => Statement::Select(Query::any(random, &at, table, in_transaction)),
    }
}

fn insert(random: &mut Random, at: &Name, table: &Table) -> Change {
    let shown: Vec<&Column> = table.columns.iter().filter(|column| column.name != "_id").collect();
    if shown.is_empty() {
        return delete(random, at, table);
    }
    let named: Option<Vec<&Column>> = random.per_mille(500).then(|| {
        let mut named: Vec<&Column> =
            shown.iter().copied().filter(|column| !column.nullable || random.per_mille(700)).collect();
        if named.len() > 1 && random.per_mille(500) {
            let at = random.below(named.len());
            named.swap(0, at);
        }
        named
    });
    let named = named.filter(|named| !named.is_empty());
    let given = named.clone().unwrap_or(shown);
    let key: Vec<Condition> = (0..3).map(|_| Condition::of_key(random, table)).collect();
    let rows: Vec<Vec<Given>> = (0..=random.below(3))
        .map(|nth| {
            let taken = random.per_mille(150).then(|| &key[nth % key.len()]);
            given
                .iter()
                .map(|column| match taken.and_then(|key| key.value_of(&column.name)) {
                    Some(cell) => Given::Cell(cell),
                    None if column.default.is_some() && random.per_mille(200) => Given::Default,
                    None => Given::Cell(cell_for(random, column)),
                })
                .collect()
        })
        .collect();
    let is_given = |column: &Column| given.iter().any(|given| given.id == column.id);
    let is_made_up = |column: &Column| column.default.as_ref().is_some_and(Default::is_made_up);
    let has_default = rows.iter().flatten().any(|given| matches!(given, Given::Default));
    let makes_up =
        table.columns.iter().any(|column| is_made_up(column) && (has_default || !is_given(column)));
    let columns = named.map(|named| named.iter().map(|column| column.name.clone()).collect());
    let conflict = (!makes_up && random.per_mille(350)).then(|| conflict(random, table));
    let returns = makes_up || random.per_mille(250);
    Change { table: at.clone(), verb: Verb::Insert { columns, rows, conflict }, returns }
}

fn conflict(random: &mut Random, table: &Table) -> Conflict {
    let set = assignments(random, table, true);
    if set.is_empty() || random.per_mille(350) {
        return Conflict::Nothing;
    }
    let comparable: Vec<&Column> =
        table.columns.iter().filter(|column| is_comparable(column.data_type)).collect();
    let distinct = random.per_mille(300).then(|| comparable[random.below(comparable.len())].name.clone());
    Conflict::Update { set, distinct }
}

fn assignments(random: &mut Random, table: &Table, in_conflict: bool) -> Vec<(String, Assigned)> {
    let mut set = Vec::new();
    let (refused, most) = (random.per_mille(20), 1 + random.below(3));
    for column in table.columns.iter().filter(|column| refused || !table.is_key(column)) {
        if set.len() >= most || random.per_mille(400) {
            continue;
        }
        let same = |other: &&Column| other.data_type == column.data_type;
        let others: Vec<&Column> = table.columns.iter().filter(same).collect();
        let other = others[random.below(others.len())].name.clone();
        // DataFusion's 64-bit arithmetic wraps around: what is smaller is found out when it is put back.
        let is_whole = matches!(column.data_type, DataType::SmallInt | DataType::Int);
        let is_made_up = column.default.as_ref().is_some_and(Default::is_made_up);
        let assigned = match random.below(8) {
            0 | 1 if in_conflict => Assigned::Excluded(other),
            0 | 1 => Assigned::Column(other),
            2 | 3 if is_whole => Assigned::PlusOne,
            4 if column.default.is_some() && !is_made_up => Assigned::Default,
            _ => Assigned::Constant(cell_for(random, column)),
        };
        set.push((column.name.clone(), assigned));
    }
    set
}

fn copy(random: &mut Random, at: &Name, table: &Table, tables: &Tables) -> Option<Change> {
    let from = tables.keys().nth(random.below(tables.len()))?.clone();
    let source = &tables[&from];
    let mut columns = Vec::new();
    for column in table.columns.iter().filter(|column| column.name != "_id") {
        let same: Vec<&Column> =
            source.columns.iter().filter(|other| other.data_type == column.data_type).collect();
        // A SELECT names a column once.
        let is_read = |other: &&Column| columns.iter().any(|(_, read)| *read == other.name);
        let same: Vec<&Column> = same.into_iter().filter(|other| !is_read(other)).collect();
        match same.get(random.below(same.len())) {
            Some(other) => columns.push((column.name.clone(), other.name.clone())),
            None if !column.nullable && column.default.is_none() => return None,
            None => {}
        }
    }
    let is_written = |column: &Column| columns.iter().any(|(name, _)| *name == column.name);
    let mut made_up =
        table.columns.iter().filter(|column| column.default.as_ref().is_some_and(Default::is_made_up));
    // Which row got which of what the engine makes up is not told where their order is not.
    if columns.is_empty() || made_up.any(|column| !is_written(column)) {
        return None;
    }
    let condition = Condition::any(random, source, 1);
    Some(Change {
        table: at.clone(),
        verb: Verb::Copy { from, columns, condition },
        returns: random.per_mille(250),
    })
}

fn update(random: &mut Random, at: &Name, table: &Table) -> Change {
    let set = assignments(random, table, false);
    if set.is_empty() {
        return delete(random, at, table);
    }
    let condition = Condition::any(random, table, 1);
    Change { table: at.clone(), verb: Verb::Update { set, condition }, returns: random.per_mille(250) }
}

fn delete(random: &mut Random, at: &Name, table: &Table) -> Change {
    // All of them go seldom, or there would never be many.
    let condition = match Condition::any(random, table, 1) {
        Condition::All if random.per_mille(700) => Condition::of_key(random, table),
        other => other,
    };
    Change { table: at.clone(), verb: Verb::Delete { condition }, returns: random.per_mille(250) }
}
