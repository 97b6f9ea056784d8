//! Postgres away, hanging, or too slow: told apart from everything else, bounded in time, over when it is over.

use std::time::{Duration, Instant};

use devstack::{Postgres, PostgresOptions};
use store::{Settings, Store};

use super::{client, migrated, settings};
use crate::support::{LONG, Place, Swamp, wait_until};

#[tokio::test]
async fn a_killed_postgres_is_unavailable_until_it_is_back() {
    let mut postgres = Postgres::start(&PostgresOptions { own: true }).unwrap();
    let database = postgres.database("outage").unwrap();
    let url = Some(database.url().into());
    let store = Store::connect(&Settings { url, max_connections: 4, ..Settings::default() }).unwrap();
    store.migrate().await.unwrap();
    let four = futures_util::future::join_all((0..4).map(|_| store.ping())).await;
    assert!(four.iter().all(Result::is_ok), "{four:?}");
    postgres.kill().unwrap();
    for result in futures_util::future::join_all((0..20).map(|_| store.ping())).await {
        let error = result.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
    }
    assert!(store.migrate().await.unwrap_err().is_unavailable());
    postgres.restart().unwrap();
    wait_until(LONG, "the store answers again", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_given_up_and_its_connections_are_not_used_again() {
    let (place, _) = migrated("hangs").await;
    let swamp = Swamp::before(place.database_url()).await;
    let settings = Settings {
        url: Some(swamp.url().into()),
        max_connections: 1,
        acquire_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_millis(500),
        ..settings(&place)
    };
    let store = Store::connect(&settings).unwrap();
    wait_until(LONG, "the way to Postgres is open", || async { store.ping().await.is_ok() }).await;
    swamp.swallow(true);
    let began = Instant::now();
    for _ in 0..2 {
        // The first hangs in a connection that it has, the second in making one.
        let error = store.ping().await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
    }
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    swamp.swallow(false);
    wait_until(LONG, "the store has made a new connection", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_slow_statement_and_a_full_pool_are_unavailable_not_errors() {
    let (place, plain) = migrated("slow").await;
    let settings = Settings {
        max_connections: 1,
        acquire_timeout: Duration::from_millis(200),
        statement_timeout: Duration::from_millis(800),
        ..settings(&place)
    };
    let store = Store::connect(&settings).unwrap();
    wait_until(LONG, "the pool has its connection", || async { store.ping().await.is_ok() }).await;
    let client = client(&place, &plain).await;
    client.batch_execute("BEGIN; LOCK TABLE schedule_watermarks IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // The first waits for the lock until its time is up; the others wait for the one connection.
    let waits = futures_util::future::join_all((0..3).map(|_| store::schedule::fired_to(&store, "x"))).await;
    for result in waits {
        let error = result.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
    }
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store::schedule::fired_to(&store, "x").await.unwrap(), None);
}

#[tokio::test]
async fn a_store_can_be_made_while_postgres_is_away() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody:hunter2@{}/nothing", free.local_addr().unwrap());
    drop(free);
    let store = Store::connect(&Settings { url: Some(url.into()), ..Settings::default() }).unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(error.is_unavailable());
    assert!(!format!("{error:?}{store:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_password_is_not_an_outage() {
    let place = Place::new("password");
    let mut url: url::Url = place.database_url().parse().unwrap();
    if url.password().is_none() {
        // A server that trusts everybody refuses unknown databases at least.
        url.set_path("no_such_database");
    } else {
        url.set_password(Some("wrong")).unwrap();
    }
    let store = Store::connect(&Settings { url: Some(url.as_str().into()), ..settings(&place) }).unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, store::Error::Refused { .. }), "{error:?}");
}
