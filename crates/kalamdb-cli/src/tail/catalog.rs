//! Names for what rows only number: tables and columns, learned from the catalog's events in the log itself.
//!
//! Events that pass by are noted. The log before them is read when the first row of an unknown table or schema version
//! comes up, once. What retention has deleted stays without names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kalamdb_core::format::{
    ArchivedChangeEvent, ChangeEvent, Operation, SchemaVersion, Seq, Table, TableId, TableSchema,
};
use kalamdb_core::log::LogReader;

/// What is known of tables and their columns.
#[derive(Debug)]
pub(crate) struct Catalog {
    dir: PathBuf,
    tables: HashMap<TableId, String>,
    schemas: HashMap<(TableId, SchemaVersion), TableSchema>,
    is_loaded: bool,
}

impl Catalog {
    /// Knows nothing yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), tables: HashMap::new(), schemas: HashMap::new(), is_loaded: false }
    }

    /// Learns from an event that passes by, if it is one of the catalog's.
    pub(crate) fn note(&mut self, archived: &ArchivedChangeEvent) -> anyhow::Result<()> {
        if archived.operation() == Operation::Catalog {
            self.learn(archived.to_event()?);
        }
        Ok(())
    }

    fn learn(&mut self, event: ChangeEvent) {
        match event {
            ChangeEvent::TableCreated(table) | ChangeEvent::TableAltered(table) => {
                self.tables.insert(table.id, full_name(&table));
            }
            // The names of a dropped table stay known: its rows are still in the log.
            ChangeEvent::TableDropped(table) => {
                self.tables
                    .entry(table.table)
                    .or_insert_with(|| format!("{}.{}", table.namespace, table.name));
            }
            ChangeEvent::SchemaVersionAdded(schema) => {
                self.schemas.insert((schema.table, schema.version), *schema);
            }
            _ => {}
        }
    }

    /// `namespace.table`; none where the log does not tell. `seq` is that of the event which names the table.
    pub(crate) fn table(&mut self, table: TableId, seq: Seq) -> anyhow::Result<Option<&str>> {
        if !self.tables.contains_key(&table) {
            self.load(seq)?;
        }
        Ok(self.tables.get(&table).map(String::as_str))
    }

    /// The columns of one version of a table; none where the log does not tell.
    pub(crate) fn schema(
        &mut self,
        table: TableId,
        version: SchemaVersion,
        seq: Seq,
    ) -> anyhow::Result<Option<&TableSchema>> {
        if !self.schemas.contains_key(&(table, version)) {
            self.load(seq)?;
        }
        Ok(self.schemas.get(&(table, version)))
    }

    /// The newest columns of a table that are known.
    pub(crate) fn newest_schema(&self, table: TableId) -> Option<&TableSchema> {
        let of_table = self.schemas.values().filter(|schema| schema.table == table);
        of_table.max_by_key(|schema| schema.version)
    }

    /// Reads the log from its beginning to `upto`.
    fn load(&mut self, upto: Seq) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.is_loaded, true) {
            return Ok(());
        }
        let mut before = Self { is_loaded: true, ..Self::new(&self.dir) };
        let mut reader = LogReader::open(&self.dir);
        while let Some(frame) = reader.next()? {
            for (_, archived) in frame.events() {
                before.note(archived?)?;
            }
            if frame.last_seq() >= upto {
                break;
            }
        }
        // What was noted since is newer.
        before.tables.extend(std::mem::take(&mut self.tables));
        before.schemas.extend(std::mem::take(&mut self.schemas));
        *self = before;
        Ok(())
    }
}

/// `namespace.table`.
pub(crate) fn full_name(table: &Table) -> String {
    format!("{}.{}", table.namespace, table.name)
}
