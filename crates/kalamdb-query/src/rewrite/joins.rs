//! Joins: keys that USING and NATURAL merge, UNNEST with numbers.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, Ident, JoinConstraint,
    JoinOperator, ObjectName, Select, SelectItem, SelectItemQualifiedWildcardKind, TableAliasColumnDef,
    TableFactor, Value, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::expressions::call;
use super::names::relation_name;
use super::{Tables, empty_select, folded, query_of};
use crate::types::NANOSECONDS;

/// `UNNEST(a) WITH ORDINALITY` as a subquery that numbers its rows.
pub(super) fn factor(factor: &mut TableFactor) {
    name_the_one_column(factor);
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

/// A key that a join merges: its name, and the expression that it is.
struct Merged {
    name: String,
    value: Expr,
}

/// Makes USING of NATURAL, and has the merged keys of RIGHT and FULL joins stand for both sides.
pub(super) fn merge_keys(select: &mut Select, tables: &dyn Tables) {
    let [from] = select.from.as_mut_slice() else { return };
    let mut names: Vec<Option<String>> = vec![relation_name(&from.relation)];
    let mut columns: Option<Vec<String>> = columns_of(&from.relation, tables);
    let mut merged: Vec<Merged> = Vec::new();
    let mut dropped: Vec<(usize, String)> = Vec::new();
    for join in &mut from.joins {
        let right_columns = columns_of(&join.relation, tables);
        let Some((constraint, is_right, is_full)) = constraint(&mut join.join_operator) else {
            names.push(relation_name(&join.relation));
            columns = joined(columns, right_columns);
            continue;
        };
        if matches!(constraint, JoinConstraint::Natural)
            && let (Some(left), Some(right)) = (&columns, &right_columns)
        {
            let common: Vec<ObjectName> = left
                .iter()
                .filter(|name| right.contains(name))
                .map(|name| ObjectName::from(vec![Ident::with_quote('"', name.clone())]))
                .collect();
            *constraint = if common.is_empty() {
                JoinConstraint::On(Expr::value(Value::Boolean(true)))
            } else {
                JoinConstraint::Using(common)
            };
        }
        let right_name = relation_name(&join.relation);
        if let (JoinConstraint::Using(keys), Some(right)) = (&*constraint, &right_name) {
            let keys: Vec<String> =
                keys.iter().filter_map(|key| key.0.last()?.as_ident().map(folded)).collect();
            for key in keys {
                dropped.push((names.len(), key.clone()));
                let left = merged.iter().find(|it| it.name == key).map(|it| it.value.clone());
                let left = left.or_else(|| Some(column(names.first()?.as_ref()?, &key)));
                let right = column(right, &key);
                let value = match (left, is_right, is_full) {
                    (Some(left), _, true) => call("coalesce", vec![left, right]),
                    (_, true, _) => right,
                    (Some(left), ..) => left,
                    (None, ..) => continue,
                };
                merged.retain(|it| it.name != key);
                merged.push(Merged { name: key, value });
            }
        }
        names.push(right_name);
        columns = joined(columns, right_columns);
    }
    let has_outer = from.joins.iter().any(|join| {
        matches!(
            join.join_operator,
            JoinOperator::Right(JoinConstraint::Using(_))
                | JoinOperator::RightOuter(JoinConstraint::Using(_))
                | JoinOperator::FullOuter(JoinConstraint::Using(_))
        )
    });
    if has_outer && !merged.is_empty() && names.iter().all(Option::is_some) {
        let names: Vec<String> = names.into_iter().flatten().collect();
        replace(select, &merged, &names, &dropped);
    }
}

fn joined(left: Option<Vec<String>>, right: Option<Vec<String>>) -> Option<Vec<String>> {
    let (mut left, right) = (left?, right?);
    for name in right {
        if !left.contains(&name) {
            left.push(name);
        }
    }
    Some(left)
}

fn columns_of(factor: &TableFactor, tables: &dyn Tables) -> Option<Vec<String>> {
    match factor {
        TableFactor::Table { name, args: None, .. } => tables.columns(name),
        _ => None,
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<(&mut JoinConstraint, bool, bool)> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => Some((constraint, false, false)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            Some((constraint, true, false))
        }
        JoinOperator::FullOuter(constraint) => Some((constraint, false, true)),
        _ => None,
    }
}

fn column(relation: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::with_quote('"', relation), Ident::with_quote('"', name)])
}

/// Puts merged keys in the place of their bare names, and `*` in its parts.
fn replace(select: &mut Select, merged: &[Merged], names: &[String], dropped: &[(usize, String)]) {
    let mut replacing = Replacing { merged };
    let mut projection: Vec<SelectItem> = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        match item {
            SelectItem::Wildcard(options) => {
                for key in merged {
                    let alias = Ident::with_quote('"', key.name.clone());
                    projection.push(SelectItem::ExprWithAlias { expr: key.value.clone(), alias });
                }
                for (at, name) in names.iter().enumerate() {
                    let keys: Vec<&String> = if at == 0 {
                        merged.iter().map(|key| &key.name).collect()
                    } else {
                        dropped.iter().filter(|(of, _)| *of == at).map(|(_, key)| key).collect()
                    };
                    projection.push(all_but(name, &keys, &options));
                }
            }
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => {
                let name = folded(&ident);
                let value = merged.iter().find(|key| key.name == name).map(|key| key.value.clone());
                projection.push(match value {
                    Some(expr) => SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) },
                    None => SelectItem::UnnamedExpr(Expr::Identifier(ident)),
                });
            }
            mut other => {
                let _ = other.visit(&mut replacing);
                projection.push(other);
            }
        }
    }
    select.projection = projection;
    let _ = select.selection.visit(&mut replacing);
    let _ = select.group_by.visit(&mut replacing);
    let _ = select.having.visit(&mut replacing);
}

fn all_but(relation: &str, keys: &[&String], options: &WildcardAdditionalOptions) -> SelectItem {
    let mut options = options.clone();
    let mut hidden: Vec<ObjectName> =
        keys.iter().map(|key| ObjectName::from(vec![Ident::with_quote('"', (*key).clone())])).collect();
    if let Some(ExcludeSelectItem::Multiple(more)) = options.opt_exclude.take() {
        hidden.extend(more);
    }
    options.opt_exclude = (!hidden.is_empty()).then_some(ExcludeSelectItem::Multiple(hidden));
    let name = ObjectName::from(vec![Ident::with_quote('"', relation)]);
    SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
}

struct Replacing<'m> {
    merged: &'m [Merged],
}

impl VisitorMut for Replacing<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr {
            let name = folded(ident);
            if let Some(key) = self.merged.iter().find(|key| key.name == name) {
                *expr = key.value.clone();
            }
        }
        ControlFlow::Continue(())
    }
}
