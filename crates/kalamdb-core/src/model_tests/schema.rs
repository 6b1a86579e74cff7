//! The model's tables: columns, rows as maps from a column's id to its value, and what ALTER makes of both.
//!
//! Nothing is kept as it was written and read as something else later, as the engine does: an ALTER changes every row at once.

use std::collections::BTreeMap;

use log_format::{DataType, Role};

use super::values::Cell;
use crate::{ErrorCode, Session};

/// Why a statement is refused.
pub(super) type Refused<T> = Result<T, ErrorCode>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Default {
    Constant(Cell),
    Snowflake,
    Now,
    CurrentUser,
    CurrentRole,
}

impl Default {
    /// Whether only the engine knows what it will be.
    pub(super) const fn is_made_up(&self) -> bool {
        matches!(self, Self::Snowflake | Self::Now)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
    pub(super) default: Option<Default>,
}

impl Column {
    /// What rows that were there before it have in it.
    fn in_old_rows(&self) -> Cell {
        match &self.default {
            Some(Default::Constant(cell)) => cell.clone(),
            _ => Cell::Null,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Public,
    Restricted,
    Private,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: BTreeMap<u32, Cell>,
    pub(super) deleted: bool,
}

pub(super) type Key = Vec<Cell>;
pub(super) type Rows = BTreeMap<Key, Row>;

/// One schema version: what made it, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) change: String,
    pub(super) by: String,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) kind: Kind,
    pub(super) columns: Vec<Column>,
    /// Ids of the key's columns, in order.
    pub(super) key: Vec<u32>,
    pub(super) last_id: u32,
    pub(super) history: Vec<Version>,
    /// By owner; the rows of a shared table have none.
    pub(super) rows: BTreeMap<String, Rows>,
}

/// One part of an ALTER.
#[derive(Clone, Debug)]
pub(super) enum Alter {
    Add {
        column: Column,
        if_not_exists: bool,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    /// A constant, as it is in a column of this type; none: no default any more.
    SetDefault {
        name: String,
        default: Option<(Cell, DataType)>,
    },
    Modify {
        name: String,
        data_type: DataType,
    },
    SetAccess(Kind),
    SetRetention,
}

impl Table {
    pub(super) fn owner(&self, who: &Session) -> String {
        if self.kind == Kind::User { who.user().to_string() } else { String::new() }
    }

    pub(super) fn may_read(&self, who: &Session) -> bool {
        self.kind != Kind::Private || who.role() >= Role::Service
    }

    pub(super) fn may_write(&self, who: &Session) -> bool {
        matches!(self.kind, Kind::User | Kind::Public) || who.role() >= Role::Service
    }

    /// The column of this name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn is_key(&self, column: &Column) -> bool {
        self.key.contains(&column.id)
    }

    pub(super) fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|id| self.columns.iter().find(|column| column.id == *id).unwrap())
    }

    pub(super) fn key_of(&self, cells: &BTreeMap<u32, Cell>) -> Key {
        self.key.iter().map(|id| cells[id].in_key()).collect()
    }

    /// The rows somebody sees.
    pub(super) fn rows_of(&self, who: &Session) -> impl Iterator<Item = &Row> {
        self.rows.get(&self.owner(who)).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn live_count(&self, owner: Option<&str>) -> usize {
        let of = self.rows.iter().filter(|(name, _)| owner.is_none_or(|owner| *name == owner));
        of.flat_map(|(_, rows)| rows.values()).filter(|row| !row.deleted).count()
    }

    /// All the parts of one ALTER, or none.
    pub(super) fn alter(&mut self, changes: &[Alter], by: &str) -> Refused<()> {
        let mut altered = self.clone();
        for change in changes {
            altered.alter_one(change)?;
        }
        let is_old = |column: &Column| self.columns.iter().any(|old| old.id == column.id);
        for column in altered.columns.iter().filter(|column| !column.nullable && !is_old(column)) {
            if column.in_old_rows().is_null() && self.live_count(None) > 0 {
                return Err(ErrorCode::ConstraintViolation);
            }
        }
        if altered.columns != self.columns {
            let change = changes.iter().map(Alter::begins).collect::<Vec<_>>().join(", ");
            altered.history.push(Version { change, by: by.to_owned() });
        }
        *self = altered;
        Ok(())
    }

    fn alter_one(&mut self, change: &Alter) -> Refused<()> {
        match change {
            Alter::Add { column, if_not_exists } => {
                if self.column(&column.name).is_some() {
                    return if *if_not_exists { Ok(()) } else { Err(ErrorCode::AlreadyExists) };
                }
                self.last_id += 1;
                let column = Column { id: self.last_id, ..column.clone() };
                self.each_row(|cells| {
                    cells.insert(column.id, column.in_old_rows());
                });
                self.columns.push(column);
            }
            Alter::Drop { name, if_exists } => {
                if self.column(name).is_none() && *if_exists {
                    return Ok(());
                }
                let at = self.free(name)?;
                let gone = self.columns.remove(at);
                self.each_row(|cells| {
                    cells.remove(&gone.id);
                });
            }
            Alter::Rename { from, to } => {
                let at = self.free(from)?;
                if to.starts_with('_') {
                    return Err(ErrorCode::InvalidSql);
                }
                if from != to && self.column(to).is_some() {
                    return Err(ErrorCode::AlreadyExists);
                }
                self.columns[at].name.clone_from(to);
            }
            Alter::Modify { name, data_type } => self.modify(name, *data_type)?,
            Alter::SetDefault { name, default } => {
                let column = self.columns.iter_mut().find(|column| column.name == *name);
                let column = column.ok_or(ErrorCode::InvalidSql)?;
                let now = column.data_type;
                column.default =
                    default.as_ref().map(|(cell, from)| Default::Constant(widened(cell, *from, now)));
            }
            Alter::SetAccess(_) if self.kind == Kind::User => return Err(ErrorCode::InvalidSql),
            Alter::SetAccess(kind) => self.kind = *kind,
            Alter::SetRetention => {}
        }
        Ok(())
    }

    fn modify(&mut self, name: &str, to: DataType) -> Refused<()> {
        let at = self.free(name)?;
        let (id, from) = (self.columns[at].id, self.columns[at].data_type);
        if from == to {
            return Ok(());
        }
        if !is_wider(from, to) {
            return Err(ErrorCode::InvalidSql);
        }
        self.each_row(|cells| {
            let cell = cells.get_mut(&id).unwrap();
            *cell = widened(cell, from, to);
        });
        let column = &mut self.columns[at];
        column.data_type = to;
        if let Some(Default::Constant(cell)) = &mut column.default {
            *cell = widened(cell, from, to);
        }
        Ok(())
    }

    fn each_row(&mut self, mut change: impl FnMut(&mut BTreeMap<u32, Cell>)) {
        self.rows.values_mut().flat_map(BTreeMap::values_mut).for_each(|row| change(&mut row.cells));
    }

    /// Where a column stands that may be altered.
    fn free(&self, name: &str) -> Refused<usize> {
        if matches!(name, "_seq" | "_updated" | "_deleted") {
            return Err(ErrorCode::Unsupported);
        }
        let at = self.columns.iter().position(|column| column.name == name).ok_or(ErrorCode::InvalidSql)?;
        if self.is_key(&self.columns[at]) { Err(ErrorCode::Unsupported) } else { Ok(at) }
    }
}

