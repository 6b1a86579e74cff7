//! Names of columns and relations: distinct names for columns that share one, relations named by their last part.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    JoinConstraint, JoinOperator, ObjectName, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, Value,
    ValueWithSpan, VisitMut, VisitorMut, visit_expressions, visit_expressions_mut,
};

use super::{Tables, folded, names_table};

/// The character that separates a name from the suffix that makes it distinct; clients do not see either.
const APART: char = '\u{1}';

/// The name of a column that clients see.
pub fn visible_name(name: &str) -> &str {
    match name.find(APART) {
        Some(at) if at > 0 => name.get(..at).unwrap_or(name),
        _ => name,
    }
}

/// The name of an expression's column.
pub(super) fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(folded(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => name_of(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                _ => None,
            },
            _ => None,
        },
        other => Some(other.to_string().to_lowercase()),
    }
}

/// Gives columns distinct names, as `DataFusion` refuses two of one name.
pub(super) fn tell_columns_apart(select: &mut Select, tells_all: bool, tables: &dyn Tables) {
    if select.projection.len() < 2 {
        return;
    }
    let shown = columns_of_wildcards(select, tables);
    let is_unknown = shown.is_none();
    let mut seen: HashSet<String> = shown.unwrap_or_default();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let (name, is_bare) = match item {
            SelectItem::UnnamedExpr(expr) => {
                (name_of(expr), matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)))
            }
            SelectItem::ExprWithAlias { alias, .. } => (Some(folded(alias)), true),
            _ => continue,
        };
        let Some(name) = name else { continue };
        // Two expressions that are written otherwise may have one name all the same.
        let is_new = seen.insert(name.clone()) && !(tells_all && at > 0 && !is_bare);
        // Beside `*` of what is not known any column may be there twice, but those that it does not show.
        let is_shown = !matches!(name.as_str(), "_seq" | "_updated" | "_deleted" | "_id");
        let is_column = is_bare && matches!(item, SelectItem::UnnamedExpr(_));
        if is_new && !(is_unknown && is_column && is_shown) {
            continue;
        }
        let apart = Ident::with_quote('"', format!("{name}{APART}{at}"));
        match item {
            SelectItem::UnnamedExpr(expr) => {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: apart };
            }
            SelectItem::ExprWithAlias { alias, .. } => *alias = apart,
            _ => {}
        }
    }
}

/// The columns that `*` and `t.*` show; none where they are not known.
fn columns_of_wildcards(select: &Select, tables: &dyn Tables) -> Option<HashSet<String>> {
    let mut shown = HashSet::new();
    for item in &select.projection {
        let of = match item {
            SelectItem::Wildcard(_) => None,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                Some(folded(name.0.last()?.as_ident()?))
            }
            SelectItem::QualifiedWildcard(..) => return None,
            _ => continue,
        };
        for factor in relations(select) {
            if of.is_none() || relation_name(factor) == of {
                shown.extend(super::using::columns_of(factor, tables)?);
            }
        }
    }
    Some(shown)
}

