//! Operators, aggregates and joins on types that PostgreSQL treats otherwise.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, LogicalPlan, Operator, Projection, Union};

use super::{adopt, cast_to, sql_type_of, type_of};
use crate::functions::{
    TIMESTAMP, as_text, average, date_at_time, date_difference, date_plus_days, digits_of, divide_floats,
    divide_numerics, divide_span, exact_type, is_decimal, is_float, multiply_span, of_spans, regular_pattern,
    span_between, span_key,
};

/// The digits and the scale of a decimal.
pub(super) const fn digits_of_decimal(found: &DataType) -> Option<(u8, i8)> {
    match found {
        DataType::Decimal128(digits, scale) | DataType::Decimal256(digits, scale) => Some((*digits, *scale)),
        _ => None,
    }
}

const fn is_span(found: &DataType) -> bool {
    matches!(found, DataType::Interval(_) | DataType::Duration(_))
}

const fn is_instant(found: &DataType) -> bool {
    matches!(found, DataType::Timestamp(..))
}

const fn is_time(found: &DataType) -> bool {
    matches!(found, DataType::Time64(_) | DataType::Time32(_))
}

/// Whether an IN over values of a type takes a comparison for each.
pub(super) const fn compares_otherwise(found: &DataType) -> bool {
    is_span(found) || is_float(found)
}

const fn compares(op: Operator) -> bool {
    use Operator as O;
    matches!(
        op,
        O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom
    )
}

/// An operator between two values.
pub(super) fn binary(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let BinaryExpr { left, op, right } = binary;
    let untouched = |left, right| Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
    if matches!(op, Operator::And | Operator::Or) {
        return untouched(left, right);
    }
    let (Some(mut left_type), Some(mut right_type)) = (type_of(&left, schema), type_of(&right, schema))
    else {
        return untouched(left, right);
    };
    let counts = left_type == DataType::UInt64 || right_type == DataType::UInt64;
    if left_type.is_integer() && right_type.is_integer() && !counts {
        // Constants are computed before the plan is run, where overflow goes unseen.
        if left.column_refs().is_empty() && right.column_refs().is_empty() && !left.is_volatile() {
            let whole = Expr::BinaryExpr(BinaryExpr { left, op, right });
            return Ok(crate::arithmetic::check(whole, schema));
        }
        return untouched(left, right);
    }
    if matches!(
        op,
        Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch
    ) {
        return Ok(matched(*left, op, *right));
    }
    if op == Operator::StringConcat {
        return Ok(concatenated(*left, &left_type, *right, &right_type));
    }
    let is_arithmetic = matches!(
        op,
        Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo
    );
    if !compares(op) && !is_arithmetic {
        return untouched(left, right);
    }
    let (mut left, mut right) = (left, right);
    // What counts rows is a BIGINT.
    if left_type == DataType::UInt64 {
        *left = cast_to(*left, &left_type, &DataType::Int64);
        left_type = DataType::Int64;
    }
    if right_type == DataType::UInt64 {
        *right = cast_to(*right, &right_type, &DataType::Int64);
        right_type = DataType::Int64;
    }
    // Text without a type is of the other side's.
    let has_adopted = adopt::is_untyped(&left) != adopt::is_untyped(&right);
    if has_adopted && adopt::is_untyped(&right) {
        *right = adopted(*right, op, &left, &left_type, schema)?;
        right_type = type_of(&right, schema).unwrap_or(right_type);
    } else if has_adopted {
        *left = adopted(*left, op, &right, &right_type, schema)?;
        left_type = type_of(&left, schema).unwrap_or(left_type);
    }
    let typed = Typed { left: *left, left_type, op, right: *right, right_type };
    let mut whole = if is_span(&typed.left_type) || is_span(&typed.right_type) {
        typed.of_spans()?
    } else if compares(op)
        && let Some(target) = common_time([&typed.left_type, &typed.right_type])
    {
        Transformed::yes(typed.cast_both(&target))
    } else if is_arithmetic && (typed.left_type.is_temporal() || typed.right_type.is_temporal()) {
        typed.of_times()
    } else {
        typed.of_numbers()
    };
    whole.transformed |= has_adopted || counts;
    Ok(whole)
}

