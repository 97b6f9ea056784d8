//! What is committed in a topic up to an end, and then no more: for those who count, compare and repeat.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Context};
use crate::cluster;
use crate::error::Cause;
use crate::oauth;
use crate::reader::Error;
use crate::record::{InputRecord, OwnedRecord};
use crate::settings::Settings;

/// How long the brokers may be silent before the reading is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(100);

/// How long a transaction that is open on a topic is waited for, in multiples of our own transaction time-out.
const UNDECIDED_FOR: u32 = 4;

/// Calls `each` with every committed record of a topic, partition by partition in their order, up to where they end
/// when each partition's end is reached. Runs on a thread that may block.
///
/// # Errors
/// When there is no such topic, reading cannot go on, or the brokers are silent for 30 s.
pub async fn read_all(
    settings: &Settings,
    name: &str,
    topic: &Arc<str>,
    each: impl FnMut(OwnedRecord) + Send + 'static,
) -> Result<(), Error> {
    read(settings, name, topic, |_| Ok(()), each).await
}

/// The same, once every transaction is decided that is open on the topic when it begins. Whoever has just fenced a
/// predecessor finds all that this one ever committed, also behind a record that hangs and hides it.
///
/// # Errors
/// As [`read_all`], and when a transaction stays open for longer than four of our transaction time-outs.
pub async fn read_decided(
    settings: &Settings,
    name: &str,
    topic: &Arc<str>,
    each: impl FnMut(OwnedRecord) + Send + 'static,
) -> Result<(), Error> {
    let wait = decided(settings, name, topic)?;
    read(settings, name, topic, wait, each).await
}

/// Waits until every transaction is decided that is open on a topic now: what is read of it from then on is all that
/// anybody who was there before has committed.
///
/// # Errors
/// When there is no such topic, the brokers do not answer, or a transaction stays open for longer than four of our
/// transaction time-outs.
pub async fn until_decided(settings: &Settings, name: &str, topic: &Arc<str>) -> Result<(), Error> {
    let (consumer, wait) = (consumer(settings, name)?, decided(settings, name, topic)?);
    let request = |error: KafkaError| Error::Request {
        action: "Waiting for the open transactions",
        topic: topic.to_string(),
        cause: error.into(),
    };
    tokio::task::spawn_blocking(move || wait(&consumer)).await.map_err(|_| Error::Gone)?.map_err(request)
}

