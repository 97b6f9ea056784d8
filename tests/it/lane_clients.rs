//! What stands beside the lane: the producer, the reader, and the topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kafka::producer::Error;
use kafka::reader::{Inspector, TopicPartition};
use kafka::topics::{self, Topic, Topics};
use kafka::{Headers, OutRecord, Producer, Reader, Settings, partition_of};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::lane_support::{Bench, PARTITIONS};
use crate::support::LONG;

fn record(topic: &Arc<str>, id: usize) -> OutRecord {
    OutRecord::new(topic, format!("key-{id}"), id.to_string(), Headers::from(vec![("id", id.to_string().into())]))
}

/// An address that nobody listens on.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_where_its_producer_says_and_where_java_would_put_it() {
    let bench = Bench::new("clients-producer").await;
    let producer = Producer::new(&bench.settings("one"), "test").unwrap();
    let records: Vec<OutRecord> = (0..100).map(|id| record(&bench.input, id)).collect();
    let delivered = join_all(records.iter().map(|record| producer.send(record))).await;
    let written = crate::support::committed(&bench.input).await;
    for (record, delivered) in records.iter().zip(delivered) {
        let delivered = delivered.unwrap();
        assert_eq!(delivered.partition, partition_of(record.key.as_ref().unwrap(), PARTITIONS));
        let found = written
            .iter()
            .find(|found| (found.partition, found.offset) == (delivered.partition, delivered.offset))
            .unwrap();
        assert_eq!((&found.key, &found.value), (&record.key, &record.value));
        assert_eq!(found.header("id").unwrap().as_bytes(), record.value.as_deref().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_a_record_fails_in_time_and_a_full_queue_at_once() {
    let mut settings = Settings::for_brokers(nobody());
    settings.delivery_timeout = Duration::from_secs(1);
    settings.queue_records = 10;
    let producer = Producer::new(&settings, "test").unwrap();
    let topic: Arc<str> = "nowhere".into();
    let records: Vec<OutRecord> = (0..20).map(|id| record(&topic, id)).collect();
    let begun = Instant::now();
    let errors = join_all(records.iter().map(|record| producer.send(record))).await;
    let took = begun.elapsed();
    let full = errors.iter().filter(|answer| matches!(answer, Err(Error::QueueFull { .. }))).count();
    let unacknowledged = errors.iter().filter(|answer| matches!(answer, Err(Error::Unacknowledged { .. }))).count();
    assert_eq!((full, unacknowledged), (10, 10), "{errors:?}");
    assert!(took < LONG / 2, "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gives_what_is_committed_from_where_it_is_told() {
    let bench = Bench::new("clients-reader").await;
    let writer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bench.bootstrap)
        .set("transactional.id", format!("{}writer", bench.prefix))
        .create()
        .unwrap();
    writer.init_transactions(LONG).unwrap();
    for (value, commits) in [("a", true), ("b", false), ("c", true), ("d", false), ("e", true)] {
        writer.begin_transaction().unwrap();
        writer.send(BaseRecord::to(&bench.input).key("key").payload(value).partition(1)).unwrap();
        writer.flush(LONG).unwrap();
        if commits {
            writer.commit_transaction(LONG).unwrap();
        } else {
            writer.abort_transaction(LONG).unwrap();
        }
    }
    let settings = bench.settings("one");
    let ends = Inspector::new(&settings).unwrap().ends(&bench.input).await.unwrap();
    assert_eq!(ends.iter().map(|ends| ends.end).collect::<Vec<_>>(), [0, 10, 0, 0], "records and what ends them");

    let read = async |from: i64, n: usize| {
        let position = TopicPartition { topic: bench.input.clone(), partition: 1 };
        let mut reader = Reader::start(&settings, "test", BTreeMap::from([(position, from)])).unwrap();
        let mut values = Vec::new();
        while values.len() < n {
            let batch = tokio::time::timeout(LONG, reader.next()).await.unwrap().unwrap();
            values.extend(batch.into_iter().map(|record| (record.offset, record.value.unwrap())));
        }
        values
    };
    assert_eq!(read(0, 3).await, [(0, "a".into()), (4, "c".into()), (8, "e".into())]);
    assert_eq!(read(1, 2).await, [(4, "c".into()), (8, "e".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_by_many_at_once_and_must_agree() {
    let bench = Bench::new("clients-topics").await;
    let settings = Settings { partitions: 3, ..bench.settings("one") };
    let topics = Topics::new(&bench.prefix);
    let missing = topics::check(&settings, &topics, &Topic::ALL).await.unwrap_err();
    assert!(missing.to_string().contains(topics.name(Topic::State).as_ref()), "{missing}");
    // One that somebody made otherwise.
    bench.create(topics.name(Topic::Discovered), 5).await;
    let made = join_all((0..4).map(|_| topics::create(&settings, &topics, &Topic::ALL))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let error = topics::check(&settings, &topics, &Topic::ALL).await.unwrap_err().to_string();
    for part in ["gmail.message.discovered", "5", "3 partitions"] {
        assert!(error.contains(part), "{error}");
    }
    let others: Vec<Topic> = Topic::ALL.into_iter().filter(|topic| *topic != Topic::Discovered).collect();
    topics::check(&settings, &topics, &others).await.unwrap();
}
