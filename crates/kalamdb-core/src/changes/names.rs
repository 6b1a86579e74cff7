//! Names for what events only number: tables and columns.
//!
//! They are learned from the catalog's events in the log itself: those that pass by, the engine's catalog where there is
//! one, and at last the log before, read once. What retention has deleted stays without names.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use kalamdb_log::{LogDirectory, LogReader};
use log_format::{
    ArchivedChangeEvent, ChangeEvent, DataType, KeyReader, Operation, PartitionHash, RowReader,
    SchemaVersion, Seq, Table, TableId, TableSchema,
};

use crate::catalog::Catalog;
use crate::changes::json::{write_cell, write_value};
use crate::error::Result;

/// What is known of tables and their columns.
#[derive(Debug)]
pub struct ChangeNames {
    tables: HashMap<TableId, TableNames>,
    catalog: Option<Arc<Catalog>>,
    log: Option<LogDirectory>,
    is_loaded: bool,
}

/// What is known of one table.
#[derive(Debug, Default)]
pub(super) struct TableNames {
    pub(super) namespace: String,
    pub(super) name: String,
    full_name: Option<String>,
    schemas: Vec<SchemaNames>,
}

/// The columns of one version of a table.
#[derive(Debug)]
pub(super) struct SchemaNames {
    version: SchemaVersion,
    columns: Vec<ColumnName>,
    /// Positions of the key's columns.
    key: Vec<usize>,
}

#[derive(Debug)]
struct ColumnName {
    /// The name as JSON, and a colon.
    label: Vec<u8>,
    data_type: DataType,
}

impl ChangeNames {
    /// Knows nothing yet; what does not pass by is looked for in the log in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { tables: HashMap::new(), catalog: None, log: Some(dir.into()), is_loaded: false }
    }

    /// Asks the engine's catalog first, and the log, if one is given, for tables that were dropped since.
    pub(crate) fn of_engine(catalog: &Arc<Catalog>, log: Option<&LogDirectory>) -> Self {
        Self {
            tables: HashMap::new(),
            catalog: Some(Arc::clone(catalog)),
            log: log.cloned(),
            is_loaded: false,
        }
    }

    /// Learns from an event that passes by, if it is one of the catalog's.
    ///
    /// # Errors
    /// An archive that cannot be turned back into an event.
    pub fn note(&mut self, archived: &ArchivedChangeEvent) -> Result<()> {
        if archived.operation() == Operation::Catalog {
            self.learn(&archived.to_event()?);
        }
        Ok(())
    }

    fn learn(&mut self, event: &ChangeEvent) {
        match event {
            ChangeEvent::TableCreated(table) | ChangeEvent::TableAltered(table) => self.learn_table(table),
            // The names of a dropped table stay known: its rows are still in the log.
            ChangeEvent::TableDropped(table) => {
                let known = self.tables.entry(table.table).or_default();
                if known.full_name.is_none() {
                    known.rename(table.namespace.as_str(), &table.name);
                }
            }
            ChangeEvent::SchemaVersionAdded(schema) => self.learn_schema(schema),
            _ => {}
        }
    }

    fn learn_table(&mut self, table: &Table) {
        self.tables.entry(table.id).or_default().rename(table.namespace.as_str(), &table.name);
    }

    fn learn_schema(&mut self, schema: &TableSchema) {
        let known = self.tables.entry(schema.table).or_default();
        if known.schema(schema.version).is_none() {
            known.schemas.push(SchemaNames::new(schema));
        }
    }

    /// `namespace.table`; none where the log does not tell. `seq` is that of the event which names the table.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn table(&mut self, table: TableId, seq: Seq) -> Result<Option<&str>> {
        Ok(self.find(table, None, seq)?.and_then(|known| known.full_name.as_deref()))
    }

    /// What is known of a table, and of this version of it, once everything has been asked.
    pub(super) fn find(
        &mut self,
        table: TableId,
        version: Option<SchemaVersion>,
        seq: Seq,
    ) -> Result<Option<&TableNames>> {
        if !self.knows(table, version) {
            self.ask_catalog(table);
            if !self.knows(table, version) {
                self.load(seq)?;
            }
        }
        Ok(self.tables.get(&table))
    }

    fn knows(&self, table: TableId, version: Option<SchemaVersion>) -> bool {
        self.tables.get(&table).is_some_and(|known| {
            known.full_name.is_some() && version.is_none_or(|version| known.schema(version).is_some())
        })
    }

    fn ask_catalog(&mut self, table: TableId) {
        if let Some(info) = self.catalog.as_ref().and_then(|catalog| catalog.by_id(table)) {
            self.learn_table(info.record());
            info.versions().iter().for_each(|schema| self.learn_schema(schema));
        }
    }

    /// Reads the catalog's part of the log from its beginning to `upto`.
    fn load(&mut self, upto: Seq) -> Result<()> {
        let Some(dir) = self.log.as_ref().filter(|_| !self.is_loaded) else { return Ok(()) };
        let mut before = Self { tables: HashMap::new(), catalog: None, log: None, is_loaded: true };
        let mut reader = LogReader::open(dir);
        reader.only([PartitionHash::CATALOG]);
        reader.over_holes();
        while let Some(frame) = reader.next()? {
            for (_, archived) in frame.events() {
                before.note(archived?)?;
            }
            if frame.last_seq() >= upto {
                break;
            }
        }
        self.is_loaded = true;
        for (table, names) in before.tables {
            self.tables.entry(table).or_default().add_older(names);
        }
        Ok(())
    }
}

