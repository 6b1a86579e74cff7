//! From a plan to what a live query does: which rows match, and what is made of them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, FetchType, Limit, LogicalPlan, Projection, SkipType, SortExpr,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::lit;

use super::accumulator::AggregateCall;
use super::{AggregatePlan, Output, ResultPlan, TopPlan};
use crate::changes::CHANGES;
use crate::error::{Error, Result, from_query};
use crate::live::projection::Projection as Shown;
use crate::table::{SystemColumn, TableInfo};

/// Rows that a live query may show of an order, those before OFFSET included.
const TOP_ROWS_MAX: usize = 1000;

/// What a live query is made of.
pub(crate) struct Shape<'p> {
    /// What is selected, over `input`; of aggregates over their result.
    pub(crate) select: Vec<Expr>,
    /// What subscribers see, but for an aggregate's `_seq`.
    pub(crate) schema: &'p DFSchemaRef,
    /// The rows that match.
    pub(crate) input: &'p LogicalPlan,
    pub(crate) kind: Kind<'p>,
}

pub(crate) enum Kind<'p> {
    /// The rows themselves.
    Rows,
    /// The first of them.
    Top {
        order_by: Vec<SortExpr>,
        skip: usize,
        fetch: usize,
    },
    Aggregate {
        aggregate: &'p Aggregate,
        having: Option<&'p Expr>,
    },
}

impl Shape<'_> {
    /// Everything that is evaluated, but for what narrows the rows.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expr> + Clone {
        let (order_by, aggregate, having) = match &self.kind {
            Kind::Rows => ([].as_slice(), None, None),
            Kind::Top { order_by, .. } => (order_by.as_slice(), None, None),
            Kind::Aggregate { aggregate, having } => ([].as_slice(), Some(*aggregate), *having),
        };
        let grouped = aggregate.into_iter().flat_map(|it| it.group_expr.iter().chain(&it.aggr_expr));
        self.select.iter().chain(order_by.iter().map(|it| &it.expr)).chain(grouped).chain(having)
    }

    /// What `select` is evaluated over.
    pub(crate) fn selected_from(&self) -> &DFSchema {
        match &self.kind {
            Kind::Aggregate { aggregate, .. } => &aggregate.schema,
            _ => self.input.schema(),
        }
    }

    /// What subscribers see.
    pub(crate) fn arrow_schema(&self) -> SchemaRef {
        let fields = self.schema.fields().iter().map(|field| field.as_ref().clone());
        let seq = matches!(self.kind, Kind::Aggregate { .. }).then(|| SystemColumn::Seq.field());
        Arc::new(Schema::new(fields.chain(seq).collect::<Vec<Field>>()))
    }

    /// The same for shapes that select the same.
    pub(crate) fn signature(&self) -> String {
        let mut signature = match &self.kind {
            Kind::Aggregate { aggregate, .. } => format!("{:?}", aggregate.schema.fields()),
            _ => String::new(),
        };
        for (expression, field) in self.select.iter().zip(self.arrow_schema().fields()) {
            let _ = write!(signature, "\u{1}{expression}\u{2}{}", field.name());
        }
        signature
    }
}

/// Takes a plan apart.
pub(crate) fn shape_of(plan: &LogicalPlan) -> Result<Shape<'_>> {
    match plan {
        LogicalPlan::Limit(limit) => top_shape(limit),
        LogicalPlan::Projection(projection) => match aggregate_below(&projection.input) {
            Some((aggregate, having)) => Ok(Shape {
                // A row of an aggregate has no `_seq` but that of its changes.
                select: projection.expr.iter().cloned().chain([lit(0_i64)]).collect(),
                schema: &projection.schema,
                input: &aggregate.input,
                kind: Kind::Aggregate { aggregate, having },
            }),
            None => Ok(Shape {
                select: projection.expr.clone(),
                schema: &projection.schema,
                input: &projection.input,
                kind: Kind::Rows,
            }),
        },
        other => Err(shape_error(other)),
    }
}

fn aggregate_below(plan: &LogicalPlan) -> Option<(&Aggregate, Option<&Expr>)> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some((aggregate, None)),
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::Aggregate(aggregate) => Some((aggregate, Some(&filter.predicate))),
            _ => None,
        },
        _ => None,
    }
}

