//! Expressions: rows, quantified comparisons, zones, powers, arrays.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Array, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, OrderByExpr, OrderByKind, Query, SelectItem,
    SetExpr, TableAlias, TableAliasColumnDef, TableFactor, UnaryOperator, Value, ValueWithSpan,
};

use super::{Rewriter, calls, empty_select, query_of};

/// Rewrites one expression, before its parts.
pub(super) fn before(expr: &mut Expr, rewriter: &mut Rewriter<'_>) -> Result<(), String> {
    // What comes out may itself have a form of its own: a row in a list, a list in ANY.
    for _ in 0..4 {
        match rewritten(expr, rewriter)? {
            Some(other) => {
                rewriter.grow(size_of(&other).saturating_sub(size_of(expr)))?;
                *expr = other;
            }
            None => break,
        }
    }
    Ok(())
}

/// Expressions and queries in an expression.
fn size_of(expr: &Expr) -> usize {
    let mut size = 0;
    let _ = ast::visit_expressions(expr, |_| {
        size += 1;
        ControlFlow::<()>::Continue(())
    });
    size
}

fn rewritten(expr: &Expr, rewriter: &mut Rewriter<'_>) -> Result<Option<Expr>, String> {
    Ok(match expr {
        Expr::BinaryOp { left, op, right } => binary(left, op, right),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => negated_window(expr),
        Expr::IsDistinctFrom(left, right) => rows(left, right).map(|(left, right)| {
            combine(
                pairs(left, right).map(|(l, r)| Expr::IsDistinctFrom(Box::new(l), Box::new(r))),
                &BinaryOperator::Or,
            )
        }),
        Expr::IsNotDistinctFrom(left, right) => rows(left, right).map(|(left, right)| {
            combine(
                pairs(left, right).map(|(l, r)| Expr::IsNotDistinctFrom(Box::new(l), Box::new(r))),
                &BinaryOperator::And,
            )
        }),
        Expr::IsNull(inner) => row(inner).map(|items| {
            combine(items.iter().map(|it| Expr::IsNull(Box::new(it.clone()))), &BinaryOperator::And)
        }),
        Expr::IsNotNull(inner) => row(inner).map(|items| {
            combine(items.iter().map(|it| Expr::IsNotNull(Box::new(it.clone()))), &BinaryOperator::And)
        }),
        Expr::Between { expr, negated, low, high } if row(expr).is_some() => {
            let above = comparison(expr, BinaryOperator::GtEq, low);
            let below = comparison(expr, BinaryOperator::LtEq, high);
            Some(negate(combine([above, below].into_iter(), &BinaryOperator::And), *negated))
        }
        Expr::InList { expr, list, negated } if row(expr).is_some() => {
            let equal = list.iter().map(|item| comparison(expr, BinaryOperator::Eq, item));
            Some(negate(combine(equal, &BinaryOperator::Or), *negated))
        }
        Expr::InSubquery { expr, subquery, negated } => {
            row(expr).map(|items| negate(row_in(items, subquery, rewriter), *negated))
        }
        Expr::AnyOp { left, compare_op, right, .. } => quantified(left, compare_op, right, true)?,
        Expr::AllOp { left, compare_op, right } => quantified(left, compare_op, right, false)?,
        Expr::Like { any: true, negated, expr, pattern, escape_char } => {
            Some(any_like(pattern, |pattern| Expr::Like {
                any: false,
                negated: *negated,
                expr: expr.clone(),
                pattern: Box::new(pattern),
                escape_char: escape_char.clone(),
            }))
        }
        Expr::ILike { any: true, negated, expr, pattern, escape_char } => {
            Some(any_like(pattern, |pattern| Expr::ILike {
                any: false,
                negated: *negated,
                expr: expr.clone(),
                pattern: Box::new(pattern),
                escape_char: escape_char.clone(),
            }))
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            Some(call("timezone", vec![time_zone.as_ref().clone(), timestamp.as_ref().clone()]))
        }
        Expr::Function(function) => array_of(function, rewriter)
            .or_else(|| calls::renamed(function))
            .or_else(|| with_floats(function))
            .or_else(|| sorted_set(function))
            .or_else(|| json_array(function)),
        other => calls::literal(other)?,
    })
}

