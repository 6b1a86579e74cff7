//! The types of expressions, and what operators and casts mean on them, as in PostgreSQL.
//!
//! Before `DataFusion` makes the operands of an operator alike: a decimal beside a float becomes a float, text that stands as
//! a literal beside another type is read as a value of that type, differences of times are spans, spans are compared by their
//! length, casts round and read text as PostgreSQL does.

mod adopt;
mod cast;
mod operators;
mod planner;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunction, InList, NullTreatment, ScalarFunction, Sort as SortExpr, WindowFunction,
    WindowFunctionParams,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, Cast, Distinct, Expr, ExprSchemable, Like, LogicalPlan, LogicalPlanBuilder,
    WindowFunctionDefinition, not,
};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::{bytes_length, json_embed, part_of_time, present_neighbour, round_float, span_key};

pub(crate) use planner::NANOSECONDS;
pub use planner::SqlTypes;

/// Gives expressions PostgreSQL's meaning.
#[derive(Debug, Default)]
pub struct ResolveTypes;

impl AnalyzerRule for ResolveTypes {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(resolve_node)?.data)
    }

    fn name(&self) -> &'static str {
        "resolve_types"
    }
}

fn resolve_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Union(union) = node {
        return operators::union_of_floats(union);
    }
    if matches!(node, LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_)) {
        return Ok(Transformed::no(node));
    }
    let schema = merge_schema(&node.inputs());
    let names = NamePreserver::new(&node);
    let is_sort = matches!(node, LogicalPlan::Sort(_));
    let mapped = node.map_expressions(|expr| {
        let name = names.save(&expr);
        let resolved = resolve(expr, &schema)?;
        let resolved =
            if is_sort { resolved.transform_data(|expr| Ok(sort_key(expr, &schema)))? } else { resolved };
        Ok(resolved.update_data(|expr| name.restore(expr)))
    })?;
    let mapped = mapped.transform_data(|plan| Ok(operators::join_keys(plan)))?;
    let mapped = mapped.update_data(|plan| distinct_on_keys(plan, &schema));
    if !mapped.transformed {
        return Ok(mapped);
    }
    // VALUES keeps the types that it was planned with.
    if let LogicalPlan::Values(values) = mapped.data {
        return Ok(Transformed::yes(LogicalPlanBuilder::values(values.values)?.build()?));
    }
    Ok(Transformed::yes(mapped.data.recompute_schema()?))
}

/// An expression with PostgreSQL's meaning, of the columns of `schema`.
pub(crate) fn resolve(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| resolve_part(part, schema))
}

/// One operator with PostgreSQL's meaning.
pub(crate) fn resolve_binary(
    binary: datafusion::logical_expr::BinaryExpr,
    schema: &DFSchema,
) -> Result<Transformed<Expr>> {
    operators::binary(binary, schema)
}

/// The type of an expression; none where it cannot be told yet.
pub(crate) fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    expr.get_type(schema).ok()
}

/// The SQL type that an expression's Arrow type does not tell: `UUID` or `JSON`.
pub(crate) fn sql_type_of(expr: &Expr, schema: &DFSchema) -> Option<String> {
    let (_, field) = expr.to_field(schema).ok()?;
    field.metadata().get(crate::functions::TYPE_METADATA).cloned()
}

/// A value cast to a type, unless it has it.
pub(crate) fn cast_to(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to {
        return expr;
    }
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(value) = value.cast_to(to)
    {
        return Expr::Literal(value, metadata.clone());
    }
    Expr::Cast(Cast::new(Box::new(expr), to.clone()))
}

