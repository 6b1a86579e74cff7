//! Flush policies: when rows go to the cold tier by themselves.
//!
//! One thread reads the feed and counts what has been written to each partition of a table with a policy since it was last
//! flushed, and since when. What is due is flushed by a job. Being late here costs memory, never a wrong answer. Where the hot
//! tier has a limit of its own, the tables that have most of it are flushed once it is passed.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kalamdb_store::{KeyRange, Store};
use log_format::Seq;
use log_format::{
    ArchivedChangeEvent as Event, ArchivedPartition, FlushPolicy, Frame, Partition, TableId, UserId,
};

use crate::accounts;
use crate::catalog::Catalog;
use crate::clock;
use crate::commit::Projections;
use crate::error::{Error, Result};
use crate::jobs::{OWNERS_MAX, flush_table_job};
use crate::live::{Feed, FeedAfter};
use crate::requests::Commits;
use crate::streams::Stop;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(50);
/// How long a job that was asked for has, until another is.
const PATIENCE_MICROS: i64 = 60_000_000;

/// The same of a job that flushes a whole table for the size of the hot tier.
const ROOM_PATIENCE_MICROS: i64 = 10_000_000;
/// How often the size of the hot tier is looked at, in ticks.
const TICKS_PER_LOOK: u32 = 20;

/// What is flushed of tables that say nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushOptions {
    /// The policy of tables without one of their own; none: their rows stay hot.
    pub policy: Option<FlushPolicy>,
    /// Bytes of rows that the hot tier may have of all USER and SHARED tables; none: any.
    pub hot_bytes_max: Option<u64>,
}

/// What the keeper works on.
pub(crate) struct FlushKeeper {
    options: FlushOptions,
    feed: Arc<Feed>,
    catalog: Arc<Catalog>,
    store: Arc<Store>,
    commits: Commits,
    stop: Arc<Stop>,
}

/// What has been written to a partition since it was flushed.
#[derive(Clone, Copy, Debug)]
struct Written {
    /// Rows at the most: the same one may have been written several times.
    rows: u64,
    tombstones: u64,
    /// When the first of it was committed, microseconds since 1970.
    since: i64,
    asked_at: Option<i64>,
}

#[derive(Debug, Default)]
struct Kept {
    policies: HashMap<TableId, FlushPolicy>,
    written: HashMap<Partition, Written>,
    /// When a whole table was asked to be flushed for the size of the hot tier.
    asked_whole: HashMap<TableId, i64>,
    ticks: u32,
}

impl FlushKeeper {
    /// One who keeps the policies of these projections' tables.
    pub(crate) fn new(on: &Projections, options: FlushOptions, commits: Commits, stop: Arc<Stop>) -> Self {
        let (feed, catalog, store) = (Arc::clone(&on.feed), Arc::clone(&on.catalog), Arc::clone(&on.store));
        Self { options, feed, catalog, store, commits, stop }
    }

    /// Keeps until told to stop.
    pub(crate) fn run(self) {
        let mut position = self.feed.published();
        let mut kept = Kept::default();
        let mut counted = self.take_policies(&mut kept);
        while !self.stop.waited(TICK) {
            let kept_up = counted.and_then(|()| self.read_along(&mut position, &mut kept));
            counted = Ok(());
            let asked = kept_up.and_then(|()| self.ask(&mut kept)).and_then(|()| self.make_room(&mut kept));
            if let Err(error) = asked {
                // The engine is closing or read-only: rows stay where they are.
                tracing::debug!(%error, "nothing was flushed by policy");
            }
        }
    }

    /// Takes over which tables have a policy, and counts what they have.
    fn take_policies(&self, kept: &mut Kept) -> Result<()> {
        *kept = Kept { asked_whole: std::mem::take(&mut kept.asked_whole), ..Kept::default() };
        for namespace in self.catalog.namespaces() {
            for info in self.catalog.tables_in(&namespace) {
                self.take_policy(info.id(), kept)?;
            }
        }
        Ok(())
    }

