//! Reading the log, in the writer's process or in another one, while it is written or afterwards.
//!
//! A reader takes no lock. It may meet a frame that is being written right now: that is "nothing yet", like the end.
//! What it hands out is checked: checksum, offset table, and that each frame follows the one before. It does not know
//! what is durable; whoever needs that compares with the writer.

use std::path::PathBuf;
use std::sync::Arc;

use log_format::{
    ArchivedChangeEvent, Frame, FrameFields, FrameHeader, PartitionHash, SEGMENT_HEADER_BYTES, SegmentFooter,
    Seq,
};

use crate::disk::LogDirectory;
use crate::error::{Error, Flaw, Result};
use crate::index::LogIndex;
use crate::recovery::check_link;
use crate::segment::{SegmentPath, SegmentReader, Step};
use crate::survivors;

/// Where a frame stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: PathBuf,
    /// Where in it the frame begins.
    pub offset: u64,
}

/// Reads frames in order. Begins at the first one retained unless [`LogReader::seek`] says otherwise.
#[derive(Debug)]
pub struct LogReader {
    dir: LogDirectory,
    index: Arc<LogIndex>,
    current: Option<SegmentReader>,
    /// The frame before the next one, if it was read here.
    last: Option<FrameHeader>,
    /// Where `last` begins; none where it was not given to anybody.
    last_at: Option<u64>,
    /// Whether holes that a repair left are passed over.
    over_holes: bool,
    /// Whose segments are read; none for all.
    wanted: Option<Vec<PartitionHash>>,
    /// What [`LogReader::seek`] found and `next` has yet to give.
    pending: Option<Frame>,
    /// The offset in the current segment from which on the index wants another entry.
    note_at: u64,
}

impl LogReader {
    /// A reader of the log in `dir`, which need not exist yet.
    pub fn open(dir: impl Into<LogDirectory>) -> Self {
        Self::with_index(dir, Arc::new(LogIndex::new()))
    }

    /// A reader that shares an index, such as the writer's.
    pub fn with_index(dir: impl Into<LogDirectory>, index: Arc<LogIndex>) -> Self {
        Self {
            dir: dir.into(),
            index,
            current: None,
            last: None,
            last_at: None,
            over_holes: false,
            wanted: None,
            pending: None,
            note_at: 0,
        }
    }

    /// From here on, leaves out segments whose footers say that nothing of these partitions is in them. What is read
    /// still has events of others. Events of the catalog are [`PartitionHash::CATALOG`].
    pub fn only(&mut self, partitions: impl IntoIterator<Item = PartitionHash>) {
        self.wanted = Some(partitions.into_iter().collect());
    }

    /// From here on, leaves out nothing.
    pub fn everything(&mut self) {
        self.wanted = None;
    }

    /// From here on, passes over what a repair gave up instead of failing there with [`Error::BelowFloor`]: for whoever
    /// wants what is left.
    pub const fn over_holes(&mut self) {
        self.over_holes = true;
    }

