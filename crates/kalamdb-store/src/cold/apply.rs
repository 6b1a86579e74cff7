//! Applying a flush: the file's entry comes, rows of older files and of the hot tier go. Applying a compaction: entries go and
//! one comes.
//!
//! What goes follows from the event and from what the store holds at that point of the log, so a replay ends with the same.
//!
//! IMPORTANT: the hot rows are looked for in the database, not in the batch: a commit that flushes is the first of its batch.

use log_format::{
    ArchivedChangeEvent as Event, ArchivedCompacted, ArchivedFlushed, ColdFile, Frame, LiveRows, Record,
    RowReader, Seq,
};

use super::manifest::{
    Look, Now, State, decode_positions, encode_positions, file_key, state, state_key, superseded_key,
};
use crate::batch::Batch;
use crate::counts::Delta;
use crate::error::{Error, Result};
use crate::keyspace::{Keyspace, StoredRow, partition_prefix, prefix_end};

/// Whether a commit changes a manifest: it is then a commit of its own, and begins a batch.
pub(crate) fn changes_files(commit: &Frame) -> bool {
    commit.count() == 1 && matches!(commit.event(0), Ok(Event::Flushed(_) | Event::Compacted(_)))
}

impl Batch<'_> {
    pub(crate) fn apply_flushed(
        &mut self,
        seq: Seq,
        commit_time: i64,
        event: &ArchivedFlushed,
    ) -> Result<()> {
        let unreadable = |source| Error::Event { seq, source };
        let partition = event.partition.to_partition();
        let prefix = partition_prefix(&partition);
        self.shared.cold_tables.insert(partition.table);
        let mut next = state(self.shared, &Now, &prefix)?.unwrap_or(State {
            flushed_at: seq,
            commit_time,
            highest_key: Vec::new(),
        });
        (next.flushed_at, next.commit_time) = (seq, commit_time);
        let family = self.shared.manifests_family()?;
        if let Some(file) = event.file.as_ref() {
            let file: ColdFile = file.to_file().map_err(unreadable)?;
            let entry = file.to_bytes().map_err(unreadable)?;
            self.writes.put_cf(&family, file_key(&prefix, file.id), entry);
            next.highest_key = next.highest_key.max(file.last_key);
        }
        for rows in event.superseded.iter() {
            let key = superseded_key(&prefix, rows.file.to_native());
            let mut all =
                Now.get(self.shared, &key)?.map(|value| decode_positions(&value)).unwrap_or_default();
            all.extend(rows.positions.iter().map(|position| position.to_native()));
            all.sort_unstable();
            all.dedup();
            self.writes.put_cf(&family, key, encode_positions(&all));
        }
        self.writes.put_cf(&family, state_key(&prefix), next.encode());
        let keyspace = if partition.user.is_some() { Keyspace::User } else { Keyspace::Shared };
        let moved = self.remove_hot(keyspace, &prefix, event)?;
        self.counters.add(self.shared, &prefix, moved)
    }

    pub(crate) fn apply_compacted(&mut self, seq: Seq, event: &ArchivedCompacted) -> Result<()> {
        let unreadable = |source| Error::Event { seq, source };
        let prefix = partition_prefix(&event.partition.to_partition());
        let family = self.shared.manifests_family()?;
        for id in event.removed.iter().map(|id| id.to_native()) {
            self.writes.delete_cf(&family, file_key(&prefix, id));
            self.writes.delete_cf(&family, superseded_key(&prefix, id));
        }
        if let Some(file) = event.file.as_ref() {
            let file: ColdFile = file.to_file().map_err(unreadable)?;
            let entry = file.to_bytes().map_err(unreadable)?;
            self.writes.put_cf(&family, file_key(&prefix, file.id), entry);
        }
        // There is one: nothing is compacted that was not flushed before.
        if let Some(state) = state(self.shared, &Now, &prefix)? {
            let next = State { flushed_at: seq, ..state };
            self.writes.put_cf(&family, state_key(&prefix), next.encode());
        }
        Ok(())
    }

    /// Takes the hot rows that went; says what the cold tier has more of.
    fn remove_hot(&mut self, keyspace: Keyspace, prefix: &[u8], event: &ArchivedFlushed) -> Result<Delta> {
        let from = [prefix, event.from_key.as_slice()].concat();
        let until = match event.until_key.as_slice() {
            [] => prefix_end(prefix),
            key => [prefix, key].concat(),
        };
        let (until_seq, version) = (Seq::new(event.until_seq.to_native()), event.schema_version.to_version());
        let family = self.shared.family(keyspace)?;
        // IMPORTANT: the sequencer commits no flush of a partition that was flushed otherwise, or truncated, since its cut. So where
        // no row was written either, what is there is what the flush has seen.
        if let Some(live) = event.live.as_ref()
            && !self.counters.may_be_written_since(prefix, until_seq)
        {
            self.writes.delete_range_cf(&family, &from, &until);
            return Ok(Delta::to_cold(live.to_rows()));
        }
        let (mut moved, mut all_go, mut any) = (LiveRows::default(), true, false);
        let each = |visit: &mut dyn FnMut(&[u8], Option<StoredRow<'_>>)| -> Result<()> {
            let mut range = super::manifest::below(prefix);
            range.set_iterate_lower_bound(from.clone());
            range.set_iterate_upper_bound(until.clone());
            let mut rows = self.shared.database.raw_iterator_cf_opt(&family, range);
            rows.seek(&from);
            while let Some((key, value)) = rows.item() {
                let row = StoredRow::decode(value)?;
                let written = RowReader::new(row.row).map_err(|_| Error::Damaged { what: "row" })?;
                let goes = row.seq <= until_seq && written.version() == version;
                visit(key, goes.then_some(row));
                rows.next();
            }
            rows.status().map_err(|source| Error::Engine { action: "scan rows", source })
        };
        each(&mut |_, going| match going {
            Some(row) => {
                any = true;
                if !row.deleted {
                    moved.add(row.row);
                }
            }
            None => all_go = false,
        })?;
        if all_go && any {
            self.writes.delete_range_cf(&family, &from, &until);
        } else if any {
            // Again, since most often no key has to be kept of all that go.
            let mut gone = Vec::new();
            each(&mut |key, going| gone.extend(going.map(|_| key.to_vec())))?;
            for key in gone {
                self.writes.delete_cf(&family, key);
            }
        }
        Ok(Delta::to_cold(moved))
    }

    /// Where the row that a commit changes came from: whether the hot tier had it. Asked before the change is put.
    pub(crate) fn was_hot(&self, keyspace: Keyspace, full_key: &[u8]) -> Result<bool> {
        if self.put_here.contains(full_key) {
            return Ok(true);
        }
        let found = self.shared.database.get_pinned_cf(&self.shared.family(keyspace)?, full_key);
        Ok(found.map_err(|source| Error::Engine { action: "read a row", source })?.is_some())
    }
}
