//! The one writer of a log: stage commits, write them as a group, sync.
//!
//! Nothing here is decided by a clock of its own; the sequencer calls `stage` for each request of a group, `write` once, and
//! `sync` when the durability asks for it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log_format::{
    ChangeEvent, DatabaseId, EncodedEvent, EpochStarted, Frame, FrameEncoder, FrameFields, FrameHeader,
    PartitionHash, Seq,
};

use crate::active::{ActiveSegment, Ahead};
use crate::clock::Stopwatch;
use crate::disk::LogDirectory;
use crate::error::{At, Error, Result};
use crate::index::LogIndex;
use crate::lock::DirectoryLock;
use crate::marker::CleanMarker;
use crate::options::{Durability, LogOptions};
use crate::poison::Poison;
use crate::recovery::{self, Found, FoundSegment, Recovery};
use crate::summary::Summary;
use crate::write_behind::{Paused, WriteBehind};

/// How much room is reserved at once where nobody waits for syncs.
const RESERVE_BYTES: u64 = 8 << 20;

/// Appends to a log. See the module for the order of calls.
#[derive(Debug)]
pub struct LogWriter {
    dir: LogDirectory,
    options: LogOptions,
    database: DatabaseId,
    active: ActiveSegment,
    encoder: FrameEncoder,
    /// The partitions of the events in the encoder.
    touched: Vec<PartitionHash>,
    /// What the active segment's footer will say.
    summary: Summary,
    index: Arc<LogIndex>,
    /// The offset in the active segment from which on the index wants another entry.
    note_at: u64,
    poison: Poison,
    /// Why the last group was refused, while there is no space.
    full: Option<Arc<Error>>,
    /// Where no sync is asked for, so that none comes to much.
    write_behind: Option<WriteBehind>,
    /// What the next staged frame follows.
    staged: Tip,
    /// What the next frame would follow if nothing were staged.
    written: Tip,
    /// The last written seq.
    end: Seq,
    /// The last seq known to be durable.
    durable: Seq,
    /// When [`LogWriter::sync_if_due`] last synced or found nothing to sync.
    synced_at: Option<Instant>,
    /// Held for as long as the writer lives.
    _lock: DirectoryLock,
}

/// Where a chain of frames stands.
#[derive(Clone, Copy, Debug)]
struct Tip {
    /// The epoch of the next frame.
    epoch: u32,
    /// The seq the next event gets.
    next_seq: Seq,
    /// The checksum of the last frame.
    crc: u32,
    /// The commit time of the last frame.
    commit_time: i64,
}

/// Where a log that is opened may begin to write: more seqs are left behind it than are ever written.
const SEQ_MAX: Seq = Seq::new(i64::MAX.cast_unsigned() - (1 << 48));

impl LogWriter {
    /// Opens the log in `dir`, made if missing, and begins a new epoch in it, durably.
    ///
    /// Seqs go on without a gap after a clean shutdown. Otherwise somebody may have seen seqs that the disk never had,
    /// so they skip ahead by [`LogOptions::seq_gap`]; the epoch's event says from where.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Rot`], [`Error::Lost`], [`Error::Exhausted`] and what can be wrong with segments' heads; nothing is
    /// changed then. [`Error::Full`] and [`Error::Io`] where the disk does not take the epoch's event.
    pub fn open(
        dir: impl Into<LogDirectory>,
        options: &LogOptions,
        now_micros: i64,
    ) -> Result<(Self, Recovery)> {
        let (dir, stopwatch) = (&dir.into(), Stopwatch::start());
        dir.disk().create_dir_all(dir.path()).at("create", dir.path())?;
        let lock = DirectoryLock::take(dir)?;
        let index = Arc::new(LogIndex::new());
        let mut found = recovery::examine(dir, &index)?;
        let tip = beginning(&found, options)?;
        let database = found.database.map_or_else(random_database, Ok)?;
        CleanMarker::remove(dir)?;
        let (ahead, epoch, next_seq) = (ahead(options), tip.epoch, tip.next_seq);
        let is_behind = options.durability == Durability::Os && options.write_behind;
        let write_behind = is_behind.then(WriteBehind::start).transpose();
        let write_behind = write_behind.at("start a thread for", dir.path())?;
        let (active, summary) = match prepare(dir, &mut found)? {
            Some(FoundSegment { segment, unsure_from, end, summary }) => {
                (ActiveSegment::reopen(dir, segment, unsure_from, end, ahead)?, summary)
            }
            None => (ActiveSegment::create(dir, database, epoch, next_seq, ahead)?, Summary::new(next_seq)),
        };
        let mut writer = Self {
            dir: dir.clone(),
            options: *options,
            database,
            active,
            encoder: FrameEncoder::new(),
            touched: Vec::new(),
            summary,
            index,
            note_at: 0,
            poison: Poison::default(),
            write_behind,
            full: None,
            staged: tip,
            written: tip,
            end: found.end,
            // What was found may still be in the operating system's memory only; the sync below settles it.
            durable: Seq::ZERO,
            synced_at: None,
            _lock: lock,
        };
        writer.begin_epoch(found.end, now_micros)?;
        let recovery = Recovery {
            end: writer.end,
            previous_end: found.end,
            epoch,
            gap: !found.clean || options.skips_always,
            frames: found.frames,
            bytes: found.bytes,
            cut: found.cut,
            elapsed: stopwatch.elapsed(),
        };
        report(dir.path(), &recovery);
        Ok((writer, recovery))
    }