/// The type of dates beside times: times in microseconds. `DataFusion` has nanoseconds, which end in 2262.
pub(super) fn common_time<'t>(types: impl IntoIterator<Item = &'t DataType>) -> Option<DataType> {
    let (mut has_date, mut time) = (false, None);
    for found in types {
        match found {
            DataType::Date32 => has_date = true,
            DataType::Timestamp(_, zone) => time = time.max(Some(zone.clone())),
            DataType::Null => {}
            _ => return None,
        }
    }
    time.filter(|_| has_date).map(|zone| DataType::Timestamp(TimeUnit::Microsecond, zone))
}

/// A literal without a type, as a value of the type that it has beside another operand.
fn adopted(
    literal: Expr,
    op: Operator,
    other: &Expr,
    other_type: &DataType,
    schema: &DFSchema,
) -> Result<Expr> {
    let target = if compares(op) || other_type.is_numeric() {
        other_type.clone()
    } else {
        beside_time(op, other_type)
    };
    adopt::literal(literal, &target, sql_type_of(other, schema).as_deref())
}

/// The type of an untyped literal beside a time that is added to or subtracted from.
fn beside_time(op: Operator, time: &DataType) -> DataType {
    match op {
        Operator::Minus if !is_span(time) => time.clone(),
        Operator::Multiply | Operator::Divide => DataType::Float64,
        _ => crate::functions::SPAN,
    }
}

/// A regular expression, as PostgreSQL reads it.
fn matched(left: Expr, op: Operator, right: Expr) -> Transformed<Expr> {
    let is_done = matches!(&right, Expr::ScalarFunction(call) if call.func.name() == "regular_pattern");
    // Most patterns mean the same to both.
    let is_alike = match &right {
        Expr::Literal(value, _) => {
            value.try_as_str().flatten().is_some_and(|text| !text.contains(['.', '\\', '{']))
        }
        _ => false,
    };
    let whole = |right| Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) });
    if is_done || is_alike {
        Transformed::no(whole(right))
    } else {
        Transformed::yes(whole(regular_pattern(right)))
    }
}

/// Whether a value beside text is one that PostgreSQL writes otherwise than Arrow.
pub(super) fn is_written(expr: &Expr, schema: &DFSchema) -> bool {
    type_of(expr, schema).is_some_and(|found| {
        !found.is_nested()
            && !matches!(
                found,
                DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null | DataType::Binary
            )
    })
}

/// `||`: what is no text is written as PostgreSQL writes it.
fn concatenated(left: Expr, left_type: &DataType, right: Expr, right_type: &DataType) -> Transformed<Expr> {
    let is_list = |found: &DataType| {
        matches!(found, DataType::List(_) | DataType::FixedSizeList(..) | DataType::LargeList(_))
    };
    let is_bytes = |found: &DataType| matches!(found, DataType::Binary);
    let written = |expr: Expr, found: &DataType| match found {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => expr,
        _ => as_text(expr),
    };
    if is_list(left_type) || is_list(right_type) || is_bytes(left_type) && is_bytes(right_type) {
        let whole = BinaryExpr { left: Box::new(left), op: Operator::StringConcat, right: Box::new(right) };
        return Transformed::no(Expr::BinaryExpr(whole));
    }
    let (left, right) = (written(left, left_type), written(right, right_type));
    let whole = BinaryExpr { left: Box::new(left), op: Operator::StringConcat, right: Box::new(right) };
    Transformed::yes(Expr::BinaryExpr(whole))
}

/// Two operands whose types are known.
struct Typed {
    left: Expr,
    left_type: DataType,
    op: Operator,
    right: Expr,
    right_type: DataType,
}

impl Typed {
    fn whole(self) -> Expr {
        Expr::BinaryExpr(BinaryExpr { left: Box::new(self.left), op: self.op, right: Box::new(self.right) })
    }

