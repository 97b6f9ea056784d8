//! What others take over, and what goes on while something is away.

use std::collections::BTreeMap;

use devstack::{Postgres, PostgresOptions};
use domain::Command;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use uuid::Uuid;

use crate::house::{House, Mailbox};
use crate::support::{LONG, stack, wait_until};
use chaos::checker::check;

/// How many members of the pollers' group have partitions, once the group is at rest.
async fn at_work(house: &House) -> Option<usize> {
    let group = format!("{}poller", house.place.prefix());
    let look = move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", stack().kafka.bootstrap()).create().unwrap();
        let groups = consumer.fetch_group_list(Some(&group), LONG).unwrap();
        let group = groups.groups().first().filter(|group| group.state() == "Stable")?;
        // An assignment is a version, a count of topics, and then the topics.
        let has_some = |bytes: &[u8]| bytes.get(2..6).is_some_and(|count| count != [0; 4]);
        Some(group.members().iter().filter(|member| member.assignment().is_some_and(has_some)).count())
    };
    tokio::task::spawn_blocking(look).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_hold_when_a_poller_stops_and_its_partitions_move() {
    const MAILBOXES: usize = 24;
    // Three pages of history each.
    const MAILS: usize = 1_200;
    const PAGES: u64 = 3;
    let house = House::new("moves").await;
    let services = house.open().await;
    let second = house.poller("two");
    wait_until(LONG, "both pollers have partitions", || async { at_work(&house).await == Some(2) }).await;
    for number in 0..MAILBOXES {
        house.mailbox(&format!("m{number}")).await;
    }
    let mailboxes = house.mailboxes();
    let history = || mailboxes.iter().map(|mailbox| mailbox.calls("listHistory")).collect::<Vec<_>>();
    let mut jobs = Vec::new();
    for mailbox in &mailboxes {
        jobs.push(house.ask(mailbox).await);
    }
    end_well(&house, &jobs).await;

    let before: u64 = history().iter().sum();
    jobs.clear();
    for mailbox in &mailboxes {
        mailbox.deliver(MAILS);
        jobs.push(house.ask(mailbox).await);
    }
    wait_until(LONG, "the walks have begun", || std::future::ready(history().iter().sum::<u64>() > before)).await;
    services.poller.stop().await;
    end_well(&house, &jobs).await;
    wait_until(LONG, "one poller has all partitions", || async { at_work(&house).await == Some(1) }).await;
    // What was under way is asked for again; what was announced is not, for a walk goes on from its checkpoint.
    let most = history().into_iter().max().unwrap();
    assert!(most <= PAGES + 1, "a mailbox was asked for {most} pages instead of {PAGES}");
    house.assert_clean().await;
    second.stop().await;
}

async fn end_well(house: &House, jobs: &[String]) {
    for job in jobs {
        let job = house.ended(job).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
}

/// Asks for a sync as the scheduler does, past the REST service.
async fn command(house: &House, producer: &Producer, mailbox: &Mailbox) -> Uuid {
    let job = Uuid::new_v4();
    let value = events::encode_command(&Command::Poll(house.command(mailbox, job)));
    let record = OutRecord::new(house.topics().name(Topic::Poll), mailbox.id.to_string(), value, Headers::new());
    producer.send(&record).await.unwrap();
    job
}

/// The last state that was told of each job.
async fn told(house: &House) -> BTreeMap<String, String> {
    let evidence = house.evidence(false).await;
    let state = |value: &serde_json::Value| value["state"].as_str().unwrap().to_owned();
    evidence.jobs.iter().map(|fact| (fact.key.clone(), state(&fact.value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_whose_access_token_lives_go_on_while_postgres_is_away() {
    let own = || Postgres::start(&PostgresOptions { own: true }).unwrap();
    let mut postgres = tokio::task::spawn_blocking(own).await.unwrap();
    let url = postgres.url().to_owned();
    let house = House::with("away", &[("DATABASE_URL", &url), ("MAILTIDE_DATABASE_ACQUIRE_TIMEOUT", "500ms")]).await;
    let poller = house.poller("one");
    let (living, other) = (house.mailbox("a").await, house.mailbox("b").await);
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    poller.ready().await;
    let ends = async |job: Uuid| {
        let job = job.to_string();
        wait_until(LONG, "the sync succeeds", || async {
            told(&house).await.get(&job).is_some_and(|state| state == "succeeded")
        })
        .await;
    };
    living.deliver(2);
    ends(command(&house, &producer, &living).await).await;

    postgres.kill().unwrap();
    other.deliver(3);
    let waiting = command(&house, &producer, &other).await;
    for _ in 0..3 {
        living.deliver(2);
        ends(command(&house, &producer, &living).await).await;
    }
    assert_eq!(told(&house).await[&waiting.to_string()], "running", "it waits, and does not fail for it");
    let mut postgres = tokio::task::spawn_blocking(move || {
        postgres.restart().unwrap();
        postgres
    })
    .await
    .unwrap();
    ends(waiting).await;
    let findings = check(&house.owed(), &house.evidence(false).await);
    assert!(findings.is_clean(), "{findings}");
    poller.stop().await;
    postgres.stop().unwrap();
}
