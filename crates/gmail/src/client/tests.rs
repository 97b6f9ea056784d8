//! The client against a server that answers as it is told.

mod batch;
mod download;
mod fake;

use std::time::Duration;

use domain::mailbox::reply::{Answer, Call, CallError, CallId, HistoryPage, Reply, Request};
use domain::{HistoryId, Lane, Timestamp, TokenVersion};
use fake::{Fake, Script};

use super::*;
use crate::token::TokenSourceError;

const EMPTY: &str = r#"{"historyId":"7"}"#;
const INVALID_GRANT: &str = r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#;

fn history() -> Call {
    Call {
        id: CallId(1),
        lane: Lane::Live,
        request: Request::History { start: HistoryId::new(5), token: None, max: 500 },
        deadline: None,
        token_version: TokenVersion(1),
        trace: None,
    }
}

fn empty() -> Result<Reply, CallError> {
    Ok(Reply::History(HistoryPage { head: HistoryId::new(7), ..HistoryPage::default() }))
}

fn is_transient(answer: &Answer) -> bool {
    matches!(answer.result, Err(CallError::Transient { .. }))
}

/// Moves the clock without waiting, and lets it run again.
async fn pass(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_answer_carries_reply_date_price_and_token_version() {
    let fake = Fake::start().await;
    fake.api(Script::json(200, EMPTY).with_header("date", "Fri, 11 Sep 2026 20:00:00 GMT"));
    let answer = fake.client().call(fake.mailbox, &history()).await;
    let date = Some(Timestamp::from_millis(1_789_156_800_000));
    assert_eq!(answer, Answer { result: empty(), date, units: 2, token_version: TokenVersion(1) });
    let seen = fake.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/gmail/v1/users/me/history");
    assert!(seen[0].query.starts_with("startHistoryId=5&historyTypes=messageAdded&"), "{}", seen[0].query);
    assert_eq!(seen[0].authorization, "Bearer access-1");
    assert!(seen[0].user_agent.contains("gzip") && seen[0].accept_encoding.contains("gzip"));
}

#[tokio::test]
async fn a_packed_answer_is_unpacked_and_an_endless_one_is_cut() {
    let fake = Fake::start().await;
    let padded = format!("{}{EMPTY}", " ".repeat(900_000));
    fake.api(Script::json(200, &padded));
    fake.api(Script::json(200, &" ".repeat(40_000_000)));
    let client = fake.client();
    assert_eq!(client.call(fake.mailbox, &history()).await.result, empty());
    let answer = client.call(fake.mailbox, &history()).await;
    assert!(
        matches!(&answer.result, Err(CallError::Broken { detail }) if detail.contains("larger than 1048576")),
        "{answer:?}"
    );
    assert!(fake.packed() > 0, "the server packed nothing, so this proved nothing");
}

#[tokio::test]
async fn accidents_on_the_way_pass() {
    let fake = Fake::start().await;
    let scripts = [
        Script::json(502, "<html>Bad Gateway</html>"),
        Script::json(200, "<html>Welcome to the hotel</html>"),
        Script::json(200, r#"{"history":[{"id":"6","mess"#),
        Script::BreakOff(r#"{"history":["#),
        Script::json(503, ""),
    ];
    let client = fake.client();
    for script in scripts {
        let name = format!("{script:?}");
        fake.api(script);
        let answer = client.call(fake.mailbox, &history()).await;
        assert!(is_transient(&answer), "{name} gave {answer:?}");
        assert_eq!(answer.units, 2, "{name}: what was sent was spent");
    }
    fake.api(Script::json(200, EMPTY));
    assert_eq!(client.call(fake.mailbox, &history()).await.result, empty());
}

#[tokio::test]
async fn nobody_there_passes_and_names_no_url() {
    let fake = Fake::start().await;
    let mut settings = fake.settings();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    settings.api_url = format!("http://{}/secretpath/", free.local_addr().unwrap()).parse().unwrap();
    drop(free);
    let answer = fake.client_with(&settings).call(fake.mailbox, &history()).await;
    let Err(CallError::Transient { detail }) = &answer.result else { panic!("{answer:?}") };
    assert!(detail.starts_with("could not connect: ") && !detail.contains("secretpath"), "{detail}");
}

#[tokio::test]
async fn a_push_back_says_until_when() {
    let fake = Fake::start().await;
    fake.api(Script::json(429, "{}").with_header("retry-after", "9"));
    let before = now();
    let answer = fake.client().call(fake.mailbox, &history()).await;
    let Err(CallError::Throttled { until: Some(until) }) = answer.result else { panic!("{answer:?}") };
    assert!(until >= before + domain::Duration::from_secs(9) && until <= now() + domain::Duration::from_secs(9));
}

#[tokio::test]
async fn a_hanging_answer_is_given_up_and_its_price_is_told() {
    let fake = Fake::start().await;
    fake.api(Script::Hang);
    let settings = Settings { call_timeout: Duration::from_millis(300), ..fake.settings() };
    let answer = fake.client_with(&settings).call(fake.mailbox, &history()).await;
    assert!(is_transient(&answer), "{answer:?}");
    assert_eq!(answer.units, 2);
}

#[tokio::test]
async fn what_comes_too_late_is_not_asked() {
    let fake = Fake::start().await;
    let late = Call { deadline: Some(now() - domain::Duration::from_secs(1)), ..history() };
    let answer = fake.client().call(fake.mailbox, &late).await;
    assert_eq!(answer.result, Err(CallError::Throttled { until: None }), "it says nothing about the page");
    assert!(answer.units == 0 && fake.seen().is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_token_is_refreshed_once_however_many_wait() {
    let fake = Fake::start().await;
    fake.token(Script::token("access-1", 3_599).after(Duration::from_millis(100)));
    let client = fake.client();
    let call = history();
    let calls = (0..200).map(|_| client.call(fake.mailbox, &call));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.result, empty());
    }
    assert_eq!((fake.refreshes(), fake.asked()), (1, 1));
}

#[tokio::test]
async fn a_refresh_that_fails_fails_once_for_all_who_wait() {
    let fake = Fake::start().await;
    fake.token(Script::json(503, "").after(Duration::from_millis(100)));
    let client = fake.client();
    let call = history();
    let calls = (0..200).map(|_| client.call(fake.mailbox, &call));
    for answer in futures_util::future::join_all(calls).await {
        assert!(is_transient(&answer) && answer.units == 0, "{answer:?}");
    }
    assert_eq!(fake.refreshes(), 1);
    assert_eq!(client.call(fake.mailbox, &call).await.result, empty(), "the next one tries again");
}

#[tokio::test]
async fn when_the_one_that_refreshes_goes_away_the_next_takes_over() {
    let fake = Fake::start().await;
    fake.token(Script::Hang);
    let client = fake.client();
    let (first, second) = (client.clone(), client);
    let mailbox = fake.mailbox;
    let first = tokio::spawn(async move { first.call(mailbox, &history()).await });
    fake.until(|| fake.refreshes() == 1).await;
    let second = tokio::spawn(async move { second.call(mailbox, &history()).await });
    first.abort();
    assert_eq!(second.await.unwrap().result, empty());
    assert_eq!(fake.refreshes(), 2);
}

#[tokio::test]
async fn a_401_is_answered_by_one_refresh_and_one_more_try() {
    let fake = Fake::start().await;
    fake.api(Script::json(401, "{}"));
    let answer = fake.client().call(fake.mailbox, &history()).await;
    assert_eq!((answer.result, answer.units), (empty(), 4));
    assert_eq!(fake.refreshes(), 2);
    let tokens: Vec<_> = fake.seen().into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(tokens, ["Bearer access-1", "Bearer access-2"]);
}

#[tokio::test]
async fn many_401s_of_one_token_make_one_refresh() {
    let fake = Fake::start().await;
    let client = fake.client();
    assert_eq!(client.call(fake.mailbox, &history()).await.result, empty());
    fake.refuse("Bearer access-1");
    let call = history();
    for answer in futures_util::future::join_all((0..100).map(|_| client.call(fake.mailbox, &call))).await {
        assert_eq!(answer.result, empty());
    }
    assert_eq!(fake.refreshes(), 2);
}

#[tokio::test]
async fn a_401_that_stays_is_not_tried_for_ever() {
    let fake = Fake::start().await;
    fake.api(Script::json(401, "{}"));
    fake.api(Script::json(401, "{}"));
    let answer = fake.client().call(fake.mailbox, &history()).await;
    assert!(is_transient(&answer), "{answer:?}");
    assert_eq!((fake.seen().len(), fake.refreshes()), (2, 2));
}

#[tokio::test]
async fn a_grant_that_is_gone_is_told_with_its_cause_and_version() {
    let fake = Fake::start().await;
    fake.api(Script::json(401, "{}"));
    fake.token(Script::token("access-1", 3_599));
    fake.token(Script::json(400, INVALID_GRANT));
    let answer = fake.client().call(fake.mailbox, &history()).await;
    let cause = "invalid_grant: Token has been expired or revoked.".to_owned();
    assert_eq!((answer.result, answer.token_version), (Err(CallError::Revoked { cause }), TokenVersion(1)));
}

#[tokio::test]
async fn a_newer_refresh_token_replaces_what_was_kept() {
    let fake = Fake::start().await;
    let client = fake.client();
    client.call(fake.mailbox, &history()).await;
    let newer = Call { token_version: TokenVersion(2), ..history() };
    let behind = client.call(fake.mailbox, &newer).await;
    assert!(is_transient(&behind), "the source still has version 1: {behind:?}");
    fake.grant(Ok(TokenVersion(2)));
    let answer = client.call(fake.mailbox, &newer).await;
    assert_eq!((answer.result, answer.token_version), (empty(), TokenVersion(2)));
    // Who asks for less is served from the newer one.
    assert_eq!(client.call(fake.mailbox, &history()).await.token_version, TokenVersion(2));
    assert_eq!(fake.refreshes(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_serves_until_then_when_that_fails() {
    let fake = Fake::start().await;
    fake.token(Script::token("access-1", 3_600));
    let client = fake.client();
    client.call(fake.mailbox, &history()).await;
    // The store goes away with two minutes left: the living token goes on, and the store is not asked at each call.
    fake.grant(Err(TokenSourceError::Away { detail: "restarting".to_owned() }));
    pass(Duration::from_secs(3_600 - 100)).await;
    for _ in 0..10 {
        assert_eq!(client.call(fake.mailbox, &history()).await.result, empty());
    }
    assert_eq!(fake.asked(), 2);
    // It comes back: renewed before the end.
    fake.grant(Ok(TokenVersion(1)));
    pass(Duration::from_secs(10)).await;
    assert_eq!(client.call(fake.mailbox, &history()).await.result, empty());
    assert_eq!(fake.seen().last().unwrap().authorization, "Bearer access-2");
    // Away for longer than a token lives: the mailbox waits.
    fake.grant(Err(TokenSourceError::Away { detail: "restarting".to_owned() }));
    pass(Duration::from_secs(3_600)).await;
    let calls = fake.seen().len();
    let answer = client.call(fake.mailbox, &history()).await;
    assert!(is_transient(&answer) && fake.seen().len() == calls, "{answer:?}");
}

#[tokio::test]
async fn what_the_source_says_reaches_the_mailbox() {
    for (said, heard) in [
        (TokenSourceError::Gone, CallError::ConnectionGone),
        (
            TokenSourceError::Unreadable { detail: "no key".to_owned() },
            CallError::Permanent { code: "Gmail.TokenUnreadable".to_owned(), detail: "no key".to_owned() },
        ),
    ] {
        let fake = Fake::start().await;
        fake.grant(Err(said));
        assert_eq!(fake.client().call(fake.mailbox, &history()).await.result, Err(heard));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_token() {
    let fake = Fake::start().await;
    fake.api(Script::json(302, "").with_header("location", "/elsewhere"));
    let answer = fake.client().call(fake.mailbox, &history()).await;
    assert!(is_transient(&answer), "{answer:?}");
    assert_eq!(fake.seen().len(), 1);
}
