//! `ORDER BY … LIMIT n` of a live query: the first rows of the order, and some more.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::row::RowConverter;
use datafusion::logical_expr::SortExpr;
use datafusion::physical_expr::PhysicalExpr;

use super::window::Window;
use super::{BYTES_MAX, Identity, Output, Shown, too_large};
use crate::error::Result;
use crate::live::projection::Projection;

/// Rows that are kept beside those that are shown: so many may go before it has to look for more, which tests are to see.
const ROWS_SPARE: usize = if cfg!(test) { 2 } else { 64 };

/// An order and a limit, compiled. Rows that are equal in what is ordered by are in the order of their keys.
#[derive(Debug)]
pub(crate) struct TopPlan {
    /// What is ordered by, over the table's rows.
    pub(super) order_by: Vec<Arc<dyn PhysicalExpr>>,
    /// The same, as it is asked of the table, and the key's columns.
    pub(super) sort: Vec<SortExpr>,
    pub(super) order: RowConverter,
    /// The primary key's columns, by position.
    pub(super) key: Vec<usize>,
    pub(super) identity: RowConverter,
    pub(super) skip: usize,
    pub(super) fetch: usize,
    /// Whether a row before a change is not known in all that is asked of it: `_seq` and `_updated` of then are not in the log.
    pub(super) has_no_past: bool,
    /// What is shown.
    pub(super) output: Output,
}

impl TopPlan {
    fn wanted(&self) -> usize {
        self.skip + self.fetch
    }

    /// Rows that are kept, with so many more to spare.
    pub(super) fn kept(&self, spare: usize) -> usize {
        self.wanted() + ROWS_SPARE + spare
    }
}

#[derive(Clone, Debug)]
struct TopRow {
    identity: Identity,
    row: Vec<u8>,
    /// What it counts as in [`TopRows::bytes`].
    bytes: usize,
}

/// The first rows of one live query.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopRows {
    window: Window<TopRow>,
    /// Where in the order each row of the window is.
    places: HashMap<Identity, Vec<u8>>,
    bytes: usize,
    /// Since [`TopRows::take_changed`].
    has_changed: bool,
}

/// A row's places: what it is, where it stands, what is shown of it.
pub(super) struct Placed {
    identities: Vec<Identity>,
    places: Vec<Vec<u8>>,
    rows: Vec<Vec<u8>>,
}

impl Placed {
    pub(super) fn of(
        plan: &TopPlan,
        projection: &Projection,
        batch: &RecordBatch,
        rows: &[u32],
    ) -> Result<Self> {
        if rows.is_empty() {
            return Ok(Self { identities: Vec::new(), places: Vec::new(), rows: Vec::new() });
        }
        let picked = super::picked(batch, rows)?;
        let all: Vec<u32> = (0_u32..).take(rows.len()).collect();
        let mut columns = Vec::with_capacity(plan.order_by.len() + plan.key.len());
        for expression in &plan.order_by {
            columns.push(expression.evaluate(&picked)?.into_array(rows.len())?);
        }
        let key: Vec<ArrayRef> = plan.key.iter().map(|at| Arc::clone(picked.column(*at))).collect();
        let identities = bytes_of(&plan.identity, &key)?.into_iter().map(Identity::from).collect();
        columns.extend(key);
        let places = bytes_of(&plan.order, &columns)?;
        let rows = plan.output.encode(&projection.project(&picked, &all)?)?;
        Ok(Self { identities, places, rows })
    }
}

/// What the rows of a batch are.
pub(super) fn identities(plan: &TopPlan, batch: Option<&RecordBatch>) -> Result<Vec<Identity>> {
    let Some(batch) = batch else { return Ok(Vec::new()) };
    let key: Vec<ArrayRef> = plan.key.iter().map(|at| Arc::clone(batch.column(*at))).collect();
    Ok(bytes_of(&plan.identity, &key)?.into_iter().map(Identity::from).collect())
}

fn bytes_of(converter: &RowConverter, columns: &[ArrayRef]) -> Result<Vec<Vec<u8>>> {
    Ok(converter.convert_columns(columns)?.iter().map(|row| row.as_ref().to_vec()).collect())
}

impl Placed {
    /// Bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        let of = |parts: &[Vec<u8>]| parts.iter().map(Vec::len).sum::<usize>();
        of(&self.places) + of(&self.rows)
    }
}

impl TopRows {
    /// Takes a row out, wherever it stands.
    pub(super) fn remove(&mut self, identity: &Identity) {
        if let Some(gone) = self.places.remove(identity).and_then(|place| self.window.remove(&place)) {
            self.bytes -= gone.bytes;
            self.has_changed = true;
        }
    }

    /// Puts rows in that were not there.
    pub(super) fn insert(&mut self, placed: Placed) {
        for ((identity, place), row) in placed.identities.into_iter().zip(placed.places).zip(placed.rows) {
            let bytes = row.len() + 2 * (place.len() + identity.len());
            if self.window.insert(place.clone(), TopRow { identity: identity.clone(), row, bytes }) {
                self.bytes += bytes;
                self.places.insert(identity, place);
                self.has_changed = true;
            }
        }
    }

    /// The table has more rows behind the last one.
    pub(super) fn end_here(&mut self) {
        self.window.end_here();
    }

    /// Whole rows are in or out. Keeps no more than is needed, and so many rows to spare. False where it does not know all of what
    /// is shown any more.
    pub(super) fn settle(&mut self, plan: &TopPlan, spare: usize) -> Result<bool> {
        self.cut_to(plan.kept(spare));
        while self.bytes > BYTES_MAX {
            if self.window.len() <= plan.wanted() {
                return Err(too_large());
            }
            self.cut_to(self.window.len() - 1);
        }
        Ok(!self.window.is_short_of(plan.wanted()))
    }

    /// What is shown.
    pub(super) fn shown(&self, plan: &TopPlan) -> Shown {
        let shown = self.window.iter().skip(plan.skip).take(plan.fetch);
        shown.map(|(_, row)| (row.identity.clone(), row.row.clone())).collect()
    }

    /// The same, in order.
    pub(super) fn rows(&self, plan: &TopPlan) -> Vec<Vec<u8>> {
        self.window.iter().skip(plan.skip).take(plan.fetch).map(|(_, row)| row.row.clone()).collect()
    }

    /// Whether it changed since the last time, shown or not.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.has_changed, false)
    }

    fn cut_to(&mut self, len_max: usize) {
        for gone in self.window.cut_to(len_max) {
            self.bytes -= gone.bytes;
            self.places.remove(&gone.identity);
        }
    }
}
