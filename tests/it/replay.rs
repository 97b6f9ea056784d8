//! `mailtide replay` on a real broker: killed in the middle and taken up again, nothing is missing and nothing is twice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{ConnectionId, EventId, GmailMessageDiscovered, MessageId, OrganisationId, Origin, ThreadId, Timestamp};
use kafka::reader::Inspector;
use kafka::topics::{Topic, Topics};
use kafka::{Headers, OutRecord, SoleWriter};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use serde_json::Value;
use uuid::Uuid;

use crate::cli::command;
use crate::house::now;
use crate::support::{LONG, Place, Record, committed, stack, wait_for, wait_until};

/// Mailboxes, and events of each.
const MAILBOXES: u128 = 6;
const EACH: u64 = 500;

/// What one place has to be replayed.
struct Kept {
    place: Place,
    kafka: kafka::Settings,
    names: Topics,
}

fn connection(number: u128) -> ConnectionId {
    ConnectionId::from_uuid(Uuid::from_u128(0xA0 + number))
}

fn event(mailbox: u128, number: u64, origin: Origin, at: Timestamp) -> GmailMessageDiscovered {
    let message = MessageId::from_u64(number);
    GmailMessageDiscovered {
        event_id: EventId::of(connection(mailbox), &message),
        organisation_id: OrganisationId::from_uuid(Uuid::from_u128(1)),
        connection_id: connection(mailbox),
        thread_id: ThreadId::new("1"),
        message_id: message,
        label_ids: None,
        history_id: None,
        origin,
        job_id: None,
        discovered_at: at,
    }
}

impl Kept {
    /// Topics, and events on them: of two transactions, with what is to be left out among them.
    async fn new(name: &str) -> Self {
        let place = Place::new(name);
        let kafka = kafka::Settings::read(&mut place.source());
        let names = Topics::new(&kafka.topic_prefix);
        kafka::topics::create(&kafka, &names, &Topic::ALL).await.unwrap();
        let kept = Self { place, kafka, names };
        let hour = domain::Duration::from_hours(1);
        let mut records = Vec::new();
        for number in 0..EACH {
            for mailbox in 0..MAILBOXES {
                records.push(kept.record(&event(mailbox, number, Origin::Live, now() - hour)));
            }
        }
        let second = records.split_off(records.len() / 3);
        // Too old, itself a replay, of nobody's schema, and nothing at all.
        let mut others = vec![
            kept.record(&event(0, 900_001, Origin::Live, now() - domain::Duration::from_days(3))),
            kept.record(&event(0, 1, Origin::Replay, now() - hour)),
        ];
        let whole = others[0].clone();
        others.push(OutRecord { value: Some(Bytes::from_static(b"\x00\x00\x00\x00\x01?")), ..whole.clone() });
        others.push(OutRecord { value: None, ..whole });
        kept.write(vec![records, others, second]).await;
        kept
    }

    fn record(&self, event: &GmailMessageDiscovered) -> OutRecord {
        let (topic, key) = (self.names.name(Topic::Discovered), event.connection_id.to_string());
        OutRecord::new(topic, key, events::encode(event), Headers::new())
    }

