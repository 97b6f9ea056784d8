//! What comes in on the command topic and is of no use: put aside by name, in the transaction that moves past it.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use domain::Command;
use kafka::topics::Topic;
use kafka::{Faults, Headers, OutRecord, Point, Producer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::house::{House, Mailbox};
use crate::support::{LONG, Record, committed, wait_for, wait_until};

/// A record for the command topic.
struct Input {
    job: Uuid,
    record: OutRecord,
}

fn input(house: &House, mailbox: &Mailbox, value: Option<Bytes>) -> Input {
    let job = Uuid::new_v4();
    let mut headers = Headers::new();
    headers.push("jobId", job.to_string());
    headers.push("organisationId", house.organisation.to_string());
    headers.push("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let topic = house.topics().name(Topic::Poll).clone();
    let key = Some(Bytes::from(mailbox.id.to_string()));
    Input { job, record: OutRecord { topic, partition: None, key, value, headers } }
}

/// Sound bytes of a command, for a job that the headers name.
fn sound(house: &House, mailbox: &Mailbox) -> Input {
    let mut sound = input(house, mailbox, None);
    sound.record.value = Some(events::encode_command(&Command::Poll(house.command(mailbox, sound.job))));
    sound
}

/// Records that cannot be taken, each with a part of the reason why.
fn useless(house: &House, mailbox: &Mailbox, other: &Mailbox) -> Vec<(Input, &'static str)> {
    let bytes = |value: &'static [u8]| input(house, mailbox, Some(Bytes::from_static(value)));
    let mut truncated = sound(house, mailbox);
    let frame = truncated.record.value.take().unwrap();
    truncated.record.value = Some(frame.slice(..frame.len() - 1));
    let mut trailing = sound(house, mailbox);
    let frame = trailing.record.value.take().unwrap();
    trailing.record.value = Some([&frame[..], b"x"].concat().into());
    let mut other_record = input(house, mailbox, None);
    let chunk = domain::mailbox::record::MailboxChunk {
        connection_id: mailbox.id,
        kind: domain::mailbox::record::ChunkKind::Seen,
        number: 0,
        ids: Bytes::new(),
        newest_minute: 0,
    };
    other_record.record.value = Some(events::encode(&chunk));
    let mut other_key = sound(house, mailbox);
    other_key.record.key = Some(other.id.to_string().into());
    let mut wrong_partition = sound(house, mailbox);
    let home = kafka::partition_of(mailbox.id.to_string().as_bytes(), 4);
    wrong_partition.record.partition = Some((home + 1) % 4);
    vec![
        (bytes(b"no frame at all"), "does not decode"),
        (bytes(b""), "does not decode"),
        (bytes(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]), "does not decode"),
        (truncated, "does not decode"),
        (trailing, "does not decode"),
        (other_record, "does not decode"),
        (input(house, mailbox, None), "no value"),
        (other_key, "another connection"),
        (wrong_partition, "belongs to partition"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_jobs_end_though_their_commands_cannot_be_taken() {
    let house = House::new("useless").await;
    let services = house.open().await;
    let (mailbox, other) = (house.mailbox("a").await, house.mailbox("b").await);
    mailbox.deliver(3);
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let useless = useless(&house, &mailbox, &other);
    let mut sources = Vec::new();
    for (input, _) in &useless {
        let delivered = producer.send(&input.record).await.unwrap();
        sources.push((delivered.partition, delivered.offset));
    }
    // The lane goes on, in every partition.
    house.sync(&mailbox).await;
    house.sync(&other).await;

    let letters = wait_for(LONG, "the dead letters are there", || async {
        let letters = house.committed("gmail.dead.letter").await;
        (letters.len() >= useless.len()).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), useless.len());
    for ((input, why), (partition, offset)) in useless.iter().zip(&sources) {
        let is_it = |letter: &&Record| letter.header("jobId") == Some(input.job.to_string());
        let letter = letters.iter().find(is_it).unwrap_or_else(|| panic!("no letter for {why}"));
        assert_eq!(letter.header("source-topic").unwrap(), house.place.topic("gmail.connection.poll"));
        assert_eq!(letter.header("source-partition").unwrap(), partition.to_string());
        assert_eq!(letter.header("source-offset").unwrap(), offset.to_string());
        let reason = letter.header("reason").unwrap();
        assert!(reason.contains(why), "{why}: {reason}");
        assert_eq!((&letter.key, &letter.value), (&input.record.key, &input.record.value), "the bytes as they were");
        assert!(letter.header("traceparent").is_some(), "the headers as they were");

        let job = wait_for(LONG, "the job is there", || async {
            let path = format!("/jobs/{}", input.job);
            let answer = house.request(reqwest::Method::GET, &path).send().await.unwrap();
            answer.status().is_success().then_some(answer.json::<Value>().await.unwrap())
        })
        .await;
        assert_eq!((&job["state"], &job["code"]), (&json!("failed"), &json!("Job.UnreadableCommand")), "{why}: {job}");
        assert!(job["detail"].as_str().unwrap().contains(why), "{why}: {job}");
    }
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_its_jobs_end_and_the_offset_are_one_transaction() {
    let house = House::new("letter").await;
    house.create_topics().await;
    let mailbox = house.mailbox("a").await;
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let useless = input(&house, &mailbox, Some(Bytes::from_static(b"no frame")));
    producer.send(&useless.record).await.unwrap();

    // The lane is held when records and offsets are written, but not committed.
    let (held, is_held) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(may_go));
    let mut kafka = house.kafka("one");
    // Long enough to look at leisure.
    kafka.lane.transaction_timeout = LONG;
    kafka.lane.max_poll_interval = 2 * LONG;
    kafka.lane.faults = Faults::default().holding(move |point| {
        if point == Point::Sent {
            let _ = held.send(());
            // The test ended, or lets it go on.
            let _ = gate.lock().unwrap().recv_timeout(LONG / 2);
        }
    });
    let poller = house.poller_with(kafka);
    tokio::task::spawn_blocking(move || is_held.recv_timeout(LONG).map(|()| is_held)).await.unwrap().unwrap();
    let letters = || committed_of(&house, "gmail.dead.letter");
    let ends = || committed_of(&house, "gmail.job.status");
    assert_eq!((letters().await, ends().await), (0, 0), "nothing shows before the commit");
    drop(go);
    wait_until(LONG, "the letter shows", || async { letters().await == 1 }).await;
    // By a marker of its own.
    wait_until(LONG, "the job's end shows with it", || async { ends().await == 1 }).await;
    poller.stop().await;

    // The offset went with them: another poller does not take the record again.
    let poller = house.poller("two");
    let next = sound(&house, &mailbox);
    producer.send(&next.record).await.unwrap();
    wait_until(LONG, "the next command is taken", || async { ends().await > 1 }).await;
    assert_eq!(letters().await, 1);
    poller.stop().await;
}

/// Without waiting for what is open: the lane is held in a transaction.
async fn committed_of(house: &House, topic: &str) -> usize {
    committed(&house.place.topic(topic)).await.len()
}
