//! Backfills, cancellations and renewals, from the request to what the mailbox made of them.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulator::{Cause, Delivery, Mails};

use super::browser::{Browser, RETURN_URL, allow_return};
use crate::house::{House, gmail, now};
use crate::support::{LONG, wait_until};

/// Posts JSON to the house's API.
async fn post(house: &House, path: &str, body: &Value) -> (StatusCode, Value) {
    let answer = house.request(Method::POST, path).json(body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The ids of the messages announced with this origin.
async fn announced(house: &House, origin: &str) -> BTreeSet<String> {
    let records = house.committed("gmail.message.discovered").await;
    let events = records
        .iter()
        .map(|record| events::decode::<domain::GmailMessageDiscovered>(record.value.as_deref().unwrap()).unwrap());
    events.filter(|event| event.origin.as_str() == origin).map(|event| event.message_id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_announces_its_window_and_a_cancelled_job_ends() {
    let house = House::new("windows").await;
    let mailbox = house.mailbox("ann").await;
    let day = 86_400_000;
    let deliver = |days_ago: i64| {
        let delivery = Delivery { internal_ms: Some(now().as_millis() - days_ago * day), ..Delivery::default() };
        gmail().deliver(&mailbox.email, Mails::Synthetic(3), &delivery).unwrap()
    };
    let (old, _recent) = (deliver(100), deliver(10));
    let ingress = house.ingress().await;
    let projector = house.projector();
    projector.ready().await;
    let at = |days_ago: i64| jiff::Timestamp::from_millisecond(now().as_millis() - days_ago * day).unwrap().to_string();
    let path = format!("/gmail-connections/{}/backfill", mailbox.id);

    // No poller yet: what is asked for waits, and can be cancelled.
    let (status, cancelled) = post(&house, &path, &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let cancel = format!("/jobs/{}/cancel", cancelled["jobId"].as_str().unwrap());
    assert_eq!(post(&house, &cancel, &json!({})).await, (StatusCode::ACCEPTED, cancelled.clone()));
    let (status, backfill) = post(&house, &path, &json!({"since": at(101), "until": at(99)})).await;
    assert_eq!(status, StatusCode::ACCEPTED);

    let poller = house.poller("one");
    poller.ready().await;
    let ended = house.ended(backfill["jobId"].as_str().unwrap()).await;
    assert_eq!([&ended["state"], &ended["trigger"]], ["succeeded", "backfill"], "{ended}");
    let ids = |mails: &[simulator::Truth]| mails.iter().map(|mail| mail.id.clone()).collect::<BTreeSet<_>>();
    let padded = |found: BTreeSet<String>| found.iter().map(|id| format!("{id:0>16}")).collect::<BTreeSet<_>>();
    let expected: BTreeSet<String> = ids(&old).iter().map(|id| format!("{id:0>16}")).collect();
    assert_eq!(padded(announced(&house, "backfill").await), expected, "its window and nothing else");
    let ended = house.ended(cancelled["jobId"].as_str().unwrap()).await;
    assert_eq!(ended["state"], "cancelled", "{ended}");
    // What has ended cannot be cancelled; what does not exist neither.
    let (status, problem) = post(&house, &cancel, &json!({})).await;
    assert_eq!((status, &problem["title"]), (StatusCode::CONFLICT, &json!("Job.AlreadyFinished")));
    let nobody = format!("/jobs/{}/cancel", uuid::Uuid::new_v4());
    assert_eq!(post(&house, &nobody, &json!({})).await.0, StatusCode::NOT_FOUND);

    for (window, member) in [
        (json!({"since": at(1), "until": at(2)}), "`since`"),
        (json!({"since": at(1), "until": at(1)}), "`since`"),
        (json!({"until": "2999-01-01T00:00:00Z"}), "`until`"),
        (json!({"since": "2004-03-31T23:59:59Z"}), "`since`"),
        (json!({"since": "yesterday"}), "`since`"),
        (json!({"from": at(1)}), "`from`"),
    ] {
        let (status, problem) = post(&house, &path, &window).await;
        assert_eq!((status, &problem["title"]), (StatusCode::BAD_REQUEST, &json!("Request.BodyInvalid")), "{window}");
        assert!(problem["detail"].as_str().unwrap().contains(member), "{window}: {problem}");
    }
    poller.stop().await;
    projector.stop().await;
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_was_revoked_fails_syncs_until_it_is_renewed_and_nothing_is_lost() {
    let house = House::new("renewed").await;
    allow_return(&house.store, house.organisation).await;
    let mailbox = house.mailbox("ann").await;
    let services = house.open().await;
    mailbox.deliver(3);
    house.sync(&mailbox).await;

    gmail().end_grants(&mailbox.email, Cause::Revoked).unwrap();
    gmail().expire_access_tokens(&mailbox.email).unwrap();
    mailbox.deliver(4);
    // Accepted as ever; the job says what is wrong and what to do, again and again.
    for _ in 0..2 {
        let failed = house.ended(&house.ask(&mailbox).await).await;
        assert_eq!([&failed["state"], &failed["code"]], ["failed", "Gmail.ReauthRequired"], "{failed}");
        assert!(failed["detail"].as_str().unwrap().contains("connect"), "{failed}");
    }
    let path = format!("/gmail-connections/{}", mailbox.id);
    let read = || async { house.request(Method::GET, &path).send().await.unwrap().json::<Value>().await.unwrap() };
    wait_until(LONG, "the connection says so", || async { read().await["status"] == "needs_reauth" }).await;
    let one = read().await;
    assert_eq!(one["code"], "Gmail.ReauthRequired");
    assert!(one["nextScheduledAt"].is_null(), "the schedule leaves it alone: {one}");

    // Its owner consents again: the same connection, with all that it knew.
    let (status, page) = post(&house, "/gmail-connections", &json!({"returnUrl": RETURN_URL})).await;
    assert_eq!(status, StatusCode::CREATED, "{page}");
    let browser = Browser::new();
    let callback = browser.allow(page["consentUrl"].as_str().unwrap(), &mailbox.email).await;
    let outcome = browser.come_back(&callback).await;
    assert_eq!(outcome, ("connected".to_owned(), Some(mailbox.id.to_string())));
    let one = read().await;
    assert_eq!(one["status"], "active", "{one}");
    assert!(one["nextScheduledAt"].is_string(), "{one}");
    mailbox.deliver(2);
    house.sync(&mailbox).await;
    wait_until(LONG, "all is announced, as live mail", || async { announced(&house, "live").await.len() >= 6 }).await;
    house.assert_clean().await;
    services.stop().await;
}
