//! What the API answers while what it stands on is away, and that it serves again by itself.

use devstack::{Database, Kafka, KafkaOptions, Postgres, PostgresOptions};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::api::{Api, KEY, sync_path, tenant};
use crate::support::{LONG, Place, committed, wait_until};

/// What says that something is away. The second: a machine so busy that the server's own limit for every request
/// (`ingress.request_timeout`, never more than 5 s) came first.
pub(super) async fn assert_away(answer: Response, title: &str) {
    let path = answer.url().path().to_owned();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    assert!(answer.headers().contains_key("retry-after"), "{path}");
    let body: Value = answer.json().await.unwrap();
    assert!(body["title"] == title || body["title"] == "Server.TimedOut", "{body}");
}

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
    let answers = (0..20).map(|_| api.request(Method::POST, &api.sync_path()).send());
    for answer in futures_util::future::join_all(answers).await {
        assert_away(answer.unwrap(), "Server.BrokerUnavailable").await;
    }
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

/// A Postgres of the test's own, and the settings that lead there.
async fn own_postgres(name: &str, changes: &[(&str, &str)]) -> (Postgres, Database, Api) {
    let started = tokio::task::spawn_blocking(|| {
        let postgres = Postgres::start(&PostgresOptions { own: true }).unwrap();
        let database = postgres.database("away").unwrap();
        (postgres, database)
    });
    let (postgres, database) = started.await.unwrap();
    let place = Place::new(name);
    let mut settings = place.settings();
    settings.insert("DATABASE_URL".to_owned(), database.url().to_owned());
    settings.remove("MAILTIDE_DATABASE_SCHEMA");
    settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let api = Api::start_with(place, settings).await;
    (postgres, database, api)
}

async fn killed(mut postgres: Postgres) -> Postgres {
    let killed = tokio::task::spawn_blocking(move || {
        postgres.kill().unwrap();
        postgres
    });
    killed.await.unwrap()
}

async fn restarted(mut postgres: Postgres) -> Postgres {
    let restarted = tokio::task::spawn_blocking(move || {
        postgres.restart().unwrap();
        postgres
    });
    restarted.await.unwrap()
}

async fn dropped(postgres: Postgres, database: Database) {
    tokio::task::spawn_blocking(move || drop((database, postgres))).await.unwrap();
}

