//! A mailbox against a Gmail that behaves as Gmail does: places that cannot be read, audits, pushes, watches.

use std::collections::BTreeMap;

use domain::{Command, Duration, Timestamp, Trigger, Window};
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use serde_json::{Value, json};
use simulator::{Behaviour, Delivery, Fault, Latency, Mails, Refusal, Rule};
use uuid::Uuid;

use crate::house::{House, Mailbox, gmail, now};
use crate::support::{LONG, wait_until};

fn rule(mailbox: &Mailbox, calls: &[&str], fault: Fault) -> Rule {
    Rule {
        mailboxes: vec![mailbox.email.clone()],
        calls: calls.iter().map(|call| (*call).to_owned()).collect(),
        probability: 1.0,
        after: 0,
        times: None,
        from_ms: None,
        until_ms: None,
        fault,
    }
}

/// Mail that arrived so long ago; `labels` as at delivery.
fn deliver(mailbox: &Mailbox, count: usize, ago: Duration, labels: &[&str]) {
    let labels = (!labels.is_empty()).then(|| labels.iter().map(|label| (*label).to_owned()).collect());
    let how = Delivery { labels, internal_ms: Some((now() - ago).as_millis()), step_ms: 1_000 };
    gmail().deliver(&mailbox.email, Mails::Synthetic(count), &how).unwrap();
}

struct Asks {
    producer: Producer,
}

impl Asks {
    fn new(house: &House) -> Self {
        Self { producer: Producer::new(&house.kafka("asks"), "asks").unwrap() }
    }

    /// Asks for a job past the REST service.
    async fn job(&self, house: &House, mailbox: &Mailbox, trigger: Trigger, window: Option<Window>) -> String {
        let job = Uuid::new_v4();
        let command = domain::PollGmailConnection { trigger, window, ..house.command(mailbox, job) };
        let value = events::encode_command(&Command::Poll(command));
        let record = OutRecord::new(house.topics().name(Topic::Poll), mailbox.id.to_string(), value, Headers::new());
        self.producer.send(&record).await.unwrap();
        job.to_string()
    }

    async fn audit(&self, house: &House, mailbox: &Mailbox) -> Value {
        let window = Window { since: now() - Duration::from_hours(48), until: now() };
        let job = self.job(house, mailbox, Trigger::Audit, Some(window)).await;
        ended(house, &job).await
    }
}

/// The last word on a job, once it has ended.
async fn ended(house: &House, job: &str) -> Value {
    let last = async || last_words(house).await.remove(job);
    wait_until(LONG, "the job ends", || async { last().await.is_some() }).await;
    last().await.unwrap()
}

/// What the topic says of each job that has ended.
async fn last_words(house: &House) -> BTreeMap<String, Value> {
    let evidence = house.evidence(false).await;
    let has_ended = |value: &Value| matches!(value["state"].as_str(), Some("succeeded" | "failed" | "cancelled"));
    evidence.jobs.into_iter().filter(|fact| has_ended(&fact.value)).map(|fact| (fact.key, fact.value)).collect()
}

/// The newest word on a connection.
async fn status(house: &House, mailbox: &Mailbox) -> Value {
    let evidence = house.evidence(false).await;
    let mut of_it = evidence.connections.into_iter().filter(|fact| fact.key == mailbox.id.to_string());
    of_it.next_back().map(|fact| fact.value).unwrap_or_default()
}

/// One message that no page of history can name: it is in the dead letters by place, all mail arrives, the job succeeds
/// and says so, and the next sync is an ordinary one.
#[tokio::test(flavor = "multi_thread")]
async fn i2_none_lost_where_a_record_cannot_be_read() {
    let house = House::new("unreadable").await;
    let _services = house.open().await;
    let (mailbox, neighbour) = (house.mailbox("a").await, house.mailbox("b").await);
    house.sync(&mailbox).await;
    mailbox.deliver(12);
    let poison = gmail().messages(&mailbox.email).unwrap()[7].id.clone();
    gmail().add_fault(rule(&mailbox, &[], Fault::Poison(poison)));
    let job = house.ask(&mailbox).await;
    neighbour.deliver(3);
    house.sync(&neighbour).await;
    let job = ended(&house, &job).await;
    assert_eq!((&job["state"], &job["code"]), (&json!("succeeded"), &json!("Gmail.DeadLettered")), "{job}");
    assert_eq!(job["progress"]["deadLettered"], 1, "{job}");
    let letters = house.committed("gmail.dead.letter").await;
    let letter = letters.iter().find(|letter| letter.key_text() == mailbox.id.to_string()).expect("a dead letter");
    assert_eq!(letter.header("source-method").as_deref(), Some("users.history.list"));
    assert_eq!(letter.header("connectionId"), Some(mailbox.id.to_string()));
    assert_eq!(letter.header("page-size").as_deref(), Some("1"));
    assert!(letter.header("start-history-id").is_some_and(|id| id.parse::<u64>().is_ok()));
    assert!(letter.header("reason").is_some_and(|reason| !reason.is_empty()));
    mailbox.deliver(2);
    let before = mailbox.calls("listHistory");
    let next = house.sync(&mailbox).await;
    assert_eq!((&next["code"], mailbox.calls("listHistory")), (&Value::Null, before + 1), "{next}");
    house.assert_clean().await;
}