    fn begin_epoch(&mut self, previous_end: Seq, now_micros: i64) -> Result<()> {
        self.stage(&[epoch_started(previous_end).encode()?], now_micros)?;
        self.write()?;
        self.sync()?;
        Ok(())
    }

    /// Adds to the group what begins a new epoch with seqs behind `past`: for who knows of seqs beyond the log's end that were given
    /// out. Tells the head of the frame that has them.
    ///
    /// # Errors
    /// [`Error::Exhausted`] where hardly any seqs are left behind `past`, and as [`LogWriter::stage`].
    pub fn stage_epoch(&mut self, past: Seq, commit_time: i64) -> Result<FrameHeader> {
        self.epoch_behind(past)?;
        // IMPORTANT: two epochs. The frame of the first leaves out nothing, and stands in front of the gap whatever segment the group
        // goes to: a segment has the name of its first seq, and may be there already. So one seq in front of the gap is used.
        let before = self.staged;
        self.staged = Tip { epoch: before.epoch.saturating_add(1), ..before };
        let first = epoch_started(before.next_seq.previous()).encode()?;
        self.stage(&[first], commit_time).inspect_err(|_| self.staged = before)?;
        let event = epoch_started(self.staged.next_seq.previous()).encode()?;
        self.staged = self.epoch_behind(past)?;
        self.stage(&[event], commit_time)
    }

    fn epoch_behind(&self, past: Seq) -> Result<Tip> {
        let next_seq = past.next().max(self.staged.next_seq);
        let exhausted = || Error::Exhausted { end: past, epoch: self.staged.epoch };
        let epoch = self.staged.epoch.checked_add(2).filter(|_| next_seq <= SEQ_MAX).ok_or_else(exhausted)?;
        Ok(Tip { epoch: epoch.saturating_sub(1), next_seq, ..self.staged })
    }

    /// Adds a commit to the group: gives its events their seqs. `commit_time` is raised to the last one's if it is
    /// before it.
    ///
    /// # Errors
    /// [`Error::Encode`] where the events do not fit into a frame; the group is then as before. [`Error::Full`] since a
    /// group was refused, until [`LogWriter::try_recover`] succeeds.
    pub fn stage(&mut self, events: &[EncodedEvent], commit_time: i64) -> Result<FrameHeader> {
        self.check()?;
        let fields = FrameFields {
            first_seq: self.staged.next_seq,
            epoch: self.staged.epoch,
            previous_crc: self.staged.crc,
            commit_time: commit_time.max(self.staged.commit_time),
            durable_seq: self.durable,
        };
        let header = self.encoder.push(&fields, events)?;
        self.touched.extend(events.iter().map(EncodedEvent::partition));
        let (next_seq, crc) = (header.last_seq().next(), header.crc);
        self.staged = Tip { epoch: fields.epoch, next_seq, crc, commit_time: fields.commit_time };
        Ok(header)
    }

    /// Refuses while nothing can be written.
    fn check(&self) -> Result<()> {
        self.poison.check()?;
        self.full.as_ref().map_or(Ok(()), |cause| Err(Error::Full { cause: Arc::clone(cause) }))
    }

    /// Writes the group, in one write, and gives its frames. They share one buffer.
    ///
    /// # Errors
    /// [`Error::Full`] where there is no space: nothing of the group was written and nobody can have read any of it, so
    /// it is forgotten, its seqs go to the next one, and what was written before can be synced. [`Error::Poisoned`]
    /// after any other failure, for good.
    pub fn write(&mut self) -> Result<Vec<Frame>> {
        self.check()?;
        if self.encoder.is_empty() {
            return Ok(Vec::new());
        }
        if let Err(error) = self.make_room() {
            drop(self.encoder.take());
            self.touched.clear();
            self.staged = self.written;
            return Err(self.refused(error));
        }
        let written = self.write_group();
        self.poison.guard(written)
    }