/// `-f() OVER (…)`: functions that count rows have no sign to `DataFusion`.
fn negated_window(expr: &Expr) -> Option<Expr> {
    let is_window = matches!(expr, Expr::Function(call) if call.over.is_some());
    let zero = Expr::value(Value::Number("0".to_owned(), false));
    is_window.then(|| op(zero, BinaryOperator::Minus, expr.clone()))
}

/// A function call by name.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn negate(expr: Expr, negated: bool) -> Expr {
    let expr = Expr::Nested(Box::new(expr));
    if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) } } else { expr }
}

/// The items of a row of at least two, or of one that says that it is a row.
fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(items) => Some(items),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}

/// The items of `ROW(…)` as well.
fn any_row(expr: &Expr) -> Option<Vec<Expr>> {
    if let Some(items) = row(expr) {
        return Some(items.to_vec());
    }
    let Expr::Function(function) = expr else { return None };
    let is_row = function.name.to_string().eq_ignore_ascii_case("row");
    let FunctionArguments::List(list) = &function.args else { return None };
    let items = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    if is_row { items.collect() } else { None }
}

fn rows(left: &Expr, right: &Expr) -> Option<(Vec<Expr>, Vec<Expr>)> {
    let (left, right) = (any_row(left)?, any_row(right)?);
    (left.len() == right.len()).then_some((left, right))
}

fn pairs(left: Vec<Expr>, right: Vec<Expr>) -> impl Iterator<Item = (Expr, Expr)> {
    left.into_iter().zip(right)
}

pub(super) fn op(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let side = |expr: Expr| match expr {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Value(_)
        | Expr::Nested(_)
        | Expr::Function(_) => expr,
        other => Expr::Nested(Box::new(other)),
    };
    Expr::BinaryOp { left: Box::new(side(left)), op, right: Box::new(side(right)) }
}

/// Conditions joined by AND or OR; an empty row is never unequal.
fn combine(parts: impl Iterator<Item = Expr>, by: &BinaryOperator) -> Expr {
    parts.reduce(|all, part| op(all, by.clone(), part)).unwrap_or_else(|| Expr::value(Value::Boolean(true)))
}

fn comparison(left: &Expr, by: BinaryOperator, right: &Expr) -> Expr {
    op(left.clone(), by, right.clone())
}

fn binary(left: &Expr, by: &BinaryOperator, right: &Expr) -> Option<Expr> {
    match by {
        BinaryOperator::BitwiseXor | BinaryOperator::PGExp => {
            return Some(call("power", vec![left.clone(), right.clone()]));
        }
        BinaryOperator::PGOverlap => return Some(call("array_has_any", vec![left.clone(), right.clone()])),
        BinaryOperator::Eq
        | BinaryOperator::NotEq
        | BinaryOperator::Lt
        | BinaryOperator::LtEq
        | BinaryOperator::Gt
        | BinaryOperator::GtEq => {}
        _ => return None,
    }
    let (left, right) = rows(left, right)?;
    Some(match by {
        BinaryOperator::Eq => {
            combine(pairs(left, right).map(|(l, r)| op(l, BinaryOperator::Eq, r)), &BinaryOperator::And)
        }
        BinaryOperator::NotEq => {
            combine(pairs(left, right).map(|(l, r)| op(l, BinaryOperator::NotEq, r)), &BinaryOperator::Or)
        }
        _ => ordered(left, by, right),
    })
}

/// `(a, b) < (c, d)`: the first pair that differs decides.
fn ordered(left: Vec<Expr>, by: &BinaryOperator, right: Vec<Expr>) -> Expr {
    let strict = match by {
        BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::Gt,
        other => other.clone(),
    };
    let mut pairs: Vec<(Expr, Expr)> = pairs(left, right).collect();
    let Some((last_left, last_right)) = pairs.pop() else { return Expr::value(Value::Boolean(false)) };
    let mut whole = op(last_left, by.clone(), last_right);
    while let Some((left, right)) = pairs.pop() {
        let equal = op(op(left.clone(), BinaryOperator::Eq, right.clone()), BinaryOperator::And, whole);
        whole = op(op(left, strict.clone(), right), BinaryOperator::Or, equal);
    }
    Expr::Nested(Box::new(whole))
}