    fn cast_both(self, target: &DataType) -> Expr {
        let left = cast_to(self.left, &self.left_type, target);
        let right = cast_to(self.right, &self.right_type, target);
        Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op: self.op, right: Box::new(right) })
    }

    fn of_spans(self) -> Result<Transformed<Expr>> {
        let (l, r) = (&self.left_type, &self.right_type);
        if is_span(l) && is_span(r) && compares(self.op) {
            let whole = BinaryExpr {
                left: Box::new(span_key(self.left)),
                op: self.op,
                right: Box::new(span_key(self.right)),
            };
            return Ok(Transformed::yes(Expr::BinaryExpr(whole)));
        }
        Ok(Transformed::yes(match self.op {
            Operator::Multiply if is_span(l) && r.is_numeric() => multiply_span(self.left, self.right),
            Operator::Multiply if l.is_numeric() && is_span(r) => multiply_span(self.right, self.left),
            Operator::Divide if is_span(l) && r.is_numeric() => divide_span(self.left, self.right),
            // A date and a span are a time.
            Operator::Plus | Operator::Minus if *l == DataType::Date32 => {
                let left = cast_to(self.left, &DataType::Date32, &TIMESTAMP);
                Expr::BinaryExpr(BinaryExpr {
                    left: Box::new(left),
                    op: self.op,
                    right: Box::new(self.right),
                })
            }
            Operator::Plus if *r == DataType::Date32 => {
                let right = cast_to(self.right, &DataType::Date32, &TIMESTAMP);
                Expr::BinaryExpr(BinaryExpr {
                    left: Box::new(right),
                    op: self.op,
                    right: Box::new(self.left),
                })
            }
            Operator::Plus | Operator::Minus if is_time(l) => {
                crate::functions::time_moved(self.left, self.right, self.op == Operator::Minus)
            }
            Operator::Plus if is_time(r) => crate::functions::time_moved(self.right, self.left, false),
            _ => return Ok(Transformed::no(self.whole())),
        }))
    }

    fn of_times(self) -> Transformed<Expr> {
        let (l, r) = (&self.left_type, &self.right_type);
        let is_date = |found: &DataType| *found == DataType::Date32;
        Transformed::yes(match self.op {
            Operator::Minus if is_date(l) && is_date(r) => date_difference(self.left, self.right),
            Operator::Minus
                if (is_instant(l) || is_date(l)) && (is_instant(r) || is_date(r))
                    || is_time(l) && is_time(r) =>
            {
                span_between(self.left, self.right)
            }
            Operator::Plus if is_date(l) && r.is_integer() => date_plus_days(self.left, self.right),
            Operator::Plus if l.is_integer() && is_date(r) => date_plus_days(self.right, self.left),
            Operator::Minus if is_date(l) && r.is_integer() => {
                let days = Expr::Negative(Box::new(self.right));
                date_plus_days(self.left, days)
            }
            Operator::Plus if is_date(l) && is_time(r) => date_at_time(self.left, self.right),
            Operator::Plus if is_time(l) && is_date(r) => date_at_time(self.right, self.left),
            _ => return Transformed::no(self.whole()),
        })
    }

    fn of_numbers(self) -> Transformed<Expr> {
        let (l, r) = (&self.left_type, &self.right_type);
        let is_number = |found: &DataType| is_float(found) || digits_of(found).is_some();
        if !is_number(l) || !is_number(r) {
            return Transformed::no(self.whole());
        }
        if is_float(l) || is_float(r) {
            let is_division = self.op == Operator::Divide;
            if is_float(l) && is_float(r) && !is_division {
                return Transformed::no(self.whole());
            }
            let is_single = *l == DataType::Float32 && *r == DataType::Float32;
            if is_division {
                let whole = divide_floats(self.left, self.right);
                let single = |whole| Expr::Cast(Cast::new(Box::new(whole), DataType::Float32));
                return Transformed::yes(if is_single { single(whole) } else { whole });
            }
            return Transformed::yes(self.cast_both(&DataType::Float64));
        }
        if !is_decimal(l) && !is_decimal(r) {
            return Transformed::no(self.whole());
        }
        self.of_decimals()
    }

    /// Exact numbers, in 256 bits where 128 would not hold every result.
    fn of_decimals(self) -> Transformed<Expr> {
        let (Some((lp, ls)), Some((rp, rs))) = (digits_of(&self.left_type), digits_of(&self.right_type))
        else {
            return Transformed::no(self.whole());
        };
        if self.op == Operator::Divide {
            return Transformed::yes(divide_numerics(self.left, self.right));
        }
        let (lp, rp) = (i16::from(lp), i16::from(rp));
        let (ls, rs) = (i16::from(ls), i16::from(rs));
        let whole_digits = (lp - ls).max(rp - rs);
        let digits = match self.op {
            Operator::Multiply => lp + rp + 1,
            Operator::Plus | Operator::Minus => whole_digits + ls.max(rs) + 1,
            _ => whole_digits + ls.max(rs),
        };
        if digits <= 38 {
            return Transformed::no(self.whole());
        }
        let wide = |precision: i16, scale: i16| {
            DataType::Decimal256(
                u8::try_from(precision).unwrap_or(76).min(76),
                i8::try_from(scale).unwrap_or(0),
            )
        };
        if self.op == Operator::Multiply {
            let (left_type, right_type) = (wide(lp, ls), wide(rp, rs));
            let left = cast_to(self.left, &self.left_type, &left_type);
            let right = cast_to(self.right, &self.right_type, &right_type);
            let whole = BinaryExpr { left: Box::new(left), op: self.op, right: Box::new(right) };
            return Transformed::yes(Expr::BinaryExpr(whole));
        }
        let target = wide((whole_digits + ls.max(rs)).min(76), ls.max(rs));
        Transformed::yes(self.cast_both(&target))
    }
}

