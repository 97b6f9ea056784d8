//! Attachments over REST, from the simulated Gmail to a caller.

use std::time::Duration;

use base64::Engine as _;
use domain::mailbox::reply::Label;
use domain::{Attachment, EventId, GmailMessageDiscovered, GmailMessageFetched, Lane, MessageId, Origin, TokenVersion};
use gmail::{Client, Gate, Mailbox as At, Reading, Service as Caller, View};
use grants::Grants;
use reqwest::{Method, Response, StatusCode};
use secrecy::SecretString;
use serde_json::Value;
use simulator::{Cause, Delivery, Fault, Latency, Mails, Refusal, Rule};
use store::connections::Consent;

use crate::house::{House, Mailbox, gmail, now};
use crate::support::{LONG, wait_for, wait_until};

/// Settings under which the budget is no matter: a part of the true one has a file every nine seconds.
const RICH: [(&str, &str); 3] = [
    ("MAILTIDE_GMAIL_QUOTA_USER_MINUTE", "10000000"),
    ("MAILTIDE_GMAIL_QUOTA_PROJECT_MINUTE", "100000000"),
    ("MAILTIDE_GMAIL_QUOTA_PROJECT_DAY", "100000000000"),
];

/// Bytes that no compression and no charset leaves as they are.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| next().to_le_bytes()).flatten().take(len).collect();
    bytes.truncate(len);
    bytes
}

/// A part of a mail in base64.
fn part(headers: &str, content: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(content);
    let mut lines = String::with_capacity(text.len() + text.len() / 36 + 200);
    lines.push_str("--b\r\n");
    lines.push_str(headers);
    lines.push_str("\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    for line in text.as_bytes().chunks(76) {
        lines.push_str(std::str::from_utf8(line).unwrap());
        lines.push_str("\r\n");
    }
    lines
}

/// A mail with a text and these parts.
pub(crate) fn mail(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut mail = "From: Supplier <ap@supplier.example>\r\nTo: payable@example.com\r\nSubject: Invoice\r\n\
        Date: Tue, 3 Feb 2026 05:05:01 +0100\r\nMessage-ID: <1@supplier.example>\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
        .to_owned();
    parts.iter().for_each(|(headers, content)| mail.push_str(&part(headers, content)));
    mail.push_str("--b--\r\n");
    mail.into_bytes()
}

fn deliver(mailbox: &Mailbox, mail: Vec<u8>) -> String {
    gmail().deliver(&mailbox.email, Mails::Raw(mail), &Delivery::default()).unwrap().remove(0).id
}

fn path(mailbox: &Mailbox, message: &str, part_id: &str) -> String {
    format!("/gmail-connections/{}/messages/{message}/attachments/{part_id}", mailbox.id)
}

async fn ask(house: &House, mailbox: &Mailbox, message: &str, part_id: &str) -> Response {
    house.request(Method::GET, &path(mailbox, message, part_id)).send().await.unwrap()
}

/// The title of a refusal of this status, and how long to wait.
async fn refused(answer: Response, status: u16) -> (String, Option<u64>) {
    assert_eq!(answer.status().as_u16(), status, "{}", answer.url());
    let wait = answer.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap().parse().unwrap());
    let body: Value = answer.json().await.unwrap();
    (body["title"].as_str().unwrap().to_owned(), wait)
}

