//! The whole pipeline on a real Kafka and Postgres against the simulated Gmail: from the request to the committed
//! announcements and back to the job that the API tells of.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use domain::Command;
use events::TraceParent;
use kafka::topics::Topic;
use kafka::{OutRecord, Producer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulator::{Behaviour, Delivery, Mails};
use uuid::Uuid;

use crate::house::{House, gmail};
use crate::support::{LONG, wait_until};

/// The number of messages that a job announced.
fn discovered(job: &Value) -> i64 {
    job["progress"]["discovered"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_once_a_sync_announces_each_new_message_and_its_job_tells() {
    let house = House::new("sync").await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    mailbox.deliver(7);

    let path = format!("/gmail-connections/{}/sync", mailbox.id);
    let answer = house.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let id = answer.json::<Value>().await.unwrap()["jobId"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/jobs/{id}"));
    // The look-up right after the answer finds it.
    assert_eq!(house.job(&id).await["connectionId"], mailbox.id.to_string());
    let job = house.ended(&id).await;
    assert_eq!((&job["state"], discovered(&job), &job["code"]), (&json!("succeeded"), 7, &Value::Null), "{job}");

    mailbox.deliver(3);
    let second = house.sync(&mailbox).await;
    assert_eq!(discovered(&second), 3, "only what is new: {second}");
    let third = house.sync(&mailbox).await;
    assert_eq!(discovered(&third), 0, "nothing is new: {third}");
    assert_eq!(house.committed("gmail.message.discovered").await.len(), 10);
    house.assert_clean().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_once_mail_that_comes_while_a_mailbox_is_walked_is_announced() {
    let house = House::new("walked").await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    // The first sync lists; more than a page of mail a second makes it page within one slice.
    mailbox.deliver(1_300);
    let listing = house.ask(&mailbox).await;
    let mut jobs = vec![listing];
    // Walks of several pages, with mail coming in all the while, and syncs asked for at any moment of them.
    for _ in 0..4 {
        mailbox.deliver(900);
        jobs.push(house.ask(&mailbox).await);
        let before = mailbox.calls("listHistory") + mailbox.calls("listMessages");
        wait_until(LONG, "the walk goes on", || {
            mailbox.deliver(3);
            std::future::ready(mailbox.calls("listHistory") + mailbox.calls("listMessages") > before)
        })
        .await;
    }
    for job in &jobs {
        assert_eq!(house.ended(job).await["state"], "succeeded");
    }
    house.sync(&mailbox).await;
    house.assert_clean().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_none_lost_though_records_show_late_and_out_of_order() {
    let house = House::new("late").await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    let lag = Duration::from_millis(1_500);
    mailbox.behave(Behaviour { history_lag_ms: i64::try_from(lag.as_millis()).unwrap(), ..Behaviour::default() });
    house.sync(&mailbox).await;
    let mut found = 0;
    for _ in 0..5 {
        mailbox.deliver(40);
        found += discovered(&house.sync(&mailbox).await);
    }
    let last = Instant::now();
    assert!(found < 200, "some records stayed hidden behind the head, or this shows nothing");
    wait_until(LONG, "the last record shows", || std::future::ready(last.elapsed() > lag)).await;
    found += discovered(&house.sync(&mailbox).await);
    assert_eq!(found, 200);
    house.assert_clean().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_jobs_end_once_though_their_command_comes_twice() {
    let house = House::new("twice").await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    mailbox.deliver(5);
    let job = Uuid::new_v4();
    let command = Command::Poll(house.command(&mailbox, job));
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let send = async || {
        let key = mailbox.id.to_string();
        let record = OutRecord::new(
            house.topics().name(Topic::Poll),
            key,
            events::encode_command(&command),
            kafka::Headers::new(),
        );
        producer.send(&record).await.unwrap();
    };
    send().await;
    send().await;
    wait_until(LONG, "the job is known", || async {
        let answer = house.request(Method::GET, &format!("/jobs/{job}")).send().await.unwrap();
        answer.status() == StatusCode::OK
    })
    .await;
    assert_eq!(discovered(&house.ended(&job.to_string()).await), 5);
    // Once more after its end; what comes behind it shows that it was read.
    send().await;
    house.sync(&mailbox).await;
    let evidence = house.evidence(false).await;
    let ends = evidence.jobs.iter().filter(|fact| fact.key == job.to_string() && fact.value["state"] == "succeeded");
    assert_eq!(ends.count(), 1);
    house.assert_clean().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_carry_cloud_events_headers_and_the_callers_trace() {
    let house = House::new("headers").await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    mailbox.deliver(2);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let path = format!("/gmail-connections/{}/sync", mailbox.id);
    let answer = house.request(Method::POST, &path).header("traceparent", trace).send().await.unwrap();
    let id = answer.json::<Value>().await.unwrap()["jobId"].as_str().unwrap().to_owned();
    house.ended(&id).await;

    let ours: TraceParent = trace.parse().unwrap();
    for (topic, kind) in [
        ("gmail.connection.poll", "gmail.connection.poll"),
        ("gmail.message.discovered", "gmail.message.discovered"),
        ("gmail.job.status", "gmail.job.status"),
    ] {
        let records = house.committed(topic).await;
        assert!(!records.is_empty(), "{topic}");
        for record in records {
            let header = |name| record.header(name).unwrap_or_else(|| panic!("{topic} lacks {name}"));
            assert_eq!((header("ce_specversion").as_str(), header("ce_type").as_str()), ("1.0", kind));
            assert_eq!(header("content-type"), "application/avro");
            assert!(header("ce_source").starts_with("urn:mailtide:") && !header("ce_id").is_empty());
            assert!(header("ce_time").parse::<jiff::Timestamp>().is_ok(), "{}", header("ce_time"));
            let span: TraceParent = header("traceparent").parse().unwrap();
            assert_eq!(span.trace_id(), ours.trace_id(), "{topic} is in the caller's trace");
            assert_ne!(span.span_id(), ours.span_id(), "{topic} is a step of its own");
            if topic == "gmail.message.discovered" {
                let value = events::to_json(record.value.as_deref().unwrap()).unwrap();
                assert_eq!(header("ce_id"), value["eventId"].as_str().unwrap());
                assert_eq!(
                    (record.key_text(), value["jobId"].as_str().unwrap()),
                    (mailbox.id.to_string(), id.as_str())
                );
            }
            if topic == "gmail.connection.poll" {
                assert_eq!(header("jobId"), id);
            }
        }
    }
    services.stop().await;
}

/// Odd mail: see the file.
pub(crate) const ODD: &[u8] = include_bytes!("../data/odd.mbox");

/// The mails of an mbox are delivered as new, part before the first sync and the rest while syncs run; each is
/// announced once, however odd it is.
async fn announces_each_mail_of(name: &str, mbox: Vec<Vec<u8>>) {
    let house = House::new(name).await;
    let services = house.open().await;
    let mailbox = house.mailbox("a").await;
    let count = mbox.len();
    let mut jobs = Vec::new();
    let batches = mbox.chunks(count.div_ceil(6));
    for batch in batches {
        for mail in batch {
            gmail().deliver(&mailbox.email, Mails::Raw(mail.clone()), &Delivery::default()).unwrap();
        }
        jobs.push(house.ask(&mailbox).await);
    }
    jobs.push(house.ask(&mailbox).await);
    for job in &jobs {
        assert_eq!(house.ended(job).await["state"], "succeeded");
    }
    let ids: BTreeSet<String> = gmail().messages(&mailbox.email).unwrap().into_iter().map(|mail| mail.id).collect();
    assert_eq!(ids.len(), count);
    assert_eq!(house.committed("gmail.message.discovered").await.len(), count);
    house.assert_clean().await;
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_once_however_odd_the_mail_is() {
    let mails = simulator::mbox(ODD);
    assert_eq!(mails.len(), 14, "the file is split as it was written");
    announces_each_mail_of("odd", mails).await;
}

/// The public mailing lists' mail that lies beside the project on the machines where it is built, or the file that
/// `MAILTIDE_TEST_MBOX` names; elsewhere mail made from the odd file stands in, as many and as odd.
pub(crate) fn lists() -> Vec<Vec<u8>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/mail/lists.mbox");
    let path = std::env::var_os("MAILTIDE_TEST_MBOX").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    match std::fs::read(&path) {
        Ok(bytes) => simulator::mbox(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            (0..20).flat_map(|copy| simulator::mbox(ODD).into_iter().map(move |mail| renamed(mail, copy / 2))).collect()
        }
        Err(error) => panic!("reading {}: {error}", path.display()),
    }
}

/// The mail under a message id of this copy, if it has any.
fn renamed(mut mail: Vec<u8>, copy: usize) -> Vec<u8> {
    const ID: &[u8] = b"Message-ID: <";
    if let Some(at) = mail.windows(ID.len()).position(|some| some.eq_ignore_ascii_case(ID)) {
        let after = at + ID.len();
        mail.splice(after..after, format!("{copy}.").into_bytes());
    }
    mail
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_once_for_real_mail_with_repeated_message_ids() {
    let mails = lists();
    assert!(mails.len() >= 280, "{} mails", mails.len());
    announces_each_mail_of("lists", mails).await;
}
