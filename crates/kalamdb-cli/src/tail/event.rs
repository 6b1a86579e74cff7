//! An event with everything that is shown of it: names instead of numbers, cells instead of bytes.

use kalamdb_core::format::{
    ArchivedChangeEvent, ChangeEvent, DataType, Frame, KeyReader, Operation, Partition, RowReader, Seq,
    TableSchema, Value,
};
use serde_json::Value as Json;

use super::catalog::{Catalog, full_name};
use super::details::details;

/// A named value and its scale, if it is a decimal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) scale: u8,
}

/// A row's cells, with the schema version that wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) schema_version: u32,
    pub(crate) cells: Vec<Cell>,
}

/// An event, ready to be written in either format.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) seq: Seq,
    pub(crate) commit_time: i64,
    pub(crate) operation: Operation,
    /// The name of its type.
    pub(crate) name: &'static str,
    /// `namespace.table`, or the table's id.
    pub(crate) table: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) key: Vec<Cell>,
    pub(crate) row: Option<Row>,
    pub(crate) old: Option<Row>,
    /// What else there is to say, by name.
    pub(crate) details: Vec<(&'static str, Json)>,
}

impl Shown {
    pub(crate) fn new(
        seq: Seq,
        frame: &Frame,
        archived: &ArchivedChangeEvent,
        catalog: &mut Catalog,
    ) -> anyhow::Result<Self> {
        let event = archived.to_event()?;
        let fields = &frame.header().fields;
        let mut shown = Self {
            seq,
            commit_time: fields.commit_time,
            operation: archived.operation(),
            name: archived.name(),
            table: None,
            user: None,
            key: Vec::new(),
            row: None,
            old: None,
            details: details(&event, fields.epoch),
        };
        if let Some(partition) = event.partition() {
            shown.place(partition, catalog)?;
            shown.rows(&event, partition, catalog)?;
        } else {
            shown.subject(&event, catalog)?;
        }
        Ok(shown)
    }

    fn place(&mut self, partition: &Partition, catalog: &mut Catalog) -> anyhow::Result<()> {
        let name = catalog.table(partition.table, self.seq)?;
        self.table = Some(name.map_or_else(|| partition.table.to_string(), str::to_owned));
        self.user = partition.user.as_ref().map(|user| user.as_str().to_owned());
        Ok(())
    }

    fn rows(
        &mut self,
        event: &ChangeEvent,
        partition: &Partition,
        catalog: &mut Catalog,
    ) -> anyhow::Result<()> {
        let (key, row, old) = match event {
            ChangeEvent::RowInserted(event) => (Some(&event.key), Some(&event.row), None),
            ChangeEvent::RowUpdated(event) => (Some(&event.key), Some(&event.new), Some(&event.old)),
            ChangeEvent::RowDeleted(event) => (Some(&event.key), None, Some(&event.old)),
            ChangeEvent::StreamAppended(event) => (None, Some(&event.row), None),
            _ => (None, None, None),
        };
        let mut decode = |bytes: Option<&Vec<u8>>| {
            bytes.map(|bytes| decode_row(bytes, partition, self.seq, catalog)).transpose()
        };
        self.row = decode(row)?;
        self.old = decode(old)?;
        if let Some(key) = key {
            self.key = decode_key(key, catalog.newest_schema(partition.table));
        }
        Ok(())
    }

    /// Which table or user a catalog event is about.
    fn subject(&mut self, event: &ChangeEvent, catalog: &mut Catalog) -> anyhow::Result<()> {
        match event {
            ChangeEvent::TableCreated(table) | ChangeEvent::TableAltered(table) => {
                self.table = Some(full_name(table));
            }
            ChangeEvent::TableDropped(table) => {
                self.table = Some(format!("{}.{}", table.namespace, table.name));
            }
            ChangeEvent::SchemaVersionAdded(schema) => {
                let name = catalog.table(schema.table, self.seq)?;
                self.table = Some(name.map_or_else(|| schema.table.to_string(), str::to_owned));
            }
            ChangeEvent::UserCreated(user) | ChangeEvent::UserAltered(user) => {
                self.user = Some(user.id.as_str().to_owned());
            }
            ChangeEvent::UserDropped(user) => self.user = Some(user.as_str().to_owned()),
            _ => {}
        }
        Ok(())
    }
}

fn decode_row(bytes: &[u8], partition: &Partition, seq: Seq, catalog: &mut Catalog) -> anyhow::Result<Row> {
    let row = RowReader::new(bytes)?;
    let schema = catalog.schema(partition.table, row.version(), seq)?;
    let mut columns = schema.map(|schema| schema.columns.iter()).into_iter().flatten();
    let cell = |(index, value): (usize, Value)| {
        let column = columns.next();
        Cell {
            name: column.map_or_else(|| format!("column_{}", index + 1), |column| column.name.clone()),
            value,
            scale: column.map_or(0, |column| scale(column.data_type)),
        }
    };
    let cells = row.values()?.into_iter().enumerate().map(cell).collect();
    Ok(Row { schema_version: row.version().get(), cells })
}

/// The key's columns; none where the table's types are not known, for a key does not tell them.
fn decode_key(bytes: &[u8], schema: Option<&TableSchema>) -> Vec<Cell> {
    let Some(schema) = schema else { return Vec::new() };
    let mut reader = KeyReader::new(bytes);
    let columns =
        schema.primary_key.iter().filter_map(|id| schema.columns.iter().find(|column| column.id == *id));
    columns
        .map_while(|column| {
            let value = reader.next(column.data_type).ok()?;
            Some(Cell { name: column.name.clone(), value, scale: scale(column.data_type) })
        })
        .collect()
}

const fn scale(data_type: DataType) -> u8 {
    match data_type {
        DataType::Decimal { scale, .. } => scale,
        _ => 0,
    }
}