/// `(a, b) IN (SELECT …)` in three-valued logic.
fn row_in(items: &[Expr], subquery: &Query, rewriter: &mut Rewriter<'_>) -> Expr {
    let alias = rewriter.name("rows");
    let columns: Vec<Ident> =
        (0..items.len()).map(|at| Ident::with_quote('"', format!("\u{1}c{at}"))).collect();
    let exists = |condition: Expr| {
        let mut select = empty_select();
        select.projection = vec![SelectItem::UnnamedExpr(Expr::value(Value::Number("1".to_owned(), false)))];
        let defs = columns.iter().map(|name| TableAliasColumnDef { name: name.clone(), data_type: None });
        let alias = TableAlias { explicit: true, name: alias.clone(), columns: defs.collect(), at: None };
        let relation = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(subquery.clone()),
            alias: Some(alias),
            sample: None,
        };
        select.from = vec![ast::TableWithJoins { relation, joins: Vec::new() }];
        select.selection = Some(condition);
        Expr::Exists { subquery: Box::new(query_of(select)), negated: false }
    };
    let equal = |(item, column): (&Expr, &Ident)| {
        let column = Expr::CompoundIdentifier(vec![alias.clone(), column.clone()]);
        op(item.clone(), BinaryOperator::Eq, column)
    };
    let all = combine(items.iter().zip(&columns).map(equal), &BinaryOperator::And);
    let possible = items
        .iter()
        .zip(&columns)
        .map(|pair| Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(equal(pair))))));
    let possible = combine(possible, &BinaryOperator::And);
    let truth = |value: bool| Expr::value(Value::Boolean(value));
    let when = |condition, result| ast::CaseWhen { condition, result };
    Expr::Case {
        case_token: ast::helpers::attached_token::AttachedToken::empty(),
        end_token: ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![when(exists(all), truth(true)), when(exists(possible), Expr::value(Value::Null))],
        else_result: Some(Box::new(truth(false))),
    }
}

/// A comparison with each element of an array: of one that is written out as a list, of another by a function.
fn quantified(left: &Expr, by: &BinaryOperator, right: &Expr, is_any: bool) -> Result<Option<Expr>, String> {
    let right = match right {
        Expr::Nested(inner) => inner.as_ref(),
        other => other,
    };
    if let Expr::Subquery(subquery) = right {
        let is_membership =
            matches!((by, is_any), (BinaryOperator::Eq, true) | (BinaryOperator::NotEq, false));
        let of_rows = || Expr::InSubquery {
            expr: Box::new(left.clone()),
            subquery: subquery.clone(),
            negated: !is_any,
        };
        return Ok((is_membership && row(left).is_some()).then(of_rows));
    }
    if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = right {
        let elem = array_items(text).ok_or_else(|| format!("malformed array literal: \"{text}\""))?;
        return quantified(left, by, &Expr::Array(Array { elem, named: true }), is_any);
    }
    if let Expr::Array(Array { elem, .. }) = right
        && elem.is_empty()
    {
        return Ok(Some(Expr::value(Value::Boolean(!is_any))));
    }
    if let Expr::Array(Array { elem, .. }) = right {
        let list = elem.clone();
        return Ok(Some(match (by, is_any) {
            (BinaryOperator::Eq, true) => Expr::InList { expr: Box::new(left.clone()), list, negated: false },
            (BinaryOperator::NotEq, false) => {
                Expr::InList { expr: Box::new(left.clone()), list, negated: true }
            }
            // What is more than a column is evaluated once.
            _ if !matches!(left, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)) => {
                return by_function(left, by, right, is_any);
            }
            _ => {
                let each = list.into_iter().map(|item| op(left.clone(), by.clone(), item));
                let joined = if is_any { BinaryOperator::Or } else { BinaryOperator::And };
                Expr::Nested(Box::new(combine(each, &joined)))
            }
        }));
    }
    by_function(left, by, right, is_any)
}