/// Gives names to the expressions of a grouped SELECT that ORDER BY names by their place: `DataFusion` looks for such a place among the
/// groups and aggregates, where only those of one call or one column are.
pub(super) fn name_ordered_items(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let Some(OrderByKind::Expressions(keys)) = query.order_by.as_ref().map(|order| &order.kind) else {
        return;
    };
    let groups = match &select.group_by {
        GroupByExpr::Expressions(groups, _) => groups.as_slice(),
        GroupByExpr::All(_) => return,
    };
    if groups.is_empty() && select.having.is_none() && !has_aggregate(&select.projection) {
        return;
    }
    let is_wild =
        |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let own: Vec<String> = relations(select).filter_map(relation_name).collect();
    for at in keys.iter().filter_map(|key| place_of(&key.expr)) {
        if select.projection.iter().take(at).any(is_wild) {
            continue;
        }
        let Some(item) = select.projection.get_mut(at) else { continue };
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let is_group = groups.iter().any(|group| group == expr || place_of(group) == Some(at));
        let is_found = match &*expr {
            Expr::Identifier(_) => true,
            // Of another relation it is a column of the query around.
            Expr::CompoundIdentifier(parts) => {
                parts.len() != 2 || parts.first().is_some_and(|relation| own.contains(&folded(relation)))
            }
            Expr::Function(call) => is_aggregate(call) && !is_rewritten(call),
            _ => false,
        };
        if is_group || is_found {
            continue;
        }
        let name = name_of(expr).unwrap_or_default();
        let alias = Ident::with_quote('"', format!("{name}{APART}{at}"));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// Gives columns that an alias leaves without a name the name that they have: `DataFusion` takes a name for each or for none.
pub(super) fn complete_alias(alias: &mut TableAlias, columns: Option<Vec<String>>) {
    let named = alias.columns.len();
    let Some(columns) = columns.filter(|columns| named > 0 && named < columns.len()) else { return };
    let mut seen: HashSet<String> = alias.columns.iter().map(|column| folded(&column.name)).collect();
    for (at, name) in columns.into_iter().enumerate().skip(named) {
        let name = if seen.insert(name.clone()) { name } else { format!("{name}{APART}{at}") };
        alias.columns.push(TableAliasColumnDef { name: Ident::with_quote('"', name), data_type: None });
    }
}

/// The place of a column, from 0, that a key names by its number.
fn place_of(key: &Expr) -> Option<usize> {
    match key {
        Expr::Value(ValueWithSpan { value: Value::Number(place, _), .. }) => {
            place.parse::<usize>().ok()?.checked_sub(1)
        }
        _ => None,
    }
}

fn is_aggregate(call: &Function) -> bool {
    let name = call.name.to_string().to_lowercase();
    call.over.is_none() && (AGGREGATES.contains(&name.as_str()) || !call.within_group.is_empty())
}

/// Whether an aggregate becomes an expression of another one when it is rewritten.
fn is_rewritten(call: &Function) -> bool {
    let is_ordered_set = matches!(&call.args, FunctionArguments::List(list)
        if list.duplicate_treatment.is_some() && !list.clauses.is_empty());
    let name = call.name.to_string().to_lowercase();
    is_ordered_set || name.starts_with("json")
}

/// Gives aggregates and windows that differ by casts alone other names: `DataFusion` leaves casts out of the names it tells them by.
pub(super) fn tell_aggregates_apart(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    let mut wrap = |expr: &mut Expr| {
        let Expr::Function(call) = expr else { return ControlFlow::<()>::Continue(()) };
        if !is_aggregate(call) && call.over.is_none() {
            return ControlFlow::Continue(());
        }
        let (full, plain) = (call.to_string(), without_casts(call).to_string());
        let alike = seen.entry(plain).or_default();
        let at = alike.iter().position(|other| *other == full).unwrap_or_else(|| {
            alike.push(full);
            alike.len() - 1
        });
        if let FunctionArguments::List(list) = &mut call.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))) = list.args.first_mut()
        {
            for _ in 0..at {
                *arg = super::call("coalesce", vec![arg.clone()]);
            }
        }
        ControlFlow::Continue(())
    };
    let _ = visit_expressions_mut(&mut select.projection, &mut wrap);
    let _ = visit_expressions_mut(&mut select.having, &mut wrap);
    let _ = visit_expressions_mut(&mut select.qualify, &mut wrap);
    let _ = visit_expressions_mut(&mut query.order_by, &mut wrap);
}

/// A call without the casts in it.
fn without_casts(call: &Function) -> Expr {
    let mut plain = Expr::Function(call.clone());
    let _ = visit_expressions_mut(&mut plain, |expr| {
        while let Expr::Cast { expr: inner, .. } = expr {
            *expr = inner.as_ref().clone();
        }
        ControlFlow::<()>::Continue(())
    });
    plain
}

