//! Plans that are kept: a SELECT that comes again with the same text is not parsed, planned or optimised again.
//!
//! A plan is kept without whose rows it reads: its tables are put in anew for each session and cut. It is good for as long as
//! every table it reads has the schema version it was made for. Kept are plans over tables of rows only, without functions
//! whose value depends on who asks or when.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::catalog::{Session as QuerySession, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use log_format::{SchemaVersion, TableId};
use lru::LruCache;
use serde_json::Value as Json;

use crate::error::{Error, Result, from_query};
use crate::provider::StoredTable;
use crate::sql::execute::require_read;
use crate::sql::target::Context;
use crate::table::SystemColumn;
use crate::values;

/// Plans that are kept at the most.
const PLANS_MAX: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Bytes of a statement whose plan is kept.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// What tells a plan from others: the text, where its names belong, and the kinds of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PlanKey {
    text: String,
    namespace: String,
    params: Vec<std::mem::Discriminant<ScalarValue>>,
}

/// A plan, and how far it has come.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// With everything done that does not need the tables.
    Optimized(LogicalPlan),
    /// As it was made: parameters decide what it can be made of.
    Planned(LogicalPlan),
}

#[derive(Debug)]
struct KeptPlan {
    plan: Plan,
    tables: Vec<(TableId, SchemaVersion)>,
    system_columns: Vec<SystemColumn>,
}

/// The plans of one engine.
#[derive(Debug)]
pub(crate) struct Plans {
    // Held to look one up or add one.
    kept: Mutex<LruCache<PlanKey, Arc<KeptPlan>>>,
}

impl Default for Plans {
    fn default() -> Self {
        Self { kept: Mutex::new(LruCache::new(PLANS_MAX)) }
    }
}

impl PlanKey {
    /// Of a request's text; none where no plan of it would be kept.
    pub(crate) fn new(context: &Context<'_>) -> Option<Self> {
        let text = context.text.filter(|text| text.len() <= TEXT_BYTES_MAX)?;
        let begins = |word: &str| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        (begins("SELECT") || begins("WITH")).then(|| Self {
            text: text.to_owned(),
            namespace: context.session.namespace().to_string(),
            params: scalars(context.params).iter().map(std::mem::discriminant).collect(),
        })
    }
}

fn scalars(params: &[Json]) -> Vec<ScalarValue> {
    params.iter().map(values::scalar_from_json).collect()
}

impl Plans {
    fn kept(&self) -> MutexGuard<'_, LruCache<PlanKey, Arc<KeptPlan>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan for this text, over what the context sees; none where it has to be made.
    pub(crate) fn find(&self, context: Context<'_>, key: &PlanKey) -> Result<Option<Plan>> {
        let Some(kept) = self.kept().get(key).cloned() else { return Ok(None) };
        let mut tables = HashMap::with_capacity(kept.tables.len());
        for (id, version) in &kept.tables {
            match context.engine.catalog().by_id(*id) {
                Some(info) if info.version() == *version => {
                    require_read(context.session, &info)?;
                    tables.insert(*id, info);
                }
                _ => {
                    self.kept().pop(key);
                    return Ok(None);
                }
            }
        }
        metrics::counter!("kalamdb_plans_reused_total").increment(1);
        let scope = Arc::new(context.scope(kept.system_columns.clone())?);
        let over = |plan: &LogicalPlan| {
            let with_rows = |provider: &dyn TableProvider| -> Option<Arc<dyn TableProvider>> {
                let info = tables.get(&provider.downcast_ref::<Columns>()?.table)?;
                Some(Arc::new(StoredTable::new(Arc::clone(&scope), Arc::clone(info))))
            };
            over(plan.clone(), with_rows).map_err(from_query)
        };
        match &kept.plan {
            Plan::Optimized(plan) => over(plan).map(Plan::Optimized),
            Plan::Planned(plan) => with_params(over(plan)?, context.params).map(Plan::Planned),
        }
        .map(Some)
    }

    /// Keeps a plan that is good for others too. `planned` is what it was made from.
    pub(crate) fn keep(
        &self,
        key: PlanKey,
        planned: &LogicalPlan,
        plan: Plan,
        system_columns: Vec<SystemColumn>,
    ) {
        let Some(tables) = tables_of(planned) else { return };
        let plan = match plan {
            Plan::Optimized(plan) => without_rows(plan).map(Plan::Optimized),
            Plan::Planned(plan) => without_rows(plan).map(Plan::Planned),
        };
        if let Ok(plan) = plan {
            self.kept().put(key, Arc::new(KeptPlan { plan, tables, system_columns }));
        }
    }
}

/// A plan with its parameters' values.
pub(crate) fn with_params(plan: LogicalPlan, params: &[Json]) -> Result<LogicalPlan> {
    if params.is_empty() {
        return Ok(plan);
    }
    plan.with_param_values(scalars(params)).map_err(|error| {
        let problem = error.strip_backtrace();
        let named = problem.rsplit_once('$').map(|(_, number)| number);
        let digits = named.map(|text| text.chars().take_while(char::is_ascii_digit).collect::<String>());
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) => {
                Error::Parameter { number, problem: format!("the request has {} parameters", params.len()) }
            }
            None => Error::Parameter { number: 0, problem },
        }
    })
}

/// The tables a plan reads; none where it depends on more than those.
fn tables_of(plan: &LogicalPlan) -> Option<Vec<(TableId, SchemaVersion)>> {
    let mut tables = Vec::new();
    let mut depends = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            match provider.downcast_ref::<StoredTable>() {
                Some(table) if table.info().stream().is_none() => {
                    tables.push((table.info().id(), table.info().version()));
                }
                _ => depends = true,
            }
        }
        node.apply_expressions(|expression| {
            depends |= expression.exists(|part| Ok(is_changing(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    });
    (walked.is_ok() && !depends).then_some(tables)
}

/// Whether a function's value is another one for another session, or at another time.
fn is_changing(expression: &Expr) -> bool {
    match expression {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarVariable(..) => true,
        _ => false,
    }
}

/// A table of which a kept plan knows the columns alone: no session, no rows, no engine.
#[derive(Debug)]
struct Columns {
    table: TableId,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Columns {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn QuerySession,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        internal_err!("a kept plan is put over tables before it is run")
    }
}

/// The same plan without the tables of the session it was made for.
fn without_rows(plan: LogicalPlan) -> QueryResult<LogicalPlan> {
    over(plan, |provider| {
        let table = provider.downcast_ref::<StoredTable>()?;
        Some(Arc::new(Columns { table: table.info().id(), schema: provider.schema() }))
    })
}

/// The same plan over other tables.
fn over(
    plan: LogicalPlan,
    other: impl Fn(&dyn TableProvider) -> Option<Arc<dyn TableProvider>>,
) -> QueryResult<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = other(provider.as_ref()) else {
            return internal_err!("a kept plan reads a table of another kind");
        };
        scan.source = provider_as_source(table);
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    });
    Ok(replaced?.data)
}
