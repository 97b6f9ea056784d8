//! Requests sent again under an `Idempotency-Key`.

use std::collections::HashSet;

use domain::Command;
use futures_util::future::join_all;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use store::connections::Consent;

use super::api::{Api, assert_problem, database, now, sync_path, tenant};
use crate::support::committed;

const HEADER: &str = "idempotency-key";

async fn sync(api: &Api, key: &str) -> Response {
    api.request(Method::POST, &api.sync_path()).header(HEADER, key).send().await.unwrap()
}

/// Status, place and body: what the client goes by.
async fn heard(answer: Response) -> (StatusCode, String, String) {
    let location = answer.headers().get("location").map(|place| place.to_str().unwrap().to_owned());
    (answer.status(), location.unwrap_or_default(), answer.text().await.unwrap())
}

/// The jobs that the commands on the topic ask for.
async fn commanded(api: &Api) -> Vec<String> {
    let records = committed(&api.place.topic("gmail.connection.poll")).await;
    let job = |record: &crate::support::Record| match events::decode_command(record.value.as_deref().unwrap()).unwrap()
    {
        Command::Poll(command) => command.job_id.to_string(),
        other => panic!("{other:?}"),
    };
    records.iter().map(job).collect()
}

#[tokio::test]
async fn the_same_request_again_is_answered_the_same_and_asks_for_nothing_more() {
    let api = Api::start("again").await;
    let first = heard(sync(&api, "one").await).await;
    assert_eq!(first.0, StatusCode::ACCEPTED);
    assert_eq!(heard(sync(&api, "one").await).await, first);
    let other = heard(sync(&api, "two").await).await;
    assert_eq!(other.0, StatusCode::ACCEPTED);
    assert_ne!(other, first);
    let jobs = [&first, &other].map(|heard| heard.1.strip_prefix("/jobs/").unwrap().to_owned());
    assert_eq!(commanded(&api).await.into_iter().collect::<HashSet<_>>(), jobs.into_iter().collect());
    assert_eq!(commanded(&api).await.len(), 2);
    // The key is the organisation's: another's is another.
    let stranger = tenant(&api.store).await;
    let path = sync_path(&stranger.connection.to_string());
    let theirs = api.request_as(&stranger.key, Method::POST, &path).header(HEADER, "one").send().await.unwrap();
    let theirs = heard(theirs).await;
    assert_eq!(theirs.0, StatusCode::ACCEPTED);
    assert_ne!(theirs, first);
}

#[tokio::test]
async fn another_request_with_the_same_key_is_refused() {
    let api = Api::start("reused").await;
    assert_eq!(sync(&api, "one").await.status(), StatusCode::ACCEPTED);
    let refresh_token = secrecy::SecretString::from("of no use here");
    let consent = Consent { account: "b@tests.example", email: "b@tests.example", refresh_token: &refresh_token };
    let second = store::connections::add(&api.store, api.tenant.organisation, &consent, now()).await.unwrap();
    let path = sync_path(&second.connection_id.to_string());
    let reused = api.request(Method::POST, &path).header(HEADER, "one").send().await.unwrap();
    assert_problem(reused, 422, "Request.IdempotencyKeyReused").await;
    assert_eq!(commanded(&api).await.len(), 1);
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let api = Api::start("no-key").await;
    for key in ["", "a b", &"k".repeat(256)] {
        assert_problem(sync(&api, key).await, 400, "Request.IdempotencyKeyInvalid").await;
    }
    let twice = api.request(Method::POST, &api.sync_path()).header(HEADER, "a").header(HEADER, "a");
    assert_problem(twice.send().await.unwrap(), 400, "Request.IdempotencyKeyInvalid").await;
    assert!(commanded(&api).await.is_empty());
}

