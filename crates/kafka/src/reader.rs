//! Reads committed records of partitions and from offsets that the caller gives: no group, no commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::client::{self, Context};
use crate::cluster;
use crate::error::Cause;
use crate::oauth;
use crate::record::{InputRecord, OwnedRecord};
use crate::settings::Settings;

/// How many records a batch has at most.
const BATCH: usize = 1000;

/// How many bytes a batch has at most, but for its last record.
const BATCH_BYTES: usize = 4 << 20;

/// How many batches wait for the caller at most.
const BATCHES: usize = 4;

/// How long the thread waits for records before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);

/// How long one question to a broker may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Why partitions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No consumer could be made from the settings.
    #[error("Making a consumer for {bootstrap_servers} failed: {cause}; check the settings `kafka.*`")]
    Client {
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// A question about a topic was not answered.
    #[error("{action} of {topic} failed: {cause}; check that the topic exists and the brokers can be reached")]
    Request {
        /// What was asked.
        action: &'static str,
        /// The topic's full name.
        topic: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// Reading cannot go on.
    #[error("Reading failed for good: {cause}")]
    Reading {
        /// What librdkafka said.
        cause: Cause,
    },
    /// The log goes back behind the position that was given.
    #[error(
        "Partition {partition} of {topic} gave offset {found} where {expected} was next; the log is shorter than the \
         stored position says, so records were lost at the brokers, and somebody has to decide what to read again"
    )]
    Rewound {
        /// The topic's full name.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset that was next.
        expected: i64,
        /// The offset that came.
        found: i64,
    },
    /// The thread that reads is gone.
    #[error("The reading thread is gone")]
    Gone,
}

/// Where a partition's committed records begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The first offset that is still there.
    pub low: i64,
    /// The next offset after what is committed; offsets below it may be missing.
    pub end: i64,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

/// Answers questions about topics. Cloning it is cheap.
#[derive(Clone)]
pub struct Inspector {
    consumer: Arc<BaseConsumer<Context>>,
}