/// `-value`; of integers it is checked where integers are.
pub(super) fn negative(inner: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let inner = match type_of(&inner, schema) {
        Some(found @ DataType::UInt64) => cast_to(inner, &found, &DataType::Int64),
        _ => inner,
    };
    let is_constant = inner.column_refs().is_empty() && !matches!(inner, Expr::Literal(..));
    let whole = Expr::Negative(Box::new(inner));
    if is_constant { crate::arithmetic::check(whole, schema) } else { Transformed::no(whole) }
}

/// Sums of BIGINT and of long decimals in wider types; averages of exact numbers are exact.
pub(super) fn aggregate(call: AggregateFunction, schema: &DFSchema) -> Transformed<Expr> {
    let AggregateFunction { func, mut params } = call;
    let argument = params.args.first().and_then(|arg| type_of(arg, schema));
    match (func.name(), argument) {
        ("sum", Some(found @ DataType::Int64)) => {
            params.args = params
                .args
                .into_iter()
                .map(|arg| cast_to(arg, &found, &DataType::Decimal128(19, 0)))
                .collect();
        }
        ("sum", Some(DataType::Decimal128(precision, scale))) if precision > 28 => {
            let wide = DataType::Decimal256(precision, scale);
            let found = DataType::Decimal128(precision, scale);
            params.args = params.args.into_iter().map(|arg| cast_to(arg, &found, &wide)).collect();
        }
        ("count", Some(DataType::Interval(_) | DataType::Duration(_))) if params.distinct => {
            params.args = params.args.into_iter().map(span_key).collect();
        }
        // The first or last in the order of their lengths.
        ("min" | "max", Some(DataType::Interval(_) | DataType::Duration(_))) => {
            let Some(span) = params.args.first().cloned() else {
                return Transformed::no(Expr::AggregateFunction(AggregateFunction { func, params }));
            };
            let is_min = func.name() == "min";
            params.order_by = vec![span_key(span.clone()).sort(is_min, false)];
            params.null_treatment = Some(NullTreatment::IgnoreNulls);
            let func = datafusion::functions_aggregate::first_last::first_value_udaf();
            return Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }));
        }
        // The order of the values means nothing to these.
        ("sum" | "avg", Some(DataType::Interval(_) | DataType::Duration(_))) => {
            params.order_by.clear();
            let call = AggregateFunction { func: of_spans(func.name() == "avg"), params };
            return Transformed::yes(Expr::AggregateFunction(call));
        }
        ("avg", Some(found)) if digits_of(&found).is_some() => {
            params.order_by.clear();
            let call = AggregateFunction { func: average(), params };
            return Transformed::yes(Expr::AggregateFunction(call));
        }
        ("avg", Some(_)) => {
            params.order_by.clear();
            let func = datafusion::functions_aggregate::average::avg_udaf();
            return Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }));
        }
        _ => {}
    }
    // An order means nothing to those that give the same in any.
    if !params.order_by.is_empty() && !params.distinct && takes_no_order(func.name()) {
        params.order_by.clear();
    }
    Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
}