    /// The next frame; none where there is no other one yet: call again later. Its bytes are a slice of a read of some
    /// 256 KiB, which it keeps alive.
    ///
    /// # Errors
    /// [`Error::Rot`]; [`Error::BelowFloor`] where retention overtook this reader, or a repair gave up what comes next.
    /// The reader stays where it is.
    #[expect(clippy::should_implement_trait, reason = "an iterator that ended and goes on would mislead")]
    pub fn next(&mut self) -> Result<Option<Frame>> {
        if let Some(frame) = self.pending.take() {
            return Ok(Some(frame));
        }
        loop {
            let Some(current) = &mut self.current else {
                let Some(first) = self.dir.segments()?.into_iter().next() else { return Ok(None) };
                if self.enter(&first)? {
                    self.leave_out()?;
                    continue;
                }
                return Ok(None);
            };
            if let Step::Frame(frame) = current.step()? {
                return self.accept(frame).map(Some);
            }
            // The order matters: what was written before the next segment came to be is seen by the second step.
            let unnamed = current.position() == SEGMENT_HEADER_BYTES as u64 && current.is_removed()?;
            let base = current.base();
            let next = self
                .dir
                .segments()?
                .into_iter()
                .find(|segment| segment.base_seq > base || unnamed && segment.base_seq == base);
            match (current.step()?, next) {
                (Step::Frame(frame), _) => return self.accept(frame).map(Some),
                (Step::End | Step::Footer, None) => return Ok(None),
                (Step::Bad(flaw), None) => return self.half_written(flaw),
                (end, Some(next)) => {
                    if !self.go_on(end, &next, unnamed)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Goes from the end of the current segment to the next one, if nothing is missing between them. False where that
    /// one has no head yet.
    fn go_on(&mut self, end: Step, next: &SegmentPath, unnamed: bool) -> Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let at = current.position();
        let flaw = match end {
            Step::Bad(flaw) => Some(Flaw::from(flaw)),
            Step::End if !current.only_zeros_behind()? => Some(Flaw::Behind),
            // A segment is followed by another one only once it holds what its name says.
            _ if at == SEGMENT_HEADER_BYTES as u64 && !unnamed => {
                return Err(current.rot(at, Flaw::Seq { expected: current.base(), found: next.base_seq }));
            }
            _ => None,
        };
        if let Some(flaw) = flaw
            && !self.is_followed_by(next)?
        {
            return Err(current.rot(at, flaw));
        }
        let is_entered = self.enter(next)?;
        if is_entered {
            self.leave_out()?;
        }
        Ok(is_entered)
    }

    /// A bad frame at the end of the last segment: one that is being written, unless frames stand behind it.
    fn half_written(&mut self, flaw: log_format::Error) -> Result<Option<Frame>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let at = current.position();
        let expected = self.last.map_or(current.base(), |last| last.last_seq().next());
        if survivors::find(current, at, expected)?.frames == 0 {
            return Ok(None);
        }
        // The writer goes forward: with a frame behind it there, this one is there too.
        match current.step()? {
            Step::Frame(frame) => self.accept(frame).map(Some),
            _ => Err(current.rot(at, flaw)),
        }
    }

    /// Goes to the beginning of a segment. False where it has no head yet, or was deleted meanwhile.
    fn enter(&mut self, segment: &SegmentPath) -> Result<bool> {
        let reader = match SegmentReader::open_if_made(&self.dir, segment) {
            Ok(Some(reader)) => reader,
            Ok(None) => return Ok(false),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if let Some(current) = &self.current
            && current.header().database != reader.header().database
        {
            return Err(Error::ForeignSegment {
                segment: reader.path().to_owned(),
                expected: current.header().database,
                found: reader.header().database,
            });
        }
        self.note_at = 0;
        self.current = Some(reader);
        Ok(true)
    }

    /// Checks that a frame the current segment gave follows the one before it.
    fn accept(&mut self, frame: Frame) -> Result<Frame> {
        let Some(current) = &mut self.current else { return Ok(frame) };
        let header = *frame.header();
        let offset = current.position().saturating_sub(u64::from(header.length));
        if let Err(error) = check_link(current, offset, self.last.as_ref(), &header) {
            current.go_to(offset);
            let floor = self.floor()?;
            let expected = self.last.map_or(Seq::ZERO, |last| last.last_seq().next());
            return Err(if self.last.is_some() && expected < floor {
                Error::BelowFloor { floor }
            } else {
                error
            });
        }
        let is_lossy = current.header().after_hole && offset == SEGMENT_HEADER_BYTES as u64;
        if is_lossy
            && !self.over_holes
            && self.last.is_some_and(|last| last.last_seq() < previous_seq(&frame))
        {
            current.go_to(offset);
            return Err(Error::BelowFloor { floor: header.fields.first_seq });
        }
        if offset >= self.note_at {
            self.note_at = self.index.note(current.base(), header.fields.first_seq, offset);
        }
        self.last = Some(header);
        self.last_at = Some(offset);
        Ok(frame)
    }

    /// Whether a segment begins right behind the last frame: what stands between them is a damaged footer then.
    fn is_followed_by(&self, next: &SegmentPath) -> Result<bool> {
        let Some(last) = self.last else { return Ok(false) };
        if next.base_seq == last.last_seq().next() {
            return Ok(true);
        }
        let mut reader = SegmentReader::open(&self.dir, next.clone())?;
        Ok(matches!(reader.step()?, Step::Frame(frame) if frame.header().fields.previous_crc == last.crc))
    }

    /// Goes to the end of the segment just entered if nothing of it is wanted and another one follows.
    fn leave_out(&mut self) -> Result<()> {
        let (Some(wanted), Some(current)) = (&self.wanted, &mut self.current) else { return Ok(()) };
        if current.header().after_hole && !self.over_holes {
            return Ok(());
        }
        let is_last = self.dir.segments()?.last().is_none_or(|last| last.base_seq <= current.base());
        let Some(footer) = current.footer()?.filter(|footer| !is_last && !footer.may_touch(wanted)) else {
            return Ok(());
        };
        let (first, last) = ends(&footer, current.header().epoch);
        if check_link(current, SEGMENT_HEADER_BYTES as u64, self.last.as_ref(), &first).is_ok() {
            current.go_to(footer.end);
            (self.last, self.last_at) = (Some(last), None);
        }
        Ok(())
    }

    /// Where the frame stands that was given last.
    pub fn place(&self) -> Option<Place> {
        let (current, offset) = (self.current.as_ref()?, self.last_at?);
        Some(Place { segment: current.path().to_owned(), offset })
    }

    /// The first seq that is retained.
    pub fn floor(&self) -> Result<Seq> {
        Ok(self.dir.segments()?.first().map_or(Seq::new(1), |first| first.base_seq))
    }

    /// The last seq that is there now.
    pub fn end(&self) -> Result<Seq> {
        let mut probe = Self::with_index(&self.dir, Arc::clone(&self.index));
        probe.go_near(Seq::new(u64::MAX))?;
        let mut end = Seq::ZERO;
        while let Some(frame) = probe.next()? {
            end = frame.last_seq();
        }
        Ok(end)
    }

    /// Goes to the place behind `after`: the next frame is the first one with an event behind it. That frame may also
    /// have events up to `after`.
    ///
    /// # Errors
    /// [`Error::BelowFloor`] where events behind `after` were deleted; [`Error::NotInLog`] where `after` is beyond the
    /// end, or in a gap, so that it was never given to an event of this log.
    pub fn seek(&mut self, after: Seq) -> Result<()> {
        self.with_all(|reader| reader.seek_in_all(after))
    }

    /// Does something for which no segment may be left out.
    fn with_all(&mut self, seek: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let wanted = self.wanted.take();
        let done = seek(self);
        self.wanted = wanted;
        done
    }

    fn seek_in_all(&mut self, after: Seq) -> Result<()> {
        if !self.go_near(after)? {
            return not_beyond(after, Seq::ZERO);
        }
        let mut end = Seq::ZERO;
        loop {
            let Some(frame) = self.next()? else { return not_beyond(after, end) };
            end = frame.last_seq();
            if end < after {
                continue;
            }
            if end == after {
                return Ok(());
            }
            let first = frame.first_seq();
            let previous = previous_seq(&frame);
            if after < previous && !self.is_behind_hole()? {
                return Err(Error::BelowFloor { floor: first });
            }
            if after > previous && after < first {
                let end = self.end()?;
                return Err(Error::NotInLog { after, end });
            }
            self.pending = Some(frame);
            return Ok(());
        }
    }

    /// Goes to the first frame with an event at `from` or behind it, wherever that is: `from` may be in a gap, and
    /// beyond the end it means what is written next.
    ///
    /// # Errors
    /// [`Error::BelowFloor`] where events from `from` on were deleted.
    pub fn seek_from(&mut self, from: Seq) -> Result<()> {
        self.with_all(|reader| reader.seek_from_in_all(from))
    }

    fn seek_from_in_all(&mut self, from: Seq) -> Result<()> {
        self.go_near(from.previous())?;
        while let Some(frame) = self.next()? {
            if frame.last_seq() < from {
                continue;
            }
            if from <= previous_seq(&frame) && from > Seq::ZERO && !self.is_behind_hole()? {
                return Err(Error::BelowFloor { floor: frame.first_seq() });
            }
            self.pending = Some(frame);
            return Ok(());
        }
        Ok(())
    }

    /// Goes to the first frame that was committed at this time, microseconds since 1970, or later; beyond the end that is
    /// what is written next.
    pub fn seek_time(&mut self, from: i64) -> Result<()> {
        self.with_all(|reader| reader.seek_time_in_all(from))
    }

    fn seek_time_in_all(&mut self, from: i64) -> Result<()> {
        self.forget();
        let segments = self.dir.segments()?;
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match segments.get(middle).map_or(Ok(None), |segment| self.first_time(segment))? {
                Some(time) if time < from => low = middle + 1,
                _ => high = middle,
            }
        }
        let Some(segment) = segments.into_iter().nth(low.saturating_sub(1)) else { return Ok(()) };
        if !self.enter(&segment)? {
            return Ok(());
        }
        if let Some(current) = &mut self.current
            && let Some(footer) = current.footer()?
        {
            let before = footer.entries.partition_point(|entry| entry.commit_time < from).saturating_sub(1);
            current
                .go_to(footer.entries.get(before).map_or(SEGMENT_HEADER_BYTES as u64, |entry| entry.offset));
        }
        while let Some(frame) = self.next()? {
            if frame.header().fields.commit_time >= from {
                self.pending = Some(frame);
                return Ok(());
            }
        }
        Ok(())
    }

    /// When the first frame of a segment was committed; none where it has none yet.
    fn first_time(&self, segment: &SegmentPath) -> Result<Option<i64>> {
        let Some(mut reader) = SegmentReader::open_if_made(&self.dir, segment)? else { return Ok(None) };
        let Step::Frame(frame) = reader.step()? else { return Ok(None) };
        Ok(Some(frame.header().fields.commit_time))
    }

    /// Whether the frame before the position is the first one behind a hole that this reader passes over.
    fn is_behind_hole(&self) -> Result<bool> {
        let Some(current) =
            self.current.as_ref().filter(|current| self.over_holes && current.header().after_hole)
        else {
            return Ok(false);
        };
        let is_first = self.last_at == Some(SEGMENT_HEADER_BYTES as u64);
        Ok(is_first && self.floor()? < current.base())
    }

    /// Stands nowhere.
    fn forget(&mut self) {
        (self.pending, self.last, self.last_at, self.current) = (None, None, None, None);
    }

    /// Where bytes stand behind the last frame that are none: a frame that is being written right now or, without a
    /// writer, one that was torn. Meant for after [`LogReader::next`] gave none.
    pub fn unfinished(&mut self) -> Result<Option<Place>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let at = current.position();
        let torn = match current.step()? {
            Step::Frame(_) | Step::Footer => false,
            Step::End => !current.only_zeros_behind()?,
            Step::Bad(_) => true,
        };
        current.go_to(at);
        Ok(torn.then(|| Place { segment: current.path().to_owned(), offset: at }))
    }

    /// Goes to a frame at or before the one that holds `after`, or to the first one there is; false in an empty log.
    fn go_near(&mut self, after: Seq) -> Result<bool> {
        self.forget();
        let segments = self.dir.segments()?;
        let upto = segments.partition_point(|segment| segment.base_seq <= after.next()).max(1);
        for segment in segments.into_iter().take(upto).rev() {
            let base = segment.base_seq;
            if !self.enter(&segment)? {
                continue;
            }
            let Some(current) = &mut self.current else { continue };
            // A segment that was just begun holds nothing to compare with; the one before it does.
            let begun = matches!(current.step()?, Step::Frame(_));
            if begun {
                let mut offset = self.index.offset(base, after);
                if offset == SEGMENT_HEADER_BYTES as u64
                    && let Some(footer) = current.footer()?
                {
                    let before = footer.entries.partition_point(|entry| entry.first_seq <= after);
                    offset =
                        footer.entries.get(before.saturating_sub(1)).map_or(offset, |entry| entry.offset);
                }
                current.go_to(offset);
            }
            self.note_at = 0;
            if begun || base.get() == 1 {
                return Ok(true);
            }
        }
        Ok(self.current.is_some())
    }
}

/// What a footer says of the first and the last frame of its segment, as far as a chain needs it.
fn ends(footer: &SegmentFooter, epoch: u32) -> (FrameHeader, FrameHeader) {
    let header = |first_seq, epoch, previous_crc, commit_time, crc| FrameHeader {
        crc,
        length: 0,
        count: 1,
        fields: FrameFields { first_seq, epoch, previous_crc, commit_time, durable_seq: Seq::ZERO },
    };
    let first = header(footer.base_seq, epoch, footer.previous_crc, footer.first_time, 0);
    (first, header(footer.last_seq, footer.last_epoch, 0, footer.last_time, footer.last_crc))
}

fn not_beyond(after: Seq, end: Seq) -> Result<()> {
    if after == end { Ok(()) } else { Err(Error::NotInLog { after, end }) }
}

/// The last seq before a frame that was given to an event: a frame that begins an epoch may come behind a gap.
fn previous_seq(frame: &Frame) -> Seq {
    match frame.event(0) {
        Ok(ArchivedChangeEvent::EpochStarted(epoch)) => Seq::new(epoch.previous_end.to_native()),
        _ => frame.first_seq().previous(),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
