//! `mailtide verify`: what Gmail lists against what was announced, with one fault of each kind.

use std::process::{Output, Stdio};
use std::sync::Arc;

use domain::filter::Pattern;
use domain::{EventId, FetchFilter, GmailMessageDiscovered, MessageId, Origin, ThreadId};
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use serde_json::{Value, json};
use simulator::{Delivery, Mails};

use crate::cli::command;
use crate::house::{House, Mailbox, gmail, now};
use crate::support::LONG;

async fn run(house: &Arc<House>, arguments: &[&str]) -> Output {
    let mut command = command(&house.place, &[&["verify"], arguments].concat());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A budget begins empty and is paced; a larger one spares the test the wait.
    command.env("MAILTIDE_GMAIL_QUOTA_USER_MINUTE", "1000000").env("MAILTIDE_GMAIL_QUOTA_PROJECT_MINUTE", "10000000");
    command.env("MAILTIDE_GMAIL_QUOTA_PROJECT_DAY", "1000000000");
    tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap()
}

/// What it finds about the last two hours, and the code that it ends with.
async fn verify(house: &Arc<House>, mailbox: &Mailbox, more: &[&str]) -> (Value, i32) {
    let id = mailbox.id.to_string();
    let arguments = ["--connection", &id, "--since", "2h", "--before-connection", "--json"];
    let output = run(house, &[&arguments[..], more].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (found, output.status.code().unwrap())
}

/// Mail under these labels that arrived so long ago.
fn deliver(mailbox: &Mailbox, count: usize, minutes_ago: i64, labels: &[&str]) -> Vec<String> {
    let how = Delivery {
        labels: Some(labels.iter().map(|label| (*label).to_owned()).collect()),
        internal_ms: Some((now() - domain::Duration::from_minutes(minutes_ago)).as_millis()),
        step_ms: 1_000,
    };
    let truth = gmail().deliver(&mailbox.email, Mails::Synthetic(count), &how).unwrap();
    truth.into_iter().map(|mail| mail.id).collect()
}

/// Ids as Gmail and events spell them, whatever the zeros in front.
fn ids(found: &Value) -> Vec<String> {
    let spelled =
        |it: &Value| it.as_str().or_else(|| it["messageId"].as_str()).unwrap().trim_start_matches('0').to_owned();
    let mut ids: Vec<String> = found.as_array().unwrap().iter().map(spelled).collect();
    ids.sort();
    ids
}

fn short(id: &str) -> String {
    id.trim_start_matches('0').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_is_missing_and_what_is_too_much() {
    let house = House::new("verify").await;
    let mailbox = house.mailbox("ap").await;
    let services = house.open().await;
    let announced = deliver(&mailbox, 30, 60, &["INBOX"]);
    deliver(&mailbox, 2, 50, &["SPAM"]);
    deliver(&mailbox, 2, 50, &["DRAFT"]);
    // Too old for the window, though it is announced today.
    deliver(&mailbox, 1, 300, &["INBOX"]);
    // Too new to be judged.
    mailbox.deliver(3);
    house.sync(&mailbox).await;

    let (found, code) = verify(&house, &mailbox, &[]).await;
    assert_eq!(
        (code, &found["listed"], &found["missing"], &found["extra"]),
        (0, &30.into(), &json!([]), &json!([])),
        "{found}"
    );
    assert_eq!(found["explained"]["elsewhere"], 4, "{found}");
    assert!(found["quotaUnits"].as_u64().unwrap() > 0, "{found}");

    // What the owner does with mail afterwards, and what nobody should have announced.
    let nobody = MessageId::from_u64(0xdead_beef);
    let event = GmailMessageDiscovered {
        event_id: EventId::of(mailbox.id, &nobody),
        organisation_id: house.organisation,
        connection_id: mailbox.id,
        message_id: nobody.clone(),
        thread_id: ThreadId::new("1"),
        label_ids: None,
        history_id: None,
        origin: Origin::Live,
        job_id: None,
        discovered_at: now() - domain::Duration::from_minutes(5),
    };
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let (topics, key) = (house.topics(), mailbox.id.to_string());
    let record = OutRecord::new(topics.name(Topic::Discovered), key, events::encode(&event), Headers::new());
    producer.send(&record).await.unwrap();
    gmail().trash(&mailbox.email, &[&announced[0]]).unwrap();
    gmail().delete(&mailbox.email, &[&announced[1]]).unwrap();
    let missed = deliver(&mailbox, 2, 30, &["INBOX"]);
    let (found, code) = verify(&house, &mailbox, &[]).await;
    let mut missing: Vec<String> = missed.iter().map(|id| short(id)).collect();
    missing.sort();
    let mut extra = vec![short(&announced[1]), nobody.to_string()];
    extra.sort();
    assert_eq!((code, ids(&found["missing"]), ids(&found["extra"])), (1, missing, extra), "{found}");
    assert_eq!(found["explained"]["moved"], 1, "{found}");

    // A sync finds what is missing; what is gone is forgiven where it is asked for, and what was never there with it.
    house.sync(&mailbox).await;
    let (found, code) = verify(&house, &mailbox, &["--allow-gone"]).await;
    assert_eq!((code, &found["explained"]["gone"]), (0, &2.into()), "{found}");
    // Nothing was fetched.
    let (found, code) = verify(&house, &mailbox, &["--allow-gone", "--fetched"]).await;
    assert_eq!((code, ids(&found["unfetched"]).len()), (1, 30), "{found}");

    // What the organisation does not want fetched is counted by the rule that keeps it back, as far as it may be read.
    let pattern = |text| vec![Pattern::new(text).unwrap()];
    let by_labels = FetchFilter { not_labels: vec!["INBOX".to_owned()], ..FetchFilter::default() };
    let by_sender = FetchFilter { senders: pattern("*@nobody.example"), ..FetchFilter::default() };
    let by_nothing = FetchFilter { not_senders: pattern("*@nobody.example"), ..FetchFilter::default() };
    for (filter, lookups, code, filtered) in [
        (&by_labels, "200", 0, json!({"labels": 30})),
        (&by_sender, "200", 0, json!({"senders": 30})),
        (&by_sender, "20", 1, json!({"senders": 20})),
        (&by_nothing, "200", 1, json!({})),
    ] {
        assert!(store::fetching::set_filter(&house.store, house.organisation, filter).await.unwrap());
        let (found, ended) = verify(&house, &mailbox, &["--allow-gone", "--fetched", "--lookups", lookups]).await;
        assert_eq!((ended, &found["filtered"]), (code, &filtered), "{filter:?} {found}");
    }

    let unknown = uuid::Uuid::new_v4().to_string();
    let known = mailbox.id.to_string();
    for wrong in [
        ["--connection", &unknown, "--since", "1h"],
        ["--connection", &known, "--since", "2999-01-01T00:00:00Z"],
        ["--connection", "nobody", "--since", "1h"],
    ] {
        let output = run(&house, &wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    services.stop().await;
}
