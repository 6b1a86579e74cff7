//! `system.changes`: the events of the log as rows of a table that nothing stores.
//!
//! It looks like a stream of one partition, so what is known of reading tables and of live queries holds for it: an event
//! becomes a row's bytes when it is read, and goes the way of any other row from there. Its table id is 0, which no table
//! can have: a table's id is the seq of the event that created it. Who may read it is checked where its name is resolved.

use std::sync::Arc;

use kalamdb_log::LogDirectory;
use log_format::{
    ArchivedChangeEvent, CellRef, Column, ColumnId, DataType, Error as FormatError, Frame, NamespaceId,
    Partition, RowBuilder, SchemaVersion, Seq, StreamOptions, StreamScope, Table, TableId, TableKind,
    TableSchema, UserId,
};

use crate::catalog::Catalog;
use crate::changes::{ChangeNames, ChangeRecord};
use crate::error::Result;
use crate::table::TableInfo;

/// The id of `system.changes`.
pub(crate) const CHANGES: TableId = TableId::new(0);
/// Its name in the namespace `system`.
pub(crate) const CHANGES_NAME: &str = "changes";

const COLUMNS: [(&str, DataType); 12] = [
    ("seq", DataType::BigInt),
    ("commit_time", DataType::DateTime),
    ("namespace_id", DataType::Text),
    ("table_name", DataType::Text),
    ("user_id", DataType::Text),
    ("op", DataType::Text),
    ("event", DataType::Text),
    ("schema_version", DataType::BigInt),
    ("key", DataType::Json),
    ("before", DataType::Json),
    ("after", DataType::Json),
    ("details", DataType::Json),
];

/// Instead of a row that would be too long.
const OMITTED: &[u8] = br#"{"omitted":"before and after take more than a row may"}"#;

/// Where all of its rows are.
pub(crate) const fn changes_partition() -> Partition {
    Partition::shared(CHANGES)
}

/// The table, as statements see it.
pub(crate) fn changes_table() -> Result<TableInfo> {
    let column = |(number, (name, data_type)): (u32, &(&str, DataType))| Column {
        id: ColumnId::new(number),
        name: (*name).to_owned(),
        data_type: *data_type,
        nullable: number > 2,
        default: None,
    };
    let options = StreamOptions { scope: StreamScope::All, ttl_ms: None, max_buffer: None, ephemeral: false };
    let table = Table {
        id: CHANGES,
        namespace: NamespaceId::new("system"),
        name: CHANGES_NAME.to_owned(),
        kind: TableKind::Stream(options),
        current_version: SchemaVersion::FIRST,
        location_path: None,
        location_reference: None,
        flush_policy: None,
        deleted_retention_ms: None,
        created_at: 0,
        updated_at: 0,
    };
    let schema = TableSchema {
        table: CHANGES,
        version: SchemaVersion::FIRST,
        columns: (1_u32..).zip(&COLUMNS).map(column).collect(),
        primary_key: Vec::new(),
        change: "CREATE".to_owned(),
        created_at: 0,
        created_by: UserId::new(""),
    };
    TableInfo::new(table, vec![schema])
}

/// An event's seq, and its row.
pub(crate) type ChangeRow = (Seq, Vec<u8>);

/// Makes rows of events.
#[derive(Debug)]
pub(crate) struct ChangeRows {
    names: ChangeNames,
    record: ChangeRecord,
    names_are_complete: bool,
}

impl ChangeRows {
    /// Asks the catalog for names, and the log, if it may be read, for those of tables that were dropped since.
    pub(crate) fn new(catalog: &Arc<Catalog>, log: Option<&LogDirectory>) -> Self {
        let names = ChangeNames::of_engine(catalog, log);
        Self { names, record: ChangeRecord::default(), names_are_complete: log.is_some() }
    }

    /// The rows of a commit's events after a seq, with their seqs. None where a name is missing that the log may tell.
    pub(crate) fn of_commit(&mut self, commit: &Frame, after: Seq) -> Result<Option<Vec<ChangeRow>>> {
        self.of_commit_seen(commit, after, |_| true)
    }

    /// As [`ChangeRows::of_commit`], of those events only that `sees` lets through.
    pub(crate) fn of_commit_seen(
        &mut self,
        commit: &Frame,
        after: Seq,
        sees: impl Fn(&ArchivedChangeEvent) -> bool,
    ) -> Result<Option<Vec<ChangeRow>>> {
        let mut rows = Vec::with_capacity(commit.count());
        for (seq, event) in commit.events() {
            let event = event?;
            if seq <= after || !sees(event) {
                self.names.note(event)?;
                continue;
            }
            match self.of_event(commit, seq, event)? {
                Some(row) => rows.push((seq, row)),
                None => return Ok(None),
            }
        }
        Ok(Some(rows))
    }

    fn of_event(&mut self, commit: &Frame, seq: Seq, event: &ArchivedChangeEvent) -> Result<Option<Vec<u8>>> {
        self.names.note(event)?;
        let record = &mut self.record;
        record.fill(seq, &commit.header().fields, event, &mut self.names)?;
        if !record.is_named && !self.names_are_complete {
            return Ok(None);
        }
        let row = match encode(record) {
            Err(FormatError::TooLarge { .. }) => {
                record.before.clear();
                record.after.clear();
                record.key.clear();
                record.details = OMITTED.to_vec();
                encode(record)
            }
            row => row,
        };
        Ok(row.map(Some)?)
    }
}

fn encode(record: &ChangeRecord) -> log_format::Result<Vec<u8>> {
    let mut row = RowBuilder::new(SchemaVersion::FIRST);
    row.push_cell(&CellRef::BigInt(i64::try_from(record.seq.get()).unwrap_or(i64::MAX)));
    row.push_cell(&CellRef::DateTime(record.commit_time));
    for text in [&record.namespace, &record.table, &record.user] {
        row.push_cell(&if text.is_empty() { CellRef::Null } else { CellRef::Text(text) });
    }
    row.push_cell(&CellRef::Text(record.operation.as_str()));
    row.push_cell(&CellRef::Text(&record.event));
    let version = i64::from(record.schema_version);
    row.push_cell(&if version == 0 { CellRef::Null } else { CellRef::BigInt(version) });
    for json in [&record.key, &record.before, &record.after, &record.details] {
        // What is not UTF-8 was not written by this program.
        let json = std::str::from_utf8(json).unwrap_or_default();
        row.push_cell(&if json.is_empty() { CellRef::Null } else { CellRef::Json(json) });
    }
    row.finish()
}