/// Spam, trash, drafts, chats, mail from history and from listings: an audit misses nothing of it. What history never
/// named, it finds, once.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_what_was_missed_and_else_nothing() {
    let house = House::new("audit").await;
    let _services = house.open().await;
    let asks = Asks::new(&house);
    let mailbox = house.mailbox("a").await;
    let hours = Duration::from_hours;
    deliver(&mailbox, 20, hours(3), &[]);
    deliver(&mailbox, 3, hours(3), &["SPAM"]);
    house.sync(&mailbox).await;
    deliver(&mailbox, 10, hours(2), &[]);
    for labels in [["SPAM"], ["TRASH"], ["CHAT"]] {
        deliver(&mailbox, 2, hours(2), &labels);
    }
    gmail().save_draft(&mailbox.email, None).unwrap();
    house.sync(&mailbox).await;
    let spam = gmail().messages(&mailbox.email).unwrap().into_iter().find(|it| it.label_ids.contains(&"SPAM".into()));
    gmail().unspam(&mailbox.email, &[&spam.unwrap().id]).unwrap();

    let healthy = asks.audit(&house, &mailbox).await;
    assert_eq!((&healthy["state"], &healthy["progress"]["discovered"]), (&json!("succeeded"), &json!(0)), "{healthy}");
    assert!(healthy["progress"]["recordsSeen"].as_i64().unwrap() >= 30, "{healthy}");

    // What history is about to name is not missed, though no sync has read it yet.
    deliver(&mailbox, 1, hours(1), &[]);
    let late = asks.audit(&house, &mailbox).await;
    assert_eq!(late["progress"]["discovered"], 0, "{late}");
    // A record that becomes readable days later, far beyond the lag that walks allow for.
    mailbox.behave(Behaviour { history_lag_ms: 1_000_000_000_000, ..Behaviour::default() });
    deliver(&mailbox, 1, hours(1), &[]);
    house.sync(&mailbox).await;
    let missed = asks.audit(&house, &mailbox).await;
    assert_eq!(missed["progress"]["discovered"], 1, "{missed}");
    let evidence = house.evidence(false).await;
    assert_eq!(evidence.discovered.iter().filter(|fact| fact.value["origin"] == "audit").count(), 1);
    let again = asks.audit(&house, &mailbox).await;
    assert_eq!(again["progress"]["discovered"], 0, "{again}");
    house.sync(&mailbox).await;
    house.assert_clean().await;
}

/// However many pushes come at once: a walk, one more for those that came meanwhile, and one a little later. All their
/// jobs end.
#[tokio::test(flavor = "multi_thread")]
async fn i3_jobs_end_in_a_burst_of_pushes_that_is_a_few_walks() {
    const PUSHES: usize = 300;
    let house = House::new("burst").await;
    let services = house.open().await;
    let asks = Asks::new(&house);
    let mailbox = house.mailbox("a").await;
    house.sync(&mailbox).await;
    services.poller.stop().await;
    mailbox.deliver(2);
    let mut jobs = Vec::new();
    for _ in 0..PUSHES {
        jobs.push(asks.job(&house, &mailbox, Trigger::Push, None).await);
    }
    let before = mailbox.calls("listHistory");
    let _poller = house.poller("again");
    let all = async || {
        let words = last_words(&house).await;
        jobs.iter().filter(|job| words.contains_key(*job)).count()
    };
    wait_until(LONG, "all pushes have ended", || async { all().await == PUSHES }).await;
    let walks = mailbox.calls("listHistory") - before;
    assert!((1..=4).contains(&walks), "{walks} walks for {PUSHES} pushes");
    // And once more of its own accord, without a job.
    wait_until(LONG, "it looks again", || async { mailbox.calls("listHistory") - before > walks }).await;
    assert!(status(&house, &mailbox).await["lastPushAt"].is_string());
    house.assert_clean().await;
}

