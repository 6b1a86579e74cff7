//! The newest published commits, in memory.
//!
//! Bounded: who is further behind than it reaches reads the log files instead. The sequencer never waits for a reader.

use std::collections::VecDeque;

use log_format::{Frame, Seq};

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Recent {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The last published seq.
    published: Seq,
    /// Every commit after this seq is in `frames`.
    complete_after: Seq,
    /// Somebody waits for news: without, the sequencer wakes nobody.
    awaited: bool,
    closed: bool,
}

/// The newest published commits.
#[derive(Debug)]
pub(crate) struct Feed {
    // Held for queue operations only, by the sequencer, the router and readers that catch up.
    recent: Mutex<Recent>,
    news: Condvar,
    bytes_max: usize,
}

/// What comes after a seq.
#[derive(Debug)]
pub(crate) enum After {
    /// These commits; none where it is the last.
    Frames(Vec<Frame>),
    /// More than the feed still has: read the log.
    TooFarBack,
    /// Nothing will come any more.
    Closed,
}

impl Feed {
    /// A feed of a log that ends at `published`.
    pub(crate) fn new(published: Seq, bytes_max: usize) -> Self {
        let recent = Recent {
            frames: VecDeque::new(),
            bytes: 0,
            published,
            complete_after: published,
            awaited: false,
            closed: false,
        };
        Self { recent: Mutex::new(recent), news: Condvar::new(), bytes_max }
    }

    fn locked(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds commits behind the last one.
    pub(crate) fn publish(&self, frames: &[Frame]) {
        let mut recent = self.locked();
        for frame in frames {
            recent.bytes += frame.as_bytes().len();
            recent.published = frame.last_seq();
            recent.frames.push_back(frame.clone());
        }
        while recent.bytes > self.bytes_max
            && let Some(oldest) = recent.frames.pop_front()
        {
            recent.bytes -= oldest.as_bytes().len();
            recent.complete_after = oldest.last_seq();
        }
        let is_awaited = recent.awaited;
        drop(recent);
        if is_awaited {
            self.news.notify_all();
        }
    }

    /// Whether somebody wants to hear of what is published.
    pub(crate) fn set_awaited(&self, awaited: bool) {
        let mut recent = self.locked();
        if recent.awaited != awaited {
            recent.awaited = awaited;
            self.news.notify_all();
        }
    }

    /// Sleeps while nobody wants to hear anything; false once the feed is closed.
    pub(crate) fn wait_awaited(&self) -> bool {
        let idle = |recent: &mut Recent| !recent.awaited && !recent.closed;
        self.news.wait_while(self.locked(), idle).unwrap_or_else(PoisonError::into_inner).awaited
    }

    /// Nothing will be published any more.
    pub(crate) fn close(&self) {
        self.locked().closed = true;
        self.news.notify_all();
    }

    /// The last published seq.
    pub(crate) fn published(&self) -> Seq {
        self.locked().published
    }

    /// The commits after `seq`, now.
    pub(crate) fn after(&self, seq: Seq) -> After {
        frames_after(&self.locked(), seq, usize::MAX)
    }

    /// The first of the commits after `seq`, of so many bytes or a little more: who holds them keeps them in memory.
    pub(crate) fn first_after(&self, seq: Seq, bytes_max: usize) -> After {
        frames_after(&self.locked(), seq, bytes_max)
    }

    /// The commits after `seq`, once there are any; none where nobody wants to hear of them any more.
    pub(crate) fn wait_after(&self, seq: Seq) -> After {
        let waiting = |recent: &mut Recent| recent.published <= seq && recent.awaited && !recent.closed;
        let recent = self.news.wait_while(self.locked(), waiting).unwrap_or_else(PoisonError::into_inner);
        if recent.published <= seq && recent.closed {
            return After::Closed;
        }
        frames_after(&recent, seq, usize::MAX)
    }
}

fn frames_after(recent: &Recent, seq: Seq, bytes_max: usize) -> After {
    if seq < recent.complete_after {
        return After::TooFarBack;
    }
    let first = recent.frames.partition_point(|frame| frame.last_seq() <= seq);
    let mut bytes = 0;
    let frames = recent.frames.range(first..).take_while(|frame| {
        let has_room = bytes < bytes_max;
        bytes += frame.as_bytes().len();
        has_room
    });
    After::Frames(frames.cloned().collect())
}
