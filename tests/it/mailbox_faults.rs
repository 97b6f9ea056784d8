//! What goes wrong with single mailboxes: nothing of theirs is lost, their jobs say why, and nobody else notices.

use bytes::Bytes;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use serde_json::{Value, json};
use simulator::Cause;

use crate::house::{House, Mailbox, gmail};
use crate::support::{LONG, wait_until};

/// The newest record of a mailbox's state, as JSON.
async fn state(house: &House, mailbox: &Mailbox) -> Value {
    let records = house.committed("gmail.connection.state").await;
    let newest = records.iter().rfind(|record| record.key_text() == mailbox.id.to_string());
    events::to_json(newest.expect("the mailbox has state").value.as_deref().unwrap()).unwrap()
}

/// Where a connection stands for the world, newest last.
async fn statuses(house: &House, mailbox: &Mailbox) -> Vec<String> {
    let evidence = house.evidence(false).await;
    let of_it = evidence.connections.iter().filter(|fact| fact.key == mailbox.id.to_string());
    of_it.map(|fact| fact.value["status"].as_str().unwrap().to_owned()).collect()
}

async fn failed_with(house: &House, mailbox: &Mailbox, code: &str) -> Value {
    let job = house.ended(&house.ask(mailbox).await).await;
    assert_eq!((&job["state"], &job["code"]), (&json!("failed"), &json!(code)), "{job}");
    assert!(job["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{job}");
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_none_lost_over_a_revoked_grant() {
    let house = House::new("revoked").await;
    let services = house.open().await;
    let (mailbox, neighbour) = (house.mailbox("a").await, house.mailbox("b").await);
    mailbox.deliver(4);
    house.sync(&mailbox).await;
    let cursor = state(&house, &mailbox).await["heads"].clone();
    assert_ne!(cursor, json!([]));

    gmail().end_grants(&mailbox.email, Cause::Revoked).unwrap();
    mailbox.deliver(5);
    failed_with(&house, &mailbox, "Gmail.ReauthRequired").await;
    // The next one is told at once, without a call.
    let calls = mailbox.calls("listHistory");
    failed_with(&house, &mailbox, "Gmail.ReauthRequired").await;
    assert_eq!(mailbox.calls("listHistory"), calls);
    assert_eq!(state(&house, &mailbox).await["heads"], cursor, "the cursor is kept");
    assert_eq!(statuses(&house, &mailbox).await.last().unwrap(), "needs_reauth");
    neighbour.deliver(2);
    house.sync(&neighbour).await;

    mailbox.deliver(6);
    let token = gmail().grant(&mailbox.email, None, None, None).unwrap();
    assert_eq!(house.consent(&mailbox.email, token).await, mailbox.id, "the same connection, renewed");
    // Ingress may remember the connection's former token version for a moment.
    wait_until(LONG, "a sync succeeds under the newer token", || async {
        house.ended(&house.ask(&mailbox).await).await["state"] == "succeeded"
    })
    .await;
    assert_eq!(statuses(&house, &mailbox).await.last().unwrap(), "active");
    let lists = mailbox.calls("listMessages");
    house.sync(&mailbox).await;
    assert_eq!(mailbox.calls("listMessages"), lists, "it walks on from its cursor");
    house.assert_clean().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_none_lost_when_history_has_expired() {
    let house = House::new("expired").await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    mailbox.deliver(4);
    house.sync(&mailbox).await;
    mailbox.deliver(5);
    gmail().expire_history(&mailbox.email).unwrap();
    mailbox.deliver(6);
    let job = house.sync(&mailbox).await;
    assert_eq!(job["progress"]["discovered"], 11, "what history no longer gives is listed: {job}");
    // The next walks history again, from the new cursor.
    let lists = mailbox.calls("listMessages");
    mailbox.deliver(1);
    assert_eq!(house.sync(&mailbox).await["progress"]["discovered"], 1);
    assert_eq!(mailbox.calls("listMessages"), lists);
    house.assert_clean().await;
    services.stop().await;
}

/// Writes a state record as a broken poller could have.
async fn write_state(house: &House, mailbox: &Mailbox, value: Bytes, partitions: Option<i32>) {
    let key = mailbox.id.to_string();
    let partition = kafka::partition_of(key.as_bytes(), 4);
    let mut headers = Headers::new();
    headers.push("absorbed", "0");
    if let Some(partitions) = partitions {
        headers.push("partitions", partitions.to_string());
    }
    let record = OutRecord::new(house.topics().name(Topic::State), key, value, headers).to_partition(partition);
    Producer::new(&house.kafka("tests"), "tests").unwrap().send(&record).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_isolation_a_mailbox_whose_state_does_not_decode_is_set_aside() {
    let house = House::new("undecodable").await;
    house.create_topics().await;
    let broken = house.mailbox("a").await;
    let neighbour = house.mailbox_beside(&broken, "b").await;
    write_state(&house, &broken, Bytes::from_static(b"\x00no state at all"), Some(4)).await;
    let services = house.open().await;
    set_aside(&house, &broken, &neighbour).await;
    let quarantine = &state(&house, &broken).await["quarantine"];
    assert_eq!(quarantine["bytes"], hex(b"\x00no state at all"), "its bytes are kept");
    services.poller.stop().await;

    // It stays so for the next poller.
    let poller = house.poller("two");
    set_aside(&house, &broken, &neighbour).await;
    assert_eq!(statuses(&house, &broken).await, ["quarantined"], "it is told once");
    poller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_isolation_a_mailbox_whose_code_panics_is_set_aside() {
    let house = House::new("panics").await;
    let _ingress = house.ingress().await;
    let _projector = house.projector();
    let broken = house.mailbox("a").await;
    let neighbour = house.mailbox_beside(&broken, "b").await;
    let mut sound = house.process("poller", "poller");
    sound.start();
    broken.deliver(3);
    house.sync(&broken).await;
    let before = state(&house, &broken).await;
    assert_eq!(sound.stop(), 0);

    let mut faulty = house.process("poller", "poller").set(poller::faults::PANIC, broken.id.to_string());
    faulty.start();
    set_aside(&house, &broken, &neighbour).await;
    let quarantine = state(&house, &broken).await["quarantine"].clone();
    let kept = quarantine["bytes"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..kept.len()).step_by(2).map(|at| u8::from_str_radix(&kept[at..at + 2], 16).unwrap()).collect();
    assert_eq!(events::to_json(&bytes).unwrap()["heads"], before["heads"], "its state is kept");
    assert!(faulty.is_running());
    assert_eq!(faulty.stop(), 0);
}

/// Jobs of the broken mailbox fail with a code, its neighbour's succeed before and after.
async fn set_aside(house: &House, broken: &Mailbox, neighbour: &Mailbox) {
    neighbour.deliver(2);
    house.sync(neighbour).await;
    failed_with(house, broken, "Mailbox.Quarantined").await;
    failed_with(house, broken, "Mailbox.Quarantined").await;
    neighbour.deliver(2);
    house.sync(neighbour).await;
    let found = house.evidence(false).await.discovered;
    let of_neighbour = found.iter().filter(|fact| fact.key == neighbour.id.to_string()).count();
    assert_eq!(of_neighbour, gmail().messages(&neighbour.email).unwrap().len());
    assert_eq!(statuses(house, broken).await.last().unwrap(), "quarantined");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_another_partition_count_is_refused_at_start() {
    let house = House::new("stamp").await;
    house.create_topics().await;
    let mailbox = house.mailbox("a").await;
    write_state(&house, &mailbox, Bytes::from_static(b"\x00"), Some(8)).await;
    let error = format!("{:#}", house.poller("one").ended().await.unwrap_err());
    let topic = house.place.topic("gmail.connection.state");
    for part in [topic.as_str(), "written for 8 partitions", "has 4", "restore"] {
        assert!(error.contains(part), "{error}");
    }
}
