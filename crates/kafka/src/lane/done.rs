//! How asynchronous work hands its results back to the lane's thread.

use std::fmt;
use std::sync::Arc;
use std::thread::Thread;

use tokio::sync::mpsc;

use crate::lane::app::Assignment;

/// Wakes a lane's thread from its wait. Waking is remembered: a thread that is about to wait does not.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<Thread>);

impl Waker {
    /// Wakes the thread that calls this.
    pub(crate) fn current() -> Self {
        Self(Arc::new(std::thread::current()))
    }

    pub(crate) fn wake(&self) {
        self.0.unpark();
    }
}

/// Sends finished work back to the lane that it was started for.
pub struct DoneSender<D> {
    sender: mpsc::Sender<(Assignment, D)>,
    waker: Waker,
}

/// The lane that the work was started for is gone, and with it all need of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The lane has been dropped; its successor starts from what is committed")]
pub struct LaneGone;

impl<D> DoneSender<D> {
    /// Hands over a result. Waits while the lane has more of them than it can take.
    ///
    /// # Errors
    /// [`LaneGone`]: the lane was rebuilt or has stopped; the result is dropped, and the work should be too.
    pub async fn send(&self, assignment: Assignment, done: D) -> Result<(), LaneGone> {
        self.sender.send((assignment, done)).await.map_err(|_| LaneGone)?;
        self.waker.wake();
        Ok(())
    }

    /// Whether the lane that this belongs to is gone.
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the lane that this belongs to is gone.
    pub async fn gone(&self) {
        self.sender.closed().await;
    }
}

impl<D> Clone for DoneSender<D> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<D> fmt::Debug for DoneSender<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoneSender").field("gone", &self.is_gone()).finish_non_exhaustive()
    }
}

/// Finished work on its way to the lane's thread.
pub(crate) struct DoneQueue<D> {
    receiver: mpsc::Receiver<(Assignment, D)>,
}

impl<D> DoneQueue<D> {
    /// The next result, if one is there.
    pub(crate) fn next(&mut self) -> Option<(Assignment, D)> {
        self.receiver.try_recv().ok()
    }
}

/// A queue of at most `capacity` results for the thread that `waker` wakes.
pub(crate) fn queue<D>(capacity: usize, waker: Waker) -> (DoneSender<D>, DoneQueue<D>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (DoneSender { sender, waker }, DoneQueue { receiver })
}

/// What a lane gives to the application that it drives.
pub struct LaneHandle<D> {
    /// For results of asynchronous work.
    pub done: DoneSender<D>,
    /// The partition count of the input topic (and of the state topic).
    pub partitions: i32,
    /// Which lane of the process this is, from 0.
    pub lane: usize,
}

impl<D> Clone for LaneHandle<D> {
    fn clone(&self) -> Self {
        Self { done: self.done.clone(), partitions: self.partitions, lane: self.lane }
    }
}

impl<D> fmt::Debug for LaneHandle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneHandle")
            .field("done", &self.done)
            .field("partitions", &self.partitions)
            .field("lane", &self.lane)
            .finish()
    }
}