fn top_shape(limit: &Limit) -> Result<Shape<'_>> {
    let (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return Err(refused("a LIMIT or OFFSET that is no number in a live query", None));
    };
    // What is ordered by and not selected stands below another projection.
    let (above, sort) = match limit.input.as_ref() {
        LogicalPlan::Projection(above) => (Some(above), above.input.as_ref()),
        other => (None, other),
    };
    let LogicalPlan::Sort(sort) = sort else { return Err(shape_error(sort)) };
    let LogicalPlan::Projection(below) = sort.input.as_ref() else { return Err(shape_error(&sort.input)) };
    if aggregate_below(&below.input).is_some() {
        return Err(refused(
            "ORDER BY and LIMIT of aggregates in a live query",
            Some("a live query sends every group that changes: order them where they are shown"),
        ));
    }
    if skip.saturating_add(fetch) > TOP_ROWS_MAX {
        return Err(refused(
            "more than 1000 rows of an order in a live query",
            Some("lower LIMIT and OFFSET"),
        ));
    }
    let meaning = meaning_of(below);
    let order_by = sort
        .expr
        .iter()
        .map(|it| Ok(SortExpr { expr: in_terms_of(it.expr.clone(), &meaning)?, ..it.clone() }));
    let order_by = order_by.collect::<Result<_>>()?;
    let (select, schema) = match above {
        None => (below.expr.clone(), &below.schema),
        Some(above) => {
            let select = above.expr.iter().map(|it| in_terms_of(it.clone(), &meaning));
            (select.collect::<Result<_>>()?, &above.schema)
        }
    };
    Ok(Shape { select, schema, input: &below.input, kind: Kind::Top { order_by, skip, fetch } })
}

/// What a projection's columns stand for.
fn meaning_of(projection: &Projection) -> HashMap<Column, Expr> {
    let columns = projection.schema.iter().map(Column::from);
    columns.zip(projection.expr.iter().map(|it| it.clone().unalias_nested().data)).collect()
}

fn in_terms_of(expression: Expr, meaning: &HashMap<Column, Expr>) -> Result<Expr> {
    let replaced = expression.transform_up(|part| {
        Ok(match &part {
            Expr::Column(column) => match meaning.get(column) {
                Some(meant) => Transformed::yes(meant.clone()),
                None => Transformed::no(part),
            },
            _ => Transformed::no(part),
        })
    });
    Ok(replaced?.data)
}

pub(crate) fn shape_error(plan: &LogicalPlan) -> Error {
    Error::Unsupported {
        what: format!("{} in a live query", plan.display().to_string().split(':').next().unwrap_or_default()),
        hint: Some("write SELECT … FROM one table [WHERE …] [GROUP BY … [HAVING …] | ORDER BY … LIMIT n]"),
    }
}

fn refused(what: &str, hint: Option<&'static str>) -> Error {
    Error::Unsupported { what: what.to_owned(), hint }
}

/// Compiles what is made of the rows that match; none where it is the rows themselves.
pub(crate) fn result_plan(
    state: &SessionState,
    shape: &Shape<'_>,
    info: &TableInfo,
    projection: &Shown,
) -> Result<Option<ResultPlan>> {
    let input = shape.input.schema();
    let has_old_rows = info.stream().is_none() && info.id() != CHANGES;
    match &shape.kind {
        // IMPORTANT: a row before a change would be told by those of the change, and whether it matched be mistaken.
        Kind::Rows if has_old_rows && filter_of(shape.input).is_some_and(names_system_column) => {
            Err(refused(
                "_seq or _updated in the condition of a live query",
                Some(
                    "the log does not have those of rows before a change; subscribe from a seq, or compare a column of your own",
                ),
            ))
        }
        Kind::Rows => Ok(None),
        _ if info.stream().is_some() => Err(refused(
            "ORDER BY, LIMIT or an aggregate in a live query of a STREAM table",
            Some("its rows go by themselves, which live queries are not told"),
        )),
        Kind::Top { order_by, skip, fetch } => {
            let top = top_plan(state, input, order_by, info, Output::new(projection)?)?;
            let filter = filter_of(shape.input);
            let has_no_past = order_by.iter().map(|it| &it.expr).chain(filter).any(names_system_column);
            Ok(Some(ResultPlan::Top(TopPlan { skip: *skip, fetch: *fetch, has_no_past, ..top })))
        }
        Kind::Aggregate { aggregate, having } => {
            let expressions = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
            if expressions.chain(filter_of(shape.input)).any(names_system_column) {
                return Err(refused(
                    "_seq or _updated in a live aggregate",
                    Some(
                        "the log does not have those of rows before a change; keep the time in a column of your own",
                    ),
                ));
            }
            aggregate_plan(state, aggregate, *having, Output::new(projection)?)
                .map(|plan| Some(ResultPlan::Aggregate(plan)))
        }
    }
}