impl Alter {
    /// How the schema's history tells of it, as far as names go.
    fn begins(&self) -> String {
        match self {
            Self::Add { column, .. } => format!("ADD COLUMN {}", column.name),
            Self::Drop { name, .. } => format!("DROP COLUMN {name}"),
            Self::Rename { from, to } => format!("RENAME COLUMN {from} TO {to}"),
            Self::Modify { name, data_type } => format!("MODIFY COLUMN {name} {data_type}"),
            Self::SetDefault { name, default: Some(_) } => format!("ALTER COLUMN {name} SET DEFAULT"),
            Self::SetDefault { name, default: None } => format!("ALTER COLUMN {name} DROP DEFAULT"),
            Self::SetAccess(_) => "SET (ACCESS_LEVEL".to_owned(),
            Self::SetRetention => "SET (DELETED_RETENTION".to_owned(),
        }
    }
}

/// Digits before the point that an integer type needs.
const fn digits(data_type: DataType) -> Option<u8> {
    match data_type {
        DataType::SmallInt => Some(5),
        DataType::Int => Some(10),
        DataType::BigInt => Some(19),
        _ => None,
    }
}

/// The list in docs/sql.md.
fn is_wider(from: DataType, to: DataType) -> bool {
    use DataType as T;
    let whole = |precision: u8, scale: u8| precision - scale;
    match (from, to) {
        (T::SmallInt, T::Int | T::BigInt | T::Float | T::Double)
        | (T::Int, T::BigInt | T::Double)
        | (T::Float, T::Double)
        | (T::Date, T::Timestamp)
        | (T::Uuid | T::Json, T::Text) => true,
        (T::Decimal { precision: p, scale: s }, T::Decimal { precision, scale }) => {
            scale >= s && whole(precision, scale) >= whole(p, s)
        }
        (from, T::Decimal { precision, scale }) => {
            digits(from).is_some_and(|digits| whole(precision, scale) >= digits)
        }
        _ => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "only integers that a float holds are widened to one")]
fn widened(cell: &Cell, from: DataType, to: DataType) -> Cell {
    match (cell, to) {
        (Cell::Whole(value), DataType::Float) => Cell::Single(*value as f32),
        (Cell::Whole(value), DataType::Double) => Cell::Double(*value as f64),
        (Cell::Single(value), DataType::Double) => Cell::Double(f64::from(*value)),
        (Cell::Whole(value), DataType::Decimal { scale, .. }) => {
            Cell::Fixed(i128::from(*value) * 10_i128.pow(scale.into()))
        }
        (Cell::Fixed(value), DataType::Decimal { scale, .. }) => {
            Cell::Fixed(*value * 10_i128.pow((scale - from.decimal_scale()).into()))
        }
        (Cell::Whole(days), DataType::Timestamp) => Cell::Whole(days * 86_400_000_000),
        (other, _) => other.clone(),
    }
}