/// Two instances, as behind a balancer, asked at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_make_one_job() {
    const EACH: usize = 16;
    let api = Api::start("at-once").await;
    let beside = api.beside().await;
    let path = api.sync_path();
    let ask = |base: &str| {
        let request = api.client.post(format!("{base}{path}")).header(super::api::KEY, &api.tenant.key);
        request.header(HEADER, "one").send()
    };
    let asked = (0..EACH).flat_map(|_| [ask(&api.base), ask(&beside.base)]);
    let mut heard_of = HashSet::new();
    for answer in join_all(asked).await {
        heard_of.insert(heard(answer.unwrap()).await);
    }
    assert_eq!(heard_of.len(), 1, "{heard_of:?}");
    let (status, location, _) = heard_of.into_iter().next().unwrap();
    assert_eq!(status, StatusCode::ACCEPTED);
    let jobs: HashSet<String> = commanded(&api).await.into_iter().collect();
    assert_eq!(jobs, HashSet::from([location.strip_prefix("/jobs/").unwrap().to_owned()]));
}

/// As after a crash between the command and its row, or between the claim and the command.
#[tokio::test]
async fn a_request_that_died_on_its_way_is_taken_up_under_the_same_job() {
    let api = Api::start("died").await;
    let first = heard(sync(&api, "one").await).await;
    assert_eq!(database(&api).await.execute("DELETE FROM jobs", &[]).await.unwrap(), 1);
    assert_eq!(heard(sync(&api, "one").await).await, first);
    let looked = api.request(Method::GET, &first.1).send().await.unwrap();
    assert_eq!(looked.status(), StatusCode::OK);
    let jobs: HashSet<String> = commanded(&api).await.into_iter().collect();
    assert_eq!(jobs.len(), 1, "the second command asks for the same job: {jobs:?}");
}

#[tokio::test]
async fn an_answer_stands_though_the_connection_is_gone() {
    let api = Api::start("gone").await;
    let first = heard(sync(&api, "one").await).await;
    let gone = database(&api).await.execute("UPDATE connections SET revoked_at = now()", &[]).await.unwrap();
    assert_eq!(gone, 1);
    let beside = api.beside().await;
    let ask = |key: &'static str| {
        let request = api.client.post(format!("{}{}", beside.base, api.sync_path())).header(HEADER, key);
        request.header(super::api::KEY, &api.tenant.key).send()
    };
    assert_eq!(heard(ask("one").await.unwrap()).await, first);
    assert_problem(ask("two").await.unwrap(), 404, "Gmail.ConnectionNotFound").await;
}

#[tokio::test]
async fn after_a_day_a_key_is_as_new_and_then_it_is_swept() {
    let api = Api::start("a-day").await;
    let first = heard(sync(&api, "one").await).await;
    let rows = database(&api).await;
    let age = "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours 1 second'";
    assert_eq!(rows.execute(age, &[]).await.unwrap(), 1);
    let second = heard(sync(&api, "one").await).await;
    assert_eq!(second.0, StatusCode::ACCEPTED);
    assert_ne!(second, first);
    assert_eq!(heard(sync(&api, "two").await).await.0, StatusCode::ACCEPTED);
    let age = "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE key_hash = $1";
    let hash = <sha2::Sha256 as sha2::Digest>::digest("one");
    assert_eq!(rows.execute(age, &[&hash.as_slice()]).await.unwrap(), 1);
    let before = now() - domain::Duration::from_hours(24);
    assert_eq!(store::idempotency::sweep(&api.store, before, 10).await.unwrap(), 1);
    let left = rows.query("SELECT key_hash FROM idempotency_keys", &[]).await.unwrap();
    let left: Vec<Vec<u8>> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [<sha2::Sha256 as sha2::Digest>::digest("two").to_vec()]);
}

#[tokio::test]
async fn neither_key_nor_request_is_kept() {
    let api = Api::start("hashed").await;
    assert_eq!(sync(&api, "a-key-that-says-something").await.status(), StatusCode::ACCEPTED);
    let rows = database(&api).await.query("SELECT to_jsonb(k) FROM idempotency_keys k", &[]).await.unwrap();
    let row: Value = rows[0].get(0);
    assert!(!row.to_string().contains("says-something"), "{row}");
    assert!(!row.to_string().contains(&api.tenant.connection.to_string()), "{row}");
}
