//! Which rows of a cold file a query need not read: those of pages whose least and greatest values no condition lets through.
//!
//! A cold row that is not superseded is the newest of its key unless a hot one hides it, and hot rows are never passed over; so
//! no row that was changed or deleted comes back, whatever is pruned here. The filter above still decides.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::Array;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinaryExpr, Column, IsNullExpr, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction as physical_conjunction};
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use kalamdb_store::{ColdScan, Manifest, OpenFile, Pages, Prune};
use log_format::{ColdFile, ColumnBounds, ColumnId, DataType, KeyBuilder, SchemaVersion, TableSchema, Value};

use crate::live::lossless;
use crate::rows::{Shape, ShapeColumn};
use crate::table::{SystemColumn, TableInfo};
use crate::values;

/// What a scan asks of cold files.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColdQuery {
    columns: Vec<ColumnId>,
    conditions: Vec<Condition>,
}

/// A column compared with a constant. Constants are keys: their bytes have the order of their values.
#[derive(Clone, Debug)]
struct Condition {
    column: Compared,
    data_type: DataType,
    operator: Operator,
    constant: Vec<u8>,
    /// The schema versions in which the column has this type.
    versions: Vec<SchemaVersion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Own(ColumnId),
    System(SystemColumn),
}

/// The least and the greatest value of a column, as keys.
type Bounds<'f> = (Cow<'f, [u8]>, Cow<'f, [u8]>);

impl ColdQuery {
    /// For a scan of these columns under these conditions, which must all hold.
    pub(crate) fn new(info: &TableInfo, shape: &Shape, filters: &[Expr]) -> Self {
        let id = |column: &ShapeColumn| match column {
            ShapeColumn::Own(at) => info.columns().get(*at).map(|column| column.id),
            ShapeColumn::System(_) => None,
        };
        let conditions = filters.iter().flat_map(split_conjunction);
        Self {
            columns: shape.columns().iter().filter_map(id).collect(),
            conditions: conditions.filter_map(|condition| Condition::of(info, condition)).collect(),
        }
    }

    /// The same, as the store asks.
    pub(crate) fn scan(&self) -> ColdScan<'_> {
        ColdScan { columns: Some(&self.columns), prune: Some(self) }
    }
}

/// What those above a scan look for by now, of what a file's bounds tell.
pub(crate) struct StillWanted {
    conditions: Vec<Condition>,
    /// Nothing but when rows were written is asked about: then the newest ones, most often.
    is_by_time: bool,
}

impl StillWanted {
    /// Of a filter that changes while a query runs, over columns of this shape: a top-N looks for less and less.
    pub(crate) fn now(info: &TableInfo, shape: &Shape, filter: &Arc<dyn PhysicalExpr>) -> Self {
        let now = snapshot_physical_expr(Arc::clone(filter));
        let now = now.as_ref().map_or_else(|_| Vec::new(), physical_conjunction);
        let conditions = now.into_iter().filter_map(|it| Condition::of_physical(info, shape, it)).collect();
        let is_time = |column: &Column| {
            let column = shape.columns().get(column.index());
            matches!(column, Some(ShapeColumn::System(SystemColumn::Seq | SystemColumn::Updated)))
        };
        Self { conditions, is_by_time: collect_columns(filter).iter().all(is_time) }
    }

    /// Whether a file has none of it.
    pub(crate) fn excludes(&self, file: &ColdFile) -> bool {
        self.conditions.iter().any(|condition| condition.excludes(file))
    }

    /// Puts the files first that have what is looked for most; false where little is known of that yet.
    pub(crate) fn sort(&self, files: &mut [usize], manifest: &Manifest) -> bool {
        let Some(condition) = self.conditions.first() else {
            if self.is_by_time {
                files.sort_by_key(|at| Reverse(manifest.files.get(*at).map(|of| of.file.last_seq)));
            }
            return false;
        };
        let bounds = |at: &usize| condition.bounds(&manifest.files.get(*at)?.file);
        if matches!(condition.operator, Operator::Gt | Operator::GtEq) {
            files.sort_by_cached_key(|at| Reverse(bounds(at).map(|(_, greatest)| greatest)));
        } else {
            // Those of which nothing is known come last, here as well.
            files.sort_by_cached_key(|at| bounds(at).map_or((true, None), |(least, _)| (false, Some(least))));
        }
        true
    }
}