    /// Takes over whether a table has a policy now, and counts what it has if it had none before.
    fn take_policy(&self, table: TableId, kept: &mut Kept) -> Result<()> {
        let info = self.catalog.by_id(table).filter(|info| info.stream().is_none());
        let policy =
            info.and_then(|info| info.record().flush_policy.clone().or_else(|| self.options.policy.clone()));
        match policy {
            Some(policy) => match kept.policies.insert(table, policy) {
                Some(_) => Ok(()),
                None => self.count(table, &mut kept.written),
            },
            None => {
                if kept.policies.remove(&table).is_some() {
                    kept.written.retain(|partition, _| partition.table != table);
                }
                Ok(())
            }
        }
    }

    /// Counts what the hot tier has of a table.
    fn count(&self, table: TableId, written: &mut HashMap<Partition, Written>) -> Result<()> {
        let Some(info) = self.catalog.by_id(table) else { return Ok(()) };
        let cut = self.store.cut()?;
        for partition in cut.hot_partitions(info.keyspace(), table)? {
            let mut found = Written { rows: 0, tombstones: 0, since: i64::MAX, asked_at: None };
            cut.scan_hot(info.keyspace(), &partition, &KeyRange::default(), |_, row| {
                found.add(row.updated, row.deleted);
                ControlFlow::Continue(())
            })?;
            written.insert(partition, found);
        }
        Ok(())
    }

    /// Takes over what was written since.
    fn read_along(&self, position: &mut Seq, kept: &mut Kept) -> Result<()> {
        let frames = match self.feed.after(*position) {
            FeedAfter::Frames(frames) => frames,
            FeedAfter::Closed => return Ok(()),
            FeedAfter::TooFarBack => {
                // More was written in a tick than the feed holds: count what is there.
                *position = self.feed.published();
                return self.take_policies(kept);
            }
        };
        for frame in frames {
            self.read(&frame, kept)?;
            *position = frame.last_seq();
        }
        Ok(())
    }

    fn read(&self, frame: &Frame, kept: &mut Kept) -> Result<()> {
        for (_, event) in frame.events() {
            let (partition, deletes) = match event? {
                Event::RowInserted(event) => (&event.partition, false),
                Event::RowUpdated(event) => (&event.partition, false),
                Event::RowDeleted(event) => (&event.partition, true),
                Event::Flushed(event) => {
                    self.forget(&event.partition, frame, kept)?;
                    continue;
                }
                Event::TableTruncated(event) => {
                    let table = event.table.to_id();
                    kept.written.retain(|partition, _| partition.table != table);
                    continue;
                }
                Event::TableCreated(table) | Event::TableAltered(table) => {
                    self.take_policy(table.id.to_id(), kept)?;
                    continue;
                }
                Event::TableDropped(event) => {
                    self.take_policy(event.table.to_id(), kept)?;
                    continue;
                }
                _ => continue,
            };
            if kept.policies.contains_key(&partition.table.to_id()) {
                let none = Written { rows: 0, tombstones: 0, since: i64::MAX, asked_at: None };
                let written = kept.written.entry(partition.to_partition()).or_insert(none);
                written.add(frame.header().fields.commit_time, deletes);
            }
        }
        Ok(())
    }

    /// A partition was flushed: what is left was written meanwhile.
    fn forget(&self, partition: &ArchivedPartition, frame: &Frame, kept: &mut Kept) -> Result<()> {
        let partition = partition.to_partition();
        let rows = self.hot_rows(&partition)?;
        if rows == 0 {
            kept.written.remove(&partition);
        } else if let Some(written) = kept.written.get_mut(&partition) {
            *written =
                Written { rows, tombstones: 0, since: frame.header().fields.commit_time, asked_at: None };
        }
        Ok(())
    }

    fn hot_rows(&self, partition: &Partition) -> Result<u64> {
        let counts = self.store.counts(partition)?;
        Ok(counts.rows.saturating_sub(counts.cold_rows))
    }

