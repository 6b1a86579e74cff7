//! Tables as `DataFusion` sees them, for one session and one cut.
//!
//! The session is in the provider: whatever SQL a user writes, the only rows of a USER table it can reach are those whose
//! keys begin with that user.

mod access;
mod changes;
mod keyed;
mod merged;
mod ordering;
mod pruning;
mod reversed;
mod scan;
mod stored;
mod system;
mod tiers;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::{FunctionRegistry, SessionState};
use log_format::{NamespaceId, Seq};

use crate::engine::Engine;
use crate::error::Result;
use crate::functions::session_functions;
use crate::provider::changes::ChangesFunction;
pub(crate) use crate::provider::ordering::KeyOrder;
pub(crate) use crate::provider::stored::StoredTable;
use crate::session::Session;
use crate::sql::require_read;
use crate::table::{SystemColumn, TableInfo};
use crate::view::View;

/// The one catalog all namespaces are in.
pub(crate) const CATALOG: &str = "kalamdb";
const SYSTEM_NAMESPACE: &str = "system";

/// What one statement reads: whose rows, as of when, with which system columns.
#[derive(Clone)]
pub(crate) struct Scope {
    engine: Engine,
    session: Session,
    view: View,
    system_columns: Vec<SystemColumn>,
    /// Whether tombstones are rows too.
    with_deleted: bool,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("session", &self.session)
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

impl Scope {
    /// A statement that names these system columns; it sees deleted rows if it names `_deleted`.
    pub(crate) fn new(
        engine: &Engine,
        session: &Session,
        view: View,
        system_columns: Vec<SystemColumn>,
    ) -> Self {
        let with_deleted = system_columns.contains(&SystemColumn::Deleted);
        Self { engine: engine.clone(), session: session.clone(), view, system_columns, with_deleted }
    }

    /// A live query: all system columns are there, deleted rows are not.
    pub(crate) fn for_live_query(
        engine: &Engine,
        session: &Session,
        system_columns: Vec<SystemColumn>,
    ) -> Result<Self> {
        let view = View::of_cut(Arc::new(engine.store().cut()?));
        Ok(Self { with_deleted: false, ..Self::new(engine, session, view, system_columns) })
    }

    pub(crate) const fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn cut_seq(&self) -> Seq {
        self.view.seq()
    }
}

/// What `DataFusion` plans and runs a statement of this session with.
pub(crate) fn session_state(engine: &Engine, session: &Session, scope: Scope) -> SessionState {
    // Not built anew: that would register every function once more.
    let mut state = engine.session_state().clone();
    state.config_mut().options_mut().catalog.default_schema = session.namespace().to_string();
    let scope = Arc::new(scope);
    state.register_catalog_list(Arc::new(Catalogs {
        catalog: Arc::new(Namespaces { scope: Arc::clone(&scope) }),
    }));
    for function in session_functions(session, engine.snowflakes()) {
        // Registering can only fail for a registry that takes none.
        drop(state.register_udf(function));
    }
    state.register_udtf(ChangesFunction::NAME, Arc::new(ChangesFunction::new(scope)));
    // `now()` is one instant for the whole statement.
    state.mark_start_execution();
    state
}

#[derive(Debug)]
struct Catalogs {
    catalog: Arc<Namespaces>,
}

impl CatalogProviderList for Catalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::clone(&self.catalog) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct Namespaces {
    scope: Arc<Scope>,
}

impl CatalogProvider for Namespaces {
    fn schema_names(&self) -> Vec<String> {
        let own = self.scope.engine.catalog().namespaces();
        own.iter().map(ToString::to_string).chain([SYSTEM_NAMESPACE.to_owned()]).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == SYSTEM_NAMESPACE {
            return Some(Arc::new(system::SystemNamespace { scope: Arc::clone(&self.scope) }));
        }
        // A namespace that is not there is one without tables: looking one up then says what is missing.
        Some(Arc::new(Namespace { scope: Arc::clone(&self.scope), id: NamespaceId::new(name) }))
    }
}

#[derive(Debug)]
struct Namespace {
    scope: Arc<Scope>,
    id: NamespaceId,
}

impl Namespace {
    fn is_function(&self, name: &str) -> bool {
        let built_in = self.scope.engine.session_state().table_functions();
        name == ChangesFunction::NAME || built_in.contains_key(name)
    }
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        // What the session may not read is not listed either: `information_schema` looks up every name that is.
        let readable = |info: &Arc<TableInfo>| require_read(&self.scope.session, info).is_ok();
        let catalog = self.scope.engine.catalog();
        if catalog.restored_by(&self.id).is_some() {
            return Vec::new();
        }
        let tables = catalog.tables_in(&self.id);
        tables.iter().filter(|info| readable(info)).map(|info| info.record().name.clone()).collect()
    }

    async fn table(&self, name: &str) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        let external = |error: crate::error::Error| DataFusionError::External(Box::new(error));
        let info = match self.scope.engine.catalog().table(&self.id, name) {
            // The planner asks for every name that stands where a table may, functions' too.
            Err(_) if self.is_function(name) => return Ok(None),
            found => found.map_err(external)?,
        };
        require_read(&self.scope.session, &info).map_err(external)?;
        Ok(Some(Arc::new(StoredTable::new(Arc::clone(&self.scope), info))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.scope.engine.catalog().find(&self.id, name).is_some()
    }
}
