//! The lane's place in the group: a consumer whose rebalances are ours.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};

use crate::client;
use crate::error::Cause;
use crate::faults::{Fault, Faults};
use crate::lane::done::Waker;
use crate::lane::error::Failure;
use crate::lane::tuning::LaneSettings;
use crate::oauth::{self, Tokens};
use crate::settings::Settings;
use crate::statistics;

/// A rebalance that librdkafka waits for us to carry out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These partitions are ours from now on.
    Assigned(Vec<i32>),
    /// These partitions are to be given up, or were taken from us already.
    Revoked(Vec<i32>),
}

/// Callbacks of the lane's consumer. They run within `poll`, on the lane's thread; they only take notes.
///
/// The loop carries a rebalance out after `poll` has returned, so that a transaction can be finished first, and
/// nothing of the loop's state has to be reached from within a callback. librdkafka waits for the answer.
pub(crate) struct Rebalances {
    changes: Mutex<VecDeque<Change>>,
    /// How many callbacks ran: tells an empty queue from an event that was served within `poll`.
    served: AtomicU64,
    /// The consumer is being closed, and nobody is left to carry anything out.
    closing: AtomicBool,
    faults: Faults,
    tokens: Option<Tokens>,
}

impl Rebalances {
    fn new(faults: Faults, tokens: Option<Tokens>) -> Self {
        Self {
            changes: Mutex::new(VecDeque::new()),
            served: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            faults,
            tokens,
        }
    }

    fn changes(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Rebalances {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.count();
        client::log(level, facility, message);
    }

    fn stats(&self, told: Statistics) {
        self.count();
        statistics::record(&told);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.count();
        tracing::debug!(%error, reason, "Kafka client error");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.count();
        oauth::answer(self.tokens.as_ref())
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.count();
        let is_assign = code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) || self.faults.has(Fault::LibraryRebalance) {
            // The answer is due at once. What cannot be carried out here ends with the consumer.
            let _ = if is_assign { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
        }
        let partitions = list.elements().iter().map(|element| element.partition()).collect();
        self.changes().push_back(if is_assign { Change::Assigned(partitions) } else { Change::Revoked(partitions) });
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.count();
    }
}

/// What one poll came to.
pub(crate) enum Polled<'a> {
    /// A record.
    Record(BorrowedMessage<'a>),
    /// A rebalance to carry out before anything else.
    Change(Change),
    /// The consumer's complaint.
    Error(KafkaError),
    /// Nothing is there; the waker fires when something is.
    Nothing,
}

/// The lane's consumer.
pub(crate) struct Member {
    consumer: BaseConsumer<Rebalances>,
    topic: Arc<str>,
}

impl Member {
    /// Joins the group, with `waker` to fire whenever something is there to be polled.
    pub(crate) fn join(settings: &Settings, lane: &LaneSettings, group: &str, waker: Waker) -> Result<Self, Failure> {
        let tuning = &settings.lane;
        let mut config = client::committed_reads(settings, &format!("{}-{}", lane.service, lane.lane));
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", tuning.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", (tuning.session_timeout / 5).as_millis().clamp(100, 3000).to_string())
            .set("max.poll.interval.ms", tuning.max_poll_interval.as_millis().to_string())
            // A partition that is resumed joins the next fetch, so the one under way must not take long. Records that
            // arrive end a fetch at once, whatever this is.
            .set("fetch.wait.max.ms", "50")
            .set("fetch.message.max.bytes", (1 << 20).to_string())
            .set("queued.max.messages.kbytes", (16 << 10).to_string())
            .set("queued.min.messages", "10000");
        let context = Rebalances::new(tuning.faults.clone(), settings.security.tokens.clone());
        let mut consumer: BaseConsumer<Rebalances> = config
            .create_with_context(context)
            .map_err(|error| Failure::Client { what: "lane's consumer", cause: error.into() })?;
        consumer.set_nonempty_callback(move || waker.wake());
        consumer
            .subscribe(&[lane.input.as_ref()])
            .map_err(|error| Failure::Call { what: "subscribing to the input", cause: error.into() })?;
        Ok(Self { consumer, topic: lane.input.clone() })
    }