    /// Asks for jobs that flush what is due.
    fn ask(&self, kept: &mut Kept) -> Result<()> {
        let now = clock::now_micros();
        let mut due: BTreeMap<TableId, Vec<Option<UserId>>> = BTreeMap::new();
        for (partition, written) in &mut kept.written {
            let Some(policy) = kept.policies.get(&partition.table) else { continue };
            if written.asked_at.is_none_or(|at| now - at > PATIENCE_MICROS)
                && self.is_due(policy, partition, written, now)?
            {
                written.asked_at = Some(now);
                due.entry(partition.table).or_default().push(partition.user.clone());
            }
        }
        for (table, owners) in due {
            let owners = (owners.len() <= OWNERS_MAX)
                .then(|| owners.into_iter().collect::<Option<Vec<_>>>())
                .flatten();
            self.flush(table, owners)?;
        }
        Ok(())
    }

    fn flush(&self, table: TableId, owners: Option<Vec<UserId>>) -> Result<()> {
        self.commits.catalog_blocking(move |planning| {
            let info = planning.catalog.by_id(table).ok_or(Error::TableDropped)?;
            let user = UserId::new(accounts::ROOT);
            Ok(vec![flush_table_job(planning, info.record(), owners.as_deref(), &user)])
        })?;
        Ok(())
    }

    /// Flushes the tables that have most of the hot tier, where that is too much, down to half of what it may have.
    fn make_room(&self, kept: &mut Kept) -> Result<()> {
        kept.ticks = kept.ticks.wrapping_add(1);
        let Some(most) = self.options.hot_bytes_max.filter(|_| kept.ticks.is_multiple_of(TICKS_PER_LOOK))
        else {
            return Ok(());
        };
        let mut tables = Vec::new();
        for namespace in self.catalog.namespaces() {
            for info in self.catalog.tables_in(&namespace).iter().filter(|info| info.stream().is_none()) {
                let counts = self.store.table_counts(info.id())?;
                tables.push((counts.bytes.saturating_sub(counts.cold_bytes), info.id()));
            }
        }
        let mut hot: u64 = tables.iter().map(|(bytes, _)| bytes).sum();
        metrics::gauge!("kalamdb_hot_bytes").set(kibibytes(hot) * 1024.0);
        if hot <= most {
            return Ok(());
        }
        tables.sort_unstable_by(|left, right| right.cmp(left));
        let now = clock::now_micros();
        for (bytes, table) in tables {
            if hot <= most / 2 {
                break;
            }
            hot -= bytes;
            if kept.asked_whole.get(&table).is_none_or(|at| now - at > ROOM_PATIENCE_MICROS) {
                kept.asked_whole.insert(table, now);
                tracing::info!(%table, bytes, "the hot tier has more than it may: a table is flushed");
                self.flush(table, None)?;
            }
        }
        Ok(())
    }

    fn is_due(
        &self,
        policy: &FlushPolicy,
        partition: &Partition,
        written: &mut Written,
        now: i64,
    ) -> Result<bool> {
        let interval = policy.interval_ms.and_then(|interval| i64::try_from(interval).ok());
        if interval.is_some_and(|interval| now.saturating_sub(written.since) >= interval.saturating_mul(1000))
        {
            return Ok(true);
        }
        let Some(rows) = policy.rows.filter(|rows| written.rows >= *rows) else { return Ok(false) };
        // Each row counts once, however often it was written.
        written.rows = self.hot_rows(partition)? + written.tombstones;
        Ok(written.rows >= rows)
    }
}

fn kibibytes(bytes: u64) -> f64 {
    u32::try_from(bytes >> 10).map_or(f64::MAX, f64::from)
}

impl Written {
    fn add(&mut self, commit_time: i64, deletes: bool) {
        self.rows += 1;
        self.tombstones += u64::from(deletes);
        self.since = self.since.min(commit_time);
    }
}
