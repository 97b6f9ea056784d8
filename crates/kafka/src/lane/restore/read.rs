//! Feeds the state's records to the application's restore.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use super::{Job, Origin, Reply, finish, panic_message};
use crate::client::{self, Context};
use crate::cluster;
use crate::lane::app::Restore;
use crate::lane::error::Failure;
use crate::lane::tuning::LaneSettings;
use crate::native;
use crate::record::InputRecord;
use crate::settings::Settings;

/// How many records are read before the thread looks whether a restore was cancelled or added.
const RECORDS_A_TURN: usize = 1000;

/// How long it waits for records.
const WAIT: Duration = Duration::from_millis(10);

/// How long connecting to a partition's leader may hold up the others.
const CONNECT: Duration = Duration::from_millis(500);

/// A partition to read.
pub(super) struct Task<R> {
    pub(super) job: Job<R>,
    pub(super) origin: Origin,
    /// Where the state's log begins.
    pub(super) low: i64,
    /// Read up to here.
    pub(super) target: i64,
}

struct Reading<R> {
    task: Task<R>,
    records: u64,
}

/// A reading thread.
pub(super) struct Reader<R: Restore> {
    consumer: BaseConsumer<Context>,
    state: Arc<str>,
    tasks: Receiver<Task<R>>,
    reply: Reply<R::Part>,
}

impl<R: Restore> Reader<R> {
    pub(super) fn new(
        settings: &Settings,
        lane: &LaneSettings,
        group: &str,
        state: Arc<str>,
        tasks: Receiver<Task<R>>,
        reply: Reply<R::Part>,
    ) -> Result<Self, Failure> {
        let consumer = client::committed_reads(settings, &format!("{}-{}-restore", lane.service, lane.lane))
            // librdkafka assigns nothing without a group's name; this one is never joined and commits nothing.
            .set("group.id", format!("{group}-restore"))
            .set("enable.partition.eof", "true")
            // The end of a partition is told when a fetch comes back empty, so an empty one must not take long.
            .set("fetch.wait.max.ms", "5")
            .set("fetch.message.max.bytes", (4 << 20).to_string())
            .set("queued.max.messages.kbytes", (32 << 10).to_string())
            .create_with_context(Context::of(settings))
            .map_err(|error| Failure::Client { what: "restoring consumer", cause: error.into() })?;
        Ok(Self { consumer, state, tasks, reply })
    }

    /// Works until nobody sends tasks any more.
    pub(super) fn run(self) {
        let mut reading: BTreeMap<i32, Reading<R>> = BTreeMap::new();
        while self.take_tasks(&mut reading) {
            let cancelled: Vec<i32> = reading
                .iter()
                .filter(|(_, reading)| reading.task.job.cancel.is_cancelled())
                .map(|(partition, _)| *partition)
                .collect();
            for partition in cancelled {
                reading.remove(&partition);
                self.unassign(partition);
            }
            for _ in 0..RECORDS_A_TURN {
                match self.consumer.poll(WAIT) {
                    Some(Ok(message)) => self.record(&mut reading, &message),
                    Some(Err(KafkaError::PartitionEOF(partition))) => self.complete(&mut reading, partition),
                    Some(Err(error)) => debug!(%error, topic = %self.state, "Reading state is delayed"),
                    None => break,
                }
                if reading.is_empty() {
                    break;
                }
            }
        }
    }

    /// Takes what has come; waits if there is nothing else to do. False when the lane is gone.
    fn take_tasks(&self, reading: &mut BTreeMap<i32, Reading<R>>) -> bool {
        loop {
            let next = match self.tasks.try_recv() {
                Err(TryRecvError::Empty) if reading.is_empty() => {
                    // All is read that there was, and the next restore may be weeks away.
                    native::give_back();
                    self.tasks.recv().map_err(|_| TryRecvError::Disconnected)
                }
                next => next,
            };
            match next {
                Ok(task) => self.begin(reading, task),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&self, reading: &mut BTreeMap<i32, Reading<R>>, task: Task<R>) {
        let partition = task.job.assignment.partition;
        // An earlier ownership of the same partition is over, or this task would not be here.
        if reading.remove(&partition).is_some() {
            self.unassign(partition);
        }
        // A question makes librdkafka connect to the leader at once; an assignment alone may leave it idle for a second.
        if let Err(error) = cluster::log_ends(&self.consumer, &self.state, partition, CONNECT) {
            debug!(%error, topic = %self.state, partition, "Reading state is delayed");
        }
        let list = self.list(partition, Offset::Offset(task.low));
        match self.consumer.incremental_assign(&list) {
            Ok(()) => {
                reading.insert(partition, Reading { task, records: 0 });
            }
            Err(error) => {
                let failure = Failure::Call { what: "reading state", cause: error.into() };
                self.reply.send(task.job.assignment, Err(failure));
            }
        }
    }

    fn record(&self, reading: &mut BTreeMap<i32, Reading<R>>, message: &BorrowedMessage<'_>) {
        let partition = message.partition();
        let Some(entry) = reading.get_mut(&partition) else { return };
        if message.offset() < entry.task.target {
            let record = InputRecord::of(message, &self.state);
            let restore = &mut entry.task.job.restore;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| restore.record(&record))) {
                let failure = Failure::Panicked(panic_message(panic.as_ref()));
                self.reply.send(entry.task.job.assignment, Err(failure));
                reading.remove(&partition);
                self.unassign(partition);
                return;
            }
            entry.records += 1;
        }
        if message.offset() + 1 >= entry.task.target {
            self.complete(reading, partition);
        }
    }

    /// The partition was read up to its target: the end was told, and when reading began it was stable to there.
    fn complete(&self, reading: &mut BTreeMap<i32, Reading<R>>, partition: i32) {
        if let Some(Reading { task, records }) = reading.remove(&partition) {
            self.unassign(partition);
            finish(task.job, task.origin, records, &self.reply);
        }
    }

    fn unassign(&self, partition: i32) {
        if let Err(error) = self.consumer.incremental_unassign(&self.list(partition, Offset::Invalid)) {
            debug!(%error, partition, "Leaving a state partition failed");
        }
    }

    fn list(&self, partition: i32, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.state, partition, offset).expect("a number or the invalid offset");
        list
    }
}
