//! The ground the other tests stand on: the servers are real, keep what they were given over a
//! `kill -9`, and a process can be run and killed.

use std::time::Duration;

use devstack::{Kafka, KafkaOptions};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{LONG, Place, committed, committed_blocking, stack, wait_until};

async fn create(bootstrap: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topics = [NewTopic::new(topic, 2, TopicReplication::Fixed(1))];
    let created = admin.create_topics(&topics, &AdminOptions::new().operation_timeout(Some(LONG))).await.unwrap();
    assert_eq!(created, [Ok(topic.to_owned())]);
}

fn transactional(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("transactional.id", id).create().unwrap();
    producer.init_transactions(LONG).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, value: &str) {
    producer.send(BaseRecord::to(topic).key("k").payload(value)).unwrap();
    producer.flush(LONG).unwrap();
}

#[tokio::test]
async fn kafka_keeps_what_was_committed_over_a_kill_and_hides_what_was_aborted() {
    let mut kafka = Kafka::start(&KafkaOptions { own: true, short_lived: true, ..KafkaOptions::default() }).unwrap();
    let bootstrap = kafka.bootstrap().to_owned();
    create(&bootstrap, "kept").await;
    let producer = transactional(&bootstrap, "one");
    for (value, commit) in [("a", true), ("b", false), ("c", true)] {
        producer.begin_transaction().unwrap();
        send(&producer, "kept", value);
        match commit {
            true => producer.commit_transaction(LONG).unwrap(),
            false => producer.abort_transaction(LONG).unwrap(),
        }
    }
    kafka.kill().unwrap();
    kafka.restart().unwrap();
    let values = || -> Vec<_> {
        committed_blocking(&bootstrap, "kept").into_iter().map(|record| record.value.unwrap()).collect()
    };
    // A transaction is committed once its coordinator has written so; the marker in the topic, which lets readers see
    // it, may come after the restart.
    wait_until(LONG, "what was committed is seen", || async { values().len() >= 2 }).await;
    let values = values();
    assert_eq!(values, ["a", "c"]);
}

#[tokio::test]
async fn places_do_not_see_each_other() {
    let (one, other) = (Place::new("places"), Place::new("places"));
    assert_ne!(one.prefix(), other.prefix());
    assert_ne!(one.database_url(), other.database_url());
    let topic = one.topic("topic");
    create(stack().kafka.bootstrap(), &topic).await;
    assert!(committed(&topic).await.is_empty());
}

#[tokio::test]
async fn the_program_refuses_wrong_settings_all_at_once() {
    let mut program = Place::new("settings")
        .service("topics", &["topics", "check"])
        .set("MAILTIDE_KAFKA_PARTITIONS", "many")
        .set("MAILTIDE_NO_SUCH_SETTING", "1");
    assert_eq!(program.start().ended().await, 2);
    let log = program.log();
    assert!(log.contains("kafka.partitions") && log.contains("MAILTIDE_NO_SUCH_SETTING"), "{log}");
}

#[tokio::test]
async fn a_process_can_be_killed_and_started_again() {
    let mut simulator =
        Place::new("process").service("simulator", &["simulator"]).set("MAILTIDE_SIMULATOR_LISTEN", "127.0.0.1:0");
    let first = simulator.start().logged("The Gmail simulator listens", "addr").await;
    simulator.kill();
    assert!(!simulator.is_running());
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    client.get(format!("http://{first}/")).send().await.unwrap_err();
    let second = simulator.start().logged("The Gmail simulator listens", "addr").await;
    client.get(format!("http://{second}/")).send().await.unwrap();
    assert_eq!(simulator.stop(), 0);
}