pub(crate) fn filter_of(input: &LogicalPlan) -> Option<&Expr> {
    match input {
        LogicalPlan::Filter(filter) => Some(&filter.predicate),
        _ => None,
    }
}

/// Whether an expression is more than a column, and names a system column.
pub(crate) fn computes_from_system_column(expression: &Expr) -> bool {
    let bare = expression.clone().unalias_nested().data;
    !matches!(bare, Expr::Column(_)) && names_system_column(&bare)
}

fn names_system_column(expression: &Expr) -> bool {
    let is_system = |name: &str| SystemColumn::ALL.iter().any(|system| system.name() == name);
    expression.column_refs().iter().any(|column| is_system(&column.name))
}

fn physical(state: &SessionState, expression: &Expr, input: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    kalamdb_query::compile(state, expression.clone(), input).map_err(from_query)
}

fn top_plan(
    state: &SessionState,
    input: &DFSchemaRef,
    order_by: &[SortExpr],
    info: &TableInfo,
    output: Output,
) -> Result<TopPlan> {
    let key: Vec<usize> = info.key_columns().to_vec();
    let (mut sort, mut fields, mut compiled) = (order_by.to_vec(), Vec::new(), Vec::new());
    for it in order_by {
        let expression = physical(state, &it.expr, input)?;
        let options = SortOptions { descending: !it.asc, nulls_first: it.nulls_first };
        fields.push(SortField::new_with_options(expression.data_type(input.as_arrow())?, options));
        compiled.push(expression);
    }
    let mut key_fields = Vec::new();
    for at in &key {
        let (qualifier, field) = input.qualified_field(*at);
        sort.push(Expr::Column(Column::from((qualifier, field))).sort(true, false));
        key_fields.push(SortField::new(field.data_type().clone()));
    }
    fields.extend(key_fields.iter().cloned());
    Ok(TopPlan {
        order_by: compiled,
        sort,
        order: RowConverter::new(fields)?,
        key,
        identity: RowConverter::new(key_fields)?,
        skip: 0,
        fetch: 0,
        has_no_past: false,
        output,
    })
}

fn aggregate_plan(
    state: &SessionState,
    aggregate: &Aggregate,
    having: Option<&Expr>,
    output: Output,
) -> Result<AggregatePlan> {
    let input = aggregate.input.schema();
    let schema = Arc::new(Schema::new(
        aggregate
            .schema
            .fields()
            .iter()
            .map(|it| it.as_ref().clone().with_nullable(true))
            .collect::<Vec<Field>>(),
    ));
    let mut group_by = Vec::new();
    for expression in &aggregate.group_expr {
        if matches!(expression, Expr::GroupingSet(_)) {
            return Err(refused("GROUPING SETS, CUBE or ROLLUP in a live query", None));
        }
        group_by.push(physical(state, expression, input)?);
    }
    let keys = schema.fields().iter().take(group_by.len()).map(|it| SortField::new(it.data_type().clone()));
    let keys = RowConverter::new(keys.collect())?;
    let results = schema.fields().iter().skip(group_by.len());
    let mut calls = Vec::new();
    for (expression, result) in aggregate.aggr_expr.iter().zip(results) {
        calls.push(call(state, expression, input, result)?);
    }
    let named = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).flat_map(Expr::column_refs);
    let mut needed: Vec<usize> = named.filter_map(|column| input.maybe_index_of_column(column)).collect();
    needed.sort_unstable();
    needed.dedup();
    let having = having.map(|having| physical(state, having, &aggregate.schema)).transpose()?;
    Ok(AggregatePlan { group_by, keys, calls, schema, having, needed, output })
}

fn call(state: &SessionState, expression: &Expr, input: &DFSchema, result: &Field) -> Result<AggregateCall> {
    let unsupported = || {
        refused(
            &format!("{expression} in a live query"),
            Some("COUNT, SUM, MIN, MAX and AVG are, without DISTINCT or an order"),
        )
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) =
        expression.clone().unalias_nested().data
    else {
        return Err(unsupported());
    };
    if params.distinct || !params.order_by.is_empty() || params.args.len() > 1 {
        return Err(unsupported());
    }
    let argument = params.args.first().map(|it| physical(state, it, input)).transpose()?;
    let filter = params.filter.as_ref().map(|it| physical(state, it, input)).transpose()?;
    let made = AggregateCall::new(func.name(), argument, filter, input.as_arrow(), result.data_type())?;
    made.ok_or_else(unsupported)
}
