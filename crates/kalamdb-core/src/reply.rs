//! How a writer gets its answer from the sequencer: a task awaits it, a thread sleeps until it is there.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::commit::Committed;
use crate::error::{Error, Result};

/// What the sequencer answers through. Dropped without an answer, it says that the engine is shutting down.
#[derive(Debug)]
pub(crate) enum Reply {
    Task(oneshot::Sender<Result<Committed>>),
    Thread(ThreadReply),
}

impl Reply {
    /// Answers. Who has gone away meanwhile needs no answer.
    pub(crate) fn send(self, answer: Result<Committed>) {
        match self {
            Self::Task(task) => drop(task.send(answer)),
            Self::Thread(mut thread) => {
                if let Some(slot) = thread.slot.take() {
                    slot.put(answer);
                }
            }
        }
    }
}

/// An answer for a task.
pub(crate) fn to_task() -> (Reply, oneshot::Receiver<Result<Committed>>) {
    let (reply, answer) = oneshot::channel();
    (Reply::Task(reply), answer)
}

/// An answer for a thread. It sleeps at once instead of looking a few times first, as a channel does: with many writers
/// waiting on few cores that looking takes the cores from those who have something to do.
pub(crate) fn to_thread() -> (Reply, ThreadAnswer) {
    let slot = Arc::new(Slot::default());
    (Reply::Thread(ThreadReply { slot: Some(Arc::clone(&slot)) }), ThreadAnswer { slot })
}

#[derive(Debug, Default)]
struct Slot {
    // Held to put and to take the one answer.
    answer: Mutex<Option<Result<Committed>>>,
    bell: Condvar,
}

impl Slot {
    fn put(&self, answer: Result<Committed>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.bell.notify_one();
    }
}

/// The sequencer's side.
#[derive(Debug)]
pub(crate) struct ThreadReply {
    /// None once answered.
    slot: Option<Arc<Slot>>,
}

impl Drop for ThreadReply {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.put(Err(Error::ShuttingDown));
        }
    }
}

/// The thread's side.
#[derive(Debug)]
pub(crate) struct ThreadAnswer {
    slot: Arc<Slot>,
}

impl ThreadAnswer {
    /// Sleeps until the answer is there.
    pub(crate) fn wait(self) -> Result<Committed> {
        let mut answer = self.slot.answer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            answer = self.slot.bell.wait(answer).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_dropped_is_an_answer_too() {
        let (reply, answer) = to_thread();
        let waiting = std::thread::spawn(move || answer.wait());
        drop(reply);
        assert!(matches!(waiting.join().unwrap(), Err(Error::ShuttingDown)));
    }

    #[test]
    fn the_answer_that_was_sent_is_the_one_that_counts() {
        let (reply, answer) = to_thread();
        reply.send(Err(Error::EmptySql));
        assert!(matches!(answer.wait(), Err(Error::EmptySql)));
    }
}