fn resolve_part(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::BinaryExpr(binary) => operators::binary(binary, schema),
        Expr::Between(between) => resolve_between(between, schema),
        Expr::InList(list) => resolve_list(list, schema),
        Expr::Case(case) => adopt::case(case, schema),
        Expr::Like(like) => Ok(resolve_like(like)),
        Expr::SimilarTo(like) => Ok(resolve_similar(like)),
        Expr::Cast(cast) => Ok(cast::resolve(cast, schema)),
        Expr::Negative(inner) => Ok(operators::negative(*inner, schema)),
        Expr::ScalarFunction(call) => resolve_call(call, schema),
        Expr::AggregateFunction(call) => Ok(operators::aggregate(call, schema)),
        Expr::WindowFunction(call) => Ok(resolve_window(*call, schema)),
        // Integers beyond 64 bits are numerics.
        Expr::Literal(ScalarValue::UInt64(Some(value)), _) => {
            let value = ScalarValue::Decimal128(Some(value.into()), 20, 0);
            Ok(Transformed::yes(Expr::Literal(value, None)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// `BETWEEN` as its two comparisons, each of which is resolved by itself; of what is no column, with bounds made alike to it.
fn resolve_between(between: Between, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let types = [&between.expr, &between.low, &between.high].map(|expr| type_of(expr, schema));
    let is_alike = matches!(&types, [Some(a), Some(b), Some(c)] if a == b && b == c && !matches!(a, DataType::Interval(_)));
    if is_alike {
        return Ok(Transformed::no(Expr::Between(between)));
    }
    let Between { expr, negated, low, high } = between;
    if !adopt::is_small(&expr) {
        let [expr, low, high] = three(adopt::comparable(vec![*expr, *low, *high], schema)?)?.map(Box::new);
        return Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })));
    }
    let above = resolve_part(expr.as_ref().clone().gt_eq(*low), schema)?.data;
    let below = resolve_part(expr.lt_eq(*high), schema)?.data;
    let within = above.and(below);
    Ok(Transformed::yes(if negated { not(within) } else { within }))
}

fn three(exprs: Vec<Expr>) -> Result<[Expr; 3]> {
    <[Expr; 3]>::try_from(exprs)
        .or_else(|exprs| plan_err!("BETWEEN takes a value and two bounds, not {}", exprs.len()))
}

/// `IN` over a list: floats, which have two zeros, and spans, which have many forms, are compared in one form.
fn resolve_list(list: InList, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let InList { expr, mut list, negated } = list;
    let own = type_of(&expr, schema);
    let mut types = own.iter().cloned().chain(list.iter().filter_map(|item| type_of(item, schema)));
    if !types.any(|found| operators::compares_otherwise(&found)) {
        let sql_type = sql_type_of(&expr, schema);
        if let Some(own) = &own {
            list = list
                .into_iter()
                .map(|item| adopt::literal(item, own, sql_type.as_deref()))
                .collect::<Result<Vec<_>>>()?;
        }
        return Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })));
    }
    list.push(*expr);
    let mut list = adopt::comparable(list, schema)?;
    let Some(expr) = list.pop().map(Box::new) else { return plan_err!("IN without a value") };
    Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })))
}

fn resolve_like(like: Like) -> Transformed<Expr> {
    let Some(escape) = like.escape_char.filter(|escape| *escape != '\\') else {
        return Transformed::no(Expr::Like(like));
    };
    let escape = datafusion::prelude::lit(escape.to_string());
    let pattern = Box::new(crate::functions::like_pattern(*like.pattern, escape));
    Transformed::yes(Expr::Like(Like { pattern, escape_char: None, ..like }))
}

fn resolve_similar(like: Like) -> Transformed<Expr> {
    let escape = datafusion::prelude::lit(like.escape_char.map_or("\\".to_owned(), String::from));
    let similar = crate::functions::matches_similar(*like.expr, *like.pattern, escape);
    Transformed::yes(if like.negated { not(similar) } else { similar })
}

