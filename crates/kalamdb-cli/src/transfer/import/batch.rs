//! Rows that go as one INSERT: its text, its parameters, and the way from a parameter back to its row.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value as Json;

use super::source::Row;
use crate::transfer::table::{Table, quoted};

/// Bytes of one INSERT's values, well below what a server takes in a request.
const BATCH_BYTES: usize = 4 << 20;

/// What becomes of a row whose primary key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OnConflict {
    /// The import ends there
    Error,
    /// The row that is there stays
    Ignore,
    /// The row that is there gets the values of the file, for the columns that the file has
    Replace,
}

/// One row of a batch, without its values.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) line: Option<u64>,
    columns: Arc<[usize]>,
    /// Where its values begin.
    first: usize,
}

/// Rows, their values one after the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    places: Vec<Place>,
    params: Vec<Json>,
    bytes: usize,
    /// How far the file had been read when it was full.
    pub(super) position: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether this row begins another batch.
    pub(super) fn is_full(&self, row: &Row, rows_max: usize, on_conflict: OnConflict) -> bool {
        let Some(last) = self.places.last() else { return false };
        // A row that is replaced keeps what the file does not say: not each row says the same.
        let differs = on_conflict == OnConflict::Replace && *last.columns != *row.columns;
        differs || self.places.len() >= rows_max || self.bytes + size(&row.values) > BATCH_BYTES
    }

    pub(super) fn push(&mut self, row: Row) {
        let Row { number, line, columns, values } = row;
        self.places.push(Place { number, line, columns, first: self.params.len() });
        self.bytes += size(&values);
        self.params.extend(values);
    }

    /// A row of it.
    pub(super) fn place(&self, at: usize) -> Option<&Place> {
        self.places.get(at)
    }

    /// Where the values of rows are.
    fn values_of(&self, rows: &Range<usize>) -> Range<usize> {
        let start = |at: usize| self.places.get(at).map_or(self.params.len(), |place| place.first);
        start(rows.start)..start(rows.end)
    }

    /// The parameters of an INSERT of these rows.
    pub(super) fn params(&self, rows: &Range<usize>) -> &[Json] {
        self.params.get(self.values_of(rows)).unwrap_or_default()
    }

    /// The row and column that the parameter `$number` of an INSERT of these rows is.
    pub(super) fn origin(&self, rows: &Range<usize>, number: usize) -> Option<(usize, usize)> {
        let at = self.values_of(rows).start + number.checked_sub(1)?;
        let row = self.places.partition_point(|place| place.first <= at).checked_sub(1)?;
        let place = self.places.get(row)?;
        let column = *place.columns.get(at - place.first)?;
        rows.contains(&row).then_some((row, column))
    }

    /// The text of an INSERT of these rows.
    pub(super) fn sql(&self, rows: &Range<usize>, table: &Table, on_conflict: OnConflict) -> String {
        let places = self.places.get(rows.clone()).unwrap_or_default();
        let mut columns: Vec<usize> = Vec::new();
        let mut known: Option<&Arc<[usize]>> = None;
        for place in places {
            if known.is_none_or(|known| !Arc::ptr_eq(known, &place.columns)) {
                known = Some(&place.columns);
                columns.extend(place.columns.iter());
            }
        }
        let mut columns: Vec<usize> = columns.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        if columns.is_empty() {
            // Rows without a value still are rows.
            columns.push(0);
        }
        let name = |at: &usize| table.columns.get(*at).map(|column| quoted(&column.name)).unwrap_or_default();
        let names: Vec<String> = columns.iter().map(name).collect();
        let mut sql = format!("INSERT INTO {} ({}) VALUES ", table.name.sql(), names.join(", "));
        let begin = self.values_of(rows).start;
        for (at, place) in places.iter().enumerate() {
            sql.push_str(if at == 0 { "(" } else { ",(" });
            for (nth, column) in columns.iter().enumerate() {
                if nth > 0 {
                    sql.push(',');
                }
                match place.columns.iter().position(|it| it == column) {
                    // A string takes everything.
                    Some(offset) => drop(write!(sql, "${}", place.first - begin + offset + 1)),
                    None => sql.push_str("DEFAULT"),
                }
            }
            sql.push(')');
        }
        sql.push_str(&conflict_clause(table, &columns, on_conflict));
        sql
    }
}

fn conflict_clause(table: &Table, columns: &[usize], on_conflict: OnConflict) -> String {
    let assigned: Vec<String> = columns
        .iter()
        .filter(|at| !table.key.contains(at))
        .filter_map(|at| table.columns.get(*at))
        .map(|column| format!("{0} = excluded.{0}", quoted(&column.name)))
        .collect();
    match on_conflict {
        OnConflict::Error => String::new(),
        // There is nothing to replace in a row that has the same key and of which nothing else is told.
        OnConflict::Replace if !assigned.is_empty() => {
            format!(" ON CONFLICT DO UPDATE SET {}", assigned.join(", "))
        }
        OnConflict::Ignore | OnConflict::Replace => " ON CONFLICT DO NOTHING".to_owned(),
    }
}

fn size(values: &[Json]) -> usize {
    values.iter().map(|value| value.as_str().map_or(8, |text| text.len() + 8)).sum()
}
