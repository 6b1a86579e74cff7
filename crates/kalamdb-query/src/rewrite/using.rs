//! Joins with USING and NATURAL, whose keys are merged into one column each.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, JoinConstraint, JoinOperator, ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Value, VisitMut,
    VisitorMut, WildcardAdditionalOptions,
};

use super::expressions::call;
use super::names::relation_name;
use super::{Tables, folded};

/// A key that a join merges.
#[derive(Clone)]
pub(super) struct Merged {
    name: String,
    /// Its value: the left column, the right one of a RIGHT JOIN, the first that is not NULL of a FULL JOIN.
    value: Expr,
}

/// A relation of FROM.
struct Relation {
    /// None where it has no name to write its columns with.
    name: Option<String>,
    /// None where they are not known.
    columns: Option<Vec<String>>,
    /// Keys that it is joined by, which `*` shows once.
    keys: Vec<String>,
}

impl Relation {
    fn new(factor: &TableFactor, tables: &dyn Tables) -> Self {
        Self { name: relation_name(factor), columns: columns_of(factor, tables), keys: Vec::new() }
    }

    fn has(&self, column: &str) -> bool {
        self.columns.as_ref().is_some_and(|columns| columns.iter().any(|name| name == column))
    }
}

/// One item of FROM: relations that are joined with each other.
struct Joined {
    relations: Vec<Relation>,
    merged: Vec<Merged>,
    /// Whether a key is not the column of one relation, which `DataFusion` knows.
    has_outer: bool,
}

/// Turns NATURAL into USING, and puts the values of keys that RIGHT and FULL joins merge in the place of their names. The keys, for ORDER
/// BY.
pub(super) fn merge_keys(select: &mut Select, tables: &dyn Tables) -> Vec<Merged> {
    let joined: Vec<Joined> = select.from.iter_mut().map(|from| Joined::of(from, tables)).collect();
    let is_named = |joined: &Joined| joined.relations.iter().all(|relation| relation.name.is_some());
    let has_wildcard = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let is_needed = |joined: &Joined| joined.has_outer || has_wildcard && !joined.merged.is_empty();
    if !joined.iter().any(is_needed) || !joined.iter().all(is_named) {
        return Vec::new();
    }
    let all: Vec<Merged> = joined.iter().flat_map(|joined| joined.merged.iter().cloned()).collect();
    replace(select, &joined, &all, tables);
    all
}

impl Joined {
    fn of(from: &mut TableWithJoins, tables: &dyn Tables) -> Self {
        let first = Relation::new(&from.relation, tables);
        let mut joined = Self { relations: vec![first], merged: Vec::new(), has_outer: false };
        for join in &mut from.joins {
            let right = Relation::new(&join.relation, tables);
            joined.join(&mut join.join_operator, right, tables);
        }
        joined
    }

    fn join(&mut self, operator: &mut JoinOperator, mut right: Relation, tables: &dyn Tables) {
        let Some((constraint, side)) = constraint_of(operator) else {
            self.relations.push(right);
            return;
        };
        if matches!(constraint, JoinConstraint::Natural)
            && let Some(common) = self.common_with(&right)
        {
            *constraint = if common.is_empty() {
                JoinConstraint::On(Expr::value(Value::Boolean(true)))
            } else {
                JoinConstraint::Using(common)
            };
        }
        match (&mut *constraint, &right.name) {
            (JoinConstraint::Using(keys), Some(name)) => {
                let keys = keys.iter().filter_map(|key| Some(folded(key.0.last()?.as_ident()?)));
                let keys: Vec<String> = keys.collect();
                let is_merged = keys.iter().any(|key| self.merged.iter().any(|merged| merged.name == *key));
                let on = (self.has_outer || is_merged).then(|| self.condition(&keys, name));
                for key in keys {
                    self.merge(&key, column(name, &key), side);
                    right.keys.push(key);
                }
                // Those of the last join stand first.
                self.merged.sort_by_key(|merged| !right.keys.contains(&merged.name));
                if let Some(Some(on)) = on {
                    *constraint = JoinConstraint::On(on);
                }
            }
            (JoinConstraint::On(condition), _) if self.has_outer => {
                let _ = condition.visit(&mut Replacing { merged: &self.merged, tables, hidden: Vec::new() });
            }
            _ => {}
        }
        self.relations.push(right);
    }

