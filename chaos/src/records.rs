//! What is in a topic, for a consumer that reads committed records only.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

/// One committed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// In their order; a header's value may be null.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    /// The first header of this name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The key as text.
    #[must_use]
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// Everything in it that somebody could read: key, value and headers.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let headers = self.headers.iter().flat_map(|(name, value)| [Some(name.as_bytes()), value.as_deref()]);
        [self.key.as_deref(), self.value.as_deref()].into_iter().chain(headers).flatten()
    }
}

/// How long a broker may take for anything, on a slow and busy machine.
const LONG: Duration = Duration::from_secs(60);

/// How long a transaction that is open is waited for.
const OPEN: Duration = Duration::from_secs(10);

/// Between two looks at how far a partition is decided.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until every transaction that has written to `topic` by now is decided there, for at most [`OPEN`]: what one
/// hangs in is not waited for, but read without.
///
/// A transaction is committed once its coordinator has written so. The markers that let readers see it come after that,
/// to each partition at its own time: who has seen its end in one topic need not see its records in another yet.
///
/// # Panics
/// When the brokers do not tell where a partition ends.
pub fn until_decided_blocking(bootstrap: &str, topic: &str) {
    let (all, stable) = (consumer(bootstrap, "read_uncommitted"), consumer(bootstrap, "read_committed"));
    let end =
        |consumer: &BaseConsumer, partition| consumer.fetch_watermarks(topic, partition, LONG).map(|(_, end)| end);
    let until = Instant::now() + OPEN;
    for partition in partitions(&all, topic) {
        let written = end(&all, partition).expect("the brokers tell where a partition ends");
        while Instant::now() < until && end(&stable, partition).is_ok_and(|decided| decided < written) {
            std::thread::sleep(PAUSE);
        }
    }
}

fn consumer(bootstrap: &str, isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "tests-read-only")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        // The end of a partition is an event: offsets have gaps, so they cannot tell it.
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .create()
        .expect("the consumer's settings are good")
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> BTreeSet<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), LONG).expect("the brokers answer");
    let partitions: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    assert!(!partitions.is_empty(), "{topic} is not there");
    partitions
}

/// Everything committed in `topic` (its full name) at this moment, by partition and offset.
///
/// # Panics
/// When the brokers do not give it within a minute.
#[must_use]
pub fn committed_blocking(bootstrap: &str, topic: &str) -> Vec<Record> {
    let consumer = consumer(bootstrap, "read_committed");
    let partitions = partitions(&consumer, topic);
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).expect("the beginning is an offset");
    }
    consumer.assign(&assignment).expect("partitions that are there can be assigned");

    let mut last = Instant::now();
    let mut unfinished = partitions;
    let mut records = Vec::new();
    while !unfinished.is_empty() {
        assert!(last.elapsed() < LONG, "partitions {unfinished:?} of {topic} gave nothing for {LONG:?}, nor their end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last = Instant::now();
                records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis(),
                    key: message.key().map(Bytes::copy_from_slice),
                    value: message.payload().map(Bytes::copy_from_slice),
                    headers: headers(&message),
                });
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                last = Instant::now();
                unfinished.remove(&partition);
            }
            // The broker may be on its way back; the deadline is above.
            Some(Err(_)) | None => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn headers(message: &impl Message) -> Vec<(String, Option<Bytes>)> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    headers.map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))).collect()
}