/// A comparison with each element of an array by one of the functions `any_equal` to `all_greater_equal`.
fn by_function(left: &Expr, by: &BinaryOperator, right: &Expr, is_any: bool) -> Result<Option<Expr>, String> {
    let name = match by {
        BinaryOperator::Eq => "equal",
        BinaryOperator::NotEq => "unequal",
        BinaryOperator::Lt => "less",
        BinaryOperator::LtEq => "less_equal",
        BinaryOperator::Gt => "greater",
        BinaryOperator::GtEq => "greater_equal",
        other => {
            return Err(format!(
                "{other} ANY or ALL of an array is not supported; write the comparisons with OR"
            ));
        }
    };
    let quantifier = if is_any { "any" } else { "all" };
    Ok(Some(call(&format!("{quantifier}_{name}"), vec![left.clone(), right.clone()])))
}

/// The items of an array in PostgreSQL's text: `{1,"a b",NULL}`.
fn array_items(text: &str) -> Option<Vec<Expr>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let (mut item, mut in_quotes, mut was_quoted, mut escaped) = (String::new(), false, false, false);
    let finish = |item: &mut String, was_quoted: bool| {
        let text = std::mem::take(item);
        let text = if was_quoted { text } else { text.trim().to_owned() };
        if !was_quoted && text.eq_ignore_ascii_case("null") {
            Expr::value(Value::Null)
        } else {
            Expr::value(Value::SingleQuotedString(text))
        }
    };
    if inner.trim().is_empty() {
        return Some(items);
    }
    for character in inner.chars() {
        match character {
            _ if escaped => {
                item.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => (in_quotes, was_quoted) = (!in_quotes, true),
            ',' if !in_quotes => {
                items.push(finish(&mut item, was_quoted));
                was_quoted = false;
            }
            '{' | '}' if !in_quotes => return None,
            _ => item.push(character),
        }
    }
    items.push(finish(&mut item, was_quoted));
    (!in_quotes).then_some(items)
}

/// An aggregate of distinct values in their own order, as the sorted array of them: `DataFusion` gives all aggregates of a SELECT one
/// order.
fn sorted_set(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_distinct = matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct));
    if !is_distinct || function.over.is_some() || !matches!(name.as_str(), "array_agg" | "string_agg") {
        return None;
    }
    let [FunctionArgumentClause::OrderBy(keys)] = list.clauses.as_slice() else { return None };
    let [key] = keys.as_slice() else { return None };
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) = list.args.first()? else { return None };
    if key.expr != *value {
        return None;
    }
    let is_falling = key.options.asc == Some(false);
    let nulls_first = key.options.nulls_first.unwrap_or(is_falling);
    let mut inner = function.clone();
    if let FunctionArguments::List(list) = &mut inner.args {
        list.clauses.clear();
        list.args.truncate(1);
    }
    if name == "string_agg" {
        // Of NULLs alone there is no array, and so no text.
        let is_value = Expr::IsNotNull(Box::new(Expr::Nested(Box::new(value.clone()))));
        inner.filter = Some(Box::new(match inner.filter.take() {
            Some(filter) => op(Expr::Nested(filter), BinaryOperator::And, is_value),
            None => is_value,
        }));
    }
    inner.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let text = |text: &str| Expr::value(Value::SingleQuotedString(text.to_owned()));
    let order = text(if is_falling { "DESC" } else { "ASC" });
    let nulls = text(if nulls_first { "NULLS FIRST" } else { "NULLS LAST" });
    let sorted = call("array_sort", vec![Expr::Function(inner), order, nulls]);
    if name == "array_agg" {
        return Some(sorted);
    }
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(delimiter)) = list.args.get(1)? else { return None };
    Some(call("array_to_string", vec![sorted, delimiter.clone()]))
}

/// `json_agg`: the documents of an array, in the aggregate's order.
fn json_array(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    if !matches!(name.as_str(), "json_agg" | "jsonb_agg") {
        return None;
    }
    let mut inner = function.clone();
    inner.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let FunctionArguments::List(list) = &mut inner.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))] = list.args.as_mut_slice() else { return None };
    let document = call("to_json", vec![value.clone()]);
    // The order of DISTINCT values is that of what is aggregated.
    let is_distinct = list.duplicate_treatment.is_some();
    for clause in &mut list.clauses {
        if let FunctionArgumentClause::OrderBy(keys) = clause {
            for key in keys.iter_mut().filter(|key| is_distinct && key.expr == *value) {
                key.expr = document.clone();
            }
        }
    }
    *value = document;
    Some(call("json_join", vec![Expr::Function(inner)]))
}

