//! WITH before INSERT, UPDATE and DELETE: the statement, with its named queries where they are read.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Cte, Query, SetExpr, TableAlias, TableFactor, VisitMut, VisitorMut, With,
};

use crate::error::{Error, Result};
use crate::sql::parse::identifier;

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
        let _ = cte.query.visit(&mut Inlining { known: &known });
        known.push(cte);
    }
    let _ = statement.visit(&mut Inlining { known: &known });
    Ok(())
}

struct Inlining<'c> {
    known: &'c [Cte],
}

impl VisitorMut for Inlining<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let [part] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let Some(named) = part.as_ident().map(identifier) else { return ControlFlow::Continue(()) };
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
