//! WITH: the bound on what its named queries expand to, and WITH before INSERT, UPDATE and DELETE.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Cte, FromTable, Query, SetExpr, TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut, With,
};

use crate::error::{Error, Result};
use crate::sql::parse::identifier;

/// Named queries that a statement may expand to: each reference to one is planned anew, with those that it reads.
const EXPANSIONS_MAX: u64 = 1000;

/// Refuses a statement whose named queries expand to more than [`EXPANSIONS_MAX`]: a chain of them, each of which reads the one before
/// twice, doubles the plan with every name.
pub(super) fn require_bounded(statement: &ast::Statement) -> Result<()> {
    match statement.visit(&mut Expansion::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Unsupported {
            what: format!("a statement whose WITH queries are read more than {EXPANSIONS_MAX} times in all"),
            hint: Some(
                "a query that several others read counts once for each of them: store its rows in a table first",
            ),
        }),
    }
}

/// Counts the named queries that each query expands to.
#[derive(Default)]
struct Expansion {
    /// The queries around the current one, outermost first.
    queries: Vec<Expanded>,
}

/// A query that is being visited.
struct Expanded {
    /// Names of its WITH, in their order.
    names: Vec<String>,
    /// Expansions of those names whose queries have been visited.
    sizes: Vec<u64>,
    /// Expansions of the references so far.
    references: u64,
}

impl Visitor for Expansion {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        let names: Vec<_> = ctes.map(|cte| identifier(&cte.alias.name)).collect();
        let sizes = Vec::with_capacity(names.len());
        self.queries.push(Expanded { names, sizes, references: 0 });
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let Some(name) = unqualified_name(factor) else { return ControlFlow::Continue(()) };
        let named = self.queries.iter().rev().find_map(|query| {
            let sized = query.names.iter().zip(&query.sizes);
            sized.rev().find(|(other, _)| **other == name).map(|(_, size)| *size)
        });
        let Some(query) = self.queries.last_mut() else { return ControlFlow::Continue(()) };
        query.references = query.references.saturating_add(named.unwrap_or(0));
        if query.references > EXPANSIONS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        let (Some(done), Some(around)) = (self.queries.pop(), self.queries.last_mut()) else {
            return ControlFlow::Continue(());
        };
        // A query's WITH is visited before its body, name by name.
        if around.sizes.len() < around.names.len() {
            around.sizes.push(done.references.saturating_add(1));
        } else {
            around.references = around.references.saturating_add(done.references);
        }
        if around.references > EXPANSIONS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The name of a table or named query that is read without a namespace.
fn unqualified_name(factor: &TableFactor) -> Option<String> {
    let TableFactor::Table { name, args: None, .. } = factor else { return None };
    let [part] = name.0.as_slice() else { return None };
    part.as_ident().map(identifier)
}

/// `WITH … INSERT | UPDATE | DELETE` as the statement it ends with; any other statement as it is.
pub(super) fn with_ctes(statement: ast::Statement) -> Result<ast::Statement> {
    let ast::Statement::Query(query) = statement else { return Ok(statement) };
    let is_change =
        matches!(query.body.as_ref(), SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_));
    if !is_change {
        return Ok(ast::Statement::Query(query));
    }
    let Query { with, body, .. } = *query;
    let (SetExpr::Insert(mut changing) | SetExpr::Update(mut changing) | SetExpr::Delete(mut changing)) =
        *body
    else {
        return Err(Error::unsupported("WITH before this statement"));
    };
    let Some(with) = with else { return Ok(changing) };
    if let ast::Statement::Insert(insert) = &mut changing
        && let Some(source) = &mut insert.source
    {
        match &mut source.with {
            Some(own) => own.cte_tables.splice(0..0, with.cte_tables).for_each(drop),
            None => source.with = Some(with),
        }
        return Ok(changing);
    }
    inline(&mut changing, with)?;
    Ok(changing)
}

/// Puts each named query where its name is read, later ones with the earlier ones in them.
fn inline(statement: &mut ast::Statement, with: With) -> Result<()> {
    if with.recursive {
        return Err(Error::Unsupported {
            what: "WITH RECURSIVE before UPDATE and DELETE".to_owned(),
            hint: Some("put it into the subquery that reads it"),
        });
    }
    let mut known: Vec<Cte> = Vec::with_capacity(with.cte_tables.len());
    for mut cte in with.cte_tables {
        let _ = VisitMut::visit(&mut cte.query, &mut Inlining { known: &known, hidden: Vec::new() });
        known.push(cte);
    }
    // The table that changes is never a named query.
    let target = target_of(statement).cloned();
    let _ = VisitMut::visit(statement, &mut Inlining { known: &known, hidden: Vec::new() });
    if let (Some(target), Some(inlined)) = (target, target_of(statement)) {
        *inlined = target;
    }
    Ok(())
}

/// The table that an UPDATE or DELETE changes.
fn target_of(statement: &mut ast::Statement) -> Option<&mut TableFactor> {
    match statement {
        ast::Statement::Update(update) => Some(&mut update.table.relation),
        ast::Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &mut delete.from;
            from.first_mut().map(|table| &mut table.relation)
        }
        _ => None,
    }
}

/// Replaces references to named queries by the queries.
struct Inlining<'c> {
    known: &'c [Cte],
    /// The WITH of each query around the current one, outermost first.
    hidden: Vec<Hidden>,
}

/// Names that a WITH of a subquery defines anew.
struct Hidden {
    names: Vec<String>,
    /// Names in scope: those whose queries have been visited, or all of a WITH RECURSIVE.
    in_scope: usize,
}

impl VisitorMut for Inlining<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        let names: Vec<_> = ctes.map(|cte| identifier(&cte.alias.name)).collect();
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        let in_scope = if recursive { names.len() } else { 0 };
        self.hidden.push(Hidden { names, in_scope });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.hidden.pop();
        // A query's WITH is visited before its body, name by name.
        if let Some(around) = self.hidden.last_mut() {
            around.in_scope = around.names.len().min(around.in_scope + 1);
        }
        ControlFlow::Continue(())
    }

    // After its parts: a query that is put in is complete, and may read a table of its own name.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let Some(named) = unqualified_name(factor) else { return ControlFlow::Continue(()) };
        if self
            .hidden
            .iter()
            .any(|hidden| hidden.names.iter().take(hidden.in_scope).any(|name| *name == named))
        {
            return ControlFlow::Continue(());
        }
        let TableFactor::Table { alias, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(cte) = self.known.iter().rev().find(|cte| identifier(&cte.alias.name) == named) else {
            return ControlFlow::Continue(());
        };
        let alias = match alias.take() {
            Some(alias) if alias.columns.is_empty() => {
                TableAlias { columns: cte.alias.columns.clone(), ..alias }
            }
            Some(alias) => alias,
            None => cte.alias.clone(),
        };
        *factor = TableFactor::Derived {
            lateral: false,
            subquery: cte.query.clone(),
            alias: Some(alias),
            sample: None,
        };
        ControlFlow::Continue(())
    }
}