fn any_like(patterns: &Expr, like: impl Fn(Expr) -> Expr) -> Expr {
    let patterns = match patterns {
        Expr::Nested(inner) => inner.as_ref(),
        other => other,
    };
    let list = match patterns {
        Expr::Array(Array { elem, .. }) | Expr::Tuple(elem) => elem.clone(),
        single => vec![single.clone()],
    };
    Expr::Nested(Box::new(combine(list.into_iter().map(like), &BinaryOperator::Or)))
}

/// `ARRAY(SELECT …)`: the subquery's values in its order.
fn array_of(function: &Function, rewriter: &mut Rewriter<'_>) -> Option<Expr> {
    let FunctionArguments::Subquery(subquery) = &function.args else { return None };
    if !function.name.to_string().eq_ignore_ascii_case("array") {
        return None;
    }
    let mut inner = subquery.as_ref().clone();
    let value = Ident::with_quote('"', "\u{1}value");
    let mut order: Vec<OrderByExpr> = Vec::new();
    // The order is that of the aggregate: the subquery's own is lost once its rows are aggregated.
    let keys = match inner.order_by.as_ref().map(|order| &order.kind) {
        Some(OrderByKind::Expressions(keys)) => keys.clone(),
        _ => Vec::new(),
    };
    let SetExpr::Select(select) = inner.body.as_mut() else { return None };
    let [item] = select.projection.as_slice() else { return None };
    let selected = match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
        _ => return None,
    };
    let alias_of = match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(super::folded(alias)),
        _ => None,
    };
    let mut projection = vec![SelectItem::ExprWithAlias { expr: selected.clone(), alias: value.clone() }];
    for (at, key) in keys.into_iter().enumerate() {
        let name = Ident::with_quote('"', format!("\u{1}key{at}"));
        let is_output = match &key.expr {
            Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => true,
            Expr::Identifier(ident) => alias_of.as_deref() == Some(super::folded(ident).as_str()),
            _ => false,
        };
        let expr = if is_output { selected.clone() } else { key.expr.clone() };
        projection.push(SelectItem::ExprWithAlias { expr, alias: name.clone() });
        order.push(OrderByExpr { expr: Expr::Identifier(name), ..key });
    }
    if select.distinct.is_none() {
        select.projection = projection;
    } else {
        select.projection = projection.into_iter().take(1).collect();
        order.clear();
    }
    let Expr::Function(mut aggregate) = call("array_agg", vec![Expr::Identifier(value)]) else { return None };
    if let FunctionArguments::List(list) = &mut aggregate.args
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    let mut outer = empty_select();
    let empty = Expr::Array(Array { elem: Vec::new(), named: true });
    let whole = call("coalesce", vec![Expr::Function(aggregate), empty]);
    outer.projection = vec![SelectItem::UnnamedExpr(whole)];
    let alias = TableAlias { explicit: true, name: rewriter.name("array"), columns: Vec::new(), at: None };
    let relation =
        TableFactor::Derived { lateral: false, subquery: Box::new(inner), alias: Some(alias), sample: None };
    outer.from = vec![ast::TableWithJoins { relation, joins: Vec::new() }];
    Some(Expr::Subquery(Box::new(query_of(outer))))
}

/// Functions of arrays with numbers that have a point: `DataFusion` finds no element type for a list of floats and a decimal.
fn with_floats(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    if !name.starts_with("array_") && !name.starts_with("list_") {
        return None;
    }
    let is_point = |arg: &FunctionArg| {
        matches!(
            arg,
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. })))
                if text.contains(['.', 'e', 'E'])
        )
    };
    let is_array =
        |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Array(_))));
    if !list.args.iter().any(is_point) || list.args.iter().any(is_array) {
        return None;
    }
    let mut function = function.clone();
    let FunctionArguments::List(list) = &mut function.args else { return None };
    for arg in &mut list.args {
        if is_point(arg)
            && let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg
        {
            *expr = Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(expr.clone()),
                data_type: ast::DataType::DoublePrecision,
                array: false,
                format: None,
            };
        }
    }
    Some(Expr::Function(function))
}