fn takes_no_order(name: &str) -> bool {
    matches!(
        name,
        "sum"
            | "count"
            | "avg"
            | "average"
            | "min"
            | "max"
            | "bool_and"
            | "bool_or"
            | "bit_and"
            | "bit_or"
            | "bit_xor"
            | "stddev"
            | "stddev_pop"
            | "stddev_samp"
            | "var"
            | "var_pop"
            | "var_samp"
            | "variance"
            | "corr"
            | "covar_pop"
            | "covar_samp"
            | "median"
            | "approx_distinct"
            | "approx_median"
            | "every"
    )
}

/// `date_trunc` and `date_bin` of dates and text.
pub(super) fn truncation(call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let ScalarFunction { func, mut args } = call;
    for arg in args.iter_mut().skip(1) {
        if type_of(arg, schema) == Some(DataType::Date32) && func.name() != "date_trunc" {
            *arg = cast_to(arg.clone(), &DataType::Date32, &TIMESTAMP);
        } else if adopt::is_untyped(arg) {
            *arg = adopt::literal(arg.clone(), &TIMESTAMP, None)?;
        }
    }
    Ok(Expr::ScalarFunction(ScalarFunction { func, args }))
}

/// Keys of a join, made alike as `=` makes them.
pub(super) fn join_keys(plan: LogicalPlan) -> Transformed<LogicalPlan> {
    let LogicalPlan::Join(mut join) = plan else { return Transformed::no(plan) };
    let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
    let mut changed = false;
    for (a, b) in &mut join.on {
        let (Some(a_type), Some(b_type)) = (type_of(a, &left), type_of(b, &right)) else { continue };
        let is_number = |found: &DataType| is_float(found) || digits_of(found).is_some();
        let mixed = is_float(&a_type) != is_float(&b_type) && is_number(&a_type) && is_number(&b_type);
        if mixed {
            *a = cast_to(a.clone(), &a_type, &DataType::Float64);
            *b = cast_to(b.clone(), &b_type, &DataType::Float64);
            changed = true;
        } else if let Some(target) = common_time([&a_type, &b_type]) {
            *a = cast_to(a.clone(), &a_type, &target);
            *b = cast_to(b.clone(), &b_type, &target);
            changed = true;
        } else if is_span(&a_type) && is_span(&b_type) {
            (*a, *b) = (span_key(a.clone()), span_key(b.clone()));
            changed = true;
        }
    }
    Transformed::new_transformed(LogicalPlan::Join(join), changed)
}

/// A UNION of floats and decimals is of floats, one of dates and times of times, and literals take the type of the other branches.
pub(super) fn union_of_floats(union: Union) -> Result<Transformed<LogicalPlan>> {
    let width = union.schema.fields().len();
    let type_at = |input: &LogicalPlan, at: usize| {
        input.schema().fields().get(at).map(|field| field.data_type().clone())
    };
    let mut targets: Vec<Option<DataType>> = Vec::with_capacity(width);
    for at in 0..width {
        let types: Vec<DataType> = union.inputs.iter().filter_map(|input| type_at(input, at)).collect();
        let mixed = types.iter().any(is_float) && types.iter().any(|found| digits_of(found).is_some());
        let is_wide = types.iter().any(|found| matches!(found, DataType::Decimal256(..)));
        let exact: Option<Vec<(u8, i8)>> = types.iter().map(digits_of).collect();
        targets.push(match exact {
            Some(exact) if is_wide => Some(exact_type(&exact, true)),
            _ if mixed => Some(DataType::Float64),
            _ => common_time(&types),
        });
    }
    if targets.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let mut inputs = Vec::with_capacity(union.inputs.len());
    for input in &union.inputs {
        let columns = input.schema().columns();
        let exprs = columns.into_iter().enumerate().map(|(at, column)| {
            let (relation, name) = (column.relation.clone(), column.name.clone());
            let found = type_at(input, at);
            let column = Expr::Column(column);
            match (targets.get(at).cloned().flatten(), found) {
                (Some(target), Some(found)) if found != target => {
                    cast_to(column, &found, &target).alias_qualified(relation, name)
                }
                _ => column,
            }
        });
        let plan = Projection::try_new(exprs.collect(), Arc::clone(input))?;
        inputs.push(Arc::new(LogicalPlan::Projection(plan)));
    }
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}
