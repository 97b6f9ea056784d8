//! How often a key may ask, and when it was last used.

use reqwest::{Method, StatusCode};
use serde_json::json;
use store::keys::{self, Scope};

use super::api::{Api, assert_problem, database, now, tenant};
use super::browser::{RETURN_URL, allow_return};
use crate::support::{LONG, Place, wait_for, wait_until};

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back_and_others_are_not() {
    const BURST: usize = 5;
    let place = Place::new("rate");
    let mut settings = place.settings();
    settings.insert("MAILTIDE_INGRESS_RATE_LIMIT".to_owned(), "1".to_owned());
    settings.insert("MAILTIDE_INGRESS_RATE_BURST".to_owned(), BURST.to_string());
    let api = Api::start_with(place, settings).await;
    let path = format!("/jobs/{}", uuid::Uuid::new_v4());
    let ask = || async { api.request(Method::GET, &path).send().await.unwrap() };
    let mut answered = 0;
    // However slow the machine is, a bucket that gets one a second is empty at some time.
    let refused = wait_for(LONG, "the key has asked too often", || async {
        let answer = ask().await;
        (answer.status() == StatusCode::TOO_MANY_REQUESTS).then_some(answer)
    });
    let refused = async {
        for _ in 0..BURST {
            assert_eq!(ask().await.status(), StatusCode::NOT_FOUND);
            answered += 1;
        }
        refused.await
    }
    .await;
    assert_eq!(answered, BURST);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, 1);
    assert_problem(refused, 429, "Request.RateLimited").await;

    let (_, other) = keys::create(&api.store, api.tenant.organisation, "other", &[Scope::Read], now()).await.unwrap();
    let other = secrecy::ExposeSecret::expose_secret(&other);
    let answer = api.request_as(other, Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND, "another key of the same organisation has a rate of its own");
    wait_until(LONG, "it may ask again", || async { ask().await.status() == StatusCode::NOT_FOUND }).await;
}

#[tokio::test]
async fn an_organisation_has_only_so_many_consents_open() {
    let place = Place::new("open-consents");
    let mut settings = place.settings();
    settings.insert("MAILTIDE_INGRESS_OPEN_CONSENTS".to_owned(), "2".to_owned());
    let api = Api::start_with(place, settings).await;
    let stranger = tenant(&api.store).await;
    for organisation in [api.tenant.organisation, stranger.organisation] {
        allow_return(&api.store, organisation).await;
    }
    let body = json!({"returnUrl": RETURN_URL});
    let ask = async |key: &str| api.connect_with(key, &body).await;
    for _ in 0..2 {
        assert_eq!(ask(&api.tenant.key).await.status(), StatusCode::CREATED);
    }
    assert_problem(ask(&api.tenant.key).await, 429, "Gmail.TooManyConsents").await;
    assert_eq!(ask(&stranger.key).await.status(), StatusCode::CREATED, "another organisation has its own");
    let sql = "UPDATE consents SET expires_at = now()";
    assert_eq!(database(&api).await.execute(sql, &[]).await.unwrap(), 3);
    assert_eq!(ask(&api.tenant.key).await.status(), StatusCode::CREATED, "those have ended");
}

#[tokio::test]
async fn the_last_use_of_a_key_is_known() {
    let api = Api::start("last-use").await;
    let listed = || async { keys::list(&api.store, api.tenant.organisation).await.unwrap().remove(0).last_used_at };
    assert_eq!(listed().await, None);
    let asked = now();
    api.sync().await;
    let used = wait_for(LONG, "the use is noted", listed).await;
    assert!(used >= asked && used <= now());
}

#[tokio::test]
async fn the_last_use_is_known_though_the_service_stops_at_once() {
    let api = Api::start("last-use-stop").await;
    api.sync().await;
    api.stop();
    wait_for(LONG, "the use is noted", || async {
        keys::list(&api.store, api.tenant.organisation).await.unwrap().remove(0).last_used_at
    })
    .await;
}
