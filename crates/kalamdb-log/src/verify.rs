//! Checking a whole log: every checksum and offset table, the order of seqs and times, the chain of frames, footers.
//!
//! Segments are independent of each other but for what joins one to the next, so they are read by several threads. A log
//! that is written to meanwhile is checked as it is found: what its end lacks is not damage.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use log_format::{Frame, FrameHeader, SEGMENT_HEADER_BYTES, SegmentFooter, Seq};

use crate::disk::LogDirectory;
use crate::error::{Error, Result};
use crate::marker::CleanMarker;
use crate::recovery::check_link;
use crate::segment::{SegmentPath, SegmentReader, Step};
use crate::summary::Summary;
use crate::survivors;

/// How often a segment tells how far it is.
const TELL_EVERY_BYTES: u64 = 1 << 20;

/// What there is to do with each frame beside checking it.
pub trait Inspector: Sync {
    /// Whether events are read: [`Inspector::frame`] is called, and footers' partitions are compared with the events'.
    fn reads_events(&self) -> bool {
        false
    }

    /// Looks into a frame; tells what is wrong with it.
    fn frame(&self, _frame: &Frame) -> Result<(), String> {
        Ok(())
    }

    /// That many more bytes were read.
    fn advanced(&self, _bytes: u64) {}
}

/// Looks at nothing more.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramesAlone;

impl Inspector for FramesAlone {}

/// A footer as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FooterState {
    /// There is none.
    Missing,
    /// It says what the frames say.
    Right,
    /// Bytes behind the frames that are no whole footer.
    Damaged,
    /// It is whole and says something else.
    Wrong,
}

impl fmt::Display for FooterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "none",
            Self::Right => "right",
            Self::Damaged => "damaged",
            Self::Wrong => "wrong",
        })
    }
}

/// What was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In which segment.
    pub segment: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// In words.
    pub what: String,
}

/// What was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments.
    pub segments: u64,
    /// Frames.
    pub frames: u64,
    /// Events.
    pub events: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// The first seq, if there is one.
    pub first_seq: Option<Seq>,
    /// The last seq.
    pub last_seq: Seq,
    /// Segments whose footers are right.
    pub footers: u64,
    /// Holes that repairs left: the last seq before and the first one behind.
    pub holes: Vec<(Seq, Seq)>,
    /// What is wrong; the first of each segment, in order.
    pub problems: Vec<Problem>,
    /// Bytes at the end that are no frame: one that is being written, or that a crash tore.
    pub unfinished: Option<(PathBuf, u64)>,
}

/// One segment as it was found.
struct Checked {
    segment: SegmentPath,
    reader: Option<SegmentReader>,
    first: Option<FrameHeader>,
    last: Option<FrameHeader>,
    frames: u64,
    events: u64,
    end: u64,
    footer: FooterState,
    problem: Option<(u64, String)>,
    unfinished: Option<u64>,
}

/// Checks the log in `dir` with that many threads.
///
/// # Errors
/// Those of reading; whatever is wrong with the log is in [`Verified::problems`].
pub fn verify(dir: impl Into<LogDirectory>, threads: usize, inspector: &impl Inspector) -> Result<Verified> {
    let dir = dir.into();
    let closed_at = CleanMarker::read(&dir)?.map(|marker| marker.end);
    let segments = dir.segments()?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(segments.len()));
    let work = || -> Result<()> {
        while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            let is_last = segments.last() == Some(segment);
            let checked = check(&dir, segment, is_last, inspector)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push(checked);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(segments.len())).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let joined = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(joined);
        }
        result
    })?;
    let mut checked = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    checked.sort_by_key(|one| one.segment.base_seq);
    Ok(join(checked, closed_at))
}

