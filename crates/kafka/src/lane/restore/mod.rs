//! Rebuilding the state of partitions, off the lane's thread.
//!
//! Two steps, each on threads of its own. *Prepare* finds out where to go on and how far to read, which may mean to
//! wait for a transaction of the previous owner. *Read* feeds the state's records to the application's restore. All
//! partitions of a step go on side by side, and those that were revoked meanwhile are let go.

mod prepare;
mod read;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::lane::app::{Assignment, Restore};
use crate::lane::done::Waker;
use crate::lane::error::Failure;
use crate::lane::tuning::LaneSettings;
use crate::settings::Settings;

/// Tells the threads that a restore is not wanted any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A partition to restore.
pub(crate) struct Job<R> {
    assignment: Assignment,
    restore: R,
    cancel: Cancel,
    since: Instant,
}

/// A partition that is ready to be opened.
pub(crate) struct Opening<P> {
    /// Its state.
    pub(crate) part: P,
    /// The input offset to go on from.
    pub(crate) start: i64,
    /// How many records were read.
    pub(crate) records: u64,
    /// Since when it was on its way.
    pub(crate) since: Instant,
}

/// What a restore came to.
pub(crate) struct Outcome<P> {
    pub(crate) assignment: Assignment,
    pub(crate) result: Result<Opening<P>, Failure>,
}

/// The way back to the lane's thread.
struct Reply<P> {
    sender: Sender<Outcome<P>>,
    waker: Waker,
}

impl<P> Clone for Reply<P> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<P> Reply<P> {
    fn send(&self, assignment: Assignment, result: Result<Opening<P>, Failure>) {
        // A lane that is gone has no use for it.
        let _ = self.sender.send(Outcome { assignment, result });
        self.waker.wake();
    }
}

/// Where the input goes on, as far as is known before the state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    /// The committed offset, if there is one.
    committed: Option<i64>,
    /// Where the input's log begins.
    low: i64,
}

impl Origin {
    /// The offset to start from: what was committed; else what the state says was absorbed; else the log's start.
    fn start(self, absorbed: Option<i64>) -> i64 {
        self.committed.or(absorbed).unwrap_or(self.low).max(self.low)
    }
}

/// Ends a restore: the application makes of what it has read a part, or refuses.
fn finish<R: Restore>(job: Job<R>, origin: Origin, records: u64, reply: &Reply<R::Part>) {
    let Job { assignment, restore, since, .. } = job;
    let result = match catch_unwind(AssertUnwindSafe(|| restore.finish())) {
        Ok(Ok(restored)) => {
            let start = origin.start(restored.absorbed);
            Ok(Opening { part: restored.part, start, records, since })
        }
        Ok(Err(refused)) => Err(Failure::Refused { partition: assignment.partition, reason: refused.0 }),
        Err(panic) => Err(Failure::Panicked(panic_message(panic.as_ref()))),
    };
    reply.send(assignment, result);
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// The threads that restore a lane's partitions. They end by themselves once this is dropped, at the latest after the
/// question to a broker that they are in; nobody waits for that.
pub(crate) struct Restorer<R: Restore> {
    jobs: Sender<Job<R>>,
    outcomes: Receiver<Outcome<R::Part>>,
}

impl<R: Restore> Restorer<R> {
    /// Starts the threads.
    pub(crate) fn start(settings: &Settings, lane: &LaneSettings, group: &str, waker: Waker) -> Result<Self, Failure> {
        let (jobs, incoming) = unbounded();
        let (sender, outcomes) = unbounded();
        let reply = Reply { sender, waker };
        let mut readers = Vec::new();
        if let Some(state) = &lane.state {
            for index in 0..settings.lane.restore_threads {
                let (ready, tasks) = unbounded();
                let reader = read::Reader::new(settings, lane, group, state.clone(), tasks, reply.clone())?;
                spawn(format!("restore-{}-{}-{index}", lane.service, lane.lane), move || reader.run())?;
                readers.push(ready);
            }
        }
        let prepare = prepare::Prepare::new(settings, lane, group, incoming, readers, reply)?;
        spawn(format!("prepare-{}-{}", lane.service, lane.lane), move || prepare.run())?;
        Ok(Self { jobs, outcomes })
    }

    /// Starts to restore a partition; the outcome comes later, unless it is cancelled.
    pub(crate) fn restore(&self, assignment: Assignment, restore: R) -> Result<Cancel, Failure> {
        let cancel = Cancel::default();
        let job = Job { assignment, restore, cancel: cancel.clone(), since: Instant::now() };
        let sent = self.jobs.send(job);
        sent.map_err(|_| Failure::Thread("the restoring thread is gone".to_owned()))?;
        Ok(cancel)
    }

    /// The next outcome, if one is there. It may be of a restore that was cancelled.
    pub(crate) fn next(&self) -> Option<Outcome<R::Part>> {
        self.outcomes.try_recv().ok()
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name).spawn(run);
    thread.map(drop).map_err(|error| Failure::Thread(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn what_was_committed_decides_then_the_state_then_the_log() {
        assert_eq!(Origin { committed: Some(7), low: 3 }.start(Some(9)), 7);
        assert_eq!(Origin { committed: None, low: 3 }.start(Some(9)), 9);
        assert_eq!(Origin { committed: None, low: 3 }.start(None), 3);
    }

    #[test]
    fn what_retention_removed_is_not_asked_for() {
        assert_eq!(Origin { committed: Some(1), low: 3 }.start(None), 3);
        assert_eq!(Origin { committed: None, low: 3 }.start(Some(1)), 3);
    }
}