    /// The columns that a NATURAL join is by; none where not all columns are known.
    fn common_with(&self, right: &Relation) -> Option<Vec<ObjectName>> {
        let right = right.columns.as_ref()?;
        let mut common: Vec<&String> = Vec::new();
        for relation in &self.relations {
            let own = relation.columns.as_ref()?.iter();
            common.extend(own.filter(|name| right.contains(name)));
        }
        let mut names: Vec<ObjectName> = Vec::new();
        for name in common {
            let name = ObjectName::from(vec![Ident::with_quote('"', name.clone())]);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Some(names)
    }

    /// The condition of a join by keys, whose left values `DataFusion` would take from one relation.
    fn condition(&self, keys: &[String], right: &str) -> Option<Expr> {
        let equal = |key: &String| {
            let (left, right) = (Box::new(self.value_of(key)?), Box::new(column(right, key)));
            Some(Expr::BinaryOp { left, op: BinaryOperator::Eq, right })
        };
        let all: Option<Vec<Expr>> = keys.iter().map(equal).collect();
        all?.into_iter().reduce(|all, one| Expr::BinaryOp {
            left: Box::new(all),
            op: BinaryOperator::And,
            right: Box::new(one),
        })
    }

    /// The value of a column of the relations so far.
    fn value_of(&self, key: &str) -> Option<Expr> {
        if let Some(merged) = self.merged.iter().find(|merged| merged.name == key) {
            return Some(merged.value.clone());
        }
        let is_unknown = |relation: &&Relation| relation.columns.is_none();
        let relations = &self.relations;
        let owner = relations.iter().find(|relation| relation.has(key));
        let owner = owner.or_else(|| relations.iter().find(is_unknown)).or_else(|| relations.first())?;
        Some(column(owner.name.as_ref()?, key))
    }

    fn merge(&mut self, key: &str, right: Expr, side: Side) {
        let value = match (self.value_of(key), side) {
            (Some(left), Side::Both) => coalesce(left, right),
            (_, Side::Right) => right,
            (Some(left), Side::Left) => left,
            (None, _) => return,
        };
        let is_merged = self.merged.iter().any(|merged| merged.name == key);
        self.has_outer |= side != Side::Left || is_merged;
        self.merged.retain(|merged| merged.name != key);
        self.merged.push(Merged { name: key.to_owned(), value });
    }
}

/// The first of several values that is not NULL, and another value behind them.
fn coalesce(mut values: Expr, last: Expr) -> Expr {
    if let Expr::Function(function) = &mut values
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(last)));
        return values;
    }
    call("coalesce", vec![values, last])
}

/// The side of a join that has all its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Both,
}

fn constraint_of(operator: &mut JoinOperator) -> Option<(&mut JoinConstraint, Side)> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => Some((constraint, Side::Left)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            Some((constraint, Side::Right))
        }
        JoinOperator::FullOuter(constraint) => Some((constraint, Side::Both)),
        _ => None,
    }
}

/// Gives names to the columns that the aliases of a query's WITH leave without one.
pub(super) fn complete_aliases_of_with(query: &mut Query, tables: &dyn Tables) {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        super::names::complete_alias(&mut cte.alias, output_columns(&cte.query.body, tables));
    }
}

/// Gives names to the columns that a relation's alias leaves without one; a table has columns besides that no alias names.
pub(super) fn complete_alias_of(factor: &mut TableFactor, tables: &dyn Tables) {
    let has_columns =
        |alias: &Option<TableAlias>| alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
    if let TableFactor::Table { name, args: None, alias, .. } = factor
        && has_columns(alias)
        && let Some(columns) = tables.columns(name)
    {
        let mut shown = super::select_all(name.clone());
        let names = columns.into_iter().map(|name| Expr::Identifier(Ident::with_quote('"', name)));
        shown.projection = names.map(SelectItem::UnnamedExpr).collect();
        let (subquery, alias) = (Box::new(super::query_of(shown)), alias.take());
        *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
    }
    if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor {
        super::names::complete_alias(alias, output_columns(&subquery.body, tables));
    }
}

/// The columns of a relation; none where they are not known.
pub(super) fn columns_of(factor: &TableFactor, tables: &dyn Tables) -> Option<Vec<String>> {
    let (alias, columns) = match factor {
        TableFactor::Table { name, args: None, alias, .. } => (alias, tables.columns(name)),
        TableFactor::Derived { subquery, alias, .. } => (alias, output_columns(&subquery.body, tables)),
        _ => return None,
    };
    let mut columns = columns?;
    let renamed = alias.iter().flat_map(|alias| &alias.columns);
    for (column, renamed) in columns.iter_mut().zip(renamed) {
        *column = folded(&renamed.name);
    }
    Some(columns)
}

