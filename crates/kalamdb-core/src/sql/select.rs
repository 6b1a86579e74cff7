//! Everything that reads, by way of `DataFusion`.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::col;
use datafusion::sql::parser::Statement as QueryStatement;
use datafusion::sql::sqlparser::ast::{
    self, ExcludeSelectItem, Ident, ObjectName, SelectItem, SetExpr, TableFactor, Visit, VisitMut,
    VisitorMut, visit_expressions,
};
use kalamdb_query::Hazards;
use kalamdb_query::rewrite::{Purpose, Tables, visible_name};
use log_format::{Partition, Role, Seq};
use serde_json::Value as Json;

use crate::changes::CHANGES_NAME;
use crate::engine::Engine;
use crate::error::{Error, Result, from_query};
use crate::functions::with_session;
use crate::live::{LiveQuery, Projections};
use crate::provider::{Scope, StoredTable, session_state};
use crate::queries;
use crate::session::Session;
use crate::sql::execute::StatementResult;
use crate::sql::parameters::{require_params, write_out};
use crate::sql::parse::{parse_subscription, table_name};
use crate::sql::plans::{Plan, PlanKey, with_params};
use crate::sql::point;
use crate::sql::target::Context;
use crate::table::{GENERATED_KEY, SystemColumn, TableInfo};

/// The system columns a statement names.
pub(crate) fn named_system_columns<V: Visit>(statement: &V) -> Vec<SystemColumn> {
    let mut named = Vec::new();
    let _ = visit_expressions(statement, |expression| {
        let ident = match expression {
            ast::Expr::Identifier(ident) => Some(ident),
            ast::Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        let system = ident.and_then(|ident| {
            SystemColumn::ALL.into_iter().find(|column| column.name().eq_ignore_ascii_case(&ident.value))
        });
        if let Some(system) = system.filter(|system| !named.contains(system)) {
            named.push(system);
        }
        ControlFlow::<()>::Continue(())
    });
    named.sort_unstable();
    named
}

/// `*` means a table's own columns: a system column is shown where it is named.
struct HideSystemColumns<'a>(&'a [SystemColumn]);

impl VisitorMut for HideSystemColumns<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else {
                continue;
            };
            if options.opt_exclude.is_none() && options.opt_except.is_none() {
                let names = self.0.iter().map(|column| ObjectName::from(vec![Ident::new(column.name())]));
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names.collect()));
            }
        }
        ControlFlow::Continue(())
    }
}

pub(crate) fn hide_system_columns<V: VisitMut>(statement: &mut V, columns: &[SystemColumn]) {
    if !columns.is_empty() {
        let _ = statement.visit(&mut HideSystemColumns(columns));
    }
}

/// Plans a statement that may only read.
pub(crate) async fn plan(
    context: Context<'_>,
    state: &SessionState,
    mut statement: ast::Statement,
) -> Result<LogicalPlan> {
    write_out(&mut statement, context.params)?;
    let plan = Box::pin(plan_without_params(context, state, statement, Purpose::Result)).await?;
    with_params(plan, context.params)
}

async fn plan_without_params(
    context: Context<'_>,
    state: &SessionState,
    statement: ast::Statement,
    purpose: Purpose,
) -> Result<LogicalPlan> {
    let planned = Box::pin(plan_rewritten(context, state, statement.clone(), purpose)).await;
    match planned {
        // Which expressions have one name is known only once they are planned.
        Err(error) if purpose == Purpose::Result && error.to_string().contains(SAME_NAME) => {
            Box::pin(plan_rewritten(context, state, statement, Purpose::Apart)).await
        }
        planned => planned,
    }
}

/// A part of `DataFusion`'s error where two columns have one name.
const SAME_NAME: &str = "require unique expression names";

async fn plan_rewritten(
    context: Context<'_>,
    state: &SessionState,
    mut statement: ast::Statement,
    purpose: Purpose,
) -> Result<LogicalPlan> {
    let tables = SessionTables { engine: context.engine, session: context.session };
    kalamdb_query::rewrite::rewrite(&mut statement, &tables, purpose)
        .map_err(|what| Error::Unsupported { what, hint: None })?;
    let statement = QueryStatement::Statement(Box::new(statement));
    let plan = state.statement_to_plan(statement).await.map_err(from_query)?;
    let reads_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reads_only.verify_plan(&plan).map_err(from_query)?;
    Ok(plan)
}

/// The tables of a session, as far as a statement's rewriting needs to know them.
struct SessionTables<'e> {
    engine: &'e Engine,
    session: &'e Session,
}