impl TableNames {
    fn rename(&mut self, namespace: &str, name: &str) {
        namespace.clone_into(&mut self.namespace);
        name.clone_into(&mut self.name);
        self.full_name = Some(format!("{namespace}.{name}"));
    }

    /// Takes in what an earlier part of the log says.
    fn add_older(&mut self, older: Self) {
        if self.full_name.is_none() {
            (self.namespace, self.name, self.full_name) = (older.namespace, older.name, older.full_name);
        }
        for schema in older.schemas {
            if self.schema(schema.version).is_none() {
                self.schemas.push(schema);
            }
        }
    }

    pub(super) fn schema(&self, version: SchemaVersion) -> Option<&SchemaNames> {
        // The newest was added last, and is asked for the most.
        self.schemas.iter().rev().find(|schema| schema.version == version)
    }
}

impl SchemaNames {
    fn new(schema: &TableSchema) -> Self {
        let columns = schema.columns.iter().map(|column| {
            let mut label = Vec::with_capacity(column.name.len() + 3);
            write_value(&mut label, &column.name);
            label.push(b':');
            ColumnName { label, data_type: column.data_type }
        });
        let position = |id| schema.columns.iter().position(|column| column.id == id);
        Self {
            version: schema.version,
            columns: columns.collect(),
            key: schema.primary_key.iter().filter_map(|id| position(*id)).collect(),
        }
    }

    /// The key's columns as a JSON object.
    pub(super) fn write_key(&self, out: &mut Vec<u8>, key: &[u8]) -> Result<()> {
        let mut reader = KeyReader::new(key);
        let mut scratch = Vec::new();
        out.push(b'{');
        for (index, column) in self.key.iter().filter_map(|at| self.columns.get(*at)).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.label);
            scratch.clear();
            let value = reader.next(column.data_type)?;
            write_cell(out, &value.as_cell(&mut scratch), column.data_type.decimal_scale());
        }
        out.push(b'}');
        Ok(())
    }
}

/// A row as a JSON object; columns that nothing tells the name of are numbered.
pub(super) fn write_row(out: &mut Vec<u8>, row: RowReader<'_>, schema: Option<&SchemaNames>) -> Result<()> {
    out.push(b'{');
    for (index, cell) in row.cells().enumerate() {
        let cell = cell?;
        if index > 0 {
            out.push(b',');
        }
        match schema.and_then(|schema| schema.columns.get(index)) {
            Some(column) => {
                out.extend_from_slice(&column.label);
                write_cell(out, &cell, column.data_type.decimal_scale());
            }
            None => {
                out.extend_from_slice(format!("\"column_{}\":", index + 1).as_bytes());
                write_cell(out, &cell, 0);
            }
        }
    }
    out.push(b'}');
    Ok(())
}
