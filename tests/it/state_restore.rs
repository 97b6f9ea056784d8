//! `mailtide state restore`: Kafka loses every topic, and the mailboxes go on from what Postgres knows.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Output, Stdio};

use kafka::topics::Topic;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use serde_json::Value;
use simulator::{Fault, Latency, Rule};

use crate::cli::command;
use crate::house::{House, gmail};
use crate::support::{LONG, stack, wait_until};

const RESTORE: [&str; 3] = ["state", "restore", "--yes"];

async fn run(house: &House, arguments: &[&str]) -> Output {
    let mut command = command(&house.place, arguments);
    command.envs(house.settings()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn refused(house: &House, says: &str) {
    let output = run(house, &RESTORE).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(says), "{}", said(&output));
}

async fn json(house: &House, more: &[&str]) -> Value {
    let output = run(house, &[&RESTORE[..], &["--json"], more].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Takes every topic of the house away, as if Kafka had been set up anew.
async fn lose_kafka(house: &House) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", stack().kafka.bootstrap()).create().unwrap();
    let names: Vec<String> = Topic::ALL.iter().map(|topic| house.topics().name(*topic).to_string()).collect();
    let shown = || {
        let metadata = admin.inner().fetch_metadata(None, LONG).unwrap();
        let shown = metadata.topics().iter().map(|topic| topic.name().to_owned());
        shown.filter(|name| names.contains(name)).collect::<Vec<_>>()
    };
    let there = shown();
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    for gone in admin.delete_topics(&there, &AdminOptions::new()).await.unwrap() {
        gone.unwrap();
    }
    wait_until(LONG, "the topics are gone", || std::future::ready(shown().is_empty())).await;
}

/// How often each message of each connection is announced, as new and in all.
async fn announced(house: &House) -> BTreeMap<String, BTreeMap<String, (usize, usize)>> {
    let mut found: BTreeMap<String, BTreeMap<String, (usize, usize)>> = BTreeMap::new();
    for record in house.committed("gmail.message.discovered").await {
        let event = events::to_json(record.value.as_deref().unwrap()).unwrap();
        let message = event["messageId"].as_str().unwrap().to_owned();
        let (new, all) = found.entry(record.key_text()).or_default().entry(message).or_default();
        *new += usize::from(matches!(event["origin"].as_str().unwrap(), "live" | "catch_up"));
        *all += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_go_on_from_postgres_when_every_topic_is_lost() {
    let house = House::new("restore").await;
    let (ingress, projector) = (house.ingress().await, house.projector());
    let mut poller = house.process("poller", "poller");
    poller.start();
    let mut mailboxes = Vec::new();
    for number in 0..6 {
        let mailbox = house.mailbox(&format!("m{number}")).await;
        mailbox.deliver(3);
        mailboxes.push(mailbox);
    }
    for mailbox in &mailboxes[..5] {
        house.sync(mailbox).await;
    }
    refused(&house, "stop every poller").await;
    // One job is at work, one is not read, one is the first of its mailbox, and one is of a mailbox that is deleted.
    gmail().add_fault(Rule {
        mailboxes: vec![mailboxes[0].email.clone()],
        calls: vec!["listHistory".to_owned()],
        probability: 1.0,
        after: 0,
        times: Some(1),
        from_ms: None,
        until_ms: None,
        fault: Fault::Latency(Latency::Fixed(30_000)),
    });
    let mut jobs = vec![house.ask(&mailboxes[0]).await];
    wait_until(LONG, "the job is at work", || async { house.job(&jobs[0]).await["state"] == "running" }).await;
    poller.kill();
    for mailbox in [&mailboxes[1], &mailboxes[4], &mailboxes[5]] {
        jobs.push(house.ask(mailbox).await);
    }
    let gone = mailboxes.remove(4);
    let path = format!("/gmail-connections/{}", gone.id);
    assert!(house.request(reqwest::Method::DELETE, &path).send().await.unwrap().status().is_success());
    mailboxes.iter().for_each(|mailbox| mailbox.deliver(2));
    projector.stop().await;
    ingress.stop().await;
    let (kafka, group) = (house.kafka("tests"), house.place.topic("poller"));
    wait_until(LONG, "no poller is a member of its group", || async {
        kafka::groups::find(&kafka, &group).await.unwrap().is_none_or(|group| group.members == 0)
    })
    .await;
    refused(&house, "holds the state of mailboxes").await;
    lose_kafka(&house).await;

    let counted = json(&house, &["--dry-run"]).await;
    let counts = |of: &Value| ["mailboxes", "withCursor", "jobsAsked", "jobsFailed"].map(|it| of[it].as_u64().unwrap());
    assert_eq!(counts(&counted), [5, 4, 3, 1], "{counted}");
    let mut dying = house.place.service("dying", &RESTORE).set("KAFKA_FAULTS", "die-at-2");
    assert_ne!(dying.start().ended().await, 0);
    let unready = format!("{:#}", house.poller("early").ended().await.unwrap_err());
    assert!(unready.contains("state restore"), "{unready}");
    let restored = json(&house, &[]).await;
    assert_eq!((&restored["state"], counts(&restored)), (&"restored".into(), [5, 4, 3, 1]), "{restored}");
    refused(&house, "was restored at").await;

    let (ingress, projector, poller) = (house.ingress().await, house.projector(), house.poller("after"));
    poller.ready().await;
    for mailbox in &mailboxes {
        mailbox.deliver(1);
        jobs.push(house.ask(mailbox).await);
    }
    let mut states = Vec::new();
    for job in &jobs {
        states.push(house.ended(job).await["state"].as_str().unwrap().to_owned());
    }
    assert_eq!(states.remove(2), "failed", "its connection is gone");
    assert!(states.iter().all(|state| state == "succeeded"), "{states:?}");
    let owed = house.owed().messages;
    wait_until(LONG, "all mail is announced, what lay before the cursor too", || async {
        let announced = announced(&house).await;
        mailboxes.iter().all(|mailbox| {
            let found: BTreeSet<_> =
                announced.get(&mailbox.id.to_string()).into_iter().flatten().map(|(id, _)| id).collect();
            owed[&mailbox.id.to_string()].iter().all(|message| found.contains(message))
        })
    })
    .await;
    let announced = announced(&house).await;
    assert!(announced.values().flatten().all(|(_, (new, _))| *new <= 1), "{announced:?}");
    poller.stop().await;
    projector.stop().await;
    ingress.stop().await;
}