impl Inspector {
    /// A client of its own for questions.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self { consumer: Arc::new(consumer(settings, "inspector")?) })
    }

    /// A topic's partition count.
    ///
    /// # Errors
    /// When there is no such topic or no broker answers within 10 s.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, Error> {
        let name = topic.to_owned();
        self.ask("Counting the partitions", topic, move |consumer| cluster::partition_count(consumer, &name, ANSWER))
            .await
    }

    /// Where the committed records of each of a topic's partitions begin and end, by partition number.
    ///
    /// # Errors
    /// When there is no such topic or no broker answers within 10 s.
    pub async fn ends(&self, topic: &str) -> Result<Vec<Ends>, Error> {
        let name = topic.to_owned();
        self.ask("Finding the ends", topic, move |consumer| {
            let count = cluster::partition_count(consumer, &name, ANSWER)?;
            (0..count)
                .map(|partition| {
                    let (low, end) = cluster::log_ends(consumer, &name, partition, ANSWER)?;
                    Ok(Ends { low, end })
                })
                .collect()
        })
        .await
    }

    /// For each of a topic's partitions, by number, the first offset whose record was written at `at` (milliseconds
    /// since 1970) or later; where there is none, the end of what is committed.
    ///
    /// # Errors
    /// When there is no such topic or no broker answers within 10 s.
    pub async fn offsets_at(&self, topic: &str, at: i64) -> Result<Vec<i64>, Error> {
        let name = topic.to_owned();
        self.ask("Finding the offsets of a time", topic, move |consumer| {
            cluster::offsets_at(consumer, &name, at, ANSWER)
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        action: &'static str,
        topic: &str,
        question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Error> {
        let consumer = self.consumer.clone();
        let answer = tokio::task::spawn_blocking(move || {
            oauth::give(consumer.context().tokens(), consumer.client());
            question(&consumer)
        });
        let answer = answer.await.map_err(|_| Error::Gone)?;
        answer.map_err(|error| Error::Request { action, topic: topic.to_owned(), cause: error.into() })
    }
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").finish_non_exhaustive()
    }
}

/// Reads committed records on a thread of its own. Dropping it ends the thread.
#[derive(Debug)]
pub struct Reader {
    batches: mpsc::Receiver<Vec<OwnedRecord>>,
    ended: oneshot::Receiver<Error>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Reads from `positions`: the next offset of each partition. Offsets that retention has removed are skipped.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn start(settings: &Settings, name: &str, positions: BTreeMap<TopicPartition, i64>) -> Result<Self, Error> {
        let consumer = consumer(settings, name)?;
        let mut list = TopicPartitionList::with_capacity(positions.len());
        let mut by_topic = Positions::new();
        for (TopicPartition { topic, partition }, offset) in positions {
            let added = list.add_partition_offset(&topic, partition, Offset::Offset(offset));
            added.map_err(|error| Error::Reading { cause: error.into() })?;
            by_topic.entry(topic).or_default().insert(partition, offset);
        }
        consumer.assign(&list).map_err(|error| Error::Reading { cause: error.into() })?;
        let (sender, batches) = mpsc::channel(BATCHES);
        let (say, ended) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let reading = Reading { consumer, positions: by_topic, sender, stop: stop.clone() };
        let run = move || {
            if let Err(error) = reading.run() {
                // Nobody may be waiting for it.
                let _ = say.send(error);
            }
        };
        thread::Builder::new().name(format!("reader-{name}")).spawn(run).map_err(|_| Error::Gone)?;
        Ok(Self { batches, ended, stop })
    }

    /// The next records, at least one; waits for them. Safe to drop and call again.
    ///
    /// # Errors
    /// When reading cannot go on; the reader is of no more use then.
    pub async fn next(&mut self) -> Result<Vec<OwnedRecord>, Error> {
        match self.batches.recv().await {
            Some(batch) => Ok(batch),
            None => Err((&mut self.ended).await.unwrap_or(Error::Gone)),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The thread's side of a reader.
struct Reading {
    consumer: BaseConsumer<Context>,
    positions: Positions,
    sender: mpsc::Sender<Vec<OwnedRecord>>,
    stop: Arc<AtomicBool>,
}

impl Reading {
    /// Reads until it is told to stop or nobody listens.
    fn run(mut self) -> Result<(), Error> {
        // A question makes librdkafka connect at once; an assignment alone may leave it idle for a second.
        let first = self.positions.first_key_value().and_then(|(topic, all)| Some((topic, all.first_key_value()?.0)));
        if let Some((topic, partition)) = first
            && let Err(error) = cluster::log_ends(&self.consumer, topic, *partition, WAIT * 10)
        {
            debug!(%error, %topic, "Reading is delayed");
        }
        while !self.stop.load(Ordering::Acquire) {
            let batch = self.batch()?;
            if !batch.is_empty() && !self.hand_over(batch) {
                break;
            }
        }
        Ok(())
    }

    /// Takes what is there; waits a little for the first record.
    fn batch(&mut self) -> Result<Vec<OwnedRecord>, Error> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let wait = if batch.is_empty() { WAIT } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = InputRecord::of(&message, message.topic());
                    bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                    batch.extend(advance(&mut self.positions, record)?);
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Reading { cause: error.into() });
                }
                Some(Err(error)) => {
                    let cause = Cause::from(error);
                    if cause.is_permanent() {
                        return Err(Error::Reading { cause });
                    }
                    debug!(%cause, "Reading is delayed");
                }
            }
        }
        Ok(batch)
    }

    /// Hands a batch over, waiting for room; false when nobody listens any more.
    ///
    /// No poll is due meanwhile: without a group nobody takes us for dead, and librdkafka's queue is bounded.
    fn hand_over(&self, batch: Vec<OwnedRecord>) -> bool {
        self.sender.blocking_send(batch).is_ok()
    }
}

/// The next offset of each partition, by topic.
type Positions = BTreeMap<Arc<str>, BTreeMap<i32, i64>>;

/// Moves past a record, and copies it; none if it is of a partition that nobody asked for.
fn advance(positions: &mut Positions, record: InputRecord<'_>) -> Result<Option<OwnedRecord>, Error> {
    // Looked up by the name that the records share, so that none is made for each.
    let Some((topic, _)) = positions.get_key_value(record.topic) else { return Ok(None) };
    let topic = topic.clone();
    let next = positions.get_mut(&topic).and_then(|partitions| partitions.get_mut(&record.partition));
    let Some(next) = next else { return Ok(None) };
    if record.offset < *next {
        let (partition, expected, found) = (record.partition, *next, record.offset);
        return Err(Error::Rewound { topic, partition, expected, found });
    }
    *next = record.offset + 1;
    Ok(Some(record.to_owned_in(&topic)))
}

fn consumer(settings: &Settings, name: &str) -> Result<BaseConsumer<Context>, Error> {
    client::committed_reads(settings, name)
        // librdkafka assigns nothing without a group's name; this one is never joined and commits nothing.
        .set("group.id", format!("{}{name}-reader", settings.topic_prefix))
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", (16 << 10).to_string())
        .create_with_context(Context::of(settings))
        .map_err(|error| Error::Client { bootstrap_servers: settings.bootstrap_servers.clone(), cause: error.into() })
}
