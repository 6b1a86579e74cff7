//! RETURNING: the rows a statement changed, as a SELECT would show them.
//!
//! Everything that can fail is tried before the commit, so that what a statement refuses leaves nothing. `_seq` and
//! `_updated` are known only after it: where they are named the rows are made a second time.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{self, SelectItem, SelectItemQualifiedWildcardKind};

use crate::error::{Error, Result};
use crate::queries::RESULT_BYTES_MAX;
use crate::rows::{BatchBuilder, RowHead, Shape};
use crate::sql::expressions::{Compiler, Computed};
use crate::sql::parse::{identifier, table_name};
use crate::sql::select;
use crate::sql::target::Target;
use crate::table::{SystemColumn, TableInfo};

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;

/// One column of the answer.
enum Item {
    /// A column of the table, by position in the shape.
    Column(usize),
    Computed(Computed),
}

/// What a statement returns of the rows it changes.
pub(crate) struct Returning {
    shape: Shape,
    items: Vec<Item>,
    schema: SchemaRef,
    /// The system columns it names.
    named: Vec<SystemColumn>,
}

impl Returning {
    /// What these items of a RETURNING list give.
    pub(crate) fn new(target: &Target<'_>, list: &[SelectItem]) -> Result<Self> {
        let named: Vec<SystemColumn> = list.iter().flat_map(select::named_system_columns).collect();
        let system: Vec<SystemColumn> =
            target.info.system_columns().iter().copied().filter(|column| named.contains(column)).collect();
        let shape = Shape::of_table(&target.info, &system);
        let (items, fields) = Items { target, shape: &shape, compiler: None }.of_list(list)?;
        Ok(Self { shape, items, schema: Arc::new(Schema::new(fields)), named: system })
    }

    /// Whether it names what only a commit knows: its rows are then other ones after it than before.
    pub(crate) fn names_commit(&self) -> bool {
        self.names(SystemColumn::Seq) || self.names(SystemColumn::Updated)
    }

    /// Whether it names this column.
    pub(crate) fn names(&self, column: SystemColumn) -> bool {
        self.named.contains(&column)
    }

    /// The columns it gives.
    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What it gives for these rows.
    pub(crate) fn rows(
        &self,
        info: &TableInfo,
        rows: &[&[u8]],
        head: impl Fn(usize) -> RowHead,
    ) -> Result<Vec<RecordBatch>> {
        let (mut batches, mut bytes) = (Vec::new(), 0_usize);
        for (number, chunk) in rows.chunks(BATCH_ROWS).enumerate() {
            let mut builder = BatchBuilder::new(info, &self.shape, chunk.len());
            for (at, row) in chunk.iter().enumerate() {
                builder.push(head(number * BATCH_ROWS + at), row)?;
            }
            let batch = self.batch(&builder.finish()?)?;
            bytes = bytes.saturating_add(batch.get_array_memory_size());
            if bytes > RESULT_BYTES_MAX {
                return Err(Error::TooLarge {
                    what: "what the statement returns",
                    limit: RESULT_BYTES_MAX,
                    hint: "change fewer rows at a time, or return less of them",
                });
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    fn batch(&self, changed: &RecordBatch) -> Result<RecordBatch> {
        let arrays = self.items.iter().filter_map(|item| match item {
            Item::Column(position) => changed.columns().get(*position).cloned().map(Ok),
            Item::Computed(computed) => Some(computed.evaluate(changed)),
        });
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(changed.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}

/// Reads a RETURNING list. Columns alone, which is most of them, need no query engine.
struct Items<'a> {
    target: &'a Target<'a>,
    shape: &'a Shape,
    compiler: Option<Compiler<'a>>,
}

impl Items<'_> {
    fn of_list(mut self, list: &[SelectItem]) -> Result<(Vec<Item>, Vec<Field>)> {
        let (mut items, mut fields) = (Vec::new(), Vec::new());
        for item in list {
            match item {
                SelectItem::UnnamedExpr(expression) => {
                    let (item, field) = self.expression(expression)?;
                    items.push(item);
                    fields.push(field);
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let (item, field) = self.expression(expr)?;
                    items.push(item);
                    fields.push(field.with_name(identifier(alias)));
                }
                SelectItem::Wildcard(options) if options.to_string().is_empty() => {
                    self.own_columns(&mut items, &mut fields);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                    if options.to_string().is_empty() && self.target.is(&table_name(name)?) =>
                {
                    self.own_columns(&mut items, &mut fields);
                }
                other => return Err(Error::unsupported(format!("RETURNING {other}"))),
            }
        }
        Ok((items, fields))
    }

    fn own_columns(&self, items: &mut Vec<Item>, fields: &mut Vec<Field>) {
        let own = self.target.info.arrow().fields();
        items.extend((0..own.len()).map(Item::Column));
        fields.extend(own.iter().map(|field| field.as_ref().clone()));
    }

    fn expression(&mut self, expression: &ast::Expr) -> Result<(Item, Field)> {
        let schema = self.shape.schema();
        if let ast::Expr::Identifier(ident) = expression
            && let Ok(position) = schema.index_of(&identifier(ident))
        {
            return Ok((Item::Column(position), schema.field(position).clone()));
        }
        let compiler = match &mut self.compiler {
            Some(compiler) => compiler,
            none => {
                let scope = self.target.scope(Vec::new())?;
                none.insert(Compiler::new(self.target, scope, Arc::clone(schema))?)
            }
        };
        let computed = compiler.compile(expression.clone())?;
        let field = computed.field.clone();
        Ok((Item::Computed(computed), field))
    }
}
