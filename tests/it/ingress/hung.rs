//! A database that neither answers nor refuses, as when the network to it is lost: the API says so in time, goes on with
//! what can do without, and serves again by itself.

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode};

use super::api::{Api, KEY, database, sync_path, tenant};
use super::away::assert_away;
use crate::support::{LONG, Place, Swamp, committed, wait_until};

/// As many as there are connections to the database, and more.
const AT_ONCE: usize = 40;

const DATABASE: &str = "Server.DatabaseUnavailable";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_hangs_looks_are_503_syncs_of_known_mailboxes_go_on_and_then_all_is_as_before() {
    let place = Place::new("hung-database");
    let swamp = Swamp::before(place.database_url()).await;
    let mut settings = place.settings();
    settings.insert("DATABASE_URL".to_owned(), swamp.url());
    // Keys and connections are forgotten soon enough that all goes by what is remembered for an outage.
    settings.insert("MAILTIDE_INGRESS_CACHE_TTL".to_owned(), "50ms".to_owned());
    let api = Api::start_with(place, settings).await;
    let beside = api.beside().await;
    let short = api.beside_with(&[("MAILTIDE_INGRESS_OUTAGE_GRACE", "1s")]).await;
    let stranger = tenant(&api.store).await;
    let behind_its_back = database(&api).await;
    let ask = |base: &str, method: Method, path: &str| {
        api.client.request(method, format!("{base}{path}")).header(KEY, &api.tenant.key)
    };
    let topic = api.place.topic("gmail.connection.poll");
    let job = api.sync().await;
    for base in [&beside.base, &short.base] {
        assert_eq!(ask(base, Method::GET, &job).send().await.unwrap().status(), StatusCode::OK);
        let synced = ask(base, Method::POST, &api.sync_path()).send().await.unwrap();
        assert_eq!(synced.status(), StatusCode::ACCEPTED);
    }
    // Every connection of the pool is open, and will hang.
    let looks = || join_all((0..AT_ONCE).map(|_| api.request(Method::GET, &job).send()));
    assert!(looks().await.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    let written = committed(&topic).await.len();

    swamp.swallow(true);
    for answer in looks().await {
        assert_away(answer.unwrap(), DATABASE).await;
    }
    let with_name = |request: RequestBuilder| request.header("idempotency-key", "one");
    let refused = [
        api.request(Method::GET, "/jobs"),
        api.request(Method::GET, "/gmail-connections"),
        api.request(Method::DELETE, &format!("/gmail-connections/{}", api.tenant.connection)),
        api.request_as(&stranger.key, Method::POST, &sync_path(&stranger.connection.to_string())),
        with_name(api.request(Method::POST, &api.sync_path())),
    ];
    for answer in join_all(refused.map(RequestBuilder::send)).await {
        assert_away(answer.unwrap(), DATABASE).await;
    }
    let mut accepted = Vec::new();
    for _ in 0..20 {
        let answer = api.request(Method::POST, &api.sync_path()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        accepted.push(answer.headers()["location"].to_str().unwrap().to_owned());
    }
    for base in [&api.base, &beside.base] {
        assert_away(ask(base, Method::GET, &accepted[0]).send().await.unwrap(), DATABASE).await;
    }
    // For a bounded time: then not even the command is written.
    let mut more = 0;
    wait_until(LONG, "the instance that remembers for a second remembers no more", || {
        let asked = ask(&short.base, Method::POST, &api.sync_path()).send();
        more += 1;
        async move { asked.await.unwrap().status() == StatusCode::SERVICE_UNAVAILABLE }
    })
    .await;
    let commands = committed(&topic).await.len() - written;
    assert!((accepted.len()..=accepted.len() + more).contains(&commands), "{commands}, {more} asked of the other");
    let rows: i64 = behind_its_back.query_one("SELECT count(*) FROM jobs", &[]).await.unwrap().get(0);
    assert_eq!(rows, i64::try_from(written).unwrap(), "nothing got through");

    swamp.swallow(false);
    // No projector runs: each row is the one that was kept. From the first answer on no look, anywhere, is a 404.
    for path in &accepted {
        for base in [&api.base, &beside.base] {
            wait_until(LONG, "the job can be read", || async {
                let status = ask(base, Method::GET, path).send().await.unwrap().status();
                assert_ne!(status, StatusCode::NOT_FOUND);
                status == StatusCode::OK
            })
            .await;
        }
    }
    // No connection that hung is used again.
    wait_until(LONG, "looks are answered on every connection", || async {
        looks().await.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK)
    })
    .await;
    wait_until(LONG, "a sync that named itself is taken again", || async {
        let sync = with_name(api.request(Method::POST, &api.sync_path()));
        sync.send().await.unwrap().status() == StatusCode::ACCEPTED
    })
    .await;
    wait_until(LONG, "the connection was not deleted halfway: it can be read", || async {
        let path = format!("/gmail-connections/{}", api.tenant.connection);
        api.request(Method::GET, &path).send().await.unwrap().status() == StatusCode::OK
    })
    .await;
    wait_until(LONG, "every instance takes syncs again", || async {
        let sync = ask(&short.base, Method::POST, &api.sync_path());
        sync.send().await.unwrap().status() == StatusCode::ACCEPTED
    })
    .await;
}