/// Keys and connections are forgotten soon enough that all of it goes by what is remembered for an outage.
const SOON_STALE: (&str, &str) = ("MAILTIDE_INGRESS_CACHE_TTL", "50ms");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_syncs_of_known_mailboxes_go_on_and_no_look_is_answered_wrongly() {
    let (postgres, database, api) = own_postgres("no-database", &[SOON_STALE]).await;
    let beside = api.beside().await;
    let stranger = tenant(&api.store).await;
    let job = api.sync().await;
    let ask = async |base: &str, path: &str| {
        api.client.get(format!("{base}{path}")).header(KEY, &api.tenant.key).send().await.unwrap()
    };
    assert_eq!(ask(&beside.base, &job).await.status(), StatusCode::OK);

    let postgres = killed(postgres).await;
    for refused in [
        api.request(Method::GET, &job),
        api.request(Method::GET, "/jobs"),
        api.request_as(&stranger.key, Method::POST, &sync_path(&stranger.connection.to_string())),
        api.request(Method::POST, &api.sync_path()).header("idempotency-key", "one"),
    ] {
        assert_away(refused.send().await.unwrap(), "Server.DatabaseUnavailable").await;
    }
    let mut accepted = Vec::new();
    for _ in 0..20 {
        let answer = api.request(Method::POST, &api.sync_path()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        accepted.push(answer.headers()["location"].to_str().unwrap().to_owned());
    }
    for base in [&api.base, &beside.base] {
        assert_away(ask(base, &accepted[0]).await, "Server.DatabaseUnavailable").await;
    }
    let commands = committed(&api.place.topic("gmail.connection.poll")).await;
    assert_eq!(commands.len(), 1 + accepted.len(), "every command accepted is written, and none else");

    let postgres = restarted(postgres).await;
    // No projector runs: each row is the one that was kept. From the first answer on no look, anywhere, is a 404.
    for path in &accepted {
        for base in [&api.base, &beside.base] {
            wait_until(LONG, "the job can be read", || async {
                let answer = ask(base, path).await;
                assert_ne!(answer.status(), StatusCode::NOT_FOUND);
                answer.status() == StatusCode::OK
            })
            .await;
        }
    }
    wait_until(LONG, "a keyed sync is taken again", || async {
        let keyed = api.request(Method::POST, &api.sync_path()).header("idempotency-key", "one");
        keyed.send().await.unwrap().status() == StatusCode::ACCEPTED
    })
    .await;
    wait_until(LONG, "what does not exist is said not to", || async {
        ask(&api.base, &format!("/jobs/{}", uuid::Uuid::now_v7())).await.status() == StatusCode::NOT_FOUND
    })
    .await;
    dropped(postgres, database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_syncs_go_on_in_a_bounded_number_and_for_a_bounded_time() {
    let (postgres, database, api) = own_postgres("bounded", &[SOON_STALE, ("MAILTIDE_INGRESS_OUTAGE_ROWS", "2")]).await;
    let short = api.beside_with(&[("MAILTIDE_INGRESS_OUTAGE_GRACE", "1s")]).await;
    let sync = async |base: &str| {
        let request = api.client.post(format!("{base}{}", api.sync_path())).header(KEY, &api.tenant.key);
        request.send().await.unwrap()
    };
    for base in [&api.base, &short.base] {
        assert_eq!(sync(base).await.status(), StatusCode::ACCEPTED);
    }
    let postgres = killed(postgres).await;
    for _ in 0..2 {
        assert_eq!(sync(&api.base).await.status(), StatusCode::ACCEPTED);
    }
    assert_away(sync(&api.base).await, "Server.DatabaseUnavailable").await;
    // Longer than the time that keys are remembered for; then not even the command is written.
    wait_until(LONG, "the key is known no more", || async {
        let written = committed(&api.place.topic("gmail.connection.poll")).await.len();
        let refused = sync(&short.base).await.status() == StatusCode::SERVICE_UNAVAILABLE;
        refused && committed(&api.place.topic("gmail.connection.poll")).await.len() == written
    })
    .await;
    let postgres = restarted(postgres).await;
    for base in [&api.base, &short.base] {
        wait_until(LONG, "syncs are taken again", || async { sync(base).await.status() == StatusCode::ACCEPTED }).await;
    }
    dropped(postgres, database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_broker_and_a_database_gone_every_call_is_503_and_both_come_back() {
    let kafka =
        tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions { own: true, ..KafkaOptions::default() }).unwrap());
    let mut kafka = kafka.await.unwrap();
    let bootstrap = kafka.bootstrap().to_owned();
    let (postgres, database, api) =
        own_postgres("both", &[SOON_STALE, ("KAFKA_BOOTSTRAP_SERVERS", bootstrap.as_str())]).await;
    let job = api.sync().await;
    let postgres = killed(postgres).await;
    kafka = tokio::task::spawn_blocking(move || {
        kafka.kill().unwrap();
        kafka
    })
    .await
    .unwrap();
    assert_away(api.request(Method::GET, &job).send().await.unwrap(), "Server.DatabaseUnavailable").await;
    let sync = api.request(Method::POST, &api.sync_path()).send().await.unwrap();
    assert_away(sync, "Server.BrokerUnavailable").await;
    kafka = tokio::task::spawn_blocking(move || {
        kafka.restart().unwrap();
        kafka
    })
    .await
    .unwrap();
    let postgres = restarted(postgres).await;
    wait_until(LONG, "it serves again", || async {
        let read = api.request(Method::GET, &job).send().await.unwrap().status();
        let synced = api.request(Method::POST, &api.sync_path()).send().await.unwrap().status();
        read == StatusCode::OK && synced == StatusCode::ACCEPTED
    })
    .await;
    dropped(postgres, database).await;
    tokio::task::spawn_blocking(move || drop(kafka)).await.unwrap();
}