impl SessionTables<'_> {
    fn table(&self, name: &ObjectName) -> Option<Arc<TableInfo>> {
        let info = self.engine.resolve(self.session, &table_name(name).ok()?).ok()?;
        crate::sql::execute::require_read(self.session, &info).ok().map(|()| info)
    }
}

impl Tables for SessionTables<'_> {
    fn columns(&self, name: &ObjectName) -> Option<Vec<String>> {
        let info = self.table(name)?;
        let is_shown = |name: &str| name != GENERATED_KEY || info.columns().len() == 1;
        let shown = info.columns().iter().filter(|column| is_shown(&column.name));
        Some(shown.map(|column| column.name.clone()).collect())
    }

    fn generated_key(&self, name: &ObjectName) -> Option<String> {
        // Alone it is shown: a result has a column.
        let info = self.table(name).filter(|info| info.columns().len() > 1)?;
        info.column_position(GENERATED_KEY).map(|_| GENERATED_KEY.to_owned())
    }
}

/// Rows in cold files from which on a statement is worth more than one core: tests have few, and are to see both.
const ROWS_FOR_MORE_CORES: u64 = if cfg!(test) { 32 } else { 1 << 17 };

/// The session's state with this statement's number of cores and without optimizations that would answer it wrongly; none if it needs no
/// change.
fn state_of_plan(state: &SessionState, plan: &LogicalPlan) -> Result<Option<SessionState>> {
    let (has_many_rows, hazards) = (has_many_rows(plan)?, Hazards::of(plan).map_err(from_query)?);
    if !has_many_rows && !hazards.any() {
        return Ok(None);
    }
    let mut state = state.clone();
    if has_many_rows {
        // Asked for here, since it costs system calls.
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        state.config_mut().options_mut().execution.target_partitions = cores;
    }
    hazards.avoid(state.config_mut());
    Ok(Some(state))
}

/// Whether a statement reads enough cold rows to use all cores.
fn has_many_rows(plan: &LogicalPlan) -> Result<bool> {
    let mut rows = 0;
    let counted = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = source_as_provider(&scan.source)?.downcast_ref::<StoredTable>()
        {
            rows += table.cold_rows().map_err(|error| DataFusionError::External(Box::new(error)))?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    counted.map_err(from_query)?;
    Ok(rows >= ROWS_FOR_MORE_CORES)
}

/// Runs a plan and keeps its whole result.
pub(crate) async fn collect(
    engine: &Engine,
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    run(engine, state, &state.optimize(plan).map_err(from_query)?).await
}

/// Runs an optimised plan and keeps its whole result.
async fn run(
    engine: &Engine,
    state: &SessionState,
    optimized: &LogicalPlan,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let own = state_of_plan(state, optimized)?;
    let state = own.as_ref().unwrap_or(state);
    let physical = state.query_planner().create_physical_plan(optimized, state).await.map_err(from_query)?;
    queries::collect(engine.query_threads(), physical, queries::task_context(state)).await
}

/// Runs a plan that was kept from before.
pub(crate) async fn again(context: Context<'_>, plan: Plan) -> Result<StatementResult> {
    // Nothing in it depends on the session any more.
    let state = context.engine.session_state();
    let (schema, batches) = match plan {
        Plan::Optimized(plan) => run(context.engine, state, &plan).await?,
        Plan::Planned(plan) => collect(context.engine, state, &plan).await?,
    };
    Ok(selected(context, schema, batches))
}

/// SELECT and whatever else reads.
pub(crate) async fn select(context: Context<'_>, statement: &ast::Statement) -> Result<StatementResult> {
    if let Some(found) = point::select(context, statement)? {
        return Ok(found);
    }
    Box::pin(select_by_plan(context, statement.clone())).await
}

async fn select_by_plan(context: Context<'_>, mut statement: ast::Statement) -> Result<StatementResult> {
    let named = named_system_columns(&statement);
    hide_system_columns(&mut statement, &named);
    let state = session_state(context.engine, context.session, context.scope(named.clone())?);
    // A plan with parameters written out is good for those alone.
    let is_written_out = write_out(&mut statement, context.params)?;
    let planned = plan_without_params(context, &state, statement, Purpose::Result).await?;
    let plans = context.engine.plans();
    let key = PlanKey::new(&context).filter(|_| !is_written_out);
    let (schema, batches) = if context.params.is_empty() {
        let optimized = state.optimize(&planned).map_err(from_query)?;
        if let Some(key) = key {
            plans.keep(key, &planned, Plan::Optimized(optimized.clone()), named);
        }
        run(context.engine, &state, &optimized).await?
    } else {
        if let Some(key) = key {
            plans.keep(key, &planned, Plan::Planned(planned.clone()), named);
        }
        collect(context.engine, &state, &with_params(planned, context.params)?).await?
    };
    Ok(selected(context, schema, batches))
}

fn selected(context: Context<'_>, schema: SchemaRef, batches: Vec<RecordBatch>) -> StatementResult {
    let row_count = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    let (schema, batches) = with_visible_names(schema, batches);
    StatementResult { schema, batches, row_count, message: None, as_user: context.session.user().clone() }
}

/// A result under the names that a statement gives its columns: two may have one.
fn with_visible_names(schema: SchemaRef, batches: Vec<RecordBatch>) -> (SchemaRef, Vec<RecordBatch>) {
    if schema.fields().iter().all(|field| visible_name(field.name()) == field.name()) {
        return (schema, batches);
    }
    let fields =
        schema.fields().iter().map(|field| field.as_ref().clone().with_name(visible_name(field.name())));
    let renamed = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()));
    let named = batches.iter().map(|batch| {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&renamed), batch.columns().to_vec(), &options)
    });
    match named.collect::<std::result::Result<Vec<_>, _>>() {
        Ok(named) => (renamed, named),
        Err(_) => (schema, batches),
    }
}

