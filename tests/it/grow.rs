//! `mailtide topics grow` on a whole pipeline: killed on its way and taken up again, every mailbox goes on from where it
//! was, every job ends, and nothing is missing or twice.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::sync::Arc;

use kafka::topics::{Topic, counts};
use serde_json::Value;
use simulator::{Fault, Latency, Rule};

use crate::cli::command;
use crate::fetcher::all_fetched;
use crate::house::{House, gmail};
use crate::support::{LONG, Service, wait_until};

/// Mailboxes, enough that each partition has some before and after.
const MAILBOXES: usize = 24;

/// The partition count that is grown to; a place begins with 4.
const PARTITIONS: &str = "7";

const GROW: [&str; 5] = ["topics", "grow", "--partitions", PARTITIONS, "--yes"];

async fn run(house: &House, arguments: &[&str]) -> Output {
    let mut command = command(&house.place, arguments);
    command.envs(house.settings()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn refused(house: &House, arguments: &[&str], code: i32, says: &str) {
    let output = run(house, arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    assert!(said(&output).contains(says), "{arguments:?}: {}", said(&output));
}

async fn json(house: &House, more: &[&str]) -> Value {
    let output = run(house, &[&GROW[..], &["--json"], more].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs each of which dies in its tenth transaction, if it gets there.
fn mortal(house: &House) -> Service {
    let run = house.place.service("growing", &GROW);
    let run = house.settings().iter().fold(run, |run, (name, value)| run.set(name, value));
    run.set("KAFKA_FAULTS", "die-at-10").set("MAILTIDE_LANE_TRANSACTION_RECORDS", "4")
}

async fn no_member(house: &House, service: &str) {
    let (kafka, group) = (house.kafka("tests"), house.place.topic(service));
    wait_until(LONG, &format!("no {service} is a member of its group"), || async {
        kafka::groups::find(&kafka, &group).await.unwrap().is_none_or(|group| group.members == 0)
    })
    .await;
}

/// How many states are written for the new partition count.
async fn stamped(house: &House) -> usize {
    let records = house.committed("gmail.connection.state").await;
    records.iter().filter(|record| record.header("partitions").as_deref() == Some(PARTITIONS)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_jobs_and_commands_survive_a_growth_that_is_killed() {
    let house = House::with("grow", &[("MAILTIDE_GMAIL_QUOTA_USER_MINUTE", "1000000")]).await;
    let ingress = house.ingress().await;
    let projector = house.projector();
    let mut poller = house.process("poller", "poller");
    poller.start();
    let mut mailboxes = Vec::new();
    for number in 0..MAILBOXES {
        let mailbox = house.mailbox(&format!("m{number}")).await;
        mailbox.deliver(3);
        mailboxes.push(mailbox);
    }
    let mut jobs = Vec::new();
    for mailbox in &mailboxes {
        jobs.push(house.ask(mailbox).await);
    }
    for job in &jobs {
        assert_eq!(house.ended(job).await["state"], "succeeded");
    }
    refused(&house, &GROW, 1, "stop every poller").await;
    // Jobs that are at work when their poller dies.
    let slow_ones: Vec<String> = mailboxes[..4].iter().map(|mailbox| mailbox.email.clone()).collect();
    gmail().add_fault(Rule {
        mailboxes: slow_ones,
        calls: vec!["listHistory".to_owned()],
        probability: 1.0,
        after: 0,
        times: Some(4),
        from_ms: None,
        until_ms: None,
        fault: Fault::Latency(Latency::Fixed(30_000)),
    });
    for mailbox in &mailboxes[..4] {
        mailbox.deliver(1);
        let job = house.ask(mailbox).await;
        wait_until(LONG, "the job is at work", || async { house.job(&job).await["state"] == "running" }).await;
    }
    poller.kill();
    // Commands that nobody has read, two of each mailbox; and mail for them.
    for mailbox in mailboxes.iter().chain(&mailboxes) {
        mailbox.deliver(1);
        house.ask(mailbox).await;
    }
    ingress.stop().await;
    no_member(&house, "poller").await;

    refused(&house, &["topics", "grow", "--partitions", "3", "--yes"], 2, "none can be taken away").await;
    refused(&house, &GROW, 1, "announcements are not fetched").await;
    let fetcher = house.fetcher("one");
    all_fetched(&house).await;
    fetcher.stop().await;
    no_member(&house, "fetcher").await;
    let group = house.place.topic("ap");
    let at = kafka::reader::TopicPartition { topic: house.topics().name(Topic::Discovered).clone(), partition: 0 };
    let kafka = house.kafka("tests");
    kafka::groups::move_to(&kafka, &group, &[(at, 0)].into()).await.unwrap();
    refused(&house, &GROW, 1, &format!("{group} by ")).await;
    let ignoring = ["--ignore-consumers"];
    let counted = json(&house, &["--ignore-consumers", "--dry-run"]).await;
    assert_eq!((&counted["state"], &counted["mailboxes"]), (&"dry run".into(), &MAILBOXES.into()), "{counted}");
    assert_eq!(counted["commands"], 2 * MAILBOXES, "{counted}");
    assert!(counted["moved"].as_u64().unwrap() > 0 && counted["commandsMoved"].as_u64().unwrap() > 0, "{counted}");
    assert_eq!(stamped(&house).await, 0);
    refused(&house, &[&GROW[..4], &ignoring].concat(), 2, "--dry-run").await;
    let pinned: u64 = mailboxes.iter().map(|mailbox| mailbox.calls("getProfile")).sum();
    assert!(pinned > 0, "the first sync asks where to begin");
    let asked = house.committed("gmail.connection.poll").await.len();

    // Each run dies in a transaction of its own, a little further on. Whoever starts in between refuses.
    kafka::groups::move_to(&kafka, &group, &ends(&house).await).await.unwrap();
    let mut deaths = 0;
    let mut growing = mortal(&house);
    while growing.start().ended().await != 0 {
        deaths += 1;
        assert!(deaths < 20, "{}", growing.log());
        if deaths == 1 {
            assert!(house.committed("gmail.connection.poll").await.len() > asked, "it died among the commands");
            let unready = format!("{:#}", house.poller("early").ended().await.unwrap_err());
            assert!(unready.contains("topics grow"), "{unready}");
            let unready = format!("{:#}", house.fetcher("early").ended().await.unwrap_err());
            assert!(unready.contains("topics grow"), "{unready}");
            refused(&house, &["topics", "grow", "--partitions", "8", "--yes"], 2, "--partitions 7").await;
        }
    }
    assert!(deaths >= 2, "{}", growing.log());
    assert!(stamped(&house).await >= MAILBOXES);
    assert_eq!(json(&house, &[]).await["state"], "nothing to do");
    let counts = counts(&kafka, &house.topics(), &Topic::CO_PARTITIONED).await.unwrap();
    assert!(counts.values().all(|count| *count == 7), "{counts:?}");

    let (ingress, poller) = (house.ingress().await, house.poller("after"));
    let fetcher = house.fetcher("after");
    poller.ready().await;
    for mailbox in &mailboxes {
        mailbox.deliver(1);
        house.sync(mailbox).await;
    }
    house.assert_clean().await;
    all_fetched(&house).await;
    let after: u64 = mailboxes.iter().map(|mailbox| mailbox.calls("getProfile")).sum();
    assert_eq!(after, pinned, "every mailbox went on from its cursor");
    assert!(house.committed("gmail.dead.letter").await.is_empty());
    let states = house.committed("gmail.connection.state").await;
    let used: BTreeSet<i32> = states.iter().map(|record| record.partition).collect();
    assert!(used.iter().any(|partition| *partition >= 4), "{used:?}");
    fetcher.stop().await;
    poller.stop().await;
    projector.stop().await;
    ingress.stop().await;
}

/// Where the announcements end.
async fn ends(house: &Arc<House>) -> std::collections::BTreeMap<kafka::reader::TopicPartition, i64> {
    let topic = house.topics().name(Topic::Discovered).clone();
    let ends = kafka::reader::Inspector::new(&house.kafka("tests")).unwrap().ends(&topic).await.unwrap();
    let at = |partition| kafka::reader::TopicPartition { topic: topic.clone(), partition };
    (0..).zip(ends).map(|(partition, ends)| (at(partition), ends.end)).collect()
}
