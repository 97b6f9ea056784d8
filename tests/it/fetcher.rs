//! The fetcher on the whole pipeline: what is announced is fetched once and in order, whatever single messages and
//! single mailboxes do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::FetchFilter;
use domain::filter::Pattern;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use serde_json::Value;
use simulator::{Cause, Delivery, Fault, Mails, Refusal, Rule};

use crate::house::{House, Mailbox, gmail};
use crate::support::{LONG, Record, wait_for, wait_until};

/// A message counts as gone a minute after it was announced, and one that Gmail cannot give is tried for half a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Many of the messages of the simulated Gmail that our own budget would let through in a minute only.
pub(crate) const QUICK: (&str, &str) = ("MAILTIDE_GMAIL_QUOTA_USER_MINUTE", "1000000");

/// One record, as far as the fetcher's promises speak of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) message: String,
    pub(crate) event: String,
    pub(crate) origin: String,
}

/// The records of a topic by their key, each key's in their order.
pub(crate) fn by_key(records: &[Record]) -> BTreeMap<String, Vec<(Named, Value)>> {
    let mut found: BTreeMap<String, Vec<(Named, Value)>> = BTreeMap::new();
    for record in records {
        let Ok(value) = events::to_json(record.value.as_deref().unwrap_or_default()) else { continue };
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let named = Named { message: text("messageId"), event: text("eventId"), origin: text("origin") };
        found.entry(record.key_text()).or_default().push((named, value));
    }
    found
}

/// What is wrong: for each key whose fetched messages and dead letters are not what was announced, in that order.
pub(crate) async fn faults(house: &House) -> Vec<String> {
    let announced = by_key(&house.committed("gmail.message.discovered").await);
    let fetched = by_key(&house.committed("gmail.message.fetched").await);
    let dead = by_key(&house.committed("gmail.dead.letter").await);
    let mut faults = Vec::new();
    for key in announced.keys().chain(fetched.keys()) {
        let names = |of: &BTreeMap<String, Vec<(Named, Value)>>| -> Vec<Named> {
            of.get(key).into_iter().flatten().map(|(named, _)| named.clone()).collect()
        };
        let mut owed = names(&announced);
        for one in names(&dead) {
            match owed.iter().position(|owed| *owed == one) {
                Some(at) => drop(owed.remove(at)),
                None => faults.push(format!("{key}: {one:?} is among the dead letters once too often")),
            }
        }
        let fetched = names(&fetched);
        if owed != fetched {
            let (n_owed, n_fetched) = (owed.len(), fetched.len());
            let first = owed.iter().zip(&fetched).position(|(owed, fetched)| owed != fetched);
            faults.push(format!("{key}: {n_owed} owed, {n_fetched} fetched, the first that differs is {first:?}"));
        }
    }
    faults
}

/// What was wrong at the last look, told if it stays so.
struct Last(Mutex<Vec<String>>);

impl Drop for Last {
    fn drop(&mut self) {
        let last = self.0.lock().unwrap();
        if std::thread::panicking() {
            eprintln!("{} keys are not as they should be: {:#?}", last.len(), &last[..last.len().min(10)]);
        }
    }
}

/// Waits until all that is announced is fetched, once and in order.
pub(crate) async fn all_fetched(house: &Arc<House>) {
    let told = Last(Mutex::default());
    let last = &told.0;
    wait_until(PATIENCE, "all that is announced is fetched, once and in order", || async {
        let faults = faults(house).await;
        *last.lock().unwrap() = faults;
        last.lock().unwrap().is_empty()
    })
    .await;
}

/// How many records of a mailbox a topic has.
pub(crate) async fn count(house: &House, topic: &str, mailbox: &Mailbox) -> usize {
    by_key(&house.committed(topic).await).get(&mailbox.id.to_string()).map_or(0, Vec::len)
}

/// Waits until so many messages of a mailbox are fetched, and gives them.
pub(crate) async fn fetched(house: &House, mailbox: &Mailbox, count: usize) -> Vec<Value> {
    let what = format!("{count} messages of {} are fetched", mailbox.email);
    let found = wait_for(PATIENCE, &what, || async {
        let mut all = by_key(&house.committed("gmail.message.fetched").await);
        let found = all.remove(&mailbox.id.to_string()).unwrap_or_default();
        (found.len() >= count).then_some(found)
    })
    .await;
    assert_eq!(found.len(), count, "none twice");
    found.into_iter().map(|(_, value)| value).collect()
}

pub(crate) fn fault(mailbox: &Mailbox, call: &str, fault: Fault) -> Rule {
    let mailboxes = vec![mailbox.email.clone()];
    let calls = vec![call.to_owned()];
    Rule { mailboxes, calls, probability: 1.0, after: 0, times: None, from_ms: None, until_ms: None, fault }
}