/// Gives columns of set operations that the first query does not name names of their own: `DataFusion` gives them the names of the
/// first, which the others may have.
pub(super) fn name_columns_of_others(body: &mut SetExpr) {
    let SetExpr::SetOperation { left, right, .. } = body else { return };
    name_columns_of_others(left);
    name_columns(right);
}

fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            name_columns(left);
            name_columns(right);
        }
        SetExpr::Query(query) if query.order_by.is_none() => name_columns(&mut query.body),
        SetExpr::Select(select) => {
            for (at, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item {
                    let alias = Ident::with_quote('"', format!("{APART}c{at}"));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        _ => {}
    }
}

/// Whether an expression calls an aggregate function, subqueries included.
fn has_aggregate(projection: &[SelectItem]) -> bool {
    projection.iter().any(|item| {
        visit_expressions(item, |expr| match expr {
            Expr::Function(call) if is_aggregate(call) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    })
}

const AGGREGATES: &[&str] = &[
    "any_value",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "every",
    "first_value",
    "json_agg",
    "jsonb_agg",
    "last_value",
    "max",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// The relations of FROM.
pub(super) fn relations(select: &Select) -> impl Iterator<Item = &TableFactor> {
    select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
}

/// The name of a relation in its SELECT.
pub(super) fn relation_name(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(folded(&alias.name)),
        TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident()).map(folded),
        _ => None,
    }
}

/// Qualifies `t.*` of `FROM n.t` as `n.t.*`.
pub(super) fn qualify_wildcards(select: &mut Select) {
    let named: Vec<(String, ObjectName)> = relations(select)
        .filter_map(|factor| match factor {
            TableFactor::Table { name, alias: None, args: None, .. } if name.0.len() > 1 => {
                Some((relation_name(factor)?, name.clone()))
            }
            _ => None,
        })
        .collect();
    for item in &mut select.projection {
        let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else {
            continue;
        };
        let [part] = name.0.as_slice() else { continue };
        let Some(written) = part.as_ident().map(folded) else { continue };
        if let Some((_, full)) = named.iter().find(|(known, _)| *known == written) {
            *name = full.clone();
        }
    }
}

/// Excludes generated keys from `*`.
pub(super) fn hide_generated_keys(select: &mut Select, tables: &dyn Tables) {
    let keys: Vec<(String, String)> = relations(select)
        .filter_map(|factor| match factor {
            TableFactor::Table { name, args: None, .. } => {
                Some((relation_name(factor)?, tables.generated_key(name)?))
            }
            _ => None,
        })
        .collect();
    let Some((_, key)) = keys.first().cloned() else { return };
    if keys.len() > 1 {
        // Each relation by itself: the key's name alone would be ambiguous.
        take_wildcards_apart(select);
    }
    for item in &mut select.projection {
        let options = match item {
            SelectItem::Wildcard(options) => options,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let last = name.0.last().and_then(|part| part.as_ident()).map(folded);
                if !keys.iter().any(|(relation, _)| Some(relation) == last.as_ref()) {
                    continue;
                }
                options
            }
            _ => continue,
        };
        let hidden = ObjectName::from(vec![Ident::with_quote('"', key.clone())]);
        match &mut options.opt_exclude {
            Some(ExcludeSelectItem::Multiple(names)) => {
                if !names.contains(&hidden) {
                    names.push(hidden);
                }
            }
            Some(ExcludeSelectItem::Single(name)) => {
                let names = vec![name.clone(), hidden];
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
            }
            None => options.opt_exclude = Some(ExcludeSelectItem::Multiple(vec![hidden])),
        }
    }
}

/// Expands `*` to the columns of each relation, without keys that USING has merged.
fn take_wildcards_apart(select: &mut Select) {
    let mut parts: Vec<(Option<String>, Vec<Ident>)> = Vec::new();
    for from in &select.from {
        parts.push((relation_name(&from.relation), Vec::new()));
        for join in &from.joins {
            let keys = match &join.join_operator {
                JoinOperator::Join(JoinConstraint::Using(keys))
                | JoinOperator::Inner(JoinConstraint::Using(keys))
                | JoinOperator::Left(JoinConstraint::Using(keys))
                | JoinOperator::LeftOuter(JoinConstraint::Using(keys)) => {
                    keys.iter().filter_map(|key| key.0.last()?.as_ident().cloned()).collect()
                }
                _ => Vec::new(),
            };
            parts.push((relation_name(&join.relation), keys));
        }
    }
    let mut projection = Vec::with_capacity(select.projection.len());
    for item in std::mem::take(&mut select.projection) {
        let SelectItem::Wildcard(options) = &item else {
            projection.push(item);
            continue;
        };
        if parts.iter().any(|(name, _)| name.is_none()) {
            projection.push(item);
            continue;
        }
        for (name, keys) in &parts {
            let Some(name) = name else { continue };
            let mut options = options.clone();
            let hidden: Vec<ObjectName> =
                keys.iter().map(|key| ObjectName::from(vec![key.clone()])).collect();
            if !hidden.is_empty() {
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(hidden));
            }
            let name = ObjectName::from(vec![Ident::with_quote('"', name.clone())]);
            projection.push(SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ));
        }
    }
    select.projection = projection;
}