fn resolve_call(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let first = call.args.first().and_then(|arg| type_of(arg, schema));
    match (call.func.name(), call.args.as_slice(), &first) {
        // Microseconds are what columns have; nanoseconds end in 2262.
        ("now" | "current_timestamp", [], _) => {
            let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
            Ok(Transformed::yes(Expr::Cast(Cast::new(Box::new(Expr::ScalarFunction(call)), instant))))
        }
        ("round", [value], Some(DataType::Float32 | DataType::Float64)) => {
            Ok(Transformed::yes(round_float(value.clone())))
        }
        // One digit more than the number has: 9.5 becomes 10.
        ("ceil" | "floor" | "round", [_], Some(found)) if operators::digits_of_decimal(found).is_some() => {
            Ok(resolve_rounding(&call, found))
        }
        ("length" | "octet_length" | "char_length" | "character_length", [value], Some(DataType::Binary)) => {
            Ok(Transformed::yes(bytes_length(value.clone())))
        }
        // The sum of a DATE and an interval is a TIMESTAMP by now.
        (name, [_], Some(DataType::Date32)) if name.starts_with("extract_") => {
            plan_err!("a DATE has no hour, minute or second; cast it to TIMESTAMP")
        }
        ("date_part", [Expr::Literal(..), _], _) => resolve_part_of_time(call, schema),
        ("||", ..) => Ok(resolve_concatenation(call, schema)),
        // A document is one already, and stands among other values as it is.
        ("to_json" | "to_jsonb", [value], _) if is_document(value, schema) => {
            Ok(Transformed::yes(value.clone()))
        }
        ("json_build_object" | "jsonb_build_object" | "json_build_array" | "jsonb_build_array", args, _)
            if args.iter().any(|arg| is_document(arg, schema)) =>
        {
            let embedded = |arg: Expr| if is_document(&arg, schema) { json_embed(arg) } else { arg };
            Ok(Transformed::yes(with_args(&call, call.args.iter().cloned().map(embedded).collect())))
        }
        (name, [_, Expr::ScalarFunction(array)], _)
            if (name.starts_with("any_") || name.starts_with("all_"))
                && array.func.name() == "make_array" =>
        {
            resolve_quantified(call, schema)
        }
        ("between_symmetric", ..) => {
            let args = adopt::comparable(call.args.clone(), schema)?;
            Ok(Transformed::yes(with_args(&call, args)))
        }
        ("coalesce" | "nullif" | "greatest" | "least" | "nvl" | "ifnull", ..) => {
            adopt::arguments(call, schema)
        }
        ("date_trunc" | "date_bin", ..) => Ok(Transformed::no(operators::truncation(call, schema)?)),
        ("power" | "pow", [_, _], _) => {
            let double = |expr: &Expr| match type_of(expr, schema) {
                Some(found) => cast_to(expr.clone(), &found, &DataType::Float64),
                None => expr.clone(),
            };
            Ok(Transformed::no(with_args(&call, call.args.iter().map(double).collect())))
        }
        _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
    }
}

/// `ceil`, `floor` and `round` of a decimal, with room for a carry and without digits behind the point.
fn resolve_rounding(call: &ScalarFunction, found: &DataType) -> Transformed<Expr> {
    let (Some((digits, scale)), [value]) = (operators::digits_of_decimal(found), call.args.as_slice()) else {
        return Transformed::no(Expr::ScalarFunction(call.clone()));
    };
    if i16::from(digits) - i16::from(scale) > 20 {
        return Transformed::no(Expr::ScalarFunction(call.clone()));
    }
    let wide = crate::functions::exact_type(&[(digits.saturating_add(1), scale)], true);
    let rounded = with_args(call, vec![cast_to(value.clone(), found, &wide)]);
    let whole = u8::try_from(i16::from(digits) - i16::from(scale) + 1).unwrap_or(1).max(1);
    let whole = crate::functions::exact_type(&[(whole, 0)], true);
    Transformed::yes(Expr::Cast(Cast::new(Box::new(rounded), whole)))
}

/// A call of the same function with other arguments.
fn with_args(call: &ScalarFunction, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&call.func), args })
}

fn is_document(expr: &Expr, schema: &DFSchema) -> bool {
    sql_type_of(expr, schema).as_deref() == Some("JSON")
}

/// `date_part(field, value)`.
fn resolve_part_of_time(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let [Expr::Literal(field, _), value] = call.args.as_slice() else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let field = field.try_as_str().flatten().unwrap_or_default().to_ascii_lowercase();
    let value = match type_of(value, schema) {
        Some(DataType::Utf8) => adopt::literal(value.clone(), &crate::functions::TIMESTAMP, None)?,
        _ => value.clone(),
    };
    Ok(match part_of_time(&field, value) {
        Some(part) => Transformed::yes(part),
        None => Transformed::no(Expr::ScalarFunction(call)),
    })
}