/// Reads one segment.
fn check(
    dir: &LogDirectory,
    segment: &SegmentPath,
    is_last: bool,
    inspector: &impl Inspector,
) -> Result<Checked> {
    let mut checked = Checked {
        segment: segment.clone(),
        reader: None,
        first: None,
        last: None,
        frames: 0,
        events: 0,
        end: 0,
        footer: FooterState::Missing,
        problem: None,
        unfinished: None,
    };
    let mut reader = match SegmentReader::open_if_made(dir, segment) {
        Ok(Some(reader)) => reader,
        Ok(None) if is_last => return Ok(checked),
        Ok(None) => {
            checked.problem = Some((0, "its head is missing".to_owned()));
            return Ok(checked);
        }
        Err(error @ (Error::Head { .. } | Error::RenamedSegment { .. })) => {
            checked.problem = Some((0, error.to_string()));
            return Ok(checked);
        }
        Err(error) => return Err(error),
    };
    let mut summary = Summary::new(reader.base());
    let end = read_frames(&mut reader, &mut checked, &mut summary, inspector)?;
    checked.end = reader.position();
    if let Some(end) = end {
        check_end(&mut reader, end, is_last, &mut checked)?;
        if checked.problem.is_none() {
            check_footer(&reader, &summary, inspector.reads_events(), &mut checked)?;
        }
    }
    checked.reader = Some(reader);
    Ok(checked)
}

/// Reads frames up to where they end, or to one that is wrong; gives what stands where they end.
fn read_frames(
    reader: &mut SegmentReader,
    checked: &mut Checked,
    summary: &mut Summary,
    inspector: &impl Inspector,
) -> Result<Option<Step>> {
    let (mut told, reads_events) = (0, inspector.reads_events());
    loop {
        let offset = reader.position();
        let alone = if reads_events { None } else { reader.step_over()? };
        let (header, frame) = match alone {
            Some(header) => (header, None),
            None => match reader.step()? {
                Step::Frame(frame) => (*frame.header(), Some(frame)),
                end => {
                    inspector.advanced(offset - told);
                    return Ok(Some(end));
                }
            },
        };
        let frame = frame.filter(|_| reads_events);
        if offset - told >= TELL_EVERY_BYTES {
            inspector.advanced(offset - told);
            told = offset;
        }
        let inspected = || frame.as_ref().and_then(|frame| inspector.frame(frame).err());
        let wrong = match check_link(reader, offset, checked.last.as_ref(), &header) {
            Err(Error::Rot { flaw, .. }) => Some(flaw.to_string()),
            Err(error) => return Err(error),
            Ok(()) => order_problem(checked.last.as_ref(), &header).or_else(inspected),
        };
        if wrong.is_some() {
            checked.problem = wrong.map(|what| (offset, what));
            reader.go_to(offset);
            return Ok(None);
        }
        match &frame {
            Some(frame) => summary.add_frame(frame),
            None => summary.add(&header),
        }
        checked.first.get_or_insert(header);
        checked.last = Some(header);
        checked.frames += 1;
        checked.events += u64::from(header.count);
    }
}

/// What a reader of the log takes for granted in a frame that follows another.
fn order_problem(last: Option<&FrameHeader>, next: &FrameHeader) -> Option<String> {
    if last.is_some_and(|last| next.fields.commit_time < last.fields.commit_time) {
        return Some("its commit time is before that of the frame before it".to_owned());
    }
    (next.fields.durable_seq >= next.fields.first_seq)
        .then(|| format!("it says that seq {} was durable before it", next.fields.durable_seq))
}

/// What stands behind the frames: zeros, a footer, a frame half written, or damage.
fn check_end(reader: &mut SegmentReader, end: Step, is_last: bool, checked: &mut Checked) -> Result<()> {
    let offset = reader.position();
    let what = match end {
        Step::Frame(_) => return Ok(()),
        Step::Footer => {
            checked.footer = FooterState::Damaged;
            return Ok(());
        }
        Step::End if reader.only_zeros_behind()? => return Ok(()),
        Step::End => crate::error::Flaw::Behind.to_string(),
        Step::Bad(error) => error.to_string(),
    };
    let expected = checked.last.map_or(reader.base(), |last| last.last_seq().next());
    let behind = survivors::find(reader, offset, expected)?;
    if is_last && behind.frames == 0 {
        checked.unfinished = Some(offset);
    } else if behind.frames == 0 {
        // The next segment tells whether it is a footer: see `join`.
        checked.footer = FooterState::Damaged;
        checked.unfinished = Some(offset);
    } else {
        checked.problem = Some((offset, what));
    }
    Ok(())
}

