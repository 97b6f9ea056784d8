//! What the API answers while what it stands on is away, and that it serves again by itself.

use std::time::{Duration, Instant};

use devstack::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use reqwest::{Method, StatusCode};

use super::api::{Api, assert_problem};
use crate::support::{LONG, Place, wait_until};

/// No answer may take longer.
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_broker_a_sync_is_answered_503_in_time_and_later_works_again() {
    let mut kafka =
        tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions { own: true, ..KafkaOptions::default() }).unwrap())
            .await
            .unwrap();
    let place = Place::new("no-broker");
    let mut settings = place.settings();
    settings.insert("KAFKA_BOOTSTRAP_SERVERS".to_owned(), kafka.bootstrap().to_owned());
    let api = Api::start_with(place, settings).await;
    let job = api.sync().await;

    let kafka = tokio::task::spawn_blocking(move || {
        kafka.kill().unwrap();
        kafka
    });
    let mut kafka = kafka.await.unwrap();
    let asked = Instant::now();
    let answers = (0..20).map(|_| api.request(Method::POST, &api.sync_path()).send());
    for answer in futures_util::future::join_all(answers).await {
        assert_problem(answer.unwrap(), 503, "Server.BrokerUnavailable").await;
    }
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    assert_eq!(api.request(Method::GET, &job).send().await.unwrap().status(), StatusCode::OK, "jobs can be read");

    let kafka = tokio::task::spawn_blocking(move || {
        kafka.restart().unwrap();
        kafka
    });
    let kafka = kafka.await.unwrap();
    wait_until(LONG, "syncs are taken again", || async {
        api.request(Method::POST, &api.sync_path()).send().await.unwrap().status() == StatusCode::ACCEPTED
    })
    .await;
    tokio::task::spawn_blocking(move || drop(kafka)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_requests_are_answered_503_in_time_and_later_work_again() {
    let postgres = tokio::task::spawn_blocking(|| {
        let postgres = Postgres::start(&PostgresOptions { own: true }).unwrap();
        let database = postgres.database("away").unwrap();
        (postgres, database)
    });
    let (mut postgres, database) = postgres.await.unwrap();
    let place = Place::new("no-database");
    let mut settings = place.settings();
    settings.insert("DATABASE_URL".to_owned(), database.url().to_owned());
    settings.remove("MAILTIDE_DATABASE_SCHEMA");
    let api = Api::start_with(place, settings).await;
    let job = api.sync().await;

    let postgres = tokio::task::spawn_blocking(move || {
        postgres.kill().unwrap();
        postgres
    });
    let mut postgres = postgres.await.unwrap();
    let asked = Instant::now();
    let looked = api.request(Method::GET, &job).send().await.unwrap();
    assert_problem(looked, 503, "Server.DatabaseUnavailable").await;
    // Once with a key that is remembered still, once with one that is not.
    let triggered = api.request(Method::POST, &api.sync_path()).send().await.unwrap();
    assert_problem(triggered, 503, "Server.DatabaseUnavailable").await;
    assert!(asked.elapsed() < PROMPT * 2, "{:?}", asked.elapsed());

    let postgres = tokio::task::spawn_blocking(move || {
        postgres.restart().unwrap();
        postgres
    });
    let postgres = postgres.await.unwrap();
    wait_until(LONG, "jobs can be read again", || async {
        api.request(Method::GET, &job).send().await.unwrap().status() == StatusCode::OK
    })
    .await;
    wait_until(LONG, "syncs are taken again", || async {
        api.request(Method::POST, &api.sync_path()).send().await.unwrap().status() == StatusCode::ACCEPTED
    })
    .await;
    tokio::task::spawn_blocking(move || drop((database, postgres))).await.unwrap();
}
