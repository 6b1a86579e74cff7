//! Statements as they are parsed, written anew where `DataFusion` has no form for what PostgreSQL lets one write.
//!
//! Rewritings that need no types: rows compared with rows, quantified comparisons, joins that merge their keys, columns that
//! have one name, LIMIT and its relatives. What needs types is done on plans.

mod calls;
mod expressions;
mod names;
mod series;
mod using;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Fetch, GroupByExpr, Ident, LimitClause, ObjectName, Query, Select, SelectFlavor, SelectItem,
    SetExpr, TableFactor, Value, Visit, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

pub(crate) use expressions::call;
pub use names::visible_name;

/// Columns and keys of tables, as far as a rewriting needs them.
pub trait Tables {
    /// The columns that `*` shows of a table; none where there is no such table.
    fn columns(&self, name: &ObjectName) -> Option<Vec<String>>;
    /// The column of a key that the table makes by itself, which `*` does not show.
    fn generated_key(&self, name: &ObjectName) -> Option<String>;
}

/// Knows no tables.
#[derive(Debug)]
pub struct NoTables;

impl Tables for NoTables {
    fn columns(&self, _: &ObjectName) -> Option<Vec<String>> {
        None
    }

    fn generated_key(&self, _: &ObjectName) -> Option<String> {
        None
    }
}

/// The purpose of a statement's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A result: columns are told by their places.
    Result,
    /// A result in which each expression has a name of its own.
    Apart,
    /// A live query: columns are told by their names, rows by their keys.
    Live,
}

/// Rewrites a statement, or a part of one.
///
/// # Errors
/// A request of the statement that is not supported, in words.
pub fn rewrite<V: VisitMut>(statement: &mut V, tables: &dyn Tables, purpose: Purpose) -> Result<(), String> {
    let mut rewriter = Rewriter { tables, purpose, names: 0, growth: 0, merged: Vec::new() };
    match statement.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(problem) => Err(problem),
    }
}

struct Rewriter<'t> {
    tables: &'t dyn Tables,
    purpose: Purpose,
    /// Names given so far.
    names: usize,
    /// Expressions that rewriting has added so far.
    growth: usize,
    /// Keys that the joins of each query around the current expression merge.
    merged: Vec<Vec<using::Merged>>,
}

/// Expressions that rewriting may add to a statement: a comparison of rows, for one, repeats what it compares.
const GROWTH_MAX: usize = 100_000;

impl Rewriter<'_> {
    /// Counts expressions that a rewriting adds.
    fn grow(&mut self, added: usize) -> Result<(), String> {
        self.growth = self.growth.saturating_add(added);
        if self.growth > GROWTH_MAX {
            return Err(format!(
                "a statement whose comparisons of rows and lists expand to more than {GROWTH_MAX} expressions is not supported; write \
                 it with a join"
            ));
        }
        Ok(())
    }

    fn name(&mut self, what: &str) -> Ident {
        self.names += 1;
        Ident::with_quote('"', format!("\u{1}{what}{}", self.names))
    }
}

/// Sets of columns that a GROUP BY may group by, as in PostgreSQL.
const GROUPING_SETS_MAX: usize = 4096;

/// The number of sets of columns that a GROUP BY groups by.
fn grouping_sets(group_by: &GroupByExpr) -> usize {
    let GroupByExpr::Expressions(keys, _) = group_by else { return 1 };
    let sets = keys.iter().map(|key| match key {
        Expr::Cube(columns) => u32::try_from(columns.len()).ok().and_then(|width| 2_usize.checked_pow(width)),
        Expr::Rollup(columns) => Some(columns.len() + 1),
        Expr::GroupingSets(sets) => Some(sets.len()),
        _ => Some(1),
    });
    sets.fold(1, |all, sets| all.saturating_mul(sets.unwrap_or(usize::MAX)))
}

impl VisitorMut for Rewriter<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        fetch_as_limit(query)?;
        tables_as_selects(&mut query.body);
        names::name_ordered_items(query);
        names::tell_aggregates_apart(query);
        names::name_columns_of_others(&mut query.body);
        using::complete_aliases_of_with(query, self.tables);
        names::rename_hiding_aliases(query);
        self.merged.push(Vec::new());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        let merged = self.merged.pop().unwrap_or_default();
        if let (SetExpr::Select(select), Some(order), false) =
            (query.body.as_ref(), &mut query.order_by, merged.is_empty())
        {
            using::replace_in_order(order, select, &merged, self.tables);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        if grouping_sets(&select.group_by) > GROUPING_SETS_MAX {
            return ControlFlow::Break(format!(
                "GROUP BY with more than {GROUPING_SETS_MAX} grouping sets is not supported; name the sets in GROUPING SETS"
            ));
        }
        for from in &mut select.from {
            let joined = from.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut from.relation).chain(joined) {
                series::factor(factor);
                using::complete_alias_of(factor, self.tables);
            }
        }
        series::unnest_series(select);
        let merged = using::merge_keys(select, self.tables);
        if let Some(of_query) = self.merged.last_mut() {
            *of_query = merged;
        }
        if self.purpose != Purpose::Live {
            names::hide_generated_keys(select, self.tables);
        }
        names::qualify_wildcards(select);
        if self.purpose != Purpose::Live {
            names::tell_columns_apart(select, self.purpose == Purpose::Apart, self.tables);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        match expressions::before(expr, self) {
            Ok(()) => ControlFlow::Continue(()),
            Err(problem) => ControlFlow::Break(problem),
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is LIMIT.
fn fetch_as_limit(query: &mut Query) -> ControlFlow<String> {
    let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else {
        return ControlFlow::Continue(());
    };
    if with_ties || percent {
        return ControlFlow::Break(
            "FETCH … WITH TIES and PERCENT are not supported; use rank() in a subquery".to_owned(),
        );
    }
    let rows = quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false)));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(rows),
        Some(LimitClause::OffsetCommaLimit { .. }) => {}
        None => {
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: Vec::new() });
        }
    }
    ControlFlow::Continue(())
}

/// `TABLE t` is `SELECT * FROM t`.
fn tables_as_selects(body: &mut SetExpr) {
    match body {
        SetExpr::Table(table) => {
            let parts =
                table.schema_name.iter().chain(&table.table_name).map(|name| Ident::new(name.clone()));
            let name = ObjectName::from(parts.collect::<Vec<_>>());
            *body = SetExpr::Select(Box::new(select_all(name)));
        }
        SetExpr::SetOperation { left, right, .. } => {
            tables_as_selects(left);
            tables_as_selects(right);
        }
        _ => {}
    }
}

/// `SELECT * FROM name`.
pub fn select_all(name: ObjectName) -> Select {
    let mut select = empty_select();
    select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    select.from = vec![ast::TableWithJoins { relation: table(name), joins: Vec::new() }];
    select
}

fn table(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn empty_select() -> Select {
    Select {
        select_token: ast::helpers::attached_token::AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: Vec::new(),
        exclude: None,
        into: None,
        from: Vec::new(),
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

/// A query that is this SELECT alone.
fn query_of(select: Select) -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// The name of a column or relation, folded as statements fold it.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Whether a part of a statement names a column by its table.
fn names_table<V: Visit>(part: &V, table: &str) -> bool {
    ast::visit_expressions(part, |expr| match expr {
        Expr::CompoundIdentifier(parts)
            if parts.len() == 2 && parts.first().is_some_and(|it| folded(it) == table) =>
        {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}