/// `||` as a function: what is no text is written as PostgreSQL writes it.
fn resolve_concatenation(call: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let is_list = |arg: &Expr| type_of(arg, schema).is_some_and(|found| found.is_nested());
    if !call.args.iter().any(|arg| operators::is_written(arg, schema)) || call.args.iter().any(is_list) {
        return Transformed::no(Expr::ScalarFunction(call));
    }
    let written = |arg: Expr| {
        if operators::is_written(&arg, schema) { crate::functions::as_text(arg) } else { arg }
    };
    let args = call.args.iter().cloned().map(written).collect();
    Transformed::yes(with_args(&call, args))
}

/// `value < ANY (ARRAY[…])`: the value and the elements, made alike.
fn resolve_quantified(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let [value, Expr::ScalarFunction(array)] = call.args.as_slice() else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let mut alike = array.args.clone();
    alike.push(value.clone());
    let mut alike = adopt::comparable(alike, schema)?;
    let Some(value) = alike.pop() else { return Ok(Transformed::no(Expr::ScalarFunction(call))) };
    Ok(Transformed::yes(with_args(&call, vec![value, with_args(array, alike)])))
}

/// Window functions without a frame of their own order by a RANGE, which takes numbers and times only.
fn resolve_window(mut call: WindowFunction, schema: &DFSchema) -> Transformed<Expr> {
    if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
        let WindowFunctionParams { args, filter, .. } = &call.params;
        let aggregate = AggregateFunction::new_udf(
            Arc::clone(function),
            args.clone(),
            false,
            filter.clone(),
            Vec::new(),
            None,
        );
        if let Expr::AggregateFunction(resolved) = operators::aggregate(aggregate, schema).data.unalias() {
            call.fun = WindowFunctionDefinition::AggregateUDF(resolved.func);
            call.params.args = resolved.params.args;
        }
    }
    if let WindowFunctionDefinition::WindowUDF(function) = &call.fun
        && matches!(function.name(), "lead" | "lag")
        && call.params.null_treatment == Some(NullTreatment::IgnoreNulls)
    {
        call.fun = WindowFunctionDefinition::WindowUDF(present_neighbour(function.name() == "lead"));
        call.params.null_treatment = None;
    }
    call.params.partition_by =
        call.params.partition_by.into_iter().map(|key| sort_key(key, schema).data).collect();
    let mut keys: Vec<SortExpr> = Vec::with_capacity(call.params.order_by.len());
    for mut key in call.params.order_by {
        key.expr = match type_of(&key.expr, schema) {
            Some(DataType::Time64(_)) => Expr::Cast(Cast::new(Box::new(key.expr), DataType::Int64)),
            _ => sort_key(key.expr, schema).data,
        };
        keys.push(key);
    }
    call.params.order_by = keys;
    Transformed::yes(Expr::from(call))
}

/// The keys of DISTINCT ON, as those of ORDER BY.
fn distinct_on_keys(plan: LogicalPlan, schema: &DFSchema) -> LogicalPlan {
    let LogicalPlan::Distinct(Distinct::On(mut on)) = plan else { return plan };
    on.on_expr = on.on_expr.into_iter().map(|key| sort_key(key, schema).data).collect();
    for key in on.sort_expr.iter_mut().flatten() {
        key.expr = sort_key(std::mem::take(&mut key.expr), schema).data;
    }
    LogicalPlan::Distinct(Distinct::On(on))
}

/// Spans are ordered by their length, and both zeros of a float are one: -0.0 + 0.0 is 0.0.
pub(crate) fn sort_key(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match type_of(&expr, schema) {
        Some(DataType::Interval(_) | DataType::Duration(_)) => Transformed::yes(span_key(expr)),
        Some(DataType::Float64) => Transformed::yes(expr + datafusion::prelude::lit(0.0_f64)),
        Some(DataType::Float32) => Transformed::yes(expr + datafusion::prelude::lit(0.0_f32)),
        _ => Transformed::no(expr),
    }
}