impl Prune for ColdQuery {
    fn passes_over(&self, file: &ColdFile) -> bool {
        self.conditions.iter().any(|condition| condition.excludes(file))
    }

    fn rows(&self, file: &OpenFile) -> Option<Vec<Range<usize>>> {
        let mut left: Option<Vec<Range<usize>>> = None;
        for condition in &self.conditions {
            let Some(pages) = condition.pages(file) else { continue };
            let holding = condition.ranges(&pages);
            left = Some(match left {
                None => holding,
                Some(left) => both(&left, &holding),
            });
        }
        left
    }
}

impl Condition {
    fn of(info: &TableInfo, condition: &Expr) -> Option<Self> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
        let (name, operator, literal) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(found), Expr::Literal(literal, _)) => (&found.name, *op, literal),
            (Expr::Literal(literal, _), Expr::Column(found)) => (&found.name, op.swap()?, literal),
            _ => return None,
        };
        let column = match SystemColumn::ALL.into_iter().find(|system| system.name() == name) {
            Some(system) => ShapeColumn::System(system),
            None => ShapeColumn::Own(info.column_position(name)?),
        };
        Self::compare(info, column, operator, literal)
    }

    /// As DataFusion runs it, over columns of this shape.
    fn of_physical(info: &TableInfo, shape: &Shape, condition: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let binary = condition.downcast_ref::<PhysicalBinaryExpr>()?;
        if *binary.op() == Operator::Or {
            // How a top-N asks where NULLs come first; there may be none.
            let column = binary.left().downcast_ref::<IsNullExpr>()?.arg().downcast_ref::<Column>()?;
            let has_nulls = shape.schema().fields().get(column.index())?.is_nullable();
            return if has_nulls { None } else { Self::of_physical(info, shape, binary.right()) };
        }
        let column = binary.left().downcast_ref::<Column>()?;
        let literal = binary.right().downcast_ref::<Literal>()?;
        Self::compare(info, *shape.columns().get(column.index())?, *binary.op(), literal.value())
    }

    fn compare(
        info: &TableInfo,
        column: ShapeColumn,
        operator: Operator,
        literal: &ScalarValue,
    ) -> Option<Self> {
        let compares =
            matches!(operator, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
        let (column, data_type) = match column {
            ShapeColumn::System(system) => (Compared::System(system), system.data_type()),
            ShapeColumn::Own(position) => {
                let column = info.columns().get(position)?;
                (Compared::Own(column.id), column.data_type)
            }
        };
        let value = values::from_scalar(literal, data_type).ok()?;
        if !compares || !ColumnBounds::are_of(data_type) || !lossless(literal, &value) {
            return None;
        }
        let has_type = |schema: &&TableSchema| {
            schema.columns.iter().any(|it| column == Compared::Own(it.id) && it.data_type == data_type)
        };
        let versions = info.versions().iter().filter(has_type).map(|schema| schema.version).collect();
        Some(Self { column, data_type, operator, constant: key_of(&value)?, versions })
    }

    /// Whether it holds for no row of a file, as far as the manifest tells.
    fn excludes(&self, file: &ColdFile) -> bool {
        self.bounds(file).is_some_and(|(least, greatest)| !self.may_hold(Some(&least), Some(&greatest)))
    }

    /// What the values of its column lie between in a file, where the manifest tells.
    fn bounds<'f>(&self, file: &'f ColdFile) -> Option<Bounds<'f>> {
        let between = |least: &Value, greatest: &Value| {
            Some((Cow::Owned(key_of(least)?), Cow::Owned(key_of(greatest)?)))
        };
        let seq = |seq: u64| Value::BigInt(seq.cast_signed());
        match self.column {
            Compared::System(SystemColumn::Seq) => between(&seq(file.first_seq), &seq(file.last_seq)),
            Compared::System(SystemColumn::Updated) => {
                between(&Value::DateTime(file.first_updated), &Value::DateTime(file.last_updated))
            }
            Compared::Own(id) if self.versions.contains(&file.schema_version) => {
                let bounds = file.bounds.iter().find(|bounds| bounds.column == id)?;
                Some((bounds.least.as_slice().into(), bounds.greatest.as_slice().into()))
            }
            Compared::System(SystemColumn::Deleted) | Compared::Own(_) => None,
        }
    }

    /// The pages of its column; none where the file has it not, or as another type.
    fn pages(&self, file: &OpenFile) -> Option<Pages> {
        match self.column {
            Compared::System(system) => file.pages(system.name()),
            Compared::Own(id) => {
                let column = file.columns().iter().find(|column| column.id == id)?;
                (column.data_type == self.data_type).then(|| file.pages(&column.name))?
            }
        }
    }

    /// The rows of the pages that may have one for which it holds.
    fn ranges(&self, pages: &Pages) -> Vec<Range<usize>> {
        let bound = |array: &dyn Array, page: usize| {
            let value = (!array.is_null(page)).then(|| values::value_at(array, page, self.data_type).ok());
            value.flatten().and_then(|value| key_of(&value))
        };
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (page, (from, until)) in pages.bounds.iter().zip(pages.bounds.iter().skip(1)).enumerate() {
            let (least, greatest) = (bound(&pages.least, page), bound(&pages.greatest, page));
            if !self.may_hold(least.as_deref(), greatest.as_deref()) {
                continue;
            }
            match ranges.last_mut().filter(|before| before.end == *from) {
                Some(before) => before.end = *until,
                None => ranges.push(*from..*until),
            }
        }
        ranges
    }

    /// Whether it may hold for a value between these; where they are not told, it may.
    fn may_hold(&self, least: Option<&[u8]>, greatest: Option<&[u8]>) -> bool {
        let constant = self.constant.as_slice();
        let above = |bound: Option<&[u8]>| bound.is_none_or(|bound| bound > constant);
        let from = |bound: Option<&[u8]>| bound.is_none_or(|bound| bound >= constant);
        let below = |bound: Option<&[u8]>| bound.is_none_or(|bound| bound < constant);
        let until = |bound: Option<&[u8]>| bound.is_none_or(|bound| bound <= constant);
        match self.operator {
            Operator::Eq => until(least) && from(greatest),
            Operator::Lt => below(least),
            Operator::LtEq => until(least),
            Operator::Gt => above(greatest),
            Operator::GtEq => from(greatest),
            _ => true,
        }
    }
}