/// What waits, given a client that reads committed records.
fn decided(
    settings: &Settings,
    name: &str,
    topic: &Arc<str>,
) -> Result<impl FnOnce(&BaseConsumer<Context>) -> Result<(), KafkaError> + Send + use<>, Error> {
    let patience = settings.lane.transaction_timeout * UNDECIDED_FOR;
    let uncommitted: BaseConsumer<Context> = client::committed_reads(settings, name)
        .set("isolation.level", "read_uncommitted")
        .create_with_context(Context::of(settings))
        .map_err(|error| unmade(settings, error))?;
    let name_of = Arc::clone(topic);
    Ok(move |committed: &BaseConsumer<Context>| {
        for consumer in [&uncommitted, committed] {
            oauth::give(consumer.context().tokens(), consumer.client());
        }
        let deadline = Instant::now() + patience;
        let ends = |consumer: &BaseConsumer<Context>| -> Result<Vec<i64>, KafkaError> {
            let count = cluster::partition_count(consumer, &name_of, SILENCE)?;
            (0..count).map(|it| cluster::log_ends(consumer, &name_of, it, SILENCE).map(|(_, end)| end)).collect()
        };
        // A topic that was just made may have its leaders elsewhere than the brokers last said.
        let ends = |consumer: &BaseConsumer<Context>| -> Result<Vec<i64>, KafkaError> {
            loop {
                let error = match ends(consumer) {
                    Ok(ends) => return Ok(ends),
                    Err(error) => error,
                };
                let cause = Cause::from(error.clone());
                if cause.is_permanent() || cause.is_unknown_topic() || Instant::now() >= deadline {
                    return Err(error);
                }
                std::thread::sleep(WAIT);
            }
        };
        let targets = ends(&uncommitted)?;
        while ends(committed)?.iter().zip(&targets).any(|(stable, target)| stable < target) {
            if Instant::now() >= deadline {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(WAIT);
        }
        Ok(())
    })
}

async fn read(
    settings: &Settings,
    name: &str,
    topic: &Arc<str>,
    before: impl FnOnce(&BaseConsumer<Context>) -> Result<(), KafkaError> + Send + 'static,
    mut each: impl FnMut(OwnedRecord) + Send + 'static,
) -> Result<(), Error> {
    let consumer = consumer(settings, name)?;
    let topic = Arc::clone(topic);
    let read = move || {
        let request = |action: &'static str| {
            let topic = topic.to_string();
            move |error: KafkaError| Error::Request { action, topic, cause: error.into() }
        };
        oauth::give(consumer.context().tokens(), consumer.client());
        let count = cluster::partition_count(&consumer, &topic, SILENCE).map_err(request("Counting the partitions"))?;
        before(&consumer).map_err(request("Waiting for the open transactions"))?;
        let whole = (0..count).map(|partition| (partition, 0..i64::MAX)).collect();
        let mut spans = Spans::assign(consumer, &topic, whole)?;
        loop {
            match spans.step()? {
                Step::Record(record) => each(record),
                Step::Waiting => {}
                Step::End => return Ok(()),
            }
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| Error::Gone)?
}

/// Spans of a topic's partitions being read, for a thread that may block.
pub struct Spans {
    consumer: BaseConsumer<Context>,
    topic: Arc<str>,
    /// Where each partition that has not ended stands, and before which offset it ends.
    open: BTreeMap<i32, Range<i64>>,
    heard: Instant,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// A committed record.
    Record(OwnedRecord),
    /// Nothing yet: for whoever has something else to look at.
    Waiting,
    /// Every span is read.
    End,
}

impl Spans {
    /// Reads the committed records of `spans`: of each partition from an offset up to another, which is not read. A
    /// partition that has no more committed records ends before it. Offsets that retention has removed are skipped.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn open(
        settings: &Settings,
        name: &str,
        topic: &Arc<str>,
        spans: BTreeMap<i32, Range<i64>>,
    ) -> Result<Self, Error> {
        Self::assign(consumer(settings, name)?, topic, spans)
    }

    fn assign(
        consumer: BaseConsumer<Context>,
        topic: &Arc<str>,
        mut spans: BTreeMap<i32, Range<i64>>,
    ) -> Result<Self, Error> {
        spans.retain(|_, span| !span.is_empty());
        let reading = |error: KafkaError| Error::Reading { cause: error.into() };
        let mut list = TopicPartitionList::with_capacity(spans.len());
        for (partition, span) in &spans {
            let from = if span.start == 0 { Offset::Beginning } else { Offset::Offset(span.start) };
            list.add_partition_offset(topic, *partition, from).map_err(reading)?;
        }
        consumer.assign(&list).map_err(reading)?;
        Ok(Self { consumer, topic: Arc::clone(topic), open: spans, heard: Instant::now() })
    }

    /// The next step.
    ///
    /// # Errors
    /// When reading cannot go on, or the brokers are silent for 30 s.
    pub fn step(&mut self) -> Result<Step, Error> {
        loop {
            if self.open.is_empty() {
                return Ok(Step::End);
            }
            match self.consumer.poll(WAIT) {
                Some(Ok(message)) => {
                    self.heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    // What was fetched of a partition before it ended may still come.
                    let Some(span) = self.open.get_mut(&partition) else { continue };
                    let (is_inside, is_last) = (offset < span.end, offset + 1 >= span.end);
                    span.start = offset + 1;
                    if is_last {
                        self.open.remove(&partition);
                    }
                    if !is_inside {
                        continue;
                    }
                    return Ok(Step::Record(InputRecord::of(&message, message.topic()).to_owned_in(&self.topic)));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.heard = Instant::now();
                    self.open.remove(&partition);
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(Error::Reading { cause: error.into() });
                }
                Some(Err(error)) if self.heard.elapsed() > SILENCE || Cause::from(error.clone()).is_permanent() => {
                    return Err(Error::Reading { cause: error.into() });
                }
                None if self.heard.elapsed() > SILENCE => {
                    let cause = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into();
                    return Err(Error::Reading { cause });
                }
                Some(Err(_)) | None => return Ok(Step::Waiting),
            }
        }
    }
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spans").field("topic", &self.topic).field("open", &self.open).finish_non_exhaustive()
    }
}

fn consumer(settings: &Settings, name: &str) -> Result<BaseConsumer<Context>, Error> {
    client::committed_reads(settings, name)
        // The end is an event of its own: offsets have gaps where transactions ended, so no offset tells it.
        .set("enable.partition.eof", "true")
        .set("group.id", format!("{}{name}-snapshot", settings.topic_prefix))
        .set("fetch.wait.max.ms", "20")
        // Whoever takes records one by one may be slower than the brokers.
        .set("queued.max.messages.kbytes", (16 << 10).to_string())
        .create_with_context(Context::of(settings))
        .map_err(|error| unmade(settings, error))
}

fn unmade(settings: &Settings, error: KafkaError) -> Error {
    Error::Client { bootstrap_servers: settings.bootstrap_servers.clone(), cause: error.into() }
}
