//! Conditions on rows, as SQL and as SQL means them: true, false or unknown.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kalamdb_log::simulation::Random;
use log_format::DataType;
use serde_json::Value as Json;

use super::schema::{Column, Table};
use super::values::{Cell, any_cell, compared, name};

#[derive(Clone, Debug)]
pub(super) enum Condition {
    All,
    Compare { column: String, operator: &'static str, cell: Cell },
    Between { column: String, low: Cell, high: Cell },
    In { column: String, cells: Vec<Cell>, negated: bool },
    Null { column: String, negated: bool },
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

const OPERATORS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

/// Whether values of a type are compared with each other.
pub(super) const fn is_comparable(data_type: DataType) -> bool {
    !matches!(data_type, DataType::Embedding(_))
}

impl Condition {
    /// About the whole key of one row, of one that is there if there is one.
    pub(super) fn of_key(random: &mut Random, table: &Table) -> Self {
        let owners: Vec<_> = table.rows.values().filter(|rows| !rows.is_empty()).collect();
        let known = owners.get(random.below(owners.len())).map(|rows| {
            let at = random.below(rows.len());
            rows.keys().nth(at).unwrap().clone()
        });
        let known = known.filter(|_| random.per_mille(850));
        let parts: Vec<Self> = table
            .key_columns()
            .enumerate()
            .map(|(at, column)| Self::Compare {
                column: column.name.clone(),
                operator: "=",
                cell: known
                    .as_ref()
                    .map_or_else(|| any_cell(random, column.data_type), |key| key[at].clone()),
            })
            .collect();
        parts.into_iter().reduce(|left, right| Self::And(Box::new(left), Box::new(right))).unwrap()
    }

    /// About anything.
    pub(super) fn any(random: &mut Random, table: &Table, depth: usize) -> Self {
        match random.below(if depth > 0 { 14 } else { 10 }) {
            0..3 => Self::of_key(random, table),
            3 => Self::All,
            4..7 => {
                // The first column of a key makes ranges.
                let keys: Vec<&Column> = table.key_columns().collect();
                let column = if random.per_mille(500) { keys[0] } else { comparable(random, table) };
                let (column, data_type) = (column.name.clone(), column.data_type);
                let operator = OPERATORS[random.below(OPERATORS.len())];
                Self::Compare { column, operator, cell: any_cell(random, data_type) }
            }
            7 => {
                let column = comparable(random, table);
                let data_type = column.data_type;
                let (low, high) = (any_cell(random, data_type), any_cell(random, data_type));
                Self::Between { column: column.name.clone(), low, high }
            }
            8 => {
                let column = comparable(random, table);
                let cells = (0..=random.below(4)).map(|_| any_cell(random, column.data_type)).collect();
                Self::In { column: column.name.clone(), cells, negated: random.per_mille(300) }
            }
            9 => {
                let at = random.below(table.columns.len());
                Self::Null { column: table.columns[at].name.clone(), negated: random.per_mille(500) }
            }
            10 | 11 => Self::And(
                Box::new(Self::any(random, table, depth - 1)),
                Box::new(Self::any(random, table, depth - 1)),
            ),
            12 => Self::Or(
                Box::new(Self::any(random, table, depth - 1)),
                Box::new(Self::any(random, table, depth - 1)),
            ),
            _ => Self::Not(Box::new(Self::any(random, table, depth - 1))),
        }
    }

    /// What a condition on a key compares this column with.
    pub(super) fn value_of(&self, name: &str) -> Option<Cell> {
        match self {
            Self::Compare { column, cell, .. } if column == name => Some(cell.clone()),
            Self::And(left, right) => left.value_of(name).or_else(|| right.value_of(name)),
            _ => None,
        }
    }

    /// The same with other values; false where a column of it is no longer there.
    pub(super) fn renew(&mut self, random: &mut Random, table: &Table) -> bool {
        let of = |column: &str| table.column(column).map(|column| column.data_type);
        match self {
            Self::All => true,
            Self::Compare { column, cell, .. } => of(column).is_some_and(|data_type| {
                *cell = any_cell(random, data_type);
                true
            }),
            Self::Between { column, low, high } => of(column).is_some_and(|data_type| {
                (*low, *high) = (any_cell(random, data_type), any_cell(random, data_type));
                true
            }),
            Self::In { column, cells, .. } => of(column).is_some_and(|data_type| {
                for cell in cells {
                    *cell = any_cell(random, data_type);
                }
                true
            }),
            Self::Null { column, .. } => of(column).is_some(),
            Self::And(left, right) | Self::Or(left, right) => {
                let left = left.renew(random, table);
                right.renew(random, table) && left
            }
            Self::Not(inner) => inner.renew(random, table),
        }
    }

    /// As SQL; `WHERE` is for the caller.
    pub(super) fn sql(&self, table: &Table, params: &mut Option<Vec<Json>>) -> String {
        // A column that is gone is named all the same: the engine is to refuse it.
        let type_of = |column: &str| table.column(column).map_or(DataType::Text, |column| column.data_type);
        let mut value = |column: &str, cell: &Cell| compared(cell, type_of(column), params.as_mut());
        match self {
            Self::All => "true".to_owned(),
            Self::Compare { column, operator, cell } => {
                format!("{} {operator} {}", name(column), value(column, cell))
            }
            Self::Between { column, low, high } => {
                let (low, high) = (value(column, low), value(column, high));
                format!("{} BETWEEN {low} AND {high}", name(column))
            }
            Self::In { column, cells, negated } => {
                let cells: Vec<String> = cells.iter().map(|cell| value(column, cell)).collect();
                let not = if *negated { "NOT " } else { "" };
                format!("{} {not}IN ({})", name(column), cells.join(", "))
            }
            Self::Null { column, negated } => {
                format!("{} IS {}NULL", name(column), if *negated { "NOT " } else { "" })
            }
            // A conjunction of a key stands without parentheses, as people write it.
            Self::And(left, right) if left.is_equality() && right.is_equality() => {
                format!("{} AND {}", left.sql(table, params), right.sql(table, params))
            }
            Self::And(left, right) => {
                format!("({}) AND ({})", left.sql(table, params), right.sql(table, params))
            }
            Self::Or(left, right) => {
                format!("({}) OR ({})", left.sql(table, params), right.sql(table, params))
            }
            Self::Not(inner) => format!("NOT ({})", inner.sql(table, params)),
        }
    }

    fn is_equality(&self) -> bool {
        match self {
            Self::Compare { operator, .. } => *operator == "=",
            Self::And(left, right) => left.is_equality() && right.is_equality(),
            _ => false,
        }
    }

    /// Whether a row fulfils it for certain.
    pub(super) fn holds(&self, table: &Table, row: &BTreeMap<u32, Cell>) -> bool {
        self.truth(table, row) == Some(true)
    }

    fn truth(&self, table: &Table, row: &BTreeMap<u32, Cell>) -> Option<bool> {
        let of = |column: &str| &row[&table.column(column).unwrap().id];
        match self {
            Self::All => Some(true),
            Self::Compare { column, operator, cell } => {
                order(of(column), cell).map(|order| meets(operator, order))
            }
            Self::Between { column, low, high } => {
                let from = order(of(column), low).map(|order| meets(">=", order));
                and(from, order(of(column), high).map(|order| meets("<=", order)))
            }
            Self::In { column, cells, negated } => {
                let found = of(column);
                let is_in = || cells.iter().any(|cell| cell.in_key() == found.in_key());
                (!found.is_null()).then(|| is_in() != *negated)
            }
            Self::Null { column, negated } => Some(of(column).is_null() != *negated),
            Self::And(left, right) => and(left.truth(table, row), right.truth(table, row)),
            Self::Or(left, right) => {
                let not = |truth: Option<bool>| truth.map(|truth| !truth);
                not(and(not(left.truth(table, row)), not(right.truth(table, row))))
            }
            Self::Not(inner) => inner.truth(table, row).map(|truth| !truth),
        }
    }
}

fn comparable<'t>(random: &mut Random, table: &'t Table) -> &'t Column {
    let columns: Vec<&Column> =
        table.columns.iter().filter(|column| is_comparable(column.data_type)).collect();
    columns[random.below(columns.len())]
}

/// Zero equals zero, whatever its sign.
fn order(left: &Cell, right: &Cell) -> Option<Ordering> {
    (!left.is_null() && !right.is_null()).then(|| left.in_key().cmp(&right.in_key()))
}

fn meets(operator: &str, order: Ordering) -> bool {
    match operator {
        "=" => order.is_eq(),
        "<>" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

const fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}