/// A subscription's SELECT, planned.
pub(crate) struct LivePlan {
    pub(crate) state: SessionState,
    /// The projection, with `_seq`, over a filter over the table.
    pub(crate) select: LogicalPlan,
    pub(crate) info: Arc<TableInfo>,
    pub(crate) partition: Partition,
    /// The cut the snapshot reads.
    pub(crate) cut_seq: Seq,
}

impl LivePlan {
    /// What it does with each change.
    pub(crate) fn compile(&self, projections: &Projections) -> Result<LiveQuery> {
        let (info, partition) = (Arc::clone(&self.info), self.partition.clone());
        LiveQuery::compile(&self.state, &self.select, info, partition, projections)
    }

    /// The rows to begin with, oldest first; with `last_rows` the newest ones only.
    ///
    /// The order is part of the contract: clients remember the greatest `_seq` they have seen and drop what is not above it.
    pub(crate) fn rows(&self, last_rows: Option<u32>) -> Result<LogicalPlan> {
        let by_seq = |ascending| [col(SystemColumn::Seq.name()).sort(ascending, false)];
        let mut plan = LogicalPlanBuilder::from(self.select.clone());
        if let Some(last_rows) = last_rows {
            plan = plan
                .sort(by_seq(false))
                .and_then(|plan| plan.limit(0, Some(last_rows as usize)))
                .map_err(from_query)?;
        }
        plan.sort(by_seq(true)).and_then(LogicalPlanBuilder::build).map_err(from_query)
    }

    /// How many rows that will be.
    pub(crate) fn count(&self, last_rows: Option<u32>) -> Result<LogicalPlan> {
        LogicalPlanBuilder::from(self.select.clone())
            .limit(0, last_rows.map(|rows| rows as usize))
            .and_then(|plan| plan.aggregate(Vec::<Expr>::new(), [count(lit(1_i64))]))
            .and_then(LogicalPlanBuilder::build)
            .map_err(from_query)
    }
}

/// Plans a subscription: one table, rows of this session only, `_seq` always selected.
pub(crate) async fn live_plan(
    engine: &Engine,
    session: &Session,
    sql: &str,
    params: &[Json],
) -> Result<LivePlan> {
    loop {
        let plan = live_plan_now(engine, session, sql, params).await?;
        // The table is looked up twice, here and by the query engine: both must have seen the same.
        if engine.catalog().is_newest(&plan.info) {
            return Ok(plan);
        }
    }
}