/// A mailbox that answers after many seconds holds nobody else up: the others' calls come and go while its own is out.
#[tokio::test(flavor = "multi_thread")]
async fn i5_isolation_one_slow_mailbox_does_not_delay_the_others() {
    const OTHERS: usize = 30;
    let house = House::new("slow").await;
    let _services = house.open().await;
    let slow = house.mailbox("slow").await;
    house.sync(&slow).await;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        others.push(house.mailbox(&format!("m{number}")).await);
    }
    gmail().add_fault(rule(&slow, &["listHistory"], Fault::Latency(Latency::Fixed(25_000))));
    slow.deliver(1);
    let calls = slow.calls("listHistory");
    let late = house.ask(&slow).await;
    wait_until(LONG, "the slow call is out", || async {
        house.job(&late).await["state"] == "running" || slow.calls("listHistory") > calls
    })
    .await;
    let mut jobs = Vec::new();
    for mailbox in &others {
        mailbox.deliver(2);
        jobs.push(house.ask(mailbox).await);
    }
    for job in &jobs {
        assert_eq!(house.ended(job).await["state"], "succeeded");
    }
    let words = last_words(&house).await;
    let at = |job: &str| words.get(job).map(|word| word["endedAt"].as_str().unwrap().to_owned());
    let first = jobs.iter().filter_map(|job| at(job)).min().unwrap();
    let slow_end = ended(&house, &late).await["endedAt"].as_str().unwrap().to_owned();
    assert!(first < slow_end, "the first of the others ended at {first}, the slow one at {slow_end}");
    house.assert_clean().await;
}

/// A mailbox is watched with the sync that runs anyway, and its connection says until when. Where Gmail refuses, the
/// sync succeeds all the same, and the connection says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_watched_and_a_refused_watch_fails_no_sync() {
    let topic = ("MAILTIDE_GMAIL_WATCH_TOPIC", "projects/p/topics/t");
    let house = House::with("watch", &[topic]).await;
    let _services = house.open().await;
    let (mailbox, refused) = (house.mailbox("a").await, house.mailbox("b").await);
    gmail().add_fault(rule(&refused, &["watch"], Fault::Error(Refusal::DomainPolicy)));
    for mailbox in [&mailbox, &refused] {
        mailbox.deliver(2);
        house.sync(mailbox).await;
    }
    let expiry = async || status(&house, &mailbox).await["watchExpiresAt"].as_str().map(str::to_owned);
    wait_until(LONG, "the connection says until when", || async { expiry().await.is_some() }).await;
    let expires_at: jiff::Timestamp = expiry().await.unwrap().parse().unwrap();
    let left = Timestamp::from_millis(expires_at.as_millisecond()).since(now());
    assert!(left > Duration::from_days(6), "{left:?}");
    let code = async || status(&house, &refused).await["code"].clone();
    wait_until(LONG, "the connection says why it is not watched", || async { code().await.is_string() }).await;
    let told = status(&house, &refused).await;
    assert_eq!((&told["status"], &told["code"]), (&json!("active"), &json!("Gmail.DomainPolicy")), "{told}");
    assert!(told["unitsToday"].as_i64().unwrap() > 0, "{told}");
    mailbox.deliver(1);
    house.sync(&mailbox).await;
    assert_eq!(mailbox.calls("watch"), 1, "once a day");
    house.assert_clean().await;
}

/// A message that was deleted before anybody read it: history has named it, and nothing waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_does_not_hold_the_cursor() {
    let house = House::new("deleted").await;
    let _services = house.open().await;
    let mailbox = house.mailbox("a").await;
    house.sync(&mailbox).await;
    mailbox.deliver(3);
    let gone = gmail().messages(&mailbox.email).unwrap()[1].id.clone();
    gmail().delete(&mailbox.email, &[&gone]).unwrap();
    let first = house.sync(&mailbox).await;
    assert_eq!(first["code"], Value::Null);
    mailbox.deliver(2);
    let second = house.sync(&mailbox).await;
    assert!(second["progress"]["pages"].as_i64().unwrap() <= 1, "{second}");
    house.assert_clean().await;
}
