//! The way into the sequencer: a bounded queue whose reader takes all that waits at once, so that many writers share
//! one append and one sync.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

/// What the receiver found.
#[derive(Debug, PartialEq, Eq)]
pub enum Group<T> {
    /// Requests, in the order of arrival; at least one.
    Requests(Vec<T>),
    /// Nothing came within the time.
    Idle,
    /// All senders are gone and everything they sent was taken.
    Closed,
}

/// The receiver is gone, or the queue is full; the request comes back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QueueClosed<T> {
    /// Nobody takes requests any more.
    #[error("the commit queue is closed")]
    Closed(T),
    /// As many requests wait as may.
    #[error("the commit queue is full")]
    Full(T),
}

/// Where writers put their requests. Clones feed the same queue.
#[derive(Debug)]
pub struct CommitSender<T> {
    sender: Sender<T>,
}

impl<T> Clone for CommitSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

/// Where the sequencer takes them. A clone takes from the same queue: what is in it when the last one goes is nobody's.
#[derive(Debug)]
pub struct CommitReceiver<T> {
    receiver: Receiver<T>,
}

impl<T> Clone for CommitReceiver<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone() }
    }
}

/// A queue that holds `capacity` requests; the next sender waits.
pub fn commit_queue<T>(capacity: usize) -> (CommitSender<T>, CommitReceiver<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    (CommitSender { sender }, CommitReceiver { receiver })
}

impl<T> CommitSender<T> {
    /// Adds a request; waits while the queue is full.
    pub fn send(&self, request: T) -> Result<(), QueueClosed<T>> {
        self.sender.send(request).map_err(|error| QueueClosed::Closed(error.into_inner()))
    }

    /// Adds a request, or gives it back where the queue is full.
    pub fn try_send(&self, request: T) -> Result<(), QueueClosed<T>> {
        self.sender.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) => QueueClosed::Full(request),
            TrySendError::Disconnected(request) => QueueClosed::Closed(request),
        })
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.sender.len()
    }
}

impl<T> CommitReceiver<T> {
    /// Waits for a request, at most `timeout`, then takes what else waits, up to `most` in all.
    pub fn next_group(&self, most: usize, timeout: Option<Duration>) -> Group<T> {
        let first = match timeout {
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(timeout) => self.receiver.recv_timeout(timeout),
        };
        match first {
            Ok(first) => {
                let others = self.receiver.try_iter().take(most.saturating_sub(1));
                Group::Requests(std::iter::once(first).chain(others).collect())
            }
            Err(RecvTimeoutError::Timeout) => Group::Idle,
            Err(RecvTimeoutError::Disconnected) => Group::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_group_takes_what_waits() {
        let (sender, receiver) = commit_queue(8);
        assert_eq!(receiver.next_group(8, Some(Duration::ZERO)), Group::Idle);
        for number in 0..5 {
            sender.send(number).unwrap();
        }
        assert_eq!(sender.waiting(), 5);
        assert_eq!(receiver.next_group(3, None), Group::Requests(vec![0, 1, 2]));
        assert_eq!(receiver.next_group(3, None), Group::Requests(vec![3, 4]));
        sender.send(5).unwrap();
        drop(sender);
        assert_eq!(receiver.next_group(3, None), Group::Requests(vec![5]), "what was sent is taken first");
        assert_eq!(receiver.next_group(3, None), Group::Closed);
    }

    #[test]
    fn writers_that_wait_on_a_full_queue_all_get_through() {
        let (sender, receiver) = commit_queue(2);
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let sender = sender.clone();
                std::thread::spawn(move || (0..50).try_for_each(|number| sender.send((writer, number))))
            })
            .collect();
        drop(sender);
        let mut taken = vec![Vec::new(); 8];
        while let Group::Requests(requests) = receiver.next_group(64, None) {
            for (writer, number) in requests {
                taken[writer].push(number);
            }
        }
        assert!(taken.iter().all(|numbers| numbers.iter().copied().eq(0..50)), "{taken:?}");
        assert!(writers.into_iter().all(|writer| writer.join().unwrap().is_ok()));
    }

    #[test]
    fn a_request_comes_back_from_a_queue_that_is_full_or_closed() {
        let (sender, receiver) = commit_queue(1);
        sender.try_send('a').unwrap();
        assert_eq!(sender.try_send('b'), Err(QueueClosed::Full('b')));
        drop(receiver);
        assert_eq!(sender.send('c'), Err(QueueClosed::Closed('c')));
        assert_eq!(sender.try_send('d'), Err(QueueClosed::Closed('d')));
    }
}
