//! How a writer gets its answer from the sequencer: a task awaits it, a plain thread sleeps until it is there.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::requests::Committed;

/// What the sequencer answers through. Dropped without an answer, it says that the engine is shutting down.
#[derive(Debug)]
pub(crate) enum Reply {
    Task(oneshot::Sender<Result<Committed>>),
    Thread(mpsc::SyncSender<Result<Committed>>),
}

impl Reply {
    /// Answers. Who has gone away meanwhile needs no answer.
    pub(crate) fn send(self, answer: Result<Committed>) {
        match self {
            Self::Task(task) => drop(task.send(answer)),
            Self::Thread(thread) => drop(thread.send(answer)),
        }
    }
}

/// An answer for a task.
pub(crate) fn to_task() -> (Reply, oneshot::Receiver<Result<Committed>>) {
    let (reply, answer) = oneshot::channel();
    (Reply::Task(reply), answer)
}

/// An answer for a thread.
pub(crate) fn to_thread() -> (Reply, ThreadAnswer) {
    let (reply, answer) = mpsc::sync_channel(1);
    (Reply::Thread(reply), ThreadAnswer(answer))
}

/// The thread's side.
#[derive(Debug)]
pub(crate) struct ThreadAnswer(mpsc::Receiver<Result<Committed>>);

impl ThreadAnswer {
    /// Sleeps until the answer is there.
    pub(crate) fn wait(self) -> Result<Committed> {
        self.0.recv().map_err(|_| Error::ShuttingDown)?
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
