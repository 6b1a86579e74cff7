//! The catalog in memory: what every statement looks up first.
//!
//! A projection of the log like the stored one, kept by the sequencer as it applies commits, so that a lookup never
//! touches disk. Users are not in it: there may be many, and they are looked up rarely.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kalamdb_sql::SystemTables;
use log_format::{ChangeEvent, Namespace, NamespaceId, Table, TableId, TableSchema};

use crate::changes::{CHANGES, changes_table};
use crate::error::{Error, Result};
use crate::table::TableInfo;

/// The option of a namespace that names the job which restores it. No statement can set it: what those name is upper case.
pub(crate) const RESTORING: &str = "restoring";

#[derive(Debug, Default)]
struct Names {
    namespaces: BTreeSet<NamespaceId>,
    /// Those that are being restored, and by which jobs.
    restoring: BTreeMap<NamespaceId, String>,
    ids: BTreeMap<NamespaceId, BTreeMap<String, TableId>>,
    tables: HashMap<TableId, Arc<TableInfo>>,
}

/// Namespaces and tables, by name and by id.
#[derive(Debug)]
pub(crate) struct Catalog {
    // Read by every statement, written by the sequencer alone; held for lookups only.
    names: RwLock<Names>,
    changes: Arc<TableInfo>,
}

impl Catalog {
    /// Reads everything from the stored catalog.
    pub(crate) fn load(stored: &SystemTables) -> Result<Self> {
        let catalog = Self { names: RwLock::default(), changes: Arc::new(changes_table()?) };
        let mut schemas: HashMap<TableId, Vec<TableSchema>> = HashMap::new();
        for schema in stored.scan_all_table_schemas()? {
            schemas.entry(schema.table).or_default().push(schema);
        }
        let mut names = catalog.write();
        for namespace in stored.scan_all_namespaces()? {
            names.put_namespace(&namespace);
        }
        for table in stored.scan_all_tables()? {
            let versions = schemas.remove(&table.id).unwrap_or_default();
            names.put(table, versions)?;
        }
        drop(names);
        Ok(catalog)
    }

    /// One without namespaces and tables.
    pub(crate) fn empty() -> Result<Self> {
        Ok(Self { names: RwLock::default(), changes: Arc::new(changes_table()?) })
    }

    fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the events of one commit change.
    pub(crate) fn apply(&self, events: &[ChangeEvent]) -> Result<()> {
        let mut names = self.write();
        for event in events {
            match event {
                ChangeEvent::NamespaceCreated(namespace) | ChangeEvent::NamespaceAltered(namespace) => {
                    names.put_namespace(namespace);
                }
                ChangeEvent::NamespaceDropped(id) => {
                    names.namespaces.remove(id.as_ref());
                    names.restoring.remove(id.as_ref());
                }
                ChangeEvent::TableCreated(table) => {
                    // The first schema version is in the same commit, wherever it stands.
                    let versions = events.iter().filter_map(|event| match event {
                        ChangeEvent::SchemaVersionAdded(schema) if schema.table == table.id => {
                            Some(schema.as_ref().clone())
                        }
                        _ => None,
                    });
                    names.put(table.as_ref().clone(), versions.collect())?;
                }
                ChangeEvent::TableAltered(table) => {
                    let mut versions = names
                        .tables
                        .get(&table.id)
                        .map(|known| known.versions().to_vec())
                        .unwrap_or_default();
                    versions.extend(events.iter().filter_map(|event| match event {
                        ChangeEvent::SchemaVersionAdded(schema) if schema.table == table.id => {
                            Some(schema.as_ref().clone())
                        }
                        _ => None,
                    }));
                    names.put(table.as_ref().clone(), versions)?;
                }
                ChangeEvent::TableDropped(dropped) => {
                    names.tables.remove(&dropped.table);
                    if let Some(ids) = names.ids.get_mut(&dropped.namespace) {
                        ids.remove(&dropped.name);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The table that shows the log, `system.changes`.
    pub(crate) const fn changes(&self) -> &Arc<TableInfo> {
        &self.changes
    }

    /// Whether a namespace of this name is there.
    pub(crate) fn has_namespace(&self, id: &NamespaceId) -> bool {
        self.read().namespaces.contains(id)
    }

    /// The job that restores a namespace, where one does: its tables are not to be used before it is done.
    pub(crate) fn restored_by(&self, id: &NamespaceId) -> Option<String> {
        self.read().restoring.get(id).cloned()
    }

    /// Refuses a namespace that is not there, or not yet.
    pub(crate) fn require_namespace(&self, id: &NamespaceId) -> Result<()> {
        if let Some(job) = self.restored_by(id) {
            return Err(Error::Restoring { namespace: id.to_string(), job });
        }
        let names = self.read();
        if names.namespaces.contains(id) {
            return Ok(());
        }
        let nearest = nearest_name(id.as_str(), names.namespaces.iter().map(NamespaceId::as_str));
        Err(Error::NamespaceNotFound { name: id.to_string(), nearest })
    }

    /// The names of all namespaces.
    pub(crate) fn namespaces(&self) -> Vec<NamespaceId> {
        self.read().namespaces.iter().cloned().collect()
    }

    /// The names of the tables that use a storage location, in order.
    pub(crate) fn tables_at(&self, location: &str) -> Vec<String> {
        let names = self.read();
        let uses = |info: &&Arc<TableInfo>| info.record().location_reference.as_deref() == Some(location);
        let mut found: Vec<String> =
            names.tables.values().filter(uses).map(|info| info.full_name()).collect();
        found.sort_unstable();
        found
    }

    /// The tables of a namespace, by name.
    pub(crate) fn tables_in(&self, namespace: &NamespaceId) -> Vec<Arc<TableInfo>> {
        let names = self.read();
        let ids = names.ids.get(namespace);
        ids.into_iter().flat_map(BTreeMap::values).filter_map(|id| names.tables.get(id).cloned()).collect()
    }

    /// The table with this id.
    pub(crate) fn by_id(&self, id: TableId) -> Option<Arc<TableInfo>> {
        self.read().tables.get(&id).cloned()
    }

    /// Whether the table is there and was not altered since this was looked up.
    pub(crate) fn is_newest(&self, info: &Arc<TableInfo>) -> bool {
        let newest =
            if info.id() == CHANGES { Some(Arc::clone(&self.changes)) } else { self.by_id(info.id()) };
        newest.is_some_and(|newest| Arc::ptr_eq(&newest, info))
    }

    /// The table of this name, if there is one.
    pub(crate) fn find(&self, namespace: &NamespaceId, name: &str) -> Option<Arc<TableInfo>> {
        self.read().find(namespace, name)
    }

    /// The same, unless its namespace is being restored.
    fn find_usable(&self, namespace: &NamespaceId, name: &str) -> Option<Arc<TableInfo>> {
        let names = self.read();
        if names.restoring.contains_key(namespace) { None } else { names.find(namespace, name) }
    }

    /// The table of this name, or why not.
    pub(crate) fn table(&self, namespace: &NamespaceId, name: &str) -> Result<Arc<TableInfo>> {
        if let Some(found) = self.find_usable(namespace, name) {
            return Ok(found);
        }
        self.require_namespace(namespace)?;
        let nearest = {
            let names = self.read();
            let tables = names.ids.get(namespace).into_iter().flat_map(BTreeMap::keys);
            nearest_name(name, tables.map(String::as_str))
        };
        Err(Error::TableNotFound {
            name: format!("{namespace}.{name}"),
            nearest: nearest.map(|near| format!("{namespace}.{near}")),
        })
    }
}

impl Names {
    fn find(&self, namespace: &NamespaceId, name: &str) -> Option<Arc<TableInfo>> {
        self.ids.get(namespace)?.get(name).and_then(|id| self.tables.get(id)).cloned()
    }

    fn put_namespace(&mut self, namespace: &Namespace) {
        self.namespaces.insert(namespace.id.clone());
        match namespace.options.iter().find(|(name, _)| name == RESTORING) {
            Some((_, job)) => drop(self.restoring.insert(namespace.id.clone(), job.clone())),
            None => drop(self.restoring.remove(&namespace.id)),
        }
    }

    fn put(&mut self, table: Table, versions: Vec<TableSchema>) -> Result<()> {
        self.ids.entry(table.namespace.clone()).or_default().insert(table.name.clone(), table.id);
        self.tables.insert(table.id, Arc::new(TableInfo::new(table, versions)?));
        Ok(())
    }
}

/// The candidate most like `name`, if one is like it at all.
pub fn nearest_name<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let close_enough = name.len() / 3 + 1;
    candidates
        .map(|candidate| {
            (datafusion::common::utils::datafusion_strsim::levenshtein(name, candidate), candidate)
        })
        .filter(|(distance, _)| *distance <= close_enough)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
