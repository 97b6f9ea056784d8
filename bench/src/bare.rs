//! librdkafka without Mailtide: clients set up as Mailtide's are, and loops around them that do nothing else.

use std::time::{Duration, Instant};

use anyhow::Context;
use kafka::OwnedRecord;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;

/// A record to write again, byte for byte. What does not change lies ready; headers are handed to librdkafka record by
/// record, because it takes them over.
pub(crate) struct Bytes {
    pub(crate) partition: i32,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl From<OwnedRecord> for Bytes {
    fn from(record: OwnedRecord) -> Self {
        let headers = record.headers.iter();
        Self {
            partition: record.partition,
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.map(|value| value.to_vec()).unwrap_or_default()))
                .collect(),
            key: record.key.unwrap_or_default().to_vec(),
            value: record.value.unwrap_or_default().to_vec(),
        }
    }
}

impl Bytes {
    pub(crate) fn headers(&self) -> OwnedHeaders {
        headers(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())), self.headers.len())
    }
}

/// Headers as librdkafka takes them.
pub(crate) fn headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, n: usize) -> OwnedHeaders {
    headers.fold(OwnedHeaders::new_with_capacity(n), |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}

/// What all clients share.
fn client(kafka: &kafka::Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true");
    config
}

/// Any producer: idempotent, acknowledged by all replicas, lz4.
pub(crate) fn producer(kafka: &kafka::Settings) -> ClientConfig {
    let mut config = client(kafka);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1");
    config
}

/// A transactional producer, ready to begin.
pub(crate) fn transactional(kafka: &kafka::Settings) -> anyhow::Result<BaseProducer> {
    let producer: BaseProducer = producer(kafka)
        .set("transactional.id", format!("{}bare", kafka.topic_prefix))
        .set("delivery.report.only.error", "true")
        .set("linger.ms", "0")
        .set("transaction.timeout.ms", "15000")
        .set("message.timeout.ms", "10000")
        .set("socket.timeout.ms", "15000")
        .set("retry.backoff.ms", "1")
        .set("retry.backoff.max.ms", "5")
        .create()?;
    producer.init_transactions(Timeout::After(Duration::from_secs(60))).context("Starting transactions")?;
    Ok(producer)
}

/// A consumer of committed records, in a group or not.
pub(crate) fn consumer(kafka: &kafka::Settings, group: &str) -> anyhow::Result<BaseConsumer> {
    let consumer = client(kafka)
        .set("group.id", format!("{}{group}", kafka.topic_prefix))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("fetch.wait.max.ms", "50")
        .create()?;
    Ok(consumer)
}

/// Makes a topic with as many partitions as Mailtide's.
pub(crate) async fn create_topic(kafka: &kafka::Settings, name: &str) -> anyhow::Result<String> {
    let topic = format!("{}{name}", kafka.topic_prefix);
    let admin: AdminClient<DefaultClientContext> = client(kafka).create()?;
    let wanted = NewTopic::new(&topic, kafka.partitions, TopicReplication::Fixed(kafka.replication_factor));
    let results = admin.create_topics([&wanted], &AdminOptions::new()).await?;
    for result in results {
        result.map_err(|(name, code)| anyhow::anyhow!("Creating {name} failed: {code}"))?;
    }
    // Created is not known: the broker answers for it a moment later.
    let consumer: BaseConsumer = client(kafka).create()?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(10))?;
        let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        if known.is_some_and(|known| known.partitions().len() == usize::try_from(kafka.partitions).unwrap_or(0)) {
            return Ok(topic);
        }
        anyhow::ensure!(Instant::now() < until, "The broker does not know {topic} 30 s after creating it");
        tokio::task::yield_now().await;
    }
}

/// Hands a record over as it is, waiting for room.
pub(crate) fn enqueue(producer: &BaseProducer, topic: &str, bytes: &Bytes, partition: i32) -> anyhow::Result<()> {
    let record = BaseRecord::to(topic)
        .partition(partition)
        .key(bytes.key.as_slice())
        .payload(bytes.value.as_slice())
        .headers(bytes.headers());
    hand_over(producer, record)
}

/// Hands a record over, waiting for room.
pub(crate) fn hand_over(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) -> anyhow::Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(1));
                record = back;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Waits until all that was handed over is acknowledged.
#[allow(unsafe_code, reason = "the binding's own flush polls, in slices of 100 ms, and its poll spins")]
pub(crate) fn drain(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        // SAFETY: the producer keeps its client alive; that time is over, the only error, is found out by asking again.
        let _ = unsafe { native::rd_kafka_flush(producer.client().native_ptr(), 20) };
        producer.poll(Duration::ZERO);
    }
}