    async fn write(&self, transactions: Vec<Vec<OutRecord>>) {
        let kafka = self.kafka.clone();
        let write = move || {
            let mut writer = SoleWriter::take_over(&kafka, "tests").unwrap();
            transactions.iter().for_each(|records| writer.commit(records).unwrap());
        };
        tokio::task::spawn_blocking(write).await.unwrap();
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(&self.place, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every event of every mailbox is there once, in the order of its mailbox, marked, under its own event id.
fn assert_whole(records: &[Record]) {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records {
        let event: GmailMessageDiscovered = events::decode(record.value.as_deref().unwrap()).unwrap();
        assert_eq!(event.origin, Origin::Replay);
        assert_eq!(event.event_id, EventId::of(event.connection_id, &event.message_id));
        assert_eq!(record.key_text(), event.connection_id.to_string());
        assert_eq!(record.header("ce_id"), Some(event.event_id.to_string()));
        assert!(record.header("replay-id").is_some());
        let number = u64::from_str_radix(&event.message_id.to_string(), 16).unwrap();
        found.entry(record.key_text()).or_default().push(number);
    }
    let expected: BTreeMap<String, Vec<u64>> =
        (0..MAILBOXES).map(|mailbox| (connection(mailbox).to_string(), (0..EACH).collect())).collect();
    assert!(found == expected, "{:?}", found.iter().map(|(key, all)| (key, all.len())).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_goes_on_and_sends_nothing_twice() {
    let kept = Kept::new("replay").await;
    let target = kept.place.topic("again");
    // Another partition count than the source's: the order of each mailbox is kept all the same.
    kafka::topics::create_own(&kept.kafka, &target, 3).await.unwrap();
    let total = MAILBOXES as usize * EACH as usize;
    let replay = ["replay", "--all", "--since", "24h", "--to", &target, "--yes"];

    let counted = kept.json(&[&replay[..], &["--dry-run"]].concat()).await;
    assert_eq!((&counted["sent"], &counted["state"]), (&total.into(), &"dry run".into()), "{counted}");
    assert_eq!(counted["connections"][connection(2).to_string()]["events"], EACH, "{counted}");
    assert_eq!(counted["leftOut"]["replays"], 1, "{counted}");
    assert_eq!(counted["leftOut"]["unreadable"], 2, "{counted}");
    assert_eq!(committed(&target).await.len(), 0);

    let slow = |name: &str| {
        let run = kept.place.service(name, &replay).set("KAFKA_FAULTS", "dawdle");
        run.set("MAILTIDE_LANE_TRANSACTION_RECORDS", "25")
    };
    let sent = |at_least: usize| {
        let target = target.clone();
        wait_for(LONG, "the replay goes on", move || {
            let target = target.clone();
            async move { Some(committed(&target).await.len()).filter(|sent| *sent >= at_least) }
        })
    };
    // Nobody can be asked whether it is meant; a broker that is away is told.
    let unasked = kept.run(&replay[..replay.len() - 1]).await;
    assert_eq!(unasked.status.code(), Some(2), "{}", said(&unasked));
    assert!(said(&unasked).contains("--yes"), "{}", said(&unasked));
    assert_eq!(committed(&target).await.len(), 0);
    let elsewhere = format!("{target}.elsewhere");
    let unasked = kept.run(&["replay", "--all", "--since", "24h", "--to", &elsewhere]).await;
    assert_eq!(unasked.status.code(), Some(2), "{}", said(&unasked));
    let made = Inspector::new(&kept.kafka).unwrap().partition_count(&elsewhere).await;
    assert!(made.is_err(), "a topic was made for what nobody confirmed");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut away = command(&kept.place, &replay);
    away.env("KAFKA_BOOTSTRAP_SERVERS", nobody.to_string()).stdin(Stdio::null()).stderr(Stdio::piped());
    let away = tokio::time::timeout(LONG, away.output()).await.expect("it gives up").unwrap();
    assert_eq!(away.status.code(), Some(1), "{}", said(&away));
    assert!(!said(&away).trim().is_empty());

    let mut run = slow("killed");
    run.start();
    sent(400).await;
    run.kill();
    let mut run = slow("interrupted");
    run.start();
    sent(800).await;
    kill(Pid::from_raw(run.id()), Signal::SIGINT).unwrap();
    assert_eq!(run.ended().await, 1, "{}", run.log());
    assert!(run.log().contains("the same command goes on with what is left"), "{}", run.log());
    // One that hangs while another does its work is not to add anything later.
    let mut hung = slow("hung");
    hung.start();
    sent(1_200).await;
    hung.pause();
    let done = kept.json(&replay).await;
    assert_eq!((&done["state"], &done["sent"]), (&"finished".into(), &total.into()), "{done}");
    assert_eq!(done["replayId"], counted["replayId"]);
    assert_eq!((&done["leftOut"], &done["quotaUnits"]), (&counted["leftOut"], &0.into()), "{done}");
    assert_whole(&committed(&target).await);
    hung.resume();
    assert_eq!(hung.ended().await, 1, "{}", hung.log());
    assert_whole(&committed(&target).await);

    let again = kept.json(&replay).await;
    assert_eq!((&again["state"], &again["sent"]), (&"finished before".into(), &total.into()), "{again}");
    assert_whole(&committed(&target).await);

    // What was begun is fixed: what came later is sent by another replay only, here one mailbox's.
    kept.write(vec![vec![kept.record(&event(1, 7_777, Origin::Backfill, now()))]]).await;
    let id = connection(1).to_string();
    let live = ["replay", "--connection", &id, "--since", "10m", "--to", "gmail.message.discovered", "--yes"];
    for state in ["finished", "finished before"] {
        let one = kept.json(&live).await;
        assert_eq!((&one["state"], &one["sent"]), (&state.into(), &1.into()), "{one}");
    }
    let source = committed(kept.names.name(Topic::Discovered)).await;
    let replays: Vec<GmailMessageDiscovered> = source
        .iter()
        .filter_map(|record| events::decode(record.value.as_deref()?).ok())
        .filter(|event: &GmailMessageDiscovered| event.message_id == MessageId::from_u64(7_777))
        .collect();
    let origins: Vec<Origin> = replays.iter().map(|event| event.origin).collect();
    assert_eq!(origins, [Origin::Backfill, Origin::Replay]);
    assert_eq!(replays.iter().map(|event| event.event_id).collect::<BTreeSet<_>>().len(), 1);
    let twice = kept.json(&[&live[..], &["--again"]].concat()).await;
    assert_eq!((&twice["run"], &twice["sent"], &twice["leftOut"]["replays"]), (&2.into(), &1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_moved_to_a_time_when_nobody_is_in_it() {
    let kept = Kept::new("replay-group").await;
    let topic = kept.names.name(Topic::Discovered).to_string();
    let group = kept.place.topic("ap");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", stack().kafka.bootstrap())
        .set("group.id", &group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let until = Instant::now() + LONG;
    let mut read = 0;
    while read < MAILBOXES as u64 * EACH {
        assert!(Instant::now() < until, "only {read} records were read in {LONG:?}");
        // What a rebalance asks for is served within a poll that brings nothing.
        read += consumer.poll(Duration::from_millis(100)).map_or(0, |record| u64::from(record.is_ok()));
    }
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();

    let to = ["replay", "--group", &group, "--since", "2h"];
    let in_use = kept.run(&[&to[..], &["--yes"]].concat()).await;
    assert_eq!(in_use.status.code(), Some(1));
    assert!(said(&in_use).contains("stop its consumers"), "{}", said(&in_use));
    drop(consumer);
    wait_until(LONG, "the group is empty", || async {
        let group = kafka::groups::find(&kept.kafka, &group).await.unwrap();
        group.is_none_or(|group| group.members == 0)
    })
    .await;

    let unasked = kept.run(&to).await;
    assert_eq!(unasked.status.code(), Some(2), "{}", said(&unasked));
    assert!(said(&unasked).contains("--dry-run") && said(&unasked).contains("--yes"), "{}", said(&unasked));
    let dry = kept.json(&[&to[..], &["--dry-run"]].concat()).await;
    let moved = kept.json(&[&to[..], &["--yes"]].concat()).await;
    assert_eq!(dry["partitions"], moved["partitions"]);
    let partitions = moved["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 4);
    assert!(partitions.iter().any(|it| it["before"].as_i64() > it["after"].as_i64()), "{moved}");
    let again = kept.json(&[&to[..], &["--yes"]].concat()).await;
    for it in again["partitions"].as_array().unwrap() {
        assert_eq!(it["before"], it["after"], "{again}");
    }

    for (wrong, says) in [
        (vec!["replay", "--all", "--since", "1h"], "--to"),
        (vec!["replay", "--since", "1h", "--to", "x"], "--all"),
        (vec!["replay", "--all", "--since", "soon", "--to", "x"], "RFC 3339"),
        (vec!["replay", "--all", "--since", "1h", "--until", "2h", "--to", "x"], "later than"),
        (vec!["replay", "--all", "--since", "1h", "--to", "gmail.connection.poll"], "something else"),
        (vec!["replay", "--group", "poller", "--since", "1h", "--all"], "cannot be used with"),
    ] {
        let output = kept.run(&wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
        assert!(said(&output).contains(says), "{wrong:?}: {}", said(&output));
    }
    let own = kept.run(&["replay", "--group", &kept.place.topic("poller"), "--since", "1h", "--yes"]).await;
    assert_eq!(own.status.code(), Some(2), "{}", said(&own));
}
