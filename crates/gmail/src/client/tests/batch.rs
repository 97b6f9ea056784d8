//! Batches of reads against a server that answers as it is told.

use std::time::Duration;

use domain::MessageId;

use super::fake::{Fake, Script};
use super::*;
use crate::message::{Message, View};

const THROTTLED: &str = r#"{"error":{"code":429,"message":"Too many concurrent requests for user.",
    "errors":[{"reason":"rateLimitExceeded","domain":"global"}],"status":"RESOURCE_EXHAUSTED"}}"#;
const GONE: &str = r#"{"error":{"code":404,"message":"Requested entity was not found.",
    "errors":[{"reason":"notFound"}]}}"#;

fn ids(count: u64) -> Vec<MessageId> {
    (1..=count).map(MessageId::from_u64).collect()
}

fn reading() -> Reading {
    Reading {
        lane: Lane::Fetch,
        view: View::Full,
        deadline: Instant::now() + Duration::from_secs(20),
        token_version: TokenVersion(1),
    }
}

fn found(id: u64) -> (u16, String) {
    (200, format!(r#"{{"id":"{id:x}","labelIds":["INBOX"]}}"#))
}

/// The answer of a batch: parts by number, in whatever order.
fn answer(parts: impl IntoIterator<Item = (usize, (u16, String))>) -> Script {
    let mut body = String::new();
    for (index, (status, part)) in parts {
        body += &format!(
            "--x\r\nContent-Type: application/http\r\nContent-ID: <response-{index}>\r\n\r\nHTTP/1.1 {status} What\r\n\
             Content-Type: application/json\r\n\r\n{part}\r\n"
        );
    }
    Script::json(200, &format!("{body}--x--\r\n")).with_header("content-type", "multipart/mixed; boundary=x")
}

fn names(read: &Read) -> Vec<Result<String, &'static str>> {
    let name = |result: &Result<Message, CallError>| match result {
        Ok(message) => Ok(message.id.to_string()),
        failed => Err(outcome(failed)),
    };
    read.messages.iter().map(name).collect()
}

#[tokio::test]
async fn each_part_has_its_own_verdict_wherever_it_stands() {
    let fake = Fake::start().await;
    let backend = r#"{"error":{"errors":[{"reason":"backendError"}]}}"#.to_owned();
    let broken = r#"{"id":7}"#.to_owned();
    fake.api(answer([
        (4, (200, broken)),
        (3, (500, backend)),
        (2, found(3)),
        (0, found(1)),
        (1, (404, GONE.to_owned())),
        (99, found(99)),
    ]));
    let read = fake.client().get_messages(fake.mailbox, &ids(5), &reading()).await;
    assert_eq!(
        names(&read),
        [Ok("1".to_owned()), Err("not_found"), Ok("3".to_owned()), Err("transient"), Err("broken")]
    );
    assert_eq!((read.units, read.token_version), (100, TokenVersion(1)));
    let seen = fake.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/batch/gmail/v1"));
    assert_eq!(seen[0].authorization, "Bearer access-1");
    assert!(seen[0].body.starts_with(
        "--mailtide-batch\r\nContent-Type: application/http\r\nContent-ID: <0>\r\n\r\n\
         GET /gmail/v1/users/me/messages/1?format=full&fields=id,threadId,"
    ));
}

#[tokio::test]
async fn a_part_that_is_left_out_is_asked_for_again_and_not_for_ever() {
    let fake = Fake::start().await;
    fake.api(answer([(0, found(1))]));
    fake.api(answer([]));
    fake.api(answer([(0, found(2))]));
    let read = fake.client().get_messages(fake.mailbox, &ids(2), &reading()).await;
    assert_eq!(names(&read), [Ok("1".to_owned()), Ok("2".to_owned())]);
    assert_eq!(read.units, 80);
    (0..3).for_each(|_| fake.api(answer([])));
    let read = fake.client().get_messages(fake.mailbox, &ids(1), &reading()).await;
    assert_eq!(names(&read), [Err("transient")]);
    assert_eq!(fake.seen().len(), 6);
}

#[tokio::test]
async fn a_push_back_halves_the_next_batches_and_what_was_not_asked_for_costs_nothing() {
    let fake = Fake::start().await;
    let client = fake.client();
    let throttled =
        |index: usize| if index.is_multiple_of(2) { found(index as u64 + 1) } else { (429, THROTTLED.to_owned()) };
    fake.api(answer((0..25).map(|index| (index, throttled(index)))));
    let read = client.get_messages(fake.mailbox, &ids(40), &reading()).await;
    for (index, result) in names(&read).into_iter().enumerate() {
        let expected =
            if index < 25 && index.is_multiple_of(2) { Ok(format!("{:x}", index + 1)) } else { Err("throttled") };
        assert_eq!(result, expected, "{index}");
    }
    assert_eq!(read.units, 25 * 20);
    fake.api(answer((0..12).map(|index| (index, found(index as u64 + 1)))));
    let read = client.get_messages(fake.mailbox, &ids(12), &reading()).await;
    assert!(read.messages.iter().all(Result::is_ok), "{:?}", names(&read));
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn parts_that_a_stale_token_was_refused_for_are_asked_again_once() {
    let fake = Fake::start().await;
    let unauthorized = || (401, r#"{"error":{"errors":[{"reason":"authError"}]}}"#.to_owned());
    fake.api(answer([(0, found(1)), (1, unauthorized())]));
    fake.api(answer([(0, found(2))]));
    let client = fake.client();
    let read = client.get_messages(fake.mailbox, &ids(2), &reading()).await;
    assert_eq!(names(&read), [Ok("1".to_owned()), Ok("2".to_owned())]);
    assert_eq!(fake.refreshes(), 2);
    assert_eq!(fake.seen()[1].authorization, "Bearer access-2");
    fake.api(answer([(0, unauthorized())]));
    fake.api(answer([(0, unauthorized())]));
    let read = client.get_messages(fake.mailbox, &ids(1), &reading()).await;
    assert_eq!((names(&read), fake.refreshes()), (vec![Err("transient")], 3));
}

#[tokio::test]
async fn what_befalls_the_batch_as_a_whole_befalls_all_of_it() {
    let fake = Fake::start().await;
    let client = fake.client();
    let cases = [
        (Script::json(200, "<html>hotel</html>").with_header("content-type", "text/html"), "transient"),
        (Script::json(404, "<html>not here</html>"), "transient"),
        (Script::json(404, GONE), "transient"),
        (Script::json(503, ""), "transient"),
        (Script::BreakOff("--x\r\nContent-"), "transient"),
        (Script::json(429, THROTTLED), "throttled"),
        (Script::json(403, r#"{"error":{"errors":[{"reason":"domainPolicy"}]}}"#), "permanent"),
    ];
    for (script, outcome) in cases {
        let name = format!("{script:?}");
        fake.api(script);
        let read = client.get_messages(fake.mailbox, &ids(30), &reading()).await;
        assert_eq!(names(&read), vec![Err(outcome); 30], "{name}");
    }
}

#[tokio::test]
async fn an_outer_401_is_answered_by_one_refresh() {
    let fake = Fake::start().await;
    fake.api(Script::json(401, "{}"));
    fake.api(answer([(0, found(1))]));
    let read = fake.client().get_messages(fake.mailbox, &ids(1), &reading()).await;
    assert_eq!((names(&read), fake.refreshes()), (vec![Ok("1".to_owned())], 2));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_asked_for_in_halves() {
    let fake = Fake::start().await;
    let large = |id: u64| (200, format!(r#"{{"id":"{id:x}","snippet":"{}"}}"#, "x".repeat(600_000)));
    let huge = format!(r#"{{"id":"2","snippet":"{}"}}"#, "x".repeat(2_000_000));
    fake.api(answer([(0, large(1)), (1, large(2))]));
    fake.api(answer([(0, large(1))]));
    fake.api(answer([(0, (200, huge))]));
    let read = fake.client().get_messages(fake.mailbox, &ids(2), &reading()).await;
    assert_eq!(names(&read), [Ok("1".to_owned()), Err("broken")]);
    assert_eq!((read.units, fake.seen().len()), (80, 3));
}

#[tokio::test]
async fn one_batch_of_a_mailbox_is_under_way_at_a_time() {
    let fake = Fake::start().await;
    fake.api(Script::Hang);
    let client = fake.client();
    let (first, mailbox) = (client.clone(), fake.mailbox);
    let hung = tokio::spawn(async move { first.get_messages(mailbox, &ids(1), &reading()).await });
    fake.until(|| fake.seen().len() == 1).await;
    let soon = Reading { deadline: Instant::now() + Duration::from_millis(100), ..reading() };
    let read = client.get_messages(mailbox, &ids(1), &soon).await;
    assert_eq!((names(&read), read.units, fake.seen().len()), (vec![Err("transient")], 0, 1));
    hung.abort();
    fake.api(answer([(0, found(1))]));
    let read = client.get_messages(mailbox, &ids(1), &reading()).await;
    assert_eq!(names(&read), [Ok("1".to_owned())]);
}

#[tokio::test]
async fn nothing_asked_is_nothing_spent() {
    let fake = Fake::start().await;
    let read = fake.client().get_messages(fake.mailbox, &[], &reading()).await;
    assert_eq!((read.messages.len(), read.units, fake.seen().len()), (0, 0, 0));
}
