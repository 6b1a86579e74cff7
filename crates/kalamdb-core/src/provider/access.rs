//! Which keys a statement's conditions let a scan of a table look at.

use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use kalamdb_store::KeyRange;
use log_format::{Column, KeyBuilder};

use crate::live::{column_equals, lossless};
use crate::table::TableInfo;
use crate::values;

/// Rows that a range is expected to have; columns grow beyond.
const ROWS_EXPECTED: usize = 256;
/// Keys that are looked up one by one at the most; more are scanned for.
const POINTS_MAX: usize = 1024;

/// Which keys a scan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// These, one by one, in order.
    Points(Vec<Vec<u8>>),
    /// Those in a range.
    Range(KeyRange),
}

impl Access {
    /// Rows that it may find.
    pub(crate) const fn expected(&self) -> usize {
        match self {
            Self::Points(points) => points.len(),
            Self::Range(_) => ROWS_EXPECTED,
        }
    }

    /// The end of its range.
    pub(crate) fn until(&self) -> Option<Vec<u8>> {
        match self {
            Self::Points(_) => None,
            Self::Range(range) => range.until.clone(),
        }
    }

    /// The narrowest access that these conditions, which must all hold, allow, and how many of the key's first columns they
    /// leave one value.
    pub(crate) fn of_filters(info: &TableInfo, filters: &[Expr]) -> (Self, usize) {
        let mut prefix = KeyBuilder::new();
        let keys: Vec<&Column> = info.key_columns().iter().filter_map(|at| info.columns().get(*at)).collect();
        let conditions: Vec<&Expr> =
            filters.iter().flat_map(datafusion::logical_expr::utils::split_conjunction).collect();
        let mut equal = 0;
        for column in &keys {
            let value = conditions.iter().find_map(|condition| {
                let (name, literal) = column_equals(condition)?;
                let value = values::from_scalar(literal, column.data_type).ok()?;
                (name == column.name && lossless(literal, &value)).then_some(value)
            });
            match value {
                Some(value) if prefix.push(&value).is_ok() => equal += 1,
                _ => break,
            }
        }
        let prefix = prefix.finish();
        if equal == keys.len() {
            return (Self::Points(vec![prefix]), equal);
        }
        if let (0, [column]) = (equal, keys.as_slice())
            && let Some(points) = conditions.iter().find_map(|condition| in_list(column, condition))
        {
            return (Self::Points(points), 0);
        }
        let mut range = if equal > 0 { KeyRange::with_prefix(&prefix) } else { KeyRange::default() };
        if let Some(column) = keys.get(equal) {
            for condition in conditions {
                narrow(&mut range, &prefix, column, condition);
            }
        }
        (Self::Range(range), equal)
    }
}

/// The keys of `column IN (constants)`.
fn in_list(column: &Column, condition: &Expr) -> Option<Vec<Vec<u8>>> {
    let Expr::InList(InList { expr, list, negated: false }) = condition else { return None };
    let Expr::Column(found) = expr.as_ref() else { return None };
    if found.name != column.name || list.len() > POINTS_MAX {
        return None;
    }
    let mut points = list
        .iter()
        .map(|item| {
            let Expr::Literal(literal, _) = item else { return None };
            let value = values::from_scalar(literal, column.data_type).ok()?;
            let mut key = KeyBuilder::new();
            (lossless(literal, &value) && key.push(&value).is_ok()).then(|| key.finish())
        })
        .collect::<Option<Vec<_>>>()?;
    points.sort_unstable();
    points.dedup();
    Some(points)
}

/// Takes in a comparison of the key's next column with a constant.
fn narrow(range: &mut KeyRange, prefix: &[u8], column: &Column, condition: &Expr) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return };
    let (name, op, literal) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(found), Expr::Literal(literal, _)) => (&found.name, Some(*op), literal),
        (Expr::Literal(literal, _), Expr::Column(found)) => (&found.name, op.swap(), literal),
        _ => return,
    };
    if *name != column.name {
        return;
    }
    let Ok(value) = values::from_scalar(literal, column.data_type) else { return };
    let mut key = KeyBuilder::new();
    if !lossless(literal, &value) || key.push(&value).is_err() {
        return;
    }
    let exact = KeyRange::with_prefix(&[prefix, &key.finish()].concat());
    let raise = |bound: &mut Option<Vec<u8>>, to: Option<Vec<u8>>| {
        if to.is_some() && (bound.is_none() || *bound < to) {
            *bound = to;
        }
    };
    let lower = |bound: &mut Option<Vec<u8>>, to: Option<Vec<u8>>| {
        if to.is_some() && (bound.is_none() || *bound > to) {
            *bound = to;
        }
    };
    match op {
        Some(Operator::Gt) => raise(&mut range.from, exact.until),
        Some(Operator::GtEq) => raise(&mut range.from, exact.from),
        Some(Operator::Lt) => lower(&mut range.until, exact.from),
        Some(Operator::LtEq) => lower(&mut range.until, exact.until),
        _ => {}
    }
}