    /// The consumer, for what only concerns librdkafka.
    pub(crate) fn consumer(&self) -> &BaseConsumer<Rebalances> {
        &self.consumer
    }

    /// Takes what is there, without waiting.
    pub(crate) fn poll(&self) -> Polled<'_> {
        loop {
            let context = self.consumer.context();
            if let Some(change) = context.changes().pop_front() {
                return Polled::Change(change);
            }
            let served = context.served.load(Ordering::Relaxed);
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => return Polled::Record(message),
                Some(Err(error)) => return Polled::Error(error),
                // No event, or one that a callback has served; in that case more may be there.
                None if context.served.load(Ordering::Relaxed) != served => {}
                None => return Polled::Nothing,
            }
        }
    }

    /// Takes up partitions without reading them: each stands at an explicit number, paused, until it is started.
    pub(crate) fn take_up(&self, partitions: &[i32]) -> Result<(), Failure> {
        if !self.is_library_rebalance() {
            let done = self.consumer.incremental_assign(&self.at(partitions, Offset::Offset(0)));
            done.map_err(|error| Failure::Call { what: "taking up assigned partitions", cause: error.into() })?;
        }
        self.pause(partitions)
    }

    /// Gives partitions up, which lets the group go on.
    pub(crate) fn give_up(&self, partitions: &[i32]) -> Result<(), Failure> {
        if self.is_library_rebalance() {
            return Ok(());
        }
        let done = self.consumer.incremental_unassign(&self.list(partitions));
        done.map_err(|error| Failure::Call { what: "giving up revoked partitions", cause: error.into() })
    }

    /// Starts reading a partition that was taken up, at this offset.
    pub(crate) fn start_at(&self, partition: i32, offset: i64) -> Result<(), Cause> {
        if !self.is_library_rebalance() {
            self.consumer.seek(&self.topic, partition, Offset::Offset(offset), Duration::from_secs(1))?;
        }
        self.consumer.resume(&self.list(&[partition]))?;
        Ok(())
    }

    /// Holds partitions back. What was fetched of them is dropped, and fetched again later.
    pub(crate) fn pause(&self, partitions: &[i32]) -> Result<(), Failure> {
        let done = self.consumer.pause(&self.list(partitions));
        done.map_err(|error| Failure::Call { what: "pausing partitions", cause: error.into() })
    }

    /// Lets partitions go on from the record after the last that was polled.
    pub(crate) fn resume(&self, partitions: &[i32]) -> Result<(), Failure> {
        let done = self.consumer.resume(&self.list(partitions));
        done.map_err(|error| Failure::Call { what: "resuming partitions", cause: error.into() })
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    fn at(&self, partitions: &[i32], offset: Offset) -> TopicPartitionList {
        let mut list = self.list(partitions);
        list.set_all_offsets(offset).expect("every offset given is one that librdkafka can represent");
        list
    }

    /// Whether partitions were taken from us without our having given them up.
    pub(crate) fn has_lost_assignment(&self) -> bool {
        self.consumer.assignment_lost()
    }

    pub(crate) fn is_library_rebalance(&self) -> bool {
        self.consumer.context().faults.has(Fault::LibraryRebalance)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // From here on rebalances are answered within the callback: the loop is gone, and closing waits for it.
        let context = self.consumer.context();
        context.closing.store(true, Ordering::Relaxed);
        // One that was polled and not carried out still blocks the closing.
        let unanswered: Vec<Change> = context.changes().drain(..).collect();
        for change in unanswered {
            let _ = match change {
                Change::Assigned(partitions) => {
                    self.consumer.incremental_assign(&self.at(&partitions, Offset::Offset(0)))
                }
                Change::Revoked(partitions) => self.consumer.incremental_unassign(&self.list(&partitions)),
            };
        }
    }
}