/// Compares the footer with the frames.
fn check_footer(
    reader: &SegmentReader,
    summary: &Summary,
    with_partitions: bool,
    checked: &mut Checked,
) -> Result<()> {
    let (Some(found), Some(expected)) = (reader.footer()?, summary.footer()) else { return Ok(()) };
    let expected = if with_partitions {
        expected
    } else {
        SegmentFooter { partitions: found.partitions.clone(), ..expected }
    };
    checked.footer = if found == expected { FooterState::Right } else { FooterState::Wrong };
    Ok(())
}

/// Puts the segments together: each follows the one before it.
fn join(checked: Vec<Checked>, closed_at: Option<Seq>) -> Verified {
    let mut verified = Verified { segments: checked.len() as u64, ..Verified::default() };
    let mut before: Option<Checked> = None;
    for one in checked {
        let path = one.segment.path.clone();
        if let Some(before) = &before {
            verified.problems.extend(junction_problem(before, &one));
            if let (Some(last), Some(first), Some(reader)) = (before.last, one.first, &one.reader)
                && reader.header().after_hole
            {
                verified.holes.push((last.last_seq(), first.fields.first_seq));
            }
        }
        let problem =
            one.problem.clone().map(|(offset, what)| Problem { segment: path.clone(), offset, what });
        verified.problems.extend(problem);
        let footer = match one.footer {
            FooterState::Right => {
                verified.footers += 1;
                None
            }
            FooterState::Missing => None,
            FooterState::Damaged => Some("its footer is damaged; its frames are whole"),
            FooterState::Wrong => Some("its footer says something else than its frames"),
        };
        verified.problems.extend(footer.map(|what| Problem {
            segment: path,
            offset: one.end,
            what: what.to_owned(),
        }));
        verified.frames += one.frames;
        verified.events += one.events;
        verified.bytes += one.end.saturating_sub(SEGMENT_HEADER_BYTES as u64);
        verified.first_seq = verified.first_seq.or(one.first.map(|first| first.fields.first_seq));
        verified.last_seq = one.last.map_or(verified.last_seq, |last| last.last_seq());
        before = Some(one);
    }
    if let Some(last) = &before {
        verified.unfinished = last.unfinished.map(|offset| (last.segment.path.clone(), offset));
        if let Some(closed_at) = closed_at.filter(|closed_at| *closed_at > verified.last_seq)
            && verified.problems.is_empty()
        {
            let what =
                format!("the log was closed at seq {closed_at}, but ends at seq {}", verified.last_seq);
            verified.problems.push(Problem { segment: last.segment.path.clone(), offset: last.end, what });
        }
    }
    verified
}

/// What is wrong where one segment should follow another.
fn junction_problem(before: &Checked, next: &Checked) -> Option<Problem> {
    let problem = |one: &Checked, offset, what: String| {
        Some(Problem { segment: one.segment.path.clone(), offset, what })
    };
    if before.problem.is_some() {
        return None;
    }
    let Some(last) = &before.last else {
        let what = "it holds no frames, though another segment follows".to_owned();
        return problem(before, SEGMENT_HEADER_BYTES as u64, what);
    };
    if let (Some(reader), Some(first)) = (&next.reader, &next.first) {
        if reader.header().database
            != before.reader.as_ref().map_or(reader.header().database, |it| it.header().database)
        {
            return problem(next, 0, "it belongs to another database".to_owned());
        }
        let linked = check_link(reader, SEGMENT_HEADER_BYTES as u64, Some(last), first).err();
        if let Some(Error::Rot { flaw, .. }) = linked {
            return problem(next, SEGMENT_HEADER_BYTES as u64, flaw.to_string());
        }
        return order_problem(Some(last), first)
            .and_then(|what| problem(next, SEGMENT_HEADER_BYTES as u64, what));
    }
    let missing = next.reader.is_some() && next.segment.base_seq != last.last_seq().next();
    let unfinished = before.unfinished.filter(|_| missing)?;
    problem(before, unfinished, "there are bytes behind the last frame".to_owned())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
