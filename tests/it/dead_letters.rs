//! `mailtide dead-letters` on a real broker and a real poller: each goes back once, and comes back with its history.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use domain::mailbox::{DeadLetter, Place as At};
use domain::{Command, EventId, GmailMessageDiscovered, MessageId, Origin, ThreadId, Window};
use events::headers::dead;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, SoleWriter};
use serde_json::Value;
use uuid::Uuid;

use crate::cli::command;
use crate::house::{House, Mailbox, now};
use crate::support::{LONG, Record, wait_for, wait_until};

const UNREADABLE: &[u8] = b"no frame of ours, \x00\xff";

struct Desk {
    house: Arc<House>,
}

impl Desk {
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(&self.house.place, &[&["dead-letters"], arguments].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap()
    }

    /// What it prints, when it ends with this code.
    async fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {said}"))
    }

    /// The letters that are open and fit, once there are so many.
    async fn open(&self, count: usize, which: &[&str]) -> Vec<Value> {
        wait_for(LONG, &format!("there are {count} open letters {which:?}"), || async {
            let listed = self.json(0, &[&["list"], which].concat()).await;
            Some(listed.as_array().unwrap().clone()).filter(|listed| listed.len() == count)
        })
        .await
    }

    async fn write(&self, records: Vec<OutRecord>) {
        let kafka = self.house.kafka("tests");
        let write = move || SoleWriter::take_over(&kafka, "tests").unwrap().commit(&records).unwrap();
        tokio::task::spawn_blocking(write).await.unwrap();
    }

    fn topic(&self, topic: Topic) -> Arc<str> {
        self.house.topics().name(topic).clone()
    }

    /// A letter of a record that was read from `topic`.
    fn letter(&self, topic: Topic, offset: usize, key: &str, value: impl Into<Bytes>) -> OutRecord {
        let mut headers = Headers::new();
        headers.push(dead::TOPIC, self.topic(topic).to_string());
        headers.push(dead::PARTITION, kafka::partition_of(key.as_bytes(), 4).to_string());
        headers.push(dead::OFFSET, offset.to_string());
        headers.push(dead::REASON, "A test put it aside");
        OutRecord::new(&self.topic(Topic::DeadLetter), key.to_owned(), value, headers)
    }

    async fn sent(&self, topic: Topic, attempt: &str) -> Vec<Record> {
        let all = self.house.committed(topic.base_name()).await;
        all.into_iter().filter(|record| record.header(dead::ATTEMPT).as_deref() == Some(attempt)).collect()
    }
}

fn id(letter: &Value) -> &str {
    letter["letter"].as_str().unwrap()
}

