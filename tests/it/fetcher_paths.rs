//! The fetcher's ways that are seldom gone: a message that breaks our code, a mailbox that Google refuses, a database that
//! is away, topics that were made anew with another partition count, letters that are sent back and events that are
//! replayed while it is at work.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use devstack::{Postgres, PostgresOptions};
use domain::mailbox::reply::Label;
use domain::{EventId, FetchFilter, FetchPosition, GmailMessageDiscovered, MessageId, Origin, ThreadId};
use events::headers::dead;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use serde_json::Value;
use simulator::{Delivery, Fault, Mails, Refusal};

use crate::cli::command;
use crate::fetcher::{PATIENCE, QUICK, by_key, count, fault, fetched};
use crate::house::{House, Mailbox, gmail, now};
use crate::support::{LONG, wait_for, wait_until};

/// Longer than terms may be old while Postgres answers.
const STALE: Duration = Duration::from_secs(31);

/// Ends well, and gives what it prints.
async fn json(house: &House, arguments: &[&str]) -> Value {
    let output = run(house, &[arguments, &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn run(house: &House, arguments: &[&str]) -> Output {
    let mut command = command(&house.place, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap()
}

/// The ids of a mailbox's messages at Gmail, in the order of their arrival, as events spell them.
fn ids(mailbox: &Mailbox) -> Vec<String> {
    let messages = gmail().messages(&mailbox.email).unwrap();
    messages.iter().map(|message| MessageId::new(&message.id).to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_us_is_put_aside_and_sent_back_and_a_refused_mailbox_waits_until_it_is_mended() {
    let house = House::with("fetch-harm", &[QUICK]).await;
    let services = house.open().await;
    let (harmful, refused) = (house.mailbox("harmful").await, house.mailbox("refused").await);
    let well = house.mailbox_beside(&refused, "well").await;
    for mailbox in [&harmful, &refused, &well] {
        mailbox.deliver(6);
        house.sync(mailbox).await;
    }
    let harm = ids(&harmful).remove(2);
    gmail().add_fault(fault(&refused, "getMessage", Fault::Error(Refusal::DomainPolicy)));
    let mut fetcher = house.process("fetcher", "fetcher").set(fetcher::faults::PANIC, harm.as_str());
    assert_eq!(fetcher.start().logged("Gmail refuses a mailbox", "code").await, "Gmail.DomainPolicy");
    fetched(&house, &harmful, 5).await;
    fetched(&house, &well, 6).await;
    // The rest goes on, also what comes later.
    harmful.deliver(2);
    well.deliver(2);
    house.sync(&harmful).await;
    house.sync(&well).await;
    fetched(&house, &harmful, 7).await;
    fetched(&house, &well, 8).await;
    assert_eq!(count(&house, "gmail.message.fetched", &refused).await, 0);
    let letters = house.committed("gmail.dead.letter").await;
    let [letter] = letters.as_slice() else { panic!("{} were put aside", letters.len()) };
    assert_eq!(letter.header(dead::REASON).as_deref(), Some("Reading the message panicked"));
    assert_eq!(events::to_json(letter.value.as_deref().unwrap()).unwrap()["messageId"], harm.as_str());

    // Sent back while the fault is there it comes back with its history; afterwards it is fetched, marked as a replay.
    let redrive = ["dead-letters", "redrive", "--topic", "gmail.message.discovered", "--yes"];
    assert_eq!(json(&house, &redrive).await[0]["state"], "redriven");
    let again = wait_for(PATIENCE, "it comes back", || async {
        house.committed("gmail.dead.letter").await.into_iter().find(|letter| letter.header(dead::ATTEMPT).is_some())
    });
    assert_eq!(again.await.header(dead::ATTEMPT).as_deref(), Some("1"));
    assert_eq!(fetcher.stop(), 0, "{}", fetcher.log());
    gmail().clear_faults_of(&refused.email);
    let fetcher = house.fetcher("mended");
    fetched(&house, &refused, 6).await;
    let states: Vec<Value> =
        json(&house, &redrive).await.as_array().unwrap().iter().map(|letter| letter["state"].clone()).collect();
    assert!(states.contains(&"redriven".into()), "{states:?}");
    let read = fetched(&house, &harmful, 8).await;
    let last = &read[7];
    assert_eq!((&last["messageId"], &last["origin"]), (&harm.as_str().into(), &"replay".into()));
    let mailboxes = house.mailboxes();
    let live = async |mailbox: &Mailbox| -> Vec<String> {
        let fetched = by_key(&house.committed("gmail.message.fetched").await).remove(&mailbox.id.to_string());
        let live = fetched.unwrap_or_default().into_iter().filter(|(named, _)| named.origin != "replay");
        live.map(|(named, _)| named.message).collect()
    };
    for mailbox in [&refused, &well] {
        assert_eq!(live(mailbox).await, ids(mailbox), "{}", mailbox.email);
    }
    assert!(!live(&harmful).await.contains(&harm));

    // Replays of what was discovered are fetched once more, under their own event ids; of what was fetched they are
    // written as they were, and nobody asks Gmail.
    let before = mailboxes.iter().map(|mailbox| mailbox.calls("getMessage")).sum::<u64>();
    let target = house.place.topic("again");
    let all = json(&house, &["replay", "--all", "--from", "fetched", "--since", "24h", "--to", &target, "--yes"]).await;
    assert_eq!((&all["sent"], &all["leftOut"]["replays"]), (&(7 + 6 + 8).into(), &1.into()), "{all}");
    assert_eq!(mailboxes.iter().map(|mailbox| mailbox.calls("getMessage")).sum::<u64>(), before);
    let sent = by_key(&house.committed("again").await);
    let of_well = &sent[&well.id.to_string()];
    assert!(of_well.iter().all(|(named, _)| named.origin == "replay"));
    assert_eq!(of_well.iter().map(|(named, _)| named.message.clone()).collect::<Vec<_>>(), ids(&well));
    let discovered = house.place.topic("gmail.message.discovered");
    let id = well.id.to_string();
    let one = json(&house, &["replay", "--connection", &id, "--since", "24h", "--to", &discovered, "--yes"]).await;
    assert_eq!(one["sent"], 8, "{one}");
    let read = fetched(&house, &well, 2 * 8).await;
    let events = |of: &[Value]| of.iter().map(|value| value["eventId"].clone()).collect::<Vec<_>>();
    assert_eq!(events(&read[..8]), events(&read[8..]), "once more, in their order, under their event ids");
    assert!(read[8..].iter().all(|value| value["origin"] == "replay"));
    fetcher.stop().await;
    services.stop().await;
}

/// Announces the newest `n` messages of a mailbox, as a poller does that Postgres does not keep from its work.
async fn announce(house: &House, producer: &Producer, mailbox: &Mailbox, n: usize) {
    let messages = gmail().messages(&mailbox.email).unwrap();
    for message in &messages[messages.len() - n..] {
        let message_id = MessageId::new(&message.id);
        let event = GmailMessageDiscovered {
            event_id: EventId::of(mailbox.id, &message_id),
            organisation_id: house.organisation,
            connection_id: mailbox.id,
            message_id,
            thread_id: ThreadId::new(&message.id),
            label_ids: Some(message.label_ids.iter().map(|label| Label::new(label)).collect()),
            history_id: None,
            origin: Origin::Live,
            job_id: None,
            discovered_at: now(),
        };
        let topic = house.topics().name(Topic::Discovered).clone();
        let record = OutRecord::new(&topic, mailbox.id.to_string(), events::encode(&event), Headers::new());
        producer.send(&record).await.unwrap();
    }
}

fn promote(mailbox: &Mailbox) {
    let labels = Some(vec!["INBOX".to_owned(), "CATEGORY_PROMOTIONS".to_owned()]);
    gmail().deliver(&mailbox.email, Mails::Synthetic(1), &Delivery { labels, ..Delivery::default() }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_that_are_known_go_on_while_postgres_is_away_and_the_others_afterwards() {
    let own = || Postgres::start(&PostgresOptions { own: true }).unwrap();
    let mut postgres = tokio::task::spawn_blocking(own).await.unwrap();
    let url = postgres.url().to_owned();
    let changes = [QUICK, ("DATABASE_URL", url.as_str()), ("MAILTIDE_DATABASE_ACQUIRE_TIMEOUT", "500ms")];
    let house = House::with("fetch-away", &changes).await;
    house.create_topics().await;
    let filter = FetchFilter { not_labels: vec!["CATEGORY_PROMOTIONS".to_owned()], ..FetchFilter::default() };
    assert!(store::fetching::set_filter(&house.store, house.organisation, &filter).await.unwrap());
    let (living, other) = (house.mailbox("a").await, house.mailbox("b").await);
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let fetcher = house.fetcher("one");
    fetcher.ready().await;
    living.deliver(2);
    announce(&house, &producer, &living, 2).await;
    fetched(&house, &living, 2).await;

    let gone = Instant::now();
    postgres.kill().unwrap();
    other.deliver(3);
    announce(&house, &producer, &other, 3).await;
    let go_on = async |count: usize| {
        // What the filter kept back before it keeps back now.
        promote(&living);
        living.deliver(1);
        announce(&house, &producer, &living, 2).await;
        fetched(&house, &living, count).await;
    };
    go_on(3).await;
    // Also when the filter is older than it may be while Postgres answers.
    wait_until(LONG, "the filter is old", || std::future::ready(gone.elapsed() > STALE)).await;
    go_on(4).await;
    assert_eq!(count(&house, "gmail.message.fetched", &other).await, 0, "nobody can say how to read it");
    assert!(house.committed("gmail.dead.letter").await.is_empty(), "and it is put aside for nothing of this");

    let mut postgres = tokio::task::spawn_blocking(move || {
        postgres.restart().unwrap();
        postgres
    })
    .await
    .unwrap();
    let read = fetched(&house, &other, 3).await;
    assert_eq!(read.iter().map(|value| value["messageId"].as_str().unwrap()).collect::<Vec<_>>(), ids(&other));
    // A filter that is changed holds before long.
    wait_until(LONG, "the filter is cleared", || async {
        let clear = FetchFilter::default();
        store::fetching::set_filter(&house.store, house.organisation, &clear).await.unwrap_or(false)
    })
    .await;
    wait_until(PATIENCE, "a promotion is fetched", || async {
        promote(&living);
        announce(&house, &producer, &living, 1).await;
        count(&house, "gmail.message.fetched", &living).await > 4
    })
    .await;
    assert!(house.committed("gmail.dead.letter").await.is_empty());
    fetcher.stop().await;
    postgres.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_another_partition_count_is_refused_at_start() {
    let house = House::new("fetch-stamp").await;
    house.create_topics().await;
    let state = house.topics().name(Topic::FetchState).clone();
    let position = FetchPosition { partitions: 8, position: 0 };
    let record = OutRecord::new(&state, FetchPosition::KEY, events::encode(&position), Headers::new());
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    producer.send(&record.to_partition(2)).await.unwrap();
    let error = format!("{:#}", house.fetcher("one").ended().await.unwrap_err());
    for part in [&*state, "partition 2", "written for 8 partitions", "has 4", "restore"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_filter_is_set_shown_and_cleared_and_one_that_makes_no_sense_is_refused() {
    let house = House::new("filter").await;
    let id = house.organisation.to_string();
    let filter = async |more: &[&str]| json(&house, &[&["organisations", "filter", &id], more].concat()).await;
    let none = filter(&[]).await;
    assert_eq!(none["organisationId"], id.as_str());
    let table = run(&house, &["organisations", "filter", &id]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("everything is fetched"), "{table:?}");
    let rules = ["--not-label", "SPAM", "--not-label", "Label_7", "--sender", "*@Vendor.example", "--has-attachment"];
    let set = filter(&[&rules[..], &["--mime-type", "image/*"]].concat()).await;
    assert_ne!(set, none);
    assert_eq!(filter(&[]).await, set, "it stands");
    let stored = store::fetching::filter(&house.store, house.organisation).await.unwrap().unwrap();
    assert_eq!(stored.not_labels, ["SPAM", "Label_7"]);
    assert!(stored.has_attachment && stored.labels.is_empty() && stored.senders.len() == 1, "{stored:?}");
    let table = run(&house, &["organisations", "filter", &id]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("SPAM, Label_7"), "{table:?}");
    // What is set replaces what was.
    filter(&["--label", "INBOX"]).await;
    let stored = store::fetching::filter(&house.store, house.organisation).await.unwrap().unwrap();
    assert!(stored.labels == ["INBOX"] && stored.not_labels.is_empty() && !stored.has_attachment, "{stored:?}");
    assert_eq!(filter(&["--clear"]).await, none);

    let many: Vec<String> = (0..=FetchFilter::MOST).map(|n| format!("--label=L{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let nobody = uuid::Uuid::new_v4().to_string();
    for (arguments, code, said) in [
        (vec!["not-a-uuid"], 2, "invalid value"),
        (vec![&id, "--label", ""], 2, "expected a label's id"),
        (vec![&id, "--label", "no label"], 2, "expected a label's id"),
        (vec![&id, "--sender", ""], 2, "--sender"),
        (vec![&id, "--clear", "--label", "INBOX"], 2, "cannot be used with"),
        ([&[id.as_str()], &many[..]].concat(), 2, "--label"),
        (vec![&nobody, "--label", "INBOX"], 1, "there is no organisation"),
    ] {
        let output = run(&house, &[&["organisations", "filter"], &arguments[..]].concat()).await;
        let said_it = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said_it}");
        assert!(said_it.contains(said), "{arguments:?}: {said_it}");
    }
    let stored = store::fetching::filter(&house.store, house.organisation).await.unwrap();
    assert_eq!(stored, Some(FetchFilter::default()), "and nothing of it was set");
}