    /// What becomes of the writer where room could not be made.
    fn refused(&mut self, error: Error) -> Error {
        if !error.is_no_space() {
            return self.poison.keep(error);
        }
        if self.full.is_none() {
            tracing::error!(%error, "the log waits for space");
        }
        let cause = Arc::new(error);
        self.full = Some(Arc::clone(&cause));
        Error::Full { cause }
    }

    /// Goes on after [`Error::Full`] if there is space again; fine where nothing is wrong. Nothing that was acknowledged
    /// was lost, and no seq is skipped.
    ///
    /// # Errors
    /// [`Error::Full`] while there is no space, [`Error::Poisoned`] where something else fails.
    pub fn try_recover(&mut self) -> Result<()> {
        self.poison.check()?;
        if self.full.is_none() {
            return Ok(());
        }
        let tried = if self.active.is_sealed() {
            self.begin_segment(self.staged.next_seq, self.staged.epoch)
        } else {
            self.active.probe_room()
        };
        tried.map_err(|error| self.refused(error))?;
        self.full = None;
        tracing::info!("there is space again for the log");
        Ok(())
    }

    /// Whether the log waits for space; see [`LogWriter::try_recover`].
    pub const fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Makes sure that the group can be written, in the active segment or a new one.
    fn make_room(&mut self) -> Result<()> {
        let bytes = self.encoder.as_bytes().len() as u64;
        let is_over = self.active.has_frames() && self.active.end() + bytes > self.options.segment_bytes;
        if is_over || self.active.is_sealed() {
            if !self.active.is_sealed() {
                let _paused = pause(self.write_behind.as_ref(), self.active.path())?;
                let footer = self.summary.footer().map(|footer| footer.encode()).transpose()?;
                self.active.seal(&footer.unwrap_or_default())?;
                self.durable = self.end;
            }
            let FrameFields { first_seq, epoch, .. } = FrameHeader::parse(self.encoder.as_bytes())?.fields;
            self.begin_segment(first_seq, epoch)?;
        }
        self.active.make_room(bytes)
    }

    fn write_group(&mut self) -> Result<Vec<Frame>> {
        let mut offset = self.active.end();
        self.active.append(self.encoder.as_bytes())?;
        if let Some(write_behind) = &mut self.write_behind {
            write_behind.written(self.active.file(), self.active.end());
        }
        self.written = self.staged;
        let frames = self.encoder.take_frames();
        for frame in &frames {
            if offset >= self.note_at {
                self.note_at = self.index.note(self.active.base(), frame.first_seq(), offset);
            }
            offset += u64::from(frame.header().length);
            self.summary.add(frame.header());
            self.end = frame.last_seq();
        }
        self.touched.drain(..).for_each(|partition| self.summary.touch(partition));
        Ok(frames)
    }

    /// Begins the segment behind the active one, which is sealed.
    fn begin_segment(&mut self, base: Seq, epoch: u32) -> Result<()> {
        self.active = ActiveSegment::create(&self.dir, self.database, epoch, base, ahead(&self.options))?;
        if let Some(write_behind) = &mut self.write_behind {
            write_behind.begin_segment();
        }
        self.note_at = 0;
        self.summary = Summary::new(base);
        tracing::debug!(base_seq = %base, "began a segment");
        Ok(())
    }

    /// Makes everything written durable; gives the last durable seq.
    pub fn sync(&mut self) -> Result<Seq> {
        self.poison.check()?;
        if self.durable < self.end {
            let synced =
                pause(self.write_behind.as_ref(), self.active.path()).and_then(|_paused| self.active.sync());
            self.poison.guard(synced)?;
            self.durable = self.end;
        }
        Ok(self.durable)
    }

    /// Syncs if the durability asks for it by now; gives the last durable seq.
    pub fn sync_if_due(&mut self, now: Instant) -> Result<Seq> {
        self.poison.check()?;
        if self.sync_due_in(now) == Some(Duration::ZERO) {
            self.synced_at = Some(now);
            return self.sync();
        }
        if self.durable == self.end {
            self.synced_at = Some(now);
        }
        Ok(self.durable)
    }

    /// How long what is written may wait for its sync; none if nothing waits or nobody asks for one.
    pub fn sync_due_in(&self, now: Instant) -> Option<Duration> {
        if self.durable == self.end {
            return None;
        }
        match self.options.durability {
            Durability::Always => Some(Duration::ZERO),
            Durability::Interval(interval) => {
                let waited = self.synced_at.map_or(interval, |then| now.saturating_duration_since(then));
                Some(interval.saturating_sub(waited))
            }
            Durability::Os => None,
        }
    }