fn event(mailbox: &Mailbox, house: &House) -> GmailMessageDiscovered {
    let message_id = MessageId::from_u64(77);
    GmailMessageDiscovered {
        event_id: EventId::of(mailbox.id, &message_id),
        organisation_id: house.organisation,
        connection_id: mailbox.id,
        message_id,
        thread_id: ThreadId::new("77"),
        label_ids: None,
        history_id: None,
        origin: Origin::Live,
        job_id: None,
        discovered_at: now(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_back_once_and_returns_with_its_history() {
    let house = House::new("dead-letters").await;
    house.create_topics().await;
    let mailbox = house.mailbox("ap").await;
    let poller = house.poller("one");
    poller.ready().await;
    let desk = Desk { house: house.clone() };
    let key = mailbox.id.to_string();
    let home = kafka::partition_of(key.as_bytes(), 4);
    let poll = desk.topic(Topic::Poll);
    let job = Uuid::new_v4();
    let command = events::encode_command(&Command::Poll(house.command(&mailbox, job)));
    let bad = OutRecord::new(&poll, key.clone(), UNREADABLE, Headers::from(vec![("mine", Bytes::from("kept"))]));
    let astray = OutRecord::new(&poll, key.clone(), command, Headers::new()).to_partition((home + 1) % 4);
    let owed = Window { since: now() - domain::Duration::from_hours(1), until: now() };
    let place = DeadLetter {
        place: At::Listing { window: owed, held_only: false },
        reason: "messages[0].id: expected a string".to_owned(),
        job_id: None,
    };
    let (value, headers) = events::unreadable(mailbox.id, house.organisation, &place);
    let place = OutRecord::new(&desk.topic(Topic::DeadLetter), key.clone(), value, headers.into());
    let event = event(&mailbox, &house);
    let discovered = desk.letter(Topic::Discovered, 5, &key, events::encode(&event));
    let status = desk.letter(Topic::ConnectionStatus, 5, &key, "x");
    desk.write(vec![bad, astray, place, discovered, status]).await;

    // What is there, and how it is found.
    let all = desk.open(5, &[]).await;
    assert!(all.iter().all(|letter| letter["connectionId"] == *key && letter["attempt"] == 0), "{all:?}");
    desk.open(2, &["--topic", "gmail.connection.poll"]).await;
    desk.open(1, &["--topic", "users.messages.list"]).await;
    desk.open(5, &["--connection", &key, "--since", "1h"]).await;
    desk.open(0, &["--until", "1h"]).await;
    let bad = desk.open(1, &["--topic", &poll, "--reason", "NOT DECODE"]).await.remove(0);
    let astray = desk.open(1, &["--reason", "belongs to partition"]).await.remove(0);
    let shown = desk.json(0, &["show", id(&bad)]).await;
    let hex: String = UNREADABLE.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (&shown["hex"], &shown["redrivable"], &shown["headers"]["mine"]),
        (&hex.into(), &true.into(), &"kept".into())
    );
    let text = desk.run(&["show", id(&bad)]).await;
    assert!(String::from_utf8_lossy(&text.stdout).contains("no frame of ours"), "{text:?}");

    // It goes back once, fails again, and comes back; each time it knows more.
    for attempt in [1, 2] {
        let letter = desk.open(1, &["--topic", &poll, "--reason", "not decode"]).await.remove(0);
        assert_eq!(letter["attempt"], attempt - 1, "{letter}");
        for state in ["redriven", "done before"] {
            let done = desk.json(0, &["redrive", id(&letter), "--yes"]).await;
            assert_eq!(done[0]["state"], state, "{done}");
        }
        let sent = desk.sent(Topic::Poll, &attempt.to_string()).await;
        let [sent] = sent.as_slice() else { panic!("{} were sent back", sent.len()) };
        assert_eq!((sent.partition, sent.key_text(), sent.value.as_deref()), (home, key.clone(), Some(UNREADABLE)));
        assert_eq!(sent.header("mine").as_deref(), Some("kept"));
        let history = sent.headers.iter().filter(|(name, _)| name == dead::HISTORY).count();
        assert_eq!((history, sent.header(dead::TOPIC)), (attempt, None));
    }
    let third = desk.open(1, &["--topic", &poll, "--reason", "not decode"]).await.remove(0);
    let shown = desk.json(0, &["show", id(&third)]).await;
    assert_eq!((&shown["attempt"], &shown["headers"][dead::HISTORY].as_array().map(Vec::len)), (&2.into(), &Some(2)));

    // What makes no sense is refused, and says what helps.
    let refused = desk.json(1, &["redrive", id(&astray), "--yes"]).await;
    assert!(refused[0]["why"].as_str().unwrap().contains("--by-key"), "{refused}");
    let refused = desk.json(1, &["redrive", "--topic", "users.messages.list", "--yes"]).await;
    assert!(refused[0]["why"].as_str().unwrap().contains("owed to the audit"), "{refused}");
    let refused = desk.json(1, &["redrive", "--topic", "gmail.connection.status", "--yes"]).await;
    assert!(refused[0]["why"].as_str().unwrap().contains("latest record"), "{refused}");
    for wrong in [&["redrive", "--yes"][..], &["redrive", id(&third)], &["discard", "3", "--yes"]] {
        assert_eq!(desk.run(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    let done = desk.json(0, &["redrive", id(&astray), "--by-key", "--yes"]).await;
    assert_eq!(done[0]["state"], "redriven", "{done}");
    wait_until(LONG, "the command that went astray is carried out", || async {
        let told = house.committed("gmail.job.status").await;
        told.iter().any(|record| {
            let told = events::to_json(record.value.as_deref().unwrap()).unwrap();
            told["jobId"] == job.to_string() && told["state"] == "succeeded"
        })
    })
    .await;

    // An announcement that goes back does not count as live a second time.
    let done = desk.json(0, &["redrive", "--topic", "gmail.message.discovered", "--yes"]).await;
    assert_eq!(done[0]["state"], "redriven", "{done}");
    let again = desk.sent(Topic::Discovered, "1").await.remove(0);
    let again: GmailMessageDiscovered = events::decode(again.value.as_deref().unwrap()).unwrap();
    assert_eq!(again, GmailMessageDiscovered { origin: Origin::Replay, ..event });

    // What is discarded is listed only where it is asked for.
    let dry = desk.json(0, &["discard", "--since", "1h", "--dry-run"]).await;
    assert_eq!(dry.as_array().unwrap().iter().filter(|it| it["state"] == "discarded").count(), 3, "{dry}");
    desk.json(0, &["discard", "--since", "1h", "--yes"]).await;
    desk.open(0, &[]).await;
    let all = desk.json(0, &["list", "--all"]).await;
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in all.as_array().unwrap() {
        *states.entry(letter["state"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(states, BTreeMap::from([("discarded", 3), ("redriven", 4)]), "{all}");
    poller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_letters_go_back_once_though_it_is_killed_and_two_do_it_at_once() {
    const MANY: usize = 400;
    let house = House::new("dead-many").await;
    house.create_topics().await;
    let desk = Desk { house: house.clone() };
    let mut letters: Vec<OutRecord> = (0..MANY)
        .map(|it| desk.letter(Topic::JobStatus, it, &format!("job-{}", it % 9), format!("bad {it}")))
        .collect();
    // The same record put aside twice, as by a reader that was killed in between.
    letters.push(letters[7].clone());
    desk.write(letters).await;
    let redrive = ["dead-letters", "redrive", "--topic", "gmail.job.status", "--yes"];
    let run = |name: &str| {
        let run = house.place.service(name, &redrive).set("MAILTIDE_LANE_TRANSACTION_RECORDS", "8");
        run.set("KAFKA_FAULTS", "dawdle")
    };
    let sent = || async { desk.sent(Topic::JobStatus, "1").await };
    let mut killed = run("killed");
    killed.start();
    wait_until(LONG, "some went back", || async { sent().await.len() >= 60 }).await;
    killed.kill();
    let (mut one, mut other) = (run("one"), run("other"));
    one.start();
    other.start();
    // Whoever comes second takes over what is left; the first says so.
    let ended = [one.ended().await, other.ended().await];
    assert!(ended.contains(&0) && ended.iter().all(|code| *code <= 1), "{ended:?}\n{}\n{}", one.log(), other.log());
    let last = desk.json(0, &redrive[1..]).await;
    assert!(last.as_array().unwrap().iter().all(|it| it["state"] == "done before"), "{last}");
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for record in sent().await {
        *found.entry(String::from_utf8(record.value.unwrap().to_vec()).unwrap()).or_default() += 1;
    }
    assert_eq!(found, (0..MANY).map(|it| (format!("bad {it}"), 1)).collect());
}