/// What is announced of messages, as a fetcher would read them.
pub(crate) async fn announced(house: &House, mailbox: &Mailbox, ids: &[String]) -> Vec<GmailMessageFetched> {
    let mut settings = house.gmail();
    settings.quota.user_minute = Some(10_000_000);
    settings.quota.project_minute = Some(100_000_000);
    let source = std::sync::Arc::new(Grants::new(house.store.clone()));
    let client = Client::new(&settings, source, Gate::new(&settings, Caller::Fetcher)).unwrap();
    let at = At { organisation_id: house.organisation, connection_id: mailbox.id };
    let mut events = Vec::new();
    let mut left: Vec<MessageId> = ids.iter().map(|id| MessageId::new(id)).collect();
    // The simulator has Gmail's limits, and pushes back.
    while !left.is_empty() {
        let deadline = tokio::time::Instant::now() + LONG;
        let reading = Reading { lane: Lane::Fetch, view: View::Full, deadline, token_version: TokenVersion(1) };
        let asked = std::mem::take(&mut left);
        let read = client.get_messages(at, &asked, &reading).await;
        for (id, message) in asked.into_iter().zip(read.messages) {
            match message {
                Ok(message) => {
                    let discovered = GmailMessageDiscovered {
                        event_id: EventId::of(mailbox.id, &id),
                        organisation_id: house.organisation,
                        connection_id: mailbox.id,
                        thread_id: id.clone(),
                        message_id: id,
                        label_ids: Some(vec![Label::new("INBOX")]),
                        history_id: None,
                        origin: Origin::Live,
                        job_id: None,
                        discovered_at: now(),
                    };
                    events.push(gmail::fetched(&discovered, &message, now()));
                }
                Err(domain::mailbox::reply::CallError::Throttled { .. }) => left.push(id),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_that_an_event_lists_is_read_as_it_was_sent() {
    let house = House::with("attached", &RICH).await;
    let ingress = house.ingress().await;
    let mailbox = house.mailbox("a").await;
    let (pdf, picture) = (noise(300_001, 7), noise(10_000, 8));
    let page = b"<script>alert(1)</script>".as_slice();
    let parts: [(&str, &[u8]); 6] = [
        (
            "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename*=utf-8''Rechnung%20%C3%BC.pdf",
            &pdf,
        ),
        ("Content-Type: text/html\r\nContent-Disposition: attachment; filename=\"page.html\"", page),
        ("Content-Type: image/png\r\nContent-ID: <logo@x>\r\nContent-Disposition: inline", &picture),
        (
            "Content-Type: application/zip\r\nContent-Disposition: attachment; filename*=utf-8''..%2F..%5Cetc%2F%0D%0ASet-Cookie%3A%20x%3D%22%E2%80%AEfdp.exe",
            b"PK",
        ),
        ("Content-Type: text/csv; name=\"=?x-no-such?Q?=EF?=.csv\"\r\nContent-Disposition: attachment", b"a,b"),
        ("Content-Type: image/svg+xml; name=\"x.svg\"", b"<svg onload=alert(1)/>"),
    ];
    let id = deliver(&mailbox, mail(&parts));
    let event = announced(&house, &mailbox, std::slice::from_ref(&id)).await.remove(0);
    assert_eq!(event.attachments.len(), parts.len());
    assert!(event.content_key.is_some());
    for (listed, (_, content)) in event.attachments.iter().zip(parts) {
        let answer = ask(&house, &mailbox, &id, &listed.part_id).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(listed.size, i64::try_from(content.len()).unwrap());
        assert!(answer.bytes().await.unwrap() == content, "{listed:?}");
    }
    let mut shown = Vec::new();
    for Attachment { part_id, .. } in &event.attachments {
        let answer = ask(&house, &mailbox, &id, part_id).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        shown.push((header("content-type"), header("content-disposition")));
        assert!(answer.headers().get("set-cookie").is_none());
    }
    let expected = [
        ("application/pdf", "attachment; filename=\"Rechnung _.pdf\"; filename*=UTF-8''Rechnung%20%C3%BC.pdf"),
        ("application/octet-stream", "attachment; filename=\"page.html\""),
        ("image/png", "attachment; filename=\"attachment\""),
        ("application/zip", "attachment; filename=\"_.._etc_  Set-Cookie_ x=_fdp.exe\""),
        // What nobody can decode reaches us as Gmail makes of it.
        ("text/csv", "attachment; filename=\"_ .csv\"; filename*=UTF-8''%EF%BF%BD%20.csv"),
        ("application/octet-stream", "attachment; filename=\"x.svg\""),
    ];
    assert_eq!(shown, expected.map(|(kind, name)| (kind.to_owned(), name.to_owned())));
    // A mail that is one file.
    let alone = b"From: a@x\r\nContent-Type: application/pdf; name=scan.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n";
    let alone = deliver(&mailbox, alone.to_vec());
    let answer = ask(&house, &mailbox, &alone, "root").await;
    assert_eq!((answer.status(), answer.bytes().await.unwrap().as_ref()), (StatusCode::OK, b"%PDF".as_slice()));
    ingress.stop().await;
}

fn go_wrong(mailbox: &Mailbox, call: &str, times: u64, fault: Fault) {
    gmail().add_fault(Rule {
        mailboxes: vec![mailbox.email.clone()],
        calls: vec![call.to_owned()],
        probability: 1.0,
        after: 0,
        times: Some(times),
        from_ms: None,
        until_ms: None,
        fault,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_as_what_it_is() {
    let patience = ("MAILTIDE_INGRESS_DOWNLOAD_PATIENCE", "5s");
    let house = House::with("unattached", &[RICH.as_slice(), &[patience]].concat()).await;
    let ingress = house.ingress().await;
    let mailbox = house.mailbox("a").await;
    let file = noise(50_000, 3);
    let id = deliver(&mailbox, mail(&[("Content-Type: application/pdf; name=a.pdf", &file)]));
    for (message, part_id, title) in [
        ("18d1c0ffee001234", "1", "Gmail.MessageNotFound"),
        ("..%2Fprofile", "1", "Gmail.MessageNotFound"),
        (id.as_str(), "0", "Gmail.AttachmentNotFound"),
        (id.as_str(), "7", "Gmail.AttachmentNotFound"),
        (id.as_str(), "1%2F2", "Gmail.AttachmentNotFound"),
    ] {
        let answer = ask(&house, &mailbox, message, part_id).await;
        assert_eq!(refused(answer, 404).await, (title.to_owned(), None), "{message} {part_id}");
    }
    // Faults that pass, each on one call; the file is read right after it.
    let faults = [
        ("getMessage", Fault::Error(Refusal::Backend(503)), "Gmail.Unavailable"),
        ("getMessage", Fault::Html(502), "Gmail.Unavailable"),
        ("getMessage", Fault::Truncate(0.5), "Gmail.Unavailable"),
        ("getAttachment", Fault::Reset, "Gmail.Unavailable"),
        ("getAttachment", Fault::Error(Refusal::NotFound), "Gmail.Unavailable"),
        ("getAttachment", Fault::Malformed, ""),
        ("getAttachment", Fault::Truncate(0.5), ""),
        ("getMessage", Fault::Error(Refusal::Unauthorized), "well"),
        ("getAttachment", Fault::Error(Refusal::Unauthorized), "well"),
    ];
    for (call, fault, title) in faults {
        go_wrong(&mailbox, call, 1, fault.clone());
        let answer = ask(&house, &mailbox, &id, "1").await;
        if answer.status() == StatusCode::OK {
            let came = answer.bytes().await;
            // What broke off is an error to the caller, never a shorter file.
            assert_eq!(came.is_ok_and(|came| came == file), title == "well", "{call} {fault:?}");
        } else {
            // Small as it is the file may be read before the answer begins.
            let title = if title.is_empty() { "Gmail.Unavailable" } else { title };
            let (told, wait) = refused(answer, 503).await;
            assert_eq!((told.as_str(), wait.is_some()), (title, true), "{call} {fault:?}");
        }
        let well = wait_for(LONG, "the file is read again", || async {
            let answer = ask(&house, &mailbox, &id, "1").await;
            if answer.status() == StatusCode::OK { Some(answer.bytes().await.unwrap()) } else { None }
        });
        assert!(well.await == file, "after {call} {fault:?}");
    }
    go_wrong(&mailbox, "getMessage", 1, Fault::Latency(Latency::Fixed(120_000)));
    assert_eq!(refused(ask(&house, &mailbox, &id, "1").await, 503).await.0, "Gmail.Unavailable");
    go_wrong(&mailbox, "getMessage", 1, Fault::Error(Refusal::DomainPolicy));
    assert_eq!(refused(ask(&house, &mailbox, &id, "1").await, 409).await.0, "Gmail.Refused");
    let told_to_wait = mailbox.calls("getMessage");
    go_wrong(&mailbox, "getMessage", 1, Fault::Error(Refusal::UserRate(600_000)));
    for _ in 0..2 {
        let (title, wait) = refused(ask(&house, &mailbox, &id, "1").await, 503).await;
        assert!(title == "Gmail.Throttled" && wait.is_some_and(|wait| (1..=660).contains(&wait)), "{title} {wait:?}");
    }
    assert!(mailbox.calls("getMessage") <= told_to_wait + 1, "Gmail was asked though it had asked for a pause");
    // Another mailbox of the organisation's is not held up by that; its grant's end is told as what it is.
    let other = house.mailbox("b").await;
    let id = deliver(&other, mail(&[("Content-Type: application/pdf; name=a.pdf", &file)]));
    assert!(ask(&house, &other, &id, "1").await.bytes().await.unwrap() == file);
    gmail().end_grants(&other.email, Cause::Revoked).unwrap();
    wait_until(LONG, "the end of the grant is told", || async {
        let answer = ask(&house, &other, &id, "1").await;
        answer.status() != StatusCode::OK && {
            let (title, _) = refused(answer, 409).await;
            title == "Gmail.ReauthRequired"
        }
    })
    .await;
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_pass_through_little_memory_and_few_at_a_time() {
    const LARGE: usize = 20 << 20;
    let house = House::with("large", &[RICH.as_slice(), &[("MAILTIDE_INGRESS_DOWNLOADS", "3")]].concat()).await;
    let mut ingress = house.process("ingress", "ingress");
    ingress.start().ready().await;
    house.api_is_at(&ingress.logged("API open", "address").await);
    let mailbox = house.mailbox("a").await;
    let file = noise(LARGE, 11);
    let small = deliver(&mailbox, mail(&[("Content-Type: application/pdf; name=a.pdf", b"small")]));
    let large = deliver(&mailbox, mail(&[("Content-Type: application/pdf; name=a.pdf", &file)]));
    assert_eq!(ask(&house, &mailbox, &small, "1").await.bytes().await.unwrap(), "small");
    let before = ingress.resident();
    // Three that begin and are not read yet: a fourth has to wait.
    let mut begun = Vec::new();
    for _ in 0..3 {
        let answer = ask(&house, &mailbox, &large, "1").await;
        assert_eq!(answer.status(), StatusCode::OK);
        begun.push(answer);
    }
    assert_eq!(refused(ask(&house, &mailbox, &small, "1").await, 503).await.0, "Server.Overloaded");
    let read = begun.into_iter().map(|answer| tokio::spawn(async move { answer.bytes().await.unwrap() }));
    for whole in read.collect::<Vec<_>>() {
        assert!(whole.await.unwrap() == file, "the file came otherwise than it was sent");
    }
    let grown = ingress.resident_at_most().saturating_sub(before);
    // Held as a whole, three files would be 60 MiB, and 80 in base64.
    assert!(grown < 40 << 20, "{grown} bytes more for {} bytes in all", 3 * LARGE);
    wait_until(Duration::from_secs(60), "there is room again", || async {
        ask(&house, &mailbox, &small, "1").await.status() == StatusCode::OK
    })
    .await;
    assert_eq!(ingress.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_the_quota_is_enough_for_a_file_and_more_is_told_when_to_come() {
    let house = House::new("frugal").await;
    let ingress = house.ingress().await;
    let mailbox = house.mailbox("a").await;
    // The account is connected five times: a part for each would be less than a file.
    for name in ["b", "c", "d", "e"] {
        let other = store::organisations::create(&house.store, name, now()).await.unwrap().organisation_id;
        let token = SecretString::from(gmail().grant(&mailbox.email, None, None, None).unwrap());
        let consent = Consent { account: &mailbox.email, email: &mailbox.email, refresh_token: &token };
        store::connections::add(&house.store, other, &consent, now()).await.unwrap();
    }
    let id = deliver(&mailbox, mail(&[("Content-Type: application/pdf; name=a.pdf", b"small")]));
    // A budget begins empty and fills by some four units a second: one file has its turn in time, not all of them.
    let asked = futures_util::future::join_all((0..6).map(|_| ask(&house, &mailbox, &id, "1")));
    let (mut came, mut told) = (0, 0);
    for answer in asked.await {
        if answer.status() == StatusCode::OK {
            assert_eq!(answer.bytes().await.unwrap(), "small");
            came += 1;
        } else {
            let (title, wait) = refused(answer, 503).await;
            assert!(
                title == "Gmail.Throttled" && wait.is_some_and(|wait| (1..=120).contains(&wait)),
                "{title} {wait:?}"
            );
            told += 1;
        }
    }
    assert!(came > 0 && told > 0, "{came} came, {told} were told to wait");
    wait_until(LONG, "a file is read again", || async {
        ask(&house, &mailbox, &id, "1").await.status() == StatusCode::OK
    })
    .await;
    ingress.stop().await;
}