    /// Writes and syncs what is left and notes that nothing beyond was handed out, so that the next writer goes on
    /// without a gap. A group that waits for space is given up.
    pub fn close(mut self) -> Result<()> {
        if !self.is_full() {
            self.write()?;
        }
        let paused = pause(self.write_behind.as_ref(), self.active.path());
        let sealed = paused.and_then(|_paused| self.active.seal(&[]));
        self.poison.guard(sealed)?;
        CleanMarker { end: self.end, crc: self.written.crc }.write(&self.dir)
    }

    /// The last written seq.
    pub const fn end(&self) -> Seq {
        self.end
    }

    /// The last seq known to be durable.
    pub const fn durable(&self) -> Seq {
        self.durable
    }

    /// The seq the next staged event gets.
    pub const fn next_seq(&self) -> Seq {
        self.staged.next_seq
    }

    /// The writer's epoch.
    pub const fn epoch(&self) -> u32 {
        self.written.epoch
    }

    /// The database this is the log of.
    pub const fn database(&self) -> DatabaseId {
        self.database
    }

    /// The commit time of the last staged frame, microseconds since 1970.
    pub const fn last_commit_time(&self) -> i64 {
        self.staged.commit_time
    }

    /// When a write counts as done.
    pub const fn durability(&self) -> Durability {
        self.options.durability
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The index the writer fills, for readers of this process.
    pub fn index(&self) -> Arc<LogIndex> {
        Arc::clone(&self.index)
    }
}

/// Takes over what became of the syncs behind the writer's back, and lets none begin while the guard lives.
fn pause<'w>(behind: Option<&'w WriteBehind>, path: &Path) -> Result<Option<Paused<'w>>> {
    behind.map(WriteBehind::pause).transpose().at("sync", path)
}

fn epoch_started(previous_end: Seq) -> ChangeEvent {
    ChangeEvent::EpochStarted(Box::new(EpochStarted { previous_end: previous_end.get() }))
}

/// Where the epoch begins, and what its first frame follows.
fn beginning(found: &Found, options: &LogOptions) -> Result<Tip> {
    let skips = !found.clean || options.skips_always;
    let next_seq = if skips { found.end.next().plus(options.seq_gap) } else { found.end.next() };
    let exhausted = || Error::Exhausted { end: found.end, epoch: found.epoch };
    let epoch = found.epoch.checked_add(1).filter(|_| next_seq <= SEQ_MAX).ok_or_else(exhausted)?;
    let crc = found.last.map_or(0, |last| last.crc);
    let commit_time = found.last.map_or(i64::MIN, |last| last.fields.commit_time);
    Ok(Tip { epoch, next_seq, crc, commit_time })
}

/// Room ahead costs a sync less where somebody waits for it.
fn ahead(options: &LogOptions) -> Ahead {
    let is_unsynced = options.durability == Durability::Os;
    let (zeros, reserve) = if is_unsynced { (0, RESERVE_BYTES) } else { (options.preallocate_bytes, 0) };
    Ahead { segment_bytes: options.segment_bytes, zeros, reserve }
}

/// Removes segments without frames and gives the segment to go on with, if there is one.
///
/// IMPORTANT: where a segment is removed, the one before it is not written to again, for a reader may have left it.
fn prepare(dir: &LogDirectory, found: &mut Found) -> Result<Option<FoundSegment>> {
    if found.keep
        && let Some(cut) = &mut found.cut
    {
        recovery::keep_tail(dir, cut)?;
    }
    if found.empty.is_empty() {
        return Ok(found.active.take());
    }
    for segment in &found.empty {
        dir.remove(&segment.path)?;
    }
    tracing::info!(dir = %dir.path().display(), count = found.empty.len(), "removed segments without frames");
    dir.sync()?;
    Ok(None)
}

fn random_database() -> Result<DatabaseId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|source| Error::Random { source })?;
    Ok(DatabaseId::new(bytes))
}

fn report(dir: &Path, recovery: &Recovery) {
    let Recovery { end, previous_end, epoch, gap, frames, bytes, cut, elapsed } = recovery;
    let dir = dir.display();
    if let Some(cut) = cut {
        let (segment, kept) = (cut.segment.display(), cut.kept.as_ref().map(|path| path.display()));
        tracing::warn!(%dir, %segment, offset = cut.offset, bytes = cut.bytes, ?kept, "cut off a torn tail");
    }
    tracing::info!(%dir, %end, %previous_end, epoch, gap, frames, bytes, ?elapsed, "opened the log");
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
