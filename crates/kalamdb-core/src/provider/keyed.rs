//! A system table as `DataFusion` sees it: read as a statement is planned, only the records that it asks for by their keys.
//!
//! One mechanism for all of them: what a statement's conditions say of a column is a list of values, and each table looks
//! its keys up in it. The filter above still decides, so a table that looks at nothing is right too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session as QuerySession, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::{Error, Result};
use crate::provider::Scope;

/// The values that a statement asks for, by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    texts: BTreeMap<String, Vec<String>>,
    numbers: BTreeMap<String, Vec<u64>>,
    nothing: bool,
}

impl Wanted {
    /// No record at all: what tells a table's columns.
    fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// What these conditions, which must all hold, ask for.
    fn of_filters(filters: &[Expr]) -> Self {
        let mut wanted = Self::default();
        for condition in filters.iter().flat_map(split_conjunction) {
            let Some((column, literals)) = one_of(condition) else { continue };
            let texts = literals.iter().map(|literal| literal.try_as_str().flatten().map(str::to_owned));
            if let Some(mut texts) = texts.collect::<Option<Vec<_>>>() {
                texts.sort_unstable();
                texts.dedup();
                wanted.texts.insert(column.to_owned(), texts);
            }
            let numbers = literals.iter().map(|literal| match literal {
                ScalarValue::Int64(Some(number)) => Some(*number),
                ScalarValue::UInt32(Some(number)) => Some(i64::from(*number)),
                _ => None,
            });
            if let Some(mut numbers) = numbers.collect::<Option<Vec<_>>>() {
                numbers.sort_unstable();
                numbers.dedup();
                // No record has a number below zero.
                let numbers = numbers.into_iter().filter_map(|number| u64::try_from(number).ok());
                wanted.numbers.insert(column.to_owned(), numbers.collect());
            }
        }
        wanted
    }

    /// The texts that a column must be one of; none where it may be any.
    pub(crate) fn texts(&self, column: &str) -> Option<&[String]> {
        self.texts.get(column).map(Vec::as_slice).or(self.nothing.then_some(&[]))
    }

    /// The numbers that a column must be one of; none where it may be any.
    pub(crate) fn numbers(&self, column: &str) -> Option<&[u64]> {
        self.numbers.get(column).map(Vec::as_slice).or(self.nothing.then_some(&[]))
    }
}

/// The column and the constants that it must be one of, if that is what a condition says.
fn one_of(condition: &Expr) -> Option<(&str, Vec<&ScalarValue>)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(literal, _))
                | (Expr::Literal(literal, _), Expr::Column(column)) => Some((&column.name, vec![literal])),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (column, mut literals) = one_of(left)?;
            let (same, more) = one_of(right)?;
            literals.extend(more);
            (column == same).then_some((column, literals))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let mut literals = Vec::with_capacity(list.len());
            for item in list {
                let Expr::Literal(literal, _) = item else { return None };
                literals.push(literal);
            }
            Some((&column.name, literals))
        }
        _ => None,
    }
}

/// The records of these keys, or all where no key is asked for.
pub(crate) fn pick<R>(
    keys: Option<&[String]>,
    get: impl Fn(&str) -> Result<Option<R>>,
    all: impl FnOnce() -> Result<Vec<R>>,
) -> Result<Vec<R>> {
    match keys {
        None => all(),
        Some(keys) => keys.iter().filter_map(|key| get(key).transpose()).collect(),
    }
}

/// Reads a system table: the records that are wanted and that the session may see.
pub(crate) type Read = fn(&Scope, &Wanted) -> Result<RecordBatch>;

/// A system table, for one statement.
pub(crate) struct KeyedTable {
    scope: Arc<Scope>,
    schema: SchemaRef,
    read: Read,
}

impl fmt::Debug for KeyedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl KeyedTable {
    pub(crate) fn new(scope: Arc<Scope>, read: Read) -> Result<Self> {
        let schema = read(&scope, &Wanted::nothing())?.schema();
        Ok(Self { scope, schema, read })
    }
}

#[async_trait]
impl TableProvider for KeyedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> QueryResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn QuerySession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let batch = (self.read)(&self.scope, &Wanted::of_filters(filters));
        let batch = batch.map_err(|error: Error| DataFusionError::External(Box::new(error)))?;
        let scan =
            MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.schema), projection.cloned())?;
        Ok(scan)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    #[test]
    fn conditions_on_keys_say_which_records_are_read() {
        let wanted = |filters: &[Expr]| Wanted::of_filters(filters);
        let ids = |filters: &[Expr]| wanted(filters).numbers("id").map(<[u64]>::to_vec);
        let names = |filters: &[Expr]| wanted(filters).texts("name").map(<[String]>::to_vec);
        assert_eq!(ids(&[]), None);
        assert_eq!(ids(&[col("id").eq(lit(5_i64))]), Some(vec![5]));
        assert_eq!(ids(&[lit(5_i64).eq(col("id"))]), Some(vec![5]));
        assert_eq!(
            ids(&[col("id").in_list(vec![lit(7_i64), lit(3_i64), lit(-1_i64), lit(3_i64)], false)]),
            Some(vec![3, 7])
        );
        assert_eq!(ids(&[col("id").in_list(vec![lit(7_i64)], true)]), None);
        assert_eq!(ids(&[col("id").gt(lit(5_i64))]), None);
        assert_eq!(ids(&[col("id").eq(lit(5_i64)).or(col("id").eq(lit(6_i64)))]), Some(vec![5, 6]));
        assert_eq!(ids(&[col("id").eq(lit(5_i64)).or(col("other").eq(lit(6_i64)))]), None);
        assert_eq!(
            names(&[col("name").eq(lit("a")).and(col("id").eq(lit(1_i64)))]),
            Some(vec!["a".to_owned()])
        );
        assert_eq!(names(&[col("name").eq(col("other"))]), None);
        assert_eq!(Wanted::nothing().numbers("id"), Some(&[][..]));
    }
}
