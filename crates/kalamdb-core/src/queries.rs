//! Where queries run, and how they end.
//!
//! A query may keep a core for as long as one of its operators does not give way. So it runs on threads of its own: messages,
//! notifications and heartbeats do not wait for it, nor does the answer that it took too long. Once nobody waits for it any
//! more, it ends.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures_util::TryStreamExt;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

use crate::error::{Error, Result, from_query};

/// Bytes of Arrow memory a result may take.
pub(crate) const RESULT_BYTES_MAX: usize = 256 << 20;
/// Bytes of stack of each thread: what the deepest statement that is let through takes.
const STACK_BYTES: usize = 16 << 20;
/// Threads per core: the operating system shares the cores out among queries that do not give way.
const THREADS_PER_CORE: usize = 4;

/// Of 0 to 99; on Linux a niceness of 5: where all cores are busy, such a thread gets a third of what another one gets.
const PRIORITY: u8 = 37;

/// Threads that do nothing but run queries.
#[derive(Debug)]
pub(crate) struct QueryThreads {
    handle: Handle,
    /// None once they are told to end.
    runtime: Option<Runtime>,
}

impl QueryThreads {
    pub(crate) fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.saturating_mul(THREADS_PER_CORE))
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(give_way_to_others)
            .enable_all()
            .build()
            .map_err(|source| Error::File { path: PathBuf::from("query threads"), source })?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Where cores are short, those who write and those who are told of it come first.
fn give_way_to_others() {
    let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    if priority.is_ok_and(|priority| set_current_thread_priority(priority).is_ok()) {
        return;
    }
    tracing::debug!("the threads of queries have the same priority as all others");
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last who has it may be a task, which may not wait.
            runtime.shutdown_background();
        }
    }
}

/// What a plan made with this state runs in. Plans hold the functions that they call: no other is looked up, so none is copied.
pub(crate) fn task_context(state: &SessionState) -> Arc<TaskContext> {
    let (id, config) = (state.session_id().to_owned(), state.config().clone());
    let runtime = Arc::clone(state.runtime_env());
    let (scalar, higher, aggregate, window) = Default::default();
    Arc::new(TaskContext::new(None, id, config, scalar, higher, aggregate, window, runtime))
}

/// Optimises a plan and runs it where its result is asked for.
pub(crate) async fn stream(state: &SessionState, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
    let optimized = state.optimize(plan).map_err(from_query)?;
    let physical = state.query_planner().create_physical_plan(&optimized, state).await.map_err(from_query)?;
    execute_stream(physical, task_context(state)).map_err(from_query)
}

/// Runs a plan on these threads and keeps its whole result. It ends with who waits for it.
pub(crate) async fn collect(
    threads: &Handle,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let wanted = Wanted::default();
    let plan = giving_way(plan, &wanted).map_err(from_query)?;
    let running = threads.spawn(async move {
        let _counted = Counted::new();
        keep_all(execute_stream(plan, context).map_err(from_query)?).await
    });
    let _waiting = Waiting { task: running.abort_handle(), wanted };
    match running.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::ShuttingDown),
        },
    }
}

async fn keep_all(mut stream: SendableRecordBatchStream) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let schema = stream.schema();
    let (mut batches, mut bytes) = (Vec::new(), 0_usize);
    while let Some(batch) = stream.try_next().await.map_err(from_query)? {
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        if bytes > RESULT_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "the result",
                limit: RESULT_BYTES_MAX,
                hint: "add a LIMIT or a narrower WHERE",
            });
        }
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
    }
    Ok((schema, batches))
}

/// A query that runs, whether anybody waits for it or not.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("kalamdb_queries_running").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("kalamdb_queries_running").decrement(1.0);
    }
}

/// Somebody who waits for a query.
struct Waiting {
    task: AbortHandle,
    wanted: Wanted,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.wanted.0.store(false, Ordering::Relaxed);
        self.task.abort();
    }
}

/// Whether anybody still waits for a query.
#[derive(Clone, Debug)]
struct Wanted(Arc<AtomicBool>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

/// The same plan, in which whatever makes many rows of few gives way: a join and UNNEST after each batch, and where a join's
/// condition lets nothing through, with each batch that it looks at.
fn giving_way(plan: Arc<dyn ExecutionPlan>, wanted: &Wanted) -> QueryResult<Arc<dyn ExecutionPlan>> {
    let while_wanted = |filter: &JoinFilter| {
        let condition = WhileWanted { condition: Arc::clone(filter.expression()), wanted: wanted.clone() };
        JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
    };
    let give_way = |plan: Arc<dyn ExecutionPlan>| {
        let multiplies: Arc<dyn ExecutionPlan> = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            match join.filter() {
                Some(filter) => join.builder().with_filter(Some(while_wanted(filter))).build_exec()?,
                None => plan,
            }
        } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let filter = join.filter().map(while_wanted);
            Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?)
        } else if plan.is::<CrossJoinExec>() || plan.is::<SortMergeJoinExec>() || plan.is::<UnnestExec>() {
            plan
        } else {
            return Ok(Transformed::no(plan));
        };
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(multiplies))))
    };
    plan.transform_up(give_way).data()
}

/// A join's condition, which fails once nobody waits for the query any more: what does not give way ends by an error.
#[derive(Debug)]
struct WhileWanted {
    condition: Arc<dyn PhysicalExpr>,
    wanted: Wanted,
}

impl PhysicalExpr for WhileWanted {
    fn evaluate(&self, batch: &RecordBatch) -> QueryResult<ColumnarValue> {
        if !self.wanted.0.load(Ordering::Relaxed) {
            return Err(DataFusionError::Execution("nobody waits for the query any more".to_owned()));
        }
        self.condition.evaluate(batch)
    }

    fn return_field(&self, schema: &Schema) -> QueryResult<FieldRef> {
        self.condition.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> QueryResult<Arc<dyn PhysicalExpr>> {
        let condition = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.condition));
        Ok(Arc::new(Self { condition, wanted: self.wanted.clone() }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}

impl Display for WhileWanted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PartialEq for WhileWanted {
    fn eq(&self, other: &Self) -> bool {
        self.condition.as_ref() == other.condition.as_ref()
    }
}

impl Eq for WhileWanted {}

impl Hash for WhileWanted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}
