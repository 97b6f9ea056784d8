//! Connecting and disconnecting while something is away in the middle of it: the answer is clear, nothing is half done for
//! anybody to see, and asking again, or whoever looks after what is unfinished, ends it.

use std::collections::BTreeSet;

use devstack::{Kafka, KafkaOptions};
use domain::{Command, Trigger};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use store::connections;

use super::api::{Api, assert_problem, database, sync_path};
use super::away::assert_away;
use super::browser::{Browser, allow_return, mailbox};
use super::connections::is_granted;
use crate::support::{LONG, Place, Swamp, committed_blocking, stack, wait_until};

async fn status(api: &Api, method: Method, connection: &str) -> StatusCode {
    api.request(method, &format!("/gmail-connections/{connection}")).send().await.unwrap().status()
}

/// As the database knows it, it happened long ago.
async fn long_ago(api: &Api, what: &str, column: &str) {
    let sql = format!("UPDATE {what} SET {column} = {column} - interval '2 minutes' WHERE {column} IS NOT NULL");
    assert_eq!(database(api).await.execute(&sql, &[]).await.unwrap(), 1, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_and_a_deletion_without_the_broker_end_when_it_is_back() {
    let started =
        tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions { own: true, ..KafkaOptions::default() }).unwrap());
    let mut kafka = started.await.unwrap();
    let bootstrap = kafka.bootstrap().to_owned();
    let place = Place::new("half-broker");
    let mut settings = place.settings();
    settings.insert("KAFKA_BOOTSTRAP_SERVERS".to_owned(), bootstrap.clone());
    let api = Api::start_with(place, settings).await;
    allow_return(&api.store, api.tenant.organisation).await;
    let commands = async |connection: &str| {
        let (bootstrap, topic) = (bootstrap.clone(), api.place.topic("gmail.connection.poll"));
        let records = tokio::task::spawn_blocking(move || committed_blocking(&bootstrap, &topic)).await.unwrap();
        let of = records.into_iter().filter(|record| record.key_text() == connection);
        of.map(|record| events::decode_command(record.value.as_deref().unwrap()).unwrap()).collect::<Vec<_>>()
    };
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let callback = browser.allow(&api.consent_page(json!({})).await, &email).await;
    let leaving = api.tenant.connection.to_string();

    kafka = tokio::task::spawn_blocking(move || {
        kafka.kill().unwrap();
        kafka
    })
    .await
    .unwrap();
    // The mailbox is connected; its first sync is owed.
    let (outcome, connection) = browser.come_back(&callback).await;
    assert_eq!(outcome, "connected");
    let connection = connection.unwrap();
    assert_eq!(status(&api, Method::GET, &connection).await, StatusCode::OK);
    let sync = api.request(Method::POST, &sync_path(&connection)).send().await.unwrap();
    assert_away(sync, "Server.BrokerUnavailable").await;
    // The other one is gone for whoever asks, though its deletion is not finished.
    let deleted = api.request(Method::DELETE, &format!("/gmail-connections/{leaving}")).send().await.unwrap();
    assert_away(deleted, "Server.BrokerUnavailable").await;
    assert_eq!(status(&api, Method::GET, &leaving).await, StatusCode::NOT_FOUND);
    let sync = api.request(Method::POST, &sync_path(&leaving)).send().await.unwrap();
    assert_problem(sync, 404, "Gmail.ConnectionNotFound").await;

    kafka = tokio::task::spawn_blocking(move || {
        kafka.restart().unwrap();
        kafka
    })
    .await
    .unwrap();
    wait_until(LONG, "deleting it again finishes it", || async {
        status(&api, Method::DELETE, &leaving).await == StatusCode::NO_CONTENT
    })
    .await;
    assert!(commands(&leaving).await.iter().any(|command| matches!(command, Command::Forget(_))));
    long_ago(&api, "first_syncs", "owed_at").await;
    wait_until(LONG, "the first sync is asked for", || async {
        let written = commands(&connection).await;
        let triggers = written.iter().filter_map(|command| match command {
            Command::Poll(command) if command.trigger != Trigger::Api => Some((command.trigger, command.job_id)),
            _ => None,
        });
        // Written more than once, perhaps, and each time as the same job.
        let jobs: BTreeSet<_> = triggers.collect();
        let kinds: Vec<Trigger> = jobs.iter().map(|(trigger, _)| *trigger).collect();
        kinds.len() == 2 && kinds.contains(&Trigger::Connect) && kinds.contains(&Trigger::Backfill)
    })
    .await;
    wait_until(LONG, "its jobs can be read", || async {
        let path = format!("/gmail-connections/{connection}/jobs");
        let page: Value = api.request(Method::GET, &path).send().await.unwrap().json().await.unwrap();
        let has = |trigger: &str| page["data"].as_array().unwrap().iter().any(|job| job["trigger"] == trigger);
        has("connect") && has("backfill")
    })
    .await;
    tokio::task::spawn_blocking(move || drop(kafka)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_and_a_deletion_without_google_or_the_database_end_when_they_are_back() {
    let place = Place::new("half-google");
    let to_google = Swamp::before(&stack().simulator.base_url).await;
    let to_database = Swamp::before(place.database_url()).await;
    let mut settings = place.settings();
    settings.insert("DATABASE_URL".to_owned(), to_database.url());
    for (name, path) in [("TOKEN_URL", "token"), ("REVOKE_URL", "revoke")] {
        settings.insert(format!("MAILTIDE_GMAIL_{name}"), format!("{}{path}", to_google.url()));
    }
    let api = Api::start_with(place, settings).await;
    allow_return(&api.store, api.tenant.organisation).await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let connection = api.connect(&browser, &email, json!({})).await;
    let id = connection.parse().unwrap();
    let token = async || {
        let grant = connections::refresh_token(&api.store, api.tenant.organisation, id).await.unwrap().unwrap();
        grant.refresh_token.expose_secret().to_owned()
    };
    let granted = token().await;
    let callback = browser.allow(&api.consent_page(json!({})).await, &email).await;

    // Google does not answer: the browser is not kept, and the connection and its token are what they were.
    to_google.swallow(true);
    assert_eq!(browser.come_back(&callback).await, ("error".to_owned(), None));
    assert_eq!(status(&api, Method::GET, &connection).await, StatusCode::OK);
    assert_eq!(token().await, granted);
    // A deletion need not wait for Google either.
    assert_eq!(status(&api, Method::DELETE, &connection).await, StatusCode::NO_CONTENT);
    assert_eq!(status(&api, Method::GET, &connection).await, StatusCode::NOT_FOUND);
    assert!(is_granted(&granted).await, "the grant is there still");
    to_google.swallow(false);
    long_ago(&api, "connections", "revoked_at").await;
    wait_until(LONG, "the grant is ended by whoever looks after what is unfinished", || async {
        !is_granted(&granted).await
    })
    .await;
    wait_until(LONG, "nothing is left of it", || async {
        let sql = "SELECT count(*) FROM connections WHERE revoked_at IS NOT NULL AND forgotten_at IS NULL";
        database_count(&api, sql).await == 0
    })
    .await;

    // The database does not answer: nothing is taken, and the same page of the browser, loaded again, connects.
    let email = mailbox(api.place.prefix(), "bob");
    let callback = browser.allow(&api.consent_page(json!({})).await, &email).await;
    let tenants = api.tenant.connection.to_string();
    to_database.swallow(true);
    assert_away(browser.get(&callback).await, "Server.DatabaseUnavailable").await;
    let deleted = api.request(Method::DELETE, &format!("/gmail-connections/{tenants}")).send().await.unwrap();
    assert_away(deleted, "Server.DatabaseUnavailable").await;
    to_database.swallow(false);
    wait_until(LONG, "the connection that was not deleted is there", || async {
        let status = status(&api, Method::GET, &tenants).await;
        assert_ne!(status, StatusCode::NOT_FOUND);
        status == StatusCode::OK
    })
    .await;
    wait_until(LONG, "the browser is sent on", || async { browser.get(&callback).await.status() == StatusCode::FOUND })
        .await;
    wait_until(LONG, "the mailbox is connected", || async {
        let listed = connections::list(&api.store, api.tenant.organisation, None, 10).await;
        listed.is_ok_and(|listed| listed.iter().any(|one| one.email == email))
    })
    .await;
    wait_until(LONG, "the deletion is done", || async {
        status(&api, Method::DELETE, &tenants).await == StatusCode::NO_CONTENT
    })
    .await;
}

async fn database_count(api: &Api, sql: &str) -> i64 {
    database(api).await.query_one(sql, &[]).await.unwrap().get(0)
}
