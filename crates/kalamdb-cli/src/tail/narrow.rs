//! Which partitions a tail with filters needs, so that it leaves out segments whose footers say that they have none of
//! them.
//!
//! A footer tells partitions by hash. A table's name becomes its id, and with it a partition, once the event that created it
//! has been seen; that event's segment is never left out, and stands before every row of the table.

use std::path::Path;

use kalamdb_core::format::{
    ArchivedChangeEvent, ChangeEvent, Partition, PartitionHash, Seq, StreamScope, Table, TableKind, UserId,
};
use kalamdb_core::log::LogReader;

/// The partitions that the filters leave, as far as tables are known.
#[derive(Debug)]
pub(super) struct Narrow {
    table: Option<String>,
    owner: Option<String>,
    wanted: Vec<PartitionHash>,
    /// Whether every table so far has partitions that can be told.
    is_exact: bool,
}

impl Narrow {
    /// None where the filters leave partitions of everybody.
    pub(super) fn new(table: Option<&str>, owner: Option<&str>) -> Option<Self> {
        (table.is_some() || owner.is_some()).then(|| Self {
            table: table.map(str::to_owned),
            owner: owner.map(str::to_owned),
            wanted: vec![PartitionHash::CATALOG],
            is_exact: true,
        })
    }

    /// Learns what tables there are from the segments that have events of the catalog.
    pub(super) fn learn(&mut self, log: &Path) -> anyhow::Result<()> {
        let mut reader = LogReader::open(log);
        reader.only([PartitionHash::CATALOG]);
        reader.over_holes();
        // What retention let go of may have created tables.
        self.is_exact &= reader.floor()? <= Seq::new(1);
        while let Some(frame) = reader.next()? {
            for (_, event) in frame.events() {
                self.note(event?)?;
            }
        }
        Ok(())
    }

    /// Takes over a table that an event creates; tells whether there was one that is wanted.
    pub(super) fn note(&mut self, event: &ArchivedChangeEvent) -> anyhow::Result<bool> {
        if !matches!(event, ArchivedChangeEvent::TableCreated(_)) {
            return Ok(false);
        }
        let ChangeEvent::TableCreated(table) = event.to_event()? else { return Ok(false) };
        Ok(self.add(&table))
    }

    fn add(&mut self, table: &Table) -> bool {
        let name = format!("{}.{}", table.namespace, table.name);
        let is_wanted = |wanted: &String| *wanted == name || *wanted == table.id.to_string();
        if !self.table.as_ref().is_none_or(is_wanted) {
            return false;
        }
        let is_shared = match &table.kind {
            TableKind::Shared(_) => true,
            TableKind::Stream(options) => options.scope == StreamScope::All,
            TableKind::User => false,
        };
        match (&self.owner, is_shared) {
            (None, true) => self.wanted.push(PartitionHash::of(&Partition::shared(table.id))),
            (Some(owner), false) => {
                let partition = Partition::of_user(table.id, UserId::new(owner.clone()));
                self.wanted.push(PartitionHash::of(&partition));
            }
            // Rows of a shared table have no owner.
            (Some(_), true) => {}
            (None, false) => self.is_exact = false,
        }
        true
    }

    /// Has a reader leave out what cannot hold anything wanted.
    pub(super) fn apply(&self, reader: &mut LogReader) {
        if self.is_exact {
            reader.only(self.wanted.iter().copied());
        } else {
            reader.everything();
        }
    }
}