fn deliver(mailbox: &Mailbox, text: &str) -> String {
    let raw = Mails::Raw(text.replace('\n', "\r\n").into_bytes());
    gmail().deliver(&mailbox.email, raw, &Delivery::default()).unwrap().remove(0).id
}

const INVOICE: &str = "From: =?utf-8?q?M=C3=BCller?= <jm@supplier.example>
To: ap@acme.example
Subject: Invoice 4711
Date: Tue, 3 Feb 2026 05:05:01 +0100
Message-ID: <4711@supplier.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

See below.
--b
Content-Type: application/pdf; name=4711.pdf
Content-Disposition: attachment; filename=4711.pdf
Content-Transfer-Encoding: base64

JVBERi0=
--b--
";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_is_fetched_once_and_in_order_whatever_single_messages_do() {
    let house = House::with("fetch", &[QUICK]).await;
    let services = house.open().await;
    let fetcher = house.fetcher("one");
    fetcher.ready().await;
    let (plain, odd) = (house.mailbox("plain").await, house.mailbox("odd").await);
    deliver(&plain, INVOICE);
    plain.deliver(30);
    house.sync(&plain).await;
    let read = fetched(&house, &plain, 31).await;
    let invoice = read.iter().find(|message| message["subject"] == "Invoice 4711").expect("the invoice is there");
    assert_eq!(invoice["from"][0]["name"], "Müller");
    assert_eq!(invoice["attachments"][0]["filename"], "4711.pdf");
    assert_eq!(invoice["gone"], false);

    // A message that Gmail does not find, one that is deleted, one that it cannot give, and one that is read late.
    fetcher.stop().await;
    odd.deliver(12);
    house.sync(&odd).await;
    let messages = gmail().messages(&odd.email).unwrap();
    let poisoned = fault(&odd, "getMessage", Fault::Poison(messages[3].id.clone()));
    let late = Rule { times: Some(4), ..fault(&odd, "getMessage", Fault::Unreadable(messages[6].id.clone())) };
    gmail().add_fault(poisoned);
    gmail().add_fault(late);
    let fetcher = house.fetcher("two");
    // What is in the way of nobody but its own mailbox.
    plain.deliver(5);
    house.sync(&plain).await;
    fetched(&house, &plain, 36).await;
    all_fetched(&house).await;
    let dead = house.committed("gmail.dead.letter").await;
    let reasons: Vec<_> = dead.iter().filter_map(|record| record.header("reason")).collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(dead[0].header("source-topic"), Some(house.place.topic("gmail.message.discovered")));
    assert_eq!(count(&house, "gmail.message.fetched", &odd).await, 11);

    // A message that is gone by the time it is read is announced as gone. Announced again it is read again.
    fetcher.stop().await;
    odd.deliver(2);
    house.sync(&odd).await;
    let gone = gmail().messages(&odd.email).unwrap().last().unwrap().id.clone();
    gmail().delete(&odd.email, &[&gone]).unwrap();
    let fetcher = house.fetcher("three");
    let read = fetched(&house, &odd, 13).await;
    let is_gone: Vec<_> = read.iter().map(|message| message["gone"] == true).collect();
    assert_eq!(is_gone.iter().filter(|gone| **gone).count(), 1);
    assert_eq!(read[12]["messageId"], gone.as_str());

    // What is no announcement is put aside, and the rest goes on.
    let topic = house.topics().name(Topic::Discovered).clone();
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let partition = kafka::partition_of(plain.id.to_string().as_bytes(), 4);
    for key in [plain.id.to_string(), "position".to_owned(), String::new()] {
        let record = OutRecord::new(&topic, key, Bytes::from_static(b"\x00nothing"), Headers::new());
        producer.send(&record.to_partition(partition)).await.unwrap();
    }
    plain.deliver(1);
    house.sync(&plain).await;
    fetched(&house, &plain, 37).await;
    wait_until(LONG, "the three are put aside", || async { house.committed("gmail.dead.letter").await.len() == 4 })
        .await;
    all_fetched(&house).await;

    // Drained, the state is no more than a position for each partition that had records.
    let fetcher = restarted(&house, fetcher).await;
    all_fetched(&house).await;
    wait_until(LONG, "the state is small", || async {
        let mut state: BTreeMap<(i32, String), bool> = BTreeMap::new();
        for record in house.committed("gmail.fetch.state").await {
            state.insert((record.partition, record.key_text()), record.value.is_some());
        }
        state.iter().all(|((_, key), is_there)| key == "position" || !is_there)
    })
    .await;
    assert_eq!(house.committed("gmail.dead.letter").await.len(), 4);
    fetcher.stop().await;
    services.stop().await;
}

async fn restarted(house: &Arc<House>, fetcher: crate::house::Task) -> crate::house::Task {
    fetcher.stop().await;
    let fetcher = house.fetcher("four");
    fetcher.ready().await;
    fetcher
}

