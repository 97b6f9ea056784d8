//! Pushes as a subscriber receives them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use base64::Engine as _;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use simulator::{Delivery, HistoryIdForm, Mails, Target};
use tokio::sync::mpsc;

use crate::client::{EMAIL, World};
use crate::consent::verified;

/// A subscriber that refuses the first so many posts, and hands on the rest.
struct Subscriber {
    url: String,
    posts: mpsc::UnboundedReceiver<(HeaderMap, Value)>,
    refuse: Arc<AtomicUsize>,
}

impl Subscriber {
    async fn start() -> Self {
        let (sender, posts) = mpsc::unbounded_channel();
        let (sender, refuse) = (Arc::new(Mutex::new(sender)), Arc::new(AtomicUsize::new(0)));
        let refusing = Arc::clone(&refuse);
        let handler = move |head: HeaderMap, body: Bytes| async move {
            let left = refusing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            sender.lock().unwrap().send((head, serde_json::from_slice(&body).unwrap())).unwrap();
            StatusCode::NO_CONTENT
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/push/gmail", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/push/gmail", post(handler))).into_future());
        Self { url, posts, refuse }
    }

    async fn next(&mut self) -> (HeaderMap, Value) {
        tokio::time::timeout(Duration::from_secs(10), self.posts.recv()).await.expect("a push within 10 s").unwrap()
    }
}

fn data(push: &Value) -> Value {
    let text = push["message"]["data"].as_str().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

async fn watched(target: impl FnOnce(&str) -> Target, body: &str) -> (World, Subscriber) {
    let world = World::new().await;
    let clock = world.control().clock();
    clock.stand_at(clock.now_ms());
    let subscriber = Subscriber::start().await;
    world.control().set_push_target(Some(target(&subscriber.url)));
    let bearer = format!("Bearer {}", world.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let reply = world.raw("POST", "/gmail/v1/users/me/watch", &headers, body.as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    (world, subscriber)
}

fn plain(url: &str) -> Target {
    serde_json::from_value(json!({"url": url})).unwrap()
}

fn deliver(world: &World, label: &str) -> u64 {
    let how = Delivery { labels: Some(vec![label.to_owned()]), ..Delivery::default() };
    world.control().clock().advance(1_000);
    world.control().deliver(EMAIL, Mails::Synthetic(1), &how).unwrap();
    world.control().head(EMAIL).unwrap()
}

#[tokio::test]
async fn a_change_is_pushed_signed_and_again_until_acknowledged() {
    let form = |url: &str| Target { audience: Some("aud".to_owned()), history_id: HistoryIdForm::Text, ..plain(url) };
    let (world, mut subscriber) = watched(form, r#"{"topicName": "projects/p/topics/t"}"#).await;
    let start = world.control().head(EMAIL).unwrap();
    let (_, first) = subscriber.next().await;
    assert_eq!(data(&first), json!({"emailAddress": EMAIL, "historyId": start.to_string()}), "a new watch is told of");

    subscriber.refuse.store(2, Ordering::SeqCst);
    let head = deliver(&world, "INBOX");
    let (headers, push) = subscriber.next().await;
    assert_eq!(data(&push)["historyId"], head.to_string());
    assert_eq!(push["subscription"], "projects/project/subscriptions/gmail");
    assert_ne!(push["message"]["messageId"], first["message"]["messageId"]);
    let usage = world.get("/control/usage").await.json();
    assert_eq!((&usage["pushesPosted"], &usage["pushesAcknowledged"]), (&json!(4), &json!(2)));

    let keys = world.raw("GET", "/oauth2/v3/certs", &[], b"").await.json();
    let token = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = verified(token, &keys["keys"][0]);
    let now = world.control().clock().now_ms() / 1_000;
    assert_eq!(claims["iss"], "https://accounts.google.com");
    assert_eq!((&claims["aud"], &claims["email_verified"]), (&json!("aud"), &json!(true)));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(now), &json!(now + 3_600)));
}

#[tokio::test]
async fn at_most_one_a_second_filtered_by_label_and_silent_after_a_week() {
    let body = r#"{"topicName": "projects/p/topics/t", "labelIds": ["INBOX"]}"#;
    let (world, mut subscriber) = watched(plain, body).await;
    subscriber.next().await;
    deliver(&world, "SPAM");
    let first = deliver(&world, "INBOX");
    // In the same second: dropped.
    world.control().deliver(EMAIL, Mails::Synthetic(1), &Delivery::default()).unwrap();
    let third = deliver(&world, "INBOX");
    assert_eq!(data(&subscriber.next().await.1)["historyId"], first);
    assert_eq!(data(&subscriber.next().await.1)["historyId"], third);
    world.control().clock().advance(7 * 86_400_000);
    deliver(&world, "INBOX");
    // The next watch is told of; had the lapsed one been, it would come first.
    let token = world.refresh().await.json()["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let head = deliver(&world, "SPAM");
    assert_eq!(world.raw("POST", "/gmail/v1/users/me/watch", &headers, body.as_bytes()).await.status, 200);
    assert_eq!(data(&subscriber.next().await.1)["historyId"], head);
}

#[tokio::test]
async fn pushes_are_lost_and_doubled_on_command() {
    let (world, mut subscriber) = watched(plain, r#"{"topicName": "projects/p/topics/t"}"#).await;
    subscriber.next().await;
    let rule = |fault: Value| serde_json::from_value(json!({"calls": ["push"], "times": 1, "fault": fault})).unwrap();
    world.control().add_fault(rule(json!("lost")));
    deliver(&world, "INBOX");
    world.control().add_fault(rule(json!({"duplicate": 1})));
    let head = deliver(&world, "INBOX");
    let (first, second) = (subscriber.next().await.1, subscriber.next().await.1);
    assert_eq!(data(&first)["historyId"], head);
    assert_eq!(first["message"]["messageId"], second["message"]["messageId"]);
}