/// The names of a query's columns; none where they are not known.
fn output_columns(body: &SetExpr, tables: &dyn Tables) -> Option<Vec<String>> {
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::Query(query) => return output_columns(&query.body, tables),
        SetExpr::SetOperation { left, .. } => return output_columns(left, tables),
        SetExpr::Values(values) => {
            let width = values.rows.first()?.len();
            return Some((1..=width).map(|at| format!("column{at}")).collect());
        }
        _ => return None,
    };
    let mut columns = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => columns.push(super::names::name_of(expr)?),
            SelectItem::ExprWithAlias { alias, .. } => columns.push(folded(alias)),
            SelectItem::Wildcard(_) if select.from.iter().all(|from| from.joins.is_empty()) => {
                for from in &select.from {
                    columns.extend(columns_of(&from.relation, tables)?);
                }
            }
            _ => return None,
        }
    }
    Some(columns)
}

fn column(relation: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::with_quote('"', relation), Ident::with_quote('"', name)])
}

/// Puts merged keys in the place of their bare names, and `*` in its parts.
fn replace(select: &mut Select, joined: &[Joined], merged: &[Merged], tables: &dyn Tables) {
    let mut replacing = Replacing { merged, tables, hidden: Vec::new() };
    let mut projection: Vec<SelectItem> = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        match item {
            SelectItem::Wildcard(options) => {
                for joined in joined {
                    joined.all_columns(&options, &mut projection);
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
    if let Some(Distinct::On(keys)) = &mut select.distinct {
        let _ = keys.visit(&mut replacing);
    }
    let _ = select.selection.visit(&mut replacing);
    let _ = select.group_by.visit(&mut replacing);
    let _ = select.having.visit(&mut replacing);
    let _ = select.named_window.visit(&mut replacing);
    let _ = select.qualify.visit(&mut replacing);
}

impl Joined {
    /// `*`: the merged keys, then the other columns of each relation.
    fn all_columns(&self, options: &WildcardAdditionalOptions, into: &mut Vec<SelectItem>) {
        for key in &self.merged {
            let alias = Ident::with_quote('"', key.name.clone());
            into.push(SelectItem::ExprWithAlias { expr: key.value.clone(), alias });
        }
        for (at, relation) in self.relations.iter().enumerate() {
            let merged = self.merged.iter().map(|key| &key.name);
            // A relation with the key on the left of its join.
            let is_left = |key: &&String| match &relation.columns {
                Some(columns) => columns.contains(key),
                None => at == 0,
            };
            let hidden: Vec<&String> =
                merged.filter(|key| relation.keys.contains(key) || is_left(key)).collect();
            let Some(name) = &relation.name else { continue };
            into.push(all_but(name, &hidden, options));
        }
    }
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

/// Puts merged keys in the place of their names in ORDER BY, whose bare names are those of results first.
pub(super) fn replace_in_order(order: &mut OrderBy, select: &Select, merged: &[Merged], tables: &dyn Tables) {
    let OrderByKind::Expressions(keys) = &mut order.kind else { return };
    let is_result = |ident: &Ident| {
        let name = folded(ident);
        select.projection.iter().any(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => folded(alias) == name,
            _ => false,
        })
    };
    for key in keys {
        if !matches!(&key.expr, Expr::Identifier(ident) if is_result(ident)) {
            let _ = key.expr.visit(&mut Replacing { merged, tables, hidden: Vec::new() });
        }
    }
}

/// Puts merged keys in the place of their bare names.
struct Replacing<'m> {
    merged: &'m [Merged],
    tables: &'m dyn Tables,
    /// Keys that each subquery around the current expression has a column of its own for.
    hidden: Vec<Vec<&'m str>>,
}

impl VisitorMut for Replacing<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let keys = self.merged.iter().map(|key| key.name.as_str());
        self.hidden.push(keys.filter(|key| may_have(&query.body, key, self.tables)).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr {
            let name = folded(ident);
            let is_hidden = self.hidden.iter().flatten().any(|hidden| *hidden == name);
            if !is_hidden && let Some(key) = self.merged.iter().find(|key| key.name == name) {
                *expr = key.value.clone();
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether a bare name in a query may be a column of its own relations.
fn may_have(body: &SetExpr, column: &str, tables: &dyn Tables) -> bool {
    match body {
        SetExpr::Select(select) => super::names::relations(select).any(|factor| {
            columns_of(factor, tables).is_none_or(|columns| columns.iter().any(|name| name == column))
        }),
        SetExpr::SetOperation { left, right, .. } => {
            may_have(left, column, tables) || may_have(right, column, tables)
        }
        SetExpr::Query(_) => false,
        _ => true,
    }
}