/// Few records fit into memory, so that most of the huge mailbox has to be read from the log again.
#[tokio::test(flavor = "multi_thread")]
async fn i5_isolation_a_throttled_a_huge_and_a_revoked_mailbox_delay_nobody() {
    let tight = [
        QUICK,
        ("MAILTIDE_FETCHER_HELD_MAILBOX", "20"),
        ("MAILTIDE_FETCHER_HELD_PARTITION", "60"),
        ("MAILTIDE_FETCHER_WINDOW", "50"),
    ];
    let house = House::with("fetch-alone", &tight).await;
    let services = house.open().await;
    let throttled = house.mailbox("throttled").await;
    let huge = house.mailbox_beside(&throttled, "huge").await;
    let revoked = house.mailbox_beside(&throttled, "revoked").await;
    let deleted = house.mailbox_beside(&throttled, "deleted").await;
    let others = [house.mailbox_beside(&throttled, "x").await, house.mailbox_beside(&throttled, "y").await];
    let slow = [&throttled, &revoked, &deleted];
    for mailbox in slow {
        mailbox.deliver(70);
    }
    huge.deliver(250);
    for mailbox in slow.into_iter().chain([&huge]) {
        house.sync(mailbox).await;
    }
    gmail().add_fault(fault(&throttled, "getMessage", Fault::Error(Refusal::ResourceExhausted)));
    for mailbox in [&revoked, &deleted] {
        gmail().end_grants(&mailbox.email, Cause::Revoked).unwrap();
    }
    let fetcher = house.fetcher("one");
    fetcher.ready().await;
    for (round, mailbox) in (1..=3).flat_map(|round| others.iter().map(move |other| (round, other))) {
        mailbox.deliver(3);
        house.sync(mailbox).await;
        fetched(&house, mailbox, 3 * round).await;
    }
    fetched(&house, &huge, 250).await;
    for mailbox in slow {
        assert_eq!(count(&house, "gmail.message.fetched", mailbox).await, 0, "{}", mailbox.email);
    }

    // The one that is behind is so after a restart; it goes on when somebody consents. What belongs to a deleted
    // connection is dropped.
    fetcher.stop().await;
    let fetcher = house.fetcher("two");
    fetcher.ready().await;
    others[0].deliver(1);
    house.sync(&others[0]).await;
    fetched(&house, &others[0], 10).await;
    let token = gmail().grant(&revoked.email, None, None, None).unwrap();
    assert_eq!(house.consent(&revoked.email, token).await, revoked.id);
    store::connections::delete(&house.store, house.organisation, deleted.id, crate::house::now()).await.unwrap();
    fetched(&house, &revoked, 70).await;
    wait_until(LONG, "nothing but positions and the throttled one is left in the state", || async {
        let mut state: BTreeMap<String, bool> = BTreeMap::new();
        for record in house.committed("gmail.fetch.state").await {
            state.insert(record.key_text(), record.value.is_some());
        }
        let is_left = |id: String| state.get(&id).copied().unwrap_or(false);
        !is_left(deleted.id.to_string()) && !is_left(revoked.id.to_string()) && !is_left(huge.id.to_string())
    })
    .await;
    assert_eq!(count(&house, "gmail.message.fetched", &deleted).await, 0);
    fetcher.stop().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_says_what_is_fetched() {
    let house = House::with("fetch-filter", &[QUICK]).await;
    let filter = FetchFilter {
        not_labels: vec!["CATEGORY_PROMOTIONS".to_owned()],
        senders: vec![Pattern::new("*@supplier.example").unwrap()],
        mime_types: vec![Pattern::new("application/pdf").unwrap()],
        ..FetchFilter::default()
    };
    assert!(store::fetching::set_filter(&house.store, house.organisation, &filter).await.unwrap());
    assert_eq!(store::fetching::filter(&house.store, house.organisation).await.unwrap(), Some(filter));
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    house.sync(&mailbox).await;
    let promoted = Delivery { labels: Some(vec!["INBOX".into(), "CATEGORY_PROMOTIONS".into()]), ..Delivery::default() };
    gmail().deliver(&mailbox.email, Mails::Synthetic(10), &promoted).unwrap();
    let wanted = deliver(&mailbox, INVOICE);
    deliver(&mailbox, &INVOICE.replace("supplier", "other"));
    deliver(&mailbox, &INVOICE.replace("application/pdf", "text/csv"));
    house.sync(&mailbox).await;
    let fetcher = house.fetcher("one");
    let last = deliver(&mailbox, INVOICE);
    house.sync(&mailbox).await;
    let read = fetched(&house, &mailbox, 2).await;
    assert_eq!([&read[0]["messageId"], &read[1]["messageId"]], [wanted.as_str(), last.as_str()]);
    assert_eq!(mailbox.calls("getMessage"), 4, "what its labels keep back is not read");
    fetcher.stop().await;
    services.stop().await;
}
