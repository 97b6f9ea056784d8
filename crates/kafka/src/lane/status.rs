//! How a lane fares, for health checks and metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::lane::done::Waker;

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting: fencing its predecessor and joining the group.
    Starting,
    /// A member of the group, working on what it was given.
    Running,
    /// Between a failure and the next attempt.
    Recovering,
    /// Ended.
    Stopped,
}

/// One partition of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// Whether its state is rebuilt and its records are worked on.
    pub is_open: bool,
    /// Whether its records are held back because the application does not want them now.
    pub is_paused: bool,
    /// The next input offset to read.
    pub next: i64,
    /// Records of the input not yet read, as of the last fetch.
    pub lag: Option<i64>,
}

/// How a lane fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// The partitions it owns, by number.
    pub partitions: Vec<PartitionStatus>,
    /// How often it was dropped and built anew.
    pub restarts: u64,
    /// How often of those somebody had taken over its transactional id or its place in the group.
    pub fenced: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Why it was last dropped, as a sentence.
    pub last_failure: Option<String>,
    /// When its loop last turned; far in the past means that it is stuck.
    pub last_turn: Instant,
}

impl Status {
    /// Whether it is a member of the group and every partition it owns is open.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.partitions.iter().all(|partition| partition.is_open)
    }

    /// How long ago its loop last turned.
    pub fn idle_for(&self) -> Duration {
        self.last_turn.elapsed()
    }
}

/// What a lane's thread and those who watch it share.
#[derive(Debug)]
pub(crate) struct Shared {
    status: Mutex<Status>,
    stop: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            status: Mutex::new(Status {
                phase: Phase::Starting,
                partitions: Vec::new(),
                restarts: 0,
                fenced: 0,
                committed: 0,
                aborted: 0,
                last_failure: None,
                last_turn: Instant::now(),
            }),
            stop: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    /// The status. A panic elsewhere leaves it whole: it is only ever assigned to.
    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calling thread the one that a stop wakes.
    pub(crate) fn attach(&self) {
        // Only the lane's thread calls this, once.
        let _ = self.waker.set(Waker::current());
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
