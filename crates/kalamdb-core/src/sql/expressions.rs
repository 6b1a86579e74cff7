//! Expressions of a statement that are evaluated on rows at hand, without a plan: what RETURNING and ON CONFLICT write.
//!
//! They see the columns of one table, named with or without it, and where the statement has them the columns of the row it
//! could not insert (`excluded.column`). They read nothing: a subquery is refused.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{self, ExprWithAlias, Ident, VisitMut, VisitorMut};
use kalamdb_query::rewrite::{NoTables, Purpose, rewrite};
use serde_json::Value as Json;

use crate::catalog::nearest_name;
use crate::error::{Error, Result, from_query};
use crate::provider::{Scope, session_state};
use crate::sql::literal::parameter_number;
use crate::sql::parse::{TableName, identifier};
use crate::sql::target::Target;
use crate::values;

/// The name of the row that could not be inserted.
const EXCLUDED: &str = "excluded";

/// The column that holds `excluded.name`; no statement can write this name by accident.
pub(crate) fn excluded_name(name: &str) -> String {
    format!("\u{1}{EXCLUDED}.{name}")
}

/// Makes expressions of a statement ready to be evaluated.
pub(crate) struct Compiler<'t> {
    target: &'t Target<'t>,
    state: SessionState,
    columns: SchemaRef,
    schema: DFSchema,
}

/// An expression on the columns it was compiled for.
pub(crate) struct Computed {
    expression: Arc<dyn PhysicalExpr>,
    /// Its name, as a SELECT would give it, and its type.
    pub(crate) field: Field,
}

impl Computed {
    /// Its values, one for each row of a batch of those columns.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let value = self.expression.evaluate(batch).map_err(from_query)?;
        value.into_array(batch.num_rows()).map_err(from_query)
    }
}

impl<'t> Compiler<'t> {
    /// For expressions on these columns, in a statement on this table.
    pub(crate) fn new(target: &'t Target<'t>, scope: Scope, columns: SchemaRef) -> Result<Self> {
        let state = session_state(target.engine, target.session, scope);
        let schema = DFSchema::from_unqualified_fields(columns.fields().clone(), HashMap::new());
        Ok(Self { target, state, columns, schema: schema.map_err(from_query)? })
    }

    /// An expression, ready.
    pub(crate) fn compile(&self, mut expr: ast::Expr) -> Result<Computed> {
        if let ControlFlow::Break(error) =
            expr.visit(&mut Names { target: self.target, columns: &self.columns })
        {
            return Err(error);
        }
        rewrite(&mut expr, &NoTables, Purpose::Result)
            .map_err(|what| Error::Unsupported { what, hint: None })?;
        let written = ExprWithAlias { expr, alias: None };
        let logical =
            self.state.create_logical_expr_from_sql_expr(written, &self.schema).map_err(from_query)?;
        let logical = with_parameters(logical, self.target.params).map_err(from_query)?;
        let (_, name) = logical.qualified_name();
        let expression = kalamdb_query::compile(&self.state, logical, &self.schema).map_err(from_query)?;
        let field = expression.return_field(&self.columns).map_err(from_query)?;
        // What an expression gives may be NULL even where DataFusion expects that it is not.
        let field = field.as_ref().clone().with_name(name).with_nullable(true);
        Ok(Computed { expression, field })
    }
}

fn with_parameters(expression: Expr, params: &[Json]) -> QueryResult<Expr> {
    let replaced = expression.transform_up(|node| {
        let Expr::Placeholder(placeholder) = &node else { return Ok(Transformed::no(node)) };
        let number = parameter_number(&placeholder.id).unwrap_or_default();
        let given = number.checked_sub(1).and_then(|at| params.get(at));
        let given = given.ok_or_else(|| {
            let problem = format!("the request has {} parameters", params.len());
            DataFusionError::External(Box::new(Error::Parameter { number, problem }))
        })?;
        Ok(Transformed::yes(Expr::Literal(values::scalar_from_json(given), None)))
    });
    Ok(replaced?.data)
}

/// Makes every name one of a column, without its table.
struct Names<'t> {
    target: &'t Target<'t>,
    columns: &'t Schema,
}

impl VisitorMut for Names<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::unsupported("a subquery in RETURNING or ON CONFLICT"))
    }

    fn post_visit_expr(&mut self, expression: &mut ast::Expr) -> ControlFlow<Error> {
        let (table, column) = match expression {
            ast::Expr::Identifier(column) => (Vec::new(), column),
            ast::Expr::CompoundIdentifier(parts) => match parts.split_last_mut() {
                Some((column, table)) => (table.iter().map(identifier).collect(), column),
                None => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        let name = match table.as_slice() {
            [] => identifier(column),
            own if self.target.is_named(own) => identifier(column),
            [table] if table == EXCLUDED => excluded_name(&identifier(column)),
            _ => return ControlFlow::Continue(()),
        };
        if self.columns.index_of(&name).is_err() {
            return ControlFlow::Break(self.unknown(&table, column));
        }
        *expression = ast::Expr::Identifier(Ident::with_quote('"', name));
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    fn unknown(&self, table: &[String], ident: &Ident) -> Error {
        let column = identifier(ident);
        let written: Vec<&str> = table.iter().chain([&column]).map(String::as_str).collect();
        let written = written.join(".");
        let columns = self.columns.fields().iter().map(|field| field.name().as_str());
        let columns: Vec<&str> = columns.filter(|name| !name.starts_with('\u{1}')).collect();
        let instead = nearest_name(&column, columns.iter().copied()).map_or_else(
            || format!("the table has {}", columns.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        Error::definition(format!("there is no column {written} here; {instead}")).at(ident)
    }
}

impl Target<'_> {
    /// Whether a name before a column's, in its parts, is that of the statement's table.
    pub(crate) fn is_named(&self, parts: &[String]) -> bool {
        let record = self.info.record();
        match (&self.alias, parts) {
            (Some(alias), [name]) => name == alias,
            (None, [name]) => *name == record.name,
            (None, [namespace, name]) => *name == record.name && namespace == record.namespace.as_str(),
            _ => false,
        }
    }

    /// As [`Target::is_named`].
    pub(crate) fn is(&self, name: &TableName) -> bool {
        let parts: Vec<String> = name.namespace.iter().chain([&name.name]).cloned().collect();
        self.is_named(&parts)
    }
}