/// Renames the outer relations that subqueries refer to: where the tables of a subquery have a column of that name, `DataFusion`
/// reads `name.column` as a field of the column.
pub(super) fn rename_hiding_aliases(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let aliases: Vec<String> = relations(select)
        .filter_map(|factor| match factor {
            TableFactor::Table { alias: Some(alias), .. } => Some(folded(&alias.name)),
            _ => None,
        })
        .filter(|alias| !alias.contains(APART))
        .collect();
    for alias in aliases {
        let mut outer = Outer { alias: &alias, depth: 0, named: false };
        let _ = select.visit(&mut outer);
        if !outer.named {
            continue;
        }
        let renamed = format!("{alias}{APART}");
        for from in &mut select.from {
            for factor in std::iter::once(&mut from.relation)
                .chain(from.joins.iter_mut().map(|join| &mut join.relation))
            {
                if let TableFactor::Table { alias: Some(own), .. } = factor
                    && folded(&own.name) == alias
                {
                    own.name = Ident::with_quote('"', renamed.clone());
                }
            }
        }
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
                && let [part] = name.0.as_slice()
                && part.as_ident().map(folded).as_deref() == Some(&alias)
            {
                *name = ObjectName::from(vec![Ident::with_quote('"', renamed.clone())]);
            }
        }
        let mut renaming = Renaming { alias: &alias, renamed: &renamed, hidden: 0 };
        let _ = select.visit(&mut renaming);
        if let Some(order) = &mut query.order_by {
            let _ = visit_expressions_mut(order, |expr| {
                rename(expr, &alias, &renamed);
                ControlFlow::<()>::Continue(())
            });
        }
    }
}

fn rename(expr: &mut Expr, alias: &str, renamed: &str) {
    if let Expr::CompoundIdentifier(parts) = expr
        && parts.len() == 2
        && let Some(first) = parts.first_mut()
        && folded(first) == alias
    {
        *first = Ident::with_quote('"', renamed);
    }
}

/// Whether a query defines a relation of a name itself.
fn defines(query: &Query, alias: &str) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    relations(select).any(|factor| relation_name(factor).as_deref() == Some(alias))
}

/// Finds subqueries that refer to an outer relation.
struct Outer<'a> {
    alias: &'a str,
    depth: usize,
    named: bool,
}

impl VisitorMut for Outer<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        if !defines(query, self.alias) && names_table(query, self.alias) {
            self.named = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// Renames the references to an outer relation that no inner one hides.
struct Renaming<'a> {
    alias: &'a str,
    renamed: &'a str,
    hidden: usize,
}

impl VisitorMut for Renaming<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if self.hidden > 0 || defines(query, self.alias) {
            self.hidden += 1;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.hidden = self.hidden.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.hidden == 0 {
            rename(expr, self.alias, self.renamed);
        }
        ControlFlow::Continue(())
    }
}
