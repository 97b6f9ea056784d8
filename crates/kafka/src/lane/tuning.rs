//! How a lane works: its time-outs and bounds, and how they must relate.

use std::sync::Arc;
use std::time::Duration;

use runtime::settings::Source;

use crate::faults::Faults;

/// Time-outs and bounds of every lane of a process.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How long outputs wait for work in flight, so that its result rides in the same transaction.
    pub linger: Duration,
    /// A transaction is closed when it has this many records.
    pub transaction_records: usize,
    /// A transaction is closed when it has this many bytes.
    pub transaction_bytes: u64,
    /// When the broker aborts a transaction that hangs: what a successor may have to wait after a crash.
    pub transaction_timeout: Duration,
    /// When a record of a transaction that was not acknowledged counts as failed, and the transaction aborts.
    pub delivery_timeout: Duration,
    /// When the group takes a lane for dead that it has not heard from.
    pub session_timeout: Duration,
    /// When the group takes a lane for dead that does not poll.
    pub max_poll_interval: Duration,
    /// How many results of asynchronous work may wait for a lane's thread.
    pub done_queue: usize,
    /// Threads of a lane that rebuild state.
    pub restore_threads: usize,
    /// A lane that fails this often in a row, with Kafka within reach, is given up, and its process with it.
    pub max_failures: u32,
    /// Protections that are off; only ever for tests.
    pub faults: Faults,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(3),
            transaction_records: 50_000,
            transaction_bytes: 16 << 20,
            transaction_timeout: Duration::from_secs(15),
            delivery_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(60),
            done_queue: 1024,
            restore_threads: 1,
            max_failures: 10,
            faults: Faults::from_environment(),
        }
    }
}

impl Tuning {
    /// Reads `lane.*`.
    pub(crate) fn read(source: &mut Source) -> Self {
        let default = Self::default();
        Self {
            linger: source.duration(
                "lane.linger",
                default.linger,
                "How long outputs wait for work in flight, so that its result rides in the same transaction",
            ),
            transaction_records: source.read(
                "lane.transaction_records",
                default.transaction_records,
                "A transaction is closed when it has this many records",
            ),
            transaction_bytes: source.size(
                "lane.transaction_bytes",
                default.transaction_bytes,
                "A transaction is closed when it has this many bytes",
            ),
            transaction_timeout: source.duration(
                "lane.transaction_timeout",
                default.transaction_timeout,
                "When the broker aborts a transaction that hangs",
            ),
            delivery_timeout: source.duration(
                "lane.delivery_timeout",
                default.delivery_timeout,
                "When a record of a transaction that was not acknowledged counts as failed",
            ),
            session_timeout: source.duration(
                "lane.session_timeout",
                default.session_timeout,
                "When the group takes a lane for dead that it has not heard from",
            ),
            max_poll_interval: source.duration(
                "lane.max_poll_interval",
                default.max_poll_interval,
                "When the group takes a lane for dead that does not poll",
            ),
            done_queue: source.read(
                "lane.done_queue",
                default.done_queue,
                "Results of asynchronous work that may wait for a lane's thread",
            ),
            restore_threads: source.read(
                "lane.restore_threads",
                default.restore_threads,
                "Threads of a lane that rebuild state",
            ),
            max_failures: source.read(
                "lane.max_failures",
                default.max_failures,
                "Failures in a row, with Kafka within reach, after which a lane is given up and the process ends",
            ),
            faults: default.faults,
        }
    }

    /// What is out of bounds, and which time-outs contradict each other.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut unless = |fine: bool, key, message: &str| {
            if !fine {
                problems.push((key, message.to_owned()));
            }
        };
        unless(
            self.linger <= Duration::from_secs(1),
            "lane.linger",
            "must be at most 1s: every output waits for it while work is in flight",
        );
        unless(self.transaction_records > 0, "lane.transaction_records", "must be at least 1");
        unless(self.transaction_bytes > 0, "lane.transaction_bytes", "must be at least 1");
        unless(self.transaction_timeout >= Duration::from_secs(1), "lane.transaction_timeout", "must be at least 1s");
        unless(
            self.delivery_timeout < self.transaction_timeout,
            "lane.delivery_timeout",
            "must be shorter than lane.transaction_timeout, or the broker aborts first",
        );
        unless(
            self.max_poll_interval >= self.transaction_timeout * 2,
            "lane.max_poll_interval",
            "must be at least twice lane.transaction_timeout, since a lane does not poll while it commits",
        );
        unless(
            self.session_timeout >= Duration::from_millis(500) && self.session_timeout <= self.max_poll_interval,
            "lane.session_timeout",
            "must be from 500ms to lane.max_poll_interval (and within the broker's group.min.session.timeout.ms)",
        );
        unless((1..=1_000_000).contains(&self.done_queue), "lane.done_queue", "must be from 1 to 1000000");
        unless((1..=64).contains(&self.restore_threads), "lane.restore_threads", "must be from 1 to 64");
        unless(self.max_failures > 0, "lane.max_failures", "must be at least 1");
        problems
    }
}

/// One lane of a service.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// The service: the group is named after it, and the transactional id begins with it.
    pub service: &'static str,
    /// Which lane of the process this is, from 0.
    pub lane: usize,
    /// The full name of the topic to work on.
    pub input: Arc<str>,
    /// The full name of the compacted topic that holds the application's state; none: it keeps none.
    pub state: Option<Arc<str>>,
}