fn key_of(value: &Value) -> Option<Vec<u8>> {
    let mut key = KeyBuilder::new();
    key.push(value).ok()?;
    Some(key.finish())
}

/// What is in a range of both lists, each in order.
fn both(left: &[Range<usize>], right: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut found = Vec::new();
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        let common = one.start.max(other.start)..one.end.min(other.end);
        if one.end < other.end {
            left.next()
        } else {
            right.next()
        };
        if !common.is_empty() {
            found.push(common);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};

    use super::*;

    #[test]
    fn ranges_meet_in_what_both_have() {
        assert_eq!(both(&[0..5, 8..12, 20..30], &[3..9, 11..25]), [3..5, 8..9, 11..12, 20..25]);
        assert_eq!(both(&[0..5, 9..10], &[5..9, 10..12]), Vec::<Range<usize>>::new());
        assert_eq!(both(&[], &[0..9, 10..12]), Vec::<Range<usize>>::new());
    }

    #[test]
    fn a_condition_is_asked_of_the_bounds_that_decide() {
        let condition = |operator| Condition {
            column: Compared::System(SystemColumn::Seq),
            data_type: DataType::BigInt,
            operator,
            constant: key_of(&Value::BigInt(10)).unwrap(),
            versions: Vec::new(),
        };
        let holds = |operator, least: i64, greatest: i64| {
            let bound = |value| key_of(&Value::BigInt(value));
            condition(operator).may_hold(bound(least).as_deref(), bound(greatest).as_deref())
        };
        let between = |least, greatest| [Lt, LtEq, Eq, GtEq, Gt].map(|it| holds(it, least, greatest));
        assert_eq!(between(-5, 9), [true, true, false, false, false]);
        assert_eq!(between(-5, 10), [true, true, true, true, false]);
        assert_eq!(between(10, 10), [false, true, true, true, false]);
        assert_eq!(between(10, 11), [false, true, true, true, true]);
        assert_eq!(between(11, 90), [false, false, false, true, true]);
        assert!(condition(Eq).may_hold(None, None));
    }
}
