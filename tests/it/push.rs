//! Pushes, from mail that arrives in a watched mailbox to events, as the simulator signs and sends them.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devstack::{Kafka, KafkaOptions};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use simulator::{Behaviour, Delivery, Fault, HistoryIdForm, Latency, Mails, NewMailbox, Rule, Running, Target};
use store::connections::{self, Consent};
use tokio::sync::mpsc;

use crate::house::{House, Services, now};
use crate::support::{LONG, wait_for, wait_until};

const EMAIL: &str = "Payable@Example.com";
const AUDIENCE: &str = "https://mailtide.example/push/gmail";
const SENDER: &str = "push@project.iam.gserviceaccount.com";

/// A pipeline on a Gmail of its own, with one mailbox.
struct World {
    google: Running,
    house: Arc<House>,
    connection: domain::ConnectionId,
    refresh_token: String,
}

impl World {
    async fn new(name: &str, changes: &[(&str, &str)]) -> Self {
        let google = simulator::start(simulator::Settings::default()).await.unwrap();
        let base = &google.base_url;
        let (token_url, keys) = (format!("{base}/token"), format!("{base}/oauth2/v3/certs"));
        let mut settings = vec![
            ("MAILTIDE_GMAIL_API_URL", base.as_str()),
            ("MAILTIDE_GMAIL_TOKEN_URL", &token_url),
            ("MAILTIDE_PUSH_AUDIENCE", AUDIENCE),
            ("MAILTIDE_PUSH_SERVICE_ACCOUNT", SENDER),
            ("MAILTIDE_PUSH_JWKS_URL", &keys),
        ];
        settings.extend_from_slice(changes);
        let house = House::with(name, &settings).await;
        let made = google.control().create(&NewMailbox { email: EMAIL.to_owned(), ..NewMailbox::default() }).unwrap();
        let connection = house.consent(EMAIL, made.refresh_token.clone()).await;
        Self { google, house, connection, refresh_token: made.refresh_token }
    }

    fn target(&self, url: String) -> Target {
        Target {
            url,
            audience: Some(AUDIENCE.to_owned()),
            service_account: SENDER.to_owned(),
            subscription: "projects/p/subscriptions/gmail".to_owned(),
            history_id: HistoryIdForm::Either,
        }
    }

