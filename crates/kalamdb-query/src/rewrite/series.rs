//! Series and arrays as relations: `generate_series`, `unnest`, WITH ORDINALITY.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Parens, Select, SelectItem,
    SetExpr, SetOperator, SetQuantifier, TableAliasColumnDef, TableFactor, Value, visit_expressions,
};

use super::expressions::call;
use super::{empty_select, query_of};
use crate::types::NANOSECONDS;

/// `UNNEST(a) WITH ORDINALITY` as a subquery that numbers its rows.
pub(super) fn factor(factor: &mut TableFactor) {
    name_the_one_column(factor);
    if let TableFactor::Derived { subquery, .. } = factor {
        floats_as_union(&mut subquery.body);
    }
    if let TableFactor::Table { name, args: Some(args), .. } = factor
        && is_series(name)
    {
        for arg in args.args.iter_mut().take(2) {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                in_nanoseconds(expr);
            }
        }
    }
    let TableFactor::UNNEST { alias, array_exprs, with_ordinality: true, .. } = factor else { return };
    let unnested = array_exprs.iter().map(|array| call("unnest", vec![array.clone()]));
    let Some(first) = array_exprs.first() else { return };
    let one = Expr::value(Value::Number("1".to_owned(), false));
    let count = call("array_length", vec![first.clone()]);
    let numbers = call("unnest", vec![call("generate_series", vec![one, count])]);
    let mut select = empty_select();
    select.projection = unnested
        .chain([numbers])
        .enumerate()
        .map(|(at, expr)| {
            let name = if at == array_exprs.len() { "ordinality".to_owned() } else { format!("unnest{at}") };
            SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
        })
        .collect();
    *factor = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query_of(select)),
        alias: alias.take(),
        sample: None,
    };
}

/// Rows of VALUES with floats that become a UNION ALL.
const FLOAT_ROWS_MAX: usize = 100;

/// VALUES with floats as a UNION ALL of their rows: `DataFusion` makes decimals of floats beside decimals in VALUES.
fn floats_as_union(body: &mut SetExpr) {
    let SetExpr::Values(values) = body else { return };
    let is_float = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Float(_)
                | DataType::Float4
                | DataType::Float8
                | DataType::Double(_)
                | DataType::DoublePrecision
                | DataType::Real
        )
    };
    let has_float = visit_expressions(values, |expr| match expr {
        Expr::Cast { data_type, .. } if is_float(data_type) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if has_float.is_continue() || !(2..=FLOAT_ROWS_MAX).contains(&values.rows.len()) {
        return;
    }
    let as_select = |row: &Parens<Vec<Expr>>| {
        let item = |(at, expr): (usize, &Expr)| {
            let alias = Ident::with_quote('"', format!("column{}", at + 1));
            SelectItem::ExprWithAlias { expr: expr.clone(), alias }
        };
        let mut select = empty_select();
        select.projection = row.content.iter().enumerate().map(item).collect();
        SetExpr::Select(Box::new(select))
    };
    let united = values.rows.iter().map(as_select).reduce(|left, right| SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(left),
        right: Box::new(right),
    });
    if let Some(united) = united {
        *body = united;
    }
}

/// `SELECT generate_series(…)` gives a row for each value: `DataFusion`'s function gives an array.
pub(super) fn unnest_series(select: &mut Select) {
    for item in &mut select.projection {
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, Ident::new("generate_series")),
            SelectItem::ExprWithAlias { expr, alias } => {
                let alias = alias.clone();
                (expr, alias)
            }
            _ => continue,
        };
        let is_called = matches!(&*expr, Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("generate_series"));
        if is_called {
            let expr = call("unnest", vec![expr.clone()]);
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

fn is_series(name: &ObjectName) -> bool {
    matches!(name.to_string().to_lowercase().as_str(), "generate_series" | "range")
}

/// `FROM unnest(a) x` has the column x.
fn name_the_one_column(factor: &mut TableFactor) {
    let alias = match factor {
        TableFactor::UNNEST { alias: Some(alias), array_exprs, with_ordinality: false, .. }
            if array_exprs.len() == 1 =>
        {
            alias
        }
        // `range` is DataFusion's own, whose column is `value` under any alias.
        TableFactor::Table { name, args: Some(_), alias: Some(alias), .. }
            if name.to_string().eq_ignore_ascii_case("generate_series") =>
        {
            alias
        }
        _ => return,
    };
    if alias.columns.is_empty() {
        alias.columns = vec![TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
    }
}

/// The bounds of a series of times are nanoseconds to `DataFusion`.
fn in_nanoseconds(expr: &mut Expr) {
    let is_time = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Timestamp(..) | DataType::TimestampNtz(_) | DataType::Datetime(_) | DataType::Date
        )
    };
    let is_written = match expr {
        Expr::TypedString(text) => is_time(&text.data_type),
        Expr::Cast { data_type, .. } => is_time(data_type),
        _ => false,
    };
    if is_written {
        *expr = Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(expr.clone()),
            data_type: DataType::Custom(ObjectName::from(vec![Ident::new(NANOSECONDS)]), Vec::new()),
            array: false,
            format: None,
        };
    }
}