async fn live_plan_now(engine: &Engine, session: &Session, sql: &str, params: &[Json]) -> Result<LivePlan> {
    let mut statement = parse_subscription(sql)?;
    require_params(&statement, params)?;
    let info = one_table(engine, session, &mut statement)?;
    crate::sql::execute::require_read(session, &info)?;
    let system = info.system_columns();
    let deleted_named = named_system_columns(&statement).contains(&SystemColumn::Deleted);
    if deleted_named {
        return Err(Error::Unsupported {
            what: "_deleted in a live query".to_owned(),
            hint: Some("a row that is deleted is told as a delete, and is no row any more"),
        });
    }
    hide_system_columns(&mut statement, system);
    let scope = Scope::for_live_query(engine, session, system.to_vec())?;
    let cut_seq = scope.cut_seq();
    let state = session_state(engine, session, scope);
    let is_aggregate = aggregates(&state, &statement);
    refuse_seq_as_alias(&statement)?;
    // A client that remembers the greatest `_seq` resumes exactly, so it is always sent.
    if let ast::Statement::Query(query) = &mut statement
        && let SetExpr::Select(select) = query.body.as_mut()
        && !is_aggregate
        && !select.projection.iter().any(names_seq)
    {
        let seq = ast::Expr::Identifier(Ident::new(SystemColumn::Seq.name()));
        select.projection.push(SelectItem::UnnamedExpr(seq));
    }
    // IMPORTANT: what live queries select is compiled once for all that select the same.
    let context = Context { engine, session, params, text: None, transaction: None };
    write_out(&mut statement, params)?;
    let select = plan_without_params(context, &state, statement, Purpose::Live).await?;
    let select = with_session(with_params(select, params)?, session)?;
    let mut select = kalamdb_query::resolve_types(select).map_err(from_query)?;
    if is_aggregate {
        // Which type an aggregate is computed in, the analyzer decides.
        let analyzed = state.analyzer().execute_and_check(select, state.config_options(), |_, _| {});
        select = analyzed.map_err(from_query)?;
    }
    let partition = session.partition(&info);
    Ok(LivePlan { state, select, info, partition, cut_seq })
}

/// Whether it is `_seq` that is selected, by itself.
fn names_seq(item: &SelectItem) -> bool {
    let ident = match item {
        SelectItem::UnnamedExpr(ast::Expr::Identifier(ident)) => Some(ident),
        SelectItem::UnnamedExpr(ast::Expr::CompoundIdentifier(parts)) => parts.last(),
        _ => None,
    };
    ident.is_some_and(|ident| ident.value == SystemColumn::Seq.name())
}

/// What is sent under this name is the seq.
fn refuse_seq_as_alias(statement: &ast::Statement) -> Result<()> {
    let ast::Statement::Query(query) = statement else { return Ok(()) };
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(()) };
    let is_alias = |item: &SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value == SystemColumn::Seq.name());
    if select.projection.iter().any(is_alias) {
        return Err(Error::Unsupported {
            what: "a column called _seq in a live query".to_owned(),
            hint: Some("that is what each row's seq is sent as; give it another name"),
        });
    }
    Ok(())
}

/// Whether a SELECT makes one row of several.
fn aggregates(state: &SessionState, statement: &ast::Statement) -> bool {
    let ast::Statement::Query(query) = statement else { return false };
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let is_grouped = match &select.group_by {
        ast::GroupByExpr::All(_) => true,
        ast::GroupByExpr::Expressions(by, _) => !by.is_empty(),
    };
    let names_aggregate = |expression: &ast::Expr| {
        let ast::Expr::Function(call) = expression else { return ControlFlow::Continue(()) };
        let name = call.name.to_string().to_ascii_lowercase();
        let is_aggregate = call.over.is_none() && state.aggregate_functions().contains_key(&name);
        if is_aggregate { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    is_grouped || select.having.is_some() || visit_expressions(&select.projection, names_aggregate).is_break()
}

/// The one table of a live query.
fn one_table(engine: &Engine, session: &Session, statement: &mut ast::Statement) -> Result<Arc<TableInfo>> {
    let refused = || Error::Unsupported {
        what: "a live query over anything but one table".to_owned(),
        hint: Some("write SELECT … FROM one table [WHERE …] [GROUP BY … [HAVING …] | ORDER BY … LIMIT n]"),
    };
    let ast::Statement::Query(query) = statement else { return Err(refused()) };
    let SetExpr::Select(select) = query.body.as_ref() else { return Err(refused()) };
    if query.with.is_some() {
        return Err(refused());
    }
    match (query.order_by.is_some(), query.limit_clause.is_some()) {
        (true, false) => {
            return Err(Error::Unsupported {
                what: "ORDER BY without LIMIT in a live query".to_owned(),
                hint: Some("add a LIMIT, or order the rows where they are shown"),
            });
        }
        (false, true) => {
            return Err(Error::Unsupported {
                what: "LIMIT without ORDER BY in a live query".to_owned(),
                hint: Some(
                    "say the first rows of which order; or use the option last_rows for the newest rows",
                ),
            });
        }
        _ => {}
    }
    let [from] = select.from.as_slice() else { return Err(refused()) };
    let TableFactor::Table { name, args: None, .. } = &from.relation else { return Err(refused()) };
    if !from.joins.is_empty() {
        return Err(refused());
    }
    let name = table_name(name)?;
    if name.name == CHANGES_NAME && crate::sql::namespace_of(session, &name).as_str() == "system" {
        session.require(Role::Dba, "read system.changes")?;
        return Ok(Arc::clone(engine.catalog().changes()));
    }
    engine.resolve(session, &name)
}