    /// Calls Gmail as the mailbox's owner.
    async fn call(&self, method: &str, body: Value) {
        let (http, base) = (reqwest::Client::new(), &self.google.base_url);
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "owner"),
            ("client_secret", ""),
            ("refresh_token", &self.refresh_token),
        ];
        let token: Value = http.post(format!("{base}/token")).form(&form).send().await.unwrap().json().await.unwrap();
        let token = token["access_token"].as_str().unwrap();
        let url = format!("{base}/gmail/v1/users/me/{method}");
        let answer = http.post(url).bearer_auth(token).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn watch(&self) {
        self.call("watch", json!({"topicName": "projects/p/topics/gmail"})).await;
    }

    /// Pushes of the mailbox's changes go to ingress from now on.
    async fn push_to_ingress(&self) {
        let target = self.target(self.house.url("/push/gmail"));
        self.google.control().set_push_target(Some(target));
        self.watch().await;
    }

    /// A token that Google signed for ingress, and the push that it came with.
    async fn signed(&self) -> (String, Value) {
        let (sender, mut posts) = mpsc::unbounded_channel();
        let take = move |headers: HeaderMap, body: String| async move {
            let token = headers["authorization"].to_str().unwrap().to_owned();
            // Further pushes find nobody, which is fine.
            let _ = sender.send((token, serde_json::from_str(&body).unwrap()));
            StatusCode::NO_CONTENT
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/", post(take))).into_future());
        self.google.control().set_push_target(Some(self.target(url)));
        self.watch().await;
        tokio::time::timeout(LONG, posts.recv()).await.expect("a watch is told of at once").unwrap()
    }

    /// What becomes of a push, sent again for as long as it is answered 503, as Pub/Sub does.
    async fn push(&self, token: Option<&str>, body: impl Into<String>) -> Response {
        let body = body.into();
        wait_for(LONG, "the push is answered", || async {
            let answer = self.push_once(token, body.clone()).await;
            (answer.status() != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
        })
        .await
    }

    async fn push_once(&self, token: Option<&str>, body: String) -> Response {
        let request = reqwest::Client::new().post(self.house.url("/push/gmail")).body(body);
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        request.send().await.unwrap()
    }

    fn deliver(&self, count: usize) -> Vec<String> {
        let delivered = self.google.control().deliver(EMAIL, Mails::Synthetic(count), &Delivery::default()).unwrap();
        delivered.into_iter().map(|truth| truth.id).collect()
    }

    fn go_wrong(&self, probability: f64, fault: Fault) {
        let (mailboxes, calls) = (Vec::new(), vec!["push".to_owned()]);
        let rule = Rule { mailboxes, calls, probability, after: 0, times: None, from_ms: None, until_ms: None, fault };
        self.google.control().add_fault(rule);
    }

    async fn values(&self, topic: &str) -> Vec<Value> {
        let records = self.house.committed(topic).await;
        records.iter().map(|record| events::to_json(record.value.as_deref().unwrap()).unwrap()).collect()
    }

    /// The commands that pushes became, for one connection.
    async fn commands(&self, connection: domain::ConnectionId) -> usize {
        let of_it = |command: &&Value| {
            command["trigger"] == "push" && command["connectionId"] == connection.to_string().as_str()
        };
        self.values("gmail.connection.poll").await.iter().filter(of_it).count()
    }

    async fn discovered(&self) -> Vec<String> {
        let events = self.values("gmail.message.discovered").await;
        let mut ids: Vec<_> = events.iter().map(|event| event["messageId"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    async fn until_discovered(&self, mut expected: Vec<String>) {
        expected.sort();
        wait_until(LONG, "all that was delivered is discovered", || async {
            self.discovered().await.len() >= expected.len()
        })
        .await;
        assert_eq!(self.discovered().await, expected, "each once");
    }
}

fn notice(address: &str) -> String {
    let data = STANDARD.encode(json!({"emailAddress": address, "historyId": 7}).to_string());
    json!({"message": {"data": data, "messageId": "1"}, "subscription": "s"}).to_string()
}

async fn stop(world: &World, services: Services) {
    world.google.control().set_push_target(None);
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_in_a_watched_mailbox_is_discovered_without_anybody_asking() {
    let world = World::new("push", &[]).await;
    let services = world.house.open().await;
    let mut delivered = world.deliver(2);
    // The watch is told of at once, which brings the mailbox up to date.
    world.push_to_ingress().await;
    world.until_discovered(delivered.clone()).await;
    for _ in 0..3 {
        delivered.extend(world.deliver(3));
        world.google.control().clock().advance(1_000);
        // A change that follows within a second is not told of; the next one tells of both.
        delivered.extend(world.deliver(1));
        world.until_discovered(delivered.clone()).await;
    }
    let jobs = world.values("gmail.job.status").await;
    assert!(jobs.iter().all(|job| job["trigger"] == "push" && job["state"] != "failed"), "{jobs:?}");
    stop(&world, services).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_readable_yet_when_the_push_comes_is_found_by_the_second_look() {
    let world = World::new("push-again", &[]).await;
    let services = world.house.open().await;
    world.push_to_ingress().await;
    let mut delivered = world.deliver(1);
    world.google.control().clock().advance(1_000);
    delivered.extend(world.deliver(1));
    world.until_discovered(delivered.clone()).await;
    // From here on a record becomes readable later than its push comes, and no other push follows.
    let behaviour = Behaviour { history_lag_ms: 2_000, ..Behaviour::default() };
    world.google.control().set_behaviour(Some(EMAIL), behaviour).unwrap();
    world.google.control().clock().advance(1_000);
    delivered.extend(world.deliver(5));
    world.until_discovered(delivered).await;
    stop(&world, services).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_come_twice_late_out_of_order_or_not_at_all_lose_nothing_and_double_nothing() {
    let world = World::new("push-faults", &[]).await;
    let services = world.house.open().await;
    world.push_to_ingress().await;
    let mut delivered = world.deliver(1);
    world.go_wrong(0.3, Fault::Duplicate(3));
    world.go_wrong(0.3, Fault::Lost);
    // Later ones overtake.
    world.go_wrong(1.0, Fault::Latency(Latency::Uniform(0, 1_500)));
    for _ in 0..20 {
        world.google.control().clock().advance(1_000);
        delivered.extend(world.deliver(2));
    }
    world.google.control().clear_faults();
    // The last one comes: it tells of all that those lost would have told.
    world.google.control().clock().advance(1_000);
    delivered.extend(world.deliver(1));
    world.until_discovered(delivered).await;
    stop(&world, services).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_token_nothing_is_written_and_nothing_is_told() {
    let world = World::new("push-refused", &[]).await;
    let ingress = world.house.ingress().await;
    let (token, _) = world.signed().await;
    let forged = format!("{}x", &token[..token.len() - 1]);
    let (header, rest) = token.strip_prefix("Bearer ").unwrap().split_once('.').unwrap();
    let unsigned = format!("Bearer {header}.{}.", rest.split_once('.').unwrap().0);
    let body = notice(EMAIL);
    for token in
        [None, Some(""), Some("Bearer "), Some("Bearer x.y.z"), Some("Basic eDp5"), Some(&forged), Some(&unsigned)]
    {
        let answer = world.push(token, body.clone()).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{token:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert_eq!(answer.json::<Value>().await.unwrap()["title"], "Push.TokenInvalid");
    }
    // Signed by Google, for somebody else or by somebody else. The simulator tries each five times.
    let before = world.google.control().usage();
    for target in [
        Target { audience: Some("https://else.example".to_owned()), ..world.target(String::new()) },
        Target { service_account: "other@project.iam.gserviceaccount.com".to_owned(), ..world.target(String::new()) },
    ] {
        world.google.control().set_push_target(Some(Target { url: world.house.url("/push/gmail"), ..target }));
        let posted = world.google.control().usage().pushes_posted;
        world.watch().await;
        wait_until(LONG, "the push is made", || async { world.google.control().usage().pushes_posted > posted }).await;
    }
    wait_until(LONG, "both are given up", || async {
        world.google.control().usage().pushes_posted == before.pushes_posted + 10
    })
    .await;
    assert_eq!(world.google.control().usage().pushes_acknowledged, before.pushes_acknowledged);
    assert_eq!(world.values("gmail.connection.poll").await, Vec::<Value>::new());
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_taken_is_acknowledged_and_writes_nothing() {
    let world = World::new("push-odd", &[]).await;
    let ingress = world.house.ingress().await;
    let (token, push) = world.signed().await;
    let token = Some(token.as_str());
    for body in [
        notice("nobody@example.com"),
        String::new(),
        "{}".to_owned(),
        json!({"message": {"data": "%"}}).to_string(),
        " ".repeat(100_000),
    ] {
        assert_eq!(world.push(token, body.clone()).await.status(), StatusCode::NO_CONTENT, "{body:.50}");
    }
    assert_eq!(world.values("gmail.connection.poll").await, Vec::<Value>::new());
    assert_eq!(world.push(token, push.to_string()).await.status(), StatusCode::NO_CONTENT);
    assert!(world.commands(world.connection).await >= 1);
    let get = reqwest::get(world.house.url("/push/gmail")).await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_organisation_that_connected_the_address_is_told_unless_it_paused_or_deleted_it() {
    let world = World::new("push-tenants", &[]).await;
    let ingress = world.house.ingress().await;
    let other = store::organisations::create(&world.house.store, "other", now()).await.unwrap().organisation_id;
    let refresh_token = world.refresh_token.clone().into();
    let consent = Consent { account: &EMAIL.to_lowercase(), email: EMAIL, refresh_token: &refresh_token };
    let second = connections::add(&world.house.store, other, &consent, now()).await.unwrap();
    let (token, push) = world.signed().await;
    assert_eq!(world.push(Some(&token), push.to_string()).await.status(), StatusCode::NO_CONTENT);
    assert!(world.commands(world.connection).await >= 1 && world.commands(second.connection_id).await >= 1);
    let commands = world.values("gmail.connection.poll").await;
    let of = |id: domain::ConnectionId| {
        let command = commands.iter().find(|command| command["connectionId"] == id.to_string().as_str());
        command.unwrap()["organisationId"].as_str().unwrap().to_owned()
    };
    assert_eq!(of(world.connection), world.house.organisation.to_string());
    assert_eq!(of(second.connection_id), other.to_string());
    // Who paused it or deleted it is left alone, once ingress has forgotten what it knew of the address.
    let store = &world.house.store;
    let paused = connections::Change { paused: Some(true), ..connections::Change::default() };
    connections::change(store, world.house.organisation, world.connection, paused).await.unwrap();
    connections::delete(store, other, second.connection_id, now()).await.unwrap();
    wait_until(LONG, "nobody is told any more", || async {
        let before = world.values("gmail.connection.poll").await.len();
        assert_eq!(world.push(Some(&token), push.to_string()).await.status(), StatusCode::NO_CONTENT);
        world.values("gmail.connection.poll").await.len() == before
    })
    .await;
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_mailboxs_pushes_becomes_few_commands() {
    let world = World::new("push-flood", &[]).await;
    let ingress = world.house.ingress().await;
    let (token, push) = world.signed().await;
    let begun = Instant::now();
    for _ in 0..5 {
        let flood = (0..40).map(|_| world.push(Some(&token), push.to_string()));
        for answer in futures_util::future::join_all(flood).await {
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        }
    }
    let most = 1 + begun.elapsed().as_secs() as usize + 1;
    let commands = world.commands(world.connection).await;
    assert!((2..=most).contains(&commands), "{commands} commands of 200 pushes in {:?}", begun.elapsed());
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_subscription_is_set_up_there_is_no_such_path() {
    let house = House::new("push-off").await;
    let ingress = house.ingress().await;
    let answer = reqwest::Client::new().post(house.url("/push/gmail")).body(notice(EMAIL)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.json::<Value>().await.unwrap()["title"], "Request.PathNotFound");
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_a_push_is_refused_so_that_it_comes_again() {
    let kafka =
        tokio::task::spawn_blocking(|| Kafka::start(&KafkaOptions { own: true, ..KafkaOptions::default() }).unwrap());
    let mut kafka = kafka.await.unwrap();
    let bootstrap = kafka.bootstrap().to_owned();
    let world = World::new("push-away", &[("KAFKA_BOOTSTRAP_SERVERS", &bootstrap)]).await;
    let ingress = world.house.ingress().await;
    let (token, push) = world.signed().await;
    assert_eq!(world.push(Some(&token), push.to_string()).await.status(), StatusCode::NO_CONTENT);
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.kill().unwrap();
        kafka
    });
    let mut kafka = kafka.await.unwrap();
    let answer = world.push_once(Some(&token), push.to_string()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.restart().unwrap();
        kafka
    });
    let kafka = kafka.await.unwrap();
    assert_eq!(world.push(Some(&token), push.to_string()).await.status(), StatusCode::NO_CONTENT);
    ingress.stop().await;
    tokio::task::spawn_blocking(move || drop(kafka)).await.unwrap();
}
